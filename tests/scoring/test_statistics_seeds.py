"""IQM and probability of improvement against printed values, scipy and loops."""

from math import hypot

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppo_workbench.config.arrays import Floats, Ints
from ppo_workbench.scoring.statistics.samples import StatisticsError
from ppo_workbench.scoring.statistics.seeds import compare_seeds, interquartile_mean


def _scores(seed: int, mean: float, shape: tuple[int, int] = (10, 4)) -> Floats:
    return np.random.default_rng(seed).normal(mean, 0.5, shape)


def test_seed_comparison_of_the_reference_scores() -> None:
    found = compare_seeds(_scores(5, 1.8), _scores(6, 1.0), resamples=20_000)
    assert round(found.first_iqm.estimate, 6) == 1.606786
    assert round(found.second_iqm.estimate, 6) == 1.128902
    assert found.probability_of_improvement.estimate == 0.7725
    # The reference interval is "about" this: another bootstrap has other draws.
    assert found.first_iqm.low == pytest.approx(1.462, abs=0.01)
    assert found.first_iqm.high == pytest.approx(1.747, abs=0.01)
    # Independent bootstraps: variances add.
    ends = [found.iqm_difference.low, found.iqm_difference.high]
    widths = [i.high - i.low for i in (found.first_iqm, found.second_iqm)]
    assert ends[1] - ends[0] == pytest.approx(hypot(*widths), rel=0.05)
    assert np.mean(ends) == pytest.approx(1.606786 - 1.128902, abs=0.02)
    assert found.probability_of_improvement.low > 0.5
    assert (found.runs, found.markets) == ((10, 10), 4)


def test_intervals_agree_with_a_bootstrap_in_loops() -> None:
    a, b = _scores(1, 0.3, (6, 3)), _scores(2, 0.0, (5, 3))
    rng = np.random.default_rng(0)
    iqms, wins = [], []
    for _ in range(4000):
        drawn_a = np.stack([rng.choice(a[:, m], 6) for m in range(3)], axis=1)
        drawn_b = np.stack([rng.choice(b[:, m], 5) for m in range(3)], axis=1)
        iqms.append(stats.trim_mean(drawn_a, 0.25, axis=None))
        wins.append(np.mean(drawn_a[:, None] > drawn_b[None]))
    found = compare_seeds(a, b, resamples=4000)
    ends = [found.first_iqm.low, found.first_iqm.high]
    np.testing.assert_allclose(ends, np.quantile(iqms, [0.025, 0.975]), atol=0.03)
    ends = [found.probability_of_improvement.low, found.probability_of_improvement.high]
    np.testing.assert_allclose(ends, np.quantile(wins, [0.025, 0.975]), atol=0.03)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 1000))
def test_iqm_agrees_with_scipy_for_any_shape(runs: int, markets: int, seed: int) -> None:
    scores = _scores(seed, 0.0, (runs, markets))
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))


@settings(max_examples=30)
@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 1000))
def test_probability_of_improvement_is_mann_whitney_and_complements(
    runs_a: int, runs_b: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, (runs_a, 3)), rng.integers(0, 5, (runs_b, 3))  # with ties

    def improves(one: Ints, other: Ints) -> float:
        return compare_seeds(one, other, resamples=2).probability_of_improvement.estimate

    found = improves(a, b)
    u = [stats.mannwhitneyu(a[:, m], b[:, m]).statistic for m in range(3)]
    assert found == pytest.approx(np.mean(u) / (runs_a * runs_b))
    assert improves(b, a) == pytest.approx(1 - found)
    assert improves(a, a) == 0.5


def test_markets_of_different_level_do_not_widen_the_interval() -> None:
    # Stratified: a run is only exchanged for one on its own market.
    scores = _scores(3, 0.0, (10, 2))
    lifted = scores + np.array([0.0, 100.0])
    one = compare_seeds(scores, scores + 1).probability_of_improvement
    two = compare_seeds(lifted, lifted + 1).probability_of_improvement
    assert (one.low, one.high) == (two.low, two.high)
    iqm = compare_seeds(lifted, lifted).first_iqm
    assert iqm.high - iqm.low < 1.5


def test_markets_are_resampled_independently_of_each_other() -> None:
    sides = np.repeat([[1.0], [-1.0]], 5, axis=0)
    zero, coins = np.zeros((2, 30)), np.broadcast_to(sides.reshape(10, 1), (10, 30))
    found = compare_seeds(zero, coins, resamples=4000).probability_of_improvement
    expected = 2 * 1.96 * np.sqrt(0.25 / 10 / 30)
    assert found.high - found.low == pytest.approx(expected, rel=0.1)


def test_scores_without_spread_have_intervals_without_width() -> None:
    found = compare_seeds(np.ones((3, 2)), np.zeros((2, 2)))
    assert (found.first_iqm.low, found.first_iqm.high) == (1.0, 1.0)
    assert found.probability_of_improvement.low == 1.0


def test_impossible_scores_are_refused() -> None:
    with pytest.raises(StatisticsError, match="runs of first=1"):
        compare_seeds(np.ones((1, 2)), np.ones((2, 2)))
    with pytest.raises(StatisticsError, match="has 3 markets, must have 2"):
        compare_seeds(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(StatisticsError, match="must have 2 axes"):
        interquartile_mean([1.0, 2.0])
    with pytest.raises(StatisticsError, match="not finite"):
        interquartile_mean([[1.0, float("inf")]])
