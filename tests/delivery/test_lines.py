"""Lines in, bars and accounts out; what cannot be read is refused by its number."""

import json

import numpy as np
import pytest

from ppo_workbench.config import BarsError
from ppo_workbench.delivery.live.lines import Line, read_csv_lines, read_json_lines
from ppo_workbench.market.reader.conventions import Conventions
from ppo_workbench.market.reader.rows import RowReader

BAR = {"start": "2024-01-02T14:30:00Z", "open": 1, "high": 2, "low": 1, "close": 2, "volume": 5}
ACCOUNT = {"cash": 10.0, "shares": 1.0}


def of_json(lines: list[str], **own: object) -> list[Line]:
    return list(read_json_lines(lines, RowReader(Conventions(**own))))  # type: ignore[arg-type]


def of_csv(lines: list[str], **own: object) -> list[Line]:
    return list(read_csv_lines(lines, RowReader(Conventions(**own))))  # type: ignore[arg-type]


def test_json_lines_hold_bars_accounts_and_moments() -> None:
    documents = [
        BAR,
        {"bar": BAR, "account": ACCOUNT},
        {"clock": "2024-01-02T15:00:00Z", "account": ACCOUNT},
    ]
    lines = of_json([*map(json.dumps, documents), "", "\n"])
    assert [line.number for line in lines] == [1, 2, 3]
    assert lines[0].bar == lines[1].bar
    assert lines[0].account is None
    assert lines[1].account is not None
    assert lines[2].bar is None
    assert lines[2].clock is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Expecting"),
        ("[1]", "bar: Input should be"),
        ('{"bar": null}', "either a bar or a clock"),
        (json.dumps({"bar": BAR, "acount": ACCOUNT}), "unknown key 'acount'"),
        (json.dumps(BAR | {"opn": 1}), "opn: Extra inputs"),
        (json.dumps(BAR | {"start": "2024-01-02T14:30:00"}), "start: Input should have timezone"),
        ('{"clock": "2024-01-02"}', "timezone"),
        ('{"clock": "yesterday"}', "input line 2: clock: Input should be a valid datetime"),
        (json.dumps({"bar": BAR, "account": 1}), "input line 2: account: Input should be"),
        (json.dumps({"bar": BAR, "account": {"cash": 1}}), "input line 2: account.shares: Field"),
        ('{"st\udcffart": 1}', "input line 2: is not UTF-8 text"),
    ],
)
def test_json_line_that_cannot_be_read_is_named(text: str, problem: str) -> None:
    with pytest.raises(BarsError, match="input line 2: ") as caught:
        of_json([json.dumps(BAR), text])
    assert problem in str(caught.value)


def test_csv_rows_become_bars_with_quotes_and_features() -> None:
    text = [
        "Timestamp,Open,High,Low,Last,Volume,Bid,Ask,vix\n",
        "2024-01-02 09:30:00,1,2,1,2,5,1.9,2.1,12\n",
        "2024-01-02 09:31:00-05:00,1,2,1,,5,,,\n",
    ]
    found = of_csv(
        text,
        columns={"close": "last"},
        timezone="America/New_York",
        feature_columns=("vix",),
        feature_lag_bars=0,
    )
    first, second = (line.bar for line in found)
    assert first is not None
    assert second is not None
    assert first.start_ns == np.datetime64("2024-01-02T14:30", "ns").astype(np.int64)
    assert (first.close, first.bid, first.features) == (2.0, 1.9, {"vix": 12.0})
    assert (second.close, second.bid, second.features) == (None, None, {"vix": None})


def test_csv_without_a_column_a_zone_or_a_number_is_refused() -> None:
    header = "timestamp,open,high,low,close,volume"
    with pytest.raises(BarsError, match="column 'volume' is missing"):
        of_csv(["timestamp,open,high,low,close\n"])
    with pytest.raises(BarsError, match=r"input line 2: the stamp .* has no time zone"):
        of_csv([header, "2024-01-02 09:30:00,1,1,1,1,1"])
    with pytest.raises(BarsError, match="input line 2: could not convert string"):
        of_csv([header, "2024-01-02T09:30:00Z,1,x,1,1,1"])


def test_csv_row_of_another_length_or_encoding_is_refused_by_its_number() -> None:
    header, row = "timestamp,open,high,low,close,volume", "2024-01-02T14:30:00Z,1,1,1,1,1"
    assert len(of_csv([header, row, "", row])) == 2
    for bad, problem in {
        f"{row},7": "has 7 fields, the header 6",
        row.rsplit(",", 1)[0]: "has 5 fields, the header 6",
        row + "\udcff": "is not UTF-8 text",
        row + "1" * 200_000: "field larger than field limit",
    }.items():
        with pytest.raises(BarsError, match=f"^input line 3: {problem}"):
            of_csv([header, row, bad])
