"""Does an agent hold what pays by its reward, and nothing else?  A drift market with one answer.

    python benchmarks/reward_hurdle.py --jobs 2 --json docs/results/reward_hurdle.json

Log returns are a constant drift and Gaussian noise, so the only choice worth making is whether to
hold.  The weight k of `reward.variance` says from which annual Sharpe ratio on that pays.  Bars of
a day, four hours and an hour, three volatilities, true Sharpe ratios .3, .6 and 1.2, k of 0 and .6
(.6 against .6 lies on the hurdle and is left out), five seeds.  Noise is standardised in every
hundredth of the bars, so the sample's own Sharpe ratio is the true one within .05 (checked).  In
240 years of training a Sharpe ratio of .3 stands only 4.6 standard errors from 0, and parts of the
sample seem to say otherwise, which is then learned by heart (five of 69 cells); so sessions follow
each other without a pause and make as many years as a clock of nanoseconds has room for.  Few
features, a short horizon and no costs leave the drift as the only thing to learn: at an hour it is
less than a hundredth of a bar's deviation.  Asked: a mean exposure on the validation bars above .8
over the hurdle, below .1 under it.
Finished cells are kept in --work; --known takes those of an earlier JSON as they stand.
"""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np

YEARS = {"day": 800, "four hours": 1_600, "hour": 1_600}
FIRST_SEED = 510
HIGH, LOW = 0.8, 0.1
NEAR = 0.05  # the sample's Sharpe ratio to the true one
LENGTHS = {"day": (86_400, 1), "four hours": (14_400, 2), "hour": (3_600, 7)}
TIMESTEPS = {"day": 3_000_000, "four hours": 3_000_000, "hour": 6_000_000}
WEAK = {"hour": 0.5}  # from the hurdle less than that: twice as long
VOLATILITIES = (0.2, 0.05, 0.6)  # a year
CHOICES = ((0.3, 0.0), (0.6, 0.0), (1.2, 0.0), (0.3, 0.6), (1.2, 0.6))  # Sharpe ratio, k
SEEDS = 5
SESSIONS_A_YEAR = 252


class Cell(NamedTuple):
    """One training."""

    length: str
    volatility: float  # a year
    sharpe: float
    kappa: float
    seed: int

    @property
    def file(self) -> str:
        """Name of the file that keeps its result."""
        return "_".join(str(value).replace(" ", "-") for value in self) + ".json"

    @property
    def pays(self) -> bool:
        """Whether holding pays by the reward."""
        return self.sharpe > self.kappa


def bar_count(cell: Cell) -> int:
    """Return the bars of `YEARS`, or of as many as a price can grow."""
    growing = int(600 / (cell.volatility * cell.sharpe))  # of a price that stays a number
    return min(YEARS[cell.length], growing) * SESSIONS_A_YEAR * LENGTHS[cell.length][1]


def timesteps(cell: Cell) -> int:
    """Return how long a cell is trained: the weakest drift of the shortest bar twice as long."""
    weak = abs(cell.sharpe - cell.kappa) < WEAK.get(cell.length, 0.0)
    return TIMESTEPS[cell.length] * (2 if weak else 1)


def drift_bars(cell: Cell) -> Any:
    """Return the bars of a cell."""
    from ppo_workbench.market.bars import Bars

    seconds, per_session = LENGTHS[cell.length]
    count = bar_count(cell)
    a_year = SESSIONS_A_YEAR * per_session
    sigma = cell.volatility / np.sqrt(a_year)
    noise = np.random.default_rng(cell.seed).normal(size=count)
    for part in np.array_split(noise, 100):
        part -= part.mean()
        part /= part.std()
    moves = sigma * (noise + cell.sharpe / np.sqrt(a_year))
    close = 100.0 * np.exp(np.cumsum(moves))
    opens = np.concatenate([[100.0], close[:-1]]) * (1.0 + 1e-9)
    session, slot = np.divmod(np.arange(count, dtype=np.int64), per_session)
    start = (np.arange(count, dtype=np.int64) - count // 2) * seconds
    never = np.full(count, -1, dtype=np.int64)
    return Bars(
        instrument="DRIFT",
        source="file",
        calendar="XNYS",
        timezone="America/New_York",
        bar_seconds=seconds,
        bars_per_session=per_session,
        sessions_per_year=SESSIONS_A_YEAR,
        start_ns=start * 1_000_000_000,
        open=opens,
        high=np.maximum(opens, close),
        low=np.minimum(opens, close),
        close=close,
        volume=np.zeros(count),
        half_spread_bps=np.full(count, np.nan),
        session=session,
        bar_of_session=slot,
        bars_left=per_session - 1 - slot,
        regular=np.ones(count, dtype=np.bool_),
        extra=np.empty((count, 0)),
        extra_names=(),
        events=never,
        events_ahead=never.copy(),
        notes=(),
        has_volume=False,
    )


def run_cell(cell: Cell) -> dict[str, float]:
    """Train one cell; return the mean exposure and the sample's Sharpe ratio on validation."""
    from ppo_workbench import compose
    from ppo_workbench.market.horizons import derived
    from ppo_workbench.market.splits import time_splits
    from ppo_workbench.scoring.backtest import backtest
    from ppo_workbench.scoring.metrics import scorecard
    from ppo_workbench.trading.experiment import prepare

    bars = drift_bars(cell)
    config = compose(
        [
            *("risk=unconstrained", "market.lot=0", "market.minimum_order=0"),
            "env.allow_short=false",
            *("env.exposure_levels=[0.0,1.0]", "env.flat_last_bars=0", "env.no_open_last_bars=0"),
            *(f"reward.variance={cell.kappa}", "costs.half_spread_bps=0.0", f"seed={cell.seed}"),
            *(f"budget.timesteps={timesteps(cell)}", "budget.evaluations=1"),
            *("checkpoint.every_seconds=null", "costs.high_volatility_multiplier=1"),
            *("splits.train_frac=0.6", "splits.validation_frac=0.2", "splits.test_frac=0.2"),
            *("features.names=[return_1,volatility_ratio]", "env.gamma=0.3", "model.n_epochs=3"),
        ]
    )
    warmup = len(bars) // 10
    config = derived(config, bars)
    experiment = prepare(config, bars, time_splits(bars, config.splits, warmup))
    policy, found = harness.last_policy(experiment), {}
    for name, split in experiment.splits.items():
        trace = backtest(policy, bars, experiment.market, split, experiment.config)
        moves = np.diff(np.log(bars.close[split.start : split.stop]))
        found[f"{name}_exposure"] = scorecard(trace).exposure_mean_abs
        found[f"{name}_sharpe"] = float(
            moves.mean() / moves.std() * np.sqrt(SESSIONS_A_YEAR * LENGTHS[cell.length][1])
        )
        assert abs(found[f"{name}_sharpe"] - cell.sharpe) < NEAR, found
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return lowest and highest exposure on validation by bar length, Sharpe ratio and k."""
    lines = []
    for length, (sharpe, kappa) in itertools.product(LENGTHS, CHOICES):
        key = (length, sharpe, kappa)
        found = [row for row in rows if (row["length"], row["sharpe"], row["kappa"]) == key]
        if found:
            seen = [row["validation_exposure"] for row in found]
            right = sum(row["validation_exposure"] > HIGH for row in found)
            if sharpe <= kappa:
                right = sum(row["validation_exposure"] < LOW for row in found)
            told = f"{sharpe:g}", f"{kappa:g}", "pays" if sharpe > kappa else "costs"
            exposures = f"{min(seen):.2f}, {max(seen):.2f}"
            lines.append((length, *told, exposures, f"{len(found)}", f"{right} of {len(found)}"))
    exposure = "exposure, lowest and highest"
    return harness.table(("bar", "Sharpe", "k", "holding", exposure, "cells", "as asked"), lines)


def main() -> None:
    """Run the missing cells, the middle volatility first, then print the table."""
    known = Path, "a JSON whose cells are not run again"
    work = harness.WORK / "reward_hurdle"
    options = harness.parser(__doc__, jobs=2, work=work, json=Path, known=known).parse_args()
    for row in harness.read(options.known) if options.known else ():
        found = {key: row.pop(key) for key in list(row) if key.endswith(("_exposure", "_sharpe"))}
        row.pop("pays")
        harness.write(options.work / Cell(**row).file, found)
    cells = [
        Cell(length, volatility, sharpe, kappa, FIRST_SEED + seed)
        for volatility, seed, length in itertools.product(VOLATILITIES, range(SEEDS), LENGTHS)
        for sharpe, kappa in CHOICES
    ]
    calls = {options.work / cell.file: (cell,) for cell in cells}
    results = harness.kept(run_cell, calls, options.jobs)
    rows = [
        {**cell._asdict(), "pays": cell.pays, **found}
        for cell, found in zip(cells, results, strict=True)
    ]
    print(table(rows))
    harness.write(options.json, rows)


if __name__ == "__main__":
    main()
