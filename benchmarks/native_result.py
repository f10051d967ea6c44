"""Do the native learner and stable-baselines3 end at the same result?  Paired seeds.

    python benchmarks/native_result.py --seeds 20 --json docs/results/native_result.json

The same configuration, market and seed are trained by both learners for one budget of
timesteps; compared is the validation Sharpe of the last checkpoint.  The two draw other
random numbers, so single pairs differ; their mean difference must not.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

FIRST_SEED = 200


def sharpe(seed: int, learner: str, timesteps: int) -> float:
    """Train one learner on one market and return the validation Sharpe of its last weights."""
    from ppo_workbench import compose
    from ppo_workbench.learning.models import policy_weights
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
        evaluate=lambda weights: Validation(0.0, {}),
        record=lambda metrics, step: None,
        progress=lambda standing: None,
    )
    result = train_model(config, TradingVecEnv(experiment.batch()), 1, hooks)
    policy = Policy("last", NETWORK, policy_weights(result.last_tensors, config.model.activation))
    split = experiment.splits["validation"]
    trace = backtest(policy, experiment.bars, experiment.market, split, config)
    return scorecard(trace).sharpe_annual


def main() -> None:
    """Print one line for each pair and the interval of the mean difference."""
    from scipy import stats

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--timesteps", type=int, default=300_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    with ProcessPoolExecutor(args.jobs) as pool:
        pairs = [
            [pool.submit(sharpe, seed, learner, args.timesteps) for learner in ("native", "sb3")]
            for seed in seeds
        ]
        rows = []
        for seed, pair in zip(seeds, pairs, strict=True):
            native, sb3 = (future.result() for future in pair)
            rows.append({"seed": seed, "native": native, "sb3": sb3})
            print(f"seed {seed}: native {native:+.2f}, sb3 {sb3:+.2f}", flush=True)
    differences = [row["native"] - row["sb3"] for row in rows]
    mean, error = sum(differences) / len(differences), stats.sem(differences)
    low, high = stats.t.interval(0.90, len(differences) - 1, mean, error)
    verdict = "within" if low >= -0.5 and high <= 0.5 else "not within"
    print(f"native - sb3: {mean:+.2f}, 90 % [{low:+.2f}, {high:+.2f}], {verdict} +-0.5")
    if args.json:
        document = {"timesteps": args.timesteps, "pairs": rows, "mean": mean}
        document["interval_90"] = [low, high]
        args.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
