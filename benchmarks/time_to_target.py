"""How soon is a model at the targets: the default command, and the same with stable-baselines3.

    python benchmarks/time_to_target.py --seeds 5 --json docs/results/time_to_target.json

Each run is the whole default command (30 minutes) on one core, from a cold start with a warm
kernel cache, on a market of its own.  It is killed once three validation evaluations in a row
meet all three targets (Sharpe > 1.5, drawdown < 8 %, win rate > 60 %); what counts are the
seconds from the start of the process to the third of them.  The learners alternate.
"""

import json
import os
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

from ppo_workbench.scoring.targets import TARGETS

FAST = "model.learning_rate=0.001"
ARMS = {
    "native": [],
    "native, learning rate .001": [FAST],
    "sb3": ["model.learner=sb3"],
    "sb3, learning rate .001": ["model.learner=sb3", FAST],
    "sb3, learning rate .001, batch 2048": ["model.learner=sb3", FAST, "model.batch_size=2048"],
    "sb3, learning rate .001, 3 epochs": ["model.learner=sb3", FAST, "model.n_epochs=3"],
    "sb3, learning rate .001, 256 environments, batch 2048": [
        *("model.learner=sb3", FAST),
        *("model.n_envs=256", "model.n_steps=64", "model.batch_size=2048"),
    ],
}
FIGURES = tuple(target.figure for target in TARGETS)
IN_A_ROW = 3


def evaluations(home: Path) -> list[tuple[int, float, dict[str, float]]]:
    """Return (timesteps, unix seconds, figures) of the evaluations that MLflow holds, in order."""
    store = home / "mlruns" / "mlflow.db"
    if not store.exists():
        return []
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
            rows = database.execute(
                "select step, timestamp, key, value from metrics where key like 'validation/%'"
            ).fetchall()
    except sqlite3.OperationalError:  # tables are being made
        return []
    found: dict[int, tuple[float, dict[str, float]]] = {}
    for step, stamp, key, value in rows:
        found.setdefault(step, (stamp / 1000, {}))[1][key.removeprefix("validation/")] = value
    whole = {s: row for s, row in found.items() if all(name in row[1] for name in FIGURES)}
    return [(step, *whole[step]) for step in sorted(whole)]


def reached(rows: list[tuple[int, float, dict[str, float]]]) -> tuple[int, float] | None:
    """Return (timesteps, unix seconds) of the third evaluation in a row that meets the targets."""
    row = 0
    for step, stamp, figures in rows:
        row = row + 1 if all(target.reached_by(figures[target.figure]) for target in TARGETS) else 0
        if row == IN_A_ROW:
            return step, stamp
    return None


def measure(arm: list[str], seed: int, core: int, patience_seconds: float) -> dict[str, Any]:
    """Run the command until it is at the targets, and kill it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        command = [f"data.synthetic.seed={seed}", f"seed={seed}", *arm]
        one = {"OMP_NUM_THREADS": "1"}
        began = time.time()
        with (home / "log.txt").open("w") as log:
            run = harness.start(home, *command, changes=one, stdout=log, stderr=log)
            os.sched_setaffinity(run.pid, {core})
            try:
                while run.poll() is None and time.time() - began < patience_seconds:
                    at = reached(evaluations(home))
                    if at is not None:
                        return {"timesteps": at[0], "seconds": at[1] - began}
                    time.sleep(0.5)
            finally:
                run.kill()
                run.wait()
    return {"timesteps": None, "seconds": None, "patience_seconds": patience_seconds}


def main() -> None:
    arms = ",".join(name.replace(",", ";") for name in ARMS)
    flags = {"seeds": 5, "first_seed": 100, "core": 0, "arms": arms, "json": Path}
    arguments = harness.parser(__doc__, **flags, patience_seconds=600.0).parse_args()
    names = [name.replace(";", ",") for name in arguments.arms.split(",")]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for name in names:
            row = measure(ARMS[name], seed, arguments.core, arguments.patience_seconds)
            rows[name].append({"seed": seed, **row})
            print(f"{name}, seed {seed}: {row}", flush=True)
    # A run that did not get there counts as its patience: a lower bound.
    medians = {
        name: statistics.median(row["seconds"] or arguments.patience_seconds for row in runs)
        for name, runs in rows.items()
    }
    print(json.dumps(medians, indent=2))
    harness.write(arguments.json, {"median_seconds": medians, "runs": rows}, indent=2)


if __name__ == "__main__":
    main()
