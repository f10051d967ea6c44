"""Train, validation and test as ranges of bars in time order, and legal episode starts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppo_workbench.config import BarsError, SplitsConfig, settled
from ppo_workbench.config.arrays import Ints
from ppo_workbench.market.bars import Bars

MIN_SPLIT_BARS = 20


@dataclass(frozen=True)
class Split:
    """A range of bars.

    Attributes:
        name: "train", "validation" or "test"; of several tests "test_1", "test_2", ...
        start: First bar at whose close a decision may be made.
        stop: Nothing reads this bar or a later one; the last decision is made at `stop - 2`.
    """

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        """Return the number of bars of the split, 0 where the gap left none."""
        return max(self.stop - self.start, 0)


@dataclass(frozen=True)
class Fold:
    """One training and the bars that judge it; `folds.evaluation_folds` makes them.

    No bar of one part lies within `splits.gap_bars` of another part, whatever their order.

    Attributes:
        name: Names the fold within its protocol: "holdout", "fold_1", "groups_1_2".
        train: In time order; several ranges where a test cuts through them.
        validation: Where checkpoints are chosen.
        test: In time order, one range for each test of the protocol.
    """

    name: str
    train: tuple[Split, ...]
    validation: Split
    test: tuple[Split, ...]

    @property
    def longest_train(self) -> Split:
        """The longest range of `train`, the latest among equals."""
        return max(self.train, key=lambda split: (len(split), split.start))

    @property
    def training_stop(self) -> int:
        """Training and validation read no bar from here on."""
        return max(split.stop for split in (*self.train, self.validation))

    @property
    def stop(self) -> int:
        """No part of the fold reads a bar from here on."""
        return max(self.training_stop, *(split.stop for split in self.test))


def time_splits(bars: Bars, config: SplitsConfig, warmup_bars: int) -> dict[str, Split]:
    """Cut the bars after the warm-up into train, validation and test, in time order.

    Shares are of the bars after the warm-up. The gap is taken from the end of the earlier
    split, so the later one starts at the same bar whatever the gap. Intraday borders move
    back to the start of a session (the first one forward, behind the warm-up).

    Args:
        bars: T bars.
        config: Shares and gap.
        warmup_bars: Bars at the beginning whose features are not to be used.

    Raises:
        BarsError: If a split would hold fewer than `MIN_SPLIT_BARS` bars.
    """
    shares = {
        "train": config.train_frac,
        "validation": config.validation_frac,
        "test": config.test_frac,
    }
    usable = max(len(bars) - warmup_bars, 0)
    ends = [warmup_bars + round(usable * share) for share in np.cumsum(list(shares.values()))]
    starts = [_snap(bars, start) for start in [warmup_bars, *ends[:-1]]]
    starts[0] = _snap(bars, warmup_bars, forward=True)
    stops = [_snap(bars, start - settled(config.gap_bars)) for start in starts[1:]]
    # The end of the bars is a border too, even where it lies within a session.
    stops.append(len(bars) if ends[-1] >= len(bars) else _snap(bars, ends[-1]))
    splits = {
        name: Split(name, start, stop)
        for name, start, stop in zip(shares, starts, stops, strict=True)
    }
    for split in splits.values():
        _check_length(bars, config, warmup_bars, split)
    return splits


def _snap(bars: Bars, bar: int, *, forward: bool = False) -> int:
    """Move a border to a session's start; any bar of daily bars is one."""
    bar = min(max(bar, 0), len(bars))
    if bars.bars_per_session == 1 or bar == len(bars):
        return bar
    borders = np.append(bars.session_starts, len(bars))
    if forward:
        return int(borders[np.searchsorted(borders, bar, side="left")])
    return int(borders[np.searchsorted(borders, bar, side="right") - 1])


def _check_length(bars: Bars, config: SplitsConfig, warmup_bars: int, split: Split) -> None:
    if len(split) >= MIN_SPLIT_BARS:
        return
    raise BarsError(
        f"bars of {bars.instrument}: the {split.name} split would hold {len(split)} of "
        f"{len(bars)} bars (warm-up {warmup_bars}, splits.gap_bars={config.gap_bars}, "
        f"splits.{split.name}_frac={getattr(config, split.name + '_frac'):g}), but at least "
        f"{MIN_SPLIT_BARS} are needed; give more bars, or smaller splits.gap_bars or feature "
        "windows (features.volatility_slow_bars)"
    )


def legal_starts(bars: Bars, ranges: Sequence[Split], episode_bars: int) -> Ints:
    """List the bars at which an episode of `episode_bars` decisions may start.

    An episode from bar a decides at the closes of a .. a + episode_bars - 1 and is marked at
    bar a + episode_bars at the latest, which lies inside the same range. Intraday episodes start
    at session starts, those of daily bars anywhere.

    Returns:
        int64 (K,), rising, K >= 1. A range that is shorter than an episode has none.

    Raises:
        BarsError: If no episode of that length fits into any of the ranges.
    """
    candidates = [_whole_starts(bars, split) for split in ranges]
    starts = np.concatenate(
        [
            at[at <= split.stop - 1 - episode_bars]
            for at, split in zip(candidates, ranges, strict=True)
        ]
    )
    if len(starts):
        return starts
    rooms = [
        split.stop - 1 - int(at[0]) if len(at) else 0
        for at, split in zip(candidates, ranges, strict=True)
    ]
    most = max(len(split) for split in ranges)
    raise BarsError(
        f"bars of {bars.instrument}: no episode of env.episode_bars={episode_bars} fits into "
        f"the {ranges[0].name} split of {most} bars; set env.episode_bars to at most "
        f"{max(rooms)} or give more bars"
    )


def _whole_starts(bars: Bars, split: Split) -> Ints:
    """List the bars of a split at which an episode may start if it is short enough."""
    if bars.bars_per_session == 1:
        return np.arange(split.start, split.stop, dtype=np.int64)
    starts = bars.session_starts
    return starts[(starts >= split.start) & (starts < split.stop)]


def cut(bars: Bars, split: Split) -> Bars:
    """Copy the bars up to the end of a split: later ones are physically absent.

    A sweep's trial gets `cut(bars, splits["validation"])` and so cannot see the test split.
    """
    return bars.slice(0, split.stop)
