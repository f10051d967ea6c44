"""Build MaskablePPO or PPO from the configuration, under SB3's own argument names."""

import inspect
import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from ppo_workbench.config import ConfigError, Learner, ModelConfig, ModelType, Schedule, settled
from ppo_workbench.delivery.network import ACTIVATIONS
from ppo_workbench.learning.budget import Budget
from ppo_workbench.learning.native.algorithms import NativeMaskablePPO, NativePPO, why_not_native
from ppo_workbench.learning.native.update import ADAM_EPS
from ppo_workbench.learning.vec_env import TradingVecEnv

Algorithm = MaskablePPO | PPO
HELD_AT_FIRST = 0.9  # chosen by benchmarks/hold_at_first.py
_LOG = logging.getLogger(__name__)
ALGORITHMS: dict[tuple[ModelType, Learner], type[MaskablePPO] | type[PPO]] = {
    (ModelType.maskable_ppo, Learner.native): NativeMaskablePPO,
    (ModelType.maskable_ppo, Learner.sb3): MaskablePPO,
    (ModelType.ppo, Learner.native): NativePPO,
    (ModelType.ppo, Learner.sb3): PPO,
}


def _schedule(value: float, kind: Schedule, budget: Budget) -> float | Callable[[float], float]:
    """Return a constant, or a schedule over the budget.

    SB3's own progress is ignored: it would need the number of timesteps before training.
    """
    if kind is Schedule.constant:
        return value
    return lambda _progress_remaining: value * budget.progress_remaining


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use: stable-baselines3 would take the CPU in silence.

    Raises:
        ConfigError: There is no such device on this machine.
    """
    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(
            f"model.device={device}: torch can use no such device on this machine, write "
            "model.device=cpu"
        ) from None


def build_model(
    config: ModelConfig, env: TradingVecEnv, budget: Budget, seed: int, threads: int = 1
) -> Algorithm:
    """Build the algorithm that `config.type` names.

    Where `learner: native` cannot train the policy, stable-baselines3's own code does, and
    one logged line says why.

    Args:
        config: Hyperparameters.
        env: The batched environment.
        budget: Drives the schedules.
        seed: Seeds torch, numpy and the environments.
        threads: Of the native learner.

    Raises:
        ConfigError: The device cannot be used.
    """
    check_device(config.device)
    model = _build(config, config.learner, env, budget, seed)
    if config.learner is Learner.native:
        reason = why_not_native(model.policy)
        if reason is not None:
            _LOG.warning("learner: sb3 instead of native, because %s", reason)
            return _build(config, Learner.sb3, env, budget, seed)
        model.threads = threads  # type: ignore[union-attr]  # an attribute of the native ones
    return model


def _build(
    config: ModelConfig, learner: Learner, env: TradingVecEnv, budget: Budget, seed: int
) -> Algorithm:
    model = ALGORITHMS[config.type, learner](
        "MlpPolicy",
        env,
        learning_rate=_schedule(config.learning_rate, config.learning_rate_schedule, budget),
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=settled(config.gamma),
        gae_lambda=config.gae_lambda,
        clip_range=_schedule(config.clip_range, config.clip_range_schedule, budget),
        clip_range_vf=config.clip_range_vf,
        normalize_advantage=config.normalize_advantage,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl,
        policy_kwargs={
            "net_arch": list(config.net_arch),
            "activation_fn": ACTIVATIONS[config.activation].module,
            "ortho_init": config.ortho_init,
            **({"optimizer_class": quick_adam} if learner is Learner.native else {}),
        },
        seed=seed,
        device=config.device,
    )
    _hold_at_first(model.policy.action_net, env.batch.market.space.hold)
    return model


def _hold_at_first(head: torch.nn.Module, hold: int) -> None:
    """Let a policy that has learned nothing hold with probability `HELD_AT_FIRST`.

    From a uniform start every order is undone a bar or two later, so none seems to pay and the
    first thing learned is to be flat; the more levels there are, the longer that lasts.

    Args:
        head: Last layer of the actor, whose weights are near 0.
        hold: Index of HOLD.
    """
    assert isinstance(head, torch.nn.Linear)
    odds = HELD_AT_FIRST / (1.0 - HELD_AT_FIRST)
    with torch.no_grad():
        head.bias[hold] = math.log(odds * (head.out_features - 1))


class _QuickAdam(torch.optim.Adam):
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)


def quick_adam(parameters: Any, **options: Any) -> torch.optim.Adam:
    """Build torch's Adam without importing torch.compile, which takes a second.

    torch guards `add_param_group` against being compiled and imports `torch._dynamo` for
    that.  The native learner compiles nothing with torch and never calls `step`.

    Args:
        parameters: As for `torch.optim.Adam`.
        options: As for `torch.optim.Adam`.
    """
    # SB3 gives its eps to the class torch.optim.Adam only.
    adam = _QuickAdam(parameters, **{"eps": ADAM_EPS, **options})
    adam.__class__ = torch.optim.Adam  # type: ignore[assignment]  # only its making was special
    return adam
