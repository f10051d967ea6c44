"""How orders are counted: lots, contracts, smallest orders and ticks, against sums by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trading.builders import (
    BUY,
    HOLD,
    SELL,
    Account,
    bar_rows,
    configure,
    hand_bars,
    names,
    quiet_table,
)

from ppo_workbench.config import ActionSet, ForbiddenAction
from ppo_workbench.trading.account import cost_rate, sized_shares
from ppo_workbench.trading.actions import action_space
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rules.params import build_params
from ppo_workbench.trading.sizing import desired_shares
from ppo_workbench.trading.table import trading_market

FUTURE: dict[str, Any] = {
    "market__contract_multiplier": 50.0,
    "market__tick": 0.25,
    "costs__fee_per_share_usd": 2.25,
}


def test_future_of_fifty_an_index_point_is_one_contract_and_pays_by_the_contract() -> None:
    config = configure(env__initial_cash_usd=300_000.0, **FUTURE)
    account = Account(config, bar_rows([5000.0, 5010.0, 5010.0]))
    account.rows["open"] = 5000.0
    account.step(BUY)  # 300,000 is 1.2 contracts of 250,000
    assert account["shares"] == 50.0
    half_tick = 0.125 * 50.0
    assert account.out["cost"] == pytest.approx(half_tick + 2.25, abs=1e-9)
    assert account["equity"] == pytest.approx(300_000 + 10.0 * 50.0 - half_tick - 2.25, abs=1e-8)


def test_future_that_equity_cannot_pay_is_forbidden_by_capital() -> None:
    account = Account(configure(**FUTURE), bar_rows([5000.0, 5000.0]))
    assert account.blocked(BUY) == account.blocked(SELL) == {"capital"}
    assert account.blocked(HOLD) == set()


@pytest.mark.parametrize(
    ("price", "cash", "lot", "shares"),
    [
        (60_000.0, 100_000.0, 0.0, 100_000 / 60_000),  # crypto, any fraction
        (60_000.0, 100_000.0, 0.001, 1.666),  # crypto in thousandths
        (1.1, 5000.0, 1000.0, 4000.0),  # FX in micro lots: 5,000 dollars are 4,545 euros
        (1.1, 5000.0, 100_000.0, 0.0),  # and no standard lot
        (100.0, 950.0, 1.0, 9.0),
    ],
)
def test_position_is_rounded_towards_zero_to_lots(
    price: float, cash: float, lot: float, shares: float
) -> None:
    config = configure(env__initial_cash_usd=cash, market__lot=lot)
    for action, sign in ((BUY, 1.0), (SELL, -1.0)):
        account = Account(config, bar_rows([price] * 3))
        assert (account.blocked(action) == {"capital"}) == (shares == 0.0)
        account.step(action)
        assert account["shares"] == pytest.approx(sign * shares, rel=1e-12)


LEVELS = [-1.0, 0.0, 0.4, 0.9, 1.0]  # of 100 shares


def _hundred(**changes: Any) -> Account:
    config = configure(env__initial_cash_usd=10_000.0, env__exposure_levels=LEVELS, **changes)
    return Account(config, bar_rows([100.0] * 8))


def test_order_below_the_minimum_is_forbidden_where_it_adds_risk() -> None:
    account = _hundred(market__minimum_order=50.0)
    assert account.blocked(BUY) == {"capital"}  # 40 shares
    account = _hundred(market__minimum_order=40.0)
    assert account.blocked(BUY) == set()  # exactly the minimum
    account.step(BUY)
    account.step(BUY)
    assert account["shares"] == 90.0
    assert account.blocked(BUY) == {"capital"}  # 10 more


def test_minimum_of_a_future_is_counted_in_contracts() -> None:
    changes = {"market__contract_multiplier": 10.0, "market__lot": 1.0}
    assert _hundred(market__minimum_order=4.0, **changes).blocked(BUY) == set()
    assert _hundred(market__minimum_order=5.0, **changes).blocked(BUY) == {"capital"}


def test_reduction_below_the_minimum_keeps_the_shares_and_the_ladder_goes_on_to_flat() -> None:
    account = _hundred()
    for _ in range(3):
        account.step(BUY)
    assert account["shares"] == 100.0
    account.params["minimum_units"] = 95.0  # since then orders must be larger
    seen = []
    for _ in range(3):
        assert account.blocked(SELL) == set()
        out = account.step(SELL)
        seen.append((int(account["rung"]), float(account["shares"]), float(out["cost"])))
    assert seen == [(3, 100.0, 0.0), (2, 100.0, 0.0), (1, 0.0, 0.0)]


def test_order_that_the_fill_makes_too_small_breaks_no_rule() -> None:
    """At the close 50 shares more break a house rule; at the fill they are 40, and no order."""
    config = configure(
        env__initial_cash_usd=10_000.0,
        env__exposure_levels=[0.0, 0.5, 1.0],
        env__forbidden_action=ForbiddenAction.execute,
        risk__position__enabled=True,
        risk__position__max_notional_usd=6000.0,
        market__minimum_order=45.0,
    )
    for price, moved in ((100.0, 50.0), (125.0, 0.0)):
        account = Account(config, bar_rows([100.0, 100.0, price], [100.0, 100.0, price]))
        account.step(BUY)
        assert account.blocked(BUY) == {"position"}
        out = account.step(BUY)
        assert out["fill_quantity"] == moved
        assert names(int(out["violated"])) == ({"position"} if moved else set())


def test_position_below_the_minimum_can_always_be_closed() -> None:
    account = _hundred()
    account.step(BUY)
    account.params["minimum_units"] = 1000.0
    assert account.blocked(SELL) == set()
    assert account.step(SELL)["fill_quantity"] == -40.0
    assert account["rung"] == 1


def test_flip_below_the_minimum_closes() -> None:
    account = _hundred(env__action_set=ActionSet.target)
    account.step(3)  # 40 shares
    bar, p = account.rows[1], account.params[0]
    for minimum, shares in ((140.0, -100.0), (141.0, 0.0)):
        account.params["minimum_units"] = minimum
        assert desired_shares(account.state, bar, -1.0, False, 100.0, p) == shares


def test_minimum_of_a_tenth_is_met_by_lots_of_a_tenth_whatever_rounding_says() -> None:
    config = configure(
        env__initial_cash_usd=100.0,
        env__exposure_levels=[0.0, 0.65, 0.75],
        market__lot=0.1,
        market__minimum_order=0.1,
    )
    account = Account(config, bar_rows([100.0] * 3))
    account.step(BUY)
    assert 0.7 - float(account["shares"]) < 0.1  # as floating-point numbers have it
    assert account.blocked(BUY) == set()
    assert account.step(BUY)["fill_quantity"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changes", "fields", "rate"),
    [
        ({}, {}, 0.01),  # half a penny of 50 cents: 100 bps a side
        ({"costs__half_spread_bps": 200.0}, {}, 0.02),
        ({"costs__high_volatility_multiplier": 3.0}, {"volatility_ratio": 2.0}, 0.01),
        (
            {"costs__high_volatility_multiplier": 3.0, "costs__half_spread_bps": 50.0},
            {"volatility_ratio": 2.0},
            0.015,
        ),
        ({"costs__quoted_spread": True}, {"half_spread_bps": 30.0}, 0.003),  # the bars know better
        ({"costs__quoted_spread": True}, {"half_spread_bps": math.nan}, 0.01),
        ({"costs__quoted_spread": False}, {"half_spread_bps": 30.0}, 0.01),
        ({"costs__fee_bps": 5.0}, {}, 0.0105),
        ({"market__tick": 0.0}, {}, 0.0),
    ],
)
def test_half_spread_is_never_below_half_a_tick_where_it_is_not_quoted(
    changes: dict[str, Any], fields: dict[str, Any], rate: float
) -> None:
    config = configure(**{"market__tick": 0.01, **changes})
    account = Account(config, bar_rows([0.5, 0.5, 0.5], **fields))
    assert cost_rate(account.rows[0], account.params[0], 0.0) == pytest.approx(rate, rel=1e-12)
    account.step(BUY)
    assert account.out["cost"] == pytest.approx(rate * 0.5 * account["shares"], abs=1e-8)


def test_traded_value_of_a_bar_counts_contracts_by_their_multiplier() -> None:
    config = configure(**FUTURE)
    for has_volume, value in ((True, 50_000.0), (False, math.inf)):
        bars = hand_bars([100.0] * 3, 3, has_volume=has_volume)
        table = quiet_table(bars, mean_notional=np.full(3, 1000.0))
        market = trading_market(bars, table, config, Scaler.fit(table.features, 8.0))
        assert (market.bars["mean_notional"] == value).all()


_LOTS = st.sampled_from([0.0, 1e-8, 0.001, 0.1, 1.0, 3.0, 1000.0])
_MULTIPLIERS = st.sampled_from([0.1, 1.0, 5.0, 50.0, 1000.0])


@settings(max_examples=300)
@given(
    _LOTS, _MULTIPLIERS, st.floats(0.01, 1e5), st.floats(1e3, 1e8), st.floats(0, 0.05),
    st.floats(-3, 3),
)  # fmt: skip
def test_exposure_after_costs_is_never_above_the_level_and_one_lot_short_at_most(
    lot: float, multiplier: float, price: float, equity: float, rate: float, level: float
) -> None:
    config = configure(
        market__lot=lot,
        market__contract_multiplier=multiplier,
        costs__fee_per_share_usd=0.5,
        costs__fee_minimum_usd=1.0,
    )
    p = build_params(config, action_space(config.env))[0]
    shares = sized_shares(level, equity, price, rate, p)

    def exposure(units: float) -> float:
        fee = max(0.5 * units / multiplier, 1.0)
        left = equity - units * price * rate - fee
        return units * price / left if left > 0 else math.inf

    size = abs(shares)
    assert exposure(size) <= abs(level) * (1 + 1e-9)
    assert shares * level >= 0
    if lot > 0:
        lots = size / (lot * multiplier)
        assert lots == pytest.approx(round(lots), rel=1e-12, abs=1e-9)
    step = lot * multiplier + 1e-6 * max(size, 1e-6)
    # The fee is at least its minimum, so the last lot may be kept for one that is not paid.
    assert exposure(size + step + 1.01 * abs(level) / price) > abs(level)


@settings(max_examples=60)
@given(st.data(), _LOTS, _MULTIPLIERS, st.sampled_from([0.0, 1.0, 7.0]))
def test_walk_of_any_actions_keeps_to_lots_and_minimum_and_levels(
    data: st.DataObject, lot: float, multiplier: float, minimum: float
) -> None:
    config = configure(
        env__exposure_levels=[-1.0, -0.5, 0.0, 0.3, 1.0],
        env__action_set=data.draw(st.sampled_from(list(ActionSet))),
        env__initial_cash_usd=20_000.0 * multiplier,
        costs__half_spread_bps=5.0,
        market__lot=lot,
        market__contract_multiplier=multiplier,
        market__minimum_order=minimum,
    )
    moves = data.draw(st.lists(st.floats(-0.05, 0.05), min_size=10, max_size=10))
    closes = 50.0 * np.exp(np.cumsum(moves))
    account = Account(config, bar_rows(list(closes), list(closes)))
    for _ in range(9):
        held = float(account["shares"])
        legal = [k for k, allowed in enumerate(account.legal()) if allowed]
        out = account.step(data.draw(st.sampled_from(legal)))
        shares, level = float(account["shares"]), account.space.levels[account["rung"]]
        assert (shares > 0, shares < 0) == (level > 0, level < 0)
        if out["fill_quantity"] == 0.0:
            assert shares == held
            continue
        if shares != 0.0:
            assert abs(out["fill_quantity"]) >= minimum * multiplier * (1 - 1e-8)
        if abs(shares) > abs(held) or shares * held < 0:
            assert abs(out["exposure"]) <= abs(level) * (1 + 1e-9)
        if lot > 0:
            assert shares / (lot * multiplier) == pytest.approx(
                round(shares / (lot * multiplier)), rel=1e-12, abs=1e-6
            )
