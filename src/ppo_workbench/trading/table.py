"""Bars, causal market state and parameters, laid out for the step."""

from dataclasses import dataclass

import numpy as np

from ppo_workbench.config import Config
from ppo_workbench.config.arrays import Codes, Records, Singles
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import MarketTable
from ppo_workbench.trading.account import BAR_DTYPE
from ppo_workbench.trading.actions import ActionSpace, action_space
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rules.market import market_rule_bits
from ppo_workbench.trading.rules.params import build_params
from ppo_workbench.trading.step import StepInputs

YEAR_NS = 365 * 86_400 * 1e9


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
    def inputs(self) -> StepInputs:
        """As kernels take it."""
        scaler, levels = self.scaler, self.space.levels
        return StepInputs(self.bars, self.features, scaler.means, scaler.stds, levels, self.params)

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
