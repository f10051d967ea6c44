"""A market whose next moves one feature shows must be learned; the same one shuffled must not."""

from typing import Any

import numpy as np
import pytest
from tests.learning.builders import learning_config, make_env, make_model, with_features
from tests.trading.builders import bar_rows

from ppo_workbench.config import ActionSet, Config, Learner
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.table import TradingMarket

BARS, BARS_AFTER, DRIFT = 4000, 1500, 0.001


def _market(config: Config, seed: int, bars: int, shuffled: bool) -> TradingMarket:
    """Return bars that drift up or down for some 25 bars; feature 0 shows the direction."""
    random = np.random.default_rng(seed)
    direction = np.where(np.cumsum(random.random(bars) < 0.04) % 2 == 0, 1.0, -1.0)
    moves = DRIFT * direction
    if shuffled:
        moves = random.permutation(moves)
    closes = 100.0 * np.exp(np.cumsum(moves + 0.0005 * random.standard_normal(bars)))
    opens = np.concatenate([closes[:1], closes[:-1]])
    # At the close of bar t the order for bar t + 1 is decided.
    shown = np.append(direction[1:], 0.0)
    features = np.column_stack([shown, random.standard_normal(bars)]).astype(np.float32)
    return with_features(config, bar_rows(list(closes), list(opens)), features)


def _config(learner: Learner, **changes: Any) -> Config:
    return learning_config(
        learner=learner,
        risk__volatility__enabled=False,
        model__n_envs=16,
        model__n_steps=64,
        model__batch_size=256,
        model__n_epochs=8,
        model__learning_rate=2e-3,
        model__gamma=0.9,
        env__episode_bars=100,
        # The observed moments of the account's returns settle within an episode, as by default.
        reward__differential_sharpe_halflife_bars=20.0,
        **{"costs__half_spread_bps": 0.5} | changes,
    )


def _mean_return(model: Any, market: TradingMarket) -> float:
    """Return the mean log return by bar of the deterministic policy, over the whole market."""
    length = len(market.bars) - 2
    batch = TradingBatch(market, np.zeros(1, np.int64), length, 1, seed=0)
    total = 0.0
    for _ in range(length):
        action, _ = model.predict(batch.observations, action_masks=batch.masks, deterministic=True)
        batch.step(np.asarray(action, dtype=np.int64))
        total += float(batch.outcomes["log_return"][0])
    return total / length / 1000.0  # the component is in units of 10 bp


def _return_out_of_sample(
    learner: Learner, timesteps: int, shuffled: bool, **changes: Any
) -> float:
    config = _config(learner, **changes)
    model = make_model(config, make_env(config, _market(config, 1, BARS, shuffled)))
    model.learn(timesteps)
    return _mean_return(model, _market(config, 2, BARS_AFTER, shuffled))


@pytest.mark.parametrize(
    ("learner", "timesteps"), [(Learner.native, 60_000), (Learner.sb3, 16_384)]
)
def test_visible_direction_is_learned(learner: Learner, timesteps: int) -> None:
    """Following the direction earns DRIFT a bar, less a flip every 25 bars or so."""
    assert _return_out_of_sample(learner, timesteps, shuffled=False) > 0.75 * DRIFT


@pytest.mark.parametrize("steps", [1, 2, 5], ids="{} steps a side".format)
def test_visible_direction_is_learned_by_naming_targets(steps: int) -> None:
    levels = [k / steps for k in range(-steps, steps + 1)]
    changes = {"env__action_set": ActionSet.target, "env__exposure_levels": levels}
    earned = _return_out_of_sample(Learner.native, 60_000, shuffled=False, **changes)
    assert earned > 0.75 * DRIFT


def test_shuffled_market_is_not_learned() -> None:
    noise = DRIFT / np.sqrt(BARS_AFTER)  # standard error of the mean, always in the market
    assert _return_out_of_sample(Learner.native, 60_000, shuffled=True) < 3 * noise
