"""Hydra launcher `pool`: local processes, a fresh one a job, started without blocking.

Hydra imports this module at every start, so it stays light.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, List, Optional  # noqa: UP035

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra_plugins.pool._processes import Job, Processes


@dataclass
class PoolConf:
    """Settings of the launcher.

    Attributes:
        n_jobs: Jobs at the same time.
        threads: Threads of a job; null shares the cores out.
        preload: Modules that the server of processes imports once for all jobs.
        log: File in the job's folder that takes what the job prints; null leaves the terminal.
    """

    _target_: str = "hydra_plugins.pool.launcher.PoolLauncher"
    n_jobs: int = 2
    threads: Optional[int] = None  # noqa: UP045  OmegaConf's schema
    preload: List[str] = field(  # noqa: UP006
        default_factory=lambda: ["ppo_workbench.pipeline"]
    )
    log: Optional[str] = "log.txt"  # noqa: UP045


ConfigStore.instance().store(
    group="hydra/launcher", name="pool", node=PoolConf, provider="ppo_workbench"
)


class PoolLauncher(Launcher):
    """Runs each job in a fresh process of this machine."""

    def __init__(
        self, n_jobs: int, threads: int | None, preload: Sequence[str], log: str | None
    ) -> None:
        """Keep the settings; nothing starts before the first job."""
        self.n_jobs, self._threads = n_jobs, threads
        self.preload, self.log = list(preload), log
        self._processes: Processes | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what every job needs."""
        from ppo_workbench.config import ConfigError
        from ppo_workbench.config.machine import usable_cores

        for name, value in (("n_jobs", self.n_jobs), ("threads", self._threads)):
            if value is not None and value < 1:
                raise ConfigError(f"hydra.launcher.{name}={value}: must be at least 1")
        self.threads = self._threads or max(1, usable_cores() // self.n_jobs)
        self._context, self._task, self.config = hydra_context, task_function, config

    def warm_up(self, database: bool) -> None:
        """Start the server of processes, whose imports then overlap with other work.

        Args:
            database: Jobs will open a database.
        """
        if database:
            self.preload.append("hydra_plugins.pool._database")
        self._pool()

    def submit(self, overrides: Sequence[str], index: int) -> "Job":
        """Start a job and return at once.

        Args:
            overrides: All of the job's overrides.
            index: The job's number for Hydra.
        """
        return self._pool().start(overrides, index)

    def wait(self, timeout: float | None) -> "list[Job]":
        """Return the jobs that have ended since the last call, waiting for the first of them.

        Args:
            timeout: Seconds after which to return without any; None waits on.
        """
        return self._pool().wait(timeout)

    def interrupt(self) -> None:
        """Ask running jobs to end, as Ctrl-C would."""
        self._pool().interrupt()

    def close(self) -> None:
        """Kill what still runs."""
        if self._processes is not None:
            self._processes.kill()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run a batch of jobs and return when all have ended, for Hydra's other sweepers."""
        from hydra_plugins.pool._processes import run_all

        try:
            return run_all(self._pool(full=True), self.n_jobs, job_overrides, initial_job_idx)
        finally:
            self.close()

    def _pool(self, full: bool = False) -> "Processes":
        if self._processes is None:
            from hydra_plugins.pool._processes import Processes

            shared: dict[str, Any] = {
                "context": self._context,
                "task": self._task,
                "config": self.config,
            }
            self._processes = Processes(shared, self.threads, self.preload, self.log, full)
        return self._processes
