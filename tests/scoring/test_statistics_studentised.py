"""The studentised bootstrap against loops, derivatives and known variances."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.resampling import pool, resample, stationary_indices
from ppo_workbench.scoring.statistics.samples import symmetric_interval, symmetric_p_value
from ppo_workbench.scoring.statistics.studentised import (
    Studentised,
    effective_count,
    long_run_error,
    sharpe_drawn_errors,
    sharpe_errors,
    sharpe_influence,
)


def _path(seed: int, sessions: int = 120) -> SessionPath:
    returns = np.random.default_rng(seed).normal(0.0005, 0.01, sessions)
    return SessionPath.from_returns(returns, 252)


def _ratio(x: Floats, weights: Floats) -> float:
    mean = weights @ x
    return float(mean / sqrt(weights @ (x - mean) ** 2) * sqrt(252))


def test_influence_is_the_derivative_of_the_ratio_by_the_weight_of_a_day() -> None:
    path, n = _path(0), 120
    equal, step = np.full(n, 1 / n), 1e-6
    slopes = [
        (_ratio(path.excess, (1 - step) * equal + step * day) - _ratio(path.excess, equal)) / step
        for day in np.eye(n)
    ]
    influence = sharpe_influence(path.excess, path.sessions_per_year)
    np.testing.assert_allclose(influence, slopes, atol=1e-3)
    assert influence.mean() == pytest.approx(0.0, abs=1e-12)


def test_effective_count_is_one_for_copies_and_their_number_for_strangers() -> None:
    rng = np.random.default_rng(1)
    days = rng.normal(size=20_000)
    copies, strangers = [days * k for k in (1.0, 2.0, 3.0)], list(rng.normal(size=(5, 20_000)))
    assert effective_count(copies) == pytest.approx(1.0)
    assert effective_count(strangers) == pytest.approx(5.0, rel=0.01)
    # Equal correlations rho: n^2 / (n + n (n - 1) rho^2).
    mixed = [days + x for x in strangers]
    assert effective_count(mixed) == pytest.approx(25 / (5 + 20 * 0.25), rel=0.02)
    flat, ruined = np.zeros(20_000), np.empty(0)
    assert effective_count([flat, ruined, days]) == effective_count([]) == 1.0


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.3, 0.6])
def test_long_run_error_is_that_of_the_autoregression(rho: float) -> None:
    noise = np.random.default_rng(1).normal(size=40_000)
    x = noise.copy()
    for t in range(1, len(x)):
        x[t] += rho * x[t - 1]
    assert long_run_error(x) * sqrt(len(x)) == pytest.approx(1 / (1 - rho), rel=0.04)


def test_long_run_error_of_a_moving_average_needs_the_kernel() -> None:
    noise = np.random.default_rng(2).normal(size=40_001)
    x = noise[1:] + 0.8 * noise[:-1]
    # An AR(1) alone would say 2.18: a fifth too much.
    assert long_run_error(x) * sqrt(len(x)) == pytest.approx(1.8, rel=0.06)


def test_long_run_error_of_a_constant_is_zero_and_of_an_alternation_finite() -> None:
    assert long_run_error(np.full(50, 0.3)) == 0.0
    assert 0.0 <= long_run_error(np.tile([1.0, -1.0], 25)) < 0.1
    one = np.zeros(50)
    one[-1] = 1.0
    assert 0.0 < long_run_error(one) < 1.0


def _error_by_loop(influence: Floats, days: Floats) -> float:
    """Add up the squares of the sums over runs of consecutive days, the first after the last."""
    n, total, block = len(days), 0.0, influence[0]
    for t in range(1, n):
        if days[t] == (days[t - 1] + 1) % n:
            block += influence[t]
        else:
            total, block = total + block**2, influence[t]
    return sqrt(total + block**2) / n


@pytest.mark.parametrize("block", [1.0, 5.0, 40.0])
def test_drawn_errors_are_those_of_the_blocks_of_each_draw(block: float) -> None:
    arms = [[_path(1), _path(2)], [_path(3), _path(4)]]
    days = stationary_indices(120, 70, block, np.random.default_rng(0))
    found = sharpe_drawn_errors(arms, days)
    for b, row in enumerate(days):
        drawn = [
            np.mean([_influence(path.excess[row]) for path in paths], axis=0) for paths in arms
        ]
        for i, j, influence in ((0, 0, drawn[0]), (1, 1, drawn[1]), (0, 1, drawn[0] - drawn[1])):
            assert found[b, i, j] == pytest.approx(_error_by_loop(influence, row), rel=1e-9)
            assert found[b, j, i] == found[b, i, j]


def _influence(x: Floats) -> Floats:
    z = (x - x.mean()) / x.std()
    influence: Floats = (z - x.mean() / x.std() / 2 * (z**2 - 1)) * sqrt(252)
    return influence


def test_interval_is_the_quantile_of_standardised_deviations() -> None:
    arms = {"a": [_path(5)], "b": [_path(6)]}
    found = resample(arms, resamples=300, block_sessions=3.0, seed=4, figures=["sharpe_annual"])
    draws, estimates = found.draws["sharpe_annual"], found.estimates["sharpe_annual"]
    days = stationary_indices(120, 300, 3.0, np.random.default_rng(4))
    own = sharpe_errors(list(arms.values()))
    drawn = sharpe_drawn_errors(list(arms.values()), days)
    reach = np.quantile(np.abs(draws[:, 0] - estimates[0]) / drawn[:, 0, 0], 0.95) * own[0, 0]
    one = found.interval("sharpe_annual", "a")
    np.testing.assert_allclose([one.low, one.high], estimates[0] + reach * np.array([-1, 1]))
    apart = draws[:, 0] - draws[:, 1] - (estimates[0] - estimates[1])
    reach = np.quantile(np.abs(apart) / drawn[:, 0, 1], 0.9) * own[0, 1]
    two = found.difference("sharpe_annual", "a", "b", 0.9)
    np.testing.assert_allclose((two.high - two.low) / 2, reach)
    assert two.standard_error == own[0, 1]


def test_dependent_days_widen_the_interval_that_percentiles_leave_short() -> None:
    rng, x = np.random.default_rng(7), np.zeros(504)
    for t in range(1, 504):
        x[t] = 0.5 * x[t - 1] + rng.normal(0.0, 0.01)
    found = resample({"a": [SessionPath.from_returns(x, 252)]}, figures=["sharpe_annual"])
    interval = found.interval("sharpe_annual", "a")
    draws = found.draws["sharpe_annual"][:, 0]
    assert interval.high - interval.low > np.subtract(*np.quantile(draws, [0.975, 0.025]))


def test_clusters_of_volatility_ask_for_longer_blocks_of_sharpe_ratios() -> None:
    rng = np.random.default_rng(8)
    calm_and_wild = np.repeat(np.tile([0.003, 0.02], 10), 25) * rng.normal(size=500)
    arms = {"a": [SessionPath.from_returns(calm_and_wild, 252)]}
    lengths = resample(arms, resamples=10).block_lengths
    assert lengths["sharpe_annual"] > 10.0 > 2.0 * lengths["max_drawdown_frac"]
    shuffled = {"a": [SessionPath.from_returns(rng.permutation(calm_and_wild), 252)]}
    assert resample(shuffled, resamples=10).block_sessions < 5.0
    assert set(resample(arms, resamples=10, block_sessions=4.0).block_lengths.values()) == {4.0}


def test_a_path_that_hardly_trades_has_a_finite_interval() -> None:
    returns = np.zeros(60)
    returns[[10, 40]] = 0.01, -0.004
    arms = {
        "rare": [SessionPath.from_returns(returns, 252)],
        "flat": [_flat()],
        "a": [_path(1, 60)],
    }
    found = resample(arms, resamples=400)
    for first, second in (("rare", "flat"), ("rare", "a"), ("flat", "a")):
        difference = found.difference("sharpe_annual", first, second)
        assert np.all(np.isfinite([difference.low, difference.high, difference.p_value]))
    assert not found.difference("sharpe_annual", "rare", "flat").decided


def _flat() -> SessionPath:
    return SessionPath.from_returns(np.zeros(60), 252)


def test_deviation_of_a_draw_without_error_is_bounded() -> None:
    studentised = Studentised(
        by_days=np.array([[1.0], [1.0]]),
        by_seeds=np.array([[0.0], [0.5]]),
        errors=np.array([[0.5]]),
        drawn_errors=np.array([[[0.0]], [[1.0]]]),
    )
    assert studentised.deviations(0).tolist() == [10.0, 1.0]


def test_pooled_markets_add_the_squares_of_their_errors() -> None:
    parts = [
        resample({"a": [_path(k)], "b": [_path(k + 50)]}, seed=k, figures=["sharpe_annual"])
        for k in range(4)
    ]
    both = pool(parts)
    errors = [part.difference("sharpe_annual", "a", "b").standard_error for part in parts]
    expected = sqrt(sum(error**2 for error in errors)) / 4
    difference = both.difference("sharpe_annual", "a", "b")
    assert difference.standard_error == pytest.approx(expected)
    assert difference.high - difference.estimate == pytest.approx(1.96 * expected, rel=0.1)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(-3.0, 3.0), st.floats(0.5, 0.99))
def test_symmetric_p_value_inverts_the_symmetric_interval(
    seed: int, estimate: float, confidence: float
) -> None:
    deviations = np.random.default_rng(seed).normal(size=999)
    interval = symmetric_interval(estimate, deviations, confidence)
    assert (interval.low + interval.high) / 2 == pytest.approx(estimate)
    p_value = symmetric_p_value(estimate, deviations)
    assert 0.0 < p_value <= 1.0
    if abs(p_value - (1 - confidence)) > 0.003:
        assert interval.excludes(0.0) == (p_value < 1 - confidence)
