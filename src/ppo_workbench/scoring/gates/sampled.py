"""Promotion gates that estimate: expectancy, deflated Sharpe ratios, CSCV over the trials.

Each refuses where its sample does not admit the statistic, and says what is missing.
"""

from collections.abc import Callable
from functools import wraps
from math import ceil, sqrt
from typing import ParamSpec

import numpy as np

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.annual import annual_root, years_of
from ppo_workbench.scoring.gates.checks import CONFIDENCE, Alternative, Gate
from ppo_workbench.scoring.metrics import round_trips
from ppo_workbench.scoring.statistics.overfitting import probability_of_overfitting
from ppo_workbench.scoring.statistics.resampling import optimal_block_sessions, stationary_indices
from ppo_workbench.scoring.statistics.samples import NORMAL, StatisticsError, checked_count
from ppo_workbench.scoring.statistics.sharpe import (
    SharpeMoments,
    deflated_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
)
from ppo_workbench.scoring.trace import Trace

LARGEST_LOSS_PROBABILITY = 0.10
CSCV_BLOCK_SESSIONS = 10
MOST_CSCV_BLOCKS = 16
POWER_WORLDS = 50
_Z = NORMAL.inv_cdf(CONFIDENCE)
_Arguments = ParamSpec("_Arguments")


def fails_closed(
    name: str, threshold: float
) -> Callable[[Callable[_Arguments, Gate]], Callable[_Arguments, Gate]]:
    """Turn a sample that does not admit the statistic into a refusal."""

    def decorate(gate: Callable[_Arguments, Gate]) -> Callable[_Arguments, Gate]:
        @wraps(gate)
        def closed(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Gate:
            try:
                return gate(*args, **kwargs)
            except StatisticsError as error:
                return Gate(name, False, None, threshold, f"evidence is missing: {error}")

        return closed

    return decorate


@fails_closed("expectancy", 0.0)
def expectancy(
    trace: Trace, alternative: Alternative, resamples: int = 2000, seed: int = 0
) -> Gate:
    """Ask for a lower bound of the expectancy per round trip above 0, basis points.

    Sessions are drawn in blocks, each with the round trips that ended in it, so trips of one
    day stay together.  The power supposes the noise of this sample.
    """
    trips = round_trips(trace)
    checked_count(len(trips), "round trips", 2)
    sessions, of_row = np.unique(trace.session, return_inverse=True)
    where = of_row[trips.exit_row]
    gains = np.bincount(where, trips.return_frac * 1e4, len(sessions))
    counts = np.bincount(where, minlength=len(sessions))
    block = optimal_block_sessions(gains)
    days = stationary_indices(len(sessions), resamples, block, np.random.default_rng(seed))
    drawn = gains[days].sum(axis=1) / np.maximum(counts[days].sum(axis=1), 1)
    low, error = float(np.quantile(drawn, 1.0 - CONFIDENCE)), float(np.std(drawn, ddof=1))
    estimate = float(gains.sum() / counts.sum())
    years = years_of(len(sessions), trace.sessions_per_year)
    reason = (
        f"{estimate:.2f} bps a round trip over {len(trips)}, lower bound {low:.2f}, "
        "asked for: above 0"
    )
    power = NORMAL.cdf(alternative.sharpe_annual * sqrt(years) - _Z)
    truth = f"{alternative.sharpe_annual * sqrt(years) * error:.2f} bps a round trip"
    return Gate("expectancy", low > 0.0, low, 0.0, reason, power, truth)


@fails_closed("deflated_sharpe", CONFIDENCE)
def deflated_validation(
    excess: Floats,
    choices: tuple[int, float],
    sessions_per_year: float,
    alternative: Alternative,
) -> Gate:
    """Ask for a DSR of .95 on validation (Bailey and Lopez de Prado 2014).

    Luck is the sampling error of a ratio whose true value is 0, at that of independent trials.
    The paper puts the spread of the trials' ratios in its place; but that is also the spread of
    good and bad settings and of trainings that pruning ended, so it refuses the skilled, and
    trials that are alike hide their number behind it.

    Args:
        excess: float64 (T,), the model's excess session returns on validation.
        choices: Every trial counts: pruned, failed and re-run ones, and this promotion's own;
            and the independent evaluations among which each has chosen its checkpoint.
        sessions_per_year: Sessions in a year of calendar time.
        alternative: For the power.
    """
    moments = SharpeMoments.of(excess)
    trials, evaluations = choices
    tries = ceil(trials * evaluations)
    found = deflated_sharpe(moments, tries, 1.0 / sqrt(moments.sessions - 1))
    benchmark, q = found.expected_maximum_per_session, annual_root(sessions_per_year)
    reason = (
        f"Sharpe ratio {moments.sharpe_per_session * q:.2f} a year on validation; the best of "
        f"{tries} choices without skill ({trials} trials, each its checkpoint among "
        f"{evaluations:.1f} independent evaluations) is expected at {benchmark * q:.2f}: DSR "
        f"{found.probability:.3f}, asked for: {CONFIDENCE}"
    )
    reason += _missing(moments, sessions_per_year, benchmark, CONFIDENCE, found.probability)
    truth = alternative.sharpe_annual / q
    power = NORMAL.cdf((truth - benchmark) / _error(moments, truth) - _Z)
    return Gate(
        "deflated_sharpe",
        found.probability >= CONFIDENCE,
        found.probability,
        CONFIDENCE,
        reason,
        power,
        f"a true Sharpe ratio of {alternative.sharpe_annual:g}",
    )


@fails_closed("probabilistic_sharpe", CONFIDENCE)
def probabilistic_test(
    excess: Floats, accesses: int, sessions_per_year: float, alternative: Alternative
) -> Gate:
    """Ask for a PSR(0) of .95 on the test, deflated by accesses to it, one a variant scored.

    Bonferroni over accesses: 1 - accesses (1 - PSR).  The ledger counts them but does not know what
    they saw, so their spread, which a DSR with trials = accesses would need, would be a guess;
    Bonferroni holds under any dependence, and one access leaves the PSR as it is.

    Args:
        excess: float64 (T,), excess session returns on the test.
        accesses: Variants scored on this test, this one included.
        sessions_per_year: Sessions in a year of calendar time.
        alternative: For the power.
    """
    checked_count(accesses, "accesses", 1)
    moments = SharpeMoments.of(excess)
    plain = probabilistic_sharpe(moments).probability
    value = max(0.0, 1.0 - accesses * (1.0 - plain))
    level = 1.0 - (1.0 - CONFIDENCE) / accesses
    reason = (
        f"PSR(0) {plain:.4f} on the test, test access {accesses} leaves {value:.3f}, "
        f"asked for: {CONFIDENCE}"
    )
    reason += _missing(moments, sessions_per_year, 0.0, level, plain)
    truth = alternative.sharpe_annual / annual_root(sessions_per_year)
    power = NORMAL.cdf(truth / _error(moments, truth) - NORMAL.inv_cdf(level))
    return Gate(
        "probabilistic_sharpe",
        value >= CONFIDENCE,
        value,
        CONFIDENCE,
        reason,
        power,
        f"a true Sharpe ratio of {alternative.sharpe_annual:g}",
    )


def _error(moments: SharpeMoments, truth: float) -> float:
    """Return the standard error of a per-session Sharpe ratio at another true ratio."""
    factor = 1.0 - moments.skewness * truth + (moments.kurtosis - 1.0) / 4.0 * truth**2
    return sqrt(max(factor, 1e-12) / (moments.sessions - 1))


def _missing(
    moments: SharpeMoments, per_year: float, benchmark: float, level: float, reached: float
) -> str:
    """Say how long a record of this kind would have to be."""
    if reached >= level:
        return ""
    if moments.sharpe_per_session <= benchmark + 1e-12:
        return "; no length of record would do, the ratio is not above the benchmark"
    years = minimum_track_record(moments, per_year, benchmark, level).years
    have = years_of(moments.sessions, per_year)
    return f"; missing: {years - have:.1f} more years of such days ({have:.1f} are there)"


@fails_closed("probability_of_loss", LARGEST_LOSS_PROBABILITY)
def probability_of_loss(
    returns: Floats, sessions_per_year: float, alternative: Alternative, seed: int = 0
) -> Gate:
    """Ask that the trial that is best in sample rarely loses out of sample (CSCV).

    PBO is told, not asked for: among equally good trials the best in sample is any of them.

    Args:
        returns: float64 (trials, T), excess session returns on validation.
        sessions_per_year: For the power's true Sharpe ratio.
        alternative: What every trial is worth in the power's resamples, which are drawn from
            these days in blocks.
        seed: Of those resamples.
    """
    blocks = min(MOST_CSCV_BLOCKS, returns.shape[1] // CSCV_BLOCK_SESSIONS // 2 * 2)
    if blocks < 4:
        raise StatisticsError(
            f"{returns.shape[1]} sessions of validation: CSCV needs {4 * CSCV_BLOCK_SESSIONS}; "
            "give a longer validation split"
        )
    found = probability_of_overfitting(returns, blocks)
    value, limit = found.probability_of_loss, LARGEST_LOSS_PROBABILITY
    reason = (
        f"the best of {len(returns)} trials in sample loses out of sample in {value:.1%} of "
        f"{found.splits} splits, asked for: {limit:.0%} or less; PBO {found.pbo:.1%}, not asked for"
    )
    deviation = returns.std(axis=1, ddof=1, keepdims=True)
    mean = alternative.sharpe_annual / annual_root(sessions_per_year) * deviation
    drawn = returns - returns.mean(axis=1, keepdims=True) + mean
    rng = np.random.default_rng(seed)
    days = stationary_indices(returns.shape[1], POWER_WORLDS, 5.0, rng)
    losses = [probability_of_overfitting(drawn[:, d], blocks).probability_of_loss for d in days]
    power = float(np.mean(np.array(losses) <= limit))
    truth = f"a true Sharpe ratio of {alternative.sharpe_annual:g} of every trial"
    return Gate("probability_of_loss", value <= limit, value, limit, reason, power, truth)
