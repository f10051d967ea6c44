"""The strokes that pictures on a page are made of, as plotly's plain dictionaries.

Only SVG traces, so that a page needs no WebGL and works over a remote desktop.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

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


def figure_of(traces: list[Figure], x: Figure, y: Figure, **layout: Any) -> Figure:
    """Return a figure in the page's style; what `layout` names is added to it or replaced."""
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
        }
        | layout,
    }


def growth_figure(
    lines: Sequence[tuple[Figure, Figure]], x: Figure, bottom: float = 0.0, **layout: Any
) -> Figure:
    """Return growth of 1 over drawdown, in per cent, of some policies, on one axis of time.

    Args:
        lines: For each policy the two lines; the legend names the first and rules both.
        x: The axis of time.
        bottom: Share of the height that is left free below.
        layout: What else the figure's layout holds.
    """
    traces = []
    for index, (growth, fall) in enumerate(lines):
        group = {"legendgroup": str(index)}
        traces.append(growth | group | {"hovertemplate": "%{y:.3f}"})
        under = {"yaxis": "y2", "showlegend": False, "hovertemplate": "%{y:.2f} %"}
        traces.append(fall | group | under)
    below = panel_axis("drawdown, %", [bottom, 0.36]) | {"rangemode": "tozero"}
    above = {"title": {"text": "growth of 1"}, "domain": [0.42, 1.0]}
    layout = {"yaxis2": below, "hovermode": "x unified"} | layout
    return figure_of(traces, {"anchor": "y2"} | x, above, **layout)


def panel_axis(title: str, domain: Sequence[float]) -> Figure:
    """Return the vertical axis of one of several panels; `domain` is its part of the height."""
    axis: Figure = {"title": {"text": title}, "domain": list(domain), "zeroline": False}
    return axis | {"automargin": True, "nticks": 5}


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
