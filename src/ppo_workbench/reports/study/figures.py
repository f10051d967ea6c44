"""The pictures of a study: Optuna's, with what it does not know, and fitted surfaces of ours.

Plain dictionaries that the page draws, with SVG traces alone: no WebGL, so they work over a
remote desktop.  Optuna's contours are not taken: they run through every trial, and so show luck.
"""

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from math import ceil, inf
from typing import Any

import numpy as np
import optuna
from optuna import visualization
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import BaseImportanceEvaluator
from optuna.trial import TrialState, create_trial
from plotly.colors import sample_colorscale

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

MAX_SLICES, MAX_CONTOURED, MAX_AXES, MAX_CURVES, MAX_LINES = 8, 4, 9, 150, 400
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
    studies = [_study(a, k) for k in range(len(a.signs))]
    found: dict[str, Figure | None] = {
        "intermediate": _intermediate(a, studies[0]),
        "pareto": _pareto(a),
        "importance": _importance(a, studies[0]),
        "parallel": _parallel(a),
    }
    for k, study in enumerate(studies):
        found[f"history{k}"] = _history(a, k, study)
        found |= {f"slice{k}-{i}": made for i, made in enumerate(_slices(a, k, study))}
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
        given = {key: p for key, p in named.items() if p.name in row.params}
        known = {key: _sampled(p, row.params[p.name]) for key, p in given.items()}
        counts = row.state == "complete"
        values = [min(max(row.values[k], limits[0]), limits[1]) for k in objectives if counts]
        trial = create_trial(
            state=TrialState.COMPLETE if counts else TrialState.PRUNED,
            values=values or None,
            params={key: value for key, (value, _) in known.items()},
            distributions={key: distribution for key, (_, distribution) in known.items()},
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


def _history(a: Analysis, objective: int, study: optuna.Study) -> Figure:
    """Draw the value of every trial and the best so far."""
    values = [row.values[objective] for row in a.complete]
    traces = []
    if values:
        drawn = visualization.plot_optimization_history(study)
        dots, best, _ = _traces(drawn)  # the last is for infeasible trials
        errors = [row.errors[objective] for row in a.complete]
        bars = {"type": "data", "array": errors, "thickness": 1, "width": 0, "color": SKY}
        hover = {"hovertemplate": "trial %{x}: %{y:.4g}<extra></extra>"}
        dots |= hover | {"name": "complete", "marker": {"color": BLUE, "size": 7}, "error_y": bars}
        line = {"color": GREEN, "width": 2, "shape": "hv"}
        traces = [dots, best | hover | {"name": "best so far", "line": line}]
    if objective == 0:
        traces += _other_states(a.rows, values)
    traces += _stars(a, lambda row: row.number, lambda row: row.values[objective])
    ends = [-0.5, max((row.number for row in a.rows), default=0) + 0.5]
    ticks: Figure = {"title": {"text": "trial"}, "range": ends, "tickformat": "d"}
    if len(a.rows) <= FEWEST_FITTED:
        ticks["dtick"] = 1
    shown = [y for trace in traces for y in trace["y"] if y is not None]
    return figure_of(traces, ticks, _value_axis(a, objective, shown), height=HISTORY_HEIGHT)


def _intermediate(a: Analysis, study: optuna.Study) -> Figure | None:
    """Draw the reported values of every trial over its steps, pruned ones in grey."""
    rows = [row for row in a.rows if row.intermediate]
    if not any(len(row.intermediate) > 1 for row in rows) or len(a.objective_names) > 1:
        return None
    traces = _traces(visualization.plot_intermediate_values(study))
    for row, trace in zip(rows, traces, strict=True):
        colour = {"complete": BLUE, "pruned": GREY}.get(row.state, RED)
        trace |= {"name": f"trial {row.number} ({row.state})"} | _curve(a, row, colour)
    axis = _value_axis(a, 0, [value for row in rows for _, value in row.intermediate])
    layered = _layered(a, rows, traces)
    return figure_of(layered, {"title": {"text": "step"}}, axis, showlegend=False)


def _importance(a: Analysis, study: optuna.Study) -> Figure | None:
    """Draw the importances with their intervals and the level that chance reaches."""
    if not a.importances:
        return None
    drawn = visualization.plot_param_importances(study, evaluator=_Measured(a.importances))
    shown = list(reversed(a.importances))
    names = [_short(i.name) for i in shown]
    (bars,) = _traces(drawn)
    bars |= {
        "name": "importance, 90 % interval",
        "y": names,
        "text": None,
        "marker": {"color": BLUE, "opacity": [1.0 if i.is_above_chance else 0.3 for i in shown]},
        "error_x": {
            "type": "data",
            "array": [i.high - i.share for i in shown],
            "arrayminus": [i.share - i.low for i in shown],
            "color": GREY,
            "thickness": 1.5,
        },
        "hovertemplate": "%{y}: %{x:.0%}<extra></extra>",
    }
    chance = [min(i.chance, 1.0) for i in shown]
    marks = dot_trace("chance reaches this in 1 of 20", chance, names, RED, "line-ns-open", 14)
    marks |= {"hovertemplate": "chance: %{x:.0%}<extra></extra>"}
    axis = {"title": {"text": "share of all importances"}, "range": [0, 1], "tickformat": ".0%"}
    return figure_of([bars, marks], axis, {}, showlegend=True, height=130 + 34 * len(names))


def _slices(a: Analysis, objective: int, study: optuna.Study) -> list[Figure]:
    """Draw one objective over each of the most important parameters.

    The line is the fitted surface with all other parameters at the recommended setting,
    the band one standard deviation.
    """
    if len(a.complete) < FEWEST_POINTS:
        return []
    figures = []
    for key, parameter in _keyed(a, MAX_SLICES).items():
        (dots,) = _traces(visualization.plot_slice(study, [key]))
        traces = [*_surface_line(a, parameter, objective), _by_plateau(a, dots, "%{y:.4g}")]
        traces += _stars(a, partial(_place, parameter), lambda row: row.values[objective])
        axes = _axis(parameter), _value_axis(a, objective, dots["y"])
        figures.append(figure_of(traces, *axes, showlegend=False, height=290))
    return figures


def _contours(a: Analysis, objective: int) -> list[Figure]:
    """Draw the fitted surface over pairs of the most important parameters."""
    if a.plateau is None or len(a.complete) < FEWEST_FITTED:
        return []
    pairs = combinations(a.parameters[:MAX_CONTOURED], 2)
    return [_contour(a, a.plateau, *pair, objective) for pair in pairs]


def _parallel(a: Analysis) -> Figure | None:
    """Draw complete trials as lines over the parameters, coloured by rank.

    Of more than `MAX_LINES` those evenly spread over the ranks, the best and the worst included.
    """
    ranked = sorted(a.complete, key=lambda row: row.values[0])
    picks = np.linspace(0, len(ranked) - 1, min(len(ranked), MAX_LINES)).round().astype(int)
    drawn_ones = {ranked[pick].number for pick in picks}
    a = replace(a, rows=[row for row in a.rows if row.number in drawn_ones])
    rows, shown = a.complete, _keyed(a, MAX_AXES)
    if len(rows) < FEWEST_POINTS or not shown:
        return None
    values = np.array([row.values[0] for row in rows])
    ranks = (values * a.signs[0]).argsort().argsort()
    limits = robust_range(values.tolist(), a.signs[0]) or (-inf, inf)
    drawn = visualization.plot_parallel_coordinate(_study(a, 0, limits=limits), list(shown))
    # The brightest yellow cannot be seen on white.
    shades = sample_colorscale("Viridis", 0.93 * ranks / (len(rows) - 1))
    traces = _traces(drawn)[:-1]  # the last is a bar of colours
    for row, trace, shade in zip(rows, traces, shades, strict=True):
        trace |= {"hovertemplate": f"{_label(row)}<extra></extra>"} | _curve(a, row, shade)
    layout = json.loads(drawn.to_json())["layout"]
    for note in layout["annotations"]:
        note |= {"bgcolor": "white", "font": {"size": 11}}
    names = [a.objective_names[0], *(parameter.name for parameter in shown.values())]
    ticks = {"ticktext": list(map(_short, names)), "side": "top", "tickangle": 0}
    figure = figure_of(
        _layered(a, rows, traces),
        layout["xaxis"] | ticks | {"range": [-0.4, len(names) - 0.7]},
        layout["yaxis"],
        showlegend=False,
        annotations=layout["annotations"],
        shapes=layout["shapes"],
    )
    return figure | {"width_px": 118 * len(names)}


def _pareto(a: Analysis) -> Figure | None:
    """Draw the first two objectives against each other with the Pareto front."""
    if len(a.objective_names) < 2 or not a.complete:
        return None
    study, names = _study(a, *range(len(a.objective_names))), a.objective_names[:2]
    drawn = visualization.plot_pareto_front(
        study, target_names=list(names), targets=lambda trial: trial.values[:2]
    )
    dots = [_by_plateau(a, trace, "%{x:.4g}, %{y:.4g}") for trace in _traces(drawn)]
    x, y = zip(*sorted(zip(dots[1]["x"], dots[1]["y"], strict=True)), strict=True)
    traces = [line_trace("Pareto front", x, y, {"color": GREEN, "width": 2}), *dots]
    broken = [row for row in a.rows if row.state == "infeasible"]
    if broken:
        x, y = zip(*(row.values[:2] for row in broken), strict=True)
        traces.append(dot_trace("infeasible", x, y, RED, "x", texts=list(map(_label, broken))))
    traces += _stars(a, lambda row: row.values[0], lambda row: row.values[1])
    x_axis, y_axis = ({"title": {"text": _short(name)}} for name in names)
    return figure_of(traces, x_axis, y_axis)


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
    stars = _stars(a, partial(_place, first), partial(_place, second))
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


def _stars(a: Analysis, x: Callable[[TrialRow], Any], y: Callable[[TrialRow], Any]) -> list[Figure]:
    """Return a star where the recommended trial lies; none where it has no such place."""
    row = a.recommended
    if row is None or None in (x(row), y(row)):
        return []
    return [dot_trace("recommended", [x(row)], [y(row)], ORANGE, "star", 14, [_label(row)])]


def _curve(a: Analysis, row: TrialRow, colour: str) -> Figure:
    """Return how a line of one trial looks; the recommended one is orange and thick."""
    best = row == a.recommended
    line = {"color": ORANGE if best else colour, "width": 4 if best else 1.4}
    return {"line": line, "marker": {"size": 4}, "opacity": 1.0 if best else 0.6}


def _by_plateau(a: Analysis, trace: Figure, hover: str) -> Figure:
    """Colour trials by the plateau where Optuna colours them by their number."""
    inside, numbers = a.plateau.numbers if a.plateau else (), trace["marker"]["color"]
    colours = [BLUE if number in inside else GREY for number in numbers]
    template = f"trial %{{customdata}}: {hover}<extra></extra>"
    look = {"marker": {"color": colours, "size": 7}, "text": None}
    return trace | look | {"customdata": numbers, "hovertemplate": template}


def _layered(a: Analysis, rows: Sequence[TrialRow], traces: Sequence[Any]) -> list[Any]:
    """Return at most `MAX_CURVES` lines, better ones over poorer, the recommended one on top."""

    def height(pair: tuple[TrialRow, Any]) -> tuple[bool, bool, float]:
        row = pair[0]
        score = a.signs[0] * (row.shown_value or 0.0)
        return row == a.recommended, row.state == "complete", score

    ordered = [trace for _, trace in sorted(zip(rows, traces, strict=False), key=height)]
    return ordered[:: -ceil(len(ordered) / MAX_CURVES)][::-1]


def _traces(figure: Any) -> list[Figure]:
    """Return what a figure of Optuna's draws as plain dictionaries."""
    traces: list[Figure] = json.loads(figure.to_json())["data"]
    return traces


def _sampled(parameter: Parameter, value: Any) -> tuple[Any, BaseDistribution]:
    """Return a value as Optuna's figures show it, and what it was drawn from."""
    if parameter.choices:
        return html.escape(str(value)), CategoricalDistribution(_options(parameter))
    return value, FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _options(parameter: Parameter) -> list[str]:
    return [html.escape(choice) for choice in parameter.choices]


def _axis(parameter: Parameter) -> Figure:
    """Return the axis of a parameter, by its scale."""
    axis: Figure = {"title": {"text": _short(parameter.name)}, "automargin": True}
    if parameter.choices:
        places = _places(parameter, parameter.choices)
        axis |= {"type": "category", "categoryarray": places, "categoryorder": "array"}
        return axis | {"tickvals": places, "ticktext": _options(parameter)}
    if parameter.log:
        steps = "D1" if parameter.high < 10 * parameter.low else 1
        return axis | {"type": "log", "exponentformat": "power", "dtick": steps}
    return axis | {"nticks": 6}


def _place(parameter: Parameter, row: TrialRow) -> Any:
    """Return where a trial stands on a parameter's axis, None where it has no value of it."""
    name = parameter.name
    return _places(parameter, [row.params[name]])[0] if name in row.params else None


def _places(parameter: Parameter, values: Sequence[Any]) -> list[Any]:
    """Return where values stand on the axis; Optuna's slices name options by their `repr`."""
    if parameter.choices:
        return [repr(html.escape(str(value))) for value in values]
    return list(map(float, values))


def _label(row: TrialRow) -> str:
    """Return what hovering over a trial shows."""
    values = row.values or ((row.shown_value,) if row.shown_value is not None else ())
    return f"trial {row.number}: {', '.join(f'{v:.4g}' for v in values) or 'no value'}"
