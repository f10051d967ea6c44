"""Rules that ask the market alone, as bits: one jitted step per bar.

The step takes the bar that just closed and what it must remember of earlier ones, so a
bit never depends on a later bar; history loops it, live trading calls it once.  Where a
rule is defined on ticks, bars are an approximation; docs/rules.md says which.
"""

from typing import Any

import numpy as np

from ppo_workbench.config import Config, ConfigError, RiskConfig, settled
from ppo_workbench.config.arrays import Floats, Ints, Records
from ppo_workbench.jit import kernel
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import MarketTable
from ppo_workbench.market.regimes import REGIME_NAMES
from ppo_workbench.trading.rules import names as rule
from ppo_workbench.trading.rules.own import own_bits, own_fields, own_parameters

SETTINGS_DTYPE = np.dtype(
    [
        ("enabled", "i8"),  # bits of the rules that are on
        ("bar_seconds", "f8"),
        ("longest_step_ns", "f8"),  # between two starts; a longer one is a hole
        ("band_bars", "i8"),  # bars of the LULD reference, 0 = bars are too long for the rule
        ("band_frac", "f8"),
        ("pause_bars", "i8"),
        ("market_wide", "i8"),
        ("quarter_hour_bars", "i8"),
        ("flat_last_bars", "i8"),
        ("no_open_last_bars", "i8"),
        ("fall_frac", "f8"),
        ("max_ratio", "f8"),
        ("blocked_regimes", "i8"),  # bit k = `REGIME_NAMES[k]`
        ("large_move_bars", "i8"),
        ("event_before_bars", "i8"),
        ("event_after_bars", "i8"),
        ("bridged_bars", "i8"),  # a hole of so many bars is an ordinary silence
        ("longest_memory", "i8"),  # of the features, bars: no gap needs more
        *((name, "f8") for name in own_fields(asks_account=False)),
    ]
)
MEMORY_DTYPE = np.dtype(
    [
        ("bars", "i8"),  # taken so far
        ("start_ns", "i8"),  # of the last bar
        ("session", "i8"),
        ("row", "i8"),  # rows of the session before the last bar
        ("regular_close", "f8"),  # of the last bar in regular hours, NaN before the first
        ("session_before_close", "f8"),  # the same before this session began
        ("since_large", "i8"),  # bars since the last large move, -1 before the first
        ("since_breach", "i8"),  # bars since a close left the LULD band, -1 before the first
        ("fallen", "i8"),  # the short-sale trigger was hit in this session
        ("fallen_before", "i8"),  # and in the session before
        ("breaker_7", "i8"),  # row in which a market-wide breaker tripped, -1
        ("breaker_13", "i8"),
        ("breaker_20", "i8"),
        ("recovery_left", "i8"),  # bars until the features have recovered from a gap
    ]
)
# One bar as the rules see it: the bar, its place in the session and its market context.
RULE_BAR_DTYPE = np.dtype(
    [
        ("start_ns", "i8"),
        ("low", "f8"),
        ("close", "f8"),
        ("session", "i8"),
        ("bar_of_session", "i8"),
        ("bars_left", "i8"),
        ("regular", "i8"),
        ("events", "i8"),
        ("events_ahead", "i8"),
        ("volatility_ratio", "f8"),
        ("regime", "i8"),
        ("large_move", "i8"),
        ("missing", "i8"),  # bars of the calendar between the bar before and this one
    ]
)
_OF_BARS = (
    "start_ns", "low", "close", "session", "bar_of_session", "bars_left", "regular", "missing",
    "events", "events_ahead",
)  # fmt: skip
_OF_MARKET = ("volatility_ratio", "regime", "large_move")
ROWS_AT_ONCE = 4096  # of the table of the rules, so that it stays in the cache
LULD_SECONDS = 300
# A gap of m bars spoils features that remember fewer than 5 m bars by more than a fifth of
# what they see; these have forgotten it 5 m bars later, and longer ones were hardly touched.
RECOVERY_BARS_PER_MISSING = 5
_own_market_bits = own_bits(rule.BIT, ("bar",), "s", asks_account=False)


def market_rule_bits(bars: Bars, market: MarketTable, config: Config) -> Ints:
    """Return the bits of the market-only rules for a decision at each close, int64 (T,).

    Raises:
        ConfigError: `risk.regime.blocked` names an unknown regime.
    """
    rules = MarketRules(config, bars.bar_seconds)
    return rules.take(bars, market)


class MarketRules:
    """The market-only rules with their memory; from the start of history bar by bar.

    Attributes:
        settings: `SETTINGS_DTYPE`, shape (1,).
        memory: `MEMORY_DTYPE`, shape (1,).
        closes: float64, the session's last closes in a ring, for the LULD reference.
    """

    def __init__(self, config: Config, bar_seconds: int) -> None:
        """Start at the beginning of history.

        Raises:
            ConfigError: `risk.regime.blocked` names an unknown regime.
        """
        self.settings = rule_settings(config, bar_seconds)
        self.memory = np.zeros(1, dtype=MEMORY_DTYPE)
        self.closes = np.zeros(max(1, int(self.settings["band_bars"][0])))

    def take(self, bars: Bars, market: MarketTable) -> Ints:
        """Take T bars that follow those taken before; return their bits, int64 (T,)."""
        columns = {name: getattr(bars, name) for name in _OF_BARS}
        columns |= {name: getattr(market, name) for name in _OF_MARKET}
        bits = np.zeros(len(bars), dtype=np.int64)
        rows = np.zeros(min(len(bars), ROWS_AT_ONCE), dtype=RULE_BAR_DTYPE)
        for start in range(0, len(bars), ROWS_AT_ONCE):
            part = bits[start : start + ROWS_AT_ONCE]
            for name, values in columns.items():
                rows[name][: len(part)] = values[start : start + len(part)]
            run_rules(rows[: len(part)], self.settings, self.memory, self.closes, part)
        return bits


def rule_settings(config: Config, bar_seconds: int) -> Records:
    """Flatten what the market-only rules read, `SETTINGS_DTYPE`, shape (1,).

    Raises:
        ConfigError: `risk.regime.blocked` names an unknown regime.
    """
    risk, env = config.risk, config.env
    enabled = rule.enabled_bits(risk)
    banded = bar_seconds <= risk.halt.luld_pause_seconds
    settings = np.zeros(1, dtype=SETTINGS_DTYPE)
    values = own_parameters(risk, asks_account=False) | {
        "enabled": enabled,
        "bar_seconds": bar_seconds,
        "longest_step_ns": (risk.halt.missing_bars + 1) * bar_seconds * 1e9 - 1,
        "band_bars": max(1, LULD_SECONDS // bar_seconds) if banded else 0,
        "band_frac": risk.halt.luld_band_frac,
        "pause_bars": max(1, int(risk.halt.luld_pause_seconds // bar_seconds)),
        "market_wide": risk.halt.market_wide,
        "quarter_hour_bars": max(1, 900 // bar_seconds),
        "flat_last_bars": settled(env.flat_last_bars),
        "no_open_last_bars": settled(env.no_open_last_bars),
        "fall_frac": risk.short_sale_restriction.fall_frac,
        "max_ratio": risk.volatility.max_ratio,
        "blocked_regimes": _blocked_regimes(risk) if enabled & rule.REGIME else 0,
        "large_move_bars": risk.event.large_move_bars,
        "event_before_bars": settled(risk.event.event_before_bars),
        "event_after_bars": settled(risk.event.event_after_bars),
        "bridged_bars": risk.halt.missing_bars,
        "longest_memory": settled(config.features.volatility_slow_bars),
    }
    for name, value in values.items():
        settings[name] = value
    return settings


def _blocked_regimes(risk: RiskConfig) -> int:
    unknown = [name for name in risk.regime.blocked if name not in REGIME_NAMES]
    if unknown:
        raise ConfigError(
            f"risk.regime.blocked={risk.regime.blocked}: {unknown[0]!r} is no regime; "
            f"use {', '.join(REGIME_NAMES)}"
        )
    return sum(1 << REGIME_NAMES.index(name) for name in set(risk.regime.blocked))


@kernel
def run_rules(
    rule_bars: Records,
    settings: Records,
    memory: Records,
    closes: Floats,
    bits: Ints,
) -> None:
    """Loop `rules_step` over T rows of `RULE_BAR_DTYPE`; `bits` (T,) is filled."""
    for t in range(rule_bars.shape[0]):
        bits[t] = rules_step(rule_bars[t], settings[0], memory[0], closes)


@kernel
def rules_step(bar: Any, s: Any, m: Any, closes: Floats) -> int:
    """Take one closed bar, update the memory and return the bits of the rules that fire.

    Args:
        bar: One row of `RULE_BAR_DTYPE`.
        s: One row of `SETTINGS_DTYPE`.
        m: One row of `MEMORY_DTYPE`, zeros at the start of history; changed in place.
        closes: float64 (max(1, band_bars),), changed in place.
    """
    step_ns = _follow_sessions(bar, m)
    fall = 1.0 - bar.low / m.session_before_close + 1e-12  # 7 % is 7 % in floats too
    bits = _last_bars(bar, s)
    if _halted(bar, s, m, step_ns, fall, closes):
        bits |= rule.HALT
    if bar.regular == 0:
        bits |= rule.CLOSED_SESSION
    # Regulation SHO 201: from the triggering bar to the end of the next session.
    if fall >= s.fall_frac and bar.regular != 0:
        m.fallen = 1
    if m.fallen != 0 or m.fallen_before != 0:
        bits |= rule.SHORT_SALE
    if bar.volatility_ratio > s.max_ratio:
        bits |= rule.VOLATILITY
    if s.blocked_regimes >> bar.regime & 1:
        bits |= rule.REGIME
    if _near_event(bar, s, m):
        bits |= rule.EVENT
    if _recovering(bar, s, m):
        bits |= rule.GAP
    bits |= _own_market_bits(bar, s)
    m.bars += 1
    m.start_ns = bar.start_ns
    if bar.regular != 0:
        m.regular_close = bar.close
    return bits & s.enabled


@kernel
def _follow_sessions(bar: Any, m: Any) -> int:
    """Note where in which session the bar is; return the time since the last start, ns."""
    first = m.bars == 0
    if first or bar.session != m.session:
        # What trades after hours is no reference: the rules ask the last regular close.
        m.session_before_close = np.nan if first else m.regular_close
        m.fallen_before, m.fallen = 0 if first else m.fallen, 0
        m.breaker_7, m.breaker_13, m.breaker_20 = -1, -1, -1
        m.row, m.session = 0, bar.session
    else:
        m.row += 1
    if first:
        m.regular_close = np.nan
        m.since_large, m.since_breach = -1, -1
        return 0
    return bar.start_ns - m.start_ns


@kernel
def _last_bars(bar: Any, s: Any) -> int:
    """Bits of the bars with few of their session to come; none where the number is 0."""
    bits = 0
    if s.flat_last_bars > 0 and bar.bars_left <= s.flat_last_bars:
        bits |= rule.SESSION_FLATTEN
    if s.no_open_last_bars > 0 and bar.bars_left <= s.no_open_last_bars:
        bits |= rule.SESSION_NO_OPEN
    return bits


@kernel
def _near_event(bar: Any, s: Any, m: Any) -> bool:
    if bar.large_move != 0:
        m.since_large = 0
    elif m.since_large >= 0:
        m.since_large += 1
    near = 0 <= m.since_large < s.large_move_bars
    near |= 0 <= bar.events < s.event_after_bars
    near |= 0 <= bar.events_ahead <= s.event_before_bars
    return near


@kernel
def _recovering(bar: Any, s: Any, m: Any) -> bool:
    """Count the bars that a gap needs, the one after it included."""
    if m.recovery_left > 0:
        m.recovery_left -= 1
    if m.bars > 0 and bar.missing > s.bridged_bars:
        needed = min(RECOVERY_BARS_PER_MISSING * bar.missing, s.longest_memory)
        m.recovery_left = max(m.recovery_left, needed)
    return m.recovery_left > 0


@kernel
def _halted(bar: Any, s: Any, m: Any, step_ns: int, fall: float, closes: Floats) -> bool:
    """Bar approximation of limit-up limit-down pauses and market-wide breakers.

    A pause follows a close outside the band around the mean close of the last five
    minutes, or a hole in the session's bars.  Breakers (NYSE 7.12) use the instrument
    itself as the index: 7 or 13 % before 15:25 stop 15 minutes, 20 % the rest of the day.
    """
    stopped = m.row > 0 and step_ns > s.longest_step_ns
    if s.band_bars > 0:
        stopped |= _paused(bar, s, m, closes)
    if s.market_wide != 0:
        stopped |= _broken(bar, s, m, fall)
    return stopped


@kernel
def _paused(bar: Any, s: Any, m: Any, closes: Floats) -> bool:
    breach = False
    if m.row >= s.band_bars:
        breach = abs(bar.close / closes.mean() - 1.0) > s.band_frac
    closes[m.row % s.band_bars] = bar.close
    if breach:
        m.since_breach = 0
    elif m.since_breach >= 0:
        m.since_breach += 1
    return 0 <= m.since_breach < s.pause_bars and m.since_breach <= m.row


@kernel
def _broken(bar: Any, s: Any, m: Any, fall: float) -> bool:
    """Market-wide circuit breakers; each level trips once a session."""
    late = bar.bars_left * s.bar_seconds < 35 * 60
    if m.breaker_7 < 0 and fall >= 0.07 and not late:
        m.breaker_7 = m.row
    if m.breaker_13 < 0 and fall >= 0.13 and not late:
        m.breaker_13 = m.row
    if m.breaker_20 < 0 and fall >= 0.20:
        m.breaker_20 = m.row
    stopped = m.breaker_20 >= 0
    stopped |= m.breaker_7 >= 0 and m.row - m.breaker_7 < s.quarter_hour_bars
    stopped |= m.breaker_13 >= 0 and m.row - m.breaker_13 < s.quarter_hour_bars
    return stopped
