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

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness


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


def promotion(home: Path, kind: Kind, seed: int, more: list[str]) -> Any:
    """Sweep and promote once, or return what an earlier start came to."""
    own = [each for each in more if each.startswith("promote.")]
    sweep = (*kind.sweep, f"data.synthetic.seed={seed}", *more)
    return harness.promotion(home, sweep, (*kind.promote, *own))


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

    rows = []
    for strength, point in sorted(points.items(), key=lambda item: float(item[0])):
        good, count = point["promoted"], point["promotions"]
        low, high = proportion_confint(good, count, alpha=0.05, method="wilson")
        refusing = ", ".join(f"`{name}` {n}" for name, n in point["refusing_gates"].items())
        share = f"{good} of {count}", f"{low:.0%} to {high:.0%}"
        rows.append((strength, harness.shown(point["test_sharpes"]), *share, refusing or "-"))
    ratio = "true Sharpe ratio (standard error)"
    return harness.table(("edge", ratio, "promoted", "95 % interval", "refused by"), rows)


def main() -> None:
    size = {"promotions": 10, "first_seed": 0, "edge": (0.3, "of curve"), "jobs": 1, "set": []}
    parser = harness.parser(__doc__, **size, folder=Path("promotion_gates"), json=Path)
    parser.add_argument("kind", choices=KINDS)
    arguments = parser.parse_args()
    kind, label, more = KINDS[arguments.kind], arguments.kind, arguments.set
    if label == "curve":
        label, more = f"curve_{arguments.edge:g}", [*edge_of(arguments.edge), *more]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.promotions)

    def one(seed: int) -> dict[str, Any]:
        home = arguments.folder.absolute() / f"{label}_{seed}"
        document: dict[str, Any] = promotion(home, kind, seed, more)
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
        points = harness.read(arguments.json) if known else {}
        result = points | {f"{arguments.edge:g}": result}
        print(curve(result))
    harness.write(arguments.json, result, indent=2)


if __name__ == "__main__":
    main()
