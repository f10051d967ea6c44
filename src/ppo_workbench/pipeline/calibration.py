"""What all trials of a study share, settled once: their budget in timesteps.

Wall time would make a trial's value depend on what else the machine did.  So a budget of
minutes or episodes is measured once, recorded in the study, and every trial trains that
many timesteps, whichever process or machine runs it and however often the sweep is resumed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from time import monotonic
from typing import Any

from ppo_workbench.config import BudgetConfig, CheckpointConfig, Config, ConfigError
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.inference import PolicyWeights
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.learning.training import Hooks, Standing, Validation, train_model
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.pipeline.fitting import warm_up
from ppo_workbench.pipeline.scores import run_on_split
from ppo_workbench.pipeline.stored import trained_policy
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.trading.experiment import prepare, split_bars

PROBE_FRAC = 0.03
PROBE_SECONDS = (2.0, 15.0)
SHARED = ("budget", "objective")  # sections whose change makes values incomparable


@dataclass(frozen=True)
class Speed:
    """What a short training measured.

    Attributes:
        steps_per_second: Without evaluations.
        evaluation_seconds: One look at the validation split.
        steps_per_episode: Timesteps an episode takes.
    """

    steps_per_second: float
    evaluation_seconds: float
    steps_per_episode: float


def settle(config: Config, kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a study's trials share, measured if this is the study's first start.

    Args:
        config: A point of the search space.
        kept: What this function returned at the study's first start.

    Returns:
        `overrides` for every trial, `timesteps` for each of its seeds, what was measured, and
        the sections that a later start must repeat.

    Raises:
        ConfigError: Budget or objective differ from those of the study.
        KeyboardInterrupt: The user does not want to wait for the measurement.
    """
    asked = {name: plain(asdict(getattr(config, name))) for name in SHARED}
    if kept is not None:
        _check_same(asked, kept)
        return dict(kept)
    budget = config.budget
    if budget.minutes is None and budget.episodes is None:
        return {**asked, "overrides": [], "timesteps": budget.timesteps}
    speed = measure(config)
    timesteps = planned_timesteps(budget, speed)
    WorkbenchConsole().show(
        f"calibrated: {timesteps:,} timesteps for each seed of every trial "
        f"({speed.steps_per_second:,.0f} a second)"
    )
    limits = [f"budget.timesteps={timesteps}", "budget.minutes=null", "budget.episodes=null"]
    return {**asked, "overrides": limits, "timesteps": timesteps, "measured": asdict(speed)}


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
    experiment = prepare(config, *split_bars(config))
    looks: list[float] = []
    seen = [(0.0, 0)]

    def look(weights: PolicyWeights) -> Validation:
        began = monotonic()
        policy = trained_policy(config.model.type, weights)
        card = scorecard(run_on_split(experiment, policy, "validation"))
        looks.append(monotonic() - began)
        return Validation(card.sharpe_annual, card.to_dict())

    def progress(standing: Standing) -> None:
        seen.append((standing.budget.elapsed_seconds, standing.budget.timesteps))

    warm_up(experiment)
    env = TradingVecEnv(experiment.batch())
    hooks = Hooks(look, lambda metrics, timesteps: None, progress)
    result = train_model(config, env, len(experiment.splits["train"]), hooks)
    if result.interrupted:
        raise KeyboardInterrupt
    return Speed(
        steps_per_second=_rate(seen, sum(looks)),
        evaluation_seconds=max(looks),
        steps_per_episode=(
            result.timesteps / result.episodes if result.episodes else config.env.episode_bars
        ),
    )


def _rate(seen: list[tuple[float, int]], looking_seconds: float) -> float:
    """Return timesteps a second, without the first rollout where there are more."""
    start = seen[1] if len(seen) > 2 else seen[0]
    seconds = seen[-1][0] - start[0] - looking_seconds
    return (seen[-1][1] - start[1]) / max(seconds, 1e-9)


def _check_same(asked: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    for section, values in asked.items():
        for key, value in values.items():
            old = kept.get(section, {}).get(key)
            if value != old:
                raise ConfigError(
                    f"{section}.{key}={value}: the study was begun with {old} and its trials must "
                    "stay comparable; choose another hydra.sweeper.study_name"
                )
