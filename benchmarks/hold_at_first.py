"""With what probability should a policy that has learned nothing hold?

    python benchmarks/hold_at_first.py --jobs 2 --json docs/results/hold_at_first.json

Trainings on choosing markets from starts that differ in nothing but the bias of HOLD's logit:
uniform over what is legal, or HOLD with probability .8 to .95 before masks.  Shown is the annual
Sharpe ratio of the kept checkpoint on validation, by action set, number of levels, timesteps and
strength of the edge; no test is opened.  Finished trainings are kept in --work and not repeated.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

UNIFORM = 0.0  # no bias: each action alike
STARTS = (UNIFORM, 0.8, 0.9, 0.95)
SEEDS = 6
SHORT, LONG = 600_000, 3_000_000
CASES: dict[str, tuple[int, tuple[str, ...]]] = {  # first seed, overrides
    "step, 600,000 timesteps, edge .06": (
        520,
        (f"budget.timesteps={SHORT}", "data.synthetic.edge=0.06"),
    ),
    "step, 600,000 timesteps": (520, (f"budget.timesteps={SHORT}",)),
    "step, 3,000,000 timesteps": (520, (f"budget.timesteps={LONG}",)),
    **{
        f"target, {2 * steps + 1} levels": (
            500,
            (
                f"budget.timesteps={LONG}",
                "env.action_set=target",
                f"env.exposure_levels={[k / steps for k in range(-steps, steps + 1)]}".replace(
                    " ", ""
                ),
            ),
        )
        for steps in (1, 2, 5)
    },
}


def run_cell(case: str, start: float, seed: int, path: Path) -> None:
    """Train once and write the figures of its kept checkpoint on validation."""
    from ppo_workbench import compose
    from ppo_workbench.learning import training
    from ppo_workbench.pipeline.tasks import train

    build = training.build_model

    def build_model(config: Any, env: Any, *others: Any) -> Any:
        model = build(config, env, *others)
        bias = model.policy.action_net.bias
        odds = start / (1.0 - start) * (len(bias) - 1)
        bias.data[env.batch.market.space.hold] = 0.0 if start == UNIFORM else np.log(odds)
        return model

    training.build_model = build_model  # type: ignore[assignment]
    config = compose(
        [
            *("tracking=none", f"seed={seed}", f"data.synthetic.seed={seed}"),
            *(f"output={path.stem}", "overwrite=true", *CASES[case][1]),
        ]
    )
    cards = train(config).scorecards
    card = next(iter(cards.values()))["validation"].to_dict()
    figures = {key: card[key] for key in ("sharpe_annual", "exposure_mean_abs", "n_trades")}
    path.write_text(json.dumps(figures), encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """Return means over seeds, and differences to the uniform start paired by seed."""
    lines = ["| start | " + " | ".join(CASES) + " |", "|---" * (len(CASES) + 1) + "|"]
    known = {(row["case"], row["start"]): np.array(row["sharpes"]) for row in rows}
    for start in STARTS:
        cells = []
        for case in CASES:
            own, base = known[case, start], known[case, UNIFORM]
            apart = own - base
            error = apart.std(ddof=1) / np.sqrt(len(apart))
            against = "" if start == UNIFORM else f", {apart.mean():+.2f} ({error:.2f})"
            cells.append(f"{own.mean():.2f}{against}")
        name = "uniform" if start == UNIFORM else f"HOLD {start:g}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the missing trainings, then print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work/hold_at_first"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("CASE", "START", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["PPO_WORKBENCH_HOME"] = str(work)

    def path_of(case: str, start: float, seed: int) -> Path:
        return work / f"{list(CASES).index(case)}_{round(start * 100)}_{seed}.json"

    if options.one:
        case, start, seed = options.one[0], float(options.one[1]), int(options.one[2])
        run_cell(case, start, seed, path_of(case, start, seed))
        return
    cells = [
        (case, start, CASES[case][0] + k)
        for case in CASES
        for start in STARTS
        for k in range(SEEDS)
    ]

    def begin(cell: tuple[str, float, int]) -> None:
        if not path_of(*cell).exists():
            command = [sys.executable, __file__, "--work", str(work), "--one", *map(str, cell)]
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            subprocess.run(command, check=True, env=os.environ | threads, stdout=subprocess.DEVNULL)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(begin, cells))
    rows = []
    for case, (first, _) in CASES.items():
        for start in STARTS:
            found = [
                json.loads(path_of(case, start, first + k).read_text(encoding="utf-8"))
                for k in range(SEEDS)
            ]
            sharpes = [one["sharpe_annual"] for one in found]
            rows.append({"case": case, "start": start, "sharpes": sharpes, "cells": found})
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
