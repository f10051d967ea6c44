"""Jobs as Ray tasks: never retried by Ray, each in a process that ends with it."""

import logging
import os
import pickle
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

# Read when ray is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from hydra_plugins.pool._processes import Job, JobOptions, Shared, packed

PASSED_ON = ("PPO_WORKBENCH_", "MLFLOW_")


class Tasks:
    """The running jobs of one launcher."""

    def __init__(
        self, shared: Shared, address: str | None, n_jobs: int, options: JobOptions
    ) -> None:
        """Connect to a cluster, or start one that only this machine can reach."""
        self._own = not ray.is_initialized()
        cores = options["threads"]
        if self._own and address is None:
            ray.init(
                address="local",
                num_cpus=n_jobs * cores,
                num_gpus=0,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        elif self._own:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        # `max_calls=1` ends the process with the job; a retry would report a trial twice.
        self._work = ray.remote(num_cpus=cores, max_calls=1, max_retries=0)(_work)
        self._blob, self._options = ray.put(packed(shared, has_main=False)), options
        self._running: dict[Any, Job] = {}

    def start(self, overrides: Sequence[str], index: int) -> Job:
        """Queue a task for a job."""
        job = Job(index, list(overrides))
        environment = {key: text for key, text in os.environ.items() if key.startswith(PASSED_ON)}
        task = self._work.remote(self._blob, job.overrides, index, environment, self._options)
        self._running[task] = job
        return job

    def wait(self, timeout: float | None) -> list[Job]:
        """Return the jobs that have ended since, after at most `timeout` seconds."""
        tasks = list(self._running)
        if not tasks:
            if timeout:
                time.sleep(timeout)
            return []
        ready, _ = ray.wait(tasks, num_returns=1, timeout=timeout)
        more, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return [_outcome(task, self._running.pop(task)) for task in {*ready, *more}]

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in every job."""
        for task in self._running:
            ray.cancel(task, force=False)

    def close(self) -> None:
        """Kill every job and leave the cluster."""
        for task in self._running:
            with suppress(Exception):
                ray.cancel(task, force=True)
        self._running.clear()
        if self._own:
            ray.shutdown()


def _outcome(task: Any, job: Job) -> Job:
    try:
        job.kind, job.value, job.reason, job.full = pickle.loads(ray.get(task))
    except (ray.exceptions.TaskCancelledError, KeyboardInterrupt):
        job.kind, job.reason = "interrupted", "interrupted"
    except ray.exceptions.WorkerCrashedError:
        job.kind, job.reason = "error", "the process was killed"
    except ray.exceptions.RayError as error:
        text = " ".join(str(error).split())[:500]
        job.kind, job.reason = "error", f"{type(error).__name__}: {text}"
    return job


def _work(
    blob: bytes,
    overrides: Sequence[str],
    index: int,
    environment: Mapping[str, str],
    options: JobOptions,
) -> bytes:
    """Run one job in Ray's process."""
    from hydra_plugins.pool._worker import outcome

    os.environ.update(environment)
    return outcome(blob, overrides, index, options)
