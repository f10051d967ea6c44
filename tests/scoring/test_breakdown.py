"""Parts of a trace: known by hand, and adding up to the whole."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_workbench.cli.main import compose
from ppo_workbench.scoring.backtest import RANDOM, Policy, backtest
from ppo_workbench.scoring.breakdown import Part, by_hour, by_regime, by_year, whole
from ppo_workbench.scoring.metrics import scorecard, sharpe_ratio
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import prepare, split_bars

TraceMaker = Callable[..., Trace]


def _stamps(*stamps: str) -> list[int]:
    return [int(np.datetime64(stamp, "ns").astype(np.int64)) for stamp in stamps]


def _check_sums(parts: dict[str, Part], total: Part) -> None:
    for name in ("profit_usd", "excess_return_frac", "n_trades", "time_share", "cost_usd"):
        found = sum(getattr(part, name) for part in parts.values())
        assert found == pytest.approx(getattr(total, name), rel=1e-9, abs=1e-9), name
    exposed = sum(part.exposure_mean_abs * part.time_share for part in parts.values())
    assert exposed == pytest.approx(total.exposure_mean_abs)
    won = sum((part.win_rate_frac or 0.0) * part.n_trades for part in parts.values())
    assert won == pytest.approx((total.win_rate_frac or 0.0) * total.n_trades)


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_parts_add_up_to_the_whole_and_to_the_scorecard(seed: int) -> None:
    config = compose(
        ["tracking=none", "data.synthetic.sessions=30", "features.volatility_slow_bars=100",
         "splits.gap_bars=0", "costs.cash_interest_annual_bps=400"]
    )  # fmt: skip
    experiment = prepare(config, *split_bars(config))
    policy = Policy("random", RANDOM, seed=seed)
    split = experiment.splits["train"]
    trace = backtest(policy, experiment.bars, experiment.market, split, config)
    total, card = whole(trace), scorecard(trace)
    assert total.profit_usd == pytest.approx(trace.equity_usd[-1] - trace.initial_equity_usd)
    assert total.cost_usd == pytest.approx(card.cost_usd)
    assert (total.n_trades, total.win_rate_frac) == (card.n_trades, card.win_rate_frac)
    assert total.exposure_mean_abs == pytest.approx(card.exposure_mean_abs)
    for parts in (
        by_regime(trace),
        by_hour(trace, "America/New_York"),
        by_year(trace, "America/New_York"),
    ):
        _check_sums(parts, total)
    assert len(by_regime(trace)) > 1


def test_whole_of_daily_bars_has_the_sharpe_ratio_of_the_scorecard(make_trace: TraceMaker) -> None:
    growth = 1 + np.random.default_rng(0).normal(0.001, 0.01, 60)
    trace = replace(make_trace(100 * np.cumprod(growth)), cash_interest_annual_bps=300.0)
    assert whole(trace).sharpe_annual == pytest.approx(scorecard(trace).sharpe_annual)
    assert by_hour(trace, "America/New_York") == {}


def test_hours_are_those_of_the_exchange_on_both_sides_of_a_clock_change(
    make_trace: TraceMaker,
) -> None:
    # New York is 5 hours behind UTC on 8 March 2024 and 4 hours on 11 March.
    trace = make_trace(
        [101, 102, 104, 103],
        end_ns=_stamps(
            "2024-03-08T15:00", "2024-03-08T15:30", "2024-03-11T14:00", "2024-03-11T14:30"
        ),
        session=[0, 0, 1, 1],
        bars_per_session=7,
    )
    hours = by_hour(trace, "America/New_York")
    assert {hour: part.profit_usd for hour, part in hours.items()} == {"09": 3.0, "10": 0.0}
    assert hours["09"].excess_return_frac == pytest.approx(1 / 100 + 2 / 102)
    assert hours["09"].sharpe_annual is None


def test_years_are_those_of_the_exchange(make_trace: TraceMaker) -> None:
    trace = make_trace(
        [101, 103, 102],
        end_ns=_stamps("2023-12-29T21:00", "2024-01-01T02:00", "2024-01-01T20:00"),
    )
    years = by_year(trace, "America/New_York")
    assert {year: part.profit_usd for year, part in years.items()} == {"2023": 3.0, "2024": -1.0}


def test_trips_belong_to_the_regime_they_were_opened_in_and_costs_to_their_fills(
    make_trace: TraceMaker,
) -> None:
    trace = make_trace(
        [100, 101, 102, 101],
        regime=[0, 2, 2, 0],
        fill_quantity=[1, 0, -1, 0],
        fill_price=[100, 0, 102, 0],
        cost_usd=[0.5, 0, 0.25, 0],
        exposure=[1, 1, 0, 0],
    )
    parts = by_regime(trace)
    quiet, loud = parts["range_low_volatility"], parts["range_high_volatility"]
    assert (quiet.n_trades, quiet.win_rate_frac, quiet.cost_usd) == (1, 1.0, 0.5)
    assert (loud.n_trades, loud.win_rate_frac, loud.cost_usd) == (0, None, 0.25)
    assert (quiet.time_share, quiet.exposure_mean_abs) == (0.5, 0.5)
    assert (loud.profit_usd, quiet.profit_usd) == (2.0, -1.0)


def test_sharpe_of_a_part_counts_sessions_without_it_as_nothing_earned(
    make_trace: TraceMaker,
) -> None:
    growth = np.tile([1.01, 1.002, 0.995], 10)
    trace = make_trace(100 * np.cumprod(growth), regime=np.tile([1, 0, 0], 10))
    earned = np.where(np.tile([True, False, False], 10), growth - 1, 0.0)[:28]
    expected = sharpe_ratio(earned, 252)
    assert by_regime(trace)["trend_low_volatility"].sharpe_annual == pytest.approx(expected)


def test_ruined_account_has_finite_parts(make_trace: TraceMaker) -> None:
    trace = make_trace([50.0] * 15 + [0.0] + [-5.0] * 14)
    part = whole(trace)
    assert part.profit_usd == -105.0
    assert np.isfinite(part.excess_return_frac)
