"""Prices in other units change nothing: the same bits at powers of two, 1e-9 elsewhere."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import compute_market
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.sources import load_bars
from ppo_workbench.market.splits import Split
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rewards import with_volatility
from ppo_workbench.trading.table import trading_market

RISKS = ("conservative", "moderate", "aggressive", "unconstrained")
COSTS = (
    "synthetic", "us_equity", "us_etf", "fx", "metal_cfd", "crypto", "crypto_perp", "us_futures",
)  # fmt: skip
TRAIN = slice(2000, 4000)
# Dollars by law or tariff: the named exceptions.
IN_DOLLARS = {
    "costs.fee_per_share_usd": 0.0,
    "costs.fee_minimum_usd": 0.0,
    "risk.maintenance_margin.short_per_share_usd": 0.0,
    "risk.maintenance_margin.minimum_equity_usd": 0.0,
}
NAMES = (
    "return_1,return_30,ema_distance_40,rsi_14,macd_12_26_9,bollinger_20,atr_14,volume_20,"
    "efficiency_20,trend_20,sigma,volatility_ratio,session_time,large_move"
)


@cache
def _bars() -> Bars:
    bars = load_bars(compose(["data.synthetic.sessions=14", "data.synthetic.seed=11"]).data)
    volume = bars.volume.copy()
    volume[::97] = 0.0
    return replace(bars, volume=volume)


@cache
def _config(risk: str, costs: str) -> Config:
    exceptions = [f"{key}={value}" for key, value in IN_DOLLARS.items()]
    config = compose(
        [
            *(f"risk={risk}", f"costs={costs}", f"features.names=[{NAMES}]", "tracking=none"),
            *("market.lot=0", "market.minimum_order=0", "features.volatility_slow_bars=390"),
            *("risk.halt.enabled=true", "risk.halt.market_wide=true", *exceptions),
        ]
    )
    return derived(config, _bars())


def _scaled(bars: Bars, factor: float) -> Bars:
    prices = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
    return replace(bars, **prices, volume=bars.volume / factor)


def _walk(bars: Bars, config: Config) -> dict[str, npt.NDArray[Any]]:
    """Decide by fixed random weights of the observation; return all that came of it."""
    table = compute_market(bars, config.features)
    scaler = Scaler.fit(table.features[TRAIN], config.features.clip)
    config = with_volatility(config, bars, (Split("train", TRAIN.start, TRAIN.stop),))
    market = trading_market(bars, table, config, scaler)
    batch = TradingBatch(market, np.array([TRAIN.start]), len(bars) - TRAIN.start - 1, 1, 0)
    weights = np.random.default_rng(0).normal(size=(market.observation_size, market.space.size))
    seen: dict[str, list[Any]] = {name: [] for name in ("observation", "mask", "margin", "equity")}
    for _ in range(len(bars) - TRAIN.start - 2):
        logits = np.where(batch.masks[0], batch.observations[0] @ weights, -np.inf)
        ranked = np.sort(logits)
        seen["observation"].append(batch.observations[0].copy())
        seen["mask"].append(batch.masks[0].copy())
        seen["margin"].append(ranked[-1] - ranked[-2])
        batch.step(np.array([np.argmax(logits)]))
        seen["equity"].append([float(batch.outcomes[0][x]) for x in ("equity", "cost", "reward")])
    return {name: np.array(values) for name, values in seen.items()}


# Each preset of costs with one of risk, and each of risk twice; all pairs take ten seconds.
PAIRS = [
    pytest.param(
        risk, costs, marks=() if at % len(RISKS) == RISKS.index(risk) else pytest.mark.slow
    )
    for risk in RISKS
    for at, costs in enumerate(COSTS)
]


@pytest.mark.parametrize(("risk", "costs"), PAIRS)
def test_price_times_a_power_of_two_gives_the_same_bits(risk: str, costs: str) -> None:
    config = _config(risk, costs)
    plain = _walk(_bars(), config)
    assert len(np.unique(plain["equity"][:, 0])) > 500
    for power in (-12, -1, 7):
        other = _walk(_scaled(_bars(), 2.0**power), config)
        for name, values in plain.items():
            assert values.tobytes() == other[name].tobytes(), (name, power)


@pytest.mark.parametrize("factor", [1e-6, 3.7, 12345.6])
def test_price_times_any_factor_gives_the_same_but_for_rounding(factor: float) -> None:
    config = _config("moderate", "us_etf")
    plain, other = _walk(_bars(), config), _walk(_scaled(_bars(), factor), config)
    assert plain["margin"].min() > 1e-6  # nothing is nearly tied, so decisions must be the same
    assert (plain["mask"] == other["mask"]).all()
    np.testing.assert_allclose(other["observation"], plain["observation"], atol=2e-6)
    np.testing.assert_allclose(other["equity"][:, 0], plain["equity"][:, 0], rtol=1e-9)


def test_price_counts_where_an_amount_is_in_dollars() -> None:
    config = _config("moderate", "us_etf")
    config = replace(config, costs=replace(config.costs, fee_per_share_usd=0.005))
    plain, other = _walk(_bars(), config), _walk(_scaled(_bars(), 2.0**-7), config)
    assert plain["equity"][-1, 0] > other["equity"][-1, 0]


def test_bars_of_another_length_give_the_same_where_every_horizon_is_fixed() -> None:
    config = _config("moderate", "synthetic")
    start, end = (getattr(_bars(), name) for name in ("start_ns", "end_ns"))
    slower = replace(
        _bars(),
        bar_seconds=300,
        start_ns=start[0] + (start - start[0]) * 5,
        end_ns=start[0] + (end - start[0]) * 5,
    )
    config = replace(
        config, risk=replace(config.risk, halt=replace(config.risk.halt, enabled=False))
    )
    plain, other = _walk(_bars(), config), _walk(slower, config)
    for name, values in plain.items():
        assert values.tobytes() == other[name].tobytes(), name
