"""Record a run in MLflow: parameters, metrics over time, artefacts, status.

Tracking never stops a training: a store that fails midway costs one warning, and the
metrics that it did not take wait in `mlruns/spool/RUN_ID.jsonl`.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ppo_workbench.config import TrackingConfig, flatten
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.delivery.describe import git_commit
from ppo_workbench.records.mlflow_store import (
    DATABASES,
    artifact_folder,
    check_store,
    client_class,
    creation_lock,
    cut,
    experiment_name,
    first_line,
    open_client,
    scheme,
    tracking_uri,
    unusable,
)
from ppo_workbench.records.run_notes import EXPERIMENT_TAGS

FLUSH_SECONDS = 5.0
RETRY_SECONDS = 60.0
MAX_POINTS_IN_MEMORY = 200_000

# MLflow's own limits (mlflow.utils.validation).
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_KEY_LENGTH = 250
MAX_METRICS_PER_BATCH = 1000
MAX_PARAMS_PER_BATCH = 100
MAX_DATASET_NAME, MAX_DIGEST = 500, 36
BARS_TOLD = ("instrument", "bar_seconds", "calendar", "timezone", "splits")

_FORBIDDEN_IN_KEYS = re.compile(r"[^\w\-. /]")
_T = TypeVar("_T")
_LOG = logging.getLogger("ppo_workbench.tracking")


class RunStatus(Enum):
    """How a run ended, in MLflow's words."""

    finished = "FINISHED"
    failed = "FAILED"
    killed = "KILLED"


@dataclass(frozen=True)
class MetricPoint:
    """One value of one metric; `timestamp_ms` is Unix time."""

    key: str
    value: float
    timestamp_ms: int
    step: int


class Tracker:
    """What a task may tell its record, as a context manager; this base records nothing.

    Leaving the block ends the run: FINISHED, KILLED on KeyboardInterrupt, else FAILED.
    """

    run_id: str | None = None
    """MLflow's id of the run, or None if nothing is recorded."""

    destination: str = "nowhere"
    """Where the run is recorded, without secrets, for the console."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record a nested configuration as flat parameters, long values truncated.

        Pass the UNRESOLVED configuration: `${oc.env:...}` stays as it is written.
        """

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags."""

    def log_metrics(
        self, metrics: Mapping[str, float], step: int, timestamp_ms: int | None = None
    ) -> None:
        """Buffer the metrics of one step; they are sent in batches every few seconds.

        `timestamp_ms` is Unix time, now by default.
        """

    def log_bars(self, data: Mapping[str, Any]) -> None:
        """Record which bars the run is on: name, digest and ranges, never the bars themselves.

        Args:
            data: As `delivery.metadata.Data`, with the file's unresolved `path`, if any.
        """

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file, or everything in a folder, into `folder` of the run, as it is."""

    def log_text(self, text: str, name: str) -> None:
        """Store `text` as the file `name` in the run, without secrets."""

    def flush(self) -> None:
        """Send what is buffered."""

    def end_as(self, status: RunStatus) -> None:
        """Say how a run that ends without an exception ended, such as stopped by Ctrl-C."""

    def __enter__(self) -> Self:
        """Return the tracker itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run."""


class NullTracker(Tracker):
    """Records nothing: `tracking.enabled=false`."""

    destination = "not recorded (tracking.enabled=false)"


class MlflowTracker(Tracker):
    """One MLflow run; made by `open_tracker`, used as a context manager."""

    def __init__(
        self, client: Any, run_id: str, destination: str, spool: Path, redact: Redactor
    ) -> None:
        """Take over a run that `client`, an `MlflowClient`, has created."""
        self.run_id = run_id
        self.destination = destination
        self._run = run_id
        self._client = client
        self._redact = redact
        self._spool = spool
        self._arrived: dict[str, int] = {}
        self._buffer: list[MetricPoint] = []
        self._unkept: list[MetricPoint] = []
        self._flushed_at = time.monotonic()
        self._down_until = 0.0
        self._warned = False
        self._status = RunStatus.finished

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record a nested, unresolved configuration, without secrets."""
        self._attempt(_send_params, self._client, self._run, params, self._redact)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags, without secrets."""
        from mlflow.entities import RunTag

        entities = [RunTag(*item) for item in _legal_tags(tags, self._redact).items()]
        for part in _parts(entities, MAX_PARAMS_PER_BATCH):
            self._attempt(self._client.log_batch, self._run, tags=part)

    def log_metrics(
        self, metrics: Mapping[str, float], step: int, timestamp_ms: int | None = None
    ) -> None:
        """Buffer the metrics of one step; they are sent in batches every few seconds."""
        now_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        self._buffer += [
            MetricPoint(_legal_key(key), float(value), now_ms, step)
            for key, value in metrics.items()
            if step > self._arrived.get(_legal_key(key), -1)
        ]
        full = len(self._buffer) >= MAX_METRICS_PER_BATCH
        if full or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def _resume(self) -> None:
        """Go on with a run that was killed: what arrived after its checkpoint is not sent twice."""
        self._client.update_run(self._run, status="RUNNING")
        for key in self._client.get_run(self._run).data.metrics:
            history = self._client.get_metric_history(self._run, key)
            self._arrived[key] = max(point.step for point in history)
        for point in self._spooled():
            self._arrived[point.key] = max(point.step, self._arrived.get(point.key, -1))

    def log_bars(self, data: Mapping[str, Any]) -> None:
        """Record the bars as a dataset input of the run, without secrets."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = {key: data[key] for key in BARS_TOLD if key in data}
        found = Dataset(
            name=cut(self._redact(str(data["instrument"])), MAX_DATASET_NAME),
            digest=str(data["fingerprint"])[:MAX_DIGEST],
            source_type="local" if data.get("path") else "code",
            source=json.dumps({"uri": self._redact(str(data.get("path") or data["source"]))}),
            profile=json.dumps(profile, default=str),
        )
        context = InputTag("mlflow.data.context", "training")
        self._attempt(self._client.log_inputs, self._run, [DatasetInput(found, [context])])

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file, or everything in a folder, into `folder` of the run."""
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._down_until = 0.0  # unlike a metric an artefact cannot wait: always try
        self._attempt(send, self._run, str(path), folder or None)

    def log_text(self, text: str, name: str) -> None:
        """Store `text` as the file `name` in the run, without secrets."""
        self._down_until = 0.0
        self._attempt(self._client.log_text, self._run, self._redact(text), name)

    def flush(self) -> None:
        """Send what is buffered; what the store does not take goes to the spool file."""
        points, self._buffer = self._buffer, []
        self._flushed_at = time.monotonic()
        for part in _parts(points, MAX_METRICS_PER_BATCH):
            if not self._attempt(self._send, part):
                self._keep(part)

    def end_as(self, status: RunStatus) -> None:
        """Say how a run that ends without an exception ended."""
        self._status = status

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flush, deliver the spool if the store is back, and end the run."""
        if kind is not None:
            interrupted = issubclass(kind, KeyboardInterrupt)
            self._status = RunStatus.killed if interrupted else RunStatus.failed
        self._down_until = 0.0
        self.flush()
        self._replay()
        self._attempt(self._client.set_terminated, self._run, self._status.value)

    def _send(self, points: Sequence[MetricPoint]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(p.key, p.value, p.timestamp_ms, p.step) for p in points]
        self._client.log_batch(self._run, metrics=metrics)

    def _attempt(self, send: Callable[..., object], *args: object, **named: object) -> bool:
        """Call the store unless it failed a moment ago; never raise what it raises."""
        if time.monotonic() < self._down_until:
            return False
        try:
            send(*args, **named)
        except Exception as error:
            self._down_until = time.monotonic() + RETRY_SECONDS
            self._warn_once(error)
            return False
        return True

    def _warn_once(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "tracking failed and work goes on; metrics that did not arrive wait in %s (%s: %s)",
                self._spool,
                type(error).__name__,
                first_line(self._redact(str(_root(error)))),
            )

    def _keep(self, points: Sequence[MetricPoint]) -> None:
        """Append to the spool file, or keep in memory what a full disk does not take."""
        size = None
        try:
            self._spool.parent.mkdir(parents=True, exist_ok=True)
            with self._spool.open("ab") as file:
                size = file.tell()
                file.writelines(
                    # NaN as text: it is no JSON number, and float("nan") reads it back.
                    f"{json.dumps([p.key, repr(p.value), p.timestamp_ms, p.step])}\n".encode()
                    for p in points
                )
        except OSError as error:
            self._unkept = [*self._unkept, *points][-MAX_POINTS_IN_MEMORY:]
            if size is not None:
                with suppress(OSError):  # none of these points twice
                    os.truncate(self._spool, size)
            self._warn_once(error)

    def _spooled(self) -> list[MetricPoint]:
        """Read the spool file; a line that was cut by a kill is left out."""
        points = []
        with suppress(OSError):
            for line in self._spool.read_text("utf-8", errors="replace").splitlines():
                with suppress(ValueError):
                    key, value, stamp, step = json.loads(line)
                    points.append(MetricPoint(key, float(value), stamp, step))
        return points

    def _replay(self) -> None:
        """Deliver at the end what was kept, and remove the spool file when all of it arrived."""
        unkept, self._unkept = self._unkept, []
        points = self._spooled() + unkept
        parts = _parts(points, MAX_METRICS_PER_BATCH)
        if all(self._attempt(self._send, part) for part in parts):
            with suppress(OSError):
                self._spool.unlink(missing_ok=True)
        elif unkept:
            self._keep(unkept)
            if self._unkept:
                _LOG.warning(
                    "%d metric values are lost: neither the record nor %s could be written; free "
                    "space before the next run",
                    len(self._unkept),
                    self._spool,
                )


def open_tracker(
    config: TrackingConfig,
    home: Path,
    run_name: str,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    resume_run_id: str | None = None,
    start_time_ms: int | None = None,
) -> Tracker:
    """Create the record of one run, or go on with an existing one.

    Args:
        config: Its `uri` and `experiment` win over MLFLOW_TRACKING_URI and
            MLFLOW_EXPERIMENT_NAME; with neither, SQLite under `home`/mlruns.
        home: The workbench's home folder.
        run_name: Shown in the MLflow UI.
        params: The unresolved configuration.
        tags: Tags of the run, such as `mlflow.parentRunId`.
        resume_run_id: Go on with this run instead of creating one.
        start_time_ms: When the run began, Unix time; now by default.

    Raises:
        TrackingError: The store cannot be reached or used; nothing was trained yet.
    """
    if not config.enabled:
        return NullTracker()
    home = home.absolute()
    uri = tracking_uri(config, home)
    redact = Redactor(uri)
    experiment = experiment_name(config)
    check_store(uri, home)
    try:
        if resume_run_id is None:
            legal = _legal_tags(_source_tags() | dict(tags or {}), redact)
            client, run_id = _create_run(
                uri, redact(experiment), home, redact(run_name), legal, start_time_ms
            )
            _send_params(client, run_id, params or {}, redact)
        else:
            client, run_id = open_client(uri), resume_run_id
        spool = home / "mlruns" / "spool" / f"{run_id}.jsonl"
        tracker = MlflowTracker(client, run_id, redact(uri), spool, redact)
        if resume_run_id is not None:
            tracker._resume()
            tracker.set_tags(tags or {})
    except Exception as error:
        raise unusable(uri, error) from None
    return tracker


def flatten_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Flatten nested values to dotted keys and short texts.

    >>> flatten_params({"env": {"allow_short": True, "exposure_levels": [-1.0, 0.0]}})
    {'env.allow_short': 'true', 'env.exposure_levels': '[-1.0, 0.0]'}
    """
    return {
        _legal_key(key): value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in flatten(values).items()
    }


def _legal_tags(tags: Mapping[str, str], redact: Redactor) -> dict[str, str]:
    return {_legal_key(key): cut(redact(value), MAX_TAG_LENGTH) for key, value in tags.items()}


@cache
def _source_tags() -> dict[str, str]:
    """Return what MLflow shows as a run's source."""
    tags = {"mlflow.source.name": "ppo_workbench", "mlflow.source.type": "LOCAL"}
    commit = git_commit()
    return tags if commit is None else tags | {"mlflow.source.git.commit": commit}


def _create_run(
    uri: str,
    experiment: str,
    home: Path,
    run_name: str,
    tags: Mapping[str, str],
    start_time_ms: int | None,
) -> tuple[Any, str]:
    """Open the store, create the experiment if need be, and start a run in it.

    It is born with its tags: one that is killed next can be found by them.
    """
    client_class()  # not under the lock: the import takes seconds
    with creation_lock(uri, home):
        client = open_client(uri)
        found = client.get_experiment_by_name(experiment)
        # A server decides itself where artefacts go; a bare database does not.
        location = None
        if scheme(uri) in DATABASES:
            location = artifact_folder(home).as_uri()
        if found:
            identity = found.experiment_id
        else:
            identity = client.create_experiment(experiment, artifact_location=location)
            for key, value in EXPERIMENT_TAGS.items():
                text = value.replace("{experiment}", str(identity))
                client.set_experiment_tag(identity, key, text)
        run = client.create_run(identity, start_time_ms, dict(tags), run_name)
    return client, run.info.run_id


def _send_params(client: Any, run_id: str, params: Mapping[str, Any], redact: Redactor) -> None:
    from mlflow.entities import Param

    flat = flatten_params(params)
    entities = [Param(key, cut(redact(value), MAX_PARAM_LENGTH)) for key, value in flat.items()]
    for part in _parts(entities, MAX_PARAMS_PER_BATCH):
        client.log_batch(run_id, params=part)


def _legal_key(key: str) -> str:
    return _FORBIDDEN_IN_KEYS.sub("_", key)[:MAX_KEY_LENGTH]


def _root(error: BaseException) -> BaseException:
    """Return what an error was raised from in the end: `database or disk is full`."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _parts(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
