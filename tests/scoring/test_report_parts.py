from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from ppo_workbench.market.bars import Bars
from ppo_workbench.reports.comparison.candles import candle_data, stretches
from ppo_workbench.reports.comparison.curves import curve_band, curve_keys
from ppo_workbench.reports.comparison.document import arms_of
from ppo_workbench.reports.comparison.masks import mask_history, mask_table
from ppo_workbench.reports.comparison.shown import ShownMarket, session_drawdowns, session_regimes
from ppo_workbench.reports.comparison.tables import (
    MOST_TRIPS,
    difference_table,
    invalid_table,
    trip_table,
)
from ppo_workbench.scoring.figures import invalid_trades
from ppo_workbench.scoring.trace import Trace

TraceMaker = Callable[..., Trace]
BarsMaker = Callable[[Trace], Bars]
MINUTE_NS = 60 * 10**9


@pytest.fixture
def minutes(make_trace: TraceMaker) -> Trace:
    """Return three sessions of 60 minutes from 10:00 in New York: won, lost, nothing."""
    opening = np.datetime64("2024-01-02T15:00", "ns").astype(np.int64)
    days = np.repeat(np.arange(3), 60)
    end_ns = opening + days * 86_400 * 10**9 + (np.tile(np.arange(60), 3) + 1) * MINUTE_NS
    equity = np.full(180, 100.0)
    equity[30:] += 5.0
    equity[90:] -= 2.0
    fills = np.zeros(180)
    fills[[10, 40, 70, 80, 100]] = 2.0, -2.0, -1.0, 2.0, -1.0
    blocked = np.zeros((180, 3), np.int64)
    blocked[62:65, 2], blocked[65:67, 2], blocked[61, 0] = 4, 5, 2
    return make_trace(
        equity, end_ns=end_ns, session=days, bars_per_session=60, fill_quantity=fills,
        fill_price=np.full(180, 100.0), blocked_by=blocked, regime=np.repeat([0, 1, 0], 60),
    )  # fmt: skip


def _shown_market(bars_of: BarsMaker, trace: Trace) -> ShownMarket:
    return ShownMarket(bars_of(trace), {"a": trace})


def test_candle_data_chooses_best_worst_and_most_blocked_days(
    bars_of: BarsMaker, minutes: Trace
) -> None:
    data = candle_data(_shown_market(bars_of, minutes))
    reasons = {episode["label"]: episode["reason"] for episode in data["arms"]["a"]}
    assert reasons["2024-01-02"] == "best; +5.00 %; 0 % blocked"
    assert reasons["2024-01-03"] == "worst, most blocked; -1.90 %; 10 % blocked"
    assert reasons["2024-01-04"].startswith("median")
    day = data["stretches"]["2024-01-02"]
    assert (day["time"][0], day["time"][-1]) == ("2024-01-02 10:01", "2024-01-02 11:00")
    assert day["high"][0] == pytest.approx(100.5)


def test_candle_data_tells_entries_flips_and_exits(bars_of: BarsMaker, minutes: Trace) -> None:
    data = candle_data(_shown_market(bars_of, minutes))
    fills = {episode["label"]: episode["fills"] for episode in data["arms"]["a"]}
    assert fills["2024-01-02"] == [[10, 2.0, 100.0, 0, 1], [40, -2.0, 100.0, 1, 0]]
    assert fills["2024-01-03"][:2] == [[10, -1.0, 100.0, 0, -1], [20, 2.0, 100.0, -1, 1]]


def test_candle_data_joins_bars_blocked_by_the_same_rules(
    bars_of: BarsMaker, minutes: Trace
) -> None:
    data = candle_data(_shown_market(bars_of, minutes))
    day = next(e for e in data["arms"]["a"] if e["label"] == "2024-01-03")
    assert day["blocked"] == [
        [0, 1, 1, "short sale restriction"],
        [2, 2, 4, "volatility"],
        [2, 5, 6, "capital, volatility"],
    ]


def test_stretches_of_daily_bars_are_years_and_of_long_sessions_parts(
    bars_of: BarsMaker, make_trace: TraceMaker
) -> None:
    daily = make_trace([100.0] * 500)
    found = stretches(_shown_market(bars_of, daily), daily)
    assert [piece.label for piece in found] == ["2024", "2025"]
    assert found[0].stop == found[1].start
    ends = daily.end_ns[0] + MINUTE_NS * np.arange(4000)
    long = make_trace([100.0] * 4000, session=np.zeros(4000), end_ns=ends, bars_per_session=4000)
    pieces = stretches(_shown_market(bars_of, long), long)
    assert [piece.stop - piece.start for piece in pieces] == [1500, 1500, 1000]


def test_mask_table_shares_are_of_the_decisions_of_their_column(
    bars_of: BarsMaker, minutes: Trace
) -> None:
    table = mask_table(_shown_market(bars_of, minutes), "a")
    heads = [column["name"] for column in table["columns"]]
    assert heads == ["all", "range low vol.", "trend low vol.", "10 h"]
    shares = {
        rule["name"]: dict(zip(heads, rule["shares"], strict=True)) for rule in table["rules"]
    }
    assert list(shares) == [
        "volatility", "capital", "short sale restriction", "any rule: SELL", "any rule: BUY"
    ]  # fmt: skip
    assert shares["volatility"]["all"] == pytest.approx(5 / 180)
    assert shares["volatility"]["trend low vol."] == pytest.approx(5 / 60)
    assert shares["volatility"]["range low vol."] == 0.0
    history = mask_history(_shown_market(bars_of, minutes), "a")
    assert history["dates"] == ["2024-01-02", "2024-01-03", "2024-01-04"]
    assert history["rules"]["volatility"] == pytest.approx([0, 5 / 60, 0])


def test_session_drawdowns_and_regimes_of_a_known_path(make_trace: TraceMaker) -> None:
    trace = make_trace(
        [100, 80, 120, 90, 90, 120], session=[0, 0, 0, 1, 1, 1], regime=[3, 0, 3, 1, 2, 2]
    )
    assert session_drawdowns(trace).tolist() == pytest.approx([0.2, 0.25])
    assert session_regimes(trace).tolist() == [3, 2]


def test_trip_table_keeps_the_largest_of_too_many(
    bars_of: BarsMaker, make_trace: TraceMaker
) -> None:
    count = MOST_TRIPS + 50
    fills = np.tile([1.0, -1.0], count)
    prices = np.repeat(100.0, 2 * count)
    prices[1::2] += np.arange(count)  # the last trips earn most
    trace = make_trace([100.0] * (2 * count), fill_quantity=fills, fill_price=prices)
    table = trip_table(trace, _shown_market(bars_of, trace))
    columns = table["columns"]
    assert table["count"] == count
    assert columns["profit_usd"] == [float(i) for i in range(50, count)]


def test_difference_table_places_zero_and_interval_on_one_axis() -> None:
    row: Any = {"first": "a", "figure": "calmar", "p_value": None, "decided": False}
    row |= {"method": "days and seeds", "runs": 1}
    rows = [
        row | {"second": "b", "estimate": 1.0, "low": 0.0, "high": 2.0},
        row | {"second": "c", "estimate": None, "low": None, "high": None},
    ]
    cards = {"m": {arm: [{"n_trades": 1}] for arm in "abc"}}
    document: Any = {"differences": rows, "cards": cards}
    (group,) = difference_table(document, ())
    first, second = group["rows"]
    assert group["better"] == "right"
    assert first["at"] == pytest.approx(50.0)
    assert first["over"] == "days"
    assert first["left"] == first["zero"] == second["zero"]
    assert (second["at"], second["width"]) == (None, None)


def test_invalid_table_counts_orders_and_what_the_audit_found() -> None:
    audit = {"violations": 3, "by_rule": {"flat_rule": 3}, "unaudited": ["x_y"]}
    counts = invalid_trades([{"violations/house": 2.0, "rejections/house": 5.0}] * 2)
    document: Any = {
        "arms": [{"name": "a", "title": "A", "kind": "trained"}],
        "audit": {"a": audit},
        "invalid_trades": {"a": counts},
    }
    (row,) = invalid_table(document, arms_of(document))
    assert (row["audit"], row["audit_by_rule"], row["unaudited"]) == (3, {"flat rule": 3}, ["x y"])
    assert row["executed"] == {"impossible": None, "regulatory": None, "house": 4}
    assert row["rejected"]["house"] == 10


def test_curve_band_of_equal_steps_is_student_s_interval() -> None:
    values = np.random.default_rng(0).normal(size=(6, 4))
    runs = [[{"step": s, "k": float(v)} for s, v in enumerate(row)] for row in values]
    band = curve_band(runs, "k")
    assert band is not None
    expected = ttest_1samp(values, 0.0, axis=0).confidence_interval(0.95)
    assert band.mean == pytest.approx(values.mean(axis=0))
    assert band.low == pytest.approx(expected.low)
    assert band.high == pytest.approx(expected.high)


def test_curve_band_of_one_run_has_no_interval_and_of_none_is_none() -> None:
    band = curve_band([[{"step": 0, "k": 1.0}, {"step": 5, "k": float("nan")}]], "k")
    assert band is not None
    assert band.steps.tolist() == [0.0]
    assert np.isnan(band.low).all()
    assert curve_band([[{"step": 0, "other": 1.0}]], "k") is None


def test_curve_band_of_other_steps_interpolates_within_each_run() -> None:
    short = [{"step": s, "k": float(s)} for s in (0, 50)]
    long = [{"step": s, "k": 2.0 * s} for s in (0, 40, 100)]
    band = curve_band([short, long], "k")
    assert band is not None
    half = band.steps <= 50
    assert band.mean[half] == pytest.approx(1.5 * band.steps[half])
    assert band.mean[~half] == pytest.approx(2.0 * band.steps[~half])
    assert np.isnan(band.low[~half]).all()


def test_curve_keys_start_with_what_is_asked_first() -> None:
    run = [{"step": s, "zz": 1.0, "train/approx_kl": 1.0, "validation/sharpe_annual": 1.0}
           for s in range(2)]  # fmt: skip
    once = [{"step": 0, "once": 1.0}]
    keys = curve_keys({"a": [run, once]})
    assert keys == ["validation/sharpe_annual", "train/approx_kl", "zz"]
