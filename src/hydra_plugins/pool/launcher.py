"""Hydra launcher `pool`: local processes, a fresh one a job, started without blocking.

Hydra imports this module at every start, so it stays light.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, List, Optional  # noqa: UP035

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra_plugins.pool._processes import Job, Processes, Shared


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
        default_factory=lambda: ["ppo_workbench.pipeline.preloaded"]
    )
    log: Optional[str] = "log.txt"  # noqa: UP045


ConfigStore.instance().store(
    group="hydra/launcher", name="pool", node=PoolConf, provider="ppo_workbench"
)


class PoolLauncher(Launcher):
    """Runs each job in a fresh process of this machine, started without blocking.

    Attributes:
        n_jobs: Jobs at the same time.
    """

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
        """Take what every job needs.

        Raises:
            ConfigError: A setting is out of range.
        """
        from ppo_workbench.config import ConfigError

        for name, value in (("n_jobs", self.n_jobs), ("threads", self._threads)):
            if value is not None and value < 1:
                raise ConfigError(f"hydra.launcher.{name}={value}: must be at least 1")
        self._shared: Shared = {
            "context": hydra_context,
            "task": task_function,
            "config": config,
        }

    def warm_up(self, database: bool) -> None:
        """Start the server of processes, whose imports then overlap with other work.

        Args:
            database: Jobs will open a database.
        """
        if database:
            self.preload.append("hydra_plugins.pool._database")
        self._started()

    def submit(self, overrides: Sequence[str], index: int) -> "Job":
        """Start a job and return at once.

        Args:
            overrides: All of the job's overrides.
            index: The job's number for Hydra.
        """
        return self._started().start(overrides, index)

    def wait(self, timeout: float | None) -> "list[Job]":
        """Return the jobs that have ended since the last call, waiting for the first of them.

        Args:
            timeout: Seconds after which to return without any; None waits on.
        """
        return self._started().wait(timeout)

    def interrupt(self) -> None:
        """Ask running jobs to end, as Ctrl-C would."""
        self._started().interrupt()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run a batch of jobs and return when all have ended, for Hydra's other sweepers."""
        from hydra_plugins.pool._processes import ended_jobs, job_return

        try:
            self._started(full=True)
            ended = [*ended_jobs(self, enumerate(job_overrides, initial_job_idx))]
            return [job_return(job) for job in sorted(ended, key=lambda job: job.index)]
        finally:
            self.close()

    def close(self) -> None:
        """Kill what still runs."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def _started(self, full: bool = False) -> "Processes":
        """Return the processes; `full`: for `launch`, with Hydra's own record of each job."""
        if self._processes is None:
            from hydra_plugins.pool._processes import Processes
            from ppo_workbench.config.machine import usable_cores

            threads = self._threads or max(1, usable_cores() // self.n_jobs)
            self._processes = Processes(self._shared, threads, self.preload, self.log, full)
        return self._processes
