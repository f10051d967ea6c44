"""What trials and parameters look like in the pictures of a study."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppo_workbench.reports.strokes import Figure
from ppo_workbench.reports.study.trials import Parameter, TrialRow


def axis_of(parameter: Parameter) -> Figure:
    """Return the axis of a parameter, by its scale."""
    axis: Figure = {"title": {"text": short_name(parameter.name)}, "automargin": True}
    if parameter.choices:
        names = [html.escape(choice) for choice in parameter.choices]
        return axis | {"type": "category", "categoryarray": names, "categoryorder": "array"}
    if parameter.log:
        steps = "D1" if parameter.high < 10 * parameter.low else 1
        return axis | {"type": "log", "exponentformat": "power", "dtick": steps}
    return axis | {"nticks": 6}


def place_of(parameter: Parameter, value: Any) -> Any:
    """Return where a value stands on a parameter's axis."""
    return html.escape(str(value)) if parameter.choices else float(value)


def labels_of(rows: Sequence[TrialRow]) -> list[str]:
    """Return what hovering over the trials shows."""
    return [label_of(row) for row in rows]


def label_of(row: TrialRow) -> str:
    """Return what hovering over a trial shows."""
    values = row.values or ((row.shown_value,) if row.shown_value is not None else ())
    return f"trial {row.number}: {', '.join(f'{v:.4g}' for v in values) or 'no value'}"


def short_name(name: str) -> str:
    """Return the last part of a key, which is what a reader looks for."""
    return html.escape(name.rsplit(".", 1)[-1])


def shade(share: float) -> str:
    """Return a colour of the viridis scale at `share`, 0 .. 1."""
    anchors = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [220, 210, 40]])
    at = share * (len(anchors) - 1)
    red, green, blue = (int(np.interp(at, range(len(anchors)), anchors[:, c])) for c in range(3))
    return f"rgb({red},{green},{blue})"
