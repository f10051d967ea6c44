"""The market-only rules over whole arrays: the oracle of the step that takes bar by bar."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ppo_workbench.config import Config, ConfigError, HaltRule, RiskConfig, settled
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import MarketTable
from ppo_workbench.market.regimes import REGIME_NAMES
from ppo_workbench.trading.rules.names import (
    CLOSED_SESSION,
    EVENT,
    GAP,
    HALT,
    REGIME,
    SESSION_FLATTEN,
    SESSION_NO_OPEN,
    SHORT_SALE,
    VOLATILITY,
    enabled_bits,
)


def market_rule_bits(bars: Bars, market: MarketTable, config: Config) -> npt.NDArray[np.int64]:
    """Return the bits of the market-only rules for a decision at each close, int64 (T,).

    Raises:
        ConfigError: `risk.regime.blocked` names an unknown regime.
    """
    risk, env = config.risk, config.env
    conditions: dict[int, Callable[[], npt.NDArray[np.bool_]]] = {
        HALT: lambda: _halted(bars, risk.halt),
        CLOSED_SESSION: lambda: ~bars.regular,
        SESSION_FLATTEN: lambda: _last_bars(bars, settled(env.flat_last_bars)),
        SESSION_NO_OPEN: lambda: _last_bars(bars, settled(env.no_open_last_bars)),
        SHORT_SALE: lambda: _short_sale_restricted(bars, risk.short_sale_restriction.fall_frac),
        VOLATILITY: lambda: market.volatility_ratio > risk.volatility.max_ratio,
        REGIME: lambda: np.isin(market.regime, _blocked_regimes(risk)),
        EVENT: lambda: _near_event(bars, market, risk),
        GAP: lambda: _recovering(bars, config),
    }
    enabled = enabled_bits(risk)
    bits = np.zeros(len(bars), dtype=np.int64)
    for bit, fires in conditions.items():
        if enabled & bit:
            bits[fires()] |= bit
    return bits


def _recovering(bars: Bars, config: Config) -> npt.NDArray[np.bool_]:
    """Five bars for each that is missing, the one after the gap included."""
    found = np.zeros(len(bars), dtype=np.bool_)
    for t in np.flatnonzero(bars.missing > config.risk.halt.missing_bars):
        needed = min(5 * bars.missing[t], settled(config.features.volatility_slow_bars))
        found[t : t + needed] |= t > 0
    return found


def _last_bars(bars: Bars, count: int) -> npt.NDArray[np.bool_]:
    """Bars with at most `count` bars of their session to come; none where `count` is 0."""
    return (bars.bars_left <= count) & (count > 0)


def _blocked_regimes(risk: RiskConfig) -> list[int]:
    unknown = [name for name in risk.regime.blocked if name not in REGIME_NAMES]
    if unknown:
        raise ConfigError(
            f"risk.regime.blocked={risk.regime.blocked}: {unknown[0]!r} is no regime; "
            f"use {', '.join(REGIME_NAMES)}"
        )
    return [REGIME_NAMES.index(name) for name in risk.regime.blocked]


def _near_event(bars: Bars, market: MarketTable, risk: RiskConfig) -> npt.NDArray[np.bool_]:
    rule = risk.event
    since_move = bars_since(market.large_move)
    near: npt.NDArray[np.bool_] = (since_move >= 0) & (since_move < rule.large_move_bars)
    near |= (bars.events >= 0) & (bars.events < settled(rule.event_after_bars))
    near |= (bars.events_ahead >= 0) & (bars.events_ahead <= settled(rule.event_before_bars))
    return near


def bars_since(flag: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the number of bars since `flag` was last true, -1 before the first time."""
    index = np.arange(len(flag), dtype=np.int64)
    last = np.maximum.accumulate(np.where(flag, index, -1))
    return np.where(last >= 0, index - last, -1)


def previous_session_close(bars: Bars) -> npt.NDArray[np.float64]:
    """Return the last regular close before each bar's session, NaN where there is none."""
    first = bars.session_starts
    rows = np.flatnonzero(bars.regular)
    before = np.searchsorted(rows, first) - 1
    closes = np.r_[bars.close[rows], np.nan][before]
    return np.repeat(closes, np.diff(np.r_[first, len(bars)]))


def _fall(bars: Bars) -> npt.NDArray[np.float64]:
    """Fall of the low from the last regular close, a fraction; 7 % is 7 % in floats too."""
    return 1.0 - bars.low / previous_session_close(bars) + 1e-12


def _bar_in_session(bars: Bars) -> npt.NDArray[np.int64]:
    """Number of rows since the first row of each bar's session."""
    first = bars.session_starts
    return np.arange(len(bars)) - np.repeat(first, np.diff(np.r_[first, len(bars)]))


def _short_sale_restricted(bars: Bars, fall_frac: float) -> npt.NDArray[np.bool_]:
    """Regulation SHO 201: from the triggering bar to the end of the next session."""
    fallen = (_fall(bars) >= fall_frac) & bars.regular
    since = bars_since(fallen)
    today = (since >= 0) & (since <= _bar_in_session(bars))
    return today | np.isin(bars.session, np.unique(bars.session[fallen]) + 1)


def _halted(bars: Bars, rule: HaltRule) -> npt.NDArray[np.bool_]:
    """Bar approximation of limit-up limit-down pauses and market-wide breakers.

    A pause follows a close outside the band around the mean close of the last five
    minutes, or a hole in the session's bars.  Breakers (NYSE 7.12) use the instrument
    itself as the index: 7 or 13 % before 15:25 stop 15 minutes, 20 % the rest of the day.
    """
    seconds = bars.bar_seconds
    gap = np.diff(bars.start_ns, prepend=bars.start_ns[:1])
    stopped = (gap > (rule.missing_bars + 1) * seconds * 1e9 - 1) & (_bar_in_session(bars) > 0)
    if seconds <= rule.luld_pause_seconds:
        window = max(1, int(300 // seconds))
        reference = _session_mean_before(bars, window)
        breach = np.abs(bars.close / reference - 1.0) > rule.luld_band_frac
        pause = max(1, int(rule.luld_pause_seconds // seconds))
        since = bars_since(breach)
        stopped = stopped | ((since >= 0) & (since < pause) & (since <= _bar_in_session(bars)))
    if rule.market_wide:
        stopped = stopped | _breakers(bars)
    return stopped


def _session_mean_before(bars: Bars, window: int) -> npt.NDArray[np.float64]:
    """Mean close of the `window` bars before each bar, NaN where they span two sessions."""
    total = np.cumsum(np.r_[0.0, bars.close])
    t = np.flatnonzero(_bar_in_session(bars) >= window)
    mean = np.full(len(bars), np.nan)
    mean[t] = (total[t] - total[t - window]) / window
    return mean


def _breakers(bars: Bars) -> npt.NDArray[np.bool_]:
    """Market-wide circuit breakers, NYSE rule 7.12, on the instrument's own fall."""
    fall = _fall(bars)
    quarter_hour = max(1, int(900 // bars.bar_seconds))
    late = bars.bars_left * bars.bar_seconds < 35 * 60
    stopped = np.zeros(len(bars), dtype=bool)
    for session in np.unique(bars.session[fall >= 0.07]):
        rows = np.flatnonzero(bars.session == session)
        for level in (0.07, 0.13):
            hit = rows[(fall[rows] >= level) & ~late[rows]][:1]
            if hit.size:
                stopped[hit[0] : min(hit[0] + quarter_hour, rows[-1] + 1)] = True
        day = rows[fall[rows] >= 0.20][:1]
        if day.size:
            stopped[day[0] : rows[-1] + 1] = True
    return stopped
