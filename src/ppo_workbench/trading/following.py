"""Follow an account that somebody else keeps: the rules' memory, moved on bar by bar.

In a backtest the step fills orders itself.  Live, the broker does, and what the account
says is believed: cash and shares are taken over, fills are booked at their own prices.
The drawdown ladder, cooldown and counters move as in `kernel.step_one`, with its own
functions, so an account that fills as the step does leaves the same memory bit for bit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ppo_workbench.jit import kernel
from ppo_workbench.trading.account import accrue, begin_session, book_fill, update_ladder
from ppo_workbench.trading.kernel import (
    begin_episode,
    clear_outcome,
    desired_shares,
    mark,
    resolve_action,
)
from ppo_workbench.trading.rules import SESSION_FLATTEN, flatten_bits, is_increase

# What an account reports of itself; NaN = not reported.
REPORT_DTYPE = np.dtype(
    [
        ("cash", "f8"),
        ("shares", "f8"),
        ("session_pnl", "f8"),
        ("peak", "f8"),
        ("average_price", "f8"),
    ]
)
FILL_QUANTITY, FILL_PRICE, FILL_COST = range(3)
_SAME = 1e-9


@kernel
def same_shares(x: float, y: float) -> bool:
    """Tell whether two positions differ by a rounding error at most."""
    return abs(x - y) <= _SAME * max(1.0, abs(x), abs(y))


@kernel
def adopt_account(
    a: Any, rows: npt.NDArray[np.void], levels: npt.NDArray[np.float64], p: Any, report: Any
) -> None:
    """Begin the memory of an account at the close of bar 1 of `rows`, whatever it holds.

    Args:
        a: One row of `ACCOUNT_DTYPE`, overwritten.
        rows: `BAR_DTYPE`, shape (2,), the bar before and the bar that just closed.
        levels: float64 (L,), the exposure ladder.
        p: One row of `PARAMS_DTYPE`.
        report: One row of `REPORT_DTYPE`.
    """
    begin_episode(a, rows, 1, 2, p)
    price = rows[1].close
    equity = report.cash + report.shares * price
    a.cash, a.shares, a.equity = report.cash, report.shares, equity
    a.session_equity, a.trip_equity, a.episode_peak = equity, equity, equity
    a.peak = equity if np.isnan(report.peak) else report.peak
    if not np.isnan(report.session_pnl) and report.session_pnl != 0.0:
        a.session_equity = equity - report.session_pnl
    if report.shares != 0.0:
        a.average_price = price if np.isnan(report.average_price) else report.average_price
        a.rung = nearest_rung(a, price, levels, 0, p.n_levels - 1, p)


@kernel
def follow_account(
    a: Any,
    rows: npt.NDArray[np.void],
    levels: npt.NDArray[np.float64],
    p: Any,
    ordered: int,
    fills: npt.NDArray[np.float64],
    report: Any,
    out: Any,
) -> None:
    """Take over what an account did between two closes and mark it at the second.

    Args:
        a: One row of `ACCOUNT_DTYPE` as of bar 0 of `rows`, changed in place.
        rows: `BAR_DTYPE`, shape (2,), the bar decided at and the bar that just closed.
        levels: float64 (L,), the exposure ladder.
        p: One row of `PARAMS_DTYPE`.
        ordered: Rung that was ordered at bar 0, `a.rung` where nothing was.
        fills: float64 (K, 3): quantity, price, cost of each execution, in time order.
        report: One row of `REPORT_DTYPE`.
        out: One row of `OUTCOME_DTYPE`, overwritten.
    """
    decided, bar = rows[0], rows[1]
    a.t = 0
    clear_outcome(out)
    if bar.session != a.session:
        begin_session(a, bar.session)
    out.carry = accrue(a, bar, p)
    price = bar.close if p.fill_next_close != 0 else bar.open
    if fills.shape[0] > 0:
        price = fills[0, FILL_PRICE]
    held, before, expected = a.shares, a.rung, a.shares
    if ordered != a.rung:
        size = p.reduced_size if a.recovery_equity > 0.0 else 1.0
        closer = not is_increase(a.rung, ordered, p.flat_rung)
        expected = desired_shares(a, decided, levels[ordered] * size, closer, price, p)
    if bar.trades == 0 and same_shares(report.shares, held):
        ordered = before  # the order lapsed, however little it was to move
    _book_fills(a, bar.session, price, fills, report, p, out)
    a.cash, a.shares = report.cash, report.shares
    a.rung = _rung_after(a, bar.close, levels, before, ordered, held, expected, p)
    equity = a.cash + a.shares * bar.close
    if not np.isnan(report.peak):
        a.peak = report.peak
    if not np.isnan(report.session_pnl) and equity - a.session_equity != report.session_pnl:
        a.session_equity = equity - report.session_pnl
    mark(a, bar, held, p, out)


@kernel
def _book_fills(
    a: Any,
    session: int,
    price: float,
    fills: npt.NDArray[np.float64],
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
def _rung_after(
    a: Any,
    price: float,
    levels: npt.NDArray[np.float64],
    before: int,
    ordered: int,
    held: float,
    expected: float,
    p: Any,
) -> int:
    """Return the rung that the position stands on, whatever was ordered."""
    if a.shares == 0.0:
        return p.flat_rung
    if same_shares(a.shares, expected):
        return ordered
    if same_shares(a.shares, held):  # rejected, or not filled yet
        return before
    return nearest_rung(a, price, levels, min(before, ordered), max(before, ordered), p)


@kernel
def nearest_rung(
    a: Any, price: float, levels: npt.NDArray[np.float64], low: int, high: int, p: Any
) -> int:
    """Return the rung on the position's side that is nearest to its exposure.

    Rungs from `low` to `high` are preferred; without one on that side all are asked, and
    where the ladder has no such side at all the answer is the flat rung.
    """
    equity = a.cash + a.shares * price
    size = p.reduced_size if a.recovery_equity > 0.0 else 1.0
    exposure = a.shares * price / equity / size if equity > 0 else np.inf * np.sign(a.shares)
    best = p.flat_rung
    for wide in range(2):
        for rung in range(levels.shape[0]):
            inside = wide == 1 or low <= rung <= high
            if not inside or levels[rung] * a.shares <= 0.0:
                continue
            nearer = abs(levels[rung] - exposure) < abs(levels[best] - exposure)
            if best == p.flat_rung or nearer:
                best = rung
        if best != p.flat_rung:
            return best
    return best


@kernel
def order_after(
    a: Any,
    bar: Any,
    levels: npt.NDArray[np.float64],
    p: Any,
    action: int,
    reasons: int,
    out: Any,
    order: npt.NDArray[np.float64],
) -> int:
    """Write target exposure and target shares at this close into `order` (2,).

    Returns:
        The rung to trade to, after the broker's answer to a forbidden action.
    """
    clear_outcome(out)
    rung = resolve_action(a, bar, action, reasons, p, out)
    size = p.reduced_size if a.recovery_equity > 0.0 else 1.0
    order[0] = levels[rung] * size
    order[1] = a.shares
    if rung != a.rung:
        closer = not is_increase(a.rung, rung, p.flat_rung)
        order[1] = desired_shares(a, bar, levels[rung] * size, closer, bar.close, p)
    return rung


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
    a.cash, a.shares = report.cash, report.shares
    a.equity = a.cash + a.shares * bar.close
    if not np.isnan(report.session_pnl):
        a.equity = a.session_equity + report.session_pnl
    if not np.isnan(report.peak):
        a.peak = report.peak
    if a.pause_left == 0:
        update_ladder(a, p)
    bits = flatten_bits(a, bar, p)
    if ends:
        bits |= SESSION_FLATTEN & p.enabled
    return bits
