"""Figures that annualise, against closed forms in calendar time for calendars of all kinds."""

from collections.abc import Callable
from math import exp, sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from ppo_workbench.config import DataConfig
from ppo_workbench.market.bars import NS_PER_DAY, Bars
from ppo_workbench.market.calendars.exchange import load_sessions
from ppo_workbench.market.reader.table import bars_from_table
from ppo_workbench.scoring.metrics import Scorecard, scorecard
from ppo_workbench.scoring.session_path import SessionPath, read_path, write_path
from ppo_workbench.scoring.statistics.sharpe import (
    SharpeMoments,
    annual_sharpe,
    minimum_track_record,
)
from ppo_workbench.scoring.trace import Trace

TraceMaker = Callable[..., Trace]

CALENDARS = ("XNYS", "XTKS", "CMES", "us_futures", "24/5", "24/7", "FX", "GLOBEX")
# From a Tuesday to the session before an anniversary of it.
WHOLE_YEARS = (
    ("2005-06-07", "2006-06-06", 1),
    ("2014-03-04", "2017-03-03", 3),
    ("2000-05-16", "2020-05-15", 20),
)


def daily(calendar: str, first: str, last: str, without: int = 0) -> Bars:
    """Load daily bars of every session, but for every `without`-th; the last is kept."""
    begin, end = (np.datetime64(day).astype(np.int64) for day in (first, last))
    table = load_sessions(calendar, int(begin) * NS_PER_DAY, int(end) * NS_PER_DAY)
    days = table.day[(table.day >= begin) & (table.day <= end)]
    dates = pd.DatetimeIndex(days * NS_PER_DAY)
    if without:
        at = np.arange(len(dates))
        dates = dates[(at % without != without // 2) | (at == at[-1])]
    close = 100.0 + np.arange(len(dates)) % 7
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    rows = pd.DataFrame({"date": dates.strftime("%Y-%m-%d"), **prices, "volume": 1.0})
    return bars_from_table("bars", "TEST", rows, DataConfig(calendar=calendar), source="file")


def card_of(bars: Bars, make_trace: TraceMaker) -> tuple[Scorecard, npt.NDArray[np.float64]]:
    """Score an account that grows by a known series of returns, one a bar."""
    growth = np.random.default_rng(3).normal(4e-4, 0.01, len(bars))
    equity = 100.0 * np.cumprod(1.0 + growth)
    trace = make_trace(
        equity,
        end_ns=bars.end_ns,
        session=bars.session,
        fill_quantity=np.ones(len(bars)),
        fill_price=np.full(len(bars), 100.0),
        sessions_per_year=bars.sessions_per_year,
    )
    return scorecard(trace), growth


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize(("first", "last", "years"), WHOLE_YEARS)
def test_figures_of_whole_years_are_those_of_calendar_time(
    make_trace: TraceMaker, calendar: str, first: str, last: str, years: int
) -> None:
    bars = daily(calendar, first, last)
    card, growth = card_of(bars, make_trace)

    elapsed = (bars.end_ns[-1] - bars.start_ns[0]) / (365.25 * 86_400e9)
    assert card.years == pytest.approx(elapsed, abs=years / len(bars))
    q = len(bars) / years
    assert card.years == pytest.approx(years, rel=1e-12)
    total = np.log1p(growth).sum()
    assert card.annual_return_frac == pytest.approx(exp(total / years) - 1.0, rel=1e-9)
    deviation = growth.std(ddof=1)
    assert card.sharpe_annual == pytest.approx(growth.mean() / deviation * sqrt(q), rel=1e-9)
    assert card.volatility_annual_frac == pytest.approx(deviation * sqrt(q), rel=1e-9)
    error = sqrt((1.0 + (growth.mean() / deviation) ** 2 / 2.0) / years)
    assert card.sharpe_standard_error == pytest.approx(error, rel=1e-9)
    bought = 100.0 * len(bars) / (100.0 * np.cumprod(1.0 + growth)).mean()
    assert card.turnover_annual == pytest.approx(bought / years, rel=1e-9)


@pytest.mark.parametrize("calendar", CALENDARS)
def test_file_without_a_tenth_of_its_sessions_has_the_years_of_the_calendar(
    make_trace: TraceMaker, calendar: str
) -> None:
    bars = daily(calendar, "2014-03-04", "2017-03-03", without=10)
    card, growth = card_of(bars, make_trace)

    assert card.years == pytest.approx(3.0, rel=1e-12)
    assert len(bars) < 0.91 * len(daily(calendar, "2014-03-04", "2017-03-03"))
    sharpe = growth.mean() / growth.std(ddof=1) * sqrt(len(bars) / 3.0)
    assert card.sharpe_annual == pytest.approx(sharpe, rel=1e-9)


def test_part_of_a_series_keeps_the_sessions_per_year_of_the_whole() -> None:
    bars = daily("XTKS", "2014-03-04", "2017-03-03", without=10)

    assert bars.slice(100, 150).sessions_per_year == bars.sessions_per_year


def test_statistics_take_a_year_that_is_no_whole_number_of_sessions(tmp_path: Path) -> None:
    returns = np.random.default_rng(3).normal(1e-3, 0.01, 300)
    q = 260.7

    path = SessionPath.from_returns(returns, q)
    write_path(path, tmp_path / "path.npz")
    assert read_path(tmp_path / "path.npz").sessions_per_year == q
    record = minimum_track_record(SharpeMoments.of(returns), q)
    assert record.years == pytest.approx(record.sessions / 260.7)
    annual = annual_sharpe(returns, q, lags=0)
    ratio = returns.mean() / returns.std(ddof=1)
    assert annual.sharpe_annual_iid == pytest.approx(ratio * sqrt(q))
    # Lo's sum has a whole number of lags: 261.
    assert annual.factor == pytest.approx(sqrt(261))
