"""What those earn who learn nothing by reward: rule, forecasts, filter and oracle, on validation.

    python benchmarks/references.py --jobs 2 --json docs/results/references.json
    python benchmarks/references.py --first-seed 500 --seeds 4 --set data=mask_adverse

Default market, choosing seeds 500 and up, annual Sharpe ratio on the validation split; the test
stays closed.  `reference, fine grid` is the filter on twice as many values of the volatility.
Finished seeds are kept in --work.
"""

from pathlib import Path

import harness

Row = dict[str, float]
POLICIES = ("threshold", "ridge", "boosting", "reference", "reference, fine grid", "oracle")


def run_seed(seed: int, changes: list[str]) -> Row:
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
    return {
        title: scorecard(run_on_split(experiment, policy, "validation")).sharpe_annual
        for title, policy in zip(POLICIES, found, strict=True)
        if policy is not None
    }


def table(rows: dict[str, Row]) -> str:
    """Return seeds as a Markdown table, and the mean with its standard error over seeds."""
    lines = [[seed, *(f"{row[name]:.2f}" for name in POLICIES)] for seed, row in rows.items()]
    means = [harness.shown(row[name] for row in rows.values()) for name in POLICIES]
    return harness.table(("seed", *POLICIES), [*lines, ["mean", *means]], rule="---:")


def main() -> None:
    """Run the missing seeds, then print the table and write the JSON."""
    flags = {"first_seed": 500, "seeds": 10, "jobs": 1, "set": [], "json": Path}
    args = harness.parser(__doc__, **flags, work=harness.WORK / "references").parse_args()
    named = "".join(each if each.isalnum() else "_" for each in "-".join(args.set))
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    cells = {args.work / f"{named or 'default'}_{seed}.json": (seed, args.set) for seed in seeds}
    found = harness.kept(run_seed, cells, args.jobs)
    rows = {str(seed): row for seed, row in zip(seeds, found, strict=True)}
    print(table(rows))
    harness.write(args.json, rows)


if __name__ == "__main__":
    main()
