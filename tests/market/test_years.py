"""Sessions a year: calendar time, whatever the calendar and whatever is missing."""

import exchange_calendars
import pandas as pd
import pytest

from ppo_workbench.config.arrays import Ints
from ppo_workbench.market.calendars.years import sessions_per_year

# exchange_calendars 4.13 uses what pandas 3.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")


def days(calendar: str, first: str, last: str) -> Ints:
    """Return the dates of a calendar's sessions, straight from the package."""
    found = exchange_calendars.get_calendar(calendar, start=first, end=last).sessions
    dates: Ints = pd.DatetimeIndex(found).as_unit("s").asi8 // 86_400
    return dates


def test_sessions_per_year_of_a_whole_year_are_its_sessions() -> None:
    year = days("XNYS", "2024-01-01", "2024-12-31")

    assert len(year) == 252
    assert sessions_per_year("XNYS", year) == 252.0


def test_sessions_per_year_of_a_quarter_are_those_of_the_year_it_begins() -> None:
    year = days("XTKS", "2013-10-01", "2014-09-30")

    assert sessions_per_year("XTKS", year[:60]) == len(year)


def test_sessions_per_year_of_part_of_a_second_year_average_both() -> None:
    both = days("24/7", "2024-01-06", "2026-01-05")

    assert sessions_per_year("24/7", both[:400]) == len(both) / 2 == 365.5


def test_sessions_without_bars_do_not_shorten_time() -> None:
    year = days("XNYS", "2024-01-01", "2024-12-31")
    held = year[[*range(0, 100, 2), *range(100, 252)]]

    assert sessions_per_year("XNYS", held) == pytest.approx(len(held), rel=1e-12)


def test_one_session_is_one_of_the_year_that_begins_with_it() -> None:
    assert sessions_per_year("XNYS", days("XNYS", "2024-01-02", "2024-01-03")[:1]) == 252.0


def test_sessions_per_year_where_the_calendar_ends_are_of_the_years_before() -> None:
    year = days("XKRX", "2049-12-30", "2050-12-29")

    assert sessions_per_year("XKRX", year[-20:]) == len(year)


def test_sessions_per_year_of_all_that_a_calendar_has_are_of_its_days() -> None:
    # 36 years and some days, before and after which this calendar knows nothing.
    everything = days("XSHG", "1990-12-03", "2026-12-31")
    years = (everything[-1] + 1 - everything[0]) / 365.25

    assert sessions_per_year("XSHG", everything) == pytest.approx(len(everything) / years)
