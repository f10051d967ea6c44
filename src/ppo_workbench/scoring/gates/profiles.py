"""Which gates a profile asks for, and the evidence that they judge."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ppo_workbench.config import PromotionProfile
from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.annual import years_of
from ppo_workbench.scoring.audit.verdict import AuditReport
from ppo_workbench.scoring.gates import checks as g
from ppo_workbench.scoring.gates.checks import Alternative, Gate
from ppo_workbench.scoring.gates.sampled import (
    deflated_validation,
    expectancy,
    probabilistic_test,
    probability_of_loss,
)
from ppo_workbench.scoring.metrics import Scorecard, scorecard
from ppo_workbench.scoring.session_path import LEAST_SESSIONS, SessionPath
from ppo_workbench.scoring.statistics.resampling import STUDENTISED, Difference, resample
from ppo_workbench.scoring.statistics.samples import StatisticsError
from ppo_workbench.scoring.trace import Trace

EXECUTE, REJECT, THRESHOLD, CHAMPION = "ppo_execute", "ppo_reject", "threshold", "champion"
RIVALS = {
    EXECUTE: "standard PPO whose forbidden actions are carried out",
    REJECT: "standard PPO whose forbidden orders the broker rejects",
    THRESHOLD: "the threshold rule tuned on train under the same masks",
    CHAMPION: "the reigning champion",
}
MODEL = "model"
STRESSES = ("costs_x2", "latency_1_bar")


@dataclass(frozen=True)
class Evidence:
    """What a promotion knows of its model.

    Attributes:
        trace: What the model did on the test.
        accesses: Variants scored on that test, this one included.
        validation_excess: float64 (T,), the model's excess session returns on validation.
        trial_returns: float64 (trials, T), excess session returns of the study's trials on
            validation, each the mean over its seeds.
        trials: All that are known: begun in the study, this promotion's own, and elsewhere.
        evaluations: Independent evaluations among which each of them chose its checkpoint.
        rivals: Sessions of each rival on the same test, or why there are none; a rival that
            is left out is not asked about, but for those that the profile requires.
        every_seed: Sessions on the test of all seeds of `MODEL` and of `REJECT`, run k of both
            the same seed.  Whether masks harm, and whether training beats a rule, are questions
            about trainings: models of one training differ by more than their days' noise.
        stressed: What changed, and the scorecard on the test, for each of `STRESSES`.
        audit: Of `trace`.
        golden_failure: What refused the saved model, None if nothing did.
        golden_vectors: Golden vectors that were replayed.
        gaps: Bars between the splits.
        gap_asked: `splits.gap_bars`.
        seen_test: Bars of the test that were in memory during training.
        alternative: What powers suppose.
    """

    trace: Trace
    accesses: int
    validation_excess: Floats
    trial_returns: Floats
    trials: int
    rivals: Mapping[str, SessionPath | str]
    stressed: Mapping[str, tuple[str, Scorecard]]
    audit: AuditReport
    golden_failure: str | None
    golden_vectors: int
    gaps: Sequence[int]
    gap_asked: int
    seen_test: int
    evaluations: float = 1.0
    alternative: Alternative = field(default_factory=Alternative)
    every_seed: Mapping[str, Sequence[SessionPath]] = field(default_factory=dict)


def judge(profile: PromotionProfile, evidence: Evidence) -> list[Gate]:
    """Return the gates of a profile with their verdicts, the protocol's last."""
    own: list[Gate] = []
    if profile is PromotionProfile.targets:
        own = _targets(evidence)
    if profile is PromotionProfile.production:
        own = _production(evidence)
    return [*own, *_protocol(evidence)]


def profile_of(names: Collection[str]) -> PromotionProfile:
    """Return the profile whose gates have these names."""
    if THRESHOLD in names:
        return PromotionProfile.production
    if any(name.startswith("target_") for name in names):
        return PromotionProfile.targets
    return PromotionProfile.research


def _protocol(evidence: Evidence) -> list[Gate]:
    return [
        g.recorded_access(evidence.accesses),
        g.split_hygiene(evidence.gaps, evidence.gap_asked, evidence.seen_test),
        g.audited(evidence.audit),
        g.golden_vectors(evidence.golden_failure, evidence.golden_vectors),
    ]


def _targets(evidence: Evidence) -> list[Gate]:
    card, trace = scorecard(evidence.trace), evidence.trace
    long_enough = len(trace.session_ends()) >= LEAST_SESSIONS
    excess, q = trace.daily_returns() - trace.cash_returns(), trace.sessions_per_year
    return [
        probabilistic_test(excess, evidence.accesses, q, evidence.alternative),
        g.target_sharpe(card),
        g.target_drawdown(card, SessionPath.from_trace(trace) if long_enough else None),
        g.target_win_rate(card),
        g.target_trades(card),
        g.target_exposure(card),
    ]


def _production(evidence: Evidence) -> list[Gate]:
    trace, alternative = evidence.trace, evidence.alternative
    excess, q = trace.daily_returns() - trace.cash_returns(), trace.sessions_per_year
    return [
        g.enough_round_trips(scorecard(trace)),
        expectancy(trace, alternative),
        deflated_validation(
            evidence.validation_excess,
            (evidence.trials, evidence.evaluations),
            q,
            alternative,
        ),
        probability_of_loss(evidence.trial_returns, q, alternative),
        probabilistic_test(excess, evidence.accesses, q, alternative),
        *_rivals(evidence),
        *(_stress(evidence, name) for name in STRESSES),
    ]


def _stress(evidence: Evidence, name: str) -> Gate:
    if name not in evidence.stressed:
        return g.missing(name, "the model was not scored under it")
    change, card = evidence.stressed[name]
    return g.stressed(name, change, card, evidence.alternative)


def _rivals(evidence: Evidence) -> list[Gate]:
    """Judge the paired differences: of trainings to `REJECT` and `THRESHOLD`, else of models."""
    names = [EXECUTE, *([REJECT] if REJECT in evidence.rivals else []), THRESHOLD]
    found = [_rival(evidence, name) for name in names]
    reigns = CHAMPION in evidence.rivals
    return [*found, _rival(evidence, CHAMPION) if reigns else g.no_champion()]


def _rival(evidence: Evidence, name: str) -> Gate:
    path = evidence.rivals.get(name, "it was not scored")
    if isinstance(path, str):
        return g.missing(name, path)
    try:
        own = SessionPath.from_trace(evidence.trace)
        runs = evidence.every_seed
        seeds = 1
        if MODEL in runs and (name in runs or name == THRESHOLD):
            seeds = len(runs[MODEL])
            difference = paired_difference(runs[MODEL], runs.get(name, [path] * seeds))
        else:
            difference = paired_difference([own], [path])
    except StatisticsError as error:
        return g.missing(name, str(error))
    years = years_of(len(own), own.sessions_per_year)
    alternative, rival = evidence.alternative, RIVALS[name]
    if name == EXECUTE:
        return g.decidedly_better(name, rival, difference, years, alternative)
    if name == REJECT:
        told = f"{rival} (mean of {seeds} seeds each)" if seeds > 1 else rival
        return g.not_decidedly_worse(name, told, difference)
    if name == THRESHOLD:
        told = f"{rival} (mean of {seeds} seeds)" if seeds > 1 else rival
        return g.better(name, told, difference, alternative)
    return g.not_worse(name, rival, difference, alternative)


def paired_difference(
    model: Sequence[SessionPath], rival: Sequence[SessionPath], resamples: int = 2000
) -> Difference:
    """Return the difference of annual Sharpe ratios, model minus rival, paired by day and run.

    Args:
        model: One run or more; with several the interval allows for other seeds too.
        rival: As many.
        resamples: Number of bootstrap draws.

    Raises:
        StatisticsError: The two have different sessions, or numbers of runs.
    """
    arms = {MODEL: model, "rival": rival}
    drawn = resample(arms, resamples=resamples, figures=(STUDENTISED,))
    return drawn.difference(STUDENTISED, MODEL, "rival", g.CONFIDENCE)
