"""What the defaults were tried against: one change at a time, on markets kept for choosing.

    python benchmarks/recipe.py --seeds 5 --jobs 2 --json docs/results/recipe.json

Each row is the default configuration with one change, trained for 3,000,000 timesteps on the
markets (and learner seeds) 500, 501, ...: seeds that no reported figure uses.  Shown is the Sharpe
ratio on train, validation and test; of a choosing market the test is only a third sample to choose
by.  Finished cells are kept in --work and not repeated.
"""

import re
from pathlib import Path
from typing import Any

import harness
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


def run_cell(arm: str, seed: int, name: str) -> dict[str, dict[str, float]]:
    """Train one arm on one market and return its figures on the three splits."""
    from ppo_workbench import compose
    from ppo_workbench.delivery.artifact import load_artifact
    from ppo_workbench.pipeline.models.stored import open_with_test, run_on_split, stored_policy
    from ppo_workbench.pipeline.tasks import train
    from ppo_workbench.scoring.metrics import scorecard

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
        split: scorecard(run_on_split(experiment, policy, split)).to_dict()
        for split in ("train", "validation", "test")
    }
    return {split: {key: card[key] for key in FIGURES} for split, card in cards.items()}


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
    head = ("change", "train", "validation", "test", "paired difference", "lowest", "drawdown")
    lines = []
    for one in rows:
        means = [f"{one[f'{split}_sharpe']:.2f}" for split in ("train", "validation", "test")]
        apart = harness.paired(one["test_sharpes"], base[: one["seeds"]])
        worst = f"{one['lowest_test_sharpe']:.2f}", f"{one['test_max_drawdown_frac']:.1%}"
        met = f"{one['seeds_at_all_targets']} of {one['seeds']}"
        lines.append((one["arm"], *means, apart, *worst, met))
    return harness.table((*head, "met"), lines)


def cell_path(work: Path, arm: str, seed: int) -> Path:
    """Return where a cell's figures are kept."""
    return work / f"{re.sub('[^a-z0-9]+', '_', arm.lower())}_{seed}.json"


def main() -> None:
    """Run the missing cells, then print the table and write the JSON."""
    numbers = str, "numbers of the rows to train, such as 0,1,5"
    size = {"seeds": 5, "jobs": 2, "work": harness.WORK / "recipe", "arms": numbers}
    args = harness.parser(__doc__, **size, json=Path).parse_args()
    work = harness.home(args.work)
    arms = list(ARMS) if args.arms is None else [list(ARMS)[int(n)] for n in args.arms.split(",")]
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    paths = {(arm, seed): cell_path(work, arm, seed) for arm in ARMS for seed in seeds}
    asked = {path: (*cell, path.stem) for cell, path in paths.items() if cell[0] in arms}
    harness.kept(run_cell, asked, args.jobs)
    rows = []
    for arm in ARMS:
        there = [paths[arm, seed] for seed in seeds if paths[arm, seed].exists()]
        if there:
            rows.append(row(arm, [harness.read(path) for path in there]))
    print(table(rows))
    harness.write(args.json, rows)


if __name__ == "__main__":
    main()
