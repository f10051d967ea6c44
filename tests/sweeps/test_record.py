"""The record beside the sweep: its thread, and what a start makes up for."""

import os
import threading
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from hydra_plugins.optuna_pruning._observer import Observed
from ppo_workbench.config import Config
from ppo_workbench.pipeline.sweep import record as study_record
from ppo_workbench.pipeline.sweep.record import StudyRecord
from ppo_workbench.records.mlflow_store import RunInfo
from ppo_workbench.records.storage import open_storage
from ppo_workbench.records.studies.session import SWEEPER, last_seen
from ppo_workbench.records.tracking import NullTracker, RunStatus


class _Observer:
    """Waits for `open`, fails where it is asked to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.heard: list[Any] = []

    def trial_started(self, number: int) -> str:
        self.open.wait(10)
        if number == 1:
            raise OSError("the server is down")
        self.heard.append(number)
        return f"run {number}"

    def close(self, *facts: Any) -> None:
        self.heard.append(facts)


def test_observer_that_is_slow_or_fails_holds_nobody_up() -> None:
    observer, said = _Observer(), list[str]()
    observed = Observed(observer, said.append)
    answers = [observed.tell("trial_started", number) for number in (0, 1, 2)]
    assert not any(answer.done() for answer in answers)
    observer.open.set()
    observed.close("best", False)
    # After a failure it is left alone for a minute, but for the end.
    assert [answer.result(0) for answer in answers] == ["run 0", None, None]
    assert observer.heard == [0, ("best", False)]
    assert said == [
        "not recorded (trial_started): OSError: the server is down; "
        "the sweep goes on, the record is made up later"
    ]


class _Run(NullTracker):
    """A run in memory."""

    def __init__(self, run_id: str) -> None:
        self.run_id, self.status = run_id, "RUNNING"

    def end_as(self, status: RunStatus) -> None:
        self.status = status.value


def test_start_ends_runs_of_dead_sweeps_and_adds_missing_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study(storage=open_storage(None, tmp_path, "s"), study_name="s")
    other = psutil.Process(os.getppid())
    alive = {**last_seen(), "pid": other.pid, "started": other.create_time()}
    dead = {**last_seen(), "pid": 2**22 + 1}
    for sweeper in (dead, dead, dead, alive, dead):
        study.ask().set_user_attr(SWEEPER, sweeper)
    for number in (0, 1, 2, 3):
        study.tell(number, 1.0)
    # Trial 0 is recorded, 1 is left RUNNING, 2 has no run, 3 is somebody's, 4 has not ended.
    runs = [
        RunInfo(f"old {number}", status, {"study": "s", "trial": str(number)})
        for number, status in ((0, "FINISHED"), (1, "RUNNING"), (3, "RUNNING"), (4, "RUNNING"))
    ]
    opened: dict[str, _Run] = {}

    def open_tracker(
        *arguments: Any, resume_run_id: str | None = None, may_wait: bool = False
    ) -> _Run:
        run_id = resume_run_id or f"new {arguments[2]}"
        return opened.setdefault(run_id, _Run(run_id))

    def find_runs(config: Any, home: Path, tags: dict[str, str]) -> list[RunInfo]:
        return [run for run in runs if run.tags["trial"] == tags.get("trial", run.tags["trial"])]

    monkeypatch.setattr(study_record, "open_tracker", open_tracker)
    monkeypatch.setattr(study_record, "find_runs", find_runs)
    StudyRecord(Config(), tmp_path, "s", NullTracker()).settle(runs)
    assert {name: run.status for name, run in opened.items()} == {
        "old 1": "FINISHED",
        "new s/2": "FINISHED",
    }
