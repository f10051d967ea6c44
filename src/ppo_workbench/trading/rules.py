"""Mask rules: which actions are forbidden, by whom, and why.

A static chain over flat parameters.  Rule k owns bit k; an action's reasons are the bits
of every rule that forbids it, 0 means allowed.  Market-only rules are bits computed once
per bar (trading/market_rules.py); the rest ask the account (`action_reasons`).

In every state at least one action is legal: HOLD while the market is halted; under a
flatten rule what flattens, then HOLD; HOLD otherwise.  Closing, or a smaller step towards
flat, is never forbidden while the market trades, unless a flatten rule asks for more.
docs/rules.md gives each rule's source and severity.
"""

from typing import Any

import numpy as np

from ppo_workbench import plugins
from ppo_workbench.config import (
    Config,
    ForbiddenAction,
    RiskConfig,
    Severity,
    Sizing,
    settled,
)
from ppo_workbench.config.arrays import Bools, Floats, Ints, Records
from ppo_workbench.jit import kernel
from ppo_workbench.trading.account import (
    DAY_TRADE_SESSIONS,
    cost_rate,
    order_size,
    sized_shares,
    too_small,
)
from ppo_workbench.trading.actions import ActionSpace, is_second_hold, target_rung
from ppo_workbench.trading.own_rules import own_bits, own_fields, own_parameters, own_rules
from ppo_workbench.trading.rewards import REWARD_NAMES, reward_weights

RULE_NAMES = (
    "halt",
    "closed_session",
    "session_flatten",
    "drawdown",
    "daily_loss",
    "capital",
    "initial_margin",
    "locate",
    "settlement",
    "maintenance_margin",
    "intraday_margin",
    "short_sale_restriction",
    "pattern_day_trader",
    "session_no_open",
    "position",
    "concentration",
    "volatility",
    "regime",
    "event",
    "liquidity",
    "order_rate",
    "cooldown",
    "gap",
    "stop_loss",
    "take_profit",
    *plugins.registered().rules,
)
BIT = {name: 1 << k for k, name in enumerate(RULE_NAMES)}

HALT = BIT["halt"]
CLOSED_SESSION = BIT["closed_session"]
SESSION_FLATTEN = BIT["session_flatten"]
DRAWDOWN = BIT["drawdown"]
DAILY_LOSS = BIT["daily_loss"]
CAPITAL = BIT["capital"]
INITIAL_MARGIN = BIT["initial_margin"]
LOCATE = BIT["locate"]
SETTLEMENT = BIT["settlement"]
MAINTENANCE = BIT["maintenance_margin"]
INTRADAY = BIT["intraday_margin"]
SHORT_SALE = BIT["short_sale_restriction"]
DAY_TRADER = BIT["pattern_day_trader"]
SESSION_NO_OPEN = BIT["session_no_open"]
POSITION = BIT["position"]
CONCENTRATION = BIT["concentration"]
VOLATILITY = BIT["volatility"]
REGIME = BIT["regime"]
EVENT = BIT["event"]
LIQUIDITY = BIT["liquidity"]
ORDER_RATE = BIT["order_rate"]
COOLDOWN = BIT["cooldown"]
GAP = BIT["gap"]
STOP_LOSS = BIT["stop_loss"]
TAKE_PROFIT = BIT["take_profit"]

STOPPED = HALT | CLOSED_SESSION
EXITS = STOP_LOSS | TAKE_PROFIT
OWN_MARKET_RULES = sum(
    BIT[name] for name, own in plugins.registered().rules.items() if not own.asks_account
)
MARKET_NO_INCREASE = SESSION_NO_OPEN | VOLATILITY | REGIME | EVENT | GAP | OWN_MARKET_RULES


_own_account_bits = own_bits(BIT, ("a", "bar", "exposure"), "p", asks_account=True)

_INTEGERS = (
    "enabled", "enforced", "impossible", "is_step", "hold", "n_levels", "flat_rung",
    "mask_all_true", "mask_rules", "observe_mask", "fill_next_close", "quoted_spread", "has_carry",
    "locate_available", "day_trades", "day_trade_sessions", "daily_loss_flatten",
    "drawdown_pause", "max_opens", "cooldown_bars",
)  # fmt: skip
_FLOATS = (
    "initial_cash", "lot_units", "minimum_units", "half_tick",
    "fee_bps", "fee_per_share", "fee_minimum", "half_spread_bps",
    "slippage_volatility_frac", "impact_volatility_frac", "high_volatility_multiplier",
    "cost_volatility_ratio", "borrow_rate", "cash_rate", "margin_rate",
    "max_gross_exposure", "initial_long", "initial_short", "maintenance_long",
    "maintenance_short", "maintenance_short_per_share", "minimum_equity", "intraday_margin",
    "day_trade_equity", "max_notional", "max_exposure", "max_daily_loss",
    "drawdown_caution", "drawdown_flatten", "reduced_size", "max_volume_frac",
    "stop_loss", "take_profit", "target_sigma",
    *(f"w_{name}" for name in REWARD_NAMES), "sharpe_decay",
    "bar_volatility", "annual_volatility", "observation_clip", *own_fields(asks_account=True),
)  # fmt: skip
PARAMS_DTYPE = np.dtype([(n, "i8") for n in _INTEGERS] + [(n, "f8") for n in _FLOATS])


def rules_in(bits: int) -> tuple[str, ...]:
    """Return the names of the rules whose bits are set."""
    return tuple(name for k, name in enumerate(RULE_NAMES) if bits >> k & 1)


def rule_sections(risk: RiskConfig) -> dict[str, Any]:
    """Map each rule name to the section of the configuration that switches it."""
    shared = {"session_flatten": risk.session, "session_no_open": risk.session, **own_rules(risk)}
    return {name: shared.get(name) or getattr(risk, name) for name in RULE_NAMES}


def rule_severity(risk: RiskConfig) -> tuple[str, ...]:
    """Return the severity of each rule, in the order of `RULE_NAMES`."""
    return tuple(section.severity.value for section in rule_sections(risk).values())


def severity_bits(risk: RiskConfig, severity: Severity) -> int:
    """Return the bits of the rules of one severity."""
    names = rule_severity(risk)
    return sum(BIT[rule] for rule, s in zip(RULE_NAMES, names, strict=True) if s == severity.value)


def enabled_bits(risk: RiskConfig) -> int:
    """Return the bits of the rules that are switched on."""
    return sum(BIT[name] for name, section in rule_sections(risk).items() if section.enabled)


def build_params(config: Config, space: ActionSpace) -> Records:
    """Flatten the configuration into the one-row record that every kernel reads."""
    params = np.zeros(1, dtype=PARAMS_DTYPE)
    for group in (_env_params, _market_params, _cost_params, _risk_params, _reward_params):
        for name, value in group(config).items():
            params[name] = value
    params["is_step"] = int(space.kind.value == "step")
    params["hold"] = space.hold
    params["n_levels"] = len(space.levels)
    params["flat_rung"] = space.flat_rung
    return params


def _env_params(config: Config) -> dict[str, float]:
    env, risk = config.env, config.risk
    impossible = severity_bits(risk, Severity.impossible)
    rejects = env.forbidden_action is ForbiddenAction.reject
    return {
        "enabled": enabled_bits(risk),
        "impossible": impossible,
        "enforced": -1 if rejects else impossible,
        "mask_all_true": env.mask_all_true,
        "mask_rules": env.mask_rules,
        "observe_mask": env.observe_mask,
        "fill_next_close": env.fill.value == "next_close",
        "initial_cash": env.initial_cash_usd,
        "observation_clip": config.features.clip,
    }


def _market_params(config: Config) -> dict[str, float]:
    market = config.market
    return {
        "lot_units": market.lot * market.contract_multiplier,
        "minimum_units": market.minimum_order * market.contract_multiplier,
        "half_tick": 0.5 * settled(market.tick),
        "fee_per_share": config.costs.fee_per_share_usd / market.contract_multiplier,
    }


def _cost_params(config: Config) -> dict[str, float]:
    costs = config.costs
    rates = {
        "borrow_rate": costs.borrow_annual_bps * 1e-4,
        "cash_rate": costs.cash_interest_annual_bps * 1e-4,
        "margin_rate": costs.margin_interest_annual_bps * 1e-4,
    }
    return rates | {
        "has_carry": any(rates.values()),
        "fee_bps": costs.fee_bps,
        "fee_minimum": costs.fee_minimum_usd,
        "half_spread_bps": costs.half_spread_bps,
        "quoted_spread": costs.quoted_spread,
        "slippage_volatility_frac": costs.slippage_volatility_frac,
        "impact_volatility_frac": costs.impact_volatility_frac,
        "high_volatility_multiplier": costs.high_volatility_multiplier,
        "cost_volatility_ratio": costs.high_volatility_ratio,
    }


def _risk_params(config: Config) -> dict[str, float]:
    risk = config.risk
    ladder_works = risk.drawdown.enabled and config.env.forbidden_action is ForbiddenAction.reject
    return own_parameters(risk, asks_account=True) | {
        "locate_available": risk.locate.available,
        "max_gross_exposure": risk.capital.max_gross_exposure,
        "initial_long": risk.initial_margin.long_frac,
        "initial_short": risk.initial_margin.short_frac,
        "maintenance_long": risk.maintenance_margin.long_frac,
        "maintenance_short": risk.maintenance_margin.short_frac,
        "maintenance_short_per_share": risk.maintenance_margin.short_per_share_usd,
        "minimum_equity": risk.maintenance_margin.minimum_equity_usd,
        "intraday_margin": risk.intraday_margin.margin_frac,
        "day_trades": risk.pattern_day_trader.day_trades,
        "day_trade_sessions": min(risk.pattern_day_trader.sessions, DAY_TRADE_SESSIONS),
        "day_trade_equity": risk.pattern_day_trader.minimum_equity_usd,
        "max_notional": risk.position.max_notional_usd,
        "max_exposure": risk.concentration.max_exposure,
        "max_daily_loss": risk.daily_loss.max_loss_frac,
        "daily_loss_flatten": risk.daily_loss.flatten,
        "drawdown_caution": risk.drawdown.caution_frac,
        "drawdown_flatten": risk.drawdown.flatten_frac,
        "drawdown_pause": settled(risk.drawdown.pause_bars),
        "reduced_size": risk.drawdown.reduced_size if ladder_works else 1.0,
        "stop_loss": risk.stop_loss.loss_frac,
        "take_profit": risk.take_profit.gain_frac,
        "max_volume_frac": risk.liquidity.max_volume_frac,
        "max_opens": risk.order_rate.max_opens_per_session,
        "cooldown_bars": risk.cooldown.bars_after_loss,
    }


def _reward_params(config: Config) -> dict[str, float]:
    weights = {f"w_{name}": weight for name, weight in reward_weights(config.reward).items()}
    reward = config.reward
    halflife = settled(reward.differential_sharpe_halflife_bars)
    volatility = settled(reward.bar_volatility_frac)
    annual = settled(reward.annual_volatility_frac)
    target = config.env.volatility_target_annual_frac * volatility / annual
    return weights | {
        "target_sigma": target if config.env.sizing is Sizing.volatility else 0.0,
        "sharpe_decay": 1.0 - 0.5 ** (1.0 / halflife),
        "bar_volatility": volatility,
        "annual_volatility": annual,
    }


@kernel
def maintenance_breached(a: Any, price: float, p: Any) -> bool:
    """FINRA 4210(c): equity below 25 % of a long, or the short's larger requirement."""
    if a.shares > 0:
        return a.equity < p.maintenance_long * a.shares * price
    if a.shares < 0:
        return a.equity < _short_requirement(-a.shares, price, p)
    return False


@kernel
def _short_requirement(shares: float, price: float, p: Any) -> float:
    if price < 5.0:  # 4210(c)(2): the larger of $2.50 a share and 100 %
        return shares * max(0.5 * p.maintenance_short_per_share, price)
    return shares * max(p.maintenance_short_per_share, p.maintenance_short * price)


@kernel
def flatten_bits(a: Any, bar: Any, p: Any) -> int:
    """Return the bits of the flatten rules in force, halted or not."""
    bits = bar.rule_bits & SESSION_FLATTEN
    if a.flatten_drawdown != 0:
        bits |= DRAWDOWN
    if p.daily_loss_flatten != 0 and _daily_loss_hit(a, p):
        bits |= DAILY_LOSS
    if p.enabled & EXITS != 0 and a.average_price > 0.0:
        gain = (bar.close / a.average_price - 1.0) * np.sign(a.shares)
        if gain <= -p.stop_loss:
            bits |= STOP_LOSS
        if gain >= p.take_profit:
            bits |= TAKE_PROFIT
    return bits & p.enabled


@kernel
def _daily_loss_hit(a: Any, p: Any) -> bool:
    return a.equity <= a.session_equity * (1.0 - p.max_daily_loss)


@kernel
def increase_bits(a: Any, bar: Any, p: Any) -> int:
    """Return the bits that forbid any new risk in this state."""
    bits = bar.rule_bits & MARKET_NO_INCREASE
    if a.pause_left > 0 or a.flatten_drawdown != 0:
        bits |= DRAWDOWN
    if _daily_loss_hit(a, p):
        bits |= DAILY_LOSS
    if a.session_opens >= p.max_opens:
        bits |= ORDER_RATE
    if a.cooldown_left > 0:
        bits |= COOLDOWN
    if maintenance_breached(a, bar.close, p):
        bits |= MAINTENANCE
    if a.equity < p.day_trade_equity:
        trades = 0
        for i in range(p.day_trade_sessions):
            trades += a.day_trades[i]
        if trades >= p.day_trades:
            bits |= DAY_TRADER
    return bits


@kernel
def target_bits(a: Any, bar: Any, exposure: float, p: Any) -> int:
    """Return the bits that forbid this particular increase to `exposure`."""
    price = bar.close
    rate = cost_rate(bar, p, 0.0)
    shares = sized_shares(exposure, a.equity, price, rate, p)
    bits = _size_bits(exposure, abs(shares) * price, p)
    if shares == 0.0 or a.equity <= 0.0 or too_small(a.shares, shares, p):
        bits |= CAPITAL
    order = abs(shares - a.shares) * price
    if bar.mean_notional == 0.0 or order > p.max_volume_frac * bar.mean_notional:
        bits |= LIQUIDITY
    if exposure < 0 or exposure > 1.0:
        bits |= _margin_bits(a, shares, price, p)
    if exposure < 0:
        if p.locate_available == 0:
            bits |= LOCATE
        bits |= (bar.rule_bits & SHORT_SALE) | SETTLEMENT  # a cash account cannot sell short
    elif (shares - max(a.shares, 0.0)) * price > a.cash - a.unsettled_cash:
        bits |= SETTLEMENT
    return bits | _own_account_bits(a, bar, exposure, p)


@kernel
def _size_bits(exposure: float, notional: float, p: Any) -> int:
    """Return the bits of the limits on the size of a position, whoever sets them."""
    size = abs(exposure)
    bits = 0
    if size > p.max_gross_exposure:
        bits |= CAPITAL
    if size * (p.initial_long if exposure > 0 else p.initial_short) > 1.0:
        bits |= INITIAL_MARGIN
    if size * p.intraday_margin > 1.0:
        bits |= INTRADAY
    if size > p.max_exposure:
        bits |= CONCENTRATION
    if notional > p.max_notional:
        bits |= POSITION
    return bits


@kernel
def _margin_bits(a: Any, shares: float, price: float, p: Any) -> int:
    """Minimum equity of a margin account and maintenance after the trade, FINRA 4210."""
    if a.equity < p.minimum_equity:
        return MAINTENANCE
    if shares < 0 and a.equity < _short_requirement(-shares, price, p):
        return MAINTENANCE
    if shares > 0 and a.equity < p.maintenance_long * shares * price:
        return MAINTENANCE
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
        levels: float64 (L,), the exposure ladder.
        p: One row of `PARAMS_DTYPE`.
        row: int64 (A,), overwritten; 0 means allowed.
    """
    stopped = bar.rule_bits & STOPPED & p.enabled
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
        if notional > p.max_exposure * a.equity * (1.0 + 1e-9):
            bits |= CONCENTRATION
        if notional > p.max_notional:
            bits |= POSITION
        if maintenance_breached(a, price, p):
            bits |= MAINTENANCE
        if _daily_loss_hit(a, p):
            bits |= DAILY_LOSS
        if a.flatten_drawdown != 0:
            bits |= DRAWDOWN
    return bits & p.enabled
