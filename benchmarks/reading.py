"""Reading a user's file: how fast beside another tree, what is flagged untruly, what is found.

    python benchmarks/reading.py --hourly ibm_1h.csv.gz --minute spy_1min.csv \\
        --before OTHER_TREE/src --json docs/results/reading.json

Speed: a million minute rows as csv, read by this tree and another in turn, each in a process of
its own; processor seconds, medians of the pairs.  Untrue flags: the doubts of `plausible` on
series that have no such fault, by kind, per 10,000 bars; volume 0 is a fact and is not counted,
nor what `TRUE` lists with its reason.  Planted: splits, frozen prices, volume 0, differing copies
and bars that are longer from some row on, in the same series, each at random rows, and how many
are found.  The S&P 500 and the Nasdaq index come with `arch`, shares with `skfolio` where it is
installed.
"""

import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pandas as pd

from ppo_workbench.config import DataConfig
from ppo_workbench.market.reader.check import check_file
from ppo_workbench.market.reader.plausible import Doubt
from ppo_workbench.market.reader.table import bars_from_table
from ppo_workbench.market.sources import arch_table

READ = """
import sys, time
from ppo_workbench.config import DataConfig
from ppo_workbench.market.sources import load_bars
small, large = (DataConfig(source="file", path=p, calendar="24/7") for p in sys.argv[1:])
load_bars(small)
start = time.process_time()
load_bars(large)
print(time.process_time() - start)
"""
KINDS = ("jump near n:1", "frozen prices", "adjusted close", "dividends")
# Series and kind, the last day that has it, and why a flag up to then is true.
TRUE = {
    ("skfolio RRC", "frozen prices"): (
        "1992-06-10",
        "quotes of a share that was hardly traded: of the first 618 closes 92 % repeat, up to 68 "
        "times in a row, on a grid of .277; one falls from 12 steps to 4 in a day. A random walk "
        "of the same variance rounded to that grid repeats 62 to 68 % and gives 24 to 60 flags, "
        "at most 118 (99 % of 500), instead of 469",
    )
}


def minutes(rows: int) -> pd.DataFrame:
    """Return minutes of a random walk."""
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 3e-4, rows)))
    opens = np.r_[close[0], close[:-1]]
    stamps = pd.date_range("2020-01-01", periods=rows, freq="min").strftime("%Y-%m-%dT%H:%M:%SZ")
    prices = {"high": np.maximum(opens, close) * 1.0001, "low": np.minimum(opens, close) * 0.9999}
    frame = {"timestamp": stamps, "open": opens, **prices, "close": close}
    return pd.DataFrame(frame | {"volume": rng.integers(1, 1000, rows)})


def speed(before: Path, pairs: int, rows: int) -> dict[str, Any]:
    """Read the same file with both trees in turn."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{name}.csv" for name in ("small", "large")]
        for path, count in zip(paths, (2000, rows), strict=True):
            minutes(count).to_csv(path, index=False)
        command = [sys.executable, "-c", READ, *paths]

        def once(tree: Path) -> float:
            environment = {**os.environ, "PYTHONPATH": str(tree.absolute())}
            return float(harness.answer(command, env=environment))

        sides = {"before": partial(once, before), "now": partial(once, harness.ROOT / "src")}
        found = harness.alternated(sides, pairs)
    ratios = [now / old for old, now in zip(found["before"], found["now"], strict=True)]
    return {"rows": rows, "cpu_seconds": found, "median_ratio": statistics.median(ratios)}


def series(hourly: Path | None, minute: Path | None) -> dict[str, pd.DataFrame]:
    """Return tables of real bars by name."""
    found = {name: arch_table(name).reset_index() for name in ("sp500", "nasdaq")}
    for name, path in (("hourly", hourly), ("minute", minute)):
        if path is not None:
            found[name] = pd.read_csv(path)
    if importlib.util.find_spec("skfolio") is not None:
        from skfolio.datasets import load_sp500_dataset

        for name, close in load_sp500_dataset().items():
            own = close.dropna()
            frame = pd.DataFrame({"timestamp": own.index, "volume": 1.0})
            found[f"skfolio {name}"] = frame.assign(
                **dict.fromkeys(("open", "high", "low", "close"), own.to_numpy())
            )
    return found


def doubts(name: str, table: pd.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    """Count the bars of each kind of doubt, and those that are not known to be true."""
    config = DataConfig(calendar="XNYS")
    bars = bars_from_table(name, name, table, config, source="file")
    found = {note.kind: note.rows for note in bars.notes if isinstance(note, Doubt)}
    untrue = {}
    for kind, rows in found.items():
        last, _ = TRUE.get((name, kind), ("1900-01-01", ""))
        untrue[kind] = int((bars.start_ns[rows] > pd.Timestamp(f"{last}T23:59").value).sum())
    return {kind: len(rows) for kind, rows in found.items()}, untrue


def _column(table: pd.DataFrame, name: str) -> str:
    return next(str(column) for column in table.columns if str(column).lower() == name)


def _split(table: pd.DataFrame, at: int, rng: np.random.Generator) -> pd.DataFrame:
    day = pd.to_datetime(table[table.columns[0]].astype(str).str[:10])
    first = int(np.flatnonzero((day == day[at]).to_numpy())[0])
    ratio = float(rng.choice([1.5, 2, 3, 4, 5, 7, 10, 20, 0.5, 0.25, 0.1]))
    for name in ("open", "high", "low", "close"):
        own = _column(table, name)
        table[own] = np.where(np.arange(len(table)) >= first, table[own] / ratio, table[own])
    return table


def _frozen(table: pd.DataFrame, at: int, rng: np.random.Generator) -> pd.DataFrame:
    for name in ("open", "high", "low", "close"):
        own = _column(table, name)
        table[own] = table[own].where(
            ~np.isin(np.arange(len(table)), range(at, at + 12)), table[own].iloc[at]
        )
    return table


def _silent(table: pd.DataFrame, at: int, rng: np.random.Generator) -> pd.DataFrame:
    return table.assign(**{_column(table, "volume"): table[_column(table, "volume")].where(
        table.index != at, 0)})  # fmt: skip


def _copy(table: pd.DataFrame, at: int, rng: np.random.Generator) -> pd.DataFrame:
    copy = table.loc[[at]].assign(**{_column(table, "volume"): 1.0})
    return pd.concat([table.loc[:at], copy, table.loc[at + 1 :]], ignore_index=True)


def _longer(table: pd.DataFrame, at: int, rng: np.random.Generator) -> pd.DataFrame:
    """Keep the first bar of each longer span from a row on."""
    stamps = pd.to_datetime(table[table.columns[0]].astype(str).str[:19])
    step = stamps.diff().median()
    longer = {86400: ("7D",), 3600: ("2h", "D"), 60: ("5min", "15min")}[int(step.total_seconds())]
    span = str(rng.choice(longer))
    begin = stamps.dt.floor(span)
    first = begin.ne(begin.shift()) & begin.ge(stamps.iloc[at])
    return table[first | (table.index < at)]


# An index with an adjusted close shows a split by that column.
PLANTED: dict[str, tuple[Callable[..., pd.DataFrame], tuple[str, ...]]] = {
    "split": (_split, ("jump near n:1", "split not adjusted")),
    "frozen": (_frozen, ("frozen prices",)),
    "volume 0": (_silent, ("volume 0",)),
    "differing copy": (_copy, ("repeated stamp",)),
    "longer bars": (_longer, ("changed bar length",)),
}


def planted(table: pd.DataFrame, folder: Path, count: int) -> dict[str, str]:
    """Plant each fault at random rows; say how many of them the check names."""
    rng, path, found = np.random.default_rng(1), folder / "bars.csv", {}
    gaps = np.log(table[_column(table, "open")] / table[_column(table, "close")].shift())
    calm = np.flatnonzero(np.abs(np.asarray(gaps)) < 0.03)
    # Not in the first session, and with twelve longer bars to come.
    calm = calm[(calm > len(table) // 5) & (calm < len(table) - 400)]
    for fault, (plant, kinds) in PLANTED.items():
        rows, hits = rng.choice(calm, count, replace=False), 0
        for at in rows.tolist():
            plant(table.copy(), at, rng).to_csv(path, index=False)
            problems = check_file(DataConfig(source="file", path=str(path))).problems
            hits += any(one.kind in kinds for one in problems)
        found[fault] = f"{hits} of {len(rows)}"
    return found


def main() -> None:
    """Measure and write the result."""
    files = {"hourly": Path, "minute": Path, "before": (Path, "src of the other tree")}
    size = {"plants": (20, "of each fault in each series"), "pairs": 5, "rows": 1_000_000}
    options = harness.parser(__doc__, **files, **size, json=Path).parse_args()
    tables = series(options.hourly, options.minute)
    flags = {name: doubts(name, table) for name, table in tables.items()}
    bars = sum(map(len, tables.values()))
    rates = {kind: sum(f.get(kind, 0) for _, f in flags.values()) / bars * 1e4 for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        own = {name: table for name, table in tables.items() if "skfolio" not in name}
        hits = {name: planted(t, Path(folder), options.plants) for name, t in own.items()}
    document = {
        "bars": {name: len(table) for name, table in tables.items()},
        "flagged": {name: found for name, (found, _) in flags.items()},
        "true": {": ".join(key): why for key, (_, why) in TRUE.items()},
        "untrue_per_10000_bars": rates,
        "planted_found": hits,
    }
    if options.before is not None:
        document["speed"] = speed(options.before, options.pairs, options.rows)
    harness.write(options.json, document, indent=2)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
