import json
import logging
import math
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppo_workbench.config import TrackingConfig
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.records.mlflow_store import TrackingError, check_store, open_client, tracking_uri
from ppo_workbench.records.pending import PendingTracker
from ppo_workbench.records.spool import MAX_METRICS_PER_BATCH, Spool
from ppo_workbench.records.tracking import (
    MAX_PARAM_LENGTH,
    MlflowTracker,
    NullTracker,
    RunStatus,
    Tracker,
    flatten_params,
    open_tracker,
)
from ppo_workbench.scoring.documents import BarsPart

CANARY = "C4n4ry-pass%40word"
MLFLOW_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")


@pytest.fixture(scope="module")
def home(make_home: Callable[[str], Path]) -> Path:
    """One store for the whole module."""
    return make_home("tracking")


def _client(home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{home / 'mlruns' / 'mlflow.db'}")


def _run(home: Path, tracker: Tracker) -> Any:
    assert tracker.run_id is not None
    return _client(home).get_run(tracker.run_id)


def _files_with(folder: Path, secret: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if secret.encode() in path.read_bytes()]


class _DeadStore:
    """Fails like a server that went away, its error naming the URI, password included."""

    def __init__(self) -> None:
        self.calls = 0
        self.alive = False
        self.metrics: list[Any] = []
        self.status = ""

    def _call(self) -> None:
        self.calls += 1
        if not self.alive:
            raise ConnectionError(f"no route to https://user:{CANARY}@host/api")

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        self._call()
        self.metrics += list(metrics)

    def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        self._call()

    def set_terminated(self, run_id: str, status: str, end_time: int | None) -> None:
        self._call()
        self.status = status


def _dead_tracker(home: Path) -> tuple[_DeadStore, MlflowTracker]:
    redact = Redactor(f"https://user:{CANARY}@host/api")
    store = _DeadStore()
    spool = Spool(home / "spool" / "run.jsonl", "https://host")
    return store, MlflowTracker(store, "run", spool, redact)


def test_open_tracker_records_params_metrics_tags_and_artifacts(home: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    params = {"model": {"type": "ppo", "net_arch": [64, 64]}, "output": None, "seed": 3}
    with open_tracker(TrackingConfig(), home, "first", params, {"study": "s1"}) as tracker:
        for step in range(3):
            tracker.log_metrics({"rollout/ep_rew_mean": step * 0.5, "broken": math.nan}, step)
        tracker.log_artifact(tmp_path / "notes.txt", "texts")
        tracker.log_text("line", "console.log")
    run = _run(home, tracker)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params == {
        "model.type": "ppo",
        "model.net_arch": "[64, 64]",
        "output": "null",
        "seed": "3",
    }
    assert run.data.tags["study"] == "s1"
    history = _client(home).get_metric_history(tracker.run_id, "rollout/ep_rew_mean")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    folder = home / "mlruns" / "artifacts" / str(tracker.run_id) / "artifacts"
    assert (folder / "texts" / "notes.txt").read_text() == "hello"
    assert (folder / "console.log").read_text() == "line"
    assert not (home / "mlruns" / "spool").exists()


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (RuntimeError, "FAILED")]
)
def test_tracker_exception_in_the_block_ends_the_run_and_passes_on(
    home: Path, error: type[BaseException], status: str
) -> None:
    tracker = open_tracker(TrackingConfig(), home, "ends")
    tracker.log_metrics({"kept": 1.0}, 0)
    with pytest.raises(error), tracker:
        raise error
    run = _run(home, tracker)
    assert (run.info.status, run.data.metrics) == (status, {"kept": 1.0})


def test_tracker_bars_source_and_columns_are_recorded_without_secrets(home: Path) -> None:
    data: BarsPart = {
        "source": "file", "instrument": "SPY", "fingerprint": "f" * 64, "bar_seconds": 60,
        "splits": {"train": {"start": "2020-01-01", "stop": "2021-01-01"}},
        "path": f"https://me:{CANARY}@host/bars.csv?token={CANARY}",
    }  # fmt: skip
    with open_tracker(TrackingConfig(), home, "bars", tags={"overrides": "seed=3"}) as tracker:
        tracker.log_bars(data)
        tracker.log_bars(data)  # as a run that was resumed
    run = _run(home, tracker)
    (found,) = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("SPY", "f" * 36)
    assert json.loads(found.dataset.profile)["splits"]["train"]["start"] == "2020-01-01"
    assert json.loads(found.dataset.source) == {"uri": "https://***@host/bars.csv?token=***"}
    assert run.data.tags["mlflow.source.name"] == "ppo_workbench"
    experiment = _client(home).get_experiment(run.info.experiment_id)
    view = json.loads(experiment.tags["mlflow.sharedViewState.workbench"])
    assert "metrics.`sharpe_annual`" in view["selectedColumns"]
    link = f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=workbench"
    assert link in experiment.tags["mlflow.note.content"]


def test_tracker_end_as_killed_without_an_exception_is_killed(home: Path) -> None:
    with open_tracker(TrackingConfig(), home, "stopped") as tracker:
        tracker.end_as(RunStatus.killed)
    assert _run(home, tracker).info.status == "KILLED"


def test_tracker_many_params_and_metrics_arrive_in_several_batches(home: Path) -> None:
    params = {f"group{i}": {f"key{j}": j for j in range(10)} for i in range(25)}
    metrics = {f"m{i}": float(i) for i in range(MAX_METRICS_PER_BATCH + 5)}
    with open_tracker(TrackingConfig(), home, "many", params) as tracker:
        tracker.log_metrics(metrics, 1)
    run = _run(home, tracker)
    assert (len(run.data.params), len(run.data.metrics)) == (250, len(metrics))


def test_open_tracker_long_param_and_odd_key_are_cut_and_cleaned(home: Path) -> None:
    params = {"data": {"columns": {"Close=Last": "x" * 10_000}}}
    with open_tracker(TrackingConfig(), home, "long", params) as tracker:
        pass
    ((key, value),) = _run(home, tracker).data.params.items()
    assert (key, len(value)) == ("data.columns.Close_Last", MAX_PARAM_LENGTH)


def test_open_tracker_environment_names_store_and_experiment(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlruns' / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    with open_tracker(TrackingConfig(), tmp_path, "elsewhere") as tracker:
        pass
    experiment = _client(home).get_experiment_by_name("from the environment")
    assert _run(home, tracker).info.experiment_id == experiment.experiment_id


def test_tracking_uri_config_wins_over_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment:5000")
    assert tracking_uri(TrackingConfig(), tmp_path) == "http://environment:5000"
    assert tracking_uri(TrackingConfig(uri="http://config:5000"), tmp_path) == "http://config:5000"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", f"ftp://u:{CANARY}@host/x"])
def test_tracking_uri_unusable_kind_is_refused_without_its_password(
    tmp_path: Path, uri: str
) -> None:
    with pytest.raises(TrackingError, match="needs a database or a server") as caught:
        open_tracker(TrackingConfig(uri=uri), tmp_path, "never")
    assert CANARY not in str(caught.value)


def test_open_tracker_disabled_records_nothing(tmp_path: Path) -> None:
    with open_tracker(TrackingConfig(enabled=False), tmp_path, "none", {"a": 1}) as tracker:
        tracker.log_metrics({"a": 1.0}, 0)
        tracker.log_artifact(tmp_path / "absent")
    assert isinstance(tracker, NullTracker)
    assert tracker.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_null_tracker_offers_everything_that_mlflow_tracker_does() -> None:
    public = {name for name in vars(MlflowTracker) if not name.startswith("_")}
    assert public <= set(dir(NullTracker))


def test_tracker_dead_store_spools_warns_once_and_never_raises(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, tracker = _dead_tracker(tmp_path)
    with caplog.at_level(logging.WARNING), tracker:
        for step in range(5):
            tracker.log_metrics({"a": float(step), "b": math.inf}, step)
            tracker.flush()
        tracker.log_artifact(tmp_path / "plot.png")
    lines = (tmp_path / "spool" / "run.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[0] == {"store": "https://host"}
    points = [point for row in rows for point in row.get("metrics", ())]
    assert [(p[0], p[1], p[3]) for p in points[:2]] == [("a", "0.0", 0), ("b", "inf", 0)]
    assert len(points) == 10
    assert rows[-2:] == [
        {"file": [str(tmp_path / "plot.png"), ""]},
        {"status": ["FINISHED", rows[-1]["status"][1]]},
    ]
    first, last = caplog.messages
    assert "tracking failed and work goes on" in first
    assert "is incomplete" in last
    assert "task=deliver_records" in last
    assert "run.jsonl" in last
    assert CANARY not in caplog.text


def test_tracker_dead_store_is_left_alone_for_a_while(tmp_path: Path) -> None:
    store, tracker = _dead_tracker(tmp_path)
    for step in range(50):
        tracker.log_metrics({"a": 1.0}, step)
        tracker.flush()
    assert store.calls == 1


def test_tracker_store_back_at_the_end_receives_the_spool(tmp_path: Path) -> None:
    store, tracker = _dead_tracker(tmp_path)
    with tracker:
        for step in range(5):
            tracker.log_metrics({"a": float(step)}, step)
            tracker.flush()
        store.alive = True
    assert sorted((m.key, m.step, m.value) for m in store.metrics) == [
        ("a", step, float(step)) for step in range(5)
    ]
    assert store.status == "FINISHED"
    assert not (tmp_path / "spool" / "run.jsonl").exists()


def test_tracker_canary_password_is_stored_in_no_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"postgresql://user:{CANARY}@db.example/mlflow?sslpassword={CANARY}-2"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"{CANARY}-3")
    params = {"tracking": {"uri": uri}, "list": [uri], "note": f"password is {CANARY}-3"}
    with open_tracker(TrackingConfig(), home, f"run {uri}", params, {"uri": uri}) as tracker:
        tracker.set_tags({"again": uri})
        tracker.log_text(f"connected to {uri}", "console.log")
    assert _files_with(home, "db.example")
    assert _files_with(home, CANARY) == []


def test_open_tracker_unreachable_server_is_one_sentence_without_password(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://user:{CANARY}@127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(TrackingError, match=r"tracking\.enabled=false") as caught:
        open_tracker(TrackingConfig(uri=uri), tmp_path, "never")
    output = capfd.readouterr()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    for text in (str(caught.value), output.out, output.err, caplog.text):
        assert CANARY not in text
        assert "C4n4ry-pass@word" not in text
    assert "\n" not in str(caught.value)


def test_flatten_params_unresolved_interpolation_stays() -> None:
    flat = flatten_params({"tracking": {"uri": "${oc.env:MY_URI}"}, "data": {"columns": {}}})
    assert flat == {"tracking.uri": "${oc.env:MY_URI}", "data.columns": "{}"}


def test_import_tracking_does_not_import_mlflow() -> None:
    code = "import sys, ppo_workbench.records.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


_RACER = """
import sys
import threading
from pathlib import Path
from ppo_workbench.config import TrackingConfig
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.records.tracking import open_tracker
with open_tracker(TrackingConfig(experiment="race"), Path(sys.argv[1]), "racer") as tracker:
    tracker.log_metrics({"a": 1.0}, 0)
"""


_WATCHED = """
import sys
import threading
packages = {True: set(), False: set()}
class Watch:
    def find_spec(self, name, path=None, target=None):
        if any(thread.name == "open record" for thread in threading.enumerate()):
            opening = threading.current_thread().name == "open record"
            packages[opening].add(name.partition(".")[0])
sys.meta_path.insert(0, Watch())
from ppo_workbench.cli.main import command
code = command(["budget.timesteps=4096", "budget.evaluations=1", "tracking.plots=false"])
print(code, "mlflow" in packages[True], sorted(packages[True] & packages[False]))
"""


def test_training_imports_no_package_in_two_threads(tmp_path: Path) -> None:
    """Two threads that import one package of circular imports may each see half of it."""
    env = {**os.environ, "PPO_WORKBENCH_HOME": str(tmp_path)}
    run = [sys.executable, "-c", _WATCHED]
    ran = subprocess.run(run, check=True, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert ran.stdout.splitlines()[-1] == "0 True []"


def test_open_tracker_two_processes_create_one_store(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RACER, str(tmp_path)]
    racers = [subprocess.Popen(command) for _ in range(2)]
    assert [racer.wait() for racer in racers] == [0, 0]
    experiment = _client(tmp_path).get_experiment_by_name("race")
    runs = _client(tmp_path).search_runs([experiment.experiment_id])
    assert [run.data.metrics for run in runs] == [{"a": 1.0}] * 2


def test_check_store_takes_one_that_is_written_to_right_now_and_leaves_it_alone(
    tmp_path: Path,
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE runs (id)")
        before = (tmp_path / "mlflow.db").read_bytes()
        other.execute("BEGIN IMMEDIATE")
        check_store(uri, tmp_path)
        other.execute("ROLLBACK")
    check_store(f"{uri}?timeout=5", tmp_path)
    check_store("sqlite:///:memory:", tmp_path)
    check_store("http://localhost:1", tmp_path)

    assert (tmp_path / "mlflow.db").read_bytes() == before
    assert not [path for path in (tmp_path / "mlruns").rglob("*") if path.is_file()]


@pytest.mark.parametrize("in_the_way", ["mlflow.db", "mlflow.db/sub", "mlruns/artifacts", "mlruns"])
def test_check_store_names_what_cannot_be_written(in_the_way: str, tmp_path: Path) -> None:
    obstacle = tmp_path / in_the_way
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.write_bytes(b"neither folder nor database")

    with pytest.raises(TrackingError, match=r"cannot be recorded .*; mend the store, choose"):
        check_store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)


def test_run_begins_when_it_is_said_to_have_begun(home: Path) -> None:
    began_ms = 1_700_000_000_000
    with open_tracker(TrackingConfig(), home, "early", start_time_ms=began_ms) as tracker:
        pass
    assert _run(home, tracker).info.start_time == began_ms


def test_pending_tracker_delivers_what_came_before_the_record_was_open() -> None:
    gate, inner = threading.Event(), _Listener()

    def opening() -> Tracker:
        gate.wait(30)
        return inner

    with PendingTracker(opening, "there") as tracker:
        tracker.log_metrics({"a": 1.0}, 1)
        tracker.log_metrics({"a": 2.0}, 2)
        said_by_ms = time.time_ns() // 1_000_000
        assert inner.heard == []
        time.sleep(0.05)
        gate.set()
        assert tracker.run_id == "inner"
        tracker.log_metrics({"a": 3.0}, 3)

    assert inner.heard == [({"a": 1.0}, 1), ({"a": 2.0}, 2), ({"a": 3.0}, 3), "end"]
    # Not the time at which the record was open.
    assert max(inner.times_ms[:2]) <= said_by_ms < inner.times_ms[2]


def test_pending_tracker_that_cannot_open_raises_at_the_next_word_and_at_the_end() -> None:
    def opening() -> Tracker:
        raise TrackingError("tracking.uri=x: cannot be recorded")

    tracker = PendingTracker(opening, "there")
    tracker._thread.join()

    with pytest.raises(TrackingError, match="cannot be recorded"):
        tracker.log_metrics({"a": 1.0}, 1)
    with pytest.raises(TrackingError, match="cannot be recorded"), tracker:
        pass
    with pytest.raises(ZeroDivisionError), tracker:  # the first error is the one that counts
        raise ZeroDivisionError


def test_pending_tracker_with_a_delay_opens_when_something_cannot_wait() -> None:
    opened, inner = threading.Event(), _Listener()

    def opening() -> Tracker:
        opened.set()
        return inner

    with PendingTracker(opening, "there", delay_seconds=60.0) as tracker:
        tracker.log_metrics({"a": 1.0}, 1)
        assert not opened.wait(0.2)
        assert tracker.run_id == "inner"
    assert inner.heard == [({"a": 1.0}, 1), "end"]

    opened.clear()
    with PendingTracker(opening, "there", delay_seconds=60.0):
        pass
    assert opened.is_set()  # a run that ends at once is recorded all the same


def test_pending_tracker_with_a_delay_opens_by_itself() -> None:
    opened = threading.Event()

    def opening() -> Tracker:
        opened.set()
        return _Listener()

    with PendingTracker(opening, "there", delay_seconds=0.05):
        assert opened.wait(30)


class _Listener(Tracker):
    """Keep what is said."""

    def __init__(self) -> None:
        self.run_id = "inner"
        self.heard: list[object] = []
        self.times_ms: list[int] = []

    def log_metrics(
        self, metrics: Mapping[str, float], step: int, timestamp_ms: int | None = None
    ) -> None:
        assert timestamp_ms is not None
        self.times_ms.append(timestamp_ms)
        self.heard.append((dict(metrics), step))

    def __exit__(self, *details: object) -> None:
        self.heard.append("end")


def test_end_of_a_run_on_a_server_prints_no_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow prints where a run can be seen, with the password of the tracking address."""
    from mlflow.tracking._tracking_service.client import TrackingServiceClient

    run = SimpleNamespace(
        info=SimpleNamespace(run_name="x", experiment_id="1", run_id="r"),
        data=SimpleNamespace(tags={}),
    )
    monkeypatch.setattr(TrackingServiceClient, "get_run", lambda self, run_id: run)
    client = open_client(f"http://user:{CANARY}@127.0.0.1:1")
    client._tracking_client._log_url("r")
    said = capsys.readouterr()
    assert CANARY not in said.out + said.err
