"""Planted violations, one rule at a time: traded with the rule off, audited with it on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tests.trading.builders import hand_bars, only

from ppo_workbench.config import ActionSet, Config
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import compute_market
from ppo_workbench.market.splits import Split
from ppo_workbench.scoring.audit.rules import CHECKS
from ppo_workbench.scoring.audit.verdict import AuditReport, audit
from ppo_workbench.scoring.backtest import SERIES, Policy, backtest
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rules.names import BIT, RULE_NAMES
from ppo_workbench.trading.table import trading_market

SESSION, BARS = 20, 60
TRADING = {
    "env__action_set": ActionSet.target,
    "env__exposure_levels": [-1.0, 0.0, 1.0, 2.0, 3.0, 5.0],
    "features__names": ["return_1"],
    "features__volatility_fast_bars": 2,
    "features__volatility_slow_bars": 20,
    "features__seasonal_volatility": False,
    "features__efficiency_bars": 5,
}


@dataclass(frozen=True)
class Plant:
    """A day at the market that breaks a rule.

    Attributes:
        wishes: Exposure wanted from a decision on, by row; row r decides at bar r.
        rows: Rows that the audit has to name.
        section: Section of `risk` to switch on, where it is not the rule's name.
        closes: Closes from a bar on, by bar.
        changes: Settings of both sides.
        audited: Settings of the audit's side alone.
        bars: Fields of the bars, by bar.
    """

    wishes: dict[int, float]
    rows: Sequence[int]
    section: str | None = None
    closes: dict[int, float] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    audited: dict[str, Any] = field(default_factory=dict)
    bars: dict[str, dict[int, Any]] = field(default_factory=dict)


_WOBBLE = {t: 100 + (0.01 if t < 30 else 0.5) * (-1) ** t for t in range(BARS)}
_RISE = {t: 98 + 0.1 * t for t in range(20, BARS)}
_LAST = {"env__flat_last_bars": 3, "env__no_open_last_bars": 5}
_DAY_TRADES = {2: 1.0, 4: 0.0, 6: 1.0, 8: 0.0, 22: 1.0, 24: 0.0, 26: 1.0, 28: 0.0}

PLANTS = {
    "halt": Plant({2: 1.0, 4: 0.0, 9: 1.0}, [9], closes={8: 110.0}),
    "closed_session": Plant({2: 1.0, 4: 0.0, 5: 1.0}, [5], bars={"regular": {5: False}}),
    "session_flatten": Plant({4: 1.0, 18: 0.0}, [16, 17], "session", changes=_LAST),
    "drawdown": Plant({2: 1.0, 8: 0.0}, [6, 7], closes={6: 95.0}),
    "daily_loss": Plant({2: 1.0, 7: 0.0, 9: 1.0}, [9], closes={6: 97.0}),
    "capital": Plant(
        {4: 1.0, 7: 2.0, 9: 1.0}, [7], changes={"risk__capital__max_gross_exposure": 1.0}
    ),
    "initial_margin": Plant({4: 2.0, 7: 3.0}, [7]),
    "locate": Plant({4: 1.0, 6: -1.0}, [6], audited={"risk__locate__available": False}),
    "settlement": Plant({2: 1.0, 4: 0.0, 6: 1.0, 8: 0.0, 21: 1.0}, [6]),
    "maintenance_margin": Plant({4: 1.0, 6: -1.0}, [6], changes={"env__initial_cash_usd": 1500.0}),
    "intraday_margin": Plant({4: 3.0, 7: 5.0}, [7]),
    "short_sale_restriction": Plant(
        {5: -1.0, 7: 0.0, 22: -1.0, 24: 0.0, 30: -1.0, 32: 0.0, 45: -1.0},
        [30, 45],
        bars={"low": {25: 85.0}},
    ),
    "pattern_day_trader": Plant(
        _DAY_TRADES,
        [26],
        audited={"risk__pattern_day_trader__minimum_equity_usd": 1e6},
    ),
    "session_no_open": Plant({13: 1.0, 15: 2.0, 16: 0.0}, [15], "session", changes=_LAST),
    "position": Plant(
        {4: 1.0, 7: 2.0}, [7], audited={"risk__position__max_notional_usd": 100_000.0}
    ),
    "concentration": Plant({4: 1.0, 7: 2.0}, [7]),
    "volatility": Plant({10: 1.0, 12: 0.0, 40: 1.0}, [40], closes=_WOBBLE),
    "regime": Plant(
        {10: 1.0, 12: 0.0, 30: 1.0},
        [30],
        closes=_RISE,
        audited={"risk__regime__blocked": ["trend_high_volatility"]},
    ),
    "event": Plant(
        {5: 1.0, 7: 0.0, 12: 1.0, 14: 0.0, 30: 1.0},
        [12, 30],
        bars={"events": {12: 2}, "events_ahead": {30: 4}},
    ),
    "liquidity": Plant({4: 1.0, 7: 0.0, 9: -1.0}, [9], bars={"volume": {8: 1.0, 9: 1.0}}),
    "order_rate": Plant(
        {2: 1.0, 4: -1.0, 6: 0.0, 8: 1.0, 22: 2.0},
        [8],
        audited={"risk__order_rate__max_opens_per_session": 2},
    ),
    "gap": Plant(
        {2: 1.0, 4: 0.0, 6: 1.0, 8: 0.0, 20: -1.0, 24: 0.0, 38: 1.0},
        [6, 20],
        bars={"missing": {5: 6, 14: 5, 19: 1}},
    ),
    "cooldown": Plant({2: 1.0, 4: 0.0, 6: 1.0, 8: 0.0, 30: 1.0}, [6], closes={4: 99.0}),
    # Enlarged at 99: the average of 1,000 shares at 100 and about as many at 99 is 99.5.
    "stop_loss": Plant({2: 1.0, 4: 2.0, 9: 0.0}, [8], closes={4: 99.0, 6: 97.6, 8: 97.4}),
    "take_profit": Plant({2: -1.0, 8: 0.0}, [6, 7], closes={6: 95.0}),
}


def _bars(plant: Plant) -> Bars:
    close = np.full(BARS, 100.0)
    for start, value in sorted(plant.closes.items()):
        close[start:] = value
    bars = hand_bars(close.tolist(), SESSION)
    if "volume" in plant.bars:
        bars.volume[:] = 10_500.0  # a tenth of the mean: 1,050 shares, 840 behind two thin bars
    for name, values in plant.bars.items():
        for at, value in values.items():
            getattr(bars, name)[at] = value
    return bars


def _config(plant: Plant, *rules: str) -> Config:
    return only(*rules, **TRADING, **plant.changes, **(plant.audited if rules else {}))


def _traded(plant: Plant, bars: Bars, *rules: str) -> Trace:
    config = _config(plant, *rules)
    series = np.full(BARS, np.nan)
    for at, wish in plant.wishes.items():
        series[at] = wish
    table = compute_market(bars, config.features)
    market = trading_market(bars, table, config, Scaler.fit(table.features[1:], 8.0))
    return backtest(Policy("plan", SERIES, series=series), bars, market, Split("", 0, BARS), config)


def _audited(rule: str) -> tuple[AuditReport, Plant]:
    plant = PLANTS[rule]
    bars, section = _bars(plant), plant.section or rule
    trace = _traded(plant, bars)
    return audit(trace, bars, _config(plant, section), enforced=False), plant


def test_every_rule_has_a_check_and_a_plant() -> None:
    assert list(CHECKS) == list(RULE_NAMES)
    assert set(PLANTS) == set(RULE_NAMES)


@pytest.mark.parametrize("rule", PLANTS)
def test_planted_violation_is_found_at_its_rows_and_nowhere_else(rule: str) -> None:
    report, plant = _audited(rule)
    assert report.rows[rule].tolist() == list(plant.rows), report.describe()
    assert report.count == len(plant.rows), report.describe()
    assert report.unaudited == ()
    first = next(item for item in report.violations if item.rule == rule)
    assert first.row == plant.rows[0]
    assert (
        first.time
        == f"2024-01-0{2 + (first.row + 1) // 20}T14:{31 + (first.row + 1) % 20}:00+00:00"
    )


@pytest.mark.parametrize("rule", PLANTS)
def test_plant_under_the_rules_own_mask_breaks_nothing(rule: str) -> None:
    plant = PLANTS[rule]
    bars, section = _bars(plant), plant.section or rule
    trace = _traded(plant, bars, section)
    report = audit(trace, bars, _config(plant, section), masked=True)
    assert report.count == 0, report.describe()
    assert (trace.blocked_rules() & BIT[rule]).any()
    assert np.count_nonzero(trace.fill_quantity) > 0


def test_position_kept_for_want_of_a_bar_at_the_session_end_is_passive() -> None:
    """Six bars are missing behind the first session: its last bar does not look like one."""
    plant = Plant({4: 1.0}, [], "session", changes=_LAST)
    bars = _bars(plant)
    bars.bars_left[:SESSION] += 6
    trace = _traded(plant, bars, "session")
    report = audit(trace, bars, _config(plant, "session"), masked=True)
    assert report.count == 0, report.describe()
    assert trace.exposure[SESSION] > 0
    assert report.held_overnight == 1
    assert "held overnight for want of a bar: 1 sessions" in report.describe()


def test_fills_planted_in_bars_without_volume_are_found_and_the_step_makes_none() -> None:
    plant = Plant({4: 1.0, 9: 0.0}, [])
    bars = _bars(plant)
    trace = _traded(plant, bars)
    assert np.flatnonzero(trace.fill_quantity).tolist() == [4, 9]
    bars.volume[[5, 10]] = 0.0
    report = audit(trace, bars, _config(plant), enforced=False)
    assert report.rows["no_volume"].tolist() == [4, 9]
    honest = _traded(plant, bars)
    assert not honest.fill_quantity[[4, 9]].any()
    report = audit(honest, bars, _config(plant), enforced=False)
    assert report.count == 0, report.describe()


@pytest.mark.parametrize(
    ("audited", "found"),
    [
        ({"market__minimum_order": 1500.0}, {"fill_quantity": [4], "capital": [4]}),
        ({"market__lot": 300.0}, {"lot": [4]}),  # 1,000 shares, then 0
        ({"market__lot": 3000.0}, {"lot": [4], "capital": [4]}),
        ({"market__tick": 1.0}, {"cost": [4, 7]}),
        ({"market__contract_multiplier": 10.0}, {"cost": [4, 7]}),
    ],
)
def test_orders_counted_otherwise_are_found(
    audited: dict[str, Any], found: dict[str, list[int]]
) -> None:
    changes = {"costs__fee_per_share_usd": 0.01}
    plant = Plant({4: 1.0, 7: 0.0}, [], changes=changes, audited=audited)
    bars = _bars(plant)
    trace = _traded(plant, bars)
    report = audit(trace, bars, _config(plant, "capital"), enforced=False)
    for rule, rows in found.items():
        assert report.rows[rule].tolist() == rows, report.describe()


def test_minimum_order_under_its_own_mask_is_kept_and_closing_is_free() -> None:
    changes = {"market__minimum_order": 1500.0, "risk__capital__max_gross_exposure": 5.0}
    plant = Plant({4: 1.0, 7: 2.0, 9: 3.0, 12: 0.0}, [], changes=changes)
    bars = _bars(plant)
    trace = _traded(plant, bars, "capital")
    assert np.flatnonzero(trace.fill_quantity).tolist() == [7, 12]
    report = audit(trace, bars, _config(plant, "capital"), masked=True)
    assert report.count == 0, report.describe()
