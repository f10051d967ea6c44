"""Samplers by name, made anew for each trial so that a study can be gone on with anywhere.

A sampler's random numbers follow from the seed and the trial's number.  A sweep that was
killed, or that several processes share, so neither repeats draws nor depends on who drew.
"""

import importlib.util
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.optuna_pruning._space import Space
from ppo_workbench.config import ConfigError
from ppo_workbench.records.studies.session import FAIL_REASON, INTERRUPTED, LOST, build

SAMPLERS = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "cmaes": "CmaEsSampler",
    "grid": "RandomSampler",  # the points are listed here: Optuna's own may repeat some
}
REQUIRES = {"gp": ("scipy", "torch"), "qmc": ("scipy",), "cmaes": ("cmaes",)}
HIDDEN = (
    "seed",
    "constraints_func",
    "independent_sampler",
    "gamma",
    "weights",
    "consider_prior",
    "consider_magic_clip",
    "consider_endpoints",
    "source_trials",
    "search_space",
    "warn_independent_sampling",
    "warn_asynchronous_seeding",
)
GRID_LIMIT = 100_000


def check_sampler(spec: Mapping[str, object], space: Space, directions: int) -> None:
    """Refuse a sampler that cannot do what is asked.

    Raises:
        ConfigError: Its name or an argument is unknown, a package is missing, or the search
            space or the number of directions is not for it.
    """
    name = spec.get("name")
    for package in REQUIRES.get(str(name), ()):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"hydra.sweeper.sampler.name={name}: needs the package {package}, "
                f"install it (pip install {package}) or choose another sampler"
            )
    make_sampler(spec, None, 0)
    if name == "cmaes" and directions > 1:
        raise ConfigError("hydra.sweeper.sampler.name=cmaes: takes one direction only, choose tpe")
    numeric = [
        one for one in space.parameters if not isinstance(one.distribution, CategoricalDistribution)
    ]
    if name == "cmaes" and len(numeric) < 2:
        raise ConfigError(
            "hydra.sweeper.sampler.name=cmaes: needs two or more intervals or ranges, choose tpe"
        )
    if name == "grid":
        check_grid(space)


def make_sampler(
    spec: Mapping[str, object], seed: int | None, number: int
) -> "optuna.samplers.BaseSampler":
    """Build the sampler for the trial of this number."""
    name = spec.get("name")
    drawn = seed
    if seed is not None:
        drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    own: dict[str, object] = {"seed": drawn}
    if name in ("gp", "qmc", "cmaes"):
        own["warn_independent_sampling"] = False
        own["independent_sampler"] = optuna.samplers.RandomSampler(drawn)
    if name == "qmc":  # a sequence goes on: one scrambling for all trials
        own |= {"seed": seed, "warn_asynchronous_seeding": False}
    return build(  # type: ignore[no-any-return]
        "sampler", SAMPLERS, spec, optuna.samplers, HIDDEN, **own
    )


def check_grid(space: Space) -> int:
    """Return the number of points of the grid.

    Raises:
        ConfigError: A parameter has infinitely many values, or there are too many points.
    """
    points = 1
    for parameter in space.parameters:
        values = parameter.values()
        if values is None:
            raise ConfigError(
                f"hydra.sweeper.sampler.name=grid: {parameter.name}={parameter.text} has no "
                "finite list of values, write choice(...) or range(...), or choose tpe"
            )
        points *= len(values)
    if points > GRID_LIMIT:
        raise ConfigError(f"hydra.sweeper.sampler.name=grid: {points} points, choose tpe")
    return points


def next_grid_point(space: Space, trials: Iterable[FrozenTrial]) -> dict[str, object] | None:
    """Return the first point that no trial has, or None if the grid is exhausted."""
    names = [parameter.name for parameter in space.parameters]
    taken = {
        tuple(point.get(name) for name in names) for trial in trials for point in (_point(trial),)
    }
    lists: Sequence[Sequence[Any]] = [one.values() or [] for one in space.parameters]
    for point in itertools.product(*lists):
        if point not in taken:
            return dict(zip(names, point, strict=True))
    return None


def unlucky(trial: FrozenTrial) -> bool:
    """Tell whether a trial failed for a reason that is not its own: its point deserves a retry."""
    reason = trial.user_attrs.get(FAIL_REASON)
    return trial.state is TrialState.FAIL and reason in (INTERRUPTED, LOST)


def _point(trial: FrozenTrial) -> dict[str, object]:
    if unlucky(trial):
        return {}
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}
