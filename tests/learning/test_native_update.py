"""The jitted update against stable-baselines3's own `train`, number for number."""

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.learning.builders import (
    LOSS_KEYS,
    double_twin,
    double_update,
    evaluate,
    learning_config,
    make_env,
    make_model,
    minibatch_order,
    random_rollout,
    sb3_model,
    sb3_update,
)

from ppo_workbench.config import Learner, ModelType
from ppo_workbench.learning.models import Algorithm
from ppo_workbench.learning.native.algorithms import NUMBA_THREADS, NativeMaskablePPO, bind_network
from ppo_workbench.learning.native.update import (
    LOSSES,
    TILE,
    Hyperparameters,
    Network,
    Rollout,
    clip_scale,
    masked_softmax,
    update,
)

INPUTS, ACTIONS = 7, 3
# SB3 warns of the last, shorter minibatch that some cases ask for.
pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
BASE: dict[str, Any] = {
    "learning_rate": 3e-4,
    "batch_size": 32,
    "n_epochs": 5,
    "ent_coef": 0.01,
    "clip_range": 0.2,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "target_kl": {"target_kl": 0.008, "learning_rate": 3e-3},
    "clip_range_vf": {"clip_range_vf": 0.1},
    "raw_advantages": {"normalize_advantage": False},
    "no_entropy_bonus": {"ent_coef": 0.0},
    "no_value_loss": {"vf_coef": 0.0},
    "relu": {"policy_kwargs": {"activation_fn": torch.nn.ReLU}},
    "separate_networks": {"policy_kwargs": {"net_arch": {"pi": [16], "vf": [8, 24, 8]}}},
    "no_hidden_layer": {"policy_kwargs": {"net_arch": []}},
    "short_last_minibatch": {"batch_size": 48},
    "one_minibatch": {"batch_size": 128},
    "minibatch_over_a_tile": {"n_steps": 600, "batch_size": 300, "n_epochs": 2},
    "loose_clipping": {"max_grad_norm": 100.0},
    "tight_clipping": {"max_grad_norm": 0.01, "clip_range": 0.05},
}


def _hyperparameters(model: Algorithm) -> Hyperparameters:
    m: Any = model
    clip_vf = m.clip_range_vf
    return Hyperparameters(
        learning_rate=float(m.lr_schedule(1.0)),
        batch_size=m.batch_size,
        clip_range=float(m.clip_range(1.0)),
        clip_range_vf=-1.0 if clip_vf is None else float(clip_vf(1.0)),
        ent_coef=m.ent_coef,
        vf_coef=m.vf_coef,
        max_grad_norm=m.max_grad_norm,
        target_kl=-1.0 if m.target_kl is None else m.target_kl,
        normalize_advantage=m.normalize_advantage,
    )


def _both_updates(
    masked: bool, inputs: int, actions: int, **changes: Any
) -> tuple[Algorithm, Algorithm, dict[str, float], dict[str, float]]:
    """Update twin models from the same start; return both with what each one reports."""
    return _three_updates(masked, inputs, actions, exact=False, **changes)[:4]


def _three_updates(
    masked: bool, inputs: int, actions: int, exact: bool = True, **changes: Any
) -> tuple[Algorithm, Algorithm, dict[str, float], dict[str, float], Algorithm]:
    """Update twin models and, where `exact`, a third one by SB3's code in float64."""
    keywords = BASE | {"n_steps": 128, "seed": 3, "policy_kwargs": {"net_arch": [16, 16]}} | changes
    ours, theirs = (sb3_model(masked, inputs, actions, **keywords) for _ in range(2))
    random = np.random.default_rng(11)
    rows = keywords["n_steps"]
    rollout = random_rollout(ours, rows, masked, random)
    orders = np.stack([random.permutation(rows) for _ in range(keywords["n_epochs"])])
    third = double_twin(theirs) if exact else theirs
    if exact:
        double_update(third, rollout, orders)
    expected = sb3_update(theirs, rollout, orders)
    sums = update(bind_network(ours.policy), rollout, orders, _hyperparameters(ours), None)
    got = dict(zip((*LOSSES, "epochs"), sums.tolist(), strict=True))
    return ours, theirs, got, expected, third


def _distances(one: Algorithm, other: Algorithm) -> dict[str, float]:
    """Return by tensor how far two models are apart, in parts of the norm."""
    expected = other.policy.state_dict()
    return {
        name: float(torch.linalg.vector_norm(tensor - expected[name]))
        / max(float(torch.linalg.vector_norm(expected[name])), 1e-3)
        for name, tensor in one.policy.state_dict().items()
    }


def _assert_same_weights(ours: Algorithm, theirs: Algorithm) -> None:
    for name, distance in _distances(ours, theirs).items():
        assert distance <= 1e-4, name


def _assert_same_losses(
    got: dict[str, float], expected: dict[str, float], samples: int, absolute: float = 1e-6
) -> None:
    for name in ("policy_loss", "value_loss", "entropy_loss", "loss"):
        assert got[name] == pytest.approx(expected[name], rel=1e-4, abs=absolute), name
    assert got["approx_kl"] == pytest.approx(expected["approx_kl"], abs=1e-6)
    assert got["clip_fraction"] == pytest.approx(expected["clip_fraction"], abs=1.001 / samples)
    assert got["epochs"] == expected["epochs"]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("option", OPTIONS)
def test_update_with_each_option_equals_sb3(option: str, masked: bool) -> None:
    ours, theirs, got, expected = _both_updates(masked, INPUTS, ACTIONS, **OPTIONS[option])
    _assert_same_losses(got, expected, samples=128)
    _assert_same_weights(ours, theirs)
    if option == "target_kl":
        assert expected["epochs"] < BASE["n_epochs"]  # the option did something


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("updates", "epochs"), [(1, 1), (10, 1), (100, 10)])
def test_update_after_1_10_100_minibatches_equals_sb3(
    updates: int, epochs: int, masked: bool
) -> None:
    size = 32
    steps = size * updates // epochs
    ours, theirs, got, expected = _both_updates(
        masked, INPUTS, ACTIONS, n_steps=steps, n_epochs=epochs, batch_size=size
    )
    _assert_same_losses(got, expected, samples=steps)
    _assert_same_weights(ours, theirs)
    first = next(iter(ours.policy.optimizer.state.values()))
    second = next(iter(theirs.policy.optimizer.state.values()))
    np.testing.assert_allclose(first["exp_avg"], second["exp_avg"], rtol=1e-3, atol=1e-6)


@st.composite
def _cases(draw: st.DrawFn) -> dict[str, Any]:
    rows = draw(st.integers(4, 70))
    widths = st.lists(st.integers(1, 20), max_size=3)
    return {
        "masked": draw(st.booleans()),
        "inputs": draw(st.integers(1, 20)),
        "actions": draw(st.integers(2, 9)),
        "n_steps": rows,
        "batch_size": draw(st.integers(2, rows).filter(lambda size: rows % size != 1)),
        "n_epochs": draw(st.integers(1, 3)),
        "learning_rate": draw(st.sampled_from([1e-5, 3e-4, 1e-3])),
        "clip_range": draw(st.floats(0.02, 0.5)),
        "clip_range_vf": draw(st.none() | st.floats(0.02, 1.0)),
        "ent_coef": draw(st.floats(0.0, 0.1)),
        "vf_coef": draw(st.floats(0.0, 1.0)),
        "max_grad_norm": draw(st.floats(0.05, 5.0)),
        "normalize_advantage": draw(st.booleans()),
        "policy_kwargs": {
            "net_arch": {"pi": draw(widths), "vf": draw(widths)},
            "activation_fn": draw(st.sampled_from([torch.nn.Tanh, torch.nn.ReLU])),
        },
    }


@settings(max_examples=20, derandomize=True)
@given(_cases())
def test_update_of_any_shape_mask_and_hyperparameter_equals_sb3(case: dict[str, Any]) -> None:
    ours, theirs, got, expected, exact = _three_updates(**case)
    # A loss can be the small difference of terms near one, which float32 rounds.
    _assert_same_losses(got, expected, samples=case["n_steps"], absolute=3e-6)
    # Where float32 itself takes SB3 away from the exact update, as in the first Adam steps of
    # a tiny gradient, no other order of the same sums can stay nearer than that.
    rounding = _distances(theirs, exact)
    for name, distance in _distances(ours, theirs).items():
        assert distance <= max(1e-4, 5.0 * rounding[name]), name


@pytest.mark.parametrize("model_type", list(ModelType))
def test_train_of_both_learners_on_one_rollout_logs_and_learns_the_same(
    model_type: ModelType,
) -> None:
    changes = {"model__clip_range_vf": 0.3, "model__learning_rate": 1e-3}
    config = learning_config(model_type, Learner.native, **changes)
    native = make_model(config)
    sb3 = make_model(learning_config(model_type, Learner.sb3, **changes))
    native.learn(1)  # one rollout and its update, then a second rollout to compare on
    native.collect_rollouts(native.env, native._init_callback(None), None, config.model.n_steps)
    sb3.policy.load_state_dict(native.policy.state_dict())
    moments = deepcopy(native.policy.optimizer.state_dict())  # torch would share its tensors
    sb3.policy.optimizer.load_state_dict(moments)
    _fill_buffer(sb3, native._buffer)
    steps, n_envs = native._buffer.actions.shape
    by_time = np.stack([np.random.default_rng(k).permutation(steps * n_envs) for k in range(3)])
    native._order_generator = _FixedOrder(by_time)
    native.train()
    before = sb3._n_updates
    with minibatch_order(by_time % n_envs * steps + by_time // n_envs):  # SB3 flattens by env
        sb3.train()
    assert sb3._n_updates - before == config.model.n_epochs
    for key in (*LOSS_KEYS.values(), "train/explained_variance", "train/clip_range_vf"):
        ours, theirs = (m.logger.name_to_value[key] for m in (native, sb3))
        assert ours == pytest.approx(theirs, rel=1e-4, abs=2e-6), key
    assert set(sb3.logger.name_to_value) <= set(native.logger.name_to_value)
    _assert_same_weights(native, sb3)


class _FixedOrder:
    """Stand in for the generator of minibatch orders."""

    def __init__(self, orders: npt.NDArray[np.int64]) -> None:
        self._orders = iter(orders)

    def permutation(self, count: int) -> npt.NDArray[np.int64]:
        order: npt.NDArray[np.int64] = next(self._orders)
        assert len(order) == count
        return order


def _fill_buffer(sb3: Any, ours: Any) -> None:
    buffer = sb3.rollout_buffer
    buffer.reset()
    for name in ("observations", "values", "log_probs", "advantages", "returns"):
        getattr(buffer, name)[:] = getattr(ours, name)
    buffer.actions[:] = ours.actions[..., None]
    if hasattr(buffer, "action_masks"):
        buffer.action_masks[:] = ours.masks
    buffer.full = True
    sb3._current_progress_remaining = 1.0


def test_entropy_and_log_probability_at_extreme_logits_equal_sb3() -> None:
    model: Any = sb3_model(True, 2, 4, policy_kwargs={"net_arch": []}, seed=0)
    head = model.policy.action_net
    random = np.random.default_rng(5)
    observations = random.standard_normal((64, 2)).astype(np.float32)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[80.0, 0], [-80, 0], [0, 80], [0, -80]]))
    masks = random.random((64, 4)) < 0.5
    masks[np.arange(64), random.integers(0, 4, 64)] = True
    actions = np.argmax(masks, axis=1)
    _, expected, _ = evaluate(model, observations, actions, masks)
    logits = head(torch.as_tensor(observations)).detach().numpy()
    got, p = np.empty_like(logits), np.empty_like(logits)
    masked_softmax(logits, masks, got, p)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[np.arange(64), actions], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(p, np.exp(got), rtol=1e-4, atol=1e-30)
    assert (p[~masks] == 0.0).all()


def test_update_where_one_action_is_legal_moves_no_logit() -> None:
    model: Any = sb3_model(True, 3, 3, policy_kwargs={"net_arch": []}, ent_coef=1.0, **{"seed": 1})
    rollout = random_rollout(model, 16, True, np.random.default_rng(0))
    only = np.zeros_like(rollout.masks)
    only[np.arange(16), rollout.actions] = True
    rollout = rollout._replace(masks=only, log_probs=np.zeros(16, np.float32))
    before = model.policy.action_net.weight.detach().clone()
    orders = np.arange(16, dtype=np.int64)[None, :]
    losses = update(bind_network(model.policy), rollout, orders, _hyperparameters(model), None)
    assert torch.equal(model.policy.action_net.weight, before)
    assert losses[LOSSES.index("entropy_loss")] == 0.0


@pytest.mark.parametrize("size", [1, 7, 8, 1001])
@pytest.mark.parametrize("factor", [1e-4, 3.0])
def test_clip_scale_limits_the_norm_as_torch(size: int, factor: float) -> None:
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32) * factor
    values = values.astype(np.float32)
    parameter = torch.nn.Parameter(torch.zeros(size))
    parameter.grad = torch.as_tensor(values.copy())
    torch.nn.utils.clip_grad_norm_([parameter], 0.5)
    np.testing.assert_allclose(values * clip_scale(values, 0.5), parameter.grad, rtol=1e-5)


def test_update_with_a_negative_reward_signal_lowers_the_actions_probability() -> None:
    """The sign of the gradient, without an oracle."""
    model: Any = sb3_model(False, 2, 2, policy_kwargs={"net_arch": [8]}, seed=0)
    rollout: Rollout = random_rollout(model, 64, False, np.random.default_rng(0))
    _, log_p, _ = evaluate(model, rollout.observations, rollout.actions, None)
    rollout = rollout._replace(log_probs=log_p, advantages=-np.ones(64, np.float32))
    h = _hyperparameters(model)._replace(
        normalize_advantage=False, ent_coef=0.0, vf_coef=0.0, batch_size=64
    )
    net: Network = bind_network(model.policy)
    update(net, rollout, np.arange(64, dtype=np.int64)[None, :], h, None)
    _, after, _ = evaluate(model, rollout.observations, rollout.actions, None)
    assert after.mean() < log_p.mean()


def test_make_env_fixture_masks_something() -> None:
    env = make_env(learning_config())
    seen = [env.step(np.ones(4, dtype=np.int64)) and env.action_masks() for _ in range(30)]
    share = float(np.mean(np.stack(seen)))
    assert 0.5 < share < 0.95


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("size", [600, 2 * TILE, TILE + 1, 40])
def test_update_in_threads_equals_one_thread_bit_for_bit(size: int, lanes: int) -> None:
    keywords = BASE | {"n_steps": 1200, "batch_size": size, "seed": 3}
    models = [sb3_model(True, INPUTS, ACTIONS, **keywords) for _ in range(2)]
    random = np.random.default_rng(5)
    rollout = random_rollout(models[0], 1200, True, random)
    order = np.stack([random.permutation(1200) for _ in range(2)])
    alone, shared = (bind_network(model.policy) for model in models)
    losses = update(alone, rollout, order, _hyperparameters(models[0]), None)
    np.testing.assert_array_equal(
        losses, update(shared, rollout, order, _hyperparameters(models[1]), lanes)
    )
    np.testing.assert_array_equal(alone.params, shared.params)


def test_threads_share_only_minibatches_of_several_tiles() -> None:
    model = NativeMaskablePPO.__new__(NativeMaskablePPO)
    model.threads = 2
    assert model._lanes(TILE) is None
    if NUMBA_THREADS > 1:
        assert model._lanes(TILE + 1) == 2
    model.threads = 1
    assert model._lanes(2048) is None
