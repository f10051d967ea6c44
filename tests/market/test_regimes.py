"""The context against the true states of the synthetic market, and known answers."""

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from tests.market.builders import minute_features

from ppo_workbench.config import ConfigError, FeaturesConfig, SyntheticConfig
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import MarketTable, compute_market
from ppo_workbench.market.regimes import (
    REGIME_NAMES,
    context_settings,
    detect_market_regime,
    efficiency_step,
    is_large_move,
    trend_step,
)
from ppo_workbench.market.synthetic import SyntheticMarket, generate

Floats = npt.NDArray[np.float64]

WARMUP = 3900


@cache
def _market(seed: int) -> SyntheticMarket:
    return generate(SyntheticConfig(sessions=504, seed=seed))


@cache
def _table(seed: int) -> MarketTable:
    return compute_market(_market(seed).bars, minute_features())


def _bars(open_: Floats, close: Floats, bars_per_session: int) -> Bars:
    """Return bars with these prices, in sessions of equal length."""
    count = len(close)
    bars = _market(0).bars.slice(0, count)
    session, slot = np.divmod(np.arange(count, dtype=np.int64), bars_per_session)
    return replace(
        bars,
        open=open_,
        high=np.maximum(open_, close),
        low=np.minimum(open_, close),
        close=close,
        session=session,
        bar_of_session=slot,
        bars_per_session=bars_per_session,
    )


def _bars_of_moves(moves: Floats, bars_per_session: int = 1, gaps: Floats | None = None) -> Bars:
    """Return bars with these log returns from open to close, and log gaps before them."""
    gaps = np.zeros(len(moves)) if gaps is None else gaps
    close = 100 * np.exp((moves + gaps).cumsum())
    return _bars(close / np.exp(moves), close, bars_per_session)


def _config(fast: int = 20, slow: int = 1950, seasonal: bool = False) -> FeaturesConfig:
    return minute_features(
        volatility_fast_bars=fast, volatility_slow_bars=slow, seasonal_volatility=seasonal
    )


@pytest.mark.parametrize(
    ("ratio", "efficiency", "name"),
    [
        (1.25, 0.3, "range_low_volatility"),
        (1.0, 0.31, "trend_low_volatility"),
        (1.26, 0.1, "range_high_volatility"),
        (2.0, 0.9, "trend_high_volatility"),
    ],
)
def test_detect_market_regime_thresholds_give_the_named_regime(
    ratio: float, efficiency: float, name: str
) -> None:
    assert REGIME_NAMES[detect_market_regime(ratio, efficiency, 1.25, 0.3)] == name


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_volatility_ratio_synthetic_market_tells_the_true_regime(seed: int) -> None:
    ratio = _table(seed).volatility_ratio[WARMUP:]
    high = _market(seed).true_regime[WARMUP:] >= 2
    for threshold, bar in ((1.25, 0.83), (1.4, 0.81)):
        flagged = ratio > threshold
        balanced_accuracy = (flagged[high].mean() + (~flagged)[~high].mean()) / 2
        assert balanced_accuracy > bar
    assert 0.12 < (ratio > 1.4).mean() < 0.18


def test_sigma_synthetic_market_follows_the_true_volatility() -> None:
    sigma, truth = _table(0).sigma[WARMUP:], _market(0).sigma[WARMUP:]
    assert np.corrcoef(np.log(sigma), np.log(truth))[0, 1] > 0.9
    assert 0.9 < np.median(sigma / truth) < 1.1


def test_volatility_ratio_deseasonalised_is_level_over_the_day() -> None:
    bars = _market(0).bars
    slot = bars.bar_of_session[WARMUP:]
    spreads = []
    for seasonal in (True, False):
        ratio = compute_market(bars, _config(seasonal=seasonal)).volatility_ratio[WARMUP:]
        by_slot = np.array([np.median(ratio[slot == i]) for i in range(390)])
        spreads.append(by_slot.max() / by_slot.min())
    assert spreads[0] < 1.5
    assert spreads[1] > 1.8


def test_volatility_small_moves_equal_the_weighted_mean_of_squares() -> None:
    moves = np.random.default_rng(1).uniform(-0.01, 0.01, 300)  # nothing to cut
    table = compute_market(_bars_of_moves(moves), _config(fast=5, slow=40))
    ages = np.arange(300)[::-1]
    fast, slow = (np.average(moves**2, weights=0.5 ** (ages / n)) for n in (5, 40))
    assert table.sigma[-1] == pytest.approx(np.sqrt(fast), rel=1e-9)
    assert table.volatility_ratio[-1] == pytest.approx(np.sqrt(fast / slow), rel=1e-9)


def test_volatility_overnight_gap_counts_daily_but_not_intraday() -> None:
    moves = np.random.default_rng(2).uniform(-0.01, 0.01, 400)
    gaps = np.where(np.arange(400) % 10 == 0, 0.1, 0.0)
    still = compute_market(_bars_of_moves(moves, 10), _config())
    gapped = compute_market(_bars_of_moves(moves, 10, gaps), _config())
    daily = compute_market(_bars_of_moves(moves, 1, gaps), _config())
    np.testing.assert_allclose(gapped.sigma, still.sigma, rtol=1e-9)
    np.testing.assert_allclose(gapped.efficiency, still.efficiency, rtol=1e-9, atol=1e-12)
    assert not gapped.large_move.any()
    assert daily.sigma[-1] > 1.5 * still.sigma[-1]
    assert daily.large_move[10]


def test_volatility_ratio_single_jump_stays_low_but_lasting_moves_pass() -> None:
    calm = np.random.default_rng(3).normal(0, 0.001, 3000)
    jump, lasting = calm.copy(), calm.copy()
    jump[-1] = 0.5
    lasting[-60:] *= 30
    ratios = [
        compute_market(_bars_of_moves(moves), _config()).volatility_ratio[-1]
        for moves in (jump, lasting)
    ]
    assert ratios[0] < 1.4
    assert ratios[1] > 4


def test_volatility_after_a_flat_start_comes_to_life() -> None:
    moves = np.zeros(600)
    moves[300:] = np.random.default_rng(4).normal(0, 0.001, 300)
    table = compute_market(_bars_of_moves(moves), _config())
    assert (table.sigma[:300] == 0).all()
    assert (table.volatility_ratio[:300] == 1).all()
    assert table.sigma[-1] == pytest.approx(0.001, rel=0.5)
    assert np.isfinite(table.volatility_ratio).all()


def test_large_move_is_flagged_on_its_bar_only_and_measured_before_it() -> None:
    moves = np.full(200, 0.001)
    moves[::2] *= -1
    moves[100], moves[150] = 0.0049, -0.0065
    table = compute_market(_bars_of_moves(moves), _config())
    assert np.flatnonzero(table.large_move).tolist() == [150]


def test_is_large_move_without_a_known_volatility_is_false() -> None:
    assert not is_large_move(1.0, 0.0, 5.0)
    assert is_large_move(-0.0051, 0.001, 5.0)
    assert not is_large_move(0.0049, 0.001, 5.0)


@pytest.mark.parametrize(
    ("moves", "efficiency", "trend"),
    [
        ([1.0, 1.0, 1.0, 1.0], 1.0, 1.0),
        ([1.0, -1.0, 1.0, -1.0], 0.0, 0.0),
        ([-1.0, -1.0, 1.0, -1.0], 0.5, -0.5),
        ([0.0, 0.0, 0.0, 0.0], 0.0, 0.0),
        ([9.0, -9.0, 1.0, 1.0, 1.0, 1.0], 1.0, 1.0),
    ],
)
def test_efficiency_and_trend_step_known_paths_give_known_ratios(
    moves: list[float], efficiency: float, trend: float
) -> None:
    first, second = np.zeros(1 + 4), np.zeros(1 + 4)
    assert [efficiency_step(move, first) for move in moves][-1] == efficiency
    assert [trend_step(move, second) for move in moves][-1] == trend


def test_mean_notional_is_that_of_the_last_twenty_bars() -> None:
    bars = _market(0).bars.slice(0, 100)
    mean = compute_market(bars, minute_features()).mean_notional
    notional = bars.volume * bars.close
    assert mean[5] == pytest.approx(notional[:6].mean(), rel=1e-12)
    assert mean[99] == pytest.approx(notional[80:].mean(), rel=1e-12)


def test_seasonal_volatility_off_and_on_agree_before_a_session_has_ended() -> None:
    bars = _market(0).bars.slice(0, 391)
    on, off = (compute_market(bars, _config(seasonal=flag)).sigma for flag in (True, False))
    np.testing.assert_array_equal(on[:390], off[:390])
    assert on[390] != off[390]


def test_context_settings_fast_not_below_slow_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"features\.volatility_fast_bars=50: must be less than"):
        context_settings(_config(fast=50, slow=50), 390)
