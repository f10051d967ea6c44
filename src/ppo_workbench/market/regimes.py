"""Causal volatility, efficiency and market regime of each bar.

The volatility is an exponentially weighted root mean square of log returns, and the
volatility ratio compares a fast one with a slow one.  Three things keep the ratio honest:

* Intraday, a session's first bar counts from its own open: the overnight gap is no move of
  that bar.  Daily bars keep their whole return.
* Moves are divided by a time-of-day factor, learned from finished sessions only.
* A single large move is cut ("winsorised") before it enters, at a multiple of the level
  known before it, so that one jump does not look like a regime; sustained moves raise that
  level and pass.  The slow level is cut harder: it stands for what is usual.
"""

import math

import numpy as np

from ppo_workbench.config import ConfigError, FeaturesConfig, settled
from ppo_workbench.config.arrays import Floats
from ppo_workbench.jit import lean_kernel
from ppo_workbench.market.indicators import push, ring_mean

REGIME_NAMES = (
    "range_low_volatility",
    "trend_low_volatility",
    "range_high_volatility",
    "trend_high_volatility",
)
NOTIONAL_BARS = 20

# Fields of one bar as the step takes it; the user's own columns follow.
OPEN, HIGH, LOW, CLOSE, VOLUME, SESSION, SLOT = range(7)
BAR_FIELDS = 7

# What a bar leaves for the features and for the trading rules.
SIGMA, RATIO, EFFICIENCY, REGIME, LARGE_MOVE, MEAN_NOTIONAL, LOG_CLOSE, GAP, MOVE = range(9)
CONTEXT_FIELDS = 9

# Settings: parameters of the step, made once by `context_settings`.
FAST_STEP, SLOW_STEP, SEASONAL, SLOTS, HIGH_RATIO, EFFICIENCY_BARS = range(6)
TREND_EFFICIENCY, LARGE_SIGMAS, CLIP, GAP_EMA_FRAC = range(6, 10)
SETTING_FIELDS = 10

_FAST_CUT = 4.0
_SLOW_CUT = 3.0
_SEASON_MEMORY = 120.0  # sessions
_SEASON_PRIOR = 2.0  # sessions' worth of belief in a flat day
_SMOOTHED_SHARE = 40  # neighbours on each side that share an estimate: slots // 40
_UNKNOWN = -1.0

# Scalars at the head of the state; the rings and the seasonal arrays follow.
_BARS, _SESSION, _SESSIONS, _FAST, _FAST_WEIGHT, _SLOW, _SLOW_WEIGHT, _PRICE = range(8)
_REFERENCE = 8
_SCALARS = 9
_NOTIONALS_STOP = _SCALARS + 1 + NOTIONAL_BARS


def context_settings(config: FeaturesConfig, bars_per_session: int) -> Floats:
    """Return the step's parameters, float64 (SETTING_FIELDS,).

    Raises:
        ConfigError: The fast volatility is not faster than the slow one.
    """
    fast, slow = settled(config.volatility_fast_bars), settled(config.volatility_slow_bars)
    if fast >= slow:
        raise ConfigError(
            f"features.volatility_fast_bars={fast}: must be less than "
            f"features.volatility_slow_bars={slow}"
        )
    settings = np.zeros(SETTING_FIELDS)
    settings[FAST_STEP] = ema_weight(fast)
    settings[SLOW_STEP] = ema_weight(slow)
    settings[SEASONAL] = settled(config.seasonal_volatility) and bars_per_session > 1
    settings[SLOTS] = bars_per_session
    settings[HIGH_RATIO] = config.high_volatility_ratio
    settings[EFFICIENCY_BARS] = settled(config.efficiency_bars)
    settings[TREND_EFFICIENCY] = config.trend_efficiency
    settings[LARGE_SIGMAS] = config.large_move_sigmas
    settings[CLIP] = config.clip
    settings[GAP_EMA_FRAC] = settled(config.gap_ema_frac)
    return settings


def context_state_size(settings: Floats) -> int:
    """Return how many floats of state `context_step` needs, zeros at the start."""
    return int(_NOTIONALS_STOP + 1 + settings[EFFICIENCY_BARS] + 3 * settings[SLOTS])


def context_warmup_bars(config: FeaturesConfig) -> int:
    """Return the bars after which the context may be used.

    One half-life of the slow volatility (its weights are normalised, so it is a mean of
    what was seen from the first bar on), ten of the fast one, and the full windows.
    """
    return max(
        settled(config.volatility_slow_bars),
        10 * settled(config.volatility_fast_bars),
        settled(config.efficiency_bars) + 1,
        NOTIONAL_BARS,
    )


@lean_kernel
def ema_weight(halflife: float) -> float:
    """Return the weight of the newest value in an EMA with this half-life in bars."""
    return 1.0 - math.pow(0.5, 1.0 / halflife)


@lean_kernel
def detect_market_regime(
    volatility_ratio: float,
    efficiency: float,
    high_volatility_ratio: float,
    trend_efficiency: float,
) -> int:
    """Detect the market regime of a bar (the specification's regime detection).

    Trend or range is told by Kaufman's efficiency ratio, high or low volatility by the
    volatility ratio; both use bars up to this one only.  The specification's news events
    are the large-move flag (`is_large_move`) and the event file of the data.

    Args:
        volatility_ratio: Fast over slow volatility, time of day taken out.
        efficiency: Net over summed absolute moves, in [0, 1].
        high_volatility_ratio: Above it volatility is high.
        trend_efficiency: Above it the market trends.

    Returns:
        `2 * high + trend`, an index of `REGIME_NAMES`.
    """
    high = 1 if volatility_ratio > high_volatility_ratio else 0
    trend = 1 if efficiency > trend_efficiency else 0
    return 2 * high + trend


@lean_kernel
def is_large_move(move: float, sigma_before: float, large_move_sigmas: float) -> bool:
    """Return whether a log return exceeds a multiple of the volatility known before it.

    In the manner of Lee and Mykland (2008).  It finds jumps, and more than jumps: read it
    as "large move", not as news.
    """
    return sigma_before > 0 and abs(move) > large_move_sigmas * sigma_before


@lean_kernel
def context_step(bar: Floats, settings: Floats, state: Floats, context: Floats) -> None:
    """Take one closed bar and write what is known after it.

    Args:
        bar: float64 (BAR_FIELDS + E,): open, high, low, close (price), volume, session and
            bar of session (numbers), the user's columns.
        settings: Of `context_settings`.
        state: float64 (context_state_size,), carried from bar to bar.
        context: float64 (CONTEXT_FIELDS,), written: volatility per bar (fraction),
            volatility ratio, efficiency, regime, large move (0, 1), mean notional a bar
            (volume times close), log of close over history's first open, log overnight gap (0
            but on a session's first bar), log return without the gap.
    """
    slots = int(settings[SLOTS])
    efficiency_stop = _NOTIONALS_STOP + 1 + int(settings[EFFICIENCY_BARS])
    season = state[efficiency_stop : efficiency_stop + 3 * slots]
    slot = min(max(int(bar[SLOT]), 0), slots - 1)

    _measure_move(bar, settings, state, context)
    if settings[SEASONAL] and (state[_BARS] == 0 or bar[SESSION] != state[_SESSION]):
        _start_session(season, slots, state)
    factor = season[2 * slots + slot] if settings[SEASONAL] else 1.0

    cut_move = _update_volatility(context[MOVE], factor, settings, state, context)
    season[slot] = cut_move * factor
    context[EFFICIENCY] = efficiency_step(context[MOVE], state[_NOTIONALS_STOP:efficiency_stop])
    context[REGIME] = detect_market_regime(
        context[RATIO], context[EFFICIENCY], settings[HIGH_RATIO], settings[TREND_EFFICIENCY]
    )
    push(bar[VOLUME] * bar[CLOSE], state[_SCALARS:_NOTIONALS_STOP])
    context[MEAN_NOTIONAL] = ring_mean(state[_SCALARS:_NOTIONALS_STOP])
    state[_BARS] += 1
    state[_SESSION] = bar[SESSION]
    state[_PRICE] = context[LOG_CLOSE]


@lean_kernel
def _measure_move(bar: Floats, settings: Floats, state: Floats, context: Floats) -> None:
    """Split the bar's return into gap and move; history's first bar moves from its open.

    Prices count in that first open, so that a price in other units gives the same bits.
    """
    if state[_BARS] == 0:
        state[_REFERENCE] = bar[OPEN]
    context[LOG_CLOSE] = math.log(bar[CLOSE] / state[_REFERENCE])
    context[GAP] = 0.0
    before = state[_PRICE]
    if settings[SLOTS] > 1 and state[_BARS] > 0 and bar[SESSION] != state[_SESSION]:
        opened = math.log(bar[OPEN] / state[_REFERENCE])
        context[GAP] = opened - before
        before = opened
    context[MOVE] = context[LOG_CLOSE] - before


@lean_kernel
def _update_volatility(
    move: float, factor: float, settings: Floats, state: Floats, context: Floats
) -> float:
    """Update both volatilities; return |move / factor| as it entered the slow one."""
    square = (move / factor) ** 2
    fast = state[_FAST] / state[_FAST_WEIGHT] if state[_BARS] > 0 else 0.0
    slow = state[_SLOW] / state[_SLOW_WEIGHT] if state[_BARS] > 0 else 0.0
    context[LARGE_MOVE] = is_large_move(move, factor * math.sqrt(fast), settings[LARGE_SIGMAS])

    fast_square, slow_square = square, square
    # Before there is a level nothing can be said to be large; a zero level would stay zero.
    if state[_BARS] >= 1 / settings[FAST_STEP] and slow > 0:
        fast_square = min(square, _FAST_CUT**2 * max(fast, slow))
        slow_square = min(square, _SLOW_CUT**2 * slow)
    _average(fast_square, settings[FAST_STEP], state[_FAST : _FAST + 2])
    _average(slow_square, settings[SLOW_STEP], state[_SLOW : _SLOW + 2])
    fast = state[_FAST] / state[_FAST_WEIGHT]
    slow = state[_SLOW] / state[_SLOW_WEIGHT]
    context[SIGMA] = factor * math.sqrt(fast)
    context[RATIO] = math.sqrt(fast / slow) if slow > 0 else 1.0
    return math.sqrt(slow_square)


@lean_kernel
def _average(value: float, step: float, average: Floats) -> None:
    """Move an EMA kept as weighted sum and sum of weights, so that its start is unbiased."""
    average[0] += step * (value - average[0])
    average[1] += step * (1.0 - average[1])


@lean_kernel
def efficiency_step(move: float, state: Floats) -> float:
    """Return Kaufman's efficiency ratio in [0, 1] over n moves; state shape (1 + n,)."""
    return abs(trend_step(move, state))


@lean_kernel
def trend_step(move: float, state: Floats) -> float:
    """Return net over summed absolute moves, in [-1, 1], over n moves; state shape (1 + n,)."""
    filled = min(push(move, state), state.size - 1)
    net, path = 0.0, 0.0
    for i in range(filled):
        net += state[1 + i]
        path += abs(state[1 + i])
    return net / path if path > 0 else 0.0


@lean_kernel
def _start_session(season: Floats, slots: int, state: Floats) -> None:
    """Learn from the session that ended, and forget its moves.

    `season`, shape (3 * slots,), holds the session's absolute moves, the relative level of
    each slot, and the factors in force.
    """
    moves, levels, factors = season[:slots], season[slots : 2 * slots], season[2 * slots :]
    if state[_BARS] == 0:
        levels[:] = 1.0
        factors[:] = 1.0
    else:
        state[_SESSIONS] += 1
        weight = max(1 / (state[_SESSIONS] + _SEASON_PRIOR), 1 / _SEASON_MEMORY)
        _learn_levels(moves, levels, weight)
        _smooth_factors(levels, factors)
    moves[:] = _UNKNOWN


@lean_kernel
def _learn_levels(moves: Floats, levels: Floats, weight: float) -> None:
    """Move each slot's level towards its share of the session's volatility."""
    moved, expected = 0.0, 0.0
    for i in range(moves.size):
        if moves[i] >= 0:
            moved += moves[i]
            expected += levels[i]
    if moved <= 0:
        return
    for i in range(moves.size):
        if moves[i] >= 0:
            levels[i] += weight * (moves[i] * expected / moved - levels[i])


@lean_kernel
def _smooth_factors(levels: Floats, factors: Floats) -> None:
    """Average neighbouring slots and scale to a mean square of 1."""
    width = levels.size // _SMOOTHED_SHARE
    square = 0.0
    for i in range(levels.size):
        start, stop = max(0, i - width), min(levels.size, i + width + 1)
        # The floor keeps a slot without trades from dividing by zero.
        factors[i] = max(levels[start:stop].mean(), 0.05)
        square += factors[i] ** 2 / levels.size
    for i in range(levels.size):
        factors[i] /= math.sqrt(square)
