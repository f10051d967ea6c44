"""Sessions of an exchange calendar, and where bars lie in them.

Everything is computed once a session and spread over the bars by index, so a million
minute bars take no loop.  What is derived here (bars left, the session's close) is known
beforehand from the calendar and never from later bars.
"""

import difflib
import warnings
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from ppo_workbench.config import BarsError
from ppo_workbench.config.arrays import Bools, Ints
from ppo_workbench.market.bars import NS_PER_DAY, NS_PER_SECOND, Describe
from ppo_workbench.market.reader.faults import Fault, refuse

if TYPE_CHECKING:
    import pandas as pd

_MARGIN_DAYS = 15
_COMMON_YEARS = 1990, 2039
_DAILY_SHARE = 1 / 3


@dataclass(frozen=True)
class SessionTable:
    """S sessions of a calendar in time order; every array has S rows.

    Attributes:
        name: Calendar name.
        timezone: IANA name.
        day: int64, days since 1970-01-01 of the session's date.
        open_ns: int64, UTC nanoseconds.
        close_ns: int64, UTC nanoseconds.
        break_start_ns: int64, start of the lunch break; equals `close_ns` if none.
        break_end_ns: int64, end of the lunch break; equals `close_ns` if none.
        usual_open_ns: int64, the open by the usual clock time; before `open_ns` on days that
            open late.
    """

    name: str
    timezone: str
    day: Ints
    open_ns: Ints
    close_ns: Ints
    break_start_ns: Ints
    break_end_ns: Ints
    usual_open_ns: Ints


@dataclass(frozen=True)
class Placement:
    """Where T bars lie in their sessions; every array has T rows.

    Attributes:
        bar_seconds: Nominal length of a bar, 86400 for daily bars.
        bars_per_session: Nominal bars of a full session.
        start_ns: int64, UTC nanoseconds of the bar's start.
        end_ns: int64, start + bar_seconds, or the session's close where that is earlier.
        calendar_session: int64, row of the `SessionTable`.
        session: int64, 0, 1, 2, ... over the sessions that hold bars.
        bar_of_session: int64, slot by the clock.
        bars_left: int64, slots still to come by the calendar.
        regular: bool, overlaps regular hours.
        missing: int64, slots between the bar before and this one.
        slots: The slots of all sessions.
    """

    bar_seconds: int
    bars_per_session: int
    start_ns: Ints
    end_ns: Ints
    calendar_session: Ints
    session: Ints
    bar_of_session: Ints
    bars_left: Ints
    regular: Bools
    missing: Ints
    slots: "SlotTable"


@dataclass(frozen=True)
class SlotTable:
    """The slots of S sessions: bar-sized pieces of the clock, lunch breaks left out.

    Attributes:
        bar_ns: Length of a slot in nanoseconds.
        anchor_ns: int64 (S,), start of slot 0; at or before the open.
        count: int64 (S,), slots of the session, at least 1.
        break_from: int64 (S,), first slot by the clock that lies wholly in the break.
        break_slots: int64 (S,), number of such slots.
    """

    bar_ns: int
    anchor_ns: Ints
    count: Ints
    break_from: Ints
    break_slots: Ints

    def of(self, sessions: Ints, offsets_ns: Ints) -> Ints:
        """Return the slot of moments `offsets_ns` after the anchors, held inside the session."""
        by_clock = offsets_ns // self.bar_ns
        passed = by_clock - self.break_from[sessions] + 1
        in_break = np.clip(passed, 0, self.break_slots[sessions])
        slot: Ints = np.clip(by_clock - in_break, 0, self.count[sessions] - 1)
        return slot

    def missing_before(self, sessions: Ints, slots: Ints) -> Ints:
        """Return the slots between each of T bars and the one before it, int64 (T,)."""
        position = (np.cumsum(self.count) - self.count)[sessions] + slots
        missing: Ints = np.maximum(np.diff(position, prepend=position[:1] - 1) - 1, 0)
        return missing


def usual_count(counts: Ints) -> int:
    """Return the most frequent number of slots, int64 (S,); the larger of two that tie."""
    values, times = np.unique(counts, return_counts=True)
    return int(values[times == times.max()].max())


def check_timezone(name: str) -> None:
    """Raise BarsError unless `name`, of `data.timezone`, is an IANA time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BarsError(
            f"data.timezone={name!r} is not an IANA time zone; use a name such as "
            "America/New_York or UTC"
        ) from None


def load_sessions(name: str, first_ns: int, last_ns: int) -> SessionTable:
    """Load the sessions around two moments, with some days to spare on both sides.

    The last tables are kept, so their arrays cannot be written to.

    Args:
        name: exchange_calendars name such as "XNYS" or "24/7", or one of `own_calendars`.
        first_ns: UTC nanoseconds that the table must reach back to.
        last_ns: UTC nanoseconds that the table must reach.

    Raises:
        BarsError: If the calendar is unknown or does not cover the dates.
    """
    return _sessions_between(name, first_ns // NS_PER_DAY, last_ns // NS_PER_DAY)


@lru_cache(maxsize=32)
def _sessions_between(name: str, first_day: int, last_day: int) -> SessionTable:
    import pandas as pd
    from exchange_calendars import errors, get_calendar_names

    from ppo_workbench.market.calendars.own import OWN_CALENDARS

    known = [*OWN_CALENDARS, *get_calendar_names()]
    if name not in known:
        near = difflib.get_close_matches(name.upper(), known, n=3) or ["XNYS", "FX", "24/7"]
        raise BarsError(
            f"data.calendar={name!r} is not a known calendar; use FX, GLOBEX or a name of "
            f"exchange_calendars such as {', '.join(near)}"
        )
    first, last = (pd.Timestamp(day * NS_PER_DAY) for day in (first_day, last_day))
    common = [pd.Timestamp(year, 1, 1) for year in _COMMON_YEARS]
    reason = ""
    # Some calendars are bounded: without the margin the bars may still fit; a day more, since a
    # date can be the day after its midnight in UTC.
    for days in (_MARGIN_DAYS, 1, 0):
        start, end = first - pd.Timedelta(days=days), last + pd.Timedelta(days=days)
        for wide in ((min(start, common[0]), max(end, common[1])), (start, end)):
            try:
                timezone, schedule = _schedule(name, *wide)
            except (ValueError, NotImplementedError, errors.CalendarError) as error:
                reason = str(error)
                continue
            rows = schedule.loc[start:end]
            if len(rows):
                return _session_table(name, timezone, rows)
    raise BarsError(
        f"data.calendar={name!r} does not cover {first.date()} to {last.date()} "
        f"({reason.splitlines()[0].rstrip('.')}); choose another calendar or cut the bars"
    )


@lru_cache(maxsize=8)
def _schedule(name: str, start: "pd.Timestamp", end: "pd.Timestamp") -> "tuple[str, pd.DataFrame]":
    """Return the time zone and the schedule of a calendar's sessions, one row a session.

    To make one takes exchange_calendars .1 s, for a month as for fifty years.
    """
    import exchange_calendars
    import pandas as pd

    from ppo_workbench.market.calendars.own import OWN_CALENDARS

    make = OWN_CALENDARS.get(name, partial(exchange_calendars.get_calendar, name))
    with warnings.catch_warnings():
        # exchange_calendars 4.13 uses what pandas 3.1 deprecates.
        warnings.simplefilter("ignore", pd.errors.Pandas4Warning)
        calendar = make(start=start, end=end)
        return str(calendar.tz), calendar.schedule


def _session_table(name: str, timezone: str, schedule: "pd.DataFrame") -> SessionTable:
    """Turn a schedule of exchange_calendars into arrays."""
    import pandas as pd

    opens, closes = (_utc_ns(schedule[key]) for key in ("open", "close"))
    has_break = schedule["break_start"].notna().to_numpy()
    breaks = [
        np.where(has_break, _utc_ns(schedule[key]), closes) for key in ("break_start", "break_end")
    ]
    dates = pd.DatetimeIndex(schedule.index).tz_localize(None)
    midnight = _utc_ns(
        dates.tz_localize(
            timezone, nonexistent="shift_forward", ambiguous=np.ones(len(dates), bool)
        )
    )
    after_midnight = opens - midnight
    values, counts = np.unique(after_midnight, return_counts=True)
    late = np.maximum(after_midnight - values[np.argmax(counts)], 0)
    table = SessionTable(
        name=name,
        timezone=timezone,
        day=dates.as_unit("ns").asi8 // NS_PER_DAY,
        open_ns=opens,
        close_ns=closes,
        break_start_ns=breaks[0],
        break_end_ns=breaks[1],
        usual_open_ns=opens - late,
    )
    for array in (getattr(table, field.name) for field in fields(table)):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return table


def _utc_ns(values: object) -> Ints:
    import pandas as pd

    index = pd.DatetimeIndex(values)  # type: ignore[arg-type]
    return index.as_unit("ns").asi8


def local_days(utc_ns: Ints, timezone: str) -> Ints:
    """Return days since 1970-01-01 of the local dates of moments, int64 (T,)."""
    import pandas as pd

    local = pd.DatetimeIndex(utc_ns, tz="UTC").tz_convert(timezone).tz_localize(None)
    return local.as_unit("ns").asi8 // NS_PER_DAY


def session_days(
    stamp_ns: Ints,
    wall_ns: Ints,
    bare: Bools,
    table: SessionTable,
    *,
    ends: bool = False,
) -> Ints:
    """Return the dates of the sessions that daily bars belong to, int64 (T,).

    A stamp whose clock, as it is written, shows midnight is a date, in whatever zone.  Any
    other stamp within a session has the date of that session, which may have opened the evening
    before, and outside of sessions its own local date.  An end that is a session's close is of
    that session, at midnight too, unless it is a date alone.

    Args:
        stamp_ns: int64 (T,), UTC nanoseconds.
        wall_ns: int64 (T,), nanoseconds of the clock as it is written.
        bare: bool (T,), a date alone.
        table: The calendar's sessions.
        ends: The stamps are the ends of their bars.
    """
    is_date = wall_ns % NS_PER_DAY == 0
    inside_ns = stamp_ns - int(ends)
    following = np.searchsorted(table.close_ns, inside_ns, side="right")
    at = np.minimum(following, len(table.day) - 1)
    if ends:
        is_date &= bare | (table.close_ns[at] != stamp_ns)
    if is_date.all():
        return wall_ns // NS_PER_DAY
    inside = (inside_ns >= table.open_ns[at]) & (inside_ns < table.close_ns[at])
    days = table.day[at]
    if not (inside | is_date).all():  # local dates take longer than all the rest
        days = np.where(inside, days, local_days(stamp_ns, table.timezone))
    return np.where(is_date, wall_ns // NS_PER_DAY, days)


def find_bar_seconds(label: str, stamp_ns: Ints, day: Ints) -> int:
    """Return the most frequent distance of neighbours within a day; 86400 for daily bars.

    Bars are daily if fewer than a third of the neighbours share a day.

    Args:
        label: What to call the bars in the message.
        stamp_ns: int64 (T,), UTC nanoseconds, rising strictly.
        day: int64 (T,), local date of each stamp.

    Raises:
        BarsError: If bars are not whole seconds long.
    """
    same_day = np.diff(day) == 0
    if len(stamp_ns) < 2 or same_day.mean() < _DAILY_SHARE:
        return 86_400
    steps, counts = np.unique(np.diff(stamp_ns)[same_day], return_counts=True)
    step = int(steps[np.argmax(counts)])
    if step % NS_PER_SECOND:
        raise BarsError(
            f"{label}: neighbours are most often {step / NS_PER_SECOND:g} s apart, but a bar must "
            "last whole seconds; aggregate the rows to bars"
        )
    return step // NS_PER_SECOND


def place_daily(label: str, day: Ints, table: SessionTable, describe: Describe) -> Placement:
    """Put daily bars into the sessions of their dates; a bar lasts from open to close.

    Args:
        label: What to call the bars in a message.
        day: int64 (T,), days since 1970-01-01, rising.
        table: The calendar's sessions.
        describe: Words for a row in a message.

    Raises:
        BarsError: If a date is no session, comes twice, or bars are coarser than daily.
    """
    at = np.minimum(np.searchsorted(table.day, day), len(table.day) - 1).astype(np.int64)
    outside = table.day[at] != day
    if outside.any():
        raise _outside_calendar(label, table, day * NS_PER_DAY + NS_PER_DAY // 2, outside, describe)
    steps = np.diff(at)
    refuse(
        np.concatenate([[False], steps <= 0]),
        range(len(day)),
        "second daily bar of a session",
        lambda row: (
            f"{label}: {describe(row)} is a second daily bar of one session, but a session has "
            "one; remove one of the rows"
        ),
    )
    if len(steps) and np.median(steps) > 1:
        raise BarsError(
            f"{label}: bars are typically {np.median(steps):g} sessions apart, but bars must be "
            "daily or shorter; give daily bars"
        )
    zeros = np.zeros(len(day), np.int64)
    return Placement(
        bar_seconds=86_400,
        bars_per_session=1,
        start_ns=table.open_ns[at],
        end_ns=table.close_ns[at],
        calendar_session=at,
        session=np.arange(len(day), dtype=np.int64),
        bar_of_session=zeros,
        bars_left=zeros.copy(),
        regular=np.ones(len(day), np.bool_),
        missing=np.diff(at, prepend=at[:1] - 1) - 1,
        slots=one_slot_each(table),
    )


def place_intraday(
    label: str, start_ns: Ints, bar_seconds: int, table: SessionTable, describe: Describe
) -> Placement:
    """Put intraday bars into sessions.

    A bar is `regular` if its interval overlaps regular hours (an hourly bar stamped 09:00
    holds the open at 09:30). A bar outside them belongs to the session of its local date.

    Args:
        label: What to call the bars in a message.
        start_ns: int64 (T,), UTC nanoseconds, rising strictly.
        bar_seconds: Nominal length of a bar.
        table: The calendar's sessions.
        describe: Words for a row in a message.

    Raises:
        BarsError: If a bar lies on a date without a session, or no bar in regular hours.
    """
    bar_ns = bar_seconds * NS_PER_SECOND
    at, regular, outside = sessions_of(start_ns, bar_ns, table)
    if outside.any():
        raise _outside_calendar(label, table, start_ns, outside, describe)
    if not regular.any():
        raise Fault(
            f"{label}: no bar lies in the regular hours of calendar {table.name}; correct "
            "data.timezone or data.calendar",
            "no regular hours",
        )
    slots = slot_table(start_ns[regular], at[regular], bar_ns, table)
    slot, bars_left, end_ns = places_in(start_ns, at, regular, slots, table)
    usual = usual_count(slots.count)
    return Placement(
        bar_seconds=bar_seconds,
        bars_per_session=usual,
        start_ns=start_ns,
        end_ns=end_ns,
        calendar_session=at,
        session=np.concatenate([[0], np.cumsum(np.diff(at) != 0)]).astype(np.int64),
        bar_of_session=np.minimum(slot, usual - 1),
        bars_left=bars_left,
        regular=regular,
        missing=slots.missing_before(at, slot),
        slots=slots,
    )


def places_in(
    start_ns: Ints, at: Ints, regular: Bools, slots: SlotTable, table: SessionTable
) -> tuple[Ints, Ints, Ints]:
    """Return slot by the clock, bars left and end of T bars in the sessions `at`, int64 (T,)."""
    slot = slots.of(at, start_ns - slots.anchor_ns[at])
    close_ns = table.close_ns[at]
    nominal_end = start_ns + slots.bar_ns
    bars_left = np.where(start_ns >= close_ns, 0, slots.count[at] - 1 - slot)
    return slot, bars_left, np.where(regular, np.minimum(nominal_end, close_ns), nominal_end)


def sessions_of(start_ns: Ints, bar_ns: int, table: SessionTable) -> tuple[Ints, Bools, Bools]:
    """Return the session of each bar, whether it is regular, whether it has no session."""
    last = len(table.day) - 1
    following = np.searchsorted(table.close_ns, start_ns, side="right")
    at = np.minimum(following, last).astype(np.int64)
    end_ns = start_ns + bar_ns
    inside = (following <= last) & (end_ns > table.open_ns[at])
    on_break = (start_ns >= table.break_start_ns[at]) & (end_ns <= table.break_end_ns[at])
    regular = inside & ~on_break
    if inside.all():  # no dates needed: they take longer than all the rest
        return at, regular, ~inside
    day = local_days(start_ns, table.timezone)
    before = np.maximum(following - 1, 0).astype(np.int64)
    late = ~inside & (table.day[before] == day) & (following > 0)
    early = ~inside & (table.day[at] == day)
    return np.where(late, before, at), regular, ~(inside | late | early)


def slot_table(start_ns: Ints, at: Ints, bar_ns: int, table: SessionTable) -> SlotTable:
    """Lay slots over all sessions, in step with the stamps of the regular bars."""
    phases, counts = np.unique((start_ns - table.usual_open_ns[at]) % bar_ns, return_counts=True)
    phase = int(phases[np.argmax(counts)])
    # Slot 0 is the one that holds the open: with stamps at full hours it starts before it.
    anchor = table.usual_open_ns + phase - (bar_ns if phase else 0)
    ends = -((anchor - table.close_ns) // bar_ns)
    break_from = -((anchor - table.break_start_ns) // bar_ns)
    break_slots = np.maximum((table.break_end_ns - anchor) // bar_ns - break_from, 0)
    return SlotTable(bar_ns, anchor, np.maximum(ends - break_slots, 1), break_from, break_slots)


def bar_positions(
    start_ns: Ints, bar_seconds: int, table: SessionTable, moments_ns: Ints
) -> tuple[Ints, Ints]:
    """Count bars and moments on one scale: all slots of the table, one after the other.

    The scale comes from the calendar, so the distance from a bar to a scheduled moment does
    not depend on which later bars a file holds.

    Args:
        start_ns: int64 (T,), UTC nanoseconds of bar starts.
        bar_seconds: Nominal length of a bar, 86400 for daily bars.
        table: Sessions that cover the bars and the moments.
        moments_ns: int64 (M,), UTC nanoseconds; a moment belongs to the slot that ends at it
            or holds it, outside sessions to the next slot.

    Returns:
        Positions of the bars, int64 (T,), and of the moments, int64 (M,).
    """
    bar_ns = bar_seconds * NS_PER_SECOND
    at, regular, _ = sessions_of(start_ns, bar_ns, table)
    if bar_seconds == NS_PER_DAY // NS_PER_SECOND:
        slots = one_slot_each(table)
    else:
        slots = slot_table(start_ns[regular], at[regular], bar_ns, table)
    base = np.cumsum(slots.count) - slots.count
    bars = base[at] + slots.of(at, start_ns - slots.anchor_ns[at])
    following = np.searchsorted(table.close_ns, moments_ns, side="left")
    session = np.minimum(following, len(table.day) - 1).astype(np.int64)
    moments = base[session] + slots.of(session, moments_ns - 1 - slots.anchor_ns[session])
    return bars, moments


def one_slot_each(table: SessionTable) -> SlotTable:
    """Return the slots of daily bars: one each session."""
    ones = np.ones(len(table.day), np.int64)
    return SlotTable(NS_PER_DAY, table.open_ns, ones, ones, np.zeros_like(ones))


def _outside_calendar(
    label: str, table: SessionTable, start_ns: Ints, outside: Bools, describe: Describe
) -> Fault:
    return Fault(
        f"{label}: {describe(int(np.argmax(outside)))} lies on a date without a session of "
        f"calendar {table.name} ({int(outside.sum())} such rows); remove the rows or set "
        f"data.calendar{_calendars_of(start_ns[outside])}",
        "no session of the calendar",
        np.flatnonzero(outside).tolist(),
    )


def _calendars_of(outside_ns: Ints) -> str:
    """Name calendars by the time of the week at which bars have no session; "" on weekdays."""
    import pandas as pd

    local = pd.DatetimeIndex(outside_ns, tz="UTC").tz_convert("America/New_York")
    evening = (local.day_of_week == 6) & (local.hour >= 17)
    if ((local.day_of_week >= 5) & ~evening).any():
        return " (24/7 for markets that never close)"
    return " (FX for currencies, GLOBEX or us_futures for futures)" if evening.any() else ""
