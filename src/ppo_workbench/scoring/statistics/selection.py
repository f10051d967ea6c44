"""Many arms at once: is any better than the benchmark (SPA), which may be the best (MCS)?

`arch` draws and tests; here losses are put on one scale and twins are taken out, which it
cannot judge (a difference without variance).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.statistics.resampling import optimal_block_sessions
from ppo_workbench.scoring.statistics.samples import (
    NOTHING,
    StatisticsError,
    checked_between,
    checked_count,
    checked_sample,
)

_LEAST_SESSIONS = 20
_SAME = 1e-12  # two arms whose returns differ by no more than rounding are one


@dataclass(frozen=True)
class SuperiorAbility:
    """Test of "no arm is better than the benchmark".

    Attributes:
        benchmark: Name of the arm that the others are held against.
        p_value: Consistent p-value of Hansen (2005).
        p_value_low: Lower bound: arms that are worse do not count.
        p_value_high: Upper bound: White's (2000) reality check, studentised.
        best: Arm with the largest studentised advantage, or the benchmark where there is none.
        arms_tested: Arms that differ from the benchmark at all, twins counted once.
        block_sessions: Mean length of blocks, whole sessions.
    """

    benchmark: str
    p_value: float
    p_value_low: float
    p_value_high: float
    best: str
    arms_tested: int
    block_sessions: int


@dataclass(frozen=True)
class ConfidenceSet:
    """Arms that hold the best one with the given confidence.

    Attributes:
        included: Names of the arms in the set, in the order given.
        p_values: For every arm the confidence 1 - p beyond which it leaves the set.
        confidence: Fraction.
        block_sessions: Mean length of blocks, whole sessions.
    """

    included: tuple[str, ...]
    p_values: Mapping[str, float]
    confidence: float
    block_sessions: int


def superior_ability(
    excess: Mapping[str, npt.ArrayLike],
    benchmark: str,
    *,
    risk_adjusted: bool = True,
    resamples: int = 2000,
    block_sessions: float | None = None,
    seed: int = 0,
) -> SuperiorAbility:
    """Return Hansen's (2005) test of superior predictive ability, through `arch.bootstrap.SPA`.

    `arch` compares plain mean differences, which one volatile arm dominates.  Hansen's
    statistic is studentised, so every difference is divided here by its long-run deviation
    (Politis and Romano 1994) first.

    Args:
        excess: For every arm its excess returns, float64 (T,), equal days.
        benchmark: The arm to beat.
        risk_adjusted: Scale every arm to the same volatility, so that Sharpe ratios are
            compared and not mean returns.
        resamples: Number of bootstrap draws.
        block_sessions: Mean block length; None takes the largest of
            `optimal_block_sessions` over the differences.
        seed: Of the draws.

    Raises:
        StatisticsError: Fewer than two arms or 20 days, unequal days, or an unknown benchmark.
    """
    from arch.bootstrap import SPA

    returns = _matrix(excess, risk_adjusted)
    names = list(excess)
    if benchmark not in names:
        raise StatisticsError(f"benchmark={benchmark}: must be one of {', '.join(names)}")
    checked_count(resamples, "resamples", 2)
    advantage = returns - returns[:, [names.index(benchmark)]]
    _, first = np.unique(np.round(advantage, 12), axis=1, return_index=True)
    differs = np.sort(first[np.abs(advantage).max(axis=0)[first] > _SAME])
    if len(differs) == 0:
        return SuperiorAbility(benchmark, 1.0, 1.0, 1.0, benchmark, 0, 1)
    tested = advantage[:, differs]
    block = _block(tested, block_sessions)
    studentised = tested / _long_run_deviation(tested, block)
    test = SPA(np.zeros(len(tested)), -studentised, block_size=block, reps=resamples, seed=seed)
    test.compute()
    best = int(np.argmax(studentised.mean(axis=0)))
    gains = studentised[:, best].mean() > 0.0
    low, consistent, high = (float(test.pvalues[key]) for key in ("lower", "consistent", "upper"))
    return SuperiorAbility(
        benchmark=benchmark,
        p_value=consistent if gains else 1.0,
        p_value_low=low if gains else 1.0,
        p_value_high=high if gains else 1.0,
        best=names[differs[best]] if gains else benchmark,
        arms_tested=len(differs),
        block_sessions=block,
    )


def confidence_set(
    excess: Mapping[str, npt.ArrayLike],
    *,
    confidence: float = 0.95,
    risk_adjusted: bool = True,
    resamples: int = 2000,
    block_sessions: float | None = None,
    seed: int = 0,
) -> ConfidenceSet:
    """Return the model confidence set (Hansen, Lunde and Nason 2011), through `arch.bootstrap.MCS`.

    Arms with the same returns are judged once and share the verdict.

    Args:
        excess: For every arm its excess returns, float64 (T,), equal days.
        confidence: Of holding the best arm, fraction.
        risk_adjusted: Scale every arm to the same volatility, so that Sharpe ratios are
            compared and not mean returns.
        resamples: Number of bootstrap draws.
        block_sessions: Mean block length; None takes the largest of
            `optimal_block_sessions` over the arms.
        seed: Of the draws.

    Raises:
        StatisticsError: Fewer than two arms or 20 days, unequal days, or two arms whose
            difference is a constant other than 0.
    """
    from arch.bootstrap import MCS

    checked_between(confidence, "confidence", 0.0, 1.0)
    checked_count(resamples, "resamples", 2)
    names = list(excess)
    returns = _matrix(excess, risk_adjusted)
    judge = _judges(returns, names)
    judged = sorted(set(judge))
    p_of = dict.fromkeys(judged, 1.0)
    block = _block(returns, block_sessions)
    if len(judged) > 1:
        test = MCS(
            -returns[:, judged], 1.0 - confidence, reps=resamples, block_size=block, seed=seed
        )
        test.compute()
        order = [judged[k] for k in test.pvalues.index.to_numpy(np.int64)]
        p_of = dict(zip(order, test.pvalues["Pvalue"].astype(float), strict=True))
    p_values = {name: p_of[column] for name, column in zip(names, judge, strict=True)}
    included = tuple(name for name in names if p_values[name] > 1.0 - confidence)
    return ConfidenceSet(included, p_values, confidence, block)


def _matrix(excess: Mapping[str, npt.ArrayLike], risk_adjusted: bool) -> Floats:
    """Return float64 (T, arms); scaled to a deviation of 1 a session, flat arms stay flat."""
    checked_count(len(excess), "arms", 2)
    columns = [
        checked_sample(values, f"returns of {name}", _LEAST_SESSIONS)
        for name, values in excess.items()
    ]
    for name, column in zip(excess, columns, strict=True):
        if len(column) != len(columns[0]):
            raise StatisticsError(
                f"returns of {name}: have {len(column)} sessions, must have {len(columns[0])} "
                "like the first arm; score all arms on the same days"
            )
    returns = np.stack(columns, axis=1)
    if not risk_adjusted:
        return returns
    deviation = returns.std(axis=0, ddof=1)
    return returns / np.where(deviation > NOTHING, deviation, 1.0)


def _block(columns: Floats, asked: float | None) -> int:
    """Return a whole number of sessions, as `arch` wants it, that leaves blocks to draw."""
    length = max(map(optimal_block_sessions, columns.T)) if asked is None else asked
    checked_between(length, "block_sessions", 0.999, len(columns))
    return ceil(length)


def _long_run_deviation(x: Floats, block: int) -> Floats:
    """Return the stationary bootstrap's sqrt(T) times deviation of the mean, float64 (k,)."""
    size = len(x)
    centred = x - x.mean(axis=0)
    lags = np.arange(1, size)
    keep = 1.0 - 1.0 / block
    weights = (1.0 - lags / size) * keep**lags + lags / size * keep ** (size - lags)
    # Autocovariances by Fourier transform, padded so that nothing wraps.
    power = np.abs(np.fft.rfft(centred, 2 * size, axis=0)) ** 2
    covariance = np.fft.irfft(power, axis=0)[:size] / size
    variance = covariance[0] + 2.0 * weights @ covariance[1:]
    floor = NOTHING * np.maximum(covariance[0], NOTHING**2)
    deviation: Floats = np.sqrt(np.maximum(variance, floor))
    return deviation


def _judges(returns: Floats, names: list[str]) -> list[int]:
    """Return for every arm the first column with the same returns."""
    judges: list[int] = []
    for k in range(returns.shape[1]):
        first = k
        for j in sorted(set(judges)):
            apart = returns[:, k] - returns[:, j]
            if np.ptp(apart) > _SAME:
                continue
            if abs(float(apart.mean())) > _SAME:
                raise StatisticsError(
                    f"arms {names[j]} and {names[k]}: differ by a constant, which no test can "
                    "judge; leave one out"
                )
            first = j
            break
        judges.append(first)
    return judges
