"""Price bars of one instrument: the type, its invariants and the check of a fill rule.

Invariants (`validate_bars`): stamps rise strictly; prices are finite and above zero;
low <= open, close <= high; volume is finite and not negative (zero is allowed).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np

from ppo_workbench.config import BarsError, Fill
from ppo_workbench.config.arrays import Bools, Floats, Ints
from ppo_workbench.market.reader.conventions import Conventions
from ppo_workbench.market.reader.faults import Fault

Describe = Callable[[int], str]

NS_PER_SECOND = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_SECOND
MAX_OPENS_EQUAL_PRIOR_CLOSE_FRAC = 0.05
HIGHEST_PRICE = 1e150  # beyond it the square of a price is no number
_RELATIVE_TOLERANCE = 1e-9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Bars:
    """T price bars of one instrument in time order; every array has T rows.

    Attributes:
        instrument: Name of the instrument.
        source: Name of the source that made the bars, such as "file".
        calendar: exchange_calendars name such as "XNYS", or "24/7".
        timezone: IANA name of the calendar's time zone.
        bar_seconds: Nominal length of a bar; 86400 for daily bars.
        bars_per_session: Nominal number of bars of a full session; 1 for daily bars.
        sessions_per_year: Sessions that hold bars in a year of calendar time
            (`market.calendars.years`); of a slice, that of the whole series.
        start_ns: int64, UTC nanoseconds of the bar's start (daily: the session's open).
        open: float64, price.
        high: float64, price.
        low: float64, price.
        close: float64, price.
        volume: float64, shares or contracts.
        half_spread_bps: float64, basis points of the mid price, NaN where no quote.
        session: int64, 0, 1, 2, ... over the sessions that hold bars.
        bar_of_session: int64, slot by the clock, 0 .. bars_per_session - 1.
        bars_left: int64, bars still to come in this session by the calendar, 0 at its last.
        regular: bool, the bar overlaps the calendar's regular hours.
        extra: float64, shape (T, E), the user's features, already lagged, leading rows NaN.
        extra_names: E names.
        events: int64, bars since the last listed event that was over at the bar's end, or -1.
        events_ahead: int64, nominal bars until the next scheduled event, or -1.
        notes: Assumptions and counted repairs, for the screen and the record.
        end_ns: int64, UTC nanoseconds of the bar's end: start + bar_seconds, or the
            session's close where that comes earlier (known beforehand). Filled in when
            left out.
        missing: int64, bars of the calendar between the bar before and this one; none where
            left out.
        conventions: How the file was read, which a stream has to have in common with it.
        has_volume: `volume` says what was traded (`data.volume`): a bar of volume 0 fills no
            order. False where it counts ticks, or is never above 0.
    """

    instrument: str
    source: str
    calendar: str
    timezone: str
    bar_seconds: int
    bars_per_session: int
    sessions_per_year: float
    start_ns: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    half_spread_bps: Floats
    session: Ints
    bar_of_session: Ints
    bars_left: Ints
    regular: Bools
    extra: Floats
    extra_names: tuple[str, ...]
    events: Ints
    events_ahead: Ints
    notes: tuple[str, ...]
    end_ns: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    missing: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    has_volume: bool = True
    conventions: Conventions | None = None

    def __post_init__(self) -> None:
        """Derive the ends of the bars where they were left out."""
        if len(self.end_ns) == 0:
            end_ns = self.start_ns + self.bar_seconds * NS_PER_SECOND
            object.__setattr__(self, "end_ns", end_ns)
        if len(self.missing) == 0:
            object.__setattr__(self, "missing", np.zeros(len(self.start_ns), np.int64))

    def __len__(self) -> int:
        """Return the number of bars T."""
        return len(self.start_ns)

    def slice(self, start: int, stop: int) -> "Bars":
        """Copy the bars `start` .. `stop - 1`; the copy shares no memory with this object."""
        return replace(self, **{name: getattr(self, name)[start:stop].copy() for name in _PER_BAR})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex digits of stamps, prices, volume and spread."""
        digest = hashlib.sha256(f"{len(self)} {self.bar_seconds}".encode())
        digest.update(np.ascontiguousarray(self.start_ns, dtype="<i8").tobytes())
        for name in ("open", "high", "low", "close", "volume", "half_spread_bps"):
            # Adding zero turns -0.0 into 0.0, `where` gives every NaN the same bits.
            values = np.asarray(getattr(self, name), dtype="<f8") + 0.0
            digest.update(np.where(np.isnan(values), np.nan, values).tobytes())
        return digest.hexdigest()

    @property
    def session_starts(self) -> Ints:
        """int64, row of the first bar of every session."""
        if len(self) == 0:
            return np.empty(0, np.int64)
        changes = np.flatnonzero(np.diff(self.session)) + 1
        return np.concatenate([np.zeros(1, np.int64), changes.astype(np.int64)])

    @property
    def extra_warmup_bars(self) -> int:
        """Number of leading rows in which a user's feature is not known yet."""
        unknown = np.flatnonzero(np.isnan(self.extra).any(axis=1))
        return int(unknown[-1]) + 1 if len(unknown) else 0


_PER_BAR = tuple(item.name for item in fields(Bars) if item.type in (Ints, Floats, Bools))


def stamp_text(ns: int, timezone: str) -> str:
    """Write UTC nanoseconds as ISO 8601 with the zone's offset."""
    moment = _EPOCH + timedelta(microseconds=ns // 1000)
    return moment.astimezone(ZoneInfo(timezone)).isoformat()


def validate_bars(bars: Bars) -> None:
    """Check the invariants of `Bars`.

    Raises:
        BarsError: Names the first row that breaks a rule, its stamp, value and remedy.
    """
    label = f"bars of {bars.instrument}"
    if len(bars) < 2:
        raise BarsError(f"{label}: {len(bars)} bars, at least 2 are needed; give more bars")
    for name in _PER_BAR:
        rows = len(getattr(bars, name))
        if rows != len(bars):
            raise BarsError(f"{label}: {name} has {rows} rows, must have {len(bars)} as start_ns")
    prices = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}

    def describe(row: int) -> str:
        return f"data row {row} ({stamp_text(int(bars.start_ns[row]), bars.timezone)})"

    check_values(label, prices, describe)
    check_order(label, bars.start_ns, describe)


def check_values(label: str, prices: dict[str, Floats], describe: Describe) -> None:
    """Check prices and volume row by row.

    Args:
        label: What to call the bars in the message, such as the file's name.
        prices: float64 (T,) under the names open, high, low, close, volume.
        describe: Words for a row, such as "data row 3 (2013-10-04 09:33:00-04:00)".

    Raises:
        Fault: Names the first row that breaks a rule, and holds all that break the same.
    """
    broken = [found for found in _value_rules(prices) if found[0].any()]
    if not broken:
        return
    mask, rule, names = min(broken, key=lambda item: int(np.argmax(item[0])))
    row = int(np.argmax(mask))
    values = ", ".join(f"{name}={prices[name][row]:g}" for name in names)
    raise Fault(
        f"{label}: {describe(row)} has {values}, but {rule}; correct or remove the row",
        rule,
        np.flatnonzero(mask).tolist(),
    )


def _value_rules(
    prices: dict[str, Floats],
) -> list[tuple[Bools, str, tuple[str, ...]]]:
    """List (rows that break the rule, the rule, the columns to quote); NaN breaks only one."""
    rules: list[tuple[Bools, str, tuple[str, ...]]] = []
    for name in ("open", "high", "low", "close"):
        values = prices[name]
        rules.append((~np.isfinite(values), f"{name} must be a finite number", (name,)))
        rules.append((values <= 0, f"{name} must be above 0", (name,)))
        rules.append((values > HIGHEST_PRICE, f"{name} must be {HIGHEST_PRICE:g} or less", (name,)))
    volume = prices["volume"]
    rules.append((~np.isfinite(volume), "volume must be a finite number", ("volume",)))
    rules.append((volume < 0, "volume must not be negative", ("volume",)))
    high, low = prices["high"], prices["low"]
    slack = _RELATIVE_TOLERANCE * np.abs(high)
    rules.append((high < low - slack, "high must not be below low", ("high", "low")))
    for name in ("open", "close"):
        outside = (prices[name] > high + slack) | (prices[name] < low - slack)
        rules.append((outside, f"{name} must lie between low and high", (name, "low", "high")))
    return rules


def check_order(label: str, start_ns: Ints, describe: Describe) -> None:
    """Check that stamps rise strictly.

    Args:
        label: What to call the bars in the message.
        start_ns: int64 (T,), UTC nanoseconds.
        describe: Words for a row, such as "data row 3 (2013-10-04 09:33:00-04:00)".

    Raises:
        BarsError: Names the first row that is out of order or repeats a stamp.
    """
    steps = np.diff(start_ns)
    if (steps > 0).all():
        return
    at = int(np.argmax(steps <= 0))
    here, before = describe(at + 1), describe(at)
    if steps[at] == 0:
        raise BarsError(
            f"{label}: {here} has the same stamp as {before}, but stamps must differ; remove one "
            "of the rows"
        )
    raise BarsError(
        f"{label}: {here} is earlier than {before}, but rows must be in time order; sort the rows"
    )


def opens_equal_prior_close_frac(bars: Bars) -> float:
    """Return the share of opens that equal the prior close exactly.

    Intraday only neighbours within a session count, of daily bars all neighbours; 0 if
    there are none.
    """
    equal = bars.open[1:] == bars.close[:-1]
    if bars.bars_per_session > 1:
        equal = equal[bars.session[1:] == bars.session[:-1]]
    return float(equal.mean()) if len(equal) else 0.0


def check_fill(bars: Bars, fill: Fill) -> None:
    """Refuse next-open fills where opens are copies of the prior close.

    An open that equals the prior close makes a fill at the next open a fill at the very
    close on which was decided.

    Raises:
        BarsError: If `fill` is `next_open` and more than 5 % of opens equal the prior close.
    """
    if fill is not Fill.next_open:
        return
    share = opens_equal_prior_close_frac(bars)
    if share > MAX_OPENS_EQUAL_PRIOR_CLOSE_FRAC:
        raise BarsError(
            f"bars of {bars.instrument}: {share:.1%} of opens equal the prior close, but "
            f"env.fill=next_open allows at most {MAX_OPENS_EQUAL_PRIOR_CLOSE_FRAC:.0%} (it would "
            "fill at the close that was decided on); set env.fill=next_close"
        )
