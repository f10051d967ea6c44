"""Mask rules: which actions are forbidden, by whom, and why.

A static chain over flat parameters.  Rule k owns bit k; an action's reasons are the bits
of every rule that forbids it, 0 means allowed.  Market-only rules are bits computed once
per bar (trading/rules/market.py); the rest ask the account (`action_reasons`).

In every state at least one action is legal: HOLD while the market is halted; under a
flatten rule what flattens, then HOLD; HOLD otherwise.  Closing, or a smaller step towards
flat, is never forbidden while the market trades, unless a flatten rule asks for more.
docs/rules.md gives each rule's source and severity.
"""

from typing import Any

import numpy as np

from ppo_workbench.config.arrays import Bools, Floats, Ints
from ppo_workbench.jit import kernel
from ppo_workbench.trading.account import cost_rate, order_size, sized_shares, too_small
from ppo_workbench.trading.actions import is_second_hold, target_rung
from ppo_workbench.trading.rules import names as rule
from ppo_workbench.trading.rules.own import own_bits

_own_account_bits = own_bits(rule.BIT, ("a", "bar", "exposure"), "p", asks_account=True)


@kernel
def maintenance_breached(a: Any, price: float, p: Any) -> bool:
    """FINRA 4210(c): equity below 25 % of a long, or the short's larger requirement."""
    if a.shares > 0:
        return a.equity < p.maintenance_margin__long_frac * a.shares * price
    if a.shares < 0:
        return a.equity < _short_requirement(-a.shares, price, p)
    return False


@kernel
def _short_requirement(shares: float, price: float, p: Any) -> float:
    if price < 5.0:  # 4210(c)(2): the larger of $2.50 a share and 100 %
        return shares * max(0.5 * p.maintenance_margin__short_per_share_usd, price)
    return shares * max(
        p.maintenance_margin__short_per_share_usd, p.maintenance_margin__short_frac * price
    )


@kernel
def flatten_bits(a: Any, bar: Any, p: Any) -> int:
    """Return the bits of the flatten rules in force, halted or not."""
    bits = bar.rule_bits & rule.SESSION_FLATTEN
    if a.flatten_drawdown != 0:
        bits |= rule.DRAWDOWN
    if p.daily_loss__flatten != 0 and _daily_loss_hit(a, p):
        bits |= rule.DAILY_LOSS
    if p.enabled & rule.EXITS != 0 and a.average_price > 0.0:
        gain = (bar.close / a.average_price - 1.0) * np.sign(a.shares)
        if gain <= -p.stop_loss__loss_frac:
            bits |= rule.STOP_LOSS
        if gain >= p.take_profit__gain_frac:
            bits |= rule.TAKE_PROFIT
    return bits & p.enabled


@kernel
def _daily_loss_hit(a: Any, p: Any) -> bool:
    return a.equity <= a.session_equity * (1.0 - p.daily_loss__max_loss_frac)


@kernel
def increase_bits(a: Any, bar: Any, p: Any) -> int:
    """Return the bits that forbid any new risk in this state."""
    bits = bar.rule_bits & rule.MARKET_NO_INCREASE
    if a.pause_left > 0 or a.flatten_drawdown != 0:
        bits |= rule.DRAWDOWN
    if _daily_loss_hit(a, p):
        bits |= rule.DAILY_LOSS
    if a.session_opens >= p.order_rate__max_opens_per_session:
        bits |= rule.ORDER_RATE
    if a.cooldown_left > 0:
        bits |= rule.COOLDOWN
    if maintenance_breached(a, bar.close, p):
        bits |= rule.MAINTENANCE
    if a.equity < p.pattern_day_trader__minimum_equity_usd:
        trades = 0
        for i in range(p.pattern_day_trader__sessions):
            trades += a.day_trades[i]
        if trades >= p.pattern_day_trader__day_trades:
            bits |= rule.DAY_TRADER
    return bits


@kernel
def target_bits(a: Any, bar: Any, exposure: float, p: Any) -> int:
    """Return the bits that forbid this particular increase to `exposure`."""
    price = bar.close
    rate = cost_rate(bar, p, 0.0)
    shares = sized_shares(exposure, a.equity, price, rate, p)
    bits = _size_bits(exposure, abs(shares) * price, p)
    if shares == 0.0 or a.equity <= 0.0 or too_small(a.shares, shares, p):
        bits |= rule.CAPITAL
    order = abs(shares - a.shares) * price
    if bar.mean_notional == 0.0 or order > p.liquidity__max_volume_frac * bar.mean_notional:
        bits |= rule.LIQUIDITY
    if exposure < 0 or exposure > 1.0:
        bits |= _margin_bits(a, shares, price, p)
    if exposure < 0:
        if p.locate__available == 0:
            bits |= rule.LOCATE
        bits |= bar.rule_bits & rule.SHORT_SALE
        bits |= rule.SETTLEMENT  # a cash account cannot sell short
    elif (shares - max(a.shares, 0.0)) * price > a.cash - a.unsettled_cash:
        bits |= rule.SETTLEMENT
    return bits | _own_account_bits(a, bar, exposure, p)


@kernel
def _size_bits(exposure: float, notional: float, p: Any) -> int:
    """Return the bits of the limits on the size of a position, whoever sets them."""
    size = abs(exposure)
    bits = 0
    if size > p.capital__max_gross_exposure:
        bits |= rule.CAPITAL
    if size * (p.initial_margin__long_frac if exposure > 0 else p.initial_margin__short_frac) > 1.0:
        bits |= rule.INITIAL_MARGIN
    if size * p.intraday_margin__margin_frac > 1.0:
        bits |= rule.INTRADAY
    if size > p.concentration__max_exposure:
        bits |= rule.CONCENTRATION
    if notional > p.position__max_notional_usd:
        bits |= rule.POSITION
    return bits


@kernel
def _margin_bits(a: Any, shares: float, price: float, p: Any) -> int:
    """Minimum equity of a margin account and maintenance after the trade, FINRA 4210."""
    if a.equity < p.maintenance_margin__minimum_equity_usd:
        return rule.MAINTENANCE
    if shares < 0 and a.equity < _short_requirement(-shares, price, p):
        return rule.MAINTENANCE
    if shares > 0 and a.equity < p.maintenance_margin__long_frac * shares * price:
        return rule.MAINTENANCE
    return 0


@kernel
def is_increase(rung: int, target: int, flat_rung: int) -> bool:
    """Tell whether going from `rung` to `target` adds risk: larger, or the other side."""
    held, wanted = rung - flat_rung, target - flat_rung
    return wanted != 0 and (held * wanted < 0 or abs(wanted) > abs(held))


@kernel
def action_reasons(a: Any, bar: Any, levels: Floats, p: Any, row: Ints) -> None:
    """Write the bits of the rules that forbid each action at this close into `row` (A,).

    Args:
        a: One row of `ACCOUNT_DTYPE`, marked at this close.
        bar: The row of `BAR_DTYPE` that just closed.
        levels: float64 (L,), the exposure levels.
        p: One row of `PARAMS_DTYPE`.
        row: int64 (A,), overwritten; 0 means allowed.
    """
    stopped = bar.rule_bits & rule.STOPPED & p.enabled
    flatten = flatten_bits(a, bar, p)
    held = a.rung != p.flat_rung
    no_increase = -1
    size = order_size(a, bar, p)
    for action in range(row.shape[0]):
        target = target_rung(action, a.rung, p.n_levels, p.flat_rung, p.is_step, flatten != 0)
        if stopped != 0:
            row[action] = 0 if action == p.hold else stopped
            continue
        bits = 0
        if flatten != 0 and held and target != p.flat_rung:
            bits |= flatten
        if is_increase(a.rung, target, p.flat_rung):
            if no_increase < 0:
                no_increase = increase_bits(a, bar, p)
            bits |= flatten | no_increase | target_bits(a, bar, levels[target] * size, p)
        row[action] = bits & p.enabled


@kernel
def fill_mask(a: Any, reasons: Ints, short: bool, p: Any, mask: Bools) -> None:
    """Write the mask (A,) that follows from `reasons` (A,), each outcome once.

    Where the account stands `short` of its rung, asking for the rung orders what is missing.
    """
    for k in range(mask.shape[0]):
        second = is_second_hold(k, a.rung, p.n_levels, p.is_step) and not short
        allowed = reasons[k] == 0 or p.mask_rules == 0
        mask[k] = p.mask_all_true != 0 or (allowed and not second)


@kernel
def passive_bits(a: Any, price: float, p: Any) -> int:
    """Return the limits that the held position crosses now, by price and not by decision."""
    bits = 0
    if a.shares != 0.0:
        notional = abs(a.shares) * price
        if notional > p.concentration__max_exposure * a.equity * (1.0 + 1e-9):
            bits |= rule.CONCENTRATION
        if notional > p.position__max_notional_usd:
            bits |= rule.POSITION
        if maintenance_breached(a, price, p):
            bits |= rule.MAINTENANCE
        if _daily_loss_hit(a, p):
            bits |= rule.DAILY_LOSS
        if a.flatten_drawdown != 0:
            bits |= rule.DRAWDOWN
    return bits & p.enabled
