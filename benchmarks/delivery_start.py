"""How long an application waits for a model: discovery, activation, and a start from nothing.

    python benchmarks/delivery_start.py --json docs/results/delivery_start.json

A model is trained for a moment, copied a hundred times under other names, and activated in
fresh processes: with compiled kernels in the cache, and where none can be cached (a cache
folder that cannot be made, as on a read-only disk).  Figures are medians of the repeats: wall
time is what an application waits on this machine as loaded as it was, CPU time what compares.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODELS = 100
SMALL = [
    "data.synthetic.sessions=70",
    "budget.timesteps=8192",
    "budget.evaluations=1",
    "tracking.enabled=false",
    "output=model",
]
COPY = """
import sys
from pathlib import Path
from ppo_workbench.delivery.artifact import load_artifact, save_artifact
folder = Path(sys.argv[1])
model = load_artifact(folder, "model")
for k in range(int(sys.argv[2]) - 1):
    save_artifact(folder, f"model_{k}", model.tensors, model.metadata)
"""
START = """
import json, sys, time
marks = {}
def mark(what, began=[0.0, time.process_time()]):
    now = time.perf_counter(), time.process_time()
    if what:
        marks[what] = {"wall_seconds": now[0] - began[0], "cpu_seconds": now[1] - began[1]}
    began[:] = now
mark(None)
from ppo_workbench.delivery.golden import Level
from ppo_workbench.delivery.model_manager import ModelManager
mark("import")
manager = ModelManager(sys.argv[1])
assert len(manager.discover().models) == int(sys.argv[2])
mark("discover")
manager.discover()
mark("discover again")
level = None if sys.argv[3] == "default" else Level[sys.argv[3]]
manager.activate("model", any_status=True, level=level)
mark("activate")
print(json.dumps(marks))
"""


Times = dict[str, dict[str, float]]


def start(folder: Path, level: str, cache: str | None) -> Times:
    """Start a process that discovers and activates; return its own times."""
    changed = {} if cache is None else {"PPO_WORKBENCH_CACHE": cache}
    command = [sys.executable, "-c", START, str(folder), str(MODELS), level]
    done = subprocess.run(
        command, env=os.environ | changed, check=True, capture_output=True, text=True
    )
    times: Times = json.loads(done.stdout)
    return times


def median_start(folder: Path, repeats: int, level: str, cache: str | None) -> Times:
    """Return the median of each time over the repeats, and of their sums."""
    runs = [start(folder, level, cache) for _ in range(repeats)]
    clocks = ("wall_seconds", "cpu_seconds")
    for run in runs:
        run["all"] = {clock: sum(part[clock] for part in run.values()) for clock in clocks}
    return {
        part: {clock: round(statistics.median(r[part][clock] for r in runs), 4) for clock in clocks}
        for part in runs[0]
    }


def measure(repeats: int) -> dict[str, Any]:
    """Train, copy, start."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "trained_models"
        command = [sys.executable, "-m", "ppo_workbench", *SMALL]
        environment = os.environ | {"PPO_WORKBENCH_HOME": home}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        subprocess.run([sys.executable, "-c", COPY, str(folder), str(MODELS)], check=True)
        start(folder, "step", None)  # fills the cache
        nowhere = os.devnull + "/cache"
        return {
            "models": MODELS,
            "pth_bytes": (folder / "model.pth").stat().st_size,
            "metadata_bytes": (folder / "model-metadata.json").stat().st_size,
            "repeats": repeats,
            "load_average": os.getloadavg()[0],
            "cores": os.cpu_count(),
            "kernels cached": median_start(folder, repeats, "default", None),
            "no cache": median_start(folder, repeats, "default", nowhere),
            "no cache, step replayed": median_start(folder, 1, "step", nowhere),
        }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    text = json.dumps(measure(options.repeats), indent=1)
    print(text)
    if options.json:
        options.json.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
