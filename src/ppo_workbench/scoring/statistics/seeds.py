"""Scores over seeds and markets: interquartile mean and probability of improvement.

Agarwal, Schwarzer, Castro, Courville and Bellemare (2021), "Deep reinforcement learning at
the edge of the statistical precipice".  Runs are resampled within each market (stratified):
markets are given, seeds are a sample.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ppo_workbench.config.arrays import Floats, Ints
from ppo_workbench.scoring.statistics.samples import (
    Interval,
    StatisticsError,
    checked_count,
    checked_sample,
    percentile_interval,
)

_LEAST_RUNS = 2


@dataclass(frozen=True)
class SeedComparison:
    """Two algorithms over the same markets.

    Attributes:
        first_iqm: Interquartile mean of the first one's scores, in their unit.
        second_iqm: The same of the second.
        iqm_difference: First minus second.
        probability_of_improvement: Chance that a run of the first scores above a run of the
            second on the same market, ties half, mean over markets, fraction.
        runs: Runs a market of the first and of the second.
        markets: Number of markets.
    """

    first_iqm: Interval
    second_iqm: Interval
    iqm_difference: Interval
    probability_of_improvement: Interval
    runs: tuple[int, int]
    markets: int


def interquartile_mean(scores: npt.ArrayLike) -> float:
    """Return the mean of the middle half of all scores, float64 (runs, markets).

    A quarter of the scores, rounded down, is dropped at each end, as `scipy.stats.trim_mean`.

    Raises:
        StatisticsError: Not two axes, no score, or one that is not finite.
    """
    return float(_iqm(_checked(scores, "scores", 1)[None])[0])


def compare_seeds(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> SeedComparison:
    """Return IQMs, their difference and the probability of improvement with intervals.

    Percentile intervals of the stratified bootstrap; the two algorithms are resampled
    independently, as their seeds have nothing in common.

    Args:
        first: Scores such as annual Sharpe ratios, float64 (runs, markets).
        second: The same of the other algorithm; the number of runs may differ.
        confidence: Of all intervals, fraction.
        resamples: Number of draws.
        seed: Of the draws.

    Raises:
        StatisticsError: Fewer than two runs, other markets, or a score that is not finite.
    """
    a, b = _checked(first, "first", _LEAST_RUNS), _checked(second, "second", _LEAST_RUNS)
    if a.shape[1] != b.shape[1]:
        raise StatisticsError(
            f"second: has {b.shape[1]} markets, must have {a.shape[1]} like the first; score "
            "both on the same markets"
        )
    checked_count(resamples, "resamples", 2)
    rng = np.random.default_rng(seed)
    markets = a.shape[1]
    rows_a = rng.integers(len(a), size=(resamples, len(a), markets))
    rows_b = rng.integers(len(b), size=(resamples, len(b), markets))
    columns = np.arange(markets)
    iqm_a, iqm_b = _iqm(a[rows_a, columns]), _iqm(b[rows_b, columns])
    own_a, own_b = interquartile_mean(a), interquartile_mean(b)
    wins = _wins(a, b)
    better = _drawn_wins(wins, rows_a, rows_b)
    return SeedComparison(
        first_iqm=percentile_interval(own_a, iqm_a, confidence),
        second_iqm=percentile_interval(own_b, iqm_b, confidence),
        iqm_difference=percentile_interval(own_a - own_b, iqm_a - iqm_b, confidence),
        probability_of_improvement=percentile_interval(float(wins.mean()), better, confidence),
        runs=(len(a), len(b)),
        markets=markets,
    )


def _checked(scores: npt.ArrayLike, name: str, least: int) -> Floats:
    """Return scores, float64 (runs, markets), with at least `least` runs."""
    array = checked_sample(scores, name, 1, dimensions=2)
    checked_count(len(array), f"runs of {name}", least)
    return array


def _iqm(scores: Floats) -> Floats:
    """Return the interquartile mean over the last two axes, float64 (B,)."""
    flat = np.sort(scores.reshape(len(scores), -1), axis=1)
    cut = flat.shape[1] // 4
    middle: Floats = flat[:, cut : flat.shape[1] - cut].mean(axis=1)
    return middle


def _wins(a: Floats, b: Floats) -> Floats:
    """Return 1, .5 or 0 for every pair of runs, float64 (runs of a, runs of b, markets)."""
    return (np.sign(a[:, None] - b[None]) + 1.0) / 2.0


def _drawn_wins(wins: Floats, rows_a: Ints, rows_b: Ints) -> Floats:
    """Return the probability of improvement of every draw, float64 (B,)."""
    total = np.zeros(len(rows_a))
    for market in range(wins.shape[2]):
        counts_a = _counts(rows_a[:, :, market], wins.shape[0])
        counts_b = _counts(rows_b[:, :, market], wins.shape[1])
        total += np.sum((counts_a @ wins[:, :, market]) * counts_b, axis=1)
    return total / wins.size


def _counts(rows: Ints, runs: int) -> Floats:
    """Return how often each run was drawn, float64 (B, runs)."""
    counts: Floats = np.sum(rows[:, :, None] == np.arange(runs), axis=1, dtype=np.float64)
    return counts
