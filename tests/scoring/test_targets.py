"""The specification's targets seed by seed: who holds them, and who diverged."""

from dataclasses import replace

import pytest

from ppo_workbench.scoring.targets import (
    TOLD,
    SeedRun,
    divergences,
    failures,
    meets_targets,
    stability,
    stability_sentence,
)

GOOD = dict.fromkeys(TOLD, 0.0) | {
    "sharpe_annual": 2.0,
    "max_drawdown_frac": 0.05,
    "win_rate_frac": 0.65,
    "n_trades": 1000.0,
    "exposure_mean_abs": 0.4,
    "years": 4.0,
}
IDLE = GOOD | {"n_trades": 3.0}
RUN = SeedRun(3, GOOD, GOOD, entropy_nats=0.4, finite=True)


@pytest.mark.parametrize(
    ("figure", "bound", "beside"),
    [
        ("sharpe_annual", 1.5, 1.51),
        ("max_drawdown_frac", 0.08, 0.079),
        ("win_rate_frac", 0.60, 0.601),
    ],
)
def test_target_is_held_beyond_its_bound_alone(figure: str, bound: float, beside: float) -> None:
    assert meets_targets(GOOD | {figure: beside})
    assert not meets_targets(GOOD | {figure: bound})


def test_flat_agent_with_a_small_drawdown_meets_nothing() -> None:
    assert meets_targets(GOOD | {"n_trades": 200.0, "exposure_mean_abs": 0.2})
    assert not meets_targets(GOOD | {"n_trades": 199.0})
    assert not meets_targets(GOOD | {"exposure_mean_abs": 0.19})


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (RUN, []),
        (replace(RUN, entropy_nats=None), []),
        (replace(RUN, entropy_nats=0.004), []),
        (replace(RUN, validation=IDLE), []),
        (
            replace(RUN, validation=IDLE, entropy_nats=0.004),
            ["collapsed to an entropy of 0.0040 nats, 3 round trips on validation"],
        ),
        (replace(RUN, test=GOOD | {"max_drawdown_frac": 0.26}), ["drawdown 26.0% on test"]),
        (
            replace(RUN, validation=GOOD | {"max_drawdown_frac": 0.3}),
            ["drawdown 30.0% on validation"],
        ),
    ],
)
def test_failures_are_named_and_are_no_divergence(run: SeedRun, words: list[str]) -> None:
    assert failures(run) == words
    assert divergences(run) == []


@pytest.mark.parametrize(
    "run",
    [
        replace(RUN, finite=False),
        replace(RUN, entropy_nats=float("nan")),
        replace(RUN, validation=GOOD | {"sharpe_annual": float("nan")}),
    ],
    ids=["weights", "entropy", "figures"],
)
def test_only_what_is_not_finite_has_diverged(run: SeedRun) -> None:
    assert divergences(run) == ["not finite"]


def test_stability_counts_seeds_and_lists_them() -> None:
    weak = GOOD | {"sharpe_annual": 1.0}
    runs = [RUN, replace(RUN, seed=4, test=weak), replace(RUN, seed=5, validation=weak)]
    found = stability([*runs, replace(RUN, seed=6, finite=False)])
    assert (found["runs"], found["validation_years"]) == (4, 4.0)
    assert (found["meet_on_validation"], found["meet_on_test"], found["diverged"]) == (3, 3, 1)
    assert [row["seed"] for row in found["seeds"]] == [3, 4, 5, 6]
    assert found["seeds"][1]["test"]["sharpe_annual"] == 1.0
    assert stability_sentence("masked", found) == (
        "masked: 3 of 4 seeds hold all targets on 4.0 validation years, 3 on the test; 1 diverged."
    )
    found = stability([RUN, replace(RUN, validation=IDLE, entropy_nats=0.0)])
    assert (found["diverged"], found["failed"]) == (0, 1)
    assert stability_sentence("masked", found).endswith(
        "none diverged, 25% or more were lost or the policy collapsed in 1."
    )
