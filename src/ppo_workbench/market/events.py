"""A schedule of events (news releases, decisions of a central bank) laid over the bars.

The file lists events that are announced beforehand: their times may be known before they
happen, so bars also count down to the next one.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ppo_workbench.config import BarsError
from ppo_workbench.config.arrays import Ints
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.calendars.clock import BarClock, Place
from ppo_workbench.market.calendars.exchange import bar_positions, load_sessions
from ppo_workbench.market.reader.columns import find_column
from ppo_workbench.market.reader.layout import read_table
from ppo_workbench.market.reader.stamps import parse_stamps


def add_events(bars: Bars, path: str) -> Bars:
    """Fill `events` and `events_ahead` from a csv file with the columns time and kind.

    Events before the first bar are left out and counted in the notes.

    Args:
        bars: T bars.
        path: The file; times are ISO 8601 with an offset, in any order.

    Raises:
        BarsError: If the file or one of its rows is not as described.
    """
    label = Path(path).name
    times, kinds = read_events(path)
    times = np.sort(times)
    kept = times[times > bars.start_ns[0]]
    note = (
        f"{label}: {len(kept)} events ({', '.join(kinds)})"
        f"{f', {len(times) - len(kept)} before the first bar left out' * (len(times) > len(kept))}"
    )
    last_ns = int(max(bars.end_ns[-1], kept[-1])) if len(kept) else int(bars.end_ns[-1])
    table = load_sessions(bars.calendar, int(bars.start_ns[0]), last_ns)
    at_bar, at_event = bar_positions(bars.start_ns, bars.bar_seconds, table, kept)
    return replace(
        bars,
        events=_bars_since(bars.end_ns, kept),
        events_ahead=_bars_until(bars.end_ns, kept, at_bar, at_event),
        notes=(*bars.notes, note),
    )


@dataclass
class EventMemory:
    """What a stream of events remembers, all of it plain numbers.

    Attributes:
        since: Bars since the last event, -1 before the first.
        end_ns: End of the last bar, -1 before the first.
    """

    since: int = -1
    end_ns: int = -1


class EventStream:
    """Counts bars since and until listed events one bar at a time, as `add_events` for a file."""

    def __init__(self, path: str) -> None:
        """Read the file.

        Raises:
            BarsError: If the file or one of its rows is not as `add_events` describes.
        """
        self._times = np.sort(read_events(path)[0])
        self.memory = EventMemory()

    def step(self, clock: BarClock, place: Place) -> tuple[int, int]:
        """Move on to the bar that `clock` has just placed.

        Returns:
            Bars since the last event, or -1, and until the next one, or -1.
        """
        memory, times = self.memory, self._times
        before_ns = place.start_ns if memory.end_ns < 0 else memory.end_ns
        passed, known = np.searchsorted(times, (before_ns, place.end_ns), side="right").tolist()
        if known > passed:
            memory.since = 0
        elif memory.since >= 0:
            memory.since += 1
        memory.end_ns = place.end_ns
        if known == len(times):
            return memory.since, -1
        try:
            return memory.since, max(clock.slots_until(int(times[known])), 1)
        except BarsError:  # beyond the calendar, a year and more ahead: no rule looks so far
            return memory.since, -1


def read_events(path: str) -> tuple[Ints, list[str]]:
    """Read times (int64 UTC nanoseconds, in file order) and the sorted distinct kinds.

    Raises:
        BarsError: If the file cannot be read, a column or kind is missing, or a time is not
            ISO 8601 with an offset.
    """
    label = Path(path).name
    table, _ = read_table(path, "data.events_path")
    moments = table[find_column(label, list(table.columns), "time")]
    stamps = parse_stamps(label, moments, None, allow_dates=False)
    kinds = table[find_column(label, list(table.columns), "kind")]
    if kinds.isna().any():
        row = int(np.argmax(kinds.isna().to_numpy()))
        raise BarsError(f"{label}: data row {row} has no kind, but every event needs one; add it")
    return stamps.ns, sorted({str(kind).strip() for kind in kinds})


def _bars_since(end_ns: Ints, times: Ints) -> Ints:
    """Count rows since the bar in which the last event came, int64 (T,), -1 before the first."""
    known = np.searchsorted(times, end_ns, side="right") - 1
    if len(times) == 0:
        return np.full(len(end_ns), -1, np.int64)
    came_in = np.searchsorted(end_ns, times, side="left")
    since = np.arange(len(end_ns)) - came_in[np.maximum(known, 0)]
    return np.where(known >= 0, since, -1).astype(np.int64)


def _bars_until(end_ns: Ints, times: Ints, at_bar: Ints, at_event: Ints) -> Ints:
    """Count nominal bars until the next event, int64 (T,), at least 1, -1 after the last."""
    coming = np.searchsorted(times, end_ns, side="right")
    if len(times) == 0:
        return np.full(len(end_ns), -1, np.int64)
    ahead = at_event[np.minimum(coming, len(times) - 1)] - at_bar
    return np.where(coming < len(times), np.maximum(ahead, 1), -1).astype(np.int64)
