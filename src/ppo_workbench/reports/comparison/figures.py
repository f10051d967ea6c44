"""The pictures of a report as plotly figures, by the id of their element.

An id with an @ is one of several for the same place: one for each arm, or each curve.
Colours keep a contrast of 3 to 1 and more on white and on dark paper; the page sets paper,
ink and grid.
"""

import html
from collections.abc import Sequence

import numpy as np

from ppo_workbench.config.arrays import Floats
from ppo_workbench.market.regimes import REGIME_NAMES
from ppo_workbench.reports.comparison.curves import Curves, curve_band, curve_keys, curve_title
from ppo_workbench.reports.comparison.document import Arm
from ppo_workbench.reports.comparison.masks import mask_history
from ppo_workbench.reports.comparison.shown import ShownMarket, session_drawdowns, session_regimes
from ppo_workbench.reports.plots import thinned_rows
from ppo_workbench.reports.strokes import (
    Figure,
    figure_of,
    growth_figure,
    line_trace,
    panel_axis,
)
from ppo_workbench.scoring.documents import StressPart
from ppo_workbench.scoring.metrics import drawdowns_at_reference
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.rewards import REWARD_NAMES

COLOURS = (
    *("#2B7FC4", "#D55E00", "#0B8F69", "#B85C93", "#B57A00", "#8A6FD1", "#178A9C", "#C0392B"),
    *("#7A7A7A", "#A0522D"),
)
DASHES = ("solid", "dash", "dot", "dashdot")
REGIME_COLOURS = ("#8C96A0", "#3D8FD1", "#C48A1E", "#B85C93")
CURVE_POINTS, REWARD_POINTS = 700, 250
LEGEND_LETTERS = 40
_EQUITY_HEIGHT = 450  # with verdict and figures above it within the first 900 pixels
# The lines of other reference policies begin hidden, for they bend the scale.
SHOWN_REFERENCES = ("threshold", "buy-and-hold")


def report_figures(market: ShownMarket, arms: Sequence[Arm], curves: Curves) -> dict[str, Figure]:
    """Return every figure of the arms and of their training."""
    figures = {
        "equity": equity_figure(market, arms),
        "equal_volatility": equal_volatility_figure(market, arms),
    }
    for index, arm in enumerate(arms):
        figures[f"masks@{index}"] = masks_figure(market, arm)
        figures[f"rewards@{index}"] = rewards_figure(market, arm)
    for index, key in enumerate(curve_keys(curves)):
        figures[f"curves@{index}"] = curves_figure(curves, key, arms)
    return figures


def arm_strokes(arms: Sequence[Arm]) -> dict[str, Figure]:
    """Return the line of each arm: trained ones solid, yardsticks dashed."""
    return {
        arm.name: {
            "color": COLOURS[index % len(COLOURS)],
            "width": 2.2 if arm.kind == "trained" else 1.6,
            "dash": DASHES[0 if arm.kind == "trained" else 1 + index % 3],
        }
        for index, arm in enumerate(arms)
    }


def is_faint(arm: Arm) -> bool:
    """Tell whether an arm's line begins hidden: a click on its name shows it."""
    return arm.kind != "trained" and arm.name not in SHOWN_REFERENCES


def equity_figure(market: ShownMarket, arms: Sequence[Arm]) -> Figure:
    """Draw growth of 1 and drawdown of all arms by session, over bands of the regime."""
    lines, strokes = [], arm_strokes(arms)
    for arm in arms:
        trace, dates, text = market.traces[arm.name], market.dates(arm.name), _short(arm.title)
        hidden = {"visible": "legendonly"} if is_faint(arm) else {}
        growth = trace.equity_usd[trace.session_ends()] / trace.initial_equity_usd
        line, thin = strokes[arm.name], strokes[arm.name] | {"width": 1.0}
        falls = _thinned(text, dates, -100 * session_drawdowns(trace), thin)
        lines.append((_thinned(text, dates, growth, line) | hidden, falls | hidden))
    strip = {"domain": [0.0, 0.055], "visible": False, "fixedrange": True}
    figure = growth_figure(lines, _dates("y3"), 0.09, yaxis3=strip, height=_EQUITY_HEIGHT)
    longest = max(arms, key=lambda arm: len(market.traces[arm.name])).name
    figure["data"].append(_regime_band(market.traces[longest], market.dates(longest)))
    return figure


def equal_volatility_figure(market: ShownMarket, arms: Sequence[Arm]) -> Figure:
    """Draw drawdowns of session returns scaled to 10 % volatility."""
    traces, strokes = [], arm_strokes(arms)
    for arm in arms:
        falls = -100 * drawdowns_at_reference(market.traces[arm.name])[1:]
        title = f"{_short(arm.title)}: {-falls.min():.1f} %"
        line = _thinned(title, market.dates(arm.name), falls, strokes[arm.name])
        traces.append(line | {"hovertemplate": "%{y:.2f} %"})
    axis = {"title": {"text": "drawdown at 10 % volatility, %"}}
    return figure_of(traces, _dates(), axis, hovermode="x unified")


def masks_figure(market: ShownMarket, arm: Arm) -> Figure:
    """Draw the share of decisions that the most active rules blocked, over time."""
    found = mask_history(market, arm.name)
    if not found["rules"]:
        return _nothing("no rule blocked anything")
    traces = []
    for index, (rule, shares) in enumerate(found["rules"].items()):
        line = {"color": COLOURS[index], "width": 1.8, "dash": DASHES[index // 4]}
        trace = line_trace(_text(rule), found["dates"], _digits(100 * np.array(shares), 4), line)
        traces.append(trace | {"hovertemplate": "%{y:.1f} %"})
    axis = {"title": {"text": "decisions blocked, %"}, "rangemode": "tozero"}
    # The legend also of a single rule.
    return figure_of(traces, _dates(), axis, hovermode="x unified", showlegend=True)


def rewards_figure(market: ShownMarket, arm: Arm) -> Figure:
    """Draw running sums of the unweighted reward components in use, one panel each."""
    trace, dates = market.traces[arm.name], market.dates(arm.name)
    used = [k for k in range(len(REWARD_NAMES)) if np.any(trace.reward_components[:, k])]
    if not used:
        return _nothing("no reward was paid")
    traces: list[Figure] = []
    axes: Figure = {}
    for place, k in enumerate(used):
        sums = np.cumsum(trace.reward_components[:, k])[trace.session_ends()]
        suffix = "" if place == 0 else str(place + 1)
        line = {"color": COLOURS[k], "width": 1.8}
        name = REWARD_NAMES[k].replace("_", " ")
        drawn = _thinned(name, dates, sums, line, limit=REWARD_POINTS)
        traces.append(drawn | {"yaxis": f"y{suffix}", "hovertemplate": "%{y:.4g}"})
        top = 1.0 - place / len(used)
        axes[f"yaxis{suffix}"] = panel_axis(name, [top - 0.8 / len(used), top])
    last = "y" if len(used) == 1 else f"y{len(used)}"
    height = 110 + 120 * len(used)
    axes |= {"height": height, "showlegend": False, "hovermode": "x unified"}
    return figure_of(traces, _dates(last), {}, **axes)


def curves_figure(curves: Curves, key: str, arms: Sequence[Arm]) -> Figure:
    """Draw one training figure of every trained arm: mean and 95 % interval over its runs."""
    traces, strokes = [], arm_strokes(arms)
    for arm in arms:
        band = curve_band(curves.get(arm.name) or (), key)
        if band is None:
            continue
        steps, line = band.steps.tolist(), strokes[arm.name]
        title = f"{_short(arm.title)} ({band.runs} {'run' if band.runs == 1 else 'runs'})"
        if np.isfinite(band.low).any():
            edge = {"width": 0, "color": line["color"]}
            plain = {"showlegend": False, "hoverinfo": "skip", "legendgroup": _text(arm.name)}
            traces.append(line_trace(title, steps, _digits(band.high), edge) | plain)
            fill = {"fill": "tonexty", "fillcolor": _pale(line["color"])}
            traces.append(line_trace(title, steps, _digits(band.low), edge) | plain | fill)
        mean = line_trace(title, steps, _digits(band.mean), line)
        traces.append(mean | {"legendgroup": _text(arm.name), "hovertemplate": "%{y:.4g}"})
    x = {"title": {"text": "timesteps"}, "rangemode": "tozero"}
    y = {"title": {"text": _text(curve_title(key))}}
    return figure_of(traces, x, y, hovermode="x unified", showlegend=True)


def cost_figure(stress: StressPart) -> Figure:
    """Draw the Sharpe ratio over the multiple of costs; the break-even cost as a mark."""
    points = sorted(
        (float(name.removeprefix("costs_x")), told["figures"])
        for name, told in stress["scenarios"].items()
        if name.startswith("costs_x")
    )
    multiples = [multiple for multiple, _ in points]
    trace = line_trace(
        "Sharpe ratio", multiples, [card["sharpe_annual"] for _, card in points],
        {"color": COLOURS[0], "width": 2.2},
    )  # fmt: skip
    trace |= {"mode": "lines+markers", "hovertemplate": "x %{x:g}: %{y:.2f}<extra></extra>"}
    errors = [1.96 * (card["sharpe_standard_error"] or 0.0) for _, card in points]
    trace["error_y"] = {"type": "data", "array": errors, "thickness": 1.2, "color": COLOURS[0]}
    figure = figure_of(
        [trace],
        {"title": {"text": "costs of fills, multiple of the configured"}, "rangemode": "tozero"},
        {"title": {"text": "Sharpe ratio, annual"}, "zeroline": True},
        showlegend=False,
        height=320,
    )
    even = stress["break_even"]["multiple_of_configured"]
    if even is not None and even <= 2 * multiples[-1]:
        line = {"color": COLOURS[1], "dash": "dash", "width": 1.5}
        upright = {"type": "line", "x0": even, "x1": even, "yref": "paper", "y0": 0, "y1": 1}
        flag = {"text": f"break-even, x {even:.2f}", "x": even, "yref": "paper", "y": 1}
        flag |= {"showarrow": False, "xanchor": "left", "xshift": 5}
        figure["layout"] |= {"shapes": [upright | {"line": line}], "annotations": [flag]}
    return figure


def _regime_band(trace: Trace, dates: list[str]) -> Figure:
    """Return a strip with the most frequent regime of each session."""
    regimes = session_regimes(trace)
    stops = [[edge / 4, REGIME_COLOURS[k]] for k in range(4) for edge in (k, k + 1)]
    return {
        "type": "heatmap",
        "x": dates,
        "y": ["regime"],
        "z": [regimes.tolist()],
        "text": [[REGIME_NAMES[k].replace("_", " ") for k in regimes]],
        "hovertemplate": "%{text}<extra></extra>",
        "zmin": -0.5,
        "zmax": 3.5,
        "colorscale": stops,
        "showscale": False,
        "showlegend": False,
        "yaxis": "y3",
    }


def _thinned(
    name: str,
    dates: Sequence[str],
    values: Floats,
    line: Figure,
    limit: int = CURVE_POINTS,
) -> Figure:
    rows = thinned_rows(values, limit)
    return line_trace(name, [dates[i] for i in rows], _digits(values[rows], 6), line)


def _digits(values: Floats, digits: int = 5) -> list[float | None]:
    """Return numbers without the digits that no picture shows, None for NaN."""
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in values]


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _dates(anchor: str = "y") -> Figure:
    return {"type": "date", "anchor": anchor, "nticks": 7, "hoverformat": "%Y-%m-%d"}


def _text(text: str) -> str:
    """Escape a text: plotly reads a little markup."""
    return html.escape(text)


def _short(title: str) -> str:
    """Return an arm's title as a legend has room for it."""
    return _text(title if len(title) <= LEGEND_LETTERS else title[: LEGEND_LETTERS - 3] + "...")


def _nothing(text: str) -> Figure:
    """Return a figure that says why it shows nothing."""
    place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    return figure_of([], _dates(), {}, annotations=[{"text": text} | place], height=160)
