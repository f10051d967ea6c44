"""The table "Bars, clocks and gaps" of docs/decider.md: each row is a test of its name."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.delivery.builders import experiment_of, small_config, store_model

from ppo_workbench.config import BarsError
from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.messages import Account, Bar, Decision, Status, bar_messages

DOCS = Path(__file__).parents[2] / "docs" / "decider.md"
FLAT = Account(cash=100_000.0, shares=0.0)
NEXT = 50  # the bar to come, of those after the warm-up


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, list[Bar]]:
    """Return a model whose halt rule is on, and bars from the last of the warm-up on."""
    experiment = experiment_of(small_config("risk.halt.enabled=true"))
    artifact = store_model(experiment, tmp_path_factory.mktemp("model"), seed=3)
    start = experiment.splits["train"].start
    return artifact, list(bar_messages(experiment.bars.slice(0, start + 200)))


class _Live:
    """A Decider that has decided on `NEXT` bars of a flat account."""

    def __init__(self, artifact: Artifact, bars: list[Bar]) -> None:
        start = len(bars) - 200
        self.bars, self.decider = bars[start:], Decider(artifact)
        self.decider.warm_up(bars[:start])
        self.last = [self.decider.decide(bar, FLAT) for bar in self.bars[:NEXT]][-1]

    def next(self, **changes: Any) -> Bar:
        return self.bars[NEXT].model_copy(update=changes)

    def decide(self, bar: Bar, now: datetime | None = None) -> Decision:
        return self.decider.decide(bar, FLAT, now)

    def at(self, minutes: float) -> Decision:
        """Ask the clock so many minutes after the end of the last bar."""
        return self.decider.on_clock(self.bars[NEXT].start + timedelta(minutes=minutes), FLAT)

    def memory(self) -> Any:
        state = self.decider.state()
        return {name: x.tobytes() for name, x in state.arrays.items()}, state.document


def _future(live: _Live) -> Decision:
    far = live.next(start=datetime(2999, 1, 5, 15, tzinfo=UTC))
    assert live.decide(far).reason.startswith("future: the bar starts after the clock")
    with pytest.raises(BarsError, match="starts in the future"):
        live.decider.warm_up([far])
    early = live.decide(live.next(), now=live.next().start - timedelta(seconds=1))
    assert live.decide(live.next(start=datetime.max.replace(tzinfo=UTC))).status is early.status
    return early


def _gap(live: _Live) -> Decision:
    decision = live.decide(live.bars[NEXT + 6])
    assert decision.reduce_only
    assert decision.reason == "gap: the features recover from missing bars"
    return decision


def _halt(live: _Live) -> Decision:
    decision = live.decide(live.bars[NEXT + 6])
    assert decision.mask == {"SELL": False, "HOLD": True, "BUY": False}
    assert "halt" in decision.blocked_by["BUY"]
    return decision


def _mended(live: _Live) -> Decision:
    live.decide(live.next(close=None))
    return live.decide(live.next())


def _quiet(live: _Live) -> Decision:
    decision = live.decide(live.next(volume=0.0))
    rung = int(live.decider.accounts["rung"][0])
    assert rung == live.decider.space.flat_rung
    return decision


def _closed(live: _Live) -> Decision:
    decision = live.at(16 * 60)
    assert decision.reason == "the market is closed"
    return decision


CASES: dict[str, tuple[Callable[[_Live], Decision], Status, str]] = {
    "future": (_future, Status.no_decision, "future: "),
    "late": (lambda live: live.decide(live.bars[20]), Status.ignored, "late: "),
    "repeated": (lambda live: live.decide(live.bars[NEXT - 1]), Status.decided, ""),
    "corrected": (
        lambda live: live.decide(live.bars[NEXT - 1].model_copy(update={"volume": 7.0})),
        Status.ignored,
        "corrected: ",
    ),
    "bad": (lambda live: live.decide(live.next(close=None)), Status.no_decision, "a price or"),
    "mended": (_mended, Status.decided, ""),
    "overlap": (
        lambda live: live.decide(live.next(start=live.next().start - timedelta(seconds=30))),
        Status.no_decision,
        "overlap: ",
    ),
    "holiday": (
        lambda live: live.decide(
            live.next(start=live.next().start + timedelta(days=5 - live.next().start.weekday()))
        ),
        Status.no_decision,
        "the bar of ",
    ),
    "silence": (lambda live: live.decide(live.bars[NEXT + 5]), Status.decided, ""),
    "gap": (_gap, Status.decided, "gap: "),
    "halt": (_halt, Status.decided, "gap: "),
    "quiet": (_quiet, Status.decided, ""),
    "stale": (lambda live: live.at(6.5), Status.no_decision, "stale: 6 bars"),
    "closed": (_closed, Status.idle, "the market is closed"),
    "behind": (lambda live: live.at(-9), Status.no_decision, "clock: "),
}


def _rows() -> dict[str, list[str]]:
    section = (
        DOCS.read_text(encoding="utf-8").split("## Bars, clocks and gaps")[1].split("\n## ")[0]
    )
    rows = re.findall(r"^\| (\w+) \| .* \| `(\w+)`.* \| (.+) \|$", section, re.MULTILINE)
    return {case: [status, remembered] for case, status, remembered in rows}


def test_table_and_tests_have_the_same_rows() -> None:
    assert set(_rows()) | {"repeated"} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_row_of_the_table(model: tuple[Artifact, list[Bar]], case: str) -> None:
    live = _Live(*model)
    act, status, reason = CASES[case]
    before = live.memory()
    decision = act(live)
    assert decision.status is status
    assert decision.reason.startswith(reason)
    documented = _rows().get(case, [Status.decided.value, "nothing"])
    assert documented[0] == status.value
    assert (live.memory() == before) is (documented[1] == "nothing")
    assert decision.taken is (status is Status.decided)


def test_bar_of_the_future_harms_no_later_one_across_a_restart(
    model: tuple[Artifact, list[Bar]],
) -> None:
    live, clean = _Live(*model), _Live(*model)
    live.decide(live.next(start=datetime(2999, 1, 5, 15, tzinfo=UTC)))
    again = Decider(model[0])
    again.restore(live.decider.state())
    for bar in live.bars[NEXT : NEXT + 20]:
        assert again.decide(bar, FLAT) == clean.decider.decide(bar, FLAT)
    assert np.array_equal(again.observation, clean.decider.observation)
