"""Whole runs, process start to saved model: the native learner beside stable-baselines3.

    python benchmarks/whole_run.py --json docs/results/whole_run.json

Eight environments, batch 64, 500,000 timesteps, one thread; also prints how long a warm
process needs until it trains (from its own console: the line that begins with "training:").
"""

import statistics
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import harness

RUN = [
    *("model.n_envs=8", "model.n_steps=256", "model.batch_size=64", "model.n_epochs=10"),
    *("budget.timesteps=500000", "budget.evaluations=1", "tracking.plots=false"),
]


def run(learner: str, overrides: list[str]) -> tuple[float, float]:
    """Return seconds to the first line of training and to the end of the process."""
    command = [f"model.learner={learner}", *RUN, *overrides]
    changes = {**harness.ONE_THREAD, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as home:
        started = time.monotonic()
        with harness.start(home, *command, changes=changes, stdout=subprocess.PIPE) as process:
            harness.said(process, "\ntraining:")
            training = time.monotonic() - started
            process.communicate()
        if process.returncode:
            raise SystemExit(f"{learner}: exit code {process.returncode}")
        done = time.monotonic() - started
        print(f"{learner}: training after {training:.1f} s, done after {done:.1f} s")
        return training, done


def main() -> None:
    """Alternate the learners and print medians."""
    pairs = 3, "pairs; sb3 takes minutes each"
    args, overrides = harness.parser(__doc__, repeats=pairs, json=Path).parse_known_args()
    run("native", ["budget.timesteps=2048", *overrides])  # fills the jit cache
    sides = {name: partial(run, name, overrides) for name in ("native", "sb3")}
    rows = harness.alternated(sides, args.repeats)
    medians = {name: statistics.median(t[1] for t in times) for name, times in rows.items()}
    ratio = medians["sb3"] / medians["native"]
    start = statistics.median(t[0] for t in rows["native"])
    print(f"whole run: {ratio:.1f} times sooner; a warm process trains after {start:.1f} s")
    document = {"seconds": medians, "ratio": ratio, "start_up_seconds": start, "runs": rows}
    harness.write(args.json, document)


if __name__ == "__main__":
    main()
