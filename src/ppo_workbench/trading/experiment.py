"""Lay out an experiment: bars, causal market state, splits and scaler, ready for the step."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ppo_workbench.config import Config
from ppo_workbench.market.bars import Bars, check_fill
from ppo_workbench.market.features import MarketTable, compute_market, feature_spec
from ppo_workbench.market.sources import load_bars
from ppo_workbench.market.splits import Split, cut, legal_starts, time_splits
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.kernel import Scaler, TradingMarket, trading_market


@dataclass(frozen=True)
class Experiment:
    """One configuration with its bars in memory.

    Attributes:
        config: The resolved configuration.
        bars: Bars up to the end of the last split that may be seen.
        table: Features and causal market state of the bars.
        splits: Ranges of bars; `test` is present only where it was opened.
        market: What the step reads.
        test_range: UTC nanoseconds of the first and last bar of the test split, closed or not.
    """

    config: Config
    bars: Bars
    table: MarketTable
    splits: dict[str, Split]
    market: TradingMarket
    test_range: tuple[int, int]

    @property
    def train_features(self) -> npt.NDArray[np.float64]:
        """Unscaled market features of the training bars, float64 (n, F)."""
        train = self.splits["train"]
        return self.table.features[train.start : train.stop]

    def batch(self) -> TradingBatch:
        """Build the training batch: `model.n_envs` environments on the training split."""
        env, train = self.config.env, self.splits["train"]
        starts = legal_starts(self.bars, train, env.episode_bars)
        count = self.config.model.n_envs
        return TradingBatch(self.market, starts, env.episode_bars, count, self.config.seed)


def split_bars(config: Config) -> tuple[Bars, dict[str, Split]]:
    """Load and check the bars of a configuration and find its splits, `test` included.

    Raises:
        BarsError: The bars, their splits or the fill rule are not usable.
    """
    bars = load_bars(config.data)
    check_fill(bars, config.env.fill)
    spec = feature_spec(config.features, bars.bars_per_session, bars.extra_names)
    warmup = max(spec.warmup_bars, bars.extra_warmup_bars)
    return bars, time_splits(bars, config.splits, warmup)


def prepare(config: Config, bars: Bars, splits: dict[str, Split]) -> Experiment:
    """Compute everything up to the end of the validation split; later bars are cut off.

    Args:
        config: The experiment.
        bars: All bars, see `split_bars`.
        splits: Their splits.
    """
    closed = splits["test"]
    test_range = (int(bars.start_ns[closed.start]), int(bars.start_ns[closed.stop - 1]))
    seen = {name: split for name, split in splits.items() if name != "test"}
    return _assemble(config, cut(bars, splits["validation"]), seen, test_range)


def prepare_with_test(config: Config, bars: Bars, splits: dict[str, Split]) -> Experiment:
    """Compute everything, the test split included: only after its opening was recorded."""
    closed = splits["test"]
    test_range = (int(bars.start_ns[closed.start]), int(bars.start_ns[closed.stop - 1]))
    return _assemble(config, cut(bars, closed), splits, test_range)


def _assemble(
    config: Config, bars: Bars, splits: dict[str, Split], test_range: tuple[int, int]
) -> Experiment:
    table = compute_market(bars, config.features)
    train = splits["train"]
    scaler = Scaler.fit(table.features[train.start : train.stop], config.features.clip)
    market = trading_market(bars, table, config, scaler)
    return Experiment(config, bars, table, splits, market, test_range)
