"""How many sessions that hold bars a year of calendar time has."""

import numpy as np

from ppo_workbench.config import BarsError
from ppo_workbench.config.arrays import Ints
from ppo_workbench.market.bars import NS_PER_DAY
from ppo_workbench.market.calendars.exchange import load_sessions

_DAYS_PER_YEAR = 365.25


def sessions_per_year(calendar: str, day: Ints) -> float:
    """Count sessions in the calendar, so that those without bars do not shorten time.

    The calendar's own number is counted over whole years, as many as the sessions span,
    rounded up, from the first session on.  The sessions cover as many years as the calendar
    has sessions from the first to the last of them.

    Args:
        calendar: Such as "XNYS" or "24/7".
        day: int64 (S,), days since 1970-01-01 of the sessions that hold bars, rising.

    Returns:
        S over the years that they cover.
    """
    listed, own = _count(calendar, int(day[0]), int(day[-1]))
    return own * (len(day) / listed)


def _count(calendar: str, first: int, last: int) -> tuple[int, float]:
    """Return the calendar's sessions from `first` to `last`, and its sessions a year.

    Where the calendar ends before the whole years do, they are those that end with the last
    session; where it covers neither, what it has from the first to the last is counted.
    """
    years = 1
    while _years_later(first, years) <= last:
        years += 1
    spans = (first, _years_later(first, years)), (_years_later(last + 1, -years), last + 1)
    for start, stop in spans:
        try:
            days = _days(calendar, start, stop)
        except BarsError:
            continue
        return _between(days, first, last + 1), _between(days, start, stop) / years
    listed = _between(_days(calendar, first, last + 1), first, last + 1)
    return listed, listed / ((last + 1 - first) / _DAYS_PER_YEAR)


def _days(calendar: str, start: int, stop: int) -> Ints:
    """Return the dates of at least the sessions of `start` to `stop - 1`."""
    return load_sessions(calendar, start * NS_PER_DAY, (stop - 1) * NS_PER_DAY).day


def _between(days: Ints, start: int, stop: int) -> int:
    return int(np.count_nonzero((days >= start) & (days < stop)))


def _years_later(day: int, years: int) -> int:
    """Return the same date so many years later, 28 February for the 29th."""
    import pandas as pd

    moved = pd.Timestamp(day * NS_PER_DAY) + pd.DateOffset(years=years)
    return int(moved.as_unit("ns").value // NS_PER_DAY)
