"""Bars, accounts and clocks as lines of text: JSON or CSV, from any language.

A JSON line is a bar, or `{"bar": {...}, "account": {...}}`, or for a moment without a bar
`{"clock": "2024-01-02T15:00:00Z", "account": {...}}`.  A CSV line is a bar under a header, and
rows of both are read as those of the model's file are: `market.reader`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from ppo_workbench.config import BarsError
from ppo_workbench.delivery.messages import Account, Bar, moment_of
from ppo_workbench.market.reader.rows import RowReader, read_rows

_ROW_KEYS = {"bar", "account", "clock"}
_T = TypeVar("_T")
_MOMENT: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


@dataclass(frozen=True)
class Line:
    """One line of input: a bar or a moment of the clock, with the account if it was given."""

    number: int
    bar: Bar | None
    clock: datetime | None
    account: Account | None


def read_json_lines(lines: Iterable[str], reader: RowReader) -> Iterator[Line]:
    """Yield JSON lines as they come; empty ones are left out.

    Args:
        lines: A bar with the key `start` is a message as docs/schemas/ has it, any other a row
            by the names and conventions of the model's file.
        reader: Knows them, and remembers earlier rows.

    Raises:
        BarsError: A line is not UTF-8 or JSON, or breaks the schema; it is named by its number.
    """
    for number, text in enumerate(_readable(lines), 1):
        if not text.strip():
            continue
        try:
            document = json.loads(text)
            whole = isinstance(document, dict) and bool(_ROW_KEYS & document.keys())
            line = _line(number, document if whole else {"bar": document}, reader)
        except (BarsError, ValueError) as error:
            raise _refused(number, str(error)) from None
        if line.bar is not None or line.clock is not None:
            yield line


def _line(number: int, document: Mapping[str, object], reader: RowReader) -> Line:
    if foreign := sorted(set(document) - _ROW_KEYS):
        raise ValueError(f"unknown key {foreign[0]!r}")
    bar, clock, account = (document.get(key) for key in ("bar", "clock", "account"))
    if (bar is None) is (clock is None):
        raise ValueError("needs either a bar or a clock")
    return Line(
        number=number,
        bar=None if bar is None else _read("bar", partial(_message_or_row, reader), bar),
        clock=None if clock is None else _read("clock", _MOMENT.validate_python, clock),
        account=None if account is None else _read("account", Account.model_validate, account),
    )


def _message_or_row(reader: RowReader, bar: Any) -> Bar | None:
    """Take a bar that names its start as it is; read any other as a row of the model's file."""
    if isinstance(bar, dict) and "start" not in bar:
        return _bar_of(reader, bar)
    return Bar.model_validate(bar)


def _read(key: str, validate: Callable[[Any], _T], value: Any) -> _T:
    try:
        return validate(value)
    except ValidationError as error:
        raise ValueError(_first_problem(error, key)) from None


def read_csv_lines(lines: Iterable[str], reader: RowReader) -> Iterator[Line]:
    """Yield the rows of a CSV as they come, read as those of the model's file.

    Args:
        lines: The header first.
        reader: Knows how the model's bars are written, and remembers earlier rows.

    Raises:
        BarsError: A column is missing or a value cannot be read; the line is named.
    """
    for number, fields in read_rows(_readable(lines), reader):
        try:
            bar = _bar_of(reader, fields)
        except ValidationError as error:
            raise _refused(number, _first_problem(error, "bar")) from None
        except (BarsError, ValueError, TypeError) as error:
            raise _refused(number, str(error)) from None
        if bar is not None:
            yield Line(number, bar, None, None)


def _bar_of(reader: RowReader, fields: Mapping[str, object]) -> Bar | None:
    row = reader.read(fields)
    if row is None:
        return None
    values = {"start": moment_of(row.start_ns), **row.values, "features": row.features}
    return Bar.model_validate(values)


def _first_problem(error: ValidationError, key: str) -> str:
    """Name the field; those of a bar, which may be the whole line, without their key."""
    first = error.errors()[0]
    path = first["loc"] if key == "bar" and first["loc"] else (key, *first["loc"])
    return f"{'.'.join(map(str, path))}: {first['msg']}"


def _readable(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines; bytes that are not UTF-8 came as lone surrogates (`surrogateescape`)."""
    for number, text in enumerate(lines, 1):
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _refused(number, "is not UTF-8 text") from None
        yield text


def _refused(number: int, problem: str) -> BarsError:
    return BarsError(f"input line {number}: {problem.removeprefix('input: ')}; correct the line")
