"""The parameters of account, costs, rules and reward: one record that every kernel reads.

`risk.RULE.NAME` of a rule that asks the account is the field `RULE__NAME`.
"""

from typing import get_type_hints

import numpy as np

from ppo_workbench.config import (
    Config,
    ForbiddenAction,
    MaskRule,
    RiskConfig,
    Severity,
    Sizing,
    settled,
)
from ppo_workbench.config.arrays import Records
from ppo_workbench.trading.actions import ActionSpace
from ppo_workbench.trading.rewards import REWARD_NAMES, reward_weights
from ppo_workbench.trading.rules.names import ASK_MARKET, BIT, enabled_bits, severity_bits
from ppo_workbench.trading.rules.own import own_fields, own_parameters

_INTEGERS = (
    "enabled", "enforced", "impossible", "is_step", "hold", "n_levels", "flat_rung",
    "mask_all_true", "mask_rules", "observe_mask", "fill_next_close", "quoted_spread", "has_carry",
)  # fmt: skip
_FLOATS = (
    "initial_cash", "lot_units", "minimum_units", "half_tick",
    "fee_bps", "fee_per_share", "fee_minimum", "half_spread_bps",
    "slippage_volatility_frac", "impact_volatility_frac", "high_volatility_multiplier",
    "cost_volatility_ratio", "borrow_rate", "cash_rate", "margin_rate",
    "target_sigma", *(f"w_{name}" for name in REWARD_NAMES), "sharpe_decay",
    "bar_volatility", "annual_volatility", "observation_clip", *own_fields(asks_account=True),
)  # fmt: skip
_RULES = {  # (rule, parameter): type
    (rule, name): "f8" if kind is float else "i8"
    for rule, section in RiskConfig().rules().items()
    if not BIT.get(rule, 0) & ASK_MARKET
    for name, kind in get_type_hints(type(section)).items()
    if name not in get_type_hints(MaskRule)
}
PARAMS_DTYPE = np.dtype(
    [(name, "i8") for name in _INTEGERS]
    + [(name, "f8") for name in _FLOATS]
    + [(f"{rule}__{name}", kind) for (rule, name), kind in _RULES.items()]
)


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
    values = own_parameters(risk, asks_account=True)
    for rule, name in _RULES:
        values[f"{rule}__{name}"] = settled(getattr(getattr(risk, rule), name))
    if not risk.drawdown.enabled or config.env.forbidden_action is not ForbiddenAction.reject:
        values["drawdown__reduced_size"] = 1.0
    return values


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
