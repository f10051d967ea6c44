"""Read a table of a user's file: format, column names and stamps, each refused clearly."""

import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppo_workbench.config import BarsError
from ppo_workbench.market.bars import NS_PER_DAY, FloatArray, Int64Array

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".feather")
# Nanoseconds in 64 bits reach from 1677 to 2262.
_YEARS = (1700, 2250)
_ZONE = r"\d{2}:\d{2}.*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"


@dataclass(frozen=True)
class Stamps:
    """T parsed stamps.

    Attributes:
        ns: int64 (T,), UTC nanoseconds; of dates, nanoseconds of midnight UTC of the date.
        are_dates: The stamps are dates without a time of day: labels of sessions.
    """

    ns: Int64Array
    are_dates: bool


def read_table(path: str, key: str) -> "pd.DataFrame":
    """Read a csv, csv.gz, parquet or feather file; a time index becomes a column.

    Args:
        path: The file.
        key: The configuration key to name in messages.

    Raises:
        BarsError: If the file is missing, empty, a folder, of another format or damaged.
    """
    import pandas as pd

    suffix = _check_path(Path(path), key)
    try:
        table = _read(path, suffix)
    except pd.errors.EmptyDataError:
        raise BarsError(f"{key}={path!r} is empty; give a file with a header and rows") from None
    except (OSError, EOFError, ValueError, KeyError, zlib.error, Warning) as error:
        # pandas' and pyarrow's parse errors, UnicodeDecodeError and BadGzipFile are among these.
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BarsError(
            f"{key}={path!r} cannot be read as {suffix} ({reason}); give an undamaged file"
        ) from None
    if isinstance(table.index, pd.DatetimeIndex):
        table = table.rename_axis(
            str(table.index.name) if table.index.name else "timestamp"
        ).reset_index()
    if len(table) == 0:
        raise BarsError(f"{key}={path!r} has a header but no rows; give a file with rows")
    return table


def _check_path(file: Path, key: str) -> str:
    """Return the suffix of a readable file."""
    suffix = next((end for end in SUFFIXES if file.name.lower().endswith(end)), None)
    if file.is_dir():
        raise BarsError(f"{key}={str(file)!r} is a folder; give a file ({', '.join(SUFFIXES)})")
    if not file.exists():
        raise BarsError(f"{key}={str(file)!r} does not exist; give the path of a file")
    if suffix is None:
        raise BarsError(
            f"{key}={str(file)!r} has an unknown format; give one of {', '.join(SUFFIXES)}"
        )
    if file.stat().st_size == 0:
        raise BarsError(f"{key}={str(file)!r} is empty; give a file with a header and rows")
    return suffix


def _read(path: str, suffix: str) -> "pd.DataFrame":
    import pandas as pd

    if suffix == ".parquet":
        return pd.read_parquet(path)
    if suffix == ".feather":
        return pd.read_feather(path)
    with warnings.catch_warnings():
        # pandas only warns of rows that are longer than the header, and drops their end.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(path, index_col=False, low_memory=False)
    # pandas renames the second of two columns of one name.
    header = [str(name) for name in pd.read_csv(path, header=None, nrows=1, dtype=str).loc[0]]
    twice = next((name for name in header if header.count(name) > 1 and name != "nan"), None)
    if twice is not None:
        raise BarsError(f"{path}: column {twice!r} is there twice; rename or remove one of them")
    return table


def find_column(label: str, table: "pd.DataFrame", name: str, remedy: str | None = None) -> str:
    """Return the table's own spelling of a column, whatever its case.

    Args:
        label: What to call the file in messages.
        table: The table.
        name: The name that is looked for.
        remedy: What to do where it is missing.

    Raises:
        BarsError: If no column, or more than one, has that name.
    """
    found = _spellings(table, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise BarsError(f"{label}: columns {found} differ only in case; rename one of them")
    columns = ", ".join(str(column)[:40] for column in list(table.columns)[:20])
    raise BarsError(
        f"{label}: column {name!r} is missing (columns: {columns}); "
        f"{remedy or 'add or rename the column'}"
    )


def has_column(table: "pd.DataFrame", name: str) -> bool:
    """Tell whether a column has that name, whatever its case."""
    return bool(_spellings(table, name))


def _spellings(table: "pd.DataFrame", name: str) -> list[str]:
    wanted = name.strip().lower()
    exact = [column for column in table.columns if column == name]
    return exact or [c for c in table.columns if str(c).strip().lower() == wanted]


def numbers(label: str, column: "pd.Series", name: str) -> FloatArray:
    """Turn a column into float64 (T,); empty cells become NaN.

    Raises:
        BarsError: If a cell holds something else than a number.
    """
    import pandas as pd

    values = np.array(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    broken = np.isnan(values) & column.notna().to_numpy()
    if pd.api.types.is_bool_dtype(column.dtype):
        broken[:] = True
    if broken.any():
        row = int(np.argmax(broken))
        raise BarsError(
            f"{label}: data row {row} has {name}={str(column.iloc[row])[:40]!r}, but {name} must "
            "be a number; correct or remove the row"
        )
    return values


def parse_stamps(
    label: str, column: "pd.Series", timezone: str | None, *, allow_dates: bool
) -> Stamps:
    """Turn a column of ISO 8601 stamps into UTC nanoseconds.

    Offsets may differ from row to row (daylight saving time). Stamps without an offset are
    read in `timezone`. Stamps that are all dates (or midnights without a zone, or in UTC) are
    dates where `allow_dates`, and need no zone.

    Args:
        label: What to call the file in messages.
        column: T stamps, text or datetime64.
        timezone: IANA name (checked by the caller) for stamps without an offset.
        allow_dates: Whether dates are stamps.

    Raises:
        BarsError: If a stamp is missing or cannot be read, some but not all have an offset,
            none has and `timezone` is None, or a local time is skipped or ambiguous.
    """
    import pandas as pd

    utc, has_zone = _to_utc(label, column)
    is_midnight = bool((utc.asi8 % NS_PER_DAY == 0).all())
    if allow_dates and is_midnight:
        return Stamps(utc.asi8.copy(), are_dates=True)
    if has_zone:
        return Stamps(utc.asi8.copy(), are_dates=False)
    if timezone is None:
        raise BarsError(
            f"{label}: stamps such as {str(column.iloc[0])!r} (data row 0) have no time zone; set "
            "data.timezone (such as America/New_York) or write stamps with an offset"
            if allow_dates
            else f"{label}: data row 0 has the time {str(column.iloc[0])!r}, but times need an "
            "offset; write them such as 2024-01-31T14:00:00-05:00"
        )
    naive = pd.DatetimeIndex(utc.tz_localize(None))
    try:
        local = naive.tz_localize(timezone, ambiguous="infer", nonexistent="NaT")
    except ValueError:
        local = naive.tz_localize(timezone, ambiguous="NaT", nonexistent="NaT")
    _refuse_rows(
        label, column, np.asarray(local.isna()), f"does not exist or is ambiguous in {timezone}",
        "write stamps with an offset",
    )  # fmt: skip
    return Stamps(local.tz_convert("UTC").asi8.copy(), are_dates=False)


def _to_utc(label: str, column: "pd.Series") -> tuple["pd.DatetimeIndex", bool]:
    """Return stamps in UTC (those without an offset taken as UTC) and whether all had one."""
    import pandas as pd

    _refuse_rows(label, column, column.isna().to_numpy(), "is missing", "add it")
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return _as_ns(label, column, pd.DatetimeIndex(column).tz_convert("UTC")), True
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return _as_ns(label, column, pd.DatetimeIndex(column).tz_localize("UTC")), False
    rule = "is not an ISO 8601 stamp", "write stamps such as 2024-01-31T09:30:00-05:00"
    if pd.api.types.is_numeric_dtype(column.dtype):
        _refuse_rows(label, column, np.ones(len(column), np.bool_), *rule)
    text = column.astype("str").str.strip()
    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    _refuse_rows(label, column, parsed.isna().to_numpy(), *rule)
    zoned = text.str.contains(_ZONE, regex=True).to_numpy(dtype=np.bool_)
    _refuse_rows(
        label, column, zoned != zoned[0],
        f"has {'no ' if zoned[0] else 'a '}time zone, unlike row 0 ({text.iloc[0]})",
        "write all stamps with an offset",
    )  # fmt: skip
    return _as_ns(label, column, pd.DatetimeIndex(parsed)), bool(zoned[0])


def _as_ns(label: str, column: "pd.Series", stamps: "pd.DatetimeIndex") -> "pd.DatetimeIndex":
    years = np.asarray(stamps.year)
    broken = (years < _YEARS[0]) | (years > _YEARS[1])
    _refuse_rows(
        label, column, broken, f"is not in the years {_YEARS[0]}-{_YEARS[1]}", "correct it"
    )
    return stamps.as_unit("ns")


def _refuse_rows(
    label: str, column: "pd.Series", broken: "np.typing.NDArray[np.bool_]", rule: str, remedy: str
) -> None:
    """Raise BarsError for the first broken row, if there is one."""
    if broken.any():
        row = int(np.argmax(broken))
        value = str(column.iloc[row])[:40]
        raise BarsError(f"{label}: the stamp {value!r} in data row {row} {rule}; {remedy}")
