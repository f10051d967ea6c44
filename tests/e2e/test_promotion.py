"""From a tiny study to a champion: refused, promoted, rolled back, verified, audited."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from filelock import FileLock
from tests.e2e.workbench import Workbench, process, without_override

from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.delivery.metadata import Status

SMOKE = [
    *("--multirun", "sweep=smoke", "hydra.sweeper.study_name=smoke"),
    *("data.synthetic.sessions=70", "model.n_envs=4", "budget.timesteps=1024"),
    "tracking.plots=false",
]
PROMOTE = ["task=promote", "promote.study=smoke", "promote.seeds=[11,12]", "promote.top_k=2"]
NAME = "maskable_production_final"
# Killed when the files are exchanged and the registry does not know.
_KILLED = """
import os, signal, sys
from ppo_workbench.cli.main import command
from ppo_workbench.pipeline.promote import running as promote
install = promote.install_champion
def install_and_die(*arguments):
    install(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
promote.install_champion = install_and_die
command(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def home(make_home: Callable[[str], Path]) -> Path:
    home = make_home("promotion")
    assert Workbench(home).run(*SMOKE).code == 0
    return home


@pytest.fixture
def bench(home: Path, capsys: pytest.CaptureFixture[str]) -> Workbench:
    return Workbench(home, capsys)


def _latest(home: Path) -> tuple[Path, dict[str, Any]]:
    folder = sorted(path for path in (home / "promotions").iterdir() if path.is_dir())[-1]
    return folder, json.loads((folder / "promotion.json").read_text(encoding="utf-8"))


def _aliases(home: Path) -> dict[str, str]:
    """Return alias -> run of its version."""
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    aliases = client.get_registered_model(NAME).aliases
    return {
        alias: str(client.get_model_version(NAME, version).run_id)
        for alias, version in aliases.items()
    }


def _looks(home: Path) -> int:
    path = home / "mlruns" / "test_openings.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_bad_promotions_are_refused_before_anything_is_trained(bench: Workbench) -> None:
    for arguments, words in {
        ("task=promote",): "promote.study=NAME",
        ("task=promote", "promote.study=nothing"): "is no study",
        (*PROMOTE, "promote.seeds=[0,11]"): "give fresh ones",
        (*PROMOTE, "promote.seeds=[11,11]"): "must differ",
        (*PROMOTE, "promote.output=../x"): "error: promote.output='../x': a name",
        (*PROMOTE, "output=third"): "output=third: task=promote does not read it",
        ("task=rollback", "output=third"): "write promote.output=third",
        ("task=rollback",): "nothing to go back to",
        ("task=verify",): "artifact=NAME",
        ("task=audit",): "artifact=NAME",
    }.items():
        result = bench.run(*arguments)
        assert result.code == (3 if arguments == ("task=rollback",) else 2), result.err
        assert words in result.err
        assert len(result.err.strip().splitlines()) == 1
    assert _looks(bench.home) == 0
    assert not (bench.home / "trained_models").exists()


@pytest.mark.parametrize("name", ["trained_models", "promotions"])
def test_folder_that_cannot_be_written_is_told_before_anything_is_trained(
    bench: Workbench, name: str
) -> None:
    before = _looks(bench.home), bench.files()
    folder = bench.home / name
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    try:
        with without_override():
            result = bench.run(*PROMOTE)
    finally:
        folder.chmod(0o755)
        if made:
            shutil.rmtree(folder)

    assert result.code == 2, result.err
    assert f"{name}: cannot be written (Permission denied)" in result.err
    assert len(result.err.strip().splitlines()) == 1
    locks = {path for path in bench.files() if path.endswith(".lock")}
    assert (_looks(bench.home), bench.files() - locks) == (before[0], before[1] - locks)


def test_study_that_searched_costs_is_marked_and_not_promotable(
    workbench: Workbench,
) -> None:
    short = ["objective.seeds=[0]", "model.n_steps=64", "budget.evaluations=1", "tracking=none"]
    found = workbench.run(*SMOKE, *short, "costs.half_spread_bps=choice(0.0,1.0)")
    assert found.code == 0, found.err
    words = "Study smoke is research and not promotable: it searched costs.half_spread_bps, so"
    assert words in " ".join(found.out.split())
    assert "task=promote" not in found.out
    analysis = json.loads((workbench.home / "sweeps" / "smoke" / "analysis.json").read_text())
    assert analysis["summary"][0].startswith(words)

    refused = workbench.run(*PROMOTE)

    assert refused.code == 2
    assert words in refused.err
    assert _looks(workbench.home) == 0


def test_untrained_model_is_refused_with_code_3_and_nothing_is_written(bench: Workbench) -> None:
    result = bench.run(*PROMOTE)

    assert result.code == 3
    assert "nothing is promoted" in result.err
    assert not (bench.home / "trained_models").exists()
    folder, document = _latest(bench.home)
    assert not document["promoted"]
    gates = {gate["name"]: gate for gate in document["gates"]}
    assert not gates["deflated_sharpe"]["passed"]
    assert gates["audit"]["passed"]
    assert gates["split_hygiene"]["passed"]
    assert {"ppo_execute", "ppo_reject", "threshold", "champion", "costs_x2"} <= gates.keys()
    assert document["trials"] == 2 + 2 * 2  # of the study, and the fresh trainings
    assert document["test"]["looks"] == 1
    page = (folder / "promotion.html").read_text(encoding="utf-8")
    assert all(name in page for name in gates)
    stored = load_artifact(folder, NAME).metadata
    assert stored.status is Status.challenger
    assert {gate.name for gate in stored.gates} == gates.keys()
    assert stored.study == "smoke"
    assert _looks(bench.home) == 1
    assert _aliases(bench.home) == {"challenger": stored.mlflow_run_id}
    client = mlflow.MlflowClient(f"sqlite:///{bench.home}/mlruns/mlflow.db")
    run = client.get_run(str(stored.mlflow_run_id))
    assert run.info.status == "FINISHED"
    assert run.data.tags["promoted"] == "false"
    assert run.data.metrics["gate/deflated_sharpe/passed"] == 0.0
    files = {file.path for file in client.list_artifacts(str(stored.mlflow_run_id), "model")}
    assert {"model/MLmodel", "model/served_policy.py", "model/artifacts"} <= files
    assert "WARNING" not in result.err.upper()
    assert {f"gate.{name}" for name in gates} <= run.data.tags.keys()


def test_research_profile_promotes_rolls_back_verifies_and_audits(bench: Workbench) -> None:
    research = [*PROMOTE, "promote.profile=research", "promote.top_k=1"]
    models = bench.home / "trained_models"

    # A further study on this validation, as far as its folder says.
    shutil.copytree(bench.home / "sweeps" / "smoke", bench.home / "sweeps" / "further")
    assert bench.run(*research).code == 0
    told = _latest(bench.home)[1]
    # The promotion that was refused: two candidates and two baselines, each on two seeds.
    assert told["trials_elsewhere"] == {"study further": 2, "trainings": 2 * 2 + 2 * 2}
    assert told["trials"] == 2 + 2 + 2 + 8
    assert "sessions" not in told["test"]
    first = load_artifact(models, NAME).metadata
    assert first.status is Status.champion
    assert first.scorecards.test is not None
    assert _aliases(bench.home)["champion"] == first.mlflow_run_id

    assert bench.run(*research, "promote.seeds=[21,22]").code == 0
    second, former = (load_artifact(models, name).metadata for name in (NAME, f"{NAME}.previous"))
    assert former.mlflow_run_id == first.mlflow_run_id
    assert former.status is Status.previous
    assert second.mlflow_run_id != first.mlflow_run_id
    assert _aliases(bench.home) == {
        "champion": second.mlflow_run_id,
        "previous": first.mlflow_run_id,
    }
    assert _latest(bench.home)[1]["test"]["looks"] >= 2

    assert bench.run("task=rollback").code == 0
    assert load_artifact(models, NAME).metadata.mlflow_run_id == first.mlflow_run_id
    assert _aliases(bench.home) == {
        "champion": first.mlflow_run_id,
        "previous": second.mlflow_run_id,
    }

    verified = bench.run("task=verify", f"artifact={NAME}")
    assert verified.code == 0, verified.err
    assert "every bit agrees" in verified.out

    audited = bench.run("task=audit", f"artifact={NAME}")
    assert audited.code == 0, audited.err
    assert "0 violations" in audited.out


def test_champion_of_a_killed_promotion_is_registered_by_the_next_command(
    bench: Workbench,
) -> None:
    models = bench.home / "trained_models"
    former = load_artifact(models, NAME).metadata.mlflow_run_id
    research = [*PROMOTE, "promote.profile=research", "promote.top_k=1", "promote.seeds=[31,32]"]
    command = {
        **process([], bench.home),
        "args": [sys.executable, "-c", _KILLED, *research],
        "stdout": subprocess.DEVNULL,
    }
    assert subprocess.run(**command).returncode == -signal.SIGKILL
    killed = str(load_artifact(models, NAME).metadata.mlflow_run_id)
    assert killed not in _aliases(bench.home).values()

    assert bench.run(*PROMOTE, "promote.top_k=1", "promote.seeds=[41,42]").code == 3
    aliases = _aliases(bench.home)
    assert {alias: aliases[alias] for alias in ("champion", "previous")} == {
        "champion": killed,
        "previous": former,
    }
    assert _latest(bench.home)[1]["winner"]["seed"] in (41, 42)
    client = mlflow.MlflowClient(f"sqlite:///{bench.home}/mlruns/mlflow.db")
    assert client.get_run(killed).info.status == "KILLED"

    client.delete_model_version(NAME, client.get_model_version_by_alias(NAME, "champion").version)
    assert bench.run("task=rollback").code == 0
    assert _aliases(bench.home) == {"champion": former, "previous": killed}


def test_second_promotion_at_once_is_told_and_changes_nothing(bench: Workbench) -> None:
    before = bench.files()
    with FileLock(bench.home / "promotions" / f".{NAME}.lock"):
        result = bench.run(*PROMOTE)

    assert result.code == 3
    assert "under way" in result.err
    assert bench.files() == before


def test_model_of_the_name_that_is_no_champion_is_not_overwritten(bench: Workbench) -> None:
    small = [
        "data.synthetic.sessions=70",
        "model.n_envs=4",
        "model.n_steps=64",
        "model.batch_size=64",
    ]
    tiny = [*small, "budget.timesteps=256", "budget.evaluations=1", "tracking=none"]
    assert bench.run(*tiny, "output=mine").code == 0

    result = bench.run(*PROMOTE, "promote.output=mine")

    assert result.code == 2
    assert "error: promote.output=mine: " in result.err
    assert "overwrite=true" in result.err
