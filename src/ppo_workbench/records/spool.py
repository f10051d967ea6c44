"""What a record did not take waits in `mlruns/spool/RUN_ID.jsonl` until it is delivered.

One line is one call, `{"metrics": [...]}`, `{"tags": {...}}` and so on, in the order in which
they were made; the first names the store, without secrets, and `{"status": ...}` ends the run.
`send` makes a call, now or from the file.  A run that could not even be started waits as
`new-....jsonl`, with `{"run": ...}` as its first call.  A file that is worked on is locked.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from filelock import FileLock, Timeout

from ppo_workbench.records.run_notes import EXPERIMENT_TAGS

MAX_ENTRIES_IN_MEMORY = 2_000
MAX_METRICS_PER_BATCH = 1000  # MLflow's own limit

NEW = "new-"  # files of runs that have no id yet

MetricPoint = tuple[str, str, int, int]  # key, value, Unix time in milliseconds, step


class RunStart(TypedDict):
    """A run to start, `location` of its artefacts None where the store decides."""

    experiment: str
    location: str | None
    start_ms: int
    tags: dict[str, str]
    name: str


class Entry(TypedDict, total=False):
    """One call, which has one key; `store` alone is none."""

    store: str
    run: RunStart
    metrics: Sequence[MetricPoint]
    tags: dict[str, str]
    params: dict[str, str]
    bars: dict[str, str]
    text: list[str]
    file: list[str]
    status: list[str | int | None]


def spool_folder(home: Path) -> Path:
    """Return where the calls wait that stores of a home folder did not take."""
    return home / "mlruns" / "spool"


def start_run(client: Any, run: RunStart) -> str:
    """Start a run, in an experiment that is made if need be; return its id.

    It is born with its tags: one that is killed next can be found by them.

    Args:
        client: An `MlflowClient`.
        run: What it is born with.
    """
    found = client.get_experiment_by_name(run["experiment"])
    if found:
        identity = found.experiment_id
    else:
        identity = client.create_experiment(run["experiment"], artifact_location=run["location"])
        for key, value in EXPERIMENT_TAGS.items():
            text = value.replace("{experiment}", str(identity))
            client.set_experiment_tag(identity, key, text)
    made = client.create_run(identity, run["start_ms"], run["tags"], run["name"])
    return str(made.info.run_id)


def send(client: Any, run_id: str, entry: Entry) -> None:
    """Make one call; whatever the store raises passes on.

    A file that is gone by now, or cannot be read, is left out.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    if "metrics" in entry:
        points = [Metric(key, float(x), stamp, step) for key, x, stamp, step in entry["metrics"]]
        client.log_batch(run_id, metrics=points)
    elif "tags" in entry:
        client.log_batch(run_id, tags=[RunTag(*item) for item in entry["tags"].items()])
    elif "params" in entry:
        client.log_batch(run_id, params=[Param(*item) for item in entry["params"].items()])
    elif "bars" in entry:
        context = InputTag("mlflow.data.context", "training")
        client.log_inputs(run_id, [DatasetInput(Dataset(**entry["bars"]), [context])])
    elif "text" in entry:
        client.log_text(run_id, *entry["text"])
    elif "file" in entry:
        path, folder = Path(entry["file"][0]), entry["file"][1] or None
        if os.access(path, os.R_OK):
            (client.log_artifacts if path.is_dir() else client.log_artifact)(
                run_id, str(path), folder
            )
    elif "status" in entry:
        client.set_terminated(run_id, *entry["status"])


def is_refused(error: Exception) -> bool:
    """Whether a store that answers will never take the call: a run that is gone, a bad value."""
    code = getattr(error, "error_code", "")
    return code in ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST")


class Spool:
    """The waiting calls of one run."""

    def __init__(self, path: Path, store: str) -> None:
        """Wait in `path` for `store`, whose name holds no secret; nothing is written yet."""
        self.path, self.store = path, store
        self._lock = FileLock(f"{path}.lock", timeout=0)
        self._in_memory: list[Entry] = []

    def __bool__(self) -> bool:
        """Whether a call waits."""
        return bool(self._in_memory) or self.path.exists()

    @property
    def lost(self) -> int:
        """Calls that no file took: they are gone when the process ends."""
        return len(self._in_memory)

    def keep(self, entries: Sequence[Entry]) -> OSError | None:
        """Append calls; what a full disk does not take stays in memory, and why is returned."""
        waiting = [*self._in_memory, *entries]
        size = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._lock.is_locked:
                with suppress(Timeout):  # somebody delivers it right now
                    self._lock.acquire()
            with self.path.open("ab") as file:
                size = file.tell()
                lines: list[Entry] = waiting if size else [{"store": self.store}, *waiting]
                file.writelines(f"{json.dumps(line)}\n".encode() for line in lines)
        except OSError as error:
            self._in_memory = waiting[-MAX_ENTRIES_IN_MEMORY:]
            if size is not None:
                with suppress(OSError):  # none of these calls twice
                    os.truncate(self.path, size)
            return error
        self._in_memory = []
        return None

    def entries(self) -> list[Entry]:
        """Return the waiting calls; a line that was cut by a kill is left out."""
        return [entry for entry in _lines(self.path) if "store" not in entry] + self._in_memory

    def deliver(self, client: Any, run_id: str | None) -> str:
        """Make all waiting calls and remove the file; what the store raises passes on.

        What it refuses for ever is left out.  Returns the id of the run, which may be new.
        """
        entries = self.entries()
        if run_id is None:
            run_id = start_run(client, entries[0]["run"])
            entries = entries[1:]
        for entry in _joined(entries):
            try:
                send(client, run_id, entry)
            except Exception as error:
                if not is_refused(error):
                    raise
        self._in_memory = []
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.close()
        return run_id

    def close(self) -> None:
        """Let another process deliver what waits."""
        if self._lock.is_locked:
            self._lock.release()
            with suppress(OSError):
                Path(self._lock.lock_file).unlink(missing_ok=True)


@dataclass(frozen=True)
class Delivery:
    """What came of waiting records.

    Attributes:
        delivered: Runs whose record is complete now.
        waiting: Runs that still wait: for another store, or for one that refused.
    """

    delivered: tuple[str, ...]
    waiting: tuple[str, ...]


def deliver_spools(client: Any, home: Path, store: str) -> Delivery:
    """Deliver what waits for a store, of all runs that nobody works on; raise nothing.

    A run whose process was killed before it could say how it ends is KILLED.

    Args:
        client: An `MlflowClient` of the store.
        home: The workbench's home folder.
        store: Its name without secrets, as in the files.
    """
    delivered, waiting = [], []
    for path in sorted(spool_folder(home).glob("*.jsonl")):
        spool = Spool(path, store)
        run_id = None if path.name.startswith(NEW) else path.stem
        try:
            with FileLock(f"{path}.lock", timeout=0):
                first = next(_lines(path), Entry())
                if first.get("store") != store:
                    waiting.append(path.stem)
                    continue
                if not any("status" in entry for entry in spool.entries()):
                    spool.keep([{"status": ["KILLED", None]}])
                delivered.append(spool.deliver(client, run_id))
                Path(f"{path}.lock").unlink(missing_ok=True)
        except Timeout:
            continue
        except Exception:  # whatever a store raises: it is asked again next time
            waiting.append(path.stem)
    return Delivery(tuple(delivered), tuple(waiting))


def _lines(path: Path) -> Iterator[Entry]:
    with suppress(OSError):
        for line in path.read_text("utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                entry: Any = json.loads(line)
                if isinstance(entry, dict) and len(entry) == 1:
                    yield cast(Entry, entry)


def _joined(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the calls, metrics that follow each other in as few as MLflow allows."""
    points: list[MetricPoint] = []
    end: Entry = {}
    for entry in [*entries, end]:
        if "metrics" in entry:
            points += entry["metrics"]
            continue
        for start in range(0, len(points), MAX_METRICS_PER_BATCH):
            yield {"metrics": points[start : start + MAX_METRICS_PER_BATCH]}
        points = []
        if entry:
            yield entry
