"""The report of a promotion: promotion.json for scripts, a page for people, both from one dict."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from ppo_workbench.market.bars import Bars
from ppo_workbench.reports.comparison.document import Arm, Comparand
from ppo_workbench.reports.comparison.figures import equity_figure
from ppo_workbench.reports.comparison.shown import ShownMarket
from ppo_workbench.reports.comparison.tiles import FIGURES, Tile, figure_tile
from ppo_workbench.reports.page import assemble_page
from ppo_workbench.scoring.documents import Card
from ppo_workbench.scoring.figures import figure_title, of_card, shown, unit_of

_TEMPLATE = Path(__file__).with_name("promotion.html.jinja")
CARD = (
    *("sharpe_annual", "max_drawdown_frac", "win_rate_frac", "n_trades", "exposure_mean_abs"),
    *("excess_return_annual_frac", "expectancy_bps"),
)
SPLITS = ("validation", "test")
# Gate -> what it asks, and in what its value is counted.
GATES = {
    "target_sharpe": ("Sharpe ratio reaches its target on the test", "a year"),
    "target_drawdown": ("Drawdown stays below its target on the test", "fraction"),
    "target_win_rate": ("Win rate reaches its target on the test", "fraction"),
    "target_trades": ("Trades enough for the targets to mean anything", "round trips"),
    "target_exposure": ("Is invested enough for the targets to mean anything", "mean exposure"),
    "round_trips": ("Trades enough to be judged", "round trips"),
    "expectancy": ("Earns on a round trip, net of costs", "bps, lower bound"),
    "deflated_sharpe": ("Better than the luckiest of all trials would be", "probability"),
    "probability_of_loss": ("The best of the trials does not lose out of sample", "probability"),
    "probabilistic_sharpe": ("Earns more than cash on the test", "probability"),
    "ppo_execute": ("Better than standard PPO, forbidden orders carried out", "Sharpe, lower end"),
    "ppo_reject": ("Not worse than standard PPO, forbidden orders rejected", "Sharpe, upper end"),
    "threshold": ("Better than the tuned threshold rule", "Sharpe ratio"),
    "champion": ("Not worse than the reigning champion", "Sharpe ratio"),
    "costs_x2": ("Still earns at double costs", "fraction"),
    "latency_1_bar": ("Still earns with every order one bar later", "fraction"),
    "ledger": ("This test access was recorded first", "test accesses"),
    "split_hygiene": ("Training, validation and test are kept apart", "bars between"),
    "audit": ("No rule is broken, says the independent audit", "violations"),
    "golden": ("Saved and loaded, it decides the same", "golden vectors"),
}


class GatePart(TypedDict):
    """A `scoring.gates.checks.Gate`."""

    name: str
    passed: bool
    value: float | None
    threshold: float | None
    reason: str
    power: float | None
    alternative: str


class WinnerPart(TypedDict):
    """The model that was judged: its trial, its seed, and the trial's bound on validation."""

    trial: int
    seed: int
    bound: float


class CandidatePart(TypedDict):
    """A trial that raced: what the study says of it, and its bound on fresh seeds."""

    trial: int
    study_value: float
    params: dict[str, object]
    bound: float
    seeds: list[int]
    timesteps: int | None


class PromotionDocument(TypedDict):
    """What promotion.json holds."""

    name: str
    study: str
    profile: str
    promoted: bool
    created_utc: str
    gates: list[GatePart]
    winner: WinnerPart
    candidates: list[CandidatePart]
    trials: int
    trials_by_state: dict[str, int]
    trials_elsewhere: dict[str, int]
    trials_unknown: str
    trials_with_returns: int
    test: Mapping[str, object]
    scorecards: dict[str, Card]
    inference: Mapping[str, float] | None


def write_reports(
    folder: Path,
    document: PromotionDocument,
    bars: Bars | None = None,
    shown_policies: Sequence[Comparand] = (),
) -> None:
    """Write promotion.json and promotion.html into the folder of a promotion.

    Args:
        folder: Of the promotion.
        document: What promotion.json holds.
        bars: The opened test's, None to draw nothing.
        shown_policies: The model, then the reference policies, on those bars.
    """
    text = json.dumps(document, indent=2, allow_nan=False)
    (folder / "promotion.json").write_text(text, encoding="utf-8")
    figures = {}
    if bars is not None:
        own = shown_policies[0]
        arms = [
            Arm(each.name, each.title, "trained" if each is own else "yardstick")
            for each in shown_policies
        ]
        market = ShownMarket(bars, {each.name: each.trace for each in shown_policies})
        figures["equity"] = equity_figure(market, arms)
    page = assemble_page(
        _TEMPLATE,
        figures,
        d=document,
        headline=headline(document),
        tiles=_tiles(document["scorecards"]),
        rows=[_gate_row(gate) for gate in sorted(document["gates"], key=lambda g: g["passed"])],
        card=[_card_row(document["scorecards"], key) for key in CARD],
        number=_number,
        percent=lambda share: f"{share:.1%}",
    )
    (folder / "promotion.html").write_text(page, encoding="utf-8")


def headline(document: PromotionDocument) -> str:
    """Say in one sentence what a promotion came to."""
    gates = document["gates"]
    refusing = sum(not gate["passed"] for gate in gates)
    winner = document["winner"]
    what = f"trial {winner['trial']} of {document['study']}, seed {winner['seed']}"
    if document["promoted"]:
        return f"{what} is the champion {document['name']}: all {len(gates)} gates pass"
    return f"{what} is not promoted: {refusing} of {len(gates)} gates refuse"


def describe(document: PromotionDocument) -> str:
    """Return the verdicts as plain lines, what refuses first."""
    lines = [headline(document)]
    for gate in sorted(document["gates"], key=lambda gate: bool(gate["passed"])):
        power = gate["power"]
        told = "" if power is None else f" (power {power:.0%} at {gate['alternative']})"
        lines.append(
            f"{'pass' if gate['passed'] else 'FAIL'} {gate['name']}: {gate['reason']}{told}"
        )
    return "\n".join(lines)


def _tiles(cards: Mapping[str, Card]) -> list[Tile]:
    """Return three figures of the test beside those of validation."""
    tiles = []
    for figure in FIGURES:
        title, before, _ = _card_row(cards, figure)
        own, beside = of_card(cards["test"], figure), [f"validation: {before}"]
        tiles.append(figure_tile(figure, own, beside, title=f"{title}, test"))
    return tiles


def _gate_row(gate: GatePart) -> dict[str, str | bool]:
    title, unit = GATES.get(gate["name"], (gate["name"].replace("_", " "), ""))

    def told(value: float | None) -> str:
        return shown(value, "fraction") if unit == "fraction" else _number(value)

    return {
        "name": gate["name"],
        "title": title,
        "passed": gate["passed"],
        "value": told(gate["value"]),
        "asked": told(gate["threshold"]),
        "unit": "" if unit == "fraction" else unit,
        "power": "" if gate["power"] is None else f"{gate['power']:.0%}",
        "truth": gate["alternative"],
        "reason": gate["reason"],
    }


def _card_row(cards: Mapping[str, Card], key: str) -> tuple[str, str, str]:
    """Return title, validation and test of a figure; a dash for one that means nothing."""
    before, test = (shown(of_card(cards[k], key).value, unit_of(key)) for k in SPLITS)
    return figure_title(key), before, test


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
