"""How long an application waits for a model: discovery, activation, and a start from nothing.

    python benchmarks/delivery_start.py --json docs/results/delivery_start.json

A model is trained for a moment, copied a hundred times under other names, and activated in
fresh processes: with compiled kernels in the cache, and where none can be cached (a cache
folder that cannot be made, as on a read-only disk).  Figures are medians of the repeats: wall
time is what an application waits on this machine as loaded as it was, CPU time what compares.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness

MODELS = 100
SMALL = [
    *("data.synthetic.sessions=70", "budget.timesteps=8192", "budget.evaluations=1"),
    *("tracking.enabled=false", "output=model"),
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


def start(folder: Path, level: str, cache: str | None) -> Any:
    """Start a process that discovers and activates; return its own times."""
    changed = {} if cache is None else {"PPO_WORKBENCH_CACHE": cache}
    command = [sys.executable, "-c", START, str(folder), str(MODELS), level]
    return harness.answer(command, env=os.environ | changed)


def median_start(folder: Path, repeats: int, level: str, cache: str | None) -> Times:
    """Return the median of each time over the repeats, and of their sums."""
    runs = [start(folder, level, cache) for _ in range(repeats)]
    clocks = ("wall_seconds", "cpu_seconds")
    for run in runs:
        run["all"] = {clock: sum(part[clock] for part in run.values()) for clock in clocks}
    return {part: harness.medians([run[part] for run in runs], 4) for part in runs[0]}


def measure(repeats: int) -> dict[str, Any]:
    """Train, copy, start."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "trained_models"
        assert harness.start(home, *SMALL, stdout=subprocess.DEVNULL).wait() == 0
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
    options = harness.parser(__doc__, json=Path, repeats=5).parse_args()
    result = measure(options.repeats)
    print(json.dumps(result, indent=1))
    harness.write(options.json, result)


if __name__ == "__main__":
    main()
