"""What stands first on a page: three figures with their intervals, beside those of rivals."""

from collections.abc import Sequence
from dataclasses import dataclass

from ppo_workbench.reports.comparison.document import (
    SIDES,
    Arm,
    estimate,
    target_of,
    told_differences,
)
from ppo_workbench.scoring.documents import Document
from ppo_workbench.scoring.figures import Estimate, figure_title, interval_text, shown, unit_of

FIGURES = ("sharpe_annual", "max_drawdown_frac", "win_rate_frac")
MOST_RIVALS = 2
CSS = {"": "", "met": "met", "missed": "missed"}


@dataclass(frozen=True)
class Tile:
    """One figure of the first screen.

    Attributes:
        title: What it is.
        value: As a reader reads it.
        interval: Its interval and what that is over, why there is no value, or empty.
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


def figure_tile(
    figure: str, own: Estimate, beside: Sequence[str], title: str = "", verdict: str = ""
) -> Tile:
    """Return the tile of a figure of a scorecard, under another title if one is given."""
    span = interval_text(own.low, own.high, unit_of(figure))
    interval = f"{span}, 95 % interval over {own.over}" if span else ""
    return Tile(
        title=title or figure_title(figure),
        value=shown(own.value, unit_of(figure)),
        interval=interval or (own.basis if own.value is None else ""),
        verdict=verdict,
        css=CSS.get(own.verdict, "open"),
        beside=tuple(beside),
    )


def report_tiles(document: Document, arms: Sequence[Arm], chosen: str) -> list[Tile]:
    """Return the three figures of the chosen arm, beside its first rivals, trained first."""
    pairs = [{row[side] for side in SIDES} for row in told_differences(document)]
    rivals = [arm for arm in arms if arm.name != chosen and {arm.name, chosen} in pairs]
    rivals = sorted(rivals, key=lambda arm: arm.kind != "trained")[:MOST_RIVALS]
    tiles = []
    for figure in FIGURES:
        own = estimate(document, chosen, figure)
        others = {arm.title: estimate(document, arm.name, figure).value for arm in rivals}
        beside = [
            f"{title}: {shown(value, unit_of(figure))}"
            for title, value in others.items()
            if value is not None
        ]
        verdict = _verdict(document, chosen, figure, own)
        tiles.append(figure_tile(figure, own, beside, verdict=verdict))
    return tiles


def _verdict(document: Document, chosen: str, figure: str, own: Estimate) -> str:
    target = target_of(document, chosen, figure)
    if target is None or not own.verdict:
        return ""
    why = "" if target["trades_enough"] else ", trades too little"
    bound = shown(target["target"], unit_of(figure))
    return f"target {target['sense']} {bound}: {own.verdict}{why}"
