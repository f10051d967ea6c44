"""What follows from the length of a bar, written out for every length."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config, ConfigError, DataConfig, flatten, section_of
from ppo_workbench.delivery.describe import plain
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import compute_market
from ppo_workbench.market.horizons import (
    KEYS,
    derived,
    describe_horizons,
    price_step,
    recorded_horizons,
)
from ppo_workbench.market.reader.table import bars_from_table

MINUTES = [
    "ema_distance_10",
    "ema_distance_40",
    "ema_distance_120",
    "return_1",
    "volatility_ratio",
    "session_time",
    "sigma",
]
DAYS = [
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
    "volume_20",
    "volatility_ratio",
]


def _hours(session: int, weeks: int, slow_ema: int) -> list[str]:
    return [
        "return_1",
        f"return_{session}",
        f"return_{weeks}",
        f"ema_distance_{session}",
        f"ema_distance_{slow_ema}",
        "rsi_14",
        "macd_12_26_9",
        "bollinger_20",
        "volume_20",
        "volatility_ratio",
        "session_time",
    ]


# Of a bar: calendar and seconds; then, in the order of the columns below, what follows.
COLUMNS = (
    "env.episode_bars",
    "env.gamma",
    "env.no_open_last_bars",
    "env.flat_last_bars",
    "splits.gap_bars",
    "risk.drawdown.pause_bars",
    "risk.event.event_before_bars",
    "risk.event.event_after_bars",
    "reward.differential_sharpe_halflife_bars",
    "features.volatility_fast_bars",
    "features.volatility_slow_bars",
    "features.seasonal_volatility",
    "features.efficiency_bars",
    "features.gap_ema_frac",
    "features.names",
)
TABLE: list[tuple[Any, ...]] = [
    ("XNYS", 60, 1950, 0.98, 15, 5, 390, 390, 5, 15, 390.0, 20, 1950, True, 60, 0.7, MINUTES),
    ("XNYS", 300, 390, 0.98, 3, 1, 78, 78, 5, 15, 78.0, 20, 390, True, 60, 0.7, MINUTES),
    ("XNYS", 900, 1638, 0.97, 0, 0, 130, 130, 1, 3, 520.0, 52, 1560, True, 130, 0.7,
     _hours(26, 366, 130)),
    ("XNYS", 1800, 819, 0.97, 0, 0, 65, 65, 1, 3, 260.0, 26, 780, True, 65, 0.7,
     _hours(13, 184, 65)),
    ("XNYS", 3600, 441, 0.97, 0, 0, 35, 35, 1, 3, 140.0, 14, 420, True, 35, 0.7,
     _hours(7, 100, 35)),
    ("XNYS", 14400, 126, 0.97, 0, 0, 10, 10, 1, 3, 40.0, 4, 120, True, 10, 0.7, _hours(2, 30, 10)),
    ("XNYS", 86400, 252, 0.95, 0, 0, 20, 20, 1, 1, 63.0, 10, 252, False, 20, 0.0, DAYS),
    ("24/7", 60, 7200, 0.98, 0, 0, 1440, 1440, 5, 15, 1440.0, 20, 7200, True, 60, 0.7, MINUTES),
    ("24/7", 300, 1440, 0.98, 0, 0, 288, 288, 5, 15, 288.0, 20, 1440, True, 60, 0.7, MINUTES),
    ("24/7", 900, 6048, 0.97, 0, 0, 480, 480, 1, 3, 1920.0, 192, 5760, True, 480, 0.7,
     _hours(96, 1346, 480)),
    ("24/7", 1800, 3024, 0.97, 0, 0, 240, 240, 1, 3, 960.0, 96, 2880, True, 240, 0.7,
     _hours(48, 674, 240)),
    ("24/7", 3600, 1512, 0.97, 0, 0, 120, 120, 1, 3, 480.0, 48, 1440, True, 120, 0.7,
     _hours(24, 338, 120)),
    ("24/7", 14400, 378, 0.97, 0, 0, 30, 30, 1, 3, 120.0, 12, 360, True, 30, 0.7,
     _hours(6, 86, 30)),
    ("24/7", 86400, 252, 0.95, 0, 0, 20, 20, 1, 1, 63.0, 10, 252, False, 20, 0.0, DAYS),
]  # fmt: skip


def _bars(calendar: str, seconds: int, volume: float = 1000.0, sessions: int = 10) -> Bars:
    """Return bars of whole sessions from the file reader, without a file."""
    if calendar == "24/7":
        days = pd.date_range("2024-01-01", periods=sessions, tz="UTC")
        opens, length = days, pd.Timedelta(days=1)
    else:
        days = pd.bdate_range("2024-03-11", periods=sessions, tz="America/New_York")
        opens, length = days + pd.Timedelta(hours=9.5), pd.Timedelta(hours=6.5)
    if seconds == 86_400:
        stamps = list(days.strftime("%Y-%m-%d"))
    else:
        step = pd.Timedelta(seconds=seconds)
        stamps = [
            stamp.isoformat()
            for start in opens
            for stamp in pd.date_range(start, start + length, freq=step, inclusive="left")
        ]
    prices = 100.0 + np.sin(np.arange(len(stamps)))
    columns = dict.fromkeys(("open", "high", "low", "close"), prices)
    table = pd.DataFrame({"timestamp": stamps, **columns, "volume": volume})
    return bars_from_table("bars", "BARS", table, DataConfig(calendar=calendar), source="file")


def _values(config: Config) -> dict[str, Any]:
    return flatten(dataclasses.asdict(config))


@pytest.mark.parametrize(
    "row", TABLE, ids=[f"{calendar} {seconds} s" for calendar, seconds, *_ in TABLE]
)
def test_horizons_of_a_bar_length_are_those_of_the_table(row: tuple[Any, ...]) -> None:
    calendar, seconds, *expected = row
    bars = _bars(calendar, seconds)
    config = derived(Config(), bars)

    found = _values(config)
    assert bars.bar_seconds == seconds
    assert {key: found[key] for key in COLUMNS} == dict(zip(COLUMNS, expected, strict=True))
    assert config.model.gamma == config.env.gamma
    assert set(KEYS) == {*COLUMNS, "model.gamma"}
    assert _values(derived(compose(), bars))["env.episode_bars"] == config.env.episode_bars


@pytest.mark.parametrize("sessions", [1, 2])
def test_four_hour_bars_of_short_sessions_have_features_that_differ(sessions: int) -> None:
    bars = dataclasses.replace(_bars("24/7", 14400, sessions=60), bars_per_session=sessions)
    bars = dataclasses.replace(bars, bar_of_session=np.minimum(bars.bar_of_session, sessions - 1))
    features = derived(Config(), bars).features

    assert features.names is not None
    assert len(set(features.names)) == len(features.names)
    table = compute_market(bars, features)
    assert np.isfinite(table.features[table.warmup_bars :]).all()


def test_given_values_win_and_the_rest_is_derived() -> None:
    config = compose(
        ["env.episode_bars=77", "splits.gap_bars=0", "features.names=[]", "env.gamma=0.5"]
    )
    found = derived(config, _bars("XNYS", 60))

    assert (found.env.episode_bars, found.splits.gap_bars, found.features.names) == (77, 0, [])
    assert (found.env.gamma, found.model.gamma) == (0.5, 0.5)
    found = derived(compose(["model.gamma=0.6"]), _bars("XNYS", 60))
    assert (found.env.gamma, found.model.gamma) == (0.6, 0.6)
    assert found.risk.drawdown.pause_bars == 390


@pytest.mark.parametrize(
    ("given", "flat", "no_open"),
    [
        ("env.flat_last_bars=30", 30, 30),
        ("env.flat_last_bars=0", 0, 15),
        ("env.no_open_last_bars=2", 2, 2),
        ("env.no_open_last_bars=60", 5, 60),
    ],
)
def test_nobody_may_open_what_has_to_be_closed(given: str, flat: int, no_open: int) -> None:
    env = derived(compose([given]), _bars("XNYS", 60)).env

    assert (env.flat_last_bars, env.no_open_last_bars) == (flat, no_open)


@pytest.mark.parametrize("seconds", [60, 3600, 86_400])
def test_derived_twice_is_derived_once_and_the_original_keeps_its_nulls(seconds: int) -> None:
    config, bars = Config(), _bars("XNYS", seconds)
    once = derived(config, bars)

    assert derived(once, bars) is once
    assert derived(once, _bars("24/7", 900)) is once  # a recorded value wins over other bars
    assert [key for key in KEYS if _values(config)[key] is not None] == []
    assert [key for key in KEYS if _values(once)[key] is None] == []


@pytest.mark.parametrize("seconds", [3600, 86_400])
def test_series_without_volume_has_no_feature_of_it(seconds: int) -> None:
    with_volume = derived(Config(), _bars("XNYS", seconds)).features.names
    without = derived(Config(), _bars("XNYS", seconds, volume=0.0)).features.names

    assert with_volume is not None
    assert without == [name for name in with_volume if name != "volume_20"]
    assert len(without) == len(with_volume) - 1


def test_record_has_the_resolved_values_and_keeps_what_was_written() -> None:
    config = derived(compose(["env.gamma=0.9"]), _bars("XNYS", 3600))
    raw = plain(dataclasses.asdict(compose(["env.gamma=0.9"])))
    raw["model"]["gamma"] = "${env.gamma}"
    raw["data"]["path"] = "${oc.env:BARS}"

    recorded = recorded_horizons(raw, config)

    values = flatten(recorded)
    assert [key for key in KEYS if values[key] is None] == []
    assert (values["env.episode_bars"], values["splits.gap_bars"]) == (441, 35)
    assert (values["env.gamma"], values["model.gamma"]) == (0.9, "${env.gamma}")
    assert values["data.path"] == "${oc.env:BARS}"
    assert raw["env"]["episode_bars"] is None
    assert recorded_horizons({"budget": {"minutes": None}}, config) == {"budget": {"minutes": None}}


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (60, "1-minute bars, episodes of 1950, flat for the last 5, gamma 0.98, gap 390"),
        (14_400, "4-hour bars, episodes of 126, held over sessions, gamma 0.97, gap 10"),
        (86_400, "1-day bars, episodes of 252, held over sessions, gamma 0.95, gap 20"),
    ],
)
def test_line_for_the_screen_names_the_bar_and_its_horizons(seconds: int, told: str) -> None:
    bars = _bars("XNYS", seconds)

    assert describe_horizons(derived(Config(), bars), bars).startswith(told)


def _priced(scale: float, decimals: int | None) -> Bars:
    bars, rng = _bars("24/7", 3600), np.random.default_rng(0)
    prices = scale * np.exp(np.cumsum(rng.normal(0.0, 0.01, len(bars))))
    if decimals is not None:
        prices = np.round(prices, decimals)
    return dataclasses.replace(bars, open=prices, high=prices, low=prices, close=prices)


@pytest.mark.parametrize(
    ("scale", "decimals", "step"),
    [
        (8.2e-6, 8, 1e-8),  # SHIB/USDT as an exchange quotes it
        (1.2e-5, 10, 1e-10),
        (1.1, 5, 1e-5),  # EUR/USD
        (150.0, 3, 1e-3),  # USD/JPY
        (60_000.0, 2, 0.01),
        (60_000.0, 0, 1.0),
        (100.0, None, 0.0),  # adjusted or computed: no step
    ],
)
def test_step_of_the_bars_is_that_of_their_decimals(
    scale: float, decimals: int | None, step: float
) -> None:
    bars = _priced(scale, decimals)
    assert price_step(bars) == pytest.approx(step)
    config = derived(compose(["market=crypto"]), bars)
    assert config.market.tick == pytest.approx(step)
    recorded = recorded_horizons(plain(dataclasses.asdict(compose(["market=crypto"]))), config)
    assert section_of(recorded, "market")["tick"] == config.market.tick


def test_step_of_another_instrument_is_refused_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"is 5,797,101 bps .*\(1e-08\?\)"):
        derived(compose(["market=crypto", "market.tick=0.01"]), _priced(8.2e-6, 8))
    assert derived(compose(["market=us_equity"]), _priced(5.0, 2)).market.tick == 0.01
