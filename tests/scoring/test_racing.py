"""Racing drops what is clearly worse, and nothing else."""

import numpy as np
from scipy.stats import ttest_rel

from ppo_workbench.scoring.statistics.racing import CONFIDENCE, clearly_worse


def _scores(mean: float, seed: int, deviation: float = 1.0) -> list[list[float]]:
    noise = np.random.default_rng(seed).standard_normal((3, 4))
    return (mean + deviation * noise).tolist()  # type: ignore[no-any-return]


def test_clearly_worse_candidate_is_dropped_and_a_close_one_stays() -> None:
    common = _scores(2.0, 0)
    close = [[value - 0.05 * (-1) ** k for k, value in enumerate(row)] for row in common]
    far = [[value - 1.5 - 0.1 * k for k, value in enumerate(row)] for row in common]

    assert clearly_worse({7: common, 8: close, 9: far}) == [9]


def test_race_agrees_with_the_paired_t_test_of_scipy() -> None:
    for seed in range(40):
        one, two = _scores(1.0, seed), _scores(0.0, 1000 + seed)
        best, other = (one, two) if np.mean(one) >= np.mean(two) else (two, one)
        p = ttest_rel(np.ravel(best), np.ravel(other), alternative="greater").pvalue
        assert bool(clearly_worse({0: one, 1: two})) == (p < 1.0 - CONFIDENCE)


def test_one_seed_drops_nobody() -> None:
    assert clearly_worse({0: [[5.0, 5.1, 5.2, 5.1]], 1: [[0.0, 0.1, 0.2, 0.0]]}) == []


def test_equal_candidates_stay() -> None:
    same = _scores(1.0, 3)

    assert clearly_worse({0: same, 1: same}) == []
