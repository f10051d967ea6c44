"""How many timesteps until validation is at the targets, by settings and by spacing of the looks.

    python benchmarks/target_timesteps.py --seeds 5 --json docs/results/target_timesteps.json

What `time_to_target.py` measures in seconds depends on how often one looks.  Here each setting
trains for 1,500,000 timesteps at a constant learning rate (as a budget of half an hour begins) and
is looked at every 16,384; counted are the timesteps to the third look in a row that meets all
three targets, had one looked every 16,384, 32,768 ... or as the default command does.  The
learners are equal in what they learn, so the native one stands for both.  Finished trainings are
kept in --work and not repeated.
"""

import re
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import harness
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


def train(setting: str, seed: int) -> list[tuple[int, dict[str, float]]]:
    """Train one setting on one market and return its looks."""
    seeds = f"seed={seed}", f"data.synthetic.seed={seed}", "model.learning_rate_schedule=constant"
    looks = f"budget.evaluations={-(-TIMESTEPS // LOOK_EVERY)}"
    command = [*seeds, f"budget.timesteps={TIMESTEPS}", looks, *SETTINGS[setting]]
    with tempfile.TemporaryDirectory() as folder:
        assert harness.start(folder, *command, stdout=subprocess.DEVNULL).wait() == 0
        return [(step, row) for step, _, row in evaluations(Path(folder))]


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
    work = harness.WORK / "target_timesteps"
    flags = {"seeds": 5, "first_seed": 100, "work": work, "json": Path}
    arguments = harness.parser(__doc__, **flags).parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    result: list[dict[str, Any]] = []
    for setting in SETTINGS:
        name = re.sub(r"\W+", "_", setting)
        cells = {arguments.work / f"{name}_{seed}.json": (setting, seed) for seed in seeds}
        kept = harness.kept(train, cells, 1)
        looks: list[Rows] = [[(step, 0.0, row) for step, row in found] for found in kept]
        line: dict[str, Any] = {"setting": setting, "seeds": list(seeds)}
        for spacing in (*SPACINGS, None):
            found = [timesteps_to_target(rows, spacing) for rows in looks]
            label = "the default command" if spacing is None else f"every {spacing:,}"
            # Not reached within the training is later than all that was seen.
            middle = statistics.median(TIMESTEPS if one is None else one for one in found)
            line[label] = {"timesteps": found, "median": middle}
        result.append(line)
    labels = [key for key in result[0] if key not in ("setting", "seeds")]
    lines = [
        [line["setting"], *(f"{line[label]['median']:,}" for label in labels)] for line in result
    ]
    print(harness.table(("setting", *labels), lines))
    harness.write(arguments.json, result)


if __name__ == "__main__":
    main()
