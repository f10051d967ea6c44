"""A whole table of a user's bars: checked, put in order and placed in its sessions.

Nothing is repaired silently: the first bad row is named, and the repairs there are
(`data.sort`, `data.keep`, `data.adjust`) are asked for by the user and counted in the notes.
Row numbers in messages are 0-based data rows of the file as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_workbench.config import BarsError, DataConfig, Keep, TimestampConvention
from ppo_workbench.config.arrays import Bools, Floats, Ints
from ppo_workbench.market.bars import Bars, check_values
from ppo_workbench.market.calendars.exchange import (
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
from ppo_workbench.market.calendars.years import sessions_per_year
from ppo_workbench.market.reader.columns import (
    NAMES,
    chosen_one,
    column_names,
    find_column,
    numbers,
    of_instrument,
    plain,
    shared_columns,
)
from ppo_workbench.market.reader.conventions import EVIDENCE, PRICES, QUOTES, conventions_of
from ppo_workbench.market.reader.faults import Fault, refuse, refuse_values
from ppo_workbench.market.reader.layout import Layout, read_table
from ppo_workbench.market.reader.plausible import adjusted, changed_length, check_weekly, suspicions
from ppo_workbench.market.reader.stamps import Stamps, parse_stamps, starts_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class _Rows:
    """The columns of T rows in one order, and which data row of the file each one was."""

    stamps: Stamps
    prices: dict[str, Floats]
    evidence: dict[str, Floats]
    half_spread_bps: Floats
    extra: Floats
    row: Ints
    texts: "pd.Series"
    notes: list[str]

    def describe(self, at: int) -> str:
        """Name a row as it stands in the file."""
        return f"data row {self.row[at]} ({self.texts.loc[self.row[at]]})"

    def take(self, order: Any, note: str) -> "_Rows":
        stamps = self.stamps
        return replace(
            self,
            stamps=Stamps(stamps.ns[order], stamps.wall_ns[order], stamps.bare[order]),
            prices={name: values[order] for name, values in self.prices.items()},
            evidence={name: values[order] for name, values in self.evidence.items()},
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
    try:
        table, layout = read_table(config.path, "data.path", config.header)
        name = Path(config.path).name
        return bars_from_table(
            name, name.split(".")[0], table, config, source="file", layout=layout
        )
    except Fault as fault:
        hint = f"; task=check_data data.path={config.path} names all that is wrong with it"
        raise Fault(f"{fault}{hint}", fault.kind, fault.rows, fault.fix) from None


def bars_from_table(
    label: str,
    instrument: str,
    table: "pd.DataFrame",
    config: DataConfig,
    *,
    source: str,
    layout: Layout | None = None,
) -> Bars:
    """Check a table of prices and place its rows in the sessions of `config.calendar`.

    Args:
        label: What to call the table in messages, such as the file's name.
        instrument: Name of the instrument unless `config.instrument` is set.
        table: T rows with stamp, open, high, low, close, volume, and bid, ask if known; its
            index numbers the rows.
        config: How to read it.
        source: Name of the source.
        layout: Of the text that it was read from.

    Raises:
        BarsError: If a column or row breaks a rule.
    """
    if config.timezone is not None:
        check_timezone(config.timezone)
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    elif not (table.index.is_unique and table.index.dtype.kind == "i"):
        table = table.reset_index(drop=True)
    layout = layout or Layout()
    table, names, chosen, long = _one_instrument(label, table, config)
    _check_count(label, len(table))
    rows = _put_in_order(label, _read_rows(label, table, config, names), config)
    _check_count(label, len(rows.row))
    check_weekly(label, rows.stamps.ns, rows.describe)
    first_ns, last_ns = int(rows.stamps.ns[0]), int(rows.stamps.ns[-1])
    sessions = load_sessions(config.calendar, first_ns, last_ns)
    try:
        placement, notes = _place(label, rows, config, sessions)
    except Fault as fault:  # of a calendar, which knows positions alone
        raise Fault(str(fault), fault.kind, rows.row[fault.rows], fault.fix) from None
    prices, adjustment = adjusted(
        label, rows.prices, rows.evidence, config.adjust, rows.row, rows.describe
    )
    doubts = suspicions(prices, placement, config.volume, rows.describe)
    unlisted = np.full(len(rows.row), -1, np.int64)
    return Bars(
        instrument=config.instrument or (chosen if chosen else instrument),
        source=source,
        calendar=sessions.name,
        timezone=sessions.timezone,
        bar_seconds=placement.bar_seconds,
        bars_per_session=placement.bars_per_session,
        sessions_per_year=sessions_per_year(
            sessions.name, sessions.day[np.unique(placement.calendar_session)]
        ),
        start_ns=placement.start_ns,
        open=prices["open"],
        high=prices["high"],
        low=prices["low"],
        close=prices["close"],
        volume=prices["volume"],
        half_spread_bps=rows.half_spread_bps,
        session=placement.session,
        bar_of_session=placement.bar_of_session,
        bars_left=placement.bars_left,
        regular=placement.regular,
        extra=_lag(rows.extra, config.feature_lag_bars),
        extra_names=tuple(config.feature_columns),
        events=unlisted,
        events_ahead=unlisted.copy(),
        notes=(
            *layout.notes(),
            *rows.notes,
            *notes,
            *adjustment,
            *_placement_notes(placement, sessions),
            *doubts,
        ),
        end_ns=placement.end_ns,
        missing=placement.missing,
        conventions=conventions_of(
            config,
            columns=names if source == "file" else dict(config.columns),
            instrument=chosen,
            long=long,
            bar_seconds=placement.bar_seconds,
            separator=layout.separator,
            decimal=layout.decimal,
        ),
    )


def _check_count(label: str, rows: int) -> None:
    if rows < 2:
        raise BarsError(f"{label}: {rows} bars, at least 2 are needed; give more bars")


def _one_instrument(
    label: str, table: "pd.DataFrame", config: DataConfig
) -> "tuple[pd.DataFrame, dict[str, str], str | None, bool]":
    """Return rows and columns of one instrument, our names, its name, whether there are more."""
    kept, chosen = of_instrument(label, list(table.columns), config.instrument)
    if kept:
        table = table[list(kept)].rename(columns=kept)
    names = column_names(label, list(table.columns), config)
    found: list[str] = []
    if "instrument" in names:
        column = table[names["instrument"]].astype("str").str.strip()
        found = sorted(column.unique())
        chosen = chosen_one(label, found, f"column {names['instrument']!r}", config.instrument)
        if len(found) > 1:
            table = table[(column == chosen).to_numpy()]
    return table, names, chosen, len(found) > 1


def _read_rows(
    label: str, table: "pd.DataFrame", config: DataConfig, names: dict[str, str]
) -> _Rows:
    """Parse the columns that are needed and check every row by itself."""
    texts = table[names["timestamp"]]
    notes = _other_stamps(list(table.columns), names)
    if "time" in names:
        texts = texts.astype("str").str.strip() + " " + table[names["time"]].astype("str")
        notes.append(f"stamps are joined of {names['timestamp']!r} and {names['time']!r}")
    stamps = parse_stamps(label, texts, config.timezone, allow_dates=True)
    read = {
        name: numbers(label, table[names[name]], name)
        for name in (*PRICES, *EVIDENCE)
        if name in names
    }
    prices = {name: read.get(name, np.zeros(len(table))) for name in PRICES}
    half_spread_bps, quoted = _half_spread(label, table, names)
    rows = _Rows(
        stamps=stamps,
        prices=prices,
        evidence={name: read[name] for name in EVIDENCE if name in read},
        half_spread_bps=half_spread_bps,
        extra=_features(label, table, config.feature_columns),
        row=table.index.to_numpy().astype(np.int64),
        texts=texts,
        notes=notes + quoted + shared_columns(names),
    )
    try:
        check_values(label, prices, rows.describe)
    except Fault as fault:
        raise Fault(str(fault), fault.kind, rows.row[fault.rows]) from None
    return rows


def _other_stamps(columns: Sequence[object], names: dict[str, str]) -> list[str]:
    """Say which columns could have been the stamp too."""
    used = (names["timestamp"], names.get("time"))
    others = [str(c) for c in columns if plain(c) in NAMES["timestamp"] and c not in used]
    return [f"stamps are {used[0]!r}, not {', '.join(map(repr, others))}"] if others else []


def _half_spread(
    label: str, table: "pd.DataFrame", names: dict[str, str]
) -> tuple[Floats, list[str]]:
    """Return half of ask - bid in basis points of the mid price; NaN where there is no quote.

    An empty, zero or crossed quote (bid above ask) is no quote; these rows are counted.
    """
    if not all(name in names for name in QUOTES):
        return np.full(len(table), np.nan), []
    bid, ask = (numbers(label, table[names[name]], name) for name in QUOTES)
    rule = "a quote must be finite and not negative; correct it or leave the cell empty"
    for name, values in (("bid", bid), ("ask", ask)):
        refuse_values(label, table.index, name, values, np.isinf(values) | (values < 0), rule)
    quoted = (bid > 0) & (ask >= bid)
    spread = np.full(len(table), np.nan)
    spread[quoted] = (ask - bid)[quoted] / (ask + bid)[quoted] * 1e4
    missing = int((~quoted).sum())
    counted = f", {missing} bars without a usable quote" if missing else ""
    return spread, [f"half spread from the columns bid and ask{counted}"]


def _features(label: str, table: "pd.DataFrame", wanted: list[str]) -> Floats:
    """Return the user's feature columns, float64 (T, E); only leading cells may be empty."""
    columns = []
    for name in wanted:
        theirs = find_column(label, list(table.columns), name, "correct data.feature_columns")
        values = numbers(label, table[theirs], name)
        known = np.maximum.accumulate(~np.isnan(values))
        broken = np.isinf(values) | (np.isnan(values) & known) | ~known.any()
        rule = "a feature must be finite once it has begun; fill the gaps with what was known then"
        refuse_values(label, table.index, name, values, broken, rule)
        columns.append(values)
    return np.column_stack(columns) if columns else np.empty((len(table), 0))


def _lag(extra: Floats, bars: int) -> Floats:
    """Shift features down: row t holds what the file had in row t - bars; the first are NaN."""
    lagged = np.full_like(extra, np.nan)
    lagged[bars:] = extra[: max(len(extra) - bars, 0)]
    return lagged


def _put_in_order(label: str, rows: _Rows, config: DataConfig) -> _Rows:
    """Apply the repairs that were asked for, then insist on stamps that rise strictly."""
    falls = np.concatenate([[False], np.diff(rows.stamps.ns) < 0])
    if config.sort and falls.any():
        order = np.argsort(rows.stamps.ns, kind="stable")
        if falls.mean() > 0.5:  # newest first, the copies of a bar too
            order = len(falls) - 1 - np.argsort(rows.stamps.ns[::-1], kind="stable")
        rows = rows.take(order, f"data.sort: rows sorted, {falls.sum()} were out of order")
    else:
        refuse(
            falls,
            rows.row,
            "out of order",
            lambda at: (
                f"{label}: {rows.describe(at)} is earlier than {rows.describe(at - 1)}, but rows "
                "must be in time order; sort the rows or set data.sort=true"
            ),
            {"sort": True},
        )
    repeated = np.concatenate([[False], np.diff(rows.stamps.ns) == 0])
    return _without_copies(label, rows, repeated, config) if repeated.any() else rows


def _without_copies(label: str, rows: _Rows, repeated: Bools, config: DataConfig) -> _Rows:
    """Keep one copy of each bar as `data.keep` says; refuse what cannot be copies of one."""
    first = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(repeated))))
    low, high = rows.prices["low"], rows.prices["high"]
    foreign = repeated & ((low > high[first]) | (high < low[first]))
    labels = rows.row

    def other(at: int) -> str:
        return (
            f"{label}: {rows.describe(at)} has the stamp of {rows.describe(int(first[at]))}, but "
            f"its prices ({low[at]:g} to {high[at]:g}, there {low[first[at]]:g} to "
            f"{high[first[at]]:g}) are those of another instrument; keep one instrument in a file, "
            "or name the column that tells them apart, data.columns={instrument: NAME}"
        )

    refuse(foreign, labels, "several instruments", other)
    differ = np.any([values != values[first] for values in rows.prices.values()], axis=0)

    def same(at: int) -> str:
        return (
            f"{label}: {rows.describe(at)} has the same stamp as {rows.describe(at - 1)} "
            f"({int(differ.sum())} of {int(repeated.sum())} copies differ), but stamps must "
            "differ; set data.keep=last or data.keep=first"
        )

    if config.keep is None:
        refuse(repeated, labels, "repeated stamp", same, {"keep": Keep.last})
    last = np.concatenate([repeated[1:], [False]])
    kept = ~(last if config.keep is Keep.last else repeated)
    at = int(np.flatnonzero(repeated)[0])
    note = (
        f"data.keep={config.keep.value if config.keep else ''}: {repeated.sum()} copies dropped, "
        f"{differ.sum()} of them with other values, the first at {rows.describe(at)}"
    )
    return rows.take(kept, note)


def _place(
    label: str, rows: _Rows, config: DataConfig, sessions: SessionTable
) -> tuple[Placement, list[str]]:
    """Put the rows into sessions; return notes on how stamps were read."""
    stamps, ends = rows.stamps, config.timestamp is TimestampConvention.bar_end
    local_day = local_days(stamps.ns, sessions.timezone)
    bar_seconds = find_bar_seconds(label, stamps.ns, local_day)
    changed_length(label, stamps.ns, local_day, bar_seconds, rows.describe)
    if bar_seconds >= 86_400:
        day = session_days(stamps.ns, stamps.wall_ns, stamps.bare, sessions, ends=ends)
        note = f"daily bars, midnights are dates, other stamps times in {sessions.timezone}"
        return place_daily(label, day, sessions, rows.describe), [note]
    start_ns = starts_of(stamps.ns, bar_seconds, ends=ends)
    placement = place_intraday(label, start_ns, bar_seconds, sessions, rows.describe)
    notes = [f"stamps are read as bar {'ends' if ends else 'starts'} (data.timestamp)"]
    if not ends and _look_like_ends(placement, sessions):
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
