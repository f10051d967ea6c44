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

from pathlib import Path
from typing import Any

import harness
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


def run_cell(arm: str, seed: int, timesteps: int, overrides: list[str]) -> dict[str, Any]:
    """Train and score one arm on one market and return its scorecards."""
    from ppo_workbench import compose
    from ppo_workbench.delivery.artifact import load_artifact
    from ppo_workbench.market.synthetic import generate
    from ppo_workbench.pipeline.models.stored import open_with_test, run_on_split, stored_policy
    from ppo_workbench.pipeline.tasks import train
    from ppo_workbench.scoring.backtest import SERIES, Policy
    from ppo_workbench.scoring.metrics import scorecard
    from ppo_workbench.scoring.reference.yardsticks import tuned_threshold, yardsticks

    own = f"seed={seed}", f"data.synthetic.seed={seed}", f"output={arm}_{seed}", "overwrite=true"
    budget = "tracking=none", f"budget.timesteps={timesteps}"
    config = compose([*own, *budget, *ARMS[arm], *overrides])
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
        name: scorecard(run_on_split(experiment, policy, "test")).to_dict()
        for name, policy in policies.items()
    }
    validation = stored.metadata.scorecards.validation
    training = stored.metadata.training.model_dump(mode="json")
    return {"test": cards, "validation": validation, "training": training}


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
            found = harness.read(path)["test"] if path.exists() else {}
            for name, card in found.items():
                row = rows.setdefault(arm if name == "agent" else name, {})
                for key, value in card.items():
                    row.setdefault(key, []).append(value)
    return rows


def report(rows: dict[str, dict[str, list[float]]]) -> str:
    """Return the table of medians with intervals and the paired comparisons."""
    shown = []
    for arm, row in rows.items():
        cells = [f"{arm} (n={len(row['sharpe_annual'])})"]
        for key, _, form in SHOWN:
            low, high = map(form.format, interval(np.array(row[key])))
            cells.append(f"{form.format(np.median(row[key]))} [{low}, {high}]")
        broken = sum(sum(row[k]) for k in row if k.startswith("violations/"))
        shown.append([*cells, f"{broken:.0f}"])
    lines = [harness.table(("arm", *(title for _, title, _ in SHOWN), "violations"), shown)]
    masked = rows.get("masked", {})
    for other in ("ppo_execute", "ppo_reject", "threshold"):
        if other in rows and masked:
            keys = ("sharpe_annual", "max_drawdown_frac")
            sharpe, fall = (np.array(masked[key]) - np.array(rows[other][key]) for key in keys)
            both = int(np.sum((sharpe > 0) & (fall < 0)))
            lines.append(
                f"\nmasked against {other}: Sharpe better in {np.sum(sharpe > 0)}, drawdown in "
                f"{np.sum(fall < 0)}, both in {both} of {len(sharpe)}; "
                f"median difference {np.median(sharpe):+.2f} and {np.median(fall):+.1%}"
            )
    if "null" in rows:
        mean, error = harness.spread(rows["null"]["sharpe_annual"])
        lines.append(f"\nnull market: mean Sharpe {mean:+.2f}, standard error {error:.2f}")
    return "\n".join(lines)


def main() -> None:
    """Run the missing cells, then print the table and write the JSON."""
    size = {"seeds": 10, "jobs": 2, "timesteps": 3_000_000, "arms": ",".join(ARMS)}
    parser = harness.parser(__doc__, **size, work=harness.WORK / "learning", out=Path)
    args, overrides = parser.parse_known_args()
    work = harness.home(args.work)
    cells = {
        work / f"{arm}_{seed}.json": (arm, seed, args.timesteps, overrides)
        for seed in range(args.seeds)
        for arm in args.arms.split(",")
    }
    harness.kept(run_cell, cells, args.jobs)
    rows = collect(work, args.seeds)
    print(report(rows))
    harness.write(args.out, {"timesteps": args.timesteps, "overrides": overrides, "test": rows})


if __name__ == "__main__":
    main()
