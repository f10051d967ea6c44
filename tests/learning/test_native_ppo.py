"""The native learners as SB3 algorithms: weights, saving, predicting, falling back."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.torch_layers import FlattenExtractor
from tests.learning.builders import learning_config, make_env, make_model, sb3_model

from ppo_workbench.config import Learner, ModelType, Schedule
from ppo_workbench.learning import models
from ppo_workbench.learning.native.algorithms import (
    NativeMaskablePPO,
    NativePPO,
    bind_network,
    why_not_native,
)


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


@pytest.mark.parametrize("learner", list(Learner))
def test_maskable_ppo_under_an_all_true_mask_learns_what_ppo_learns(learner: Learner) -> None:
    changes: dict[str, Any] = {
        "model__n_envs": 32,
        "model__n_steps": 64,
        "model__batch_size": 256,
        "model__n_epochs": 2,
        "model__learning_rate_schedule": Schedule.constant,
    }
    masked = make_model(
        learning_config(ModelType.maskable_ppo, learner, env__mask_all_true=True, **changes)
    )
    start = _weights(masked)
    masked.learn(8192)
    # Built after the first one has learned: SB3 seeds and draws from global generators.
    plain = make_model(learning_config(ModelType.ppo, learner, **changes))
    plain.learn(8192)
    assert masked.num_timesteps == plain.num_timesteps == 8192
    assert masked.env.statistics.rejected > 0  # the broker still says no
    assert masked.env.action_masks().all()
    expected = _weights(plain)
    for name, tensor in _weights(masked).items():
        assert torch.allclose(tensor, expected[name], rtol=0.0, atol=1e-5), name
    assert not torch.allclose(start["action_net.weight"], expected["action_net.weight"], atol=1e-3)


def test_state_dict_follows_the_kernels_without_copying() -> None:
    model = make_model(learning_config())
    model.learn(128)
    before, kept = _weights(model), model.policy.state_dict()
    model.learn(128, reset_num_timesteps=False)
    after = model.policy.state_dict()
    for name in before:
        assert torch.equal(kept[name], after[name])  # the very same memory
        assert not torch.equal(before[name], after[name]), name


def test_optimizer_state_is_the_live_one() -> None:
    model = make_model(learning_config())
    model.learn(128)
    states = list(model.policy.optimizer.state.values())
    steps = 128 // 32 * 3  # minibatches by epochs
    assert [float(state["step"]) for state in states] == [steps] * len(states)
    assert all(bool(state["exp_avg"].any()) for state in states)
    kept = states[0]["exp_avg"].clone()
    model.learn(128, reset_num_timesteps=False)
    assert not torch.equal(states[0]["exp_avg"], kept)
    assert float(next(iter(model.policy.optimizer.state.values()))["step"]) == 2 * steps


def test_bind_network_twice_keeps_weights_and_moments() -> None:
    model = make_model(learning_config())
    model.learn(128)
    weights = _weights(model)
    moments = [s["exp_avg_sq"].clone() for s in model.policy.optimizer.state.values()]
    network = bind_network(model.policy)
    assert network.steps[0] == 12
    for name, tensor in _weights(model).items():
        assert torch.equal(tensor, weights[name])
    for state, moment in zip(model.policy.optimizer.state.values(), moments, strict=True):
        assert torch.equal(state["exp_avg_sq"], moment)


@pytest.mark.parametrize("model_type", list(ModelType))
def test_save_and_load_round_trips_and_goes_on_learning(
    model_type: ModelType, tmp_path: Path
) -> None:
    config = learning_config(model_type)
    model = make_model(config)
    model.learn(256)
    model.save(tmp_path / "model.zip")
    assert (tmp_path / "model.zip").stat().st_size < 300_000  # no market and no rollout in it
    kind = NativeMaskablePPO if model_type is ModelType.maskable_ppo else NativePPO
    loaded = kind.load(tmp_path / "model.zip", env=make_env(config))
    expected = _weights(model)
    for name, tensor in _weights(loaded).items():
        assert torch.equal(tensor, expected[name])
    loaded.learn(128, reset_num_timesteps=False)
    steps = {float(s["step"]) for s in loaded.policy.optimizer.state.values()}
    assert steps == {36.0}  # 24 minibatches before, 12 after: the moments were taken over
    assert not torch.equal(_weights(loaded)["action_net.weight"], expected["action_net.weight"])


def test_set_parameters_after_learning_is_what_goes_on_learning() -> None:
    """SB3 puts other tensors into the optimizer; the kernels have to notice."""
    config = learning_config()
    model, other = make_model(config), make_model(config)
    model.learn(128)
    other.learn(256)
    other.set_parameters(model.get_parameters())
    other.learn(128, reset_num_timesteps=False)
    steps = {float(s["step"]) for s in other.policy.optimizer.state.values()}
    assert steps == {24.0}


def test_set_env_moves_the_rollouts_to_the_new_environments() -> None:
    config = learning_config()
    model = make_model(config)
    model.learn(128)
    first, second = model.env, make_env(config, seed=9)
    episodes = first.statistics.episodes
    model.set_env(second)
    model.learn(128)
    assert first.statistics.episodes == episodes
    assert second.statistics.episodes > 0


def test_learn_again_from_a_reset_begins_new_episodes() -> None:
    model = make_model(learning_config())
    model.learn(128)
    model._setup_learn(128, None, True)
    model.collect_rollouts(model.env, model._init_callback(None), None, 32)
    assert model._buffer.episode_starts[0].all()
    np.testing.assert_array_equal(model._last_obs, model.env.batch.observations)


def test_predict_with_masks_never_returns_a_masked_action() -> None:
    model = make_model(learning_config())
    model.learn(128)
    observations = model.env.reset()
    masks = np.array([[False, True, False], [False, True, True], [True, True, False], [1, 1, 1]])
    for _ in range(20):
        actions, _ = model.predict(observations, action_masks=masks.astype(bool))
        assert masks[np.arange(4), actions].all()
    actions, _ = model.predict(observations, action_masks=masks.astype(bool), deterministic=True)
    assert actions[0] == 1


class _OwnExtractor(FlattenExtractor):
    """A features extractor that the kernels do not know."""


@pytest.mark.parametrize(
    ("policy_kwargs", "reason"),
    [
        ({"features_extractor_class": _OwnExtractor}, "features extractor"),
        ({"activation_fn": torch.nn.ELU}, "ELU"),
        ({"optimizer_class": torch.optim.SGD}, "SGD"),
        ({"optimizer_kwargs": {"weight_decay": 0.1}}, "Adam"),
        ({"optimizer_kwargs": {"eps": 1e-8}}, "eps"),
    ],
)
def test_why_not_native_names_what_the_kernels_cannot_do(
    policy_kwargs: dict[str, Any], reason: str
) -> None:
    model = sb3_model(True, 3, 3, policy_kwargs=policy_kwargs)
    said = why_not_native(model.policy)
    assert said is not None
    assert reason in said


@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU])
@pytest.mark.parametrize("net_arch", [[], [8], {"pi": [8, 8], "vf": []}])
def test_why_not_native_of_a_perceptron_is_none(activation: Any, net_arch: Any) -> None:
    settings = {"activation_fn": activation, "net_arch": net_arch}
    assert why_not_native(sb3_model(True, 3, 3, policy_kwargs=settings).policy) is None


@pytest.mark.parametrize("model_type", list(ModelType))
def test_build_model_where_native_cannot_train_falls_back_and_says_so_in_one_line(
    model_type: ModelType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = learning_config(model_type)
    expected = make_model(learning_config(model_type, Learner.sb3))
    monkeypatch.setattr(models, "why_not_native", lambda policy: "it is recurrent")
    with caplog.at_level(logging.WARNING):
        model = make_model(config)
    assert type(model) is type(expected)
    assert [r.getMessage() for r in caplog.records] == [
        "learner: sb3 instead of native, because it is recurrent"
    ]
    for name, tensor in _weights(model).items():
        assert torch.equal(tensor, expected.policy.state_dict()[name])
    model.learn(128)


def test_build_model_natively_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(make_model(learning_config()), NativeMaskablePPO)
    assert isinstance(make_model(learning_config(ModelType.ppo)), NativePPO)
    assert not caplog.records
