"""What the auditor knows of the market: every quantity recomputed from the raw bars.

A second implementation on purpose, mostly in pandas and numpy: nothing here comes from
`market/features.py`, `market/regimes.py` or `trading/`.  Row t uses bars up to t only.
Taken from `Bars` as given, because they are facts of the calendar or of a file and no rule's
work: `session`, `bar_of_session`, `bars_left`, `regular`, `events`, `events_ahead`.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from ppo_workbench.config import Config, FeaturesConfig, HaltRule, settled
from ppo_workbench.config.arrays import Bools, Floats, Ints
from ppo_workbench.jit import kernel
from ppo_workbench.market.bars import Bars

# docs/features.md: cuts in multiples of the level, the clock's memory and its smoothing.
FAST_CUT_SQUARED, SLOW_CUT_SQUARED = 16.0, 9.0
CLOCK_MEMORY_SESSIONS, CLOCK_PRIOR_SESSIONS = 120.0, 2.0
CLOCK_FLOOR = 0.05
NOTIONAL_WINDOW = 20
QUARTER_HOUR_SECONDS, LULD_WINDOW_SECONDS, LAST_BREAKER_SECONDS = 900, 300, 2100
# A threshold counts as passed when it is passed by more than rounding.
TOLERANCE = 1e-9
REGIMES = (
    "range_low_volatility",
    "trend_low_volatility",
    "range_high_volatility",
    "trend_high_volatility",
)


@dataclass(frozen=True)
class MarketFacts:
    """Causal market state at the close of every bar, all arrays of T rows.

    Attributes:
        sigma: float64, volatility of a bar's return, a fraction.
        ratio: float64, fast over slow volatility.
        large_move: bool, the bar moved over `features.large_move_sigmas`.
        mean_notional: float64, currency traded a bar over the last 20, infinite without volume.
        traded: bool, an order can be filled in the bar.
        regime: int64, index of `REGIMES`.
        halted: bool, a pause or breaker in force; all False where the rule is off.
        restricted: bool, Regulation SHO 201 in force; all False where the rule is off.
    """

    sigma: Floats
    ratio: Floats
    large_move: Bools
    mean_notional: Floats
    traded: Bools
    regime: Ints
    halted: Bools
    restricted: Bools


def market_facts(bars: Bars, config: Config) -> MarketFacts:
    """Recompute what the rules and costs ask of the market.

    Args:
        bars: All bars from the first of the history, because the volatilities never forget.
        config: Gives windows and limits.
    """
    risk, features = config.risk, config.features
    sigma, ratio, large_move = volatility(bars, features)
    high = ratio > features.high_volatility_ratio
    trend = (
        efficiency(bar_moves(bars), settled(features.efficiency_bars)) > features.trend_efficiency
    )
    none = np.zeros(len(bars), dtype=np.bool_)
    fall = risk.short_sale_restriction.fall_frac
    return MarketFacts(
        sigma=sigma,
        ratio=ratio,
        large_move=large_move,
        mean_notional=_mean_notional(bars, config.market.contract_multiplier),
        traded=bars.volume > 0 if bars.has_volume else ~none,
        regime=2 * high.astype(np.int64) + trend,
        halted=halted(bars, risk.halt) if risk.halt.enabled else none,
        restricted=restricted(bars, fall) if risk.short_sale_restriction.enabled else none,
    )


def _mean_notional(bars: Bars, multiplier: float) -> Floats:
    if not bars.has_volume:
        return np.full(len(bars), np.inf)
    sums = trailing(bars.close * (bars.volume * multiplier), NOTIONAL_WINDOW)
    return sums / _filled(len(bars), NOTIONAL_WINDOW)


def bar_moves(bars: Bars) -> Floats:
    """Return log returns, float64 (T,); intraday a session's first bar counts from its open."""
    close, opens = np.log(bars.close), np.log(bars.open)
    moves = np.diff(close, prepend=opens[:1])
    if bars.bars_per_session > 1:
        first = bars.session_starts
        moves[first] = close[first] - opens[first]
    return moves


def trailing(values: Floats, window: int) -> Floats:
    """Sum the last `window` values at each row, float64 (T,); fewer at the beginning."""
    padded = np.concatenate([np.zeros(window - 1), values])
    view = np.lib.stride_tricks.sliding_window_view(padded, window)
    sums: Floats = view.sum(axis=1)
    return sums


def _filled(rows: int, window: int) -> Ints:
    return np.minimum(np.arange(1, rows + 1), window)


def efficiency(moves: Floats, window: int) -> Floats:
    """Return Kaufman's efficiency ratio, float64 (T,): net over summed absolute moves."""
    path = trailing(np.abs(moves), window)
    return np.divide(np.abs(trailing(moves, window)), path, out=np.zeros_like(path), where=path > 0)


@kernel
def _averages(squares: Floats, fast_step: float, slow_step: float, memory: Floats) -> Floats:
    """Move the fast and slow mean square of moves on, exponentially weighted, large moves cut.

    The cut depends on the level before it, so this is a recursion that no pandas call does.

    Args:
        squares: Squared moves, float64 (n,).
        fast_step: Weight of a new square in the fast one.
        slow_step: The same in the slow one.
        memory: float64 (5,): bars so far, fast and slow sum, fast and slow weight; changed.

    Returns:
        Fast before, fast, slow, and the square as it entered the slow one, float64 (n, 4).
    """
    rows = np.empty((len(squares), 4))
    bars, fast, slow, fast_weight, slow_weight = memory
    for i, square in enumerate(squares):
        before = fast / fast_weight if bars > 0 else 0.0
        level = slow / slow_weight if bars > 0 else 0.0
        fast_square = slow_square = square
        if bars >= 1.0 / fast_step and level > 0:
            fast_square = min(square, FAST_CUT_SQUARED * max(before, level))
            slow_square = min(square, SLOW_CUT_SQUARED * level)
        fast += fast_step * (fast_square - fast)
        fast_weight += fast_step * (1.0 - fast_weight)
        slow += slow_step * (slow_square - slow)
        slow_weight += slow_step * (1.0 - slow_weight)
        bars += 1
        rows[i] = before, fast / fast_weight, slow / slow_weight, slow_square
    memory[:] = bars, fast, slow, fast_weight, slow_weight
    return rows


def volatility(bars: Bars, features: FeaturesConfig) -> tuple[Floats, Floats, Bools]:
    """Return volatility, volatility ratio and large moves, each (T,)."""
    moves = bar_moves(bars)
    fast_bars, slow_bars = features.volatility_fast_bars, features.volatility_slow_bars
    steps = 1.0 - 0.5 ** (1.0 / settled(fast_bars)), 1.0 - 0.5 ** (1.0 / settled(slow_bars))
    if features.seasonal_volatility and bars.bars_per_session > 1:
        factors, table = _by_session(bars, moves, steps)
    else:
        factors = np.ones(len(bars))
        table = _averages(moves**2, *steps, np.zeros(5))
    before, fast, slow, _ = table.T
    ratio = np.sqrt(np.divide(fast, slow, out=np.ones_like(fast), where=slow > 0))
    known = factors * np.sqrt(before)
    limit = features.large_move_sigmas * known
    return factors * np.sqrt(fast), ratio, (known > 0) & (np.abs(moves) > limit * (1 + TOLERANCE))


def _by_session(bars: Bars, moves: Floats, steps: tuple[float, float]) -> tuple[Floats, Floats]:
    """Divide moves by the time-of-day factor that finished sessions taught."""
    slots = np.clip(bars.bar_of_session, 0, bars.bars_per_session - 1)
    levels = np.ones(bars.bars_per_session)
    neighbours = np.convolve(levels, np.ones(2 * (len(levels) // 40) + 1), "same")
    clock, factors, tables, memory = levels.copy(), [], [], np.zeros(5)
    borders = np.append(bars.session_starts, len(bars))
    for number, (start, stop) in enumerate(pairwise(borders), 1):
        factor = clock[slots[start:stop]]
        table = _averages((moves[start:stop] / factor) ** 2, *steps, memory)
        factors.append(factor)
        tables.append(table)
        weight = max(1.0 / (number + CLOCK_PRIOR_SESSIONS), 1.0 / CLOCK_MEMORY_SESSIONS)
        _learn(levels, slots[start:stop], np.sqrt(table[:, 3]) * factor, weight)
        clock = _smoothed(levels, neighbours)
    return np.concatenate(factors), np.concatenate(tables)


def _learn(levels: Floats, slots: Ints, sizes: Floats, weight: float) -> None:
    """Move the level of each slot that traded towards its share of the session's moves."""
    of_slot = np.full(len(levels), np.nan)
    of_slot[slots] = sizes
    traded = ~np.isnan(of_slot)
    moved = of_slot[traded].sum()
    if moved > 0:
        share = of_slot[traded] * levels[traded].sum() / moved
        levels[traded] += weight * (share - levels[traded])


def _smoothed(levels: Floats, neighbours: Floats) -> Floats:
    """Average neighbours and scale to a mean square of 1; counts of neighbours are known."""
    window = np.ones(2 * (len(levels) // 40) + 1)
    means = np.maximum(np.convolve(levels, window, "same") / neighbours, CLOCK_FLOOR)
    factors: Floats = means / np.sqrt(np.mean(means**2))
    return factors


def _bar_in_session(bars: Bars) -> Ints:
    counts = pd.Series(bars.session).groupby(bars.session).cumcount()
    return np.asarray(counts, dtype=np.int64)


def rows_since(flag: Bools) -> Floats:
    """Return the number of rows since `flag` was true, float64 (T,), infinite before that."""
    rows = pd.Series(np.arange(len(flag), dtype=np.float64))
    since = (rows - rows.where(flag).ffill()).fillna(np.inf)
    return np.asarray(since, dtype=np.float64)


def _fall(bars: Bars) -> Floats:
    """Fall of the low from the last regular close of the sessions before, a fraction, or NaN."""
    in_hours = pd.Series(bars.close).where(bars.regular)
    closes = in_hours.groupby(bars.session).last().ffill().shift(1)
    prior = closes.reindex(bars.session).to_numpy()
    fall: Floats = (prior - bars.low) / prior
    return fall


def restricted(bars: Bars, fall_frac: float) -> Bools:
    """Regulation SHO 201: the rest of the session of a fall, and the next session; bool (T,)."""
    # More than rounding below the trigger; the rule itself fires at 10 % in floats.
    trigger = (_fall(bars) >= fall_frac) & bars.regular
    fallen = pd.Series(trigger).groupby(bars.session)
    today = fallen.cummax().to_numpy()
    yesterday = fallen.max().shift(1, fill_value=False).reindex(bars.session).to_numpy()
    rows: Bools = today | yesterday
    return rows


def halted(bars: Bars, rule: HaltRule) -> Bools:
    """Holes, limit-up limit-down pauses and market-wide breakers, bool (T,); docs/rules.md."""
    at = _bar_in_session(bars)
    seconds = np.diff(bars.start_ns, prepend=bars.start_ns[:1]) / 1e9
    stopped: Bools = (at > 0) & (seconds >= (rule.missing_bars + 1) * bars.bar_seconds)
    if bars.bar_seconds <= rule.luld_pause_seconds:
        window = max(1, LULD_WINDOW_SECONDS // bars.bar_seconds)
        reference = pd.Series(bars.close).rolling(window).mean().shift(1).to_numpy()
        distance = np.abs(bars.close / reference - 1.0)
        breach = (at >= window) & (distance > rule.luld_band_frac * (1 + TOLERANCE))
        since = rows_since(breach)
        stopped |= (since < max(1, rule.luld_pause_seconds // bars.bar_seconds)) & (since <= at)
    if rule.market_wide:
        stopped |= _breakers(bars, at)
    return stopped


def _breakers(bars: Bars, at: Ints) -> Bools:
    """NYSE rule 7.12 on the instrument's own fall: once a session and level."""
    fall = _fall(bars)
    late = bars.bars_left * bars.bar_seconds < LAST_BREAKER_SECONDS
    pause = max(1, QUARTER_HOUR_SECONDS // bars.bar_seconds)
    stopped: Bools = pd.Series(fall >= 0.20).groupby(bars.session).cummax().to_numpy().copy()
    for level in (0.07, 0.13):
        hit = pd.Series((fall >= level) & ~late)
        first = hit.to_numpy() & (hit.groupby(bars.session).cumsum().to_numpy() == 1)
        since = rows_since(first)
        stopped |= (since < pause) & (since <= at)
    return stopped
