"""Reward components by hand, and the differential Sharpe against plain Python."""

import math
from typing import Any

import numpy as np
import pytest
from tests.trading.builders import BUY, HOLD, SELL, Account, bar_rows, configure

CLOSES = [100.0, 100.0, 103.0, 99.0, 99.0, 104.0, 101.0, 101.0]
OPENS = [100.0, 100.0, 100.0, 102.0, 99.0, 100.0, 104.0, 101.0]


def _outcomes(actions: list[int], **changes: Any) -> tuple[list[dict[str, float]], list[float]]:
    """Return the outcome of each step and the equities, the initial one first."""
    account = Account(configure(**changes), bar_rows(CLOSES, OPENS))
    equities, outcomes = [100_000.0], []
    for action in actions:
        out = account.step(action)
        outcomes.append({name: float(out[name]) for name in out.dtype.names})
        equities.append(float(account["equity"]))
    return outcomes, equities


def test_log_return_and_variance_are_of_equity_in_units_of_ten_basis_points() -> None:
    outcomes, equity = _outcomes([BUY, HOLD, SELL])
    for out, before, after in zip(outcomes, equity, equity[1:], strict=False):
        r = 1000 * math.log(after / before)
        assert out["log_return"] == pytest.approx(r, abs=1e-10)
        assert out["variance"] == pytest.approx(-(r**2), abs=1e-9)
    assert equity[1:] == [100_000.0, 103_000.0, 102_000.0]  # 1000 shares: 100, 103, sold at 102


def test_drawdown_is_the_increase_of_the_fall_from_the_episodes_peak() -> None:
    outcomes, _ = _outcomes([BUY, HOLD, HOLD, HOLD, HOLD, HOLD])  # 100, 103, 99, 99, 104, 101
    falls = [0.0, 0.0, 1 - 99 / 103, 1 - 99 / 103, 0.0, 1 - 101 / 104]
    previous = 0.0
    for out, fall in zip(outcomes, falls, strict=True):
        assert out["drawdown"] == pytest.approx(-1000 * max(0.0, fall - previous), abs=1e-9)
        previous = fall


def test_turnover_is_traded_notional_over_equity_before() -> None:
    outcomes, equity = _outcomes([BUY, HOLD, SELL, HOLD])
    expected = [-1000 * 100.0 / equity[0], 0.0, -1000 * 102.0 / equity[2], 0.0]
    assert [out["turnover"] for out in outcomes] == pytest.approx(expected, abs=1e-12)


def test_differential_sharpe_equals_moody_and_saffell() -> None:
    halflife = 4.0
    outcomes, equity = _outcomes(
        [BUY, HOLD, HOLD, HOLD, HOLD, HOLD, HOLD],
        reward__differential_sharpe_halflife_bars=halflife,
    )
    eta = 1 - 0.5 ** (1 / halflife)
    a = b = 0.0
    checked = 0
    for out, before, after in zip(outcomes, equity, equity[1:], strict=False):
        r = 1000 * math.log(after / before)
        variance = b - a**2
        expected = 0.0
        if variance > 0:
            expected = (b * (r - a) - a * (r**2 - b) / 2) / variance**1.5
            checked += 1
        assert out["differential_sharpe"] == pytest.approx(np.clip(expected, -10, 10), abs=1e-9)
        a, b = a + eta * (r - a), b + eta * (r**2 - b)
    assert checked >= 4


def test_reward_is_the_weighted_sum_of_the_components() -> None:
    weights = {
        "log_return": 0.7,
        "variance": 0.02,
        "differential_sharpe": 0.5,
        "drawdown": 0.3,
        "turnover": 1.5,
    }
    changes = {f"reward__{name}": weight for name, weight in weights.items()}
    outcomes, _ = _outcomes([BUY, HOLD, SELL, SELL, HOLD, BUY], **changes)
    total = 0.0
    for out in outcomes:
        expected = sum(weight * out[name] for name, weight in weights.items())
        assert out["reward"] == pytest.approx(expected, abs=1e-9)
        total += out["reward"]
        assert out["episode_reward"] == pytest.approx(total, abs=1e-9)


def test_reward_default_weighs_return_and_variance_only() -> None:
    outcomes, _ = _outcomes([BUY, HOLD, SELL])
    for out in outcomes:
        expected = out["log_return"] + 0.03 * out["variance"]
        assert out["reward"] == pytest.approx(expected, abs=1e-9)


def test_reward_at_ruin_is_finite() -> None:
    rows = bar_rows([100.0, 100.0, 300.0])
    account = Account(configure(), rows)
    account.step(SELL)
    out = account.step(HOLD)
    assert account["equity"] < 0
    assert math.isfinite(out["reward"])
    assert out["log_return"] == pytest.approx(1000 * math.log(1e-6))
