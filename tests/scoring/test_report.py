import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.browser import check_page, needs_browser

from ppo_workbench.market.bars import Bars
from ppo_workbench.reports.comparison.document import arms_of, plain
from ppo_workbench.reports.comparison.shown import ReportError, ShownMarket
from ppo_workbench.reports.comparison.words import findings, headline, missing
from ppo_workbench.reports.comparison.writing import (
    ReportFiles,
    ReportInput,
    report_tables,
    write_report,
)
from ppo_workbench.scoring.figures import display_name, invalid_trades
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.rewards import REWARD_NAMES

TraceMaker = Callable[..., Trace]
BarsMaker = Callable[[Trace], Bars]
ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def trading(make_trace: TraceMaker) -> Trace:
    """Return a year of days with trades, masks and an invalid trade."""
    rng = np.random.default_rng(0)
    n = 260
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    fills = np.zeros(n)
    fills[5::20], fills[15::20] = 1.0, -1.0
    position = np.cumsum(fills)
    gains = np.concatenate(([0.0], position[:-1] * np.diff(close)))
    blocked = np.zeros((n, 3), np.int64)
    blocked[::4, 2] = 4
    violated = np.zeros(n, np.int64)
    violated[7] = 2
    return make_trace(
        100 + np.cumsum(gains), close=close, fill_quantity=fills, fill_price=close,
        blocked_by=blocked, mask=blocked == 0, violated=violated,
        regime=rng.integers(0, 4, n), reward_components=rng.normal(size=(n, len(REWARD_NAMES))),
    )  # fmt: skip


def _document() -> Any:
    return {
        "name": "demo",
        "protocol": "holdout",
        "method": "worlds",
        "setup": {
            "timesteps": 4096,
            "markets": [
                {"name": "spy", "instrument": "SPY", "years": 1.03, "looks": 2, "synthetic": False}
            ],
            "seeds": [0, 1],
        },
        "arms": [
            {"name": "masked", "title": "MaskablePPO, masked", "kind": "trained"},
            {"name": "execute", "title": "PPO, execute", "kind": "trained"},
        ],
        "figures": {
            "execute": {
                "sharpe_annual": {
                    "values": [0.1, 0.3], "median": 0.2, "median_low": -0.41, "median_high": 0.83
                }
            }
        },
        "targets": [
            {"arm": "masked", "figure": "sharpe_annual", "target": 1.5, "sense": "above",
             "value": 1.234, "low": -0.5, "high": 2.75, "verdict": "not decidable",
             "years_to_decide": 17.0, "trades_enough": True}
        ],
        "differences": [
            {"first": "masked", "second": "execute", "figure": "max_drawdown_frac",
             "estimate": -0.0321, "low": -0.05, "high": -0.014, "p_value": 0.003,
             "decided": True, "method": "worlds", "runs": 2}
        ],
        "invalid_trades": {"execute": {"impossible": 3, "regulatory": 5, "house": 1234,
                                       "rejected_impossible": 7}},
        "conclusion": ["A sentence of the comparison."],
    }  # fmt: skip


def _curves() -> dict[str, list[list[dict[str, float]]]]:
    return {
        "masked": [
            [{"step": 10 * i, "validation/sharpe_annual": seed + i} for i in range(5)]
            for seed in range(3)
        ]
    }


def _complete(document: Any, traces: dict[str, Trace]) -> dict[str, Trace]:
    """Add to a document what every one holds of its arms; return a trace for each."""
    names = [arm["name"] for arm in document["arms"]]
    for name in set(traces) - set(names):
        document["arms"].append({"name": name, "title": name, "kind": "trained"})
    longest = max(traces.values(), key=len)
    found = {arm["name"]: traces.get(arm["name"], longest) for arm in document["arms"]}
    cards = {name: [scorecard(trace).to_dict()] for name, trace in found.items()}
    document["cards"] = {"spy": cards | document.get("cards", {}).get("spy", {})}
    invalid = {name: invalid_trades(own) for name, own in cards.items()}
    document["invalid_trades"] = invalid | document.get("invalid_trades", {})
    clean = {name: {"violations": 0, "by_rule": {}, "unaudited": []} for name in found}
    document["audit"] = clean | document.get("audit", {})
    return found


def _write(
    folder: Path,
    bars_of: BarsMaker,
    traces: dict[str, Trace],
    document: Any = None,
    curves: dict[str, Any] | None = None,
    title: str = "Demo",
) -> ReportFiles:
    longest = max(traces.values(), key=len)
    document = document or _document()
    found = _complete(document, traces)
    return write_report(ReportInput(document, found, bars_of(longest), curves or {}), folder, title)


def _bare(files: ReportFiles) -> str:
    """Return the page without plotly.js, which is full of strings that look like anything."""
    page = files.page.read_text()
    bare, count = re.subn(r'<script id="plotly">.*?</script>', "", page, flags=re.DOTALL)
    assert count == 1
    return bare


def _words(files: ReportFiles) -> str:
    body = re.sub(r"<(script|style).*?</\1>", " ", _bare(files), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def _record(files: ReportFiles) -> dict[str, Any]:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    record = json.loads(files.record.read_text(), parse_constant=refuse)
    assert isinstance(record, dict)
    return record


def _figures(files: ReportFiles) -> dict[str, Any]:
    found = re.search(r'<script id="figures"[^>]*>(.*?)</script>', _bare(files), re.DOTALL)
    assert found is not None
    figures = json.loads(found[1])
    assert isinstance(figures, dict)
    return figures


def _cell(files: ReportFiles, arm: str, figure: str) -> str:
    pattern = rf'data-arm-name="{arm}" data-figure="{figure}"[^>]*>(.*?)</td>'
    found = re.search(pattern, _bare(files), re.DOTALL)
    assert found is not None
    return re.sub(r"<[^>]+>", " ", found[1])


def test_report_metric_table_shows_the_numbers_of_the_document(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    files = _write(tmp_path, bars_of, {"masked": trading}, _document())
    judged = " ".join(_cell(files, "masked", "sharpe_annual").split())
    assert judged == "1.23 -0.50 to 2.75 not decidable: 17 years would decide"
    summary = " ".join(_cell(files, "execute", "sharpe_annual").split())
    assert summary == "0.20 -0.41 to 0.83"


def test_report_without_a_summary_shows_the_scorecard(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    files = _write(tmp_path, bars_of, {"masked": trading}, _document() | {"targets": []})
    card = scorecard(trading)
    cells = _record(files)["tables"]["metrics"][0]["figures"]
    assert cells["max_drawdown_frac"]["value"] == card.max_drawdown_frac
    assert cells["sharpe_annual"]["low"] == card.sharpe_low_95
    assert _cell(files, "masked", "win_rate_frac").strip() == f"{100 * card.win_rate_frac:.1f} %"


def test_report_differences_invalid_trades_and_looks_are_on_the_page(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    words = _words(_write(tmp_path, bars_of, {"masked": trading}, _document()))
    assert "-3.2 % points -5.0 % to -1.4 % points" not in words  # the interval names its unit once
    assert "-3.2 % points -5.0 to -1.4 % points p 0.003 decided over 2 markets" in words
    assert "PPO, execute 3 5 1,234 7 - - 0" in words
    assert "This is test access 2 to these dates of SPY" in words
    assert "A sentence of the comparison." in words


def test_report_equity_ends_at_the_trace_s_growth_and_deepest_drawdown(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    files = _write(tmp_path, bars_of, {"masked": trading}, _document())
    growth, falls = _figures(files)["equity"]["data"][:2]
    assert growth["y"][-1] == pytest.approx(trading.equity_usd[-1] / 100, rel=1e-5)
    assert -min(falls["y"]) / 100 == pytest.approx(scorecard(trading).max_drawdown_frac, rel=1e-5)


def _stress(trace: Trace, name: str) -> Any:
    card = scorecard(trace).to_dict()
    scenarios = {f"costs_x{k}": {"change": name, "figures": card} for k in (1, 2)}
    even = {"cost_bps": None, "verdict": name, "configured_bps": 1.0, "multiple_of_configured": 1.5}
    return {
        "policy": name,
        "scenarios": {**scenarios, name: scenarios["costs_x1"]},
        "break_even": even,
    }


def test_report_escapes_every_text_it_is_given(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    document = _document()
    document["arms"].append({"name": ATTACK, "title": ATTACK, "kind": ATTACK})
    document["conclusion"] = [ATTACK]
    document["setup"]["markets"][0] |= {"name": ATTACK, "instrument": ATTACK}
    document["differences"][0] |= {"second": ATTACK, "method": ATTACK, "figure": ATTACK}
    document["selection"] = {ATTACK: ATTACK}
    document["stress"] = _stress(trading, ATTACK)
    document["audit"] = {"masked": {"violations": 1, "by_rule": {ATTACK: 1}, "unaudited": [ATTACK]}}
    curves = {ATTACK: [[{"step": 0, ATTACK: 1.0}, {"step": 1, ATTACK: 2.0}]]}
    hostile = replace(trading, action_names=(ATTACK, "HOLD", "BUY"), rule_names=(ATTACK,) * 3)
    files = _write(
        tmp_path, bars_of, {ATTACK: hostile, "masked": trading}, document, curves, ATTACK
    )
    bare = _bare(files)
    assert "<script>alert" not in bare
    assert "<img" not in bare
    # plotly reads a little markup in texts, so they are escaped in figures too.
    assert "<" not in json.dumps(_figures(files)).replace("<extra></extra>", "")
    assert all(path.parent == tmp_path for path in files.traces)


def test_report_reaches_for_nothing_outside(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    files = _write(tmp_path, bars_of, {"masked": trading}, _document(), _curves())
    bare, page = _bare(files), files.page.read_text()
    assert not re.search(r"https?:|//cdn|@import|url\(", bare)
    assert re.findall(r"<(?:link|img|iframe|object|embed)\b|\ssrc=", bare) == []
    assert "default-src 'none'" in page
    assert page.count('<script id="plotly">') == 1
    assert files.page.stat().st_size < 6e6


def test_report_of_one_model_on_a_few_days_says_what_is_missing(
    tmp_path: Path, bars_of: BarsMaker, make_trace: TraceMaker
) -> None:
    document = _document() | {"kind": "model", "arms": []}
    for part in ("figures", "targets", "differences", "invalid_trades"):
        del document[part]
    words = _words(_write(tmp_path, bars_of, {"only": make_trace([100, 101, 99])}, document))
    assert "only on holdout: not shown to earn anything" in words
    assert "paired differences" in words
    assert "training curves" in words


@pytest.mark.parametrize(
    "equity",
    [[100.0], [100.0] * 30, [50.0, 10.0, -5.0, -5.0], [100.0, 0.0, 0.0]],
    ids=["one session", "flat", "debt", "ruin"],
)
def test_report_of_degenerate_arms_is_written_with_finite_numbers(
    tmp_path: Path, bars_of: BarsMaker, make_trace: TraceMaker, trading: Trace, equity: list[float]
) -> None:
    short = make_trace(equity)
    files = _write(tmp_path, bars_of, {"masked": trading, "odd": short}, _document(), _curves())
    table = _record(files)["tables"]["arms"]["odd"]
    assert table["trips"]["count"] == 0
    assert table["whole"]["profit_usd"] == pytest.approx(equity[-1] - 100)
    assert "odd closed no round trip" in _words(files)


@pytest.mark.parametrize(
    "part", ["figures", "targets", "differences", "stress", "seeds", "selection"]
)
@pytest.mark.parametrize("value", [None, {}, [], "absent"])
def test_report_tables_tolerate_any_part_that_may_be_missing(
    bars_of: BarsMaker, trading: Trace, part: str, value: object
) -> None:
    document = _document() | {part: value}
    if value == "absent":
        del document[part]
    traces = _complete(document, {"masked": trading})
    arms, shown = arms_of(plain(document)), ShownMarket(bars_of(trading), traces)
    assert report_tables(document, arms, shown)["metrics"]
    assert headline(document, arms)
    assert isinstance(findings(document, arms) + missing(document, True), list)


def test_report_refuses_a_trace_of_other_bars(
    tmp_path: Path, bars_of: BarsMaker, make_trace: TraceMaker, trading: Trace
) -> None:
    other = make_trace([100.0] * 3, end_ns=trading.end_ns[:3] + 1)
    nothing: Any = {}
    source = ReportInput(nothing, {"masked": other}, bars_of(trading), {})
    with pytest.raises(ReportError, match=r"row 0 ends at .*; give the bars that were traded"):
        write_report(source, tmp_path, "x")


def test_report_embeds_a_small_trace_and_writes_it_beside(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    files = _write(tmp_path, bars_of, {"masked": trading})
    found = re.search(r'href="data:application/vnd.apache.parquet;base64,([^"]+)"', _bare(files))
    assert found is not None
    inside = pd.read_parquet(io.BytesIO(base64.b64decode(found[1])))
    pd.testing.assert_frame_equal(inside, pd.read_parquet(files.traces[0]))
    assert inside["equity_usd"].tolist() == trading.equity_usd.tolist()


def test_report_links_a_trace_that_is_too_large_for_the_page(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppo_workbench.reports.comparison.writing.MOST_EMBEDDED_BYTES", 1000)
    files = _write(tmp_path, bars_of, {"a/b": trading})
    assert files.traces[-1].name == "trace-a-b.parquet"
    assert 'href="trace-a-b.parquet"' in _bare(files)
    assert "base64" not in _bare(files)


@needs_browser
def test_report_fits_screen_and_phone_with_its_equity_in_the_first_900_pixels(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    found = check_page(_long_report(tmp_path, bars_of, trading).page, tmp_path)
    # Equity, equal volatility, curves, masks, rewards, candles.
    assert found[1280]["plots"] == 6
    assert "of 13" in found[1280]["words"]  # the trade list


def _long_report(folder: Path, bars_of: BarsMaker, trading: Trace) -> ReportFiles:
    """Write a report with ten arms, as many figures, and most differences undecided."""
    document = _document()
    names = [f"masked_variation_{i}_of_a_kind" for i in range(8)]
    document["arms"] += [
        {"name": name, "title": display_name(name), "kind": "trained"} for name in names
    ]
    document["differences"] += [
        {"first": "masked", "second": name, "figure": figure, "estimate": 0.1, "low": None,
         "high": None, "p_value": None, "decided": False, "method": "worlds", "runs": 2}
        for name in names
        for figure in ("sharpe_annual", "calmar", "win_rate_frac", "n_trades")
    ]  # fmt: skip
    return _write(folder, bars_of, {"masked": trading, names[0]: trading}, document, _curves())


def test_report_names_variants_for_a_reader_and_folds_what_has_no_interval(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    files = _long_report(tmp_path, bars_of, trading)
    words, bare = _words(files), _bare(files)
    assert "MaskablePPO, variation 3 of a kind" in words
    assert "masked_variation" not in words
    assert "no interval" not in words
    folded = re.findall(r"<details>.*?</details>", bare, re.DOTALL)
    assert any("32 differences without an interval" in part for part in folded)
    open_words = re.sub(r"<details>.*?</details>", "", bare, flags=re.DOTALL)
    assert "MaskablePPO, masked &minus; PPO, execute" in open_words
    assert "MaskablePPO, masked &minus; MaskablePPO, variation" not in open_words


def test_report_gives_no_win_rate_to_who_never_trades(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace, make_trace: TraceMaker
) -> None:
    idle = make_trace([100.0] * 260, close=trading.close)
    document = _document()
    document["cards"] = {"spy": {"execute": [scorecard(idle).to_dict()]}}
    row = document["differences"][0]
    document["differences"].append(row | {"figure": "win_rate_frac"})
    document["targets"].append(
        {"arm": "execute", "figure": "win_rate_frac", "value": 0.0, "low": 0.0, "high": 0.0}
    )
    files = _write(tmp_path, bars_of, {"masked": trading, "execute": idle}, document)
    assert _cell(files, "execute", "win_rate_frac").strip() == "-"
    tables = _record(files)["tables"]
    assert [group["figure"] for group in tables["differences"]] == ["max_drawdown_frac"]


def test_report_gives_no_interval_to_a_single_value(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    document = _document()
    same = {"values": [0.4, 0.4], "median": 0.4, "median_low": 0.4, "median_high": 0.4}
    odd = {"values": [0.4, 0.9], "median": 0.6, "median_low": -0.3, "median_high": 1.4}
    document["figures"]["execute"] |= {"calmar": same, "win_rate_frac": odd}
    files = _write(tmp_path, bars_of, {"masked": trading}, document)
    assert _cell(files, "execute", "calmar").strip() == "0.40"
    words = " ".join(_cell(files, "execute", "win_rate_frac").split())
    assert words == "60.0 % 0.0 to 100.0 %"  # no share lies beyond


def test_report_of_runs_on_the_same_days_takes_the_interval_over_days(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    document = _document() | {"method": "days and seeds"}
    document["figures"]["execute"]["sharpe_annual"] |= {"mean": 0.25, "low": -1.5, "high": 2.0}
    files = _write(tmp_path, bars_of, {"masked": trading}, document)
    assert " ".join(_cell(files, "execute", "sharpe_annual").split()) == "0.25 -1.50 to 2.00"


def test_headline_of_one_model_says_what_chance_may_explain(
    tmp_path: Path, bars_of: BarsMaker, trading: Trace
) -> None:
    difference = {"first": "masked", "figure": "sharpe_annual", "estimate": -1.0}
    difference |= {"p_value": None, "method": "days and seeds", "runs": 1}
    document = {
        "kind": "model",
        "method": "days and seeds",
        "setup": _document()["setup"],
        "conclusion": [],
        "protocol": "validation",
        "arms": [
            {"name": "masked", "title": "mine", "kind": "trained"},
            {"name": "threshold", "title": "tuned threshold rule", "kind": "yardstick"},
            {"name": "buy-and-hold", "title": "buy and hold", "kind": "yardstick"},
        ],
        "figures": {
            "masked": {"sharpe_annual": {"values": [0.5], "mean": 0.5, "low": -1.0, "high": 2.0}}
        },
        "differences": [
            difference | {"second": "threshold", "low": -2.0, "high": -0.1, "decided": True},
            difference | {"second": "buy-and-hold", "low": -2.0, "high": 0.1, "decided": False},
        ],
    }
    files = _write(tmp_path, bars_of, {"masked": trading}, document)
    assert _record(files)["headline"] == (
        "mine on validation: not shown to earn anything: Sharpe ratio 0.50 (-1.00 to 2.00) may be "
        "chance; worse than tuned threshold rule and not told apart from buy and hold."
    )
