"""Real tiny sweeps that prune: what pruned trials leave, and the same seed twice."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from tests.e2e.workbench import TINY, Workbench

from ppo_workbench.records.storage import open_storage
from ppo_workbench.records.studies.returns import study_returns
from ppo_workbench.records.studies.session import load_study

SWEEP = [
    *("--multirun", "sweep=smoke", "hydra.sweeper.study_name=tiny", *TINY),
    *("data.synthetic.sessions=40", "hydra.launcher.n_jobs=1", "hydra.sweeper.n_trials=5"),
    *("budget.timesteps=512", "budget.evaluations=4", "tracking=none"),
    # Settings that leave the start, which holds, within so few timesteps.
    *("model.learning_rate=tag(log,interval(0.01,0.1))", "model.ent_coef=interval(3,9)"),
]
# What the preset gives to its own pruner is taken back by null.
ANOTHER = "min_resource: null, reduction_factor: null"
MEDIAN = [
    "objective.seeds=[0,1]",
    f"hydra.sweeper.pruner={{name: median, n_startup_trials: 1, n_warmup_steps: 0, {ANOTHER}}}",
]
# Prunes as soon as the mean is below that of the best trial.
WILCOXON = [
    "objective.seeds=[0,1,2]",
    f"hydra.sweeper.pruner={{name: wilcoxon, p_threshold: 1.0, {ANOTHER}}}",
]


def _sweep(home: Path, *overrides: str) -> optuna.Study:
    assert Workbench(home).run(*SWEEP, *overrides).code == 0
    return load_study(open_storage(None, home, "tiny"), "tiny")


def _result(home: Path, trial: FrozenTrial) -> dict[str, Any]:
    path = home / "sweeps" / "tiny" / str(trial.number) / "result.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("median")


@pytest.fixture(scope="module")
def median(home: Path) -> optuna.Study:
    return _sweep(home, *MEDIAN)


def test_pruned_trial_leaves_what_it_was_and_cost(home: Path, median: optuna.Study) -> None:
    pruned = median.get_trials(states=(TrialState.PRUNED,))
    complete = median.get_trials(states=(TrialState.COMPLETE,))
    assert pruned
    assert complete
    whole = complete[0].user_attrs["timesteps"]
    assert whole == 2 * 512
    for trial in pruned:
        attributes = trial.user_attrs
        evaluations = attributes["pruned_at"] + 1
        assert list(trial.intermediate_values) == list(range(evaluations))
        assert attributes["timesteps"] == evaluations * whole // 4  # both seeds in lockstep
        assert attributes["seeds"] == [0, 1]
        assert attributes["seconds"] > 0
        result = _result(home, trial)
        assert result["state"] == "PRUNED"
        assert result["values"] == [trial.intermediate_values[attributes["pruned_at"]]]
        assert result["values"][0] == pytest.approx(
            attributes["mean"] - attributes["standard_error"]
        )
    returns = study_returns(median, home)
    assert set(returns) == {trial.number for trial in median.trials}
    assert {len(seed) for trial in returns.values() for seed in trial.values()} == {
        _result(home, complete[0])["scorecards"]["0"]["n_sessions"]
    }


def test_long_rollout_reports_at_the_part_of_the_budget_that_it_ends(tmp_path: Path) -> None:
    """A rollout of 256 of 512 timesteps ends the second and the fourth of four parts."""
    study = _sweep(tmp_path, "hydra.sweeper.n_trials=1", "model.n_steps=64")
    assert list(study.trials[0].intermediate_values) == [1, 3]


def test_sweep_with_the_same_seed_repeats_every_value(median: optuna.Study, tmp_path: Path) -> None:
    again = _sweep(tmp_path, *MEDIAN)

    def told(study: optuna.Study) -> list[Any]:
        return [
            (one.state, one.params, one.values, one.intermediate_values) for one in study.trials
        ]

    assert told(again) == told(median)


def test_wilcoxon_prunes_between_seeds_on_pairs_of_seed_and_window(tmp_path: Path) -> None:
    study = _sweep(tmp_path, *WILCOXON)

    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert pruned
    for trial in study.trials:
        result = _result(tmp_path, trial)
        scores = [score for windows in result["windows"].values() for score in windows]
        assert list(trial.intermediate_values) == list(range(len(scores)))
        assert list(trial.intermediate_values.values()) == scores
        trained = len(result["windows"])
        assert trial.user_attrs["timesteps"] == trained * 512
        if trial.state is TrialState.PRUNED:
            assert trained < 3
            assert trial.user_attrs["pruned_at"] == 2 * trained - 1
        else:
            assert trained == 3
