"""The synthetic market: reproducible, well formed, and with the edge that it promises."""

import importlib.util
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from omegaconf import OmegaConf

from ppo_workbench.config import Config, ConfigError, DataConfig, SyntheticConfig, validate_config
from ppo_workbench.market.bars import validate_bars
from ppo_workbench.market.calendars.exchange import load_sessions
from ppo_workbench.market.synthetic import (
    SyntheticMarket,
    _session_opens,
    generate,
    oracle_exposure,
)

Floats = npt.NDArray[np.float64]

ROOT = Path(__file__).parents[2]
SEEDS = range(6)
SESSIONS = 252
NULL = {"edge": 0.0, "trend_drift": 0.0, "jump_shift": 0.0, "stress_down_probability": 0.5}
VARIANTS = ("synthetic", "null", "mask_neutral", "mask_adverse")


def _load_benchmark() -> Any:
    path = ROOT / "benchmarks" / "stylised_facts.py"
    spec = importlib.util.spec_from_file_location("stylised_facts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = _load_benchmark()


def _config(**changes: Any) -> SyntheticConfig:
    return replace(SyntheticConfig(sessions=SESSIONS), **changes)


@pytest.fixture(scope="module")
def markets() -> list[SyntheticMarket]:
    return [generate(_config(seed=seed)) for seed in SEEDS]


@pytest.fixture(scope="module")
def null_markets() -> list[SyntheticMarket]:
    return [generate(_config(seed=seed, **NULL)) for seed in SEEDS]


def _pooled_t(days: Floats) -> float:
    return float(days.mean() / days.std() * np.sqrt(len(days)))


def _net_sharpe(market: SyntheticMarket, wanted: Floats) -> float:
    return float(benchmark.annual_sharpe(benchmark.daily_returns(market, wanted, 1.0, 2.0)))


def _edge_correlation(market: SyntheticMarket, regime: int) -> float:
    """Correlate minus the deviation with the next bar's return from its open, in sigma."""
    bars = market.bars
    move = np.log(bars.close / bars.open)[1:] / market.sigma[1:]
    at = (market.true_regime[1:] == regime) & (bars.bar_of_session[1:] > 0)
    return float(np.corrcoef(-market.deviation[:-1][at], move[at])[0, 1])


def test_generate_same_config_gives_same_bits_in_another_process() -> None:
    code = (
        "from ppo_workbench.config import SyntheticConfig\n"
        "from ppo_workbench.market.synthetic import generate\n"
        "print(generate(SyntheticConfig(sessions=20, seed=3)).bars.fingerprint)"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "", "HOME": str(Path.home())},
    )
    assert fresh.stdout.strip() == generate(_config(sessions=20, seed=3)).bars.fingerprint


def test_generate_seed_changed_gives_other_prices() -> None:
    one, two = (generate(_config(sessions=10, seed=seed)).bars for seed in (1, 2))
    assert not np.isin(one.close, two.close).any()


def test_generate_more_sessions_appends_bars_only() -> None:
    short, long = (generate(_config(sessions=sessions)) for sessions in (10, 25))
    count = len(short.bars)
    for name in ("open", "high", "low", "close", "volume", "start_ns"):
        np.testing.assert_array_equal(getattr(short.bars, name), getattr(long.bars, name)[:count])
    np.testing.assert_array_equal(short.oracle_exposure, long.oracle_exposure[:count])


def test_generate_edge_changed_keeps_regimes_and_volume_noise() -> None:
    one, two = generate(_config(edge=0.0)), generate(_config(edge=0.2))
    np.testing.assert_array_equal(one.true_regime, two.true_regime)
    assert not np.array_equal(one.bars.close, two.bars.close)


def test_generate_bars_are_well_formed(markets: list[SyntheticMarket]) -> None:
    for market in markets:
        bars = market.bars
        validate_bars(bars)
        assert (bars.low > 0).all()
        assert (bars.high >= np.maximum(bars.open, bars.close)).all()
        assert (bars.low <= np.minimum(bars.open, bars.close)).all()
        assert np.isnan(bars.half_spread_bps).all()
        np.testing.assert_array_equal(bars.volume, np.floor(bars.volume))
        assert (bars.volume >= 1).all()
        for values in (market.deviation, market.sigma, bars.close, bars.volume):
            assert np.isfinite(values).all()
        assert np.isin(market.oracle_exposure, [-1.0, 0.0, 1.0]).all()


def test_generate_opens_differ_from_the_prior_close(markets: list[SyntheticMarket]) -> None:
    bars = markets[0].bars
    assert (bars.open[1:] == bars.close[:-1]).mean() < 0.001


def test_generate_stamps_are_full_sessions_from_half_past_nine_in_new_york() -> None:
    bars = generate(_config(sessions=300)).bars
    stamps = bars.start_ns.reshape(300, 390)
    np.testing.assert_array_equal(stamps - stamps[:, :1], np.tile(np.arange(390), (300, 1)) * 6e10)
    local = np.array([_local(ns) for ns in stamps[:, 0]])
    assert local[0] == "2010-01-04 09:30"
    assert {text[11:] for text in local} == {"09:30"}
    assert "2010-11-26 09:30" not in local  # The day after Thanksgiving closes at 13:00.
    assert (bars.bar_of_session + bars.bars_left == 389).all()
    assert (np.diff(bars.session) == (bars.bar_of_session[1:] == 0)).all()


def _local(ns: int) -> str:
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    moment = datetime.fromtimestamp(int(ns) // 10**9, UTC)
    return moment.astimezone(ZoneInfo("America/New_York")).strftime("%Y-%m-%d %H:%M")


def test_generate_instrument_names_seed_and_variant() -> None:
    assert generate(_config(sessions=10, seed=7)).bars.instrument == "SYNTHETIC-7"
    bars = generate(_config(sessions=10, seed=7, variant="null")).bars
    assert bars.instrument == "SYNTHETIC-7-null"


def test_generate_regime_that_cannot_be_left_is_refused() -> None:
    switch = [[0.0] * 4, [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    with pytest.raises(ConfigError, match=r"data\.synthetic\.regime_switch"):
        generate(_config(regime_switch=switch))


def test_generate_without_jumps_is_a_brownian_bar_between_open_and_close() -> None:
    # For a driftless Brownian bar E[(ln H/O)(ln H/C) + (ln L/O)(ln L/C)] is its variance
    # (Rogers and Satchell, 1991); the fat-tailed shocks have the same mean variance.
    quiet = {**NULL, "jumps_per_session": [0.0] * 4, "volatility_sd": 0.0}
    market = generate(_config(sessions=1000, **quiet))
    bars = market.bars
    high_open, high_close = np.log(bars.high / bars.open), np.log(bars.high / bars.close)
    low_open, low_close = np.log(bars.low / bars.open), np.log(bars.low / bars.close)
    estimate = (high_open * high_close + low_open * low_close) / market.sigma**2
    assert estimate.mean() == pytest.approx(0.98, rel=0.02)


def test_generate_first_move_of_a_bar_has_its_share_of_variance() -> None:
    market = generate(_config(sessions=1000, open_variance_frac=0.05))
    bars = market.bars
    inside = bars.bar_of_session[1:] > 0
    move = np.log(bars.open[1:] / bars.close[:-1])[inside] / market.sigma[1:][inside]
    assert move.var() == pytest.approx(0.05, rel=0.05)
    assert abs(np.corrcoef(move, -market.deviation[:-1][inside])[0, 1]) < 0.01


def test_generate_deviation_is_the_distance_from_the_causal_ema() -> None:
    market = generate(_config(sessions=10))
    log_close, step = np.log(market.bars.close), 1 - 0.5 ** (1 / 40)
    ema = np.log(100.0)
    for t in range(390):
        ema += step * (log_close[t] - ema)
        expected = np.clip((log_close[t] - ema) / (market.sigma[t] * np.sqrt(40)), -3, 3)
        assert market.deviation[t] == pytest.approx(expected, abs=1e-9)


def test_generate_volume_without_loadings_is_an_autocorrelated_lognormal() -> None:
    bars = generate(_config(volume_loadings=[0.0] * 4)).bars
    noise = np.log(bars.volume * bars.close / 100.0) - 11.0
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    assert noise.std() == pytest.approx(0.35, rel=0.02)
    assert np.corrcoef(noise[:-1], noise[1:])[0, 1] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("price", [0.5, 10.0, 5000.0])
def test_generate_initial_price_changed_keeps_what_is_traded_in_currency(price: float) -> None:
    bars, usual = generate(_config(initial_price=price)).bars, generate(_config()).bars
    np.testing.assert_allclose(bars.close, usual.close * price / 100.0, rtol=1e-9)
    whole = price / usual.close.min() * usual.close.max()  # the value of a share, at most
    np.testing.assert_allclose(
        bars.volume * bars.close, usual.volume * usual.close, atol=whole + usual.close.max()
    )


def test_generate_notional_does_not_fall_with_the_price() -> None:
    bars = generate(_config(sessions=1500, log_volume=14.0, volume_loadings=[0.0] * 4)).bars
    assert bars.close.max() > 1.5 * bars.close.min()
    notional = np.log(bars.volume * bars.close)
    assert abs(np.corrcoef(notional, np.log(bars.close))[0, 1]) < 0.02


def test_generate_stylised_facts_lie_near_the_published_ones(
    markets: list[SyntheticMarket],
) -> None:
    facts = [benchmark.stylised_facts(market) for market in markets]
    slack = {"minute_kurtosis": (30, 250), "daily_kurtosis": (3, 60), "share_regime_0": (0.5, 0.7)}
    slack |= {
        f"share_regime_{s}": bounds
        for s, bounds in enumerate([(0.16, 0.30)] + 2 * [(0.04, 0.13)], 1)
    }
    for name, (low, _, high) in benchmark.TARGETS.items():
        margin = 0.15 * max(abs(low), abs(high))
        bounds = slack.get(name, (low - margin, high + margin))
        median = np.median([row[name] for row in facts])
        assert bounds[0] <= median <= bounds[1], (name, median)


def test_generate_default_market_shows_the_edge_by_regime(markets: list[SyntheticMarket]) -> None:
    quiet, trend = (np.mean([_edge_correlation(m, s) for m in markets]) for s in (0, 1))
    assert quiet > 0.04
    assert trend < 0


def test_generate_null_market_shows_no_edge(null_markets: list[SyntheticMarket]) -> None:
    for regime in range(4):
        values = [_edge_correlation(market, regime) for market in null_markets]
        counts = [(market.true_regime == regime).sum() for market in null_markets]
        assert abs(np.mean(values)) < 3 / np.sqrt(np.sum(counts))


def test_null_market_constant_sides_earn_nothing_gross() -> None:
    days: dict[float, list[Floats]] = {-1.0: [], 1.0: []}
    for seed in range(30):
        market = generate(_config(seed=seed, **NULL))
        for side, rows in days.items():
            wanted = benchmark.intraday_exposure(market, side)
            rows.append(benchmark.daily_returns(market, wanted))
    for rows in days.values():
        sharpes = [benchmark.annual_sharpe(row) for row in rows]
        assert abs(_pooled_t(np.concatenate(rows))) < 2
        assert abs(np.mean(sharpes)) < 2 * np.std(sharpes, ddof=1) / np.sqrt(len(sharpes))


def test_default_market_constant_short_earns_where_the_null_does_not(
    markets: list[SyntheticMarket], null_markets: list[SyntheticMarket]
) -> None:
    def pooled(these: list[SyntheticMarket]) -> Floats:
        each = [
            benchmark.daily_returns(market, benchmark.intraday_exposure(market, -1.0))
            for market in these
        ]
        return np.concatenate(each)

    assert (pooled(markets) - pooled(null_markets)).mean() * 252 > 0.05


def test_oracle_default_market_earns_net_of_cost(markets: list[SyntheticMarket]) -> None:
    sharpes = [_net_sharpe(market, market.oracle_exposure) for market in markets]
    assert np.median(sharpes) > 6
    assert min(sharpes) > 4


def test_oracle_null_market_does_not_trade(null_markets: list[SyntheticMarket]) -> None:
    assert not any(market.oracle_exposure.any() for market in null_markets)


def test_oracle_believing_in_an_edge_that_is_absent_loses_its_costs(
    null_markets: list[SyntheticMarket],
) -> None:
    for market in null_markets:
        wanted = oracle_exposure(
            SyntheticConfig(), market.true_regime, market.deviation, market.sigma, 1.0
        )
        assert _net_sharpe(market, wanted) < 0


def test_oracle_is_flat_from_bar_385_and_opens_nothing_late(
    markets: list[SyntheticMarket],
) -> None:
    wanted = markets[0].oracle_exposure.reshape(SESSIONS, 390)
    assert not wanted[:, 384:].any()
    late = wanted[:, 374:384]
    assert ((late[:, 1:] == late[:, :-1]) | (late[:, 1:] == 0)).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_presets_validate_and_the_oracle_earns_as_named(name: str) -> None:
    config = _preset(name)
    market = generate(replace(config.synthetic, sessions=SESSIONS))
    assert market.bars.instrument == "SYNTHETIC-0" + ("" if name == "synthetic" else f"-{name}")
    if name == "null":
        assert not market.oracle_exposure.any()
    else:
        multiplier = config.high_volatility_cost_multiplier
        days = benchmark.daily_returns(market, market.oracle_exposure, 1.0, multiplier)
        assert benchmark.annual_sharpe(days) > 3


@pytest.mark.parametrize(
    ("name", "quiet_earns_more"), [("synthetic", True), ("mask_adverse", False)]
)
def test_presets_differ_in_the_volatility_that_pays(name: str, quiet_earns_more: bool) -> None:
    config = _preset(name)
    gains = {"quiet": 0.0, "high": 0.0}
    for seed in SEEDS:
        market = generate(replace(config.synthetic, sessions=SESSIONS, seed=seed))
        high = market.true_regime >= 2
        for side, chosen in (("high", high), ("quiet", ~high)):
            wanted = np.where(chosen, market.oracle_exposure, 0.0)
            multiplier = config.high_volatility_cost_multiplier
            gains[side] += benchmark.daily_returns(market, wanted, 1.0, multiplier).sum()
    assert bool(gains["quiet"] > gains["high"]) is quiet_earns_more


def _preset(name: str) -> DataConfig:
    values = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "data" / f"{name}.yaml"))
    assert isinstance(values, dict)
    return validate_config(asdict(Config()) | {"data": values}).data


@pytest.mark.parametrize("sessions", [10, 1_000, 2_520, 20_000])
def test_sessions_open_as_the_calendar_of_all_years_says(sessions: int) -> None:
    first, last = (
        int(np.datetime64(day, "ns").astype(np.int64)) for day in ("2010-01-04", "2092-12-31")
    )
    table = load_sessions("XNYS", first, last)
    full = (table.close_ns - table.open_ns == 390 * 60 * 10**9) & (table.open_ns >= first)
    found = _session_opens(sessions)
    assert np.array_equal(found, table.open_ns[full][:sessions])
    assert len(found) == sessions


def test_edge_by_session_part_is_there_in_its_part_alone() -> None:
    def closes(edge: float, parts: list[float]) -> Any:
        config = SyntheticConfig(sessions=10, edge=edge, edge_by_session_part=parts)
        return generate(config).bars.close

    late, none, whole = closes(0.2, [0.0, 1.0]), closes(0.0, [1.0]), closes(0.2, [1.0])

    assert np.array_equal(late[:195], none[:195])
    assert not np.array_equal(late[:260], none[:260])
    assert not np.array_equal(late[:195], whole[:195])
    assert np.array_equal(whole, closes(0.2, [1.0, 1.0]))
