"""Small models that were never trained: any weights make decisions, which is enough here."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tests.trading.builders import of_minutes

from ppo_workbench.config import Config, Select, validate_config
from ppo_workbench.delivery import artifact as artifact_module
from ppo_workbench.delivery.artifact import Artifact, artifact_paths, save_artifact
from ppo_workbench.delivery.describe import describe_model, plain
from ppo_workbench.delivery.metadata import Metadata, Scorecards, Training
from ppo_workbench.market.splits import Split
from ppo_workbench.market.synthetic import generate
from ppo_workbench.pipeline.models.stored import artifact_tensors
from ppo_workbench.trading import experiment as experiments
from ppo_workbench.trading.experiment import Experiment

SETTINGS: dict[str, Any] = {
    "data": {"synthetic": {"sessions": 10}},
    "features": {
        "names": ["ema_distance_10", "return_1", "session_time"],
        "volatility_slow_bars": 195,
    },
    "env": {"episode_bars": 100},
}
TRAINING = Training(
    timesteps=0, episodes=0, minutes=0, passes=0, select=Select.last, selected_timesteps=0
)
Tensors = dict[str, torch.Tensor]


def settings(**sections: dict[str, Any]) -> Config:
    """Return the small configuration with some sections' values changed."""
    names = {*SETTINGS, *sections}
    values = {k: SETTINGS.get(k, {}) | sections.get(k, {}) for k in names}
    return of_minutes(validate_config(values))


def lay_out(config: Config) -> Experiment:
    """Lay out synthetic sessions: warm-up, training, validation, and a closed test."""
    bars = generate(config.data.synthetic).bars
    splits = {"train": Split("train", 390, 780), "validation": Split("validation", 780, 1170)}
    test = int(bars.start_ns[1170]), int(bars.start_ns[-1])
    return experiments._assemble(config, bars.slice(0, 1170), splits, test)


def actor(config: Config, n_observed: int, n_actions: int, scale: float = 1.0) -> Tensors:
    """Return the actor of an SB3 policy with random weights; `scale` of the last layer."""
    generator = torch.Generator().manual_seed(0)
    sizes = [n_observed, *config.model.net_arch, n_actions]
    stems = [f"mlp_extractor.policy_net.{2 * k}" for k in range(len(sizes) - 2)] + ["action_net"]
    tensors = {}
    for k, stem in enumerate(stems):
        factor = scale if stem == "action_net" else 1.0
        tensors[f"{stem}.weight"] = factor * torch.randn(
            sizes[k + 1], sizes[k], generator=generator
        )
        tensors[f"{stem}.bias"] = factor * torch.randn(sizes[k + 1], generator=generator)
    return tensors


def build(
    config: Config, raw: dict[str, Any] | None = None, scale: float = 1.0
) -> tuple[Tensors, Metadata]:
    """Return tensors and metadata as the pipeline makes them after a training."""
    experiment = lay_out(config)
    market = experiment.market
    state = actor(config, market.observation_size, market.space.size, scale)
    recorded = plain(asdict(config)) if raw is None else raw
    metadata = describe_model(experiment, TRAINING, Scorecards(), recorded, None)
    return artifact_tensors(experiment, state), metadata


@cache
def small_model() -> tuple[Tensors, Metadata]:
    """Return the model of `SETTINGS`."""
    return build(settings())


def small_artifact(**changes: Any) -> Artifact:
    """Return the small model as if loaded, with some metadata changed."""
    tensors, metadata = small_model()
    return Artifact(dict(tensors), metadata.model_copy(update=changes))


def save_model(folder: Path, name: str = "model", **changes: Any) -> None:
    """Save the small model under `name` with some metadata changed."""
    tensors, metadata = small_model()
    save_artifact(folder, name, tensors, metadata.model_copy(update=changes))


def forge(folder: Path, name: str = "model", **changes: Any) -> None:
    """Write valid hashes over changed fields, as an attacker with the code could."""
    path = artifact_paths(folder, name).metadata
    path.write_bytes(artifact_module._sealed(json.loads(path.read_bytes()) | changes, name))
