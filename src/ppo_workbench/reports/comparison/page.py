"""A comparison as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from ppo_workbench.reports.comparison.candles import candle_data
from ppo_workbench.reports.comparison.curves import Curves, curve_keys, curve_title
from ppo_workbench.reports.comparison.document import Arm, primary
from ppo_workbench.reports.comparison.figures import (
    REGIME_COLOURS,
    cost_figure,
    is_faint,
    report_figures,
)
from ppo_workbench.reports.comparison.shown import ShownMarket
from ppo_workbench.reports.comparison.tables import (
    METRICS,
    MOST_TRIPS,
    PROMISED,
    DifferenceGroup,
    MetricRow,
    ReportTables,
)
from ppo_workbench.reports.comparison.tiles import FIGURES, report_tiles
from ppo_workbench.reports.comparison.words import accesses, findings, headline, missing
from ppo_workbench.reports.page import assemble_page
from ppo_workbench.reports.plots import MONTHS
from ppo_workbench.reports.plots import REGIME_NAMES as REGIMES
from ppo_workbench.scoring.documents import BreakEvenPart, Document, MarketPart
from ppo_workbench.scoring.figures import (
    display_name,
    figure_title,
    interval_text,
    shown,
    spoken,
    unit_of,
)
from ppo_workbench.scoring.metrics import SEVERITIES

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
SCRIPT = Path(__file__).with_name("report.js")
SHOWN_FINDINGS = 8  # the rest is folded
FIRST_FIGURES = 3  # with their differences, the rest is folded
STRESS_KEYS = (
    *("sharpe_annual", "max_drawdown_frac", "annual_return_frac", "win_rate_frac"),
    *("n_trades", "cost_bps_of_turnover"),
)


class Download(TypedDict):
    """A trace to download; `href` is a data URI where the page holds the file itself."""

    title: str
    file: str
    href: str
    size: str
    embedded: bool


def render_report(
    title: str,
    document: Document,
    arms: Sequence[Arm],
    market: ShownMarket,
    curves: Curves,
    tables: ReportTables,
    links: Sequence[Download],
) -> str:
    """Return the page; it makes no request.  All texts of the input are escaped.

    Args:
        title: What the page is about.
        document: Of a comparison or of a single model, as plain JSON values.
        arms: Its arms.
        market: The shown one.
        curves: Training curves by arm.
        tables: What `writing.report_tables` made of the same input.
        links: Traces to download.
    """
    from markupsafe import Markup

    chosen, stress = primary(arms).name, document.get("stress")
    figures = report_figures(market, arms, curves)
    if stress:
        figures["cost"] = cost_figure(stress)
    measured, unmeasured = _by_interval(tables["differences"])
    candles, keys = candle_data(market), curve_keys(curves)
    details = [tables["arms"][arm.name] for arm in arms]
    markets = document["setup"]["markets"]
    return assemble_page(
        _TEMPLATE,
        figures,
        # Words
        title=title,
        headline=headline(document, arms),
        accesses=accesses(document),
        findings=findings(document, arms),
        shown_findings=SHOWN_FINDINGS,
        setup=_setup(document),
        years=_years(markets),
        is_test=all(each["looks"] for each in markets),
        market=f"Shown market: {market.bars.instrument}, {' to '.join(market.period)}",
        missing=missing(document, bool(keys)),
        # Tables
        arms=arms,
        chosen=chosen,
        tiles=report_tiles(document, arms, chosen),
        metrics=tables["metrics"],
        over=_over(tables["metrics"]),
        differences=measured,
        unmeasured=unmeasured,
        first_figures=FIRST_FIGURES,
        statistics=_statistics(document, arms),
        invalid=tables["invalid_trades"],
        masks=[tables["masks"][arm.name] for arm in arms],
        details=details,
        capped=MOST_TRIPS if any(each["trips"]["count"] > MOST_TRIPS for each in details) else 0,
        stress=stress,
        break_even=_break_even_words(stress["break_even"]) if stress else "",
        links=links,
        # Charts
        faint=[arm.title for arm in arms if is_faint(arm)],
        curve_names=[curve_title(key) for key in keys],
        candles=candles,
        embedded_details={
            "candles": {**candles, "arms": [candles["arms"][arm.name] for arm in arms]},
            "actions": [list(market.traces[arm.name].action_names) for arm in arms],
            "trips": [each["trips"]["columns"] for each in details],
        },
        report_js=Markup(SCRIPT.read_text(encoding="utf-8")),
        # Keys, headings and how numbers are shown
        metric_keys=METRICS,
        promised=PROMISED,
        severities=SEVERITIES,
        stress_keys=STRESS_KEYS,
        regimes=list(zip(REGIMES, REGIME_COLOURS, strict=True)),
        months=MONTHS,
        shown=shown,
        interval_text=interval_text,
        titles=figure_title,
        names=display_name,
        unit_of=unit_of,
    )


def _over(metrics: Sequence[MetricRow]) -> str:
    """Say what the intervals of the figures are over, and which figures' are over another."""
    found: dict[str, list[str]] = {}
    for key, cell in ((key, cell) for row in metrics for key, cell in row["figures"].items()):
        if cell["low"] is not None and key not in found.setdefault(cell["over"], []):
            found[cell["over"]].append(key)
    first, *others = sorted(found, key=lambda over: -len(found[over])) or [""]
    named = (f"{', '.join(map(spoken, found[over]))}: {over}" for over in others)
    return first + "".join(f" ({words})" for words in named)


def _by_interval(
    groups: Sequence[DifferenceGroup],
) -> tuple[list[DifferenceGroup], list[DifferenceGroup]]:
    """Part the differences into those with an interval, the most asked first, and the others."""
    parted: list[list[DifferenceGroup]] = [
        [
            {**group, "rows": rows, "count": len(rows)}
            for group in groups
            if (rows := [row for row in group["rows"] if row["has_interval"] is wanted])
        ]
        for wanted in (True, False)
    ]
    parted[0].sort(key=lambda g: FIGURES.index(g["figure"]) if g["figure"] in FIGURES else 9)
    return parted[0], parted[1]


def _setup(document: Document) -> str:
    """Return one line on how the comparison was made."""
    setup = document["setup"]
    seeds = setup["seeds"]
    words = [f"preset {document['preset']}"] if document.get("preset") else []
    words += [
        document["protocol"],
        f"{setup['timesteps']:,.0f} timesteps a training",
        f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}",
        *_markets(setup["markets"]),
    ]
    for key, name in (("created_utc", "written"), ("git_commit", "commit")):
        if told := document.get(key):
            words.append(f"{name} {told}")
    return "; ".join(words)


def _markets(markets: Sequence[MarketPart]) -> list[str]:
    """Say which markets were traded when, those of the same dates together."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for market in markets:
        start, stop = market.get("test_start", "")[:10], market.get("test_stop", "")[:10]
        kind = "synthetic market" if market["synthetic"] else "market"
        when = f", test {start} to {stop}" if start and stop else ""
        grouped.setdefault((kind, when), []).append(market["instrument"])
    return [
        f"{kind} {names[0]}{when}" if len(names) == 1 else f"{len(names)} {kind}s{when}"
        for (kind, when), names in grouped.items()
    ]


def _years(markets: Sequence[MarketPart]) -> str:
    # The first names the market that the table is about; others are controls.
    years = [market["years"] for market in markets if market["name"] == markets[0]["name"]]
    each = f" in each of {len(years)} markets" if len(years) > 1 else ""
    return f"{sum(years) / len(years):.1f} years{each}"


def _statistics(document: Document, arms: Sequence[Arm]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the parts that have no table of their own as lines of key and value."""
    named = {
        "selection": "The best of several arms",
        "seeds": "Statistics over seeds",
        "probability_above_zero": "Probability that the true Sharpe ratio is above 0 (PSR), by run",
    }
    titles = {arm.name: arm.title for arm in arms}
    found = [(title, _lines(document.get(key) or {}, titles)) for key, title in named.items()]
    return [(title, lines) for title, lines in found if lines]


def _lines(values: object, titles: Mapping[str, str], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten a part to lines of key and value, with the titles of the arms."""
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


def _brief(value: object, titles: Mapping[str, str]) -> str:
    return f"{value:.4g}" if isinstance(value, float) else titles.get(str(value), str(value))


def _break_even_words(even: BreakEvenPart) -> str:
    cost, own, multiple = even["cost_bps"], even["configured_bps"], even["multiple_of_configured"]
    if cost is None:
        return f"Break-even cost: {even['verdict']}."
    times = f", {multiple:.2f} times" if multiple is not None else ""
    return (
        f"Break-even cost: {cost:.2f} bps of notional a side{times} the configured {own:.2f} bps."
    )
