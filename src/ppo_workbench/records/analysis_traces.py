"""The strokes that the pictures of a study are made of, as plotly's plain dictionaries."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppo_workbench.records.analysis_trials import Parameter, TrialRow

# Okabe and Ito (2008): distinguishable with every common colour blindness.
BLUE, SKY, GREEN, ORANGE, RED, GREY = (
    "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#9A9A9A",
)  # fmt: skip
Figure = dict[str, Any]


def robust_range(values: Sequence[float], sign: int) -> list[float] | None:
    """Return an axis range that leaves out far misses, None where there are none."""
    if len(values) < 8:
        return None
    score = np.array(values, dtype=np.float64) * sign
    bulk = float(np.quantile(score, 0.1))
    top, bottom = float(score.max()), float(score.min())
    if top - bottom <= 3.0 * (top - bulk) or top == bulk:
        return None
    ends = [sign * (bulk - 0.5 * (top - bulk)), sign * (top + 0.15 * (top - bulk))]
    return sorted(ends)


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


def place_of(parameter: Parameter, row: TrialRow) -> Any:
    """Return where a trial stands on a parameter's axis."""
    value = row.params[parameter.name]
    return html.escape(str(value)) if parameter.choices else float(value)


def figure_of(traces: list[Figure], x: Figure, y: Figure) -> Figure:
    """Return a figure in the page's style."""
    plain = {"gridcolor": "#E6E6E6", "zeroline": False, "automargin": True}
    return {
        "data": traces,
        "layout": {
            "height": 380,
            "margin": {"l": 50, "r": 12, "t": 12, "b": 45},
            "font": {"family": "system-ui, sans-serif", "size": 12},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "hovermode": "closest",
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "xaxis": plain | x,
            "yaxis": plain | y,
        },
    }


def dot_trace(
    name: str,
    x: Sequence[Any],
    y: Sequence[Any],
    colour: str,
    symbol: str = "circle",
    size: int = 7,
    texts: Sequence[str] = (),
) -> Figure:
    """Return markers; `texts` show on hover."""
    marker: Figure = {"color": colour, "symbol": symbol, "size": size}
    if symbol == "star":
        marker["line"] = {"color": "black", "width": 1}
    trace: Figure = {"type": "scatter", "mode": "markers", "name": name, "marker": marker}
    trace |= {"x": list(x), "y": list(y)}
    if texts:
        trace |= {"text": list(texts), "hovertemplate": "%{text}<extra></extra>"}
    return trace


def line_trace(name: str, x: Sequence[Any], y: Sequence[Any], line: Figure) -> Figure:
    """Return a line."""
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line}


def column_of(rows: Sequence[TrialRow], objective: int) -> list[float]:
    """Return one objective of the trials."""
    return [row.values[objective] for row in rows]


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
