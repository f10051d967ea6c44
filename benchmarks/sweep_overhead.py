"""What a trial costs beside its training, and whether two workers halve the time.

    python benchmarks/sweep_overhead.py [--trials 16] [--preload tests.sweeps.toy]

Overhead: wall time of a sweep of trials that do nothing, per trial, once the first trial has
begun, with one worker; in one run beside Hydra's stock pattern (its basic and joblib launchers
with ask, launch a batch, tell).  Shares: what the parent spends asking and telling, and the
rest, which is the fork, Hydra's composition and the job's own reports.  Cores: trials of mixed
lengths that sleep, one worker and two.
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


def sweep(home: Path, name: str, n_trials: int, preload: str, *overrides: str) -> float:
    """Run a sweep as a program; return seconds from its first trial's start to its end."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    fixed = [f"hydra.sweeper.n_trials={n_trials}", f"hydra.sweeper.study_name={name}"]
    if "hydra/launcher=basic" not in overrides and "hydra/launcher=joblib" not in overrides:
        fixed.append(f"hydra.launcher.preload=[{preload}]")
    subprocess.run(
        [sys.executable, "-m", "tests.sweeps.toy", "--multirun", *fixed, *overrides],
        env={**os.environ, "PYTHONPATH": path, "PPO_WORKBENCH_HOME": str(home)},
        cwd=home,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    uri = f"sqlite:///{home}/s.db" if any("sqlite" in text for text in overrides) else None
    trials = load_study(open_storage(uri, home, name), name).trials
    # The first trial waits for the server's imports, which are paid once.
    begin = trials[0].datetime_complete
    end = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
    assert begin is not None
    return (end - begin).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--preload", default="tests.sweeps.toy")
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
            seconds = sweep(home, name, options.trials, options.preload, *space, *overrides)
            print(f"{case}: {1000 * seconds / (options.trials - 1):.0f} ms a trial", flush=True)
        times = []
        for jobs in (1, 2):
            began = time.monotonic()
            grid = ["mode=doze", "x=range(0.5,4.5,0.25)", "hydra.sweeper.sampler.name=grid"]
            workers = f"hydra.launcher.n_jobs={jobs}"
            sweep(home, f"cores_{jobs}", 16, options.preload, workers, *grid)
            times.append(time.monotonic() - began)
        print(
            f"16 mixed trials: {times[0]:.1f} s with 1 worker, {times[1]:.1f} s with 2, "
            f"{times[0] / times[1]:.2f} x"
        )


if __name__ == "__main__":
    main()
