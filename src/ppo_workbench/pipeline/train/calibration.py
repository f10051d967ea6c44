"""What all trials of a study share, settled once: market, rules and budget in timesteps.

Wall time would make a trial's value depend on what else the machine did.  So a budget of
minutes or episodes is measured once, recorded in the study, and every trial trains that
many timesteps, whichever process or machine runs it and however often the sweep is resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import monotonic
from typing import Literal, NotRequired, TypedDict

from ppo_workbench import plugins
from ppo_workbench.config import (
    BudgetConfig,
    CheckpointConfig,
    Config,
    ConfigError,
    Raw,
    flatten,
    settled,
)
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.network import PolicyWeights
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.learning.training import Hooks, Standing, Validation, train_model
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.pipeline.train.fitting import score_on_validation, warm_up
from ppo_workbench.pipeline.train.scores import clearly_better
from ppo_workbench.trading.experiment import prepared

PROBE_FRAC = 0.03
PROBE_SECONDS = (2.0, 15.0)
# Sections whose change makes values incomparable.
SHARED: tuple[Literal["budget", "objective"], ...] = ("budget", "objective")
# The same of sections of which a sweep may search a part.
FIXED = (
    "market",
    "data",
    "splits",
    "features",
    "env",
    "costs",
    "risk",
    "reward",
    "model",
    "select",
)
OF_THE_MACHINE = ("model.device",)


class Settled(TypedDict):
    """What all trials of a study share: overrides for each, timesteps for each of its seeds.

    A later start must repeat the first four; earlier versions recorded nothing `fixed`.
    """

    budget: Mapping[str, object]
    objective: Mapping[str, object]
    fixed: NotRequired[dict[str, object]]
    searched: list[str]
    overrides: list[str]
    timesteps: int
    measured: NotRequired[dict[str, float]]


@dataclass(frozen=True)
class Speed:
    """What a short training measured.

    Attributes:
        steps_per_second: Without evaluations.
        evaluation_seconds: One evaluation on the validation split.
        steps_per_episode: Timesteps an episode takes.
    """

    steps_per_second: float
    evaluation_seconds: float
    steps_per_episode: float


def settle(
    config: Config,
    kept: Settled | None,
    raw: Raw | None = None,
    searched: Sequence[str] = (),
) -> Settled:
    """Return what a study's trials share, measured if this is the study's first start.

    Args:
        config: A point of the search space.
        kept: What this function returned at the study's first start.
        raw: The same as `config` with secrets unresolved; None outside of a study.
        searched: Keys that the study chooses.

    Raises:
        ConfigError: Budget, objective or a fixed value differ from those of the study.
        KeyboardInterrupt: The user does not want to wait for the measurement.
    """
    fixed = fixed_values(raw or {}, searched)
    fixed |= {f"plugins.{name}": digest for name, digest in plugins.digests().items()}
    if kept is not None:
        _check_same(config, kept)
        _check_fixed(fixed, kept, searched)
        return kept.copy()
    budget = config.budget
    found: Settled = {
        "budget": plain(asdict(budget)),
        "objective": plain(asdict(config.objective)),
        "fixed": fixed,
        "searched": list(searched),
        "overrides": [],
        "timesteps": budget.timesteps or 0,
    }
    if budget.minutes is None and budget.episodes is None:
        return found
    speed = measure(config)
    timesteps = planned_timesteps(budget, speed)
    WorkbenchConsole().show(
        f"calibrated: {timesteps:,} timesteps for each seed of every trial "
        f"({speed.steps_per_second:,.0f} a second)"
    )
    limits = [f"budget.timesteps={timesteps}", "budget.minutes=null", "budget.episodes=null"]
    return {**found, "overrides": limits, "timesteps": timesteps, "measured": asdict(speed)}


def fixed_values(raw: Raw, searched: Sequence[str]) -> dict[str, object]:
    """Return key -> value of what all trials have in common: market, rules, reward and model.

    >>> fixed_values({"data": {"sort": True, "path": "a"}, "seed": 1}, ["data.path"])
    {'data.sort': True}
    """
    values = flatten({name: raw[name] for name in FIXED if name in raw})
    # Studies of earlier versions recorded no empty mapping.
    return {k: value for k, value in values.items() if value != {} and not _is_in(k, searched)}


def _is_in(key: str, names: Sequence[str]) -> bool:
    """Tell whether a key, or the section or option that it is in, is among names."""
    return any(f"{key}.".startswith(f"{name}.") for name in (*names, *OF_THE_MACHINE))


def planned_timesteps(budget: BudgetConfig, speed: Speed) -> int:
    """Return the timesteps that a budget comes to: the least of its limits, at least 1."""
    limits = [float(budget.timesteps)] if budget.timesteps is not None else []
    if budget.minutes is not None:
        seconds = budget.minutes * 60 - budget.evaluations * speed.evaluation_seconds
        limits.append(speed.steps_per_second * seconds)
    if budget.episodes is not None:
        limits.append(budget.episodes * speed.steps_per_episode)
    return max(int(min(limits)), 1)


def measure(config: Config) -> Speed:
    """Train for a few seconds, kernels compiled before, and return the speed.

    Raises:
        KeyboardInterrupt: The user ended it.
    """
    low, high = PROBE_SECONDS
    seconds = min(max(PROBE_FRAC * 60 * (config.budget.minutes or 0.0), low), high)
    budget = BudgetConfig(minutes=seconds / 60, evaluations=1)
    config = replace(config, budget=budget, checkpoint=CheckpointConfig(None))
    experiment = prepared(config)
    config = experiment.config
    spent: list[float] = []
    seen = [(0.0, 0)]

    def evaluate(weights: PolicyWeights) -> Validation:
        began = monotonic()
        validation = score_on_validation(experiment, weights)
        spent.append(monotonic() - began)
        return validation

    def progress(standing: Standing) -> None:
        seen.append((standing.budget.elapsed_seconds, standing.budget.timesteps))

    warm_up(experiment)
    env = TradingVecEnv(experiment.batch())
    hooks = Hooks(evaluate, clearly_better, progress=progress)
    result = train_model(config, env, len(experiment.splits["train"]), hooks)
    if result.interrupted:
        raise KeyboardInterrupt
    return Speed(
        steps_per_second=_rate(seen, sum(spent)),
        evaluation_seconds=max(spent),
        steps_per_episode=(
            result.timesteps / result.episodes
            if result.episodes
            else settled(config.env.episode_bars)
        ),
    )


def _rate(seen: list[tuple[float, int]], looking_seconds: float) -> float:
    """Return timesteps a second, without the first rollout where there are more."""
    start = seen[1] if len(seen) > 2 else seen[0]
    seconds = seen[-1][0] - start[0] - looking_seconds
    return (seen[-1][1] - start[1]) / max(seconds, 1e-9)


def _check_same(config: Config, kept: Settled) -> None:
    for section in SHARED:
        for key, value in plain(asdict(getattr(config, section))).items():
            _refuse_other(f"{section}.{key}", value, kept.get(section, {}).get(key))


def _check_fixed(fixed: Mapping[str, object], kept: Settled, searched: Sequence[str]) -> None:
    """Compare what neither start searches; a study of an earlier version recorded nothing."""
    if "fixed" not in kept:
        return
    chosen = [*searched, *kept["searched"]]
    for key in [*fixed, *(key for key in kept["fixed"] if key not in fixed)]:
        if not _is_in(key, chosen):
            _refuse_other(key, fixed.get(key), kept["fixed"].get(key))


def _refuse_other(key: str, value: object, old: object) -> None:
    if value != old:
        raise ConfigError(
            f"{key}={_shown(value)}: the study was begun with {_shown(old)} and its trials must "
            "stay comparable; choose another hydra.sweeper.study_name"
        )


def _shown(value: object) -> str:
    return {"": "''", "None": "null"}.get(str(value), str(value))
