"""What a sample must be before a statistic is taken of it, and what an interval is."""

from dataclasses import dataclass
from math import isfinite
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ppo_workbench.config import WorkbenchError
from ppo_workbench.config.arrays import Floats

NORMAL = NormalDist()
NOTHING = 1e-9  # as in metrics.py: a per-session deviation below this is rounding


class StatisticsError(WorkbenchError):
    """A sample or an argument does not admit the statistic that was asked for."""


@dataclass(frozen=True)
class Interval:
    """A two-sided interval of one figure.

    Attributes:
        estimate: The figure of the sample itself; a percentile interval need not hold it.
        low: Lower end, in the unit of the figure.
        high: Upper end.
        confidence: Nominal coverage, fraction.
    """

    estimate: float
    low: float
    high: float
    confidence: float

    def excludes(self, value: float) -> bool:
        """Tell whether `value` lies outside of the interval."""
        return not self.low <= value <= self.high


def checked_sample(values: npt.ArrayLike, name: str, least: int, dimensions: int = 1) -> Floats:
    """Return `values` as float64, or refuse them.

    Args:
        values: Array whose last axis counts observations.
        name: What the message calls it.
        least: Smallest number of observations.
        dimensions: Number of axes.

    Raises:
        StatisticsError: Wrong shape, too few observations, or a value that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions:
        raise StatisticsError(
            f"{name}: has shape {array.shape}, must have {dimensions} axes, the last of them "
            "observations; reshape it"
        )
    if array.size == 0 or array.shape[-1] < least:
        raise StatisticsError(
            f"{name}: has shape {array.shape}, needs at least {least} observations; "
            "use a longer sample"
        )
    if not np.all(np.isfinite(array)):
        first = np.argwhere(~np.isfinite(array))[0].tolist()
        raise StatisticsError(
            f"{name}: the value at index {first} is not finite; drop or mend it at its source"
        )
    return array


def checked_between(value: float, name: str, low: float, high: float) -> float:
    """Return `value`, or refuse it if it is not strictly between `low` and `high`.

    Raises:
        StatisticsError: The value is outside of the open range, or not finite.
    """
    if not (isfinite(value) and low < value < high):
        raise StatisticsError(
            f"{name}={value}: must be above {low:g} and below {high:g}; give one in that range"
        )
    return float(value)


def checked_count(value: int, name: str, least: int) -> int:
    """Return `value`, or refuse it if it is below `least`.

    Raises:
        StatisticsError: The value is too small.
    """
    if value < least:
        raise StatisticsError(f"{name}={value}: must be at least {least}; raise it")
    return int(value)


def percentile_interval(estimate: float, draws: Floats, confidence: float) -> Interval:
    """Return the percentile interval (Efron 1979) of bootstrap draws, float64 (B,)."""
    checked_between(confidence, "confidence", 0.0, 1.0)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(float(estimate), float(low), float(high), confidence)


def two_sided_p_value(draws: Floats) -> float:
    """Return the p-value of "the figure is 0" that inverts the percentile interval.

    One is added to both counts (Davison and Hinkley 1997, section 4.2), so it is never 0.
    """
    below = np.count_nonzero(draws <= 0.0) + 1
    above = np.count_nonzero(draws >= 0.0) + 1
    return float(min(1.0, 2.0 * min(below, above) / (len(draws) + 1)))


def symmetric_interval(estimate: float, deviations: Floats, confidence: float) -> Interval:
    """Return the interval around the estimate that holds this share of deviations, float64 (B,)."""
    checked_between(confidence, "confidence", 0.0, 1.0)
    reach = float(np.quantile(np.abs(deviations), confidence))
    return Interval(float(estimate), float(estimate) - reach, float(estimate) + reach, confidence)


def symmetric_p_value(estimate: float, deviations: Floats) -> float:
    """Return the p-value of "the figure is 0" that inverts the symmetric interval; never 0."""
    beyond = np.count_nonzero(np.abs(deviations) >= abs(estimate)) + 1
    return float(beyond / (len(deviations) + 1))
