"""Lay out an experiment: bars, causal market state, splits and scaler, ready for the step."""

from dataclasses import dataclass

import numpy as np

from ppo_workbench.config import BarsError, Config, settled
from ppo_workbench.config.arrays import Floats
from ppo_workbench.market.bars import Bars, check_fill
from ppo_workbench.market.features import MarketTable, compute_market, feature_spec
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.prepared import (
    PreparedMarket,
    keep_market,
    market_key,
    read_market,
)
from ppo_workbench.market.sources import load_bars
from ppo_workbench.market.splits import Fold, Split, cut, legal_starts, time_splits
from ppo_workbench.trading.actions import observed_bits
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rewards import with_volatility
from ppo_workbench.trading.table import TradingMarket, trading_market


@dataclass(frozen=True)
class Experiment:
    """One configuration with its bars in memory.

    Attributes:
        config: The resolved configuration, its horizons derived from the bars.
        bars: Bars up to the end of the last split that may be seen.
        table: Features and causal market state of the bars.
        splits: Ranges of bars; `test` is present only where it was opened. `train` is the
            longest of `train_ranges`: what is scored.
        market: What the step reads.
        test_range: UTC nanoseconds of the first and last bar of the test split, closed or not.
        train_ranges: What is trained on, in time order; `splits["train"]` where left out.
    """

    config: Config
    bars: Bars
    table: MarketTable
    splits: dict[str, Split]
    market: TradingMarket
    test_range: tuple[int, int]
    train_ranges: tuple[Split, ...] = ()

    def __post_init__(self) -> None:
        """Train on the one training split where no ranges are given."""
        if not self.train_ranges:
            object.__setattr__(self, "train_ranges", (self.splits["train"],))

    @property
    def train_bars(self) -> int:
        """Number of training bars, of all ranges."""
        return sum(len(split) for split in self.train_ranges)

    @property
    def train_features(self) -> Floats:
        """Unscaled market features of the training bars of all ranges, float64 (n, F)."""
        return _rows_of(self.table.features, self.train_ranges)

    def batch(self) -> TradingBatch:
        """Build the training batch: `model.n_envs` environments on the training ranges."""
        episode_bars, count = settled(self.config.env.episode_bars), self.config.model.n_envs
        starts = legal_starts(self.bars, self.train_ranges, episode_bars)
        return TradingBatch(self.market, starts, episode_bars, count, self.config.seed)


def usable_bars(config: Config) -> tuple[Bars, int]:
    """Load and check the bars of a configuration; count those that warm the features up.

    Raises:
        BarsError: The bars or the fill rule are not usable.
    """
    bars = load_bars(config.data)
    check_fill(bars, config.env.fill)
    spec = feature_spec(derived(config, bars).features, bars.bars_per_session, bars.extra_names)
    return bars, max(spec.warmup_bars, bars.extra_warmup_bars)


def split_bars(config: Config) -> tuple[Bars, dict[str, Split]]:
    """Load and check the bars of a configuration and find its splits, `test` included.

    Raises:
        BarsError: The bars, their splits or the fill rule are not usable.
    """
    bars, warmup = usable_bars(config)
    return bars, time_splits(bars, derived(config, bars).splits, warmup)


def prepared(config: Config) -> Experiment:
    """Return `prepare(config, *split_bars(config))`; an earlier process may have left the market.

    Raises:
        BarsError: The bars, their splits or the fill rule are not usable.
    """
    key = market_key(config)
    kept = read_market(key) if key else None
    if kept is not None:
        return _assemble(config, kept.bars, kept.splits, kept.test_range, table=kept.table)
    made = prepare(config, *split_bars(config))
    if key:
        keep_market(key, PreparedMarket(made.bars, made.table, made.splits, made.test_range))
    return made


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
    """Compute everything, the test split included: only after the access was recorded."""
    closed = splits["test"]
    test_range = (int(bars.start_ns[closed.start]), int(bars.start_ns[closed.stop - 1]))
    return _assemble(config, cut(bars, closed), splits, test_range)


def prepare_fold(config: Config, bars: Bars, fold: Fold) -> Experiment:
    """Compute what training and validation of a fold need; later bars are cut off.

    In holdout and walk-forward the test lies behind the cut and is physically absent. In
    k-fold and combinatorial folds training bars may follow a test: then its bars stay in the
    series, for the features of later bars are streamed through them. No episode starts in
    them or reaches into them, no decision is made on them, and the scaler does not see them;
    what of them is left in the features of later training bars, `splits.gap_bars` embargoes.

    Args:
        config: The experiment.
        bars: All bars, see `usable_bars`.
        fold: One of `market.folds.evaluation_folds`.
    """
    return _assemble_fold(config, bars.slice(0, fold.training_stop), fold, bars, opened=False)


def prepare_fold_with_test(config: Config, bars: Bars, fold: Fold) -> Experiment:
    """Compute everything of a fold: only after the access to its tests was recorded.

    The tests stand in `splits` under their names ("test", or "test_1", "test_2", ...).
    """
    return _assemble_fold(config, bars.slice(0, fold.stop), fold, bars, opened=True)


def _assemble_fold(
    config: Config, seen: Bars, fold: Fold, bars: Bars, *, opened: bool
) -> Experiment:
    splits = {"train": fold.longest_train, "validation": fold.validation}
    if opened:
        splits |= {split.name: split for split in fold.test}
    first, last = fold.test[0].start, fold.test[-1].stop - 1
    test_range = (int(bars.start_ns[first]), int(bars.start_ns[last]))
    return _assemble(config, seen, splits, test_range, fold.train)


def _rows_of(rows: Floats, ranges: tuple[Split, ...]) -> Floats:
    return np.concatenate([rows[split.start : split.stop] for split in ranges])


def _assemble(
    config: Config,
    bars: Bars,
    splits: dict[str, Split],
    test_range: tuple[int, int],
    train_ranges: tuple[Split, ...] = (),
    table: MarketTable | None = None,
) -> Experiment:
    config = derived(config, bars)
    table = table or compute_market(bars, config.features)
    ranges = train_ranges or (splits["train"],)
    config = with_volatility(config, bars, ranges)
    rows, bits = _rows_of(table.features, ranges), observed_bits(config.env)
    _check_numbers(rows, table)
    scaler = Scaler.fit(rows, config.features.clip, bits)
    market = trading_market(bars, table, config, scaler)
    return Experiment(config, bars, table, splits, market, test_range, ranges)


def _check_numbers(rows: Floats, table: MarketTable) -> None:
    """Refuse features that are not numbers after the warm-up, as a plug-in's may be."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=0))
    if bad.size:
        count = int((~np.isfinite(rows[:, bad[0]])).sum())
        raise BarsError(
            f"features.names={table.names[bad[0]]}: is no finite number in {count:,} training "
            "bars; define what it is there, or leave it away"
        )
