from collections.abc import Callable
from math import isfinite, sqrt

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ppo_workbench.pipeline.train.scores import lower_bound
from ppo_workbench.scoring.metrics import (
    RATIO_CAP,
    RETURN_CAP,
    round_trips,
    scorecard,
    sharpe_standard_error,
)
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.rewards import REWARD_NAMES

TraceMaker = Callable[..., Trace]


def trade(
    make_trace: TraceMaker, quantity: list[float], price: list[float], **more: object
) -> Trace:
    """Make a trace whose equity is that of the given fills, marked at the fill price."""
    q, p = np.array(quantity), np.array(price)
    costs = np.asarray(more.get("cost_usd", np.zeros(len(q))), np.float64)
    carry = np.asarray(more.get("carry_usd", np.zeros(len(q))), np.float64)
    cash = 100_000.0 + np.cumsum(carry - costs - q * p)
    equity = cash + np.cumsum(q) * p
    return make_trace(
        equity,
        **{"initial_equity_usd": 100_000.0, "fill_quantity": q, "fill_price": p, **more},
    )


def test_round_trips_long_win_counts_as_won(make_trace: TraceMaker) -> None:
    trace = trade(make_trace, [100, 0, -100], [10, 10.5, 11], cost_usd=[1, 0, 2])
    trips = round_trips(trace)
    assert (trips.entry_row[0], trips.exit_row[0], trips.direction[0]) == (0, 2, 1)
    assert trips.bars_held.tolist() == [2]
    assert trips.quantity.tolist() == [100]
    assert trips.pnl_usd[0] == pytest.approx(100 * (11 - 10) - 3)
    assert trips.return_frac[0] == pytest.approx(97 / 1000)
    assert scorecard(trace).win_rate_frac == 1.0


def test_round_trips_short_win_counts_as_won(make_trace: TraceMaker) -> None:
    trace = trade(make_trace, [-100, 100], [10, 9], cost_usd=[1, 1])
    trips = round_trips(trace)
    assert trips.direction.tolist() == [-1]
    assert trips.pnl_usd[0] == pytest.approx(100 - 2)
    assert scorecard(trace).win_rate_frac == 1.0


def test_round_trips_price_gain_below_cost_counts_as_lost(make_trace: TraceMaker) -> None:
    trace = trade(make_trace, [100, -100], [10, 10.01], cost_usd=[1, 1])
    assert round_trips(trace).pnl_usd[0] == pytest.approx(1 - 2)
    assert scorecard(trace).win_rate_frac == 0.0


def test_round_trips_flip_closes_and_opens_with_cost_split_by_shares(
    make_trace: TraceMaker,
) -> None:
    trace = trade(make_trace, [100, -150, 50], [10, 12, 11], cost_usd=[1, 3, 1])
    trips = round_trips(trace)
    assert trips.direction.tolist() == [1, -1]
    assert trips.entry_row.tolist() == [0, 1]
    assert trips.exit_row.tolist() == [1, 2]
    assert trips.quantity.tolist() == [100, 50]
    np.testing.assert_allclose(trips.pnl_usd, [100 * 2 - 1 - 2, 50 * 1 - 1 - 1])
    assert scorecard(trace).win_rate_frac == 1.0


def test_round_trips_partial_fills_accumulate_into_one_trip(make_trace: TraceMaker) -> None:
    trace = trade(make_trace, [100, 100, -50, -150], [10, 12, 13, 12], cost_usd=[1, 1, 1, 1])
    trips = round_trips(trace)
    assert len(trips) == 1
    assert trips.quantity[0] == 200
    assert trips.pnl_usd[0] == pytest.approx(50 * (13 - 11) + 150 * (12 - 11) - 4)
    assert trips.return_frac[0] == pytest.approx(trips.pnl_usd[0] / (100 * 10 + 100 * 12))


def test_round_trips_open_at_the_end_is_not_counted(make_trace: TraceMaker) -> None:
    trace = trade(make_trace, [100, -100, 100, 0], [10, 11, 11, 20])
    assert round_trips(trace).exit_row.tolist() == [1]
    assert scorecard(trace).n_trades == 1


def test_round_trips_carry_goes_to_the_trip_open_before_the_fill(make_trace: TraceMaker) -> None:
    carry = [7, -2, -3, 7]
    trace = trade(make_trace, [-100, 0, 200, 0], [10, 10, 10, 10], carry_usd=carry)
    assert round_trips(trace).pnl_usd.tolist() == [-5]


def test_round_trips_fractional_shares_close_despite_rounding(make_trace: TraceMaker) -> None:
    trace = trade(make_trace, [0.1, 0.2, -0.3, 0.1, -0.1], [10, 10, 11, 11, 12])
    trips = round_trips(trace)
    assert trips.exit_row.tolist() == [2, 4]
    np.testing.assert_allclose(trips.pnl_usd, [0.3, 0.1])


@given(st.lists(st.sampled_from([-200, -100, -50, 0, 50, 100, 200]), min_size=2, max_size=30))
def test_round_trips_of_a_path_that_ends_flat_sum_to_its_profit(steps: list[int]) -> None:
    rng = np.random.default_rng(len(steps))
    quantity = np.array([*steps, -sum(steps)], np.float64)
    price = rng.uniform(5, 15, len(quantity))
    cost = np.where(quantity != 0, rng.uniform(0, 2, len(quantity)), 0.0)
    held_before = np.concatenate(([0.0], np.cumsum(quantity)[:-1]))
    carry = np.where(held_before != 0, rng.normal(0, 1, len(quantity)), 0.0)
    trace = _bare(quantity, price, cost, carry)
    expected = -(quantity * price).sum() - cost.sum() + carry.sum()
    assert round_trips(trace).pnl_usd.sum() == pytest.approx(expected, abs=1e-8)


def _bare(quantity: np.ndarray, price: np.ndarray, cost: np.ndarray, carry: np.ndarray) -> Trace:
    n = len(quantity)
    zeros, bits = np.zeros(n), np.zeros(n, np.int64)
    return Trace(
        end_ns=np.arange(n) * 86_400 * 10**9,
        session=np.arange(n),
        close=price,
        action=np.ones(n, np.int8),
        mask=np.ones((n, 3), np.bool_),
        blocked_by=np.zeros((n, 3), np.int64),
        fill_quantity=quantity,
        fill_price=price,
        cost_usd=cost,
        carry_usd=carry,
        equity_usd=100_000
        + np.cumsum(carry - cost - quantity * price)
        + np.cumsum(quantity) * price,
        exposure=zeros,
        reward_components=np.zeros((n, len(REWARD_NAMES))),
        regime=np.zeros(n, np.int8),
        rejected=bits,
        violated=bits,
        passive=bits,
        undecided=bits > 0,
        initial_equity_usd=100_000.0,
        action_names=("SELL", "HOLD", "BUY"),
        rule_names=("capital", "short_sale_restriction", "volatility"),
        rule_severity=("impossible", "regulatory", "house"),
        bars_per_session=1,
        sessions_per_year=252,
        cash_interest_annual_bps=0.0,
    )


def test_scorecard_against_pandas(make_trace: TraceMaker) -> None:
    rng = np.random.default_rng(3)
    equity = 100 * np.exp(np.cumsum(rng.normal(0.0004, 0.01, 504)))
    card = scorecard(make_trace(equity))
    path = pd.Series([100.0, *equity])
    daily = path.pct_change().dropna()
    assert card.sharpe_annual == pytest.approx(daily.mean() / daily.std() * sqrt(252), rel=1e-9)
    downside = sqrt((daily.clip(upper=0) ** 2).mean())
    assert card.sortino_annual == pytest.approx(daily.mean() / downside * sqrt(252), rel=1e-9)
    fall = (1 - path / path.cummax()).max()
    assert card.max_drawdown_frac == pytest.approx(fall, rel=1e-9)
    annual = (equity[-1] / 100) ** 0.5 - 1
    assert card.annual_return_frac == pytest.approx(annual, rel=1e-9)
    assert card.calmar == pytest.approx(annual / fall, rel=1e-9)
    assert card.volatility_annual_frac == pytest.approx(daily.std() * sqrt(252), rel=1e-9)
    scaled = (1 + daily * 0.10 / (daily.std() * sqrt(252))).cumprod()
    scaled_fall = (1 - scaled / scaled.cummax().clip(lower=1)).max()
    assert card.max_drawdown_at_10pct_vol_frac == pytest.approx(scaled_fall, rel=1e-9)


def test_sharpe_of_minute_rows_is_that_of_daily_returns(make_trace: TraceMaker) -> None:
    rng = np.random.default_rng(4)
    equity = 100 * np.exp(np.cumsum(rng.normal(1e-6, 5e-4, 390 * 40)))
    minutes = make_trace(equity, session=np.arange(390 * 40) // 390, bars_per_session=390)
    days = make_trace(equity[389::390])
    assert scorecard(minutes).sharpe_annual == pytest.approx(scorecard(days).sharpe_annual)
    per_bar = np.diff(equity) / equity[:-1]
    wrong = per_bar.mean() / per_bar.std() * sqrt(252)
    assert abs(scorecard(minutes).sharpe_annual) > 5 * abs(wrong)
    assert scorecard(minutes).max_drawdown_frac > scorecard(days).max_drawdown_frac


def test_sharpe_interval_of_one_year_is_about_one_wide_each_side() -> None:
    assert sharpe_standard_error(0.0, 252, 252) == pytest.approx(1.0)
    # Lo (2002): a monthly Sharpe ratio of 1 over 60 months has standard error sqrt(1.5 / 60).
    assert sharpe_standard_error(sqrt(12), 60, 12) == pytest.approx(sqrt(1.5 / 60) * sqrt(12))


def test_sharpe_bounds_are_1_96_standard_errors(make_trace: TraceMaker) -> None:
    card = scorecard(make_trace([101, 100, 103, 102]))
    assert card.sharpe_high_95 - card.sharpe_annual == pytest.approx(
        1.96 * card.sharpe_standard_error, rel=1e-4
    )
    assert card.sharpe_annual - card.sharpe_low_95 == pytest.approx(
        1.96 * card.sharpe_standard_error, rel=1e-4
    )


@pytest.mark.parametrize("bars", [1, 5])
def test_flat_account_that_earns_the_cash_rate_has_no_sharpe(
    make_trace: TraceMaker, bars: int
) -> None:
    days = (
        np.busday_offset(np.datetime64("2024-01-02"), np.arange(60))
        .astype("datetime64[ns]")
        .astype(np.int64)
    )
    start = int(np.datetime64("2024-01-01T21:00", "ns").astype(np.int64))
    end_ns = np.repeat(days, bars) + np.tile(16 + np.arange(bars), 60) * 3_600 * 10**9
    years = np.diff(end_ns, prepend=start) / (365 * 86_400 * 10**9)
    card = scorecard(
        make_trace(
            100 * np.cumprod(1 + 0.05 * years),
            end_ns=end_ns,
            start_ns=start,
            session=np.repeat(np.arange(60), bars),
            bars_per_session=bars,
            cash_interest_annual_bps=500.0,
        )
    )
    assert card.sharpe_annual == 0.0
    assert card.sortino_annual == pytest.approx(0.0, abs=1e-9)
    assert card.excess_return_annual_frac == pytest.approx(0.0, abs=1e-9)
    assert card.annual_return_frac > 0.04


def test_max_drawdown_counts_the_initial_equity(make_trace: TraceMaker) -> None:
    card = scorecard(make_trace([90, 100, 110]))
    assert card.max_drawdown_frac == pytest.approx(0.1)
    assert card.max_drawdown_sessions == 2


@pytest.mark.parametrize(
    ("equity", "length"),
    [
        ([110, 120, 60, 80, 120, 130], 3),
        ([110, 120, 60, 80, 119, 90], 4),
        ([101, 102, 103], 0),
        ([120, 119, 118, 117, 121, 60, 121], 2),
    ],
)
def test_max_drawdown_sessions_from_peak_to_recovery_or_end(
    make_trace: TraceMaker, equity: list[float], length: int
) -> None:
    assert scorecard(make_trace(equity)).max_drawdown_sessions == length


def test_max_drawdown_within_one_session_has_length_zero(make_trace: TraceMaker) -> None:
    card = scorecard(make_trace([110, 50, 110], session=[0, 0, 0], bars_per_session=3))
    assert card.max_drawdown_frac == pytest.approx(60 / 110)
    assert card.max_drawdown_sessions == 0


def test_trip_figures_from_hand_made_trips(make_trace: TraceMaker) -> None:
    trace = trade(make_trace, [100, -100, 100, -100, 100, -100], [10, 12, 10, 9, 10, 10.5])
    card = scorecard(trace)
    assert card.win_rate_frac == pytest.approx(2 / 3)
    assert card.expectancy_usd == pytest.approx((200 - 100 + 50) / 3)
    assert card.expectancy_bps == pytest.approx((2000 - 1000 + 500) / 3)
    assert card.profit_factor == pytest.approx(250 / 100)
    assert (card.n_trades, card.n_fills) == (3, 6)


def test_trading_figures_from_hand_made_fills(make_trace: TraceMaker) -> None:
    trace = trade(
        make_trace,
        [100, -100],
        [10, 10],
        cost_usd=[0.5, 0.5],
        carry_usd=[0.25, 0.75],
        exposure=[0.01, -0.03],
        sessions_per_year=2,
    )
    card = scorecard(trace)
    assert card.years == 1.0
    assert card.cost_usd == 1.0
    assert card.carry_usd == 1.0
    assert card.cost_bps_of_turnover == pytest.approx(1 / 2000 * 1e4)
    assert card.turnover_annual == pytest.approx(2000 / trace.equity_usd.mean())
    assert card.exposure_mean_abs == pytest.approx(0.02)
    assert card.exposure_mean == pytest.approx(-0.01)


def test_mask_figures_from_hand_made_bits(make_trace: TraceMaker) -> None:
    blocked = np.array([[0, 0, 0], [4, 0, 5], [0, 0, 2], [0, 0, 4]])
    card = scorecard(
        make_trace(
            [100] * 4,
            blocked_by=blocked,
            mask=blocked == 0,
            violated=[0, 6, 4, 0],
            rejected=[1, 0, 0, 1],
            passive=[4, 4, 0, 6],
        )
    )
    assert card.masked_share == 0.75
    assert card.blocked_share == {
        "capital": 0.25,
        "short_sale_restriction": 0.25,
        "volatility": 0.5,
    }
    assert card.violations == {"impossible": 0, "regulatory": 1, "house": 2}
    assert card.rejections == {"impossible": 2, "regulatory": 0, "house": 0}
    assert card.passive_breaches == 3


def test_scorecard_without_trades_is_all_zero_but_for_the_standard_error(
    make_trace: TraceMaker,
) -> None:
    card = scorecard(make_trace([100] * 252)).to_dict()
    names = {"sharpe_standard_error", "sharpe_low_95", "sharpe_high_95", "years"}
    counts = {"n_sessions", "n_decisions"}
    assert {name for name, value in card.items() if value != 0} == names | counts
    assert card["sharpe_standard_error"] == pytest.approx(1.0)


def test_scorecard_without_losses_caps_the_ratios(make_trace: TraceMaker) -> None:
    card = scorecard(trade(make_trace, [100, -100], [10, 12]))
    assert card.profit_factor == RATIO_CAP
    assert card.calmar == RATIO_CAP
    assert card.sortino_annual == RATIO_CAP


def test_scorecard_of_one_lucky_day_caps_the_annual_return(make_trace: TraceMaker) -> None:
    assert scorecard(make_trace([10_000])).annual_return_frac == RETURN_CAP


def test_scorecard_of_a_ruined_account_is_finite(make_trace: TraceMaker) -> None:
    card = scorecard(make_trace([50, -10, -20, 10]))
    assert card.max_drawdown_frac == pytest.approx(1.2)
    assert scorecard(make_trace([50, -10])).annual_return_frac == -1.0
    assert all(isfinite(value) for value in card.to_dict().values())


def test_account_that_is_ruined_at_once_ranks_below_one_that_loses(make_trace: TraceMaker) -> None:
    ruined, losing = scorecard(make_trace([0.0])), scorecard(make_trace([9_900, 9_800, 9_600]))
    assert ruined.ruined
    assert not losing.ruined
    assert ruined.sharpe_annual < -10
    assert lower_bound(ruined) == -RATIO_CAP < lower_bound(losing)


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20),
    st.floats(1e-3, 1e9),
    st.integers(0, 2**31),
)
@example([1e-308], 1.0, 0)
@example([1e-229, 1.0], 1.0, 0)
def test_scorecard_of_any_equity_is_finite(equity: list[float], initial: float, seed: int) -> None:
    n = len(equity)
    rng = np.random.default_rng(seed)
    quantity = rng.integers(-3, 4, n).astype(np.float64)
    bare = _bare(quantity, rng.uniform(0.01, 1e5, n), rng.uniform(0, 9, n), rng.normal(0, 9, n))
    trace = Trace(**{**vars(bare), "equity_usd": np.array(equity), "initial_equity_usd": initial})
    assert all(isfinite(value) for value in scorecard(trace).to_dict().values())


def test_to_dict_flattens_and_describe_is_text(make_trace: TraceMaker) -> None:
    card = scorecard(make_trace([101, 100], blocked_by=[[0, 0, 4], [0, 0, 0]]))
    flat = card.to_dict()
    assert flat["blocked_share/volatility"] == 0.5
    assert flat["violations/house"] == 0.0
    assert all(type(value) is float for value in flat.values())
    described = dict(card.describe())
    assert described["Sharpe, annual"].startswith(("+", "-"))
    assert described["  most active rules"] == "volatility 50.0%"
    assert described["Violations"] == "none"


@pytest.mark.parametrize("seed", range(4, 8))
def test_no_figure_depends_on_the_number_of_threads(make_trace: TraceMaker, seed: int) -> None:
    # As many rows as eight years of minutes: a dot product of BLAS shares them among threads.
    rng = np.random.default_rng(seed)
    n = 785_459
    traded = rng.integers(-500, 500, n) * (rng.random(n) < 0.03)
    trace = make_trace(
        100_000.0 + rng.normal(size=n).cumsum(),
        fill_quantity=traded,
        fill_price=rng.uniform(90, 110, n),
        cost_usd=np.abs(traded) * 0.01,
        exposure=rng.uniform(-1, 1, n),
        session=np.arange(n) // 390,
        initial_equity_usd=100_000.0,
        bars_per_session=390,
    )
    cards = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            cards.append(scorecard(trace).to_dict())
    assert cards[0] == cards[1]
