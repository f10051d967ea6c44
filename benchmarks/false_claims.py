"""How often does a comparison tell one algorithm from itself?  A/A arms, other learner seeds.

    python benchmarks/false_claims.py --comparisons 100 --json docs/results/false_claims.json

Both arms are MaskablePPO with the same settings at a small budget; only the learner's seeds
differ, so every difference that is claimed is false.  Two designs, each --comparisons times:

* worlds: three seeds, each on a synthetic market of its own (what `compare=quick` does);
* days and seeds: three seeds on one market, as on bars from a file.

A claim is a 95 % interval that excludes 0.  Of 100 comparisons 5 are expected, 9 is the 95 %
bound of that count.  Finished markets are kept in --work and not repeated.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ppo_workbench import compose
from ppo_workbench.config import Config
from ppo_workbench.delivery.network import policy_weights
from ppo_workbench.learning.training import Hooks, train_model
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.pipeline.models.stored import trained_policy
from ppo_workbench.pipeline.train.fitting import look_at
from ppo_workbench.pipeline.train.scores import clearly_better
from ppo_workbench.scoring.backtest import backtest
from ppo_workbench.scoring.comparison import ArmRun, MarketComparison
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.session_path import SessionPath, read_path, write_path
from ppo_workbench.trading.experiment import prepare_with_test, split_bars

FIGURES = ("sharpe_annual", "max_drawdown_frac", "max_drawdown_at_10pct_vol_frac")
SEEDS = 3


def run_market(market: int, learners: list[int], sessions: int, timesteps: int, work: Path) -> None:
    """Train and score one learner after the other on one market."""
    missing = [seed for seed in learners if not (work / f"{market}-{seed}.json").exists()]
    if not missing:
        return
    config = compose(
        [
            "tracking=none",
            f"data.synthetic.seed={market}",
            f"data.synthetic.sessions={sessions}",
            f"budget.timesteps={timesteps}",
            "budget.evaluations=3",
            "checkpoint.every_seconds=null",
        ]
    )
    # The test of a market that only this benchmark knows: no model is chosen by it.
    experiment = prepare_with_test(config, *split_bars(config))
    for seed in missing:
        own = replace(experiment, config=replace(config, seed=seed))
        trace = backtest(trained(own), own.bars, own.market, own.splits["test"], own.config)
        write_path(SessionPath.from_trace(trace), work / f"{market}-{seed}.npz")
        card = json.dumps(scorecard(trace).to_dict())
        (work / f"{market}-{seed}.json").write_text(card)


def trained(experiment: Any) -> Any:
    """Return the policy that `experiment.config` trains."""
    config: Config = experiment.config
    hooks = Hooks(lambda weights: look_at(experiment, weights), clearly_better)
    env = TradingVecEnv(experiment.batch())
    result = train_model(config, env, len(experiment.splits["train"]), hooks)
    if result.interrupted:
        raise KeyboardInterrupt
    return trained_policy(
        config.model.type, policy_weights(result.tensors, config.model.activation)
    )


def arm_run(arm: str, number: int, market: int, learner: int, work: Path) -> ArmRun:
    """Read a finished run."""
    stem = work / f"{market}-{learner}"
    card = json.loads(stem.with_suffix(".json").read_text())
    return ArmRun(arm, number, card, read_path(stem.with_suffix(".npz")))


def claims(comparison: MarketComparison) -> dict[str, bool]:
    """Return figure -> whether a difference between the arms is claimed."""
    return {name: comparison.difference("a", "b", name)["decided"] for name in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--comparisons", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--timesteps", type=int, default=65_536)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work/false_claims"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, bool]]] = {"worlds": [], "days and seeds": []}
    for k in range(args.comparisons):
        # Markets 1000..: no other benchmark reports on them.
        markets = [1000 + SEEDS * k + j for j in range(SEEDS)]
        for market in markets:
            first = market == markets[0]
            learners = list(range(2 * SEEDS)) if first else [0, SEEDS]
            run_market(market, learners, args.sessions, args.timesteps, args.work)
        runs = [
            arm_run(arm, market, market, learner, args.work)
            for arm, learner in (("a", 0), ("b", SEEDS))
            for market in markets
        ]
        found["worlds"].append(claims(MarketComparison(runs, worlds=True)))
        runs = [
            arm_run(arm, j, markets[0], offset + j, args.work)
            for arm, offset in (("a", 0), ("b", SEEDS))
            for j in range(SEEDS)
        ]
        found["days and seeds"].append(claims(MarketComparison(runs, worlds=False)))
        if (k + 1) % 10 == 0:
            print(k + 1, summary(found), flush=True)
    result = {
        "comparisons": args.comparisons,
        "sessions": args.sessions,
        "timesteps": args.timesteps,
        "seeds": SEEDS,
        "claims": summary(found),
    }
    for design, counts in result["claims"].items():
        print(design, counts)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def summary(found: dict[str, list[dict[str, bool]]]) -> dict[str, dict[str, int]]:
    """Count the claims by design and figure."""
    return {
        design: {name: int(np.sum([row[name] for row in rows])) for name in FIGURES}
        for design, rows in found.items()
    }


if __name__ == "__main__":
    main()
