"""Horizons that follow from the bars: episodes, discount, gaps, half-lives and windows.

What is null in a configuration is filled in from bar length and session; what is given stays.
Bars of five minutes or less are traded within the session, longer ones are held over sessions.
docs/markets.md has the table.
"""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from typing import Any, TypeVar

from ppo_workbench.config import Config, flatten, settled
from ppo_workbench.market.bars import Bars

INTRADAY_SECONDS = 300  # longest bar that is traded within the session
DAY_SECONDS = 86_400
FLAT_SECONDS = 300  # flat for so long before the close
NO_OPEN_SECONDS = 900
OPEN_SECONDS = 22 * 3600  # a session as long as this has no night worth being flat for

# Everything that may be null.
KEYS = (
    "env.episode_bars",
    "env.gamma",
    "model.gamma",
    "env.no_open_last_bars",
    "env.flat_last_bars",
    "splits.gap_bars",
    "risk.drawdown.pause_bars",
    "risk.event.event_before_bars",
    "risk.event.event_after_bars",
    "reward.differential_sharpe_halflife_bars",
    "features.names",
    "features.volatility_fast_bars",
    "features.volatility_slow_bars",
    "features.seasonal_volatility",
    "features.efficiency_bars",
    "features.gap_ema_frac",
)

# Beside them, filled in by `trading.rewards.with_volatility`.
VOLATILITIES = ("reward.bar_volatility_frac", "reward.annual_volatility_frac")

T = TypeVar("T")


def derived(config: Config, bars: Bars) -> Config:
    """Return the configuration with every null horizon filled in; given ones are kept.

    Repeating it changes nothing. Of `env.flat_last_bars` and `env.no_open_last_bars` the one
    that is null gives way to the one that is given: nobody opens what has to be closed.
    """
    found = _session_rule(config, horizons(bars))
    found["model.gamma"] = config.env.gamma or found["env.gamma"]
    given = flatten(asdict(config))
    missing = {key: value for key, value in found.items() if given[key] is None}
    return _replaced(config, missing) if missing else config


def horizons(bars: Bars) -> dict[str, Any]:
    """Return full key -> value of everything that follows from bar length and session."""
    if bars.bar_seconds >= DAY_SECONDS:
        return _of_days(bars)
    return _of_minutes(bars) if bars.bar_seconds <= INTRADAY_SECONDS else _of_hours(bars)


def recorded_horizons(raw: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Return an unresolved configuration with what follows from the bars as it was resolved.

    Args:
        raw: Nested plain values, interpolations as they are written.
        config: The same, of an `Experiment`.
    """
    given, resolved = flatten(raw), flatten(asdict(config))
    keys = (*KEYS, *VOLATILITIES)
    missing = {key: resolved[key] for key in keys if key in given and given[key] is None}
    return dict(_merged(raw, missing))


def describe_horizons(config: Config, bars: Bars) -> str:
    """Say what the run's horizons are, for the screen."""
    env = config.env
    flat = f"flat for the last {env.flat_last_bars}" if env.flat_last_bars else "held over sessions"
    return (
        f"{_length(bars.bar_seconds)} bars, episodes of {env.episode_bars}, {flat}, gamma "
        f"{settled(config.model.gamma):g}, gap {config.splits.gap_bars}, volatility half-lives "
        f"{config.features.volatility_fast_bars} and {config.features.volatility_slow_bars}"
    )


def _length(seconds: int) -> str:
    for unit, name in ((DAY_SECONDS, "day"), (3600, "hour"), (60, "minute")):
        if seconds % unit == 0:
            return f"{seconds // unit}-{name}"
    return f"{seconds}-second"


def _of_minutes(bars: Bars) -> dict[str, Any]:
    n, seconds = bars.bars_per_session, bars.bar_seconds
    closes = n * seconds < OPEN_SECONDS
    return {
        "env.episode_bars": 5 * n,
        "env.gamma": 0.98,  # 50 bars, about the life of a deviation (docs/results.md)
        "env.no_open_last_bars": -(-NO_OPEN_SECONDS // seconds) if closes else 0,
        "env.flat_last_bars": -(-FLAT_SECONDS // seconds) if closes else 0,
        "splits.gap_bars": n,
        "risk.drawdown.pause_bars": n,
        "risk.event.event_before_bars": 5,
        "risk.event.event_after_bars": 15,
        "reward.differential_sharpe_halflife_bars": float(n),
        "features.names": [
            "ema_distance_10",
            "ema_distance_40",
            "ema_distance_120",
            "return_1",
            "volatility_ratio",
            "session_time",
            "sigma",  # a move has to pay the cost: a deviation is worth more in a lively hour
        ],
        "features.volatility_fast_bars": 20,
        "features.volatility_slow_bars": 5 * n,
        "features.seasonal_volatility": True,
        "features.efficiency_bars": 60,
        "features.gap_ema_frac": 0.7,
    }


def _of_hours(bars: Bars) -> dict[str, Any]:
    n = bars.bars_per_session
    session = max(n, 2)  # a window, and another than that of one bar
    return {
        "env.episode_bars": 63 * n,  # a quarter
        "env.gamma": 0.97,
        "env.no_open_last_bars": 0,
        "env.flat_last_bars": 0,
        "splits.gap_bars": 5 * n,
        "risk.drawdown.pause_bars": 5 * n,
        "risk.event.event_before_bars": 1,
        "risk.event.event_after_bars": 3,
        "reward.differential_sharpe_halflife_bars": 20.0 * n,  # a month
        "features.names": [
            "return_1",
            f"return_{session}",
            f"return_{14 * n + 2}",  # about three weeks
            f"ema_distance_{session}",
            f"ema_distance_{5 * n}",
            "rsi_14",
            "macd_12_26_9",
            "bollinger_20",
            *_volume(bars),
            "volatility_ratio",
            "session_time",
        ],
        "features.volatility_fast_bars": 2 * n,
        "features.volatility_slow_bars": 60 * n,
        "features.seasonal_volatility": True,
        "features.efficiency_bars": 5 * n,
        "features.gap_ema_frac": 0.7,
    }


def _of_days(bars: Bars) -> dict[str, Any]:
    return {
        "env.episode_bars": 252,  # a year
        "env.gamma": 0.95,  # 20 bars, a month
        "env.no_open_last_bars": 0,  # a daily bar is its session's last: no session rule
        "env.flat_last_bars": 0,
        "splits.gap_bars": 20,
        "risk.drawdown.pause_bars": 20,
        "risk.event.event_before_bars": 1,
        "risk.event.event_after_bars": 1,
        "reward.differential_sharpe_halflife_bars": 63.0,  # a quarter
        "features.names": [
            "return_1",
            "return_5",
            "return_20",
            "return_60",
            "ema_distance_10",
            "ema_distance_50",
            "rsi_14",
            "macd_12_26_9",
            "bollinger_20",
            "atr_14",
            *_volume(bars),
            "volatility_ratio",
        ],
        "features.volatility_fast_bars": 10,
        "features.volatility_slow_bars": 252,  # a year
        "features.seasonal_volatility": False,
        "features.efficiency_bars": 20,
        "features.gap_ema_frac": 0.0,  # a daily bar's return includes its gap
    }


def _volume(bars: Bars) -> list[str]:
    """Return the feature of the volume, none where the series has none."""
    return ["volume_20"] if bars.volume.any() else []


def _session_rule(config: Config, found: dict[str, Any]) -> dict[str, Any]:
    """Let the end of the session that is null give way to the one that is given."""
    env = config.env
    flat, no_open = found["env.flat_last_bars"], found["env.no_open_last_bars"]
    return found | {
        "env.flat_last_bars": flat
        if env.no_open_last_bars is None
        else min(flat, env.no_open_last_bars),
        "env.no_open_last_bars": max(no_open, env.flat_last_bars or 0),
    }


def _replaced(section: T, values: Mapping[str, Any]) -> T:
    """Copy a dataclass with full keys replaced."""
    assert is_dataclass(section)
    assert not isinstance(section, type)
    changes = {
        name: inner[""] if "" in inner else _replaced(getattr(section, name), inner)
        for name, inner in _by_section(values).items()
    }
    return replace(section, **changes)


def _merged(section: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Copy nested plain values with full keys replaced."""
    changes = {
        name: inner[""] if "" in inner else _merged(section[name], inner)
        for name, inner in _by_section(values).items()
    }
    return {**section, **changes}


def _by_section(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Group full keys by their first part; a key without more has the rest ""."""
    grouped: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        name, _, rest = key.partition(".")
        grouped.setdefault(name, {})[rest] = value
    return grouped
