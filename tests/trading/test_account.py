"""Fills, costs and carry on hand-made bars, to the cent; cash plus position is equity."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trading.builders import BUY, HOLD, SELL, Account, bar_rows, configure

from ppo_workbench.config import ActionSet, Config, Fill

OPENS = [100.0, 101.0, 103.0, 99.0, 98.0]
CLOSES = [100.5, 102.0, 102.5, 98.5, 97.0]
DAY = 1 / 365
SHORT, FLAT, LONG = 1, 2, 3  # indices of the action set "target" on -1, 0, +1


def _play(config: Config, actions: Sequence[int], **fields: Any) -> Account:
    account = Account(config, bar_rows(CLOSES, OPENS, **fields))
    for action in actions:
        account.step(action)
    return account


def test_long_round_trip_without_costs_is_shares_times_the_difference_of_opens() -> None:
    account = _play(configure(), [BUY, HOLD, SELL, HOLD])
    shares = math.floor(100_000 / 101.0)  # decided at 100.50, filled at the next open 101
    assert account["cash"] == pytest.approx(100_000 + shares * (99.0 - 101.0), abs=1e-8)
    assert account["equity"] == account["cash"]
    assert account["shares"] == 0


def test_long_is_marked_at_the_close_of_the_bar_of_its_fill() -> None:
    account = _play(configure(), [BUY])
    shares = math.floor(100_000 / 101.0)
    assert account["shares"] == shares
    assert account["cash"] == pytest.approx(100_000 - shares * 101.0, abs=1e-8)
    assert account["equity"] == pytest.approx(100_000 + shares * (102.0 - 101.0), abs=1e-8)


def test_long_filled_at_the_next_close_uses_closes_only() -> None:
    account = _play(configure(env__fill=Fill.next_close), [BUY, HOLD, SELL])
    shares = math.floor(100_000 / 102.0)
    assert account["cash"] == pytest.approx(100_000 + shares * (98.5 - 102.0), abs=1e-8)


def test_short_earns_the_fall_and_pays_the_spread_on_both_fills() -> None:
    config = configure(costs__half_spread_bps=10.0)
    account = _play(config, [SELL, HOLD, HOLD, BUY])
    shares = math.floor(100_000 / (101.0 * 1.001))  # sized after the cost of the fill
    cash = 100_000 + shares * (101.0 - 98.0) - 0.001 * shares * (101.0 + 98.0)
    assert account["cash"] == pytest.approx(cash, abs=1e-8)
    assert account["shares"] == 0


def test_flip_of_the_target_set_sells_twice_and_pays_for_both_legs() -> None:
    config = configure(env__action_set=ActionSet.target, costs__half_spread_bps=10.0)
    account = _play(config, [LONG, SHORT])
    long = math.floor(100_000 / (101.0 * 1.001))
    cash = 100_000 - long * 101.0 * 1.001
    equity = cash + long * 103.0 * (1 - 0.001)  # at the fill, the long closed and paid
    short = math.floor(equity / (103.0 * 1.001))
    cash += (long + short) * 103.0 * (1 - 0.001)
    assert account["shares"] == -short
    assert account["cash"] == pytest.approx(cash, abs=1e-8)
    assert account["equity"] == pytest.approx(cash - short * 102.5, abs=1e-8)


def test_flip_to_all_in_long_never_makes_cash_negative() -> None:
    config = configure(env__action_set=ActionSet.target, costs__half_spread_bps=100.0)
    account = _play(config, [SHORT, LONG])
    assert account["shares"] > 0
    assert 0 <= account["cash"] < 103.0 * 1.01  # less than one more share and its cost


def test_borrow_is_charged_on_the_short_at_its_last_mark() -> None:
    config = configure(costs__borrow_annual_bps=365.0)
    account = _play(config, [SELL, HOLD, HOLD], years=[0, DAY, DAY, DAY, DAY])
    shares = math.floor(100_000 / 101.0)
    borrow = 0.0365 * DAY * shares * (102.0 + 102.5)  # none before the fill
    assert account["cash"] == pytest.approx(100_000 + shares * 101.0 - borrow, abs=1e-8)
    assert account.out["carry"] == pytest.approx(-0.0365 * DAY * shares * 102.5, abs=1e-8)


def test_interest_is_earned_on_cash_and_not_on_short_proceeds() -> None:
    config = configure(costs__cash_interest_annual_bps=365.0)
    years = [0, DAY, DAY, DAY, DAY]
    flat = _play(config, [HOLD, HOLD], years=years)
    assert flat["cash"] == pytest.approx(100_000 * (1 + 0.0001) ** 2, abs=1e-8)
    short = _play(config, [SELL, HOLD], years=years)
    before = 100_000 * 1.0001
    shares = math.floor(before / 101.0)
    equity = before + shares * (101.0 - 102.0)
    assert short["cash"] == pytest.approx(before + shares * 101.0 + equity * 0.0001, abs=1e-8)


def test_margin_interest_is_paid_on_debt() -> None:
    config = configure(
        env__exposure_levels=[0.0, 2.0],
        risk__capital__max_gross_exposure=2.0,
        costs__margin_interest_annual_bps=365.0,
    )
    account = _play(config, [BUY, HOLD], years=[0, DAY, DAY, DAY, DAY])
    shares = math.floor(2 * 100_000 / 101.0)
    debt = shares * 101.0 - 100_000
    assert account["cash"] == pytest.approx(-debt * 1.0001, abs=1e-8)


@pytest.mark.parametrize(
    ("cash", "shares", "paid"),
    [(100_000.0, 990, 990 * 0.005), (10_000.0, 98, 1.0)],  # above and at the minimum
)
def test_commission_per_share_has_a_minimum(cash: float, shares: int, paid: float) -> None:
    config = configure(
        env__initial_cash_usd=cash, costs__fee_per_share_usd=0.005, costs__fee_minimum_usd=1.0
    )
    account = _play(config, [BUY])
    assert account["shares"] == shares
    assert account.out["cost"] == pytest.approx(paid, abs=1e-9)
    assert account["cash"] == pytest.approx(cash - shares * 101.0 - paid, abs=1e-8)


def test_commission_of_a_ladder_is_paid_for_each_fill() -> None:
    config = configure(
        env__exposure_levels=[0.0, 0.5, 1.0],
        costs__fee_per_share_usd=0.01,
        costs__fee_minimum_usd=6.0,
    )
    account = _play(config, [BUY, BUY, SELL, SELL])
    first = math.floor(0.5 * (100_000 - 6) / (101.0 + 0.005))
    equity = 100_000 - 6.0 + first * (103.0 - 101.0)  # 495 shares cost less than the minimum
    second = math.floor((equity - 6) / (103.0 + 0.01))
    cash = 100_000 - 6.0 - first * 101.0 - (second - first) * 103.0 - 6.0
    equity = cash + second * 99.0
    third = math.floor(0.5 * (equity - 6) / (99.0 + 0.005))
    cash += (second - third) * 99.0 - 6.0 + third * 98.0 - 6.0
    assert account["shares"] == 0
    assert account["cash"] == pytest.approx(cash, abs=1e-8)


def test_shares_fractional_leave_no_cash_and_whole_ones_less_than_a_share() -> None:
    fractional = _play(configure(market__lot=0.0), [BUY])
    assert fractional["shares"] == pytest.approx(100_000 / 101.0, rel=1e-12)
    assert fractional["cash"] == pytest.approx(0.0, abs=1e-8)
    whole = _play(configure(), [BUY])
    assert whole["shares"] == math.floor(whole["shares"])
    assert 0 <= whole["cash"] < 101.0


def test_quoted_spread_of_the_deciding_bar_replaces_the_configured_one() -> None:
    config = configure(costs__quoted_spread=True, costs__half_spread_bps=50.0)
    quotes = [4.0, 9.0, math.nan, 9.0, 9.0]
    account = _play(config, [BUY, HOLD], half_spread_bps=quotes)
    shares = math.floor(100_000 / (101.0 * 1.0004))
    assert account["cash"] == pytest.approx(100_000 - shares * 101.0 * 1.0004, abs=1e-8)
    account.step(SELL)  # no quote at bar 2: the configured half spread
    assert account.out["cost"] == pytest.approx(0.005 * shares * 99.0, abs=1e-8)


def test_cost_widens_in_high_volatility_and_with_slippage_and_fee() -> None:
    config = configure(
        costs__half_spread_bps=5.0,
        costs__fee_bps=2.0,
        costs__slippage_volatility_frac=0.1,
        costs__high_volatility_multiplier=3.0,
        costs__high_volatility_ratio=1.6,
    )
    ratio = [1.7, 1.0, 1.6, 1.0, 1.0]
    account = _play(config, [BUY], volatility_ratio=ratio, sigma=0.002)
    rate = 15e-4 + 2e-4 + 0.1 * 0.002
    shares = math.floor(100_000 / (101.0 * (1 + rate)))
    assert account.out["cost"] == pytest.approx(rate * shares * 101.0, abs=1e-8)
    account.step(HOLD)
    account.step(SELL)  # 1.6 is not above 1.6
    assert account.out["cost"] == pytest.approx((7e-4 + 2e-4) * shares * 99.0, abs=1e-8)


def test_impact_grows_with_the_root_of_participation_and_never_makes_cash_negative() -> None:
    config = configure(costs__impact_volatility_frac=0.5)
    account = _play(config, [BUY], sigma=0.01, mean_notional=400_000.0)
    shares = account["shares"]
    cost = 0.5 * math.sqrt(shares * 101.0 / 400_000.0) * 0.01 * shares * 101.0
    assert account.out["cost"] == pytest.approx(cost, abs=1e-8)
    assert 0 <= account["cash"] < 2 * 101.0


def test_equity_of_the_fill_sizes_the_order_and_not_that_of_the_decision() -> None:
    account = _play(configure(env__exposure_levels=[0.0, 0.5, 1.0]), [BUY, BUY])
    first = math.floor(0.5 * 100_000 / 101.0)
    equity = 100_000 + first * (103.0 - 101.0)  # at the open of bar 2
    assert account["shares"] == math.floor(equity / 103.0)


def test_step_towards_flat_after_a_fall_never_adds_shares() -> None:
    rows = bar_rows([100.0, 100.0, 20.0, 20.0])
    account = Account(configure(env__exposure_levels=[-1.0, -0.5, 0.0, 0.5, 1.0]), rows)
    account.step(SELL)
    held = account["shares"]
    account.step(SELL)  # at 20 the equity buys far more: a short of -1
    assert account["shares"] < held
    account.step(BUY)
    assert account["shares"] == -math.floor(0.5 * account["equity"] / 20.0)


_COSTS = {
    "costs__half_spread_bps": 3.0,
    "costs__fee_per_share_usd": 0.005,
    "costs__fee_minimum_usd": 1.0,
    "costs__slippage_volatility_frac": 0.1,
    "costs__impact_volatility_frac": 0.5,
    "costs__borrow_annual_bps": 300.0,
    "costs__cash_interest_annual_bps": 200.0,
    "costs__margin_interest_annual_bps": 650.0,
}
_CONFIGS = [
    configure(risk, env__action_set=kind, env__exposure_levels=levels, **_COSTS)
    for risk in ("unconstrained", "conservative")
    for kind in ActionSet
    for levels in ([-1.0, 0.0, 1.0], [0.0, 0.25, 1.0], [-1.0, -0.3, 0.0, 0.6, 1.0])
]


@settings(max_examples=120)
@given(st.data())
def test_cash_and_position_are_equity_and_log_returns_add_up(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from(_CONFIGS))
    moves = data.draw(st.lists(st.floats(-0.03, 0.03), min_size=12, max_size=12))
    gaps = data.draw(st.lists(st.floats(-0.02, 0.02), min_size=12, max_size=12))
    closes = 50.0 * np.exp(np.cumsum(moves))
    opens = np.concatenate([closes[:1], closes[:-1]]) * np.exp(gaps)
    rows = bar_rows(list(closes), list(opens), years=DAY, sigma=0.01, mean_notional=1e6)
    rows["session"] = np.arange(12) // 4
    account = Account(config, rows)
    logs, cash = 0.0, 100_000.0
    for _ in range(11):
        action = data.draw(st.integers(0, account.space.size - 1))
        out = account.step(action)
        logs += out["log_return"] / 1000.0
        cash += out["carry"] - out["cost"] - out["fill_quantity"] * out["fill_price"]
        close = rows["close"][account["t"]]
        assert account["cash"] == pytest.approx(cash, rel=1e-9)
        assert account["cash"] + account["shares"] * close == pytest.approx(
            account["equity"], rel=1e-9
        )
        if account["shares"] >= 0 and out["fill_quantity"] > 0:
            assert account["cash"] >= -1e-6  # unlevered: an order is never paid with debt
    assert logs == pytest.approx(math.log(account["equity"] / 100_000.0), rel=1e-9, abs=1e-12)


def test_order_that_meets_a_bar_without_volume_lapses_and_may_be_given_again() -> None:
    account = Account(configure(), bar_rows(CLOSES, OPENS, trades=[1, 0, 1, 0, 1]))
    out = account.step(BUY)
    assert (out["fill_quantity"], out["cost"], out["violated"]) == (0.0, 0.0, 0)
    assert (account["shares"], account["cash"]) == (0.0, 100_000.0)
    account.step(BUY)
    assert account["shares"] == math.floor(100_000 / 103.0)
    held = account["shares"]
    account.step(SELL)
    assert account["shares"] == held
    account.step(SELL)
    assert account["shares"] == 0.0


def test_nothing_can_be_opened_after_twenty_bars_without_volume() -> None:
    config = configure(risk__liquidity__enabled=True)
    account = Account(config, bar_rows(CLOSES, OPENS, mean_notional=0.0))
    assert account.blocked(BUY) == {"liquidity"}
    assert account.blocked(SELL) == {"liquidity"}
