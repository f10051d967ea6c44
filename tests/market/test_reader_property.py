"""One reader: the bars of a file and of a stream of it are the same, bit for bit."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import exchange_calendars
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_workbench.config import BarsError, DataConfig, TimestampConvention
from ppo_workbench.delivery.live.lines import read_csv_lines, read_json_lines
from ppo_workbench.delivery.messages import half_spread_bps
from ppo_workbench.market.bars import NS_PER_DAY, NS_PER_SECOND, Bars
from ppo_workbench.market.calendars.clock import BarClock
from ppo_workbench.market.calendars.exchange import SessionTable, load_sessions
from ppo_workbench.market.calendars.own import OWN_CALENDARS
from ppo_workbench.market.reader.rows import RowReader
from ppo_workbench.market.reader.stamps import parse_stamps, read_stamp
from ppo_workbench.market.reader.table import load_file

CALENDARS = ("XNYS", "24/7", "FX", "GLOBEX", "CMES", "XTKS", "us_futures", "IEPA")
ZONES = ("America/New_York", "UTC", "Australia/Lord_Howe", "Europe/Paris")
INTRADAY = ("offset", "utc", "local", "datetime", "s", "ms", "us", "ns", "mixed")
DAYS = ("date", "yyyymmdd", "utc midnight", "far midnight", "moment", "ms", "datetime")
# A week or two each: both changes of the clock in Europe and in America, half days, New Year.
SPANS = ("2023-10-26", "2023-11-02", "2023-11-21", "2023-12-27", "2024-03-07", "2024-03-28")
_TABLES: dict[tuple[str, str], SessionTable] = {}
_get_calendar = exchange_calendars.get_calendar


class Schedule(NamedTuple):
    """What the reader asks of a calendar."""

    tz: Any
    schedule: pd.DataFrame


@cache
def _whole(name: str) -> Schedule | None:
    """Make a calendar over all spans, if it reaches so far."""
    try:
        made = _get_calendar(name, start=pd.Timestamp("2023-09-01"), end=pd.Timestamp("2024-12-01"))
    except (ValueError, NotImplementedError):
        return None
    return Schedule(made.tz, made.schedule)


@pytest.fixture(autouse=True, scope="module")
def _calendars_made_once() -> Iterator[None]:
    """Cut the days that are asked for from a calendar made once: some take ten seconds to make."""

    def cut(name: str, start: pd.Timestamp, end: pd.Timestamp) -> Any:
        whole = _whole(name)
        if whole is None:
            return _get_calendar(name, start=start, end=end)
        return whole._replace(schedule=whole.schedule.loc[start:end])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange_calendars, "get_calendar", cut)
        yield


class Case(NamedTuple):
    """How bars are written."""

    calendar: str
    seconds: int
    form: str
    zone: str
    ends: bool
    text: str
    separator: str
    lag: int
    span: str
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a case whose form suits the length of its bars."""
    case = Case(
        calendar=draw(st.sampled_from(CALENDARS)),
        seconds=draw(st.sampled_from([1800, 3600, 86_400])),
        form="",
        zone=draw(st.sampled_from(ZONES)),
        ends=draw(st.booleans()),
        text=draw(st.sampled_from(["csv", "jsonl"])),
        separator=draw(st.sampled_from([",", ";"])),
        lag=draw(st.integers(0, 3)),
        span=draw(st.sampled_from(SPANS)),
        seed=draw(st.integers(0, 99)),
    )
    return case._replace(form=draw(st.sampled_from(_forms(case))))


def _forms(case: Case) -> tuple[str, ...]:
    if case.seconds < 86_400:
        return INTRADAY
    return ("date", "yyyymmdd", "moment") if case.ends else DAYS


def starts_of(case: Case) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return starts of bars and what is stamped: starts, or ends."""
    first, days = int(pd.Timestamp(case.span).value), 14 if case.seconds == 86_400 else 7
    key = case.calendar, case.span
    if key not in _TABLES:
        _TABLES[key] = load_sessions(case.calendar, first, first + 14 * NS_PER_DAY)
    table = _TABLES[key]
    inside = (table.day * NS_PER_DAY >= first) & (
        table.day * NS_PER_DAY < first + days * NS_PER_DAY
    )
    if case.seconds == 86_400:
        return table.open_ns[inside], table.close_ns[inside] if case.ends else table.open_ns[inside]
    step = case.seconds * NS_PER_SECOND
    starts = np.concatenate(
        [
            np.arange(a, b, step)
            for a, b in zip(table.open_ns[inside], table.close_ns[inside], strict=True)
        ]
    )
    return starts, starts + step * int(case.ends)


def written_days(case: Case, stamped: Any, table: SessionTable) -> list[Any]:
    """Write the dates of sessions in the form of the case."""
    at = np.searchsorted(table.open_ns, stamped, side="right") - 1
    if case.ends:
        at = np.searchsorted(table.close_ns, stamped)
    days = pd.DatetimeIndex(table.day[at] * NS_PER_DAY)
    if case.form == "yyyymmdd":
        return [int(x) for x in days.strftime("%Y%m%d")]
    if case.form == "datetime":
        return list(days.tz_localize("Asia/Tokyo"))
    if case.form == "ms":
        return [int(x) for x in days.as_unit("ms").asi8]
    ends = {"date": "", "utc midnight": "T00:00:00Z", "far midnight": " 00:00:00+09:00"}
    return [x + ends[case.form] for x in days.strftime("%Y-%m-%d")]


def written(case: Case, stamped: Any, table: SessionTable) -> list[Any]:
    """Write stamps in the form of the case."""
    form, utc = case.form, pd.DatetimeIndex(stamped, tz="UTC")
    if case.seconds == 86_400 and form != "moment":
        return written_days(case, stamped, table)
    if form in ("offset", "moment"):
        local = utc.tz_convert(case.zone)
        if form == "moment" and (local == local.normalize()).any():  # there it would be a date
            local = utc.tz_convert(table.timezone)
        return [x.isoformat() for x in local]
    if form == "datetime":
        return list(utc.tz_convert(case.zone))
    if form == "utc":
        return [x.strftime("%Y-%m-%d %H:%M:%SZ") for x in utc]
    if form == "local":
        return [x.strftime("%Y-%m-%dT%H:%M") for x in utc.tz_convert(case.zone)]
    units = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
    if form == "mixed":
        half = len(stamped) // 2
        return [int(x) // units["ms" if k < half else "us"] for k, x in enumerate(stamped)]
    return [int(x) // units[form] for x in stamped]


def table_of(case: Case) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    starts, stamped = starts_of(case)
    rng = np.random.default_rng(case.seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, len(starts))))
    opens = close * np.exp(rng.normal(0, 1e-3, len(starts)))
    mood = rng.normal(size=len(starts))
    mood[: case.seed % 3] = np.nan
    frame = pd.DataFrame(
        {
            "When": written(case, stamped, _TABLES[case.calendar, case.span]),
            "Open": opens,
            "HIGH": np.maximum(opens, close) * 1.0003,
            "low": np.minimum(opens, close) * 0.9997,
            "Last": close,
            "Vol": rng.integers(0, 900, len(starts)),
            "bid": close - 0.01,
            "ask": close + 0.013,
            "Mood": mood,
        }
    )
    return frame, starts


def config_of(case: Case, path: Path) -> DataConfig:
    return DataConfig(
        source="file",
        path=str(path),
        columns={"timestamp": "When", "close": "Last"},
        timezone=case.zone if case.form == "local" else None,
        timestamp=TimestampConvention.bar_end if case.ends else TimestampConvention.bar_start,
        calendar=case.calendar,
        feature_columns=["mood"],
        feature_lag_bars=case.lag,
    )


def agree(case: Case, folder: Path) -> Bars:
    """Read one table as a file and as a stream; compare everything that a step reads."""
    frame, starts = table_of(case)
    decimal = "," if case.separator == ";" else "."
    if case.form == "datetime":
        path, case = folder / "bars.parquet", case._replace(text="csv")
        frame.to_parquet(path)
    else:
        path = folder / "bars.csv"
        frame.to_csv(path, index=False, sep=case.separator, decimal=decimal)
    bars = load_file(config_of(case, path))
    np.testing.assert_array_equal(bars.start_ns, starts)
    assert bars.conventions is not None
    reader = RowReader(bars.conventions)
    if case.form == "datetime":
        frame["When"] = [x.isoformat() for x in frame["When"]]
    if case.text == "csv":
        own = reader.conventions
        text = frame.to_csv(index=False, sep=own.separator, decimal=own.decimal)
        found = [line.bar for line in read_csv_lines(text.splitlines(), reader)]
    else:
        rows = frame.to_dict("records")
        texts = [json.dumps({k: None if v != v else v for k, v in row.items()}) for row in rows]
        found = [line.bar for line in read_json_lines(texts, reader)]
    assert len(found) == len(bars)
    first, last = int(bars.start_ns[0]), int(bars.start_ns[-1])
    clock = BarClock(bars.calendar, bars.bar_seconds, first, last, bars.bars_per_session)
    for t, bar in enumerate(found):
        assert bar is not None
        if bars.bar_seconds == 86_400:  # a message that starts with its session is of it
            assert clock.session_open(bar.start_ns, bar.start_ns) == bar.start_ns
        place = clock.place(bar.start_ns)
        for name in ("start_ns", "end_ns", "session", "bar_of_session", "bars_left", "regular"):
            assert getattr(place, name) == getattr(bars, name)[t], (t, name)
        for name in ("open", "high", "low", "close", "volume"):
            assert getattr(bar, name) == getattr(bars, name)[t], (t, name)
        assert half_spread_bps(bar) == bars.half_spread_bps[t]
        mood = bar.features["mood"]
        assert (np.nan if mood is None else mood) == pytest.approx(bars.extra[t, 0], 0, 0, True)
    return bars


@settings(max_examples=40)
@given(case=cases())
def test_file_and_stream_of_it_are_the_same_bars(
    tmp_path_factory: pytest.TempPathFactory, case: Case
) -> None:
    agree(case, tmp_path_factory.mktemp("reader"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "calendar", [*OWN_CALENDARS, *exchange_calendars.get_calendar_names(include_aliases=False)]
)
@pytest.mark.parametrize("seconds", [900, 3600, 86_400])
def test_all_calendars_place_a_stream_as_the_file(
    tmp_path: Path, calendar: str, seconds: int
) -> None:
    known = True
    for k, span in enumerate(SPANS):
        for ends in (False, True):
            case = Case(calendar, seconds, "", ZONES[k % 4], ends, "csv", ",", 1, span, k)
            forms = _forms(case)
            try:
                starts_of(case)
            except BarsError:
                known = False
                continue
            agree(case._replace(form=forms[(2 * k + ends) % len(forms)]), tmp_path)
    if not known:
        pytest.skip("exchange_calendars cannot make it for these dates")


STAMPS = (
    "2024-01-31", "20240131", "19500103", "2024-1-3 9:30", "2024-01-31T09:30:00.123456789",
    "2024-01-31T09",
    "20240131 093000", "2024-01-31T09:30:00-0500", "2024-01-31 09:30 +05:30", "2024-01-31T09:30Z",
    "1706693400", "1706693400123", "1706693400.5", "1706693400123456", "1706693400123456789",
)  # fmt: skip


@pytest.mark.parametrize("text", STAMPS)
def test_stamp_is_the_same_moment_in_a_column_and_alone(text: str) -> None:
    column = parse_stamps("f", pd.Series([text, text]), "Europe/Paris", allow_dates=True)
    alone = read_stamp(text, "Europe/Paris", 0, daily=column.ns[0] % NS_PER_DAY == 0)
    assert alone.ns == column.ns[0]


@pytest.mark.parametrize(
    "text",
    ["", "2024", "2024-01", "31/01/2024", "20241301", "20240631", "12", "2024-01-31T25:00",
     "2024-01-31Z", "2024-01-31T09:30z", "1e300", "nan", "99999999999999999999", "2300-01-01"],
)  # fmt: skip
def test_stamp_that_is_none_is_refused_in_a_column_and_alone(text: str) -> None:
    with pytest.raises(BarsError):
        read_stamp(text, "UTC", 0, daily=True)
    with pytest.raises(BarsError):
        parse_stamps("f", pd.Series([text or None, "2024-01-31"]), "UTC", allow_dates=True)


def test_hour_that_comes_twice_is_told_by_the_order_newest_first_too() -> None:
    times = pd.date_range("2023-11-05T04:00Z", periods=12, freq="15min").tz_convert(ZONES[0])
    texts = pd.Series(times.strftime("%Y-%m-%d %H:%M"))
    for order in (slice(None), slice(None, None, -1)):
        column = texts[order].reset_index(drop=True)
        found = parse_stamps("f", column, ZONES[0], allow_dates=True)
        assert found.ns.tolist() == times[order].as_unit("ns").asi8.tolist()
