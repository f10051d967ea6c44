"""Files as vendors write them, and what is formally right and yet wrong: each a row here."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ppo_workbench.config import Adjust, BarsError, DataConfig, Keep, TimestampConvention
from ppo_workbench.delivery.live.lines import read_csv_lines, read_json_lines
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.reader.check import Checked, check_file
from ppo_workbench.market.reader.conventions import Conventions
from ppo_workbench.market.reader.plausible import Doubt
from ppo_workbench.market.reader.rows import RowReader
from ppo_workbench.market.reader.table import load_file

DAYS = pd.bdate_range("2015-02-02", periods=60).drop("2015-02-16").drop("2015-04-03")


def daily(scale: float = 1.0) -> pd.DataFrame:
    close = scale * (45 + np.sin(np.arange(len(DAYS))))
    frame = {"Date": DAYS.strftime("%Y-%m-%d"), "Open": close * 1.001, "High": close * 1.01}
    return pd.DataFrame({**frame, "Low": close * 0.99, "Close": close, "Volume": 1000.0})


def hourly(rows: int = 60) -> pd.DataFrame:
    stamps = pd.date_range("2024-12-30T00:00Z", periods=rows, freq="h")
    close = 60_000 + 100 * np.sin(np.arange(rows))
    frame = {"timestamp": stamps.strftime("%Y-%m-%dT%H:%M:%SZ"), "open": close + 10.5}
    return pd.DataFrame(
        {**frame, "high": close + 90, "low": close - 80, "close": close, "volume": 5.0}
    )


def klines(frame: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds, from 2025 on microseconds, and half of their twelve columns."""
    ns = pd.to_datetime(frame["timestamp"]).dt.as_unit("ns").astype("int64").to_numpy()
    unit = np.where(ns < 1_735_689_600 * 10**9, 10**6, 10**3)
    own = frame.assign(timestamp=ns // unit).rename(columns={"timestamp": "open_time"})
    return own.assign(close_time=(ns + 3600 * 10**9 - 1) // unit, count=9, ignore=0)


def write(frame: pd.DataFrame, path: Path, **how: object) -> Path:
    frame.to_csv(path, index=False, **how)  # type: ignore[call-overload]
    return path


def loaded(path: Path, **own: object) -> Bars:
    config = DataConfig(source="file", path=str(path), calendar="XNYS")
    return load_file(replace(config, **own))  # type: ignore[arg-type]


def checked(path: Path, **own: object) -> Checked:
    config = DataConfig(source="file", path=str(path), calendar="XNYS")
    return check_file(replace(config, **own))  # type: ignore[arg-type]


def yfinance(frame: pd.DataFrame, *tickers: str) -> pd.DataFrame:
    parts = {ticker: frame.set_index("Date") * (k + 1) for k, ticker in enumerate(tickers)}
    joined = pd.concat(parts, axis=1, names=["Ticker", "Price"]).swaplevel(axis=1)
    joined.index = pd.DatetimeIndex(joined.index, name="Date")
    return joined


def _semicolons(frame: pd.DataFrame, path: Path) -> Path:
    return write(frame, path, sep=";", decimal=",")


def _angled(frame: pd.DataFrame, path: Path) -> Path:
    own = frame.rename(columns=lambda name: f"<{name.upper()}>").rename(
        columns={"<VOLUME>": "<VOL>"}
    )
    own["<DATE>"] = own["<DATE>"].str.replace("-", "")
    own.insert(1, "<TIME>", "000000")
    return write(own.assign(**{"<TICKER>": "MSFT.US"}), path)


def _numbers(frame: pd.DataFrame, path: Path) -> Path:
    return write(frame.assign(Date=frame["Date"].str.replace("-", "").astype(int)), path)


def _newest_first(frame: pd.DataFrame, path: Path) -> Path:
    own = frame.rename(columns={"Volume": "Volume MSFT"})[::-1]
    path.write_text("https://www.example.com\n" + own.to_csv(index=False))
    return path


def _three_headers(frame: pd.DataFrame, path: Path) -> Path:
    yfinance(frame, "MSFT").to_csv(path)
    return path


def _parquet(frame: pd.DataFrame, path: Path) -> Path:
    yfinance(frame, "MSFT").to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def _alpaca(frame: pd.DataFrame, path: Path) -> Path:
    own = frame.assign(
        symbol="MSFT", timestamp=pd.DatetimeIndex(frame["Date"], tz="America/New_York")
    )
    index = own.drop(columns="Date").set_index(["symbol", "timestamp"])
    index.to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


SHAPES: dict[str, tuple[Callable[[pd.DataFrame, Path], Path], dict[str, object], str]] = {
    "semicolon, decimal comma": (_semicolons, {}, "separated by ';'"),
    "angled names, date and time": (_angled, {}, "joined of '<DATE>' and '<TIME>'"),
    "dates as numbers": (_numbers, {}, "midnights are dates"),
    "line above, newest first": (
        _newest_first,
        {"sort": True, "columns": {"volume": "Volume MSFT"}},
        "1 lines above the header",
    ),
    "three header rows": (_three_headers, {}, "midnights are dates"),
    "parquet of two levels": (_parquet, {}, "midnights are dates"),
    "index of symbol and time": (_alpaca, {}, "midnights are dates"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_daily_shape_is_read_as_the_plain_file(tmp_path: Path, shape: str) -> None:
    make, own, note = SHAPES[shape]
    plain = loaded(write(daily(), tmp_path / "plain.csv"))
    bars = loaded(make(daily(), tmp_path / "bars.csv"), **own)
    np.testing.assert_array_equal(bars.start_ns, plain.start_ns)
    np.testing.assert_allclose(bars.close, plain.close, rtol=1e-15)
    assert any(note in text for text in bars.notes)


def _stamped(frame: pd.DataFrame, form: str) -> pd.DataFrame:
    return frame.assign(timestamp=pd.to_datetime(frame["timestamp"]).dt.strftime(form))


def _terminal(frame: pd.DataFrame) -> pd.DataFrame:
    """Dates and times apart, as a trading terminal writes them."""
    own = _stamped(frame, "%Y.%m.%d")
    own.insert(1, "time", _stamped(frame, "%H:%M")["timestamp"])
    return own.rename(columns={"timestamp": "date"})


def _grouped(frame: pd.DataFrame) -> pd.DataFrame:
    """Thousands apart, as on a page for people."""
    prices = {name: frame[name].map("{:,.2f}".format) for name in ("open", "high", "low", "close")}
    return frame.assign(**prices)


# What the file's bytes are, how it is read, and the words that it is refused with if it is.
VENDORS: dict[str, tuple[Callable[[pd.DataFrame], str], dict[str, object], str]] = {
    "further columns, epoch seconds": (
        lambda t: _stamped(t, "%s").assign(MA="").rename(columns={"timestamp": "time"}).to_csv(
            index=False), {}, "",
    ),
    "tabs, angled names, dotted dates": (
        lambda t: _terminal(t).rename(columns=lambda n: f"<{n.upper()}>").to_csv(
            index=False, sep="\t"), {"timezone": "UTC"}, "",
    ),
    "no header, date and time apart": (
        lambda t: _terminal(t).to_csv(index=False, header=False), {"timezone": "UTC"},
        r"data\.header=\[date,time,open,high,low,close,volume\]",
    ),
    "no header, five columns": (
        lambda t: t.drop(columns="volume").to_csv(index=False, header=False), {},
        r"data\.header=\[timestamp,open,high,low,close\]",
    ),
    "two spaces before the time": (
        lambda t: _stamped(t, "%Y%m%d  %H:%M:%S").to_csv(index=False), {"timezone": "UTC"}, "",
    ),
    "slashes": (
        lambda t: _stamped(t, "%Y/%m/%d %H:%M").to_csv(index=False), {"timezone": "UTC"}, "",
    ),
    "start of a window in nanoseconds": (
        lambda t: _stamped(t, "%s000000000").rename(columns={"timestamp": "window_start"}).to_csv(
            index=False), {}, "",
    ),
    "byte order mark, quotes, carriage returns": (
        lambda t: "\ufeff" + t.to_csv(index=False, quoting=1, lineterminator="\r\n"), {}, "",
    ),
    "month first": (
        lambda t: _stamped(t, "%m/%d/%Y %H:%M").to_csv(index=False), {}, "year last",
    ),
    "day first": (
        lambda t: _stamped(t, "%d.%m.%Y %H:%M:%S.000").to_csv(index=False), {}, "year last",
    ),
    "12-hour clock": (
        lambda t: _stamped(t, "%Y-%m-%d %I:%M %p").to_csv(index=False), {}, "12-hour clock",
    ),
    "zone in letters": (
        lambda t: _stamped(t, "%Y-%m-%d %H:%M EST").to_csv(index=False), {}, "zone in letters",
    ),
    "zone by its name": (
        lambda t: _stamped(t, "%Y%m%d %H:%M:%S US/Eastern").to_csv(index=False), {},
        "zone in letters",
    ),
    "thousands": (
        lambda t: _grouped(t).to_csv(index=False), {}, "without thousands separators",
    ),
    "total line": (
        lambda t: t.to_csv(index=False) + "Total,,,,,300\n", {}, "'Total' in data row 60",
    ),
    "separated by spaces": (
        lambda t: _stamped(t, "%s").to_csv(index=False, sep=" "), {}, "must be separated by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", VENDORS)
def test_vendor_shape_is_read_as_the_plain_file_or_refused_by_cause(
    tmp_path: Path, shape: str
) -> None:
    make, own, words = VENDORS[shape]
    path = tmp_path / "bars.csv"
    path.write_bytes(make(hourly()).encode())
    if words:
        with pytest.raises(BarsError, match=words):
            loaded(path, calendar="24/7", **own)
        found = checked(path, calendar="24/7", **own)
        assert found.mended == ("no header" in shape)
        if not found.mended:
            return
    else:
        found = checked(path, calendar="24/7", **own)
        assert not found.problems
    assert found.bars is not None
    plain = loaded(write(hourly(), tmp_path / "plain.csv"), calendar="24/7")
    np.testing.assert_array_equal(found.bars.start_ns, plain.start_ns)
    np.testing.assert_array_equal(found.bars.close, plain.close)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_text_that_is_not_utf8_is_refused_by_that_name(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "bars.csv"
    daily().rename(columns={"Open": "Er\xf6ffnung"}).to_csv(path, encoding=encoding)
    with pytest.raises(BarsError, match="not UTF-8 text; save it as UTF-8"):
        loaded(path)


def test_klines_with_and_without_header_are_read_across_the_change_of_unit(tmp_path: Path) -> None:
    plain = loaded(write(hourly(), tmp_path / "plain.csv"), calendar="24/7")
    own = klines(hourly())
    assert own["open_time"].max() > 10**15 > own["open_time"].min()
    bars = loaded(write(own, tmp_path / "header.csv"), calendar="24/7")
    assert bars.fingerprint == plain.fingerprint
    bare = write(own, tmp_path / "bare.csv", header=False)
    with pytest.raises(BarsError, match="no header row"):
        loaded(bare, calendar="24/7")
    found = checked(bare, calendar="24/7")
    assert found.mended
    assert found.overrides[0].startswith("data.header=[timestamp,open,high,low,close,volume,")
    assert found.bars is not None
    assert found.bars.fingerprint == plain.fingerprint
    ends = {"timestamp": TimestampConvention.bar_end, "columns": {"timestamp": "close_time"}}
    assert loaded(tmp_path / "header.csv", calendar="24/7", **ends).fingerprint == plain.fingerprint


@pytest.mark.parametrize("shape", ["long", "joined", "parquet", "no column"])
def test_instruments_are_never_joined_and_no_hint_leads_there(tmp_path: Path, shape: str) -> None:
    two = [daily().assign(tic="MSFT"), daily(0.5).assign(tic="ABBV")]
    path = tmp_path / "bars.csv"
    if shape == "long":
        write(pd.concat(two).sort_values("Date", kind="stable"), path)
    elif shape == "joined":
        yfinance(daily(), "MSFT", "ABBV").to_csv(path)
    elif shape == "parquet":
        path = path.with_suffix(".parquet")
        yfinance(daily(), "MSFT", "ABBV").to_parquet(path)
    else:
        write(pd.concat(two).sort_values("Date", kind="stable").drop(columns="tic"), path)
    for keep in (None, Keep.first, Keep.last):
        with pytest.raises(BarsError) as caught:
            loaded(path, keep=keep)
        assert "instrument" in str(caught.value)
        assert "data.keep" not in str(caught.value)
    if shape != "no column":
        bars = loaded(path, instrument="MSFT")
        assert (bars.instrument, len(bars)) == ("MSFT", len(DAYS))
        np.testing.assert_array_equal(bars.close, daily()["Close"])
        with pytest.raises(BarsError, match="none is 'IBM'"):
            loaded(path, instrument="IBM")
    else:
        assert not checked(path).mended


def test_split_that_columns_name_is_refused_at_its_row_until_adjusted(tmp_path: Path) -> None:
    raw, factor = daily(), np.where(np.arange(len(DAYS)) < 30, 4.0, 1.0)
    for name in ("Open", "High", "Low", "Close"):
        raw[name] *= factor
    raw["Adj Close"] = raw["Close"] / factor
    raw["Stock Splits"] = np.where(np.arange(len(DAYS)) == 30, 4.0, 0.0)
    path = write(raw, tmp_path / "split.csv")
    plain = loaded(write(daily(), tmp_path / "plain.csv"))
    with pytest.raises(BarsError, match=r"data row 30 .* opens at .* data\.adjust=adj_close"):
        loaded(path)
    assert checked(path).overrides == ["data.adjust=adj_close"]
    for adjust in (Adjust.adj_close, Adjust.splits):
        bars = loaded(path, adjust=adjust)
        np.testing.assert_allclose(bars.close, plain.close, rtol=1e-12)
        np.testing.assert_allclose(bars.close * bars.volume, raw["Close"] * raw["Volume"])
        assert any("prices of 30 bars adjusted" in note for note in bars.notes)
    assert any("1 splits are left" in note for note in loaded(path, adjust=Adjust.none).notes)
    no_columns = write(raw.drop(columns=["Adj Close", "Stock Splits"]), path)
    assert _doubts(loaded(no_columns)) == {"jump near n:1": [30]}
    # Vendors name splits in prices that are adjusted already: nothing is to be done.
    assert not _doubts(loaded(write(daily().assign(split=raw["Stock Splits"]), path)))


def test_open_at_twice_the_price_of_its_bar_is_no_split(tmp_path: Path) -> None:
    """One of IBM's hours opens at 159.58 after 80.2 and closes at 80.11."""
    table = daily()
    for name in ("Open", "High"):
        table.loc[table.index[20], name] = 2 * table["Close"].iloc[19]
    assert _doubts(loaded(write(table, tmp_path / "bars.csv"))) == {"open far off": [20]}


def _doubts(bars: Bars) -> dict[str, list[int]]:
    return {note.kind: note.rows.tolist() for note in bars.notes if isinstance(note, Doubt)}


def test_frozen_prices_volume_0_dividends_and_adjusted_closes_are_noted_by_row(
    tmp_path: Path,
) -> None:
    frame = daily()
    frame.loc[10:22, ["Open", "High", "Low", "Close"]] = [45.0, 45.5, 44.5, 45.0]
    frame.loc[40, "Volume"] = 0
    frame["Adj Close"] = frame["Close"] * np.where(np.arange(len(DAYS)) < 30, 0.99, 1.0)
    frame["Dividends"] = np.where(np.arange(len(DAYS)) == 30, 0.45, 0.0)
    bars = loaded(write(frame, tmp_path / "bars.csv"))
    assert _doubts(bars) == {
        "dividends": [30],
        "adjusted close": list(range(30)),
        "frozen prices": list(range(11, 23)),
        "volume 0": [40],
    }
    found = checked(tmp_path / "bars.csv")
    assert found.mended
    assert [one.stops for one in found.problems] == [False] * 4


def test_copies_that_differ_are_kept_by_choice_and_counted(tmp_path: Path) -> None:
    first = hourly()
    unfinished = first.loc[[23, 47]].assign(volume=1.0, close=lambda t: t["close"] - 3)
    frame = pd.concat([first, unfinished]).sort_values("timestamp", kind="stable")
    frame.loc[[23, 47]] = frame.loc[[23, 47]].iloc[[1, 0, 3, 2]].to_numpy()
    path = write(frame, tmp_path / "pages.csv")
    plain = loaded(write(first, tmp_path / "plain.csv"), calendar="24/7")
    with pytest.raises(BarsError, match=r"2 of 2 copies differ.*data\.keep=last"):
        loaded(path, calendar="24/7")
    bars = loaded(path, calendar="24/7", keep=Keep.last)
    assert bars.fingerprint == plain.fingerprint
    assert bars.fingerprint != loaded(path, calendar="24/7", keep=Keep.first).fingerprint
    assert any("2 copies dropped, 2 of them with other values" in note for note in bars.notes)


def test_bars_whose_length_changes_and_weekly_ones_are_refused_by_that_name(tmp_path: Path) -> None:
    days = hourly(40).assign(
        timestamp=pd.date_range("2024-11-20", periods=40, freq="D").strftime("%Y-%m-%dT00:00:00Z")
    )
    both = write(pd.concat([days, hourly(200)[24:]]), tmp_path / "both.csv")
    with pytest.raises(BarsError, match=r"from data row 40 .* 3600 seconds apart, before 86400"):
        loaded(both, calendar="24/7")
    assert not checked(both, calendar="24/7").mended
    dates = [f"2023-03-{k:02}" for k in (1, 2, 3, 6, 7, 8, 9, 10, 13, 14)]
    clocks = [range(9, 16)] * 3 + [(9, 10, 12, 14)] * 7  # the open cuts the first of two hours
    times = [f"{date} {k:02}:00" for date, own in zip(dates, clocks, strict=True) for k in own]
    coarser = hourly(len(times)).assign(timestamp=times)
    with pytest.raises(BarsError, match=r"from data row 22 .* 7200 seconds apart, before 3600"):
        loaded(write(coarser, tmp_path / "coarser.csv"), timezone="America/New_York")
    fridays = pd.date_range("2015-01-02", periods=len(DAYS), freq="W-FRI").strftime("%Y-%m-%d")
    with pytest.raises(BarsError, match="weekly or longer"):
        loaded(write(daily().assign(Date=fridays), tmp_path / "weekly.csv"))


def test_check_names_every_kind_with_count_and_rows_of_the_file(tmp_path: Path) -> None:
    frame = daily()
    frame.loc[3, "Close"] = -1.0
    frame.loc[[5, 9], "High"] = 1.0
    frame["Volume"] = frame["Volume"].astype(object)
    frame.loc[7, "Volume"] = "n/k"
    frame.loc[50, "Date"] = "2015-02-07"  # a Saturday, far out of order
    found = checked(write(frame, tmp_path / "bars.csv"))
    rows = {one.kind: (one.count, one.rows) for one in found.problems}
    assert rows["bad volume"] == (1, [7])
    assert rows["close must be above 0"] == (1, [3])
    assert rows["high must not be below low"] == (2, [5, 9])
    assert rows["out of order"] == (1, [50])
    assert rows["no session of the calendar"] == (1, [50])
    assert not found.mended
    with pytest.raises(BarsError, match=r"data row 7 .*; task=check_data data\.path="):
        loaded(tmp_path / "bars.csv")


def test_stream_that_departs_from_the_file_is_refused_by_name() -> None:
    own = Conventions(
        columns={"timestamp": "Date", **{n: n for n in ("open", "high", "low", "close")},
                 "volume": "Vol", "instrument": "tic"},
        instrument="MSFT", bar_seconds=3600, feature_columns=("mood",), decimal=",", separator=";",
    )  # fmt: skip
    head, row = "Date;open;high;low;close;Vol;tic;mood", "2024-01-31T15:00Z;1,5;2;1;1,5;9;MSFT;0,5"

    def read(*lines: str) -> list[object]:
        return [line.bar for line in read_csv_lines(lines, RowReader(own))]

    assert len(read(head, row, row.replace("T15", "T16"))) == 2
    for lines, problem in {
        (head.replace(";", ","), row.replace(";", "|")): "separated by ','",
        (head.replace("Vol", "Volume"), row): "'Vol' is missing",
        (head.replace("mood", "mod"), row): "'mood' is missing",
        (head, row.replace("MSFT", "ABBV")): "instrument is 'ABBV'.*'MSFT'",
        (head, row.replace("Z;", ";")): "no time zone",
        (head, row.replace("1,5", "1.5")): "number",
    }.items():
        with pytest.raises(BarsError, match=problem):
            read(*lines)
    others = replace(own, long=True)
    mixed = [head, row, row.replace("MSFT", "ABBV"), row.replace("T15", "T16")]
    assert len(list(read_csv_lines(mixed, RowReader(others)))) == 2


def test_feature_lag_goes_on_after_a_restart_and_over_repeated_rows() -> None:
    own = Conventions(feature_columns=("mood",), feature_lag_bars=2, bar_seconds=60)
    rows = [
        {"timestamp": 1_706_693_400 + 60 * k, "open": 1, "high": 1, "low": 1, "close": 1,
         "volume": 1, "mood": k} for k in range(6)
    ]  # fmt: skip

    def moods_of(reader: RowReader, given: list[dict[str, int]]) -> list[float | None]:
        lines = read_json_lines(map(json.dumps, given), reader)
        return [line.bar.features["mood"] for line in lines if line.bar is not None]

    first, second = RowReader(own), RowReader(own)
    moods = moods_of(first, rows[:4])
    document = {"stamp_ns": first.memory.stamp_ns, "features": first.memory.features}
    second.restore(json.loads(json.dumps(document)))
    moods += moods_of(second, [rows[3], rows[3], *rows[4:]])
    assert moods == [None, None, 0, 1, 1, 1, 2, 3]
