"""What the launchers share that give each job a fresh process; light, as Hydra imports it."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra_plugins.pool._processes import Job, Shared


class FreshProcesses(Launcher):
    """Runs each job in a fresh process, started without blocking.

    Attributes:
        n_jobs: Jobs at the same time.
    """

    def __init__(self, n_jobs: int, threads: int | None) -> None:
        """Keep the settings; nothing starts before the first job."""
        self.n_jobs, self._threads = n_jobs, threads
        self._jobs: Any = None

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

    def submit(self, overrides: Sequence[str], index: int) -> "Job":
        """Start a job and return at once.

        Args:
            overrides: All of the job's overrides.
            index: The job's number for Hydra.
        """
        job: Job = self._started().start(overrides, index)
        return job

    def wait(self, timeout: float | None) -> "list[Job]":
        """Return the jobs that have ended since the last call, waiting for the first of them.

        Args:
            timeout: Seconds after which to return without any; None waits on.
        """
        ended: list[Job] = self._started().wait(timeout)
        return ended

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
        """Kill what still runs, and leave the cluster or end it, if there is one."""
        if self._jobs is not None:
            self._jobs.close()
            self._jobs = None

    def _started(self, full: bool = False) -> Any:
        """Return what runs jobs, started if need be."""
        if self._jobs is None:
            self._jobs = self._start(full)
        return self._jobs

    @abstractmethod
    def _start(self, full: bool) -> Any:
        """Make what runs jobs; `full`: for `launch`, with Hydra's own record of each."""
