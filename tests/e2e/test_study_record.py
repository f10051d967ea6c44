"""A tiny real study with a budget of minutes, gone on with once: everything is found again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pytest
import torch
from mlflow.entities import Run
from tests.e2e.workbench import TINY, Workbench

from ppo_workbench.delivery.artifact import load_artifact, verify
from ppo_workbench.records.storage import open_storage
from ppo_workbench.records.studies.returns import read_returns, study_returns
from ppo_workbench.records.studies.session import SETTLED, load_study

MARKET = [*TINY, "data.synthetic.sessions=40"]
SWEEP = [
    *("--multirun", "sweep=smoke", "hydra.sweeper.study_name=tiny", *MARKET),
    *("budget.timesteps=null", "budget.minutes=0.005", "objective.seeds=[3,4]"),
]


@pytest.fixture(scope="module")
def home(make_home: Callable[[str], Path]) -> Path:
    home = make_home("study")
    for n_trials in (2, 3):
        assert Workbench(home).run(*SWEEP, f"hydra.sweeper.n_trials={n_trials}").code == 0
    return home


@pytest.fixture(scope="module")
def study(home: Path) -> optuna.Study:
    return load_study(open_storage(None, home, "tiny"), "tiny")


@pytest.fixture(scope="module")
def client(home: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")


@pytest.fixture(scope="module")
def parent(client: mlflow.MlflowClient) -> Run:
    (run,) = [run for run in _runs(client) if "trial" not in run.data.tags]
    return run


def _runs(client: mlflow.MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("ppo_workbench")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def _paths(client: mlflow.MlflowClient, run: Run, folder: str | None = None) -> set[str]:
    return {file.path for file in client.list_artifacts(run.info.run_id, folder)}


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def test_budget_of_minutes_is_one_number_for_all_trials(
    home: Path, study: optuna.Study, parent: Run
) -> None:
    timesteps = study.user_attrs[SETTLED]["timesteps"]

    assert study.user_attrs[SETTLED]["budget"]["minutes"] == 0.005
    assert parent.data.params["budget.timesteps"] == str(timesteps)
    for trial in study.trials:
        budget = _read(home / "sweeps" / "tiny" / str(trial.number) / "config.json")["budget"]
        assert (budget["timesteps"], budget["minutes"]) == (timesteps, None)
        assert trial.user_attrs["timesteps"] >= 2 * timesteps  # two seeds, whole rollouts
        assert trial.user_attrs["timesteps"] < 2 * (timesteps + 128)


def test_parent_run_holds_the_study_and_what_it_cost(
    client: mlflow.MlflowClient, parent: Run, study: optuna.Study
) -> None:
    metrics, tags = parent.data.metrics, parent.data.tags

    assert parent.info.status == "FINISHED"
    assert metrics["trials/complete"] + metrics["trials/pruned"] == 3
    assert metrics["trials/fail"] == 0
    durations = [trial.duration.total_seconds() for trial in study.trials if trial.duration]
    assert metrics["core_minutes"] == pytest.approx(sum(durations) / 60)
    assert metrics["timesteps"] == sum(trial.user_attrs["timesteps"] for trial in study.trials)
    assert metrics["steps_per_second"] >= metrics["timesteps"] / sum(durations)
    assert tags["best.model.learning_rate"] == str(study.best_params["model.learning_rate"])
    assert float(tags["best.value"]) == study.best_value
    assert _paths(client, parent) >= {"analysis.html", "analysis.json"}


def test_children_say_which_trial_they_are_and_how_it_ended(
    client: mlflow.MlflowClient, parent: Run
) -> None:
    children = [run for run in _runs(client) if run.info.run_id != parent.info.run_id]

    assert sorted(run.data.tags["trial"] for run in children) == ["0", "1", "2"]
    for run in children:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["study"] == "tiny"
        assert run.data.tags["state"] in ("COMPLETE", "PRUNED")
        assert run.data.tags["seeds"] == "[3, 4]"
        assert run.info.status == "FINISHED"


def test_daily_validation_returns_of_all_trials_are_found_from_the_study(
    home: Path, study: optuna.Study
) -> None:
    returns = study_returns(study, home)

    assert set(returns) == {trial.number for trial in study.trials}
    lengths = {len(seed) for trial in returns.values() for seed in trial.values()}
    assert len(lengths) == 1  # the same sessions: they make one matrix
    for number, seeds in returns.items():
        assert set(seeds) == {3, 4}
        card = _read(home / "sweeps" / "tiny" / str(number) / "result.json")["scorecards"]["3"]
        assert float(np.prod(1.0 + seeds[3]) - 1) == pytest.approx(
            card["total_return_frac"], rel=1e-4, abs=1e-6
        )
        file = home / "sweeps" / "tiny" / str(number) / "validation_returns.npz"
        assert file.stat().st_size < 1_000 + 2 * 4 * len(seeds[3])


def test_finished_trial_is_found_from_each_place_in_every_other(
    home: Path, study: optuna.Study, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    trial = study.best_trial
    # From Optuna: the folder, the models in it, the run.
    folder = home / trial.user_attrs["folder"]
    models = [load_artifact(folder, name) for name in trial.user_attrs["artifacts"]]
    run = client.get_run(trial.user_attrs["run_id"])
    assert [model.metadata.seed for model in models] == [3, 4]
    # From the folder: the trial of the study, the run, the models.
    result = _read(folder / "result.json")
    assert (result["study"], result["trial"]) == ("tiny", trial.number)
    assert result["params"] == trial.params
    assert result["values"] == trial.values
    assert result["run_id"] == run.info.run_id
    assert {f"{name}.pth" for name in result["artifacts"]} == {
        path.name for path in folder.glob("*.pth")
    }
    # From the run: the trial of the study, the folder, the models, and what lies there.
    tags = run.data.tags
    assert (tags["study"], tags["trial"]) == ("tiny", str(trial.number))
    assert home / tags["folder"] == folder
    assert run.data.metrics["objective_final"] == trial.value
    kept = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    for name in ("config.json", "result.json", "log.txt", "validation_returns.npz"):
        assert (kept / name).read_bytes() == (folder / name).read_bytes()
    assert set(read_returns(kept)) == {3, 4}
    for seed, model in zip((3, 4), models, strict=True):
        copy = load_artifact(kept / "model", f"seed_{seed}")
        verify(copy)
        assert all(torch.equal(copy.tensors[key], model.tensors[key]) for key in model.tensors)
        # From a model: the trial of the study, and so its folder; the run; the parameters.
        metadata = copy.metadata
        config: Any = metadata.config
        own = config["trial"]
        assert (own["study"], own["number"]) == ("tiny", trial.number)
        assert metadata.mlflow_run_id == run.info.run_id
        assert config["model"]["ent_coef"] == trial.params["model.ent_coef"]
        assert config["seed"] == metadata.seed == seed


def test_model_of_a_trial_scores_as_the_trial_said(home: Path, study: optuna.Study) -> None:
    folder = home / study.best_trial.user_attrs["folder"]
    out = home / "again.json"
    artifact = f"artifact={folder}/seed_3"

    code = Workbench(home).run("task=evaluate", artifact, f"result_json={out}").code

    assert code == 0
    (again,) = _read(out)["scorecards"].values()
    first = _read(folder / "result.json")["scorecards"]["3"]
    assert again["validation"]["sharpe_annual"] == pytest.approx(first["sharpe_annual"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective.metrics=[calmar]", "objective.metrics=['calmar']: the study was begun with"),
        ("hydra.sweeper.directions=[minimize]", "directions=['minimize']: objective.metrics="),
        ("budget.minutes=1", "budget.minutes=1.0: the study was begun with 0.005"),
        ("model.ent_coef=choice(0.1,0.2)", "model.ent_coef=choice(0.1,0.2): the study tiny"),
    ],
)
def test_sweep_into_the_study_with_another_question_is_refused(
    home: Path, study: optuna.Study, capsys: pytest.CaptureFixture[str], override: str, words: str
) -> None:
    more = "hydra.sweeper.n_trials=9"

    result = Workbench(home, capsys).run(*SWEEP, more, override)

    assert result.code == 2
    assert words in result.err
    assert len(result.err.splitlines()) == 1
    assert len(study.trials) == 3
