"""The step: one jitted function for a batch of environments, a backtest and a live bar.

Arrays and plain records in and out, no Python objects, so that a jitted learner can call
`step_one` inside its own loop.  The state of environment n is row n of the accounts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppo_workbench.config import Config
from ppo_workbench.config.arrays import Bools, Codes, Floats, Ints, Records, Singles
from ppo_workbench.jit import kernel
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import MarketTable
from ppo_workbench.trading.account import (
    ACCOUNT_DTYPE,
    BAR_DTYPE,
    accrue,
    begin_session,
    cost_rate,
    fill,
    sized_shares,
    too_small,
    update_ladder,
)
from ppo_workbench.trading.actions import ActionSpace, action_space, target_rung
from ppo_workbench.trading.market_rules import market_rule_bits
from ppo_workbench.trading.rewards import begin_returns, follow_returns, risk_aware_reward
from ppo_workbench.trading.rules import (
    STOPPED,
    action_reasons,
    build_params,
    fill_mask,
    flatten_bits,
    is_increase,
    passive_bits,
)

ACCOUNT_FEATURES = (
    "exposure",
    "unrealised_return",
    "log_bars_held",
    "session_return",
    "drawdown",
    "size",
    "return_mean",
    "return_deviation",
)
# Fixed means and standard deviations of the account features: they come in units of volatility,
# so their scale does not depend on the data; a running estimate would make runs incomparable.
ACCOUNT_MEANS = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.5])
ACCOUNT_STDS = np.array([1.0, 1.0, 3.0, 1.0, 0.3, 0.5, 1.0, 0.5])
YEAR_NS = 365 * 86_400 * 1e9


@dataclass(frozen=True)
class Scaler:
    """Standardise observations: (x - mean) / std, clipped.

    Attributes:
        means, stds: float64, shape (F + S,), market features then account features, then A more
            where the mask is observed.
        clip: Largest absolute scaled value.
    """

    means: Floats
    stds: Floats
    clip: float

    @classmethod
    def fit(cls, features: Floats, clip: float, bits: int = 0) -> "Scaler":
        """Fit on the market features of the training bars, float64 (T, F).

        Args:
            features: Market features.
            clip: Largest absolute scaled value.
            bits: Bits of the mask that are observed too (`env.observe_mask`), as they are.
        """
        stds = features.std(axis=0)
        stds = np.where(stds > 1e-12, stds, 1.0)
        means = np.concatenate([features.mean(axis=0), ACCOUNT_MEANS, np.zeros(bits)])
        return cls(means, np.concatenate([stds, ACCOUNT_STDS, np.ones(bits)]), clip)

    def transform_market(self, features: Floats) -> Singles:
        """Scale market features, float64 (T, F) -> float32 (T, F)."""
        scaled = np.empty(features.shape, dtype=np.float32)
        scale_rows(features, self.means, self.stds, self.clip, scaled)
        return scaled


@kernel
def scale_rows(
    features: Floats,
    means: Floats,
    stds: Floats,
    clip: float,
    scaled: Singles,
) -> None:
    """Scale market features (T, F) by the first F means and deviations; NaN stays NaN."""
    for t in range(features.shape[0]):
        for i in range(features.shape[1]):
            x = (features[t, i] - means[i]) / stds[i]
            scaled[t, i] = clip if x > clip else -clip if x < -clip else x


@dataclass(frozen=True)
class TradingMarket:
    """Everything about the bars that the step reads, with the parameters of the account.

    Attributes:
        bars: `BAR_DTYPE`, shape (T,).
        features: float32 (T, F), scaled.
        params: `PARAMS_DTYPE`, shape (1,).
        space: The action space.
        scaler: The scaler, over F + S.
        feature_names: F names.
        regime: int8 (T,), causal label at each close (`REGIME_NAMES`).
    """

    bars: Records
    features: Singles
    params: Records
    space: ActionSpace
    scaler: Scaler
    feature_names: tuple[str, ...]
    regime: Codes

    @property
    def observation_size(self) -> int:
        """F + S, and A more where the mask is observed."""
        return len(self.scaler.means)


def trading_market(
    bars: Bars, market: MarketTable, config: Config, scaler: Scaler
) -> TradingMarket:
    """Lay out bars, causal market state and rule bits for the step."""
    table = np.zeros(len(bars), dtype=BAR_DTYPE)
    table["open"], table["close"] = bars.open, bars.close
    table["half_spread_bps"] = bars.half_spread_bps
    table["sigma"], table["volatility_ratio"] = market.sigma, market.volatility_ratio
    notional = market.mean_notional * config.market.contract_multiplier
    table["mean_notional"] = notional if bars.has_volume else np.inf
    table["trades"] = bars.volume > 0 if bars.has_volume else 1
    table["years"][1:] = np.diff(bars.start_ns) / YEAR_NS
    table["session"] = bars.session
    table["rule_bits"] = market_rule_bits(bars, market, config)
    space = action_space(config.env)
    return TradingMarket(
        bars=table,
        features=scaler.transform_market(market.features),
        params=build_params(config, space),
        space=space,
        scaler=scaler,
        feature_names=market.names,
        regime=market.regime,
    )


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
def observe_account(a: Any, bar: Any, p: Any, row: Singles) -> None:
    """Write the unscaled account features (`ACCOUNT_FEATURES`) at this close into `row` (S,).

    Returns are in deviations of so many bars at the present volatility, the drawdown in annual
    volatilities of the training bars, the running mean of the account's returns in its own
    standard errors, their root mean square in bar volatilities.
    """
    held = a.shares * bar.close
    row[0] = held / a.equity if a.equity > 0 else 0.0
    row[1] = 0.0
    if a.average_price > 0:
        gain = (bar.close / a.average_price - 1.0) * np.sign(a.shares)
        row[1] = in_deviations(gain, bar.sigma, a.bars_held)
    row[2] = np.log1p(float(a.bars_held))
    row[3] = in_deviations(a.equity / a.session_equity - 1.0, bar.sigma, a.session_bars)
    row[4] = (1.0 - a.equity / a.peak) / p.annual_volatility if a.equity < a.peak else 0.0
    row[5] = p.reduced_size if a.recovery_equity > 0.0 else 1.0
    deviation = np.sqrt(a.sharpe_b)
    row[6] = a.sharpe_a / max(deviation, 0.1) * np.sqrt(2.0 / p.sharpe_decay)
    row[7] = deviation


@kernel
def in_deviations(gain: float, sigma: float, bars: int) -> float:
    """Return `gain` over the deviation of so many bars, 0 while nothing moves."""
    return gain / (sigma * np.sqrt(max(bars, 1))) if sigma > 0.0 else 0.0


@kernel
def observe(
    a: Any,
    bars: Records,
    features: Singles,
    means: Floats,
    stds: Floats,
    p: Any,
    row: Singles,
) -> None:
    """Write the scaled observation at the account's bar into `row`, float32 (F + S,)."""
    n_market = features.shape[1]
    for i in range(n_market):
        row[i] = features[a.t, i]
    observe_account(a, bars[a.t], p, row[n_market:])
    for i in range(n_market, row.shape[0]):
        scaled = (row[i] - means[i]) / stds[i]
        row[i] = min(max(scaled, -p.observation_clip), p.observation_clip)


@kernel
def observe_mask(mask: Bools, p: Any, row: Singles) -> None:
    """Write the mask (A,), 0 or 1, at the end of an observation that shows it."""
    if p.observe_mask != 0:
        for k in range(mask.shape[0]):
            row[row.shape[0] - mask.shape[0] + k] = np.float32(mask[k])


@kernel
def desired_shares(
    a: Any, decided: Any, exposure: float, closer: bool, price: float, p: Any
) -> float:
    """Return the target shares of an order at its fill price.

    Sized after every cost: the impact of the largest order it can be, and on a flip what
    closing the other side costs, so that an unlevered order never makes cash negative.
    A step towards flat never adds shares and a step away never sheds them, whatever the
    price did since the last fill.  What would be less than the minimum order is none; a flip
    that is too small closes.
    """
    if exposure == 0.0:
        return 0.0
    equity = a.cash + a.shares * price
    rate = cost_rate(decided, p, 0.0)
    if p.impact_volatility_frac > 0.0:
        largest = abs(sized_shares(exposure, equity, price, rate, p) - a.shares)
        rate = cost_rate(decided, p, largest * price)
    if exposure * a.shares < 0.0:
        equity -= abs(a.shares) * (price * rate + p.fee_per_share)
    shares = sized_shares(exposure, equity, price, rate, p)
    if shares * a.shares > 0.0:
        held, wanted = abs(a.shares), abs(shares)
        wanted = min(wanted, held) if closer else max(wanted, held)
        shares = wanted if shares > 0 else -wanted
    if too_small(a.shares, shares, p):
        return a.shares if a.shares * shares > 0.0 else 0.0
    return shares


@kernel
def resolve_action(a: Any, bar: Any, action: int, reasons: int, p: Any, out: Any) -> int:
    """Return the rung that will be traded to, after the broker's answer to `action`.

    Forbidden actions: impossible ones are always rejected; regulatory and house rules are
    rejected or executed as configured.  A rejected order leaves the position, but a
    flatten rule in force is carried out by the broker.
    """
    flatten = flatten_bits(a, bar, p)
    target = target_rung(action, a.rung, p.n_levels, p.flat_rung, p.is_step, flatten != 0)
    if reasons == 0:
        return target
    if reasons & p.enforced == 0:
        out.violated = reasons
        return target
    out.rejected = reasons
    if bar.rule_bits & STOPPED & p.enabled != 0 or a.rung == p.flat_rung:
        return a.rung
    if flatten & p.enforced != 0:
        return p.flat_rung
    out.violated = flatten  # not enforced: holding on breaks it, rejected order or not
    return a.rung


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
        levels: float64 (L,), the exposure ladder.
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
        size = p.reduced_size if a.recovery_equity > 0.0 else 1.0
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
def random_uint(a: Any) -> np.uint64:
    """Advance the account's own xorshift64* generator (Vigna 2016); return 64 random bits."""
    x = np.uint64(a.rng)
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    a.rng = x
    return x * np.uint64(2685821657736338717)


@kernel
def random_start(a: Any, starts: Ints) -> int:
    """Draw one of the legal episode starts."""
    return starts[np.int64(random_uint(a) % np.uint64(starts.shape[0]))]


@kernel
def refresh(
    a: Any,
    bars: Records,
    features: Singles,
    means: Floats,
    stds: Floats,
    levels: Floats,
    p: Any,
    observation: Singles,
    mask: Bools,
    reasons: Ints,
) -> None:
    """Write observation, mask and reasons of one environment at its present close."""
    observe(a, bars, features, means, stds, p, observation)
    action_reasons(a, bars[a.t], levels, p, reasons)
    fill_mask(a, reasons, False, p, mask)
    observe_mask(mask, p, observation)


@kernel
def step_batch(
    actions: Ints,
    bars: Records,
    features: Singles,
    means: Floats,
    stds: Floats,
    levels: Floats,
    params: Records,
    starts: Ints,
    episode_bars: int,
    accounts: Records,
    observations: Singles,
    masks: Bools,
    reasons: Ints,
    outcomes: Records,
    rewards: Singles,
    done: Codes,
    terminal_observations: Singles,
) -> int:
    """Step N environments; finished ones are reset at a random legal start.

    `done` is 0, 1 (truncated: `terminal_observations` holds the last observation, to
    bootstrap from) or 2 (terminated: ruined).  All arrays but the inputs are overwritten.

    Returns:
        The number of finished environments.
    """
    p = params[0]
    finished = 0
    for n in range(accounts.shape[0]):
        a, out = accounts[n], outcomes[n]
        ruined = step_one(a, bars, levels, p, actions[n], reasons[n, actions[n]], out)
        rewards[n] = out.reward
        done[n] = 0
        if ruined or a.t >= a.stop:
            done[n] = 2 if ruined else 1
            finished += 1
            last = terminal_observations[n]
            refresh(a, bars, features, means, stds, levels, p, last, masks[n], reasons[n])
            start = random_start(a, starts)
            begin_episode(a, bars, start, start + episode_bars, p)
        refresh(a, bars, features, means, stds, levels, p, observations[n], masks[n], reasons[n])
    return finished


def seed_accounts(count: int, seed: int) -> Records:
    """Return `count` accounts whose generators are seeded from `seed`, never with zero."""
    accounts = np.zeros(count, dtype=ACCOUNT_DTYPE)
    accounts["rng"] = np.random.SeedSequence(seed).generate_state(count, np.uint64) | np.uint64(1)
    return accounts
