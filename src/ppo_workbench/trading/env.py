"""`MaskableTradingEnv`: the step as a Gymnasium environment.

The three functions that the specification names are here: `action_masks` (dynamic action
masking), `calculate_reward` (the risk-aware reward, in components; the formulas are in
`trading/rewards.py`) and `detect_market_regime` (the causal label; the rule is in
`market/regimes.py`).
"""

from typing import Any

import gymnasium
import numpy as np

from ppo_workbench.config import BudgetConfig, Config, SyntheticConfig, settled
from ppo_workbench.config.arrays import Bools, Ints, Singles
from ppo_workbench.market.features import compute_market
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.regimes import REGIME_NAMES
from ppo_workbench.market.sources import load_bars
from ppo_workbench.market.splits import Split, legal_starts
from ppo_workbench.trading.actions import observed_bits
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rewards import REWARD_NAMES, with_volatility
from ppo_workbench.trading.rules.names import rules_in
from ppo_workbench.trading.table import TradingMarket, trading_market

ENV_ID = "MaskableTrading-v0"


class MaskableTradingEnv(gymnasium.Env[Singles, np.int64]):
    """One instrument, one account; orders are decided at a close and filled at the next open.

    Observation: float32 (F + S,), scaled market features then account features.
    Action: an index of the action set; `action_masks()` says which are allowed now.
    Reward: sum of weighted components, in volatilities of a training bar.
    An episode is truncated after `episode_bars` decisions and terminated by ruin.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        market: TradingMarket,
        starts: Ints,
        episode_bars: int,
        seed: int = 0,
    ) -> None:
        """Wrap one environment.

        Args:
            market: Bars, features and parameters.
            starts: int64 (K,), legal episode starts.
            episode_bars: Decisions of an episode.
            seed: Seeds the starts until `reset(seed=...)` does.
        """
        self.market = market
        self._batch = TradingBatch(market, starts, episode_bars, 1, seed)
        limit = market.scaler.clip
        self.observation_space = gymnasium.spaces.Box(
            -limit, limit, (market.observation_size,), np.float32
        )
        self.action_space = gymnasium.spaces.Discrete(market.space.size)
        self._over = True
        self._actions = np.zeros(1, dtype=np.int64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Singles, dict[str, Any]]:
        """Begin an episode at a random legal start, or at bar `options["start"]`.

        Raises:
            ValueError: `options["start"]` is not a legal start.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._batch.reseed(seed)
        start = (options or {}).get("start")
        if start is None:
            self._batch.reset()
        elif start in self._batch.starts:
            self._batch.reset_one(0, int(start))
        else:
            raise ValueError(f"start={start} is not a legal episode start; see market.splits")
        self._over = False
        return self._batch.observations[0].copy(), {}

    def step(self, action: np.int64 | int) -> tuple[Singles, float, bool, bool, dict[str, Any]]:
        """Carry out `action`, decided at this close, and move to the next close.

        Raises:
            ValueError: The action is no index of the action set, or the episode is over.
        """
        if not 0 <= int(action) < self.market.space.size:
            raise ValueError(f"action={action}: must be 0 .. {self.market.space.size - 1}")
        if self._over:
            raise ValueError("the episode is over: call reset() first")
        batch = self._batch
        self._actions[0] = action
        batch.step(self._actions)
        terminated, truncated = bool(batch.done[0] == 2), bool(batch.done[0] == 1)
        self._over = terminated or truncated
        row = batch.terminal_observations[0] if self._over else batch.observations[0]
        return row.copy(), float(batch.rewards[0]), terminated, truncated, self._info()

    def _info(self) -> dict[str, Any]:
        out = self._batch.outcomes[0]
        return {
            "equity_usd": float(out["equity"]),
            "exposure": float(out["exposure"]),
            "fill_quantity": float(out["fill_quantity"]),
            "fill_price": float(out["fill_price"]),
            "cost_usd": float(out["cost"]),
            "carry_usd": float(out["carry"]),
            "rejected": int(out["rejected"]),
            "violated": int(out["violated"]),
            "passive": int(out["passive"]),
        }

    def action_masks(self) -> Bools:
        """Return which actions are allowed now, bool (A,), True = allowed, never all False."""
        masks: Bools = self._batch.masks[0].copy()
        return masks

    def blocked_by(self) -> dict[str, tuple[str, ...]]:
        """Return, for each action that is forbidden now, the rules that forbid it."""
        reasons = self._batch.reasons[0]
        names = self.market.space.names
        return {name: rules_in(int(r)) for name, r in zip(names, reasons, strict=True) if r}

    def calculate_reward(self) -> dict[str, float]:
        """Return the unweighted reward components of the last step and their `reward`."""
        out = self._batch.outcomes[0]
        return {name: float(out[name]) for name in (*REWARD_NAMES, "reward")}

    def detect_market_regime(self) -> str:
        """Return the causal regime label at this close (`market.regimes.REGIME_NAMES`)."""
        return REGIME_NAMES[int(self.market.regime[self._batch.accounts[0]["t"]])]


def make_env(config: Config | None = None, seed: int = 0) -> MaskableTradingEnv:
    """Build the environment over all bars of a configuration, for use outside the workbench.

    Args:
        config: Defaults to 40 sessions of the synthetic market and a minute feature set.
        seed: Seeds the starts.
    """
    config = config or _demo_config()
    bars = load_bars(config.data)
    config = derived(config, bars)
    table = compute_market(bars, config.features)
    rows, bits = table.features[table.warmup_bars :], observed_bits(config.env)
    scaler = Scaler.fit(rows, config.features.clip, bits)
    split = Split("all", table.warmup_bars, len(bars))
    market = trading_market(bars, table, with_volatility(config, bars, (split,)), scaler)
    episode_bars = settled(config.env.episode_bars)
    starts = legal_starts(bars, (split,), episode_bars)
    return MaskableTradingEnv(market, starts, episode_bars, seed)


def _demo_config() -> Config:
    config = Config(budget=BudgetConfig(timesteps=1))
    config.data.synthetic = SyntheticConfig(sessions=40)
    config.features.names = ["ema_distance_40", "return_1", "volatility_ratio", "session_time"]
    return config


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point="ppo_workbench.trading.env:make_env")
