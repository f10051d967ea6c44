"""The reward, in components (the specification's "risk-aware reward function").

| component | specification's aim | formula (r in units of 10 bp) |
|---|---|---|
| log_return | profitability, net of every cost | r = 1000 ln(E1 / E0) |
| variance | consistency | -r^2 |
| differential_sharpe | risk-adjusted returns | Moody and Saffell (2001), equation 14 |
| drawdown | drawdown prevention | -1000 max(0, D1 - D0), D the drawdown fraction |
| turnover | consistency, costs not modelled | -traded notional / E0 |

The reward is the sum of weight times component; components are logged unweighted.
"""

from typing import Any

import numpy as np

from ppo_workbench.jit import kernel

REWARD_NAMES = ("log_return", "variance", "differential_sharpe", "drawdown", "turnover")
RETURN_UNIT = 1000.0  # one reward unit is 10 bp of equity
MINIMUM_EQUITY_FRAC = 1e-6


@kernel
def risk_aware_reward(a: Any, equity_before: float, traded: float, p: Any, out: Any) -> float:
    """Fill the reward components of one bar and return their weighted sum.

    Args:
        a: Account after the mark to market (`ACCOUNT_DTYPE`); its running moments change.
        equity_before: Equity at the previous close, currency.
        traded: Absolute notional of the fill, currency.
        p: One row of `PARAMS_DTYPE`.
        out: One row of `OUTCOME_DTYPE`.
    """
    growth = max(a.equity / equity_before, MINIMUM_EQUITY_FRAC)
    r = RETURN_UNIT * np.log(growth)
    out.log_return = r
    out.variance = -r * r
    out.differential_sharpe = _differential_sharpe(a, r, p.sharpe_decay)
    if a.equity > a.episode_peak:
        a.episode_peak = a.equity
    drawdown = 1.0 - a.equity / a.episode_peak
    out.drawdown = -RETURN_UNIT * max(0.0, drawdown - a.drawdown)
    a.drawdown = drawdown
    out.turnover = -traded / equity_before
    out.reward = (
        p.w_log_return * r
        + p.w_variance * out.variance
        + p.w_differential_sharpe * out.differential_sharpe
        + p.w_drawdown * out.drawdown
        + p.w_turnover * out.turnover
    )
    return out.reward


@kernel
def _differential_sharpe(a: Any, r: float, decay: float) -> float:
    """Return the derivative of the running Sharpe ratio; 0 until its variance is positive."""
    change_a = r - a.sharpe_a
    change_b = r * r - a.sharpe_b
    variance = a.sharpe_b - a.sharpe_a * a.sharpe_a
    value = 0.0
    if variance > 1e-12:
        value = (a.sharpe_b * change_a - 0.5 * a.sharpe_a * change_b) / variance**1.5
        value = min(max(value, -10.0), 10.0)  # the first bars divide by almost nothing
    a.sharpe_a += decay * change_a
    a.sharpe_b += decay * change_b
    return value
