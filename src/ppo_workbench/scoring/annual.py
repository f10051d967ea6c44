"""From sessions to years: every figure that annualises takes its factor from here.

A year is calendar time.  How many sessions it holds is counted in the bars' calendar
(`market.calendars.years`) and travels with bars, traces and paths as `sessions_per_year`.
Interest is no part of this: it accrues actual/365.
"""

from math import sqrt


def years_of(sessions: float, sessions_per_year: float) -> float:
    """Return how many years of calendar time so many sessions are."""
    return sessions / sessions_per_year


def annual_root(sessions_per_year: float) -> float:
    """Return what turns a deviation or a Sharpe ratio per session into that of a year."""
    return sqrt(sessions_per_year)
