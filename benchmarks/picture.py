"""Draw the README's picture: growth and drawdown of three policies on reporting markets.

    python benchmarks/picture.py --comparison reporting   # sessions -> curves.json -> equity.svg
    python benchmarks/picture.py                          # only draw curves.json

`curves.json` holds growth of 1 at the close of every fifth test session and the drawdown there,
for each policy a list by seed.  Several seeds are drawn as their median with the quartiles.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import ROOT

CURVES, PICTURE = ROOT / "docs" / "results" / "curves.json", ROOT / "docs" / "equity.svg"
EVERY = 5  # sessions
SESSIONS_A_YEAR = 252  # of the synthetic market
POLICIES = {
    "masked": ("MaskablePPO", "#0072B2"),
    "execute": ("standard PPO, forbidden orders carried out", "#D55E00"),
    "threshold": ("threshold rule, tuned on train", "#7F7F7F"),
}


def collected(comparison: Path) -> dict[str, Any]:
    """Return the curves of a finished comparison, from the sessions that its cells kept."""
    from ppo_workbench.scoring.session_path import read_path

    seeds = harness.read(comparison / "comparison.json")["setup"]["seeds"]
    curves: dict[str, Any] = {}
    for policy in POLICIES:
        growth, falls = [], []
        for seed in seeds:
            (file,) = comparison.glob(f"cells/main-{seed}-*/sessions-{policy}.npz")
            logs = np.cumsum(read_path(file).log_close)
            peak = np.maximum.accumulate(np.concatenate(([0.0], logs)))[1:]
            shown = np.arange(len(logs) - 1, -1, -EVERY)[::-1]  # the last one always
            growth.append([round(float(value), 4) for value in np.exp(logs[shown])])
            falls.append([round(float(value), 4) for value in 1.0 - np.exp((logs - peak)[shown])])
        curves[policy] = {"growth": growth, "drawdown_frac": falls}
    return {"seeds": seeds, "sessions_apart": EVERY, "policies": curves}


def draw(curves: Mapping[str, Any], path: Path) -> None:
    """Draw growth on a log scale over drawdowns; the same curves give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    style: Any = {"svg.hashsalt": "equity", "font.size": 10, "axes.spines.top": False}
    with mpl.rc_context(style | {"axes.spines.right": False, "legend.frameon": False}):
        figure = Figure(figsize=(9.0, 4.4), layout="constrained", facecolor="white")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        for name, (title, colour) in POLICIES.items():
            found = curves["policies"][name]
            for axes, key, scale in ((top, "growth", 1.0), (bottom, "drawdown_frac", -100.0)):
                values = scale * np.array(found[key])
                years = (np.arange(values.shape[1]) + 1) * EVERY / SESSIONS_A_YEAR
                low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
                axes.plot(years, middle, color=colour, lw=1.6, label=title)
                if len(values) > 1:
                    axes.fill_between(years, low, high, color=colour, alpha=0.15, lw=0)
        top.set_yscale("log")
        top.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        top.yaxis.set_minor_locator(NullLocator())
        top.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        top.set_ylabel("growth of 1")
        top.legend(loc="upper left")
        bottom.set_ylabel("drawdown (%)")
        bottom.set_xlabel(_caption(curves["seeds"]))
        for axes in (top, bottom):
            axes.grid(alpha=0.25)
        figure.savefig(path, metadata={"Date": None})


def _caption(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"years of the test, market {seeds[0]}, the first of the reporting block"
    return f"years of the test, median and quartiles over the markets {seeds[0]}-{seeds[-1]}"


def main() -> None:
    """Collect if asked to, and draw."""
    comparison = str, "name in comparisons/ of a finished one"
    options = harness.parser(__doc__, comparison=comparison).parse_args()
    if options.comparison:
        home = Path(os.environ.get("PPO_WORKBENCH_HOME") or ".")
        curves = collected(home / "comparisons" / options.comparison)
        CURVES.write_text(json.dumps(curves, separators=(",", ":")) + "\n", encoding="utf-8")
    draw(harness.read(CURVES), PICTURE)


if __name__ == "__main__":
    main()
