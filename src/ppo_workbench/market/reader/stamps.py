"""Stamps of bars, whole columns or one at a time, by one set of rules.

ISO 8601 with or without an offset, also as 2024.01.31 or 2024/01/31; seconds, milli-, micro- or
nanoseconds since 1970, told by their size row by row; dates as 20150102.  A local time that
comes twice in autumn is the first of the two that is later than the stamp before it.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

from ppo_workbench.config import BarsError
from ppo_workbench.config.arrays import Bools, Ints
from ppo_workbench.market.bars import NS_PER_DAY, NS_PER_SECOND
from ppo_workbench.market.reader.faults import Fault, refuse

if TYPE_CHECKING:
    import pandas as pd

# Nanoseconds in 64 bits reach from 1677 to 2262.
_YEARS = (1700, 2250)
_LARGEST, _NONE = 9 * 10**18, -(2**63)
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_DATE = r"(\d{4})(?:[-./](\d{1,2})[-./](\d{1,2})|(\d\d)(\d\d))"
_CLOCK = r"(?:T| {1,2})(\d{1,2})(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,9}))?)?)?"
_LOCAL = rf"^{_DATE}(?:{_CLOCK})?"
_ZONE = r"\s?(Z|[+-]\d\d(?::?\d\d)?)"
_NAIVE_PATTERN, _ZONED_PATTERN = _LOCAL + "$", rf"^{_DATE}{_CLOCK}{_ZONE}$"
_STAMP = re.compile(rf"^{_DATE}(?:{_CLOCK}(?:{_ZONE})?)?$")
# Why a stamp is none, and the remedy: the first that fits.
_CAUSES = {
    r"^\d{1,2}[-./ ]\w{1,9}[-./, ]+\d{4}": (
        "has the year last, where day and month are easily confused; write 2024-01-31"
    ),
    r"(?i)\d ?[ap]\.?m\.?$": "has a 12-hour clock; write 21:30 for 9:30 PM",
    r"\d ?[A-Za-z][A-Za-z/_]+$": (
        "names its zone in letters; write an offset such as -05:00, or none and set data.timezone"
    ),
    "": (
        "is no stamp: neither ISO 8601 nor an epoch nor a date as 20150102; write stamps such as "
        "2024-01-31T09:30:00-05:00"
    ),
}
# A day's worth of slack: daily stamps are 23 hours apart in spring.
DAILY_STEP_NS = 20 * 3600 * NS_PER_SECOND


@dataclass(frozen=True)
class Stamp:
    """One stamp: UTC nanoseconds, the wall clock as it is written, and whether a date alone."""

    ns: int
    wall_ns: int
    bare: bool


@dataclass(frozen=True)
class Stamps:
    """T parsed stamps.

    Attributes:
        ns: int64 (T,), UTC nanoseconds; of dates without a zone, of their midnight in UTC.
        wall_ns: int64 (T,), nanoseconds of the wall clock as it is written; known where stamps
            are about a day apart, else `ns`.
        bare: bool (T,), a date without a time of day; known as `wall_ns`.
    """

    ns: Ints
    wall_ns: Ints
    bare: Bools


class LocalTime:
    """Turns the wall clock of one time zone into UTC."""

    def __init__(self, timezone: str) -> None:
        """Take an IANA name that is known to be one."""
        self._zone = ZoneInfo(timezone)
        self._of_day: dict[int, int | None] = {}

    def utc(self, wall_ns: int, previous_ns: int) -> int | None:
        """Return UTC nanoseconds of a wall clock; None where it is skipped.

        Those of the stamp before tell the hour that comes twice.
        """
        offset = self._offset_of(wall_ns // NS_PER_DAY)
        if offset is not None:
            return wall_ns - offset
        moment = _EPOCH + timedelta(microseconds=wall_ns // 1000)
        first, second = (wall_ns - self._offset(moment, fold) for fold in (0, 1))
        if first > second:
            return None
        return first if first > previous_ns else second

    def all_utc(self, wall_ns: Ints) -> tuple[Ints, Bools]:
        """Do so for T wall clocks in their order; return also which are skipped."""
        days, at = np.unique(wall_ns // NS_PER_DAY, return_inverse=True)
        offsets = [self._offset_of(day) for day in days.tolist()]
        steady = np.array([offset is not None for offset in offsets])[at]
        ns = wall_ns - np.array([offset or 0 for offset in offsets], np.int64)[at]
        skipped = np.zeros(len(ns), np.bool_)
        for row in np.flatnonzero(~steady).tolist():  # two days a year
            before = int(ns[row - 1]) if row else _NONE
            found = self.utc(int(wall_ns[row]), before)
            ns[row], skipped[row] = (before, True) if found is None else (found, False)
        return ns, skipped

    def _offset_of(self, day: int) -> int | None:
        """Return nanoseconds east of UTC; None where the clock is changed on that day."""
        if day not in self._of_day:
            ends = (_EPOCH + timedelta(days=day), _EPOCH + timedelta(days=day + 1))
            found = {self._offset(end, fold) for end in ends for fold in (0, 1)}
            self._of_day[day] = found.pop() if len(found) == 1 else None
        return self._of_day[day]

    def _offset(self, wall: datetime, fold: int) -> int:
        offset = wall.replace(tzinfo=self._zone, fold=fold).utcoffset()
        assert offset is not None
        return offset // _MICROSECOND * 1000


@cache
def local_time(timezone: str) -> LocalTime:
    """Return the one `LocalTime` of a zone, whose days are looked up once."""
    return LocalTime(timezone)


def starts_of(ns: Any, bar_seconds: int, *, ends: bool) -> Any:
    """Return the starts of bars within a day from their stamps, UTC nanoseconds, int or int64.

    An end is rounded up to a second: some vendors write 09:59:59.999 for 10:00.
    """
    if not ends:
        return ns
    return -(-ns // NS_PER_SECOND) * NS_PER_SECOND - bar_seconds * NS_PER_SECOND


def read_stamp(text: str, timezone: str | None, previous_ns: int, *, daily: bool) -> Stamp:
    """Read one stamp as `parse_stamps` reads a column; of daily bars midnights need no zone.

    Raises:
        BarsError: It cannot be read.
    """
    number = _number(text)
    if number is not None:
        ns, dates = _from_numbers(np.array([number if abs(number) < _LARGEST else 0]))
        if ns[0] == _NONE:
            raise BarsError(f"the stamp {text[:40]!r} {_why_none(text)}")
        if not dates[0]:
            return Stamp(int(ns[0]), int(ns[0]), False)
        wall, offset, bare = int(ns[0]), None, True
    else:
        wall, offset, bare = _parse(text)
    if offset is not None:
        return Stamp(wall - offset, wall, bare)
    if daily and wall % NS_PER_DAY == 0:
        return Stamp(wall, wall, bare)
    if timezone is None:
        raise BarsError(
            f"the stamp {text!r} has no time zone, set data.timezone or write it with an offset"
        )
    found = local_time(timezone).utc(wall, previous_ns)
    if found is None:
        raise BarsError(f"the stamp {text!r} does not exist in {timezone}; write it with an offset")
    return Stamp(found, wall, bare)


def _why_none(text: str) -> str:
    return next(words for pattern, words in _CAUSES.items() if re.search(pattern, text))


def _number(text: str) -> float | int | None:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return None


def _parse(text: str) -> tuple[int, int | None, bool]:
    """Return wall clock, offset or None in nanoseconds, and whether it is a date alone."""
    found = _STAMP.match(text)
    if found is None:
        raise BarsError(f"the stamp {text[:40]!r} {_why_none(text)}")
    year, month, day, month_, day_, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(
            int(year), int(month or month_), int(day or day_), int(hour or 0), int(minute or 0),
            int(second or 0),
        )  # fmt: skip
    except ValueError as error:
        raise BarsError(f"the stamp {text[:40]!r} is none ({error}); correct it") from None
    if not _YEARS[0] <= moment.year <= _YEARS[1]:
        raise BarsError(f"the stamp {text!r} is not in the years {_YEARS[0]}-{_YEARS[1]}")
    wall = (moment - _EPOCH) // _MICROSECOND * 1000 + int((fraction or "0").ljust(9, "0"))
    if zone is None:
        return wall, None, hour is None
    if zone == "Z":
        return wall, 0, False
    digits = zone[1:].replace(":", "").ljust(4, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return wall, (-1 if zone[0] == "-" else 1) * seconds * NS_PER_SECOND, False


def _from_numbers(values: "np.typing.NDArray[Any]") -> tuple[Ints, Bools]:
    """Return nanoseconds since 1970, `_NONE` where a number is no stamp, and which are dates.

    Dates are 17000101 to 22501231, as seconds a few days of 1970.
    """
    with np.errstate(invalid="ignore"):
        sized = np.abs(values) < _LARGEST
    values = np.where(sized, values, 0)
    whole = np.floor(values).astype(np.int64)
    year, month, day = whole // 10_000, whole // 100 % 100, whole % 100
    dates = (year >= _YEARS[0]) & (year <= _YEARS[1]) & (month >= 1) & (month <= 12)
    dates &= (day >= 1) & (day <= 31) & (whole == values)
    ns = np.full(len(whole), _NONE, np.int64)
    for low, high, unit in (
        (10**8, 10**11, 10**9), (10**11, 10**14, 10**6), (10**14, 10**17, 10**3),
        (10**17, _LARGEST, 1),
    ):  # fmt: skip
        here = (whole >= low) & (whole < high)
        if here.any():
            part = np.rint((values[here] - whole[here]) * 1e6).astype(np.int64) * (unit // 10**6)
            ns[here] = whole[here] * unit + (part if unit >= 10**6 else 0)
    if dates.any():
        months = (year[dates] - 1970) * 12 + month[dates] - 1
        first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        ns[dates] = (first + day[dates] - 1) * NS_PER_DAY
        listed = ns[dates].astype("datetime64[ns]").astype("datetime64[M]").astype(np.int64)
        ns[np.flatnonzero(dates)[listed != months]] = _NONE  # 31 June is none
    return ns, dates


def parse_stamps(
    label: str, column: "pd.Series", timezone: str | None, *, allow_dates: bool
) -> Stamps:
    """Turn a column of stamps into UTC nanoseconds.

    Offsets may differ from row to row (daylight saving time). Stamps without an offset are
    read in `timezone`. Stamps that are all midnights are dates where `allow_dates`, and need no
    zone.

    Raises:
        Fault: If a stamp is missing or cannot be read, some but not all have an offset, none
            has and `timezone` is None, or a local time is skipped.
    """
    ns, wall_ns, bare, zoned = _read(label, column)
    if zoned or (allow_dates and bool((wall_ns % NS_PER_DAY == 0).all())):
        return Stamps(ns, wall_ns, bare)
    first = str(column.iloc[0])
    if timezone is None:
        raise Fault(
            f"{label}: stamps such as {first!r} (data row {column.index[0]}) have no time zone; "
            "set data.timezone (such as America/New_York) or write stamps with an offset"
            if allow_dates
            else f"{label}: data row 0 has the time {first!r}, but times need an offset; write "
            "them such as 2024-01-31T14:00:00-05:00",
            "no time zone",
        )
    falling = len(ns) > 1 and float(np.median(np.diff(wall_ns[:1000]))) < 0
    order = slice(None, None, -1 if falling else 1)  # the hour that comes twice, from the past
    utc, skipped = local_time(timezone).all_utc(wall_ns[order])
    _refuse(
        label, column, skipped[order],
        f"does not exist in {timezone}; correct data.timezone or write stamps with an offset",
    )  # fmt: skip
    return Stamps(utc[order], wall_ns, bare)


def _read(label: str, column: "pd.Series") -> tuple[Ints, Ints, Bools, bool]:
    """Return UTC (of the wall clock where there is no zone), wall clock, bare, all zoned."""
    import pandas as pd

    _refuse(label, column, column.isna().to_numpy(), "is missing; add it")
    no, yes = (np.full(len(column), value) for value in (False, True))
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        index = pd.DatetimeIndex(column)
        ns, wall = (_as_ns(label, column, x) for x in (index, index.tz_localize(None)))
        return ns, wall, no, True
    if pd.api.types.is_datetime64_dtype(column.dtype):
        ns = _as_ns(label, column, pd.DatetimeIndex(column))
        return ns, ns, yes, False
    values = column
    if not pd.api.types.is_numeric_dtype(column.dtype):
        text = column.astype("str").str.strip()
        digits = r"^\d+(?:\.\d+)?$"
        if re.match(digits, str(text.iloc[0])) is None or not _matches(text, digits).all():
            return _from_text(label, column, text)
        values = pd.to_numeric(text)
    numbers = values.to_numpy()
    ns, dates = _from_numbers(np.zeros(len(numbers)) if numbers.dtype == bool else numbers)
    _refuse(label, column, ns == _NONE)
    _refuse(
        label, column, dates != dates[0],
        "is not of the kind of row 0 (epoch or date); write all stamps alike",
    )  # fmt: skip
    return ns, ns, dates, not dates[0]


def _from_text(
    label: str, column: "pd.Series", text: "pd.Series"
) -> tuple[Ints, Ints, Bools, bool]:
    import pandas as pd

    zoned = _matches(text, _ZONED_PATTERN)
    if not zoned.all():
        naive = _matches(text, _NAIVE_PATTERN)
        _refuse(label, column, ~(zoned | naive))
        _refuse(
            label, column, zoned != zoned[0],
            f"has {'no ' if zoned[0] else 'a '}time zone, unlike row 0 ({text.iloc[0]}); write all "
            "stamps with an offset",
        )  # fmt: skip
    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    if parsed.isna().any():  # two spaces between date and time
        text = text.str.replace("  ", " ")
        parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    _refuse(label, column, parsed.isna().to_numpy())
    ns = wall = _as_ns(label, column, pd.DatetimeIndex(parsed))
    bare = np.zeros(len(ns), np.bool_)
    if len(ns) > 1 and np.median(np.abs(np.diff(ns))) >= DAILY_STEP_NS:
        bare = _matches(text, rf"^{_DATE}$")
        if zoned[0]:
            local = text.str.replace(_ZONE + "$", "", regex=True)
            index = pd.DatetimeIndex(pd.to_datetime(local, format="ISO8601"))
            wall = _as_ns(label, column, index)
    return ns, wall, bare, bool(zoned[0])


def _matches(text: "pd.Series", pattern: str) -> Bools:
    """Match a column in Arrow; pandas would do it row by row in Python."""
    import pyarrow
    from pyarrow import compute

    found = compute.match_substring_regex(pyarrow.array(text), pattern)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _as_ns(label: str, column: "pd.Series", stamps: "pd.DatetimeIndex") -> Ints:
    years = np.asarray(stamps.year)
    broken = (years < _YEARS[0]) | (years > _YEARS[1])
    _refuse(label, column, broken, f"is not in the years {_YEARS[0]}-{_YEARS[1]}; correct it")
    return stamps.as_unit("ns").asi8.copy()


def _refuse(label: str, column: "pd.Series", broken: Bools, rule: str = "") -> None:
    """Raise a Fault for broken stamps, if there are any; without a rule those that are none."""
    labels = column.index

    def say(row: int) -> str:
        value = str(column.iloc[row]).strip()
        words = rule or _why_none(value)
        return f"{label}: the stamp {value[:40]!r} in data row {labels[row]} {words}"

    refuse(broken, labels, "unreadable stamp", say)
