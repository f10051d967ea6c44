"""How many timesteps until validation is at the targets, by settings and by spacing of the looks.

    python benchmarks/target_timesteps.py --seeds 5 --json docs/results/target_timesteps.json

What `time_to_target.py` measures in seconds depends on how often one looks.  Here each setting
trains for 1,500,000 timesteps at a constant learning rate (as a budget of half an hour begins) and
is looked at every 16,384; counted are the timesteps to the third look in a row that meets all
three targets, had one looked every 16,384, 32,768 ... or as the default command does.  The
learners are equal in what they learn, so the native one stands for both.  Finished trainings are
kept in --work and not repeated.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from time_to_target import evaluations, reached

from ppo_workbench.learning.budget import early_evaluations

TIMESTEPS, LOOK_EVERY = 1_500_000, 16_384
SETTINGS: dict[str, list[str]] = {
    "default": [],
    "learning rate .001": ["model.learning_rate=0.001"],
    "learning rate .001, 3 epochs": ["model.learning_rate=0.001", "model.n_epochs=3"],
    "learning rate .001, batch 2048": ["model.learning_rate=0.001", "model.batch_size=2048"],
    "16 environments": ["model.n_envs=16"],
}
SPACINGS = (16_384, 32_768, 65_536, 131_072)
Rows = list[tuple[int, float, dict[str, float]]]


def train(setting: str, seed: int, path: Path) -> None:
    """Train one setting on one market and write its looks."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ppo_workbench", f"seed={seed}"]
        command += [f"data.synthetic.seed={seed}", "model.learning_rate_schedule=constant"]
        command += [f"budget.timesteps={TIMESTEPS}"]
        command += [f"budget.evaluations={-(-TIMESTEPS // LOOK_EVERY)}", *SETTINGS[setting]]
        environment = os.environ | {"PPO_WORKBENCH_HOME": folder, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        path.write_text(json.dumps([(step, row) for step, _, row in evaluations(Path(folder))]))


def seen(rows: Rows, spacing: int | None) -> Rows:
    """Return the looks of a coarser schedule; None is the default command's."""
    if spacing is not None:
        return [row for row in rows if row[0] % spacing == 0]
    return [row for row in rows if early_evaluations(row[0]) > early_evaluations(row[0] - 1)]


def timesteps_to_target(rows: Rows, spacing: int | None) -> int | None:
    """Return the timesteps of the third look in a row at the targets, if there was one."""
    at = reached(seen(rows, spacing))
    return None if at is None else at[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work/target_timesteps"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    result: list[dict[str, Any]] = []
    for setting in SETTINGS:
        looks: list[Rows] = []
        for seed in seeds:
            name = re.sub(r"\W+", "_", setting)
            path = arguments.work / f"{name}_{seed}.json"
            if not path.exists():
                train(setting, seed, path)
            looks.append([(step, 0.0, row) for step, row in json.loads(path.read_text())])
        line: dict[str, Any] = {"setting": setting, "seeds": list(seeds)}
        for spacing in (*SPACINGS, None):
            found = [timesteps_to_target(rows, spacing) for rows in looks]
            label = "the default command" if spacing is None else f"every {spacing:,}"
            # Not reached within the training is later than all that was seen.
            middle = statistics.median(TIMESTEPS if one is None else one for one in found)
            line[label] = {"timesteps": found, "median": middle}
        result.append(line)
    labels = [key for key in result[0] if key not in ("setting", "seeds")]
    print("| setting | " + " | ".join(labels) + " |")
    print("|---" * (len(labels) + 1) + "|")
    for line in result:
        medians = [f"{line[label]['median']:,}" for label in labels]
        print(f"| {line['setting']} | " + " | ".join(medians) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
