"""Source `file`: a user's csv, csv.gz, parquet or feather file becomes checked bars.

Nothing is repaired silently: the first bad row is named, and the two repairs there are
(`data.sort`, `data.drop_duplicates`) are asked for by the user and counted in the notes.
Row numbers in messages are 0-based data rows of the file as it is.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppo_workbench.config import BarsError, DataConfig, TimestampConvention, Volume
from ppo_workbench.market.bars import (
    NS_PER_DAY,
    NS_PER_SECOND,
    Bars,
    FloatArray,
    Int64Array,
    check_order,
    check_values,
)
from ppo_workbench.market.calendar import (
    Placement,
    SessionTable,
    check_timezone,
    find_bar_seconds,
    load_sessions,
    local_days,
    place_daily,
    place_intraday,
    session_days,
)
from ppo_workbench.market.tables import (
    Stamps,
    find_column,
    has_column,
    numbers,
    parse_stamps,
    read_table,
)
from ppo_workbench.market.years import sessions_per_year

if TYPE_CHECKING:
    import pandas as pd

PRICES = ("open", "high", "low", "close", "volume")
QUOTES = ("bid", "ask")
STAMP_NAMES = ("timestamp", "datetime", "date", "time")


@dataclass(frozen=True)
class _Rows:
    """The columns of T rows in one order, and which data row of the file each one was."""

    stamps: Stamps
    prices: dict[str, FloatArray]
    half_spread_bps: FloatArray
    extra: FloatArray
    row: Int64Array
    texts: "pd.Series"
    notes: list[str]

    def describe(self, at: int) -> str:
        """Name a row as it stands in the file."""
        row = int(self.row[at])
        return f"data row {row} ({self.texts.iloc[row]})"

    def take(self, order: Int64Array, note: str) -> "_Rows":
        return replace(
            self,
            stamps=replace(self.stamps, ns=self.stamps.ns[order]),
            prices={name: values[order] for name, values in self.prices.items()},
            half_spread_bps=self.half_spread_bps[order],
            extra=self.extra[order],
            row=self.row[order],
            notes=[*self.notes, note],
        )


def load_file(config: DataConfig) -> Bars:
    """Load `config.path`.

    Raises:
        BarsError: If the file or one of its rows breaks a rule.
    """
    if config.path is None:
        raise BarsError("data.path is not set, but data.source=file needs a file; set data.path")
    table = read_table(config.path, "data.path")
    name = Path(config.path).name
    return bars_from_table(name, name.split(".")[0], table, config, source="file")


def bars_from_table(
    label: str, instrument: str, table: "pd.DataFrame", config: DataConfig, *, source: str
) -> Bars:
    """Check a table of prices and place its rows in the sessions of `config.calendar`.

    Args:
        label: What to call the table in messages, such as the file's name.
        instrument: Name of the instrument unless `config.instrument` is set.
        table: T rows with stamp, open, high, low, close, volume, and bid, ask if known.
        config: How to read it.
        source: Name of the source.

    Raises:
        BarsError: If a column or row breaks a rule.
    """
    if config.timezone is not None:
        check_timezone(config.timezone)
    if table.index.name is not None:
        table = table.reset_index()
    rows = _put_in_order(label, _read_rows(label, table, config), config)
    if len(rows.row) < 2:
        raise BarsError(f"{label}: {len(rows.row)} bars, at least 2 are needed; give more bars")
    first_ns, last_ns = int(rows.stamps.ns[0]), int(rows.stamps.ns[-1])
    sessions = load_sessions(config.calendar, first_ns, last_ns)
    placement, notes = _place(label, rows, config, sessions)
    unlisted = np.full(len(rows.row), -1, np.int64)
    return Bars(
        instrument=config.instrument or instrument,
        source=source,
        calendar=sessions.name,
        timezone=sessions.timezone,
        bar_seconds=placement.bar_seconds,
        bars_per_session=placement.bars_per_session,
        sessions_per_year=sessions_per_year(
            sessions.name, sessions.day[np.unique(placement.calendar_session)]
        ),
        start_ns=placement.start_ns,
        open=rows.prices["open"],
        high=rows.prices["high"],
        low=rows.prices["low"],
        close=rows.prices["close"],
        volume=rows.prices["volume"],
        half_spread_bps=rows.half_spread_bps,
        session=placement.session,
        bar_of_session=placement.bar_of_session,
        bars_left=placement.bars_left,
        regular=placement.regular,
        extra=_lag(rows.extra, config.feature_lag_bars),
        extra_names=tuple(config.feature_columns),
        events=unlisted,
        events_ahead=unlisted.copy(),
        notes=(*rows.notes, *notes, *_placement_notes(placement, sessions)),
        end_ns=placement.end_ns,
        missing=placement.missing,
    )


def _read_rows(label: str, table: "pd.DataFrame", config: DataConfig) -> _Rows:
    """Parse the columns that are needed and check every row by itself."""
    names = _column_names(label, table, config)
    stamps = parse_stamps(label, table[names["timestamp"]], config.timezone, allow_dates=True)
    prices = {
        name: numbers(label, table[names[name]], name) if name in names else np.zeros(len(table))
        for name in PRICES
    }
    half_spread_bps, notes = _half_spread(label, table, names)
    notes += _shared_columns(names)
    zeros = int((prices["volume"] == 0).sum())
    if zeros and config.volume is Volume.traded:
        notes.append(f"{zeros} bars have zero volume")
    rows = _Rows(
        stamps=stamps,
        prices=prices,
        half_spread_bps=half_spread_bps,
        extra=_features(label, table, config.feature_columns),
        row=np.arange(len(table), dtype=np.int64),
        texts=table[names["timestamp"]],
        notes=notes,
    )
    check_values(label, prices, rows.describe)
    return rows


def _column_names(label: str, table: "pd.DataFrame", config: DataConfig) -> dict[str, str]:
    """Map our names to the table's own."""
    ours = ("timestamp", *PRICES, *QUOTES)
    for name in config.columns:
        if name not in ours:
            raise BarsError(
                f"data.columns={dict(config.columns)}: {name!r} is not a name of ours; map from "
                f"{', '.join(ours)} to the file's names"
            )
    names = {}
    for name in ours:
        theirs = config.columns.get(name, name)
        if name == "timestamp" and name not in config.columns:
            theirs = _stamp_name(label, table)
        if name in QUOTES and name not in config.columns and not has_column(table, theirs):
            continue
        if name == "volume" and config.volume is Volume.none:
            continue
        remedy = f"add it or set data.columns={{{name}: NAME_IN_THE_FILE}}"
        remedy += ", or data.volume=none" if name == "volume" else ""
        names[name] = find_column(label, table, theirs, remedy)
    return names


def _shared_columns(names: dict[str, str]) -> list[str]:
    """Note prices that are read from one column: a series of closes has no others, a slip has."""
    readers: dict[str, list[str]] = {}
    for ours, theirs in names.items():
        if ours in PRICES:
            readers.setdefault(theirs, []).append(ours)
    return [
        f"{' and '.join(ours)} are the same column {theirs!r}"
        for theirs, ours in readers.items()
        if len(ours) > 1
    ]


def _stamp_name(label: str, table: "pd.DataFrame") -> str:
    """Return the one column that holds stamps; a date beside a time is refused."""
    found = [name for name in STAMP_NAMES if has_column(table, name)]
    if len(found) > 1 and found[0] != "timestamp":
        raise BarsError(
            f"{label}: columns {found} may all hold the stamp; name one by "
            "data.columns={timestamp: NAME}, joining date and time into one column first"
        )
    return found[0] if found else "timestamp"


def _half_spread(
    label: str, table: "pd.DataFrame", names: dict[str, str]
) -> tuple[FloatArray, list[str]]:
    """Return half of ask - bid in basis points of the mid price; NaN where there is no quote.

    An empty, zero or crossed quote (bid above ask) is no quote; these rows are counted.
    """
    if not all(name in names for name in QUOTES):
        return np.full(len(table), np.nan), []
    bid, ask = (numbers(label, table[names[name]], name) for name in QUOTES)
    for name, values in (("bid", bid), ("ask", ask)):
        broken = np.isinf(values) | (values < 0)
        if broken.any():
            row = int(np.argmax(broken))
            raise BarsError(
                f"{label}: data row {row} has {name}={values[row]:g}, but a quote must be finite "
                "and not negative; correct it or leave the cell empty"
            )
    quoted = (bid > 0) & (ask >= bid)
    spread = np.full(len(table), np.nan)
    spread[quoted] = (ask - bid)[quoted] / (ask + bid)[quoted] * 1e4
    missing = int((~quoted).sum())
    counted = f", {missing} bars without a usable quote" if missing else ""
    return spread, [f"half spread from the columns bid and ask{counted}"]


def _features(label: str, table: "pd.DataFrame", wanted: list[str]) -> FloatArray:
    """Return the user's feature columns, float64 (T, E); only leading cells may be empty."""
    columns = []
    for name in wanted:
        theirs = find_column(label, table, name, "correct data.feature_columns")
        values = numbers(label, table[theirs], name)
        known = np.maximum.accumulate(~np.isnan(values))
        broken = np.isinf(values) | (np.isnan(values) & known) | ~known.any()
        if broken.any():
            row = int(np.argmax(broken))
            raise BarsError(
                f"{label}: data row {row} has {name}={values[row]:g}, but a feature must be finite "
                "once it has begun; fill the gaps with what was known then"
            )
        columns.append(values)
    return np.column_stack(columns) if columns else np.empty((len(table), 0))


def _lag(extra: FloatArray, bars: int) -> FloatArray:
    """Shift features down: row t holds what the file had in row t - bars; the first are NaN."""
    lagged = np.full_like(extra, np.nan)
    lagged[bars:] = extra[: max(len(extra) - bars, 0)]
    return lagged


def _put_in_order(label: str, rows: _Rows, config: DataConfig) -> _Rows:
    """Apply the repairs that were asked for, then insist on stamps that rise strictly."""
    out_of_order = int((np.diff(rows.stamps.ns) < 0).sum())
    if config.sort and out_of_order:
        order = np.argsort(rows.stamps.ns, kind="stable").astype(np.int64)
        rows = rows.take(order, f"data.sort: rows sorted, {out_of_order} were out of order")
    repeated = np.concatenate([[False], np.diff(rows.stamps.ns) == 0])
    if config.drop_duplicates and repeated.any():
        first = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(repeated))))
        differ = np.any([v != v[first] for v in rows.prices.values()], axis=0).sum()
        note = f"data.drop_duplicates: {repeated.sum()} rows dropped, {differ} of them with "
        rows = rows.take(np.flatnonzero(~repeated).astype(np.int64), note + "other values")
    check_order(label, rows.stamps.ns, rows.describe)
    return rows


def _place(
    label: str, rows: _Rows, config: DataConfig, sessions: SessionTable
) -> tuple[Placement, list[str]]:
    """Put the rows into sessions; return notes on how stamps were read."""
    if rows.stamps.are_dates:
        day = rows.stamps.ns // NS_PER_DAY
        return place_daily(label, day, sessions, rows.describe), ["daily bars, stamps are dates"]
    is_end = config.timestamp is TimestampConvention.bar_end
    day = local_days(rows.stamps.ns, sessions.timezone)
    bar_seconds = find_bar_seconds(label, rows.stamps.ns, day)
    if bar_seconds * NS_PER_SECOND >= NS_PER_DAY:
        day = session_days(rows.stamps.ns, sessions, ends=is_end)
        note = f"daily bars, dates of the stamps in {sessions.timezone}"
        return place_daily(label, day, sessions, rows.describe), [note]
    start_ns = rows.stamps.ns - bar_seconds * NS_PER_SECOND * int(is_end)
    placement = place_intraday(label, start_ns, bar_seconds, sessions, rows.describe)
    notes = [f"stamps are read as bar {'ends' if is_end else 'starts'} (data.timestamp)"]
    if not is_end and _look_like_ends(placement, sessions):
        notes.append(
            "stamps look like bar ends (one at the close, none at the open): "
            "if so, set data.timestamp=bar_end"
        )
    return placement, notes


def _look_like_ends(placement: Placement, sessions: SessionTable) -> bool:
    """Tell whether most sessions have a bar that starts at the close, and none at the open."""
    at_close = placement.start_ns == sessions.close_ns[placement.calendar_session]
    at_open = placement.regular & (placement.bar_of_session == 0)
    return not at_open.any() and int(at_close.sum()) * 2 > int(placement.session[-1]) + 1


def _placement_notes(placement: Placement, sessions: SessionTable) -> list[str]:
    """Say what is missing from, and what lies outside, the calendar's regular hours."""
    notes = []
    first, last = int(placement.calendar_session[0]), int(placement.calendar_session[-1])
    nominal = int(placement.slots.count[first : last + 1].sum())
    scale = placement.slots.count.max() + 1
    slot = placement.calendar_session * scale + placement.bar_of_session
    missing = nominal - len(np.unique(slot[placement.regular]))
    if missing > 0:
        whole = last - first - int(placement.session[-1])
        notes.append(
            f"{missing} of {nominal} regular bars of calendar {sessions.name} are missing "
            f"({whole} whole sessions)"
        )
    outside = int((~placement.regular).sum())
    if outside:
        notes.append(f"{outside} bars lie outside regular hours: nothing is traded in them")
    return notes
