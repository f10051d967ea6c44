"""Rows of a stream, one at a time, read as a whole table is: with the conventions of its file."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from csv import Error as CsvError
from csv import reader as csv_reader
from dataclasses import dataclass, field
from itertools import chain
from typing import TypedDict

from ppo_workbench.config import Adjust, BarsError, DataConfig, Volume
from ppo_workbench.market.bars import NS_PER_DAY
from ppo_workbench.market.calendars.clock import BarClock
from ppo_workbench.market.reader.columns import column_names, find_column, of_instrument
from ppo_workbench.market.reader.conventions import EVIDENCE, PRICES, QUOTES, Conventions
from ppo_workbench.market.reader.layout import find_layout
from ppo_workbench.market.reader.plausible import scaled
from ppo_workbench.market.reader.stamps import read_stamp, starts_of

_SPARE = 8  # rows that may still come again
_PREAMBLE = 20


@dataclass(frozen=True)
class Row:
    """One bar: UTC nanoseconds of its start, prices and quotes (None = empty), lagged features."""

    start_ns: int
    values: dict[str, float | None]
    features: dict[str, float | None]


class RowDocument(TypedDict):
    """The fields of a `RowMemory`."""

    stamp_ns: int
    features: list[tuple[int, list[float | None]]]


@dataclass
class RowMemory:
    """What a stream remembers, all of it plain numbers.

    Attributes:
        stamp_ns: Stamp of the last row.
        features: Stamp and features of the last rows, for the lag.
    """

    stamp_ns: int = -(2**63)
    features: list[tuple[int, list[float | None]]] = field(default_factory=list)


class RowReader:
    """Reads rows by the conventions of a model's file; what departs is refused by name."""

    def __init__(self, conventions: Conventions) -> None:
        """Begin before the first row."""
        self.conventions, self.memory = conventions, RowMemory()
        self._clock: BarClock | None = None
        self._columns: dict[tuple[str, ...], dict[str, str]] = {}

    def restore(self, document: RowDocument) -> None:
        """Go on from `dataclasses.asdict(memory)`, which JSON may have carried."""
        features = [(int(stamp), list(values)) for stamp, values in document["features"]]
        self.memory = RowMemory(int(document["stamp_ns"]), features)

    def read(self, row: Mapping[str, object]) -> Row | None:
        """Read a row; None if it is another instrument's in a file of several.

        Args:
            row: Text, or numbers as JSON has them, by the file's own names.

        Raises:
            BarsError: A column is missing, a value cannot be read, or the instrument is another.
        """
        own, names = self.conventions, self.names_of(tuple(row))
        if "instrument" in names and own.instrument is not None:
            found = str(row[names["instrument"]]).strip()
            if found != own.instrument:
                if own.long:
                    return None
                raise BarsError(
                    f"the instrument is {found!r}, the model's bars are of {own.instrument!r}"
                )
        stamp = str(row[names["timestamp"]]).strip()
        if "time" in names:
            stamp += f" {row[names['time']]}"
        start_ns, stamp_ns = self._start_of(stamp)
        values = {
            name: _number(row[theirs], own.decimal)
            for name, theirs in names.items()
            if name in PRICES or name in QUOTES
        }
        if own.volume is Volume.none:
            values["volume"] = 0.0
        self._adjust(values, row, names)
        features = [_number(row[names[name]], own.decimal) for name in self._features]
        return Row(start_ns, values, self._lagged(stamp_ns, features))

    @property
    def _features(self) -> list[str]:
        return [f"feature {name}" for name in self.conventions.feature_columns]

    def names_of(self, keys: tuple[str, ...]) -> dict[str, str]:
        """Return our names to the row's keys, found once for rows of the same keys.

        Raises:
            BarsError: A column of the model's file is missing.
        """
        if keys in self._columns:
            return self._columns[keys]
        own = self.conventions
        kept, _ = of_instrument("input", keys, own.instrument)
        back = {plain: theirs for theirs, plain in kept.items()}
        columns = list(back or keys)
        if own.columns.keys() >= {"timestamp", "close"}:
            evidence = {Adjust.adj_close: "adj_close", Adjust.splits: "split"}.get(own.adjust)
            names = {
                ours: find_column("input", columns, theirs, _remedy(ours))
                for ours, theirs in own.columns.items()
                if ours not in EVIDENCE or ours == evidence
            }
        else:
            config = DataConfig(columns=own.columns, volume=own.volume)
            names = column_names("input", columns, config)
        for name in own.feature_columns:
            names[f"feature {name}"] = find_column("input", columns, name)
        self._columns[keys] = {ours: back.get(theirs, theirs) for ours, theirs in names.items()}
        return self._columns[keys]

    def _start_of(self, text: str) -> tuple[int, int]:
        """Return UTC nanoseconds of the bar's start and of its stamp."""
        own, ends = self.conventions, self.conventions.timestamp.value == "bar_end"
        stamp = read_stamp(text, own.timezone, self.memory.stamp_ns, daily=own.daily)
        self.memory.stamp_ns = stamp.ns
        if not own.daily:
            return int(starts_of(stamp.ns, own.bar_seconds, ends=ends)), stamp.ns
        if self._clock is None:
            first, last = stamp.ns - NS_PER_DAY, stamp.ns + NS_PER_DAY
            self._clock = BarClock(own.calendar, own.bar_seconds, first, last)
        found = self._clock.session_open(stamp.ns, stamp.wall_ns, bare=stamp.bare, ends=ends)
        return (stamp.ns if found is None else found), stamp.ns

    def _adjust(
        self, values: dict[str, float | None], row: Mapping[str, object], names: Mapping[str, str]
    ) -> None:
        own = self.conventions
        if own.adjust is Adjust.none:
            return
        by = "split" if own.adjust is Adjust.splits else "adj_close"
        found = _number(row[names[by]], own.decimal) or 0.0
        if own.adjust is Adjust.splits:
            if found not in (0.0, 1.0):
                raise BarsError(
                    f"a split of {found:g}: the model's prices are adjusted for splits "
                    "(data.adjust=splits), which a stream cannot be for what came before; warm "
                    "up from an adjusted history"
                )
            return
        close = values["close"] or 0.0
        if close <= 0 or found <= 0:
            raise BarsError(f"close={close:g} and adj_close={found:g} must be above 0")
        known = {name: value for name in PRICES if (value := values[name]) is not None}
        values |= scaled(known, found / close)

    def _lagged(self, stamp_ns: int, features: list[float | None]) -> dict[str, float | None]:
        """Remember features; return those of as many rows earlier as the file's were."""
        lag, rows = self.conventions.feature_lag_bars, self.memory.features
        names = self.conventions.feature_columns
        if not names:
            return {}
        at = bisect_left(rows, stamp_ns, key=lambda pair: pair[0])
        rows[at : at + int(at < len(rows) and rows[at][0] == stamp_ns)] = [(stamp_ns, features)]
        found = rows[at - lag][1] if at >= lag else [None] * len(names)
        del rows[: max(len(rows) - lag - _SPARE, 0)]
        return dict(zip(names, found, strict=True))


def read_rows(lines: Iterable[str], reader: RowReader) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield number and fields of the rows of a text as they come, the header first if it has one.

    Raises:
        BarsError: The header departs from the file's, or a row from the header; the line is
            named.
    """
    conventions = reader.conventions
    source, first = iter(lines), list[str]()
    header = conventions.header
    for line in source:
        first.append(line)
        if header or max(map(line.count, ",;\t|")) >= 4 or len(first) > _PREAMBLE:
            break
    if not any(line.strip() for line in first):
        raise BarsError("input: is empty; give a header and rows")
    layout = find_layout(first, header)
    if first[-1].lower().startswith(("price", "ticker", "symbol")):  # a header of three rows
        more = [line for line, _ in zip(source, range(2), strict=False)]
        layout, first = find_layout([*first, *more], header), [*first, *more]
        skipped = layout.preamble + layout.header
        source, first = chain(first[skipped:], source), first[:skipped]
    elif header:
        source, first = chain(first, source), []
    if layout.separator != conventions.separator:
        raise BarsError(
            f"input: fields are separated by {layout.separator!r}, those of the model's bars by "
            f"{conventions.separator!r}; write them so"
        )
    reader.names_of(layout.names)
    yield from _fields(source, layout.names, conventions.separator, len(first))


def _fields(
    lines: Iterator[str], names: Sequence[str], separator: str, before: int
) -> Iterator[tuple[int, dict[str, str]]]:
    rows = csv_reader(lines, delimiter=separator)
    try:
        for row in rows:
            number = rows.line_num + before
            if not row:
                continue
            if len(row) != len(names):
                raise BarsError(
                    f"input line {number}: has {len(row)} fields, the header {len(names)}; "
                    "correct the line"
                )
            yield number, dict(zip(names, row, strict=True))
    except CsvError as error:
        raise BarsError(f"input line {rows.line_num + before}: {error}; correct the line") from None


def _remedy(ours: str) -> str:
    return f"add it, as in the model's file, or set data.columns={{{ours}: NAME_IN_THE_INPUT}}"


def _number(value: object, decimal: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    if decimal != "." and "." in text:
        raise BarsError(f"{text[:40]!r} must be a number with {decimal!r} before its decimals")
    return float(text.replace(decimal, ".")) if text else None
