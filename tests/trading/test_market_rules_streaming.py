"""The market-only rules bar by bar against a vectorised second implementation."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from tests.trading import vectorised_market_rules as vectorised
from tests.trading.builders import configure, hand_bars, only, quiet_table

from ppo_workbench.config import Config
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import MarketTable
from ppo_workbench.scoring.audit.market import halted, restricted
from ppo_workbench.trading.rules.market import MarketRules, market_rule_bits
from ppo_workbench.trading.rules.names import HALT, SHORT_SALE


def _everything(**changes: Any) -> Config:
    on: dict[str, Any] = {
        f"risk__{rule}__enabled": True
        for rule in ("halt", "closed_session", "session", "short_sale_restriction")
    }
    on |= {f"risk__{rule}__enabled": True for rule in ("volatility", "regime", "event")}
    return configure(
        **on,
        risk__halt__market_wide=True,
        risk__regime__blocked=["trend_high_volatility", "range_low_volatility"],
        env__flat_last_bars=3,
        env__no_open_last_bars=9,
        **changes,
    )


def _wild(seed: int, bars_per_session: int, bar_seconds: int) -> tuple[Bars, MarketTable]:
    """Return 24 sessions with crashes, holes, events and bars outside regular hours."""
    rng = np.random.default_rng(seed)
    n = 24 * bars_per_session
    moves = rng.normal(0, 0.004, n) + rng.choice([0, -0.06, 0.06], n, p=[0.98, 0.012, 0.008])
    closes = 100 * np.exp(np.cumsum(moves - moves.mean()))
    lows = closes * (1 - rng.exponential(0.01, n))
    bars = hand_bars(closes.tolist(), bars_per_session, lows.tolist(), bar_seconds)
    keep = rng.random(n) > 0.2
    events = rng.integers(-1, 20, n)
    bars = replace(
        bars,
        regular=rng.random(n) > 0.03,
        events=events,
        events_ahead=rng.permutation(events),
        missing=np.where(rng.random(n) > 0.02, rng.integers(0, 5, n), rng.integers(0, 900, n)),
    )
    rows: dict[str, Any] = {f.name: getattr(bars, f.name) for f in fields(bars)}
    kept: dict[str, Any] = {k: v[keep] for k, v in rows.items() if isinstance(v, np.ndarray)}
    bars = replace(bars, **kept)
    table = quiet_table(
        bars,
        volatility_ratio=rng.uniform(0.5, 2.0, len(bars)),
        regime=rng.integers(0, 4, len(bars)).astype(np.int8),
        large_move=rng.random(len(bars)) < 0.02,
    )
    return bars, table


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("per_session", "seconds"), [(78, 300), (130, 60), (7, 3600), (1, 86_400)])
def test_market_rules_bar_by_bar_equal_the_vectorised_ones(
    seed: int, per_session: int, seconds: int
) -> None:
    bars, table = _wild(seed, per_session, seconds)
    config = _everything()
    found = market_rule_bits(bars, table, config)
    assert np.array_equal(found, vectorised.market_rule_bits(bars, table, config))
    assert len(np.unique(found)) > 10 or per_session == 1


def test_market_rules_in_pieces_equal_those_of_the_whole() -> None:
    bars, table = _wild(7, 130, 60)
    rules, config = [], _everything()
    stream = MarketRules(config, bars.bar_seconds)
    for start, stop in ((0, 1), (1, 500), (500, 501), (501, len(bars))):
        part = {
            name: getattr(table, name)[start:stop]
            for name in ("volatility_ratio", "regime", "large_move")
        }
        rules.append(stream.take(bars.slice(start, stop), replace(table, **part)))
    assert np.array_equal(np.concatenate(rules), market_rule_bits(bars, table, config))


def _after_hours(after: float, low: float, *, silent: bool) -> Bars:
    """Return three sessions of five regular bars at 100 and two more, after hours, at `after`.

    The low of the third session's third bar is `low`; `silent` leaves the second session no
    bar in regular hours.
    """
    regular = np.tile(np.arange(7) < 5, 3)
    if silent:
        regular[7:14] = False
    closes = np.where(regular, 100.0, after)
    lows = closes.copy()
    lows[16] = low
    left = np.full(21, 200)  # long before 15:25
    return hand_bars(closes.tolist(), 7, lows.tolist(), regular=regular, bars_left=left)


@pytest.mark.parametrize("after", [94.0, 106.0])
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(("bit", "threshold"), [(SHORT_SALE, 90.0), (HALT, 93.0)])
def test_falls_count_from_the_last_regular_close_in_every_implementation(
    after: float, silent: bool, bit: int, threshold: float
) -> None:
    rules = ("short_sale_restriction", "halt")
    wide = {"risk__halt__market_wide": True, "risk__halt__luld_band_frac": 0.10}
    config = only(*rules, **wide)
    for low, rows in ((threshold, [16, 17, 18, 19, 20]), (threshold + 0.01, [])):
        bars = _after_hours(after, low, silent=silent)
        table = quiet_table(bars)
        live = MarketRules(config, bars.bar_seconds)
        pieces = [bars.slice(t, t + 1) for t in range(len(bars))]
        streamed = [live.take(part, quiet_table(part)) for part in pieces]
        found = (
            market_rule_bits(bars, table, config),
            np.concatenate(streamed),
            vectorised.market_rule_bits(bars, table, config),
        )
        for bits in found:
            assert np.flatnonzero(bits & bit).tolist() == rows
        audited = halted(bars, config.risk.halt) if bit == HALT else restricted(bars, 0.10)
        assert np.flatnonzero(audited).tolist() == rows
