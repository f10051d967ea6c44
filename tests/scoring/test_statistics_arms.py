"""SPA and the model confidence set against second implementations and known answers."""

import numpy as np
import pytest

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.statistics.resampling import stationary_indices
from ppo_workbench.scoring.statistics.samples import StatisticsError
from ppo_workbench.scoring.statistics.selection import (
    _long_run_deviation,
    confidence_set,
    superior_ability,
)


def _arms(seed: int, count: int = 5, days: int = 250) -> dict[str, Floats]:
    x = np.random.default_rng(seed).normal(0.0, 0.01, (count, days))
    return {f"arm {k}": row for k, row in enumerate(x)}


def test_long_run_deviation_agrees_with_the_sum_over_lags() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).cumsum(axis=0)
    n, keep = len(x), 1 - 1 / 7
    for column, found in zip(x.T, _long_run_deviation(x, 7), strict=True):
        c = column - column.mean()
        variance = c @ c / n
        for lag in range(1, n):
            weight = (1 - lag / n) * keep**lag + lag / n * keep ** (n - lag)
            variance += 2 * weight * (c[lag:] @ c[:-lag]) / n
        assert found == pytest.approx(np.sqrt(variance))


def test_spa_agrees_with_hansens_formula() -> None:
    arms = _arms(3)
    arms["arm 2"] = arms["arm 2"] + 0.0008
    arms["arm 4"] = arms["arm 4"] - 0.003
    found = superior_ability(arms, "arm 0", risk_adjusted=False, block_sessions=2.0, resamples=4000)
    d = np.stack([arms[f"arm {k}"] - arms["arm 0"] for k in range(1, 5)], axis=1)
    n = len(d)
    omega = _long_run_deviation(d, 2)
    mean = d.mean(axis=0)
    statistic = max(0.0, np.max(np.sqrt(n) * mean / omega))
    kept = mean >= -omega * np.sqrt(2 * np.log(np.log(n)) / n)
    assert not kept[3]
    days = stationary_indices(n, 4000, 2.0, np.random.default_rng(9))
    drawn = d[days].mean(axis=1)
    for centre, p in (
        (np.where(kept, mean, 0.0), found.p_value),
        (np.maximum(mean, 0.0), found.p_value_low),
        (mean, found.p_value_high),
    ):
        z = np.sqrt(n) * (drawn - centre) / omega
        expected = np.mean(np.maximum(z.max(axis=1), 0.0) > statistic)
        assert p == pytest.approx(expected, abs=0.03)
    assert found.best == "arm 2"
    assert found.arms_tested == 4


def test_spa_claims_nothing_on_noise_more_often_than_its_level() -> None:
    found = [
        superior_ability(_arms(seed, 4, 150), "arm 0", resamples=200, block_sessions=1.0).p_value
        for seed in range(150)
    ]
    # Binomial: 7.5 expected, more than 15 with probability .003.
    assert np.count_nonzero(np.array(found) < 0.05) <= 15


def test_spa_is_not_blinded_by_one_volatile_arm() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0, 0.01, 500)
    arms = {
        "base": base,
        "steady": base + rng.normal(0.0005, 0.001, 500),
        "wild": rng.normal(0, 0.2, 500),
    }
    found = superior_ability(arms, "base", risk_adjusted=False)
    assert found.best == "steady"
    assert found.p_value < 0.01


def test_spa_with_a_superior_benchmark_finds_nothing() -> None:
    arms = _arms(4)
    arms["arm 0"] = arms["arm 0"] + 0.01
    found = superior_ability(arms, "arm 0")
    assert (found.p_value, found.best) == (1.0, "arm 0")


def test_spa_does_not_depend_on_the_order_of_arms() -> None:
    arms = _arms(2)
    forward = superior_ability(arms, "arm 0")
    assert superior_ability(dict(reversed(arms.items())), "arm 0") == forward


def test_spa_without_any_other_arm_than_twins_has_a_p_value_of_one() -> None:
    x = _arms(0)["arm 0"]
    found = superior_ability({"ppo": x, "control": x.copy(), "half": 0.5 * x}, "ppo")
    assert (found.p_value, found.arms_tested, found.best) == (1.0, 0, "ppo")


def test_spa_counts_twins_once() -> None:
    arms = _arms(2)
    assert superior_ability({**arms, "twin": arms["arm 3"].copy()}, "arm 0") == superior_ability(
        arms, "arm 0"
    )


def test_confidence_set_of_noise_holds_nearly_every_arm_and_of_one_better_only_it() -> None:
    arms = _arms(5, 6, 500)
    assert len(confidence_set(arms).included) >= 5
    arms["arm 3"] = arms["arm 3"] + 0.004
    found = confidence_set(arms)
    assert found.included == ("arm 3",)
    assert found.p_values["arm 3"] == 1.0
    assert max(p for name, p in found.p_values.items() if name != "arm 3") < 0.05


def test_confidence_set_holds_the_best_arm_as_often_as_promised() -> None:
    held = 0
    for seed in range(100):
        arms = _arms(seed, 3, 150)
        arms["arm 1"] = arms["arm 1"] + 0.0005
        found = confidence_set(arms, confidence=0.9, resamples=200, block_sessions=1.0, seed=seed)
        held += "arm 1" in found.included
    assert held >= 85


def test_confidence_set_does_not_depend_on_the_order_of_arms() -> None:
    arms = _arms(6)
    arms["arm 1"] = arms["arm 1"] + 0.002
    forward = confidence_set(arms)
    backward = confidence_set(dict(reversed(arms.items())))
    assert forward.p_values == backward.p_values
    assert set(forward.included) == set(backward.included)


def test_confidence_set_gives_twins_one_verdict() -> None:
    arms = _arms(7, 3)
    arms["arm 2"] = arms["arm 2"] + 0.004
    alone = confidence_set(arms)
    twins = confidence_set({"control": arms["arm 2"].copy(), **arms})
    assert twins.p_values == {"control": 1.0, **alone.p_values}
    assert twins.included == ("control", "arm 2")
    early = confidence_set({"arm 0": arms["arm 0"], "copy": arms["arm 0"].copy(), **arms})
    assert early.p_values == {"copy": alone.p_values["arm 0"], **alone.p_values}
    same = confidence_set({"a": arms["arm 0"], "b": arms["arm 0"].copy()})
    assert same.p_values == {"a": 1.0, "b": 1.0}


def test_flat_arm_takes_part() -> None:
    arms = _arms(8, 2, 500) | {"flat": np.zeros(500)}
    arms["arm 1"] = arms["arm 1"] + 0.003
    assert "flat" not in confidence_set(arms).included
    assert superior_ability(arms, "flat").best == "arm 1"
    assert superior_ability(arms, "flat").p_value < 0.05


def test_impossible_arms_are_refused() -> None:
    arms = _arms(0, 2, 60)
    with pytest.raises(StatisticsError, match="benchmark=x"):
        superior_ability(arms, "x")
    with pytest.raises(StatisticsError, match="arms=1"):
        confidence_set({"a": arms["arm 0"]})
    with pytest.raises(StatisticsError, match="have 59 sessions, must have 60"):
        confidence_set({"a": arms["arm 0"], "b": arms["arm 1"][1:]})
    with pytest.raises(StatisticsError, match="differ by a constant"):
        confidence_set({"a": arms["arm 0"], "b": arms["arm 0"] + 0.01})
    with pytest.raises(StatisticsError, match="at least 20"):
        confidence_set({"a": [0.01] * 19, "b": [0.02] * 19})
    with pytest.raises(StatisticsError, match="block_sessions"):
        confidence_set(arms, block_sessions=60.0)
