"""Follow an account that somebody else keeps: the rules' memory, moved on bar by bar.

In a backtest the step fills orders itself.  Live, the broker does, and what the account
says is believed: cash and shares are taken over, fills are booked at their own prices.
The drawdown ladder, cooldown and counters move as in `step.step_one`, with its own
functions, so an account that fills as the step does leaves the same memory bit for bit.

A position that no order explains stands on the level whose band its exposure lies in
(`level_of`), or short of one: then what adds risk is asked as from the level below, what
reduces as from the level above.
"""

from typing import Any

import numpy as np

from ppo_workbench.config.arrays import Floats, Ints, Records
from ppo_workbench.jit import kernel
from ppo_workbench.trading.account import (
    accrue,
    begin_session,
    book_fill,
    order_size,
    update_ladder,
)
from ppo_workbench.trading.broker import resolve_action
from ppo_workbench.trading.rewards import begin_returns
from ppo_workbench.trading.rules.names import SESSION_FLATTEN
from ppo_workbench.trading.rules.reasons import action_reasons, flatten_bits, is_increase
from ppo_workbench.trading.sizing import desired_shares
from ppo_workbench.trading.step import begin_episode, clear_outcome, mark

# What an account reports of itself; NaN = not reported.
REPORT_DTYPE = np.dtype(
    [
        ("cash", "f8"),
        ("shares", "f8"),
        ("session_pnl", "f8"),
        ("high_water_mark", "f8"),
        ("average_price", "f8"),
        ("flow", "f8"),  # deposits less withdrawals since the last bar
        ("income", "f8"),  # dividends less fees since the last bar
        ("split", "f8"),  # new shares for an old one since the last bar, 1 = none
    ]
)
FILL_QUANTITY, FILL_PRICE, FILL_COST = range(3)
BAND_FRAC = 0.1  # of the way to the next level: so far off a position still stands on it
DUST_FRAC = 1e-6  # of equity: a position worth less is none
_SAME = 1e-9


@kernel
def same_shares(x: float, y: float) -> bool:
    """Tell whether two positions differ by a rounding error at most."""
    return abs(x - y) <= _SAME * max(1.0, abs(x), abs(y))


@kernel
def adopt_account(a: Any, rows: Records, levels: Floats, p: Any, report: Any) -> bool:
    """Begin the memory of an account at the close of bar 1 of `rows`, whatever it holds.

    Args:
        a: One row of `ACCOUNT_DTYPE`, overwritten.
        rows: `BAR_DTYPE`, shape (2,), the bar before and the bar that just closed.
        levels: float64 (L,), the exposure levels.
        p: One row of `PARAMS_DTYPE`.
        report: One row of `REPORT_DTYPE`.

    Returns:
        The position stands short of its rung.
    """
    begin_episode(a, rows, 1, 2, p)
    price = rows[1].close
    equity = report.cash + report.shares * price
    a.cash, a.shares, a.equity = report.cash, report.shares, equity
    a.session_equity, a.trip_equity, a.episode_peak = equity, equity, equity
    a.peak = equity
    if report.high_water_mark > equity:  # the ladder begins where the account stands
        a.peak = a.episode_peak = report.high_water_mark
        a.drawdown = 1.0 - equity / a.peak
    update_ladder(a, p)
    if not np.isnan(report.session_pnl) and report.session_pnl != 0.0:
        a.session_equity = equity - report.session_pnl
    if report.shares != 0.0:
        a.average_price = price if np.isnan(report.average_price) else report.average_price
    a.rung, short = level_of(a, rows[1], price, levels, p)
    return short


@kernel
def follow_account(
    a: Any,
    rows: Records,
    levels: Floats,
    p: Any,
    short: bool,
    start: int,
    ordered: int,
    target: float,
    fills: Floats,
    report: Any,
    out: Any,
) -> bool:
    """Take over what an account did between two closes and mark it at the second.

    Args:
        a: One row of `ACCOUNT_DTYPE` as of bar 0 of `rows`, changed in place.
        rows: `BAR_DTYPE`, shape (2,), the bar decided at and the bar that just closed.
        levels: float64 (L,), the exposure levels.
        p: One row of `PARAMS_DTYPE`.
        short: The position stood short of its rung at bar 0.
        start: Rung that the order was asked from, see `start_rung`.
        ordered: Rung that was ordered at bar 0, `start` where nothing was.
        target: Shares that were aimed at, sized at the close of bar 0.
        fills: float64 (K, 3): quantity, price, cost of each execution, in time order.
        report: One row of `REPORT_DTYPE`.
        out: One row of `OUTCOME_DTYPE`, overwritten.

    Returns:
        The position stands short of its rung now.
    """
    decided, bar = rows[0], rows[1]
    a.t = 0
    clear_outcome(out)
    split_shares(a, report.split)
    move_money(a, report.flow)
    if bar.session != a.session:
        begin_session(a, bar.session)
    out.carry = accrue(a, bar, p) + report.income
    a.cash += report.income
    price = bar.close if p.fill_next_close != 0 else bar.open
    if fills.shape[0] > 0:
        price = fills[0, FILL_PRICE]
    held, expected = a.shares, a.shares
    if ordered != start:
        size = order_size(a, decided, p)
        closer = not is_increase(start, ordered, p.flat_rung)
        expected = desired_shares(a, decided, levels[ordered] * size, closer, price, p)
    if bar.trades == 0 and same_shares(report.shares, held):
        ordered = start  # the order lapsed, however little it was to move
    _book_fills(a, bar.session, price, fills, report, p, out)
    a.cash, a.shares = report.cash, report.shares
    filled = same_shares(a.shares, expected) or same_shares(a.shares, target * report.split)
    if a.shares == 0.0:
        a.rung, short = p.flat_rung, False
    elif ordered != start and filled:
        a.rung, short = ordered, False
    elif not same_shares(a.shares, held):  # else rejected, not filled yet, or nothing ordered
        a.rung, short = level_of(a, bar, bar.close, levels, p)
    equity = a.cash + a.shares * bar.close
    if not np.isnan(report.session_pnl) and equity - a.session_equity != report.session_pnl:
        a.session_equity = equity - report.session_pnl
    mark(a, bar, held, p, out)
    _follow_figures(a, report)
    return short


@kernel
def _follow_figures(a: Any, report: Any) -> None:
    """Move the high-water mark on, and mend the returns of an account that had no equity."""
    if not a.sharpe_b >= 0.0:
        begin_returns(a)
    told = not np.isnan(report.high_water_mark)
    a.episode_peak = max(report.high_water_mark if told else a.episode_peak, a.equity)
    a.drawdown = 1.0 - a.equity / a.episode_peak if a.episode_peak > 0.0 else 0.0


@kernel
def split_shares(a: Any, ratio: float) -> None:
    """Give `ratio` new shares for each old one."""
    a.shares *= ratio
    a.average_price /= ratio


@kernel
def move_money(a: Any, flow: float) -> None:
    """Take a deposit (above 0) or withdrawal at the last close: neither profit nor loss.

    Every equity that is remembered keeps its ratio to the account's.
    """
    if flow == 0.0:
        return
    before = a.equity
    a.cash += flow
    a.equity += flow
    if before > 0.0 and a.equity > 0.0:
        scale = a.equity / before
        a.session_equity *= scale
        a.trip_equity *= scale
        a.recovery_equity *= scale
        a.peak *= scale
        a.episode_peak *= scale
        return
    left = max(a.equity, 0.0)
    a.session_equity, a.trip_equity, a.peak, a.episode_peak = left, left, left, left
    a.recovery_equity = 0.0


@kernel
def _book_fills(
    a: Any,
    session: int,
    price: float,
    fills: Floats,
    report: Any,
    p: Any,
    out: Any,
) -> None:
    """Book what was reported, and the rest of a changed position at `price`."""
    for k in range(fills.shape[0]):
        shares = a.shares + fills[k, FILL_QUANTITY]
        if same_shares(shares, report.shares):
            shares = report.shares
        if shares != a.shares:
            book_fill(a, fills[k, FILL_PRICE], session, shares, fills[k, FILL_COST], p)
        out.fill_quantity += fills[k, FILL_QUANTITY]
        out.fill_price = fills[k, FILL_PRICE]
        out.cost += fills[k, FILL_COST]
    delta = report.shares - a.shares
    if not same_shares(report.shares, a.shares):
        cost = max(a.cash - delta * price - report.cash, 0.0)
        book_fill(a, price, session, report.shares, cost, p)
        out.fill_quantity += delta
        out.fill_price = price
        out.cost += cost


@kernel
def is_dust(a: Any, price: float, p: Any) -> bool:
    """Tell whether the position is too small to be ordered, or worth nothing."""
    size = abs(a.shares)
    smallest = max(p.lot_units, p.minimum_units) * (1.0 - 1e-9)
    return size < smallest or size * price < DUST_FRAC * (a.cash + a.shares * price)


@kernel
def level_of(a: Any, bar: Any, price: float, levels: Floats, p: Any) -> tuple[int, bool]:
    """Return the rung that the position stands on, and whether it stands short of it.

    A level reaches `BAND_FRAC` of the way to each of its neighbours, the outermost one without
    end.  Flat reaches as far as dust (`is_dust`).  Between two bands a position stands short of
    the larger level.  Where no level lies on its side the answer is flat.
    """
    flat = p.flat_rung
    if a.shares == 0.0 or is_dust(a, price, p):
        return flat, False
    side = 1 if a.shares > 0.0 else -1
    last = p.n_levels - 1 if side > 0 else 0
    equity = a.cash + a.shares * price
    size = order_size(a, bar, p)
    exposure = abs(a.shares) * price / equity / size if equity > 0.0 else np.inf
    rung = flat
    while rung != last and abs(levels[rung]) < exposure:
        rung += side
    if rung == flat:
        return flat, False
    inner, outer = abs(levels[rung - side]), abs(levels[rung])
    band = BAND_FRAC * (outer - inner)
    if exposure >= outer - band:
        return rung, False
    if rung - side != flat and exposure <= inner + band:
        return rung - side, False
    return rung, True


@kernel
def start_rung(action: int, rung: int, short: bool, p: Any) -> int:
    """Return the rung that `action` is asked from: the one below where it adds to a position."""
    if not short:
        return rung
    side = 1 if rung > p.flat_rung else -1
    if p.is_step != 0:
        adds = (action - p.hold) * side > 0
    else:
        adds = action != p.hold and (action - 1 - rung) * side >= 0
    return rung - side if adds else rung


@kernel
def reasons_when_short(a: Any, bar: Any, levels: Floats, p: Any, row: Ints) -> None:
    """Mend the reasons `row` (A,) of an account that stands short of its rung."""
    rung = a.rung
    below = np.empty_like(row)
    a.rung = rung - (1 if rung > p.flat_rung else -1)
    action_reasons(a, bar, levels, p, below)
    a.rung = rung
    for action in range(row.shape[0]):
        if start_rung(action, rung, True, p) != rung:
            row[action] = below[action]


@kernel
def order_after(
    a: Any,
    bar: Any,
    levels: Floats,
    p: Any,
    action: int,
    reasons: int,
    short: bool,
    out: Any,
    order: Floats,
) -> tuple[int, int]:
    """Write target exposure, target shares and drawdown at this close into `order` (3,).

    Returns:
        The rung that the order is asked from, and the rung to trade to after the broker's
        answer to a forbidden action.
    """
    clear_outcome(out)
    stands, start = a.rung, start_rung(action, a.rung, short, p)
    a.rung = start
    rung = resolve_action(a, bar, action, reasons, p, out)
    a.rung = stands
    size = order_size(a, bar, p)
    order[0], order[1], order[2] = levels[rung] * size, a.shares, a.drawdown
    if rung != start:
        closer = not is_increase(start, rung, p.flat_rung)
        order[1] = desired_shares(a, bar, levels[rung] * size, closer, bar.close, p)
    return start, rung


@kernel
def flatten_bits_between(a: Any, bar: Any, p: Any, report: Any, ends: bool) -> int:
    """Return the flatten rules in force between two bars, for a copy `a` of the account.

    Equity is what the account reports over its session, else the position at the last
    close.

    Args:
        a: A copy, changed: one row of `ACCOUNT_DTYPE`.
        bar: The last bar that closed.
        p: One row of `PARAMS_DTYPE`.
        report: One row of `REPORT_DTYPE`.
        ends: The clock says that the session's last bars are reached.
    """
    move_money(a, report.flow)
    a.cash, a.shares = report.cash, report.shares
    a.equity = a.cash + a.shares * bar.close / report.split
    if not np.isnan(report.session_pnl):
        a.equity = a.session_equity + report.session_pnl
    if a.pause_left == 0:
        update_ladder(a, p)
    bits = flatten_bits(a, bar, p)
    if ends:
        bits |= SESSION_FLATTEN & p.enabled
    return bits
