"""The analysis as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppo_workbench.reports.page import assemble_page
from ppo_workbench.reports.study.figures import FEWEST_FITTED, FEWEST_POINTS, draw_figures
from ppo_workbench.reports.study.findings import Analysis
from ppo_workbench.reports.study.first import Chosen, equity_figure, first_tiles, verdict
from ppo_workbench.reports.study.plateau import Extent
from ppo_workbench.reports.study.trials import TrialRow
from ppo_workbench.reports.study.words import error_note

BORDERS = {
    "": "",
    "both": "the whole search",
    "lowest": "reaches the lowest value",
    "highest": "reaches the highest value",
}
_TEMPLATE = Path(__file__).with_name("analysis.html.jinja")


def render_page(a: Analysis) -> str:
    """Return the page; it makes no request and needs nothing beside it."""
    figures, chosen, plateau = draw_figures(a), Chosen({}), a.plateau
    if a.recommended:
        folder = a.html_path.parent / str(a.recommended.number)
        chosen, equity = Chosen.read(folder), equity_figure(folder)
        figures |= {"equity": equity} if equity else {}
    names = list(dict.fromkeys(name for row in a.rows for name in row.params))
    return assemble_page(
        _TEMPLATE,
        figures,
        a=a,
        headline=verdict(a, chosen),
        tiles=first_tiles(a, chosen),
        told=_told(a),
        undrawn=_undrawn(len(a.complete), len(a.parameters)),
        extents=[_extent_cells(e, a.setting) for e in (plateau.extents if plateau else ())],
        error_note=error_note(plateau, len(a.complete)) if plateau else "",
        has_errors=any(row.errors[0] for row in a.rows),
        names=names,
        trials=[_trial_cells(row, a, names) for row in a.rows],
    )


def _told(analysis: Analysis) -> str:
    """Return how many trials there are and what pruning saved."""
    parts = [f"{n} {state}" for state, n in analysis.counts.items() if n]
    said = f"trials: {', '.join(parts) or 'none'}"
    if analysis.cost is not None and analysis.counts["pruned"]:
        said += f"; {analysis.cost.saved_frac:.0%} of the timesteps saved by pruning"
    return said


def _undrawn(complete: int, parameters: int) -> str:
    """Say what needs more trials than there are, empty if nothing does."""
    lacking = [
        f"{name} ({least} complete trials)"
        for name, least, searched in (
            ("slices", FEWEST_POINTS, 1),
            ("parallel coordinates", FEWEST_POINTS, 1),
            ("fitted surface and contours", FEWEST_FITTED, 2),
        )
        if complete < least and parameters >= searched
    ]
    return f"Not drawn yet: {', '.join(lacking)}." if lacking else ""


def _extent_cells(extent: Extent, setting: Mapping[str, Any]) -> dict[str, Any]:
    parameter = extent.parameter
    cells: dict[str, Any] = {
        "name": parameter.name,
        "chosen": _shown(setting.get(parameter.name)),
        "border": BORDERS[extent.at_border],
        "left": None,
    }
    if extent.low is None or extent.high is None:
        plateau = ", ".join(f"{option} ({n})" for option, n in extent.counts.items())
        return cells | {"plateau": plateau or "-", "searched": ", ".join(parameter.choices)}
    return cells | {
        "plateau": f"{extent.low:.4g} to {extent.high:.4g}",
        "searched": f"{parameter.low:.4g} to {parameter.high:.4g}"
        + (" (log)" if parameter.log else ""),
        "left": round(100 * parameter.position(extent.low), 1),
        "width": round(100 * extent.width_frac, 1),
    }


def _trial_cells(row: TrialRow, a: Analysis, names: Sequence[str]) -> dict[str, Any]:
    cells: list[str] = []
    expected = a.plateau.expected.get(row.number) if a.plateau else None
    for k in range(len(a.signs)):
        value = row.values[k] if row.values else (row.shown_value if k == 0 else None)
        cells += map(_shown, (value, row.errors[k], expected[k] if expected else None))
    cells += [_shown(row.params[name]) if name in row.params else "" for name in names]
    cells.append("" if row.timesteps is None else f"{row.timesteps:,.0f}")
    cells.append("" if row.seconds is None else f"{row.seconds:.1f}")
    inside = a.plateau is not None and row.number in a.plateau.numbers
    css = ("chosen", row is a.recommended), ("inside", inside)
    return {"row": row, "cells": cells, "css": " ".join(name for name, on in css if on)}


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
