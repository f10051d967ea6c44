"""Kill a training at random moments, resume it, and compare with the uninterrupted run.

    python benchmarks/kill_resume.py --kills 20 --out docs/results/kill_resume.json

Every process but the last is ended with SIGKILL after a random time, also while it writes
a checkpoint (they are written after every rollout here).  The resumed run has to end with
the weights, the evaluations and the MLflow metrics of the uninterrupted one, bit for bit;
clock readings (time/*) are left out.
"""

import hashlib
import itertools
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

OVERRIDES = [
    *("budget.timesteps=400000", "budget.evaluations=5", "data.synthetic.sessions=200"),
    *("checkpoint.every_seconds=0", "tracking.plots=false"),
]


def run(home: Path, overrides: list[str], kill_after: float | None) -> bool:
    """Run one process; return whether it ended by itself."""
    home.mkdir(exist_ok=True)
    with (home / "console.log").open("a") as log:
        process = harness.start(
            home, *overrides, changes={"OPENBLAS_NUM_THREADS": "1"}, stdout=log, stderr=log
        )
        try:
            code = process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
    if code:
        tail = (home / "console.log").read_text()[-1000:]
        raise SystemExit(f"exit code {code}: {tail}")
    return True


def fingerprint(home: Path, name: str) -> dict[str, Any]:
    """Hash the weights and the metrics of the finished run in a home."""
    import torch

    tensors = torch.load(home / "trained_models" / f"{name}.pth", weights_only=True)
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + tensors[key].numpy().tobytes())
    with sqlite3.connect(home / "mlruns" / "mlflow.db") as database:
        ids = database.execute("select run_uuid from runs where status = 'FINISHED'").fetchall()
        rows = database.execute(
            "select key, step, value, is_nan from metrics where run_uuid = ?", ids[-1]
        ).fetchall()
    kept = sorted(row for row in rows if not row[0].startswith("time/"))
    duplicates = len(kept) - len({(key, step) for key, step, _, _ in kept})
    text = json.dumps(kept)
    return {
        "weights": digest.hexdigest(),
        "metrics": hashlib.sha256(text.encode()).hexdigest(),
        "metric_rows": len(kept),
        "duplicated": duplicates,
        "finished_runs": len(ids),
    }


def kill_until_done(
    home: Path, overrides: list[str], whole: float, rng: random.Random, kills: int
) -> int:
    """Run and resume one training, killing it up to `kills` times; return how often."""
    killed = 0
    while True:
        checkpoint = home / "mlruns" / "checkpoints" / "killed.ckpt"
        command = [f"resume={checkpoint}"] if checkpoint.exists() else overrides
        limit = rng.uniform(0.2, 0.9) * whole if killed < kills else None
        if run(home, command, limit):
            return killed
        done = (home / "trained_models" / "killed-metadata.json").exists()
        if done and not checkpoint.exists():
            return killed + 1  # killed on its way out
        killed += 1


def main() -> None:
    """Print one line for each kill and the comparison."""
    args, extra = harness.parser(__doc__, kills=20, seed=0, out=Path).parse_known_args()
    overrides = [*OVERRIDES, "output=killed", *extra]
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        homes = (Path(folder) / str(k) for k in itertools.count())
        run(next(homes), overrides, None)  # compiles, so that the next one tells the time
        calm = next(homes)
        started = time.monotonic()
        run(calm, overrides, None)
        whole = time.monotonic() - started
        reference = fingerprint(calm, "killed")
        kills, rounds, differing = 0, 0, 0
        while kills < args.kills:
            rough = next(homes)
            kills += kill_until_done(rough, overrides, whole, rng, args.kills - kills)
            rounds += 1
            differing += fingerprint(rough, "killed") != reference
            print(f"{kills} kills, {rounds} runs, {differing} of them differ", flush=True)
    result = {"kills": kills, "runs": rounds, "differing": differing, "reference": reference}
    print(json.dumps(result, indent=1))
    harness.write(args.out, result)
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
