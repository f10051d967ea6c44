"""The reward, in components (the specification's "risk-aware reward function").

| component | specification's aim | formula (r in units of 10 bp) |
|---|---|---|
| log_return | profitability, net of every cost | r = 1000 ln(E1 / E0) |
| variance | consistency | -r^2 |
| differential_sharpe | risk-adjusted returns | Moody and Saffell (2001), equation 14 |
| drawdown | drawdown prevention | -1000 max(0, D1 - D0), D the drawdown fraction |
| turnover | consistency, costs not modelled | -traded notional / E0 |

The reward is the sum of weight times component; components are logged unweighted.  A new
component is written here alone (docs/extending.md): its name in `REWARD_NAMES`, its formula and
its summand in `risk_aware_reward`.  Records, logs and plots follow the names, and
`reward.extra={NAME: weight}` weighs what `RewardConfig` has no field for.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import literal_unroll

from ppo_workbench.config import ConfigError, RewardConfig
from ppo_workbench.jit import inlined_kernel, kernel

REWARD_NAMES = ("log_return", "variance", "differential_sharpe", "drawdown", "turnover")
RETURN_UNIT = 1000.0  # one reward unit is 10 bp of equity
MINIMUM_EQUITY_FRAC = 1e-6


def reward_weights(reward: RewardConfig) -> dict[str, float]:
    """Return the weight of each component, in the order of `REWARD_NAMES`.

    Raises:
        ConfigError: `reward.extra` names what is no component, or has a key of its own.
    """
    for name in reward.extra:
        if name not in REWARD_NAMES or hasattr(reward, name):
            free = [term for term in REWARD_NAMES if not hasattr(reward, term)]
            raise ConfigError(
                f"reward.extra has {name!r}, but weighs only components without a key of their "
                f"own ({', '.join(free) or 'there are none'}); name one of these or leave it away"
            )
    return {name: getattr(reward, name, reward.extra.get(name, 0.0)) for name in REWARD_NAMES}


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


@inlined_kernel
def add_components(out: Any, sums: npt.NDArray[np.float64]) -> None:
    """Add the components of one bar (a row of `OUTCOME_DTYPE`) to `sums`, float64 (C,)."""
    k = 0
    for name in literal_unroll(REWARD_NAMES):
        sums[k] += out[name]
        k += 1  # noqa: SIM113  # numba unrolls names, it cannot number them


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
