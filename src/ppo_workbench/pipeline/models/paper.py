"""`task=paper`: replay bars through the Decider and a simulated account, and look on."""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np

from ppo_workbench.config import Config, ConfigError, ScoredSplit
from ppo_workbench.delivery.artifact import Artifact, load_artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.live.account import SimulatedAccount
from ppo_workbench.delivery.messages import Bar, bar_messages
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.delivery.settings import SECTIONS
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.regimes import REGIME
from ppo_workbench.market.splits import Split
from ppo_workbench.pipeline.models.evaluation import as_trained, settings_note
from ppo_workbench.pipeline.models.stored import named_artifact, open_range
from ppo_workbench.pipeline.models.view import PaperView, paper_view
from ppo_workbench.pipeline.result_json import check_result_path, write_result
from ppo_workbench.pipeline.train.scores import lower_bound
from ppo_workbench.scoring.backtest import trace_of
from ppo_workbench.scoring.metrics import Scorecard, scorecard
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.account import OUTCOME_DTYPE
from ppo_workbench.trading.experiment import prepare, split_bars


def paper(config: Config, console: WorkbenchConsole | None = None) -> Scorecard:
    """Replay the split `config.split` of the configured bars and score what was done.

    Features and actions are the model's own; bars, costs and rules are the configuration's.  The
    scorecard equals that of a backtest.  Test bars are recorded as opened before one is replayed.

    Raises:
        ConfigError: The bars are not such as the model decides on.
    """
    console = console or WorkbenchConsole()
    artifact = load_artifact(*named_artifact(config))
    check_result_path(config.result_json)
    config = as_trained(config, artifact.metadata)
    bars, splits = split_bars(config)
    _check_bars(bars, artifact.metadata)
    split = splits["test" if config.split is ScoredSplit.all else config.split.value]
    if config.split is ScoredSplit.all:
        split = Split("test", splits["train"].start, splits["test"].stop)
    if split.name == "test":
        why = f"paper trading of {config.artifact}"
        access = open_range(bars, split.start, split.stop, why)
        console.show(
            f"note: test access {access.looks} to these bars of {bars.instrument}, recorded"
        )
    seen = bars.slice(0, split.stop)
    config = prepare(config, bars, splits).config  # with what follows from the bars
    decider = Decider(_with_settings(artifact, config))
    decider.market.overlapping = True  # as the backtest takes recorded bars
    decider.warm_up(seen.slice(0, split.start))
    console.show(f"{config.artifact} on {config.split.value} of {bars.instrument}, on paper")
    console.show(f"note: {settings_note(config, artifact.metadata)}")
    with paper_view(console, len(split) - 1) as view:
        trace = replay(decider, seen, split, config.paper.bars_per_second, view)
    card = scorecard(trace)
    console.show_choices(card.describe())
    scorecards = {str(config.artifact): {config.split.value: card.to_dict()}}
    write_result(config.result_json, {"score": lower_bound(card), "scorecards": scorecards})
    return card


def _with_settings(artifact: Artifact, config: Config) -> Artifact:
    """Return a model that decides with the settings of `config`."""
    own = {name: plain(asdict(getattr(config, name))) for name in SECTIONS}
    metadata = artifact.metadata
    metadata = metadata.model_copy(update={"config": {**metadata.config, **own}})
    return replace(artifact, metadata=metadata)


def _check_bars(bars: Bars, metadata: Metadata) -> None:
    data = metadata.data
    pairs = {
        "bars last": (bars.bar_seconds, data.bar_seconds, "seconds"),
        "calendar is": (bars.calendar, data.calendar, ""),
    }
    for what, (here, there, unit) in pairs.items():
        if here != there:
            raise ConfigError(
                f"artifact={metadata.name}: its {what} {there} {unit}".rstrip()
                + f", those of {bars.instrument} {here}; choose bars like those it was trained on"
            )


def replay(
    decider: Decider,
    bars: Bars,
    split: Split,
    bars_per_second: float | None = None,
    view: PaperView | None = None,
) -> Trace:
    """Decide at every close of a split with a simulated account; return what was done.

    Args:
        decider: Warmed up with the bars before the split.
        bars: Up to the end of the split or later.
        split: The last decision is at the close of bar `stop - 2`.
        bars_per_second: None is as fast as it can.
        view: Shows every bar.
    """
    count, size = split.stop - 1 - split.start, decider.space.size
    actions, regime = np.zeros(count, np.int8), np.zeros(count, np.int8)
    bits = np.zeros(count, np.int64)
    masks, reasons = np.zeros((count, size), np.bool_), np.zeros((count, size), np.int64)
    outcomes = np.zeros(count, OUTCOME_DTYPE)
    account, done = SimulatedAccount(decider), 0
    for i, bar in enumerate(_paced(bars.slice(split.start, split.stop), bars_per_second)):
        report = account.step(bar, now=bar.start)
        if i > 0:
            outcomes[i - 1], done = account.outcome, i
        if i == count or account.ruined:
            break
        decision = decider.decide(bar, report, now=bar.start)  # a record's own time
        account.take(decision)
        masks[i], reasons[i] = decider.mask, decider.reasons
        regime[i] = decider.market.context[REGIME]
        bits[i] = decider.market.rows["rule_bits"][1]
        action = decision.action_index
        actions[i] = decider.space.hold if action is None else action
        if view is not None:
            view.update(i + 1, bar, decision, account.record)
    return trace_of(
        bars, decider.space.names, regime, bits, split, decider.config, actions[:done], masks,
        reasons, outcomes,
    )  # fmt: skip


def _paced(bars: Bars, bars_per_second: float | None) -> Iterator[Bar]:
    """Yield bars as messages, each at its time where a pace is set."""
    began = time.monotonic()
    for i, bar in enumerate(bar_messages(bars)):
        if bars_per_second is not None:
            time.sleep(max(began + i / bars_per_second - time.monotonic(), 0.0))
        yield bar
