"""Which column of a user's file is what, by its own name, a vendor's or a configured one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ppo_workbench.config import BarsError, DataConfig, Volume
from ppo_workbench.config.arrays import Floats
from ppo_workbench.market.reader.conventions import EVIDENCE, OURS, PRICES, QUOTES
from ppo_workbench.market.reader.faults import NO_FIX, Fault, refuse_values
from ppo_workbench.market.reader.layout import JOINED

if TYPE_CHECKING:
    import pandas as pd

# What vendors call our columns, as `plain` writes it, the surest first.
NAMES: dict[str, tuple[str, ...]] = {
    "timestamp": ("timestamp", "datetime", "date time", "open time", "unix", "date", "time",
                  "start", "window start"),
    "instrument": ("instrument", "symbol", "ticker", "tic"),
    "volume": ("volume", "vol"),
    "adj_close": ("adj close", "adjclose", "adjusted close"),
    "split": ("stock splits", "split", "splits"),
    "dividend": ("dividends", "dividend"),
}  # fmt: skip
MISSING = "missing column"
_OPTIONAL = ("time", "instrument", *QUOTES, *EVIDENCE)


def plain(name: object) -> str:
    """Write a column's name as names are compared: "<DATE>", "Date" and " date " are one."""
    return str(name).strip().strip("<>").replace("_", " ").lower()


def spellings(columns: Sequence[object], name: str) -> list[str]:
    """Return the columns of a name, whatever their case; an exact one hides the others."""
    exact = [str(column) for column in columns if column == name]
    return exact or [str(column) for column in columns if plain(column) == plain(name)]


def find_column(
    label: str,
    columns: Sequence[object],
    name: str,
    remedy: str | None = None,
    fix: Mapping[str, object] = NO_FIX,
) -> str:
    """Return the file's own spelling of a column, whatever its case.

    Raises:
        Fault: If no column, or more than one, has that name; with the remedy and its fix.
    """
    found = spellings(columns, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise Fault(
            f"{label}: columns {found} differ only in case; rename one of them", "repeated column"
        )
    listed = ", ".join(str(column)[:40] for column in list(columns)[:20])
    raise Fault(
        f"{label}: column {name!r} is missing (columns: {listed}); "
        f"{remedy or 'add or rename the column'}",
        MISSING,
        fix=fix,
    )


def of_instrument(
    label: str, columns: Sequence[object], wanted: str | None
) -> tuple[dict[str, str], str | None]:
    """Choose the columns of one instrument where each has its own ("Close of MSFT").

    Returns:
        The columns that stay, theirs to the field's name, and the instrument if any.

    Raises:
        Fault: There are several and none is wanted.
    """
    parts = {str(name): str(name).partition(JOINED) for name in columns}
    tickers = sorted({part[2] for part in parts.values() if part[1] and part[2]})
    if not tickers:
        return {}, None
    chosen = chosen_one(label, tickers, "the second header row", wanted)
    kept = {name: part[0] for name, part in parts.items() if part[2] in ("", chosen)}
    return kept, chosen


def chosen_one(label: str, found: Sequence[str], where: str, wanted: str | None) -> str:
    """Return the one instrument to read among those found.

    Raises:
        Fault: There are several and none of them is wanted; they are never joined.
    """
    if wanted is not None and wanted in found:
        return wanted
    if len(found) == 1 and wanted is None:
        return found[0]
    listed = ", ".join(found[:10])
    raise Fault(
        f"{label}: {where} names {len(found)} instrument{'s'[: len(found) - 1]} ({listed})"
        f"{'' if wanted is None else f', none is {wanted!r}'}, but bars are of one; choose one, "
        f"data.instrument={found[0]}",
        "several instruments",
        fix={"instrument": found[0]},
    )


def column_names(label: str, columns: Sequence[object], config: DataConfig) -> dict[str, str]:
    """Map our names to the file's own; what is not there and not needed is left out.

    Raises:
        BarsError: A needed column is missing or ambiguous, or a configured name is not ours.
    """
    for name in config.columns:
        if name not in OURS:
            raise BarsError(
                f"data.columns={dict(config.columns)}: {name!r} is not a name of ours; map from "
                f"{', '.join(OURS)} to the file's names"
            )
    names: dict[str, str] = {}
    for name in OURS:
        if name == "volume" and config.volume is Volume.none:
            continue
        found = config.columns.get(name)
        if name != "time" or plain(names["timestamp"]) == "date":  # a time belongs to a date
            found = found or known_column(columns, name)
        if found is None and name in _OPTIONAL:
            continue
        names[name] = find_column(label, columns, found or name, *_remedy(columns, name))
    return names


def known_column(columns: Sequence[object], name: str) -> str | None:
    """Return what a file calls a column of ours, None where it has none."""
    return next((known for known in NAMES.get(name, (name,)) if spellings(columns, known)), None)


def _remedy(columns: Sequence[object], name: str) -> tuple[str, dict[str, object]]:
    """Say how a column that is missing is named, or done without."""
    near = [str(column) for column in columns if plain(column).startswith(name)]
    example = f"'{near[0]}'" if near else "NAME_IN_THE_FILE"
    remedy = f"add it or set data.columns={{{name}: {example}}}"
    if name == "volume":
        remedy += ", or data.volume=none"
        return remedy, {"columns": {name: near[0]}} if near else {"volume": Volume.none}
    return remedy, {}


def shared_columns(names: Mapping[str, str]) -> list[str]:
    """Note prices that are read from one column: a series of closes has no others, a slip has."""
    readers: dict[str, list[str]] = {}
    for ours, theirs in names.items():
        if ours in PRICES:
            readers.setdefault(theirs, []).append(ours)
    return [
        f"{' and '.join(ours)} are the same column {theirs!r}"
        for theirs, ours in readers.items()
        if len(ours) > 1
    ]


def numbers(label: str, column: "pd.Series", name: str) -> Floats:
    """Turn a column into float64 (T,); empty cells become NaN.

    Raises:
        Fault: If a cell holds something else than a number.
    """
    import pandas as pd

    values = np.array(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    broken = np.isnan(values) & column.notna().to_numpy()
    if pd.api.types.is_bool_dtype(column.dtype):
        broken[:] = True
    rule = f"{name} must be a number, without thousands separators; correct or remove the row"
    refuse_values(label, column.index, name, column.array, broken, rule)
    return values
