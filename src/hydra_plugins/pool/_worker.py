"""What runs in the process of one job; preloaded by the fork server."""

import ctypes
import importlib
import inspect
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import optuna
import psutil  # noqa: F401  preloaded for `last_seen`
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from omegaconf import open_dict

from hydra_plugins.pool._compose import compose
from hydra_plugins.pool._processes import JobOptions, Shared, end_by

Plugins.instance()  # scanned once here, not in every job
PR_SET_PDEATHSIG = 1


def work(
    pipe: Connection,
    blob: bytes,
    overrides: Sequence[str],
    index: int,
    environment: Mapping[str, str],
    options: JobOptions,
) -> None:
    """Run one job and send `(kind, value, reason, full)` through the pipe."""
    _guard()
    os.environ.clear()
    os.environ.update(environment)
    _limit_threads(options["threads"])
    try:
        pipe.send_bytes(outcome(blob, overrides, index, options))
    finally:
        pipe.close()


def outcome(blob: bytes, overrides: Sequence[str], index: int, options: JobOptions) -> bytes:
    """Run one job to its end, whatever that is, and return `(kind, value, reason, full)`."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        answer = _run(pickle.loads(blob), overrides, index, options)
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _print(error)
        kind, reason = end_by(error)
        answer = (kind, None, reason, None)
    _flush()
    return _pickled(answer)


def _pickled(answer: tuple[str, Any, str | None, JobReturn | None]) -> bytes:
    try:
        return pickle.dumps(answer)
    except Exception as error:
        reason = f"the job returned what cannot be sent back: {type(error).__name__}: {error}"
        return pickle.dumps(("error", None, reason, None))


def _guard() -> None:
    """Leave the terminal's process group and die with the parent, however it dies.

    Ctrl-C then reaches the sweep alone, which passes it on once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError):
        os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the server's mask
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # the fork server's death
    threading.Thread(target=_watch, name="watch parent", daemon=True).start()


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _limit_threads(threads: int) -> None:
    """Give libraries that were loaded by the server this job's share of threads."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _run(
    shared: Shared, overrides: Sequence[str], index: int, options: JobOptions
) -> tuple[str, Any, str | None, JobReturn | None]:
    Singleton._instances.update(shared["singletons"])
    setup_globals()
    context, master = shared["context"], shared["config"]
    packed = shared.get("first")
    first = pickle.loads(packed) if packed else None
    config = compose(context, master, overrides, first)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = index
    if options["log"] is not None:
        folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        _redirect(folder, options["log"])
    result = run_job(
        hydra_context=context,
        task_function=_task(*shared["task"]),
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    full = _sendable(result) if options["full"] else None
    if result.status is JobStatus.COMPLETED:
        return ("value", result.return_value if full is None else None, None, full)
    error = result._return_value
    _print(error)
    kind, reason = end_by(error)
    return kind, None, reason, full


def _task(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return inspect.unwrap(found)


def _redirect(folder: Path, name: str) -> None:
    """Let the log file take what this process prints, C libraries included."""
    folder.mkdir(parents=True, exist_ok=True)
    _flush()
    log = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _print(error: BaseException) -> None:
    from ppo_workbench.config.secrets import redact

    if not isinstance(error, optuna.TrialPruned | KeyboardInterrupt):
        with suppress(OSError):
            print(redact("".join(traceback.format_exception(error))), file=sys.stderr)


def _sendable(result: JobReturn) -> JobReturn:
    try:
        pickle.loads(pickle.dumps(result))
    except Exception:
        error = result._return_value
        result.return_value = RuntimeError(f"{type(error).__name__}: {error}")
    return result


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
