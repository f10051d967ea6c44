"""With what probability should a policy that has learned nothing hold?

    python benchmarks/hold_at_first.py --jobs 2 --json docs/results/hold_at_first.json

Trainings on choosing markets from starts that differ in nothing but the bias of HOLD's logit:
uniform over what is legal, or HOLD with probability .8 to .95 before masks.  Shown is the annual
Sharpe ratio of the kept checkpoint on validation, by action set, number of levels, timesteps and
strength of the edge; no test is opened.  Finished trainings are kept in --work and not repeated.
"""

from pathlib import Path
from typing import Any
from unittest import mock

import harness
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
}
for steps in (1, 2, 5):
    levels = f"env.exposure_levels={[k / steps for k in range(-steps, steps + 1)]}".replace(" ", "")
    changes = (f"budget.timesteps={LONG}", "env.action_set=target", levels)
    CASES[f"target, {2 * steps + 1} levels"] = (500, changes)


def run_cell(case: str, start: float, seed: int, name: str) -> dict[str, float]:
    """Train once and return the figures of its kept checkpoint on validation."""
    from ppo_workbench import compose
    from ppo_workbench.learning import training as module
    from ppo_workbench.pipeline.tasks import train

    training: Any = module
    build = training.build_model

    def build_model(config: Any, env: Any, *others: Any) -> Any:
        model: Any = build(config, env, *others)
        bias = model.policy.action_net.bias
        odds = start / (1.0 - start) * (len(bias) - 1)
        bias.data[env.batch.market.space.hold] = 0.0 if start == UNIFORM else np.log(odds)
        return model

    config = compose(
        [
            *("tracking=none", f"seed={seed}", f"data.synthetic.seed={seed}"),
            *(f"output={name}", "overwrite=true", *CASES[case][1]),
        ]
    )
    with mock.patch.object(training, "build_model", build_model):
        cards = train(config).scorecards
    card = next(iter(cards.values()))["validation"].to_dict()
    return {key: card[key] for key in ("sharpe_annual", "exposure_mean_abs", "n_trades")}


def table(rows: list[dict[str, Any]]) -> str:
    """Return means over seeds, and differences to the uniform start paired by seed."""
    known = {(row["case"], row["start"]): row["sharpes"] for row in rows}
    lines = []
    for start in STARTS:
        cells = ["uniform" if start == UNIFORM else f"HOLD {start:g}"]
        for case in CASES:
            own, base = known[case, start], known[case, UNIFORM]
            against = "" if start == UNIFORM else f", {harness.paired(own, base)}"
            cells.append(f"{np.mean(own):.2f}{against}")
        lines.append(cells)
    return harness.table(("start", *CASES), lines)


def main() -> None:
    """Run the missing trainings, then print the table and write the JSON."""
    work = harness.WORK / "hold_at_first"
    options = harness.parser(__doc__, jobs=2, work=work, json=Path).parse_args()
    work = harness.home(options.work)
    cells = {}
    for number, (case, (first, _)) in enumerate(CASES.items()):
        for start in STARTS:
            for seed in range(first, first + SEEDS):
                name = f"{number}_{round(start * 100)}_{seed}"
                cells[work / f"{name}.json"] = (case, start, seed, name)
    found = harness.kept(run_cell, cells, options.jobs)
    rows = []
    for case in CASES:
        for start in STARTS:
            own, found = found[:SEEDS], found[SEEDS:]
            sharpes = [one["sharpe_annual"] for one in own]
            rows.append({"case": case, "start": start, "sharpes": sharpes, "cells": own})
    print(table(rows))
    harness.write(options.json, rows)


if __name__ == "__main__":
    main()
