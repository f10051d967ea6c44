"""Place bars in their sessions one at a time, as `market.calendars.exchange` places a whole file.

What a file's bars tell together (where their slots begin) the clock takes from history or
from its first bar.  The functions are those of `market.calendars.exchange`, run once a session over
its slots, so a bar in regular hours costs a look into a dictionary.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ppo_workbench.config import BarsError
from ppo_workbench.config.arrays import Ints
from ppo_workbench.market.bars import NS_PER_DAY, NS_PER_SECOND, stamp_text
from ppo_workbench.market.calendars.exchange import (
    SlotTable,
    load_sessions,
    one_slot_each,
    places_in,
    session_days,
    sessions_of,
    slot_table,
    usual_count,
)

_AHEAD_NS = 120 * NS_PER_DAY


class Place(NamedTuple):
    """Where one bar lies; the fields are those of `market.bars.Bars`.

    `missing` counts the bars of the calendar between the bar before and this one.
    """

    start_ns: int
    end_ns: int
    session: int
    bar_of_session: int
    bars_left: int
    regular: bool
    missing: int


class Moment(NamedTuple):
    """Where a moment lies: the last slot that is over, counted on one scale with bars.

    Attributes:
        missing: Slots that are over since the last bar that was placed.
        bars_left: Slots of the session to come after the one that is over.
        open: The moment lies in a session, a slot of which is over.
        end_ns: Nanoseconds at which the session closes.
    """

    missing: int
    bars_left: int
    open: bool
    end_ns: int


@dataclass
class ClockMemory:
    """What the clock remembers, all of it plain numbers.

    Attributes:
        session: Number of the session of the last bar, 0 for the first.
        day: Days since 1970-01-01 of that session, -1 before the first bar.
        slot: Slot of the last bar.
        start_ns: Start of the last bar.
        phase_ns: Distance of the slots from the usual open, -1 until it is known.
    """

    session: int = 0
    day: int = -1
    slot: int = 0
    start_ns: int = 0
    phase_ns: int = -1


class BarClock:
    """Places bars of one calendar and length, each later than the one before.

    Attributes:
        daily: A bar is a session.
    """

    def __init__(
        self,
        calendar: str,
        bar_seconds: int,
        first_ns: int,
        last_ns: int,
        bars_per_session: int | None = None,
        *,
        full_sessions_only: bool = False,
    ) -> None:
        """Load the calendar.

        Args:
            calendar: Such as "XNYS" or "24/7".
            bar_seconds: Nominal length of a bar, 86400 for daily ones.
            first_ns: UTC nanoseconds; with `last_ns` the span whose most frequent number of
                slots is the length of a full session.
            last_ns: See `first_ns`.
            bars_per_session: Slots of a full session, where it is known.
            full_sessions_only: The bars leave half days out, as the synthetic market does: they
                are not missing.

        Raises:
            BarsError: The calendar is unknown or does not cover the span.
        """
        self._memory = ClockMemory()
        self._calendar, self._bar_ns = calendar, bar_seconds * NS_PER_SECOND
        self.daily = self._bar_ns >= NS_PER_DAY
        self._span = self._loaded = first_ns, last_ns
        self._phase_laid = self._entered = -1
        self._slots: SlotTable | None = None
        self._last: tuple[int, int] | None = None
        self._known, self._full_only = bars_per_session, full_sessions_only
        self._usual = bars_per_session or 1
        self._bases: list[int] = []  # slots of the table before each session
        self._places: dict[int, tuple[int, int, int, int, bool]] = {}
        self._load(first_ns, last_ns)

    @property
    def memory(self) -> ClockMemory:
        """What the clock remembers; to be set when a state is restored."""
        return self._memory

    @memory.setter
    def memory(self, memory: ClockMemory) -> None:
        self._memory, self._last = memory, None
        if memory.phase_ns != self._phase_laid:
            self._slots, self._places = None, {}

    @property
    def bars_per_session(self) -> int:
        """Slots of a full session; 1 for daily bars.

        Raises:
            BarsError: No bar was placed or anchored yet, so it is not known.
        """
        if self.daily:
            return 1
        if self._known is None and self._slots is None:
            raise BarsError("the clock has no bar yet, so its slots are unknown; place one first")
        return self._usual

    def anchor(self, start_ns: Ints) -> None:
        """Lay the slots in step with bars, int64 (T,): history, or the first bar."""
        self._cover(int(start_ns.min()), int(start_ns.max()))
        if self.daily or self._memory.phase_ns >= 0:
            self._lay()
            return
        at, regular, _ = sessions_of(start_ns, self._bar_ns, self._table)
        chosen = regular if regular.any() else np.ones(len(regular), np.bool_)
        slots = slot_table(start_ns[chosen], at[chosen], self._bar_ns, self._table)
        offset = slots.anchor_ns[0] - self._table.usual_open_ns[0]
        self._memory.phase_ns = int(offset % self._bar_ns)
        self._lay()

    def session_open(
        self, stamp_ns: int, wall_ns: int, *, bare: bool = True, ends: bool = False
    ) -> int | None:
        """Return the open of the session of a daily bar, None if its date has none.

        Args:
            stamp_ns: UTC nanoseconds of its stamp.
            wall_ns: Nanoseconds of the clock as it is written; midnight is a date.
            bare: A date without a time of day.
            ends: The stamp is the bar's end.
        """
        self._cover(stamp_ns - NS_PER_DAY, stamp_ns + NS_PER_DAY)
        stamp, wall = np.array([stamp_ns]), np.array([wall_ns])
        day = int(session_days(stamp, wall, np.array([bare]), self._table, ends=ends)[0])
        at = int(np.searchsorted(self._table.day, day))
        known = at < len(self._table.day) and self._table.day[at] == day
        return int(self._table.open_ns[at]) if known else None

    def place(self, start_ns: int) -> Place:
        """Place the next bar and remember it.

        Raises:
            BarsError: Its date is no session of the calendar.
        """
        place = self.look(start_ns)
        found = self._places[start_ns]
        self._memory.session, self._memory.start_ns = place.session, start_ns
        self._memory.day, self._memory.slot = int(self._table.day[found[0]]), found[1]
        self._last = found[0], self._bases[found[0]] + found[1]
        return place

    def look(self, start_ns: int) -> Place:
        """Place the next bar without remembering it.

        Raises:
            BarsError: Its date is no session of the calendar.
        """
        if start_ns not in self._places:
            self._enter_session(start_ns)
        at, slot, bars_left, end_ns, regular = self._places[start_ns]
        session, missing = self._memory.session, 0
        if self._memory.day >= 0:
            last, position = self._last or self._find_last()
            session += int(at != last)
            missing = max(self._bases[at] + slot - position - 1, 0)
        start = int(self._table.open_ns[at]) if self.daily else start_ns
        in_session = min(slot, self.bars_per_session - 1)
        return Place(start, end_ns, session, in_session, bars_left, regular, missing)

    def moment(self, now_ns: int) -> Moment:
        """Say which slots are over at a moment, by the calendar alone."""
        self._cover(now_ns, now_ns)
        slots = self._lay()
        anchors, closes = slots.anchor_ns, self._table.close_ns
        k = max(int(np.searchsorted(anchors, now_ns, side="right")) - 1, 0)
        if self.daily:
            over = now_ns >= closes[k]
            slot = 0
        else:
            over = now_ns - anchors[k] >= self._bar_ns
            at, passed = np.array([k]), np.array([now_ns - self._bar_ns - anchors[k]])
            slot = int(slots.of(at, np.maximum(passed, 0))[0])
            if now_ns >= closes[k]:
                slot = int(slots.count[k]) - 1
        position = self._bases[k] + slot if over else self._bases[k] - 1
        missing = 0
        if self._memory.day >= 0:
            missing = max(position - (self._last or self._find_last())[1], 0)
        left = int(slots.count[k]) - 1 - slot if over else int(slots.count[k])
        return Moment(missing, left, bool(over and now_ns < closes[k]), int(closes[k]))

    def overlaps(self, start_ns: int) -> bool:
        """Say whether a later bar starts before the last one has ended.

        A bar ends with its nominal length, or where the calendar opens or closes before that;
        one that starts there, such as 09:30 among full hours, ends with its slot.
        """
        last_ns = self._memory.start_ns
        if self.daily or self._memory.day < 0 or start_ns - last_ns >= self._bar_ns:
            return False
        slots = self._lay()
        table, at = self._table, (self._last or self._find_last())[0]
        near = slice(at, at + 2)  # after the close the next session may open
        hours = (table.open_ns, table.break_start_ns, table.break_end_ns, table.close_ns)
        edges = [edge for column in hours for edge in column[near].tolist()]
        if last_ns in edges:
            into = (last_ns - int(slots.anchor_ns[at])) % self._bar_ns
            edges.append(last_ns - into + self._bar_ns)
        return not any(last_ns < edge <= start_ns for edge in edges)

    def slots_until(self, moment_ns: int) -> int:
        """Count slots from that of the last bar to that of a later moment, as `bar_positions`.

        Raises:
            BarsError: The calendar does not reach so far.
        """
        self._cover(moment_ns, moment_ns)
        slots = self._lay()
        position = (self._last or self._find_last())[1]
        following = int(np.searchsorted(self._table.close_ns, moment_ns, side="left"))
        at = min(following, len(self._table.day) - 1)
        offset = np.array([moment_ns - 1 - slots.anchor_ns[at]])
        return self._bases[at] + int(slots.of(np.array([at]), offset)[0]) - position

    def _find_last(self) -> tuple[int, int]:
        """Return the last bar's session and its place on a scale of all slots of the table."""
        at = int(np.searchsorted(self._table.day, self._memory.day))
        self._last = at, self._bases[at] + self._memory.slot
        return self._last

    def _enter_session(self, start_ns: int) -> None:
        """Fill the places of all slots of the bar's session, and of the bar itself."""
        if self._slots is None or not self._loaded[0] <= start_ns <= self._loaded[1]:
            self.anchor(np.array([start_ns], np.int64))
        assert self._slots is not None
        if self.daily:
            self._enter_day(start_ns)
            return
        at, _, outside = sessions_of(np.array([start_ns]), self._bar_ns, self._table)
        if outside[0]:
            raise self._no_session(start_ns)
        k = int(at[0])
        if k != self._entered or not self._places:
            anchor, close = int(self._slots.anchor_ns[k]), int(self._table.close_ns[k])
            self._entered, self._places = k, {}
            self._add(np.arange(anchor, close, self._bar_ns, dtype=np.int64), k)
        self._add(np.array([start_ns], np.int64), k)

    def _add(self, starts: Ints, session: int) -> None:
        assert self._slots is not None
        at, regular, _ = sessions_of(starts, self._bar_ns, self._table)
        slot, left, end_ns = places_in(starts, at, regular, self._slots, self._table)
        columns = (starts, at, slot, left, end_ns, regular)
        for start, *place in zip(*(column.tolist() for column in columns), strict=True):
            if place[0] == session:
                self._places[start] = tuple(place)

    def _enter_day(self, start_ns: int) -> None:
        moment = np.array([1])  # of no midnight: a start is no date
        day = session_days(np.array([start_ns]), moment, moment > 1, self._table)[0]
        at = min(int(np.searchsorted(self._table.day, day)), len(self._table.day) - 1)
        if self._table.day[at] != day:
            raise self._no_session(start_ns)
        self._places = {start_ns: (at, 0, 0, int(self._table.close_ns[at]), True)}

    def _no_session(self, start_ns: int) -> BarsError:
        return BarsError(
            f"the bar of {stamp_text(start_ns, self._table.timezone)} lies on a date without a "
            f"session of calendar {self._calendar}; leave it out"
        )

    def _cover(self, first_ns: int, last_ns: int) -> None:
        if first_ns < self._loaded[0] or last_ns > self._loaded[1]:
            self._load(min(first_ns, self._loaded[0]), max(last_ns, self._span[1]))

    def _load(self, first_ns: int, last_ns: int) -> None:
        """Load sessions up to `last_ns`, and some months more where the calendar has them."""
        try:
            self._table = load_sessions(self._calendar, first_ns, last_ns + _AHEAD_NS)
            last_ns += _AHEAD_NS
        except BarsError:
            self._table = load_sessions(self._calendar, first_ns, last_ns)
        self._loaded = first_ns, last_ns
        self._slots, self._places, self._last = None, {}, None

    def _lay(self) -> SlotTable:
        """Return the slots over the loaded sessions, laid if need be."""
        if self._slots is not None:
            return self._slots
        table = self._table
        if self.daily:
            slots = one_slot_each(table)
        else:
            phase = self._phase_laid = self._memory.phase_ns
            first = table.usual_open_ns[:1] + max(phase, 0)
            slots = slot_table(first, np.zeros(1, np.int64), self._bar_ns, table)
        self._slots = slots
        inside = (table.close_ns > self._span[0]) & (table.open_ns <= self._span[1])
        self._usual = self._known or usual_count(slots.count[inside])
        left_out = self._full_only & (slots.count < self._usual)
        expected = np.where(left_out, 0, slots.count)
        self._bases = (np.cumsum(expected) - expected).tolist()
        return slots
