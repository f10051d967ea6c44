"""Did the choice among strategies overfit: PBO by combinatorially symmetric cross-validation."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.statistics.samples import (
    NOTHING,
    StatisticsError,
    checked_count,
    checked_sample,
)

_MOST_BLOCKS = 20  # 184,756 splits


@dataclass(frozen=True)
class Overfitting:
    """What CSCV says of "take the strategy with the best Sharpe ratio".

    Attributes:
        pbo: Probability of backtest overfitting: share of splits in which the best strategy
            in sample ranks in the lower half out of sample (logit at most 0), fraction.
        probability_of_loss: Share of splits in which it has a Sharpe ratio below 0 out of
            sample, fraction.
        logits: float64 (splits,), log odds of the relative rank out of sample.
    """

    pbo: float
    probability_of_loss: float
    logits: Floats

    @property
    def splits(self) -> int:
        """Return the number of splits."""
        return len(self.logits)


def probability_of_overfitting(returns: npt.ArrayLike, blocks: int = 16) -> Overfitting:
    """Return PBO by CSCV (Bailey, Borwein, Lopez de Prado and Zhu 2015).

    Sums over blocks are enough for every split's Sharpe ratios, so no split is sliced out.
    A strategy without variance has a ratio of 0; ties share the middle rank.

    Args:
        returns: float64 (strategies, T), per-session excess returns, equal days in a column.
        blocks: Even number S of blocks of consecutive days; all C(S, S/2) halves are used.
            If T is no multiple of S, the first blocks have one day more.

    Raises:
        StatisticsError: Fewer than two strategies or two days a block, a return that is not
            finite, or a number of blocks that is odd or outside of 2..20.
    """
    if blocks % 2 or not 2 <= blocks <= _MOST_BLOCKS:
        raise StatisticsError(f"blocks={blocks}: must be even, 2 to {_MOST_BLOCKS}; 16 is usual")
    x = checked_sample(returns, "returns", 2 * blocks, dimensions=2)
    checked_count(len(x), "strategies", 2)
    halves = _halves(blocks)
    inside = _sharpe_of_halves(x, halves)
    outside = _sharpe_of_halves(x, 1.0 - halves)
    best_out = outside[np.arange(len(halves)), np.argmax(inside, axis=1)]
    logits = _logits(outside, best_out)
    return Overfitting(
        pbo=float(np.mean(logits <= 0.0)),
        probability_of_loss=float(np.mean(best_out < 0.0)),
        logits=logits,
    )


def _halves(blocks: int) -> Floats:
    """Return one row of zeros and ones per way to choose half of the blocks."""
    chosen = np.array(list(combinations(range(blocks), blocks // 2)))
    halves = np.zeros((len(chosen), blocks))
    np.put_along_axis(halves, chosen, 1.0, axis=1)
    return halves


def _sharpe_of_halves(x: Floats, halves: Floats) -> Floats:
    """Return the per-session Sharpe ratio, float64 (splits, strategies)."""
    pieces = np.array_split(np.arange(x.shape[1]), halves.shape[1])
    starts = np.array([piece[0] for piece in pieces])
    days = (halves @ np.array([len(piece) for piece in pieces], np.float64))[:, None]
    # Centring on the whole sample keeps the difference of squares accurate.
    centre = x.mean(axis=1)
    centred = x - centre[:, None]
    mean = halves @ np.add.reduceat(centred, starts, axis=1).T / days
    square = halves @ np.add.reduceat(centred**2, starts, axis=1).T / days
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0) * days / (days - 1.0))
    varies = deviation > NOTHING
    return np.where(varies, (mean + centre) / np.where(varies, deviation, 1.0), 0.0)


def _logits(outside: Floats, best: Floats) -> Floats:
    """Return ln(w / (1 - w)) with w = rank / (strategies + 1), rank 1 the worst."""
    below = np.count_nonzero(outside < best[:, None], axis=1)
    equal = np.count_nonzero(outside == best[:, None], axis=1)
    share = (below + (equal + 1.0) / 2.0) / (outside.shape[1] + 1.0)
    logits: Floats = np.log(share / (1.0 - share))
    return logits
