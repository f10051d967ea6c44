"""PSR, DSR, track record and annualisation against printed values and second opinions."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ppo_workbench.scoring.statistics.samples import StatisticsError
from ppo_workbench.scoring.statistics.sharpe import (
    SharpeMoments,
    annual_sharpe,
    deflated_sharpe,
    expected_maximum_sharpe,
    lo_factor,
    minimum_backtest_years,
    minimum_track_record,
    probabilistic_sharpe,
)

DAYS = 250  # the papers' sessions a year


@pytest.mark.parametrize(
    ("skewness", "kurtosis", "expected"), [(0.0, 3.0, 0.98167), (-2.448, 10.164, 0.91336)]
)
def test_psr_of_the_papers_example(skewness: float, kurtosis: float, expected: float) -> None:
    moments = SharpeMoments(0.458, 24, skewness, kurtosis)
    assert round(probabilistic_sharpe(moments).probability, 5) == expected


@pytest.mark.parametrize(
    ("trials", "maximum", "expected"), [(100, 0.113172, 0.900397), (46, 0.100362, 0.950502)]
)
def test_dsr_of_the_papers_example(trials: int, maximum: float, expected: float) -> None:
    moments = SharpeMoments(2.5 / sqrt(DAYS), 1250, -3.0, 10.0)
    answer = deflated_sharpe(moments, trials, sqrt(0.5 / DAYS))
    assert round(answer.expected_maximum_per_session, 6) == maximum
    assert round(answer.probability, 6) == expected


def test_dsr_of_normal_returns_allows_more_trials() -> None:
    answer = deflated_sharpe(SharpeMoments(2.5 / sqrt(DAYS), 1250), 88, sqrt(0.5 / DAYS))
    assert round(answer.probability, 6) == 0.950491


@pytest.mark.parametrize("trials", [5, 45, 1000])
def test_expected_maximum_agrees_with_simulation(trials: int) -> None:
    best = np.random.default_rng(trials).normal(0, 0.3, (4000, trials)).max(axis=1)
    # The formula is an approximation: 2 % at five trials, better with more.
    assert expected_maximum_sharpe(trials, 0.3) == pytest.approx(best.mean(), rel=0.03)


def test_expected_maximum_of_one_trial_or_no_spread_is_zero() -> None:
    assert expected_maximum_sharpe(1, 2.0) == 0.0
    assert expected_maximum_sharpe(50, 0.0) == 0.0


def test_minimum_track_record_of_the_papers_examples() -> None:
    daily = minimum_track_record(SharpeMoments(2 / sqrt(DAYS), 700), DAYS, 1 / sqrt(DAYS))
    assert round(daily.sessions, 1) == 682.8
    assert round(daily.years, 4) == 2.7312
    monthly = minimum_track_record(SharpeMoments(2 / sqrt(12), 59, -0.72, 5.78), 12, 1 / sqrt(12))
    assert round(monthly.years, 4) == 4.9913


def test_minimum_track_record_is_where_psr_reaches_the_confidence() -> None:
    length = minimum_track_record(SharpeMoments(0.1, 100, -0.5, 6.0), 252, 0.02, 0.9).sessions
    below = probabilistic_sharpe(SharpeMoments(0.1, int(length), -0.5, 6.0), 0.02)
    above = probabilistic_sharpe(SharpeMoments(0.1, int(length) + 1, -0.5, 6.0), 0.02)
    assert below.probability < 0.9 <= above.probability


def test_minimum_backtest_years_of_the_papers_example() -> None:
    assert round(minimum_backtest_years(45, 1.0), 3) == 4.998


@pytest.mark.parametrize(
    ("q", "rho", "expected"),
    [
        (12, -0.2, 4.171),
        (12, -0.1, 3.798),
        (12, 0.0, 3.464),
        (12, 0.1, 3.160),
        (12, 0.2, 2.879),
        (12, 0.3, 2.615),
        (252, -0.1, 17.543),
        (252, 0.0, 15.875),
        (252, 0.1, 14.365),
    ],
)
def test_lo_factor_of_the_papers_table(q: int, rho: float, expected: float) -> None:
    # Lags of q and above must not enter.
    powers = [rho**k for k in range(1, q + 20)]
    assert round(lo_factor(powers, q), 3) == expected


def test_lo_factor_ignores_lags_of_a_year_and_more() -> None:
    assert lo_factor([0.1, 0.1, 0.9, 0.9, 0.9], 3) == lo_factor([0.1, 0.1], 3)
    assert lo_factor([0.9], 1) == 1.0


def test_annual_sharpe_of_an_autoregression_agrees_with_overlapping_years() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=200_000)
    x = np.empty_like(noise)
    x[0] = noise[0]
    for t in range(1, len(x)):
        x[t] = 0.2 * x[t - 1] + noise[t]
    x += 0.1
    q = 12
    years = x[: len(x) // q * q].reshape(-1, q).sum(axis=1)
    answer = annual_sharpe(x, q)
    assert answer.sharpe_annual == pytest.approx(years.mean() / years.std(), rel=0.02)
    assert answer.sharpe_annual_iid > 1.1 * answer.sharpe_annual
    assert answer.autocorrelations[0] == pytest.approx(0.2, abs=0.01)


def test_annual_sharpe_without_lags_is_the_square_root_rule() -> None:
    x = np.random.default_rng(0).normal(0.001, 0.01, 300)
    answer = annual_sharpe(x, 252, lags=0)
    assert answer.sharpe_annual == pytest.approx(answer.sharpe_annual_iid)
    assert answer.sharpe_annual_iid == pytest.approx(x.mean() / x.std(ddof=1) * sqrt(252))


def test_moments_agree_with_scipy() -> None:
    x = np.random.default_rng(1).standard_t(5, 400) * 0.01 + 0.002
    moments = SharpeMoments.of(x)
    assert moments.skewness == pytest.approx(stats.skew(x))
    assert moments.kurtosis == pytest.approx(stats.kurtosis(x, fisher=False))
    assert moments.sharpe_per_session == pytest.approx(x.mean() / x.std(ddof=1))
    assert moments.sessions == 400


def test_psr_standard_error_agrees_with_simulation() -> None:
    rng = np.random.default_rng(2)
    x = rng.gamma(4.0, 1.0, (6000, 250))  # skewness 1, kurtosis 4.5
    ratios = x.mean(axis=1) / x.std(axis=1)
    error = probabilistic_sharpe(SharpeMoments(2.0, 250, 1.0, 4.5)).standard_error_per_session
    assert error == pytest.approx(ratios.std(), rel=0.03)


@given(st.floats(0.01, 100.0), st.integers(0, 1000))
def test_psr_does_not_depend_on_the_scale_of_returns(scale: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(0.001, 0.01, 60)
    plain = probabilistic_sharpe(SharpeMoments.of(x)).probability
    assert probabilistic_sharpe(SharpeMoments.of(scale * x)).probability == pytest.approx(plain)


@given(st.integers(0, 1000))
def test_psr_of_mirrored_returns_is_the_complement(seed: int) -> None:
    x = np.random.default_rng(seed).normal(0.001, 0.01, 60)
    plain = probabilistic_sharpe(SharpeMoments.of(x)).probability
    assert probabilistic_sharpe(SharpeMoments.of(-x)).probability == pytest.approx(1 - plain)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ([0.01] * 50, "there is no Sharpe ratio"),
        ([0.01, 0.02, 0.03], "at least 4"),
        ([0.01, float("nan"), 0.02, 0.03], r"index \[1\] is not finite"),
        ([[0.01, 0.02], [0.01, 0.02]], "must have 1 axes"),
    ],
)
def test_moments_of_a_degenerate_sample_are_refused(sample: list[float], words: str) -> None:
    with pytest.raises(StatisticsError, match=words):
        SharpeMoments.of(sample)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(StatisticsError, match="at least 1 \\+ skewness"):
        SharpeMoments(0.1, 100, -3.0, 5.0)
    with pytest.raises(StatisticsError, match="trials=0"):
        expected_maximum_sharpe(0, 1.0)
    with pytest.raises(StatisticsError, match="trials_sd=-1"):
        expected_maximum_sharpe(3, -1.0)
    with pytest.raises(StatisticsError, match="no track record is long enough"):
        minimum_track_record(SharpeMoments(0.1, 100), 252, 0.1)
    with pytest.raises(StatisticsError, match="use fewer lags"):
        lo_factor([-0.9], 252)
    with pytest.raises(StatisticsError, match="lags=60"):
        annual_sharpe(np.random.default_rng(0).normal(size=60), 252, lags=60)
