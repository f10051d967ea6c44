"""Do the gates let the deserving in and keep the lucky out: sweep and promote, many times.

    python benchmarks/promotion_gates.py planted [--promotions 10] [--folder PATH] [--json PATH]
    python benchmarks/promotion_gates.py null [--promotions 100]
    python benchmarks/promotion_gates.py lucky [--promotions 1]
    python benchmarks/promotion_gates.py curve --edge 0.1 --first-seed 680 [--promotions 20]

`planted`: a market in which all that the gates ask is true (conf/data/planted.yaml), with 8 test
years; 9 of 10 have to be promoted.
`null`: the same market without the edge, small budgets; at most 9 of 100 may be promoted.
`lucky`: 200 tiny trials without an edge, the best of which looks good; it has to be refused.
`curve`: the planted market with an edge of a given strength, a fifth of the recipe's timesteps
(cheaper, so the models are weaker than the market allows): which share of studies is promoted
against the true Sharpe ratio of what they deliver.  Nothing was chosen on the test, so the mean
test ratio of a strength's studies is the mean of the true ones.  `--json` keeps every strength
that it holds beside the one that is measured.

Each promotion has a market seed and a home folder of its own under `--folder`.  Killed, the same
command goes on: finished promotions are read, a study goes on where it stopped.  `--set` passes
further overrides to sweep and promotion, for a look whether it works:

    python benchmarks/promotion_gates.py null --promotions 1 --set budget.timesteps=20000
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One question: what is swept, how it is promoted, and which share may be promoted."""

    sweep: tuple[str, ...]
    promote: tuple[str, ...]
    least_frac: float
    most_frac: float


KINDS = {
    # 20 years: 8 of training, 4 of validation, 8 of test.  Half a basis point a side, as for a
    # liquid fund, so that a model that has learned the edge survives double costs.
    "planted": Kind(
        (
            *("data=planted", "data.synthetic.sessions=5040", "budget.timesteps=3000000"),
            *("budget.evaluations=10", "market=synthetic_fund"),
            *("objective.seeds=[0]", "hydra.sweeper.n_trials=6"),
            "hydra.sweeper.pruner.name=asha",
        ),
        ("promote.top_k=2", "promote.seeds=[1001,1002,1003]"),
        0.9,
        1.0,
    ),
    "null": Kind(
        (
            *("data=null", "data.synthetic.sessions=630", "budget.timesteps=100000"),
            *("objective.seeds=[0]", "hydra.sweeper.n_trials=4"),
        ),
        ("promote.top_k=1", "promote.seeds=[1001,1002]"),
        0.0,
        0.09,
    ),
    "curve": Kind(
        (
            *("data=planted", "data.synthetic.sessions=5040", "budget.timesteps=600000"),
            *("budget.evaluations=10", "market=synthetic_fund"),
            *("objective.seeds=[0]", "hydra.sweeper.n_trials=4"),
        ),
        ("promote.top_k=1", "promote.seeds=[1001,1002]"),
        0.0,
        1.0,
    ),
    "lucky": Kind(
        (
            *("data=null", "data.synthetic.sessions=420", "budget.timesteps=32768"),
            *("budget.evaluations=2", "objective.seeds=[0]", "hydra.sweeper.n_trials=200"),
            *("model.n_envs=64", "model.n_steps=64", "model.batch_size=512"),
        ),
        ("promote.top_k=1", "promote.seeds=[1001,1002]"),
        0.0,
        0.0,
    ),
}


def run(home: Path, *arguments: str) -> int:
    """Run one command; its output goes to `log.txt` of the home."""
    environment = {**os.environ, "PPO_WORKBENCH_HOME": str(home)}
    with (home / "log.txt").open("a", encoding="utf-8") as log:
        script = [sys.executable, "-m", "ppo_workbench", *arguments]
        return subprocess.run(script, env=environment, stdout=log, stderr=log).returncode


def verdict(home: Path) -> dict[str, Any] | None:
    """Return the newest verdict of a home, None if there is none yet."""
    found = sorted((home / "promotions").glob("*/promotion.json"))
    if not found:
        return None
    document: dict[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
    return document


def promotion(home: Path, kind: Kind, seed: int, more: list[str]) -> dict[str, Any]:
    """Sweep and promote once, or return what an earlier start came to."""
    home.mkdir(parents=True, exist_ok=True)
    known = verdict(home)
    if known is not None:
        return known
    sweep = ("--multirun", "sweep=lr_entropy", "hydra.sweeper.study_name=study", "tracking=none")
    market = f"data.synthetic.seed={seed}"
    assert run(home, *sweep, *kind.sweep, market, *more) == 0, f"see {home / 'log.txt'}"
    own = [each for each in more if each.startswith("promote.")]
    code = run(home, "task=promote", "promote.study=study", "tracking=none", *kind.promote, *own)
    assert code in (0, 3), f"see {home / 'log.txt'}"
    document = verdict(home)
    assert document is not None
    assert document["promoted"] == (code == 0)
    return document


def summary(documents: list[dict[str, Any]], kind: Kind) -> dict[str, Any]:
    """Count promotions and, over the refused, the gates that refused."""
    promoted = sum(document["promoted"] for document in documents)
    share = promoted / len(documents)
    refusing = Counter(
        gate["name"] for one in documents for gate in one["gates"] if not gate["passed"]
    )
    return {
        "promotions": len(documents),
        "promoted": promoted,
        "bar_met": kind.least_frac <= share <= kind.most_frac,
        "refusing_gates": dict(refusing.most_common()),
        "test_sharpes": [one["scorecards"]["test"]["sharpe_annual"] for one in documents],
        "sharpes_less_threshold_rule": [
            gate["value"]
            for one in documents
            for gate in one["gates"]
            if gate["name"] == "threshold"
        ],
        "powers": {gate["name"]: gate["power"] for gate in documents[0]["gates"]},
    }


def edge_of(strength: float) -> list[str]:
    """Return the overrides of a planted edge; without one nothing else may pay either."""
    nothing = ["data.synthetic.trend_drift=0.0"] if strength == 0.0 else []
    return [f"data.synthetic.edge={strength}", *nothing]


def curve(points: dict[str, dict[str, Any]]) -> str:
    """Return the share that was promoted by true Sharpe ratio, with what refused the others."""
    from statsmodels.stats.proportion import proportion_confint

    lines = [
        "| edge | true Sharpe ratio (standard error) | promoted | 95 % interval | refused by |",
        "|---|---|---|---|---|",
    ]
    for strength, point in sorted(points.items(), key=lambda item: float(item[0])):
        ratios, count = point["test_sharpes"], point["promotions"]
        error = stdev(ratios) / count**0.5 if count > 1 else float("nan")
        low, high = proportion_confint(point["promoted"], count, alpha=0.05, method="wilson")
        refusing = ", ".join(f"`{name}` {n}" for name, n in point["refusing_gates"].items())
        lines.append(
            f"| {strength} | {fmean(ratios):.2f} ({error:.2f}) | {point['promoted']} of {count} "
            f"| {low:.0%} to {high:.0%} | {refusing or '-'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--promotions", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--edge", type=float, default=0.3, help="of curve")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("promotion_gates"))
    parser.add_argument("--set", action="append", default=[], dest="more")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    kind, label, more = KINDS[arguments.kind], arguments.kind, arguments.more
    if label == "curve":
        label, more = f"curve_{arguments.edge:g}", [*edge_of(arguments.edge), *more]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.promotions)

    def one(seed: int) -> dict[str, Any]:
        home = arguments.folder.absolute() / f"{label}_{seed}"
        document = promotion(home, kind, seed, more)
        refusing = [gate["name"] for gate in document["gates"] if not gate["passed"]]
        told = f"refused by {', '.join(refusing)}" if refusing else "promoted"
        print(f"{label} {seed}: {told}", flush=True)
        return document

    with ThreadPoolExecutor(arguments.jobs) as pool:
        documents = list(pool.map(one, seeds))
    result = summary(documents, kind)
    print(json.dumps(result, indent=2))
    if arguments.kind == "curve":
        known = arguments.json and arguments.json.exists()
        points = json.loads(arguments.json.read_text()) if known else {}
        result = points | {f"{arguments.edge:g}": result}
        print(curve(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
