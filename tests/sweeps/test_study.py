"""Storage, liveness and what a job tells its study."""

import os
import threading
import time
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from ppo_workbench.config import ConfigError
from ppo_workbench.records.storage import KernelLock, claim_lock, open_storage
from ppo_workbench.records.studies.session import (
    LAST_SEEN,
    SWEEP,
    SWEEPER,
    StudyError,
    TrialSession,
    is_lost,
    is_watched,
    last_seen,
    load_study,
    make_pruner,
)


def _new(home: Path, uri: str | None = None, **settings: object) -> optuna.Study:
    storage = open_storage(uri, home, "s")
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    study.set_user_attr(SWEEP, settings)
    return study


def _session(home: Path, study: optuna.Study) -> TrialSession:
    return TrialSession(None, "s", study.ask().number, home)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_session_tells_each_end(tmp_path: Path, kind: str) -> None:
    uri = None if kind == "journal" else f"sqlite:///{tmp_path}/new/s.db"
    study = _new(tmp_path, uri, pruner={"name": "median", "n_startup_trials": 1})
    sessions = [TrialSession(uri, "s", study.ask().number, tmp_path) for _ in range(4)]
    assert not sessions[0].report(1.0, 0)
    sessions[0].complete([1.0], {"seeds": [1, 2]}, [-0.5, 0.25])
    assert sessions[1].report(0.5, 0)
    sessions[1].pruned({"pruned_at": 0})
    sessions[2].failed("because")
    sessions[3].complete([float("nan")])
    trials = study.trials
    assert [one.state.name for one in trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert [one.values for one in trials] == [[1.0], [0.5], None, None]
    assert trials[0].user_attrs["seeds"] == [1, 2]
    assert trials[0].constraints == {"constraint_0": -0.5, "constraint_1": 0.25}
    assert trials[2].user_attrs["fail_reason"] == "because"
    assert trials[3].user_attrs["fail_reason"] == "the value is nan"


def test_session_left_by_an_exception_fails_with_its_reason(tmp_path: Path) -> None:
    study = _new(tmp_path)
    with pytest.raises(ValueError, match="no"), _session(tmp_path, study):
        raise ValueError("no")
    assert study.trials[0].user_attrs["fail_reason"] == "ValueError: no"


def test_session_after_its_trial_was_given_up_changes_nothing(tmp_path: Path) -> None:
    study = _new(tmp_path)
    session = _session(tmp_path, study)
    study.tell(0, state=TrialState.FAIL)
    session.complete([1.0])
    assert study.trials[0].state is TrialState.FAIL
    with pytest.raises(StudyError, match="has ended as FAIL"):
        TrialSession(None, "s", 0, tmp_path)
    with pytest.raises(StudyError, match="has no trial 7"):
        TrialSession(None, "s", 7, tmp_path)


def test_report_of_nan_is_refused(tmp_path: Path) -> None:
    session = _session(tmp_path, _new(tmp_path))
    with pytest.raises(StudyError, match="step 3 is nan"):
        session.report(float("nan"), 3)
    session.close()


def test_session_shows_itself_alive(tmp_path: Path) -> None:
    study = _new(tmp_path, heartbeat_seconds=0.01)
    session = _session(tmp_path, study)
    first = study.trials[0].user_attrs[LAST_SEEN]
    assert (first["pid"], first["machine"]) == (os.getpid(), last_seen()["machine"])
    while study.trials[0].user_attrs[LAST_SEEN]["time"] == first["time"]:
        time.sleep(0.01)
    session.close()


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({}, False),
        ({"time": 0.0}, False),  # a process of this machine that lives is believed
        ({"pid": 2**22 + 1}, True),
        ({"started": 5.0}, True),  # its number went to another process
        ({"machine": "elsewhere"}, False),
        ({"machine": "elsewhere", "time": 0.0}, True),
    ],
)
def test_running_trial_is_lost_when_its_process_is(
    tmp_path: Path, change: dict[str, object], lost: bool
) -> None:
    study = _new(tmp_path)
    study.ask().set_user_attr(LAST_SEEN, {**last_seen(), **change})
    assert is_lost(study.trials[0], grace_seconds=60.0) is lost


def test_trial_whose_sweep_lives_is_left_to_it(tmp_path: Path) -> None:
    study = _new(tmp_path)
    dead = {**last_seen(), "pid": 2**22 + 1}
    other = psutil.Process(os.getppid())
    alive = {**last_seen(), "pid": other.pid, "started": other.create_time()}
    for sweeper in (alive, dead, last_seen()):
        trial = study.ask()
        trial.set_user_attr(LAST_SEEN, dead)
        trial.set_user_attr(SWEEPER, sweeper)
    assert [is_lost(one, grace_seconds=60.0) for one in study.trials] == [False, True, True]
    assert [is_watched(one, grace_seconds=60.0) for one in study.trials] == [True, False, False]


def test_running_trial_that_names_no_process_is_lost_by_its_age(tmp_path: Path) -> None:
    study = _new(tmp_path)
    study.ask()
    assert not is_lost(study.trials[0], grace_seconds=60.0)
    assert is_lost(study.trials[0], grace_seconds=-1.0)


def test_journal_with_half_a_line_at_its_end_is_mended(tmp_path: Path) -> None:
    study = _new(tmp_path)
    study.ask()
    path = tmp_path / "sweeps/s/journal.log"
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker_')
    assert len(load_study(open_storage(None, tmp_path, "s"), "s").trials) == 1
    study.ask()
    assert len(load_study(open_storage(None, tmp_path, "s"), "s").trials) == 2


def test_journal_on_a_full_disk_keeps_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _new(tmp_path)
    before = (tmp_path / "sweeps/s/journal.log").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            study.ask()
    assert (tmp_path / "sweeps/s/journal.log").read_bytes() == before
    assert study.ask().number == 0


@pytest.mark.parametrize("uri", [None, "sqlite:///{}/s.db"])
def test_claim_lock_lets_one_in_at_a_time(tmp_path: Path, uri: str | None) -> None:
    uri = uri and uri.format(tmp_path)
    storage = open_storage(uri, tmp_path, "s")
    inside: list[int] = []

    def enter() -> None:
        with claim_lock(storage, uri, tmp_path, "s"):
            inside.append(1)

    with claim_lock(storage, uri, tmp_path, "s"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(0.1)
        assert not inside
    thread.join()
    assert inside


def test_kernel_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        KernelLock(tmp_path / "lock").acquire()
        os._exit(0)
    os.waitpid(pid, 0)
    with KernelLock(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "none"},
        {"name": "median", "n_warmup_steps": 2},
        {"name": "asha", "min_resource": "auto"},
        {"name": "hyperband", "max_resource": 8},
        {"name": "percentile", "percentile": 25},
        {"name": "wilcoxon", "p_threshold": 0.1},
    ],
)
def test_pruner_by_name_is_made(spec: dict[str, object]) -> None:
    assert isinstance(make_pruner(spec), optuna.pruners.BasePruner)


def test_storage_without_its_driver_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="driver is missing") as refused:
        open_storage("oracle+cx_oracle://u:secret@h/d", tmp_path, "s")
    assert "secret" not in str(refused.value)
