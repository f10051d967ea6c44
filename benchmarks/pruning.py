"""What pruning saves and what it costs: the default sweep with and without its pruner.

    python benchmarks/pruning.py --repeats 5 --trials 40 --jobs 2 --out docs/results/pruning.json

Each repeat runs `sweep=lr_entropy` twice, with the preset's pruner and with none, on one
market and with one seed of the sampler; repeats differ in both.  Then the best trial of each
study is trained anew on `--scores` markets and learner seeds that no study has seen, the
same ones for both arms, and scored on their validation splits.

* share: timesteps trained with pruning over those without (bar: at most 50 %).
* loss: mean re-scored Sharpe of the best without pruning less that with it (bar: at most 0.1).

Everything is kept in --work: started again, a killed benchmark goes on where it was.
Overrides at the end, such as `budget.timesteps=2048`, go to sweeps and re-scoring.
"""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import harness

ARMS = {"none": ["hydra.sweeper.pruner.name=none"], "pruned": []}
MARKET, FRESH_MARKET, FRESH_SEED = 3000, 50_000, 9000
SHARE_BAR, LOSS_BAR = 0.5, 0.1


def sweep(arm: str, repeat: int, args: argparse.Namespace, overrides: list[str]) -> None:
    """Run, or go on with, the study of one arm and repeat."""
    command = ["--multirun", "sweep=lr_entropy"]
    command += [f"data.synthetic.seed={MARKET + repeat}", "tracking=none", *ARMS[arm]]
    command += [f"hydra.sweeper.study_name={arm}_{repeat}", f"hydra.sweeper.seed={repeat}"]
    command += [f"hydra.sweeper.n_trials={args.trials}", f"hydra.launcher.n_jobs={args.jobs}"]
    log = f"{arm}_{repeat}.log"
    code = harness.workbench(args.work, *command, *overrides, log=log)
    assert code == 0, f"see {args.work / log}"


def describe(arm: str, repeat: int, work: Path) -> dict[str, Any]:
    """Return what a finished study cost and found."""
    trials = harness.trials(work, f"{arm}_{repeat}")
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    complete = [trial for trial in ended if trial.state.name == "COMPLETE"]
    best = max(complete, key=lambda trial: trial.values[0])
    return {
        "timesteps": sum(trial.user_attrs["timesteps"] for trial in ended),
        "core_seconds": sum(trial.user_attrs["seconds"] for trial in ended),
        "states": {
            s: sum(t.state.name == s for t in trials) for s in ("COMPLETE", "PRUNED", "FAIL")
        },
        "best": {"number": best.number, "value": best.values[0], "params": best.params},
    }


def rescore(params: dict[str, Any], repeat: int, k: int, overrides: list[str]) -> float:
    """Train the best setting of a study on market and learner seed number k; return its Sharpe."""
    from ppo_workbench.cli.main import compose
    from ppo_workbench.delivery.network import policy_weights
    from ppo_workbench.pipeline.sweep.trial import SeedTraining
    from ppo_workbench.reports.study.analysis import overrides_of
    from ppo_workbench.trading.experiment import prepare, split_bars

    market = f"data.synthetic.seed={FRESH_MARKET + 100 * repeat + k}"
    config = compose(["sweep=lr_entropy", market, *overrides, *overrides_of(params)])
    seed = SeedTraining(prepare(config, *split_bars(config)), FRESH_SEED + k, [])
    while seed.training.advance():
        pass
    weights = policy_weights(seed.training.result().tensors, config.model.activation)
    return seed.evaluate(weights).metrics["sharpe_annual"]


def collect(repeat: int, args: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Score the best of a repeat's studies anew and return its row."""
    arms = {arm: describe(arm, repeat, args.work) for arm in ARMS}
    cells = {
        args.work / f"score_{arm}_{repeat}_{k}.json": (row["best"]["params"], repeat, k, overrides)
        for k in range(args.scores)
        for arm, row in arms.items()
    }
    scores = harness.kept(rescore, cells, args.jobs)
    for place, row in enumerate(arms.values()):
        row["scores"] = scores[place :: len(arms)]
    return {
        "repeat": repeat,
        "share": arms["pruned"]["timesteps"] / arms["none"]["timesteps"],
        "time_share": arms["pruned"]["core_seconds"] / arms["none"]["core_seconds"],
        "loss": fmean(arms["none"]["scores"]) - fmean(arms["pruned"]["scores"]),
        **arms,
    }


def report(rows: list[dict[str, Any]]) -> str:
    """Return the table and the verdicts."""
    head = ("repeat", "steps without", "steps with", "share", "share of time", "complete, pruned")
    cells = []
    for row in rows:
        none, pruned = row["none"], row["pruned"]
        steps = f"{none['timesteps']:,}", f"{pruned['timesteps']:,}"
        shares = f"{row['share']:.0%}", f"{row['time_share']:.0%}"
        states = f"{pruned['states']['COMPLETE']}, {pruned['states']['PRUNED']}"
        scores = f"{fmean(none['scores']):+.2f}", f"{fmean(pruned['scores']):+.2f}"
        cells.append([f"{row['repeat']}", *steps, *shares, states, *scores, f"{row['loss']:+.2f}"])
    share = sum(row["pruned"]["timesteps"] for row in rows)
    share /= sum(row["none"]["timesteps"] for row in rows)
    loss, error = harness.spread(row["loss"] for row in rows)
    lines = [
        harness.table((*head, "re-scored without", "re-scored with", "loss"), cells),
        f"\nshare of training steps: {share:.1%} (bar {SHARE_BAR:.0%}): "
        f"{'holds' if share <= SHARE_BAR else 'MISSED'}",
        f"mean loss of the re-scored best: {loss:+.3f} Sharpe, standard error {error:.3f} "
        f"(bar {LOSS_BAR}): {'holds' if loss <= LOSS_BAR else 'MISSED'}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table and write the JSON."""
    size = {"repeats": 5, "trials": 40, "jobs": 2, "scores": (6, "trainings of each best setting")}
    parser = harness.parser(__doc__, **size, work=harness.WORK / "pruning", out=Path)
    args, overrides = parser.parse_known_args()
    args.work = harness.home(args.work)
    rows = []
    for repeat in range(args.repeats):
        for arm in ARMS:
            sweep(arm, repeat, args, overrides)
        rows.append(collect(repeat, args, overrides))
        print(report(rows[-1:]), flush=True)
    print(f"\n{report(rows)}")
    harness.write(args.out, {"overrides": overrides, "trials": args.trials, "repeats": rows})


if __name__ == "__main__":
    main()
