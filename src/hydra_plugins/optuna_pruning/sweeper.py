"""Hydra sweeper `optuna_pruning`: Optuna under `--multirun`, with pruning and restarts.

Hydra imports this module at every start, so it stays light: no optuna, no torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class OptunaPruningConf:
    """Settings of the sweeper.

    Attributes:
        study_name: Name of the study; null is the sweep's name and the UTC time.
        storage: SQLAlchemy address; null is the journal file in the study's folder.
        directions: "maximize" or "minimize" for each value of a trial.
        objective: What the values are; a study keeps to one.
        n_trials: Finished trials (complete or pruned) that the study shall hold.
        sampler: `{name: tpe | gp | random | qmc | cmaes | grid, argument: value}`.
        pruner: `{name: none | median | asha | hyperband | percentile | wilcoxon, ...}`.
        params: Config key -> Hydra sweep syntax, or a value for all trials.
        enqueue: Points to try first, each key -> value; missing keys are sampled.
        warm_start: Earlier study whose best points are tried first.
        warm_start_points: How many of them.
        max_failure_rate: Failed trials that this process accepts, as a share of `n_trials`.
        seed: Of the sampler; null draws one.
        heartbeat_seconds: How often a trial shows that it is alive; after four missed beats
            another machine takes it for lost.
        interrupt_seconds: What running trials get to end after Ctrl-C.
        batch_size: Trials that a launcher other than `pool` runs at once; null asks it.
        check: `module:function` that takes a composed configuration, its options and the
            directions, and raises if it is not allowed; called on samples before the first trial.
        settle: `module:function` that takes a composed configuration, its options, what it
            returned at the study's first start (None then) and the keys that are searched; its
            `overrides` go to all trials.
        observe: `module:function` that takes home, study, a composed configuration and its
            options, and returns an observer with `trial_started`, `trial_finished`, `close` and,
            if it likes, `what_next`: the last words, from the overrides that go on.
    """

    _target_: str = "hydra_plugins.optuna_pruning.sweeper.OptunaPruningSweeper"
    study_name: Optional[str] = None  # noqa: UP045  OmegaConf's schema
    storage: Optional[str] = None  # noqa: UP045
    directions: List[str] = field(default_factory=lambda: ["maximize"])  # noqa: UP006
    objective: Optional[str] = None  # noqa: UP045
    n_trials: int = 20
    sampler: Dict[str, Any] = field(default_factory=lambda: {"name": "tpe"})  # noqa: UP006
    pruner: Dict[str, Any] = field(default_factory=lambda: {"name": "median"})  # noqa: UP006
    params: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    enqueue: List[Dict[str, Any]] = field(default_factory=list)  # noqa: UP006
    warm_start: Optional[str] = None  # noqa: UP045
    warm_start_points: int = 5
    max_failure_rate: float = 0.5
    seed: Optional[int] = 0  # noqa: UP045
    heartbeat_seconds: float = 30.0
    interrupt_seconds: float = 60.0
    batch_size: Optional[int] = None  # noqa: UP045
    check: Optional[str] = None  # noqa: UP045
    settle: Optional[str] = None  # noqa: UP045
    observe: Optional[str] = None  # noqa: UP045


def _register() -> None:
    schema = OmegaConf.structured(OptunaPruningConf)
    # Their keys are the user's: `hydra.sweeper.sampler={name: gp, ...}` needs no `+`.
    for name in ("sampler", "pruner", "params"):
        OmegaConf.set_struct(schema[name], False)
    ConfigStore.instance().store(
        group="hydra/sweeper", name="optuna_pruning", node=schema, provider="ppo_workbench"
    )


_register()


class OptunaPruningSweeper(Sweeper):
    """Asks Optuna for trials, runs them through the launcher and watches over them."""

    def __init__(self, **settings: Any) -> None:
        """Keep the settings; they are checked in `sweep`."""
        self.settings = {key: _plain(value) for key, value in settings.items()}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take Hydra's context and make the launcher."""
        self.context, self.config = hydra_context, config
        self.composed = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Fill the study up to `n_trials` finished trials.

        Args:
            arguments: Overrides of the command line, sweeps among them.

        Returns:
            The number and values of the best trials.

        Raises:
            ConfigError: The sweep cannot be done as asked; no trial has started.
            SweepError: Too many trials failed.
            Interrupted: Ctrl-C; running trials have ended.
        """
        from hydra_plugins.optuna_pruning._plan import Settings, plan
        from hydra_plugins.optuna_pruning._run import run

        home = Path(os.environ.get("PPO_WORKBENCH_HOME", ".")).absolute()
        raw = self.composed.hydra.sweeper._get_node("storage")._value()
        settings = Settings(**self.settings, raw_storage=raw)
        return run(plan(settings, self.context, self.composed, self.launcher, arguments, home))


def _plain(value: Any) -> Any:
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    return dict(value) if isinstance(value, Mapping) else value
