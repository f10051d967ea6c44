"""PBO against printed values, slicing by brute force, and what it must be by construction."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.statistics.overfitting import probability_of_overfitting
from ppo_workbench.scoring.statistics.samples import StatisticsError


def test_pbo_of_reference_noise_and_with_one_better_strategy() -> None:
    x = np.random.default_rng(1).normal(0, 0.01, (50, 1008))
    noise = probability_of_overfitting(x)
    assert round(noise.pbo, 6) == 0.542813
    assert noise.splits == 12_870
    x[7] += 0.0015
    assert round(probability_of_overfitting(x).pbo, 6) == 0.244833


def _by_slicing(x: Floats, blocks: int) -> tuple[Floats, Floats]:
    pieces = np.array_split(np.arange(x.shape[1]), blocks)
    logits, outside = [], []
    for chosen in combinations(range(blocks), blocks // 2):
        days = np.concatenate([pieces[k] for k in chosen])
        rest = np.setdiff1d(np.arange(x.shape[1]), days)
        before = x[:, days].mean(axis=1) / x[:, days].std(axis=1, ddof=1)
        after = x[:, rest].mean(axis=1) / x[:, rest].std(axis=1, ddof=1)
        best = int(np.argmax(before))
        share = stats.rankdata(after)[best] / (len(x) + 1)
        logits.append(np.log(share / (1 - share)))
        outside.append(after[best])
    return np.array(logits), np.array(outside)


@pytest.mark.parametrize(("strategies", "days", "blocks"), [(2, 40, 4), (7, 101, 6), (5, 63, 8)])
def test_pbo_agrees_with_slicing_every_split(strategies: int, days: int, blocks: int) -> None:
    x = np.random.default_rng(days).normal(0.01, 0.02, (strategies, days))
    answer = probability_of_overfitting(x, blocks)
    logits, outside = _by_slicing(x, blocks)
    assert answer.splits == comb(blocks, blocks // 2)
    np.testing.assert_allclose(answer.logits, logits)
    assert answer.probability_of_loss == np.mean(outside < 0)


def test_pbo_of_noise_is_near_one_half_on_average() -> None:
    rng = np.random.default_rng(0)
    found = [probability_of_overfitting(rng.normal(size=(20, 320)), 8).pbo for _ in range(200)]
    # Standard error about .016.
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_pbo_with_one_truly_best_strategy_is_near_zero() -> None:
    x = np.random.default_rng(0).normal(0, 0.01, (20, 504))
    x[3] += 0.004
    answer = probability_of_overfitting(x)
    assert answer.pbo < 0.001
    assert answer.probability_of_loss < 0.001


def test_pbo_where_each_half_year_rewards_the_other_strategy_is_one() -> None:
    days = np.arange(160)
    wave = np.where(days < 80, 0.01, -0.01)
    noise = np.random.default_rng(0).normal(0, 0.001, (2, 160))
    answer = probability_of_overfitting(np.stack([wave, -wave]) + noise, 2)
    assert answer.pbo == 1.0
    assert answer.probability_of_loss == 1.0


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.1, 10.0))
def test_pbo_depends_neither_on_scale_nor_on_order(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.01, (6, 48))
    plain = probability_of_overfitting(x, 6)
    other = probability_of_overfitting(scale * x[rng.permutation(6)], 6)
    np.testing.assert_allclose(other.logits, plain.logits)


def test_pbo_of_flat_and_equal_strategies_is_finite() -> None:
    x = np.zeros((3, 64))
    answer = probability_of_overfitting(x, 4)
    assert answer.pbo == 1.0  # the middle rank is not the upper half
    assert np.all(np.isfinite(answer.logits))


@pytest.mark.parametrize(
    ("shape", "blocks", "words"),
    [
        ((5, 100), 7, "blocks=7"),
        ((5, 100), 22, "blocks=22"),
        ((5, 31), 16, "at least 32"),
        ((1, 100), 16, "strategies=1"),
    ],
)
def test_pbo_of_impossible_arguments_is_refused(
    shape: tuple[int, int], blocks: int, words: str
) -> None:
    with pytest.raises(StatisticsError, match=words):
        probability_of_overfitting(np.ones(shape), blocks)
