"""What a trial costs beside its training, and whether two workers halve the time.

    python benchmarks/sweep_overhead.py [--trials 16]

Overhead: wall time of a sweep of trials that do nothing but report three times, per trial,
from the end of the first trial on (it waits for the fork server's imports), with one worker;
beside Hydra's own basic launcher, driven by the same sweeper.  MLflow is not part of it.  The
share of the parent is what lies between a trial's end and the next one's start: telling,
asking, the screen; the rest is the fork, Hydra's composition and the job's own reports.
Cores: 16 trials of mixed lengths that sleep, with one worker and two, start-up included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from ppo_workbench.records.storage import open_storage  # noqa: E402
from ppo_workbench.records.study import load_study  # noqa: E402

PRELOAD = "hydra_plugins.optuna_pruning._run,pytest"


def sweep(home: Path, name: str, n_trials: int, *overrides: str) -> tuple[float, float]:
    """Run a sweep as a program.

    Returns:
        Seconds from its first trial's end to its last one's, and the share between trials.
    """
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    fixed = [f"hydra.sweeper.n_trials={n_trials}", f"hydra.sweeper.study_name={name}"]
    if "hydra/launcher=basic" not in overrides:
        fixed.append(f"hydra.launcher.preload=[{PRELOAD}]")
    subprocess.run(
        [sys.executable, "-m", "tests.sweeps.toy", "--multirun", *fixed, *overrides],
        env={**os.environ, "PYTHONPATH": path, "PPO_WORKBENCH_HOME": str(home)},
        cwd=home,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    uri = f"sqlite:///{home}/s.db" if any("sqlite" in text for text in overrides) else None
    trials = load_study(open_storage(uri, home, name), name).trials
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete]
    between = sum(start - end for start, end in zip(starts[1:], ends, strict=False))
    return max(ends) - ends[0], between / (max(ends) - ends[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"load {load:.1f} on {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        one = "hydra.launcher.n_jobs=1"
        sqlite = f"hydra.sweeper.storage='sqlite:///{home}/s.db'"
        cases = {
            "pool, journal": [one],
            "pool, sqlite": [one, sqlite],
            "basic, journal": ["hydra/launcher=basic"],
            "basic, sqlite": ["hydra/launcher=basic", sqlite],
        }
        for position, (case, overrides) in enumerate(cases.items()):
            space = ["x=interval(0,1)", "mode=session"]
            name = f"overhead_{position}"
            seconds, parent = sweep(home, name, options.trials, *space, *overrides)
            cost = 1000 * seconds / (options.trials - 1)
            print(f"{case}: {cost:.0f} ms a trial, {100 * parent:.0f} % in the parent", flush=True)
        times = []
        for jobs in (1, 2):
            began = time.monotonic()
            grid = ["mode=doze", "x=range(0.5,4.5,0.25)", "hydra.sweeper.sampler.name=grid"]
            workers = f"hydra.launcher.n_jobs={jobs}"
            sweep(home, f"cores_{jobs}", 16, workers, *grid)
            times.append(time.monotonic() - began)
        print(
            f"16 mixed trials: {times[0]:.1f} s with 1 worker, {times[1]:.1f} s with 2, "
            f"{times[0] / times[1]:.2f} x"
        )


if __name__ == "__main__":
    main()
