"""A store that goes away: what it did not take waits, and arrives once and whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.workbench import Workbench

from ppo_workbench.config import TrackingConfig
from ppo_workbench.records import tracking
from ppo_workbench.records.mlflow_store import TrackingError, open_client
from ppo_workbench.records.spool import Spool, deliver_spools, spool_folder
from ppo_workbench.records.tracking import RunStatus, deliver_records, open_tracker

CONFIG = TrackingConfig()


class _Client:
    """The real client of a store, with a cable that can be pulled."""

    alive = True
    calls_left: int | None = None

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if _Client.calls_left is not None:
            _Client.calls_left -= 1
            if _Client.calls_left < 0:
                _Client.alive = False
        if not _Client.alive:
            raise ConnectionError("no route to host")
        return getattr(self._client, name)


@pytest.fixture(scope="module")
def home(make_home: Callable[[str], Path]) -> Path:
    """One store for the whole module."""
    return make_home("spool")


@pytest.fixture
def cable(home: Path, monkeypatch: pytest.MonkeyPatch) -> type[_Client]:
    monkeypatch.setattr(tracking, "open_client", lambda uri: _Client(open_client(uri)))
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.0)
    _Client.alive, _Client.calls_left = True, None
    return _Client


def _real(home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{home / 'mlruns' / 'mlflow.db'}")


def _waiting(home: Path) -> list[Path]:
    return sorted(spool_folder(home).glob("*"))


def _tell_everything(tracker: Any, home: Path) -> None:
    tracker.log_metrics({"a": float("nan"), "b": 1.5}, 3, timestamp_ms=1000)
    tracker.flush()
    tracker.set_tags({"state": "early"})
    tracker.set_tags({"state": "late"})
    tracker.log_text("said", "said.txt")
    (home / "file.txt").write_text("kept")
    tracker.log_artifact(home / "file.txt", "files")
    tracker.log_bars({"instrument": "SPY", "fingerprint": "f" * 64, "source": "file"})


def _check_everything(home: Path, run_id: str, status: str = "FINISHED") -> None:
    run = _real(home).get_run(run_id)
    assert run.info.status == status
    assert run.data.tags["state"] == "late"
    (point,) = _real(home).get_metric_history(run_id, "b")
    assert (point.value, point.step, point.timestamp) == (1.5, 3, 1000)
    assert len(_real(home).get_metric_history(run_id, "a")) == 1
    assert [found.dataset.name for found in run.inputs.dataset_inputs] == ["SPY"]
    folder = home / "mlruns" / "artifacts" / run_id / "artifacts"
    assert (folder / "said.txt").read_text() == "said"
    assert (folder / "files" / "file.txt").read_text() == "kept"


def test_what_a_dead_store_missed_arrives_with_the_next_recorded_run(
    home: Path, cable: type[_Client]
) -> None:
    with open_tracker(CONFIG, home, "first") as first:
        cable.alive = False
        _tell_everything(first, home)
    assert first.run_id is not None
    assert _real(home).get_run(first.run_id).info.status == "RUNNING"
    assert _waiting(home) == [spool_folder(home) / f"{first.run_id}.jsonl"]
    cable.alive = True
    with open_tracker(CONFIG, home, "second"):
        _check_everything(home, first.run_id)
    assert _waiting(home) == []
    info = _real(home).get_run(first.run_id).info
    assert info.end_time - info.start_time < 60_000  # when it ended, not when that arrived


def test_run_that_could_not_be_started_is_made_when_the_store_is_back(
    home: Path, cable: type[_Client]
) -> None:
    cable.alive = False
    with pytest.raises(TrackingError, match="no route to host"):
        open_tracker(CONFIG, home, "refused")
    with open_tracker(CONFIG, home, "late", {"x": 1}, {"k": "v"}, may_wait=True) as late:
        assert late.run_id is None
        _tell_everything(late, home)
        late.end_as(RunStatus.failed)
    cable.alive = True
    found = deliver_records(CONFIG, home)
    (run_id,) = found.delivered
    _check_everything(home, run_id, "FAILED")
    run = _real(home).get_run(run_id)
    assert (run.info.run_name, run.data.params, run.data.tags["k"]) == ("late", {"x": "1"}, "v")
    assert _waiting(home) == []


def test_run_made_later_goes_on_as_itself_when_the_store_comes_back_midway(
    home: Path, cable: type[_Client]
) -> None:
    cable.alive = False
    with open_tracker(CONFIG, home, "midway", may_wait=True) as tracker:
        tracker.log_metrics({"b": 1.0}, 0)
        tracker.flush()
        cable.alive = True
        tracker.log_metrics({"b": 2.0}, 1)
        tracker.flush()
        assert tracker.run_id is not None
    history = _real(home).get_metric_history(tracker.run_id, "b")
    assert [(p.step, p.value) for p in history] == [(0, 1.0), (1, 2.0)]
    assert _real(home).get_run(tracker.run_id).info.status == "FINISHED"
    assert _waiting(home) == []


def test_delivery_cut_at_any_call_goes_on_and_doubles_nothing(
    home: Path, cable: type[_Client]
) -> None:
    with open_tracker(CONFIG, home, "cut") as tracker:
        cable.alive = False
        _tell_everything(tracker, home)
    for calls in range(9):
        cable.alive, cable.calls_left = True, calls
        store = Spool(_waiting(home)[0], "").path
        name = f"sqlite:///{home / 'mlruns' / 'mlflow.db'}"
        found = deliver_spools(_Client(_real(home)), home, name)
        assert store.exists() == (not found.delivered)
        if found.delivered:
            break
    else:
        raise AssertionError("it was never delivered")
    assert calls > 3
    cable.alive, cable.calls_left = True, None
    assert tracker.run_id is not None
    _check_everything(home, tracker.run_id)


def test_spool_of_a_run_that_works_is_left_alone_and_of_a_killed_one_ends_as_killed(
    home: Path, cable: type[_Client]
) -> None:
    tracker = open_tracker(CONFIG, home, "killed")
    cable.alive = False
    _tell_everything(tracker, home)
    cable.alive = True
    assert deliver_records(CONFIG, home).delivered == ()
    tracker._spool.close()  # type: ignore[attr-defined]  # as the kernel does for a dead process
    assert tracker.run_id is not None
    assert deliver_records(CONFIG, home).delivered == (tracker.run_id,)
    _check_everything(home, tracker.run_id, "KILLED")


def test_what_another_store_missed_is_not_told_to_this_one(
    home: Path, cable: type[_Client]
) -> None:
    other = Spool(spool_folder(home) / "abc.jsonl", "http://elsewhere:5000")
    other.keep([{"tags": {"a": "b"}}, {"status": ["FINISHED", 1]}])
    other.close()
    found = deliver_records(CONFIG, home)
    assert (found.delivered, found.waiting) == ((), ("abc",))
    for path in _waiting(home):
        path.unlink()


def test_call_that_the_store_refuses_for_ever_does_not_hold_up_the_others(
    home: Path, cable: type[_Client]
) -> None:
    with open_tracker(CONFIG, home, "refusing") as tracker:
        cable.alive = False
        tracker.set_tags({"before": "x"})
        tracker._tell({"tags": {"": "no name"}})  # type: ignore[attr-defined]
        tracker.set_tags({"after": "y"})
        cable.alive = True
    assert tracker.run_id is not None
    run = _real(home).get_run(tracker.run_id)
    assert (run.data.tags["before"], run.data.tags["after"]) == ("x", "y")
    assert run.info.status == "FINISHED"
    assert _waiting(home) == []


def test_task_deliver_records_says_what_was_sent(
    home: Path, cable: type[_Client], capsys: pytest.CaptureFixture[str]
) -> None:
    with open_tracker(CONFIG, home, "told") as tracker:
        cable.alive = False
        tracker.set_tags({"a": "b"})
    cable.alive = True
    assert Workbench(home).run("task=deliver_records").code == 0
    assert "complete now: 1, still waiting: 0" in capsys.readouterr().out
    assert tracker.run_id is not None
    assert _real(home).get_run(tracker.run_id).info.status == "FINISHED"


def test_deleted_experiment_names_the_remedy(home: Path, cable: type[_Client]) -> None:
    config = TrackingConfig(experiment="gone")
    with open_tracker(config, home, "one"):
        pass
    experiment = _real(home).get_experiment_by_name("gone")
    _real(home).delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        open_tracker(config, home, "two")


def test_schema_of_another_version_names_the_remedy(
    home: Path, cable: type[_Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    def refuse(uri: str) -> Any:
        raise MlflowException(
            "Detected out-of-date database schema (found version a, but expected b). Take a "
            "backup of your database, then run 'mlflow db upgrade <database_uri>' to migrate"
        )

    monkeypatch.setattr(tracking, "open_client", refuse)
    with pytest.raises(TrackingError, match="save the file, then `mlflow db upgrade URI`"):
        open_tracker(CONFIG, home, "old")
