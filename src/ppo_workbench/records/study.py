"""The study of a sweep: its storage, its locks, and what the job of one trial tells it.

Sweeper and jobs are separate processes that share nothing but the storage.  A trial is alive
while the process that it names in `last_seen` is: on the same machine the process is looked
up, elsewhere the age of `last_seen` decides.  optuna is imported inside functions: the command
line must answer before it is loaded.
"""

import fcntl
import inspect
import math
import os
import platform
import re
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ppo_workbench.config import ConfigError, WorkbenchError

if TYPE_CHECKING:
    import optuna

HEARTBEAT_SECONDS = 30.0
GRACE_BEATS = 4  # a trial elsewhere is lost after this many missed heartbeats
LAST_SEEN, FAIL_REASON, SWEEP = "last_seen", "fail_reason", "sweep"
INTERRUPTED, LOST = "interrupted", "its process died without a word"
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "asha": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "percentile": "PercentilePruner",
    "wilcoxon": "WilcoxonPruner",
}


class StudyError(WorkbenchError):
    """A trial or its study cannot be recorded as asked."""


def study_folder(home: Path, study: str) -> Path:
    """Return the folder that holds everything of a study."""
    return home / "sweeps" / study


def without_password(uri: str | None) -> str:
    """Return a storage address that may be shown."""
    return re.sub(r"(://[^:/@\s]*:)[^@/\s]+@", r"\1***@", uri or "journal file")


class KernelLock:
    """A lock between processes that the kernel releases when its holder dies.

    Optuna's own journal locks stay behind when their holder is killed and then cost 30 s.
    """

    def __init__(self, path: Path) -> None:
        """Name the file that stands for the lock."""
        self._path, self._descriptor = path, -1

    def acquire(self) -> bool:
        """Wait for the lock."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._descriptor)

    def __enter__(self) -> None:
        """Wait for the lock."""
        self.acquire()

    def __exit__(self, *_: object) -> None:
        """Let the next one in."""
        self.release()


def open_storage(uri: str | None, home: Path, study: str) -> "optuna.storages.BaseStorage":
    """Open, and on first use create, the storage of a study.

    Several processes may call this at once on a storage that does not exist yet.

    Args:
        uri: SQLAlchemy address such as `sqlite:///sweeps.db`; None means the journal file
            `home/sweeps/STUDY/journal.log`.
        home: The workbench's home folder.
        study: Name of the study.

    Raises:
        ConfigError: The storage cannot be reached, or its driver is missing.
    """
    folder = study_folder(home, study)
    try:
        if uri is None:
            folder.mkdir(parents=True, exist_ok=True)
            return _journal(folder / "journal.log")
        with KernelLock(_lock_path(uri, folder, "create")):
            return _database(uri)
    except ImportError as error:
        raise ConfigError(
            f"hydra.sweeper.storage={without_password(uri)}: its driver is missing ({error}), "
            f"install it (pip install {error.name})"
        ) from None
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split("\n(Background")[0].split())
        raise ConfigError(
            f"hydra.sweeper.storage={without_password(uri)}: cannot be opened "
            f"({without_password(reason)}), check the address and that its server runs"
        ) from None


def _journal(path: Path) -> "optuna.storages.BaseStorage":
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        """A journal whose half-written last line, after a kill or a full disk, is cut off."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            with KernelLock(path.with_suffix(".cut")):
                size = _whole_lines(path)
                try:
                    super().append_logs(logs)
                except OSError:
                    os.truncate(path, size)
                    raise

    lock: Any = KernelLock(path.with_suffix(".lock"))
    return JournalStorage(Journal(str(path), lock))


def _whole_lines(path: Path) -> int:
    """Cut what follows the last line's end and return the size left, in bytes."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return 0
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return size
        file.seek(0)
        size = file.read().rfind(b"\n") + 1
        file.truncate(size)
        return size


def _database(uri: str) -> "optuna.storages.BaseStorage":
    from optuna.storages import RDBStorage

    options: dict[str, Any] = {}
    if uri.startswith("sqlite"):
        file = Path(uri.partition("///")[2])
        file.parent.mkdir(parents=True, exist_ok=True)
        options = {"connect_args": {"timeout": 120.0}}
    for attempt in range(5):
        try:
            return RDBStorage(uri, engine_kwargs=options)
        except Exception as error:
            # Another machine may create the same tables at this moment.
            racing = re.search(r"already exists|duplicate key|UniqueViolation", str(error))
            if not racing or attempt == 4:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


def _lock_path(uri: str | None, folder: Path, purpose: str) -> Path:
    if uri is not None and uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.with_name(f"{file.name}.{purpose}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"storage.{purpose}"


@contextmanager
def claim_lock(
    storage: "optuna.storages.BaseStorage", uri: str | None, home: Path, study: str
) -> Iterator[None]:
    """Keep every other sweep process of this study from asking for a trial meanwhile.

    A file lock on one machine, an advisory lock of the server for PostgreSQL and MySQL; both
    end with the process that holds them.
    """
    import zlib

    engine = getattr(storage, "engine", None)
    dialect = engine.dialect.name if engine is not None else "file"
    if engine is None or dialect not in ("postgresql", "mysql", "mariadb"):
        with KernelLock(_lock_path(uri, study_folder(home, study), "claim")):
            yield
        return
    from sqlalchemy import text

    key: int | str = zlib.crc32(f"ppo_workbench/{study}".encode())
    take, give = "SELECT pg_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"
    if dialect != "postgresql":
        key = f"ppo_workbench/{key}"
        take, give = "SELECT GET_LOCK(:key, -1)", "SELECT RELEASE_LOCK(:key)"
    with engine.connect() as connection:
        connection.execute(text(take), {"key": key})
        try:
            yield
        finally:
            connection.execute(text(give), {"key": key})


def make_pruner(spec: Mapping[str, Any]) -> "optuna.pruners.BasePruner":
    """Build the pruner `{name: ..., argument: ...}`.

    Raises:
        ConfigError: The name or an argument is unknown, or a value is not allowed.
    """
    import optuna

    return build("pruner", PRUNERS, spec, optuna.pruners)  # type: ignore[no-any-return]


def build(
    kind: str,
    registry: Mapping[str, str],
    spec: Mapping[str, Any],
    module: Any,
    hidden: Sequence[str] = (),
    **own: Any,
) -> Any:
    """Build what `spec` names, its arguments checked first.

    Args:
        kind: "sampler" or "pruner", for the sentence.
        registry: name -> name of the class in `module`.
        spec: `{name: ..., argument: value, ...}`.
        module: `optuna.samplers` or `optuna.pruners`.
        hidden: Arguments that a user cannot give.
        own: Arguments that are not the user's.

    Raises:
        ConfigError: The name or an argument is unknown, or a value is not allowed.
    """
    # Null takes an argument back that a file gave to another pruner or sampler.
    arguments = {key: value for key, value in spec.items() if value is not None}
    name, where = arguments.pop("name", None), f"hydra.sweeper.{kind}"
    if name not in registry:
        raise ConfigError(f"{where}.name={name}: must be one of {', '.join(registry)}")
    if name == "none":
        arguments.clear()
    kind_class = getattr(module, registry[name])
    signature = inspect.signature(kind_class.__init__).parameters
    known = {
        key: parameter
        for key, parameter in signature.items()
        if key not in ("self", *hidden, *own)
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    if not arguments.keys() <= known.keys():
        unknown = next(key for key in arguments if key not in known)
        takes = ", ".join(known) or "no argument"
        raise ConfigError(
            f"{where}.{unknown}: {name} has no such argument, it takes {takes}; "
            f"write {where}.{unknown}=null if another file gives it"
        )
    for key, parameter in known.items():
        if key not in arguments and parameter.default is parameter.empty:
            raise ConfigError(f"{where}.{key}: {name} needs a value, write {where}.{key}=VALUE")
        if key in arguments and not _fits(arguments[key], str(parameter.annotation)):
            raise ConfigError(
                f"{where}.{key}={arguments[key]!r}: must be {parameter.annotation} for {name}"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a class is young is no news to the user
            return kind_class(**arguments, **own)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {name} refuses its arguments ({error})") from None


def _fits(value: Any, annotation: str) -> bool:
    kinds = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    names = [name.strip() for name in annotation.split("|")]
    if any(name not in {*kinds, "None"} for name in names):
        return True
    if value is None:
        return "None" in names
    if isinstance(value, bool):
        return "bool" in names
    return any(isinstance(value, kinds[name]) for name in names if name != "None")


def load_study(storage: "optuna.storages.BaseStorage", name: str) -> "optuna.Study":
    """Load a study for reading, reporting and telling, with the pruner it was given.

    Raises:
        StudyError: The storage holds no such study.
    """
    import optuna

    try:
        study = optuna.load_study(
            study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler()
        )
    except KeyError:
        raise StudyError(f"study {name}: the storage holds no study of this name") from None
    study.pruner = make_pruner(study.user_attrs.get(SWEEP, {}).get("pruner", {"name": "none"}))
    return study


@cache
def _machine() -> str:
    """Identify this boot of this machine and this space of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def last_seen() -> dict[str, Any]:
    """Return the attribute by which others tell whether this process is alive."""
    import psutil

    return {
        "time": time.time(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def is_lost(trial: "optuna.trial.FrozenTrial", grace_seconds: float) -> bool:
    """Tell whether a RUNNING trial's process is gone.

    Args:
        trial: As read from the storage.
        grace_seconds: Silence after which a trial on another machine counts as lost.
    """
    seen = trial.user_attrs.get(LAST_SEEN)
    if seen is None:
        start = trial.datetime_start
        return start is None or time.time() - start.timestamp() > grace_seconds
    if seen["machine"] == _machine():
        return not _is_running(seen["pid"], seen["started"])
    return bool(time.time() - seen["time"] > grace_seconds)


def _is_running(pid: int, started: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 2.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def tell(
    study: "optuna.Study", number: int, state: str, values: Sequence[float] | None = None
) -> bool:
    """End a trial, once; its sampler was chosen by whoever asked, so none is consulted.

    Args:
        study: From `load_study`.
        number: The trial.
        state: "COMPLETE", "PRUNED" or "FAIL".
        values: One for each direction if complete.

    Returns:
        False if somebody had ended the trial before.
    """
    from optuna.trial import TrialState

    if _frozen(study, number).state.is_finished():
        return False
    study.tell(number, list(values) if values is not None else None, TrialState[state])
    return True


def _frozen(study: "optuna.Study", number: int) -> "optuna.trial.FrozenTrial":
    storage = study._storage
    return storage.get_trial(
        storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    )


def fail(study: "optuna.Study", number: int, reason: str) -> bool:
    """End a trial as FAIL with its reason; False if it had ended before."""
    frozen = _frozen(study, number)
    if frozen.state.is_finished():
        return False
    study._storage.set_trial_user_attr(frozen._trial_id, FAIL_REASON, reason[:2000])
    return tell(study, number, "FAIL")


def bad_values(values: Sequence[float], wanted: int) -> str | None:
    """Say why values cannot end a trial as COMPLETE, or return None."""
    if len(values) != wanted:
        return f"{len(values)} values for {wanted} directions"
    bad = next((value for value in values if not math.isfinite(value)), None)
    return None if bad is None else f"the value is {bad}"


class TrialSession:
    """A trial as its job sees it: reports, asks whether to go on, and tells its own end.

    A context manager: an exception that leaves it fails the trial with its reason.
    """

    def __init__(self, storage_uri: str | None, study: str, number: int, home: Path) -> None:
        """Open the trial that the sweeper has asked for and begin to show it alive.

        Args:
            storage_uri: As for `open_storage`.
            study: Name of the study.
            number: Number of the trial in it.
            home: The workbench's home folder.

        Raises:
            ConfigError: The storage cannot be reached.
            StudyError: There is no such trial, or it is not running.
        """
        self.number = number
        self.study = load_study(open_storage(storage_uri, home, study), study)
        self._storage = self.study._storage
        try:
            frozen = _frozen(self.study, number)
        except KeyError:
            raise StudyError(f"study {study} has no trial {number}") from None
        if frozen.state.is_finished():
            raise StudyError(f"trial {number} of {study} has ended as {frozen.state.name}")
        self.params: dict[str, Any] = frozen.params
        self._id = frozen._trial_id
        self._single = len(self.study.directions) == 1
        self._beat()
        self._ended = threading.Event()
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()

    def report(self, value: float, step: int) -> bool:
        """Record an intermediate value and tell whether the trial should be pruned.

        Args:
            value: Finite; larger is better or worse as the study's direction says.
            step: Index of the evaluation, seed or window, from 0, each once.

        Returns:
            True = end this trial with `pruned`.  Always False with several objectives, which
            Optuna cannot prune.

        Raises:
            StudyError: The value is not finite.
        """
        if not math.isfinite(value):
            raise StudyError(f"the value reported at step {step} is {value}")
        if not self._single:
            return False
        self._storage.set_trial_intermediate_value(self._id, step, float(value))
        return self.study.pruner.prune(self.study, self._storage.get_trial(self._id))

    def complete(
        self,
        values: Sequence[float],
        user_attrs: Mapping[str, Any] | None = None,
        constraints: Sequence[float] = (),
    ) -> None:
        """End the trial as COMPLETE, or as FAIL if a value is not finite.

        Args:
            values: One for each direction.
            user_attrs: JSON values kept with the trial.
            constraints: Each is met at <= 0; a trial that misses one is infeasible.
        """
        reason = bad_values(values, len(self.study.directions))
        if reason is None and any(math.isnan(value) for value in constraints):
            reason = "a constraint is nan"
        self._attributes(user_attrs)
        if reason is not None:
            self.failed(reason)
            return
        if constraints:
            import optuna

            trial = optuna.trial.Trial(self.study, self._id)
            for position, constraint in enumerate(constraints):
                trial.set_constraint(f"constraint_{position}", constraint)
        self._end("COMPLETE", [float(value) for value in values])

    def pruned(self, user_attrs: Mapping[str, Any] | None = None) -> None:
        """End the trial as PRUNED; its value is the last one reported."""
        self._attributes(user_attrs)
        self._end("PRUNED")

    def failed(self, reason: str) -> None:
        """End the trial as FAIL, keeping the reason as the attribute `fail_reason`."""
        self._ended.set()
        fail(self.study, self.number, reason)

    def close(self) -> None:
        """Stop showing the trial alive; without an end told before, the sweeper will tell."""
        self._ended.set()

    def __enter__(self) -> "TrialSession":
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Fail the trial if an exception leaves the job."""
        if error is not None:
            self.failed(describe(error))
        self.close()

    def _end(self, state: str, values: Sequence[float] | None = None) -> None:
        self._ended.set()
        tell(self.study, self.number, state, values)

    def _attributes(self, values: Mapping[str, Any] | None) -> None:
        for key, value in (values or {}).items():
            self._storage.set_trial_user_attr(self._id, key, value)

    def _beat(self) -> None:
        self._storage.set_trial_user_attr(self._id, LAST_SEEN, last_seen())

    def _keep_beating(self) -> None:
        settings = self.study.user_attrs.get(SWEEP, {})
        while not self._ended.wait(settings.get("heartbeat_seconds", HEARTBEAT_SECONDS)):
            try:
                self._beat()
            except Exception:  # told at the next report; a missed beat alone loses nothing
                continue


def describe(error: BaseException) -> str:
    """Return one line for the reason of a failure."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return f"the job ended itself with sys.exit({error.code})"
    text = " ".join(str(error).split())
    return text if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {text}"
