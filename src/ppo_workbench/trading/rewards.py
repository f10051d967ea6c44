"""The reward, in components (the specification's "risk-aware reward function").

Returns are counted in volatilities of the training bars, so that values have one size at every
bar length, price and volatility:

    u = ln(E1 / E0) / bar_volatility        s = bar_volatility / annual_volatility

| component | specification's aim | formula |
|---|---|---|
| log_return | profitability, net of every cost | u |
| variance | consistency | -s u^2 |
| differential_sharpe | risk-adjusted returns | Moody and Saffell (2001), equation 14, of u |
| drawdown | drawdown prevention | -max(0, D1 - D0) / bar_volatility, D the drawdown fraction |
| turnover | consistency, costs not modelled | -traded notional / E0 |
| invalid_action | trade management | -1 where the order was rejected |

The reward is the sum of weight times component; components are logged unweighted.  With the
weight kappa of `variance` holding an asset pays where the annual Sharpe ratio of its log
returns is above kappa, whatever the bar: the mean of u - kappa s u^2 over a bar is
s (mean_annual - kappa volatility_annual) / volatility_bar, but for the square of the mean.
Nothing a bar does counts more than `LIMIT` bar volatilities, ruin included.

Components of plug-ins (docs/extending.md) follow those, within the same limit.  Records, logs and
plots follow the names; `reward.extra={NAME: weight}` weighs what `RewardConfig` has no field for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numba import literal_unroll

from ppo_workbench import plugins
from ppo_workbench.config import BarsError, Config, ConfigError, RewardConfig, settled
from ppo_workbench.config.arrays import Floats
from ppo_workbench.jit import composed_kernel, inlined_kernel, kernel
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.splits import Split

_BUILT_IN = (
    "log_return",
    "variance",
    "differential_sharpe",
    "drawdown",
    "turnover",
    "invalid_action",
)
OWN_TERMS = plugins.registered().reward_terms
_OUTCOMES = (
    *("fill_quantity", "fill_price", "cost", "carry", "rejected", "violated", "passive"),
    *("reward", "equity", "exposure", "episode_reward", "episode_length"),
)
plugins.refuse_built_in("reward term", OWN_TERMS, (*_BUILT_IN, *_OUTCOMES))
REWARD_NAMES = (*_BUILT_IN, *OWN_TERMS)
LIMIT = 100.0  # of a component's summand in one bar, in bar volatilities
MINIMUM_EQUITY_FRAC = 1e-6
SMALLEST_VARIANCE = 0.01  # of the differential Sharpe ratio, in squared bar volatilities


def _call_own_terms() -> Any:
    """Compile the plug-ins' components into one function that adds them to the reward."""
    lines = [
        f"    out.{name} = 0.0\n"
        f"    if p.w_{name} != 0.0:\n"
        f"        out.{name} = min(max(term_{name}(a, out, p), -{LIMIT}), {LIMIT})\n"
        f"        total += p.w_{name} * out.{name}\n"
        for name in OWN_TERMS
    ]
    source = f"def add_terms(a, p, out, total):\n{''.join(lines)}    return total\n"
    return composed_kernel(source, {f"term_{name}": term for name, term in OWN_TERMS.items()})


_add_own_terms = _call_own_terms()


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


def with_volatility(config: Config, bars: Bars, ranges: Sequence[Split]) -> Config:
    """Fill the volatilities that rewards are counted in, where the configuration has none.

    They are root mean squares of log returns from close to close over the training bars, of one
    bar and of a year; overnight returns are left out where the session rule forbids to hold them.

    Args:
        config: The experiment; returned as it is where both are set.
        bars: The bars.
        ranges: What is trained on.

    Raises:
        BarsError: The training bars do not move.
    """
    reward = config.reward
    if reward.bar_volatility_frac is not None and reward.annual_volatility_frac is not None:
        return config
    flat_overnight = config.risk.session.enabled and settled(config.env.flat_last_bars) > 0
    bar, annual = _volatilities(bars, ranges, overnight=not flat_overnight)
    if not bar > 0.0:
        raise BarsError(
            f"bars of {bars.instrument}: no training bar moves, but rewards are counted in the "
            "volatility of the training bars; give bars with trades in the train split"
        )
    filled = replace(
        reward,
        bar_volatility_frac=reward.bar_volatility_frac or bar,
        annual_volatility_frac=reward.annual_volatility_frac or annual,
    )
    return replace(config, reward=filled)


def _volatilities(bars: Bars, ranges: Sequence[Split], *, overnight: bool) -> tuple[float, float]:
    """Return the volatility of one bar and of a year, fractions."""
    squares, sessions = [], 0
    for split in ranges:
        close, session = (values[split.start : split.stop] for values in (bars.close, bars.session))
        moves = np.log(close[1:] / close[:-1])
        held = np.ones(len(moves), np.bool_) if overnight else np.diff(session) == 0
        squares.append(moves[held] ** 2)
        sessions += int(session[-1] - session[0]) + 1
    square = np.concatenate(squares)
    bar = float(np.sqrt(square.mean())) if len(square) else 0.0
    return bar, bar * float(np.sqrt(len(square) * bars.sessions_per_year / sessions))


@kernel
def risk_aware_reward(a: Any, equity_before: float, traded: float, p: Any, out: Any) -> float:
    """Fill the reward components of one bar and return their weighted sum.

    Args:
        a: Account after the mark to market (`ACCOUNT_DTYPE`); its drawdown changes.
        equity_before: Equity at the previous close, currency.
        traded: Absolute notional of the fill, currency.
        p: One row of `PARAMS_DTYPE`.
        out: One row of `OUTCOME_DTYPE`, whose differential Sharpe ratio `follow_returns` wrote.
    """
    u = bar_return(equity_before, a.equity, p)
    out.log_return = u
    out.variance = -p.bar_volatility / p.annual_volatility * u * u
    if a.equity > a.episode_peak:
        a.episode_peak = a.equity
    drawdown = 1.0 - a.equity / a.episode_peak
    out.drawdown = -min(max(0.0, drawdown - a.drawdown) / p.bar_volatility, LIMIT)
    a.drawdown = drawdown
    out.turnover = -min(traded / equity_before, LIMIT)
    out.invalid_action = -1.0 if out.rejected != 0 else 0.0
    total = (
        p.w_log_return * u
        + p.w_variance * out.variance
        + p.w_differential_sharpe * out.differential_sharpe
        + p.w_drawdown * out.drawdown
        + p.w_turnover * out.turnover
        + p.w_invalid_action * out.invalid_action
    )
    out.reward = _add_own_terms(a, p, out, total)
    return out.reward


@inlined_kernel
def add_components(out: Any, sums: Floats) -> None:
    """Add the components of one bar (a row of `OUTCOME_DTYPE`) to `sums`, float64 (C,)."""
    k = 0
    for name in literal_unroll(REWARD_NAMES):
        sums[k] += out[name]
        k += 1  # noqa: SIM113  # numba unrolls names, it cannot number them


@kernel
def bar_return(equity_before: float, equity: float, p: Any) -> float:
    """Return the log return of one bar in bar volatilities, at most `LIMIT` in size."""
    growth = max(equity / equity_before, MINIMUM_EQUITY_FRAC)
    return min(max(np.log(growth) / p.bar_volatility, -LIMIT), LIMIT)


@kernel
def begin_returns(a: Any) -> None:
    """Believe in a fully invested account before its first return: mean 0, deviation 1."""
    a.sharpe_a, a.sharpe_b = 0.0, 1.0


@kernel
def follow_returns(a: Any, equity_before: float, p: Any, out: Any) -> None:
    """Write the derivative of the running Sharpe ratio and move its moments on by one bar."""
    u = bar_return(equity_before, a.equity, p)
    change_a, change_b = u - a.sharpe_a, u * u - a.sharpe_b
    variance = max(a.sharpe_b - a.sharpe_a * a.sharpe_a, SMALLEST_VARIANCE)
    value = (a.sharpe_b * change_a - 0.5 * a.sharpe_a * change_b) / variance**1.5
    out.differential_sharpe = min(max(value, -LIMIT), LIMIT)
    a.sharpe_a += p.sharpe_decay * change_a
    a.sharpe_b += p.sharpe_decay * change_b
