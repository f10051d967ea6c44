"""MaskablePPO and PPO whose rollouts and updates are jitted: the same algorithm, faster.

`collect_rollouts` and `train` are replaced, nothing else: the parameters of the SB3
policy are made views into one flat vector that the kernels change, so saving, loading,
callbacks and `predict` stay SB3's.
"""

from typing import Any, TypedDict

import numba
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from stable_baselines3.common.utils import explained_variance

from ppo_workbench.config import settled
from ppo_workbench.config.arrays import Ints
from ppo_workbench.delivery.network import ACTIVATIONS, TANH
from ppo_workbench.learning.native.rollout import Buffer, Counts, collect
from ppo_workbench.learning.native.update import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPS,
    LOSSES,
    TILE,
    Hyperparameters,
    Network,
    Rollout,
    update,
)
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.trading.chance import seed_accounts
from ppo_workbench.trading.rewards import REWARD_NAMES
from ppo_workbench.trading.rules.names import RULE_NAMES

_CODES = {kind.module: kind.code for kind in ACTIVATIONS.values()}
NUMBA_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
MAX_EPISODES_KEPT = 1000  # of one rollout, for SB3's episode statistics


def why_not_native(policy: ActorCriticPolicy | MaskableActorCriticPolicy) -> str | None:
    """Return why the jitted learner cannot train this policy, or None if it can."""
    if policy.device.type != "cpu":
        return f"device {policy.device} is not the CPU"
    extractor = policy.mlp_extractor
    if (
        type(policy.features_extractor) is not FlattenExtractor
        or type(extractor) is not MlpExtractor
    ):
        return "it has a features extractor of its own"
    if type(policy.optimizer) is not torch.optim.Adam:
        return f"its optimizer is {type(policy.optimizer).__name__}, not Adam"
    group = policy.optimizer.param_groups[0]
    if group["weight_decay"] or group["amsgrad"] or group["betas"] != (ADAM_BETA1, ADAM_BETA2):
        return "its Adam has other settings than SB3's"
    if group["eps"] != ADAM_EPS:
        return f"its Adam has eps {group['eps']}, not {ADAM_EPS}"
    kinds = {type(m) for m in (*extractor.policy_net, *extractor.value_net)} - {torch.nn.Linear}
    if len(kinds) > 1 or not kinds <= set(_CODES):
        known = " or ".join(activation.value for activation in ACTIVATIONS)
        return f"its activations {sorted(k.__name__ for k in kinds)} are not {known}"
    return None


def bind_network(policy: ActorCriticPolicy | MaskableActorCriticPolicy) -> Network:
    """Move the policy's parameters into one flat vector and make them views of it.

    The optimizer's moments become views too, so `policy.optimizer` can be saved as ever.
    """
    parameters = list(policy.parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy().copy()
    first, second = np.zeros_like(flat), np.zeros_like(flat)
    offsets: dict[int, int] = {}
    start, steps = 0, 0
    for p in parameters:
        stop = start + p.numel()
        state = policy.optimizer.state.get(p, {})
        if state:
            first[start:stop] = state["exp_avg"].reshape(-1).numpy()
            second[start:stop] = state["exp_avg_sq"].reshape(-1).numpy()
            steps = int(state["step"])
        policy.optimizer.state[p] = {
            "step": state.get("step", torch.tensor(0.0)),
            "exp_avg": torch.from_numpy(first[start:stop]).view(p.shape),
            "exp_avg_sq": torch.from_numpy(second[start:stop]).view(p.shape),
        }
        p.data = torch.from_numpy(flat[start:stop]).view(p.shape)
        offsets[id(p)] = start
        start = stop
    extractor = policy.mlp_extractor
    kinds = [type(m) for m in (*extractor.policy_net, *extractor.value_net)]
    activation = next((_CODES[k] for k in kinds if k in _CODES), TANH)
    return Network(
        params=flat,
        gradients=np.zeros_like(flat),
        first_moment=first,
        second_moment=second,
        turned=np.empty_like(flat),
        actor=_shape(extractor.policy_net, policy.action_net, offsets),
        critic=_shape(extractor.value_net, policy.value_net, offsets),
        activation=activation,
        steps=np.array([steps], dtype=np.int64),
    )


def _shape(hidden: torch.nn.Sequential, head: torch.nn.Module, offsets: dict[int, int]) -> Ints:
    """Return (inputs, outputs, offset of the weight) by layer."""
    layers = [m for m in (*hidden, head) if isinstance(m, torch.nn.Linear)]
    rows = [(m.in_features, m.out_features, offsets[id(m.weight)]) for m in layers]
    return np.array(rows, dtype=np.int64)


class NativeState(TypedDict):
    """The generators as JSON values, and where episodes begin."""

    sampling_rng: int
    order_rng: Any
    episode_starts: list[int]


class _Native:
    """What the native MaskablePPO and PPO share; mixed in before SB3's class.

    Attributes:
        masked: Whether the policy is a masked one.
        threads: How many threads share a minibatch of more than one tile.
    """

    masked: bool
    threads: int = 1

    def _bind(self) -> None:
        """Prepare arrays at the first rollout, and again after parameters were replaced."""
        model: Any = self
        env: TradingVecEnv = model.env
        batch = env.batch
        self._network = bind_network(model.policy)
        self._environments = batch.arrays
        shape = (model.n_steps, len(batch))
        n_obs, n_actions = batch.observations.shape[1], batch.masks.shape[1]
        plain = [np.zeros(shape, np.float32) for _ in range(6)]
        self._buffer = Buffer(
            np.zeros((*shape, n_obs), np.float32),
            np.zeros(shape, np.int64),
            np.ones((*shape, n_actions), np.bool_),
            *plain,
        )
        if not hasattr(self, "_generator"):
            self._generator = seed_accounts(1, (model.seed or 0) + 1)
            self._order_generator = np.random.default_rng(model.seed)
        self._last_starts = np.asarray(model._last_episode_starts, dtype=np.float32).copy()
        self._bound_batch = batch

    def _is_bound(self) -> bool:
        """Whether parameters, moments and environments are still the arrays of the kernels.

        SB3's `load`, `set_parameters` and `set_env` put others in their place.
        """
        model: Any = self
        if getattr(self, "_bound_batch", None) is not model.env.batch:
            return False
        first = next(model.policy.parameters())
        moment = model.policy.optimizer.state[first]["exp_avg"]
        pairs = ((first, self._network.params), (moment, self._network.first_moment))
        return all(tensor.data_ptr() == array.ctypes.data for tensor, array in pairs)

    def _excluded_save_params(self) -> list[str]:
        """Leave what `_bind` makes anew out of SB3's zip; the generators stay in it."""
        arrays = ["_network", "_environments", "_buffer", "_bound_batch"]
        return [*super()._excluded_save_params(), *arrays]  # type: ignore[misc]

    def native_state(self) -> NativeState:
        """Return the state of the generators, as JSON values."""
        return {
            "sampling_rng": int(self._generator[0]["rng"]),
            "order_rng": self._order_generator.bit_generator.state,
            "episode_starts": [int(x) for x in self._last_starts],
        }

    def restore_native(self, state: NativeState) -> None:
        """Bind the arrays to the policy as it is now and set the generators."""
        self._bind()
        self._generator["rng"] = state["sampling_rng"]
        self._order_generator.bit_generator.state = state["order_rng"]
        self._last_starts[:] = state["episode_starts"]

    def collect_rollouts(
        self,
        env: TradingVecEnv,
        callback: BaseCallback,
        rollout_buffer: Any,
        n_rollout_steps: int,
        use_masking: bool = True,
    ) -> bool:
        """Collect one rollout; the callback's `on_step` is asked once, before it."""
        model: Any = self
        if not self._is_bound():
            self._bind()
        self._last_starts[:] = model._last_episode_starts
        callback.on_rollout_start()
        if not callback.on_step():
            return False
        counts = Counts(
            np.zeros(len(RULE_NAMES), np.int64),
            np.zeros(4, np.int64),
            np.zeros(len(REWARD_NAMES)),
            np.zeros(env.batch.masks.shape[1], np.int64),
            np.zeros((2, MAX_EPISODES_KEPT)),
            np.zeros(1, np.int64),
        )
        collect(
            self._environments,
            self._network,
            self._buffer,
            counts,
            self._generator,
            self._last_starts,
            self.masked and use_masking,
            settled(model.gamma),
            model.gae_lambda,
        )
        model._last_obs = env.batch.observations.copy()
        model._last_episode_starts = self._last_starts > 0
        decisions = self._buffer.actions.size
        model.num_timesteps += decisions
        env.statistics.add(decisions, counts)
        finished, kept = int(counts.finished[0]), min(model._stats_window_size, MAX_EPISODES_KEPT)
        for k in range(max(0, finished - kept), finished):
            reward, length = counts.episodes[:, k % MAX_EPISODES_KEPT]
            model.ep_info_buffer.append({"r": float(reward), "l": int(length), "t": 0.0})
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Update the policy with the present rollout."""
        model: Any = self
        model._update_learning_rate(model.policy.optimizer)
        progress = model._current_progress_remaining
        clip_vf = None if model.clip_range_vf is None else model.clip_range_vf(progress)
        h = Hyperparameters(
            learning_rate=float(model.lr_schedule(progress)),
            batch_size=model.batch_size,
            clip_range=float(model.clip_range(progress)),
            clip_range_vf=-1.0 if clip_vf is None else float(clip_vf),
            ent_coef=float(model.ent_coef),
            vf_coef=float(model.vf_coef),
            max_grad_norm=float(model.max_grad_norm),
            target_kl=-1.0 if model.target_kl is None else float(model.target_kl),
            normalize_advantage=bool(model.normalize_advantage),
        )
        buffer = self._buffer
        rows = buffer.actions.size
        rollout = Rollout(
            buffer.observations.reshape(rows, -1),
            buffer.actions.reshape(rows),
            buffer.masks.reshape(rows, -1),
            buffer.values.reshape(rows),
            buffer.log_probs.reshape(rows),
            buffer.advantages.reshape(rows),
            buffer.returns.reshape(rows),
        )
        order = np.stack([self._order_generator.permutation(rows) for _ in range(model.n_epochs)])
        losses = update(self._network, rollout, order, h, self._lanes(min(h.batch_size, rows)))
        for state in model.policy.optimizer.state.values():
            state["step"] = torch.tensor(float(self._network.steps[0]))
        model._n_updates += int(losses[-1])
        self._log(dict(zip(LOSSES, losses.tolist(), strict=False)), h, clip_vf)

    def _lanes(self, minibatch: int) -> int | None:
        """Return how many threads a minibatch is worth; None for one."""
        tiles = -(-minibatch // TILE)
        lanes = min(self.threads, tiles, NUMBA_THREADS)
        if lanes < 2:
            return None
        numba.set_num_threads(lanes)
        return lanes

    def _log(self, losses: dict[str, float], h: Hyperparameters, clip_vf: float | None) -> None:
        """Record SB3's own keys."""
        model: Any = self
        values, returns = self._buffer.values.ravel(), self._buffer.returns.ravel()
        model.logger.record("train/entropy_loss", losses["entropy_loss"])
        model.logger.record("train/policy_gradient_loss", losses["policy_loss"])
        model.logger.record("train/value_loss", losses["value_loss"])
        model.logger.record("train/approx_kl", losses["approx_kl"])
        model.logger.record("train/clip_fraction", losses["clip_fraction"])
        model.logger.record("train/loss", losses["loss"])
        model.logger.record("train/explained_variance", explained_variance(values, returns))
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        model.logger.record("train/clip_range", h.clip_range)
        if clip_vf is not None:
            model.logger.record("train/clip_range_vf", clip_vf)


class NativeMaskablePPO(_Native, MaskablePPO):  # type: ignore[misc]
    """MaskablePPO with a jitted rollout and update."""

    masked = True


class NativePPO(_Native, PPO):  # type: ignore[misc]
    """PPO with a jitted rollout and update."""

    masked = False
