"""Do the native learner and stable-baselines3 end at the same result?  Paired seeds.

    python benchmarks/native_result.py --seeds 24 --json docs/results/native_result.json

The same configuration, market and seed are trained by both learners for one budget of
timesteps; compared is the validation Sharpe of the last checkpoint.  The two draw other
random numbers, so single pairs differ; their mean difference must not.  What the file
holds already is not trained again; `--again native` trains that learner anew.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

FIRST_SEED = 200
LEARNERS = ("native", "sb3")


def sharpe(seed: int, learner: str, timesteps: int) -> float:
    """Train one learner on one market and return the validation Sharpe of its last weights."""
    from ppo_workbench import compose
    from ppo_workbench.delivery.network import policy_weights
    from ppo_workbench.learning.training import Hooks, Validation, train_model
    from ppo_workbench.learning.vec_env import TradingVecEnv
    from ppo_workbench.scoring.backtest import NETWORK, Policy, backtest
    from ppo_workbench.scoring.metrics import scorecard
    from ppo_workbench.trading.experiment import prepare, split_bars

    config = compose(
        [
            f"seed={seed}",
            f"data.synthetic.seed={seed}",
            f"budget.timesteps={timesteps}",
            "budget.evaluations=1",
            f"model.learner={learner}",
            "checkpoint.every_seconds=null",
        ]
    )
    experiment = prepare(config, *split_bars(config))
    hooks = Hooks(
        evaluate=lambda weights: Validation(0.0, {}), clearly_better=lambda earlier, last: False
    )
    result = train_model(config, TradingVecEnv(experiment.batch()), 1, hooks)
    policy = Policy("last", NETWORK, policy_weights(result.last_tensors, config.model.activation))
    split = experiment.splits["validation"]
    trace = backtest(policy, experiment.bars, experiment.market, split, config)
    return scorecard(trace).sharpe_annual


def load_rows(path: Path | None, timesteps: int, again: str | None) -> dict[int, dict[str, float]]:
    """Return the Sharpe ratios that an earlier run wrote, by seed and learner."""
    if path is None or not path.exists():
        return {}
    document = json.loads(path.read_text())
    if document["timesteps"] != timesteps:
        return {}
    return {
        row["seed"]: {name: row[name] for name in LEARNERS if name in row and name != again}
        for row in document["pairs"]
    }


def summary(rows: dict[int, dict[str, float]], timesteps: int) -> dict[str, object]:
    """Return the pairs, the mean difference and its interval as a document."""
    from scipy import stats

    pairs = [{"seed": seed, **row} for seed, row in sorted(rows.items())]
    differences = [row["native"] - row["sb3"] for row in rows.values() if len(row) == 2]
    document: dict[str, object] = {"timesteps": timesteps, "pairs": pairs}
    if len(differences) > 1:
        mean, error = sum(differences) / len(differences), stats.sem(differences)
        low, high = stats.t.interval(0.90, len(differences) - 1, mean, error)
        document |= {"mean": mean, "interval_90": [low, high], "number": len(differences)}
    return document


def main() -> None:
    """Print one line for each training and the interval of the mean difference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--timesteps", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--again", choices=LEARNERS, help="train this learner anew")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = load_rows(args.json, args.timesteps, args.again)
    with ProcessPoolExecutor(args.jobs) as pool:
        waiting = {
            pool.submit(sharpe, seed, learner, args.timesteps): (seed, learner)
            for seed in range(FIRST_SEED, FIRST_SEED + args.seeds)
            for learner in LEARNERS
            if learner not in rows.setdefault(seed, {})
        }
        for future in as_completed(waiting):
            seed, learner = waiting[future]
            rows[seed][learner] = future.result()
            print(f"seed {seed}: {learner} {rows[seed][learner]:+.2f}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(summary(rows, args.timesteps), indent=1) + "\n")
    document = summary(rows, args.timesteps)
    low, high = document["interval_90"]  # type: ignore[misc]
    verdict = "within" if low >= -0.5 and high <= 0.5 else "not within"
    print(f"native - sb3: {document['mean']:+.2f}, 90 % [{low:+.2f}, {high:+.2f}], {verdict} +-0.5")


if __name__ == "__main__":
    main()
