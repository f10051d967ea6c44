"""The account: fills, costs, carry and marking to market, one bar at a time.

Decided at the close of bar t, filled at the open of bar t + 1 (or its close where opens
are not real), sized at the equity of the fill, costs paid on the fill, marked to market
at the close of bar t + 1.  That is said here and nowhere else.

A bar of volume 0 fills nothing: an order that would fill in it lapses.  Position, rung and
cash stay, nothing is paid, and the next close decides anew; no decision can break a rule by
what it did not move.  A series without volume (`Bars.has_volume`) always fills.

"Shares" are units of what the price is quoted for: shares, coins, units of a base currency,
contracts times their multiplier.  Orders are whole lots of them.
"""

from typing import Any

import numpy as np

from ppo_workbench.jit import kernel
from ppo_workbench.trading.rewards import REWARD_NAMES

BAR_DTYPE = np.dtype(
    [
        ("open", "f8"),
        ("close", "f8"),
        ("half_spread_bps", "f8"),  # NaN where no quote is known
        ("sigma", "f8"),  # volatility of one bar's return, fraction
        ("volatility_ratio", "f8"),
        ("mean_notional", "f8"),  # currency a bar, infinite where the series has no volume
        ("trades", "i8"),  # orders are filled in this bar
        ("years", "f8"),  # time since the previous bar, years of 365 days
        ("session", "i8"),
        ("rule_bits", "i8"),  # market-only rules that fire on a decision at this close
    ]
)

ACCOUNT_DTYPE = np.dtype(
    [
        ("cash", "f8"),
        ("shares", "f8"),
        ("equity", "f8"),  # marked at the last close
        ("rung", "i8"),
        ("average_price", "f8"),
        ("bars_held", "i8"),
        ("trip_equity", "f8"),  # equity when the open round trip began
        ("session", "i8"),
        ("session_equity", "f8"),  # equity at the close before this session
        ("session_opens", "i8"),
        ("session_bars", "i8"),  # bars marked in this session
        ("opened_session", "i8"),  # session in which the open position was opened
        ("day_trades", "i8", (5,)),  # per session, the current one first
        ("unsettled_cash", "f8"),
        ("cooldown_left", "i8"),
        ("peak", "f8"),  # anchor of the drawdown ladder
        ("recovery_equity", "f8"),  # full size again above this equity
        ("pause_left", "i8"),
        ("flatten_drawdown", "i8"),
        ("episode_peak", "f8"),
        ("drawdown", "f8"),  # from the episode's peak, fraction
        ("sharpe_a", "f8"),  # differential Sharpe: running mean of returns
        ("sharpe_b", "f8"),  # and of squared returns
        ("passive_bits", "i8"),  # limits that are crossed at present
        ("t", "i8"),
        ("stop", "i8"),
        ("episode_reward", "f8"),
        ("episode_start", "i8"),
        ("rng", "u8"),
    ]
)

OUTCOME_DTYPE = np.dtype(
    [
        ("fill_quantity", "f8"),
        ("fill_price", "f8"),
        ("cost", "f8"),
        ("carry", "f8"),
        ("rejected", "i8"),
        ("violated", "i8"),
        ("passive", "i8"),
        *((name, "f8") for name in REWARD_NAMES),
        ("reward", "f8"),
        ("equity", "f8"),
        ("exposure", "f8"),
        ("episode_reward", "f8"),
        ("episode_length", "i8"),
    ]
)

DAY_TRADE_SESSIONS = 5


@kernel
def cost_rate(bar: Any, p: Any, notional: float) -> float:
    """Return the proportional cost of a fill of `notional` decided at `bar`, a fraction of it.

    Half spread (quoted at the deciding close, else configured), doubled or more in high
    volatility, slippage in units of bar volatility, square-root impact (Almgren et al.
    2005) and commission in basis points.  A spread that is not quoted is one tick at least.
    Where nothing was traded lately, an order counts as the whole of a bar.
    """
    quoted = p.quoted_spread != 0 and not np.isnan(bar.half_spread_bps)
    half_spread = bar.half_spread_bps if quoted else p.half_spread_bps
    if bar.volatility_ratio > p.cost_volatility_ratio:
        half_spread *= p.high_volatility_multiplier
    if not quoted:
        half_spread = max(half_spread, p.half_tick / bar.close * 1e4)
    volatility = p.slippage_volatility_frac
    if p.impact_volatility_frac > 0.0 and notional > 0.0:
        taken = notional / bar.mean_notional if bar.mean_notional > 0 else 1.0
        volatility += p.impact_volatility_frac * np.sqrt(taken)
    return (half_spread + p.fee_bps) * 1e-4 + volatility * bar.sigma


@kernel
def commission(shares: float, p: Any) -> float:
    """Return the commission of an order by its size in currency, at least the minimum."""
    if shares == 0.0:
        return 0.0
    return max(abs(shares) * p.fee_per_share, p.fee_minimum)


@kernel
def sized_shares(exposure: float, equity: float, price: float, rate: float, p: Any) -> float:
    """Return the signed shares that make `exposure` of the equity left after the costs.

    Rounded towards zero to whole lots, so the exposure asked for is never exceeded.
    """
    if exposure == 0.0 or equity <= p.fee_minimum:
        return 0.0
    size = abs(exposure)
    per_share = price * (1.0 + size * rate) + size * p.fee_per_share
    shares = size * (equity - p.fee_minimum) / per_share
    if p.lot_units > 0.0:
        shares = np.floor(shares / p.lot_units) * p.lot_units
    return shares if exposure > 0 else -shares


@kernel
def order_size(a: Any, bar: Any, p: Any) -> float:
    """Return the share of its level that an order decided at this close is sized at.

    Less after a drawdown, and with `env.sizing=volatility` where the bars move more than the
    target.
    """
    size = p.drawdown__reduced_size if a.recovery_equity > 0.0 else 1.0
    if p.target_sigma > 0.0 and bar.sigma > p.target_sigma:
        size *= p.target_sigma / bar.sigma
    return size


@kernel
def too_small(held: float, shares: float, p: Any) -> bool:
    """Tell whether going from `held` to `shares` is less than an order may be; never to 0."""
    # Sums of lots such as 0.1 are off by rounding.
    return shares != 0.0 and abs(shares - held) < p.minimum_units * (1.0 - 1e-9)


@kernel
def accrue(a: Any, bar: Any, p: Any) -> float:
    """Credit interest and charge borrow for the time since the last bar; return the sum.

    Cash interest is earned on cash less short proceeds, margin interest paid on debt,
    borrow on the short's value at the last mark; all simple, actual/365.
    """
    if bar.years <= 0.0 or p.has_carry == 0:
        return 0.0
    short_value = max(0.0, a.cash - a.equity) if a.shares < 0 else 0.0
    free_cash = a.cash - short_value
    rate = p.cash_rate if free_cash > 0 else p.margin_rate
    carry = (free_cash * rate - short_value * p.borrow_rate) * bar.years
    a.cash += carry
    return carry


@kernel
def fill(a: Any, decided: Any, price: float, session: int, shares: float, p: Any, out: Any) -> None:
    """Trade from the held to the target `shares` at `price` and book costs and round trip.

    Args:
        a: One row of `ACCOUNT_DTYPE`, changed in place.
        decided: The bar at whose close the order was decided.
        price: Raw fill price, currency a share.
        session: Session of the fill.
        shares: Signed target shares.
        p: One row of `PARAMS_DTYPE`.
        out: One row of `OUTCOME_DTYPE`, changed in place.
    """
    delta = shares - a.shares
    if delta == 0.0:
        return
    notional = abs(delta) * price
    cost = notional * cost_rate(decided, p, notional) + commission(delta, p)
    book_fill(a, price, session, shares, cost, p)
    out.fill_quantity = delta
    out.fill_price = price
    out.cost = cost


@kernel
def book_fill(a: Any, price: float, session: int, shares: float, cost: float, p: Any) -> None:
    """Book a trade from the held to `shares` that cost `cost`, and its round trip.

    Args:
        a: One row of `ACCOUNT_DTYPE`, changed in place.
        price: Raw fill price, currency a share.
        session: Session of the fill.
        shares: Signed shares after the fill, others than before.
        cost: Everything paid beside the price, currency.
        p: One row of `PARAMS_DTYPE`.
    """
    delta = shares - a.shares
    equity = a.cash + a.shares * price
    a.cash -= delta * price + cost
    if delta < 0 and a.shares > 0:
        a.unsettled_cash += min(-delta, a.shares) * price
    _book_trip(a, shares, price, session, equity, cost, p)
    a.shares = shares


@kernel
def _book_trip(
    a: Any, shares: float, price: float, session: int, equity: float, cost: float, p: Any
) -> None:
    """Close, open or resize the round trip that a fill belongs to."""
    held = a.shares
    closes = held != 0.0 and held * shares <= 0.0
    opens = shares != 0.0 and held * shares <= 0.0
    if closes:
        equity -= cost * abs(held) / abs(shares - held)  # the rest of a flip's cost opens
        if a.opened_session == session:
            a.day_trades[0] += 1
        if equity < a.trip_equity:
            a.cooldown_left = p.cooldown__bars_after_loss + 1  # this bar's own mark takes one
        a.average_price = 0.0
        a.bars_held = 0
    if opens:
        a.opened_session = session
        a.trip_equity = equity
        a.average_price = price
    elif abs(shares) > abs(held):
        added = abs(shares) - abs(held)
        a.average_price = (a.average_price * abs(held) + price * added) / abs(shares)
    if abs(shares) > abs(held) or opens:
        a.session_opens += 1


@kernel
def begin_session(a: Any, session: int) -> None:
    """Roll the per-session counters when the first bar of a new session is reached."""
    a.session = session
    a.session_equity = a.equity
    a.session_opens = 0
    a.session_bars = 0
    a.unsettled_cash = 0.0
    for i in range(DAY_TRADE_SESSIONS - 1, 0, -1):
        a.day_trades[i] = a.day_trades[i - 1]
    a.day_trades[0] = 0


@kernel
def update_ladder(a: Any, p: Any) -> None:
    """Move the drawdown ladder after a mark to market.

    Caution: reduced size until half of it is recovered.  Flatten: flat and paused, then
    the peak is re-anchored at the equity of that time, so that the way back stays open.
    """
    if a.pause_left > 0:
        a.pause_left -= 1
        if a.pause_left == 0:
            a.peak = a.equity
            a.flatten_drawdown = 0
        return
    if a.equity > a.peak:
        a.peak = a.equity
    fall = 1.0 - a.equity / a.peak
    if fall >= p.drawdown__caution_frac:
        a.recovery_equity = max(a.recovery_equity, a.peak * (1.0 - 0.5 * p.drawdown__caution_frac))
    if a.equity >= a.recovery_equity:
        a.recovery_equity = 0.0
    if fall >= p.drawdown__flatten_frac:
        a.flatten_drawdown = 1
        a.pause_left = p.drawdown__pause_bars
