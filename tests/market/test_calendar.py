"""Calendar: sessions and slots against an independent calendar package and by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pandas_market_calendars
import pytest

from ppo_workbench.config import BarsError
from ppo_workbench.config.arrays import Ints
from ppo_workbench.market.calendars.exchange import (
    Placement,
    bar_positions,
    check_timezone,
    find_bar_seconds,
    load_sessions,
    local_days,
    place_daily,
    place_intraday,
)


def ns(*stamps: str, zone: str = "America/New_York") -> Ints:
    moments: Ints = pd.DatetimeIndex(stamps).tz_localize(zone).as_unit("ns").asi8
    return moments


def describe(row: int) -> str:
    return f"data row {row}"


def place(start_ns: Ints, bar_seconds: int, calendar: str = "XNYS") -> Placement:
    table = load_sessions(calendar, int(start_ns[0]), int(start_ns[-1]))
    return place_intraday("bars", start_ns, bar_seconds, table, describe)


def hours(first: str, last: str, zone: str = "America/New_York") -> Ints:
    moments: Ints = pd.date_range(first, last, freq="h", tz=zone).as_unit("ns").asi8
    return moments


# pandas_market_calendars 5.5 uses what pandas 3.1 deprecates.
@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
def test_sessions_of_2025_agree_with_another_package() -> None:
    oracle = pandas_market_calendars.get_calendar("NYSE").schedule("2025-01-01", "2025-12-31")
    stamps = [
        pd.date_range(row.market_open, row.market_close, freq="min", inclusive="left")
        for row in oracle.itertuples()
    ]
    start_ns = np.concatenate([index.as_unit("ns").asi8 for index in stamps])

    placed = place(start_ns, 60)

    assert (len(oracle), len(start_ns)) == (250, 96_960)
    assert placed.regular.all()
    assert placed.bars_per_session == 390
    np.testing.assert_array_equal(np.bincount(placed.session), [len(index) for index in stamps])
    left = np.concatenate([np.arange(len(index))[::-1] for index in stamps])
    np.testing.assert_array_equal(placed.bars_left, left)


def test_sessions_reach_back_to_the_first_bar() -> None:
    table = load_sessions("XNYS", *ns("1962-01-02 09:30", "1999-01-04 09:30"))

    assert table.day[0] <= np.datetime64("1962-01-02").astype(int)


def test_calendar_unknown_names_similar_ones() -> None:
    with pytest.raises(BarsError, match=r"data\.calendar='xnas2'.*XNAS"):
        load_sessions("xnas2", 0, 1)


def test_calendar_not_covering_the_dates_is_refused() -> None:
    with pytest.raises(BarsError, match="does not cover 1950-01-02"):
        load_sessions("XKRX", *ns("1950-01-02", "1950-02-02"))


def test_timezone_unknown_is_refused() -> None:
    check_timezone("UTC")
    with pytest.raises(BarsError, match="IANA"):
        check_timezone("../etc")


def test_slots_hour_stamped_before_the_open_is_regular_slot_zero() -> None:
    placed = place(hours("2013-10-04 08:00", "2013-10-04 17:00"), 3600)

    np.testing.assert_array_equal(placed.regular, [False, *[True] * 7, False, False])
    np.testing.assert_array_equal(placed.bar_of_session, [0, 0, 1, 2, 3, 4, 5, 6, 6, 6])
    np.testing.assert_array_equal(placed.bars_left, [6, 6, 5, 4, 3, 2, 1, 0, 0, 0])
    assert placed.end_ns[7] == ns("2013-10-04 16:00")[0]


def test_slots_hours_in_step_with_the_open_start_there() -> None:
    placed = place(hours("2013-10-04 09:30", "2013-10-04 15:30"), 3600)

    np.testing.assert_array_equal(placed.bar_of_session, range(7))
    assert placed.bars_per_session == 7
    # The last bar is cut by the close, which is known beforehand.
    assert placed.end_ns[-1] == ns("2013-10-04 16:00")[0]


def test_slots_missing_bars_keep_their_place_by_the_clock() -> None:
    placed = place(ns("2013-10-04 09:30", "2013-10-04 09:31", "2013-10-04 12:00"), 60)

    np.testing.assert_array_equal(placed.bar_of_session, [0, 1, 150])
    np.testing.assert_array_equal(placed.bars_left, [389, 388, 239])


def test_slots_half_day_ends_at_one_oclock() -> None:
    placed = place(ns("2013-11-29 09:30", "2013-11-29 12:59", "2013-11-29 13:00"), 60)

    np.testing.assert_array_equal(placed.bars_left, [209, 0, 0])
    np.testing.assert_array_equal(placed.bar_of_session, [0, 209, 209])
    np.testing.assert_array_equal(placed.regular, [True, True, False])


def test_slots_late_open_keeps_the_clock() -> None:
    table = load_sessions("XNYS", *ns("2013-10-03 09:30", "2013-10-04 09:30"))
    late = replace(table, open_ns=table.open_ns + 90 * 60_000_000_000)

    placed = place_intraday("bars", ns("2013-10-04 10:59", "2013-10-04 11:00"), 60, late, describe)

    np.testing.assert_array_equal(placed.regular, [False, True])
    np.testing.assert_array_equal(placed.bar_of_session, [89, 90])
    np.testing.assert_array_equal(placed.bars_left, [300, 299])


def test_slots_lunch_break_is_left_out() -> None:
    stamps = ("11:59", "12:30", "13:00", "15:59")
    placed = place(ns(*(f"2021-03-30 {s}" for s in stamps), zone="Asia/Hong_Kong"), 60, "XHKG")

    # 09:30-12:00 and 13:00-16:00: 150 + 180 minutes.
    assert placed.bars_per_session == 330
    np.testing.assert_array_equal(placed.bar_of_session, [149, 149, 150, 329])
    np.testing.assert_array_equal(placed.bars_left, [180, 180, 179, 0])
    np.testing.assert_array_equal(placed.regular, [True, False, True, True])


def test_slots_session_that_opens_the_evening_before_is_one_session() -> None:
    start_ns = hours("2021-03-29 17:00", "2021-03-30 18:00", "America/Chicago")
    placed = place(start_ns, 3600, "CMES")

    np.testing.assert_array_equal(placed.session[[0, 22, 24, 25]], [0, 0, 1, 1])
    assert placed.bar_of_session[0] == 0
    assert placed.bars_left[0] == placed.bars_per_session - 1


def test_bars_on_a_weekend_are_refused_with_the_row() -> None:
    with pytest.raises(BarsError, match=r"data row 1 lies on a date without a session.*24/7"):
        place(ns("2013-10-04 15:00", "2013-10-05 12:00"), 3600)


def test_daily_date_without_session_is_refused() -> None:
    table = load_sessions("XNYS", *ns("2013-12-24", "2013-12-26"))
    days = np.array(["2013-12-24", "2013-12-25"], "datetime64[D]").astype(np.int64)

    with pytest.raises(BarsError, match="data row 1 lies on a date without a session"):
        place_daily("bars", days, table, describe)


def test_bar_seconds_is_the_most_frequent_step_within_a_day() -> None:
    stamps = ns("2013-10-04 09:30", "2013-10-04 09:35", "2013-10-04 09:40", "2013-10-04 10:40")
    day = local_days(stamps, "America/New_York")

    assert find_bar_seconds("bars", stamps, day) == 300
    assert find_bar_seconds("bars", ns("2013-10-04", "2013-10-07"), np.array([0, 3])) == 86_400
    with pytest.raises(BarsError, match="whole seconds"):
        find_bar_seconds("bars", np.arange(5) * 1_500_000_000, np.zeros(5, np.int64))


def test_positions_of_a_moment_do_not_depend_on_bars_in_between() -> None:
    start_ns = ns("2013-10-04 15:58", "2013-10-04 15:59", "2013-10-07 09:31")
    table = load_sessions("XNYS", int(start_ns[0]), int(start_ns[-1]))
    moments = ns("2013-10-04 16:00", "2013-10-05 12:00", "2013-10-07 09:31", "2013-10-07 09:32")

    bars, at = bar_positions(start_ns, 60, table, moments)

    np.testing.assert_array_equal(bars - bars[0], [0, 1, 3])
    np.testing.assert_array_equal(at - bars[0], [1, 2, 2, 3])
