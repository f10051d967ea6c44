"""Hydra launcher `pool`: local processes, a fresh one a job, started without blocking.

Hydra imports this module at every start, so it stays light.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, List, Optional  # noqa: UP035

from hydra.core.config_store import ConfigStore

from hydra_plugins.pool._launching import FreshProcesses

if TYPE_CHECKING:
    from hydra_plugins.pool._processes import Processes


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


class PoolLauncher(FreshProcesses):
    """Runs each job in a fresh process of this machine."""

    def __init__(
        self, n_jobs: int, threads: int | None, preload: Sequence[str], log: str | None
    ) -> None:
        """Keep the settings; nothing starts before the first job."""
        super().__init__(n_jobs, threads)
        self.preload, self.log = list(preload), log

    def warm_up(self, database: bool) -> None:
        """Start the server of processes, whose imports then overlap with other work.

        Args:
            database: Jobs will open a database.
        """
        if database:
            self.preload.append("hydra_plugins.pool._database")
        self._started()

    def _start(self, full: bool) -> "Processes":
        from hydra_plugins.pool._processes import Processes
        from ppo_workbench.config.machine import usable_cores

        threads = self._threads or max(1, usable_cores() // self.n_jobs)
        return Processes(self._shared, threads, self.preload, self.log, full)
