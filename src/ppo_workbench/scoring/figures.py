"""How a figure of a scorecard is written for a reader, and what policies are called."""

from collections.abc import Iterable
from dataclasses import dataclass

from ppo_workbench.scoring.catalogue import COUNT, FRACTION, RATIO, metric_of
from ppo_workbench.scoring.documents import Card

POINTS = "points"  # a difference of fractions
# What a reader calls the arms and reference policies of a comparison.
_NAMES = {
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
    """Return what a reader calls an arm or a reference policy that has no title of its own.

    >>> display_name("masked_no_variance")
    'MaskablePPO, no variance'
    """
    known = [key for key in _NAMES if name == key or name.startswith(f"{key}_")]
    if not known:
        return name.replace("_", " ")
    longest = max(known, key=len)
    rest = name[len(longest) + 1 :].replace("_", " ")
    return f"{_NAMES[longest]}, {rest}" if rest else _NAMES[longest]


def is_told(cards: Iterable[Card], figure: str) -> bool:
    """Tell whether a figure of these runs means anything: no win rate without a round trip."""
    return not metric_of(figure).of_trips or any(card["n_trades"] for card in cards)


def invalid_trades(cards: Iterable[Card]) -> dict[str, int]:
    """Sum orders that broke a rule, executed (`SEVERITY`) and rejected (`rejected_SEVERITY`)."""
    totals: dict[str, int] = {}
    for card in cards:
        for kind, prefix in (("violations/", ""), ("rejections/", "rejected_")):
            for key in [key for key in card if key.startswith(kind)]:
                label = prefix + key.removeprefix(kind)
                totals[label] = totals.get(label, 0) + int(card[key])
    return totals


def of_card(card: Card, figure: str) -> Estimate:
    """Return a figure of one run, with the one interval that a scorecard has: Lo's of Sharpe."""
    if not is_told([card], figure):
        return Estimate(None, basis="no round trip was closed")
    if figure != "sharpe_annual" or not card.get("volatility_annual_frac"):
        return Estimate(card.get(figure), basis="one run")
    return Estimate(card[figure], card["sharpe_low_95"], card["sharpe_high_95"], "one run", "days")


def figure_title(figure: str) -> str:
    """Return what a reader calls a figure."""
    return metric_of(figure).title


def spoken(figure: str) -> str:
    """Return a figure's title as it stands within a sentence."""
    title = figure_title(figure).removesuffix(", annual")
    proper = title.startswith(("Sharpe", "Sortino", "Calmar"))
    return title if proper else title[:1].lower() + title[1:]


def unit_of(figure: str) -> str:
    """Return the unit of a figure."""
    return metric_of(figure).unit


def difference_unit(figure: str) -> str:
    """Return the unit of a difference of two values of a figure."""
    unit = unit_of(figure)
    return POINTS if unit == FRACTION else unit


def shown(value: object, unit: str = RATIO, *, signed: bool = False) -> str:
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
