"""A task that costs nothing, as the tests sweep it: in this process's Hydra or as a program."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import optuna
import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.optuna_pruning._plan import Settings, plan
from hydra_plugins.optuna_pruning._run import run
from hydra_plugins.optuna_pruning.sweeper import OptunaPruningConf
from hydra_plugins.pool._processes import Job
from ppo_workbench.config import ConfigError
from ppo_workbench.records.studies.session import TrialSession, describe, load_study, open_storage

LIGHT = "hydra.launcher.preload=[]"
SMALL = ["hydra.sweeper.study_name=toy", "hydra.sweeper.n_trials=4"]
ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = {
    "x": 0.0,
    "n": 1,
    "word": None,
    "items": [0],
    "mode": "value",
    "pause": 0.0,
    "trial": {"study": None, "number": None, "storage": None},
    "defaults": [
        "_self_",
        {"override hydra/sweeper": "optuna_pruning"},
        {"override hydra/launcher": "pool"},
        {"override hydra/hydra_logging": "none"},
        {"override hydra/job_logging": "none"},
    ],
    "hydra": {
        "output_subdir": None,
    },
}
ConfigStore.instance().store(name="toy", node=CONFIG)


def objective(x: float) -> float:
    """Return the value of a point, largest at 0.3."""
    return -((x - 0.3) ** 2)


def task(cfg: DictConfig) -> Any:
    """Do what `mode` says."""
    print(f"trial {cfg.trial.number}", flush=True)
    act = {
        "session": _session,
        "front": _front,
        "sleep": _sleep,
        "kill": _kill,
        "doze": _doze,
        "word": _word,
        "instances": _instances,
    }.get(cfg.mode)
    if act is not None:
        return act(cfg)
    if cfg.mode == "raise":
        raise ValueError("no luck")
    if cfg.mode == "exit":
        raise SystemExit(3)
    if cfg.mode == "pruned":
        raise optuna.TrialPruned
    return {"nothing": float("nan"), "text": "seven"}.get(cfg.mode, objective(cfg.x))


def session(cfg: DictConfig) -> TrialSession:
    """Open the trial as a job does."""
    home = Path(os.environ["PPO_WORKBENCH_HOME"])
    return TrialSession(cfg.trial.storage, cfg.trial.study, cfg.trial.number, home)


def _session(cfg: DictConfig) -> float:
    with session(cfg) as trial:
        for step in range(3):
            time.sleep(cfg.pause)
            if trial.report(objective(cfg.x), step):
                trial.pruned({"pruned_at": step})
                return 0.0
        trial.complete([objective(cfg.x)], {"seeds": [0]}, [cfg.x - 0.5])
    return 0.0


def _word(cfg: DictConfig) -> float:
    with session(cfg) as trial:
        trial.complete([0.0], {"word": cfg.word})
    return 0.0


def _instances(cfg: DictConfig) -> float:
    """Score 12 instances of unlike difficulty, in an order of the trial's own, noise included."""
    random = np.random.default_rng(cfg.trial.number)
    scores = 10 * np.arange(12) + objective(cfg.x) + random.normal(0, 0.01, 12)
    with session(cfg) as trial:
        assert trial.compares_instances
        for done, instance in enumerate(random.permutation(12)):
            if trial.report(scores[instance], int(instance)):
                trial.pruned({"done": done + 1})
                return 0.0
        trial.complete([float(scores.mean())], {"done": 12})
    return 0.0


def _front(cfg: DictConfig) -> list[float]:
    with session(cfg) as trial:
        assert not trial.report(cfg.x, 0)
    return [cfg.x, cfg.x]


def _sleep(cfg: DictConfig) -> float:
    with session(cfg):
        (Path(os.environ["PPO_WORKBENCH_HOME"]) / f"asleep_{cfg.trial.number}").touch()
        time.sleep(60)
    return 0.0


def _doze(cfg: DictConfig) -> float:
    time.sleep(cfg.x)
    return 0.0


def _kill(cfg: DictConfig) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def check(cfg: DictConfig, choices: dict[str, str], directions: list[str]) -> None:
    """Refuse points outside of the unit interval."""
    if not 0 <= cfg.x <= 1:
        raise ConfigError(f"x={cfg.x}: must be from 0 to 1")


def settle(
    cfg: DictConfig, choices: dict[str, str], kept: dict[str, Any] | None, searched: list[str]
) -> dict[str, Any]:
    """Choose a word for all trials at a study's first start."""
    assert searched == ["x"]
    SETTLED.append((cfg.x, kept))
    return kept or {"overrides": [f"word=chosen_{len(SETTLED)}"]}


SETTLED: list[tuple[float, Any]] = []


class Observer:
    """Remembers what it is told."""

    def __init__(self, *about: Any) -> None:
        """Begin."""
        OBSERVERS.append(self)
        self.about = about
        self.events: list[Sequence[Any]] = []

    def trial_started(self, *facts: Any) -> str:
        """Remember a start."""
        self.events.append(("started", *facts))
        return f"run {facts[0]}"

    def trial_finished(self, *facts: Any) -> None:
        """Remember an end."""
        self.events.append(("finished", *facts))

    def close(self, *facts: Any) -> None:
        """Remember the end of the sweep, and fail at it."""
        self.events.append(("closed", *facts))
        raise OSError("the server is down")


OBSERVERS: list[Observer] = []


def sweep(home: Path, *overrides: str) -> Any:
    """Sweep the toy in this process; the pool's jobs load no more than they need."""
    first = _light(overrides)
    first += [] if "hydra/sweeper=basic" in overrides else SMALL
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPO_WORKBENCH_HOME", str(home))
        with hydra.initialize(version_base="1.3", config_path=None):
            main = GlobalHydra.instance().hydra
            assert main is not None
            return main.multirun("toy", task, [*first, *overrides], with_log_configuration=False)


class Instant:
    """A launcher that runs each job at once, in this process and without Hydra."""

    n_jobs = 1

    def __init__(self) -> None:
        """Begin without jobs."""
        self._ended: list[Job] = []

    def submit(self, overrides: Sequence[str], index: int) -> None:
        """Run a job."""
        cfg = OmegaConf.create(
            {key: CONFIG[key] for key in ("x", "n", "word", "mode", "pause", "trial")}
        )
        for one in OverridesParser.create().parse_overrides(list(overrides)):
            OmegaConf.update(cfg, one.key_or_group, one.value(), force_add=True)
        try:
            self._ended.append(Job(index, [], "value", task(cfg)))
        except Exception as error:
            self._ended.append(Job(index, [], "error", reason=describe(error)))

    def wait(self, timeout: float | None) -> list[Job]:
        """Return what has ended."""
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Have nothing to close."""


@cache
def _composed() -> tuple[HydraContext, DictConfig]:
    GlobalHydra.instance().clear()
    with hydra.initialize(version_base="1.3", config_path=None):
        main = GlobalHydra.instance().hydra
        assert main is not None
        cfg = main.compose_config("toy", [], RunMode.MULTIRUN)
        return HydraContext(config_loader=main.config_loader, callbacks=Callbacks(cfg)), cfg


def quick(home: Path, *arguments: str, **settings: Any) -> Any:
    """Sweep the toy in this process with `Instant`, the settings as a file would give them."""
    context, cfg = _composed()
    values = asdict(OptunaPruningConf(study_name="toy", n_trials=4))
    del values["_target_"]
    launcher: Any = Instant()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPO_WORKBENCH_HOME", str(home))
        settled = Settings(**{**values, **settings})
        return run(plan(settled, context, deepcopy(cfg), launcher, arguments, home))


def start(home: Path, *overrides: str) -> "subprocess.Popen[str]":
    """Start a sweep of the toy as a program."""
    home.mkdir(exist_ok=True)
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    arguments = ["--multirun", *_light(overrides), *SMALL, *overrides]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweeps.toy", *arguments],
        env={**os.environ, "PYTHONPATH": path, "PPO_WORKBENCH_HOME": str(home)},
        cwd=home,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a process group as a terminal's, without pytest in it
    )


def _light(overrides: Sequence[str]) -> list[str]:
    other = any(text.startswith("hydra/launcher=") for text in overrides)
    return [] if other else [LIGHT]


def study(home: Path, name: str = "toy", uri: str | None = None) -> optuna.Study:
    """Load a study of this home."""
    return load_study(open_storage(uri, home, name), name)


def trials(home: Path, name: str = "toy", uri: str | None = None) -> list[tuple[Any, ...]]:
    """Return state, values and parameters of a study's trials."""
    return [(one.state.name, one.values, one.params) for one in study(home, name, uri).trials]


main = hydra.main(version_base="1.3", config_path=None, config_name="toy")(task)

if __name__ == "__main__":
    main()
