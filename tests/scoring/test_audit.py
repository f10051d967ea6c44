"""The independent audit: nothing in masked arms, every planted contradiction in the record."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Activation, Config
from ppo_workbench.delivery.network import PolicyWeights
from ppo_workbench.market.sources import load_bars
from ppo_workbench.scoring.audit.market import market_facts
from ppo_workbench.scoring.audit.rules import CHECKS
from ppo_workbench.scoring.audit.verdict import AuditReport, audit
from ppo_workbench.scoring.backtest import (
    NETWORK,
    RANDOM,
    SERIES,
    THRESHOLD,
    Policy,
    backtest,
)
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.trace import Trace, TraceError
from ppo_workbench.trading.experiment import Experiment, prepare_with_test, split_bars
from ppo_workbench.trading.rules.names import BIT

REAL = Path(__file__).parents[2] / "../shared/data"
SYNTHETIC = ("data.synthetic.sessions=60", "features.volatility_slow_bars=390")
DATA = {
    "synthetic": SYNTHETIC,
    "sp500": ("data=sp500",),
    "ibm_1h": ("experiment=us_hourly", f"data.path={REAL / 'ibm_1h_2000_2021.csv.gz'}"),
    "spy_1min": ("experiment=us_minute_short", f"data.path={REAL / 'spy_1min_2013-10.csv'}"),
}
LADDERS = ("env.action_set=target", "env.exposure_levels=[-1.0,-0.5,0.0,0.5,1.0,2.0]")
# Every rule on, with limits that are met often.
EVERYTHING = (
    "risk=conservative",
    "risk.halt.enabled=true",
    "risk.liquidity.max_volume_frac=0.012",
    "risk.halt.luld_band_frac=0.003",
    "risk.halt.market_wide=true",
    "risk.capital.max_gross_exposure=3",
    "risk.settlement.enabled=true",
    "risk.short_sale_restriction.fall_frac=0.02",
    "risk.pattern_day_trader.enabled=true",
    "risk.pattern_day_trader.minimum_equity_usd=1e6",
    "risk.position.enabled=true",
    "risk.position.max_notional_usd=99000",
    "risk.regime.enabled=true",
    "risk.regime.blocked=[trend_high_volatility]",
    "risk.maintenance_margin.short_frac=0.9",
    "risk.intraday_margin.margin_frac=0.9",
    "costs=us_equity",
    "costs.cash_interest_annual_bps=300",
    *("risk.stop_loss.enabled=true", "risk.stop_loss.loss_frac=0.004"),
    *("risk.take_profit.enabled=true", "risk.take_profit.gain_frac=0.004"),
)
# Contracts, tenths of them and smallest orders; a spread of a tick that is felt.
COUNTED = {
    "synthetic": (
        *("market.contract_multiplier=50", "market.lot=0.1", "market.minimum_order=11"),
        "market.tick=0.05",
    ),
    "sp500": (
        *("market.contract_multiplier=5", "market.lot=0.01", "market.minimum_order=5"),
        *("market.tick=5", "costs.fee_per_share_usd=1.5"),
    ),
}
SIZED = ("env.sizing=volatility", "env.volatility_target_annual_frac=0.08")
MASKS = (
    "trading.rules",
    "trading.rules.market",
    "trading.account",
    "trading.step",
    "trading.actions",
    "market.features",
    "market.regimes",
)


@cache
def _experiment(data: str, *overrides: str) -> Experiment:
    if "experiment=us_" in DATA[data][0] and not REAL.exists():
        pytest.skip("no real bars beside the project")
    config = compose(["tracking=none", *DATA[data], *overrides])
    return prepare_with_test(config, *split_bars(config))


def _network(experiment: Experiment) -> PolicyWeights:
    """Return a random network that likes to act."""
    rng = np.random.default_rng(3)
    inputs, actions = experiment.market.observation_size, experiment.market.space.size
    layers = [
        (rng.normal(0, 0.5, (16, inputs)).astype(np.float32), np.zeros(16, np.float32)),
        (rng.normal(0, 0.5, (actions, 16)).astype(np.float32), np.zeros(actions, np.float32)),
    ]
    return PolicyWeights.from_layers(layers, Activation.tanh)


def _policies(experiment: Experiment) -> list[Policy]:
    signal = experiment.table.features[:, 1]
    return [
        Policy("random", RANDOM, seed=1),
        Policy("network", NETWORK, weights=_network(experiment)),
        Policy("threshold", THRESHOLD, series=signal, entry=1.0, exit=0.25),
    ]


def _traded(experiment: Experiment, policy: Policy) -> Trace:
    test = experiment.splits["test"]
    return backtest(policy, experiment.bars, experiment.market, test, experiment.config)


def _found_nothing(experiment: Experiment, policy: Policy, *, masked: bool) -> AuditReport:
    trace = _traded(experiment, policy)
    report = audit(trace, experiment.bars, experiment.config, masked=masked)
    assert np.count_nonzero(trace.fill_quantity) > 0
    assert report.count == 0, report.describe()
    assert report.unaudited == ()
    return report


@pytest.mark.parametrize("risk", ["conservative", "moderate", "aggressive"])
@pytest.mark.parametrize("data", DATA)
def test_masked_arms_break_nothing(data: str, risk: str) -> None:
    experiment = _experiment(data, f"risk={risk}")
    for policy in _policies(experiment):
        report = _found_nothing(experiment, policy, masked=True)
        assert report.rejected == 0
        assert report.checked["drawdown"] == report.decisions


@pytest.mark.parametrize(
    ("data", "extra"),
    [(data, extra) for data in ("synthetic", "sp500") for extra in ((), ("market.lot=0",), SIZED)]
    + list(COUNTED.items()),
)
def test_masked_and_rejected_arms_break_nothing_with_every_rule_on(
    data: str, extra: tuple[str, ...]
) -> None:
    experiment = _experiment(data, *EVERYTHING, *LADDERS, *extra)
    for policy in _policies(experiment)[:2]:
        _found_nothing(experiment, policy, masked=True)
        report = _found_nothing(experiment, replace(policy, use_mask=False), masked=False)
        assert report.rejected > 0


@pytest.mark.parametrize(
    ("data", "extra"),
    [
        (data, extra)
        for data in ("synthetic", "sp500")
        for extra in (
            *((), LADDERS, (*LADDERS, "risk.locate.available=false")),
            (*LADDERS, *COUNTED[data]),
        )
    ],
)
def test_executed_violations_agree_row_by_row_with_those_of_the_step(
    data: str, extra: tuple[str, ...]
) -> None:
    overrides = (*EVERYTHING, *extra, "env.forbidden_action=execute")
    experiment = _experiment(data, *overrides)
    broken = 0
    for policy in _policies(experiment):
        trace = _traded(experiment, replace(policy, use_mask=False))
        report = audit(trace, experiment.bars, experiment.config, enforced=False)
        for rule in CHECKS:
            expected = np.flatnonzero(trace.violated & BIT[rule])
            assert report.rows[rule].tolist() == expected.tolist(), rule
        assert report.by_severity["record"] == 0, report.describe()
        card = scorecard(trace).violations
        for severity in ("impossible", "regulatory", "house"):
            assert (report.by_severity[severity] > 0) == (card[severity] > 0)
        broken += report.count
    assert broken > 100


def test_buy_and_hold_is_audited_as_not_enforced() -> None:
    experiment = _experiment("synthetic", "risk=conservative")
    hold = Policy("hold", SERIES, series=np.ones(len(experiment.bars)), unconstrained=True)
    trace = _traded(experiment, hold)
    report = audit(trace, experiment.bars, experiment.config, enforced=False)
    assert {name for name, count in report.by_rule.items() if count} <= {
        *("session_flatten", "drawdown", "daily_loss", "volatility", "event", "mask_reasons")
    }
    nights = len(trace.session_ends()) - 1
    assert report.by_rule["session_flatten"] >= 5 * nights


def test_facts_of_the_market_that_are_handed_in_change_nothing() -> None:
    experiment = _experiment("synthetic", *EVERYTHING, "env.forbidden_action=execute")
    bars, config = experiment.bars, experiment.config
    trace = _traded(experiment, replace(_policies(experiment)[0], use_mask=False))
    alone = audit(trace, bars, config, enforced=False)
    assert alone.count > 0
    assert audit(trace, bars, config, enforced=False, facts=market_facts(bars, config)) == alone


@pytest.mark.parametrize("data", ["synthetic", "sp500"])
def test_market_state_is_that_of_the_features(data: str) -> None:
    experiment = _experiment(data, *EVERYTHING)
    bars, table = experiment.bars, experiment.table
    facts = market_facts(bars, experiment.config)
    assert np.allclose(facts.sigma, table.sigma, rtol=1e-11, atol=0)
    assert np.allclose(facts.ratio, table.volatility_ratio, rtol=1e-11, atol=0)
    notional = table.mean_notional if bars.has_volume else np.full(len(bars), np.inf)
    assert np.allclose(facts.mean_notional, notional, rtol=1e-14, atol=0)
    assert np.array_equal(facts.large_move, table.large_move)
    assert np.array_equal(facts.regime, table.regime)
    bits = experiment.market.bars["rule_bits"]
    assert np.array_equal(facts.halted, bits & BIT["halt"] > 0)
    assert np.array_equal(facts.restricted, bits & BIT["short_sale_restriction"] > 0)
    assert facts.restricted.any()
    assert facts.large_move.any()


@cache
def _honest() -> tuple[Experiment, Trace]:
    """Return a masked random trace with every kind of cost, held overnight."""
    overrides = ("costs=us_equity", "costs.cash_interest_annual_bps=300", "env.flat_last_bars=0")
    experiment = _experiment("synthetic", "risk=moderate", *overrides)
    return experiment, _traded(experiment, Policy("random", RANDOM, seed=2))


def _audited(trace: Trace, *, masked: bool = True) -> AuditReport:
    experiment, _ = _honest()
    return audit(trace, experiment.bars, experiment.config, masked=masked)


def _with_byte_changed(values: npt.NDArray[Any], row: int) -> npt.NDArray[Any]:
    changed = values.copy()
    changed.view(np.uint8)[8 * row + 4] ^= 0x10  # a relative change of about 1e-6
    return changed


def _row_of_a_fill() -> int:
    _, trace = _honest()
    return int(np.flatnonzero(trace.fill_quantity)[20])


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        ("fill_price", "fill_price"),
        ("cost_usd", "cost"),
        ("equity_usd", "equity"),
        ("close", "close"),
        ("exposure", "exposure"),
    ],
)
def test_one_changed_byte_is_found_at_its_row(column: str, rule: str) -> None:
    _, trace = _honest()
    assert _audited(trace).count == 0
    row = _row_of_a_fill()
    changes: dict[str, Any] = {column: _with_byte_changed(getattr(trace, column), row)}
    report = _audited(replace(trace, **changes))
    assert report.rows[rule].tolist() == [row]
    allowed = {rule, "exposure"} if column == "equity_usd" else {rule}
    assert {name for name, count in report.by_rule.items() if count} == allowed
    assert report.by_severity["record"] == report.count


def test_changed_carry_and_price_by_a_single_bit_are_found() -> None:
    _, trace = _honest()
    row = int(np.flatnonzero(trace.carry_usd)[-1])
    forged = replace(trace, carry_usd=_with_byte_changed(trace.carry_usd, row))
    assert _audited(forged).rows["carry"].tolist() == [row]
    price, at = trace.fill_price.copy(), _row_of_a_fill()
    price[at] = np.nextafter(price[at], 0.0)
    assert _audited(replace(trace, fill_price=price)).rows["fill_price"].tolist() == [at]


def _forge(trace: Trace, column: str, row: int, value: object) -> Trace:
    values = getattr(trace, column).copy()
    values[row] = value
    return replace(trace, **{column: values})


def test_invented_and_hidden_fills_are_found_from_their_row_on() -> None:
    _, trace = _honest()
    row = _row_of_a_fill()
    more = _audited(_forge(trace, "fill_quantity", row, trace.fill_quantity[row] + 5))
    assert more.rows["fill_quantity"][0] == row
    assert more.rows["equity"][0] == row
    assert more.rows["equity"][-1] == len(trace) - 1
    hidden = _audited(_forge(trace, "fill_quantity", row, 0.0))
    assert hidden.rows["fill_quantity"][0] == row
    quiet = int(np.flatnonzero(trace.fill_quantity == 0)[30])
    assert _audited(_forge(trace, "fill_quantity", quiet, 5.0)).rows["fill_quantity"][0] == quiet


def test_equity_that_is_no_number_is_found() -> None:
    _, trace = _honest()
    report = _audited(_forge(trace, "equity_usd", 7, np.nan))
    assert report.rows["equity"].tolist() == [7]


def _masked_action(trace: Trace) -> tuple[int, int]:
    blocked = trace.blocked_by != 0  # by a rule: a second name of HOLD is nobody's to answer
    row = int(np.flatnonzero(blocked.any(axis=1) & (trace.fill_quantity == 0))[0])
    return row, int(np.argmax(blocked[row]))


def _masked_while_flat(trace: Trace) -> tuple[int, Any]:
    """Return a row without a position and a mask of HOLD alone, which no rule asked for."""
    flat = (trace.exposure == 0.0) & (np.roll(trace.exposure, 1) == 0.0) & trace.mask.all(axis=1)
    return int(np.flatnonzero(flat)[0]), np.array([False, True, False])


@pytest.mark.parametrize(
    ("rule", "forge"),
    [
        ("time", lambda t: _forge(t, "end_ns", 9, t.end_ns[9] + 1_000_000_000)),
        ("session", lambda t: replace(t, session=t.session + (np.arange(len(t)) > 99))),
        ("mask_empty", lambda t: _forge(t, "mask", 9, False)),
        ("mask_reasons", lambda t: _forge(t, "mask", 9, ~t.mask[9])),
        ("mask_reasons", lambda t: _forge(t, "blocked_by", 9, 1)),
        ("mask_reasons", lambda t: _forge(t, "mask", *_masked_while_flat(t))),
        ("mask_obeyed", lambda t: _forge(t, "action", *_masked_action(t))),
        ("answer", lambda t: _forge(t, "action", *_masked_action(t))),
        ("answer", lambda t: _forge(t, "violated", 9, BIT["volatility"])),
        ("answer", lambda t: _forge(t, "rejected", 9, BIT["volatility"])),
        ("rejected_moved", lambda t: _forge(t, "rejected", _row_of_a_fill(), 1)),
        ("hold_moved", lambda t: _forge(t, "action", _row_of_a_fill(), 1)),
    ],
)
def test_record_that_contradicts_itself_is_found(
    rule: str, forge: Callable[[Trace], Trace]
) -> None:
    _, trace = _honest()
    assert _audited(forge(trace)).by_rule[rule] > 0


def test_costs_and_fills_other_than_configured_are_found() -> None:
    experiment, trace = _honest()
    config = copy.deepcopy(experiment.config)
    config.costs.fee_per_share_usd *= 1.01
    report = audit(trace, experiment.bars, config)
    assert report.by_rule["cost"] > 0
    assert report.by_rule["equity"] > 0
    config = copy.deepcopy(experiment.config)
    config.env.fill = type(config.env.fill).next_close
    found = audit(trace, experiment.bars, config).by_rule["fill_price"]
    assert found > 0.9 * np.count_nonzero(trace.fill_quantity)


def test_ladder_size_that_is_not_reduced_is_found() -> None:
    loose = _experiment("synthetic", "risk=moderate", "risk.drawdown.reduced_size=1.0")
    trace = _traded(loose, Policy("random", RANDOM, seed=1))
    strict: Config = copy.deepcopy(loose.config)
    strict.risk.drawdown.reduced_size = 0.5
    report = audit(trace, loose.bars, strict)
    assert report.by_rule["drawdown"] > 10
    assert "position value" in next(x.what for x in report.violations if x.rule == "drawdown")


def test_report_is_json_and_says_what_was_found() -> None:
    _, trace = _honest()
    row = _row_of_a_fill()
    report = _audited(_forge(trace, "cost_usd", row, 0.0))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["count"] == plain["by_rule"]["cost"] == 1
    time = f"{np.datetime64(int(trace.end_ns[row]), 'ns').astype('datetime64[s]')}+00:00"
    what = f"recorded 0, must be {trace.cost_usd[row]:.12g}"
    assert plain["violations"] == [{"row": row, "time": time, "rule": "cost", "what": what}]
    assert "1 violations in" in report.describe()
    assert f"cost: 1, first at row {row}: recorded 0" in report.describe()


def test_rule_that_nobody_audits_is_named() -> None:
    experiment, trace = _honest()
    config = copy.deepcopy(experiment.config)
    cast(Any, config.risk).moon_phase = SimpleNamespace(enabled=True)
    report = audit(trace, experiment.bars, config)
    assert report.unaudited == ("moon_phase",)
    assert "not audited: moon_phase" in report.describe()


def test_foreign_bars_stitched_traces_and_unknown_actions_are_refused() -> None:
    experiment, trace = _honest()
    with pytest.raises(TraceError, match="give the bars that were traded"):
        audit(trace, experiment.bars.slice(0, 2000), experiment.config)
    with pytest.raises(TraceError, match="give the bars that were traded"):
        audit(trace, load_bars(compose(["tracking=none", "data=sp500"]).data), experiment.config)
    stitched = replace(trace, restarts=((500, int(trace.end_ns[499])),))
    with pytest.raises(TraceError, match="stitched from 2 accounts"):
        audit(stitched, experiment.bars, experiment.config)
    with pytest.raises(TraceError, match="row 3 has 7, must be 0 to 2"):
        audit(_forge(trace, "action", 3, 7), experiment.bars, experiment.config)


def test_audit_loads_none_of_the_modules_that_make_masks() -> None:
    code = "import sys, ppo_workbench.scoring.audit.verdict; print(*sys.modules, sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded = set(result.stdout.split())
    assert "ppo_workbench.scoring.audit.rules" in loaded
    assert loaded.isdisjoint(f"ppo_workbench.{name}" for name in MASKS)
