"""The jitted rollout against stable-baselines3's own, and the sampling against its softmax."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from tests.learning.builders import evaluate, learning_config, make_model

from ppo_workbench.config import Learner, ModelType
from ppo_workbench.jit import kernel
from ppo_workbench.learning.native.rollout import sample, uniform
from ppo_workbench.learning.native.update import masked_softmax
from ppo_workbench.trading.chance import seed_accounts

LAST = 1.0 - 2.0**-53


def _replay(native: Any, sb3: Any) -> None:
    """Let SB3's own `collect_rollouts` take the actions that the native rollout took."""
    actions = iter(native._buffer.actions)
    policy = sb3.policy

    def forward(obs: torch.Tensor, **masks: Any) -> tuple[torch.Tensor, ...]:
        chosen = torch.as_tensor(next(actions))
        values, log_p, _ = policy.evaluate_actions(obs, chosen, **masks)
        return chosen, values, log_p

    policy.forward = forward
    sb3.collect_rollouts(sb3.env, _begin(sb3), sb3.rollout_buffer, sb3.n_steps)
    del policy.forward


def _begin(model: Any) -> Any:
    return model._init_callback(None)


def _start(model: Any) -> None:
    _, callback = model._setup_learn(2**40, None)
    callback.on_training_start({}, {})


def _collect(model: Any) -> None:
    model.collect_rollouts(model.env, _begin(model), None, model.n_steps)


def _pair(model_type: ModelType, **changes: Any) -> tuple[Any, Any]:
    """Return twins of both learners: same weights, same environments, begun."""
    native, sb3 = (make_model(learning_config(model_type, kind, **changes)) for kind in Learner)
    if isinstance(native, type(sb3)) and type(native) is type(sb3):
        raise AssertionError("the native learner was not built")
    _start(native)
    _start(sb3)
    with torch.no_grad():  # heads large enough for actions to differ and values to matter
        for model in (native, sb3):
            model.policy.action_net.weight.mul_(100.0)
            model.policy.value_net.bias.fill_(3.0)
    return native, sb3


@pytest.mark.parametrize("model_type", list(ModelType))
def test_rollout_with_truncations_equals_sb3_on_the_same_actions(model_type: ModelType) -> None:
    native, sb3 = _pair(model_type, env__forbidden_action="reject")
    for _ in range(2):  # the second one begins inside episodes
        _collect(native)
        _replay(native, sb3)
        ours, theirs = native._buffer, sb3.rollout_buffer
        np.testing.assert_array_equal(ours.observations, theirs.observations)
        np.testing.assert_array_equal(ours.episode_starts, theirs.episode_starts)
        assert 4 < ours.episode_starts.sum() < ours.episode_starts.size  # truncated on the way
        for name in ("values", "log_probs", "rewards", "advantages", "returns"):
            expected = getattr(theirs, name)
            np.testing.assert_allclose(
                getattr(ours, name), expected, rtol=1e-5, atol=1e-5, err_msg=name
            )
        if model_type is ModelType.maskable_ppo:
            np.testing.assert_array_equal(ours.masks, theirs.action_masks > 0)
            assert 0.5 < ours.masks.mean() < 0.95
        else:
            assert ours.masks.all()
        assert native.num_timesteps == sb3.num_timesteps
        np.testing.assert_array_equal(native.env.action_masks(), sb3.env.action_masks())


@pytest.mark.parametrize("model_type", list(ModelType))
def test_statistics_of_both_rollouts_agree_on_the_same_actions(model_type: ModelType) -> None:
    native, sb3 = _pair(model_type)
    _collect(native)
    _replay(native, sb3)
    ours, theirs = native.env.statistics, sb3.env.statistics
    assert ours.episodes == theirs.episodes > 0
    names = native.env.batch.market.space.names
    got, expected = ours.take(names), theirs.take(names)
    assert got.keys() == expected.keys()
    assert got["mask/any"] > 0.1
    for key, value in expected.items():
        assert got[key] == pytest.approx(value, rel=1e-9, abs=1e-12), key
    rows = [
        [(info["r"], info["l"]) for info in model.ep_info_buffer if info] for model in (native, sb3)
    ]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-9)


def test_rollout_buffer_holds_the_policys_own_values_and_only_legal_actions() -> None:
    native, _ = _pair(ModelType.maskable_ppo)
    _collect(native)
    buffer = native._buffer
    rows = buffer.actions.size
    observations, actions, masks = (
        buffer.observations.reshape(rows, -1),
        buffer.actions.ravel(),
        buffer.masks.reshape(rows, -1),
    )
    values, log_p, _ = evaluate(native, observations, actions, masks)
    np.testing.assert_allclose(buffer.values.ravel(), values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(buffer.log_probs.ravel(), log_p, rtol=1e-5, atol=1e-5)
    assert masks[np.arange(rows), actions].all()


def test_rollout_with_more_episodes_than_are_kept_counts_them_all() -> None:
    """Episodes of two bars: 4 x 800 decisions finish 1,600 of them and a few short ones."""
    config = learning_config(env__episode_bars=2, model__n_steps=800)
    native, env = make_model(config), None
    _start(native)
    _collect(native)
    env = native.env
    assert env.statistics.episodes == int(native._buffer.episode_starts[1:].sum()) + int(
        native._last_starts.sum()
    )
    assert env.statistics.episodes >= 1600
    assert len(native.ep_info_buffer) == 100


def _probabilities(
    logits: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    log_p, p = np.empty((1, len(logits)), np.float32), np.empty((1, len(logits)), np.float32)
    masked_softmax(logits[None], mask[None], log_p, p)
    probabilities: npt.NDArray[np.float32] = p[0]
    return probabilities


@kernel
def _draw(
    p: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    generator: npt.NDArray[np.void],
    counts: npt.NDArray[np.int64],
    draws: int,
) -> None:
    for _ in range(draws):
        counts[sample(p, mask, uniform(generator[0]))] += 1


@pytest.mark.parametrize("mask", [[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 1]])
def test_sample_frequencies_pass_a_chi_square_test_against_the_masked_softmax(
    mask: list[int],
) -> None:
    logits = np.array([0.3, -1.2, 0.9, -2.5], dtype=np.float32)
    allowed = np.array(mask, dtype=np.bool_)
    weights = np.where(allowed, np.exp(logits.astype(np.float64)), 0.0)
    p, counts = _probabilities(logits, allowed), np.zeros(4, dtype=np.int64)
    draws = 200_000
    _draw(p, allowed, seed_accounts(1, 7), counts, draws)
    assert counts[~allowed].sum() == 0
    expected = weights / weights.sum() * draws
    if allowed.sum() > 1:
        assert stats.chisquare(counts[allowed], expected[allowed]).pvalue > 1e-3


def test_uniform_numbers_are_uniform_and_below_one() -> None:
    generator = seed_accounts(1, 3)
    numbers = np.array([uniform(generator[0]) for _ in range(5_000)])
    assert ((numbers >= 0.0) & (numbers < 1.0)).all()
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3


@kernel
def _masked_draws(rows: int, draws: int, generator: npt.NDArray[np.void], last: float) -> int:
    """Count draws of masked actions, over random logits up to +-80 and random masks."""
    n_actions, wrong = 5, 0
    logits = np.empty((1, n_actions), np.float32)
    log_p, p = np.empty_like(logits), np.empty_like(logits)
    mask = np.empty((1, n_actions), np.bool_)
    for row in range(rows):
        for k in range(n_actions):
            u = uniform(generator[0])
            logits[0, k] = 80.0 if u < 0.3 else (-80.0 if u < 0.6 else 20.0 * u - 16.0)
            mask[0, k] = uniform(generator[0]) < 0.5
        mask[0, row % n_actions] = True
        masked_softmax(logits, mask, log_p, p)
        for draw in range(draws):
            u = uniform(generator[0])
            u = 0.0 if draw == 0 else (last if draw == 1 else u)
            wrong += not mask[0, sample(p[0], mask[0], u)]
    return wrong


def test_masked_action_is_never_drawn_in_a_million_draws() -> None:
    assert _masked_draws(20_000, 50, seed_accounts(1, 11), LAST) == 0


@pytest.mark.parametrize("number", [0.0, LAST])
@pytest.mark.parametrize("logit", [-80.0, 0.0, 80.0])
def test_sample_at_both_ends_of_the_uniform_numbers_is_legal(number: float, logit: float) -> None:
    logits = np.array([logit, -logit, logit, -logit], dtype=np.float32)
    for bits in range(1, 16):
        mask = np.array([bits >> k & 1 for k in range(4)], dtype=np.bool_)
        assert mask[sample(_probabilities(logits, mask), mask, number)]
