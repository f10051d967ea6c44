"""Everything that is wrong with a file, in one pass, and the settings that mend it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ppo_workbench.config import BarsError, DataConfig
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.calendar import load_sessions
from ppo_workbench.market.reader.faults import Fault
from ppo_workbench.market.reader.layout import read_table
from ppo_workbench.market.reader.plausible import Doubt
from ppo_workbench.market.reader.table import bars_from_table

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
    problems: list[Problem] = []
    fixed: dict[str, Any] = {}
    mended, table, bars, outside = True, None, None, 0.0
    path = str(config.path)
    label = Path(path).name
    for _ in range(_MOST_ROUNDS):
        try:
            if table is None:
                table, layout = read_table(path, "data.path", config.header)
            name = label.split(".")[0]
            bars = bars_from_table(label, name, table, config, source="file", layout=layout)
            break
        except Fault as fault:
            fix = dict(fault.fix) or _zone(fault, config)
            shown = [f"data.{key}={_text(value)}" for key, value in fix.items()]
            problems.append(_problem(fault, shown, stops=True))
            if fix and not fix.keys() & (fixed.keys() - {"columns"}):
                fixed |= _merged(fixed, fix)
                config = replace(config, **_merged(vars(config), fix))
                continue
            mended = False
            if table is None or len(fault.rows) == 0:
                break
            if fault.kind in CALENDAR_FAULTS:
                outside += len(fault.rows) / len(table)
            if outside > _FEW or len(fault.rows) == len(table):  # the hours of another market
                break
            table = table.drop(index=fault.rows)
        except BarsError as error:
            problems.append(Problem("unreadable", 0, [], str(error)))
            mended = False
            break
    if bars is not None:
        problems += [
            _problem(note, [], stops=False) for note in bars.notes if isinstance(note, Doubt)
        ]
    overrides = [f"data.{key}={_text(value)}" for key, value in fixed.items()]
    return Checked(bars, problems, overrides, mended and bars is not None, outside)


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
