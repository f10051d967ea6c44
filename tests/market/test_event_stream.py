"""Events counted bar by bar are those of a whole file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppo_workbench.config import BarsError, DataConfig, SyntheticConfig
from ppo_workbench.config.arrays import Ints
from ppo_workbench.market.bars import NS_PER_SECOND, Bars, stamp_text
from ppo_workbench.market.calendars.clock import BarClock
from ppo_workbench.market.events import EventMemory, EventStream, add_events
from ppo_workbench.market.sources import load_bars
from ppo_workbench.market.synthetic import generate


@pytest.fixture(scope="module")
def minutes() -> Bars:
    """Return sessions over Thanksgiving's half day and Christmas, with bars left out."""
    bars = generate(SyntheticConfig(sessions=16)).bars
    kept = np.random.default_rng(0).random(len(bars)) > 0.1
    columns: dict[str, Any] = {
        name: value[kept]
        for name, value in vars(bars).items()
        if isinstance(value, np.ndarray) and len(value) == len(bars)
    }
    return replace(bars, **columns)


def _write(path: Path, moments: list[int]) -> str:
    lines = [f"{stamp_text(int(ns), 'UTC')},news" for ns in moments]
    path.write_text("\n".join(["time,kind", *lines]))
    return str(path)


def _moments(bars: Bars) -> list[int]:
    """Return moments inside bars, at their ends, overnight, before and after the bars."""
    rng = np.random.default_rng(1)
    inside = bars.start_ns[rng.choice(len(bars), 12)] + 17 * NS_PER_SECOND
    at_ends = bars.end_ns[rng.choice(len(bars), 12)]
    hours = 3600 * NS_PER_SECOND
    outside = [
        bars.start_ns[0] - hours,
        bars.start_ns[0],
        bars.start_ns[500] + 12 * hours,
        bars.end_ns[-1] + 30 * hours,
    ]
    return [*inside.tolist(), *at_ends.tolist(), *map(int, outside)]


def _clock(bars: Bars) -> BarClock:
    return BarClock(bars.calendar, bars.bar_seconds, int(bars.start_ns[0]), int(bars.start_ns[-1]))


def _streamed(bars: Bars, path: str, restart_at: int = -1) -> Ints:
    clock, stream, found = _clock(bars), EventStream(path), []
    for t, start in enumerate(bars.start_ns.tolist()):
        if t == restart_at:
            memory = EventMemory(**vars(stream.memory))
            stream = EventStream(path)
            stream.memory = memory
        found.append(stream.step(clock, clock.place(start)))
    return np.array(found)


def test_streamed_events_equal_those_of_the_file(tmp_path: Path, minutes: Bars) -> None:
    path = _write(tmp_path / "events.csv", _moments(minutes))
    whole = add_events(minutes, path)
    found = _streamed(minutes, path, restart_at=1000)
    assert (whole.events >= 0).any()
    np.testing.assert_array_equal(found[:, 0], whole.events)
    np.testing.assert_array_equal(found[:, 1], whole.events_ahead)


def test_streamed_events_of_daily_bars_equal_those_of_the_file(tmp_path: Path) -> None:
    bars = load_bars(DataConfig(source="sp500")).slice(0, 600)
    path = _write(tmp_path / "events.csv", _moments(bars)[:24])
    whole = add_events(bars, path)
    found = _streamed(bars, path)
    np.testing.assert_array_equal(found[:, 0], whole.events)
    np.testing.assert_array_equal(found[:, 1], whole.events_ahead)


def test_event_beyond_the_calendar_is_far_away_and_no_error(tmp_path: Path, minutes: Bars) -> None:
    path = tmp_path / "events.csv"
    path.write_text("time,kind\n2200-01-04T15:00:00Z,news\n")
    clock = _clock(replace(minutes, calendar="XHKG"))  # its holidays are known to 2049
    place = clock.place(int(minutes.start_ns[0]))
    assert EventStream(str(path)).step(clock, place) == (-1, -1)
    assert clock.place(int(minutes.start_ns[1])).session == 0


def test_file_of_events_without_a_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("time\n2020-01-02T15:00:00Z\n")
    with pytest.raises(BarsError, match="'kind' is missing"):
        EventStream(str(tmp_path / "events.csv"))
