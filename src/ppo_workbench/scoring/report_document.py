"""Reading the document of a comparison or of one model, and how its figures are written.

A document has arms, cards, invalid trades and audits always; figures, targets, differences,
stress, selection and statistics over seeds may be missing or empty.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any

import numpy as np

from ppo_workbench.scoring.catalogue import COUNT, FRACTION, RATIO, metric

Document = Mapping[str, Any]

POINTS = "points"  # a difference of fractions
# What a reader calls the variants and reference policies of a comparison.
NAMES = {
    "masked": "MaskablePPO",
    "maskable_ppo": "MaskablePPO",
    "ppo": "PPO",
    "reject": "PPO, forbidden orders rejected",
    "execute": "PPO, forbidden orders executed",
    "names": "MaskablePPO, second names of HOLD masked alone",
    "bits": "PPO, forbidden orders rejected, mask observed",
    "penalty": "PPO, forbidden orders rejected and penalised",
    "all_true": "MaskablePPO without a mask (control)",
    "threshold": "tuned threshold rule",
    "ridge": "ridge forecast",
    "boosting": "gradient boosting forecast",
    "reference": "reference filter (knows the parameters)",
    "oracle": "oracle (knows the edge)",
    "buy-and-hold": "buy and hold",
    "random-legal": "random legal actions",
    "flat": "flat (never trades)",
}
KNOWING = ("oracle", "reference")  # reference policies that know what made the bars: no rivals
SIDES = ("first", "second")  # of a difference
RESAMPLED = "days and seeds"  # how a document says that its runs traded the same days


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison: its key, what a reader calls it, and `trained` or `yardstick`."""

    name: str
    title: str
    kind: str


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, None where it is not known.

    Attributes:
        basis: What the value is, such as "median of 10 runs".
        over: What the interval is over, such as "days" or "20 markets".
        verdict: "met", "missed", "not decidable", or "" without a target.
        years_to_decide: Test years that would decide an undecidable target.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    basis: str = ""
    over: str = ""
    verdict: str = ""
    years_to_decide: float | None = None


def display_name(name: str) -> str:
    """Return what a reader calls a variant or a reference policy that has no title of its own.

    >>> display_name("masked_no_variance")
    'MaskablePPO, no variance'
    """
    known = [key for key in NAMES if name == key or name.startswith(f"{key}_")]
    if not known:
        return name.replace("_", " ")
    longest = max(known, key=len)
    rest = name[len(longest) + 1 :].replace("_", " ")
    return f"{NAMES[longest]}, {rest}" if rest else NAMES[longest]


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


def rows(document: Document, key: str) -> Sequence[Mapping[str, Any]]:
    """Return the rows of a listed part, empty where it is missing."""
    return document.get(key) or ()


def arms_of(document: Document) -> list[Arm]:
    """Return the arms in the document's order."""
    return [Arm(row["name"], row["title"], row["kind"]) for row in document["arms"]]


def primary(arms: Iterable[Arm]) -> Arm:
    """Return the arm that the report is about: the first trained one."""
    return next(arm for arm in arms if arm.kind == "trained")


def title_of(arms: Sequence[Arm], name: str) -> str:
    """Return an arm's title, its name where it is not listed."""
    return next((arm.title for arm in arms if arm.name == name), display_name(name))


def cards_of(document: Document, arm: str) -> Sequence[Mapping[str, Any]]:
    """Return an arm's flat scorecards over all seeds, of the market that the report is about."""
    cards: Sequence[Mapping[str, Any]] = next(iter(document["cards"].values()))[arm]
    return cards


def is_told(cards: Iterable[Mapping[str, Any]], figure: str) -> bool:
    """Tell whether a figure of these runs means anything: no win rate without a round trip."""
    return not metric(figure).of_trips or any(card["n_trades"] for card in cards)


def invalid_trades(cards: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Sum orders that broke a rule, executed (`SEVERITY`) and rejected (`rejected_SEVERITY`)."""
    totals: dict[str, int] = {}
    for card in cards:
        for kind, prefix in (("violations/", ""), ("rejections/", "rejected_")):
            for key in [key for key in card if key.startswith(kind)]:
                label = prefix + key.removeprefix(kind)
                totals[label] = totals.get(label, 0) + int(card[key])
    return totals


def told_differences(document: Document) -> list[Mapping[str, Any]]:
    """Return the differences of figures that mean something for both of their arms."""
    return [
        row
        for row in rows(document, "differences")
        if all(is_told(cards_of(document, row[side]), row["figure"]) for side in SIDES)
    ]


def has_interval(row: Mapping[str, Any]) -> bool:
    """Tell whether a difference has an interval: without one nothing can be decided."""
    return row["low"] is not None and row["high"] is not None


def target_of(document: Document, arm: str, figure: str) -> Mapping[str, Any]:
    """Return the row of a target, empty where there is none."""
    named = (row for row in rows(document, "targets") if row["arm"] == arm)
    return next((row for row in named if row["figure"] == figure), {})


def estimate(document: Document, arm: str, figure: str) -> Estimate:
    """Return the best known value of a figure: a target's, a summary's, or that of the runs."""
    cards = cards_of(document, arm)
    target, summary = target_of(document, arm, figure), part(document, "figures", arm, figure)
    runs = len(summary["values"]) if summary else len(cards)
    over = sampled(document["method"], runs, figure) if target or summary else ""
    if not is_told(cards, figure) or (len(cards) == 1 and not (target or summary)):
        return of_card(cards[0], figure)
    if target:
        ends = _ends(target, "low", "high", figure)
        verdict, years = target["verdict"], target["years_to_decide"]
        return Estimate(target["value"], *ends, "as judged", over, verdict, years)
    if not summary:
        values = [card[figure] for card in cards]
        return Estimate(median(values), basis=f"median of {len(values)} runs")
    kind, low, high = "median", "median_low", "median_high"
    if document["method"] == RESAMPLED:  # an interval over seeds would leave out the days
        kind, low, high = "mean", "low", "high"
    basis = f"{kind} of {runs} runs" if runs > 1 else "one run"
    return Estimate(summary[kind], *_ends(summary, low, high, figure), basis, over)


def sampled(method: str, runs: int, figure: str) -> str:
    """Return what an interval of a figure is over, in words.

    Args:
        method: Of the document, "worlds" or "days and seeds".
        runs: Of the variant, one a seed.
        figure: Key of the metric; a win rate on the same days has Wilson's interval.
    """
    if method != RESAMPLED:
        return f"{runs} markets"
    if figure == "win_rate_frac":
        return "round trips"
    return "days" if runs == 1 else f"days and {runs} seeds"


def of_card(card: Mapping[str, Any], figure: str) -> Estimate:
    """Return a figure of one run, with the one interval that a scorecard has: Lo's of Sharpe."""
    if not is_told([card], figure):
        return Estimate(None, basis="no round trip was closed")
    if figure != "sharpe_annual" or not card.get("volatility_annual_frac"):
        return Estimate(card.get(figure), basis="one run")
    return Estimate(card[figure], card["sharpe_low_95"], card["sharpe_high_95"], "one run", "days")


def _ends(
    row: Mapping[str, Any], low: str, high: str, figure: str
) -> tuple[float | None, float | None]:
    """Return an interval within what a figure can be; None where it is a single value's."""
    first, last = row[low], row[high]
    if first is None or last is None or first == last:
        return None, None
    return max(first, metric(figure).lowest), min(last, metric(figure).highest)


def figure_title(figure: str) -> str:
    """Return what a reader calls a figure."""
    return metric(figure).title


def spoken(figure: str) -> str:
    """Return a figure's title as it stands within a sentence."""
    title = figure_title(figure).removesuffix(", annual")
    proper = title.startswith(("Sharpe", "Sortino", "Calmar"))
    return title if proper else title[:1].lower() + title[1:]


def unit_of(figure: str) -> str:
    """Return the unit of a figure."""
    return metric(figure).unit


def difference_unit(figure: str) -> str:
    """Return the unit of a difference of two values of a figure."""
    unit = unit_of(figure)
    return POINTS if unit == FRACTION else unit


def shown(value: Any, unit: str = RATIO, *, signed: bool = False) -> str:
    """Return a number for a reader; a dash for one that is not known."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    sign = "+" if signed else ""
    if unit in (FRACTION, POINTS):
        digits = 1 if value == 0 or abs(value) >= 0.01 else 2
        # Adding 0.0 makes a rounded -0.0 a plain zero.
        number_text = f"{round(100 * value, digits) + 0.0:{sign}.{digits}f}"
        return number_text + (" %" if unit == FRACTION else " % points")
    if unit == COUNT:
        return f"{value:{sign},.0f}" if value == int(value) else f"{value:{sign},.1f}"
    return f"{round(value, 2) + 0.0:{sign},.2f}"


def interval_text(low: float | None, high: float | None, unit: str = RATIO) -> str:
    """Return "low to high" for a reader, empty where an end is not known."""
    if low is None or high is None:
        return ""
    first = shown(low, unit).removesuffix(" points").removesuffix(" %")
    return f"{first} to {shown(high, unit)}"
