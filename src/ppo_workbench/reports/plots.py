"""Pictures of a trace as PNG files: equity, drawdown, masks, rewards, monthly returns.

Time runs along rows, not along the clock, so nights and weekends take no space.  No
picture draws more than `MAX_POINTS` points of a line; extremes survive the thinning.
matplotlib is imported on first use and never touches the global pyplot state.
"""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ppo_workbench.config.arrays import Codes, Floats, Ints
from ppo_workbench.scoring.metrics import blocked_shares, drawdowns
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.rewards import REWARD_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_POINTS = 2000
MAX_BUCKETS = 240
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
REGIME_NAMES = ("range, low vol.", "trend, low vol.", "range, high vol.", "trend, high vol.")

# Okabe and Ito (2008): distinguishable with every common colour blindness.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"
_REGIME_COLOURS = ("#DDDDDD", "#56B4E9", "#F0C05A", "#CC79A7")
STYLE: Any = {
    "figure.dpi": 120,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def write_plots(trace: Trace, folder: Path, title: str) -> list[Path]:
    """Write the pictures of a trace as PNG files and return their paths.

    Args:
        trace: What to draw.
        folder: Existing or new folder; files of the same name are replaced.
        title: What was traded by whom, such as "MaskablePPO, validation".
    """
    import matplotlib as mpl

    makers = {
        "equity": equity_figure,
        "drawdown": drawdown_figure,
        "masks": mask_figure,
        "rewards": reward_figure,
        "monthly_returns": monthly_figure,
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(STYLE):
        for name, make in makers.items():
            path = folder / f"{name}.png"
            make(trace, title).savefig(path)
            paths.append(path)
    return paths


def equity_figure(trace: Trace, title: str) -> "Figure":
    """Draw equity beside buy-and-hold, exposure and the mix of regimes."""
    figure, (top, middle, bottom) = _panels(3, (3.2, 1.2, 0.7), f"Equity: {title}")
    equity = trace.equity_usd / trace.initial_equity_usd
    held = trace.close / trace.close[0]
    for values, name, colour, width in (
        (held, "buy and hold", GREY, 1.0),
        (equity, "equity", BLUE, 1.5),
    ):
        rows = thinned_rows(values)
        top.plot(rows, values[rows], color=colour, lw=width, label=f"{name} {values[-1] - 1:+.1%}")
    top.axhline(1.0, color="black", lw=0.6)
    top.set_ylabel("growth of 1")
    _legend_above(top, reverse=True)
    _draw_exposure(middle, trace.exposure)
    _draw_regimes(bottom, trace.regime)
    _date_axis(bottom, trace)
    return figure


def drawdown_figure(trace: Trace, title: str) -> "Figure":
    """Draw the fall of equity below its peak, its deepest point marked."""
    figure, (axes,) = _panels(1, (3.0,), f"Drawdown: {title}")
    falls = -100 * drawdowns(trace.equity_curve())[1:]
    rows, deepest = thinned_rows(falls), int(np.argmin(falls))
    axes.fill_between(rows, falls[rows], 0.0, color=RED, alpha=0.3, lw=0)
    axes.plot(rows, falls[rows], color=RED, lw=0.9)
    axes.plot([deepest], [falls[deepest]], "o", color="black", ms=5)
    axes.set_title(
        f"deepest {-falls[deepest]:.2f} % on {_day(trace, deepest)}", loc="left", size=10
    )
    axes.set_ylabel("below the peak (%)")
    axes.set_ylim(min(float(falls.min()) * 1.08, -0.1), 0.0)
    _date_axis(axes, trace)
    return figure


def mask_figure(trace: Trace, title: str) -> "Figure":
    """Draw the share of decisions at which each rule blocked an action, over time."""
    from matplotlib.colors import PowerNorm

    shares = {name: share for name, share in blocked_shares(trace).items() if share > 0}
    height = 1.0 + 0.32 * max(len(shares), 3)
    figure, (axes,) = _panels(1, (height,), f"Mask activity: {title}")
    axes.grid(False)
    if not shares:
        axes.text(0.5, 0.5, "no action was ever blocked", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
        _date_axis(axes, trace)
        return figure
    names = sorted(shares, key=lambda name: -shares[name])
    rules, edges = trace.blocked_rules(), bucket_edges(len(trace), MAX_BUCKETS)
    bits = [1 << trace.rule_names.index(name) for name in names]
    grid = np.stack([bucket_means((rules & bit) != 0, edges) for bit in bits])
    extent = (0.0, float(len(trace)), len(names) - 0.5, -0.5)
    # The square root keeps a rule that blocks 3 % of decisions visible beside one of 90 %.
    image = axes.imshow(
        100 * grid,
        aspect="auto",
        cmap="Blues",
        norm=PowerNorm(0.5, vmin=0, vmax=100),
        extent=extent,
        interpolation="nearest",
    )
    axes.set_yticks(range(len(names)), [f"{_words(name)}  {shares[name]:.1%}" for name in names])
    for line in range(1, len(names)):
        axes.axhline(line - 0.5, color="black", lw=0.6)
    figure.colorbar(image, ax=axes, label="% of decisions", pad=0.015)
    _date_axis(axes, trace)
    return figure


def reward_figure(trace: Trace, title: str) -> "Figure":
    """Draw the running sum of every reward component, unweighted, one panel each."""
    used = [k for k in range(len(REWARD_NAMES)) if np.any(trace.reward_components[:, k])] or [0]
    figure, panels = _panels(
        len(used), (1.15,) * len(used), f"Reward components, running sums, unweighted: {title}"
    )
    for axes, k in zip(panels, used, strict=True):
        values = np.cumsum(trace.reward_components[:, k])
        rows = thinned_rows(values)
        axes.plot(rows, values[rows], color=BLUE, lw=1.2)
        axes.axhline(0.0, color="black", lw=0.6)
        axes.set_title(f"{_words(REWARD_NAMES[k])}: {values[-1]:+,.2f}", loc="left", size=10)
    _date_axis(panels[-1], trace)
    return figure


def monthly_figure(trace: Trace, title: str) -> "Figure":
    """Draw the return of every calendar month (UTC), one row a year."""
    years, grid = monthly_returns(trace)
    figure, (axes,) = _panels(1, (1.0 + 0.42 * len(years),), f"Monthly returns: {title}")
    limit = max(float(np.nanmax(np.abs(grid))), 0.01)
    axes.grid(False)
    # Red and blue with a white middle stay apart for the colour-blind; red and green do not.
    image = axes.imshow(100 * grid, aspect="auto", cmap="RdBu", vmin=-100 * limit, vmax=100 * limit)
    for (row, month), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.6 * limit else "black"
            text = f"{100 * value:+.1f}"
            axes.text(month, row, text, ha="center", va="center", color=colour, size=9)
    axes.set_yticks(range(len(years)), [str(year) for year in years])
    axes.set_xticks(range(12), MONTHS)
    figure.colorbar(image, ax=axes, label="% of equity", pad=0.015)
    return figure


def monthly_returns(trace: Trace) -> tuple[list[int], Floats]:
    """Return the years and the compounded return of each month, float64 (years, 12).

    Sessions count for the UTC month in which they end; months without one are NaN.
    """
    ends = trace.end_ns[trace.session_ends()].astype("datetime64[ns]")
    months = ends.astype("datetime64[M]").astype(np.int64)
    first, last = int(months[0]) // 12, int(months[-1]) // 12
    grid = np.full((last - first + 1, 12), np.nan)
    growth = 1.0 + trace.daily_returns()
    for month in np.unique(months):
        grid[month // 12 - first, month % 12] = np.prod(growth[months == month]) - 1.0
    return [1970 + year for year in range(first, last + 1)], grid


def thinned_rows(values: Floats, limit: int = MAX_POINTS) -> Ints:
    """Return at most `limit` rows that keep both ends and the extremes of every stretch."""
    count = len(values)
    if count <= limit:
        return np.arange(count)
    edges = bucket_edges(count, limit // 2 - 1)
    rows = [0, count - 1]
    for start, stop in pairwise(edges):
        part = values[start:stop]
        rows += [start + int(part.argmin()), start + int(part.argmax())]
    return np.unique(np.array(rows, dtype=np.int64))


def bucket_edges(count: int, limit: int) -> Ints:
    """Return the borders of at most `limit` equal stretches of `count` rows."""
    return np.linspace(0, count, min(count, limit) + 1).astype(np.int64)


def bucket_means(values: npt.NDArray[Any], edges: Ints) -> Floats:
    """Return the mean of every stretch between `edges`, float64 (len(edges) - 1,)."""
    sums = np.add.reduceat(values.astype(np.float64), edges[:-1])
    means: Floats = sums / np.diff(edges)
    return means


def _panels(count: int, heights: tuple[float, ...], title: str) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, sum(heights) + 0.9))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.07)
    grid = figure.subplots(
        count, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    figure.suptitle(title, size=12, weight="bold", x=0.01, ha="left")
    return figure, list(grid[:, 0])


def _draw_exposure(axes: "Axes", exposure: Floats) -> None:
    """Stack the mean long and short exposure of each stretch: a mean alone would cancel."""
    edges = bucket_edges(len(exposure), MAX_BUCKETS)
    for values, name, colour in (
        (np.maximum(exposure, 0.0), "long", BLUE),
        (np.minimum(exposure, 0.0), "short", ORANGE),
    ):
        label = f"{name} {abs(values).mean():.2f}"
        axes.stairs(bucket_means(values, edges), edges, fill=True, color=colour, label=label)
    axes.axhline(0.0, color="black", lw=0.6)
    bound = max(1.0, float(np.abs(exposure).max()))
    axes.set_ylim(-1.05 * bound, 1.05 * bound)
    axes.set_ylabel("exposure")
    _legend_above(axes)


def _draw_regimes(axes: "Axes", regime: Codes) -> None:
    """Stack the share of each regime in each stretch; short traces become plain bands."""
    edges = bucket_edges(len(regime), MAX_BUCKETS)
    base = np.zeros(len(edges) - 1)
    for index, (name, colour) in enumerate(zip(REGIME_NAMES, _REGIME_COLOURS, strict=True)):
        top = base + bucket_means(regime == index, edges)
        label = f"{name} {np.mean(regime == index):.0%}"
        axes.stairs(top, edges, baseline=base, fill=True, color=colour, label=label)
        base = top
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([])
    axes.set_ylabel("regime")
    axes.grid(False)
    _legend_above(axes)


def _legend_above(axes: "Axes", *, reverse: bool = False) -> None:
    """Put the legend over the panel, so that it never hides data."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 0.99),
        ncols=4,
        borderaxespad=0.1,
        handlelength=1.2,
        columnspacing=1.4,
        reverse=reverse,
        fontsize=9,
    )


def _date_axis(axes: "Axes", trace: Trace) -> None:
    """Label up to eight evenly spaced sessions, or clock times within a single one."""
    starts = np.concatenate(([0], trace.session_ends()[:-1] + 1))
    single = len(starts) == 1
    candidates = np.arange(len(trace)) if single else starts
    ticks = candidates[bucket_edges(len(candidates), 8)[:-1]]
    form = "%H:%M" if single else "%Y-%m-%d"
    axes.set_xticks(ticks, [_stamp(trace, int(row), form) for row in ticks], ha="left")
    axes.set_xlim(0, max(len(trace) - 1, 1))
    axes.tick_params(axis="x", labelsize=9)
    if single:
        axes.set_xlabel(f"{_day(trace, 0)}, UTC", loc="left")


def _day(trace: Trace, row: int) -> str:
    return _stamp(trace, row, "%Y-%m-%d")


def _stamp(trace: Trace, row: int, form: str) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(trace.end_ns[row]) / 1e9, tz=UTC).strftime(form)


def _words(name: str) -> str:
    return name.replace("_", " ")
