"""What follows from the bars: episodes, discount, gaps, half-lives, windows and the price step.

What is null in a configuration is filled in from bar length and session; what is given stays.
Bars of five minutes or less are traded within the session, longer ones are held over sessions.
docs/markets.md has the table.
"""

from copy import deepcopy
from dataclasses import asdict, replace
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np
from pydantic import JsonValue

from ppo_workbench.config import Config, ConfigError, Raw, flatten, settled
from ppo_workbench.config.arrays import Floats
from ppo_workbench.market.bars import Bars

INTRADAY_SECONDS = 300  # longest bar that is traded within the session
DAY_SECONDS = 86_400
FLAT_SECONDS = 300  # flat for so long before the close
NO_OPEN_SECONDS = 900
OPEN_SECONDS = 22 * 3600  # a session as long as this has no night worth being flat for

MOST_HALF_TICK_BPS = 100.0
_MOST_DECIMALS, _MOST_STEPS, _ROUNDING = 12, 1e9, 1e-9

# Beside `KEYS`: filled in by `trading.rewards.with_volatility`, and null in some markets alone.
VOLATILITIES = ("reward.bar_volatility_frac", "reward.annual_volatility_frac")
TICK = "market.tick"


def derived(config: Config, bars: Bars) -> Config:
    """Return the configuration with every null horizon filled in; given ones are kept.

    Repeating it changes nothing. Of `env.flat_last_bars` and `env.no_open_last_bars` the one
    that is null gives way to the one that is given: nobody opens what has to be closed.

    Raises:
        ConfigError: `market.tick` is that of another instrument.
    """
    found = horizons(bars)
    found |= _session_rule(config, found["env.flat_last_bars"], found["env.no_open_last_bars"])
    discount = config.env.gamma or config.model.gamma or found["env.gamma"]
    found["env.gamma"] = found["model.gamma"] = discount
    given = flatten(asdict(config))
    for key, value in found.items():
        if given[key] is None:
            config = _replaced(config, key, value)
    _check_tick(settled(config.market.tick), bars)
    return config


def price_step(bars: Bars) -> float:
    """Return the power of ten that all prices are multiples of, 0 if there is none.

    Prices that were adjusted for dividends or computed have none.
    """
    prices = np.concatenate([bars.open, bars.high, bars.low, bars.close])
    some = prices[:: max(1, len(prices) // 1000)]  # mostly enough to say no
    for decimals in range(_MOST_DECIMALS + 1):
        if _on_grid(some, decimals) and _on_grid(prices, decimals):
            return float(10.0**-decimals)
    return 0.0


def _on_grid(prices: Floats, decimals: int) -> bool:
    steps = prices * 10.0**decimals
    apart = np.abs(steps - np.round(steps))
    # The grid of doubles itself is no grid of prices: there are not so many digits.
    return bool(np.all(apart <= _ROUNDING * np.maximum(steps, 1.0)) and np.max(steps) < _MOST_STEPS)


def _check_tick(tick: float, bars: Bars) -> None:
    price = float(np.median(bars.close))
    half_bps = 0.5 * tick / price * 1e4
    if half_bps > MOST_HALF_TICK_BPS:
        raise ConfigError(
            f"market.tick={tick:g}: half of it, which every fill would pay, is {half_bps:,.0f} bps "
            f"of these prices (median {price:g}); name the price step of this instrument "
            f"({price_step(bars) or tick / 100:g}?), or market.tick=null to take it from the bars"
        )


def horizons(bars: Bars) -> dict[str, Any]:
    """Return full key -> value of everything that follows from bar length and session."""
    table = _table(bars.bars_per_session, bars.bar_seconds, bool(bars.volume.any()))
    daily, intraday = bars.bar_seconds >= DAY_SECONDS, bars.bar_seconds <= INTRADAY_SECONDS
    column = 2 if daily else 0 if intraday else 1
    return {key: row[column] for key, row in table.items()} | {TICK: price_step(bars)}


def _table(n: int, seconds: int, has_volume: bool) -> dict[str, tuple[Any, Any, Any]]:
    """Return full key -> its value for bars within the session, over sessions, and of a day.

    Args:
        n: Bars of a session.
        seconds: Length of a bar.
        has_volume: The series has any.
    """
    closes = n * seconds < OPEN_SECONDS
    window = max(n, 2)  # of a session, and another than that of one bar
    volume = ["volume_20"] if has_volume else []
    within = [
        "ema_distance_10",
        "ema_distance_40",
        "ema_distance_120",
        "return_1",
        "volatility_ratio",
        "session_time",
        "sigma",  # a move has to pay the cost: a deviation is worth more in a lively hour
    ]
    over = [
        "return_1",
        f"return_{window}",
        f"return_{14 * n + 2}",  # about three weeks
        f"ema_distance_{window}",
        f"ema_distance_{5 * n}",
        "rsi_14",
        "macd_12_26_9",
        "bollinger_20",
        *volume,
        "volatility_ratio",
        "session_time",
    ]
    daily = [
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
        *volume,
        "volatility_ratio",
    ]
    return {
        "env.episode_bars": (5 * n, 63 * n, 252),  # a week, a quarter, a year
        # 50 bars, about the life of a deviation (docs/results.md); of days 20, a month.
        "env.gamma": (0.98, 0.97, 0.95),
        # A daily bar is its session's last: no session rule.
        "env.no_open_last_bars": (-(-NO_OPEN_SECONDS // seconds) if closes else 0, 0, 0),
        "env.flat_last_bars": (-(-FLAT_SECONDS // seconds) if closes else 0, 0, 0),
        "splits.gap_bars": (n, 5 * n, 20),
        "risk.drawdown.pause_bars": (n, 5 * n, 20),
        "risk.event.event_before_bars": (5, 1, 1),
        "risk.event.event_after_bars": (15, 3, 1),
        # A session, a month, a quarter.
        "reward.differential_sharpe_halflife_bars": (float(n), 20.0 * n, 63.0),
        "features.names": (within, over, daily),
        "features.volatility_fast_bars": (20, 2 * n, 10),
        "features.volatility_slow_bars": (5 * n, 60 * n, 252),
        "features.seasonal_volatility": (True, True, False),
        "features.efficiency_bars": (60, 5 * n, 20),
        "features.gap_ema_frac": (0.7, 0.7, 0.0),  # a daily bar's return includes its gap
    }


# Everything that may be null.
KEYS = (*_table(1, DAY_SECONDS, has_volume=True), "model.gamma")


def recorded_horizons(raw: Raw, config: Config) -> dict[str, JsonValue]:
    """Return an unresolved configuration with what follows from the bars as it was resolved.

    Args:
        raw: Nested plain values, interpolations as they are written.
        config: The same, of an `Experiment`.
    """
    recorded = deepcopy(dict(raw))
    nested: Any = recorded
    given, resolved = flatten(raw), flatten(asdict(config))
    for key in (*KEYS, *VOLATILITIES, TICK):
        if key in given and given[key] is None:
            *sections, name = key.split(".")
            reduce(getitem, sections, nested)[name] = resolved[key]
    return recorded


def describe_horizons(config: Config, bars: Bars) -> str:
    """Say what the run's horizons are, for the screen."""
    env = config.env
    flat = f"flat for the last {env.flat_last_bars}" if env.flat_last_bars else "held over sessions"
    tick = settled(config.market.tick)
    step = f", price step {tick:g}" if tick else ""
    return (
        f"{_length(bars.bar_seconds)} bars, episodes of {env.episode_bars}, {flat}, gamma "
        f"{settled(config.model.gamma):g}, gap {config.splits.gap_bars}, volatility half-lives "
        f"{config.features.volatility_fast_bars} and {config.features.volatility_slow_bars}"
        f"{step}"
    )


def _length(seconds: int) -> str:
    for unit, name in ((DAY_SECONDS, "day"), (3600, "hour"), (60, "minute")):
        if seconds % unit == 0:
            return f"{seconds // unit}-{name}"
    return f"{seconds}-second"


def _session_rule(config: Config, flat: int, no_open: int) -> dict[str, int]:
    """Let the end of the session that is null give way to the one that is given."""
    env = config.env
    return {
        "env.flat_last_bars": flat
        if env.no_open_last_bars is None
        else min(flat, env.no_open_last_bars),
        "env.no_open_last_bars": max(no_open, env.flat_last_bars or 0),
    }


def _replaced(section: Any, key: str, value: Any) -> Any:
    """Copy a dataclass with one full key replaced."""
    name, _, rest = key.partition(".")
    return replace(
        section, **{name: _replaced(getattr(section, name), rest, value) if rest else value}
    )
