"""Launchers as the sweep drives them: `submit` does not block, `wait` returns what has ended."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from hydra_plugins.pool._processes import Job, end_by


class Batches:
    """Drives a launcher whose `launch` blocks, such as basic, joblib or submitit."""

    def __init__(self, launcher: Launcher, config: DictConfig, batch_size: int | None) -> None:
        """Find out how many jobs the launcher runs at once."""
        self._launcher, self._waiting = launcher, list[Job]()
        self.n_jobs = batch_size or _parallel(config.hydra.launcher)

    def submit(self, overrides: Sequence[str], index: int) -> Job:
        """Put a job into the next batch."""
        self._waiting.append(Job(index, list(overrides)))
        return self._waiting[-1]

    def wait(self, timeout: float | None) -> list[Job]:
        """Run the batch; blocks until all of it has ended."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return []
        try:
            returns = self._launcher.launch([job.overrides for job in batch], batch[0].index)
        except KeyboardInterrupt:
            for job in batch:
                job.kind, job.reason = "interrupted", "interrupted"
            return batch
        except Exception as error:  # the launcher itself broke, such as a killed joblib worker
            for job in batch:
                job.kind, job.reason = "error", f"{type(error).__name__}: {error}"
            return batch
        for job, result in zip(batch, returns, strict=True):
            _settle(job, result)
        return batch

    def interrupt(self) -> None:
        """Do nothing: the launcher's own processes have had the signal."""

    def close(self) -> None:
        """Forget what has not begun."""
        self._waiting = []


def _parallel(launcher: DictConfig) -> int:
    """Read how many jobs a stock launcher runs at once from its settings."""
    from ppo_workbench.config.machine import usable_cores

    for key in ("n_jobs", "array_parallelism"):
        value = launcher.get(key)
        if value is not None:
            return int(value) if value > 0 else usable_cores()
    return 1


def _settle(job: Job, result: JobReturn) -> None:
    if result.status is JobStatus.COMPLETED:
        job.kind, job.value = "value", result.return_value
    else:
        job.kind, job.reason = end_by(result._return_value)
