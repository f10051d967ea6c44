"""What stands first on a page: three figures with their intervals, beside those of rivals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ppo_workbench.scoring.report_document import (
    Arm,
    Document,
    Estimate,
    figure_title,
    interval_text,
    shown,
    target_of,
    told_differences,
    unit_of,
)

FIGURES = ("sharpe_annual", "max_drawdown_frac", "win_rate_frac")
MOST_RIVALS = 2
CSS = {"": "", "met": "met", "missed": "missed"}


@dataclass(frozen=True)
class Tile:
    """One figure of the first screen.

    Attributes:
        title: What it is.
        value: As a reader reads it.
        interval: Its interval in words, empty where there is none.
        verdict: What a target says of it, empty without one.
        css: Class of the verdict: "met", "missed" or "open".
        beside: The same figure of others, a line each.
    """

    title: str
    value: str
    interval: str = ""
    verdict: str = ""
    css: str = ""
    beside: tuple[str, ...] = ()


def report_tiles(
    document: Document, arms: Sequence[Arm], metrics: Sequence[Mapping[str, Any]], chosen: str
) -> list[Tile]:
    """Return the three figures of the chosen variant.

    Args:
        document: The comparison's document.
        arms: Its variants and reference policies.
        metrics: `report_tables.metric_table` of the same input.
        chosen: The variant that the page is about.
    """
    found = {row["arm"]: row for row in metrics}
    if chosen not in found:
        return []
    rivals = _rivals(document, arms, chosen)
    return [_tile(document, found, chosen, rivals, figure) for figure in FIGURES]


def _tile(
    document: Document,
    metrics: Mapping[str, Mapping[str, Any]],
    chosen: str,
    rivals: Sequence[Arm],
    figure: str,
) -> Tile:
    own = Estimate(**metrics[chosen]["figures"][figure])
    unit = unit_of(figure)
    beside = [
        f"{arm.title}: {shown(metrics[arm.name]['figures'][figure]['value'], unit)}"
        for arm in rivals
        if arm.name in metrics and metrics[arm.name]["figures"][figure]["value"] is not None
    ]
    span = interval_text(own.low, own.high, unit)
    return Tile(
        title=figure_title(figure),
        value=shown(own.value, unit),
        interval=f"95 % interval {span}" if span else own.basis if own.value is None else "",
        verdict=_verdict(document, chosen, figure, own),
        css=CSS.get(own.verdict, "open"),
        beside=tuple(beside),
    )


def _verdict(document: Document, chosen: str, figure: str, own: Estimate) -> str:
    if not own.verdict:
        return ""
    target = target_of(document, chosen, figure)
    sense = "below" if target.get("sense") == "below" else "above"
    why = ", trades too little" if target.get("trades_enough") is False else ""
    return f"target {sense} {shown(target.get('target'), unit_of(figure))}: {own.verdict}{why}"


def _rivals(document: Document, arms: Sequence[Arm], chosen: str) -> list[Arm]:
    """Return whom the chosen variant is compared with, trained ones first."""
    named: list[str] = []
    for row in told_differences(document):
        if chosen in (row.get("first"), row.get("second")):
            named.append(str(row["second" if row.get("first") == chosen else "first"]))
    rivals = [arm for arm in arms if arm.name in named]
    return sorted(rivals, key=lambda arm: arm.kind != "trained")[:MOST_RIVALS]
