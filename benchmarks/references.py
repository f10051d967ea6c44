"""What those earn who learn nothing by reward: rule, forecasts, filter and oracle, on validation.

    python benchmarks/references.py --jobs 2 --json docs/results/references.json
    python benchmarks/references.py --first-seed 500 --seeds 4 --set data=mask_adverse

Default market, choosing seeds 500 and up, annual Sharpe ratio on the validation split; the test
stays closed.  `reference, fine grid` is the filter on twice as many values of the volatility.
Finished seeds are kept in --work.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

Row = dict[str, float]
POLICIES = ("threshold", "ridge", "boosting", "reference", "reference, fine grid", "oracle")


def run_seed(seed: int, changes: list[str], path: Path) -> None:
    """Score the reference policies on one market."""
    from ppo_workbench import compose
    from ppo_workbench.market.synthetic import generate
    from ppo_workbench.pipeline.models.stored import run_on_split
    from ppo_workbench.scoring.backtest import SERIES, Policy
    from ppo_workbench.scoring.metrics import scorecard
    from ppo_workbench.scoring.reference.filtering import NODES
    from ppo_workbench.scoring.reference.forecasts import supervised_policies
    from ppo_workbench.scoring.reference.planning import reference_filter
    from ppo_workbench.scoring.reference.yardsticks import tuned_threshold
    from ppo_workbench.trading.experiment import prepare, split_bars

    config = compose([f"data.synthetic.seed={seed}", "tracking=none", *changes])
    experiment = prepare(config, *split_bars(config))
    exposure = generate(config.data.synthetic).oracle_exposure[: len(experiment.bars)]
    found = [
        tuned_threshold(experiment),
        *supervised_policies(experiment),
        *(reference_filter(experiment, nodes) for nodes in (NODES, 2 * NODES)),
        Policy("oracle", SERIES, series=exposure),
    ]
    row = {
        title: scorecard(run_on_split(experiment, policy, "validation")).sharpe_annual
        for title, policy in zip(POLICIES, found, strict=True)
        if policy is not None
    }
    path.write_text(json.dumps(row), encoding="utf-8")


def table(rows: dict[str, Row]) -> str:
    """Return seeds as a Markdown table, and the mean with its standard error over seeds."""
    lines = [f"| seed | {' | '.join(POLICIES)} |", f"|---|{'---:|' * len(POLICIES)}"]
    for seed, row in rows.items():
        lines.append(f"| {seed} | {' | '.join(f'{row[name]:.2f}' for name in POLICIES)} |")
    values = np.array([[row[name] for name in POLICIES] for row in rows.values()])
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    means = zip(values.mean(axis=0), errors, strict=True)
    lines.append(f"| mean | {' | '.join(f'{mean:.2f} ({error:.2f})' for mean, error in means)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the missing seeds, then print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--first-seed", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work/references"))
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    named = "".join(each if each.isalnum() else "_" for each in "-".join(args.changes))
    paths = {
        seed: args.work / f"{named or 'default'}_{seed}.json"
        for seed in range(args.first_seed, args.first_seed + args.seeds)
    }
    missing = {seed: path for seed, path in paths.items() if not path.exists()}
    with ProcessPoolExecutor(args.jobs) as pool:
        starts = [pool.submit(run_seed, seed, args.changes, at) for seed, at in missing.items()]
        for start in starts:
            start.result()
    rows = {str(seed): json.loads(path.read_text()) for seed, path in paths.items()}
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
