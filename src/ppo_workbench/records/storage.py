"""Where studies are stored, and the locks between the processes that share one.

Journal file, SQLite, or a database server.  optuna is imported inside functions: the command
line must answer before it is loaded.
"""

import fcntl
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_workbench.config import ConfigError
from ppo_workbench.config.secrets import Redactor

if TYPE_CHECKING:
    import optuna

_PATIENCE_SECONDS = 60.0  # for a database server that starts anew; less than a trial's grace
_PASSING = r"already exists|duplicate key|UniqueViolation|terminating|closed the connection"


def study_folder(home: Path, study: str) -> Path:
    """Return the folder that holds everything of a study."""
    return home / "sweeps" / study


def check_study_folder(key: str, storage: str | None, home: Path, study: str) -> Path:
    """Return the folder of a study that is to be read.

    Args:
        key: The setting that names the study, for the sentence.
        storage: As for `open_storage`.
        home: The workbench's home folder.
        study: Name of the study.

    Raises:
        ConfigError: It is no folder in sweeps/, or holds no journal where there is no database.
    """
    folder, sweeps = study_folder(home, study), home / "sweeps"
    inside = folder.resolve().parent == sweeps.resolve()
    if not inside or (storage is None and not (folder / "journal.log").is_file()):
        raise ConfigError(f"{key}={study}: is no study in {sweeps}; name one of its folders")
    return folder


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite address, None for other addresses and for one in memory."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return None if found is None or found[1] == ":memory:" else Path(found[1])


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
    folder, redact = study_folder(home, study), Redactor(uri)
    where = f"hydra.sweeper.storage={redact(uri or 'null')}"
    try:
        if uri is None:
            folder.mkdir(parents=True, exist_ok=True)
            return _journal(folder / "journal.log")
        with KernelLock(_lock_path(uri, folder, "create")):
            return _database(uri)
    except ImportError as error:
        raise ConfigError(
            f"{where}: its driver is missing ({error}), install it (pip install {error.name})"
        ) from None
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split("\n(Background")[0].split())
        raise ConfigError(
            f"{where}: cannot be opened ({redact(reason)}), check the address and that its "
            "server runs"
        ) from None


def _journal(path: Path) -> "optuna.storages.BaseStorage":
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        """A journal whose half-written last line, after a kill or a full disk, is cut off."""

        def append_logs(self, logs: list[dict[str, object]]) -> None:
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

    file = sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    options = {"pool_pre_ping": True} if file is None else {"connect_args": {"timeout": 120.0}}
    for attempt in range(5):
        try:
            storage = RDBStorage(uri, engine_kwargs=options)
            if file is None:
                return _outlasting(storage)
            _quicken(storage)
            return storage
        except Exception as error:
            # Another machine may create the same tables at this moment, or a server end.
            if not re.search(_PASSING, f"{error} {error.__cause__}") or attempt == 4:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


def _quicken(storage: Any) -> None:
    """Let SQLite append to a log: readers do not block, and a write syncs the disk less.

    A kill loses nothing; a power cut may lose the last second, never the file.
    """
    from sqlalchemy import event

    def connected(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(storage.engine, "connect", connected)
    storage.engine.dispose()


def _outlasting(database: Any) -> "optuna.storages.BaseStorage":
    """Return a storage that outlasts a server that starts anew or ends connections.

    It waits for the server, and makes a call once more.  What is returned is what Optuna itself
    puts around a database, so that no call begins inside another's session.
    """
    from optuna.storages import BaseStorage, get_storage
    from sqlalchemy import event

    def connected(dialect: Any, _: object, arguments: Any, options: Any) -> Any:
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(1.0)

    event.listen(database.engine, "do_connect", connected)
    storage: Any = get_storage(database)
    storage.engine = database.engine
    for name in dir(BaseStorage):
        if not name.startswith("_"):
            setattr(storage, name, _patient(getattr(storage, name), database.remove_session))
    return storage  # type: ignore[no-any-return]


def _patient(call: Callable[..., Any], forget: Callable[[], None]) -> Callable[..., Any]:
    """Make a call once more whose connection was ended, after `forget` has left its session."""
    from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
    from sqlalchemy.exc import SQLAlchemyError

    def ask(*arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except (StorageInternalError, SQLAlchemyError):
            forget()
            try:
                return call(*arguments, **named)
            except UpdateFinishedTrialError:
                return True  # only the answer was lost

    return ask


def _lock_path(uri: str | None, folder: Path, purpose: str) -> Path:
    file = sqlite_file(uri or "")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.with_name(f"{file.name}.{purpose}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"storage.{purpose}"


@contextmanager
def claim_lock(
    storage: "optuna.storages.BaseStorage",
    uri: str | None,
    home: Path,
    study: str,
    purpose: str = "claim",
) -> Iterator[None]:
    """Keep every other sweep process of this study from the same purpose meanwhile.

    `claim` is asking for a trial, `record` finding or beginning the study's record.

    A file lock on one machine, an advisory lock of the server for PostgreSQL and MySQL; both
    end with the process that holds them.
    """
    engine = getattr(storage, "engine", None)
    dialect = engine.dialect.name if engine is not None else "file"
    if engine is None or dialect not in ("postgresql", "mysql", "mariadb"):
        with KernelLock(_lock_path(uri, study_folder(home, study), purpose)):
            yield
        return
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    key: int | str = zlib.crc32(f"ppo_workbench/{study}/{purpose}".encode())
    take, give = "SELECT pg_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"
    if dialect != "postgresql":
        key = f"ppo_workbench/{key}"
        take, give = "SELECT GET_LOCK(:key, -1)", "SELECT RELEASE_LOCK(:key)"
    connection = _locked(engine, text(take), key)
    try:
        yield
    finally:
        with suppress(SQLAlchemyError), connection:  # it ends with the connection at the latest
            connection.execute(text(give), {"key": key})


def _locked(engine: Any, take: Any, key: int | str) -> Any:
    """Return a connection that holds a lock; one that is ended while it waits is opened anew."""
    from sqlalchemy.exc import SQLAlchemyError

    for attempt in (1, 2):
        connection = engine.connect()
        try:
            connection.execute(take, {"key": key})
            return connection
        except SQLAlchemyError:
            connection.close()
            if attempt == 2:
                raise
    raise AssertionError
