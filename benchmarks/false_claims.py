"""How often does a comparison tell one algorithm from itself?  A/A arms, other learner seeds.

    python benchmarks/false_claims.py --comparisons 100 --json docs/results/false_claims.json

Both arms are MaskablePPO with the same settings at a small budget; only the learner's seeds
differ, so every difference that is claimed is false.  Two designs, each --comparisons times:

* worlds: three seeds, each on a synthetic market of its own (what `compare=quick` does);
* days and seeds: three seeds on one market, as on bars from a file.

A claim is a 95 % interval that excludes 0.  Of 100 comparisons 5 are expected, 9 is the 95 %
bound of that count.  Finished markets are kept in --work and not repeated.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import numpy as np

from ppo_workbench import compose
from ppo_workbench.config import Config
from ppo_workbench.delivery.network import policy_weights
from ppo_workbench.learning.training import Hooks, train_model
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.pipeline.models.stored import trained_policy
from ppo_workbench.pipeline.train.fitting import score_on_validation
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
    size = f"data.synthetic.sessions={sessions}", f"budget.timesteps={timesteps}"
    rest = "tracking=none", "budget.evaluations=3", "checkpoint.every_seconds=null"
    config = compose([f"data.synthetic.seed={market}", *size, *rest])
    # The test of a market that only this benchmark knows: no model is chosen by it.
    experiment = prepare_with_test(config, *split_bars(config))
    for seed in missing:
        own = replace(experiment, config=replace(experiment.config, seed=seed))
        trace = backtest(trained(own), own.bars, own.market, own.splits["test"], own.config)
        write_path(SessionPath.from_trace(trace), work / f"{market}-{seed}.npz")
        harness.write(work / f"{market}-{seed}.json", scorecard(trace).to_dict())


def trained(experiment: Any) -> Any:
    """Return the policy that `experiment.config` trains."""
    config: Config = experiment.config
    hooks = Hooks(lambda weights: score_on_validation(experiment, weights), clearly_better)
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
    card = harness.read(stem.with_suffix(".json"))
    return ArmRun(arm, number, card, read_path(stem.with_suffix(".npz")))


def claims(comparison: MarketComparison) -> dict[str, bool]:
    """Return figure -> whether a difference between the arms is claimed."""
    return {name: comparison.difference("a", "b", name)["decided"] for name in FIGURES}


def main() -> None:
    size = {"comparisons": 100, "sessions": 300, "timesteps": 65_536}
    work = harness.WORK / "false_claims"
    args = harness.parser(__doc__, **size, work=work, json=Path).parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, bool]]] = {"worlds": [], "days and seeds": []}
    for k in range(args.comparisons):
        # Markets 1000..: no other benchmark reports on them.
        markets = [1000 + SEEDS * k + j for j in range(SEEDS)]
        for market in markets:
            learners = list(range(2 * SEEDS)) if market == markets[0] else [0, SEEDS]
            run_market(market, learners, args.sessions, args.timesteps, args.work)
        arms = (("a", 0), ("b", SEEDS))
        runs = [arm_run(arm, m, m, seed, args.work) for arm, seed in arms for m in markets]
        found["worlds"].append(claims(MarketComparison(runs, worlds=True)))
        one = markets[0]
        runs = [arm_run(a, j, one, k + j, args.work) for a, k in arms for j in range(SEEDS)]
        found["days and seeds"].append(claims(MarketComparison(runs, worlds=False)))
        if (k + 1) % 10 == 0:
            print(k + 1, summary(found), flush=True)
    own = {name: getattr(args, name) for name in size}
    result = {**own, "seeds": SEEDS, "claims": summary(found)}
    for design, counts in result["claims"].items():
        print(design, counts)
    harness.write(args.json, result, indent=2)


def summary(found: dict[str, list[dict[str, bool]]]) -> dict[str, dict[str, int]]:
    """Count the claims by design and figure."""
    return {
        design: {name: int(np.sum([row[name] for row in rows])) for name in FIGURES}
        for design, rows in found.items()
    }


if __name__ == "__main__":
    main()
