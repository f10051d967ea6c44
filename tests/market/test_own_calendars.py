"""The calendars of our own, FX and GLOBEX, by hand and against CMES."""

import numpy as np
import pandas as pd
import pytest

from ppo_workbench.config import BarsError, DataConfig
from ppo_workbench.config.arrays import Ints
from ppo_workbench.market.bars import NS_PER_DAY, NS_PER_SECOND
from ppo_workbench.market.calendars import exchange
from ppo_workbench.market.calendars.clock import BarClock
from ppo_workbench.market.calendars.exchange import (
    SessionTable,
    load_sessions,
    place_intraday,
    sessions_of,
)
from ppo_workbench.market.reader.table import bars_from_table

SPRING, AUTUMN = "2024-03-10", "2024-11-03"  # clocks of New York and Chicago change


def sessions(calendar: str, first: str, last: str) -> SessionTable:
    return load_sessions(calendar, *(pd.Timestamp(day).value for day in (first, last)))


def hours_of(calendar: str, day: str) -> tuple[str, str]:
    """Return open and close of the session of a date, in UTC."""
    table = sessions(calendar, day, day)
    (at,) = np.flatnonzero(table.day == np.datetime64(day).astype(np.int64))
    opens, closes = (
        str(np.datetime64(int(ns[at]), "ns"))[:16] for ns in (table.open_ns, table.close_ns)
    )
    return opens, closes


def dates(table: SessionTable) -> list[str]:
    return [str(np.datetime64(int(day), "D")) for day in table.day]


@pytest.mark.parametrize(
    ("calendar", "day", "opens", "closes"),
    [
        ("FX", "2024-03-08", "2024-03-07T22:00", "2024-03-08T22:00"),
        ("FX", "2024-03-11", "2024-03-10T21:00", "2024-03-11T21:00"),
        ("FX", "2024-11-01", "2024-10-31T21:00", "2024-11-01T21:00"),
        ("FX", "2024-11-04", "2024-11-03T22:00", "2024-11-04T22:00"),
        ("GLOBEX", "2024-03-08", "2024-03-07T23:00", "2024-03-08T22:00"),
        ("GLOBEX", "2024-03-11", "2024-03-10T22:00", "2024-03-11T21:00"),
        ("GLOBEX", "2024-11-01", "2024-10-31T22:00", "2024-11-01T21:00"),
        ("GLOBEX", "2024-11-04", "2024-11-03T23:00", "2024-11-04T22:00"),
        # Independence day: an early close at noon; the next session opens at 17:00.
        ("GLOBEX", "2024-07-04", "2024-07-03T22:00", "2024-07-04T17:00"),
        ("GLOBEX", "2024-07-05", "2024-07-04T22:00", "2024-07-05T21:00"),
    ],
)
def test_session_opens_and_closes_by_the_local_clock(
    calendar: str, day: str, opens: str, closes: str
) -> None:
    assert hours_of(calendar, day) == (opens, closes)


def test_fx_has_every_weekday_but_christmas_and_new_year() -> None:
    table = sessions("FX", "2021-01-01", "2025-12-31")
    expected = pd.bdate_range("2021-01-01", "2025-12-31")
    expected = expected[~expected.strftime("%m-%d").isin(["12-25", "01-01"])]
    kept = [day for day in dates(table) if "2021-01-01" <= day <= "2025-12-31"]
    assert kept == expected.strftime("%Y-%m-%d").tolist()
    # Christmas of 2021 was a Saturday: no other day is closed for it.
    assert "2021-12-24" in kept


def test_globex_has_the_sessions_and_early_closes_of_cmes() -> None:
    own, cmes = (sessions(name, "2015-01-01", "2024-12-31") for name in ("GLOBEX", "CMES"))
    np.testing.assert_array_equal(own.day, cmes.day)
    np.testing.assert_array_equal(own.open_ns, cmes.open_ns)
    earlier = cmes.close_ns - own.close_ns
    hour = 3600 * NS_PER_SECOND
    assert set(earlier.tolist()) == {0, hour}
    closes = pd.DatetimeIndex(own.close_ns, tz="UTC").tz_convert("America/Chicago").hour
    assert set(closes[earlier == 0]) == {12}
    assert set(closes[earlier == hour]) == {16}


def describe(row: int) -> str:
    return f"data row {row}"


def _stamps(calendar: str, around: str, seconds: int, offset: int) -> Ints:
    """Return every stamp of two weeks around a date that has a session."""
    begin = pd.Timestamp(around).value - 7 * NS_PER_DAY
    step = seconds * NS_PER_SECOND
    starts = begin + offset * NS_PER_SECOND + step * np.arange(14 * NS_PER_DAY // step)
    table = load_sessions(calendar, int(starts[0]), int(starts[-1]))
    kept: Ints = starts[~sessions_of(starts, step, table)[2]]
    return kept


@pytest.mark.parametrize("around", [SPRING, AUTUMN, "2024-12-25", "2024-07-04"])
@pytest.mark.parametrize(("seconds", "offset"), [(3600, 0), (3600, 1800), (60, 0)])
@pytest.mark.parametrize("calendar", ["FX", "GLOBEX"])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_clock_places_each_bar_as_the_whole_file_is_placed(
    calendar: str, seconds: int, offset: int, around: str, share: float
) -> None:
    starts = _stamps(calendar, around, seconds, offset)
    starts = starts[np.random.default_rng(1).random(len(starts)) < share]
    first, last = int(starts[0]), int(starts[-1])
    table = load_sessions(calendar, first, last)
    placed = place_intraday("bars", starts, seconds, table, describe)

    clock = BarClock(calendar, seconds, first, last)
    clock.anchor(starts[:100])
    places = [clock.place(int(start)) for start in starts]

    for name in ("start_ns", "end_ns", "session", "bar_of_session", "bars_left", "regular"):
        found = np.array([getattr(place, name) for place in places])
        np.testing.assert_array_equal(found, getattr(placed, name), name)
    assert clock.bars_per_session == placed.bars_per_session
    local = pd.DatetimeIndex(starts, tz="UTC").tz_convert(table.timezone)
    closes, reopens = {"FX": (17, 17), "GLOBEX": (16, 17)}[calendar]
    full = (local.hour >= closes) & (local.hour < reopens) & (offset == 0)
    weekend = (local.day_of_week == 4) & (local.hour >= closes)
    assert not placed.regular[full | weekend].any()
    open_ = (local.day_of_week < 5) & (local.hour < 12) & (around[5:] != "12-25")
    assert placed.regular[open_].all()


@pytest.mark.parametrize(
    ("stamp", "remedy"),
    [
        ("2024-01-07T18:00-05:00", "FX for currencies, GLOBEX or us_futures for futures"),
        ("2024-01-06T18:00-05:00", "24/7 for markets that never close"),
        ("2024-01-15T10:00-05:00", "or set data.calendar$"),
    ],
)
def test_bars_without_a_session_name_the_calendar_that_has_one(stamp: str, remedy: str) -> None:
    starts = np.array([pd.Timestamp(stamp).value, pd.Timestamp("2024-01-16T10:00-05:00").value])
    table = load_sessions("XNYS", int(starts[0]), int(starts[-1]))
    with pytest.raises(BarsError, match=f"data row 0 lies on a date.*{remedy}"):
        place_intraday("bars", starts, 3600, table, describe)


# XHKG breaks for lunch and is bounded, IEPA opens the day before.
@pytest.mark.parametrize("calendar", ["FX", "GLOBEX", "XNYS", "XHKG", "BVMF", "IEPA", "24/7"])
@pytest.mark.parametrize("span", [("1985-03-01", "1995-02-03"), ("2012-01-01", "2012-01-30")])
def test_sessions_are_those_of_a_calendar_made_for_their_span(
    calendar: str, span: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nanoseconds = [pd.Timestamp(day).value // NS_PER_DAY for day in span]
    find = exchange._sessions_between.__wrapped__
    kept = find(calendar, *nanoseconds)
    monkeypatch.setattr(exchange, "_COMMON_YEARS", (2200, 1900))  # so none but the span's own
    for name, values in vars(find(calendar, *nanoseconds)).items():
        np.testing.assert_array_equal(getattr(kept, name), values, name)


@pytest.mark.parametrize("calendar", ["FX", "GLOBEX", "CMES", "us_futures", "IEPA", "XNYS"])
@pytest.mark.parametrize("around", [SPRING, AUTUMN])
@pytest.mark.parametrize("moment", ["open", "midnight", "noon", "date"])
def test_daily_bar_belongs_to_its_session_in_a_file_and_live(
    calendar: str, around: str, moment: str
) -> None:
    table = sessions(calendar, around, around)
    local = pd.DatetimeIndex(dates(table)).tz_localize(table.timezone)
    stamps = {
        "open": pd.DatetimeIndex(table.open_ns, tz="UTC").tz_convert(table.timezone),
        "midnight": local,
        "noon": local + pd.Timedelta(hours=11, minutes=45),
        "date": pd.DatetimeIndex(dates(table)),
    }[moment]
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 100.0)
    rows = pd.DataFrame({"timestamp": [stamp.isoformat() for stamp in stamps], **prices})
    bars = bars_from_table("bars", "TEST", rows, DataConfig(calendar=calendar), source="file")
    np.testing.assert_array_equal(bars.end_ns, table.close_ns)

    live = bars.start_ns if moment == "date" else stamps.tz_convert("UTC").as_unit("ns").asi8
    clock = BarClock(calendar, 86_400, int(bars.start_ns[0]), int(bars.start_ns[-1]))
    places = [clock.place(int(start)) for start in live]
    assert [place.end_ns for place in places] == table.close_ns.tolist()
    assert [place.start_ns for place in places] == table.open_ns.tolist()
    assert {place.missing for place in places} == {0}
