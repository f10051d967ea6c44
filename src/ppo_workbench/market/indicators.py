"""Raw technical indicators as streaming recursions: one bar in, one value out.

Every kernel keeps its whole memory in a flat float64 `state` that starts as zeros, so the
same code serves a backtest and the bar that just closed.  Values equal TA-Lib's from the
same start of history, its seeds included; before the first one they are NaN.  Windows are
read from floats in the state's layout, never stored in it.
"""

import numpy as np

from ppo_workbench.config.arrays import Floats
from ppo_workbench.jit import lean_kernel

EMA_STATE = 2
RSI_STATE = 4
ATR_STATE = 3
MACD_STATE = 1 + 3 * EMA_STATE


@lean_kernel
def push(value: float, state: Floats) -> int:
    """Put `value` into the ring of `state`, shape (1 + n,), and return how many came so far."""
    window = state.size - 1
    count = int(state[0])
    state[1 + count % window] = value
    state[0] = count + 1.0
    return count + 1


@lean_kernel
def ring_mean(state: Floats) -> float:
    """Return the mean of what the ring holds, at most its n last values; NaN if empty."""
    filled = min(int(state[0]), state.size - 1)
    # Summed afresh: a running sum drifts and would keep the whole history alive.
    total = 0.0
    for i in range(filled):
        total += state[1 + i]
    return total / filled if filled > 0 else np.nan


@lean_kernel
def deviation_step(value: float, state: Floats) -> tuple[float, float]:
    """Return mean and population standard deviation over n bars; state shape (1 + n,)."""
    window = state.size - 1
    if push(value, state) < window:
        return np.nan, np.nan
    mean = ring_mean(state)
    square = 0.0
    for i in range(window):
        square += (state[1 + i] - mean) ** 2
    return mean, np.sqrt(square / window)


@lean_kernel
def ema_step(value: float, window: int, state: Floats) -> float:
    """Return the EMA of span `window`, seeded by the mean of its first values; state (2,)."""
    state[0] += 1
    if state[0] <= window:
        state[1] += value / window
    else:
        state[1] += (value - state[1]) * 2.0 / (window + 1.0)
    return state[1] if state[0] >= window else np.nan


@lean_kernel
def rsi_step(close: float, window: int, state: Floats) -> float:
    """Return Wilder's relative strength index, 0 to 100; 0 while nothing moves; state (4,)."""
    count, change = state[0], close - state[1]
    state[0], state[1] = count + 1, close
    if count == 0:
        return np.nan
    gain, loss = max(change, 0.0), max(-change, 0.0)
    if count <= window:
        state[2] += gain / window
        state[3] += loss / window
    else:
        state[2] += (gain - state[2]) / window
        state[3] += (loss - state[3]) / window
    if count < window:
        return np.nan
    total = state[2] + state[3]
    return 100.0 * state[2] / total if total > 1e-14 * close else 0.0


@lean_kernel
def atr_step(high: float, low: float, close: float, window: int, state: Floats) -> float:
    """Return Wilder's average true range in price units; state (3,)."""
    count, before = state[0], state[1]
    state[0], state[1] = count + 1, close
    if count == 0:
        return np.nan
    true_range = max(high, before) - min(low, before)
    if count <= window:
        state[2] += true_range / window
    else:
        state[2] += (true_range - state[2]) / window
    return state[2] if count >= window else np.nan


@lean_kernel
def macd_step(
    close: float, fast: int, slow: int, signal: int, state: Floats
) -> tuple[float, float, float]:
    """Return MACD, its signal line and the histogram in price units; state (7,).

    As in TA-Lib the fast EMA is seeded as late as the slow one, so both start together,
    and the histogram is NaN until the signal line has its seed.
    """
    state[0] += 1
    slow_ema = ema_step(close, slow, state[1:3])
    fast_ema = np.nan
    if state[0] > slow - fast:
        fast_ema = ema_step(close, fast, state[3:5])
    if state[0] < slow:
        return np.nan, np.nan, np.nan
    macd = fast_ema - slow_ema
    line = ema_step(macd, signal, state[5:7])
    return macd, line, macd - line
