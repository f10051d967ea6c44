"""The document of one model, beside the reference policies that anybody would ask about."""

from collections.abc import Mapping, Sequence

from ppo_workbench.config import ScoredSplit
from ppo_workbench.pipeline.compare.cell import THRESHOLD, audited
from ppo_workbench.pipeline.models.evaluation import Evaluation
from ppo_workbench.pipeline.models.stored import run_on_split
from ppo_workbench.reports.comparison.document import Comparand
from ppo_workbench.reports.comparison.words import SINGLE
from ppo_workbench.scoring.comparison import ArmRun, MarketComparison
from ppo_workbench.scoring.documents import Card, Compared, Document
from ppo_workbench.scoring.figures import display_name, invalid_trades
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.reference.yardsticks import tuned_threshold, yardsticks
from ppo_workbench.scoring.session_path import LEAST_SESSIONS, SessionPath
from ppo_workbench.trading.experiment import Experiment

HOLD = "buy-and-hold"


def references(experiment: Experiment, split: str) -> list[Comparand]:
    """Run the threshold rule tuned on train, and buy-and-hold, over a split that is open."""
    policies = {HOLD: next(p for p in yardsticks(len(experiment.bars), 0) if p.name == HOLD)}
    threshold = tuned_threshold(experiment)
    if threshold is not None:
        policies = {THRESHOLD: threshold, **policies}
    found = []
    for name, policy in policies.items():
        trace = run_on_split(experiment, policy, split)
        counts = audited([trace], experiment, policy)
        found.append(Comparand(name, display_name(name), trace, counts))
    return found


def single_document(
    found: Evaluation, split: ScoredSplit, own: Comparand, beside: Sequence[Comparand]
) -> Document:
    """Return the document of a single model: intervals over its days, none over seeds."""
    scored, bars, access = scorecard(found.trace), found.experiment.bars, found.access
    everyone = [own, *beside]
    cards = {each.name: scorecard(each.trace).to_dict() for each in everyone}
    document: Document = {
        "format_version": 1,
        "kind": SINGLE,
        "name": found.metadata.name,
        "protocol": split.value,
        "git_commit": found.metadata.git_commit,
        "setup": {
            "timesteps": found.metadata.training.timesteps,
            "seeds": [found.metadata.seed],
            "markets": [
                {
                    "name": split.value,
                    "instrument": bars.instrument,
                    "bar_seconds": bars.bar_seconds,
                    "sessions": scored.n_sessions,
                    "years": scored.years,
                    "looks": 0 if access is None else access.looks,
                    "synthetic": found.metadata.data.source == "synthetic",
                }
            ],
        },
        "arms": [
            {
                "name": each.name,
                "title": each.title,
                "kind": "trained" if each is own else "yardstick",
                "overrides": [],
            }
            for each in everyone
        ],
        "cards": {split.value: {name: [values] for name, values in cards.items()}},
        "audit": {each.name: each.audit for each in everyone},
        "invalid_trades": {name: invalid_trades([card]) for name, card in cards.items()},
        "conclusion": list(found.notes()),
    }
    return {**document, **_compared(everyone, cards, found.metadata.seed, scored.years)}


def _compared(
    everyone: Sequence[Comparand], cards: Mapping[str, Card], seed: int, years: float
) -> Compared:
    """Return figures, targets and differences over the days; nothing from too few sessions."""
    if any(len(each.trace.session_ends()) < LEAST_SESSIONS for each in everyone):
        return {}
    runs = [
        ArmRun(each.name, seed, cards[each.name], SessionPath.from_trace(each.trace))
        for each in everyone
    ]
    compared, own = MarketComparison(runs, worlds=False), everyone[0].name
    pairs = [[own, each.name] for each in everyone[1:]]
    return {
        "method": compared.method,
        "figures": compared.figures(),
        "targets": compared.targets(own, years),
        "differences": compared.differences(pairs),
    }
