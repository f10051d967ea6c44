"""What a sweep survives: kills at random moments, and several sweeps on one new storage.

    python benchmarks/sweep_faults.py [--kills 10] [--storage postgresql://...]

Prints one line a case; any line that does not hold ends the program with code 1.  For
PostgreSQL give the address of an empty database; without it the case is skipped.
"""

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import harness
import psutil

X, N_TRIALS, KILLED_TRIALS = "x=interval(0,1)", 16, 40


def start(home: Path, *overrides: str) -> "subprocess.Popen[str]":
    fixed = ["hydra.launcher.preload=[]", "mode=session", f"hydra.sweeper.n_trials={N_TRIALS}"]
    arguments, toy = ("--multirun", X, *fixed, *overrides), "tests.sweeps.toy"
    return harness.piped(home, *arguments, module=toy, stderr=subprocess.STDOUT)


def verdict(
    case: str, home: Path, name: str, uri: str | None, began: float, wanted: int = N_TRIALS
) -> bool:
    trials = harness.trials(home, name, uri)
    states = Counter(trial.state.name for trial in trials)
    finished = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    distinct = len({trial.params["x"] for trial in finished})
    holds = len(finished) == distinct == wanted and not states["RUNNING"]
    print(
        f"{'holds' if holds else 'FAILS'}  {case}: {len(finished)} finished, {distinct} distinct, "
        f"{dict(states)}, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return holds


def kills(home: Path, count: int, seed: int) -> bool:
    """Kill a sweep at random moments after its study was opened, then let it end."""
    rng, began, orphans, hits = random.Random(seed), time.monotonic(), 0, 0
    arguments = ("hydra.sweeper.study_name=killed", f"hydra.sweeper.n_trials={KILLED_TRIALS}")
    for _ in range(count):
        sweep = start(home, *arguments, "pause=0.1")
        assert sweep.stdout is not None
        sweep.stdout.readline()
        time.sleep(rng.uniform(0.0, 4.0))
        family = psutil.Process(sweep.pid).children(recursive=True) if sweep.poll() is None else []
        sweep.kill()
        sweep.communicate()
        _, alive = psutil.wait_procs(family, timeout=30)
        orphans += len(alive)
        hits += any(trial.state.name == "RUNNING" for trial in harness.trials(home, "killed"))
    start(home, *arguments).communicate(timeout=600)
    print(
        f"{'holds' if not orphans else 'FAILS'}  {count} kills, {hits} while trials ran: "
        f"{orphans} orphan processes"
    )
    holds = verdict(f"{count} kills", home, "killed", None, began, KILLED_TRIALS)
    return holds and not orphans


def together(home: Path, case: str, uri: str | None, count: int = 4) -> bool:
    """Start several sweeps at once on a storage that does not exist yet."""
    began = time.monotonic()
    arguments = [f"hydra.sweeper.study_name={case}"]
    if uri is not None:
        arguments.append(f"hydra.sweeper.storage='{uri}'")
    sweeps = [start(home, *arguments) for _ in range(count)]
    codes = []
    for sweep in sweeps:
        output, _ = sweep.communicate(timeout=600)
        codes.append(sweep.returncode)
        if sweep.returncode:
            print(output)
    return verdict(f"{count} sweeps, {case}", home, case, uri, began) and not any(codes)


def main() -> None:
    storage = str, "postgresql://... of an empty database"
    options = harness.parser(__doc__, kills=10, seed=0, storage=storage).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        results = [
            kills(home, options.kills, options.seed),
            together(home, "journal", None),
            together(home, "sqlite", f"sqlite:///{home}/s.db"),
        ]
        if options.storage:
            results.append(together(home, "postgresql", options.storage))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
