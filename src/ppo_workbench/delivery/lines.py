"""Bars, accounts and clocks as lines of text: JSON or CSV, from any language.

A JSON line is a bar, or `{"bar": {...}, "account": {...}}`, or for a moment without a bar
`{"clock": "2024-01-02T15:00:00Z", "account": {...}}`.  A CSV line is a bar under a header.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from ppo_workbench.config import BarsError
from ppo_workbench.delivery.messages import Account, Bar

_STAMPS = ("timestamp", "datetime", "date", "time", "start")
_VALUES = ("open", "high", "low", "close", "volume")
_QUOTES = ("bid", "ask", "half_spread_bps")
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


def read_json_lines(lines: Iterable[str]) -> Iterator[Line]:
    """Yield JSON lines as they come; empty ones are left out.

    Raises:
        BarsError: A line is not UTF-8 or JSON, or breaks the schema; it is named by its number.
    """
    for number, text in enumerate(_readable(lines), 1):
        if not text.strip():
            continue
        try:
            document = json.loads(text)
            whole = isinstance(document, dict) and bool(_ROW_KEYS & document.keys())
            yield _line(number, document if whole else {"bar": document})
        except ValueError as error:
            raise _refused(number, str(error)) from None


def _line(number: int, document: Mapping[str, Any]) -> Line:
    if foreign := sorted(set(document) - _ROW_KEYS):
        raise ValueError(f"unknown key {foreign[0]!r}")
    bar, clock, account = (document.get(key) for key in ("bar", "clock", "account"))
    if (bar is None) is (clock is None):
        raise ValueError("needs either a bar or a clock")
    return Line(
        number=number,
        bar=None if bar is None else _read("bar", Bar.model_validate, bar),
        clock=None if clock is None else _read("clock", _MOMENT.validate_python, clock),
        account=None if account is None else _read("account", Account.model_validate, account),
    )


def _read(key: str, validate: Callable[[Any], _T], value: Any) -> _T:
    try:
        return validate(value)
    except ValidationError as error:
        raise ValueError(_first_problem(error, key)) from None


def read_csv_lines(
    lines: Iterable[str],
    columns: Mapping[str, str],
    timezone: str | None,
    feature_names: Iterable[str] = (),
) -> Iterator[Line]:
    """Yield the rows of a CSV with a header as they come.

    Args:
        lines: The header first.
        columns: Our names to the file's, where they differ, as `data.columns`.
        timezone: IANA name for stamps without an offset.
        feature_names: The model's own columns.

    Raises:
        BarsError: A column is missing or a value cannot be read; the line is named.
    """
    rows = csv.DictReader(_readable(lines))
    header = {name.strip().lower(): name for name in rows.fieldnames or ()}
    found = {name: header.get(columns.get(name, name).lower()) for name in (*_VALUES, *_QUOTES)}
    stamps = [columns["timestamp"]] if "timestamp" in columns else list(_STAMPS)
    stamp = next((header[name.lower()] for name in stamps if name.lower() in header), None)
    missing = [name for name in _VALUES if found[name] is None]
    if stamp is None or missing:
        lacking = "timestamp" if stamp is None else missing[0]
        raise BarsError(
            f"input: column {lacking!r} is missing (columns: {', '.join(header) or 'none'}); add "
            f"it or set data.columns={{{lacking}: NAME_IN_THE_FILE}}"
        )
    features = list(feature_names)
    for row in _rows(rows):
        number = rows.line_num
        try:
            values = {ours: _number(row[name]) for ours, name in found.items() if name is not None}
            known = {name: _number(row.get(header.get(name.lower(), name))) for name in features}
            start = _with_zone(row[stamp], timezone)
            bar = Bar.model_validate({"start": start, **values, "features": known})
        except ValidationError as error:
            raise _refused(number, _first_problem(error, "bar")) from None
        except (ValueError, TypeError) as error:
            raise _refused(number, str(error)) from None
        yield Line(number, bar, None, None)


def _rows(rows: "csv.DictReader[str]") -> Iterator[dict[str, str]]:
    """Yield rows that have a field for each column, no more and no fewer."""
    columns = len(rows.fieldnames or ())
    try:
        for row in rows:
            surplus: Any = row.get(None, ())
            fields = columns + len(surplus) - list(row.values()).count(None)
            if fields != columns:
                raise _refused(rows.line_num, f"has {fields} fields, the header {columns}")
            yield row
    except csv.Error as error:
        raise _refused(rows.reader.line_num, str(error)) from None


def _number(text: str | None) -> float | None:
    return float(text) if text and text.strip() else None


def _with_zone(text: str, timezone: str | None) -> datetime:
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is not None:
        return moment
    if timezone is None:
        raise ValueError(
            f"the stamp {text!r} has no time zone, set data.timezone or write it with an offset"
        )
    return moment.replace(tzinfo=ZoneInfo(timezone))


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
    return BarsError(f"input line {number}: {problem}; correct the line")
