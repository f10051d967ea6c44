"""Which checkpoint of a training should be kept?  Rules of choice, and what each one costs.

    python benchmarks/select_checkpoint.py --jobs 2 --json docs/results/select_checkpoint.json
    python benchmarks/select_checkpoint.py --jobs 2 --edges 0 0.08 --first-seed 540 \
        --timesteps 3000000 --json docs/results/select_checkpoint_recipe.json

Trainings on synthetic markets whose edge is scaled so that the best of their checkpoints have a
Sharpe ratio near 0, .5, 1 and 2.  Each of the twenty evaluations of a training keeps the
validation returns of its checkpoint and its Sharpe ratio on six years that follow, which stands
for the truth.  Regret of a rule: the true ratio of what it keeps below that of the best fixed rule
(always evaluation k, the same k for a whole market strength).  Seeds 520 and up choose;
no reported figure has them.  Finished trainings are kept in --work.
"""

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np

FIRST_SEED = 520
EDGES = (0.0, 0.05, 0.06, 0.07)
EVALUATIONS = 20
TIMESTEPS = 600_000
SPLITS = (1_008, 504, 1_512)  # sessions of train, validation and what stands for the truth
Values = Any


def run_cell(edge: float, seed: int, timesteps: int) -> bytes:
    """Train once; return validation returns and the long Sharpe ratio of every evaluation."""
    from ppo_workbench import compose
    from ppo_workbench.learning.training import Hooks, Validation, train_model
    from ppo_workbench.learning.vec_env import TradingVecEnv
    from ppo_workbench.market.horizons import derived
    from ppo_workbench.market.sources import load_bars
    from ppo_workbench.market.splits import time_splits
    from ppo_workbench.pipeline.models.stored import run_on_split, trained_policy
    from ppo_workbench.pipeline.train.scores import clearly_better, validated
    from ppo_workbench.scoring.metrics import scorecard
    from ppo_workbench.trading.experiment import prepare_with_test

    names = ("train", "validation", "test")
    shares = [length / sum(SPLITS) for length in SPLITS]
    nothing = ["data.synthetic.trend_drift=0.0", "data.synthetic.jump_shift=0.0"]
    config = compose(
        [
            *(f"data.synthetic.sessions={sum(SPLITS)}", f"data.synthetic.seed={seed}"),
            *(f"data.synthetic.edge={edge}", f"seed={seed}", f"budget.timesteps={timesteps}"),
            *(f"budget.evaluations={EVALUATIONS}", "checkpoint.every_seconds=null"),
            *(f"splits.{name}_frac={share!r}" for name, share in zip(names, shares, strict=True)),
            *([] if edge else nothing),
        ]
    )
    bars = load_bars(config.data)
    config = derived(config, bars)
    # Of a choosing market: what lies behind the validation bars is no test, but the truth.
    splits = time_splits(bars, config.splits, 10 * bars.bars_per_session)
    experiment = prepare_with_test(config, bars, splits)
    config = experiment.config
    excess: list[Any] = []
    truth: list[float] = []

    def evaluate(weights: Any) -> Validation:
        policy = trained_policy(config.model.type, weights)
        trace = run_on_split(experiment, policy, "validation")
        excess.append(trace.daily_returns() - trace.cash_returns())
        truth.append(scorecard(run_on_split(experiment, policy, "test")).sharpe_annual)
        return validated(trace, scorecard(trace))

    train_model(config, TradingVecEnv(experiment.batch()), 1, Hooks(evaluate, clearly_better))
    file = io.BytesIO()
    np.savez(file, excess=np.array(excess), truth=np.array(truth))
    return file.getvalue()


def load(path: Path) -> tuple[Values, Values]:
    """Return what a training gave: validation excess (E, T), true ratio (E,)."""
    with np.load(path) as found:
        return found["excess"], found["truth"]


def influences(excess: Values) -> tuple[Values, Values]:
    """Return the annual Sharpe ratio (E,) and each day's part of it (E, T)."""
    from ppo_workbench.scoring.metrics import sharpe_ratio
    from ppo_workbench.scoring.statistics.studentised import sharpe_influence

    ratios = np.array([sharpe_ratio(row, 252) for row in excess])
    parts = np.array([sharpe_influence(row, 252) for row in excess])
    return ratios, parts


def paired_error(parts: Values, one: int, other: int) -> float:
    """Return the standard error of a difference on the same days."""
    from ppo_workbench.scoring.statistics.studentised import long_run_error

    return long_run_error(parts[one] - parts[other])


def smoothed(ratios: Values, count: int) -> Values:
    """Return the mean of each evaluation and up to `count - 1` before it."""
    return np.array([ratios[max(k - count + 1, 0) : k + 1].mean() for k in range(len(ratios))])


def earliest_near(ratios: Values, parts: Values, errors: float, count: int) -> int:
    """Return the first evaluation within so many paired standard errors of the best."""
    means = smoothed(ratios, count)
    best = int(np.argmax(means))
    for k in range(best):
        if means[best] - means[k] <= errors * paired_error(parts, best, k):
            return k
    return best


def last_unless(ratios: Values, parts: Values, errors: float, count: int) -> int:
    """Return the last evaluation unless an earlier one is better by so many paired errors."""
    means, last = smoothed(ratios, count), len(ratios) - 1
    best = int(np.argmax(means))
    apart = means[best] - means[last]
    return best if apart > errors * paired_error(parts, best, last) else last


RULES: dict[str, Callable[[Values, Values], int]] = {
    "highest evaluation": lambda ratios, parts: int(np.argmax(ratios)),
    "highest mean of 3": lambda ratios, parts: int(np.argmax(smoothed(ratios, 3))),
    "highest mean of 5": lambda ratios, parts: int(np.argmax(smoothed(ratios, 5))),
    "earliest within 1 paired error of the highest": lambda r, p: earliest_near(r, p, 1.0, 1),
    "earliest within 1 paired error, mean of 3": lambda r, p: earliest_near(r, p, 1.0, 3),
    "last unless 1 paired error worse": lambda r, p: last_unless(r, p, 1.0, 1),
    "last unless 1 paired error worse, mean of 3": lambda r, p: last_unless(r, p, 1.0, 3),
    "last unless 2 paired errors worse, mean of 3": lambda r, p: last_unless(r, p, 2.0, 3),
    "last": lambda ratios, parts: len(ratios) - 1,
}
PRESENT = "last unless 1 paired error worse"  # `select=best`


def judged(cells: list[tuple[Values, Values]]) -> dict[str, Any]:
    """Return the regret of every rule at one strength of the market."""
    from ppo_workbench.scoring.statistics.studentised import effective_count

    truth = np.array([own for _, own in cells])
    fixed = int(np.argmax(truth.mean(axis=0)))
    measures = [influences(excess) for excess, _ in cells]
    rows = {}
    for name, rule in RULES.items():
        chosen = [rule(ratios, parts) for ratios, parts in measures]
        true = truth[np.arange(len(cells)), chosen]
        shown = np.array([ratios[k] for (ratios, _), k in zip(measures, chosen, strict=True)])
        regret, error = harness.spread(truth[:, fixed] - true)
        rows[name] = {
            "regret": regret,
            "standard_error": error,
            "truth": [round(float(x), 6) for x in true],
            "shown_above_truth": float((shown - true).mean()),
            "evaluation": float(np.mean(chosen)) + 1,
        }
    return {
        "trainings": len(cells),
        "best_fixed_evaluation": fixed + 1,
        "truth_of_best_fixed": float(truth[:, fixed].mean()),
        "effective_evaluations": float(np.mean([effective_count(parts) for _, parts in measures])),
        "rules": rows,
    }


def table(found: dict[str, Any]) -> str:
    """Return regrets by rule and strength, and what each rule gains on the present one, paired."""
    heads = [f"{row['truth_of_best_fixed']:.2f}" for row in found.values()]
    lines = []
    true = {
        name: np.concatenate([row["rules"][name]["truth"] for row in found.values()])
        for name in RULES
    }
    for name in RULES:
        rows = [row["rules"][name] for row in found.values()]
        cells = [f"{row['regret']:+.2f} ({row['standard_error']:.2f})" for row in rows]
        last = "" if name == PRESENT else harness.paired(true[name], true[PRESENT])
        lines.append((name, *cells, last))
    return harness.table(("rule, by true ratio", *heads, "against the present one"), lines)


def main() -> None:
    """Run the missing trainings, then judge the rules."""
    size = {"seeds": 12, "first_seed": FIRST_SEED, "timesteps": TIMESTEPS, "jobs": 2}
    work = harness.WORK / "select_checkpoint"
    parser = harness.parser(__doc__, **size, work=work, json=Path)
    parser.add_argument("--edges", type=float, nargs="+", default=EDGES)
    options = parser.parse_args()
    cells = [
        (edge, options.first_seed + k, options.timesteps)
        for k, edge in itertools.product(range(options.seeds), options.edges)
    ]
    calls = {options.work / f"{'_'.join(map(str, cell))}.npz": cell for cell in cells}
    results = harness.kept(run_cell, calls, options.jobs, load)
    found = {
        f"{edge:g}": judged([r for cell, r in zip(cells, results, strict=True) if cell[0] == edge])
        for edge in options.edges
    }
    print(table(found))
    for edge, row in found.items():
        count = row["effective_evaluations"]
        print(f"edge {edge}: {count:.1f} effective evaluations of {EVALUATIONS}")
    harness.write(options.json, found)


if __name__ == "__main__":
    main()
