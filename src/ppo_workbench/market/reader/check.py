"""Everything that is wrong with a file, in one pass, and the settings that mend it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_workbench.config import BarsError, DataConfig
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.calendars.exchange import load_sessions
from ppo_workbench.market.reader.columns import MISSING, known_column, spellings
from ppo_workbench.market.reader.conventions import PRICES
from ppo_workbench.market.reader.faults import Fault
from ppo_workbench.market.reader.layout import Layout, read_table
from ppo_workbench.market.reader.plausible import Doubt
from ppo_workbench.market.reader.table import bars_from_table

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROUNDS = 60  # each ends one kind of fault
_SHOWN = 5
_FEW = 0.02  # of the rows, off the calendar
CALENDAR_FAULTS = ("no session of the calendar", "no regular hours")


@dataclass(frozen=True)
class Problem:
    """One kind of fault: at how many rows, the first of them, in a sentence.

    Attributes:
        kind: In a word or two.
        count: Rows that have it; 0 where it concerns the whole file.
        rows: The first of them, data rows of the file.
        sentence: Rule, value, remedy, of the first.
        fix: Overrides that mend it.
        stops: Nothing trains on the file while it is so; else it is only to be looked at.
    """

    kind: str
    count: int
    rows: list[int]
    sentence: str
    fix: list[str] = field(default_factory=list)
    stops: bool = True


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        bars: What could be read, rows that are wrong left out; None where nothing could.
        problems: In the order in which they were met.
        overrides: Settings that mend what settings can.
        mended: They mend all that stops a training.
        outside_frac: Share of the rows on dates without a session of the calendar.
    """

    bars: Bars | None
    problems: list[Problem]
    overrides: list[str]
    mended: bool
    outside_frac: float = 0.0


def check_file(config: DataConfig) -> Checked:
    """Read `config.path` as a training does, mending or leaving out what it refuses.

    Args:
        config: The calendar, and what is known of the file.
    """
    check = _Check(config)
    bars: Bars | None = None
    for _ in range(_MOST_ROUNDS):
        try:
            bars = check.read()
            break
        except Fault as fault:
            if not check.goes_on(fault):
                break
        except BarsError as error:
            check.problems.append(Problem("unreadable", 0, [], str(error)))
            check.mended = False
            break
    doubts = [note for note in bars.notes if isinstance(note, Doubt)] if bars else []
    problems = [*check.problems, *(_problem(note, [], stops=False) for note in doubts)]
    overrides = [f"data.{key}={_text(value)}" for key, value in check.fixed.items()]
    return Checked(bars, problems, overrides, check.mended and bars is not None, check.outside_frac)


class _Check:
    """One file as far as it is known: what was mended, and what was left out of it."""

    def __init__(self, config: DataConfig) -> None:
        self.problems: list[Problem] = []
        self.fixed: dict[str, object] = {}
        self.mended, self.outside_frac = True, 0.0
        self._config, self._layout = config, Layout()
        self._table: pd.DataFrame | None = None

    def read(self) -> Bars:
        config = self._config
        path = str(config.path)
        label = Path(path).name
        if self._table is None:
            self._table, self._layout = read_table(path, "data.path", config.header)
        name = label.split(".")[0]
        return bars_from_table(label, name, self._table, config, source="file", layout=self._layout)

    def goes_on(self, fault: Fault) -> bool:
        """Note a fault and mend it or leave its rows out; return whether more can be seen."""
        fix = dict(fault.fix) or _zone(fault, self._config)
        shown = [f"data.{key}={_text(value)}" for key, value in fix.items()]
        self.problems.append(_problem(fault, shown, stops=True))
        if fix and not fix.keys() & (self.fixed.keys() - {"columns"}):
            self.fixed |= _merged(self.fixed, fix)
            self._config = replace(self._config, **_merged(vars(self._config), fix))
            return True
        self.mended = False
        table = self._table
        if table is None:
            return False
        if fault.kind == MISSING:
            return _fill_in(table, self._config)
        if fault.kind in CALENDAR_FAULTS:
            self.outside_frac += len(fault.rows) / len(table)
        # Else the hours of another market:
        left = len(fault.rows) < len(table) and self.outside_frac <= _FEW
        self._table = table.drop(index=fault.rows)
        return left and len(fault.rows) > 0


def _fill_in(table: "pd.DataFrame", config: DataConfig) -> bool:
    """Make up the prices that a table lacks, so that the rest is checked; return whether it did."""
    import pandas as pd

    columns, prices = list(table.columns), PRICES[:4]
    found = {name: config.columns.get(name) or known_column(columns, name) for name in prices}
    there = [name for name in found.values() if name is not None and spellings(columns, name)]
    lacking = {ours: name or ours for ours, name in found.items() if name not in there}
    if not there or not lacking:
        return False
    own = [spellings(columns, name)[0] for name in there]
    values = table[own].apply(pd.to_numeric, errors="coerce")
    values = values.where(values > 0.0)
    for ours, name in lacking.items():
        table[name] = values.min(axis=1) if ours == "low" else values.max(axis=1)
    return True


def _zone(fault: Fault, config: DataConfig) -> dict[str, object]:
    """Take the exchange's own time where stamps do not say theirs."""
    if fault.kind != "no time zone":
        return {}
    now = int(np.datetime64("2024-01-01", "ns").astype(np.int64))
    return {"timezone": load_sessions(config.calendar, now, now).timezone}


def _merged(base: Mapping[str, Any], fix: Mapping[str, Any]) -> dict[str, Any]:
    """Return a fix whose named columns are added to those named already."""
    columns = {**base.get("columns", {}), **fix.get("columns", {})}
    return {**fix, "columns": columns} if "columns" in fix else dict(fix)


def _problem(found: Fault | Doubt, fix: list[str], *, stops: bool) -> Problem:
    rows = [int(row) for row in found.rows[:_SHOWN]]
    return Problem(found.kind, len(found.rows), rows, str(found), fix, stops)


def _text(value: object) -> str:
    """Write a value for the command line."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    text = str(value)
    plain = text.replace("_", "").replace("/", "").replace("-", "").isalnum()
    return text if plain else "'" + text.replace("'", "\\'") + "'"
