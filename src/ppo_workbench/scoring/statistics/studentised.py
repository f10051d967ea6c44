"""Studentised block bootstrap of Sharpe ratios (Ledoit and Wolf 2008, sections 3.2.2 and 4).

A resample's deviation is measured in units of its own standard error: a sample that happens
to be quiet has a large ratio and a small error, and both are then judged together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.annual import annual_root
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.samples import NOTHING

Draws = npt.NDArray[np.intp]

_CHUNK_ROWS = 64  # draws worked on at a time, so that they stay in the cache
# A resample of hardly any trading days has next to no error of its own: one such draw would
# be an infinite deviation.
_LEAST_ERROR_FRAC = 0.1
_LARGEST_PREWHITENING = 0.97  # as Andrews and Monahan (1992) advise


@dataclass(frozen=True)
class Studentised:
    """Deviations of a figure's draws from the sample's, with standard errors.

    Errors stand in a matrix over arms: [i, i] is that of arm i's figure, [i, j] that of the
    difference of the figures of i and j.

    Attributes:
        by_days: float64 (B, arms), what other days change.
        by_seeds: float64 (B, arms), what other seeds change.
        errors: float64 (arms, arms), of the sample, allowing for dependence between days.
        drawn_errors: float64 (B, arms, arms), of each resample, from its blocks.
    """

    by_days: Floats
    by_seeds: Floats
    errors: Floats
    drawn_errors: Floats

    def deviations(self, first: int, second: int | None = None) -> Floats:
        """Return deviations of an arm's figure, or of a difference, float64 (B,).

        Those of days are standardised by the draw and scaled by the sample.
        """
        error = float(self.errors[first, first if second is None else second])
        drawn = self.drawn_errors[:, first, first if second is None else second]
        days, seeds = self.by_days[:, first], self.by_seeds[:, first]
        if second is not None:
            days, seeds = days - self.by_days[:, second], seeds - self.by_seeds[:, second]
        if error == 0.0:
            return seeds
        return days / np.maximum(drawn / error, _LEAST_ERROR_FRAC) + seeds

    def standard_error(self, first: int, second: int) -> float:
        """Return the standard error of a difference, of days and seeds together."""
        of_seeds = np.std(self.by_seeds[:, first] - self.by_seeds[:, second])
        return sqrt(float(self.errors[first, second]) ** 2 + float(of_seeds) ** 2)

    @classmethod
    def pooled(cls, markets: "Sequence[Studentised]") -> "Studentised":
        """Return those of the mean over markets with days of their own."""
        count = len(markets)
        return cls(
            np.mean([m.by_days for m in markets], axis=0),
            np.mean([m.by_seeds for m in markets], axis=0),
            np.sqrt(np.sum([m.errors**2 for m in markets], axis=0)) / count,
            np.sqrt(np.sum([m.drawn_errors**2 for m in markets], axis=0)) / count,
        )


def sharpe_influence(excess: Floats, sessions_per_year: float) -> Floats:
    """Return what each session adds to the annual Sharpe ratio, float64 (T,), first order.

    With z the standardised return: z - SR (z^2 - 1) / 2; the mean is 0.  Zeros without variance.
    """
    z, ratio = _standardised(excess)
    influence: Floats = (z - ratio / 2.0 * (z * z - 1.0)) * annual_root(sessions_per_year)
    return influence if z.any() else z


def long_run_error(influence: Floats) -> float:
    """Return the standard error of the mean of dependent observations, float64 (T,).

    Quadratic spectral kernel with Andrews' (1991) bandwidth for an AR(1), prewhitened by an
    AR(1) (Andrews and Monahan 1992).
    """
    x, n = influence - influence.mean(), len(influence)
    if float(x @ x) / n <= NOTHING**2:
        return 0.0
    limit = _LARGEST_PREWHITENING
    rho = min(max(_first_autocorrelation(x), -limit), limit)
    rest = x[1:] - rho * x[:-1]
    size = 2 * len(rest)
    covariances = np.fft.irfft(np.abs(np.fft.rfft(rest, size)) ** 2, size)[: len(rest)] / n
    variance = covariances[0] + 2.0 * float(_kernel_weights(rest) @ covariances[1:])
    return sqrt(max(float(variance), 0.0) / n) / (1.0 - rho)


def _first_autocorrelation(x: Floats) -> float:
    square = float(x[:-1] @ x[:-1])
    return float(x[1:] @ x[:-1]) / square if square > 0.0 else 0.0


def _kernel_weights(x: Floats) -> Floats:
    """Return the quadratic spectral weights of lags 1 .. T - 1."""
    rho = min(max(_first_autocorrelation(x), -0.99), 0.99)
    bandwidth = 1.3221 * (4.0 * rho**2 / (1.0 - rho) ** 4 * len(x)) ** 0.2
    if bandwidth < 1e-6:
        return np.zeros(len(x) - 1)
    angle = 1.2 * np.pi * np.arange(1, len(x)) / bandwidth
    weights: Floats = 3.0 / angle**2 * (np.sin(angle) / angle - np.cos(angle))
    return weights


def sharpe_errors(arms: Sequence[Sequence[SessionPath]]) -> Floats:
    """Return the standard errors of the sample, float64 (arms, arms), see `Studentised`."""
    influence = [
        np.mean([sharpe_influence(path.excess, path.sessions_per_year) for path in paths], axis=0)
        for paths in arms
    ]
    errors = np.zeros((len(arms), len(arms)))
    for i, one in enumerate(influence):
        errors[i, i] = long_run_error(one)
        for j in range(i):
            errors[i, j] = errors[j, i] = long_run_error(one - influence[j])
    return errors


def sharpe_drawn_errors(arms: Sequence[Sequence[SessionPath]], days: Draws) -> Floats:
    """Return the standard errors of resamples, float64 (B, arms, arms), see `Studentised`.

    Blocks are independent: the variance of the mean is the sum of the squares of the blocks'
    sums of influence over T^2 (the "natural" estimator of Goetze and Kuensch 1996).

    Args:
        arms: For every arm its runs, whose figures are averaged.
        days: intp (B, T), drawn in blocks.
    """
    runs = [[_RunningSums.of(path) for path in paths] for paths in arms]
    out = np.empty((len(days), len(arms), len(arms)))
    for row in range(0, len(days), _CHUNK_ROWS):
        blocks = _Blocks.of(days[row : row + _CHUNK_ROWS])
        sums = [np.mean([run.influence(blocks) for run in those], axis=0) for those in runs]
        for i, one in enumerate(sums):
            for j in range(i + 1):
                apart = one if i == j else one - sums[j]
                error = np.sqrt(blocks.row_sums(apart * apart)) / days.shape[1]
                out[row : row + _CHUNK_ROWS, i, j] = out[row : row + _CHUNK_ROWS, j, i] = error
    return out


@dataclass(frozen=True)
class _Blocks:
    """Runs of consecutive days in some resamples, one after the other.

    Attributes:
        first: intp (N,), first day.
        last: intp (N,), the day after the last, counted on beyond T where a block runs round.
        start: intp (rows,), first block of each resample.
        count: intp (rows,), its blocks.
    """

    first: Draws
    last: Draws
    start: Draws
    count: Draws

    @classmethod
    def of(cls, days: Draws) -> "_Blocks":
        begins = np.ones(days.shape, np.bool_)
        step = days[:, 1:] - days[:, :-1]
        begins[:, 1:] = (step != 1) & (step != 1 - days.shape[1])
        at = np.flatnonzero(begins)
        first = days.ravel()[at]
        count = begins.sum(axis=1)
        return cls(first, first + np.diff(at, append=days.size), np.cumsum(count) - count, count)

    def row_sums(self, values: Floats) -> Floats:
        """Add up values of blocks, float64 (N,), by resample."""
        return np.add.reduceat(values, self.start)

    def of_rows(self, values: Floats) -> Floats:
        """Repeat values of resamples, float64 (rows,), for each of their blocks."""
        return np.repeat(values, self.count)


@dataclass(frozen=True)
class _RunningSums:
    """Running sums of one run, twice around its days.

    Attributes:
        returns: float64 (2T + 1,), of standardised returns.
        squares: float64 (2T + 1,), of their squares.
        ratio: Sharpe ratio a session.
        scale: Root of the sessions a year.
    """

    returns: Floats
    squares: Floats
    ratio: float
    scale: float

    @classmethod
    def of(cls, path: SessionPath) -> "_RunningSums":
        z, ratio = _standardised(path.excess)
        twice = np.concatenate(([0.0], z, z))
        return cls(
            np.cumsum(twice), np.cumsum(twice**2), ratio, annual_root(path.sessions_per_year)
        )

    def influence(self, blocks: _Blocks) -> Floats:
        """Return the sums over blocks of the influence in their own resample, float64 (N,).

        With m, s and r of the resample it is (x - m) / s - r ((x - m)^2 / s^2 - 1) / 2: linear
        in the sums of x, of x^2 and of 1.
        """
        total = self.returns[blocks.last] - self.returns[blocks.first]
        square = self.squares[blocks.last] - self.squares[blocks.first]
        sessions = len(self.returns) // 2
        m = blocks.row_sums(total) / sessions
        variance = blocks.row_sums(square) / sessions - m**2
        varies = variance > NOTHING
        s = np.sqrt(np.where(varies, variance, 1.0))
        r = (m + self.ratio) / s
        scale = np.where(varies, self.scale, 0.0)
        total *= blocks.of_rows((1.0 / s + r * m / s**2) * scale)
        total -= square * blocks.of_rows(r / (2.0 * s**2) * scale)
        by_day = (r / 2.0 - m / s - r * m**2 / (2.0 * s**2)) * scale
        return total + (blocks.last - blocks.first) * blocks.of_rows(by_day)


def effective_count(parts: Sequence[Floats]) -> float:
    """Return how many independent figures correlated ones are worth, 1 to their number.

    Of the correlation matrix of their sessions' parts: (sum of eigenvalues)^2 over their sum of
    squares, the participation ratio.  What does not vary counts for nothing.

    Args:
        parts: float64 (T,) each, see `sharpe_influence`; those of unlike length are left out.
    """
    moving = [part for part in parts if len(part) and float(np.std(part)) > NOTHING]
    alike = [part for part in moving if len(part) == len(moving[0])]
    if len(alike) < 2:
        return 1.0
    correlations = np.corrcoef(alike)
    return float(np.trace(correlations) ** 2 / (correlations**2).sum())


def _standardised(excess: Floats) -> tuple[Floats, float]:
    """Return standardised returns, float64 (T,), and their Sharpe ratio a session."""
    mean, deviation = float(excess.mean()), float(excess.std())
    if deviation <= NOTHING:
        return np.zeros(len(excess)), 0.0
    return (excess - mean) / deviation, mean / deviation
