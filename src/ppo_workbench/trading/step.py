"""The step: one jitted function for a batch of environments, a backtest and a live bar.

Arrays and plain records in and out, no Python objects, so that a jitted learner can call
`step_one` inside its own loop.  The state of environment n is row n of the accounts.
"""

from typing import Any, NamedTuple

from ppo_workbench.config.arrays import Bools, Codes, Floats, Ints, Records, Singles
from ppo_workbench.jit import kernel
from ppo_workbench.trading.account import accrue, begin_session, fill, order_size, update_ladder
from ppo_workbench.trading.broker import resolve_action
from ppo_workbench.trading.chance import random_start
from ppo_workbench.trading.observation import observe, observe_mask
from ppo_workbench.trading.rewards import begin_returns, follow_returns, risk_aware_reward
from ppo_workbench.trading.rules.reasons import (
    action_reasons,
    fill_mask,
    flatten_bits,
    is_increase,
    passive_bits,
)
from ppo_workbench.trading.sizing import desired_shares


class StepInputs(NamedTuple):
    """What every account on one market reads.

    Attributes:
        bars: `BAR_DTYPE`, shape (T,).
        features: float32 (T, F), scaled.
        means, stds: float64 (F + S,), of the scaler.
        levels: float64 (L,), the exposure levels.
        params: `PARAMS_DTYPE`, shape (1,).
    """

    bars: Records
    features: Singles
    means: Floats
    stds: Floats
    levels: Floats
    params: Records


class Environments(NamedTuple):
    """N accounts on one market with what they observe, do and get; see `batch.TradingBatch`."""

    inputs: StepInputs
    starts: Ints
    episode_bars: int
    accounts: Records
    observations: Singles
    masks: Bools
    reasons: Ints
    outcomes: Records
    rewards: Singles
    done: Codes
    terminal_observations: Singles


@kernel
def begin_episode(a: Any, bars: Records, start: int, stop: int, p: Any) -> None:
    """Reset account `a` to cash at the close of bar `start`; decisions end before `stop`."""
    cash = p.initial_cash
    a.cash, a.equity, a.session_equity = cash, cash, cash
    a.peak, a.episode_peak, a.trip_equity = cash, cash, cash
    a.shares, a.average_price, a.unsettled_cash = 0.0, 0.0, 0.0
    a.rung, a.bars_held, a.session_opens, a.cooldown_left = p.flat_rung, 0, 0, 0
    a.opened_session, a.pause_left, a.flatten_drawdown, a.passive_bits = -1, 0, 0, 0
    a.recovery_equity, a.drawdown, a.session_bars = 0.0, 0.0, 0
    begin_returns(a)
    a.session = bars[start].session
    a.day_trades[:] = 0
    a.t, a.stop, a.episode_start, a.episode_reward = start, stop, start, 0.0


@kernel
def step_one(
    a: Any,
    bars: Records,
    levels: Floats,
    p: Any,
    action: int,
    reasons: int,
    out: Any,
) -> bool:
    """Carry out `action` decided at the close of bar a.t and move to bar a.t + 1.

    Args:
        a: One row of `ACCOUNT_DTYPE`, changed in place.
        bars: `BAR_DTYPE`, shape (T,).
        levels: float64 (L,), the exposure levels.
        p: One row of `PARAMS_DTYPE`.
        action: Index of the action.
        reasons: What `action_reasons` said of it at this close.
        out: One row of `OUTCOME_DTYPE`, overwritten.

    Returns:
        True when the account is ruined (equity not positive).
    """
    decided, bar = bars[a.t], bars[a.t + 1]
    clear_outcome(out)
    rung = resolve_action(a, decided, action, reasons, p, out)
    if bar.trades == 0:
        rung, out.violated = a.rung, 0
    flatten = flatten_bits(a, decided, p) if out.violated != 0 else 0
    if bar.session != a.session:
        begin_session(a, bar.session)
    out.carry = accrue(a, bar, p)
    equity_before, held = a.equity, a.shares
    price = bar.close if p.fill_next_close != 0 else bar.open
    if rung != a.rung:
        size = order_size(a, decided, p)
        closer = not is_increase(a.rung, rung, p.flat_rung)
        shares = desired_shares(a, decided, levels[rung] * size, closer, price, p)
        if abs(shares) <= abs(held) and shares * held >= 0.0:  # no order of the size asked for
            out.violated &= flatten if shares != 0.0 else 0
        fill(a, decided, price, bar.session, shares, p, out)
        a.rung = rung if a.shares != 0.0 else p.flat_rung
    mark(a, bar, held, p, out)
    risk_aware_reward(a, equity_before, abs(out.fill_quantity) * price, p, out)
    a.episode_reward += out.reward
    out.equity = a.equity
    out.exposure = a.shares * bar.close / a.equity if a.equity > 0 else 0.0
    out.episode_reward = a.episode_reward
    out.episode_length = a.t - a.episode_start
    return a.equity <= 0.0


@kernel
def clear_outcome(out: Any) -> None:
    """Say that nothing happened in a bar yet."""
    out.fill_quantity, out.fill_price, out.cost, out.carry = 0.0, 0.0, 0.0, 0.0
    out.rejected, out.violated, out.passive = 0, 0, 0


@kernel
def mark(a: Any, bar: Any, held: float, p: Any, out: Any) -> None:
    """Mark to market at the close, move ladder and counters, note passive breaches."""
    equity_before = a.equity
    a.t += 1
    a.session_bars += 1
    a.equity = a.cash + a.shares * bar.close
    follow_returns(a, equity_before, p, out)
    if a.shares != 0.0:
        a.bars_held += 1
    if a.cooldown_left > 0:
        a.cooldown_left -= 1
    update_ladder(a, p)
    crossed = passive_bits(a, bar.close, p)
    if held != 0.0 and out.fill_quantity == 0.0:
        out.passive = crossed & ~a.passive_bits
    a.passive_bits = crossed


@kernel
def refresh(a: Any, inputs: StepInputs, observation: Singles, mask: Bools, reasons: Ints) -> None:
    """Write observation, mask and reasons of one account at its present close."""
    p = inputs.params[0]
    observe(a, inputs.bars, inputs.features, inputs.means, inputs.stds, p, observation)
    action_reasons(a, inputs.bars[a.t], inputs.levels, p, reasons)
    fill_mask(a, reasons, False, p, mask)
    observe_mask(mask, p, observation)


@kernel
def step_batch(actions: Ints, env: Environments) -> int:
    """Step N environments; finished ones are reset at a random legal start.

    `done` is 0, 1 (truncated: `terminal_observations` holds the last observation, to
    bootstrap from) or 2 (terminated: ruined).  All arrays but the inputs are overwritten.

    Args:
        actions: int64 (N,).
        env: The environments.

    Returns:
        The number of finished environments.
    """
    inputs, finished = env.inputs, 0
    bars, levels, p = inputs.bars, inputs.levels, inputs.params[0]
    for n in range(env.accounts.shape[0]):
        a, out, mask, reasons = env.accounts[n], env.outcomes[n], env.masks[n], env.reasons[n]
        ruined = step_one(a, bars, levels, p, actions[n], reasons[actions[n]], out)
        env.rewards[n] = out.reward
        env.done[n] = 0
        if ruined or a.t >= a.stop:
            env.done[n] = 2 if ruined else 1
            finished += 1
            refresh(a, inputs, env.terminal_observations[n], mask, reasons)
            start = random_start(a, env.starts)
            begin_episode(a, bars, start, start + env.episode_bars, p)
        refresh(a, inputs, env.observations[n], mask, reasons)
    return finished
