"""Jobs as processes: started by a fork server, watched through pipes, killed by group."""

import inspect
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, NotRequired, TypedDict

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


@dataclass
class Job:
    """A job and, once it has ended, what came of it.

    Attributes:
        index: Its number for Hydra.
        overrides: What it was started with.
        kind: "value", "pruned", "error", "killed" or "interrupted"; None while it runs.
        value: What the task function returned.
        reason: Why it failed, one line.
        full: Hydra's own record of the job, for `launch` alone.
    """

    index: int
    overrides: list[str]
    kind: str | None = None
    value: Any = None
    reason: str | None = None
    full: JobReturn | None = None
    process: Any = field(default=None, repr=False)
    pipe: Connection | None = field(default=None, repr=False)


class Shared(TypedDict):
    """What every job needs of the launcher's process; the last two are added when it is packed."""

    context: Any
    task: Any
    config: Any
    first: NotRequired[bytes | None]
    singletons: NotRequired[Any]


class JobOptions(TypedDict):
    """Threads of a job, its log file's name, and whether Hydra's whole `JobReturn` goes back."""

    threads: int
    log: str | None
    full: bool


class Processes:
    """The running jobs of one launcher."""

    def __init__(
        self,
        shared: Shared,
        threads: int,
        preload: Sequence[str],
        log: str | None,
        full: bool,
    ) -> None:
        """Start the fork server; it imports while the caller goes on."""
        self._context = multiprocessing.get_context("forkserver")
        names = ["__main__", "hydra_plugins.pool._worker", "ppo_workbench.records.studies.session"]
        # Python 3.11 preloads no `__main__` that was started with -m.
        module = shared["task"].__module__
        names += [module] if module != "__main__" else []
        self._context.set_forkserver_preload([*names, *preload, "hydra_plugins.pool._frozen"])
        _start_server()
        self._shared, self._blob = shared, b""
        self._options: JobOptions = {"threads": threads, "log": log, "full": full}
        self._running: list[Job] = []

    def start(self, overrides: Sequence[str], index: int) -> Job:
        """Start a process for a job."""
        from hydra_plugins.pool._worker import work

        if not self._blob:
            self._blob = packed({**self._shared, "first": first_job(self._shared, overrides)})
        environment = dict(os.environ)
        for name in THREAD_VARIABLES:
            environment[name] = str(self._options["threads"])
        receiver, sender = self._context.Pipe(duplex=False)
        job = Job(index, list(overrides), pipe=receiver)
        job.process = self._context.Process(
            target=work,
            args=(sender, self._blob, job.overrides, index, environment, self._options),
            name=f"job {index}",
        )
        job.process.start()
        sender.close()
        self._running.append(job)
        return job

    def wait(self, timeout: float | None) -> list[Job]:
        """Return the jobs that have ended since, after at most `timeout` seconds."""
        if not self._running:
            if timeout:
                wait([], timeout)
            return []
        wait([job.pipe for job in self._running if job.pipe is not None], timeout)
        ended = [job for job in self._running if _collect(job)]
        self._running = [job for job in self._running if job not in ended]
        return ended

    def interrupt(self) -> None:
        """Send SIGINT to every job."""
        for job in self._running:
            with suppress(ProcessLookupError):
                os.kill(job.process.pid, signal.SIGINT)

    def close(self) -> None:
        """Kill every job and what it has started."""
        for job in self._running:
            _kill_group(job)
        for job in self._running:
            job.process.join()
        self._running = []


def first_job(shared: Shared, overrides: Sequence[str]) -> bytes | None:
    """Compose and pickle the first job's configuration, from which the others' are made."""
    loader = shared["context"].config_loader
    try:
        return pickle.dumps((loader.load_sweep_config(shared["config"], [*overrides]), overrides))
    except Exception:  # the job composes itself and tells what is wrong
        return None


def packed(shared: Shared) -> bytes:
    """Pickle what every job needs, the task function by its name.

    Args:
        shared: `task` is the task function; the rest can be pickled.

    Raises:
        ConfigError: Another process cannot find the task function.
    """
    state = Singleton.get_state()["instances"]
    task = _reference(shared["task"])
    return pickle.dumps({**shared, "task": task, "singletons": state})


def ended_jobs(launcher: Any, jobs: Iterable[tuple[int, Sequence[str]]]) -> Iterator[Job]:
    """Run jobs, (index, overrides), `launcher.n_jobs` at a time; yield each as it ends.

    A job is asked for when there is room for it.
    """
    waiting, running, ended = iter(jobs), 0, list[Job]()
    while True:
        for index, overrides in islice(waiting, launcher.n_jobs - running):
            launcher.submit(overrides, index)
            running += 1
        yield from ended  # after the next have begun: what is done with it takes its time
        if not running:
            return
        ended = launcher.wait(None)
        running -= len(ended)


def end_by(error: BaseException) -> tuple[str, str | None]:
    """Return kind and reason of a job that ended by an error."""
    import optuna

    from ppo_workbench.config import Interrupted
    from ppo_workbench.records.studies.session import describe

    if isinstance(error, optuna.TrialPruned):
        return "pruned", None
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "interrupted", "interrupted"
    return "error", describe(error)


def _start_server() -> None:
    from multiprocessing import resource_tracker
    from multiprocessing.forkserver import ensure_running

    resource_tracker.ensure_running()  # first: starting it takes the masks away
    # It inherits the masks: Ctrl-C must not end it while it imports, and a SIGTERM to the
    # process group is the sweep's to pass on; the end of the server would kill the jobs.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reference(task: Any) -> tuple[str, str]:
    """Name the task function; `hydra.main` has hidden it behind its wrapper."""
    from ppo_workbench.config import ConfigError

    module, name = task.__module__, task.__qualname__
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None or inspect.unwrap(found) is not inspect.unwrap(task):
        raise ConfigError(
            f"hydra/launcher: the task function {module}.{name} must be a function at the "
            "top of its module, so that another process finds it"
        )
    return module, name


def _collect(job: Job) -> bool:
    """Take a job's outcome if it has ended."""
    assert job.pipe is not None
    if not job.pipe.poll():
        return False
    try:
        job.kind, job.value, job.reason, job.full = job.pipe.recv()
    except (EOFError, pickle.UnpicklingError):
        job.kind = "error"
    job.process.join(5.0)
    if job.process.exitcode is None:
        # It has told its end: what keeps it, such as a stuck thread, is of no use.
        _kill_group(job)
        job.process.join()
    if job.kind == "error" and job.reason is None:
        _kill_group(job)
        code = job.process.exitcode or 0
        job.kind, job.reason = ("killed" if code < 0 else "error"), _cause(code)
    job.pipe.close()
    return True


def _cause(code: int) -> str:
    if code < 0:
        return f"the process was killed by {signal.Signals(-code).name}"
    return f"the process ended with code {code} before the job did"


def _kill_group(job: Job) -> None:
    # The group holds what the job has started; before it exists only the process itself does.
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(job.process.pid, signal.SIGKILL)


def job_return(job: Job) -> JobReturn:
    """Return what Hydra's sweepers read from a job."""
    if job.full is not None:
        return job.full
    failed = JobReturn(overrides=job.overrides, status=JobStatus.FAILED)
    failed.return_value = RuntimeError(job.reason or "interrupted")
    return failed
