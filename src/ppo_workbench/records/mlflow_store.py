"""The MLflow store: where it is, how it is opened, which runs it holds.

With `tracking` and `pending` the only module that imports mlflow, and only inside
functions: the import takes seconds.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from ppo_workbench.config import TrackingConfig, WorkbenchError
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.records.storage import sqlite_file

DEFAULT_EXPERIMENT = "ppo_workbench"
_LOCK_SECONDS = 120.0
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# What is told over time, not once at the end.
TRAINING_KEYS = ("validation/", "rollout/", "train/", "mask/", "rules/")
SERVERS = ("http", "https", "databricks")


class TrackingError(WorkbenchError):
    """The run cannot be recorded, found out before training starts."""


def tracking_uri(config: TrackingConfig, home: Path) -> str:
    """Return the URI of the store, secrets included: never print or store it.

    Raises:
        TrackingError: The URI is of a kind that MLflow no longer writes to.
    """
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return f"sqlite:///{home.absolute() / 'mlruns' / 'mlflow.db'}"
    if scheme(uri) not in (*DATABASES, *SERVERS):
        raise TrackingError(
            f"tracking.uri={Redactor(uri)(uri)}: MLflow needs a database or a server; use for "
            "example sqlite:////absolute/path/mlflow.db or http://host:5000"
        )
    return uri


def open_client(uri: str) -> Any:
    """Open a store; one that refuses is asked for seconds, not for MLflow's 100."""
    mlflow_client = client_class()
    if scheme(uri) in DATABASES:
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 4
    return mlflow_client(tracking_uri=uri)


def client_class() -> Any:
    """Import mlflow with telemetry and pickles off, quiet, and without minutes of retries."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # It would print the address of each run that ends, password included.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("PGCONNECT_TIMEOUT", "5")  # libpq would wait for ever
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        # It logs a traceback of what it raises too; the tracker tells it in one line.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient


@contextmanager
def creation_lock(uri: str, home: Path) -> Iterator[None]:
    """Let one process at a time open a store: two that create one SQLite file break it."""
    with FileLock(_lock_path(uri, home), timeout=_LOCK_SECONDS):
        yield


def _lock_path(uri: str, home: Path) -> Path:
    """Return where the lock of a store lies, in a folder that exists now."""
    database = sqlite_file(uri)
    path = home / "mlruns" / "tracking.lock" if database is None else Path(f"{database}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def check_store(uri: str, home: Path) -> None:
    """Refuse a store on this machine that cannot be written, without asking mlflow.

    mlflow takes seconds to find that out, and training would have begun meanwhile.

    Raises:
        TrackingError: A folder cannot be made or written, or the database cannot.
    """
    try:
        _check_writable(_lock_path(uri, home).parent)
        if scheme(uri) in DATABASES:
            artifacts = artifact_folder(home)
            artifacts.mkdir(parents=True, exist_ok=True)
            _check_writable(artifacts)
        database = sqlite_file(uri)
        if database is not None and database.exists():
            _check_takes_writes(database)
    except (OSError, sqlite3.Error) as error:
        raise unusable(uri, error) from None


def _check_writable(folder: Path) -> None:
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:  # not in the name of a file that nobody asked for
        raise type(error)(error.errno, error.strerror, str(folder)) from None


def _check_takes_writes(database: Path) -> None:
    """Write and take it back; a database that another process writes to is all right."""
    name = f"file:{quote(str(database.absolute()))}?mode=rw"
    with closing(sqlite3.connect(name, timeout=0.0, isolation_level=None, uri=True)) as opened:
        try:
            opened.execute("BEGIN IMMEDIATE")  # of a read-only file it begins to read alone
            (version,) = opened.execute("PRAGMA user_version").fetchone()
            opened.execute(f"PRAGMA user_version = {version}")
            opened.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise


def artifact_folder(home: Path) -> Path:
    """Return where a bare database keeps the files of its runs."""
    return home / "mlruns" / "artifacts"


def unusable(uri: str, error: Exception) -> TrackingError:
    """Say in one sentence that a store cannot be used."""
    redact, text = Redactor(uri), str(error)
    remedy = "mend the store, choose another tracking.uri or set tracking.enabled=false"
    if "'active' state" in text:
        remedy = (
            "its experiment was deleted: bring it back with `mlflow experiments restore -x ID` or "
            "name another one, tracking.experiment=NAME"
        )
    elif "schema" in text and "upgrade" in text:
        remedy = "another version of mlflow made it: save the file, then `mlflow db upgrade URI`"
    return TrackingError(
        f"tracking.uri={redact(uri)}: the run cannot be recorded "
        f"({type(error).__name__}: {first_line(redact(text))}); {remedy}"
    )


def scheme(uri: str) -> str:
    """Return the scheme without a driver: `postgresql` of `postgresql+psycopg://...`."""
    return uri.partition(":")[0].partition("+")[0].lower()


@dataclass(frozen=True)
class RunInfo:
    """A recorded run: id, status in MLflow's words, tags."""

    run_id: str
    status: str
    tags: dict[str, str]


def find_runs(config: TrackingConfig, home: Path, tags: Mapping[str, str]) -> list[RunInfo]:
    """Return the runs of the experiment that carry all `tags`, the oldest first.

    Raises:
        TrackingError: The store cannot be reached.
    """
    uri = tracking_uri(config, home.absolute())
    redact = Redactor(uri)
    try:
        with creation_lock(uri, home.absolute()):
            client = open_client(uri)
            experiment = client.get_experiment_by_name(experiment_name(config))
        if experiment is None:
            return []
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        order = ["attributes.start_time ASC"]
        found = client.search_runs([experiment.experiment_id], wanted, 1, 10_000, order)
    except Exception as error:
        text = first_line(redact(str(error)))
        raise TrackingError(
            f"tracking.uri={redact(uri)}: runs cannot be searched ({text}); mend the store"
        ) from None
    return [RunInfo(run.info.run_id, run.info.status, dict(run.data.tags)) for run in found]


def find_run(config: TrackingConfig, home: Path, run_id: str) -> RunInfo | None:
    """Return one run by its id, None if the store has none of it.

    Raises:
        TrackingError: The store cannot be reached.
    """
    uri = tracking_uri(config, home.absolute())
    try:
        with creation_lock(uri, home.absolute()):
            client = open_client(uri)
        from mlflow.exceptions import MlflowException

        try:
            run = client.get_run(run_id)
        except MlflowException:
            return None
    except Exception as error:
        raise unusable(uri, error) from None
    return RunInfo(run.info.run_id, run.info.status, dict(run.data.tags))


def read_curve(config: TrackingConfig, home: Path, run_id: str) -> list[dict[str, float]]:
    """Return what a run recorded while it trained: points with `step` and figures by key.

    Empty where the record is off, elsewhere, or cannot be read: a page does without.
    """
    database = sqlite_file(uri := tracking_uri(config, home.absolute()))
    if not config.enabled or (database is not None and not database.is_file()):
        return []
    points: dict[int, dict[str, float]] = {}
    try:
        client = open_client(uri)
        for key in client.get_run(run_id).data.metrics:
            if key.startswith(TRAINING_KEYS):
                for point in client.get_metric_history(run_id, key):
                    points.setdefault(point.step, {"step": point.step})[key] = point.value
    except Exception:  # whatever a store raises
        return []
    return [points[step] for step in sorted(points)]


def experiment_name(config: TrackingConfig) -> str:
    """Return the name of the experiment: of the configuration, the environment or the default."""
    return config.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT


def first_line(text: str) -> str:
    """Return what fits into one sentence of an error message."""
    return cut(text.strip().partition("\n")[0], 200)


def cut(text: str, length: int) -> str:
    """Shorten a text to at most `length` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."
