"""What one Sharpe ratio says of a hypothesis: PSR under the null, power, false discovery rate.

Lopez de Prado, Lipton and Zoonekynd (2025), "How to use the Sharpe ratio" (SSRN 5520741).  The
variance is that under the hypothesis that is tested, not at the ratio that was seen; it allows for
returns that follow each other as an AR(1).  For reports: no gate asks any of this.  All ratios are
per session.
"""

from dataclasses import dataclass
from math import sqrt

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.annual import annual_root
from ppo_workbench.scoring.statistics.samples import NORMAL, StatisticsError, checked_between
from ppo_workbench.scoring.statistics.sharpe import SharpeMoments, autocorrelations


@dataclass(frozen=True)
class SharpeInference:
    """A one-sided test of "the true Sharpe ratio is `null_per_session`".

    Attributes:
        probability: PSR, one less the p-value.
        critical_per_session: Above this ratio the null is rejected at `significance`.
        power: Of the test where the true ratio is `alternative_per_session`.
        planned_false_discovery: Share of false ones among all that the test would reject.
        observed_false_discovery: Probability that the null holds, seen a ratio as large as this.
        null_per_session, alternative_per_session: What is tested against what.
        prior: Probability of the alternative before anything was seen.
        significance: Of the test.
    """

    probability: float
    critical_per_session: float
    power: float
    planned_false_discovery: float
    observed_false_discovery: float
    null_per_session: float
    alternative_per_session: float
    prior: float
    significance: float


def sharpe_variance(
    moments: SharpeMoments, true_per_session: float, autocorrelation: float = 0.0
) -> float:
    """Return the variance of an estimated ratio whose true value is `true_per_session`.

    (a - b g3 SR + c (g4 - 1) / 4 SR^2) / T with a = (1 + rho) / (1 - rho),
    b = 1 + rho / (1 - rho) + rho^2 / (1 - rho^2) and c = (1 + rho^2) / (1 - rho^2).

    Args:
        moments: Their skewness, kurtosis and sessions are used.
        true_per_session: SR.
        autocorrelation: rho of the returns, lag 1.

    Raises:
        StatisticsError: An argument out of range, or moments that leave no variance.
    """
    rho = checked_between(autocorrelation, "autocorrelation", -1.0, 1.0)
    once, twice = rho / (1.0 - rho), rho**2 / (1.0 - rho**2)
    variance = (
        (1.0 + 2.0 * once)
        - (1.0 + once + twice) * moments.skewness * true_per_session
        + (1.0 + 2.0 * twice) * (moments.kurtosis - 1.0) / 4.0 * true_per_session**2
    )
    if not variance > 1e-12:
        raise StatisticsError(f"{moments}: leaves the Sharpe ratio no variance; use more sessions")
    return variance / moments.sessions


def sharpe_inference(
    moments: SharpeMoments,
    alternative_per_session: float,
    prior: float,
    *,
    null_per_session: float = 0.0,
    autocorrelation: float = 0.0,
    significance: float = 0.05,
) -> SharpeInference:
    """Test a Sharpe ratio against a null and say how often such a find is a false one.

    Args:
        moments: Of the returns.
        alternative_per_session: Ratio of a strategy that is worth finding.
        prior: Share of such strategies among those that are tried: a belief, so show it.
        null_per_session: Ratio of one that is not.
        autocorrelation: Of the returns, lag 1.
        significance: Of the test.

    Raises:
        StatisticsError: An argument out of range, or an alternative that is not above the null.
    """
    checked_between(prior, "prior", 0.0, 1.0)
    checked_between(significance, "significance", 0.0, 1.0)
    if not alternative_per_session > null_per_session:
        raise StatisticsError(
            f"alternative_per_session={alternative_per_session}: must be above the null, "
            f"{null_per_session}; raise it"
        )
    null, other = null_per_session, alternative_per_session
    error, other_error = (
        sqrt(sharpe_variance(moments, ratio, autocorrelation)) for ratio in (null, other)
    )

    def above(ratio: float) -> tuple[float, float]:
        """Return the chance of more than `ratio` under null and alternative."""
        return NORMAL.cdf((null - ratio) / error), NORMAL.cdf((other - ratio) / other_error)

    critical = null + error * NORMAL.inv_cdf(1.0 - significance)
    seen_null, seen_other = above(moments.sharpe_per_session)
    power = above(critical)[1]
    return SharpeInference(
        probability=1.0 - seen_null,
        critical_per_session=critical,
        power=power,
        planned_false_discovery=_false_share(significance, power, prior),
        observed_false_discovery=_false_share(seen_null, seen_other, prior),
        null_per_session=null,
        alternative_per_session=other,
        prior=prior,
        significance=significance,
    )


def inference_of(
    excess: Floats, sessions_per_year: float, alternative_annual: float, prior: float
) -> SharpeInference:
    """Test a run's Sharpe ratio against 0, with the autocorrelation of its own returns.

    Args:
        excess: float64 (T,), excess session returns.
        sessions_per_year: Sessions in a year of calendar time.
        alternative_annual: Annual ratio of a strategy that is worth finding.
        prior: Share of such strategies among those that are tried.

    Raises:
        StatisticsError: As `SharpeMoments.of` and `sharpe_inference`.
    """
    return sharpe_inference(
        SharpeMoments.of(excess),
        alternative_annual / annual_root(sessions_per_year),
        prior,
        autocorrelation=float(autocorrelations(excess, 1)[0]),
    )


def _false_share(false: float, true: float, prior: float) -> float:
    wrong, right = (1.0 - prior) * false, prior * true
    return wrong / (wrong + right) if wrong + right > 0.0 else 1.0 - prior
