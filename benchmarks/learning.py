"""Does it learn?  MaskablePPO, standard PPO and yardsticks on the synthetic market's test split.

    python benchmarks/learning.py --seeds 10 --jobs 2 --out docs/results/learning.json

For each market seed (the learner's seed is the same number) it trains the default
configuration for one fixed number of timesteps, opens the test split (recorded in the
ledger of the working folder) and scores:

* masked: MaskablePPO;
* ppo_execute: standard PPO, same reward, forbidden actions executed and counted;
* ppo_reject: standard PPO, same reward, the broker enforces the rules that masks carry;
* null: MaskablePPO on the null market, where nothing can be learned.

Finished cells are kept in --work and not repeated.  Nothing is chosen here: seeds 0 .. 9
are for reporting, defaults were chosen on the validation split of other seeds.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ARMS: dict[str, list[str]] = {
    "masked": [],
    "ppo_execute": ["model=ppo", "env.forbidden_action=execute"],
    "ppo_reject": ["model=ppo"],
    "null": ["data='null'"],
}
SHOWN = (
    ("sharpe_annual", "Sharpe", "{:+.2f}"),
    ("max_drawdown_frac", "max drawdown", "{:.1%}"),
    ("max_drawdown_at_10pct_vol_frac", "at 10 % volatility", "{:.1%}"),
    ("win_rate_frac", "win rate", "{:.1%}"),
    ("n_trades", "trades", "{:.0f}"),
    ("exposure_mean_abs", "exposure", "{:.2f}"),
)


def run_cell(arm: str, seed: int, timesteps: int, overrides: list[str], path: Path) -> None:
    """Train and score one arm on one market and write its scorecards."""
    from ppo_workbench import compose
    from ppo_workbench.delivery.artifact import load_artifact
    from ppo_workbench.market.synthetic import generate
    from ppo_workbench.pipeline.models.stored import open_with_test, stored_policy
    from ppo_workbench.pipeline.tasks import train
    from ppo_workbench.scoring.backtest import SERIES, Policy, backtest
    from ppo_workbench.scoring.metrics import scorecard
    from ppo_workbench.scoring.reference.yardsticks import tuned_threshold, yardsticks

    config = compose(
        [
            "tracking=none",
            f"seed={seed}",
            f"data.synthetic.seed={seed}",
            f"budget.timesteps={timesteps}",
            f"output={arm}_{seed}",
            "overwrite=true",
            *ARMS[arm],
            *overrides,
        ]
    )
    outcome = train(config)
    stored = load_artifact(outcome.paths.pth.parent, f"{arm}_{seed}")
    experiment = open_with_test(config, f"benchmarks/learning.py, arm {arm}, seed {seed}")
    policies = {"agent": stored_policy(stored.metadata, stored.tensors, experiment)}
    if arm == "masked":
        threshold = tuned_threshold(experiment)
        policies |= {} if threshold is None else {"threshold": threshold}
        oracle = generate(config.data.synthetic).oracle_exposure
        policies["oracle"] = Policy("oracle", SERIES, series=oracle[: len(experiment.bars)])
        policies |= {p.name: p for p in yardsticks(len(experiment.bars), seed)}
    cards = {
        name: scorecard(
            backtest(policy, experiment.bars, experiment.market, experiment.splits["test"], config)
        ).to_dict()
        for name, policy in policies.items()
    }
    validation = stored.metadata.scorecards.validation
    training = stored.metadata.training.model_dump(mode="json")
    path.write_text(json.dumps({"test": cards, "validation": validation, "training": training}))


def interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """95 % bootstrap interval of the median over seeds."""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


def collect(work: Path, seeds: int) -> dict[str, dict[str, list[float]]]:
    """Gather figure -> values by seed, for every arm and yardstick."""
    rows: dict[str, dict[str, list[float]]] = {}
    for arm in ARMS:
        for seed in range(seeds):
            path = work / f"{arm}_{seed}.json"
            if not path.exists():
                continue
            for name, card in json.loads(path.read_text())["test"].items():
                row = rows.setdefault(arm if name == "agent" else name, {})
                for key, value in card.items():
                    row.setdefault(key, []).append(value)
    return rows


def report(rows: dict[str, dict[str, list[float]]]) -> str:
    """Return the table of medians with intervals and the paired comparisons."""
    lines = [
        "| arm | " + " | ".join(title for _, title, _ in SHOWN) + " | violations |",
        "|---" * (len(SHOWN) + 2) + "|",
    ]
    for arm, row in rows.items():
        cells = []
        for key, _, form in SHOWN:
            values = np.array(row[key])
            low, high = interval(values)
            cells.append(
                f"{form.format(np.median(values))} [{form.format(low)}, {form.format(high)}]"
            )
        broken = sum(sum(row[k]) for k in row if k.startswith("violations/"))
        lines.append(
            f"| {arm} (n={len(row['sharpe_annual'])}) | " + " | ".join(cells) + f" | {broken:.0f} |"
        )
    masked = rows.get("masked", {})
    for other in ("ppo_execute", "ppo_reject", "threshold"):
        if other in rows and masked:
            sharpe = np.array(masked["sharpe_annual"]) - np.array(rows[other]["sharpe_annual"])
            fall = np.array(masked["max_drawdown_frac"]) - np.array(
                rows[other]["max_drawdown_frac"]
            )
            both = int(np.sum((sharpe > 0) & (fall < 0)))
            lines.append(
                f"\nmasked against {other}: Sharpe better in {np.sum(sharpe > 0)}, drawdown in "
                f"{np.sum(fall < 0)}, both in {both} of {len(sharpe)}; "
                f"median difference {np.median(sharpe):+.2f} and {np.median(fall):+.1%}"
            )
    if "null" in rows:
        null = np.array(rows["null"]["sharpe_annual"])
        error = null.std(ddof=1) / np.sqrt(len(null)) if len(null) > 1 else float("nan")
        lines.append(f"\nnull market: mean Sharpe {null.mean():+.2f}, standard error {error:.2f}")
    return "\n".join(lines)


def main() -> None:
    """Run the missing cells, then print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timesteps", type=int, default=3_000_000)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work/learning"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    work = args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["PPO_WORKBENCH_HOME"] = str(work)
    if args.one:
        arm, seed = args.one[0], int(args.one[1])
        run_cell(arm, seed, args.timesteps, overrides, work / f"{arm}_{seed}.json")
        return
    cells = [(arm, seed) for seed in range(args.seeds) for arm in args.arms.split(",")]
    missing = [cell for cell in cells if not (work / f"{cell[0]}_{cell[1]}.json").exists()]

    def start(cell: tuple[str, int]) -> None:
        command = [sys.executable, __file__, "--one", cell[0], str(cell[1])]
        command += ["--work", str(work), "--timesteps", str(args.timesteps), *overrides]
        log = work / f"{cell[0]}_{cell[1]}.log"
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with log.open("w") as stream:
            code = subprocess.run(
                command, stdout=stream, stderr=stream, env=os.environ | threads, check=False
            ).returncode
        print(f"{cell[0]} {cell[1]}: {'done' if code == 0 else f'failed, see {log}'}", flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(start, missing))
    rows = collect(work, args.seeds)
    print(report(rows))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        document = {"timesteps": args.timesteps, "overrides": overrides, "test": rows}
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
