"""Ctrl-C in a real sweep: the terminal signals the whole process group, `kill` the parent alone."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import psutil
import pytest
from tests.e2e.workbench import TINY, Workbench, process

from ppo_workbench.records.storage import open_storage
from ppo_workbench.records.studies.session import load_study

SWEEP = [
    *("--multirun", "sweep=smoke", "hydra.sweeper.study_name=tiny", *TINY),
    *("data.synthetic.sessions=40", "budget.timesteps=100000000", "budget.evaluations=10000"),
    "tracking.plots=false",
]


@pytest.mark.parametrize(
    # Both ways, and more, are sent to a sweep of nothing in tests/sweeps/test_faults.py.
    "send",
    [os.killpg, pytest.param(os.kill, marks=pytest.mark.slow)],
)
def test_sweep_that_is_interrupted_ends_its_trials_and_its_record(
    send: Callable[[int, int], None], recording: Workbench
) -> None:
    home = recording.home
    output = subprocess.PIPE
    sweep = subprocess.Popen(
        **process(SWEEP, home), stdout=output, stderr=output, start_new_session=True
    )
    try:
        _wait_for_trials(home, sweep)
        family = psutil.Process(sweep.pid).children(recursive=True)
        send(sweep.pid, signal.SIGINT)
        out, err = sweep.communicate(timeout=120)
    finally:
        sweep.kill()

    assert sweep.returncode == 130, err
    assert "running trials are ending" in out
    assert "study tiny: 0 complete, 0 pruned, 0 failed, 2 interrupted\n" in out
    (go_on,) = [line for line in out.splitlines() if "# go on, finished" in line]
    assert shlex.split(go_on, comments=True) == [
        *("python", "-m", "ppo_workbench"),
        *(word for word in SWEEP if not word.startswith("hydra.")),
        "hydra.sweeper.study_name=tiny",
    ]
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    trials = load_study(open_storage(None, home, "tiny"), "tiny").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL"]
    assert {trial.user_attrs["fail_reason"] for trial in trials} == {"interrupted"}
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    runs = client.search_runs(["1"])
    assert [run.info.status for run in runs] == ["KILLED"] * 3
    (parent,) = [run for run in runs if "trial" not in run.data.tags]
    assert parent.data.metrics["trials/fail"] == 2
    assert (home / "sweeps" / "tiny" / "analysis.html").is_file()
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"analysis.html", "analysis.json"} <= kept


def _wait_for_trials(home: Path, sweep: "subprocess.Popen[str]") -> None:
    """Return once both trials have reported, so that both train."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert sweep.poll() is None, sweep.communicate()
        if (home / "sweeps" / "tiny" / "1" / "config.json").is_file():
            trials = load_study(open_storage(None, home, "tiny"), "tiny").trials
            if len(trials) == 2 and all(trial.intermediate_values for trial in trials):
                return
        time.sleep(0.2)
    raise AssertionError("the trials did not begin")
