"""TA-Lib is the oracle: the same values from the same start of history."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_workbench.market import indicators

Floats = npt.NDArray[np.float64]


def _walk(seed: int, length: int = 400, volatility: float = 0.01) -> tuple[Floats, Floats, Floats]:
    """Return high, low, close of a random walk around 100."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(random.normal(0, volatility, length).cumsum())
    high = close * np.exp(random.exponential(volatility, length))
    low = close * np.exp(-random.exponential(volatility, length))
    return high, low, close


def _stream(step: Callable[[int, Floats], object], length: int, state_size: int) -> Floats:
    """Return what `step(t, state)` gives for every bar, shape (T,) or (T, outputs)."""
    state = np.zeros(state_size)
    return np.array([step(t, state) for t in range(length)])


def _assert_equal(ours: Floats, theirs: Floats | tuple[Floats, ...], scale: float = 0.0) -> None:
    """Compare to 1e-9 relative; `scale` admits rounding of differences of prices near 0."""
    expected = np.column_stack(theirs) if isinstance(theirs, tuple) else theirs
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-14 * scale, equal_nan=True)


seeds = st.integers(0, 2**32 - 1)
volatilities = st.sampled_from([1e-4, 1e-3, 0.01, 0.1])


@settings(max_examples=15)
@given(seeds, st.integers(2, 60), volatilities)
def test_rsi_step_random_walk_equals_talib(seed: int, window: int, volatility: float) -> None:
    _, _, close = _walk(seed, volatility=volatility)
    ours = _stream(lambda t, s: indicators.rsi_step(close[t], window, s), 400, 4)
    _assert_equal(ours, talib.RSI(close, window))


@settings(max_examples=15)
@given(seeds, st.integers(1, 60), volatilities)
def test_atr_step_random_walk_equals_talib(seed: int, window: int, volatility: float) -> None:
    high, low, close = _walk(seed, volatility=volatility)
    ours = _stream(lambda t, s: indicators.atr_step(high[t], low[t], close[t], window, s), 400, 3)
    _assert_equal(ours, talib.ATR(high, low, close, window))


@settings(max_examples=15)
@given(seeds, st.integers(2, 60), volatilities)
def test_ema_step_random_walk_equals_talib(seed: int, window: int, volatility: float) -> None:
    _, _, close = _walk(seed, volatility=volatility)
    ema = _stream(lambda t, s: indicators.ema_step(close[t], window, s), 400, 2)
    _assert_equal(ema, talib.EMA(close, window))


@settings(max_examples=15)
@given(seeds, st.integers(2, 60))
def test_deviation_step_random_walk_equals_talib(seed: int, window: int) -> None:
    _, _, close = _walk(seed)
    pairs = _stream(lambda t, s: indicators.deviation_step(close[t], s), 400, 1 + window)
    mean, width = pairs[:, 0], 2.0 * pairs[:, 1]
    bands = np.stack([mean + width, mean, mean - width], axis=1)
    _assert_equal(bands, talib.BBANDS(close, window, 2.0, 2.0))
    _assert_equal(mean, talib.SMA(close, window))
    # TA-Lib subtracts squares of prices, which costs it digits that two passes keep.
    np.testing.assert_allclose(pairs[:, 1], talib.STDDEV(close, window), rtol=1e-9, atol=1e-8)


@settings(max_examples=15)
@given(seeds, st.integers(2, 20), st.integers(1, 30), st.integers(1, 15), volatilities)
def test_macd_step_random_walk_equals_talib(
    seed: int, fast: int, gap: int, signal: int, volatility: float
) -> None:
    _, _, close = _walk(seed, volatility=volatility)
    slow = fast + gap
    ours = _stream(lambda t, s: indicators.macd_step(close[t], fast, slow, signal, s), 400, 7)
    theirs = talib.MACD(close, fast, slow, signal)
    first = slow + signal - 2
    # TA-Lib withholds the MACD line until its signal line starts; ours is known earlier.
    assert np.isnan(ours[: slow - 1, 0]).all()
    assert np.isfinite(ours[slow - 1 :, 0]).all()
    assert np.isnan(ours[:first, 1:]).all()
    _assert_equal(ours[first:], tuple(line[first:] for line in theirs), scale=close.max() * 10)


@pytest.mark.parametrize(("changes", "expected"), [(1.0, 100.0), (-1.0, 0.0), (0.0, 0.0)])
def test_rsi_step_one_way_prices_give_the_ends_of_the_scale(
    changes: float, expected: float
) -> None:
    values = _stream(lambda t, s: indicators.rsi_step(100 + changes * t, 5, s), 20, 4)
    assert np.isnan(values[:5]).all()
    assert values[5:].tolist() == [expected] * 15


def test_deviation_step_tiny_moves_on_a_high_price_keep_their_digits() -> None:
    close = 1e6 + np.array([0.0, 1e-3, 0.0, 1e-3])
    pairs = _stream(lambda t, s: indicators.deviation_step(close[t], s), 4, 5)
    assert pairs[3, 1] == pytest.approx(5e-4, rel=1e-6)


def test_ring_mean_before_the_ring_is_full_uses_what_came() -> None:
    state = np.zeros(1 + 3)
    means = []
    for value in (1.0, 3.0, 5.0, 7.0):
        indicators.push(value, state)
        means.append(indicators.ring_mean(state))
    assert means == [1.0, 2.0, 3.0, 5.0]
