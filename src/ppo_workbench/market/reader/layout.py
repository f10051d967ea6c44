"""Files of bars as tables, and the layout of text: separator, decimal sign and header."""

import csv
import gzip
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_workbench.config import BarsError
from ppo_workbench.market.reader.faults import Fault

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".csv.gz", ".txt", ".parquet", ".feather")
_SEPARATORS = ",;\t|"
_LEVELS = ("price", "ticker", "symbol")
_SAMPLE = 40
JOINED = " of "  # "Close of MSFT": a column of two header rows


@dataclass(frozen=True)
class Layout:
    """How text is laid out.

    Attributes:
        separator: Between fields.
        decimal: Point or comma.
        preamble: Lines above the header.
        header: Header rows: 0, 1 or, where fields and tickers have a row each, 3.
        names: Names of the columns; of two rows joined, "Close of MSFT".
    """

    separator: str = ","
    decimal: str = "."
    preamble: int = 0
    header: int = 1
    names: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Say what is not usual."""
        said = []
        if self.separator != "," or self.decimal != ".":
            said.append(f"fields are separated by {self.separator!r}, decimals by {self.decimal!r}")
        if self.preamble:
            said.append(f"{self.preamble} lines above the header are left out")
        return said


def find_layout(lines: Sequence[str], header: Sequence[str] = ()) -> Layout:
    """Tell the layout of text from its first lines; `header` names columns that no row names.

    Raises:
        Fault: There is no header row, and no names are given.
    """
    lines = [line.rstrip("\r\n") for line in lines]
    separator = _separator_of([line for line in lines if line.strip()])
    filled = [i for i, line in enumerate(lines) if line.strip()]
    preamble = next((i for i in filled if separator in lines[i]), next(iter(filled), 0))
    rows = list(csv.reader(lines[preamble:], delimiter=separator))
    first = [cell.strip() or f"column_{i}" for i, cell in enumerate(rows[0])] if rows else []
    if len(first) == 1 and len(first[0].split()) > 3:
        raise BarsError(
            "fields must be separated by a comma, semicolon, tab or bar, but the first line is "
            f"{first[0][:60]!r}; write them so"
        )
    cells = [cell.strip() for row in rows[1:] for cell in row]
    decimal = "," if separator != "," and _have_decimal_commas(cells) else "."
    if header or (first and all(_is_data(cell) for cell in first if cell)):
        if not header:
            raise _no_header(rows)
        if len(header) != len(first):
            raise BarsError(
                f"data.header={list(header)} names {len(header)} columns, but the rows have "
                f"{len(first)}; name each of them"
            )
        return Layout(separator, decimal, preamble, 0, tuple(header))
    if len(rows) > 1 and first[0].lower() in _LEVELS and rows[1][0].strip().lower() in _LEVELS:
        pairs = zip(first, (cell.strip() for cell in rows[1]), strict=False)
        fields = [pair if first[0].lower() == "price" else pair[::-1] for pair in pairs]
        own = [f"{field}{JOINED}{ticker}" for field, ticker in fields[1:]]
        stamp = rows[2][0].strip() if len(rows) > 2 else ""
        return Layout(separator, decimal, preamble, 3, (stamp or "Date", *own))
    return Layout(separator, decimal, preamble, 1, tuple(first))


def _separator_of(lines: Sequence[str]) -> str:
    """Return the separator that stands equally often in most lines; a comma if none does."""

    def merit(separator: str) -> tuple[float, int]:
        counts = [count for line in lines if (count := line.count(separator))]
        usual = max(set(counts), key=counts.count) if counts else 0
        return (counts.count(usual) / len(lines), usual) if usual else (0.0, 0)

    return max(_SEPARATORS, key=merit) if lines else ","


def _is_data(cell: str) -> bool:
    """Tell whether a cell is a number or a stamp, and so no name."""
    return cell[:1].isdigit() or (cell[:1] in "+-." and cell[1:2].isdigit())


def _have_decimal_commas(cells: Sequence[str]) -> bool:
    """Tell decimal commas from thousands, whose groups have three digits."""
    parts = [cell.lstrip("+-").split(",") for cell in cells if cell.count(",") == 1]
    digits = [part[1] for part in parts if part[0].isdigit() and part[1].isdigit()]
    return any(len(part) != 3 for part in digits)


def _no_header(rows: Sequence[Sequence[str]]) -> Fault:
    """Say which names would fit: a stamp, then prices in the order that they can have."""
    stamps = ["date", "time"] if any(":" in cell for cell in rows[0][1:2]) else ["timestamp"]
    names, width = [*stamps, "open", "high", "low", "close", "volume"], len(rows[0])
    names = [*names, *(f"column_{i}" for i in range(len(names), width))][:width]
    prices_at = slice(len(stamps), len(stamps) + 4)
    try:
        prices = [[float(cell.replace(",", ".")) for cell in row[prices_at]] for row in rows]
        fits = all(p[2] <= min(p[0], p[3]) <= max(p[0], p[3]) <= p[1] for p in prices)
    except (IndexError, ValueError):
        fits = False
    return Fault(
        f"there is no header row (the first line is {','.join(rows[0])[:60]!r}); name the columns, "
        f"data.header=[{','.join(names)}]",
        "no header row",
        fix={"header": names} if fits else {},
    )


def read_table(path: str, key: str, header: Sequence[str] = ()) -> "tuple[pd.DataFrame, Layout]":
    """Read a csv, csv.gz, txt, parquet or feather file; a time index becomes a column.

    Args:
        path: The file.
        key: The configuration key to name in messages.
        header: Names of the columns of text without a header row.

    Raises:
        BarsError: If the file is missing, empty, a folder, of another format or damaged.
    """
    import pandas as pd

    suffix = _check_path(Path(path), key)
    layout = Layout()
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path)
        elif suffix == ".feather":
            table = pd.read_feather(path)
        else:
            table, layout = _read_text(path, suffix, header)
    except Fault as fault:
        raise Fault(f"{key}={path!r}: {fault}", fault.kind, fix=fault.fix) from None
    except pd.errors.EmptyDataError:
        raise BarsError(f"{key}={path!r} is empty; give a file with a header and rows") from None
    except UnicodeDecodeError:
        raise BarsError(f"{key}={path!r} is not UTF-8 text; save it as UTF-8") from None
    except (OSError, EOFError, ValueError, KeyError, zlib.error, Warning) as error:
        # pandas' and pyarrow's parse errors and BadGzipFile are among these.
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BarsError(
            f"{key}={path!r} cannot be read as {suffix} ({reason}); give an undamaged file"
        ) from None
    if len(table) == 0:
        raise BarsError(f"{key}={path!r} has a header but no rows; give a file with rows")
    return _flat(table), layout


def _flat(table: "pd.DataFrame") -> "pd.DataFrame":
    """Make columns of a time index and of several levels."""
    import pandas as pd

    if isinstance(table.columns, pd.MultiIndex):
        table.columns = [_joined(table.columns, pair) for pair in table.columns]
    if isinstance(table.index, pd.MultiIndex):
        return table.reset_index()
    if isinstance(table.index, pd.DatetimeIndex):
        return table.rename_axis(str(table.index.name or "timestamp")).reset_index()
    return table


def _joined(columns: "pd.MultiIndex", pair: Sequence[object]) -> str:
    """Name a column of two levels: the field first, whichever level it is."""
    names = [str(name or "").lower() for name in columns.names]
    swap = names[0] in _LEVELS[1:] or names[-1] == "price"
    return JOINED.join(map(str, pair[::-1] if swap else pair))


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


def _read_text(path: str, suffix: str, header: Sequence[str]) -> "tuple[pd.DataFrame, Layout]":
    import pandas as pd

    opened = gzip.open if suffix.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
        first = list(islice(text, _SAMPLE))
    if not any(line.strip() for line in first):
        raise pd.errors.EmptyDataError
    layout = find_layout(first, header)
    names = list(layout.names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Fault(
            f"column {twice!r} is there twice; rename or remove one of them", "repeated column"
        )
    clocks = {i: "str" for i, name in enumerate(names) if name.strip("<> ").lower() == "time"}
    with warnings.catch_warnings():
        # pandas only warns of rows that are longer than the header, and drops their end.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(
            path, index_col=False, low_memory=False, sep=layout.separator,
            decimal=layout.decimal, skiprows=layout.preamble + layout.header, header=None,
            names=names, dtype={names[i]: kind for i, kind in clocks.items()},
        )  # fmt: skip
    return table, layout
