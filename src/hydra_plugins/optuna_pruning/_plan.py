"""Everything that can be refused is refused here, before the first trial."""

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.distributions import check_distribution_compatibility
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hydra_plugins.optuna_pruning._samplers import check_sampler
from hydra_plugins.optuna_pruning._space import Space, read_space
from hydra_plugins.optuna_pruning.sweeper import OptunaPruningConf
from ppo_workbench.config import ConfigError, WorkbenchError
from ppo_workbench.config.secrets import masked
from ppo_workbench.records.storage import claim_lock, open_storage, study_folder
from ppo_workbench.records.studies.identity import check_unclaimed, claim_folder
from ppo_workbench.records.studies.session import (
    LINEAGE,
    SETTLED,
    SWEEP,
    last_seen,
    load_study,
    make_pruner,
)

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# Values of the parameters -> a trial's configuration, and the options chosen in it.
Sample = Callable[[Mapping[str, Any]], tuple[DictConfig, dict[str, str]]]


@dataclass
class Settings(OptunaPruningConf):
    """The sweeper's settings, and the storage as it was written, secrets unresolved."""

    raw_storage: str | None = None


@dataclass
class Plan:
    """A sweep that may start.

    Attributes:
        settings: As given, names filled in.
        space: What is searched.
        study: Opened, with its points in the queue.
        storage: Of the study, not wrapped.
        home: The workbench's home folder.
        folder: The study's folder.
        launcher: Hydra's launcher.
        config: Hydra's configuration of the sweep.
        observer: Is told of trials; None if nobody wants to know.
    """

    settings: Settings
    space: Space
    study: optuna.Study
    storage: Any
    home: Path
    folder: Path
    launcher: Launcher
    config: DictConfig
    observer: Any

    @property
    def name(self) -> str:
        """Return the study's name."""
        return self.study.study_name

    def lock(self) -> AbstractContextManager[None]:
        """Keep other sweep processes from asking meanwhile."""
        return claim_lock(self.storage, self.settings.storage, self.home, self.name)

    def overrides(self, number: int, values: Mapping[str, object]) -> list[str]:
        """Return all overrides of a trial's job."""
        return job_overrides(self.settings, self.space, self.folder, number, values)


def plan(
    settings: Settings,
    context: HydraContext,
    config: DictConfig,
    launcher: Launcher,
    arguments: Sequence[str],
    home: Path,
) -> Plan:
    """Check a sweep and open its study.

    Raises:
        ConfigError: One sentence on what cannot be done as asked.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    choices = {key: str(value) for key, value in config.hydra.runtime.choices.items()}
    name = _name(settings, choices.get("sweep"))
    _check_numbers(settings)
    space = read_space(settings.params, arguments, context.config_loader)
    check_sampler(settings.sampler, space, len(settings.directions))
    make_pruner(settings.pruner)
    if len(settings.directions) > 1:
        settings.pruner = {"name": "none"}
    points = [_point(space, point, "hydra.sweeper.enqueue") for point in settings.enqueue]
    folder = study_folder(home, name)
    with open_dict(config):
        config.hydra.sweep.dir = str(folder)

    def sample(values: Mapping[str, Any]) -> tuple[DictConfig, dict[str, str]]:
        """Compose one configuration without Hydra's part, and its options."""
        overrides = job_overrides(settings, space, folder, 0, values)
        composed = context.config_loader.load_sweep_config(config, overrides)
        chosen = {key: str(value) for key, value in composed.hydra.runtime.choices.items()}
        with open_dict(composed):
            del composed["hydra"]
        return composed, chosen

    _check_samples(settings, space, sample)
    if settings.storage is None and not (folder / "journal.log").is_file():
        check_unclaimed(folder, _shown_storage(settings))  # before a journal is made in it
    storage = open_storage(settings.storage, home, name)
    more, lineage = _earlier_points(settings, space, storage, home)
    if hasattr(launcher, "warm_up"):
        launcher.warm_up(database=settings.storage is not None)
    with claim_lock(storage, settings.storage, home, name):
        study = _open_study(settings, space, storage, folder)
        settled = _settled(settings, space, study, sample)
        study = _with_settings(study, settings, space, storage)  # nothing refuses from here on
        study.set_user_attr(LINEAGE, {**study.user_attrs.get(LINEAGE, {}), **lineage})
        space = settled
        for point in [*points, *more]:
            study.enqueue_trial(point, {"last_seen": last_seen()}, skip_if_exists=True)
    _write_settings(settings, config, folder)
    observer = None
    if settings.observe is not None:
        composed = sample({one.name: one.ends()[0] for one in space.parameters})
        observe = _function(settings.observe, "observe")
        # Of several sweeps that start together one begins the record, the others go on with it.
        with claim_lock(storage, settings.storage, home, name, "record"):
            observer = observe(home, name, *composed)
    return Plan(settings, space, study, storage, home, folder, launcher, config, observer)


def job_overrides(
    settings: Settings, space: Space, folder: Path, number: int, values: Mapping[str, object]
) -> list[str]:
    """Return all overrides of a trial's job; the storage keeps its `${oc.env:...}`."""
    return [
        *space.overrides(values),
        f"trial.study={_quoted(folder.name)}",
        f"trial.number={number}",
        f"trial.storage={_quoted(settings.raw_storage)}",
        f"hydra.sweep.dir={_quoted(str(folder))}",
        f"hydra.sweep.subdir='{number}'",
    ]


def _quoted(text: str | None) -> str:
    return "null" if text is None else "'" + text.replace("'", "\\'") + "'"


def _name(settings: Settings, sweep: str | None) -> str:
    stem = sweep if sweep not in (None, "None") else "sweep"
    name = settings.study_name or f"{stem}_{datetime.now(UTC):%Y-%m-%d_%H-%M-%S}"
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,99}", name):
        raise ConfigError(
            f"hydra.sweeper.study_name={name}: must be letters, digits and _ . + - only, "
            "for it names a folder"
        )
    return name


def _check_numbers(settings: Settings) -> None:
    """Refuse numbers and directions out of range."""
    rules = (
        ("n_trials", settings.n_trials >= 1, "at least 1"),
        ("max_failure_rate", 0 <= settings.max_failure_rate <= 1, "from 0 to 1"),
        ("heartbeat_seconds", settings.heartbeat_seconds > 0, "above 0"),
        ("interrupt_seconds", settings.interrupt_seconds >= 0, "0 or more"),
        ("warm_start_points", settings.warm_start_points >= 1, "at least 1"),
        ("batch_size", settings.batch_size is None or settings.batch_size >= 1, "at least 1"),
        ("seed", settings.seed is None or settings.seed >= 0, "0 or more, or null"),
    )
    for name, good, allowed in rules:
        if not good:
            value = getattr(settings, name)
            raise ConfigError(f"hydra.sweeper.{name}={value}: must be {allowed}")
    known = {"maximize", "minimize"}
    if not settings.directions or not known.issuperset(settings.directions):
        raise ConfigError(
            f"hydra.sweeper.directions={settings.directions}: must list maximize or minimize, "
            "one for each value of a trial"
        )


def _point(space: Space, point: Mapping[str, object], where: str) -> dict[str, object]:
    known = {one.name: one for one in space.parameters}
    for key in point:
        if key not in known:
            raise ConfigError(f"{where}: {key} is not searched, searched are {', '.join(known)}")
    try:
        return {key: known[key].stored(value) for key, value in point.items()}
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _check_samples(settings: Settings, space: Space, sample: Sample) -> None:
    """Compose, and check, configurations that hold every choice and both ends of intervals."""
    ends = {one.name: one.ends() for one in space.parameters}
    check = _function(settings.check, "check") if settings.check else None
    for k in range(max(len(values) for values in ends.values())):
        values = {name: options[k % len(options)] for name, options in ends.items()}
        composed = sample(values)
        if check is not None:
            try:
                check(*composed, settings.directions)
            except WorkbenchError as error:
                # Two ends may exclude each other where other points do not.
                if k == 0 or any(f"{name}=" in str(error) for name in ends):
                    raise


def _settled(settings: Settings, space: Space, study: optuna.Study, sample: Sample) -> Space:
    """Fix what all trials of the study share, settled by whoever comes first."""
    if settings.settle is None:
        return space
    values = {one.name: one.middle() for one in space.parameters}
    kept = study.user_attrs.get(SETTLED)
    found = _function(settings.settle, "settle")(*sample(values), kept, list(values))
    if kept is None:
        study.set_user_attr(SETTLED, found)
    return replace(space, fixed=(*space.fixed, *found["overrides"]))


def _function(path: str, setting: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise ConfigError(
            f"hydra.sweeper.{setting}={path}: names no function, write module:function"
        ) from None


def _open_study(settings: Settings, space: Space, storage: Any, folder: Path) -> optuna.Study:
    name, shown = folder.name, _shown_storage(settings)
    try:
        study = load_study(storage, name)
    except WorkbenchError:
        check_unclaimed(folder, shown)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[StudyDirection[direction.upper()] for direction in settings.directions],
        )
    else:
        _check_same(study, settings, space)
    claim_folder(study, folder, shown)
    return study


def _shown_storage(settings: Settings) -> str:
    """Return the storage as the user wrote it, secrets unresolved."""
    written = settings.raw_storage or settings.storage
    return "null" if written is None else str(masked(written))


def _with_settings(
    study: optuna.Study, settings: Settings, space: Space, storage: Any
) -> optuna.Study:
    """Record how the study is searched now, and load it with its pruner."""
    study.set_user_attr(
        SWEEP,
        {
            "sampler": settings.sampler,
            "pruner": settings.pruner,
            "objective": settings.objective,
            "params": {one.name: one.text for one in space.parameters},
            "fixed": masked(space.fixed),
            "n_trials": settings.n_trials,
            "seed": settings.seed,
            "heartbeat_seconds": settings.heartbeat_seconds,
        },
    )
    return load_study(storage, study.study_name)


def _check_same(study: optuna.Study, settings: Settings, space: Space) -> None:
    """Refuse to go on with a study that answers another question."""
    name, remedy = study.study_name, "choose another hydra.sweeper.study_name"
    directions = [direction.name.lower() for direction in study.directions]
    if directions != settings.directions:
        raise ConfigError(
            f"hydra.sweeper.directions={settings.directions}: the study {name} has {directions}, "
            + remedy
        )
    kept = study.user_attrs.get(SWEEP, {})
    if kept and kept.get("objective") != settings.objective:
        raise ConfigError(
            f"hydra.sweeper.objective={settings.objective}: the study {name} has "
            f"{kept.get('objective')}, {remedy}"
        )
    for trial in study.get_trials(deepcopy=False):
        for one in space.parameters:
            old = trial.distributions.get(one.name)
            try:
                if old is not None:
                    check_distribution_compatibility(old, one.distribution)
            except ValueError:
                given = kept.get("params", {}).get(one.name, old)
                raise ConfigError(
                    f"{one.name}={one.text}: the study {name} searched it in {given}, {remedy}"
                ) from None


def _earlier_points(
    settings: Settings, space: Space, storage: Any, home: Path
) -> tuple[list[dict[str, object]], dict[str, int]]:
    """Return the best points of the study to warm-start from, as far as they fit the space.

    And the trials begun in it and in those that it comes from, by study: it may be deleted later.
    """
    name = settings.warm_start
    if name is None:
        return [], {}
    where = f"hydra.sweeper.warm_start={name}"
    try:
        study = load_study(storage, name)
    except WorkbenchError:
        if not (study_folder(home, name) / "journal.log").is_file():
            raise ConfigError(
                f"{where}: neither the storage nor sweeps/ holds this study"
            ) from None
        study = load_study(open_storage(None, home, name), name)
    known = {one.name: one for one in space.parameters}
    points = []
    for trial in best_trials(study)[: settings.warm_start_points]:
        point = {}
        for key in trial.params.keys() & known.keys():
            try:
                point[key] = known[key].stored(trial.params[key])
            except ConfigError:
                continue
        if point:
            points.append({key: point[key] for key in known if key in point})
    if not points:
        raise ConfigError(f"{where}: it has no complete trial within this search space")
    begun = sum(trial.state is not TrialState.WAITING for trial in study.get_trials(deepcopy=False))
    return points, {**study.user_attrs.get(LINEAGE, {}), name: begun}


def best_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the feasible complete trials, best first; with several directions the front."""
    if len(study.directions) > 1:
        return study.best_trials
    sign = -1.0 if study.direction.name == "MAXIMIZE" else 1.0
    complete = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if all(value <= 0 for value in trial.constraints.values())
    ]
    return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


def failures_allowed(settings: Settings) -> int:
    """Return how many failed trials this process accepts."""
    return math.floor(settings.max_failure_rate * settings.n_trials)


def _write_settings(settings: Settings, config: DictConfig, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        name: masked(OmegaConf.to_container(config.hydra[name], resolve=False))
        for name in ("sweeper", "overrides")
    }
    text = OmegaConf.to_yaml(written, resolve=False)
    (folder / "sweep.yaml").write_text(text, encoding="utf-8")
