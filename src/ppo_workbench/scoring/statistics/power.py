"""How much data decides: years and seeds that tell a difference of Sharpe ratios from none.

Two errors add up: one of days, which falls with years, and one of seeds, which falls with
the number of seeds.  Each leaves a floor that the other cannot remove.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt

from ppo_workbench.scoring.annual import annual_root, years_of
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.resampling import Difference, resample
from ppo_workbench.scoring.statistics.samples import (
    NORMAL,
    StatisticsError,
    checked_between,
    checked_count,
)

YEARS_CAP = 10_000.0
SEEDS_CAP = 1_000_000
_LARGE = 1e9


@dataclass(frozen=True)
class YearsToDecide:
    """Test years that would decide a difference.

    Attributes:
        difference_annual: Annual Sharpe ratio, first minus second, that is supposed to hold.
        years: Needed years, at most `YEARS_CAP`.
        reachable: Whether that many years exist below the cap.
    """

    difference_annual: float
    years: float
    reachable: bool


@dataclass(frozen=True)
class SeedsToDecide:
    """Training seeds that would decide a difference.

    Attributes:
        difference_annual: Annual Sharpe ratio, first minus second, that is supposed to hold.
        seeds: Needed seeds an arm, at most `SEEDS_CAP`.
        reachable: Whether that many seeds exist below the cap; the error of the days alone
            can be too large for any number.
    """

    difference_annual: float
    seeds: int
    reachable: bool


@dataclass(frozen=True)
class PowerReport:
    """What a comparison with so many test years and seeds can and cannot decide.

    Attributes:
        test_years: Planned test years.
        seeds: Planned seeds an arm.
        confidence: Two-sided, fraction.
        power: Probability that a difference that holds is found, fraction.
        block_sessions: Mean block length of the bootstrap behind `error_one_year`.
        error_one_year: Standard error of the annual Sharpe difference from one year of days.
        seed_deviation: Standard deviation of that difference between seeds.
        smallest_difference_annual: What the plan finds with the given power.
        years: For every difference the years needed with the planned seeds.
        more_seeds: For every difference the seeds needed in the planned years.
    """

    test_years: float
    seeds: int
    confidence: float
    power: float
    block_sessions: float
    error_one_year: float
    seed_deviation: float
    smallest_difference_annual: float
    years: tuple[YearsToDecide, ...]
    more_seeds: tuple[SeedsToDecide, ...]

    def describe(self) -> list[tuple[str, str]]:
        """Return (label, text) pairs for a reader, the most important first."""
        plan = f"{self.test_years:.2f} test years, {self.seeds} seeds"
        rows = [
            ("Planned", plan),
            (
                "Smallest difference found",
                f"{self.smallest_difference_annual:.2f} annual Sharpe, power {self.power:.0%} "
                f"at {self.confidence:.0%} confidence",
            ),
            ("Standard error of one year", f"{self.error_one_year:.2f} annual Sharpe"),
            ("Deviation between seeds", f"{self.seed_deviation:.2f} annual Sharpe"),
        ]
        for years, seeds in zip(self.years, self.more_seeds, strict=True):
            label = f"A difference of {years.difference_annual:.2f}"
            rows.append((label, f"{_years_text(years)}, or {_seeds_text(seeds)}"))
        return rows

    def to_dict(self) -> dict[str, float]:
        """Return every figure as a float, differences in the key."""
        flat = {
            name: float(getattr(self, name))
            for name in self.__dataclass_fields__
            if name not in ("years", "more_seeds")
        }
        for years, seeds in zip(self.years, self.more_seeds, strict=True):
            flat[f"years_to_decide/{years.difference_annual:g}"] = years.years
            flat[f"seeds_to_decide/{seeds.difference_annual:g}"] = float(seeds.seeds)
        return flat


def sharpe_difference_error(
    first_annual: float, second_annual: float, correlation: float, sessions_per_year: float
) -> float:
    """Return the standard error of an annual Sharpe difference from one year of normal days.

    Jobson and Korkie (1981) as corrected by Memmel (2003): per session and squared,
    2 - 2 rho + (SR1^2 + SR2^2 - 2 SR1 SR2 rho^2) / 2, over T.  For a plan without any data.

    Raises:
        StatisticsError: A correlation outside of -1..1, or a ratio that is not finite.
    """
    q = annual_root(checked_between(sessions_per_year, "sessions_per_year", 0.0, inf))
    checked_between(correlation, "correlation", -1.000001, 1.000001)
    one = checked_between(first_annual, "first_annual", -_LARGE, _LARGE) / q
    two = checked_between(second_annual, "second_annual", -_LARGE, _LARGE) / q
    spread = one**2 + two**2 - 2.0 * one * two * correlation**2
    return sqrt(max(2.0 - 2.0 * correlation + spread / 2.0, 0.0))


def years_to_decide(
    difference_annual: float,
    error_one_year: float,
    *,
    other_error: float = 0.0,
    confidence: float = 0.95,
    power: float = 0.8,
) -> YearsToDecide:
    """Return the years after which a two-sided test finds a difference with the given power.

    Args:
        difference_annual: Annual Sharpe difference that is supposed to hold; its sign does
            not matter.
        error_one_year: Its standard error from one year; falls with the root of the years.
        other_error: What no year removes: the deviation between seeds over sqrt(seeds).
        confidence: Two-sided, fraction.
        power: Fraction.

    Raises:
        StatisticsError: An argument out of range.
    """
    _checked_errors(difference_annual, error_one_year, other_error)
    allowed = (abs(difference_annual) / _distance(confidence, power)) ** 2 - other_error**2
    reachable = allowed * YEARS_CAP > error_one_year**2
    years = error_one_year**2 / allowed if reachable else YEARS_CAP
    return YearsToDecide(difference_annual, years, reachable)


def seeds_to_decide(
    difference_annual: float,
    seed_deviation: float,
    *,
    other_error: float = 0.0,
    confidence: float = 0.95,
    power: float = 0.8,
) -> SeedsToDecide:
    """Return the seeds an arm after which a paired t-test finds a difference.

    The smallest n of at least 2 with t^2 deviation^2 / n + z^2 other^2 <= difference^2: t
    sums Student's two quantiles with n - 1 degrees of freedom, z the normal ones.

    Args:
        difference_annual: Annual Sharpe difference that is supposed to hold; its sign does
            not matter.
        seed_deviation: Standard deviation between seeds of the paired difference.
        other_error: What no seed removes: the standard error of the days that all share.
        confidence: Two-sided, fraction.
        power: Fraction.

    Raises:
        StatisticsError: An argument out of range.
    """
    from scipy.stats import t as student

    _checked_errors(difference_annual, seed_deviation, other_error)
    of_others = (_distance(confidence, power) * other_error) ** 2

    def enough(seeds: int) -> bool:
        quantiles = student.ppf([(1.0 + confidence) / 2.0, power], seeds - 1)
        of_seeds = (float(quantiles.sum()) * seed_deviation) ** 2 / seeds
        return of_seeds + of_others <= difference_annual**2

    if not enough(SEEDS_CAP):
        return SeedsToDecide(difference_annual, SEEDS_CAP, False)
    seeds = bisect_left(range(SEEDS_CAP), True, lo=2, key=enough)
    return SeedsToDecide(difference_annual, seeds, True)


def sharpe_power(
    first: SessionPath,
    second: SessionPath,
    *,
    test_years: float,
    seeds: int = 1,
    seed_deviation: float = 0.0,
    differences: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
    confidence: float = 0.95,
    power: float = 0.8,
    resamples: int = 2000,
    seed: int = 0,
) -> PowerReport:
    """Return what a comparison on this market can decide, before any training.

    Args:
        first: Stand-in for the first arm on bars that may be seen, such as a threshold rule
            under the masks; only the error of the difference is taken from the two, so how
            alike they are matters and how good they are hardly does.
        second: Stand-in for the other arm on the same days.
        test_years: Length of the test split, years.
        seeds: Planned seeds an arm.
        seed_deviation: Standard deviation between seeds of the paired annual Sharpe
            difference, from a pilot; 0 leaves seeds out.
        differences: Annual Sharpe differences to plan for.
        confidence: Two-sided, fraction.
        power: Fraction.
        resamples: Bootstrap draws behind the error of the days.
        seed: Of the draws.

    Raises:
        StatisticsError: Paths of different days, stand-ins that are the same, or an argument
            out of range.
    """
    checked_between(test_years, "test_years", 0.0, _LARGE)
    checked_count(seeds, "seeds", 1)
    drawn = resample(
        {"first": [first], "second": [second]},
        resamples=resamples,
        seed=seed,
        figures=["sharpe_annual"],
    )
    years = years_of(len(first), first.sessions_per_year)
    one_year = _one_year_error(drawn.difference("sharpe_annual", "first", "second"), years)
    of_days, of_seeds = one_year / sqrt(test_years), seed_deviation / sqrt(seeds)
    ask = {"confidence": confidence, "power": power}
    return PowerReport(
        test_years=test_years,
        seeds=seeds,
        confidence=confidence,
        power=power,
        block_sessions=drawn.block_sessions,
        error_one_year=one_year,
        seed_deviation=seed_deviation,
        smallest_difference_annual=_distance(confidence, power) * sqrt(of_days**2 + of_seeds**2),
        years=tuple(years_to_decide(d, one_year, other_error=of_seeds, **ask) for d in differences),
        more_seeds=tuple(
            seeds_to_decide(d, seed_deviation, other_error=of_days, **ask) for d in differences
        ),
    )


def _one_year_error(difference: Difference, years: float) -> float:
    if difference.standard_error == 0.0:
        raise StatisticsError(
            "stand-ins: their Sharpe ratios never differ, so they say nothing of two arms; "
            "take two strategies that trade differently"
        )
    return difference.standard_error * sqrt(years)


def _distance(confidence: float, power: float) -> float:
    """Return how many standard errors a difference must measure (one tail of the two)."""
    checked_between(confidence, "confidence", 0.0, 1.0)
    checked_between(power, "power", 0.5, 1.0)
    return NORMAL.inv_cdf((1.0 + confidence) / 2.0) + NORMAL.inv_cdf(power)


def _checked_errors(difference: float, error: float, other: float) -> None:
    if not (isfinite(difference) and difference != 0.0):
        raise StatisticsError(
            f"difference={difference}: must be finite and not 0, or nothing could decide it; "
            "give the smallest difference that matters"
        )
    if not all(isfinite(value) and value >= 0.0 for value in (error, other)):
        raise StatisticsError(f"errors {error} and {other}: must be finite and at least 0")


def _years_text(answer: YearsToDecide) -> str:
    if not answer.reachable:
        return "no number of years with these seeds"
    return f"{answer.years:,.1f} years"


def _seeds_text(answer: SeedsToDecide) -> str:
    if not answer.reachable:
        return "no number of seeds in these years"
    return f"{answer.seeds:,} seeds"
