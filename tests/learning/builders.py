"""Small markets and models for the learners, and SB3's update as the oracle."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from unittest import mock

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from tests.trading.builders import bar_rows, configure, hand_market

from ppo_workbench.config import BudgetConfig, Config, Learner, ModelType, settled
from ppo_workbench.learning.budget import Budget
from ppo_workbench.learning.models import Algorithm, build_model
from ppo_workbench.learning.native.update import Rollout
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.rules.names import VOLATILITY
from ppo_workbench.trading.table import TradingMarket

LOSS_KEYS = {
    "policy_loss": "train/policy_gradient_loss",
    "value_loss": "train/value_loss",
    "entropy_loss": "train/entropy_loss",
    "approx_kl": "train/approx_kl",
    "clip_fraction": "train/clip_fraction",
    "loss": "train/loss",
}


class NoEnv(gymnasium.Env[npt.NDArray[np.float32], np.int64]):
    """Spaces and nothing else: updates never step it."""

    def __init__(self, inputs: int, actions: int) -> None:
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (inputs,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(actions)

    def action_masks(self) -> npt.NDArray[np.bool_]:
        return np.ones(int(self.action_space.n), dtype=np.bool_)  # type: ignore[attr-defined]


def quiet(model: Algorithm) -> Algorithm:
    """Give a model a logger that keeps values until the next dump and prints nothing."""
    model.set_logger(Logger(folder=None, output_formats=list[KVWriter]()))
    return model


def sb3_model(masked: bool, inputs: int, actions: int, **settings: Any) -> Algorithm:
    """Build stable-baselines3's own model on spaces alone."""
    algorithm: Any = MaskablePPO if masked else PPO
    env = DummyVecEnv([lambda: NoEnv(inputs, actions)])
    return quiet(algorithm("MlpPolicy", env, device="cpu", **settings))


def random_rollout(
    model: Algorithm, rows: int, masked: bool, random: np.random.Generator
) -> Rollout:
    """Return rows of random data; old log-probabilities are near the present policy's."""
    space: Any = model.action_space
    n_actions = int(space.n)
    shape = (rows, *(model.observation_space.shape or ()))
    observations = random.standard_normal(shape).astype(np.float32)
    masks = np.ones((rows, n_actions), dtype=np.bool_)
    if masked:
        masks = random.random((rows, n_actions)) < 0.6
        masks[np.arange(rows), random.integers(0, n_actions, rows)] = True
    actions = np.array([random.choice(np.flatnonzero(row)) for row in masks], dtype=np.int64)
    values, log_p, _ = evaluate(model, observations, actions, masks if masked else None)
    noise = random.standard_normal((4, rows)).astype(np.float32)
    return Rollout(
        observations=observations,
        actions=actions,
        masks=masks,
        values=values + 0.2 * noise[0],
        log_probs=log_p + 0.15 * noise[1],
        advantages=noise[2],
        returns=noise[3],
    )


def evaluate(
    model: Algorithm,
    observations: npt.NDArray[np.float32],
    actions: npt.NDArray[np.int64],
    masks: npt.NDArray[np.bool_] | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return values, log-probabilities and entropies by the policy's own torch code."""
    policy: Any = model.policy
    keywords = {} if masks is None else {"action_masks": masks}
    with torch.no_grad():
        values, log_p, entropy = policy.evaluate_actions(
            torch.as_tensor(observations), torch.as_tensor(actions), **keywords
        )
    return values.numpy().ravel(), log_p.numpy(), entropy.numpy()


@contextmanager
def minibatch_order(orders: npt.NDArray[np.int64]) -> Iterator[None]:
    """Let SB3's rollout buffer draw its rows in these orders, one by epoch."""
    with mock.patch("numpy.random.permutation", side_effect=[row.copy() for row in orders]):
        yield


def sb3_update(
    model: Algorithm, rollout: Rollout, orders: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Run SB3's own `train` on a rollout of one environment; return what it logs."""
    buffer: Any = model.rollout_buffer
    buffer.reset()
    for name in ("values", "log_probs", "advantages", "returns", "observations", "actions"):
        target = getattr(buffer, name)
        target[:] = getattr(rollout, name).reshape(target.shape)
    if hasattr(buffer, "action_masks"):
        buffer.action_masks[:] = rollout.masks.reshape(buffer.action_masks.shape)
    buffer.full = True
    model._current_progress_remaining = 1.0
    with minibatch_order(orders):
        model.train()
    logged = model.logger.name_to_value
    return {name: float(logged[key]) for name, key in LOSS_KEYS.items()} | {
        "epochs": float(model._n_updates)
    }


def double_twin(model: Algorithm) -> Algorithm:
    """Return a copy of an SB3 model that has not learned yet, in float64."""
    twin: Any = deepcopy(model)
    twin.policy.double()
    buffer = twin.rollout_buffer

    def to_torch(array: npt.NDArray[Any], copy: bool = True) -> torch.Tensor:
        tensor = torch.as_tensor(array)
        return tensor.double() if tensor.is_floating_point() else tensor

    buffer.to_torch = to_torch
    return quiet(twin)


def double_update(model: Algorithm, rollout: Rollout, orders: npt.NDArray[np.int64]) -> None:
    """Run SB3's own `train` on a `double_twin`; SB3 would turn observations to float32."""
    with mock.patch(
        "stable_baselines3.common.policies.preprocess_obs",
        lambda observations, *_, **__: observations,
    ):
        sb3_update(model, rollout, orders)


def walk_market(config: Config, bars: int = 400, seed: int = 0) -> TradingMarket:
    """Return a random walk with three random features and bars that forbid new risk."""
    random = np.random.default_rng(seed)
    closes = 100.0 * np.exp(np.cumsum(0.002 * random.standard_normal(bars)))
    opens = np.concatenate([closes[:1], closes[:-1]])
    blocked = random.random(bars) < 0.4
    rows = bar_rows(list(closes), list(opens), rule_bits=np.where(blocked, VOLATILITY, 0))
    return with_features(config, rows, random.standard_normal((bars, 3)).astype(np.float32))


def with_features(
    config: Config, rows: npt.NDArray[np.void], features: npt.NDArray[np.float32]
) -> TradingMarket:
    """Return a market over hand-made rows with scaled features as given, float32 (T, F)."""
    market = hand_market(config, rows)
    scaler = dataclasses.replace(
        market.scaler,
        means=np.concatenate([np.zeros(features.shape[1]), market.scaler.means[1:]]),
        stds=np.concatenate([np.ones(features.shape[1]), market.scaler.stds[1:]]),
    )
    names = tuple(f"feature_{k}" for k in range(features.shape[1]))
    return dataclasses.replace(market, features=features, scaler=scaler, feature_names=names)


def learning_config(
    model_type: ModelType = ModelType.maskable_ppo,
    learner: Learner = Learner.native,
    **changes: Any,
) -> Config:
    """Return a small experiment whose volatility rule masks; `section__field=value` changes."""
    settings: dict[str, Any] = {
        "risk__volatility__enabled": True,
        "model__n_envs": 4,
        "model__n_steps": 32,
        "model__batch_size": 32,
        "model__n_epochs": 3,
        "model__net_arch": [16, 16],
        "env__episode_bars": 20,
        "budget__minutes": None,
        "budget__timesteps": 512,
    }
    settings |= {"model__type": model_type, "model__learner": learner}
    return configure(**(settings | changes))


def make_env(
    config: Config, market: TradingMarket | None = None, seed: int | None = None
) -> TradingVecEnv:
    """Return the batched environment over all bars of a market, by default `walk_market`."""
    market = market or walk_market(config)
    episode_bars = settled(config.env.episode_bars)
    starts = np.arange(len(market.bars) - episode_bars - 1, dtype=np.int64)
    seed = config.seed if seed is None else seed
    count = config.model.n_envs
    return TradingVecEnv(TradingBatch(market, starts, episode_bars, count, seed))


def make_model(
    config: Config,
    env: TradingVecEnv | None = None,
    budget: Budget | None = None,
    build: Callable[..., Algorithm] = build_model,
) -> Any:
    """Return a model on `env`, quiet; `Any` because tests look inside."""
    budget = budget or Budget(BudgetConfig(timesteps=2**40))
    return quiet(build(config.model, env or make_env(config), budget, config.seed))
