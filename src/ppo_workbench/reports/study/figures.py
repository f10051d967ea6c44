"""The pictures of a study: Optuna's, with what it does not know, and fitted surfaces of ours.

Plain dictionaries that the page draws, with SVG traces alone: no WebGL, so they work over a
remote desktop.  Optuna's contours are not taken: they run through every trial, and so show luck.
"""

import html
import json
from collections.abc import Sequence
from itertools import combinations
from math import ceil, inf
from typing import Any

import numpy as np
import optuna
from optuna import visualization
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.importance import BaseImportanceEvaluator
from optuna.trial import TrialState, create_trial
from plotly.colors import sample_colorscale
from plotly.graph_objects import Figure as PlotlyFigure

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
from ppo_workbench.reports.study.findings import Analysis
from ppo_workbench.reports.study.importance import Importance, scratch_study
from ppo_workbench.reports.study.plateau import Plateau
from ppo_workbench.reports.study.trials import Parameter, TrialRow

MAX_SLICES, MAX_CONTOURED, MAX_AXES, MAX_CURVES = 8, 4, 9, 150
GRID, HISTORY_HEIGHT = 30, 360
# Complete trials below which dots over a parameter, or a surface through them, show nothing.
FEWEST_POINTS, FEWEST_FITTED = 5, 10
# State and whether a value is known -> legend, colour and symbol of what does not count.
OTHER_STATES = {
    ("pruned", True): ("pruned (last report)", GREY, "x-thin-open"),
    ("infeasible", True): ("infeasible", RED, "diamond-open"),
    ("failed", False): ("failed, without value", RED, "triangle-down-open"),
    ("pruned", False): ("pruned, without value", GREY, "triangle-down-open"),
}


def draw_figures(a: Analysis) -> dict[str, Figure]:
    """Return all figures by element; slices and contours count those of each objective."""
    found: dict[str, Figure | None] = {
        "intermediate": _intermediate(a),
        "pareto": _pareto(a),
        "importance": _importance(a),
        "parallel": _parallel(a),
    }
    for k in range(len(a.signs)):
        found[f"history{k}"] = _history(a, k)
        found |= {f"slice{k}-{i}": made for i, made in enumerate(_slices(a, k))}
        found |= {f"contour{k}-{i}": made for i, made in enumerate(_contours(a, k))}
    return {name: figure for name, figure in found.items() if figure}


class _Measured(BaseImportanceEvaluator):
    """Hands Optuna's figure the shares that were measured together with their intervals."""

    def __init__(self, found: Sequence[Importance]) -> None:
        self._shares = {f"{i:03}": importance.share for i, importance in enumerate(found)}

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        return self._shares


def _study(a: Analysis, *objectives: int, limits: Sequence[float] = (-inf, inf)) -> optuna.Study:
    """Return the trials as Optuna's figures have to see them.

    Complete ones alone have values, every other one counts as pruned.  Parameters are named
    after their places, since Optuna sorts by name.  Values stay within `limits`.
    """
    study = scratch_study([a.directions[k] for k in objectives])
    named = {f"{i:03}": p for i, p in enumerate(a.parameters)}
    for row in a.rows:
        known = {key: p for key, p in named.items() if p.name in row.params}
        counts = row.state == "complete"
        values = [min(max(row.values[k], limits[0]), limits[1]) for k in objectives if counts]
        trial = create_trial(
            state=TrialState.COMPLETE if counts else TrialState.PRUNED,
            values=values or None,
            params={key: _plain(p, row.params[p.name]) for key, p in known.items()},
            distributions={key: _distribution(p) for key, p in known.items()},
            intermediate_values=dict(row.intermediate),
        )
        study.add_trial(trial)
    return study


def _keyed(a: Analysis, most: int) -> dict[str, Parameter]:
    """Return the first parameters that complete trials have, by their name in `_study`."""
    known = {name for row in a.complete for name in row.params}
    pairs = [(f"{i:03}", p) for i, p in enumerate(a.parameters) if p.name in known]
    return dict(pairs[:most])


def _value_axis(a: Analysis, objective: int, shown: Sequence[float]) -> Figure:
    """Return the axis of an objective's values, far misses left out."""
    axis: Figure = {"title": {"text": _short(a.objective_names[objective])}}
    limits = robust_range(shown, a.signs[objective])
    return axis | {"range": limits} if limits else axis


def _short(name: str) -> str:
    """Return the last part of a key, which is what a reader looks for."""
    return html.escape(name.rsplit(".", 1)[-1])


def _history(a: Analysis, objective: int) -> Figure:
    """Draw the value of every trial and the best so far."""
    complete, figure = a.complete, PlotlyFigure()
    values = [row.values[objective] for row in complete]
    if complete:
        figure = visualization.plot_optimization_history(_study(a, objective))
        figure.data = figure.data[:2]  # the third is for infeasible trials
        errors = [row.errors[objective] for row in complete]
        bars = {"type": "data", "array": errors, "thickness": 1, "width": 0, "color": SKY}
        figure.data[0].update(name="complete", marker={"color": BLUE, "size": 7}, error_y=bars)
        line = {"color": GREEN, "width": 2, "shape": "hv"}
        figure.data[1].update(name="best so far", line=line)
        figure.update_traces(hovertemplate="trial %{x}: %{y:.4g}<extra></extra>")
    if objective == 0:
        others = _other_states(a.rows, values)
        figure.add_traces(others)
        values += [y for trace in others for y in trace["y"]]
    stars = [_star(row, row.number, row.values[objective]) for row in _chosen(a)]
    figure.add_traces(stars)
    ends = [-0.5, max((row.number for row in a.rows), default=0) + 0.5]
    ticks: Figure = {"title": {"text": "trial"}, "range": ends, "tickformat": "d"}
    if len(a.rows) <= FEWEST_FITTED:
        ticks["dtick"] = 1
    return _dressed(figure, ticks, _value_axis(a, objective, values), height=HISTORY_HEIGHT)


def _intermediate(a: Analysis) -> Figure | None:
    """Draw the reported values of every trial over its steps, pruned ones in grey."""
    rows = [row for row in a.rows if row.intermediate]
    if not any(len(row.intermediate) > 1 for row in rows) or len(a.objective_names) > 1:
        return None
    figure = visualization.plot_intermediate_values(_study(a, 0))
    for row, trace in zip(rows, figure.data, strict=True):
        best = row == a.recommended
        colour = ORANGE if best else {"complete": BLUE, "pruned": GREY}.get(row.state, RED)
        line, marker = {"width": 3 if best else 1.2}, {"size": 4, "color": colour}
        trace.update(name=f"trial {row.number} ({row.state})", line=line, marker=marker)
        trace.update(opacity=1.0 if best else 0.6)
    figure.data = _layered(a, rows, figure.data)
    axis = _value_axis(a, 0, [value for row in rows for _, value in row.intermediate])
    return _dressed(figure, {"title": {"text": "step"}}, axis, showlegend=False)


def _importance(a: Analysis) -> Figure | None:
    """Draw the importances with their intervals and the level that chance reaches."""
    if not a.importances:
        return None
    figure = visualization.plot_param_importances(_study(a, 0), evaluator=_Measured(a.importances))
    shown = list(reversed(a.importances))
    names = [_short(i.name) for i in shown]
    figure.data[0].update(
        name="importance, 90 % interval",
        y=names,
        text=None,
        marker={"color": BLUE, "opacity": [1.0 if i.is_above_chance else 0.3 for i in shown]},
        error_x={
            "type": "data",
            "array": [i.high - i.share for i in shown],
            "arrayminus": [i.share - i.low for i in shown],
            "color": GREY,
            "thickness": 1.5,
        },
        hovertemplate="%{y}: %{x:.0%}<extra></extra>",
    )
    chance = [min(i.chance, 1.0) for i in shown]
    marks = dot_trace("chance reaches this in 1 of 20", chance, names, RED, "line-ns-open", 14)
    figure.add_traces([marks | {"hovertemplate": "chance: %{x:.0%}<extra></extra>"}])
    axis = {"title": {"text": "share of all importances"}, "range": [0, 1], "tickformat": ".0%"}
    plain = {"title": {"text": None}}
    return _dressed(figure, axis, plain, showlegend=True, height=130 + 34 * len(names))


def _slices(a: Analysis, objective: int) -> list[Figure]:
    """Draw one objective over each of the most important parameters.

    The line is the fitted surface with all other parameters at the recommended setting,
    the band one standard deviation.
    """
    if len(a.complete) < FEWEST_POINTS:
        return []
    study, figures = _study(a, objective), []
    for key, parameter in _keyed(a, MAX_SLICES).items():
        figure = visualization.plot_slice(study, [key])
        _mark_plateau(a, figure.data[0], "%{y:.4g}")
        axis = _value_axis(a, objective, figure.data[0].y)
        figure.add_traces(_surface_line(a, parameter, objective))
        figure.data = [*figure.data[1:], figure.data[0]]  # the dots over the line
        chosen = [row for row in _chosen(a) if parameter.name in row.params]
        stars = [_star(r, _place(parameter, r), r.values[objective]) for r in chosen]
        figure.add_traces(stars)
        figures.append(_dressed(figure, _axis(parameter), axis, showlegend=False, height=290))
    return figures


def _contours(a: Analysis, objective: int) -> list[Figure]:
    """Draw the fitted surface over pairs of the most important parameters."""
    if a.plateau is None or len(a.complete) < FEWEST_FITTED:
        return []
    pairs = combinations(a.parameters[:MAX_CONTOURED], 2)
    return [_contour(a, a.plateau, first, second, objective) for first, second in pairs]


def _parallel(a: Analysis) -> Figure | None:
    """Draw every complete trial as a line over the parameters, coloured by its rank."""
    rows, shown = a.complete, _keyed(a, MAX_AXES)
    if len(rows) < FEWEST_POINTS or not shown:
        return None
    score = np.array([row.values[0] for row in rows]) * a.signs[0]
    limits = robust_range([row.values[0] for row in rows], a.signs[0])
    study = _study(a, 0, limits=limits) if limits else _study(a, 0)
    figure = visualization.plot_parallel_coordinate(study, list(shown))
    # The brightest yellow cannot be seen on white.
    shades = sample_colorscale("Viridis", 0.93 * score.argsort().argsort() / (len(rows) - 1))
    for row, trace, shade in zip(rows, figure.data, shades, strict=False):  # the last is a bar
        best = row == a.recommended
        line = {"color": ORANGE if best else shade, "width": 4 if best else 1.5}
        trace.update(line=line, opacity=1.0 if best else 0.65, customdata=None)
        trace.update(hovertemplate=f"{_label(row)}<extra></extra>")
    figure.data = _layered(a, rows, figure.data)
    figure.update_annotations(bgcolor="white", font={"size": 11, "color": None})
    names = [a.objective_names[0], *(parameter.name for parameter in shown.values())]
    ticks = {"ticktext": list(map(_short, names)), "side": "top", "tickangle": 0}
    ends = {"range": [-0.4, len(names) - 0.7]}
    dressed = _dressed(figure, ticks | ends, {"visible": False}, showlegend=False)
    return dressed | {"width_px": 118 * len(names)}


def _pareto(a: Analysis) -> Figure | None:
    """Draw the first two objectives against each other, the Pareto front ringed."""
    if len(a.objective_names) < 2 or not a.complete:
        return None
    names = [_short(name) for name in a.objective_names[:2]]
    figure = visualization.plot_pareto_front(
        _study(a, *range(len(a.objective_names))),
        target_names=names,
        targets=lambda trial: trial.values[:2],
    )
    for trace, name, ring in zip(
        figure.data, ("other trials", "Pareto front"), (0, 2), strict=True
    ):
        _mark_plateau(a, trace, "%{x:.4g}, %{y:.4g}")
        line = {"color": GREEN, "width": ring}
        trace.update(name=name, marker={"line": line}, showlegend=True)
    broken = [row for row in a.rows if row.state == "infeasible"]
    if broken:
        x, y = zip(*(row.values[:2] for row in broken), strict=True)
        texts = list(map(_label, broken))
        figure.add_traces([dot_trace("infeasible", x, y, RED, "x", texts=texts)])
    figure.add_traces([_star(row, *row.values[:2]) for row in _chosen(a)])
    x_axis, y_axis = ({"title": {"text": name}} for name in names)
    return _dressed(figure, x_axis, y_axis)


def _contour(
    a: Analysis, plateau: Plateau, first: Parameter, second: Parameter, objective: int
) -> Figure:
    across, up = first.grid(GRID), second.grid(GRID)
    settings = [{**a.setting, first.name: x, second.name: y} for y in up for x in across]
    mean, _ = plateau.surfaces[objective].predict(settings)
    smooth = not first.choices and not second.choices
    field: Figure = {
        "type": "contour" if smooth else "heatmap",
        "x": _places(first, across),
        "y": _places(second, up),
        "z": mean.reshape(len(up), len(across)).tolist(),
        "colorscale": "Viridis",
        "reversescale": a.signs[objective] < 0,
        "colorbar": {"thickness": 10, "len": 0.9},
        "name": "surface",
    }
    if smooth:
        field |= {"contours": {"coloring": "heatmap"}, "line": {"width": 0.4, "color": "white"}}
    both = [r for r in a.complete if first.name in r.params and second.name in r.params]
    x, y = ([_place(p, row) for row in both] for p in (first, second))
    dots = dot_trace("trials", x, y, "white", texts=list(map(_label, both)))
    seen = [1.0 if row.number in plateau.numbers else 0.3 for row in both]
    dots["marker"] |= {"opacity": seen, "line": {"color": "black", "width": 0.7}}
    chosen = [row for row in both if row == a.recommended]
    stars = [_star(row, _place(first, row), _place(second, row)) for row in chosen]
    axes = _axis(first), _axis(second)
    return figure_of([field, dots, *stars], *axes, showlegend=False, height=330)


def _surface_line(a: Analysis, parameter: Parameter, objective: int) -> list[Figure]:
    if a.plateau is None or len(a.complete) < FEWEST_FITTED:
        return []
    grid = parameter.grid(GRID)
    settings = [{**a.setting, parameter.name: value} for value in grid]
    mean, sd = a.plateau.surfaces[objective].predict(settings)
    places = _places(parameter, grid)
    if parameter.choices:
        marks = dot_trace("surface", places, mean.tolist(), GREEN, "line-ew-open", 22)
        return [{**marks, "error_y": {"type": "data", "array": sd.tolist(), "color": GREEN}}]
    ends = [*(mean + sd).tolist(), *(mean - sd).tolist()[::-1]]
    band = line_trace("one standard deviation", [*places, *places[::-1]], ends, {"width": 0})
    band |= {"fill": "toself", "fillcolor": "rgba(0,158,115,0.15)", "hoverinfo": "skip"}
    return [band, line_trace("surface", places, mean.tolist(), {"color": GREEN, "width": 2})]


def _other_states(rows: Sequence[TrialRow], values: Sequence[float]) -> list[Figure]:
    """Return marks for the trials without a value that counts; what has none stands below."""
    known = [row.shown_value for row in rows if row.shown_value is not None]
    floor, traces = min([*values, *known], default=0.0), []
    for (state, valued), (name, colour, symbol) in OTHER_STATES.items():
        rest = [row for row in rows if row.state == state]
        members = [r for r in rest if (state != "failed" and r.shown_value is not None) == valued]
        if members:
            y = [row.shown_value if valued else floor for row in members]
            texts = [_label(row) + html.escape(f": {row.reason[:80]}") for row in members]
            x = [row.number for row in members]
            traces.append(dot_trace(name, x, y, colour, symbol, 8, texts))
    return traces


def _chosen(a: Analysis) -> list[TrialRow]:
    return [a.recommended] if a.recommended else []


def _star(row: TrialRow, x: Any, y: Any) -> Figure:
    return dot_trace("recommended", [x], [y], ORANGE, "star", 14, [_label(row)])


def _mark_plateau(a: Analysis, trace: Any, hover: str) -> None:
    """Colour trials by the plateau where Optuna colours them by their number."""
    inside = a.plateau.numbers if a.plateau else ()
    numbers = list(trace.marker.color)
    colours = [BLUE if number in inside else GREY for number in numbers]
    trace.marker = {"color": colours, "size": 7}
    trace.update(customdata=numbers, hovertemplate=f"trial %{{customdata}}: {hover}<extra></extra>")


def _layered(a: Analysis, rows: Sequence[TrialRow], traces: Sequence[Any]) -> list[Any]:
    """Return at most `MAX_CURVES` lines, better ones over poorer, the recommended one on top."""

    def height(pair: tuple[TrialRow, Any]) -> tuple[bool, bool, float]:
        row = pair[0]
        score = a.signs[0] * (row.shown_value or 0.0)
        return row == a.recommended, row.state == "complete", score

    ordered = [trace for _, trace in sorted(zip(rows, traces, strict=False), key=height)]
    return ordered[:: -ceil(len(ordered) / MAX_CURVES)][::-1]


def _dressed(figure: Any, x: Figure, y: Figure, **layout: Any) -> Figure:
    """Return a figure of Optuna's in the page's look."""
    look = figure_of([], x, y, **layout)["layout"]
    figure.update_layout(look | {"template": None, "title": None})
    dressed: Figure = json.loads(figure.to_json())
    return dressed


def _plain(parameter: Parameter, value: Any) -> Any:
    return html.escape(str(value)) if parameter.choices else value


def _distribution(parameter: Parameter) -> CategoricalDistribution | FloatDistribution:
    if parameter.choices:
        return CategoricalDistribution(tuple(map(html.escape, parameter.choices)))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _axis(parameter: Parameter) -> Figure:
    """Return the axis of a parameter, by its scale."""
    axis: Figure = {"title": {"text": _short(parameter.name)}, "automargin": True}
    if parameter.choices:
        places = _places(parameter, parameter.choices)
        axis |= {"type": "category", "categoryarray": places, "categoryorder": "array"}
        return axis | {"tickvals": places, "ticktext": list(map(html.escape, parameter.choices))}
    if parameter.log:
        steps = "D1" if parameter.high < 10 * parameter.low else 1
        return axis | {"type": "log", "exponentformat": "power", "dtick": steps}
    return axis | {"nticks": 6}


def _place(parameter: Parameter, row: TrialRow) -> Any:
    """Return where a trial stands on a parameter's axis."""
    return _places(parameter, [row.params[parameter.name]])[0]


def _places(parameter: Parameter, values: Sequence[Any]) -> list[Any]:
    """Return where values stand on the axis; Optuna's slices name options by their `repr`."""
    plain = [_plain(parameter, value) for value in values]
    return list(map(repr, plain)) if parameter.choices else list(map(float, plain))


def _label(row: TrialRow) -> str:
    """Return what hovering over a trial shows."""
    values = row.values or ((row.shown_value,) if row.shown_value is not None else ())
    return f"trial {row.number}: {', '.join(f'{v:.4g}' for v in values) or 'no value'}"
