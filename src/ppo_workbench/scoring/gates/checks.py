"""Promotion gates: one pure function each, from evidence to a verdict in words.

A gate fails closed: where its evidence does not admit the statistic, it refuses.  Every gate
that rests on a sample says its power: the probability that it passes on this amount of data if
the truth is the stated alternative.  A refusal by a gate without power says little about the
model.

Levels: one-sided 95 % where a figure of the model itself must exceed a bound, two-sided 95 %
intervals for paired differences, as in a comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from ppo_workbench.delivery import metadata
from ppo_workbench.scoring.audit.verdict import AuditReport
from ppo_workbench.scoring.metrics import Scorecard
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.power import years_to_decide
from ppo_workbench.scoring.statistics.resampling import (
    Difference,
    drawdown_draws,
    stationary_indices,
)
from ppo_workbench.scoring.statistics.samples import NORMAL
from ppo_workbench.scoring.targets import DRAWDOWN, LEAST_EXPOSURE, LEAST_TRADES, SHARPE, WIN_RATE

CONFIDENCE = 0.95
LEAST_ROUND_TRIPS = 100
_Z_TWO_SIDED = NORMAL.inv_cdf(0.5 + CONFIDENCE / 2.0)


@dataclass(frozen=True)
class Gate:
    """One gate's verdict.

    Attributes:
        name: Key in documents.
        passed: Verdict.
        value: What was measured; None where the evidence does not admit it.
        threshold: What was asked for.
        reason: The verdict in words, with what is missing.
        power: Probability of passing on this amount of data under `alternative`; None where
            nothing is estimated.
        alternative: The truth that the power supposes, in words.
    """

    name: str
    passed: bool
    value: float | None
    threshold: float | None
    reason: str
    power: float | None = None
    alternative: str = ""

    def for_metadata(self) -> metadata.Gate:
        """Return what an artefact keeps; the power stands in the reason."""
        told = "" if self.power is None else f"; power {self.power:.0%} at {self.alternative}"
        return metadata.Gate(
            name=self.name,
            passed=self.passed,
            value=self.value,
            threshold=self.threshold,
            reason=self.reason + told,
        )


@dataclass(frozen=True)
class Alternative:
    """The truth that powers suppose.

    Attributes:
        sharpe_annual: Of the model.
        difference_annual: Annual Sharpe ratio by which it is better than its rival.
    """

    sharpe_annual: float = 1.5
    difference_annual: float = 1.0


def target_sharpe(card: Scorecard) -> Gate:
    """Ask for the specification's annual Sharpe ratio, above 1.5."""
    value, threshold, truth = card.sharpe_annual, SHARPE.value, 2.0
    power = NORMAL.cdf((truth - threshold) / card.sharpe_standard_error)
    reason = f"annual Sharpe ratio {value:.2f}, asked for: above {threshold}"
    alternative = f"a true Sharpe ratio of {truth}"
    passed = SHARPE.reached_by(value)
    return Gate("target_sharpe", passed, value, threshold, reason, power, alternative)


def target_drawdown(card: Scorecard, path: SessionPath | None = None) -> Gate:
    """Ask for the specification's maximum drawdown, below 8 %.

    Args:
        card: Scorecard of the split.
        path: Its sessions, for the power: drawn anew in blocks.
    """
    value, threshold = card.max_drawdown_frac, DRAWDOWN.value
    reason = f"maximum drawdown {value:.1%}, asked for: below {threshold:.0%}"
    power = None
    if path is not None:
        days = stationary_indices(len(path), 1000, 5.0, np.random.default_rng(0))
        power = float(np.mean(drawdown_draws(path, days) < threshold))
    passed = DRAWDOWN.reached_by(value)
    return Gate("target_drawdown", passed, value, threshold, reason, power, "days like these")


def target_win_rate(card: Scorecard) -> Gate:
    """Ask for the specification's share of winning round trips, above 60 %."""
    value, threshold, truth = card.win_rate_frac, WIN_RATE.value, 0.65
    error = sqrt(truth * (1.0 - truth) / max(card.n_trades, 1))
    reason = f"{value:.1%} of {card.n_trades} round trips won, asked for: above {threshold:.0%}"
    power = NORMAL.cdf((truth - threshold) / error)
    alternative = f"a true win rate of {truth:.0%}"
    passed = WIN_RATE.reached_by(value)
    return Gate("target_win_rate", passed, value, threshold, reason, power, alternative)


def target_trades(card: Scorecard) -> Gate:
    """Ask for the specification's number of round trips, 200 or more."""
    return _at_least("target_trades", card.n_trades, LEAST_TRADES, "round trips")


def target_exposure(card: Scorecard) -> Gate:
    """Ask for the specification's mean absolute exposure, .2 or more."""
    return _at_least(
        "target_exposure", card.exposure_mean_abs, LEAST_EXPOSURE, "mean absolute exposure"
    )


def enough_round_trips(card: Scorecard) -> Gate:
    """Ask for as many round trips as an expectancy needs."""
    return _at_least("round_trips", card.n_trades, LEAST_ROUND_TRIPS, "closed round trips")


def _at_least(name: str, value: float, threshold: float, what: str) -> Gate:
    short = "" if value >= threshold else f", {threshold - value:g} short"
    reason = f"{value:g} {what}, asked for: {threshold:g} or more{short}"
    return Gate(name, value >= threshold, float(value), float(threshold), reason)


def decidedly_better(
    name: str, rival: str, difference: Difference, years: float, alternative: Alternative
) -> Gate:
    """Ask for a paired Sharpe difference whose interval lies above 0."""
    power = _difference_power(difference, alternative.difference_annual, -_Z_TWO_SIDED)
    passed = difference.low > 0.0
    reason = f"{_told(rival, difference)}, asked for: lower end above 0"
    if not passed:
        reason += _years_missing(difference, years)
    truth = f"a true difference of {alternative.difference_annual:g}"
    return Gate(name, passed, difference.low, 0.0, reason, power, truth)


def better(name: str, rival: str, difference: Difference, alternative: Alternative) -> Gate:
    """Ask for a paired Sharpe difference above 0, which half of those pass whose truth is 0.

    An interval above 0 would ask for decades; one that does not lie below 0 would pass 97.5 %.
    """
    power = _difference_power(difference, alternative.difference_annual, 0.0)
    reason = (
        f"{_told(rival, difference)}, asked for: difference above 0 (at a true difference of 0 "
        "half would pass)"
    )
    truth = f"a true difference of {alternative.difference_annual:g}"
    return Gate(name, difference.estimate > 0.0, difference.estimate, 0.0, reason, power, truth)


def not_decidedly_worse(name: str, rival: str, difference: Difference) -> Gate:
    """Refuse a paired Sharpe difference whose interval lies below 0."""
    power = _difference_power(difference, 0.0, _Z_TWO_SIDED)
    reason = f"{_told(rival, difference)}, asked for: upper end not below 0"
    passed = difference.high >= 0.0
    return Gate(name, passed, difference.high, 0.0, reason, power, "a true difference of 0")


def not_worse(name: str, rival: str, difference: Difference, alternative: Alternative) -> Gate:
    """Refuse a paired Sharpe difference below 0: the burden of proof is the challenger's."""
    power = _difference_power(difference, alternative.difference_annual, 0.0)
    reason = f"{_told(rival, difference)}, asked for: difference not below 0"
    truth = f"a true difference of {alternative.difference_annual:g}"
    return Gate(name, difference.estimate >= 0.0, difference.estimate, 0.0, reason, power, truth)


def _told(rival: str, difference: Difference) -> str:
    return (
        f"Sharpe ratio less that of {rival}: {difference.estimate:+.2f} "
        f"[{difference.low:+.2f}, {difference.high:+.2f}]"
    )


def _difference_power(difference: Difference, truth: float, distance: float) -> float:
    error = difference.standard_error
    if error <= 0.0:
        return float(truth > 0.0 or distance > 0.0)
    return NORMAL.cdf(truth / error + distance)


def _years_missing(difference: Difference, years: float) -> str:
    if difference.estimate <= 0.0 or difference.standard_error <= 0.0:
        return "; no length of record would decide for the model"
    answer = years_to_decide(difference.estimate, difference.standard_error * sqrt(years))
    return (
        f"; {ceil(answer.years)} test years would decide such a difference ({years:.1f} are there)"
    )


def stressed(name: str, change: str, card: Scorecard, alternative: Alternative) -> Gate:
    """Ask that the excess return stays above 0 under changed costs or latency."""
    value = card.excess_return_annual_frac
    reason = f"{change}: {value:+.2%} a year over cash, asked for: above 0"
    power = NORMAL.cdf(alternative.sharpe_annual * sqrt(card.years))
    truth = f"a true Sharpe ratio of {alternative.sharpe_annual:g} under this change"
    return Gate(name, value > 0.0, value, 0.0, reason, power, truth)


def audited(report: AuditReport) -> Gate:
    """Ask the independent audit for 0 violations, no rule left out."""
    left = f"; no check knows {', '.join(report.unaudited)}" if report.unaudited else ""
    reason = f"{report.count} violations in {report.decisions} decisions, asked for: 0{left}"
    passed = report.count == 0 and not report.unaudited
    return Gate("audit", passed, float(report.count), 0.0, reason)


def golden_vectors(failure: str | None, vectors: int) -> Gate:
    """Ask that the model, saved and loaded again, verifies.

    Args:
        failure: What refused it, None if nothing did.
        vectors: Golden vectors that were replayed.
    """
    told = f"saved and loaded, {vectors} golden vectors" if failure is None else failure
    return Gate("golden", failure is None, float(vectors), None, told)


def recorded_access(accesses: int) -> Gate:
    """Ask that the access to the test is in the ledger."""
    reason = f"test access {accesses} to these dates, recorded before a bar was read"
    return Gate("ledger", accesses >= 1, float(accesses), 1.0, reason)


def split_hygiene(gaps: Sequence[int], asked: int, seen_test: int) -> Gate:
    """Ask that the splits are apart and that training could not see the test.

    Args:
        gaps: Bars between train and validation, and between validation and test.
        asked: `splits.gap_bars`.
        seen_test: Bars of the test that were in memory during training.
    """
    smallest = min(gaps)
    passed = smallest >= asked and seen_test == 0
    reason = (
        f"{' and '.join(map(str, gaps))} bars between the splits, asked for: {asked}; "
        f"{seen_test} bars of the test were in memory during training"
    )
    return Gate("split_hygiene", passed, float(smallest), float(asked), reason)


def missing(name: str, reason: str) -> Gate:
    """Refuse for want of evidence."""
    return Gate(name, False, None, None, f"evidence is missing: {reason}")


def no_champion() -> Gate:
    """Pass where nobody reigns."""
    return Gate("champion", True, None, None, "no champion reigns")


def failed(gates: Sequence[Gate]) -> list[Gate]:
    """Return the gates that refuse."""
    return [gate for gate in gates if not gate.passed]
