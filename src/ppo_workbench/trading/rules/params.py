"""The parameters of account, costs, rules and reward: one record that every kernel reads."""

import numpy as np

from ppo_workbench.config import Config, ForbiddenAction, Severity, Sizing, settled
from ppo_workbench.config.arrays import Records
from ppo_workbench.trading.account import DAY_TRADE_SESSIONS
from ppo_workbench.trading.actions import ActionSpace
from ppo_workbench.trading.rewards import REWARD_NAMES, reward_weights
from ppo_workbench.trading.rules.names import enabled_bits, severity_bits
from ppo_workbench.trading.rules.own import own_fields, own_parameters

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
