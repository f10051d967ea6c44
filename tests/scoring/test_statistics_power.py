"""The power question against simulated tests, closed forms and its own inverse."""

from math import isfinite, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.power import (
    SEEDS_CAP,
    YEARS_CAP,
    seeds_to_decide,
    sharpe_difference_error,
    sharpe_power,
    years_to_decide,
)
from ppo_workbench.scoring.statistics.samples import StatisticsError


def _pair(
    rng: np.random.Generator, days: int, sharpes: tuple[float, float], correlation: float
) -> Floats:
    """Return two rows of normal daily returns with known annual Sharpe ratios."""
    common, one, two = rng.normal(size=(3, days))
    mix = sqrt(correlation), sqrt(1 - correlation)
    noise = np.stack([mix[0] * common + mix[1] * one, mix[0] * common + mix[1] * two])
    pair: Floats = 0.01 * (noise + np.array(sharpes)[:, None] / sqrt(252))
    return pair


def test_years_to_decide_of_one_strategy_against_cash_is_the_textbook_answer() -> None:
    # A Sharpe ratio of 1 against 0: (1.96 + .84)^2 = 7.85 years, at one a year.
    answer = years_to_decide(1.0, 1.0)
    assert round(answer.years, 2) == 7.85
    assert answer.reachable
    assert years_to_decide(-1.0, 1.0).years == answer.years
    assert years_to_decide(0.5, 1.0).years == pytest.approx(4 * answer.years)


def test_years_to_decide_give_the_promised_power_on_simulated_returns() -> None:
    sharpes, correlation = (1.5, 0.0), 0.5
    one_year = sharpe_difference_error(*sharpes, correlation, 252)
    years = years_to_decide(1.5, one_year).years
    days = round(252 * years)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(1000):
        x = _pair(rng, days, sharpes, correlation)
        ratio = x.mean(axis=1) / x.std(axis=1) * sqrt(252)
        rho = float(np.asarray(np.corrcoef(x))[0, 1])
        error = sharpe_difference_error(ratio[0], ratio[1], rho, 252) / sqrt(years)
        found += abs(ratio[0] - ratio[1]) > 1.96 * error
    # Binomial error 1.3 points.
    assert found / 1000 == pytest.approx(0.8, abs=0.04)


def test_sharpe_difference_error_agrees_with_simulation() -> None:
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(3000):
        x = _pair(rng, 252, (16.0, 16.0), 0.5)
        ratio = x.mean(axis=1) / x.std(axis=1) * sqrt(252)
        draws.append(ratio[0] - ratio[1])
    assert sharpe_difference_error(16.0, 16.0, 0.5, 252) == pytest.approx(np.std(draws), rel=0.04)


@pytest.mark.parametrize("ratio", [0.3, 0.6, 1.0, 2.5])
def test_seeds_to_decide_are_the_fewest_with_the_power_of_a_paired_t_test(ratio: float) -> None:
    # The exact power is that of the noncentral t distribution.
    def power(seeds: int) -> float:
        critical = stats.t.ppf(0.975, seeds - 1)
        return float(stats.nct.sf(critical, seeds - 1, ratio * sqrt(seeds)))

    fewest = next(n for n in range(2, 1000) if power(n) >= 0.8)
    assert seeds_to_decide(ratio, 1.0).seeds == fewest


def test_seeds_cannot_remove_the_error_of_shared_days() -> None:
    day_error = 0.5
    assert not seeds_to_decide(1.0, 0.1, other_error=day_error).reachable
    assert seeds_to_decide(1.0, 0.1, other_error=day_error).seeds == SEEDS_CAP
    assert seeds_to_decide(1.5, 0.1, other_error=day_error).reachable
    assert seeds_to_decide(1.5, 0.0, other_error=day_error).seeds == 2


def test_years_cannot_remove_the_error_of_seeds() -> None:
    answer = years_to_decide(1.0, 1.0, other_error=0.5)
    assert not answer.reachable
    assert answer.years == YEARS_CAP
    assert years_to_decide(1e-9, 1.0).years == YEARS_CAP


def test_power_report_of_independent_stand_ins_agrees_with_theory() -> None:
    rng = np.random.default_rng(2)
    pair = _pair(rng, 2520, (0.5, 0.0), 0.6)
    paths = [SessionPath.from_returns(x, 252) for x in pair]
    report = sharpe_power(paths[0], paths[1], test_years=4.0, seeds=10, seed_deviation=0.6)
    assert report.error_one_year == pytest.approx(
        sharpe_difference_error(0.5, 0.0, 0.6, 252), rel=0.08
    )
    at_the_limit = report.smallest_difference_annual
    again = sharpe_power(
        paths[0],
        paths[1],
        test_years=4.0,
        seeds=10,
        seed_deviation=0.6,
        differences=[at_the_limit],
    )
    assert again.years[0].years == pytest.approx(4.0)
    assert 10 <= again.more_seeds[0].seeds <= 13  # Student's quantiles ask for a few more
    assert all(isfinite(value) for value in report.to_dict().values())
    texts = dict(report.describe())
    assert texts["Planned"] == "4.00 test years, 10 seeds"
    assert texts["A difference of 0.25"].startswith("no number of years")
    assert texts["A difference of 2.00"].endswith(" seeds")


@given(st.floats(0.05, 5.0), st.floats(0.1, 3.0), st.floats(0.55, 0.99), st.floats(0.5, 0.99))
def test_years_and_smallest_difference_are_inverse(
    difference: float, error: float, power: float, confidence: float
) -> None:
    answer = years_to_decide(difference, error, confidence=confidence, power=power)
    z = stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power)
    assert z * error / sqrt(answer.years) == pytest.approx(difference) or not answer.reachable


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(StatisticsError, match="difference=0"):
        years_to_decide(0.0, 1.0)
    with pytest.raises(StatisticsError, match=r"power=0\.5"):
        years_to_decide(1.0, 1.0, power=0.5)
    with pytest.raises(StatisticsError, match=r"confidence=1\.5"):
        seeds_to_decide(1.0, 1.0, confidence=1.5)
    with pytest.raises(StatisticsError, match="at least 0"):
        seeds_to_decide(1.0, -1.0)
    with pytest.raises(StatisticsError, match="correlation=2"):
        sharpe_difference_error(1.0, 0.0, 2.0, 252)
    path = SessionPath.from_returns(np.random.default_rng(0).normal(0, 0.01, 60), 252)
    with pytest.raises(StatisticsError, match="their Sharpe ratios never differ"):
        sharpe_power(path, path, test_years=4.0)
