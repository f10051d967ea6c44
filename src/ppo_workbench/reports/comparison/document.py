"""Reading the document of a comparison or of one model.

A document has arms, cards, invalid trades and audits always; figures, targets, differences,
stress, selection and statistics over seeds may be missing or empty.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any, Literal

import numpy as np

from ppo_workbench.scoring.catalogue import metric_of
from ppo_workbench.scoring.documents import (
    AuditCounts,
    Card,
    Document,
    PairedDifference,
    TargetVerdict,
)
from ppo_workbench.scoring.figures import Estimate, display_name, is_told, of_card
from ppo_workbench.scoring.trace import Trace

# Of a difference.
SIDES: tuple[Literal["first", "second"], ...] = ("first", "second")
RESAMPLED = "days and seeds"  # how a document says that its runs traded the same days


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison: its key, what a reader calls it, and `trained` or `yardstick`."""

    name: str
    title: str
    kind: str


@dataclass(frozen=True)
class Comparand:
    """A policy on a page of one model.

    Attributes:
        name: Its key in the document.
        title: What a reader calls it.
        trace: What it did.
        audit: What the independent audit counted, violations by rule and what no check knows.
    """

    name: str
    title: str
    trace: Trace
    audit: AuditCounts


def plain(value: Any) -> Any:
    """Return `value` as JSON knows it: no numpy, no NaN or infinity (None), keys as text."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if isfinite(value) else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def part(document: Any, *keys: str) -> Any:
    """Return a nested part, an empty mapping where any step to it is missing."""
    for key in keys:
        document = (document or {}).get(key)
    return document or {}


def arms_of(document: Document) -> list[Arm]:
    """Return the arms in the document's order."""
    return [Arm(row["name"], row["title"], row["kind"]) for row in document["arms"]]


def primary(arms: Iterable[Arm]) -> Arm:
    """Return the arm that the report is about: the first trained one."""
    return next(arm for arm in arms if arm.kind == "trained")


def title_of(arms: Sequence[Arm], name: str) -> str:
    """Return an arm's title, its name where it is not listed."""
    return next((arm.title for arm in arms if arm.name == name), display_name(name))


def cards_of(document: Document, arm: str) -> Sequence[Card]:
    """Return an arm's flat scorecards over all seeds, of the market that the report is about."""
    return next(iter(document["cards"].values()))[arm]


def told_differences(document: Document) -> list[PairedDifference]:
    """Return the differences of figures that mean something for both of their arms."""
    return [
        row
        for row in document.get("differences") or ()
        if all(is_told(cards_of(document, row[side]), row["figure"]) for side in SIDES)
    ]


def has_interval(row: PairedDifference) -> bool:
    """Tell whether a difference has an interval: without one nothing can be decided."""
    return row["low"] is not None and row["high"] is not None


def target_of(document: Document, arm: str, figure: str) -> TargetVerdict | None:
    """Return the row of a target, None where there is none."""
    named = (row for row in document.get("targets") or () if row["arm"] == arm)
    return next((row for row in named if row["figure"] == figure), None)


def estimate(document: Document, arm: str, figure: str) -> Estimate:
    """Return the best known value of a figure: a target's, a summary's, or that of the runs."""
    cards = cards_of(document, arm)
    target = target_of(document, arm, figure)
    summary = (document.get("figures") or {}).get(arm, {}).get(figure)
    runs = len(summary["values"]) if summary else len(cards)
    over = sampled(document["method"], runs, figure) if target or summary else ""
    if not is_told(cards, figure) or (len(cards) == 1 and not (target or summary)):
        return of_card(cards[0], figure)
    if target:
        ends = _ends(target["low"], target["high"], figure)
        verdict, years = target["verdict"], target["years_to_decide"]
        return Estimate(target["value"], *ends, "as judged", over, verdict, years)
    if not summary:
        values = [card[figure] for card in cards]
        return Estimate(median(values), basis=f"median of {len(values)} runs")
    if document["method"] == RESAMPLED:  # an interval over seeds would leave out the days
        kind, value, low, high = "mean", summary["mean"], summary["low"], summary["high"]
    else:
        kind, value = "median", summary["median"]
        low, high = summary["median_low"], summary["median_high"]
    basis = f"{kind} of {runs} runs" if runs > 1 else "one run"
    return Estimate(value, *_ends(low, high, figure), basis, over)


def sampled(method: str, runs: int, figure: str) -> str:
    """Return what an interval of a figure is over, in words.

    Args:
        method: Of the document, "worlds" or "days and seeds".
        runs: Of the arm, one a seed.
        figure: Key of the metric; a win rate on the same days has Wilson's interval.
    """
    if method != RESAMPLED:
        return f"{runs} markets"
    if figure == "win_rate_frac":
        return "round trips"
    return "days" if runs == 1 else f"days and {runs} seeds"


def _ends(low: float | None, high: float | None, figure: str) -> tuple[float | None, float | None]:
    """Return an interval within what a figure can be; None where it is a single value's."""
    if low is None or high is None or low == high:
        return None, None
    return max(low, metric_of(figure).lowest), min(high, metric_of(figure).highest)
