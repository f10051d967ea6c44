"""The batched `VecEnv`: SB3's contract, and N environments equal N single ones."""

import numpy as np
import pytest
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from tests.learning.builders import learning_config, make_env, walk_market

from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.rewards import REWARD_NAMES

N = 4
HOLD = np.ones(N, dtype=np.int64)


def test_reset_returns_scaled_observations_within_the_space() -> None:
    env = make_env(learning_config())
    observations = env.reset()
    assert isinstance(observations, np.ndarray)
    assert observations.shape == (N, *(env.observation_space.shape or ()))
    assert observations.dtype == np.float32
    assert all(env.observation_space.contains(row) for row in observations)


def test_reset_staggers_the_first_episodes() -> None:
    env = make_env(learning_config())
    env.reset()
    ends = [env.step(HOLD)[2].tolist() for _ in range(20)]
    assert {k + 1: row for k, row in enumerate(ends) if any(row)} == {
        5: [True, False, False, False],
        10: [False, True, False, False],
        15: [False, False, True, False],
        20: [False, False, False, True],
    }


def test_step_at_the_end_of_an_episode_follows_sb3s_contract() -> None:
    env = make_env(learning_config())
    env.reset()
    for _ in range(4):
        _, _, dones, infos = env.step(HOLD)
        assert not dones.any()
        assert infos == [{}] * N
    before = env.batch.accounts[0].copy()
    observations, _, dones, infos = env.step(HOLD)
    assert isinstance(observations, np.ndarray)
    assert dones.tolist() == [True, False, False, False]
    assert infos[1:] == [{}] * 3
    info = infos[0]
    assert info["TimeLimit.truncated"] is True
    assert info["episode"]["l"] == 5
    assert info["episode"]["r"] == pytest.approx(
        before["episode_reward"] + env.batch.outcomes[0]["reward"]
    )
    market = env.batch.market.features
    np.testing.assert_array_equal(info["terminal_observation"][:3], market[before["t"] + 1])
    np.testing.assert_array_equal(observations[0][:3], market[env.batch.accounts[0]["t"]])
    assert env.step(HOLD)[3] == [{}] * N  # the plain infos were not changed


def test_step_into_ruin_is_terminated_and_not_truncated() -> None:
    config = learning_config(env__episode_bars=20)
    market = walk_market(config)
    env = make_env(config, market)
    env.reset()
    account = env.batch.accounts[2]
    account["shares"], account["cash"] = -1e6, 1.0
    _, _, dones, infos = env.step(HOLD)
    assert dones[2]
    assert infos[2]["TimeLimit.truncated"] is False


def test_step_returns_arrays_that_later_steps_leave_alone() -> None:
    env = make_env(learning_config())
    env.reset()
    observations, rewards, dones, _ = env.step(2 * HOLD)
    assert isinstance(observations, np.ndarray)
    kept = [observations.copy(), rewards.copy(), dones.copy()]
    for _ in range(5):
        env.step(HOLD)
    for now, then in zip((observations, rewards, dones), kept, strict=True):
        np.testing.assert_array_equal(now, then)


def test_action_masks_come_as_one_array_and_through_sb3_contrib() -> None:
    env = make_env(learning_config())
    env.reset()
    masks = env.action_masks()
    assert masks.shape == (N, 3)
    assert masks.dtype == np.bool_
    assert masks.any(axis=1).all()
    np.testing.assert_array_equal(masks, env.batch.reasons == 0)
    assert is_masking_supported(env)
    np.testing.assert_array_equal(get_action_masks(env), masks)
    np.testing.assert_array_equal(env.env_method("action_masks", indices=[2, 0]), masks[[2, 0]])
    masks[:] = False
    assert env.action_masks().any()  # a copy


def test_env_method_of_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="render"):
        make_env(learning_config()).env_method("render")


def test_n_environments_equal_n_single_ones_with_the_same_generators() -> None:
    config = learning_config()
    env = make_env(config)
    env.reset()
    singles = []
    for n in range(N):
        batch = env.batch
        single = TradingBatch(batch.market, batch.starts, batch.episode_bars, 1, seed=0)
        single.accounts[0] = batch.accounts[n]
        for name in ("observations", "masks", "reasons"):
            getattr(single, name)[0] = getattr(batch, name)[n]
        singles.append(single)
    random = np.random.default_rng(0)
    for _ in range(60):
        actions = random.integers(0, 3, N)
        observations, rewards, dones, _ = env.step(actions)
        assert isinstance(observations, np.ndarray)
        for n, single in enumerate(singles):
            single.step(actions[n : n + 1])
            np.testing.assert_array_equal(single.observations[0], observations[n])
            assert single.rewards[0] == rewards[n]
            assert (single.done[0] > 0) == dones[n]
            np.testing.assert_array_equal(single.masks[0], env.action_masks()[n])


def test_seed_again_repeats_the_episodes() -> None:
    env = make_env(learning_config())
    seen = []
    for _ in range(2):
        env.seed(5)
        env.reset()
        seen.append(np.stack([np.asarray(env.step(HOLD)[0]) for _ in range(25)]))
    np.testing.assert_array_equal(seen[0], seen[1])
    env.seed(6)
    env.reset()
    assert not np.array_equal(np.asarray(env.step(HOLD)[0]), seen[0][0])


def test_statistics_are_shares_and_means_per_decision_and_start_anew() -> None:
    env = make_env(learning_config())
    env.reset()
    random = np.random.default_rng(1)
    steps, masked, volatility, episodes = 50, 0, 0, 0
    components = dict.fromkeys(REWARD_NAMES, 0.0)
    sent = np.zeros(3)
    for _ in range(steps):
        masked += int((~env.action_masks() & (env.batch.reasons != 0)).any(axis=1).sum())
        volatility += int((env.batch.reasons != 0).any(axis=1).sum())
        actions = random.integers(0, 3, N)
        sent += np.bincount(actions, minlength=3)
        episodes += int(env.step(actions)[2].sum())
        for name in REWARD_NAMES:
            components[name] += float(env.batch.outcomes[name].sum())
    metrics = env.statistics.take(("SELL", "HOLD", "BUY"))
    assert metrics["mask/any"] == masked / (steps * N)
    assert metrics["mask/volatility"] == pytest.approx(volatility / (steps * N))
    assert 0 < metrics["rules/rejected"] < metrics["mask/any"]
    assert [metrics[f"action/{a}"] for a in ("SELL", "HOLD", "BUY")] == (sent / 200).tolist()
    for name, total in components.items():
        assert metrics[f"reward/{name}"] == pytest.approx(total / (steps * N), rel=1e-12)
    assert env.statistics.episodes == episodes
    assert env.statistics.take(("SELL", "HOLD", "BUY"))["mask/any"] == 0.0
    assert env.statistics.episodes == episodes  # goes on
