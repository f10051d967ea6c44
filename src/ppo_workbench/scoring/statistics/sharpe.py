"""What one Sharpe ratio is worth: PSR, DSR, minimum track record, and Lo's annualisation.

All ratios are per session unless the name says annual: formulas that mix skewness and
kurtosis with an annual ratio are wrong by a factor of the sessions a year.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import e, floor, inf, isfinite, sqrt

import numpy as np
import numpy.typing as npt

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.annual import annual_root, years_of
from ppo_workbench.scoring.statistics.samples import (
    NORMAL,
    NOTHING,
    StatisticsError,
    checked_between,
    checked_count,
    checked_sample,
)

EULER_GAMMA = 0.5772156649015329
_LEAST_SESSIONS = 4


@dataclass(frozen=True)
class SharpeMoments:
    """What the distribution of an estimated Sharpe ratio depends on.

    Attributes:
        sharpe_per_session: Mean over standard deviation of excess returns, not annualised.
        skewness: Third standardised moment, 0 for a normal distribution.
        kurtosis: Fourth standardised moment, 3 for a normal distribution.
        sessions: Number of returns.

    Raises:
        StatisticsError: A value is not finite, fewer than two sessions, or a kurtosis below
            1 + skewness^2, which no distribution has.
    """

    sharpe_per_session: float
    sessions: int
    skewness: float = 0.0
    kurtosis: float = 3.0

    def __post_init__(self) -> None:
        """Refuse moments that no sample can have."""
        checked_count(self.sessions, "sessions", 2)
        if not all(map(isfinite, (self.sharpe_per_session, self.skewness, self.kurtosis))):
            raise StatisticsError(f"{self}: every moment must be finite; mend the sample")
        if self.kurtosis < 1.0 + self.skewness**2 - 1e-9:
            raise StatisticsError(
                f"kurtosis={self.kurtosis}: must be at least 1 + skewness^2 = "
                f"{1.0 + self.skewness**2:g}; give the raw kurtosis, 3 for a normal distribution"
            )

    @classmethod
    def of(cls, excess: npt.ArrayLike) -> "SharpeMoments":
        """Return the moments of per-session excess returns, float64 (T,).

        Raises:
            StatisticsError: Fewer than 4 returns, one that is not finite, or no variance.
        """
        x = checked_sample(excess, "excess returns", _LEAST_SESSIONS)
        centred = x - x.mean()
        scale = sqrt(float(np.mean(centred**2)))
        if scale <= NOTHING:
            raise StatisticsError(
                f"excess returns: their standard deviation is {scale:.1e}, so there is no "
                "Sharpe ratio; score a strategy that traded"
            )
        standard = centred / scale
        return cls(
            sharpe_per_session=float(x.mean() / np.std(x, ddof=1)),
            sessions=len(x),
            skewness=float(np.mean(standard**3)),
            kurtosis=float(np.mean(standard**4)),
        )

    @property
    def variance_factor(self) -> float:
        """Return 1 - g3 SR + (g4 - 1) / 4 SR^2 (Mertens 2002): T times the variance of SR."""
        sharpe = self.sharpe_per_session
        return 1.0 - self.skewness * sharpe + (self.kurtosis - 1.0) / 4.0 * sharpe**2


@dataclass(frozen=True)
class ProbabilisticSharpe:
    """Probability that the true Sharpe ratio exceeds a benchmark.

    Attributes:
        probability: Phi of the studentised distance, fraction.
        standard_error_per_session: Standard error of the estimated ratio.
    """

    probability: float
    standard_error_per_session: float


def probabilistic_sharpe(
    moments: SharpeMoments, benchmark_per_session: float = 0.0
) -> ProbabilisticSharpe:
    """Return the PSR (Bailey and Lopez de Prado 2012, "The Sharpe ratio efficient frontier").

    Raises:
        StatisticsError: The moments leave no variance (the boundary kurtosis at its worst
            Sharpe ratio), or the benchmark is not finite.
    """
    checked_between(benchmark_per_session, "benchmark_per_session", -1e9, 1e9)
    if moments.variance_factor <= 1e-12:
        raise StatisticsError(
            f"{moments}: leaves the Sharpe ratio no variance; use a longer sample"
        )
    error = sqrt(moments.variance_factor / (moments.sessions - 1))
    distance = (moments.sharpe_per_session - benchmark_per_session) / error
    return ProbabilisticSharpe(NORMAL.cdf(distance), error)


@dataclass(frozen=True)
class DeflatedSharpe:
    """PSR against the best of so many trials without skill.

    Attributes:
        probability: PSR with `expected_maximum_per_session` as the benchmark, fraction.
        expected_maximum_per_session: Expected largest ratio of the trials under no skill.
    """

    probability: float
    expected_maximum_per_session: float


def expected_maximum_sharpe(trials: int, trials_sd: float) -> float:
    """Return the expected largest of `trials` Sharpe ratios whose true value is 0.

    Bailey and Lopez de Prado (2014), "The deflated Sharpe ratio", equation 1; in the unit
    of `trials_sd`.  One trial has an expected maximum of 0.

    Raises:
        StatisticsError: Fewer than one trial, or a negative standard deviation.
    """
    checked_count(trials, "trials", 1)
    if not (isfinite(trials_sd) and trials_sd >= 0.0):
        raise StatisticsError(f"trials_sd={trials_sd}: must be at least 0; give their spread")
    if trials == 1:
        return 0.0
    typical = NORMAL.inv_cdf(1.0 - 1.0 / trials)
    rare = NORMAL.inv_cdf(1.0 - 1.0 / (trials * e))
    return trials_sd * ((1.0 - EULER_GAMMA) * typical + EULER_GAMMA * rare)


def deflated_sharpe(
    moments: SharpeMoments, trials: int, trials_sd_per_session: float
) -> DeflatedSharpe:
    """Return the DSR (Bailey and Lopez de Prado 2014).

    Args:
        moments: Of the selected strategy.
        trials: Every trial counts: pruned, failed and repeated ones too.
        trials_sd_per_session: Standard deviation of the trials' per-session Sharpe ratios.

    Raises:
        StatisticsError: As `expected_maximum_sharpe` and `probabilistic_sharpe`.
    """
    best = expected_maximum_sharpe(trials, trials_sd_per_session)
    return DeflatedSharpe(probabilistic_sharpe(moments, best).probability, best)


@dataclass(frozen=True)
class TrackRecord:
    """Shortest sample after which a Sharpe ratio is told from a benchmark.

    Attributes:
        sessions: As a real number; round up.
        years: The same, in years.
    """

    sessions: float
    years: float


def minimum_track_record(
    moments: SharpeMoments,
    sessions_per_year: float,
    benchmark_per_session: float = 0.0,
    confidence: float = 0.95,
) -> TrackRecord:
    """Return the minimum track record length (Bailey and Lopez de Prado 2012, equation 13).

    Raises:
        StatisticsError: The Sharpe ratio is not above the benchmark (no length would do), or
            an argument is out of range.
    """
    checked_between(confidence, "confidence", 0.5, 1.0)
    checked_between(sessions_per_year, "sessions_per_year", 0.0, inf)
    excess = moments.sharpe_per_session - benchmark_per_session
    if not excess > 1e-12:
        raise StatisticsError(
            f"Sharpe ratio {moments.sharpe_per_session:g} per session: must be above the "
            f"benchmark {benchmark_per_session:g}, or no track record is long enough; lower it"
        )
    sessions = 1.0 + moments.variance_factor * (NORMAL.inv_cdf(confidence) / excess) ** 2
    return TrackRecord(sessions, years_of(sessions, sessions_per_year))


def minimum_backtest_years(trials: int, sharpe_annual: float) -> float:
    """Return the years below which the best of `trials` reaches `sharpe_annual` without skill.

    Bailey, Borwein, Lopez de Prado and Zhu (2014), "Pseudo-mathematics and financial
    charlatanism", theorem 2: the annual ratio of `years` of noise has deviation
    1 / sqrt(years).

    Raises:
        StatisticsError: Fewer than one trial, or a ratio that is not above 0.
    """
    checked_between(sharpe_annual, "sharpe_annual", 0.0, 1e9)
    return (expected_maximum_sharpe(trials, 1.0) / sharpe_annual) ** 2


@dataclass(frozen=True)
class AnnualSharpe:
    """An annual Sharpe ratio that allows for autocorrelation.

    Attributes:
        sharpe_annual: Per-session ratio times `factor`.
        sharpe_annual_iid: Per-session ratio times sqrt(q).
        factor: Lo's eta(q).
        autocorrelations: Those used, lag 1 first.
    """

    sharpe_annual: float
    sharpe_annual_iid: float
    factor: float
    autocorrelations: tuple[float, ...]


def lo_factor(autocorrelations: Sequence[float] | Floats, sessions_per_year: float) -> float:
    """Return eta(q) = q / sqrt(q + 2 sum_{k<q} (q - k) rho_k) (Lo 2002, equation 20).

    Args:
        autocorrelations: rho_1, rho_2, ...; lags that are missing count as 0, lags of q and
            above do not enter.
        sessions_per_year: q, rounded: a sum over lags has a whole number of them.

    Raises:
        StatisticsError: A correlation outside of -1..1, or correlations that leave the year
            no variance.
    """
    q = checked_count(round(sessions_per_year), "sessions_per_year", 1)
    rho = np.asarray(autocorrelations, dtype=np.float64)[: q - 1]
    if not np.all(np.abs(rho) <= 1.0):
        raise StatisticsError("autocorrelations: each must lie in -1 to 1; check the estimate")
    variance = q + 2.0 * float((q - np.arange(1, len(rho) + 1)) @ rho)
    if variance <= NOTHING * q:
        raise StatisticsError(
            f"autocorrelations: they give a year of {q} sessions a variance of {variance:g}, "
            "which must be above 0; use fewer lags"
        )
    return q / sqrt(variance)


def annual_sharpe(
    excess: npt.ArrayLike, sessions_per_year: float, lags: int | None = None
) -> AnnualSharpe:
    """Return the annual Sharpe ratio of excess returns, float64 (T,), corrected as in Lo (2002).

    Args:
        excess: Per-session excess returns.
        sessions_per_year: q.
        lags: Autocorrelations to estimate; None takes floor(4 (T / 100)^(2/9)) (Newey and
            West 1994).  All q - 1 of daily returns would be noise.

    Raises:
        StatisticsError: As `SharpeMoments.of` and `lo_factor`, or more lags than returns.
    """
    moments = SharpeMoments.of(excess)
    x = np.asarray(excess, dtype=np.float64)
    if lags is None:
        lags = min(floor(4.0 * (len(x) / 100.0) ** (2.0 / 9.0)), len(x) - 1)
    if not 0 <= lags < len(x):
        raise StatisticsError(f"lags={lags}: must be 0 to {len(x) - 1}; lower it")
    rho = autocorrelations(x, lags)
    factor = lo_factor(rho, sessions_per_year)
    return AnnualSharpe(
        sharpe_annual=moments.sharpe_per_session * factor,
        sharpe_annual_iid=moments.sharpe_per_session * annual_root(sessions_per_year),
        factor=factor,
        autocorrelations=tuple(rho.tolist()),
    )


def autocorrelations(x: Floats, lags: int) -> Floats:
    """Return the autocorrelations of lags 1 to `lags`, float64 (lags,), of x, float64 (T,)."""
    centred = x - x.mean()
    products = [centred[k:] @ centred[: len(x) - k] for k in range(lags + 1)]
    rho: Floats = np.array(products[1:]) / products[0]
    return rho
