"""The pictures of a study as plotly figures: plain dictionaries that the page draws.

Only SVG traces, so that the page needs no WebGL and works over a remote desktop.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from ppo_workbench.reports.strokes import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SKY,
    Figure,
    dot_trace,
    figure_of,
    line_trace,
    robust_range,
)
from ppo_workbench.reports.study.importance import Importance
from ppo_workbench.reports.study.plateau import Plateau
from ppo_workbench.reports.study.traces import (
    axis_of,
    label_of,
    labels_of,
    place_of,
    shade,
    short_name,
)
from ppo_workbench.reports.study.trials import Parameter, TrialRow

MAX_SLICES, MAX_CONTOURED, MAX_AXES, MAX_CURVES = 8, 4, 9, 150
GRID, COLOURS, HISTORY_HEIGHT = 30, 10, 360
# Complete trials below which dots over a parameter, or a surface through them, show nothing.
FEWEST_POINTS, FEWEST_FITTED = 5, 10


@dataclass(frozen=True)
class Scene:
    """Everything that the figures show.

    Attributes:
        parameters: Most important first.
        signs: +1 for an objective to maximise, -1 to minimise.
    """

    rows: Sequence[TrialRow]
    parameters: Sequence[Parameter]
    objectives: Sequence[str]
    signs: Sequence[int]
    importances: Sequence[Importance]
    plateau: Plateau | None
    pareto: Sequence[int]

    @property
    def complete(self) -> list[TrialRow]:
        """The trials that count."""
        return [row for row in self.rows if row.state == "complete"]

    @property
    def recommended(self) -> int | None:
        """Number of the recommended trial, None without one."""
        return self.plateau.recommended if self.plateau else None

    @property
    def inside(self) -> set[int]:
        """Numbers of the plateau's trials."""
        return set(self.plateau.numbers) if self.plateau else set()

    @property
    def setting(self) -> Mapping[str, Any]:
        """The recommended parameters."""
        return next((row.params for row in self.rows if row.number == self.recommended), {})

    def value_axis(self, objective: int, shown: Sequence[float]) -> Figure:
        """Return the axis of an objective's values, far misses left out."""
        axis: Figure = {"title": {"text": short_name(self.objectives[objective])}}
        limits = robust_range(shown, self.signs[objective])
        return axis | {"range": limits} if limits else axis


def history_figure(scene: Scene, objective: int) -> Figure:
    """Draw the value of every trial and the best so far."""
    sign, complete = scene.signs[objective], scene.complete
    numbers = [row.number for row in complete]
    values = [row.values[objective] for row in complete]
    traces = [dot_trace("complete", numbers, values, BLUE, texts=[label_of(r) for r in complete])]
    errors = [row.errors[objective] for row in complete]
    if any(errors):
        bars = {"type": "data", "array": errors, "thickness": 1, "width": 0, "color": SKY}
        traces[0]["error_y"] = bars
    if values:
        running = np.maximum.accumulate(np.array(values) * sign) * sign
        line = {"color": GREEN, "width": 2, "shape": "hv"}
        traces.append(line_trace("best so far", numbers, running.tolist(), line))
    if objective == 0:
        traces += _other_states(scene.rows, values)
    chosen = [row for row in complete if row.number == scene.recommended]
    if chosen:
        at = [chosen[0].number], [chosen[0].values[objective]]
        traces.append(dot_trace("recommended", *at, ORANGE, symbol="star", size=14))
    axis = scene.value_axis(objective, [v for trace in traces for v in trace["y"]])
    ends = [-0.5, max((row.number for row in scene.rows), default=0) + 0.5]
    ticks: Figure = {"title": {"text": "trial"}, "range": ends, "tickformat": "d"}
    if len(scene.rows) <= FEWEST_FITTED:
        ticks["dtick"] = 1
    return figure_of(traces, ticks, axis, height=HISTORY_HEIGHT)


def intermediate_figure(scene: Scene) -> Figure | None:
    """Draw the reported values of every trial over its steps, pruned ones in grey."""
    rows = [row for row in scene.rows if len(row.intermediate) > 1]
    if not rows or len(scene.objectives) > 1:
        return None
    picks = np.linspace(0, len(rows) - 1, min(len(rows), MAX_CURVES)).round().astype(int)
    traces = []
    for row in sorted((rows[i] for i in picks), key=lambda r: r.state == "complete"):
        best = row.number == scene.recommended
        colour = ORANGE if best else {"complete": BLUE, "pruned": GREY}.get(row.state, RED)
        steps, values = zip(*row.intermediate, strict=True)
        line = {"color": colour, "width": 3 if best else 1.2}
        trace = line_trace(f"trial {row.number} ({row.state})", list(steps), list(values), line)
        traces.append({**trace, "showlegend": False, "opacity": 1.0 if best else 0.6})
    axis = scene.value_axis(0, [v for t in traces for v in t["y"]])
    return figure_of(traces, {"title": {"text": "step"}}, axis)


def importance_figure(scene: Scene) -> Figure | None:
    """Draw the importances with their intervals and the level that chance reaches."""
    if not scene.importances:
        return None
    shown = list(reversed(scene.importances))
    names = [short_name(i.name) for i in shown]
    shares = [100 * i.share for i in shown]
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": "importance, 90 % interval",
        "x": shares,
        "y": names,
        "marker": {"color": [BLUE if i.is_above_chance else "#C9D6E0" for i in shown]},
        "error_x": {
            "type": "data",
            "array": [100 * (i.high - i.share) for i in shown],
            "arrayminus": [100 * (i.share - i.low) for i in shown],
            "color": "#333333",
            "thickness": 1.2,
        },
        "hovertemplate": "%{y}: %{x:.0f} %<extra></extra>",
    }
    marks = dot_trace(
        "chance reaches this in 1 of 20", [min(100 * i.chance, 100) for i in shown], names, RED,
        symbol="line-ns-open", size=14,
    )  # fmt: skip
    marks["hovertemplate"] = "chance: %{x:.0f} %<extra></extra>"
    axis = {"title": {"text": "share of all importances, %"}, "range": [0, 100]}
    return figure_of([bars, marks], axis, {}, height=130 + 34 * len(names))


def slice_figures(scene: Scene, objective: int) -> list[Figure]:
    """Draw one objective over each of the most important parameters.

    The line is the fitted surface with all other parameters at the recommended setting,
    the band one standard deviation.
    """
    if len(scene.complete) < FEWEST_POINTS:
        return []
    return [_slice(scene, p, objective) for p in scene.parameters[:MAX_SLICES]]


def contour_figures(scene: Scene, objective: int) -> list[Figure]:
    """Draw the fitted surface over pairs of the most important parameters."""
    if scene.plateau is None or len(scene.complete) < FEWEST_FITTED:
        return []
    pairs = combinations(scene.parameters[:MAX_CONTOURED], 2)
    return [_contour(scene, first, second, objective) for first, second in pairs]


def parallel_figure(scene: Scene, objective: int = 0) -> Figure | None:
    """Draw every complete trial as a line over the parameters, coloured by its value."""
    rows, shown = scene.complete, list(scene.parameters[:MAX_AXES])
    if len(rows) < FEWEST_POINTS or not shown:
        return None
    values = np.array([row.values[objective] for row in rows])
    ranks = (values * scene.signs[objective]).argsort().argsort()
    bins = ranks * COLOURS // len(rows)
    limits = robust_range(values.tolist(), scene.signs[objective]) or [-np.inf, np.inf]
    low, high = max(values.min(), limits[0]), min(values.max(), limits[1])
    value_axis = Parameter(scene.objectives[objective], float(low), float(high), log=False)
    traces = []
    for colour in range(COLOURS):
        members = [row for row, at in zip(rows, bins, strict=True) if at == colour]
        if members:
            traces.append(_bundle(members, shown, value_axis, colour, objective))
    chosen = [row for row in rows if row.number == scene.recommended]
    if chosen:
        trace = _bundle(chosen, shown, value_axis, COLOURS - 1, objective)
        trace |= {"line": {"color": ORANGE, "width": 4}, "opacity": 1.0, "name": "recommended"}
        traces.append(trace)
    axes = [*shown, value_axis]
    ticks = {
        "tickvals": list(range(len(axes))),
        "ticktext": [short_name(axis.name) for axis in axes],
        "side": "top",
        "range": [-0.3, len(axes) - 0.7],
        "showgrid": True,
        "gridcolor": "#888888",
        "tickangle": 0,
    }
    ends = [note for x, axis in enumerate(axes) for note in _ends(x, axis)]
    height = {"visible": False, "range": [-0.06, 1.06]}
    figure = figure_of(traces, ticks, height, annotations=ends, showlegend=False)
    return figure | {"width_px": 118 * len(axes)}


def pareto_figure(scene: Scene) -> Figure | None:
    """Draw the first two objectives against each other with the Pareto front."""
    if len(scene.objectives) < 2 or not scene.complete:
        return None
    x, y = partial(_value, 0), partial(_value, 1)
    front = sorted((row for row in scene.complete if row.number in scene.pareto), key=x)
    line = {"color": GREEN, "width": 2}
    joined = line_trace("Pareto front", list(map(x, front)), list(map(y, front)), line)
    traces = [joined | {"mode": "lines+markers", "text": labels_of(front)}]
    broken = [row for row in scene.rows if row.state == "infeasible"]
    if broken:
        at = list(map(x, broken)), list(map(y, broken))
        traces.append(dot_trace("infeasible", *at, RED, "x", texts=labels_of(broken)))
    traces += _trial_dots(scene, scene.complete, x, y, (GREY, SKY))
    titles = [{"title": {"text": short_name(name)}} for name in scene.objectives[:2]]
    return figure_of(traces, titles[0], titles[1])


def _trial_dots(
    scene: Scene,
    rows: Sequence[TrialRow],
    x: Callable[[TrialRow], Any],
    y: Callable[[TrialRow], Any],
    fills: tuple[str, str] = (GREY, BLUE),
    sizes: tuple[int, int] = (7, 7),
) -> list[Figure]:
    """Return trials as dots at `x` and `y`: other ones, the plateau's, the recommended one."""
    groups = (
        ("other trials", [r for r in rows if r.number not in scene.inside], fills[0], sizes[0]),
        ("plateau", [r for r in rows if r.number in scene.inside], fills[1], sizes[1]),
        ("recommended", [r for r in rows if r.number == scene.recommended], ORANGE, 14),
    )
    return [
        dot_trace(
            name, list(map(x, members)), list(map(y, members)), fill,
            "star" if name == "recommended" else "circle", size, labels_of(members),
        )
        for name, members, fill, size in groups
        if members
    ]  # fmt: skip


def _value(objective: int, row: TrialRow) -> float:
    return row.values[objective]


def _place(parameter: Parameter, row: TrialRow) -> Any:
    return place_of(parameter, row.params[parameter.name])


def _slice(scene: Scene, parameter: Parameter, objective: int) -> Figure:
    rows = [row for row in scene.complete if parameter.name in row.params]
    value = partial(_value, objective)
    dots = _trial_dots(scene, rows, partial(_place, parameter), value)
    axis = scene.value_axis(objective, list(map(value, rows)))
    traces = _surface_line(scene, parameter, objective) + dots
    return figure_of(traces, axis_of(parameter), axis, showlegend=False, height=290)


def _surface_line(scene: Scene, parameter: Parameter, objective: int) -> list[Figure]:
    if scene.plateau is None or len(scene.complete) < FEWEST_FITTED:
        return []
    grid = parameter.grid(GRID)
    settings = [{**scene.setting, parameter.name: value} for value in grid]
    mean, sd = scene.plateau.surfaces[objective].predict(settings)
    if parameter.choices:
        places = [place_of(parameter, value) for value in grid]
        marks = dot_trace("surface", places, mean.tolist(), GREEN, "line-ew-open", 22)
        return [{**marks, "error_y": {"type": "data", "array": sd.tolist(), "color": GREEN}}]
    band = line_trace(
        "one standard deviation", [*grid, *grid[::-1]],
        [*(mean + sd).tolist(), *(mean - sd).tolist()[::-1]], {"width": 0},
    )  # fmt: skip
    band |= {"fill": "toself", "fillcolor": "rgba(0,158,115,0.15)", "hoverinfo": "skip"}
    return [band, line_trace("surface", grid, mean.tolist(), {"color": GREEN, "width": 2})]


def _contour(scene: Scene, first: Parameter, second: Parameter, objective: int) -> Figure:
    assert scene.plateau is not None
    across, up = first.grid(GRID), second.grid(GRID)
    settings = [{**scene.setting, first.name: x, second.name: y} for y in up for x in across]
    mean, _ = scene.plateau.surfaces[objective].predict(settings)
    smooth = not first.choices and not second.choices
    field: Figure = {
        "type": "contour" if smooth else "heatmap",
        "x": [place_of(first, value) for value in across],
        "y": [place_of(second, value) for value in up],
        "z": mean.reshape(len(up), len(across)).tolist(),
        "colorscale": "Viridis",
        "reversescale": scene.signs[objective] < 0,
        "colorbar": {"thickness": 10, "len": 0.9},
        "name": "surface",
    }
    if smooth:
        field |= {"contours": {"coloring": "heatmap"}, "line": {"width": 0.4, "color": "white"}}
    both = [r for r in scene.complete if first.name in r.params and second.name in r.params]
    places = partial(_place, first), partial(_place, second)
    dots = _trial_dots(scene, both, *places, ("rgba(255,255,255,0.35)", "white"), (5, 7))
    for trace in dots:
        trace["marker"]["line"] = {"color": "black", "width": 0.7}
    axes = axis_of(first), axis_of(second)
    return figure_of([field, *dots], *axes, showlegend=False, height=330)


def _bundle(
    rows: Sequence[TrialRow],
    shown: Sequence[Parameter],
    value_axis: Parameter,
    colour: int,
    objective: int,
) -> Figure:
    """Return the lines of trials of similar value as one trace, None between them."""
    x: list[int | None] = []
    y: list[float | None] = []
    texts: list[str | None] = []
    for row in rows:
        known = [p.position(row.params[p.name]) if p.name in row.params else None for p in shown]
        x += [*range(len(shown) + 1), None]
        y += [*known, min(max(value_axis.position(row.values[objective]), 0.0), 1.0), None]
        texts += [*[label_of(row)] * (len(shown) + 1), None]
    line = {"color": shade(colour / (COLOURS - 1)), "width": 1.5}
    trace = line_trace("trials", x, y, line)
    return {**trace, "text": texts, "hovertemplate": "%{text}<extra></extra>", "opacity": 0.65}


def _ends(x: int, parameter: Parameter) -> list[Figure]:
    """Return the numbers at both ends of a vertical axis, or every option of a choice."""
    labels = parameter.choices or tuple(f"{v:.3g}" for v in (parameter.low, parameter.high))
    return [
        {
            "x": x,
            "y": i / max(len(labels) - 1, 1),
            "text": html.escape(text[:14]),
            "showarrow": False,
            "bgcolor": "rgba(255,255,255,0.85)",
            "font": {"size": 11},
        }
        for i, text in enumerate(labels)
    ]


def _other_states(rows: Sequence[TrialRow], values: Sequence[float]) -> list[Figure]:
    """Return marks for the trials without a value that counts; what has none stands below."""
    known = [row.shown_value for row in rows if row.shown_value is not None]
    floor = min([*values, *known], default=0)
    traces = []
    for name, state, colour, symbol, valued in (
        ("pruned (last report)", "pruned", GREY, "x-thin-open", True),
        ("infeasible", "infeasible", RED, "diamond-open", True),
        ("failed, without value", "failed", RED, "triangle-down-open", False),
        ("pruned, without value", "pruned", GREY, "triangle-down-open", False),
    ):
        members = [r for r in rows if r.state == state]
        if state == "pruned":
            members = [r for r in members if (r.shown_value is not None) == valued]
        if members:
            x, y = (
                [r.number for r in members],
                [r.shown_value if valued else floor for r in members],
            )
            texts = [
                label_of(r) + html.escape(f": {r.reason[:80]}" * (not valued)) for r in members
            ]
            traces.append(dot_trace(name, x, y, colour, symbol, 8, texts=texts))
    return traces
