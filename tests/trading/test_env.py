"""The Gymnasium environment and the batch: contracts, seeds, ends of episodes, rejections."""

import copy
from functools import cache
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.utils.env_checker import check_env
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from tests.trading.builders import BUY, HOLD, SELL, bar_rows, configure, hand_market, names

from ppo_workbench.cli.main import compose
from ppo_workbench.config import ActionSet, Config, ForbiddenAction
from ppo_workbench.market.regimes import REGIME_NAMES
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.env import ENV_ID, MaskableTradingEnv, make_env
from ppo_workbench.trading.rewards import REWARD_NAMES
from ppo_workbench.trading.rules.names import BIT

SMALL = [
    *("tracking=none", "data.synthetic.sessions=20", "features.volatility_slow_bars=200"),
    *("env.episode_bars=390", "risk=conservative"),
]
EXECUTE = {"env__forbidden_action": ForbiddenAction.execute}


@cache
def _synthetic() -> MaskableTradingEnv:
    return make_env(compose(SMALL))


def _env() -> MaskableTradingEnv:
    """Return a fresh environment on the shared synthetic market."""
    shared = _synthetic()
    return MaskableTradingEnv(shared.market, shared._batch.starts, 390)


def _hand_env(config: Config, rows: npt.NDArray[np.void], length: int = 0) -> MaskableTradingEnv:
    starts = np.zeros(1, dtype=np.int64)
    env = MaskableTradingEnv(hand_market(config, rows), starts, length or len(rows) - 1)
    env.reset(seed=0)
    return env


def _legal(env: MaskableTradingEnv, random: np.random.Generator) -> int:
    return int(random.choice(np.flatnonzero(env.action_masks())))


def test_env_registered_id_passes_gymnasiums_check() -> None:
    env = gymnasium.make(ENV_ID)
    assert isinstance(env.unwrapped, MaskableTradingEnv)
    check_env(env.unwrapped, skip_render_check=True)


def test_env_passes_stable_baselines_check() -> None:
    sb3_check_env(_env(), warn=True)


def test_action_masks_are_what_sb3_contrib_expects() -> None:
    env = _env()
    env.reset(seed=1)
    assert is_masking_supported(env)
    mask = get_action_masks(env)
    assert mask.dtype == np.bool_
    assert mask.shape == (3,)
    assert mask.any()
    mask[:] = False  # a copy: the environment keeps its own
    assert env.action_masks().any()


def test_env_same_seed_same_trajectory_and_another_seed_another() -> None:
    def trajectory(seed: int) -> npt.NDArray[np.float32]:
        env, random = _env(), np.random.default_rng(0)
        rows = [env.reset(seed=seed)[0]]
        for _ in range(500):
            observation, reward, terminated, truncated, _ = env.step(_legal(env, random))
            rows.append(np.append(observation[:-1], np.float32(reward)))
            if terminated or truncated:
                rows.append(env.reset()[0])
        return np.stack(rows)

    first = trajectory(7)
    assert trajectory(7).tobytes() == first.tobytes()
    assert any(trajectory(seed).tobytes() != first.tobytes() for seed in (8, 9, 10))


def test_env_start_option_is_honoured_and_an_illegal_one_refused() -> None:
    env = _env()
    start = int(env._batch.starts[-1])
    env.reset(options={"start": start})
    assert env._batch.accounts[0]["t"] == start
    with pytest.raises(ValueError, match="start=1 is not a legal"):
        env.reset(options={"start": 1})


def test_env_wrong_calls_are_refused() -> None:
    env = _env()
    with pytest.raises(ValueError, match="call reset"):
        env.step(HOLD)
    env.reset(seed=0)
    for action in (-1, 3):
        with pytest.raises(ValueError, match=r"must be 0 \.\. 2"):
            env.step(action)


def test_env_functions_of_the_specification_answer() -> None:
    env = _env()
    env.reset(seed=0)
    _, reward, _, _, info = env.step(HOLD)
    components = env.calculate_reward()
    assert tuple(components) == (*REWARD_NAMES, "reward")
    assert components["reward"] == pytest.approx(reward, rel=1e-6)
    assert env.detect_market_regime() in REGIME_NAMES
    assert info["rejected"] == info["violated"] == 0


def test_env_blocked_by_names_rules_of_masked_actions_only() -> None:
    rows = bar_rows([100.0] * 3, rule_bits=BIT["volatility"])
    env = _hand_env(configure("moderate"), rows)
    assert env.blocked_by() == {"SELL": ("volatility",), "BUY": ("volatility",)}
    assert env.action_masks().tolist() == [False, True, False]


def test_episode_is_truncated_after_its_length_and_not_terminated() -> None:
    env = _hand_env(configure(), bar_rows([100.0] * 10), length=4)
    ends = [env.step(HOLD)[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]
    with pytest.raises(ValueError, match="call reset"):
        env.step(HOLD)


def test_episode_is_terminated_by_ruin() -> None:
    env = _hand_env(configure(), bar_rows([100.0, 100.0, 201.0, 201.0]))
    env.step(SELL)
    _, reward, terminated, truncated, info = env.step(HOLD)
    assert (terminated, truncated) == (True, False)
    assert info["equity_usd"] < 0
    assert np.isfinite(reward)


def test_terminal_observation_is_of_the_old_episode() -> None:
    env = _hand_env(configure(), bar_rows([100.0] * 10), length=3)
    for _ in range(2):
        env.step(BUY)
    observation = env.step(HOLD)[0]
    exposure = observation[1]  # after the one market feature
    assert exposure == pytest.approx(1.0)
    assert env.reset()[0][1] == 0.0


@pytest.mark.parametrize("mode", list(ForbiddenAction))
def test_impossible_action_is_always_rejected_and_counted(mode: ForbiddenAction) -> None:
    config = configure("moderate", env__forbidden_action=mode, risk__locate__available=False)
    env = _hand_env(config, bar_rows([100.0] * 4))
    info = env.step(SELL)[4]
    assert names(info["rejected"]) == {"locate"}
    assert (info["violated"], info["fill_quantity"]) == (0, 0.0)


@pytest.mark.parametrize(
    ("rule", "action"), [("volatility", BUY), ("short_sale_restriction", SELL)]
)
def test_house_and_regulatory_action_is_rejected_or_executed(rule: str, action: int) -> None:
    rows = bar_rows([100.0] * 4, rule_bits=[BIT[rule], 0, 0, 0])
    info = _hand_env(configure("moderate"), rows).step(action)[4]
    assert (names(info["rejected"]), info["violated"]) == ({rule}, 0)
    assert info["fill_quantity"] == 0.0
    info = _hand_env(configure("moderate", **EXECUTE), rows).step(action)[4]
    assert (info["rejected"], names(info["violated"])) == (0, {rule})
    assert info["fill_quantity"] != 0.0


def test_impossible_beside_a_house_rule_is_rejected_in_execute_mode() -> None:
    config = configure("moderate", risk__locate__available=False, **EXECUTE)
    rows = bar_rows([100.0] * 4, rule_bits=BIT["volatility"])
    info = _hand_env(config, rows).step(SELL)[4]
    assert names(info["rejected"]) == {"locate", "volatility"}
    assert info["fill_quantity"] == 0.0


def _overnight(**changes: Any) -> MaskableTradingEnv:
    rows = bar_rows([100.0] * 6, session=[0, 0, 0, 1, 1, 1])
    rows["rule_bits"][[1, 2]] = BIT["session_flatten"]
    env = _hand_env(configure("moderate", **changes), rows)
    env.step(BUY)
    return env


def test_flatten_rule_is_carried_out_by_the_broker_where_rules_are_enforced() -> None:
    env = _overnight()
    info = env.step(HOLD)[4]
    assert names(info["rejected"]) == {"session_flatten"}
    assert info["fill_quantity"] < 0
    assert info["exposure"] == 0.0


def test_overnight_holding_is_executed_and_counted_where_rules_are_not_enforced() -> None:
    env = _overnight(**EXECUTE)
    counts = []
    for _ in range(3):
        info = env.step(HOLD)[4]
        assert info["rejected"] == 0
        assert info["exposure"] == pytest.approx(1.0)
        counts.append(names(info["violated"]))
    assert counts == [{"session_flatten"}, {"session_flatten"}, set()]


def test_step_towards_flat_under_a_flatten_rule_flattens_in_both_modes() -> None:
    for mode in ForbiddenAction:
        config = configure(
            "moderate",
            env__exposure_levels=[0.0, 0.5, 1.0],
            env__forbidden_action=mode,
        )
        rows = bar_rows([100.0] * 6)
        rows["rule_bits"][2] = BIT["session_flatten"]
        env = _hand_env(config, rows)
        env.step(BUY)
        env.step(BUY)
        assert env.action_masks().tolist() == [True, False, False]
        info = env.step(SELL)[4]
        assert (info["rejected"], info["violated"], info["exposure"]) == (0, 0, 0.0)


def test_halted_market_carries_out_nothing_not_even_a_flatten_rule() -> None:
    rows = bar_rows([100.0] * 5)
    rows["rule_bits"][1] = BIT["session_flatten"] | BIT["halt"]
    for mode in ForbiddenAction:
        config = configure("moderate", risk__halt__enabled=True, env__forbidden_action=mode)
        env = _hand_env(config, rows)
        env.step(BUY)
        info = env.step(SELL)[4]
        assert names(info["rejected"]) == {"halt"}
        assert info["fill_quantity"] == 0.0


def test_rejection_of_a_flip_keeps_the_position() -> None:
    config = configure("moderate", env__action_set=ActionSet.target, risk__locate__available=False)
    env = _hand_env(config, bar_rows([100.0] * 4))
    env.step(3)
    info = env.step(1)[4]
    assert names(info["rejected"]) == {"locate"}
    assert info["exposure"] == pytest.approx(1.0)


def test_mask_all_true_control_masks_nothing_and_enforces_everything() -> None:
    config = configure("moderate", env__mask_all_true=True)
    env = _hand_env(config, bar_rows([100.0] * 3, rule_bits=BIT["volatility"]))
    assert env.action_masks().all()
    assert names(env.step(BUY)[4]["rejected"]) == {"volatility"}


def test_mask_of_second_names_alone_leaves_the_rules_to_the_broker() -> None:
    config = configure("moderate", env__mask_rules=False, env__action_set=ActionSet.target)
    env = _hand_env(config, bar_rows([100.0] * 3, rule_bits=BIT["volatility"]))
    assert env.action_masks().tolist() == [True, True, False, True]  # flat
    assert set(env.blocked_by()) == {"TARGET_-1", "TARGET_+1"}
    assert names(env.step(3)[4]["rejected"]) == {"volatility"}


@pytest.mark.parametrize("action_set", list(ActionSet))
def test_observed_mask_is_the_mask_and_changes_nothing_else(action_set: ActionSet) -> None:
    own = [*SMALL, f"env.action_set={action_set.value}"]
    plain, bits = (
        TradingBatch(make_env(compose([*own, *shown])).market, np.array([2000, 3000]), 50, 3, 1)
        for shown in ([], ["env.observe_mask=true"])
    )
    size, random = plain.market.space.size, np.random.default_rng(0)
    for _ in range(120):  # two ends of episodes
        assert bits.observations[:, :-size].tobytes() == plain.observations.tobytes()
        assert np.array_equal(bits.observations[:, -size:], bits.masks.astype(np.float32))
        actions = random.integers(0, size, 3)
        for batch in (plain, bits):
            batch.step(actions)
        ended = bits.done != 0
        last = bits.terminal_observations[ended]
        assert last[:, :-size].tobytes() == plain.terminal_observations[ended].tobytes()
        assert set(np.unique(last[:, -size:])) <= {0.0, 1.0}
        assert (last[:, -size + plain.market.space.hold] == 1.0).all() or not ended.any()
    assert not plain.masks.all()


def test_buy_at_the_top_is_masked_but_no_broker_rejects_it() -> None:
    env = _hand_env(configure("moderate"), bar_rows([100.0] * 9))
    assert env.action_masks().all()
    env.step(BUY)
    assert env.action_masks().tolist() == [True, True, False]
    assert env.blocked_by() == {}
    info = env.step(BUY)[4]
    assert (info["rejected"], info["violated"], info["fill_quantity"]) == (0, 0, 0.0)
    env.step(SELL)
    env.step(SELL)
    assert env.action_masks().tolist() == [False, True, True]


def test_target_that_is_held_is_masked_but_no_broker_rejects_it() -> None:
    env = _hand_env(configure("moderate", env__action_set=ActionSet.target), bar_rows([100.0] * 5))
    assert env.action_masks().tolist() == [True, True, False, True]  # flat
    assert env.blocked_by() == {}
    env.step(3)
    assert env.action_masks().tolist() == [True, True, True, False]
    info = env.step(3)[4]
    assert (info["rejected"], info["violated"], info["fill_quantity"]) == (0, 0, 0.0)
    assert info["exposure"] == pytest.approx(1.0)


def test_second_name_of_hold_is_open_in_the_all_true_control() -> None:
    control = {"env__action_set": ActionSet.target, "env__mask_all_true": True}
    env = _hand_env(configure("moderate", **control), bar_rows([100.0] * 3))
    assert env.action_masks().all()


def test_passive_breach_is_a_price_move_and_no_violation() -> None:
    config = configure("moderate", **EXECUTE)
    env = _hand_env(config, bar_rows([100.0, 100.0, 101.0, 101.0, 100.0]))
    env.step(SELL)
    infos = [env.step(HOLD)[4] for _ in range(2)]
    assert [names(info["passive"]) for info in infos] == [{"concentration"}, set()]
    assert all(info["violated"] == 0 for info in infos)


def _batch(count: int, seed: int = 3) -> TradingBatch:
    shared = _synthetic()
    return TradingBatch(shared.market, shared._batch.starts, 390, count, seed)


def _draw(masks: npt.NDArray[np.bool_], random: np.random.Generator) -> npt.NDArray[np.int64]:
    chosen: npt.NDArray[np.int64] = np.where(masks, random.random(masks.shape), -1.0).argmax(1)
    return chosen


def test_batch_of_n_equals_n_single_environments() -> None:
    count, random = 5, np.random.default_rng(0)
    batch = _batch(count)
    singles = [_batch(1) for _ in range(count)]
    for n, single in enumerate(singles):
        single.accounts[0] = batch.accounts[n]
        single.reset_one(0, int(batch.accounts[n]["t"]))
    for _ in range(900):  # two resets each
        actions = _draw(batch.masks, random)
        batch.step(actions)
        for n, single in enumerate(singles):
            single.step(actions[n : n + 1])
            for name in ("observations", "masks", "reasons", "outcomes", "rewards", "done"):
                assert getattr(single, name)[0].tobytes() == getattr(batch, name)[n].tobytes()
            assert single.accounts[0].tobytes() == batch.accounts[n].tobytes()


def test_batch_staggered_ends_reset_their_environment_only() -> None:
    batch, random = _batch(4), np.random.default_rng(1)
    lengths = np.array([5, 9, 20, 390])
    batch.accounts["stop"] = batch.accounts["t"] + lengths
    begun = batch.accounts["t"].copy()
    for step in range(1, 21):
        last = batch.step(_draw(batch.masks, random))
        assert batch.done.tolist() == [int(step == length) for length in lengths]
        assert last == batch.done.sum()
        for n, length in enumerate(lengths):
            fresh = batch.accounts["t"][n] - batch.accounts["episode_start"][n]
            assert fresh == (step if step < length else step - length)
            if step == length:
                assert batch.outcomes["episode_length"][n] == length
                assert np.isfinite(batch.terminal_observations[n]).all()
                assert batch.accounts["shares"][n] == 0.0
    assert batch.accounts["t"][3] == begun[3] + 20


def test_batch_reset_episode_has_its_whole_length_again() -> None:
    batch = _batch(2)
    batch.accounts["stop"] = batch.accounts["t"] + 3
    for _ in range(3):
        batch.step(np.full(2, HOLD))
    assert (batch.accounts["stop"] - batch.accounts["t"] == 390).all()


def test_batch_starts_are_drawn_from_all_legal_ones() -> None:
    batch = _batch(400)
    assert set(batch.accounts["t"]) == set(batch.starts)
    again = copy.copy(batch.accounts["t"])
    batch.reset()
    assert (batch.accounts["t"] != again).any()
