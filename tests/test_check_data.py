"""`task=check_data`: one pass over a file, and the command that trains on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ppo_workbench.cli.main import command, compose
from ppo_workbench.market.calendars.exchange import load_sessions
from ppo_workbench.trading.experiment import split_bars


def _days(rows: int) -> pd.DataFrame:
    days = pd.date_range("2015-01-01", periods=rows, freq="D")
    close = 45 + np.sin(np.arange(rows))
    prices = {"open": close * 1.001, "high": close * 1.01, "low": close * 0.99, "close": close}
    return pd.DataFrame({"date": days.strftime("%Y%m%d"), **prices, "Volume BTC": 9.0})


def _check(path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    result = path.parent / "result.json"
    code = command(["task=check_data", f"data.path={path}", f"result_json={result}", *more])
    return code, json.loads(result.read_text())


def test_check_names_the_command_that_trains_on_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bars.csv"
    _days(2600)[::-1].to_csv(path, index=False, sep=";", decimal=",")
    code, found = _check(path)
    assert code == 0
    assert found["market"] == "crypto"  # it trades on weekends
    assert {"data.sort=true", "market=crypto", "env.fill=next_open"} <= set(found["overrides"])
    bars, _ = split_bars(compose(found["overrides"]))
    assert (len(bars), bars.bar_seconds) == (2600, 86_400)
    shown = capsys.readouterr().out
    assert "trains: python -m ppo_workbench data=file" in shown
    assert "mended: out of order: 2599 rows, first 1, 2" in shown


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_missing_price_does_not_hide_what_else_is_wrong(tmp_path: Path, name: str) -> None:
    frame = _days(300).rename(columns={"Volume BTC": "volume"})
    other = "open" if name == "close" else "close"
    frame.loc[5, other] = -1
    frame.loc[7, "date"] = "someday"
    path = tmp_path / "bars.csv"
    frame.drop(columns=name).to_csv(path, index=False)
    code, found = _check(path, "market=crypto")
    kinds = [one["kind"] for one in found["problems"]]
    assert kinds == ["missing column", "unreadable stamp", f"{other} must be above 0"]
    assert code == 2
    frame.drop(columns=name).loc[9:].to_csv(path, index=False)
    code, found = _check(path, "market=crypto", f"data.columns={{{name}: Last}}")
    assert [one["kind"] for one in found["problems"]] == ["missing column"]
    assert code == 2  # a price that was made up trains nothing


def test_check_of_a_file_that_nothing_trains_on_ends_with_2_and_all_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = _days(300)
    frame.loc[5, "close"] = -1
    frame.loc[7, "date"] = "someday"
    path = tmp_path / "bars.csv"
    frame.to_csv(path, index=False)
    code, found = _check(path, "market=crypto")
    assert code == 2
    assert found["overrides"] == []
    kinds = [one["kind"] for one in found["problems"]]
    assert kinds == ["missing column", "unreadable stamp", "close must be above 0"]
    assert "no command trains on it" in capsys.readouterr().err
    assert command(["task=check_data"]) == 2
    assert "write data.path=FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("market", "zone"), [("us_equity", "Europe/Warsaw"), ("fx", "Etc/GMT+5"), ("fx", "Asia/Tokyo")]
)
def test_zone_that_was_assumed_is_refused_where_bars_do_not_keep_its_hours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], market: str, zone: str
) -> None:
    first, last = (pd.Timestamp(day).value for day in ("2023-02-20", "2023-04-20"))
    table = load_sessions(compose([f"market={market}"]).data.calendar, first, last)
    spans = zip(table.open_ns, table.close_ns, strict=True)
    starts = np.concatenate([np.arange(a, b, 900 * 10**9) for a, b in spans])
    frame = _days(len(starts))
    local = pd.DatetimeIndex(starts, tz="UTC").tz_convert(zone)
    frame["date"] = local.strftime("%Y-%m-%d %H:%M:%S")
    path = tmp_path / "bars.csv"
    frame.rename(columns={"Volume BTC": "volume"}).to_csv(path, index=False)
    assert _check(path)[0] == 2
    assert "stops: unlikely time zone" in capsys.readouterr().out
    _, found = _check(path, f"data.timezone={zone}")
    assert found["market"] == market
    assert [one["kind"] for one in found["problems"]] == ["too few bars"]


def test_check_of_a_pair_with_bars_on_holidays_names_its_market_and_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty rows on 25 December do not make a pair a coin that lacks its weekends."""
    days = pd.bdate_range("2005-01-03", "2014-12-31")
    close = 1.2 + 0.01 * np.sin(np.arange(len(days)))
    prices = {"open": close, "high": close * 1.001, "low": close * 0.999, "close": close + 1e-5}
    path = tmp_path / "eurusd.csv"
    table = pd.DataFrame({"date": days.strftime("%Y-%m-%d"), **prices, "volume": 1000})
    table.to_csv(path, index=False)
    code, found = _check(path)
    assert (code, found["market"]) == (2, "fx")
    (stops,) = (one for one in found["problems"] if one["stops"])
    assert stops["kind"] == "no session of the calendar"
    holidays = [day for day in days if (day.month, day.day) in ((12, 25), (1, 1))]
    assert stops["count"] == len(holidays)
    assert "2005-01-03 to 2014-12-31" in capsys.readouterr().out


def test_check_of_hours_that_no_market_keeps_stops(tmp_path: Path) -> None:
    stamps = pd.date_range("2020-01-06", "2021-01-06", freq="h", tz="UTC")
    stamps = stamps[(stamps.day_of_week < 5) & (stamps.hour < 9)]  # an exchange in Asia, say
    close = 100 + np.sin(np.arange(len(stamps)))
    path = tmp_path / "asia.csv"
    pd.DataFrame(
        {"time": stamps, "open": close, "high": close + 1, "low": close - 1, "close": close}
    ).assign(volume=5.0).to_csv(path, index=False)
    code, found = _check(path)
    assert code == 2
    assert "hours of no market" in [one["kind"] for one in found["problems"]]


def test_check_says_which_other_markets_keep_the_same_hours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bars.csv"
    _days(2600).to_csv(path, index=False)
    assert _check(path)[1]["market"] == "crypto"
    assert "crypto by its hours (crypto_perp keep" in capsys.readouterr().out
    _check(path, "market=crypto")
    assert "by its hours" not in capsys.readouterr().out
