"""Do the native learner and stable-baselines3 end at the same result?  Paired seeds.

    python benchmarks/native_result.py --seeds 24 --json docs/results/native_result.json

The same configuration, market and seed are trained by both learners for one budget of
timesteps; compared is the validation Sharpe of the last checkpoint.  The two draw other
random numbers, so single pairs differ; their mean difference must not.  What the file
holds already is not trained again; `--again native` trains that learner anew.
"""

from pathlib import Path
from typing import Any

import harness

FIRST_SEED = 200
LEARNERS = ("native", "sb3")


def sharpe(seed: int, learner: str, timesteps: int) -> float:
    """Train one learner on one market and return the validation Sharpe of its last weights."""
    from ppo_workbench import compose
    from ppo_workbench.pipeline.models.stored import run_on_split
    from ppo_workbench.scoring.metrics import scorecard
    from ppo_workbench.trading.experiment import prepare, split_bars

    own = f"seed={seed}", f"data.synthetic.seed={seed}", f"model.learner={learner}"
    budget = f"budget.timesteps={timesteps}", "budget.evaluations=1"
    config = compose([*own, *budget, "checkpoint.every_seconds=null"])
    experiment = prepare(config, *split_bars(config))
    policy = harness.last_policy(experiment)
    return scorecard(run_on_split(experiment, policy, "validation")).sharpe_annual


def load_rows(path: Path | None, timesteps: int, again: str | None) -> dict[int, dict[str, float]]:
    """Return the Sharpe ratios that an earlier run wrote, by seed and learner."""
    if path is None or not path.exists():
        return {}
    document = harness.read(path)
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
    parser = harness.parser(__doc__, seeds=24, timesteps=1_000_000, jobs=2, json=Path)
    parser.add_argument("--again", choices=LEARNERS, help="train this learner anew")
    args = parser.parse_args()
    rows = load_rows(args.json, args.timesteps, args.again)
    missing = [
        (seed, learner, args.timesteps)
        for seed in range(FIRST_SEED, FIRST_SEED + args.seeds)
        for learner in LEARNERS
        if learner not in rows.setdefault(seed, {})
    ]
    for (seed, learner, _), found in harness.computed(sharpe, missing, args.jobs):
        rows[seed][learner] = found
        print(f"seed {seed}: {learner} {found:+.2f}", flush=True)
        harness.write(args.json, summary(rows, args.timesteps))
    document = summary(rows, args.timesteps)
    interval: Any = document["interval_90"]
    low, high = interval
    verdict = "within" if low >= -0.5 and high <= 0.5 else "not within"
    print(f"native - sb3: {document['mean']:+.2f}, 90 % [{low:+.2f}, {high:+.2f}], {verdict} +-0.5")


if __name__ == "__main__":
    main()
