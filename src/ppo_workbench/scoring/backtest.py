"""Run a policy over a split with the training step itself and record a Trace.

Network policies and the yardsticks (flat, buy-and-hold, random-legal, a threshold rule,
a desired exposure given bar by bar) go through the same jitted loop.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured

from ppo_workbench.config import Config
from ppo_workbench.config.arrays import Bools, Codes, Floats, Ints, Records, Singles
from ppo_workbench.delivery.network import PolicyWeights, best_allowed, forward_row, only_allowed
from ppo_workbench.jit import borrowed, kernel
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.splits import Split
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.account import OUTCOME_DTYPE
from ppo_workbench.trading.actions import target_rung
from ppo_workbench.trading.chance import random_uint, seed_accounts
from ppo_workbench.trading.rewards import REWARD_NAMES
from ppo_workbench.trading.rules.names import GAP, RULE_NAMES, rule_severity
from ppo_workbench.trading.rules.reasons import flatten_bits
from ppo_workbench.trading.step import StepInputs, begin_episode, refresh, step_one
from ppo_workbench.trading.table import TradingMarket

NETWORK, SERIES, RANDOM, THRESHOLD = 0, 1, 2, 3


@dataclass(frozen=True)
class Policy:
    """A deterministic policy in a form that the jitted loop can run.

    Attributes:
        name: What a report calls it.
        kind: One of NETWORK, SERIES, RANDOM, THRESHOLD.
        weights: The network; ignored by the other kinds.
        use_mask: Choose among allowed actions only (MaskablePPO and the yardsticks).
        series: float64 (T,), desired exposure at each close (SERIES) or the signal that is
            traded against, in the units of `entry` (THRESHOLD), NaN = keep.
        entry: Enter against the signal beyond this size (THRESHOLD).
        exit: Leave when the signal is nearer to 0 than this (THRESHOLD).
        seed: Seeds RANDOM.
        unconstrained: Regulatory and house rules are off (buy-and-hold).
    """

    name: str
    kind: int
    weights: PolicyWeights | None = None
    use_mask: bool = True
    series: Floats | None = None
    entry: float = 0.0
    exit: float = 0.0
    seed: int = 0
    unconstrained: bool = False


_NO_WEIGHTS = PolicyWeights(np.array([1, 1], np.int64), np.zeros(2, np.float32), 0)


@kernel
def rung_nearest(levels: Floats, exposure: float) -> int:
    """Return the rung of the levels, float64 (L,), that is nearest to an exposure."""
    best = 0
    for i in range(levels.shape[0]):
        if abs(levels[i] - exposure) < abs(levels[best] - exposure):
            best = i
    return best


@kernel
def action_towards(rung: int, wanted: int, mask: Bools, p: Any) -> int:
    """Return the allowed action that ends nearest to rung `wanted`, HOLD among equals."""
    best, nearest = p.hold, p.n_levels + 1
    for action in range(mask.shape[0]):
        if not mask[action]:
            continue
        target = target_rung(action, rung, p.n_levels, p.flat_rung, p.is_step, False)
        distance = abs(target - wanted)
        if distance < nearest or (distance == nearest and action == p.hold):
            best, nearest = action, distance
    return best


@kernel
def _random_allowed(a: Any, mask: Bools) -> int:
    """Draw uniformly among the allowed actions."""
    allowed = 0
    for i in range(mask.shape[0]):
        allowed += mask[i]
    skip = np.int64(random_uint(a) % np.uint64(allowed))
    for i in range(mask.shape[0]):
        if mask[i]:
            if skip == 0:
                return i
            skip -= 1
    return 0


@kernel
def threshold_exposure(signal: float, held: float, entry: float, leave: float) -> float:
    """Mean reversion with hysteresis: against a large signal, out near zero."""
    if np.isnan(signal):
        return held
    if signal > entry:
        return -1.0
    if signal < -entry:
        return 1.0
    if held * signal > 0.0 or abs(signal) < leave:
        return 0.0
    return held


@kernel
def _choose(
    kind: int,
    a: Any,
    observation: Singles,
    mask: Bools,
    weights: PolicyWeights,
    scratch: Singles,
    series: Floats,
    entry: float,
    leave: float,
    levels: Floats,
    p: Any,
) -> int:
    if kind == NETWORK:
        forced = only_allowed(mask)  # a quarter of all decisions need no network
        return (
            forced
            if forced >= 0
            else best_allowed(forward_row(observation, weights, scratch), mask)
        )
    if kind == RANDOM:
        return _random_allowed(a, mask)
    held = levels[a.rung]
    wanted = series[a.t]
    if kind == THRESHOLD:
        wanted = threshold_exposure(wanted, held, entry, leave)
    elif np.isnan(wanted):
        wanted = held
    return action_towards(a.rung, rung_nearest(levels, wanted), mask, p)


@kernel
def _arriving_action(
    a: Any,
    bar: Any,
    action: int,
    slot: int,
    in_flight: Ints,
    p: Any,
) -> int:
    """Send an order off and return the action that an order sent earlier is now.

    What travels is the rung that was asked for, -1 where nothing was: an order that a policy
    repeats while the first is on its way is so not done twice.
    """
    arriving = in_flight[slot]
    flatten = flatten_bits(a, bar, p) != 0
    asked = target_rung(action, a.rung, p.n_levels, p.flat_rung, p.is_step, flatten)
    in_flight[slot] = asked if asked != a.rung else -1
    if arriving < 0 or arriving == a.rung:
        return p.hold
    if p.is_step == 0:
        return arriving + 1
    return p.hold + (1 if arriving > a.rung else -1)


@kernel
def _run(
    kind: int,
    use_mask: bool,
    in_flight: Ints,
    weights: PolicyWeights,
    scratch: Singles,
    series: Floats,
    entry: float,
    leave: float,
    inputs: StepInputs,
    accounts: Records,
    observation: Singles,
    actions: Codes,
    masks: Bools,
    reasons: Ints,
    outcomes: Records,
) -> int:
    """Fill the rows of a trace; return how many were made before ruin, if any."""
    weights, inputs, series = borrowed((weights, inputs, series))
    accounts, observation, scratch = borrowed((accounts, observation, scratch))
    actions, masks, reasons, outcomes = borrowed((actions, masks, reasons, outcomes))
    a, bars, levels, p = accounts[0], inputs.bars, inputs.levels, inputs.params[0]
    delay = in_flight.shape[0]
    free = np.ones(masks.shape[1], dtype=np.bool_)
    for i in range(actions.shape[0]):
        refresh(a, inputs, observation, masks[i], reasons[i])
        allowed = masks[i] if use_mask else free
        action = _choose(
            kind, a, observation, allowed, weights, scratch, series, entry, leave, levels, p,
        )  # fmt: skip
        if delay > 0:
            action = _arriving_action(a, bars[a.t], action, i % delay, in_flight, p)
        actions[i] = action
        if step_one(a, bars, levels, p, action, reasons[i, action], outcomes[i]):
            return i + 1
    return actions.shape[0]


def backtest(
    policy: Policy,
    bars: Bars,
    market: TradingMarket,
    split: Split,
    config: Config,
    delay_bars: int = 0,
) -> Trace:
    """Run `policy` over `split` from cash, one decision a bar, and return what it did.

    With a delay d the order decided at the close of bar t reaches the market at the close of
    t + d and fills one bar later; nothing reaches it in the first d rows.  It may be forbidden
    by then: the broker answers as to any forbidden action.  A row's action is the one that
    reached the market in it.

    Args:
        policy: What decides.
        bars: The bars that `market` was made from.
        market: Bars, scaled features and parameters as the step reads them.
        split: Decisions at the closes of bars `start` .. `stop - 2`.
        config: Gives severities and the credited cash rate.
        delay_bars: Latency of every order, bars.
    """
    n = split.stop - 1 - split.start
    params = market.params.copy()
    if policy.unconstrained:
        params["enabled"] &= params["impossible"]
        params["drawdown__reduced_size"], params["target_sigma"] = 1.0, 0.0
    accounts = seed_accounts(1, policy.seed)
    begin_episode(accounts[0], market.bars, split.start, split.stop, params[0])
    n_actions = market.space.size
    actions = np.zeros(n, dtype=np.int8)
    masks = np.zeros((n, n_actions), dtype=np.bool_)
    reasons = np.zeros((n, n_actions), dtype=np.int64)
    outcomes = np.zeros(n, dtype=OUTCOME_DTYPE)
    series = policy.series if policy.series is not None else np.zeros(0)
    weights = policy.weights or _NO_WEIGHTS
    rows = _run(
        policy.kind, policy.use_mask, np.full(delay_bars, -1, np.int64),
        weights, weights.scratch(), series, policy.entry, policy.exit,
        market.inputs._replace(params=params), accounts,
        np.zeros(market.observation_size, np.float32), actions, masks, reasons, outcomes,
    )  # fmt: skip
    seen = slice(split.start, split.stop)
    return trace_of(
        bars, market.space.names, market.regime[seen], market.bars["rule_bits"][seen], split,
        config, actions[:rows], masks, reasons, outcomes,
    )  # fmt: skip


def trace_of(
    bars: Bars,
    action_names: tuple[str, ...],
    regime: Codes,
    rule_bits: Ints,
    split: Split,
    config: Config,
    actions: Codes,
    masks: Bools,
    reasons: Ints,
    outcomes: Records,
) -> Trace:
    """Put the n decisions of an account on a split together as a trace.

    Args:
        bars: The bars.
        action_names: A names.
        regime: int8, at each of the closes decided at; n or more.
        rule_bits: int64, market-only rules there; n or more.
        split: The first decision is at the close of bar `start`.
        config: Gives severities, the initial cash and the credited cash rate.
        actions: int8 (n,).
        masks: bool, shape (n or more, A).
        reasons: int64, shape (n or more, A).
        outcomes: `OUTCOME_DTYPE`, n or more.
    """
    rows = len(actions)
    marked = slice(split.start + 1, split.start + 1 + rows)
    out = outcomes[:rows]
    return Trace(
        end_ns=bars.end_ns[marked],
        session=bars.session[marked],
        close=bars.close[marked],
        action=actions,
        mask=masks[:rows],
        blocked_by=reasons[:rows],
        fill_quantity=out["fill_quantity"].copy(),
        fill_price=out["fill_price"].copy(),
        cost_usd=out["cost"].copy(),
        carry_usd=out["carry"].copy(),
        equity_usd=out["equity"].copy(),
        exposure=out["exposure"].copy(),
        reward_components=structured_to_unstructured(out[list(REWARD_NAMES)], copy=True),
        regime=regime[:rows],
        rejected=out["rejected"].copy(),
        violated=out["violated"].copy(),
        passive=out["passive"].copy(),
        undecided=rule_bits[:rows] & GAP != 0,
        initial_equity_usd=config.env.initial_cash_usd,
        action_names=action_names,
        rule_names=RULE_NAMES,
        rule_severity=rule_severity(config.risk),
        bars_per_session=bars.bars_per_session,
        sessions_per_year=bars.sessions_per_year,
        cash_interest_annual_bps=config.costs.cash_interest_annual_bps,
        start_ns=int(bars.end_ns[split.start]),
    )
