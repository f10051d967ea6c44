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
from ppo_workbench.scoring.report_curves import Curves, curve_keys, curve_title
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
from ppo_workbench.scoring.report_figures import (
    REGIME_COLOURS,
    cost_figure,
    is_faint,
    report_figures,
)
from ppo_workbench.scoring.report_tables import METRICS, MOST_TRIPS, PROMISED
from ppo_workbench.scoring.report_tiles import FIGURES, report_tiles
from ppo_workbench.scoring.report_words import findings, headline, looks, looks_counted, missing
from ppo_workbench.scoring.report_world import World

TEMPLATE = Path(__file__).with_name("report.html.jinja")
SCRIPT = Path(__file__).with_name("report.js")
SHOWN_FINDINGS = 8  # the rest is folded
FIRST_FIGURES = 3  # with their differences, the rest is folded
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
        curve_names=[curve_title(key) for key in curve_keys(curves)],
        missing=missing(document, arms, [arm.name for arm in traced], bool(curve_keys(curves))),
        **_words(document, arms, world),
        **_first(document, arms, tables, traced),
        **_tables(document, arms, tables),
        **_charts(world, tables, traced),
        **_formats(),
    )


def _words(document: Document, arms: Sequence[Arm], world: World) -> dict[str, Any]:
    """Return the sentences of the page, and the arm that they are about."""
    chosen = primary(arms, document)
    looked = list(zip(looks(document), looks_counted(document), strict=True))
    return {
        "headline": headline(document, arms),
        "looks_before": [text for text, again in looked if again],
        "looks_first": [text for text, again in looked if not again],
        "findings": findings(document, arms),
        "shown_findings": SHOWN_FINDINGS,
        "setup": _setup(document),
        "years": _years(document, world),
        "is_test": _is_test(document),
        "world": _world_words(world),
        "chosen": chosen.name if chosen else "",
    }


def _first(
    document: Document, arms: Sequence[Arm], tables: Mapping[str, Any], traced: Sequence[Arm]
) -> dict[str, Any]:
    """Return the figures of the first screen, and which lines of its picture begin hidden."""
    chosen = primary(arms, document)
    name = chosen.name if chosen else ""
    return {
        "tiles": report_tiles(document, arms, tables["metrics"], name),
        "faint": [arm.title for arm in traced if is_faint(arm)],
        "masks": [tables["masks"][arm.name] for arm in traced],
    }


def _tables(document: Document, arms: Sequence[Arm], tables: Mapping[str, Any]) -> dict[str, Any]:
    measured, unmeasured = _by_interval(tables["differences"])
    return {
        "metrics": tables["metrics"],
        "differences": measured,
        "unmeasured": unmeasured,
        "first_figures": FIRST_FIGURES,
        "statistics": _statistics(document, arms),
        "invalid": tables["invalid_trades"],
        "details": tables["arms"],
        "capped": MOST_TRIPS if _is_capped(tables["arms"]) else 0,
        "stress": tables["stress"],
        "stress_lines": _lines(part(document, "stress"), {arm.name: arm.title for arm in arms}),
    }


def _by_interval(
    groups: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Part the differences into those with an interval, the most asked first, and the others."""
    measured: list[dict[str, Any]] = []
    unmeasured: list[dict[str, Any]] = []
    for group in groups:
        for listed, wanted in ((measured, True), (unmeasured, False)):
            rows = [row for row in group["rows"] if row["has_interval"] is wanted]
            if rows:
                listed.append({**group, "rows": rows, "count": len(rows)})
    measured.sort(key=lambda g: FIGURES.index(g["figure"]) if g["figure"] in FIGURES else 9)
    return measured, unmeasured


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
    words += _markets(rows(setup, "markets"))
    for key, name in (("created_utc", "written"), ("git_commit", "commit")):
        if document.get(key):
            words.append(f"{name} {document[key]}")
    return "; ".join(words)


def _markets(markets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which markets were traded when, worlds of the same dates together."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for market in markets:
        start, stop = (str(market.get(key) or "")[:10] for key in ("test_start", "test_stop"))
        kind = "synthetic market" if market.get("synthetic") else "market"
        when = f", test {start} to {stop}" if start and stop else ""
        name = str(market.get("instrument") or market.get("name"))
        grouped.setdefault((kind, when), []).append(name)
    return [
        f"{kind} {names[0]}{when}" if len(names) == 1 else f"{len(names)} {kind}s{when}"
        for (kind, when), names in grouped.items()
    ]


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


def _statistics(document: Document, arms: Sequence[Arm]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the parts that have no table of their own as lines of key and value."""
    named = {"selection": "The best of several arms", "seeds": "Statistics over seeds"}
    titles = {arm.name: arm.title for arm in arms}
    found = [(title, _lines(part(document, key), titles)) for key, title in named.items()]
    return [(title, lines) for title, lines in found if lines]


def _lines(values: Any, titles: Mapping[str, str], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten a part to lines of key and value, with the titles of the variants."""
    if isinstance(values, Mapping):
        return [
            line
            for key, value in values.items()
            for line in _lines(
                value,
                titles,
                f"{prefix}, {titles.get(key, key)}" if prefix else titles.get(key, str(key)),
            )
        ]
    key = prefix.replace("_", " ")
    if isinstance(values, list):
        return [(key, "; ".join(_brief(value, titles) for value in values))]
    return [(key, _brief(values, titles))]


def _brief(value: Any, titles: Mapping[str, str]) -> str:
    return f"{value:.4g}" if isinstance(value, float) else titles.get(value, str(value))


def _break_even_words(even: Mapping[str, Any]) -> str:
    cost, own = number(even, "cost_bps"), number(even, "configured_bps")
    if cost is None:
        return f"Break-even cost: {even.get('verdict') or 'not known'}."
    multiple = number(even, "multiple_of_configured")
    times = f", {multiple:.2f} times" if multiple is not None else ""
    beside = f"{times} the configured {own:.2f} bps" if own is not None else ""
    return f"Break-even cost: {cost:.2f} bps of notional a side{beside}."
