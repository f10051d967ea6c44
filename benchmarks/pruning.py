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
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ARMS = {"none": ["hydra.sweeper.pruner.name=none"], "pruned": []}
MARKET, FRESH_MARKET, FRESH_SEED = 3000, 50_000, 9000
SHARE_BAR, LOSS_BAR = 0.5, 0.1


def sweep(arm: str, repeat: int, args: argparse.Namespace, overrides: list[str]) -> None:
    """Run, or go on with, the study of one arm and repeat."""
    command = [sys.executable, "-m", "ppo_workbench", "--multirun", "sweep=lr_entropy"]
    command += [f"data.synthetic.seed={MARKET + repeat}", "tracking=none", *ARMS[arm]]
    command += [f"hydra.sweeper.study_name={arm}_{repeat}", f"hydra.sweeper.seed={repeat}"]
    command += [f"hydra.sweeper.n_trials={args.trials}", f"hydra.launcher.n_jobs={args.jobs}"]
    with (args.work / f"{arm}_{repeat}.log").open("a") as log:
        subprocess.run([*command, *overrides], stdout=log, stderr=log, check=True)


def describe(arm: str, repeat: int, work: Path) -> dict[str, Any]:
    """Return what a finished study cost and found."""
    from ppo_workbench.records.storage import open_storage
    from ppo_workbench.records.studies.session import load_study

    name = f"{arm}_{repeat}"
    trials = load_study(open_storage(None, work, name), name).get_trials(deepcopy=False)
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    best = max(
        (trial for trial in ended if trial.state.name == "COMPLETE"),
        key=lambda trial: trial.values[0],
    )
    return {
        "timesteps": sum(trial.user_attrs["timesteps"] for trial in ended),
        "core_seconds": sum(trial.user_attrs["seconds"] for trial in ended),
        "states": {
            s: sum(t.state.name == s for t in trials) for s in ("COMPLETE", "PRUNED", "FAIL")
        },
        "best": {"number": best.number, "value": best.values[0], "params": best.params},
    }


def rescore(arm: str, repeat: int, k: int, work: Path, overrides: list[str]) -> None:
    """Train the best setting of a study on market and learner seed number k; write its Sharpe."""
    from ppo_workbench.cli.main import compose
    from ppo_workbench.delivery.network import policy_weights
    from ppo_workbench.pipeline.sweep.trial import SeedTraining
    from ppo_workbench.reports.study.analysis import overrides_of
    from ppo_workbench.trading.experiment import prepare, split_bars

    params = describe(arm, repeat, work)["best"]["params"]
    market = f"data.synthetic.seed={FRESH_MARKET + 100 * repeat + k}"
    config = compose(["sweep=lr_entropy", market, *overrides, *overrides_of(params)])
    seed = SeedTraining(prepare(config, *split_bars(config)), FRESH_SEED + k, [])
    while seed.training.advance():
        pass
    card = seed.look(policy_weights(seed.training.result().tensors, config.model.activation))
    path = score_path(work, arm, repeat, k)
    path.with_suffix(".part").write_text(json.dumps(card.sharpe_annual))
    path.with_suffix(".part").replace(path)


def score_path(work: Path, arm: str, repeat: int, k: int) -> Path:
    return work / f"score_{arm}_{repeat}_{k}.json"


def rescore_all(repeat: int, args: argparse.Namespace, overrides: list[str]) -> None:
    """Run the missing trainings of a repeat, `--jobs` at a time."""
    cells = [(arm, k) for k in range(args.scores) for arm in ARMS]
    missing = [
        cell for cell in cells if not score_path(args.work, cell[0], repeat, cell[1]).exists()
    ]

    def start(cell: tuple[str, int]) -> None:
        command = [sys.executable, __file__, "--one", cell[0], str(repeat), str(cell[1])]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        subprocess.run(
            [*command, "--work", str(args.work), *overrides], env=os.environ | threads, check=True
        )

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(start, missing))


def collect(repeat: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return the row of a repeat."""
    arms = {arm: describe(arm, repeat, args.work) for arm in ARMS}
    for arm, row in arms.items():
        paths = [score_path(args.work, arm, repeat, k) for k in range(args.scores)]
        row["scores"] = [json.loads(path.read_text()) for path in paths]
    return {
        "repeat": repeat,
        "share": arms["pruned"]["timesteps"] / arms["none"]["timesteps"],
        "time_share": arms["pruned"]["core_seconds"] / arms["none"]["core_seconds"],
        "loss": fmean(arms["none"]["scores"]) - fmean(arms["pruned"]["scores"]),
        **arms,
    }


def report(rows: list[dict[str, Any]]) -> str:
    """Return the table and the verdicts."""
    lines = [
        "| repeat | steps without | steps with | share | share of time | complete, pruned | "
        "re-scored without | re-scored with | loss |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        none, pruned = row["none"], row["pruned"]
        lines.append(
            f"| {row['repeat']} | {none['timesteps']:,} | {pruned['timesteps']:,} "
            f"| {row['share']:.0%} | {row['time_share']:.0%} "
            f"| {pruned['states']['COMPLETE']}, {pruned['states']['PRUNED']} "
            f"| {fmean(none['scores']):+.2f} | {fmean(pruned['scores']):+.2f} "
            f"| {row['loss']:+.2f} |"
        )
    share = sum(row["pruned"]["timesteps"] for row in rows)
    share /= sum(row["none"]["timesteps"] for row in rows)
    losses = [row["loss"] for row in rows]
    error = stdev(losses) / len(losses) ** 0.5 if len(losses) > 1 else float("nan")
    lines += [
        f"\nshare of training steps: {share:.1%} (bar {SHARE_BAR:.0%}): "
        f"{'holds' if share <= SHARE_BAR else 'MISSED'}",
        f"mean loss of the re-scored best: {fmean(losses):+.3f} Sharpe, standard error {error:.3f} "
        f"(bar {LOSS_BAR}): {'holds' if fmean(losses) <= LOSS_BAR else 'MISSED'}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scores", type=int, default=6, help="trainings of each best setting")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work/pruning"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("ARM", "REPEAT", "K"), help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    args.work = args.work.absolute()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ["PPO_WORKBENCH_HOME"] = str(args.work)
    if args.one:
        rescore(args.one[0], int(args.one[1]), int(args.one[2]), args.work, overrides)
        return
    rows = []
    for repeat in range(args.repeats):
        for arm in ARMS:
            sweep(arm, repeat, args, overrides)
        rescore_all(repeat, args, overrides)
        rows.append(collect(repeat, args))
        print(report(rows[-1:]), flush=True)
    print(f"\n{report(rows)}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        document = {"overrides": overrides, "trials": args.trials, "repeats": rows}
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
