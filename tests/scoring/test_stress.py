"""Stress: costs, latency and break-even with answers that are known by hand."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_workbench.cli.main import compose
from ppo_workbench.config import CostsConfig
from ppo_workbench.scoring.backtest import RANDOM, SERIES, Policy, backtest
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.stress import (
    AS_CONFIGURED,
    BREAK_EVEN_CAP_BPS,
    Stress,
    conditions,
    priced,
    scaled,
    stress,
)
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars
from ppo_workbench.trading.rules.names import BIT

HOLD = 1
BASE = (
    "tracking=none",
    "data.synthetic.sessions=30",
    "features.volatility_slow_bars=100",
    "risk=unconstrained",
    "env.episode_bars=390",
    "market.lot=0",
    "costs.high_volatility_multiplier=1",
    "splits.gap_bars=0",
)


@cache
def _experiment(*overrides: str) -> Experiment:
    config = compose([*BASE, *overrides])
    return prepare(config, *split_bars(config))


def _known(experiment: Experiment, *wishes: tuple[int, float]) -> Policy:
    """Return a policy with wishes (rows of the validation split, exposure), else keep."""
    series = np.full(len(experiment.bars), np.nan)
    for row, exposure in wishes:
        series[experiment.splits["validation"].start + row] = exposure
    return Policy("known", SERIES, series=series)


def _delayed(experiment: Experiment, policy: Policy, bars: int) -> Trace:
    split = experiment.splits["validation"]
    return backtest(
        policy, experiment.bars, experiment.market, split, experiment.config, delay_bars=bars
    )


def _stress(experiment: Experiment, policy: Policy) -> Stress:
    return stress(policy, experiment, "validation")


def _opens(experiment: Experiment) -> npt.NDArray[np.float64]:
    """Return the price at which an order of each row of the validation split fills."""
    return experiment.bars.open[experiment.splits["validation"].start + 1 :]


def _rows(trace: Trace) -> list[int]:
    return [int(row) for row in np.flatnonzero(trace.fill_quantity)]


@pytest.mark.parametrize("delay", [0, 1, 2, 7])
def test_delayed_orders_fill_so_many_bars_later_at_the_open_there(delay: int) -> None:
    experiment = _experiment()
    policy = _known(experiment, (3, 1.0), (15, 0.0), (30, -1.0))
    trace = _delayed(experiment, policy, delay)
    rows = [row + delay for row in (3, 15, 30)]
    assert _rows(trace) == rows
    assert trace.fill_price[rows].tolist() == _opens(experiment)[rows].tolist()
    assert trace.action[rows].tolist() == [2, 0, 0]
    assert np.count_nonzero(trace.action != HOLD) == 3


@pytest.mark.parametrize("action_set", ["step", "target"])
def test_delayed_order_that_is_repeated_while_on_its_way_is_done_once(action_set: str) -> None:
    experiment = _experiment(f"env.action_set={action_set}")
    start = experiment.splits["validation"].start
    series = np.zeros(len(experiment.bars))
    series[start + 5 : start + 20] = 1.0  # asked for anew at every bar until it is held
    policy = Policy("eager", SERIES, series=series)
    trace = _delayed(experiment, policy, 3)
    assert _rows(trace) == [8, 23]
    assert trace.exposure.min() >= 0.0  # no second sale of what is no longer held


def test_delayed_order_that_is_forbidden_on_arrival_is_rejected_by_the_broker() -> None:
    experiment = _experiment("risk=moderate")
    policy = Policy("random", RANDOM, seed=3)
    trace = _delayed(experiment, policy, 0)
    assert not trace.rejected.any()
    first_closed = int(np.argmax(trace.blocked_rules() & BIT["session_no_open"] > 0))
    late = _known(experiment, (first_closed - 1, 1.0))
    assert _rows(_delayed(experiment, late, 0))[0] == first_closed - 1
    delayed = _delayed(experiment, late, 1)
    assert _rows(delayed) == []
    assert delayed.rejected[first_closed] == BIT["session_no_open"]
    assert np.count_nonzero(delayed.rejected) == 1


def test_delayed_holder_is_flattened_by_the_broker_at_the_end_of_the_session() -> None:
    experiment = _experiment("risk=moderate")
    trace = _delayed(experiment, _known(experiment, (3, 1.0)), 1)
    entry, leave = _rows(trace)
    assert entry == 4
    assert trace.rejected[leave] == BIT["session_flatten"]
    assert trace.session[leave] == trace.session[entry]
    assert trace.exposure[leave] == 0.0


@pytest.mark.parametrize("exposure", [1.0, -1.0])
def test_break_even_of_one_round_trip_is_what_its_two_prices_say(exposure: float) -> None:
    experiment = _experiment()
    opens = _opens(experiment)
    gain = exposure * (opens[20:300] - opens[10])
    leave = 20 + int(np.argmax(gain))
    assert gain.max() > 0
    found = _stress(experiment, _known(experiment, (10, exposure), (leave, 0.0))).break_even
    # Bought at p (1 + c), sold at q (1 - c): nothing is left at c = (q - p) / (q + p).
    p, q = opens[10], opens[leave]
    expected = abs(q - p) / (q + p) * 1e4
    assert found.verdict == "found"
    assert found.cost_bps == pytest.approx(expected, abs=0.01)
    assert found.configured_bps == pytest.approx(1.0)
    assert found.multiple == pytest.approx(found.cost_bps)


def test_break_even_is_null_where_there_is_none() -> None:
    experiment = _experiment()
    opens = _opens(experiment)
    leave = 20 + int(np.argmax(opens[20:300]))
    loser = _stress(experiment, _known(experiment, (10, -1.0), (leave, 0.0))).break_even
    assert (loser.cost_bps, loser.verdict, loser.multiple) == (None, "never profitable", None)
    flat = _stress(experiment, _known(experiment)).break_even
    assert (flat.cost_bps, flat.verdict, flat.configured_bps) == (None, "no trades", 0.0)


def test_break_even_above_the_cap_is_null_and_says_so() -> None:
    experiment = _experiment()
    start = experiment.splits["validation"].start
    bars = experiment.market.bars.copy()
    for name in ("open", "close"):
        bars[name][start + 15 :] *= 2.0
    doubled = replace(experiment, market=replace(experiment.market, bars=bars))
    found = _stress(doubled, _known(experiment, (3, 1.0), (40, 0.0))).break_even
    assert (found.cost_bps, found.verdict) == (None, "profitable up to the cap")
    assert found.cap_bps == BREAK_EVEN_CAP_BPS


def test_costs_of_every_scenario_are_what_their_words_say() -> None:
    experiment = _experiment()
    found = _stress(experiment, Policy("random", RANDOM, seed=1))
    bps = {s.conditions.name: s.card.cost_bps_of_turnover for s in found.scenarios}
    assert bps.pop("all_together") == pytest.approx(4.0)  # twice the half spread, times two
    assert bps == pytest.approx(
        {
            "costs_x0.5": 0.5,
            "costs_x1": 1.0,
            "costs_x2": 2.0,
            "costs_x3": 3.0,
            "latency_1_bar": 1.0,
            "slippage_x2": 2.0,
            "borrow": 1.0,
        }
    )
    assert "one extra half spread" in found.scenarios[5].conditions.change


def test_costs_of_quoted_spreads_are_scaled_too_and_the_market_is_left_alone() -> None:
    experiment = _experiment()
    bars = experiment.market.bars.copy()
    bars["half_spread_bps"] = 3.0
    quoted = replace(experiment, market=replace(experiment.market, bars=bars))
    found = _stress(quoted, _known(experiment, (3, 1.0), (15, 0.0), (30, 1.0)))
    bps = [s.card.cost_bps_of_turnover for s in found.scenarios[:4]]
    assert bps == pytest.approx([1.5, 3.0, 6.0, 9.0])
    assert (bars["half_spread_bps"] == 3.0).all()
    # The flat cost of the break-even replaces quotes as well.
    plain = _stress(experiment, _known(experiment, (3, 1.0), (15, 0.0))).break_even
    other = _stress(quoted, _known(experiment, (3, 1.0), (15, 0.0))).break_even
    assert plain.cost_bps is not None
    assert other.cost_bps == pytest.approx(plain.cost_bps, abs=0.02)


def test_costs_of_a_tick_are_scaled_too_and_are_no_part_of_the_flat_cost() -> None:
    plain, coarse = _experiment(), _experiment("market.tick=0.5")
    policy = _known(plain, (3, 1.0), (15, 0.0))
    found = [_stress(experiment, policy) for experiment in (plain, coarse)]
    once, twice = (found[1].scenarios[k].card.cost_bps_of_turnover for k in (1, 2))
    assert once > 10.0
    assert twice == pytest.approx(2.0 * once, rel=0.01)
    assert found[0].break_even.cost_bps is not None
    assert found[1].break_even.cost_bps == pytest.approx(found[0].break_even.cost_bps, abs=0.02)


def test_scaled_costs_of_a_fill_are_proportional_with_every_term() -> None:
    costs = CostsConfig(
        fee_bps=0.5,
        fee_per_share_usd=0.01,
        half_spread_bps=2.0,
        slippage_volatility_frac=0.1,
        high_volatility_multiplier=2.0,
        borrow_annual_bps=50.0,
    )
    experiment = _experiment()
    # The first fill comes from the same cash: its cost over its notional is the rate.
    first = []
    for factor in (1.0, 3.0):
        config = replace(experiment.config, costs=scaled(costs, factor))
        split, market = experiment.splits["validation"], priced(experiment.market, config)
        trace = backtest(_known(experiment, (3, 1.0)), experiment.bars, market, split, config)
        first.append(trace.cost_usd[3] / (trace.fill_quantity[3] * trace.fill_price[3]))
    assert first[1] == pytest.approx(3.0 * first[0], rel=1e-9)
    assert scaled(costs, 3.0).borrow_annual_bps == 50.0
    assert scaled(costs, 3.0).high_volatility_multiplier == 2.0


def test_configured_slippage_is_doubled_and_configured_borrow_kept_where_higher() -> None:
    found = {
        c.name: c
        for c in conditions(CostsConfig(slippage_volatility_frac=0.1, borrow_annual_bps=1000.0))
    }
    assert found["slippage_x2"].costs.slippage_volatility_frac == 0.2
    assert found["slippage_x2"].costs.half_spread_bps == 1.0
    assert found["slippage_x2"].quote_factor == 1.0
    assert found["borrow"].costs.borrow_annual_bps == 1000.0
    together = found["all_together"]
    assert together.costs.slippage_volatility_frac == 0.4
    assert (together.costs.half_spread_bps, together.quote_factor) == (2.0, 2.0)
    assert together.delay_bars == 1


def test_borrow_costs_a_short_seller_its_rate_and_a_buyer_nothing() -> None:
    experiment = _experiment()
    for exposure in (1.0, -1.0):
        policy = _known(experiment, (3, exposure))
        found = _stress(experiment, policy)
        carry = {s.conditions.name: s.card.carry_usd for s in found.scenarios}
        trace = _delayed(experiment, policy, 0)
        short = np.maximum(-trace.exposure * trace.equity_usd, 0.0)
        years = np.diff(trace.end_ns) / (365 * 86_400e9)
        assert carry[AS_CONFIGURED] == 0.0
        assert carry["borrow"] == pytest.approx(-0.03 * (short[:-1] @ years), rel=0.01)


def test_stress_as_configured_is_the_plain_backtest_and_its_document_is_finite() -> None:
    experiment = _experiment("risk=moderate")
    policy = Policy("random", RANDOM, seed=1)
    found = _stress(experiment, policy)
    plain = scorecard(_delayed(experiment, policy, 0))
    cards = {s.conditions.name: s.card for s in found.scenarios}
    assert cards[AS_CONFIGURED] == plain
    assert cards["latency_1_bar"] == scorecard(_delayed(experiment, policy, 1)) != plain
    assert found.whole.n_trades == plain.n_trades
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(document["scenarios"]) == {s.conditions.name for s in found.scenarios}
    assert set(document["by_hour"]) == {f"{hour:02d}" for hour in range(9, 16)}


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=12),
    st.integers(0, 200),
    st.floats(0.0, 5.0),
    st.floats(0.0, 5.0),
)
def test_higher_costs_never_raise_the_final_equity_of_the_same_fills(
    exposures: Sequence[float], first: int, one: float, other: float
) -> None:
    experiment = _experiment()
    policy = _known(experiment, *((first + 10 * k, e) for k, e in enumerate(exposures)))
    final, fills = [], []
    for factor in sorted((one, other)):
        config = replace(experiment.config, costs=scaled(experiment.config.costs, factor))
        market = priced(experiment.market, config)
        trace = backtest(policy, experiment.bars, market, experiment.splits["validation"], config)
        final.append(trace.equity_usd[-1])
        fills.append(_rows(trace))
    assert fills[0] == fills[1]
    assert final[1] <= final[0] * (1 + 1e-12)
