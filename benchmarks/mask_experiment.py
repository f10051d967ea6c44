"""What does a mask buy? Run the experiment of docs/mask_experiment.md and write its tables.

    python benchmarks/mask_experiment.py            # run what is missing, then collect and write
    python benchmarks/mask_experiment.py --write    # only write tables and picture anew

Three comparisons on validation alone, in `comparisons/` under `PPO_WORKBENCH_HOME`; killed, the
same command goes on, and one whose curves stand in docs/results is not run again.  Collected are
the training curves of every seed, from which all figures follow: areas, paired differences by
Student's t over seeds, Holm over the secondary family, which is shown once all three have ended.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "mask_experiment.json"
PAGE, PICTURE = ROOT / "docs" / "mask_experiment.md", ROOT / "docs" / "mask_experiment.svg"
BEGIN, END = "<!-- tables -->\n", "<!-- /tables -->"
STEPS = 300_000
TWO_ARMS = tuple(f"~compare.arms.{arm}" for arm in ("names", "bits", "penalty", "execute"))
MARKETS = (
    *("levels_3", "levels_5", "volatility_off", "volatility_09", "volatility_07"),
    *("volatility_05", "conservative", "aggressive"),
)
ALONE = (*TWO_ARMS, *(f"~compare.markets.{market}" for market in MARKETS))
RUNS: dict[str, tuple[str, ...]] = {
    "mask_experiment": (),
    "mask_experiment_long": (*ALONE, "budget.timesteps=3000000", "budget.evaluations=3"),
    "mask_experiment_sb3": (*(*ALONE, "model.learner=sb3", "compare.seeds=[520,521,522,523,524]"),),
}
# Of forbidden (decision, action) pairs, see the page.
SHARES = {
    "volatility_off": 0.025,
    "main": 0.142,
    "volatility_09": 0.369,
    "volatility_07": 0.608,
    "volatility_05": 0.799,
}
TITLES = {
    "masked": "masked: rules and second names",
    "names": "names: second names alone",
    "reject": "reject: standard PPO",
    "bits": "bits: standard PPO, mask observed",
    "penalty": "penalty: standard PPO, penalised",
    "execute": "execute: standard PPO, orders carried out",
}
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#7F7F7F")


def run(name: str, home: Path) -> dict[str, Any]:
    """Run what is missing of a comparison; return steps, and curves by market, arm and seed."""
    folder, began = home / "comparisons" / name, time.monotonic()
    if not (folder / "comparison.json").exists():
        command = [sys.executable, "-m", "ppo_workbench", "task=compare"]
        command += ["compare=mask_experiment", f"output={name}", *RUNS[name]]
        subprocess.run(command, check=True, cwd=ROOT)
    document = json.loads((folder / "comparison.json").read_text("utf-8"))
    curves: dict[str, dict[str, list[list[float]]]] = {}
    beside: dict[str, list[float]] = {}
    steps: list[float] = []
    seconds = 0.0
    for path in sorted(folder.glob("cells/*/result.json")):
        cell = json.loads(path.read_text("utf-8"))
        seconds += cell["seconds"]
        if "curve" not in cell:
            for policy in ("threshold", "ridge") if cell["market"] == "main" else ():
                score = cell["scores"][policy]["validation"]["sharpe_annual"]
                beside.setdefault(policy, []).append(score)
            continue
        steps = [row["step"] for row in cell["curve"]]
        curve = [round(row["validation/sharpe_annual"], 4) for row in cell["curve"]]
        curves.setdefault(cell["market"], {}).setdefault(cell["arm"], []).append(curve)
    return {
        "seeds": document["setup"]["seeds"],
        "steps": steps,
        "curves": curves,
        "not_trained": beside,
        "cell_seconds": round(seconds),
        "wall_seconds": round(time.monotonic() - began),
        "git_commit": document["git_commit"],
    }


def areas(steps: Sequence[float], curves: Sequence[Sequence[float]], until: float) -> Floats:
    """Return the mean of each curve from 0 at timestep 0 to `until`, by trapezoids."""
    at = np.array([0.0, *steps])
    shown = np.append(at[at < until], until)
    values = [np.interp(shown, at, [0.0, *curve]) for curve in curves]
    return np.array([np.trapezoid(value, shown) / until for value in values])


def paired(name: str, apart: Floats) -> dict[str, Any]:
    """Return mean, 95 % interval and two-sided p-value of paired differences."""
    from scipy import stats

    n = len(apart)
    error = float(apart.std(ddof=1)) / np.sqrt(n)
    half = float(stats.t.ppf(0.975, n - 1)) * error
    mean = float(apart.mean())
    p = 2.0 * float(stats.t.sf(abs(mean) / error, n - 1)) if error > 0 else 1.0
    better = int((apart > 0).sum())
    row = {"name": name, "mean": mean, "low": mean - half, "high": mean + half}
    return row | {"p": p, "better": better, "n": n}


def primary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the primary endpoint."""
    return paired("masked less reject", _apart(found, "main", "masked", "reject", STEPS))


def secondary(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the secondary family in the order of the plan, with p-values by Holm."""
    pairs = [("masked", "names"), ("names", "reject")]
    rows = [paired(f"{a} less {b}", _apart(found, "main", a, b, STEPS)) for a, b in pairs]
    for levels in (3, 5):
        for a, b in [("masked", "reject"), *pairs]:
            apart = _apart(found, f"levels_{levels}", a, b, STEPS)
            rows.append(paired(f"{levels} levels, {a} less {b}", apart))
    for until in (50_000, 100_000):
        apart = _apart(found, "main", "masked", "reject", until)
        rows.append(paired(f"first {until:,} timesteps", apart))
    late = found["mask_experiment_long"]
    ends = {arm: np.array(curves) for arm, curves in late["curves"]["main"].items()}
    for at, name in ((0, "1,000,000"), (-1, "3,000,000")):
        apart = ends["masked"][:, at] - ends["reject"][:, at]
        rows.append(paired(f"last look of {name} timesteps", apart))
    by_share = {market: _apart(found, market, "masked", "reject", STEPS) for market in SHARES}
    for market, share in SHARES.items():
        if market != "main":
            rows.append(paired(f"share of forbidden actions {share:.3f}", by_share[market]))
    shares = np.array(list(SHARES.values()))
    centred = shares - shares.mean()
    slopes = centred @ np.array(list(by_share.values())) / (centred @ centred)
    rows.append(paired("slope of the difference on that share, for all less none", slopes))
    for other in ("bits", "penalty", "execute"):
        apart = _apart(found, "main", "masked", other, STEPS)
        rows.append(paired(f"masked less {other}", apart))
    for preset in ("conservative", "aggressive"):
        apart = _apart(found, preset, "masked", "reject", STEPS)
        rows.append(paired(f"risk={preset}", apart))
    apart = _apart(found, "main", "masked", "reject", STEPS, "mask_experiment_sb3")
    rows.append(paired("sb3-contrib less stable-baselines3, five seeds", apart))
    order = np.argsort([row["p"] for row in rows])
    held = 0.0
    for rank, at in enumerate(order):
        held = max(held, min(1.0, rows[at]["p"] * (len(rows) - rank)))
        rows[at]["p_holm"] = held
    return rows


def _apart(
    found: Mapping[str, Any],
    market: str,
    first: str,
    second: str,
    until: float,
    name: str = "mask_experiment",
) -> Floats:
    own = found[name]
    one, other = (areas(own["steps"], own["curves"][market][arm], until) for arm in (first, second))
    return one - other


def tables(found: Mapping[str, Any]) -> str:
    """Return what stands between the marks of the page."""
    own, best = found["mask_experiment"], primary(found)
    lines = [
        f"**Primary: {_shown(best)}**, p = {best['p']:.3f}, better on {best['better']} of "
        f"{best['n']} markets.",
        "",
        "| arm | mean over the first 300,000 timesteps | last look |",
        "|---|---|---|",
    ]
    for arm, title in TITLES.items():
        curves = own["curves"]["main"][arm]
        last = [curve[-1] for curve in curves]
        area = areas(own["steps"], curves, STEPS)
        lines.append(f"| {title} | {_spread(area)} | {_spread(np.array(last))} |")
    for policy, title in (("threshold", "threshold rule"), ("ridge", "ridge forecast")):
        lines.append(
            f"| {title}, not trained | | {_spread(np.array(own['not_trained'][policy]))} |"
        )
    if set(found) < set(RUNS):
        return "\n".join([*lines, "", "The secondary family waits for its last trainings.", ""])
    family = secondary(found)
    lines += [
        "",
        f"The secondary family, {len(family)} comparisons:",
        "",
        "| comparison | difference of Sharpe ratio [95 %] | better in | p by Holm | decided |",
        "|---|---|---|---|---|",
    ]
    for row in family:
        decided = "yes" if row["p_holm"] < 0.05 else "no"
        lines.append(
            f"| {row['name']} | {_shown(row)} | {row['better']} of {row['n']} "
            f"| {row['p_holm']:.3f} | {decided} |"
        )
    return "\n".join(lines) + "\n"


def _shown(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _spread(values: Floats) -> str:
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    return f"{values.mean():.2f} ({error:.2f})"


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw mean curves with standard errors, and the difference against the share forbidden."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    own = found["mask_experiment"]
    style = {"svg.hashsalt": "masks", "font.size": 10, "axes.spines.top": False}
    with mpl.rc_context(style | {"axes.spines.right": False, "legend.frameon": False}):
        figure = Figure(figsize=(10.0, 4.4), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        steps = np.array([0.0, *own["steps"]]) / 1000.0
        for (arm, title), colour in zip(TITLES.items(), COLOURS, strict=True):
            curves = np.array(own["curves"]["main"][arm])
            curves = np.hstack([np.zeros((len(curves), 1)), curves])
            mean, error = curves.mean(axis=0), curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
            left.plot(steps, mean, color=colour, lw=1.6, label=title)
            left.fill_between(steps, mean - error, mean + error, color=colour, alpha=0.12, lw=0)
        left.set_xlabel("thousand timesteps")
        left.set_ylabel("Sharpe ratio on validation, mean of 20 markets")
        left.legend(loc="upper left", fontsize=9)
        rows = {
            share: paired(market, _apart(found, market, "masked", "reject", STEPS))
            for market, share in SHARES.items()
        }
        means = [row["mean"] for row in rows.values()]
        halves = [row["high"] - row["mean"] for row in rows.values()]
        right.errorbar(list(rows), means, yerr=halves, fmt="o", color="#0072B2", capsize=3)
        right.axhline(0.0, color="#7F7F7F", lw=0.8)
        right.set_xlabel("share of actions that a rule forbids")
        right.set_ylabel("masked less reject, mean to 300,000 timesteps")
        for axes in (left, right):
            axes.grid(alpha=0.25)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="do not run or collect")
    options = parser.parse_args()
    home = Path(os.environ.get("PPO_WORKBENCH_HOME") or ROOT).absolute()
    found = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for name in () if options.write else [name for name in RUNS if name not in found]:
        found[name] = run(name, home)
        RESULTS.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    page = PAGE.read_text("utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + tables(found) + END + rest.split(END)[1], encoding="utf-8")
    draw(found, PICTURE)
    print(tables(found))


if __name__ == "__main__":
    main()
