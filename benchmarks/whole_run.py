"""Whole runs, process start to saved model: the native learner beside stable-baselines3.

    python benchmarks/whole_run.py --json docs/results/whole_run.json

Eight environments, batch 64, 500,000 timesteps, one thread; also prints how long a warm
process needs until it trains (from its own console: the line that begins with "training:").
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = [
    "model.n_envs=8",
    "model.n_steps=256",
    "model.batch_size=64",
    "model.n_epochs=10",
    "budget.timesteps=500000",
    "budget.evaluations=1",
    "tracking.plots=false",
]


def run(learner: str, overrides: list[str]) -> tuple[float, float]:
    """Return seconds to the first line of training and to the end of the process."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-u", "-m", "ppo_workbench", f"model.learner={learner}"]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = os.environ | threads | {"PPO_WORKBENCH_HOME": home}
        started = time.monotonic()
        with subprocess.Popen(
            [*command, *RUN, *overrides], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            training = 0.0
            for line in process.stdout:
                if line.startswith("training:"):
                    training = time.monotonic() - started
        if process.returncode:
            raise SystemExit(f"{learner}: exit code {process.returncode}")
        return training, time.monotonic() - started


def main() -> None:
    """Alternate the learners and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="pairs; sb3 takes minutes each")
    parser.add_argument("--json", type=Path)
    args, overrides = parser.parse_known_args()
    run("native", ["budget.timesteps=2048", *overrides])  # fills the jit cache
    rows: dict[str, list[tuple[float, float]]] = {"native": [], "sb3": []}
    for _ in range(args.repeats):
        for learner, times in rows.items():
            times.append(run(learner, overrides))
            print(
                f"{learner}: training after {times[-1][0]:.1f} s, done after {times[-1][1]:.1f} s"
            )
    medians = {name: statistics.median(t[1] for t in times) for name, times in rows.items()}
    ratio = medians["sb3"] / medians["native"]
    start = statistics.median(t[0] for t in rows["native"])
    print(f"whole run: {ratio:.1f} times sooner; a warm process trains after {start:.1f} s")
    if args.json:
        document = {"seconds": medians, "ratio": ratio, "start_up_seconds": start, "runs": rows}
        args.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
