"""What the defaults were tried against: one change at a time, on markets kept for choosing.

    python benchmarks/recipe.py --seeds 5 --jobs 2 --json docs/results/recipe.json

Each row is the default configuration with one change, trained for 3,000,000 timesteps on the
markets (and learner seeds) 500, 501, ...: seeds that no reported figure uses.  Shown is the Sharpe
ratio on train, validation and test; of a choosing market the test is only a third sample to choose
by.  Finished cells are kept in --work and not repeated.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ppo_workbench.scoring.targets import meets_targets

FIRST_SEED = 500
NAMES = "ema_distance_10,ema_distance_40,ema_distance_120,return_1,volatility_ratio,session_time"
FIVE = "env.exposure_levels=[-1,-0.5,0,0.5,1]"
ELEVEN = "env.exposure_levels=[-1,-0.8,-0.6,-0.4,-0.2,0,0.2,0.4,0.6,0.8,1]"
ARMS: dict[str, list[str]] = {
    "default": [],
    "without sigma": [f"features.names=[{NAMES}]"],
    "only ema_distance_40, volatility and time": [
        "features.names=[ema_distance_40,volatility_ratio,session_time,sigma]"
    ],
    "gamma .95": ["env.gamma=0.95"],
    "gamma .99": ["env.gamma=0.99"],
    "gae_lambda .95": ["model.gae_lambda=0.95"],
    "entropy 0": ["model.ent_coef=0.0"],
    "entropy .02": ["model.ent_coef=0.02"],
    "variance penalty .6": ["reward.variance=0.6"],
    "variance penalty 1.2": ["reward.variance=1.2"],
    "rewards of half the size": ["reward.log_return=0.5"],
    "learning rate .003": ["model.learning_rate=0.003"],
    "learning rate .001": ["model.learning_rate=0.001"],
    "learning rate .0001": ["model.learning_rate=0.0001"],
    "rollouts of 16,384, batch 2048": ["model.n_envs=128", "model.batch_size=2048"],
    "3 epochs": ["model.n_epochs=3"],
    "network 128, 128": ["model.net_arch=[128,128]"],
    "5 levels": [FIVE],
    "11 levels": [ELEVEN],
    "action set target": ["env.action_set=target"],
    "action set target, 5 levels": ["env.action_set=target", FIVE],
    "action set target, 11 levels": ["env.action_set=target", ELEVEN],
    "risk preset conservative": ["risk=conservative"],
    "risk preset aggressive": ["risk=aggressive"],
    "10,000,000 timesteps": ["budget.timesteps=10000000"],
}
FIGURES = ("sharpe_annual", "max_drawdown_frac", "win_rate_frac", "n_trades", "exposure_mean_abs")


def run_cell(arm: str, seed: int, path: Path) -> None:
    """Train one arm on one market and write its figures on the three splits."""
    from ppo_workbench import compose
    from ppo_workbench.delivery.artifact import load_artifact
    from ppo_workbench.pipeline.models.stored import open_with_test, stored_policy
    from ppo_workbench.pipeline.tasks import train
    from ppo_workbench.scoring.backtest import backtest
    from ppo_workbench.scoring.metrics import scorecard

    name = path.stem
    config = compose(
        [
            *("tracking=none", f"seed={seed}", f"data.synthetic.seed={seed}"),
            *("budget.timesteps=3000000", f"output={name}", "overwrite=true"),
            *ARMS[arm],
        ]
    )
    outcome = train(config)
    stored = load_artifact(outcome.paths.pth.parent, name)
    experiment = open_with_test(config, f"benchmarks/recipe.py, {arm}, seed {seed}")
    policy = stored_policy(stored.metadata, stored.tensors, experiment)
    cards = {
        split: scorecard(
            backtest(policy, experiment.bars, experiment.market, experiment.splits[split], config)
        ).to_dict()
        for split in ("train", "validation", "test")
    }
    figures = {split: {key: card[key] for key in FIGURES} for split, card in cards.items()}
    path.write_text(json.dumps(figures))


def row(arm: str, cells: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return an arm's means over seeds, and what its seeds had on the test."""
    sharpe = {s: [c[s]["sharpe_annual"] for c in cells] for s in ("train", "validation", "test")}
    return {
        "arm": arm,
        "seeds": len(cells),
        **{f"{split}_sharpe": float(np.mean(values)) for split, values in sharpe.items()},
        "lowest_test_sharpe": min(sharpe["test"]),
        "test_max_drawdown_frac": float(np.median([c["test"]["max_drawdown_frac"] for c in cells])),
        "test_win_rate_frac": float(np.median([c["test"]["win_rate_frac"] for c in cells])),
        "seeds_at_all_targets": sum(meets_targets(c["test"]) for c in cells),
        "test_sharpes": sharpe["test"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table; differences are paired by seed with the default."""
    base = rows[0]["test_sharpes"]
    lines = [
        "| change | train | validation | test | paired difference | lowest | drawdown | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        apart = np.array(one["test_sharpes"]) - np.array(base[: one["seeds"]])
        error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else float("nan")
        lines.append(
            f"| {one['arm']} | {one['train_sharpe']:.2f} | {one['validation_sharpe']:.2f} | "
            f"{one['test_sharpe']:.2f} | {apart.mean():+.2f} ({error:.2f}) | "
            f"{one['lowest_test_sharpe']:.2f} | {one['test_max_drawdown_frac']:.1%} | "
            f"{one['seeds_at_all_targets']} of {one['seeds']} |"
        )
    return "\n".join(lines)


def cell_path(work: Path, arm: str, seed: int) -> Path:
    """Return where a cell's figures are kept."""
    return work / f"{re.sub('[^a-z0-9]+', '_', arm.lower())}_{seed}.json"


def main() -> None:
    """Run the missing cells, then print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work/recipe"))
    parser.add_argument("--arms", help="numbers of the rows to train, such as 0,1,5")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    work = args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["PPO_WORKBENCH_HOME"] = str(work)
    if args.one:
        arm, seed = args.one[0], int(args.one[1])
        run_cell(arm, seed, cell_path(work, arm, seed))
        return
    arms = list(ARMS) if args.arms is None else [list(ARMS)[int(n)] for n in args.arms.split(",")]
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)

    def start(cell: tuple[str, int]) -> None:
        path = cell_path(work, *cell)
        if path.exists():
            return
        command = [sys.executable, __file__, "--one", cell[0], str(cell[1]), "--work", str(work)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with path.with_suffix(".log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=log, env=os.environ | threads, check=True)
        print(f"{cell[0]} {cell[1]}: done", flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(start, [(arm, seed) for arm in arms for seed in seeds]))
    rows = []
    for arm in ARMS:
        paths = [path for seed in seeds if (path := cell_path(work, arm, seed)).exists()]
        if paths:
            rows.append(row(arm, [json.loads(path.read_text()) for path in paths]))
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
