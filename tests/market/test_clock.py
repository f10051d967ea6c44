"""Bars placed one at a time against the placement of the whole file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ppo_workbench.config import BarsError, DataConfig, SyntheticConfig
from ppo_workbench.market.bars import NS_PER_DAY, Bars
from ppo_workbench.market.calendars.clock import BarClock, Place
from ppo_workbench.market.sources import load_bars

SHARED = Path(__file__).parents[3] / "shared" / "data"
MINUTE = 60 * 10**9


def _clock(bars: Bars, *, full_sessions_only: bool = False) -> BarClock:
    first, last = int(bars.start_ns[0]), int(bars.start_ns[-1])
    return BarClock(
        bars.calendar, bars.bar_seconds, first, last, full_sessions_only=full_sessions_only
    )


def _check(bars: Bars, *, full_sessions_only: bool = False) -> list[Place]:
    clock = _clock(bars, full_sessions_only=full_sessions_only)
    clock.anchor(bars.start_ns[:5000])
    places = [clock.place(int(start)) for start in bars.start_ns]
    for name in ("start_ns", "end_ns", "session", "bar_of_session", "bars_left", "regular"):
        found = np.array([getattr(place, name) for place in places])
        assert np.array_equal(found, getattr(bars, name)), name
    assert clock.bars_per_session == bars.bars_per_session
    return places


def test_clock_places_synthetic_minutes_as_the_generator_does() -> None:
    bars = load_bars(DataConfig(synthetic=SyntheticConfig(sessions=260)))  # over a half day
    assert {place.missing for place in _check(bars, full_sessions_only=True)} == {0}
    assert {place.missing for place in _check(bars)} == {0, 210}


def test_clock_of_full_sessions_takes_the_bars_of_a_half_day_that_come() -> None:
    half, last, after, hole = _minutes(
        "2024-07-03T13:30", "2024-07-03T16:59", "2024-07-05T13:30", "2024-07-05T13:35"
    )
    clock = BarClock("XNYS", 60, half, after, full_sessions_only=True)
    assert [clock.place(ns).missing for ns in (half, last, after, hole)] == [0, 208, 0, 4]


def test_clock_places_daily_bars_as_the_file_does() -> None:
    pytest.importorskip("arch")
    bars = load_bars(DataConfig(source="sp500", calendar="XNYS"))
    assert {place.missing for place in _check(bars)} == {0}


@pytest.mark.skipif(not SHARED.is_dir(), reason="real bars are not beside the project")
@pytest.mark.parametrize("name", ["spy_1min_2013-10.csv", "ibm_1h_2000_2021.csv.gz"])
def test_clock_places_real_bars_as_the_file_does(name: str) -> None:
    config = DataConfig(source="file", path=str(SHARED / name), timezone="America/New_York")
    bars = load_bars(config)
    places = _check(bars)
    assert (max(place.missing for place in places) > 0) is name.startswith("ibm")


def _minutes(*texts: str) -> list[int]:
    return [int(np.datetime64(text, "ns").astype(np.int64)) for text in texts]


def test_clock_counts_missing_bars_within_and_across_sessions() -> None:
    open_, later, next_open = _minutes("2024-07-02T13:30", "2024-07-02T13:34", "2024-07-03T13:30")
    clock = BarClock("XNYS", 60, open_, next_open)
    assert [clock.place(ns).missing for ns in (open_, later, next_open)] == [0, 3, 385]


def test_clock_knows_half_days_outside_hours_and_dates_without_session() -> None:
    full, early, half, after = _minutes(
        "2024-07-02T13:30", "2024-07-03T13:00", "2024-07-03T16:59", "2024-07-03T17:10"
    )
    clock = BarClock("XNYS", 60, full, full + 40 * NS_PER_DAY)
    assert clock.place(full)[2:] == (0, 0, 389, True, 0)
    assert clock.place(early)[2:6] == (1, 0, 209, False)
    assert clock.place(half)[2:6] == (1, 209, 0, True)
    assert clock.place(after)[4:6] == (0, False)
    with pytest.raises(BarsError, match="without a session of calendar XNYS"):
        clock.place(_minutes("2024-07-04T14:00")[0])
    assert clock.place(_minutes("2024-07-05T13:30")[0]).session == 2


def test_clock_reaches_beyond_the_span_that_it_was_made_with() -> None:
    first, late = _minutes("2020-01-02T14:30", "2026-06-01T13:30")
    clock = BarClock("XNYS", 60, first, first + NS_PER_DAY)
    clock.place(first)
    assert clock.place(late).session == 1
    assert clock.place(late + MINUTE).missing == 0


def test_moment_counts_the_slots_that_are_over() -> None:
    first, _ = _minutes("2024-07-02T13:30", "2024-07-02T20:00")
    clock = BarClock("XNYS", 60, first, first + 40 * NS_PER_DAY)
    clock.place(first)
    assert clock.moment(first + MINUTE)[:3] == (0, 389, True)
    assert clock.moment(first + 5 * MINUTE - 1)[:3] == (3, 386, True)
    assert clock.moment(first + 390 * MINUTE)[:3] == (389, 0, False)
    half_day = _minutes("2024-07-03T16:58")[0]
    assert clock.moment(half_day)[:3] == (389 + 208, 2, True)
    assert not clock.moment(half_day + 12 * 60 * MINUTE).open


def test_clock_goes_on_from_its_memory() -> None:
    bars = load_bars(DataConfig(synthetic=SyntheticConfig(sessions=3)))
    clock = _clock(bars)
    expected = [clock.place(int(start)) for start in bars.start_ns]
    first = _clock(bars)
    for start in bars.start_ns[:500]:
        first.place(int(start))
    second = _clock(bars)
    second.memory = replace(first.memory)
    assert [second.place(int(start)) for start in bars.start_ns[500:]] == expected[500:]


def _overlaps(bar_seconds: int, calendar: str, *texts: str) -> list[bool]:
    """Return of each bar after the first whether it overlaps; the first lays the slots."""
    first, *rest = _minutes(*texts)
    clock = BarClock(calendar, bar_seconds, first, first + 40 * NS_PER_DAY)
    clock.place(first)
    found = []
    for start in rest:
        found.append(clock.overlaps(start))
        if not found[-1]:
            clock.place(start)
    return found


def test_bar_that_starts_before_the_last_one_has_ended_overlaps() -> None:
    day = "2024-03-08T"
    halves = [f"{day}{x}" for x in ("18:10:00", "18:10:30", "18:10:59", "18:11:00", "18:11:30")]
    assert _overlaps(60, "XNYS", *halves) == [True, True, False, True]
    begins = [f"{day}{x}" for x in ("14:30:00", "14:30:30", "14:31:00")]
    assert _overlaps(60, "XNYS", *begins) == [True, False]


def test_bars_that_the_calendar_cuts_do_not_overlap() -> None:
    day = "2024-03-08T"
    full_hours = [f"{day}{x}" for x in ("13:00", "14:00", "14:30", "15:00", "16:00", "20:00")]
    assert not any(_overlaps(3600, "XNYS", *full_hours))
    from_open = [f"{day}{x}" for x in ("14:30", "15:30", "20:30", "21:00", "22:00")]
    assert not any(_overlaps(3600, "XNYS", *from_open))
    lunch = [f"{day}{x}" for x in ("00:00", "01:00", "02:00", "03:30", "04:00", "05:00")]
    assert not any(_overlaps(3600, "XTKS", *lunch))
    assert _overlaps(3600, "XTKS", f"{day}00:00", f"{day}03:30", f"{day}03:45") == [False, True]


def test_bars_do_not_overlap_when_clocks_change_or_bars_are_daily() -> None:
    night = [f"2024-03-10T0{hour}:00" for hour in range(5, 9)]
    assert not any(_overlaps(3600, "24/7", *night))
    weekend = ["2024-03-08T20:59", "2024-03-11T13:30", "2024-03-11T13:31"]
    assert not any(_overlaps(60, "XNYS", *weekend))
    daily = ["2024-03-08T05:00", "2024-03-11T04:00", "2024-03-11T20:00"]
    assert not any(_overlaps(86_400, "XNYS", *daily))


@pytest.mark.parametrize("calendar", ["XNYS", "24/7", "CMES", "us_futures", "IEPA", "XTKS"])
@pytest.mark.parametrize("hours_east", [-11, -5, 0, 9, 14])
def test_daily_stamp_at_midnight_is_its_date_in_whatever_zone(
    calendar: str, hours_east: int
) -> None:
    wall = _minutes("2024-01-10T00:00")[0]
    clock = BarClock(calendar, 86_400, wall - 5 * NS_PER_DAY, wall + 5 * NS_PER_DAY)
    opened = clock.session_open(wall - hours_east * 60 * MINUTE, wall)
    assert opened is not None
    assert clock.place(opened).start_ns == opened
    assert clock.memory.day == wall // NS_PER_DAY
    assert clock.session_open(opened, opened) == opened  # a message names the open


def test_daily_end_at_midnight_is_the_session_that_closes_there_but_a_date_is_a_date() -> None:
    wall = _minutes("2024-01-10T00:00")[0]
    clock = BarClock("24/7", 86_400, wall, wall)
    assert clock.session_open(wall, wall, bare=False, ends=True) == wall - NS_PER_DAY
    assert clock.session_open(wall, wall, bare=True, ends=True) == wall
    assert clock.session_open(wall, wall, bare=False) == wall
