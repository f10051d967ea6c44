"""A comparison as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppo_workbench.scoring.annual import years_of
from ppo_workbench.scoring.metrics import SEVERITIES
from ppo_workbench.scoring.page import assemble_page
from ppo_workbench.scoring.plots import MONTHS
from ppo_workbench.scoring.plots import REGIME_NAMES as REGIMES
from ppo_workbench.scoring.report_candles import candle_data
from ppo_workbench.scoring.report_curves import Curves, curve_keys
from ppo_workbench.scoring.report_document import (
    Arm,
    Document,
    figure_title,
    interval_text,
    number,
    part,
    primary,
    rows,
    shown,
    unit_of,
)
from ppo_workbench.scoring.report_figures import REGIME_COLOURS, cost_figure, report_figures
from ppo_workbench.scoring.report_tables import METRICS, MOST_TRIPS, PROMISED
from ppo_workbench.scoring.report_words import findings, headline, looks, looks_counted, missing
from ppo_workbench.scoring.report_world import World

TEMPLATE = Path(__file__).with_name("report.html.jinja")
SCRIPT = Path(__file__).with_name("report.js")
SHOWN_FINDINGS = 8  # the rest is folded
STRESS_KEYS = (
    *("sharpe_annual", "max_drawdown_frac", "annual_return_frac", "win_rate_frac"),
    *("n_trades", "cost_bps_of_turnover"),
)


@dataclass(frozen=True)
class Link:
    """A trace to download: `href` is a data URI where the page holds the file itself."""

    title: str
    file: str
    href: str
    size: str
    embedded: bool


def render_report(
    title: str,
    document: Document,
    arms: Sequence[Arm],
    world: World,
    curves: Curves,
    tables: Mapping[str, Any],
    links: Sequence[Link],
) -> str:
    """Return the page; it makes no request.  All texts of the input are escaped.

    Args:
        title: What the page is about.
        document: The comparison's document as plain JSON values.
        arms: Its arms, and those that only have traces or curves.
        world: The shown world.
        curves: Training curves by arm.
        tables: What `report.report_tables` made of the same input.
        links: Traces to download.
    """
    traced = [arm for arm in arms if arm.name in world.traces]
    figures = report_figures(world, arms, curves)
    for index, table in enumerate(tables["stress"]):
        drawn = cost_figure(table)
        if drawn is not None:
            figures[f"cost@{index}"] = drawn
    return assemble_page(
        TEMPLATE,
        figures,
        title=title,
        links=links,
        traced=traced,
        curve_names=curve_keys(curves),
        missing=missing(document, arms, [arm.name for arm in traced], bool(curve_keys(curves))),
        **_words(document, arms, world),
        **_tables(document, tables, traced),
        **_charts(world, tables, traced),
        **_formats(),
    )


def _words(document: Document, arms: Sequence[Arm], world: World) -> dict[str, Any]:
    """Return the sentences of the page, and the arm that they are about."""
    chosen = primary(arms, document)
    return {
        "headline": headline(document, arms),
        "looks": looks(document),
        "looked_before": looks_counted(document),
        "findings": findings(document, arms),
        "shown_findings": SHOWN_FINDINGS,
        "setup": _setup(document),
        "years": _years(document, world),
        "is_test": _is_test(document),
        "world": _world_words(world),
        "chosen": chosen.name if chosen else "",
    }


def _tables(document: Document, tables: Mapping[str, Any], traced: Sequence[Arm]) -> dict[str, Any]:
    return {
        "metrics": tables["metrics"],
        "differences": tables["differences"],
        "statistics": _statistics(document),
        "invalid": tables["invalid_trades"],
        "masks": [tables["masks"][arm.name] for arm in traced],
        "details": tables["arms"],
        "capped": MOST_TRIPS if _is_capped(tables["arms"]) else 0,
        "stress": tables["stress"],
        "stress_lines": _lines(part(document, "stress")),
    }


def _charts(world: World, tables: Mapping[str, Any], traced: Sequence[Arm]) -> dict[str, Any]:
    """Return what the page's script draws, arms by their place in `traced`."""
    from markupsafe import Markup

    candles = candle_data(world)
    return {
        "candles": candles,
        "embedded_details": {
            "candles": candles | {"arms": [candles["arms"][arm.name] for arm in traced]},
            "actions": [list(world.traces[arm.name].action_names) for arm in traced],
            "trips": [tables["arms"][arm.name]["trips"]["columns"] for arm in traced],
        },
        "report_js": Markup(SCRIPT.read_text(encoding="utf-8")),
    }


def _formats() -> dict[str, Any]:
    """Return keys, headings and how numbers are shown."""
    return {
        "metric_keys": METRICS,
        "metric_titles": {key: figure_title(key) for key in METRICS},
        "units": {key: unit_of(key) for key in METRICS},
        "promised": PROMISED,
        "severities": SEVERITIES,
        "stress_keys": STRESS_KEYS,
        "regimes": list(zip(REGIMES, REGIME_COLOURS, strict=True)),
        "months": MONTHS,
        "break_even": _break_even_words,
        "shown": shown,
        "interval_text": interval_text,
        "titles": figure_title,
        "unit_of": unit_of,
    }


def _is_capped(details: Mapping[str, Any]) -> bool:
    return any(detail["trips"]["count"] > MOST_TRIPS for detail in details.values())


def _setup(document: Document) -> str:
    """Return one line on how the comparison was made, empty where nothing is known."""
    setup = part(document, "setup")
    words = []
    if document.get("preset"):
        words.append(f"preset {document['preset']}")
    if document.get("protocol"):
        words.append(str(document["protocol"]))
    if number(setup, "timesteps") is not None:
        words.append(f"{number(setup, 'timesteps'):,.0f} timesteps a training")
    seeds = setup.get("seeds")
    if isinstance(seeds, list) and seeds:
        words.append(f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}")
    for market in rows(setup, "markets")[:4]:
        kind = "synthetic market" if market.get("synthetic") else "market"
        name = market.get("name") or market.get("instrument")
        start, stop = (str(market.get(key) or "")[:10] for key in ("test_start", "test_stop"))
        words.append(f"{kind} {name}{f', test {start} to {stop}' if start and stop else ''}")
    if len(rows(setup, "markets")) > 4:
        words.append(f"and {len(rows(setup, 'markets')) - 4} more markets")
    for key, name in (("created_utc", "written"), ("git_commit", "commit")):
        if document.get(key):
            words.append(f"{name} {document[key]}")
    return "; ".join(words)


def _is_test(document: Document) -> bool:
    markets = rows(part(document, "setup"), "markets")
    return not any(number(market, "looks") == 0 for market in markets)


def _years(document: Document, world: World) -> str:
    markets = rows(part(document, "setup"), "markets")
    # The first names the market that the table is about; others are controls.
    own = [market for market in markets if market.get("name") == markets[0].get("name")]
    known = [number(market, "years") for market in own]
    years = [value for value in known if value is not None]
    if not years and world.traces:
        trace = max(world.traces.values(), key=len)
        years = [years_of(len(trace.session_ends()), trace.sessions_per_year)]
    if not years:
        return ""
    each = f" in each of {len(years)} worlds" if len(years) > 1 else ""
    return f"{sum(years) / len(years):.1f} years{each}"


def _world_words(world: World) -> str:
    first, last = world.period
    return f"Shown world: {world.bars.instrument}, {first} to {last}"


def _statistics(document: Document) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the parts that have no table of their own as lines of key and value."""
    named = {"selection": "The best of several arms", "seeds": "Statistics over seeds"}
    found = [(title, _lines(part(document, key))) for key, title in named.items()]
    return [(title, lines) for title, lines in found if lines]


def _lines(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(values, Mapping):
        return [
            line
            for key, value in values.items()
            for line in _lines(value, f"{prefix}, {key}" if prefix else str(key))
        ]
    if isinstance(values, list):
        return [(prefix, ", ".join(_brief(value) for value in values))]
    return [(prefix.replace("_", " "), _brief(values))]


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _break_even_words(even: Mapping[str, Any]) -> str:
    cost, own = number(even, "cost_bps"), number(even, "configured_bps")
    if cost is None:
        return f"Break-even cost: {even.get('verdict') or 'not known'}."
    multiple = number(even, "multiple_of_configured")
    times = f", {multiple:.2f} times" if multiple is not None else ""
    beside = f"{times} the configured {own:.2f} bps" if own is not None else ""
    return f"Break-even cost: {cost:.2f} bps of notional a side{beside}."
