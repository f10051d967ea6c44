"""Cells of a comparison as jobs of the Hydra launcher that the configuration names."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig

from ppo_workbench.pipeline.compare.running import Ended

INTERRUPT_SECONDS = 20.0


class LauncherJobs:
    """Runs (name, overrides) jobs, each with the overrides of this command before its own."""

    def __init__(self, task: Callable[[DictConfig], Any]) -> None:
        """Take what Hydra composed for this command.

        Args:
            task: The function that `hydra.main` decorates.
        """
        self._task = task
        self.overrides: Sequence[str] = [
            str(override) for override in HydraConfig.get().overrides.task
        ]

    def run(self, jobs: Iterable[tuple[str, Sequence[str]]], folder: Path) -> Iterator[Ended]:
        """Yield jobs as they end; what job NAME prints goes to folder/NAME/log.txt.

        Args:
            jobs: Name and overrides of every job; later overrides of a key win.  A job is asked
                for when there is room for it.
            folder: Folder of all jobs.

        Raises:
            KeyboardInterrupt: Ctrl-C; running jobs were asked to end, and killed if they did not.
        """
        waiting = iter(jobs)
        first = next(waiting, None)
        if first is None:
            return
        from hydra_plugins.optuna_pruning._jobs import Batches
        from hydra_plugins.pool._processes import ended_jobs

        config: Any = HydraConfig.instance().cfg
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=_context(), task_function=self._task, config=config
        )
        runner: Any = launcher if hasattr(launcher, "submit") else Batches(launcher, config, None)
        place, names = f"hydra.sweep.dir={_quoted(str(folder))}", list[str]()

        def numbered() -> Iterator[tuple[int, list[str]]]:
            for name, overrides in chain([first], waiting):
                names.append(name)
                own = [*overrides, place, f"hydra.sweep.subdir={_quoted(name)}"]
                yield len(names) - 1, merged(self.overrides, own)

        try:
            for job in ended_jobs(runner, numbered()):
                reason = None if job.kind == "value" else job.reason or job.kind
                yield Ended(names[job.index], reason, job.kind == "killed")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                print(f"Ctrl-C: running cells get {INTERRUPT_SECONDS:.0f} s to end", flush=True)
            runner.interrupt()
            runner.wait(INTERRUPT_SECONDS)
            raise
        finally:
            runner.close()


def merged(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Return all overrides; of those of `first` whose key stands in `second` only the latter.

    >>> merged(["seed=1", "data=null"], ["seed=2"])
    ['data=null', 'seed=2']
    """
    keys = {_key(override) for override in second}
    return [override for override in first if _key(override) not in keys] + list(second)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _context() -> HydraContext:
    from hydra._internal.callbacks import Callbacks

    loader = GlobalHydra.instance().config_loader()
    return HydraContext(config_loader=loader, callbacks=Callbacks())


def _quoted(text: str) -> str:
    """Quote a value for Hydra's grammar."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
