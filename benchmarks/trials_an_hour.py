"""How many trials an hour, beside another commit's tree.

    git worktree add /tmp/before COMMIT
    python benchmarks/trials_an_hour.py --against /tmp/before [--rounds 3] [--jobs 1] [--json FILE]

`sweep=lr_entropy` as it is (two seeds of 320,000 timesteps, 10 evaluations of each), with fixed
settings and without pruning, recorded in MLflow: every trial trains to its end and both trees
train the same.  Counted is from the end of the first trials, which load and compile, to that of
the last one.  The trees take turns; the first round of each is thrown away.
"""

import os
import statistics
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import harness

SWEEP = (
    *("--multirun", "sweep=lr_entropy", "hydra.sweeper.study_name=s", "tracking.plots=false"),
    *("hydra.sweeper.pruner.name=none", "hydra.sweeper.sampler.name=random"),
    "hydra.sweeper.seed=1",
)


def hourly(tree: Path, cache: Path, jobs: int, trials: int) -> float:
    """Sweep with the code of a tree; return its trials an hour."""
    search = f"{tree / 'src'}{os.pathsep}{tree}"
    changes = {"PYTHONPATH": search, "PPO_WORKBENCH_CACHE": str(cache), **harness.ONE_THREAD}
    own = (f"hydra.launcher.n_jobs={jobs}", f"hydra.sweeper.n_trials={trials + jobs}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        sweep = harness.start(
            home, *SWEEP, *own, changes=changes, cwd=tree, stdout=subprocess.DEVNULL
        )
        assert sweep.wait() == 0
        found = [one.datetime_complete for one in harness.trials(home, "s")]
    ends = sorted(end.timestamp() for end in found if end is not None)
    return 3600.0 * trials / float(ends[-1] - ends[jobs - 1])


def main() -> None:
    """Alternate the trees and print medians."""
    sizes = {"rounds": 3, "jobs": 1, "trials": 6}
    args = harness.parser(__doc__, against=Path, json=Path, **sizes).parse_args()
    trees = {"before": args.against, "now": harness.ROOT}
    with tempfile.TemporaryDirectory() as cache:
        sides = {
            name: partial(hourly, tree.absolute(), Path(cache) / name, args.jobs, args.trials)
            for name, tree in trees.items()
            if tree is not None
        }
        rows = harness.alternated(sides, args.rounds + 1)
    rows = {name: rates[1:] for name, rates in rows.items()}
    medians = {name: round(statistics.median(rates), 1) for name, rates in rows.items()}
    document = {"trials_an_hour": medians, "jobs": args.jobs, "rounds": rows}
    if "before" in medians:
        document["ratio"] = medians["now"] / medians["before"]
    print(document)
    harness.write(args.json, document)


if __name__ == "__main__":
    main()
