"""The per-bar step of market context and features.

`plan` holds one row per feature: the code of its branch, start and stop of its slice of
the state, and its windows.  `features.feature_spec` makes it.
"""

import math
from typing import Any

import numpy as np

from ppo_workbench import plugins
from ppo_workbench.config.arrays import Floats, Ints
from ppo_workbench.jit import kernel, lean_composed_kernel, lean_kernel
from ppo_workbench.market.indicators import (
    atr_step,
    deviation_step,
    macd_step,
    push,
    ring_mean,
    rsi_step,
)
from ppo_workbench.market.regimes import (
    BAR_FIELDS,
    CLIP,
    CLOSE,
    GAP,
    GAP_EMA_FRAC,
    HIGH,
    LARGE_MOVE,
    LOG_CLOSE,
    LOW,
    MOVE,
    OPEN,
    REGIME,
    SESSION,
    SLOT,
    SLOTS,
    context_step,
    efficiency_step,
    ema_weight,
    trend_step,
)
from ppo_workbench.market.regimes import RATIO as CONTEXT_RATIO
from ppo_workbench.market.regimes import SIGMA as CONTEXT_SIGMA
from ppo_workbench.market.regimes import VOLUME as BAR_VOLUME

# Codes of the features made from prices, which have windows and state ...
RETURN, EMA_DISTANCE, RSI, MACD, BOLLINGER, ATR, VOLUME, EFFICIENCY, TREND = range(9)
FIRST_OWN_FEATURE = 20  # of plug-ins, in the order in which they were registered
# ... and of those read off the bar and its context.
FIRST_BAR_FEATURE = 100
VOLATILITY, RATIO, TIME, SINE, COSINE, HIGH_REGIME, TREND_REGIME, LARGE, EXTRA = range(100, 109)

CODE, START, STOP, WINDOW = range(4)
PLAN_FIELDS = WINDOW + 3
_SMALLEST_SIGMA = 1e-8


def _call_own_features() -> Any:
    """Compile the branches of the plug-ins' features into one function."""
    steps, lines = {}, []
    for k, own in enumerate(plugins.registered().features.values()):
        windows = "".join(f", row[{WINDOW + i}]" for i in range(own.form.count("<")))
        steps[f"step_{k}"] = own.step
        lines.append(f"    if row[{CODE}] == {FIRST_OWN_FEATURE + k}:\n")
        lines.append(f"        return step_{k}(bar, context, memory{windows})\n")
    head = "def own_feature(row, bar, context, memory):\n"
    return lean_composed_kernel(f"{head}{''.join(lines)}    return 0.0\n", steps)


_own_feature = _call_own_features()


@lean_kernel
def market_step(
    plan: Ints, settings: Floats, state: Floats, bar: Floats, features: Floats, context: Floats
) -> None:
    """Take one closed bar: update `state`, write `features` (F,) and `context`.

    Everything that training, backtest and live trading know of the market comes from here.
    `plan`, `settings` and the size of `state` are a `FeatureSpec`'s; for `bar` and
    `context` see `regimes.context_step`, which uses the head of the same state.
    """
    context_step(bar, settings, state, context)
    for i in range(len(plan)):
        row = plan[i]
        if row[CODE] >= FIRST_BAR_FEATURE:
            features[i] = _bar_feature(row, settings, bar, context)
        else:
            memory = state[row[START] : row[STOP]]
            features[i] = _price_feature(row, settings, bar, context, memory)


@kernel
def run_steps(
    plan: Ints,
    settings: Floats,
    state: Floats,
    prices: tuple[Floats, ...],
    clock: tuple[Ints, ...],
    extra: Floats,
    features: Floats,
    context: Floats,
) -> None:
    """Loop the step over T bars; features (T, F) and context (T, CONTEXT_FIELDS) are filled.

    `prices` are open, high, low, close and volume, `clock` session and bar of session.
    """
    open_, high, low, close, volume = prices
    session, slot = clock
    bar = np.empty(BAR_FIELDS + extra.shape[1])
    for t in range(len(close)):
        bar[OPEN], bar[HIGH], bar[LOW], bar[CLOSE] = open_[t], high[t], low[t], close[t]
        bar[BAR_VOLUME], bar[SESSION], bar[SLOT] = volume[t], session[t], slot[t]
        bar[BAR_FIELDS:] = extra[t]
        market_step(plan, settings, state, bar, features[t], context[t])


@lean_kernel
def _price_feature(
    row: Ints, settings: Floats, bar: Floats, context: Floats, memory: Floats
) -> float:
    """Return a feature that has windows and a memory."""
    code, window, clip, close = row[CODE], row[WINDOW], settings[CLIP], bar[CLOSE]
    if code == RETURN:
        return _return_feature(window, clip, context, memory)
    if code == EMA_DISTANCE:
        return _ema_distance_feature(window, clip, settings[GAP_EMA_FRAC], context, memory)
    if code == RSI:
        return rsi_step(close, window, memory)
    if code == MACD:
        signal = row[WINDOW + 2]
        _, _, histogram = macd_step(close, window, row[WINDOW + 1], signal, memory)
        return _in_units(histogram, context[CONTEXT_SIGMA] * close, clip)
    if code == BOLLINGER:
        mean, deviation = deviation_step(close, memory)
        return _in_units(close - mean, 2 * deviation, clip)
    if code == ATR:
        return _in_units(atr_step(bar[HIGH], bar[LOW], close, window, memory), close, clip)
    if code == VOLUME:
        return _volume_feature(bar[BAR_VOLUME], clip, memory)
    if code == EFFICIENCY:
        return efficiency_step(context[MOVE], memory)
    if code == TREND:
        return trend_step(context[MOVE], memory)
    value: float = _own_feature(row, bar, context, memory)
    return value


@lean_kernel
def _bar_feature(row: Ints, settings: Floats, bar: Floats, context: Floats) -> float:
    """Return a feature read off the bar and its context."""
    code, value = row[CODE], 0.0
    if code == VOLATILITY:
        value = math.log(max(context[CONTEXT_SIGMA], _SMALLEST_SIGMA))
    elif code == RATIO:
        value = min(context[CONTEXT_RATIO], settings[CLIP])
    elif code == HIGH_REGIME:
        value = 1.0 if context[REGIME] >= 2 else 0.0
    elif code == TREND_REGIME:
        value = context[REGIME] % 2
    elif code == LARGE:
        value = context[LARGE_MOVE]
    elif code == EXTRA:
        value = bar[BAR_FIELDS + row[WINDOW]]
    else:
        value = _session_feature(code, (bar[SLOT] + 1) / settings[SLOTS])
    return value


@lean_kernel
def _session_feature(code: int, time: float) -> float:
    """Return the fraction of the session that has passed, or its place on the circle."""
    time = min(max(time, 0.0), 1.0)
    if code == SINE:
        return math.sin(2 * math.pi * time)
    if code == COSINE:
        return math.cos(2 * math.pi * time)
    return time


@lean_kernel
def _in_units(value: float, unit: float, clip: float) -> float:
    """Return value / unit, clipped; 0 where nothing moves and the unit is 0."""
    if unit == 0:
        return 0.0
    # Comparisons with NaN are false, so an undefined value stays undefined.
    ratio = value / unit
    return clip if ratio > clip else -clip if ratio < -clip else ratio


@lean_kernel
def _return_feature(window: int, clip: float, context: Floats, state: Floats) -> float:
    """Return the log return over n bars in units of sigma * sqrt(n); state (1 + n,)."""
    count = int(state[0])
    before = state[1 + count % window] if count >= window else np.nan
    push(context[LOG_CLOSE], state)
    return _in_units(context[LOG_CLOSE] - before, context[CONTEXT_SIGMA] * math.sqrt(window), clip)


@lean_kernel
def _ema_distance_feature(
    halflife: int, clip: float, gap_frac: float, context: Floats, state: Floats
) -> float:
    """Return log close less its EMA in units of sigma * sqrt(half-life); state (2,).

    A part of an overnight gap moves the EMA at once: most of a gap is news that stays.
    """
    price = context[LOG_CLOSE]
    if state[0] == 0:
        state[0], state[1] = ema_weight(halflife), price
    state[1] += gap_frac * context[GAP]
    state[1] += state[0] * (price - state[1])
    return _in_units(price - state[1], context[CONTEXT_SIGMA] * math.sqrt(halflife), clip)


@lean_kernel
def _volume_feature(volume: float, clip: float, state: Floats) -> float:
    """Return the log of volume over its mean of n bars, this one included; state (1 + n,)."""
    push(volume, state)
    mean = ring_mean(state)
    if volume <= 0 or mean <= 0:
        return 0.0 if mean <= 0 else -clip
    return min(max(math.log(volume / mean), -clip), clip)
