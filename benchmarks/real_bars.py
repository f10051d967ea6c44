"""The recipe on real bars: walk-forward, break-even costs, and what the gates of a promotion say.

    python benchmarks/real_bars.py --hourly ibm_1h.csv.gz --minute spy_1min.csv --jobs 2 \\
        --json docs/results/real_bars.json

Nothing is tuned: hyperparameters, features and reward are the presets' own.  For each series

1. `task=compare`: masked, reject and execute, retrained for every fold of an anchored walk-forward
   and every seed, beside the threshold rule, forecasts and buy-and-hold;
2. the break-even cost a side of every arm and seed over the joined tests;
3. a small sweep and a promotion on a holdout: the gates' verdict.

A week of minute bars has one session of test: the workbench refuses to compare or to sweep on it,
which is shown, beside the returns of that one session.

The S&P 500 and the Nasdaq index come with the `arch` package; the other two files are the user's,
and without them their rows are left out.  Finished parts are kept in --work and not repeated.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import harness
import numpy as np

COMPOSING = Lock()  # Hydra composes one configuration at a time
ARMS = ("masked", "reject", "execute")
SHOWN = (*ARMS, "threshold", "ridge", "boosting", "buy-and-hold")
SEEDS = (0, 1, 2)
FORWARD = ("splits=walk_forward_anchored", "splits.folds=4")


def series(hourly: Path | None) -> dict[str, list[str]]:
    """Return for each long series the overrides that choose it."""
    found = {"sp500": ["experiment=sp500"], "nasdaq": ["experiment=nasdaq"]}
    if hourly is not None:
        found["hourly"] = ["experiment=us_hourly", f"data.path={hourly.absolute()}"]
    return found


def command(home: Path, *arguments: str) -> int:
    """Run one command of the workbench; its output goes to `log.txt` of the home."""
    return harness.workbench(home, *arguments, "tracking=none", changes=harness.ONE_THREAD)


def comparison(home: Path, overrides: Sequence[str], steps: int) -> Any:
    """Compare the arms walk-forward, or read what was compared before."""
    path = home / "comparisons" / "forward" / "comparison.json"
    if not path.exists():
        own = [*overrides, *FORWARD, f"budget.timesteps={steps}", "budget.minutes=null"]
        seeds = f"compare.seeds=[{','.join(map(str, SEEDS))}]"
        control = "~compare.arms.all_true"
        code = command(home, "task=compare", *own, seeds, control, "output=forward")
        assert code == 0, f"see {home / 'log.txt'}"
    return harness.read(path)


def break_even(home: Path, overrides: Sequence[str], arm: str, seed: int) -> Any:
    """Return the break-even cost of one arm and seed over its joined tests."""
    from ppo_workbench import compose
    from ppo_workbench.pipeline.compare.stressing import stressed

    plan = harness.read(home / "comparisons" / "forward" / "plan.json")
    chosen = [
        *("task=compare", *overrides, *FORWARD, f"seed={seed}", "tracking=none"),
        *("compare.cell.comparison=forward", f"compare.cell.look={plan['look']}"),
        *(f"compare.cell.arm={arm}", "compare.cell.market=main", "compare.cell.name=stress"),
        *("compare.cell.kind=stress", *ARM_SETTINGS[arm]),
    ]
    with COMPOSING:
        config = compose(chosen)
    found = stressed(config, home)["stress"]
    assert found is not None
    return found["break_even"]


ARM_SETTINGS = {
    "masked": ["model.type=maskable_ppo"],
    "reject": ["model.type=ppo", "env.forbidden_action=reject"],
    "execute": ["model.type=ppo", "env.forbidden_action=execute"],
}


def gates(home: Path, overrides: Sequence[str], steps: int) -> Any:
    """Sweep and promote, or read the verdict of an earlier start."""
    budget = (f"budget.timesteps={steps}", "budget.minutes=null")
    sweep = (*overrides, "objective.seeds=[0]", "hydra.sweeper.n_trials=4", *budget)
    chosen = ("promote.top_k=1", "promote.seeds=[1001,1002]")
    return harness.promotion(home, sweep, chosen, changes=harness.ONE_THREAD)


def one(work: Path, name: str, overrides: list[str], steps: int) -> dict[str, Any]:
    """Return what is known of one series."""
    home = work / name
    home.mkdir(parents=True, exist_ok=True)
    compared = comparison(home, overrides, steps)
    even = {arm: [break_even(home, overrides, arm, seed) for seed in SEEDS] for arm in ARMS}
    verdict = gates(home, overrides, steps)
    market = compared["setup"]["markets"][0]
    print(f"{name}: done", flush=True)
    return {
        "series": name,
        "timesteps": steps,
        "test": {key: market[key] for key in ("test_start", "test_stop", "sessions", "years")},
        "figures": {
            arm: {
                key: compared["figures"][arm][key]
                for key in ("sharpe_annual", "max_drawdown_frac", "n_trades", "exposure_mean_abs")
            }
            for arm in SHOWN
        },
        "differences": compared["differences"],
        "break_even": even,
        "conclusion": compared["conclusion"],
        "promotion": {
            "promoted": verdict["promoted"],
            "gates": [
                {key: gate[key] for key in ("name", "passed", "reason", "power")}
                for gate in verdict["gates"]
            ],
            "test": verdict["scorecards"]["test"],
        },
    }


def week(work: Path, minute: Path, steps: int) -> dict[str, Any]:
    """Train and score on a week of minute bars, and keep what the other tasks answer to it."""
    home = work / "minute"
    home.mkdir(parents=True, exist_ok=True)
    bars = ["experiment=us_minute_short", f"data.path={minute.absolute()}"]
    budget = [f"budget.timesteps={steps}", "budget.minutes=null"]
    returns: dict[str, list[float]] = {}
    for arm, settings in ARM_SETTINGS.items():
        for seed in SEEDS:
            name, path = f"{arm}_{seed}", home / f"{arm}_{seed}.json"
            own = [*bars, *settings, f"seed={seed}"]
            if not path.exists():
                assert command(home, *own, *budget, f"output={name}", "overwrite=true") == 0
                scored = ("task=evaluate", f"artifact={name}", "split=test", f"result_json={path}")
                assert command(home, *scored) == 0
            card = harness.read(path)["scorecards"][name]["test"]
            returns.setdefault(arm, []).append(card["total_return_frac"])
    sweep = ("--multirun", "sweep=lr_entropy", "hydra.sweeper.study_name=study")
    asked = {
        "compare": ("task=compare", *bars, *budget),
        "sweep": (*sweep, *bars, *budget, "hydra.sweeper.n_trials=1"),
    }
    answers = {}
    for task, arguments in asked.items():
        assert command(home, *arguments) == 2, f"see {home / 'log.txt'}"
        lines = (home / "log.txt").read_text(encoding="utf-8").splitlines()
        told = next(line for line in reversed(lines) if line.startswith("error: "))
        answers[task] = told.replace(str(home), "$PPO_WORKBENCH_HOME")
    print("minute: done", flush=True)
    return {"series": "minute", "timesteps": steps, "test_returns": returns, "refusals": answers}


def cost(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the break-even costs of the seeds in words."""
    words = {"no trades": "no trades", "never profitable": "never"}
    told = [
        f"{each['cost_bps']:.1f}" if each["cost_bps"] is not None
        else words.get(each["verdict"], f"> {each['cap_bps']:.0f}")
        for each in found
    ]  # fmt: skip
    configured = found[0]["configured_bps"]
    return f"{', '.join(told)} (configured {configured:.1f})" if configured else ", ".join(told)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return everything as Markdown tables."""
    cells, judged = [], []
    long = [row for row in rows if "figures" in row]
    for row in long:
        for arm in SHOWN:
            figures = row["figures"][arm]
            sharpe, drawdown = figures["sharpe_annual"], figures["max_drawdown_frac"]
            apart = sharpe["low"] != sharpe["high"]
            span = f" [{sharpe['low']:.2f}, {sharpe['high']:.2f}]" if apart else ""
            even = cost(row["break_even"][arm]) if arm in row["break_even"] else "-"
            trades = f"{np.median(figures['n_trades']['values']):,.0f}"
            held = f"{figures['exposure_mean_abs']['mean']:.2f}"
            shown = (f"{sharpe['mean']:.2f}{span}", f"{drawdown['mean']:.1%}", trades, held, even)
            cells.append((row["series"], arm, *shown))
        verdicts = row["promotion"]["gates"]
        refusing = ", ".join(gate["name"] for gate in verdicts if not gate["passed"])
        passing = ", ".join(gate["name"] for gate in verdicts if gate["passed"])
        judged.append((row["series"], refusing or "none: promoted", passing))
    head = ("series", "policy", "Sharpe", "max drawdown", "round trips", "exposure")
    lines = [harness.table((*head, "break-even, bps"), cells), ""]
    lines.append(harness.table(("series", "gates that refuse", "gates that pass"), judged))
    for row in rows:
        if "refusals" in row:
            for arm, returns in row["test_returns"].items():
                told = ", ".join(f"{each:+.2%}" for each in returns)
                lines.append(f"\n{row['series']}, {arm}: returns of the one test session {told}")
            lines += [f"\n{task}: {answer}" for task, answer in row["refusals"].items()]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the tables and write the JSON."""
    hourly, minute = "hourly bars of a US share", "a week of minute bars of a US fund"
    files = {"hourly": (Path, hourly), "minute": (Path, minute), "json": Path}
    size = {"timesteps": (3_000_000, "of every training"), "jobs": (1, "series side by side")}
    work = harness.WORK / "real_bars"
    options = harness.parser(__doc__, **files, **size, work=work).parse_args()
    work = options.work.absolute()

    def start(entry: tuple[str, list[str]]) -> dict[str, Any]:
        return one(work, *entry, options.timesteps)

    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(start, series(options.hourly).items()))
    if options.minute is not None:
        rows.append(week(work, options.minute, options.timesteps))
    print(table(rows))
    harness.write(options.json, rows)


if __name__ == "__main__":
    main()
