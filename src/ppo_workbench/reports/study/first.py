"""What stands first on the page of a study: verdict, three figures, equity of the recommended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ppo_workbench.records.studies.returns import NAME, read_returns
from ppo_workbench.reports.comparison.document import part
from ppo_workbench.reports.comparison.tiles import FIGURES, Tile, figure_tile
from ppo_workbench.reports.strokes import BLUE, SKY, Figure, growth_figure, line_trace
from ppo_workbench.reports.study.findings import Analysis
from ppo_workbench.scoring.figures import Estimate, is_told, of_card, shown, spoken, unit_of
from ppo_workbench.scoring.metrics import drawdowns

# Doing nothing gives 0 of these.
ZERO_IS_NOTHING = ("Sharpe", "Sortino", "Calmar", "total return", "annual return", "expectancy")
_EQUITY_HEIGHT = 360


@dataclass(frozen=True)
class Chosen:
    """What the recommended trial left in its folder; empty parts where it left nothing.

    Attributes:
        cards: Its scorecards on validation, by seed.
        interval: 95 % interval of the mean objective, None where it is not recorded.
        mean: The mean objective over seeds and windows.
        over: What the interval is over.
    """

    cards: Mapping[str, Mapping[str, Any]]
    interval: tuple[float, float] | None = None
    mean: float | None = None
    over: str = ""

    @classmethod
    def read(cls, folder: Path) -> "Chosen":
        """Read `result.json` of a trial's folder."""
        try:
            found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return cls({})
        ends = list(found.get("interval") or [])
        cards = {seed: card for seed, card in part(found, "scorecards").items() if card}
        span = (ends[0], ends[1]) if len(set(ends)) == 2 else None
        over = f"{len(cards)} seeds, on the same days" if len(cards) > 1 else "days"
        return cls(cards, span, found.get("mean"), over)


def verdict(analysis: Analysis, chosen: Chosen) -> str:
    """Return one sentence: what to train, or that nothing is better than doing nothing."""
    best, plateau = analysis.recommended, analysis.plateau
    if best is None or plateau is None:
        return "No trial completed, so nothing is recommended."
    expected = plateau.expected[best.number][0]
    name = analysis.objective_names[0].removeprefix("bound of ")
    against_nothing = analysis.directions[0] == "maximize" and name.startswith(ZERO_IS_NOTHING)
    trial = f"trial {best.number}"
    if against_nothing and expected <= 0.0:
        return (
            f"Nothing was found: the best setting, of {trial}, is expected to be no better than "
            f"doing nothing ({analysis.objective_names[0]} {expected:.2f}, doing nothing gives 0)."
        )
    span = chosen.interval
    if against_nothing and span is not None and span[0] <= 0.0:
        return (
            f"Not shown to be better than doing nothing: the mean {name} of {trial}, the "
            f"recommended one, may be anything from {span[0]:.2f} to {span[1]:.2f}."
        )
    told = f"{name} {chosen.mean:.2f}" if chosen.mean is not None else f"{name} {expected:.3g}"
    within = f" ({span[0]:.2f} to {span[1]:.2f})" if span else ""
    many = analysis.counts["complete"]
    luck = f"; chosen among {many}, so expect less" if many > 1 else ""
    return f"Recommended is the setting of {trial}: {told}{within} on validation{luck}."


def first_tiles(analysis: Analysis, chosen: Chosen) -> list[Tile]:
    """Return Sharpe ratio, drawdown and win rate of the recommended trial, mean over seeds."""
    plateau = analysis.plateau
    if plateau is None:
        return []
    if not chosen.cards:
        expected, sds = (
            plateau.expected[plateau.recommended],
            plateau.expected_sd[plateau.recommended],
        )
        pairs = zip(analysis.objective_names, expected, sds, strict=True)
        return [
            Tile(f"{name}, expected", f"{value:.3g}", f"standard deviation {sd:.1g}")
            for name, value, sd in pairs
        ]
    measured = analysis.objective_names[0].removeprefix("bound of ")
    cards, tiles = list(chosen.cards.values()), []
    for figure in FIGURES:
        values = [card[figure] for card in cards if is_told(cards, figure)]
        own = Estimate(fmean(values)) if values else of_card(cards[0], figure)
        if measured == spoken(figure) and chosen.interval and chosen.mean is not None:
            own = Estimate(chosen.mean, *chosen.interval, over=chosen.over)
        told = ", ".join(shown(value, unit_of(figure)) for value in values)
        tiles.append(figure_tile(figure, own, [f"seeds: {told}"] if len(values) > 1 else []))
    return tiles


def equity_figure(folder: Path) -> Figure | None:
    """Draw growth and drawdown of a trial on validation, None where it kept no returns.

    Drawdowns are those of session closes: bars are not kept.
    """
    kept = read_returns(folder) if (folder / NAME).is_file() else {}
    lines: list[tuple[Figure, Figure]] = []
    for seed, returns in kept.items():
        if len(returns):
            growth = np.concatenate(([1.0], np.cumprod(1.0 + returns.astype(np.float64))))
            fall = np.round(-100 * drawdowns(growth), 3).tolist()
            name, x, second = f"seed {seed}", list(range(len(growth))), len(lines) % 2
            line = {"color": (BLUE, SKY)[second], "dash": ("solid", "dot")[second]}
            above = line_trace(name, x, growth.round(5).tolist(), line | {"width": 1.8})
            lines.append((above, line_trace(name, x, fall, line | {"width": 1})))
    if not lines:
        return None
    x_axis = {"title": {"text": "validation session"}}
    return growth_figure(lines, x_axis, height=_EQUITY_HEIGHT, showlegend=True)
