"""The step over time: nothing knows the future, and the drawdown ladder has a way back."""

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from tests.trading.builders import BUY, HOLD, SELL, Account, bar_rows, of_minutes, only

from ppo_workbench.cli.main import compose
from ppo_workbench.config import ActionSet, Config
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.causality import look_ahead
from ppo_workbench.market.features import compute_market
from ppo_workbench.market.sources import load_bars
from ppo_workbench.trading.account import OUTCOME_DTYPE
from ppo_workbench.trading.chance import seed_accounts
from ppo_workbench.trading.experiment import prepare, prepare_with_test, split_bars
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.step import begin_episode, refresh, step_one
from ppo_workbench.trading.table import TradingMarket, trading_market

Arrays = dict[str, npt.NDArray[np.generic]]
TRAIN = slice(1000, 2500)


@cache
def _config(kind: ActionSet = ActionSet.step) -> Config:
    config = compose(
        [
            "tracking=none",
            "data.synthetic.sessions=16",
            "data.synthetic.seed=5",
            "features.volatility_slow_bars=100",
            "costs=us_etf",
            "risk=aggressive",
            f"env.action_set={kind.value}",
            "env.episode_bars=390",
            "splits.gap_bars=0",
            "reward.bar_volatility_frac=0.0005",
            "reward.annual_volatility_frac=0.16",
        ]
    )
    for rule in config.risk.rules().values():
        rule.enabled = True
    config.risk.settlement.enabled = False  # or nothing would be sold short
    config.risk.order_rate.max_opens_per_session = 40
    config.risk.cooldown.bars_after_loss = 2
    config.risk.volatility.max_ratio = 1.6
    config.risk.regime.blocked = ["trend_high_volatility"]
    config.risk.halt.market_wide = True
    return of_minutes(config)


@cache
def _bars() -> Bars:
    return load_bars(_config().data)


def _walk(market: TradingMarket, start: int) -> Arrays:
    """Return what a random legal agent sees and gets, row by bar, from `start` to the end."""
    length, space, p = len(market.bars), market.space, market.params[0]
    account, random = seed_accounts(1, 0)[0], np.random.default_rng(0)
    observation = np.zeros((length, market.observation_size), dtype=np.float32)
    mask = np.zeros((length, space.size), dtype=np.bool_)
    reasons = np.zeros((length, space.size), dtype=np.int64)
    outcomes = np.zeros(length, dtype=OUTCOME_DTYPE)
    begin_episode(account, market.bars, start, length, p)
    for t in range(start, length):
        refresh(account, market.inputs, observation[t], mask[t], reasons[t])
        if t + 1 < length:  # row t + 1 holds what bar t + 1 made of the decision at t
            action = int(random.choice(np.flatnonzero(mask[t])))
            step_one(
                account, market.bars, space.levels, p, action, reasons[t, action], outcomes[t + 1]
            )
    return {
        "observation": observation,
        "mask": mask,
        "reasons": reasons,
        "reward": outcomes["reward"].copy(),
        "equity": outcomes["equity"].copy(),
    }


def _trading(bars: Bars, kind: ActionSet = ActionSet.step) -> Arrays:
    config = _config(kind)
    table = compute_market(bars, config.features)
    scaler = Scaler.fit(table.features[TRAIN], config.features.clip)
    return _walk(trading_market(bars, table, config, scaler), TRAIN.stop)


@pytest.mark.parametrize("at", [2600, 390 * 7, 390 * 7 + 1, 3333, 390 * 9 - 5, 390 * 9 - 1])
@pytest.mark.parametrize("kind", list(ActionSet))
def test_future_of_the_bars_changes_nothing_before_it(at: int, kind: ActionSet) -> None:
    bars = _bars().slice(0, 390 * 9 + 40)
    assert look_ahead(lambda given: _trading(given, kind), bars, at, seed=at) == []


def test_future_planted_as_a_feature_is_caught_by_the_same_test() -> None:
    bars = _bars().slice(0, 3000)

    def cheating(given: Bars) -> Arrays:
        following = np.append(np.diff(np.log(given.close)), 0.0)[:, None]
        return _trading(replace(given, extra=following, extra_names=("planted",)))

    found = look_ahead(cheating, bars, 2800)
    assert any(text.startswith("observation") for text in found)


def test_walk_of_the_causality_test_trades_and_is_masked() -> None:
    seen = _trading(_bars().slice(0, 3500))
    assert len(np.unique(seen["equity"])) > 300
    assert 0.05 < np.mean(seen["mask"][TRAIN.stop :, BUY] == 0) < 0.95


def test_prepare_without_the_test_split_equals_the_one_with_it() -> None:
    bars, splits = split_bars(_config())
    closed, opened = (make(_config(), bars, splits) for make in (prepare, prepare_with_test))
    stop = splits["validation"].stop
    assert len(closed.bars) == stop < len(opened.bars)
    assert "test" not in closed.splits
    assert closed.test_range == opened.test_range
    assert closed.market.features.tobytes() == opened.market.features[:stop].tobytes()
    assert closed.market.bars.tobytes() == opened.market.bars[:stop].tobytes()
    assert closed.market.scaler.means.tobytes() == opened.market.scaler.means.tobytes()


def test_scaler_standardises_by_the_training_rows_and_clips() -> None:
    random = np.random.default_rng(0)
    features = random.normal(5.0, 3.0, (500, 2))
    features[:, 1] = 7.0  # constant: left in its own units
    scaler = Scaler.fit(features, clip=2.0)
    scaled = scaler.transform_market(features)
    expected = np.clip((features[:, 0] - features[:, 0].mean()) / features[:, 0].std(), -2, 2)
    assert scaled.dtype == np.float32
    assert np.allclose(scaled[:, 0], expected, atol=1e-6)
    assert (scaled[:, 1] == 0).all()


def _ladder(closes: list[float], **changes: object) -> Account:
    settings = {"caution_frac": 0.05, "flatten_frac": 0.10, "pause_bars": 4, "reduced_size": 0.5}
    names = {f"risk__drawdown__{name}": value for name, value in settings.items()}
    return Account(only("drawdown", **(names | changes)), bar_rows(closes))


def test_ladder_falls_pauses_and_comes_back_at_reduced_size() -> None:
    account = _ladder([100.0, 100.0, 88.0] + [88.0] * 12)
    account.step(BUY)
    account.step(HOLD)  # down 12 %: flatten
    assert account.legal() == [True, False, False]
    assert account.blocked(HOLD) == {"drawdown"}
    account.step(SELL)
    assert account["shares"] == 0
    while not account.legal()[BUY]:  # the pause counts from the fall
        assert account.blocked(BUY) == {"drawdown"}
        assert account.legal()[HOLD]
        account.step(HOLD)
    assert account["t"] == 2 + 4
    for action in (BUY, HOLD, HOLD, HOLD, HOLD):  # and it may stay: the old peak is forgotten
        out = account.step(action)
        assert out["rejected"] == 0
        assert out["exposure"] == pytest.approx(0.5, abs=0.01)


def test_ladder_full_size_is_back_once_half_of_the_caution_is_recovered() -> None:
    account = _ladder([100.0, 100.0, 94.0, 97.4, 97.6, 97.6, 97.6, 97.6])
    account.step(BUY)
    account.step(HOLD)  # down 6 %: caution, and nothing is forbidden
    assert not account.reasons().any()
    account.step(HOLD)
    assert account["recovery_equity"] == pytest.approx(97_500.0)  # half of 5 % under the peak
    account.step(HOLD)
    assert account["recovery_equity"] == 0.0
    account.step(SELL)
    out = account.step(BUY)
    assert out["exposure"] == pytest.approx(1.0, abs=0.01)


def test_ladder_size_stays_reduced_below_the_recovery() -> None:
    account = _ladder([100.0, 100.0, 94.0, 97.4, 97.4, 97.4])
    for action in (BUY, HOLD, SELL):
        account.step(action)
    out = account.step(BUY)
    assert out["exposure"] == pytest.approx(0.5, abs=0.01)


def test_ladder_after_a_pause_measures_from_the_new_peak() -> None:
    account = _ladder([100.0, 100.0, 88.0] + [88.0] * 4 + [88.0, 80.0, 80.0])
    for action in (BUY, HOLD, SELL, HOLD, HOLD, HOLD, BUY, HOLD):
        assert account.step(action)["rejected"] == 0
    # Half size from 88 to 80: 4.5 % of the new peak, far more than 10 % of the first.
    assert account["equity"] < 85_000
    assert not account.reasons().any()
    assert account.out["exposure"] == pytest.approx(0.5, abs=0.05)


def test_ladder_is_never_flat_for_good() -> None:
    random = np.random.default_rng(2)
    closes = 100 * np.exp(np.cumsum(random.normal(-0.004, 0.02, 3000)))  # falls for ever
    account = _ladder(list(np.maximum(closes, 1e-3)), market__lot=0.0)
    blocked, longest = 0, 0
    for _ in range(2900):
        legal = np.flatnonzero(account.legal())
        blocked = 0 if account.legal()[BUY] or account["shares"] != 0 else blocked + 1
        longest = max(longest, blocked)
        account.step(int(random.choice(legal)))
        if account["equity"] <= 1.0:
            break
    assert 0 < longest <= 5


def test_ladder_switched_off_never_reduces() -> None:
    account = Account(only(), bar_rows([100.0, 100.0, 50.0, 50.0, 50.0]))
    for action in (BUY, HOLD, SELL):
        account.step(action)
    assert account.step(BUY)["exposure"] == pytest.approx(1.0, abs=0.01)


def test_scaled_features_equal_the_array_formula_bit_for_bit() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(0, 4, (500, 7))
    features[0, 0] = np.nan
    scaler = Scaler(rng.normal(size=9), rng.uniform(0.1, 2, 9), 5.0)
    expected = np.clip((features - scaler.means[:7]) / scaler.stds[:7], -5.0, 5.0)
    found = scaler.transform_market(features)
    assert np.array_equal(found, expected.astype(np.float32), equal_nan=True)
