"""A real sweep of two tiny trials: Hydra, Optuna, processes, MLflow and the analysis."""

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from tests.e2e.workbench import BUDGET, TINY, Workbench

from ppo_workbench.pipeline.sweep import trial
from ppo_workbench.records.studies.session import SWEEP, load_study, open_storage

SMOKE = ["--multirun", "sweep=smoke", "hydra.sweeper.study_name=smoke", "tracking.plots=false"]


@pytest.fixture(scope="module")
def swept(make_home: Callable[[str], Path]) -> Path:
    home = make_home("sweep")
    assert Workbench(home).run(*SMOKE).code == 0
    return home


def test_sweep_leaves_trials_with_config_result_and_daily_returns(swept: Path) -> None:
    for number in (0, 1):
        folder = swept / "sweeps" / "smoke" / str(number)
        result = json.loads((folder / "result.json").read_text())
        assert result["state"] == "COMPLETE"
        assert json.loads((folder / "config.json").read_text())["trial"]["number"] == number
        returns = np.load(folder / "validation_returns.npz")["seed_0"]
        assert len(returns) == result["scorecards"]["0"]["n_sessions"]
    assert (swept / "sweeps" / "smoke" / "analysis.html").stat().st_size < 8_000_000


def test_sweep_is_one_parent_run_with_its_trials_as_children(swept: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{swept}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("ppo_workbench")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "trial" not in run.data.tags]
    children = [run for run in runs if "trial" in run.data.tags]
    assert len(parents) == 1
    assert {run.data.tags["trial"] for run in children} == {"0", "1"}
    for run in children:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert run.data.tags["state"] == "COMPLETE"
        assert "objective_final" in run.data.metrics
    assert parents[0].info.status == "FINISHED"
    assert "best.model.learning_rate" in parents[0].data.tags


def test_sweep_never_opens_the_test_split(swept: Path) -> None:
    assert not (swept / "mlruns" / "test_openings.jsonl").exists()


def test_analysis_can_be_written_again(swept: Path) -> None:
    page = swept / "sweeps" / "smoke" / "analysis.html"
    page.unlink()

    assert Workbench(swept).run("task=analyse", "study=smoke").code == 0

    assert page.is_file()


def test_same_command_again_adds_nothing_to_a_full_study(
    swept: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert Workbench(swept).run(*SMOKE).code == 0

    assert str(swept / "sweeps" / "smoke" / "analysis.html") in capfd.readouterr().out
    assert not (swept / "sweeps" / "smoke" / "2").exists()


def test_same_study_of_another_market_is_refused_and_left_as_it_was(
    swept: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [*SMOKE, "hydra.sweeper.n_trials=3", "data.synthetic.seed=5"]
    assert Workbench(swept).run(*command).code == 2

    error = capfd.readouterr().err
    assert "data.synthetic.seed=5: the study was begun with 0 " in error
    assert len(error.strip().splitlines()) == 1
    study = load_study(open_storage(None, swept, "smoke"), "smoke")
    assert study.user_attrs[SWEEP]["n_trials"] == 2
    assert len(study.trials) == 2


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["data.source=nosuch", "market=index"],
            "data.source='nosuch' is unknown; use one of synthetic",
        ),
        (
            ["data=file", "market=index", "data.path=/nowhere/bars.csv"],
            "data.path='/nowhere/bars.csv' does not exist",
        ),
        (["features.names=[astrology]"], "astrology"),
        (["env.episode_bars=100000"], "env.episode_bars=100000"),
        (["objective.windows=30"], "objective.windows=30: the validation split has"),
    ],
)
def test_sweep_that_no_trial_could_carry_out_is_refused_before_the_first(
    overrides: list[str], sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert Workbench(tmp_path).run(*SMOKE, *overrides).code == 2

    error = capfd.readouterr().err
    assert sentence in error
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize("sweep", ["lr_entropy", "full", "risk"])
def test_shipped_sweep_reaches_its_first_trial(sweep: str, tmp_path: Path) -> None:
    """A study that is full at once: everything is checked, nothing is trained."""
    study = f"hydra.sweeper.study_name={sweep}"
    smallest = ["hydra.sweeper.n_trials=1", "hydra.sweeper.check=null", "tracking=none"]
    toy = ["data.synthetic.sessions=24", "model.n_envs=64"]
    score = ["objective.seeds=[0]", "objective.windows=1"]  # few sessions to validate on
    small = ["env.episode_bars=390", "budget.timesteps=8192", "features.volatility_slow_bars=195"]

    result = Workbench(tmp_path).run(
        "--multirun",
        f"sweep={sweep}",
        study,
        *smallest,
        *toy,
        *score,
        *small,
        "hydra.sweeper.max_failure_rate=1",
    )

    assert result.code == 0
    assert (tmp_path / "sweeps" / sweep / "journal.log").is_file()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective.metrics=[sharp]", "objective.metrics"),
        ("objective.metrics=[max_drawdown_frac]", "hydra.sweeper.directions=[minimize]"),
        ("hydra.sweeper.directions=[minimize]", "hydra.sweeper.directions=[maximize]"),
        ("hydra.sweeper.directions=[maximize,maximize]", "hydra.sweeper.directions=[maximize]"),
        ("output=model", "output=model"),
        ("hydra.sweeper.n_trials=0", "n_trials"),
        ("model.learning_rate=interval(0.1,2)", "model.learning_rate"),
        ("model.learning_rat=interval(0.1,0.2)", "model.learning_rat"),
        ("model.learning_rate=interval(0.01,0.001)", "upside down"),
        ("hydra.sweeper.sampler={name: grid}", "has no finite list of values"),
        ("hydra.sweeper.storage='sqlite:////proc/no/s.db'", "cannot be opened"),
        ("hydra.sweeper.storage='postgresql://u:pw@127.0.0.1:1/db'", "hydra.sweeper.storage"),
        ("hydra.sweeper.directions=[up]", "maximize or minimize"),
    ],
)
def test_bad_sweep_is_refused_before_any_trial(
    override: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Workbench(tmp_path, capsys).run("--multirun", "sweep=smoke", override)

    assert result.code == 2, result.err
    assert words in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.rglob("journal.log"))


def test_bound_is_the_pessimistic_side_of_the_mean() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    error = np.std(values, ddof=1) / 2

    up = trial.bound("sharpe_annual", values, 1.5, fallback=9.0)
    down = trial.bound("max_drawdown_frac", values, 1.5, fallback=9.0)
    single = trial.bound("sharpe_annual", [2.0], 1.0, fallback=0.5)

    assert up.value == pytest.approx(2.5 - 1.5 * error)
    assert down.value == pytest.approx(2.5 + 1.5 * error)
    assert single.value == pytest.approx(1.5)


def test_sweep_without_multirun_is_refused_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Workbench(tmp_path, capsys).run("sweep=smoke")

    assert result.code == 2
    assert "--multirun" in result.err
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("study", ["../mlruns", "nothing", ".."])
def test_analysis_of_what_is_no_study_writes_nothing(
    study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlruns").mkdir()

    result = Workbench(tmp_path, capsys).run("task=analyse", f"study={study}")

    assert result.code == 2
    assert "study=" in result.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("overrides", "name", "count"),
    [
        (["seed=1,2", "output=twice"], "twice", 2),
        (["seed=1,2", "output=a,b"], "a", 2),
        (["model=ppo,maskable_ppo", "seed=1,2", "output='of_${seed}'"], "of_1", 2),
    ],
)
def test_jobs_that_would_write_one_model_are_refused_before_any_trains(
    overrides: list[str],
    name: str,
    count: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = Workbench(tmp_path, capsys).run("--multirun", *TINY, *BUDGET, *overrides)

    assert result.code == 2
    assert f"output={name}: {count} of the" in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_jobs_with_names_of_their_own_all_train(recording: Workbench) -> None:
    names = "output='run_${hydra:job.num}_${seed}'"

    result = recording.run("--multirun", *TINY, *BUDGET, "tracking=none", "seed=1,2", names)

    assert result.code == 0
    kept = {path.stem for path in (recording.home / "trained_models").glob("*.pth")}
    assert kept == {"run_0_1", "run_1_2"}
