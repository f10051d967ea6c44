"""Reward components by hand, and the differential Sharpe against plain Python."""

import math
from typing import Any

import numpy as np
import pytest
from tests.trading.builders import BUY, HOLD, SELL, Account, bar_rows, configure, hand_bars

from ppo_workbench.config import BarsError
from ppo_workbench.market.splits import Split
from ppo_workbench.trading.rewards import with_volatility
from ppo_workbench.trading.rules.names import BIT

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


def test_log_return_and_variance_are_of_equity_in_bar_volatilities() -> None:
    outcomes, equity = _outcomes([BUY, HOLD, SELL], reward__annual_volatility_frac=0.004)
    for out, before, after in zip(outcomes, equity, equity[1:], strict=False):
        r = 1000 * math.log(after / before)
        assert out["log_return"] == pytest.approx(r, abs=1e-10)
        assert out["variance"] == pytest.approx(-(r**2) / 4, abs=1e-9)
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


def test_invalid_action_counts_rejected_orders_alone() -> None:
    account = Account(
        configure("moderate", reward__invalid_action=2.0),
        bar_rows(CLOSES, OPENS, rule_bits=BIT["volatility"]),
    )
    for action, expected in ((BUY, -1.0), (HOLD, 0.0), (SELL, -1.0)):
        out = account.step(action)
        assert (float(out["invalid_action"]), float(out["reward"])) == (expected, 2.0 * expected)


def test_differential_sharpe_equals_moody_and_saffell() -> None:
    halflife = 4.0
    outcomes, equity = _outcomes(
        [BUY, HOLD, HOLD, HOLD, HOLD, HOLD, HOLD],
        reward__differential_sharpe_halflife_bars=halflife,
    )
    eta = 1 - 0.5 ** (1 / halflife)
    a, b = 0.0, 1.0  # believed before the first return: a fully invested account
    for out, before, after in zip(outcomes, equity, equity[1:], strict=False):
        r = 1000 * math.log(after / before)
        expected = (b * (r - a) - a * (r**2 - b) / 2) / max(b - a**2, 0.01) ** 1.5
        assert out["differential_sharpe"] == pytest.approx(np.clip(expected, -100, 100), abs=1e-9)
        a, b = a + eta * (r - a), b + eta * (r**2 - b)


def test_reward_is_the_weighted_sum_of_the_components() -> None:
    weights = {
        "log_return": 0.7,
        "variance": 0.02,
        "differential_sharpe": 0.5,
        "drawdown": 0.3,
        "turnover": 1.5,
        "invalid_action": 4.0,
    }
    changes = {f"reward__{name}": weight for name, weight in weights.items()}
    outcomes, _ = _outcomes([BUY, HOLD, SELL, SELL, HOLD, BUY], **changes)
    total = 0.0
    for out in outcomes:
        expected = sum(weight * out[name] for name, weight in weights.items())
        assert out["reward"] == pytest.approx(expected, abs=1e-9)
        total += out["reward"]
        assert out["episode_reward"] == pytest.approx(total, abs=1e-9)


def test_reward_default_is_the_return_alone() -> None:
    outcomes, _ = _outcomes([BUY, HOLD, SELL])
    for out in outcomes:
        assert out["reward"] == out["log_return"]


def test_no_component_at_ruin_counts_more_than_the_limit() -> None:
    account = Account(configure(), bar_rows([100.0, 100.0, 300.0]))
    account.step(SELL)
    out = account.step(HOLD)
    assert account["equity"] < 0
    assert out["log_return"] == out["drawdown"] == -100.0
    assert abs(out["differential_sharpe"]) <= 100.0


@pytest.mark.parametrize("volatility", [0.0005, 0.01, 0.04])
@pytest.mark.parametrize("bars_a_year", [252, 1764, 98_280])
def test_holding_pays_above_an_annual_sharpe_ratio_of_the_weight(
    volatility: float, bars_a_year: int
) -> None:
    """Plus and minus one deviation in turn about a mean: an asset whose Sharpe ratio is known."""
    for sharpe, kappa, pays in [(0.3, 0.0, True), (0.59, 0.6, False), (0.61, 0.6, True)]:
        mean = sharpe * volatility / math.sqrt(bars_a_year)
        moves = mean + volatility * np.tile([1.0, -1.0], 50)
        closes = 100.0 * np.exp(np.cumsum(np.concatenate([[0.0, 0.0], moves])))
        config = configure(
            market__lot=0.0,
            reward__variance=kappa,
            reward__bar_volatility_frac=volatility,
            reward__annual_volatility_frac=volatility * math.sqrt(bars_a_year),
        )
        account = Account(config, bar_rows(list(closes)))
        account.step(BUY)
        rewards = [float(account.step(HOLD)["reward"]) for _ in moves]
        assert (sum(rewards) > 0) == pays


def test_volatility_is_of_training_bars_without_nights_that_are_not_held() -> None:
    moves = np.array([0.0, 0.01, -0.02, 0.05, 0.01, 0.02, 0.5, 0.01])  # the fourth over night
    bars = hand_bars(list(100.0 * np.exp(np.cumsum(moves))), bars_per_session=3)
    train = (Split("train", 0, 6),)
    by_day = configure(
        reward__bar_volatility_frac=None, env__flat_last_bars=1, risk__session__enabled=True
    )
    found = with_volatility(by_day, bars, train).reward
    bar = math.sqrt((0.01**2 + 0.02**2 + 0.01**2 + 0.02**2) / 4)
    assert found.bar_volatility_frac == pytest.approx(bar)
    assert found.annual_volatility_frac == 0.001  # named: it wins
    both = configure(reward__bar_volatility_frac=None, reward__annual_volatility_frac=None)
    over_night = with_volatility(both, bars, train).reward
    bar = math.sqrt((0.01**2 + 0.02**2 + 0.05**2 + 0.01**2 + 0.02**2) / 5)
    assert over_night.bar_volatility_frac == pytest.approx(bar)
    # Five returns in two sessions, 252 sessions a year.
    assert over_night.annual_volatility_frac == pytest.approx(bar * math.sqrt(5 * 252 / 2))


def test_training_bars_that_do_not_move_are_refused() -> None:
    bars = hand_bars([100.0] * 9, bars_per_session=3)
    config = configure(reward__bar_volatility_frac=None)
    with pytest.raises(BarsError, match="no training bar moves"):
        with_volatility(config, bars, (Split("train", 0, 6),))
