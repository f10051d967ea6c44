"""The first pictures of a report as PNG files, for records that show pictures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_workbench.scoring.metrics import drawdowns_at_reference
from ppo_workbench.scoring.plots import STYLE, thinned_rows
from ppo_workbench.scoring.report_curves import Curves, curve_band, curve_keys
from ppo_workbench.scoring.report_document import POINTS, Arm
from ppo_workbench.scoring.report_figures import arm_strokes
from ppo_workbench.scoring.report_world import Floats, World, session_drawdowns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY = "#2B7FC4", "#7A7A7A"
_DASHES: dict[str, Any] = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


def write_report_plots(
    folder: Path,
    arms: Sequence[Arm],
    world: World,
    curves: Curves,
    differences: Sequence[Mapping[str, Any]],
) -> list[Path]:
    """Write the pictures that the input allows and return their paths.

    Args:
        folder: An existing folder; files of the same name are replaced.
        arms: In the order of the report.
        world: The shown world.
        curves: Training curves by arm.
        differences: `report_tables.difference_table` of the same input.
    """
    import matplotlib as mpl

    traced = [arm for arm in arms if arm.name in world.traces]
    keys = curve_keys(curves)
    makers: dict[str, Callable[[], Figure]] = {}
    if traced:
        makers["report-equity"] = lambda: _equity(world, traced, arms)
        makers["report-equal-volatility"] = lambda: _equal_volatility(world, traced, arms)
    if differences:
        makers["report-differences"] = lambda: _differences(differences)
    if keys:
        makers["report-curves"] = lambda: _curves(curves, keys[0], arms)
    paths = []
    with mpl.rc_context(STYLE):
        for name, make in makers.items():
            path = folder / f"{name}.png"
            make().savefig(path)
            paths.append(path)
    return paths


def _equity(world: World, traced: Sequence[Arm], arms: Sequence[Arm]) -> "Figure":
    figure, (top, bottom) = _panels(2, 6.4)
    for arm in traced:
        trace = world.traces[arm.name]
        growth = trace.equity_usd[trace.session_ends()] / trace.initial_equity_usd
        _line(top, world, arm, growth, arms)
        _line(bottom, world, arm, -100 * session_drawdowns(trace), arms)
    top.set_ylabel("growth of 1")
    bottom.set_ylabel("drawdown (%)")
    _legend(top)
    return figure


def _equal_volatility(world: World, traced: Sequence[Arm], arms: Sequence[Arm]) -> "Figure":
    figure, (axes,) = _panels(1, 4.0)
    for arm in traced:
        falls = -100 * drawdowns_at_reference(world.traces[arm.name])[1:]
        _line(axes, world, arm, falls, arms)
    axes.set_ylabel("drawdown at 10 % volatility (%)")
    _legend(axes)
    return figure


def _differences(groups: Sequence[Mapping[str, Any]]) -> "Figure":
    heights = [len(group["rows"]) for group in groups]
    figure, panels = _panels(len(groups), 0.9 * len(groups) + 0.34 * sum(heights), heights)
    for axes, group in zip(panels, groups, strict=True):
        scale = 100.0 if group["unit"] == POINTS else 1.0
        known = [row for row in group["rows"] if row["estimate"] is not None]
        for place, row in enumerate(reversed(known)):
            colour = BLUE if row["decided"] else GREY
            if row["low"] is not None and row["high"] is not None:
                axes.plot([scale * row["low"], scale * row["high"]], [place] * 2, color=colour)
            axes.plot([scale * row["estimate"]], [place], "o", color=colour)
        names = [f"{_plain(row['first'])} - {_plain(row['second'])}" for row in reversed(known)]
        axes.set_yticks(range(len(known)), names, size=8)
        axes.axvline(0.0, color="black", lw=0.8)
        unit = ", % points" if scale > 1 else ""
        axes.set_title(f"{group['title']}{unit}: estimate and 95 % interval", loc="left", size=10)
    return figure


def _curves(curves: Curves, key: str, arms: Sequence[Arm]) -> "Figure":
    figure, (axes,) = _panels(1, 4.0)
    for arm in arms:
        band = curve_band(curves.get(arm.name) or (), key)
        if band is None:
            continue
        stroke = _stroke(arm, arms)
        axes.plot(band.steps, band.mean, label=_plain(arm.title), **stroke)
        if np.isfinite(band.low).any():
            axes.fill_between(
                band.steps, band.low, band.high, color=stroke["color"], alpha=0.15, lw=0
            )
    axes.set_xlabel("timesteps")
    axes.set_ylabel(_plain(key))
    _legend(axes)
    return figure


def _panels(
    count: int, height: float, ratios: Sequence[int] | None = None
) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, max(height, 2.0)))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(
        count, 1, squeeze=False, gridspec_kw={"height_ratios": ratios} if ratios else {}
    )
    return figure, list(grid[:, 0])


def _line(axes: "Axes", world: World, arm: Arm, values: Floats, arms: Sequence[Arm]) -> None:
    rows = thinned_rows(values)
    dates = np.array(world.dates(arm.name), "datetime64[D]")[rows]
    axes.plot(dates, values[rows], label=_plain(arm.title), **_stroke(arm, arms))


def _stroke(arm: Arm, arms: Sequence[Arm]) -> dict[str, Any]:
    line = arm_strokes(arms)[arm.name]
    return {"color": line["color"], "lw": 0.7 * line["width"], "ls": _DASHES[line["dash"]]}


def _legend(axes: "Axes") -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.99), ncols=3, fontsize=8)


def _plain(text: str) -> str:
    """Keep a $ from being read as mathematics."""
    return text.replace("$", r"\$")
