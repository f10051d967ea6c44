"""Sources: what a file becomes, and how every kind of bad input is refused."""

import gzip
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ppo_workbench.config import BarsError, DataConfig, Fill, Keep, TimestampConvention, Volume
from ppo_workbench.market.bars import (
    Bars,
    check_fill,
    opens_equal_prior_close_frac,
    stamp_text,
    validate_bars,
)
from ppo_workbench.market.sources import SOURCES, arch_table, load_bars

REAL = Path(__file__).parents[2] / "../shared/data"
NEW_YORK = "America/New_York"


def _dates(bars: Bars) -> list[str]:
    """Return the local dates of the first and the last bar."""
    return [stamp_text(int(ns), bars.timezone)[:10] for ns in bars.start_ns[[0, -1]]]


def minutes(rows: int = 6, start: str = "2013-10-04 09:30") -> pd.DataFrame:
    """Make clean minute bars with stamps in New York, the offset written out."""
    stamps = pd.date_range(start, periods=rows, freq="min", tz=NEW_YORK)
    close = 100.0 + np.arange(rows)
    return pd.DataFrame(
        {
            "timestamp": [stamp.isoformat() for stamp in stamps],
            "open": close - 0.25,
            "high": close + 1,
            "low": close - 1,
            "close": close,
            "volume": 1000.0 + np.arange(rows),
        }
    )


def load(table: pd.DataFrame, folder: Path, **settings: object) -> Bars:
    """Write the table as csv and load it."""
    path = folder / "bars.csv"
    table.to_csv(path, index=False)
    return load_bars(DataConfig(source="file", path=str(path), **settings))  # type: ignore[arg-type]


def refusal(table: pd.DataFrame, folder: Path, **settings: object) -> str:
    """Return the sentence with which the table is refused."""
    with pytest.raises(BarsError) as caught:
        load(table, folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_file_csv_gives_prices_stamps_and_slots(tmp_path: Path) -> None:
    bars = load(minutes(), tmp_path)

    assert (bars.instrument, bars.source, bars.calendar) == ("bars", "file", "XNYS")
    assert (bars.timezone, bars.bar_seconds, bars.bars_per_session) == (NEW_YORK, 60, 390)
    assert stamp_text(int(bars.start_ns[0]), NEW_YORK) == "2013-10-04T09:30:00-04:00"
    np.testing.assert_array_equal(bars.close, 100.0 + np.arange(6))
    np.testing.assert_array_equal(bars.bar_of_session, np.arange(6))
    np.testing.assert_array_equal(bars.bars_left, 389 - np.arange(6))
    assert np.isnan(bars.half_spread_bps).all()
    assert any("bar starts" in note for note in bars.notes)


@pytest.mark.parametrize("suffix", ["csv.gz", "parquet", "feather", "parquet-index"])
def test_file_format_other_than_csv_gives_the_same_bars(tmp_path: Path, suffix: str) -> None:
    expected = load(minutes(), tmp_path)
    table = minutes()
    path = tmp_path / f"other.{suffix.split('-')[0]}"
    if suffix == "csv.gz":
        table.to_csv(path, index=False)
    else:
        table["timestamp"] = pd.to_datetime(table["timestamp"])
        if suffix == "parquet-index":
            table.set_index("timestamp").to_parquet(path)
        elif suffix == "parquet":
            table.to_parquet(path)
        else:
            table.to_feather(path)

    bars = load_bars(DataConfig(source="file", path=str(path)))

    assert bars.fingerprint == expected.fingerprint


def test_file_columns_other_case_and_mapped_names_are_found(tmp_path: Path) -> None:
    table = minutes().rename(columns={"timestamp": "When", "close": "LAST", "open": "Open"})

    bars = load(table, tmp_path, columns={"timestamp": "when", "close": "last"})

    assert bars.fingerprint == load(minutes(), tmp_path).fingerprint


def test_file_prices_that_share_a_column_are_noted(tmp_path: Path) -> None:
    bars = load(minutes(), tmp_path, columns={"close": "open"})
    assert "open and close are the same column 'open'" in bars.notes
    assert not any("same column" in note for note in load(minutes(), tmp_path).notes)


def test_file_naive_stamps_are_read_in_the_configured_zone(tmp_path: Path) -> None:
    table = minutes()
    table["timestamp"] = table["timestamp"].str[:-6]

    bars = load(table, tmp_path, timezone=NEW_YORK)

    assert bars.fingerprint == load(minutes(), tmp_path).fingerprint


def test_file_offsets_across_daylight_saving_are_in_order(tmp_path: Path) -> None:
    table = pd.concat([minutes(3, "2013-11-01 15:57"), minutes(3, "2013-11-04 09:30")])
    assert {stamp[-6:] for stamp in table["timestamp"]} == {"-04:00", "-05:00"}

    bars = load(table, tmp_path)

    np.testing.assert_array_equal(bars.session, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(bars.bar_of_session, [387, 388, 389, 0, 1, 2])
    np.testing.assert_array_equal(bars.bars_left, [2, 1, 0, 389, 388, 387])


def test_file_stamps_at_bar_ends_move_back_by_one_bar(tmp_path: Path) -> None:
    ends = minutes(6, "2013-10-04 09:31")

    bars = load(ends, tmp_path, timestamp=TimestampConvention.bar_end)

    np.testing.assert_array_equal(bars.start_ns, load(minutes(), tmp_path).start_ns)
    assert any("bar ends" in note for note in bars.notes)


def test_file_stamps_that_look_like_ends_are_noted(tmp_path: Path) -> None:
    bars = load(minutes(390, "2013-10-04 09:31"), tmp_path)

    assert any("look like bar ends" in note for note in bars.notes)
    np.testing.assert_array_equal(bars.regular[-3:], [True, True, False])
    assert bars.bars_left[-1] == 0


def test_file_quotes_become_the_half_spread(tmp_path: Path) -> None:
    table = minutes(4).assign(bid=[99.9, 0.0, 102.5, 103.0], ask=[100.1, 101.0, 102.0, 103.0])

    bars = load(table, tmp_path)

    np.testing.assert_allclose(bars.half_spread_bps, [10.0, np.nan, np.nan, 0.0])
    assert any("2 bars without a usable quote" in note for note in bars.notes)


def test_file_feature_columns_are_lagged_and_count_as_warmup(tmp_path: Path) -> None:
    table = minutes().assign(Mood=[np.nan, 1.0, 2.0, 3.0, 4.0, 5.0], flow=np.arange(6.0))

    bars = load(table, tmp_path, feature_columns=["mood", "flow"], feature_lag_bars=2)

    assert bars.extra_names == ("mood", "flow")
    nan = np.nan
    np.testing.assert_array_equal(bars.extra[:, 0], [nan, nan, nan, 1, 2, 3])
    np.testing.assert_array_equal(bars.extra[:, 1], [nan, nan, 0, 1, 2, 3])
    assert bars.extra_warmup_bars == 3


def test_file_daily_dates_need_no_time_zone_and_end_at_the_close(tmp_path: Path) -> None:
    table = minutes(3)
    table["timestamp"] = ["2013-11-27", "2013-11-29", "2013-12-02"]

    bars = load(table.rename(columns={"timestamp": "Date"}), tmp_path)

    assert (bars.bar_seconds, bars.bars_per_session, bars.sessions_per_year) == (86_400, 1, 252)
    np.testing.assert_array_equal(bars.session, [0, 1, 2])
    np.testing.assert_array_equal(bars.bars_left, 0)
    # The day after Thanksgiving closes at 13:00.
    assert stamp_text(int(bars.end_ns[1]), NEW_YORK) == "2013-11-29T13:00:00-05:00"


@pytest.mark.parametrize("convention", list(TimestampConvention))
@pytest.mark.parametrize("time", ["T00:00:00-05:00", "T16:00:00-05:00", "T00:00:00Z"])
def test_file_daily_stamps_with_zone_keep_their_date(
    tmp_path: Path, time: str, convention: TimestampConvention
) -> None:
    table = minutes(3)
    table["timestamp"] = [day + time for day in ("2013-12-02", "2013-12-03", "2013-12-04")]

    bars = load(table, tmp_path, timestamp=convention)

    assert _dates(bars) == ["2013-12-02", "2013-12-04"]


def test_file_always_open_calendar_has_utc_days_all_year(tmp_path: Path) -> None:
    table = minutes(48)
    stamps = pd.date_range("2024-01-06", periods=48, freq="h", tz="UTC")
    table["timestamp"] = [stamp.isoformat() for stamp in stamps]

    bars = load(table, tmp_path, calendar="24/7")

    assert (bars.sessions_per_year, bars.bars_per_session, bars.timezone) == (366, 24, "UTC")
    np.testing.assert_array_equal(bars.session, np.repeat([0, 1], 24))
    np.testing.assert_array_equal(bars.bars_left, np.tile(np.arange(23, -1, -1), 2))
    assert bars.regular.all()


def test_file_repairs_asked_for_are_done_and_counted(tmp_path: Path) -> None:
    clean = minutes()
    dirty = clean.iloc[[0, 2, 1, 3, 3, 4, 5]].copy()
    dirty["volume"] = [1000.0, 1002.0, 1001.0, 1003.0, 7.0, 1004.0, 1005.0]

    bars = load(dirty, tmp_path, sort=True, keep=Keep.first)

    assert bars.fingerprint == load(clean, tmp_path).fingerprint
    assert "data.sort: rows sorted, 1 were out of order" in bars.notes
    assert any(
        note.startswith("data.keep=first: 1 copies dropped, 1 of them") for note in bars.notes
    )


def test_file_zero_volume_is_allowed_and_counted(tmp_path: Path) -> None:
    bars = load(minutes().assign(volume=[0, 0, 1, 2, 3, 4]), tmp_path)

    assert any(
        note.startswith("2 bars have zero volume, the first data row 0") for note in bars.notes
    )
    assert bars.has_volume


@pytest.mark.parametrize(
    ("kind", "volume", "why"),
    [
        ("traded", 0.0, "no bar has"),
        ("ticks", 9.0, "counts ticks"),
        ("none", None, "has no volume"),
    ],
)
def test_file_volume_that_was_not_traded_is_said_to_be_silent(
    tmp_path: Path, kind: str, volume: float | None, why: str
) -> None:
    table = minutes().drop(columns="volume")
    if volume is not None:
        table["volume"] = volume
    bars = load(table, tmp_path, volume=Volume(kind))
    assert not bars.has_volume
    assert any(why in note and "silent" in note for note in bars.notes)


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("open", np.nan, "open must be a finite number"),
        ("close", np.inf, "close must be a finite number"),
        ("low", -1.0, "low must be above 0"),
        ("close", 0.0, "close must be above 0"),
        ("volume", -5.0, "volume must not be negative"),
        ("volume", np.nan, "volume must be a finite number"),
        ("high", 90.0, "high must not be below low"),
        ("open", 104.5, "open must lie between low and high"),
        ("close", 104.5, "close must lie between low and high"),
        ("close", "n/k", "close must be a number"),
    ],
)
def test_file_bad_value_names_the_row_and_the_rule(
    tmp_path: Path, column: str, value: object, rule: str
) -> None:
    table = minutes()
    cells: list[object] = list(table[column])
    cells[3] = value
    table[column] = pd.Series(cells)

    message = refusal(table, tmp_path)

    assert "bars.csv: data row 3" in message
    assert rule in message


def test_file_price_rounded_by_1e_9_is_allowed(tmp_path: Path) -> None:
    table = minutes()
    table["high"] = table["close"] * (1 - 5e-10)

    assert len(load(table, tmp_path)) == 6


def test_file_several_bad_rows_names_the_first(tmp_path: Path) -> None:
    table = minutes()
    table.loc[1, "volume"] = -1.0
    table.loc[4, "open"] = np.nan

    assert "data row 1 (2013-10-04T09:31:00-04:00) has volume=-1" in refusal(table, tmp_path)


Damage = Callable[[pd.DataFrame], pd.DataFrame]


def _stamp(row: int, text: str | None) -> Damage:
    def damage(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[row, "timestamp"] = text
        return table

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: t.iloc[[0, 2, 1, 3]], ("data row 2", "earlier", "data.sort=true")),
        (lambda t: t.iloc[[0, 1, 1, 2]], ("data row 2", "same stamp", "data.keep")),
        (lambda t: t.drop(columns="close"), ("'close' is missing", "data.columns")),
        (lambda t: t.drop(columns="timestamp"), ("'timestamp' is missing",)),
        (lambda t: t.assign(Close=1.0), ()),
        (lambda t: t.iloc[:0], ("no rows",)),
        (lambda t: t.iloc[:1], ("1 bars, at least 2",)),
        (lambda t: t.assign(timestamp=t["timestamp"].str[:-6]), ("no time zone", "data.timezone")),
        (lambda t: t.assign(timestamp=range(6)), ("row 0", "is no stamp")),
        (_stamp(2, "2013-10-04T09:32:00"), ("data row 2", "no time zone, unlike row 0")),
        (_stamp(2, "yesterday"), ("data row 2", "'yesterday'", "is no stamp")),
        (_stamp(2, None), ("data row 2", "is missing")),
        (_stamp(5, "9999-12-31T00:00:00Z"), ("data row 5", "not in the years")),
        (lambda t: t.assign(open=True), ("data row 0 has open='True'", "must be a number")),
        (_stamp(5, "2013-10-05T12:00:00-04:00"), ("data row 5", "without a session", "24/7")),
    ],
)
def test_file_bad_structure_is_one_clear_sentence(
    tmp_path: Path, damage: Damage, words: tuple[str, ...]
) -> None:
    table = damage(minutes())
    if not words:  # An exact spelling wins over one that differs in case.
        assert load(table, tmp_path).close[0] == 100.0
        return

    message = refusal(table, tmp_path)

    for word in words:
        assert word in message


def test_file_columns_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    table = minutes().rename(columns={"close": "CLOSE"}).assign(Close=1.0)

    assert "differ only in case" in refusal(table, tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"calendar": "XNYC"}, ("data.calendar='XNYC'", "XNYS")),
        ({"timezone": "New York"}, ("data.timezone='New York'", "IANA")),
        ({"columns": {"price": "close"}}, ("'price' is not a name of ours",)),
        ({"columns": {"close": "last"}}, ("'last' is missing",)),
        ({"feature_columns": ["mood"]}, ("'mood' is missing", "data.feature_columns")),
    ],
)
def test_file_bad_setting_is_named(
    tmp_path: Path, settings: dict[str, object], words: tuple[str, ...]
) -> None:
    message = refusal(minutes(), tmp_path, **settings)

    for word in words:
        assert word in message


def test_file_local_time_skipped_by_daylight_saving_is_refused(tmp_path: Path) -> None:
    table = minutes(4)
    table["timestamp"] = [f"2024-03-10 0{hour}:30:00" for hour in range(4)]

    message = refusal(table, tmp_path, timezone=NEW_YORK, calendar="24/7")

    assert "data row 2" in message
    assert "does not exist in America/New_York" in message


def test_file_feature_with_a_gap_is_refused(tmp_path: Path) -> None:
    table = minutes().assign(mood=[1.0, 2.0, np.nan, 3.0, 4.0, 5.0])

    message = refusal(table, tmp_path, feature_columns=["mood"])

    assert "data row 2 has mood=nan" in message


def test_file_weekly_bars_are_refused(tmp_path: Path) -> None:
    table = minutes(4)
    table["timestamp"] = ["2013-10-04", "2013-10-11", "2013-10-18", "2013-10-25"]

    assert "daily or shorter" in refusal(table, tmp_path)


def test_file_two_daily_bars_of_one_session_are_refused(tmp_path: Path) -> None:
    table = minutes(5)
    days = ("02T16:00", "03T16:00", "04T09:30", "04T16:00", "05T16:00")
    table["timestamp"] = [f"2013-12-{day}:00-05:00" for day in days]

    message = refusal(table, tmp_path)

    assert "data row 3" in message
    assert "second daily bar" in message


def test_file_outside_regular_hours_only_is_refused(tmp_path: Path) -> None:
    message = refusal(minutes(6, "2013-10-04 05:00"), tmp_path)

    assert "no bar lies in the regular hours" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.csv", None, "does not exist"),
        ("folder.csv", "folder", "is a folder"),
        ("empty.csv", b"", "is empty"),
        ("blank.csv", b"\n\n", "is empty"),
        ("bars.xlsx", b"x", "unknown format"),
        ("noise.csv", bytes(range(256)) * 64, ""),
        ("noise.csv.gz", bytes(range(256)) * 64, "cannot be read as .csv.gz"),
        ("short.csv.gz", gzip.compress(bytes(5000))[:20], "cannot be read as .csv.gz"),
        ("noise.parquet", bytes(range(256)) * 64, "cannot be read as .parquet"),
        ("noise.feather", bytes(range(256)) * 64, "cannot be read as .feather"),
        ("long.csv", b"timestamp,open\n1,2,3\n4,5,6\n", "cannot be read as .csv"),
        ("torn.csv", b"timestamp,open\n1,2\n4,5,6,7\n", "cannot be read as .csv"),
    ],
)
def test_file_unreadable_is_refused_with_its_path(
    tmp_path: Path, name: str, content: bytes | str | None, words: str
) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)

    with pytest.raises(BarsError) as caught:
        load_bars(DataConfig(source="file", path=str(path)))

    message = str(caught.value)
    assert words in message
    assert name in message
    assert "\n" not in message


def test_file_without_a_path_is_refused() -> None:
    with pytest.raises(BarsError, match=r"data\.path is not set"):
        load_bars(DataConfig(source="file"))


def test_source_unknown_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BarsError, match=r"data\.source='sp50'.*did you mean sp500"):
        load_bars(DataConfig(source="sp50"))


def test_sources_hold_the_four_of_the_configuration() -> None:
    assert list(SOURCES) == ["synthetic", "sp500", "nasdaq", "file"]


@pytest.mark.parametrize("name", ["sp500", "nasdaq"])
def test_shipped_series_is_what_the_package_itself_loads(name: str) -> None:
    own = importlib.import_module(f"arch.data.{name}").load()
    pd.testing.assert_frame_equal(arch_table(name), own)


def test_shipped_series_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BarsError, match=r"data\.source=sp500 is shipped with the package arch"):
        load_bars(DataConfig(source="sp500"))


@pytest.mark.parametrize(("source", "equal"), [("sp500", 0.3984), ("nasdaq", 0.0016)])
def test_daily_index_is_complete_and_known(source: str, equal: float) -> None:
    bars = load_bars(DataConfig(source=source))

    assert len(bars) == 5031
    assert _dates(bars) == ["1999-01-04", "2018-12-31"]
    # Every session of 20 years is there: the calendar and the package agree.
    assert not any("missing" in note for note in bars.notes)
    assert opens_equal_prior_close_frac(bars) == pytest.approx(equal, abs=1e-4)


def test_fill_at_copied_opens_is_refused_with_the_remedy() -> None:
    bars = load_bars(DataConfig(source="sp500"))

    check_fill(bars, Fill.next_close)
    with pytest.raises(BarsError, match=r"39\.8%.*set env\.fill=next_close"):
        check_fill(bars, Fill.next_open)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real bars lie beside the project")
def test_real_minutes_give_full_sessions_with_spread() -> None:
    bars = load_bars(DataConfig(source="file", path=str(REAL / "spy_1min_2013-10.csv")))

    assert (len(bars), bars.bars_per_session, bars.bar_seconds) == (2340, 390, 60)
    np.testing.assert_array_equal(np.bincount(bars.session), [390] * 6)
    assert bars.regular.all()
    # One cent on 167.765.
    assert bars.half_spread_bps[0] == pytest.approx(0.005 / 167.765 * 1e4, rel=1e-9)
    assert opens_equal_prior_close_frac(bars) > 0.5


@pytest.mark.skipif(not REAL.is_dir(), reason="the real bars lie beside the project")
def test_real_hours_first_bar_is_regular_and_half_days_end_early() -> None:
    bars = load_bars(DataConfig(source="file", path=str(REAL / "ibm_1h_2000_2021.csv.gz")))

    assert (len(bars), bars.bars_per_session, bars.bar_seconds) == (37_292, 7, 3600)
    assert bars.bar_of_session[:7].tolist() == list(range(7))
    assert bars.regular[:7].all()
    half = [stamp_text(int(ns), NEW_YORK)[:10] == "2020-11-27" for ns in bars.start_ns]
    assert bars.bars_left[half].tolist() == [3, 2, 1, 0]
    assert stamp_text(int(bars.end_ns[half][-1]), NEW_YORK)[11:16] == "13:00"
    validate_bars(bars)


def test_events_count_back_and_ahead_by_bar_ends(tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text(
        "kind,time\n"
        "CPI,2013-10-04T09:33:00-04:00\n"  # the end of bar 2: known at its close
        "FOMC,2013-10-04T09:34:30-04:00\n"  # inside bar 4
        "FOMC,2013-10-07T08:30:00-04:00\n"  # before the next session: its slot 0
        "CPI,2013-10-01T08:30:00-04:00\n"  # before the bars
    )

    bars = load(minutes(), tmp_path, events_path=str(events))

    np.testing.assert_array_equal(bars.events, [-1, -1, 0, 1, 0, 1])
    # Bar 4 holds the 09:34:30 event; from bar 4 on the next is slot 0 of Monday, 390 - t away.
    np.testing.assert_array_equal(bars.events_ahead, [2, 1, 2, 1, 386, 385])
    assert bars.notes[-1] == "events.csv: 3 events (CPI, FOMC), 1 before the first bar left out"


def test_events_of_daily_bars_after_the_close_come_with_the_next_bar(tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text("time,kind\n2013-12-03T17:00:00-05:00,earnings\n")
    table = minutes(4)
    table["timestamp"] = ["2013-12-02", "2013-12-03", "2013-12-04", "2013-12-05"]

    bars = load(table, tmp_path, events_path=str(events))

    np.testing.assert_array_equal(bars.events, [-1, -1, 0, 1])
    np.testing.assert_array_equal(bars.events_ahead, [2, 1, -1, -1])


def test_events_do_not_change_when_later_bars_are_cut(tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text("time,kind\n2013-10-07T12:00:00-04:00,FOMC\n2013-10-09T12:00:00-04:00,CPI\n")
    table = pd.concat([minutes(390), minutes(390, "2013-10-07 09:30")])

    whole = load(table, tmp_path, events_path=str(events))
    part = load(table.iloc[:100], tmp_path, events_path=str(events))

    np.testing.assert_array_equal(part.events, whole.events[:100])
    np.testing.assert_array_equal(part.events_ahead, whole.events_ahead[:100])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("time,kind\n2013-10-04T09:33:00,CPI\n", "times need an offset"),
        ("time,kind\n2013-10-04,CPI\n", "times need an offset"),
        ("time,kind\n2013-10-04T09:33:00-04:00,\n", "data row 0 has no kind"),
        ("time\n2013-10-04T09:33:00-04:00\n", "'kind' is missing"),
        ("time,kind\n", "no rows"),
    ],
)
def test_events_bad_file_is_refused(tmp_path: Path, content: str, words: str) -> None:
    events = tmp_path / "events.csv"
    events.write_text(content)

    assert words in refusal(minutes(), tmp_path, events_path=str(events))
