"""What does a mask buy? Run the experiment of docs/mask_experiment.md and write its tables.

    python benchmarks/mask_experiment.py            # run what is missing, then collect and write
    python benchmarks/mask_experiment.py --write    # only write tables and picture anew

Four comparisons on validation alone, in `comparisons/` under `PPO_WORKBENCH_HOME`: three of the
first experiment, one of the second.  Killed, the same command goes on, and one whose curves stand
in docs/results is not run again.  Collected are the training curves of every seed, from which all
figures follow: areas, paired differences by Student's t over seeds, Holm over the secondary
family, which is shown once all of its trainings have ended.
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
FIRST, SECOND = "mask_experiment", "mask_experiment_learned"
STEPS, LONG_STEPS = 300_000, 3_000_000
TWO_ARMS = tuple(f"~compare.arms.{arm}" for arm in ("names", "bits", "penalty", "execute"))
MARKETS = (
    *("levels_3", "levels_5", "volatility_off", "volatility_09", "volatility_07"),
    *("volatility_05", "conservative", "aggressive"),
)
ALONE = (*TWO_ARMS, *(f"~compare.markets.{market}" for market in MARKETS))
RUNS: dict[str, tuple[str, ...]] = {
    FIRST: (),
    "mask_experiment_long": (*ALONE, "budget.timesteps=3000000", "budget.evaluations=3"),
    "mask_experiment_sb3": (*ALONE, "model.learner=sb3", "compare.seeds=[520,521,522,523,524]"),
    SECOND: (
        *("~compare.markets.levels_5", "~compare.markets.conservative"),
        *("~compare.markets.aggressive", "compare.markets.levels_3.arms=[masked,reject]"),
        f"budget.timesteps={LONG_STEPS}",
        f"compare.seeds=[{','.join(str(seed) for seed in range(540, 560))}]",
    ),
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


def primary(found: Mapping[str, Any], name: str = FIRST) -> dict[str, Any]:
    """Return the primary endpoint of an experiment."""
    until = STEPS if name == FIRST else LONG_STEPS
    return paired("masked less reject", _apart(found, "main", "masked", "reject", until, name))


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
    rows += _by_share(found, STEPS, FIRST)
    rows += _less_others(found, STEPS, FIRST)
    for preset in ("conservative", "aggressive"):
        apart = _apart(found, preset, "masked", "reject", STEPS)
        rows.append(paired(f"risk={preset}", apart))
    apart = _apart(found, "main", "masked", "reject", STEPS, "mask_experiment_sb3")
    rows.append(paired("sb3-contrib less stable-baselines3, five seeds", apart))
    return _holm(rows)


def secondary_learned(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the secondary family of the second experiment, with p-values by Holm."""
    pairs = [("masked", "names"), ("names", "reject")]
    of = [(f"{a} less {b}", "main", a, b, LONG_STEPS) for a, b in pairs]
    of.append(("3 levels, masked less reject", "levels_3", "masked", "reject", LONG_STEPS))
    of.append(("first 1,000,000 timesteps", "main", "masked", "reject", 1_000_000))
    rows = [paired(name, _apart(found, p, a, b, n, SECOND)) for name, p, a, b, n in of]
    ends = {arm: np.array(found[SECOND]["curves"]["main"][arm]) for arm in ("masked", "reject")}
    rows.append(paired("last look", ends["masked"][:, -1] - ends["reject"][:, -1]))
    rows += _by_share(found, LONG_STEPS, SECOND)
    return _holm(rows + _less_others(found, LONG_STEPS, SECOND))


def _by_share(found: Mapping[str, Any], until: float, name: str) -> list[dict[str, Any]]:
    apart = {market: _apart(found, market, "masked", "reject", until, name) for market in SHARES}
    rows = [
        paired(f"share of forbidden actions {share:.3f}", apart[market])
        for market, share in SHARES.items()
        if market != "main"
    ]
    shares = np.array(list(SHARES.values()))
    centred = shares - shares.mean()
    slopes = centred @ np.array(list(apart.values())) / (centred @ centred)
    return [*rows, paired("slope of the difference on that share, for all less none", slopes)]


def _less_others(found: Mapping[str, Any], until: float, name: str) -> list[dict[str, Any]]:
    return [
        paired(f"masked less {other}", _apart(found, "main", "masked", other, until, name))
        for other in ("bits", "penalty", "execute")
    ]


def _holm(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
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
    name: str = FIRST,
) -> Floats:
    own = found[name]
    one, other = (areas(own["steps"], own["curves"][market][arm], until) for arm in (first, second))
    return one - other


def tables(found: Mapping[str, Any], name: str = FIRST) -> str:
    """Return what stands between an experiment's marks on the page."""
    own, best = found[name], primary(found, name)
    until = STEPS if name == FIRST else LONG_STEPS
    lines = [
        f"**Primary: {_shown(best)}**, p = {best['p']:.3f}, better on {best['better']} of "
        f"{best['n']} markets.",
        "",
        f"| arm | mean over the first {until:,} timesteps | last look | last looks without a "
        "round trip |",
        "|---|---|---|---|",
    ]
    for arm, title in TITLES.items():
        curves = own["curves"]["main"][arm]
        last = np.array([curve[-1] for curve in curves])
        idle = f"{int((last == 0.0).sum())} of {len(last)}"
        area = areas(own["steps"], curves, until)
        lines.append(f"| {title} | {_spread(area)} | {_spread(last)} | {idle} |")
    for policy, title in (("threshold", "threshold rule"), ("ridge", "ridge forecast")):
        scores = np.array(own["not_trained"][policy])
        lines.append(f"| {title}, not trained | | {_spread(scores)} | |")
    if name == FIRST and set(found) - {SECOND} < set(RUNS) - {SECOND}:
        return "\n".join([*lines, "", "The secondary family waits for its last trainings.", ""])
    family = secondary(found) if name == FIRST else secondary_learned(found)
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
    """Draw mean curves with standard errors, and the difference against the share forbidden.

    Of the second experiment once it has run, of the first until then.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    name = SECOND if SECOND in found else FIRST
    until = STEPS if name == FIRST else LONG_STEPS
    own = found[name]
    style: Any = {"svg.hashsalt": "masks", "font.size": 10, "axes.spines.top": False}
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
        figure.legend(loc="outside upper center", ncols=3, fontsize=9)
        rows = {
            share: paired(market, _apart(found, market, "masked", "reject", until, name))
            for market, share in SHARES.items()
        }
        means = [row["mean"] for row in rows.values()]
        halves = [row["high"] - row["mean"] for row in rows.values()]
        right.errorbar(list(rows), means, yerr=halves, fmt="o", color="#0072B2", capsize=3)
        right.axhline(0.0, color="#7F7F7F", lw=0.8)
        right.set_xlabel("share of actions that a rule forbids")
        right.set_ylabel(f"masked less reject, mean to {until:,} timesteps")
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
    for name, mark in ((FIRST, "tables"), (SECOND, "second")):
        if name in found:
            before, rest = page.split(f"<!-- {mark} -->\n")
            after = rest.split(f"<!-- /{mark} -->")[1]
            page = f"{before}<!-- {mark} -->\n{tables(found, name)}<!-- /{mark} -->{after}"
            print(tables(found, name))
    PAGE.write_text(page, encoding="utf-8")
    draw(found, PICTURE)


if __name__ == "__main__":
    main()
