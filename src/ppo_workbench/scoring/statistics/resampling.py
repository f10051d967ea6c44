"""Stationary block bootstrap of runs: intervals of Sharpe ratio, drawdown and differences.

All arms and seeds share the drawn days, so a difference between two arms is paired by day.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.annual import annual_root
from ppo_workbench.scoring.metrics import REFERENCE_VOLATILITY
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.samples import (
    NOTHING,
    Interval,
    StatisticsError,
    checked_count,
    checked_sample,
    percentile_interval,
    symmetric_interval,
    symmetric_p_value,
    two_sided_p_value,
)
from ppo_workbench.scoring.statistics.studentised import (
    Studentised,
    sharpe_drawn_errors,
    sharpe_errors,
)

Draws = npt.NDArray[np.intp]

_CHUNK_ROWS = 256  # draws worked on at a time, so that they stay in the cache
_LEAST_FOR_BLOCKS = 20
STUDENTISED = "sharpe_annual"  # the figure whose standard error is known


@dataclass(frozen=True)
class Difference(Interval):
    """An interval of a paired difference, first minus second.

    Attributes:
        p_value: Two-sided, of "the difference is 0".
        standard_error: Of the estimate, in the unit of the figure: of a Sharpe ratio from the
            long-run variance of days and the spread of seeds, else the standard deviation
            over resamples.
    """

    p_value: float
    standard_error: float

    @property
    def decided(self) -> bool:
        """Tell whether the interval excludes 0."""
        return self.excludes(0.0)


@dataclass(frozen=True)
class Resamples:
    """Bootstrap draws of every arm's figures; a figure of an arm is its mean over runs.

    Attributes:
        arms: Names, in the order of the columns.
        estimates: For every figure float64 (arms,), of the sample itself.
        draws: For every figure float64 (B, arms); one row is one resample, the same for all.
        studentised: The same with standard errors, for figures whose intervals are studentised.
        sessions: Days of the sample (of all markets together, once pooled).
        runs: Runs (seeds) an arm.
        block_lengths: For every figure the mean length of its blocks, sessions.
    """

    arms: tuple[str, ...]
    estimates: Mapping[str, Floats]
    draws: Mapping[str, Floats]
    studentised: Mapping[str, Studentised]
    sessions: int
    runs: int
    block_lengths: Mapping[str, float]

    @property
    def block_sessions(self) -> float:
        """Longest mean length of the blocks, sessions."""
        return max(self.block_lengths.values())

    def interval(self, figure: str, arm: str, confidence: float = 0.95) -> Interval:
        """Return the interval of one arm's figure: symmetric if studentised, else percentile.

        Raises:
            StatisticsError: An unknown figure or arm, or a confidence outside of 0..1.
        """
        column = self._column(figure, arm)
        estimate = float(self.estimates[figure][column])
        if figure in self.studentised:
            apart = self.studentised[figure].deviations(column)
            return symmetric_interval(estimate, apart, confidence)
        return percentile_interval(estimate, self.draws[figure][:, column], confidence)

    def difference(
        self, figure: str, first: str, second: str, confidence: float = 0.95
    ) -> Difference:
        """Return the interval of `first` minus `second`, paired by day and by run.

        Raises:
            StatisticsError: An unknown figure or arm, or a confidence outside of 0..1.
        """
        a, b = self._column(figure, first), self._column(figure, second)
        estimates, draws = self.estimates[figure], self.draws[figure]
        estimate = float(estimates[a] - estimates[b])
        if figure in self.studentised:
            studentised = self.studentised[figure]
            apart = studentised.deviations(a, b)
            return Difference(
                **vars(symmetric_interval(estimate, apart, confidence)),
                p_value=symmetric_p_value(estimate, apart),
                standard_error=studentised.standard_error(a, b),
            )
        apart = draws[:, a] - draws[:, b]
        inner = percentile_interval(estimate, apart, confidence)
        return Difference(
            **vars(inner),
            p_value=two_sided_p_value(apart),
            standard_error=float(np.std(apart, ddof=1)),
        )

    def _column(self, figure: str, arm: str) -> int:
        if figure not in self.draws:
            raise StatisticsError(
                f"figure={figure}: was not resampled; choose among {', '.join(self.draws)}"
            )
        if arm not in self.arms:
            raise StatisticsError(f"arm={arm}: is unknown; choose among {', '.join(self.arms)}")
        return self.arms.index(arm)


def optimal_block_sessions(returns: npt.ArrayLike) -> float:
    """Return the mean block length for the stationary bootstrap of returns, float64 (T,).

    Politis and White (2004) with the correction of Patton, Politis and White (2009), as in
    `arch`; at least 1, which is the bootstrap of independent days.  Constant returns give 1.

    Raises:
        StatisticsError: Fewer than 20 returns, or one that is not finite.
    """
    from arch.bootstrap import optimal_block_length  # 2 s of import

    x = checked_sample(returns, "returns", _LEAST_FOR_BLOCKS)
    scale = float(np.std(x))
    if scale <= NOTHING:
        return 1.0
    length = float(optimal_block_length((x - x.mean()) / scale)["stationary"].iloc[0])
    return max(length, 1.0) if np.isfinite(length) else 1.0


def stationary_indices(
    sessions: int, resamples: int, block_sessions: float, rng: np.random.Generator
) -> Draws:
    """Return the days of every resample, intp (resamples, sessions).

    Politis and Romano (1994): blocks of consecutive days with geometric lengths of mean
    `block_sessions`, from uniform starts, running on from the last day to the first.

    Raises:
        StatisticsError: Fewer than one session or resample, or blocks shorter than one day.
    """
    checked_count(sessions, "sessions", 1)
    checked_count(resamples, "resamples", 1)
    if not 1.0 <= block_sessions < np.inf:
        raise StatisticsError(f"block_sessions={block_sessions}: must be at least 1; raise it")
    days = np.arange(sessions)
    out = np.empty((resamples, sessions), np.intp)
    for row in range(0, resamples, _CHUNK_ROWS):
        part = out[row : row + _CHUNK_ROWS]
        begins = rng.random(part.shape) < 1.0 / block_sessions
        where = np.maximum.accumulate(np.where(begins, days, 0), axis=1)
        # A day keeps the distance to its source that its block's first day has.
        shift = rng.integers(sessions, size=part.shape) - days
        part[:] = np.take_along_axis(shift, where, axis=1) + days
        part[part >= sessions] -= sessions
        part[part < 0] += sessions
    return out


def sharpe_draws(path: SessionPath, days: Draws) -> Floats:
    """Return the annual Sharpe ratio of every resample, float64 (B,); 0 without variance."""
    x = path.excess - path.excess.mean()
    mean, square = np.empty(len(days)), np.empty(len(days))
    for row in range(0, len(days), _CHUNK_ROWS):
        drawn = x[days[row : row + _CHUNK_ROWS]]
        mean[row : row + _CHUNK_ROWS] = drawn.mean(axis=1)
        square[row : row + _CHUNK_ROWS] = np.einsum("bt,bt->b", drawn, drawn) / len(x)
    spread = np.maximum(square - mean**2, 0.0)
    # Below the second bound the variance is the rounding of the difference of squares.
    varies = (spread > NOTHING**2) & (spread > 1e-13 * square)
    deviation = np.sqrt(np.where(varies, spread, 1.0) * len(x) / (len(x) - 1.0))
    ratio = (mean + path.excess.mean()) / deviation * annual_root(path.sessions_per_year)
    return np.where(varies, ratio, 0.0)


def drawdown_draws(path: SessionPath, days: Draws) -> Floats:
    """Return the maximum drawdown of every resample, float64 (B,), fraction of the peak.

    Equity is rebuilt from the drawn sessions; the peak includes the equity at the start.
    """
    out = np.empty(len(days))
    for row in range(0, len(days), _CHUNK_ROWS):
        out[row : row + _CHUNK_ROWS] = _deepest_fall(path, days[row : row + _CHUNK_ROWS])
    return out


def _deepest_fall(path: SessionPath, days: Draws) -> Floats:
    zeros = np.zeros((len(days), 1))
    equity = np.concatenate((zeros, np.cumsum(path.log_close[days], axis=1)), axis=1)
    if path.single_bars:
        peak = np.maximum.accumulate(equity, axis=1)
        alone: Floats = -np.expm1(-np.max(peak - equity, axis=1))
        return alone
    before = equity[:, :-1]
    highs = np.concatenate((zeros, (before + path.log_high[days])[:, :-1]), axis=1)
    peak = np.maximum.accumulate(highs, axis=1)
    across = -np.expm1(-np.max(peak - before - path.log_low[days], axis=1, initial=0.0))
    deepest: Floats = np.maximum(across, path.inner_drawdown[days].max(axis=1))
    return deepest


def equal_volatility_drawdown_draws(path: SessionPath, days: Draws) -> Floats:
    """Return the maximum drawdown at 10 % volatility, float64 (B,), over session closes.

    Every resample is scaled by its own volatility, so that a smaller position alone does
    not look like an advantage; without variance it is 0.
    """
    returns = np.expm1(path.log_close)
    out = np.zeros(len(days))
    for row in range(0, len(days), _CHUNK_ROWS):
        drawn = returns[days[row : row + _CHUNK_ROWS]]
        volatility = np.std(drawn, axis=1, ddof=1) * annual_root(path.sessions_per_year)
        varies = volatility > NOTHING
        scale = REFERENCE_VOLATILITY / np.where(varies, volatility, np.inf)
        growth = np.maximum(1.0 + drawn * scale[:, None], 1e-300)
        equity = np.cumsum(np.log(growth), axis=1)
        peak = np.maximum.accumulate(np.maximum(equity, 0.0), axis=1)
        out[row : row + _CHUNK_ROWS] = -np.expm1(-np.max(peak - equity, axis=1))
    return out


FIGURES: Mapping[str, Callable[[SessionPath, Draws], Floats]] = {
    "sharpe_annual": sharpe_draws,
    "max_drawdown_frac": drawdown_draws,
    "max_drawdown_at_10pct_vol_frac": equal_volatility_drawdown_draws,
}


def resample(
    arms: Mapping[str, Sequence[SessionPath]],
    *,
    resamples: int = 2000,
    block_sessions: float | None = None,
    seed: int = 0,
    figures: Sequence[str] = tuple(FIGURES),
) -> Resamples:
    """Return bootstrap draws of figures of arms that traded the same days of one market.

    Each resample draws days in blocks, the same for all arms, and, with several runs an
    arm, moves the mean over runs as other seeds would (run k of every arm together): an
    interval then allows for other days and for other seeds.  What a run alone made of its
    days counts in both, so the interval errs on the wide side.

    Args:
        arms: For every name its runs; run k of all arms is one seed, compared pairwise.
        resamples: Number of draws, B.
        block_sessions: Mean block length; None takes, over arms, the largest mean over runs
            of `optimal_block_sessions` of excess returns, for Sharpe ratios also of their squared
            deviations: the error of a ratio depends on how volatility clusters.
        seed: Of the drawn days and runs.
        figures: Names in `FIGURES`.

    Raises:
        StatisticsError: No arm, arms with different runs or days, or an unknown figure.
    """
    checked_count(resamples, "resamples", 2)
    sessions, runs = _common_shape(arms)
    unknown = [name for name in figures if name not in FIGURES]
    if unknown:
        raise StatisticsError(f"figure={unknown[0]}: must be one of {', '.join(FIGURES)}")
    paths = list(arms.values())
    other_seeds = _mean_of_other_seeds(runs, resamples, np.random.default_rng([seed, 1]))
    lengths = _block_lengths(paths, figures, block_sessions)

    @cache
    def days(length: float) -> Draws:
        return stationary_indices(sessions, resamples, length, np.random.default_rng(seed))

    itself = np.arange(sessions)[None, :]
    draws, estimates, studentised = {}, {}, {}
    for name in figures:
        of, drawn = FIGURES[name], days(lengths[name])
        # Runs an arm in rows: the figures of the sample, then the mean of those of each draw.
        own = np.array([[of(path, itself)[0] for path in those] for those in paths])
        means = [sum(of(path, drawn) for path in those) / runs for those in paths]
        estimates[name] = own.mean(axis=1)
        by_days, by_seeds = np.stack(means, axis=1), other_seeds @ own.T
        draws[name] = by_days + by_seeds
        if name == STUDENTISED:
            studentised[name] = Studentised(
                by_days=by_days - estimates[name],
                by_seeds=by_seeds,
                errors=sharpe_errors(paths),
                drawn_errors=sharpe_drawn_errors(paths, drawn),
            )
    return Resamples(tuple(arms), estimates, draws, studentised, sessions, runs, lengths)


def pool(markets: Sequence[Resamples]) -> Resamples:
    """Return the mean over markets with days of their own, weighted equally.

    The markets' draws must be independent: resample each with another seed.  Markets are
    taken as given, not as a sample of markets.

    Raises:
        StatisticsError: No market, or markets with different arms, figures or resamples.
    """
    if not markets:
        raise StatisticsError("markets: there is none; resample at least one")
    first = markets[0]
    for other in markets[1:]:
        same = other.arms == first.arms and list(other.draws) == list(first.draws)
        if not same or any(len(other.draws[k]) != len(first.draws[k]) for k in first.draws):
            raise StatisticsError(
                f"markets: have other arms, figures or resamples than {', '.join(first.arms)}; "
                "resample all of them alike"
            )
    return Resamples(
        arms=first.arms,
        estimates={k: np.mean([m.estimates[k] for m in markets], axis=0) for k in first.draws},
        draws={k: np.mean([m.draws[k] for m in markets], axis=0) for k in first.draws},
        studentised={
            k: Studentised.pooled([m.studentised[k] for m in markets]) for k in first.studentised
        },
        sessions=sum(m.sessions for m in markets),
        runs=min(m.runs for m in markets),
        block_lengths={k: max(m.block_lengths[k] for m in markets) for k in first.draws},
    )


def _common_shape(arms: Mapping[str, Sequence[SessionPath]]) -> tuple[int, int]:
    """Return sessions and runs, the same for all arms."""
    if not arms or not all(arms.values()):
        raise StatisticsError("arms: each needs at least one run; score it first")
    name, paths = next(iter(arms.items()))
    shape = (len(paths[0]), paths[0].sessions_per_year)
    for other, those in arms.items():
        if len(those) != len(paths):
            raise StatisticsError(
                f"arm {other}: has {len(those)} runs, must have {len(paths)} like {name}; "
                "compare equal seeds"
            )
        if any((len(path), path.sessions_per_year) != shape for path in those):
            raise StatisticsError(
                f"arm {other}: has other sessions than {name} ({shape[0]} at {shape[1]} a "
                "year); score both on the same days"
            )
    return shape[0], len(paths)


def _block_lengths(
    arms: Sequence[Sequence[SessionPath]], figures: Sequence[str], given: float | None
) -> dict[str, float]:
    """Return the mean block length of every figure."""
    if given is not None:
        return dict.fromkeys(figures, float(given))
    returns = max(_mean_block_sessions([path.excess for path in paths]) for paths in arms)
    lengths = dict.fromkeys(figures, returns)
    if STUDENTISED in lengths:
        squares = max(
            _mean_block_sessions([(path.excess - path.excess.mean()) ** 2 for path in paths])
            for paths in arms
        )
        lengths[STUDENTISED] = max(returns, squares)
    return lengths


def _mean_block_sessions(runs: Sequence[Floats]) -> float:
    return float(np.mean([optimal_block_sessions(values) for values in runs]))


def _mean_of_other_seeds(runs: int, resamples: int, rng: np.random.Generator) -> Floats:
    """Return weights of the runs' figures that sum to 0, float64 (B, runs).

    With them the mean of n normal figures is moved as other seeds would move it: by Student's
    t with n - 1 degrees of freedom, the posterior under Jeffreys' prior (Gelman et al. 2013,
    section 3.2).  Drawing few runs with replacement instead claims a difference between equal
    algorithms in up to a quarter of all comparisons of three seeds.
    """
    if runs == 1:
        return np.zeros((resamples, 1))
    apart = rng.normal(size=(resamples, runs))
    apart -= apart.mean(axis=1, keepdims=True)
    return apart / np.sqrt(rng.chisquare(runs - 1, size=(resamples, 1)) * runs)
