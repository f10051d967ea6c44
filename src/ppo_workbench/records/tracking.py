"""Record a run in MLflow: parameters, metrics over time, artefacts, status.

Tracking never stops a training: a store that fails midway costs one warning, and what it did not
take waits in `mlruns/spool/RUN_ID.jsonl` (`spool`), at the latest for the next recorded run.
"""

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from ppo_workbench.config import TrackingConfig, flatten
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.delivery.describe import git_commit
from ppo_workbench.records.mlflow_store import (
    DATABASES,
    SERVERS,
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
from ppo_workbench.records.spool import (
    MAX_METRICS_PER_BATCH,
    NEW,
    Delivery,
    Entry,
    MetricPoint,
    RunStart,
    Spool,
    deliver_spools,
    is_refused,
    send,
    spool_folder,
    start_run,
)
from ppo_workbench.scoring.documents import BarsPart

FLUSH_SECONDS = 5.0
RETRY_SECONDS = 60.0

# MLflow's own limits (mlflow.utils.validation).
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_KEY_LENGTH = 250
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


class Tracker:
    """What a task may tell its record, as a context manager; this base records nothing.

    Leaving the block ends the run: FINISHED, KILLED on KeyboardInterrupt, else FAILED.
    """

    run_id: str | None = None
    """MLflow's id of the run, or None if nothing is recorded."""

    destination: str = "nowhere"
    """Where the run is recorded, without secrets, for the console."""

    def log_params(self, params: Mapping[str, object]) -> None:
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

    def log_bars(self, data: BarsPart) -> None:
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

    def __init__(self, client: Any, run_id: str | None, spool: Spool, redact: Redactor) -> None:
        """Take over a run.

        Args:
            client: An `MlflowClient`.
            run_id: Of the run that it has created; None where `spool` will create it.
            spool: Takes what the store does not.
            redact: Takes secrets out of texts.
        """
        self.run_id = run_id
        self.destination = spool.store
        self._client = client
        self._redact = redact
        self._spool = spool
        self._arrived: dict[str, int] = {}
        self._buffer: list[MetricPoint] = []
        self._flushed_at = time.monotonic()
        self._down_until = 0.0
        self._warned = False
        self._status = RunStatus.finished

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record a nested, unresolved configuration, without secrets."""
        for entry in _params(params, self._redact):
            self._tell(entry)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags, without secrets."""
        legal = list(_legal_tags(tags, self._redact).items())
        for part in _parts(legal, MAX_PARAMS_PER_BATCH):
            self._tell({"tags": dict(part)})

    def log_metrics(
        self, metrics: Mapping[str, float], step: int, timestamp_ms: int | None = None
    ) -> None:
        """Buffer the metrics of one step; they are sent in batches every few seconds."""
        now_ms = _now_ms() if timestamp_ms is None else timestamp_ms
        self._buffer += [
            # As text: NaN is no JSON number, and float("nan") reads it back.
            (_legal_key(key), repr(float(value)), now_ms, step)
            for key, value in metrics.items()
            if step > self._arrived.get(_legal_key(key), -1)
        ]
        full = len(self._buffer) >= MAX_METRICS_PER_BATCH
        if full or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def _resume(self) -> None:
        """Go on with a run that was killed: what arrived after its checkpoint is not sent twice."""
        if self._spool:
            self._spool.deliver(self._client, self.run_id)
        self._client.update_run(self.run_id, status="RUNNING")
        for key in self._client.get_run(self.run_id).data.metrics:
            history = self._client.get_metric_history(self.run_id, key)
            self._arrived[key] = max(point.step for point in history)

    def log_bars(self, data: BarsPart) -> None:
        """Record the bars as a dataset input of the run, without secrets."""
        profile = {key: data.get(key) for key in BARS_TOLD if key in data}
        dataset = {
            "name": cut(self._redact(str(data["instrument"])), MAX_DATASET_NAME),
            "digest": str(data["fingerprint"])[:MAX_DIGEST],
            "source_type": "local" if data.get("path") else "code",
            "source": json.dumps({"uri": self._redact(str(data.get("path") or data["source"]))}),
            "profile": json.dumps(profile, default=str),
        }
        self._tell({"bars": dataset})

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file, or everything in a folder, into `folder` of the run."""
        self._tell({"file": [str(path.absolute()), folder]})

    def log_text(self, text: str, name: str) -> None:
        """Store `text` as the file `name` in the run, without secrets."""
        self._tell({"text": [self._redact(text), name]})

    def flush(self) -> None:
        """Send what is buffered; what the store does not take waits in the spool file."""
        points, self._buffer = self._buffer, []
        self._flushed_at = time.monotonic()
        for part in _parts(points, MAX_METRICS_PER_BATCH):
            self._tell({"metrics": part})

    def end_as(self, status: RunStatus) -> None:
        """Say how a run that ends without an exception ended."""
        self._status = status

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Deliver what waits if the store is back, end the run, and say if it is incomplete."""
        if kind is not None:
            interrupted = issubclass(kind, KeyboardInterrupt)
            self._status = RunStatus.killed if interrupted else RunStatus.failed
        self.flush()
        self._down_until = 0.0
        self._tell({"status": [self._status.value, _now_ms()]})
        if self._spool.lost:
            _LOG.warning(
                "%d parts of the record are lost: neither %s nor %s could be written; free space "
                "before the next run",
                *(self._spool.lost, self.destination, self._spool.path),
            )
        elif self._spool:
            _LOG.warning(
                "the record of this run at %s is incomplete: what is missing waits in %s and is "
                "sent by the next recorded run, or by task=deliver_records",
                *(self.destination, self._spool.path),
            )
        self._spool.close()

    def _tell(self, entry: Entry) -> None:
        """Make a call, or let it wait if the store fails or failed a moment ago; never raise.

        What is told later waits behind what waits already: of two values of a tag the last counts.
        """
        if time.monotonic() >= self._down_until:
            try:
                if self._spool:
                    self.run_id = self._spool.deliver(self._client, self.run_id)
                assert self.run_id is not None
                send(self._client, self.run_id, entry)
                return
            except Exception as error:
                self._warn_once(error)
                if is_refused(error):
                    return
                self._down_until = time.monotonic() + RETRY_SECONDS
        full = self._spool.keep([entry])
        if full is not None:
            self._warn_once(full)

    def _warn_once(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "tracking failed and work goes on; what did not arrive waits in %s (%s: %s)",
                self._spool.path,
                type(error).__name__,
                first_line(self._redact(str(_root(error)))),
            )


def open_tracker(
    config: TrackingConfig,
    home: Path,
    run_name: str,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
    resume_run_id: str | None = None,
    start_time_ms: int | None = None,
    may_wait: bool = False,
) -> Tracker:
    """Create the record of one run, or go on with an existing one.

    What waits for this store of other runs is delivered on the way.

    Args:
        config: Its `uri` and `experiment` win over MLFLOW_TRACKING_URI and
            MLFLOW_EXPERIMENT_NAME; with neither, SQLite under `home`/mlruns.
        home: The workbench's home folder.
        run_name: Shown in the MLflow UI.
        params: The unresolved configuration.
        tags: Tags of the run, such as `mlflow.parentRunId`.
        resume_run_id: Go on with this run instead of creating one.
        start_time_ms: When the run began, Unix time; now by default.
        may_wait: Where the store cannot be reached the run is created later, with all that is told
            of it; it has no id until then.  So it is with a server that dies meanwhile.

    Raises:
        TrackingError: The store cannot be reached or used; nothing was trained yet.
    """
    if not config.enabled:
        return NullTracker()
    home = home.absolute()
    uri = tracking_uri(config, home)
    redact = Redactor(uri)
    check_store(uri, home)
    run: RunStart = {
        "experiment": redact(experiment_name(config)),
        # A server decides itself where artefacts go; a bare database does not.
        "location": artifact_folder(home).as_uri() if scheme(uri) in DATABASES else None,
        "start_ms": start_time_ms or _now_ms(),
        "tags": _legal_tags(_source_tags() | dict(tags or {}), redact),
        "name": redact(run_name),
    }
    entries = list(_params(params or {}, redact))
    client, run_id = None, resume_run_id
    try:
        client_class()  # not under the lock: the import takes seconds
        with creation_lock(uri, home):
            client = open_client(uri)
            client.get_experiment_by_name(run["experiment"])
            # A server that has answered and dies now is one that dies on the way.
            may_wait = may_wait or (scheme(uri) in SERVERS and resume_run_id is None)
            run_id = run_id or start_run(client, run)
        spool = Spool(spool_folder(home) / f"{run_id}.jsonl", redact(uri))
        tracker = MlflowTracker(client, run_id, spool, redact)
        if resume_run_id is not None:
            tracker._resume()
            tracker.set_tags(tags or {})
        else:
            for entry in entries:
                send(client, run_id, entry)
    except Exception as error:
        if not may_wait or client is None or is_refused(error):
            raise unusable(uri, error) from None
        path = spool_folder(home) / f"{run_id or NEW + uuid4().hex}.jsonl"
        spool = Spool(path, redact(uri))
        first: list[Entry] = [] if run_id else [{"run": run}]
        spool.keep([*first, *entries])
        return MlflowTracker(client, run_id, spool, redact)
    deliver_spools(client, home, redact(uri))
    return tracker


def deliver_records(config: TrackingConfig, home: Path) -> Delivery:
    """Send what waits in `mlruns/spool` for the store of `config`.

    Raises:
        TrackingError: The store cannot be reached.
    """
    home = home.absolute()
    uri = tracking_uri(config, home)
    try:
        with creation_lock(uri, home):
            client = open_client(uri)
            client.search_experiments(max_results=1)
    except Exception as error:
        raise unusable(uri, error) from None
    return deliver_spools(client, home, Redactor(uri)(uri))


def flatten_params(values: Mapping[str, object]) -> dict[str, str]:
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


def _params(params: Mapping[str, object], redact: Redactor) -> Iterator[Entry]:
    """Yield the calls that record a nested configuration, without secrets."""
    flat = {k: cut(redact(v), MAX_PARAM_LENGTH) for k, v in flatten_params(params).items()}
    for part in _parts(list(flat.items()), MAX_PARAMS_PER_BATCH):
        yield {"params": dict(part)}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _legal_key(key: str) -> str:
    return _FORBIDDEN_IN_KEYS.sub("_", key)[:MAX_KEY_LENGTH]


def _root(error: BaseException) -> BaseException:
    """Return what an error was raised from in the end: `database or disk is full`."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _parts(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
