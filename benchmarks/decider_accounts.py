"""Live accounts against the batch kernels that are fed the same reports: any value that differs?

    python benchmarks/decider_accounts.py --json docs/results/decider_accounts.json

Partial fills, dust, money that moves, holes in the bars, bars without volume, restarts and
exchanged models, on minutes of four calendars over a change of the clocks, half days and lunch
breaks, and on S&P 500 days.  Ends with exit code 1 if a value differs.
"""

import sys
import tempfile
import time
from pathlib import Path

import harness

sys.path.insert(0, str(harness.ROOT))

from tests.delivery.builders import experiment_of, small_config, store_model
from tests.delivery.followed import differing, write_minutes

from ppo_workbench.market.splits import Split

FIVE = "env.exposure_levels=[-1,-0.5,0,0.5,1]"
RULES = (
    *("risk=conservative", "risk.halt.enabled=true", "risk.drawdown.caution_frac=0.01"),
    *("risk.drawdown.flatten_frac=0.02", "risk.drawdown.pause_bars=60"),
)
NAMES = ("observations", "masks", "reasons", "logits", "actions", "orders")
MARKETS = {
    "New York, autumn": ("XNYS", "2023-10-02", "2023-12-06", ("market=us_etf", FIVE)),
    "London, spring": (
        *("XLON", "2024-03-04", "2024-04-19"),
        ("market=us_equity", "data.calendar=XLON", "env.action_set=target", FIVE),
    ),
    "Hong Kong, lunch": (
        *("XHKG", "2024-01-29", "2024-04-05"),
        ("market=us_equity", "data.calendar=XHKG", "env.fill=next_open"),
    ),
    "coins, round the clock": (
        *("24/7", "2024-03-01", "2024-03-20"),
        ("market=crypto", "env.exposure_levels=[0,0.5,1]", "env.allow_short=false"),
    ),
}


def main() -> None:
    bars = 6000, "decisions at most, each market"
    arguments = harness.parser(__doc__, bars=bars, json=Path).parse_args()
    results = {}
    for name in (*MARKETS, "sp500, daily"):
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bars.csv"
            own: tuple[str, ...] = ("experiment=sp500",)
            if name in MARKETS:
                calendar, first, last, changes = MARKETS[name]
                write_minutes(path, calendar, first, last)
                own = ("data=file", f"data.path={path}", *changes)
            experiment = experiment_of(small_config(*own, *RULES))
            models = [store_model(experiment, Path(folder), f"m{k}", seed=k) for k in (3, 4)]
            start, stop = experiment.splits["train"].start, len(experiment.bars)
            part = Split("part", start, min(start + arguments.bars, stop))
            found = differing(experiment, (models[0], models[1]), part, seed=1)
        results[name] = found | {"seconds": round(time.perf_counter() - began, 1)}
        print(name, found, flush=True)
    harness.write(arguments.json, results, indent=2)
    sys.exit(any(row[key] for row in results.values() for key in NAMES))


if __name__ == "__main__":
    main()
