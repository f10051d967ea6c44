"""Features against independent oracles, live against history, and refused names."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import talib
from tests.market.builders import minute_features

from ppo_workbench.config import ConfigError, FeaturesConfig, SyntheticConfig
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import (
    KINDS,
    MarketStream,
    MarketTable,
    bar_values,
    compute_market,
    feature_spec,
)
from ppo_workbench.market.regimes import RATIO, REGIME, SIGMA
from ppo_workbench.market.synthetic import SyntheticMarket, generate

Floats = npt.NDArray[np.float64]

ROOT = Path(__file__).parents[2]
WINDOWS = {"<fast>": "12", "<slow>": "26", "<signal>": "9", "<n>": "20", "<halflife>": "40"}


def _all_features() -> list[str]:
    names = [kind.form for kind in KINDS]
    for form, window in WINDOWS.items():
        names = [name.replace(form, window) for name in names]
    return names


@cache
def _market() -> SyntheticMarket:
    return generate(SyntheticConfig(sessions=30, seed=5))


def _bars(bars_per_session: int = 390) -> Bars:
    """Return the market's prices as if a session had `bars_per_session` bars."""
    bars = _market().bars
    session, slot = np.divmod(np.arange(len(bars), dtype=np.int64), bars_per_session)
    return replace(bars, session=session, bar_of_session=slot, bars_per_session=bars_per_session)


def _with_columns(bars: Bars) -> Bars:
    columns = np.arange(2.0 * len(bars)).reshape(-1, 2)
    return replace(bars, extra=columns, extra_names=("mood", "tide"))


def _config(names: Sequence[str], clip: float = 1000.0) -> FeaturesConfig:
    """Return daily-like settings; the clip is out of the way."""
    return minute_features(names=list(names), volatility_slow_bars=390, clip=clip)


def _column(table: MarketTable, name: str) -> Floats:
    return table.features[:, table.names.index(name)]


def _assert_feature(name: str, expected: Floats, table: MarketTable) -> None:
    np.testing.assert_allclose(_column(table, name), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("window", [1, 5, 60])
def test_return_is_the_log_return_in_units_of_volatility(window: int) -> None:
    bars, name = _bars(1), f"return_{window}"
    table = compute_market(bars, _config([name]))
    price = pd.Series(np.log(bars.close))
    expected = (price - price.shift(window)) / (table.sigma * np.sqrt(window))
    _assert_feature(name, expected.to_numpy(), table)


@pytest.mark.parametrize("halflife", [10, 40])
def test_ema_distance_daily_equals_pandas_ewm(halflife: int) -> None:
    bars, name = _bars(1), f"ema_distance_{halflife}"
    table = compute_market(bars, _config([name]))
    price = pd.Series(np.log(bars.close))
    distance = price - price.ewm(halflife=halflife, adjust=False).mean()
    _assert_feature(name, distance.to_numpy() / (table.sigma * np.sqrt(halflife)), table)


def test_ema_distance_40_synthetic_market_is_what_drives_it() -> None:
    table = compute_market(_market().bars, minute_features(names=["ema_distance_40"]))
    start = table.warmup_bars
    distance = table.features[start:, 0]
    assert np.corrcoef(distance, _market().deviation[start:])[0, 1] > 0.95


def test_ema_distance_overnight_gap_moves_the_average_by_its_share() -> None:
    bars = _bars()
    shift = np.where(bars.session >= 20, np.exp(0.05), 1.0)
    gapped = replace(
        bars,
        **{name: getattr(bars, name) * shift for name in ("open", "high", "low", "close")},
    )
    row = 20 * 390
    distances = []
    for share in (1.0, 0.7):
        config = replace(_config(["ema_distance_40"]), gap_ema_frac=share)
        pair = [compute_market(b, config) for b in (bars, gapped)]
        unit = pair[0].sigma[row] * np.sqrt(40)
        distances.append((pair[1].features[row, 0] - pair[0].features[row, 0]) * unit)
    assert distances[0] == pytest.approx(0.0, abs=1e-9)
    assert distances[1] == pytest.approx(0.3 * 0.05 * 0.5 ** (1 / 40), rel=1e-6)


def test_oscillators_equal_talib() -> None:
    bars = _bars(1)
    names = ["rsi_7", "rsi_14", "macd_12_26_9", "bollinger_20", "atr_14"]
    table = compute_market(bars, _config(names))
    upper, middle, _ = talib.BBANDS(bars.close, 20, 2.0, 2.0)
    _, _, histogram = talib.MACD(bars.close, 12, 26, 9)
    atr = talib.ATR(bars.high, bars.low, bars.close, 14)
    for window in (7, 14):
        _assert_feature(f"rsi_{window}", talib.RSI(bars.close, window), table)
    _assert_feature("macd_12_26_9", histogram / (table.sigma * bars.close), table)
    _assert_feature("atr_14", atr / bars.close, table)
    # TA-Lib loses digits of the standard deviation at minute volatility.
    expected = (bars.close - middle) / (upper - middle)
    ours = _column(table, "bollinger_20")
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_volume_is_the_log_over_its_own_mean() -> None:
    bars = _bars()
    table = compute_market(bars, _config(["volume_20"]))
    mean = pd.Series(bars.volume).rolling(20, min_periods=1).mean().to_numpy()
    _assert_feature("volume_20", np.log(bars.volume / mean), table)


def test_session_features_tell_the_place_in_the_session() -> None:
    names = ["session_time", "session_sine", "session_cosine"]
    table = compute_market(_bars(4), _config(names))
    assert table.features[4:8, 0].tolist() == [0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose(table.features[4:8, 1], [1, 0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(table.features[4:8, 2], [0, -1, 0, 1], atol=1e-12)


def test_context_features_repeat_the_context() -> None:
    names = ["sigma", "volatility_ratio", "regime_high_volatility", "regime_trend", "large_move"]
    table = compute_market(_bars(), _config([*names, "efficiency_60", "trend_60"]))
    context = (
        np.log(table.sigma),
        table.volatility_ratio,
        table.regime // 2,
        table.regime % 2,
        table.large_move,
        table.efficiency,
    )
    for i, expected in enumerate(context):
        np.testing.assert_array_equal(table.features[:, i], expected)
    np.testing.assert_array_equal(np.abs(table.features[:, 6]), table.efficiency)
    assert set(table.regime.tolist()) == {0, 1, 2, 3}


def test_names_select_and_order_the_columns() -> None:
    forward = compute_market(_bars(), _config(["return_1", "rsi_14"]))
    backward = compute_market(_bars(), _config(["rsi_14", "return_1"]))
    assert backward.names == ("rsi_14", "return_1")
    np.testing.assert_array_equal(forward.features, backward.features[:, ::-1])


def test_user_columns_follow_unless_they_are_named() -> None:
    bars = _with_columns(_bars())
    table = compute_market(bars, _config(["extra:tide", "return_1"]))
    assert table.names == ("extra:tide", "return_1", "extra:mood")
    np.testing.assert_array_equal(table.features[:, [2, 0]], bars.extra)


def test_user_column_unknown_at_first_lengthens_the_warmup() -> None:
    bars = _with_columns(_bars())
    bars.extra[:5000, 0] = np.nan
    assert compute_market(bars, _config(["return_1"])).warmup_bars == 5000


@pytest.mark.parametrize("bars_per_session", [390, 1])
def test_stream_one_bar_at_a_time_equals_the_table_bit_for_bit(bars_per_session: int) -> None:
    bars = _with_columns(_bars(bars_per_session)).slice(0, 1200)
    config = _config(_all_features())
    table = compute_market(bars, config)
    stream = MarketStream(config, bars_per_session, bars.extra_names)
    rows = [stream.update(bar_values(bars, t)) for t in range(len(bars))]
    assert np.array([features for features, _ in rows]).tobytes() == table.features.tobytes()
    context = np.array([context for _, context in rows])
    np.testing.assert_array_equal(context[:, SIGMA], table.sigma)
    np.testing.assert_array_equal(context[:, RATIO], table.volatility_ratio)
    np.testing.assert_array_equal(context[:, REGIME], table.regime)


def test_features_after_warmup_are_finite_and_within_the_clip() -> None:
    config = _config(_all_features(), clip=3.0)
    table = compute_market(_bars(), config)
    rows = table.features[table.warmup_bars :]
    assert np.isfinite(rows).all()
    unbounded = [table.names.index(name) for name in ("rsi_20", "sigma")]
    assert np.abs(np.delete(rows, unbounded, axis=1)).max() == 3.0


def test_features_flat_prices_without_volume_are_finite() -> None:
    bars, flat = _bars(), np.full(len(_bars()), 50.0)
    bars = replace(bars, open=flat, high=flat, low=flat, close=flat, volume=0 * flat)
    table = compute_market(bars, _config(_all_features()))
    rows = table.features[table.warmup_bars :]
    assert np.isfinite(rows).all()
    assert (_column(table, "return_20")[table.warmup_bars :] == 0).all()
    assert (table.regime == 0).all()


@pytest.mark.parametrize(
    ("names", "warmup"),
    [
        ([], 390),
        (["return_60"], 390),
        (["return_1000"], 1001),
        (["ema_distance_120", "rsi_14"], 1200),
        (["macd_12_260_90"], 1750),
    ],
)
def test_warmup_is_the_longest_of_features_and_context(names: list[str], warmup: int) -> None:
    assert feature_spec(_config(names), 390).warmup_bars == warmup


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rsi", r"features\.names='rsi': is no feature; allowed are return_<n>, .*rsi_<n>"),
        ("return_-1", "is no feature"),
        ("return_1_2", "is no feature"),
        ("macd_12_26", "is no feature"),
        ("extra:absent", r"extra:mood, extra:tide"),
        ("mood", "is no feature"),
        ("rsi_1", "a window of rsi_<n> must be at least 2"),
        ("return_0", "must be at least 1"),
        ("macd_26_12_9", "the fast window must be less than the slow"),
        ("sigma", "'sigma': is listed twice"),
    ],
)
def test_name_that_is_no_feature_is_refused_with_what_is_allowed(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        feature_spec(_config(["sigma", name]), 390, ("mood", "tide"))


def test_features_page_has_a_row_for_every_form() -> None:
    page = (ROOT / "docs/features.md").read_text(encoding="utf-8")
    missing = [kind.form for kind in KINDS if f"| `{kind.form}` |" not in page]
    assert missing == []
