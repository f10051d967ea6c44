"""Open the record of a run beside its first rollouts: mlflow's import takes a second and more."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from ppo_workbench.config import TrackingConfig
from ppo_workbench.config.machine import usable_cores
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.records.mlflow_store import (
    TrackingError,
    check_store,
    tracking_uri,
)
from ppo_workbench.records.tracking import NullTracker, RunStatus, Tracker, open_tracker
from ppo_workbench.scoring.documents import BarsPart

PATIENCE_SECONDS = 3.0
ONE_CORE_SECONDS = 5.0
_LOG = logging.getLogger("ppo_workbench.tracking")


class PendingTracker(Tracker):
    """A record that is opened in a thread, while training begins; metrics wait for it.

    Whatever else is asked of it waits until the record is open, and raises the
    `TrackingError` of one that cannot be opened.
    """

    def __init__(
        self, opening: Callable[[], Tracker], destination: str, delay_seconds: float = 0.0
    ) -> None:
        """Begin to open; `destination` says where, without secrets.

        With a delay it begins so much later, or when something is asked that cannot wait.
        """
        self.destination = destination
        self._delay_seconds = delay_seconds
        self._wanted = threading.Event()
        self._opened: Tracker | None = None
        self._error: TrackingError | None = None
        self._waiting: list[tuple[dict[str, float], int, int]] = []
        self._thread = threading.Thread(target=self._open, args=(opening,), name="open record")
        self._thread.start()

    def _open(self, opening: Callable[[], Tracker]) -> None:
        self._wanted.wait(self._delay_seconds)
        try:
            self._opened = opening()
        except TrackingError as error:
            self._error = error

    def _tracker(self) -> Tracker:
        """Wait for the record and give it the metrics that came before it."""
        self._wanted.set()
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive():
            _LOG.warning(
                "waiting for the record at %s, as a rule under a minute ...", self.destination
            )
            self._thread.join()
        if self._opened is None:
            raise self._error or TrackingError("tracking: the record could not be opened")
        waiting, self._waiting = self._waiting, []
        for metrics, step, timestamp_ms in waiting:
            self._opened.log_metrics(metrics, step, timestamp_ms)
        return self._opened

    @property
    def run_id(self) -> str | None:  # type: ignore[override]
        """MLflow's id of the run."""
        return self._tracker().run_id

    def log_params(self, params: Mapping[str, object]) -> None:
        """See `Tracker`."""
        self._tracker().log_params(params)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """See `Tracker`."""
        self._tracker().set_tags(tags)

    def log_metrics(
        self, metrics: Mapping[str, float], step: int, timestamp_ms: int | None = None
    ) -> None:
        """Buffer the metrics of one step, until the record is open and then as it does."""
        now_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        self._waiting.append((dict(metrics), step, now_ms))
        if not self._thread.is_alive():
            self._tracker()

    def log_bars(self, data: BarsPart) -> None:
        """See `Tracker`."""
        self._tracker().log_bars(data)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """See `Tracker`."""
        self._tracker().log_artifact(path, folder)

    def log_text(self, text: str, name: str) -> None:
        """See `Tracker`."""
        self._tracker().log_text(text, name)

    def flush(self) -> None:
        """See `Tracker`."""
        self._tracker().flush()

    def end_as(self, status: RunStatus) -> None:
        """See `Tracker`."""
        self._tracker().end_as(status)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run, if there is one."""
        self._wanted.set()
        self._thread.join()
        if self._opened is not None:
            self._tracker().__exit__(kind, error, trace)
        elif kind is None:
            self._tracker()


def open_tracker_beside(
    config: TrackingConfig,
    home: Path,
    run_name: str,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
    resume_run_id: str | None = None,
) -> Tracker:
    """Do as `open_tracker`, in a thread; a store that cannot be used is told a little later.

    To be called when bars and features are there: two threads that import packages full of
    circular imports (scipy's for numba and for mlflow) may each see half of one.

    Args:
        config: As in `open_tracker`, like all others.
        home: The workbench's home folder.
        run_name: Shown in the MLflow UI.
        params: The unresolved configuration.
        tags: Tags of the run.
        resume_run_id: Go on with this run instead of creating one.

    Raises:
        TrackingError: The URI is of a kind that MLflow no longer writes to, or the store lies
            on this machine and cannot be written.
    """
    if not config.enabled:
        return NullTracker()
    uri = tracking_uri(config, home.absolute())
    check_store(uri, home.absolute())
    destination = Redactor(uri)(uri)

    began_ms = time.time_ns() // 1_000_000

    def opening() -> Tracker:
        return open_tracker(config, home, run_name, params, tags, resume_run_id, began_ms)

    return PendingTracker(opening, destination, 0.0 if _has_two_cores() else ONE_CORE_SECONDS)


def _has_two_cores() -> bool:
    """Say whether a thread runs beside another; on one core learning begins before the record."""
    return usable_cores() > 1
