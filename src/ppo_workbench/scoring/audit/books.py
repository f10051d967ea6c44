"""The account as the auditor rebuilds it: from fill quantities, raw bars and the settings.

Of the trace only quantities, actions and rejections enter the books; prices come from the
bars, costs and carry from the settings.  Thresholds on equity are asked of the recorded
equity, which the books must confirm: else rounding would decide cases at the very limit.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ppo_workbench.config import (
    ActionSet,
    Config,
    CostsConfig,
    Fill,
    ForbiddenAction,
    MarketConfig,
    Sizing,
    settled,
)
from ppo_workbench.config.arrays import Bools, Codes, Floats, Ints
from ppo_workbench.jit import kernel
from ppo_workbench.market.bars import Bars
from ppo_workbench.scoring.audit.market import TOLERANCE, MarketFacts
from ppo_workbench.scoring.trace import Trace

YEAR_SECONDS = 365 * 86_400
_CARRY_ROUNDS = 100


@dataclass(frozen=True)
class Decisions:
    """The deciding bars of n rows and what was known at their closes, all (n,).

    Attributes:
        row: int64, row of `Bars` at whose close was decided.
        close: float64, its close.
        session: int64, its session.
        half_spread_bps: float64, its quote, NaN where there is none.
        traded: bool, an order could be filled in the bar after it.
        sigma, ratio, mean_notional: float64, see `MarketFacts`.
        equity: float64, recorded equity at this close.
    """

    row: Ints
    close: Floats
    session: Ints
    half_spread_bps: Floats
    traded: Bools
    sigma: Floats
    ratio: Floats
    mean_notional: Floats
    equity: Floats


@dataclass(frozen=True)
class Ledger:
    """The rebuilt account, row by row, all (n,).

    Attributes:
        quantity: float64, signed shares of the fill; contracts times their multiplier.
        price: float64, what the bars say a fill costs a share.
        held, shares: float64, position before and after the fill.
        cash_before: float64, cash at the decision.
        fill_equity: float64, equity at the fill's price before its costs.
        cost, carry, equity: float64, as they must be.
        adds: bool, the fill made the position larger or took the other side.
    """

    quantity: Floats
    price: Floats
    held: Floats
    shares: Floats
    cash_before: Floats
    fill_equity: Floats
    cost: Floats
    carry: Floats
    equity: Floats
    adds: Bools


def decisions(trace: Trace, bars: Bars, facts: MarketFacts, first_row: int) -> Decisions:
    """Look up what was known at each decision; row 0 was decided at bar `first_row`."""
    row = np.arange(first_row, first_row + len(trace), dtype=np.int64)
    return Decisions(
        row=row,
        close=bars.close[row],
        session=bars.session[row],
        half_spread_bps=bars.half_spread_bps[row],
        traded=facts.traded[row + 1],
        sigma=facts.sigma[row],
        ratio=facts.ratio[row],
        mean_notional=facts.mean_notional[row],
        equity=trace.equity_curve()[:-1],
    )


def positions(quantity: Floats) -> tuple[Floats, Floats]:
    """Return the shares before and after every fill; what rounding leaves is nothing."""
    shares = np.cumsum(quantity)
    shares[np.abs(shares) <= 1e-9 * np.abs(quantity).max(initial=0.0)] = 0.0
    return np.concatenate(([0.0], shares[:-1])), shares


def rebuild(trace: Trace, bars: Bars, at: Decisions, config: Config) -> Ledger:
    """Rebuild the account of a trace."""
    quantity = trace.fill_quantity
    held, shares = positions(quantity)
    prices = bars.close if config.env.fill is Fill.next_close else bars.open
    price = prices[at.row + 1]
    sizes = np.abs(quantity)
    notional = sizes * price
    cost = notional * _cost_rate(at, config, participation(notional, at.mean_notional))
    cost += _commission(sizes, config)
    spent = np.cumsum(quantity * price + cost)
    before = trace.initial_equity_usd - np.concatenate(([0.0], spent[:-1]))
    carry = carries(before, held * at.close, _years(bars, at), config.costs)
    total = np.cumsum(carry)
    before = before + np.concatenate(([0.0], total[:-1]))
    grows = (np.abs(shares) > np.abs(held)) | (held * shares < 0.0)
    return Ledger(
        quantity=quantity,
        price=price,
        held=held,
        shares=shares,
        cash_before=before,
        fill_equity=before + carry + held * price,
        cost=cost,
        carry=carry,
        equity=trace.initial_equity_usd - spent + total + shares * bars.close[at.row + 1],
        adds=(quantity != 0.0) & (shares != 0.0) & grows,
    )


def participation(notional: Floats, mean_notional: Floats) -> Floats:
    """Return what an order trades over what a bar does; the whole where bars traded nothing."""
    whole = (notional > 0).astype(np.float64)
    return np.divide(notional, mean_notional, out=whole, where=mean_notional > 0)


def _cost_rate(at: Decisions, config: Config, taken: Floats) -> Floats:
    """Return half spread, fee, slippage and square-root impact, a fraction of notional (n,)."""
    costs = config.costs
    wide = at.ratio > costs.high_volatility_ratio
    factor = np.where(wide, costs.high_volatility_multiplier, 1.0)
    one_tick = 1e4 * settled(config.market.tick) / (2.0 * at.close)
    half_spread = np.maximum(costs.half_spread_bps * factor, one_tick)
    if costs.quoted_spread:
        quoted = ~np.isnan(at.half_spread_bps)
        half_spread = np.where(quoted, at.half_spread_bps * factor, half_spread)
    sigmas = costs.slippage_volatility_frac + costs.impact_volatility_frac * np.sqrt(taken)
    return (half_spread + costs.fee_bps) / 1e4 + sigmas * at.sigma


def _commission(sizes: Floats, config: Config) -> Floats:
    """Return the commission by the share or contract, currency (n,); none without an order."""
    contracts = sizes / config.market.contract_multiplier
    each = np.maximum(contracts * config.costs.fee_per_share_usd, config.costs.fee_minimum_usd)
    return np.where(sizes > 0, each, 0.0)


def carries(cash: Floats, value: Floats, years: Floats, costs: CostsConfig) -> Floats:
    """Return interest earned less interest and borrow paid before each fill, currency (n,).

    Interest earns interest through the cash, so the sum is found by Picard iteration: each
    round is exact for one power of rate times time more.

    Args:
        cash: Cash at the decisions without any carry.
        value: Signed value of the position at the decisions.
        years: Time from each decision to the next bar.
        costs: The rates.
    """
    short = np.maximum(-value, 0.0)
    earned, paid = costs.cash_interest_annual_bps / 1e4, costs.margin_interest_annual_bps / 1e4
    borrow = short * costs.borrow_annual_bps / 1e4
    carry = np.zeros_like(cash)
    for _ in range(_CARRY_ROUNDS):
        free = cash - short + np.concatenate(([0.0], np.cumsum(carry)[:-1]))
        update = (free * np.where(free > 0, earned, paid) - borrow) * years
        settled = np.abs(update - carry).sum() <= 1e-14 * np.abs(cash[:1]).sum()
        carry = update
        if settled:
            break
    return carry


def _years(bars: Bars, at: Decisions) -> Floats:
    """Return the time from each decision to the next bar, years of 365 days (n,)."""
    return (bars.start_ns[at.row + 1] - bars.start_ns[at.row]) / 1e9 / YEAR_SECONDS


def carry_scale(bars: Bars, at: Decisions, books: Ledger, costs: CostsConfig) -> Floats:
    """Return what the whole account would earn or pay, currency (n,): the scale of rounding.

    The cash that bears the interest may be the dust that large sums leave.
    """
    rates = (
        costs.cash_interest_annual_bps,
        costs.margin_interest_annual_bps,
        costs.borrow_annual_bps,
    )
    account = np.abs(at.equity) + np.abs(books.held * at.close)
    return account * max(rates) / 1e4 * _years(bars, at)


@dataclass(frozen=True)
class Ladder:
    """The drawdown ladder at each decision, bool (n,).

    Attributes:
        paused: No new risk, and flat.
        reduced: New targets at the reduced size.
    """

    paused: Bools
    reduced: Bools


def ladder(equity: Floats, config: Config) -> Ladder:
    """Walk the ladder of docs/rules.md over the equity at each decision, float64 (n,)."""
    rule = config.risk.drawdown
    pause_bars = settled(rule.pause_bars)
    return Ladder(*_walk(equity, rule.caution_frac, rule.flatten_frac, pause_bars))


@kernel
def _walk(
    equity: Floats, caution_frac: float, flatten_frac: float, pause_bars: int
) -> tuple[Bools, Bools]:
    """Return where the ladder pauses and where it reduces; its anchor moves after each pause."""
    anchor, recover, pause = equity[0], 0.0, 0
    paused, reduced = np.zeros(len(equity), np.bool_), np.zeros(len(equity), np.bool_)
    for i in range(1, len(equity)):
        value = equity[i]
        if pause > 0:
            pause -= 1
            anchor = value if pause == 0 else anchor
        else:
            anchor = max(anchor, value)
            fall = 1.0 - value / anchor
            if fall >= caution_frac:
                recover = max(recover, anchor * (1.0 - 0.5 * caution_frac))
            if value >= recover:
                recover = 0.0
            if fall >= flatten_frac:
                pause = pause_bars
        paused[i], reduced[i] = pause > 0, recover > 0.0
    return paused, reduced


def session_equity(at: Decisions, initial: float) -> Floats:
    """Return the equity with which each decision's session began, float64 (n,)."""
    starts = np.flatnonzero(np.diff(at.session, prepend=at.session[0] - 1))
    # A session begins with the mark at the last close before it.
    begun = np.where(starts > 0, at.equity[np.maximum(starts - 1, 0)], initial)
    return np.repeat(begun, np.diff(np.append(starts, len(at.row))))


def so_far_in_session(counted: Floats, trace: Trace) -> Floats:
    """Sum a figure of the fills of the decision's session up to its close, float64 (n,)."""
    sums = pd.Series(counted).groupby(trace.session).cumsum().to_numpy()
    return np.concatenate(([0.0], sums[:-1]))


def entry_gains(books: Ledger, close: Floats) -> Floats:
    """Return what the position has gained on its average price, a fraction (n,); 0 while flat.

    Args:
        books: The rebuilt account.
        close: float64 (n,), prices at the decisions.
    """
    average, averages, fills = 0.0, list[float](), np.flatnonzero(books.quantity)
    for row in fills:
        held, shares = books.held[row], books.shares[row]
        if shares == 0.0 or held * shares <= 0.0:  # closed, opened or turned
            average = books.price[row] if shares != 0.0 else 0.0
        elif abs(shares) > abs(held):
            paid = abs(held) * average + (abs(shares) - abs(held)) * books.price[row]
            average = paid / abs(shares)
        averages.append(average)
    spans = np.diff(np.concatenate(([0], fills + 1, [len(close)])))
    prices = np.repeat([0.0, *averages], spans)  # each holds from the decision after its fill
    growth = np.divide(close, prices, out=np.ones_like(close), where=prices > 0)
    gains: Floats = (growth - 1.0) * np.sign(books.held)
    return gains


@dataclass(frozen=True)
class Trips:
    """What the closed round trips leave behind.

    Attributes:
        closed: int64 (c,), rows of the fills that closed a trip.
        lost: bool (c,), profit net of carry and of its share of the cost is below zero.
        same_session: bool (c,), opened in the session of its closing fill.
    """

    closed: Ints
    lost: Bools
    same_session: Bools


def round_trips(trace: Trace, books: Ledger) -> Trips:
    """Pair fills into round trips; a flip's cost is split by shares."""
    before, after = books.held, books.shares
    ends = (before != 0) & (books.quantity != 0) & (before * after <= 0)
    begins = (after != 0) & (books.quantity != 0) & (before * after <= 0)
    opened, closed = np.flatnonzero(begins), np.flatnonzero(ends)
    opened = opened[: len(closed)]
    sizes = np.abs(books.quantity)
    closing = np.where(sizes > 0, np.abs(before) / np.maximum(sizes, 1e-300), 0.0).clip(max=1.0)
    start = books.fill_equity - np.where(ends, books.cost * closing, 0.0)
    profit = (books.fill_equity - books.cost * closing)[closed] - start[opened]
    return Trips(closed, profit < 0, trace.session[opened] == trace.session[closed])


@dataclass(frozen=True)
class Orders:
    """What the actions asked for, all (n,).

    Attributes:
        rung: int64, level that is held at the decision.
        exposure: float64, signed target exposure of the order, NaN where none was carried out.
        quantity: float64, shares that the fill must have.
        shares_at_close: float64, target shares sized at the decision, as a broker checks them.
    """

    rung: Ints
    exposure: Floats
    quantity: Floats
    shares_at_close: Floats


def exposure_levels(config: Config) -> Floats:
    """Return the target exposures that the actions name, rising, float64 (L,)."""
    env = config.env
    return np.array([x for x in env.exposure_levels if env.allow_short or x >= 0])


def orders(
    trace: Trace, at: Decisions, books: Ledger, flatten: Bools, size: Floats, config: Config
) -> Orders:
    """Follow the actions and size every order anew.

    Args:
        trace: Gives actions and rejections.
        at: The decisions.
        books: The rebuilt account.
        flatten: bool (n,), a flatten rule is in force and the market trades.
        size: float64 (n,), share of the level that an order is sized at.
        config: Gives levels, action set, costs and how orders are counted.
    """
    levels = exposure_levels(config)
    before, wanted = _rungs(trace, books.shares, flatten, at.traded, levels, config)
    moved = before != wanted
    exposure = levels[wanted] * size
    home = int(np.flatnonzero(levels == 0.0)[0])
    smaller = (np.abs(wanted - home) <= np.abs(before - home)) & (
        (wanted - home) * (before - home) >= 0
    )
    target = np.where(moved, _target_shares(at, books, exposure, smaller, config), books.held)
    rate = _cost_rate(at, config, np.zeros(len(trace)))
    return Orders(
        rung=before,
        exposure=np.where(moved, exposure, np.nan),
        quantity=target - books.held,
        shares_at_close=sized(exposure, at.equity, at.close, rate, config),
    )


def _rungs(
    trace: Trace, shares: Floats, flatten: Bools, traded: Bools, levels: Floats, config: Config
) -> tuple[Ints, Ints]:
    """Return the rung before each decision and the one that its order goes to, int64 (n,)."""
    step = config.env.action_set is ActionSet.step
    home = int(np.flatnonzero(levels == 0.0)[0])
    rejected, flat = trace.rejected != 0, shares == 0.0
    return _climb(trace.action, rejected, flat, flatten, traded, step, home, len(levels) - 1)


@kernel
def _climb(
    action: Codes,
    rejected: Bools,
    flat: Bools,
    must: Bools,
    traded: Bools,
    step: bool,
    home: int,
    top: int,
) -> tuple[Ints, Ints]:
    """Return what `_rungs` does; each rung follows from the one before, unless flat was filled."""
    before, wanted = np.empty(len(action), np.int64), np.empty(len(action), np.int64)
    rung, hold = home, 1 if step else 0
    for i in range(len(action)):
        target, asked = rung, int(action[i])
        if not traded[i]:
            pass
        elif rejected[i]:
            target = home if must[i] and flat[i] else rung
        elif asked != hold:
            target = rung + asked - 1 if step else asked - 1
            if step and must[i] and (rung - home) * (asked - 1) < 0:
                target = home
            target = min(max(target, 0), top)
        before[i], wanted[i] = rung, target
        rung = home if flat[i] else target
    return before, wanted


def sized(exposure: Floats, equity: Floats, price: Floats, rate: Floats, config: Config) -> Floats:
    """Return signed shares worth `exposure` of what the costs leave, lots towards zero (n,)."""
    costs, market, size = config.costs, config.market, np.abs(exposure)
    contract = price * market.contract_multiplier * (1.0 + size * rate)
    contracts = size * (equity - costs.fee_minimum_usd)
    contracts = contracts / (contract + size * costs.fee_per_share_usd)
    if market.lot > 0:
        contracts = np.floor(contracts / market.lot) * market.lot
    contracts = np.where((size > 0) & (equity > costs.fee_minimum_usd), contracts, 0.0)
    return np.sign(exposure) * contracts * market.contract_multiplier


def below_minimum(held: Floats, shares: Floats, market: MarketConfig) -> Bools:
    """Return whether an order is smaller than any may be, bool (n,); to close never is."""
    contracts = np.abs(shares - held) / market.contract_multiplier
    small: Bools = (shares != 0.0) & (contracts < market.minimum_order * (1.0 - TOLERANCE))
    return small


def _target_shares(
    at: Decisions, books: Ledger, exposure: Floats, smaller: Bools, config: Config
) -> Floats:
    """Size at the fill, after the impact of the largest order and a flip's closing costs.

    What is less than the minimum order is none, and of a flip the closing alone.
    """
    costs, held, price, equity = config.costs, books.held, books.price, books.fill_equity
    rate = _cost_rate(at, config, np.zeros_like(held))
    largest = np.abs(sized(exposure, equity, price, rate, config) - held)
    rate = _cost_rate(at, config, participation(largest * price, at.mean_notional))
    fee = costs.fee_per_share_usd / config.market.contract_multiplier
    closing = np.abs(held) * (price * rate + fee)
    equity = equity - np.where(exposure * held < 0.0, closing, 0.0)
    target = sized(exposure, equity, price, rate, config)
    same_side = target * held > 0.0
    clamp = np.where(
        smaller, np.minimum(abs(target), abs(held)), np.maximum(abs(target), abs(held))
    )
    target = np.where(same_side, np.sign(target) * clamp, target)
    kept = np.where(same_side, held, 0.0)
    return np.where(below_minimum(held, target, config.market), kept, target)


def volatility_size(at: Decisions, config: Config) -> Floats:
    """Return the share of a level that volatility sizing leaves, float64 (n,)."""
    if config.env.sizing is not Sizing.volatility:
        return np.ones(len(at.row))
    reward, target = config.reward, config.env.volatility_target_annual_frac
    a_bar = target * settled(reward.bar_volatility_frac) / settled(reward.annual_volatility_frac)
    return np.minimum(np.divide(a_bar, at.sigma, out=np.ones_like(at.sigma), where=at.sigma > 0), 1)


def ladder_size(reduced: Bools, config: Config, enforced: bool) -> Floats:
    """Return the share of a level that an order may have, float64 (n,)."""
    rule = config.risk.drawdown
    works = enforced and rule.enabled and config.env.forbidden_action is ForbiddenAction.reject
    return np.where(reduced & works, rule.reduced_size, 1.0)
