"""Hydra launcher `ray_pool`: jobs as Ray tasks, a fresh process a job, started without blocking.

Hydra imports this module at every start, so it stays light: no ray before the first job.
"""

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.pool._launching import FreshProcesses

if TYPE_CHECKING:
    from hydra_plugins.pool._processes import JobOptions
    from hydra_plugins.ray_pool._tasks import Tasks


@dataclass
class RayPoolConf:
    """Settings of the launcher.

    Attributes:
        n_jobs: Jobs at the same time.
        threads: Threads and Ray cores of a job.
        address: Of a running Ray cluster, `auto` or `host:6379`; null starts one on this machine
            that listens on the loopback interface alone and ends with the sweep.
        log: File in the job's folder that takes what the job prints; null leaves it to Ray.
    """

    _target_: str = "hydra_plugins.ray_pool.launcher.RayPoolLauncher"
    n_jobs: int = 2
    threads: int = 1
    address: Optional[str] = None  # noqa: UP045  OmegaConf's schema
    log: Optional[str] = "log.txt"  # noqa: UP045


ConfigStore.instance().store(
    group="hydra/launcher", name="ray_pool", node=RayPoolConf, provider="ppo_workbench"
)


class RayPoolLauncher(FreshProcesses):
    """Runs each job as a task of Ray, on this machine or a cluster."""

    def __init__(self, n_jobs: int, threads: int, address: str | None, log: str | None) -> None:
        """Keep the settings; Ray starts with the first job."""
        super().__init__(n_jobs, threads)
        self._address, self._log = address, log

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what every job needs.

        Raises:
            ConfigError: A setting is out of range, or ray is not installed.
        """
        from ppo_workbench.config import ConfigError

        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if importlib.util.find_spec("ray") is None:
            raise ConfigError(
                "hydra/launcher=ray_pool: needs the package ray, install it "
                "(pip install 'ppo-workbench[ray]') or choose hydra/launcher=pool"
            )

    def _start(self, full: bool) -> "Tasks":
        if self._address is None:
            # Read when ray is imported: else it swaps 127.0.0.1 for the machine's address.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        from hydra_plugins.ray_pool._tasks import Tasks

        options: JobOptions = {"threads": self._threads or 1, "log": self._log, "full": full}
        return Tasks(self._shared, self._address, self.n_jobs, options)
