"""Reading a comparison's document: every part of it may be missing.

What comes in is a mapping as the comparison writes it; `plain` makes it JSON that any
reader accepts, and the functions here return empty things for parts that are not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any

import numpy as np

Document = Mapping[str, Any]

RATIO, FRACTION, COUNT, MONEY = "ratio", "fraction", "count", "USD"
POINTS = "points"  # a difference of fractions
TITLES = {
    "sharpe_annual": "Sharpe ratio, annual",
    "max_drawdown_frac": "Maximum drawdown",
    "win_rate_frac": "Win rate",
    "sortino_annual": "Sortino ratio, annual",
    "calmar": "Calmar ratio",
    "max_drawdown_at_10pct_vol_frac": "Maximum drawdown at 10 % volatility",
    "annual_return_frac": "Annual return",
    "excess_return_annual_frac": "Annual return over cash",
    "total_return_frac": "Total return",
    "volatility_annual_frac": "Volatility, annual",
    "exposure_mean_abs": "Mean exposure",
    "n_trades": "Round trips",
    "expectancy_bps": "Expectancy, bps",
    "profit_factor": "Profit factor",
    "turnover_annual": "Turnover, times equity a year",
    "cost_bps_of_turnover": "Costs, bps of turnover",
}
# What a reader calls the variants and reference policies of a comparison.
NAMES = {
    "masked": "MaskablePPO",
    "maskable_ppo": "MaskablePPO",
    "ppo": "PPO",
    "reject": "PPO, forbidden orders rejected",
    "execute": "PPO, forbidden orders executed",
    "all_true": "MaskablePPO without a mask (control)",
    "threshold": "tuned threshold rule",
    "oracle": "oracle (knows the edge)",
    "buy-and-hold": "buy and hold",
    "random-legal": "random legal actions",
    "flat": "flat (never trades)",
}
# Figures of closed round trips: without one there is nothing to be told.
OF_TRIPS = ("win_rate_frac", "expectancy_bps", "expectancy_usd", "profit_factor")
RESAMPLED = "days and seeds"  # how a document says that its runs traded the same days
_NEVER_NEGATIVE = ("win_rate", "max_drawdown", "volatility", "n_", "exposure_mean_abs", "turnover")
_BETTER_ABOVE = (
    *("sharpe", "sortino", "calmar", "total_return", "annual_return", "excess_return"),
    *("win_rate", "expectancy", "profit_factor"),
)
_BETTER_BELOW = ("max_drawdown", "volatility", "cost", "violations", "rejections", "passive")


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison: its key, what a reader calls it, and `trained` or `yardstick`."""

    name: str
    title: str
    kind: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, None where it is not known.

    Attributes:
        basis: What the value is, such as "median of 10 runs".
        verdict: "met", "missed", "not decidable", or "" without a target.
        years_to_decide: Test years that would decide an undecidable target.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    basis: str = ""
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


def part(document: Any, *keys: str) -> dict[str, Any]:
    """Return a nested mapping, empty where any step to it is missing."""
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return dict(document) if isinstance(document, Mapping) else {}


def rows(document: Document, key: str) -> list[dict[str, Any]]:
    """Return the mappings of a listed part, empty where it is missing."""
    found = document.get(key)
    listed = found if isinstance(found, list | tuple) else []
    return [dict(row) for row in listed if isinstance(row, Mapping)]


def number(row: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number of a mapping, or None."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) else None


def arms_of(document: Document, also: Sequence[str]) -> list[Arm]:
    """Return the arms in the document's order, then those that only `also` names."""
    listed = [
        Arm(
            str(row["name"]),
            _title(row),
            str(row.get("kind") or "trained"),
            tuple(str(item) for item in row.get("overrides") or ()),
        )
        for row in rows(document, "arms")
        if "name" in row
    ]
    known = {arm.name for arm in listed}
    extra = [name for name in dict.fromkeys(also) if name not in known]
    return listed + [Arm(name, display_name(name), "trained") for name in extra]


def _title(row: Mapping[str, Any]) -> str:
    """Return the title of a listed variant, where it has none or only its key a readable one."""
    name, title = str(row["name"]), str(row.get("title") or row["name"])
    return display_name(name) if title == name else title


def primary(arms: Sequence[Arm], document: Document) -> Arm | None:
    """Return the arm that the report is about: trained, and judged by targets if any are."""
    judged = {str(row.get("arm")) for row in rows(document, "targets")}
    trained = [arm for arm in arms if arm.kind == "trained"]
    chosen = [arm for arm in trained if arm.name in judged] or trained or list(arms)
    return chosen[0] if chosen else None


def title_of(arms: Sequence[Arm], name: object) -> str:
    """Return an arm's title, its name where it is not listed."""
    return next((arm.title for arm in arms if arm.name == name), display_name(str(name)))


def is_told(document: Document, arm: str, figure: str) -> bool:
    """Tell whether a figure means anything for an arm: no win rate without a round trip."""
    cards = cards_of(document, arm)
    count = part(document, "figures", arm, "n_trades").get("values")
    trips = list(count) if isinstance(count, list) else [card.get("n_trades") for card in cards]
    traded = [number({"n": value}, "n") for value in trips]
    none = bool(traded) and all(value == 0 for value in traded)
    return not (none and figure in OF_TRIPS)


def told_differences(document: Document) -> list[dict[str, Any]]:
    """Return the differences of figures that mean something for both of their arms."""
    found: dict[tuple[str, str], bool] = {}
    listed = rows(document, "differences")
    for row in listed:
        for side in ("first", "second"):
            key = str(row.get(side)), str(row.get("figure"))
            if key not in found:
                found[key] = is_told(document, *key)
    return [
        row
        for row in listed
        if all(found[str(row.get(side)), str(row.get("figure"))] for side in ("first", "second"))
    ]


def has_interval(row: Mapping[str, Any]) -> bool:
    """Tell whether a difference has an interval: without one nothing can be decided."""
    return number(row, "low") is not None and number(row, "high") is not None


def target_of(document: Document, arm: str, figure: str) -> dict[str, Any]:
    """Return the row of a target, empty where there is none."""
    for row in rows(document, "targets"):
        if row.get("arm") == arm and row.get("figure") == figure:
            return row
    return {}


def estimate(document: Document, arm: str, figure: str, cards: Sequence[Document]) -> Estimate:
    """Return the best known value of a figure: a target's, a summary's, or the runs' median.

    Args:
        document: The comparison's document.
        arm: Name of the arm.
        figure: A scorecard's key.
        cards: The arm's flat scorecards; without a summary their median stands alone.
    """
    if not is_told(document, arm, figure) or (
        figure in OF_TRIPS and cards and all(card.get("n_trades") == 0 for card in cards)
    ):
        return Estimate(None, basis="no round trip was closed")
    target = target_of(document, arm, figure)
    if number(target, "value") is not None:
        return Estimate(
            number(target, "value"),
            *_ends(target, "low", "high", figure),
            "as judged",
            str(target.get("verdict") or ""),
            number(target, "years_to_decide"),
        )
    summary = part(document, "figures", arm, figure)
    kinds = [("median", "median_low", "median_high"), ("mean", "low", "high")]
    if document.get("method") == RESAMPLED:  # an interval over seeds would leave out the days
        kinds.reverse()
    for kind, low, high in kinds:
        if number(summary, kind) is not None:
            runs = len(summary.get("values") or ())
            basis = f"{kind} of {runs} runs" if runs > 1 else "one run"
            return Estimate(number(summary, kind), *_ends(summary, low, high, figure), basis)
    values = [v for v in (number(card, figure) for card in cards) if v is not None]
    if not values:
        return Estimate(None)
    if len(values) > 1:
        return Estimate(median(values), basis=f"median of {len(values)} runs")
    return Estimate(values[0], *_own_interval(cards[0], figure), "one run")


def _ends(
    row: Mapping[str, Any], low: str, high: str, figure: str
) -> tuple[float | None, float | None]:
    """Return an interval within what a figure can be; None where it is a single value's."""
    first, last = number(row, low), number(row, high)
    if first is None or last is None or first == last:
        return None, None
    if figure.startswith(_NEVER_NEGATIVE):
        first = max(first, 0.0)
    return first, min(last, 1.0) if figure == "win_rate_frac" else last


def cards_of(document: Document, arm: str) -> list[dict[str, Any]]:
    """Return an arm's flat scorecards over all markets and seeds."""
    found: list[dict[str, Any]] = []
    for by_arm in part(document, "cards").values():
        listed = by_arm.get(arm) if isinstance(by_arm, Mapping) else None
        found += [dict(card) for card in listed or () if isinstance(card, Mapping)]
    return found


def audit_count(document: Document, arm: str) -> float | None:
    """Return how many violations an arm's audit found, None where there was none.

    A comparison gives the number as `violations`; an audit's own record lists them under
    that name beside a `count`.
    """
    audit = part(document, "audit", arm)
    listed = number(audit, "violations")
    return number(audit, "count") if listed is None else listed


def better_sign(figure: str) -> int:
    """Return +1 where more of a figure is better, -1 where less is, 0 where neither."""
    if figure.startswith(_BETTER_BELOW):
        return -1
    return 1 if figure.startswith(_BETTER_ABOVE) else 0


def figure_title(figure: str) -> str:
    """Return what a reader calls a figure."""
    return TITLES.get(figure) or figure.replace("_", " ")


def spoken(figure: str) -> str:
    """Return a figure's title as it stands within a sentence."""
    title = figure_title(figure).removesuffix(", annual")
    proper = title.startswith(("Sharpe", "Sortino", "Calmar"))
    return title if proper else title[:1].lower() + title[1:]


def unit_of(figure: str) -> str:
    """Return the unit that a figure's key implies."""
    if figure.endswith(("_frac", "_share")) or "_share/" in figure:
        return FRACTION
    if figure.startswith("n_") or figure.startswith(("violations/", "rejections/")):
        return COUNT
    return MONEY if figure.endswith("_usd") else RATIO


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


def _own_interval(card: Document, figure: str) -> tuple[float | None, float | None]:
    """Return the one interval that a scorecard brings along: Lo's of the Sharpe ratio."""
    if figure != "sharpe_annual" or number(card, "volatility_annual_frac") == 0.0:
        return None, None
    return number(card, "sharpe_low_95"), number(card, "sharpe_high_95")
