import json
import multiprocessing
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ppo_workbench.config import SyntheticConfig
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.synthetic import generate
from ppo_workbench.records.ledger import (
    Access,
    LedgerError,
    ledger_path,
    open_test,
    past_accesses,
    session_hashes,
)


def _open(
    home: Path,
    instrument: str = "SPY",
    start: str = "2015-01-01",
    stop: str = "2018-12-31",
    fingerprint: str = "f" * 64,
) -> Access:
    return open_test(home, instrument, start, stop, fingerprint, "promotion of maskable_v1")


def test_open_test_first_look_counts_one_and_is_on_disk(tmp_path: Path) -> None:
    access = _open(tmp_path)
    (line,) = ledger_path(tmp_path).read_text().splitlines()
    assert access.looks == 1
    assert json.loads(line)["why"] == "promotion of maskable_v1"
    assert past_accesses(tmp_path) == [access]


@pytest.mark.parametrize(
    ("instrument", "start", "stop", "looks"),
    [
        ("SPY", "2015-01-01", "2018-12-31", 2),
        ("spy", "2015-01-01", "2018-12-31", 2),
        ("SPY", "2018-12-31", "2020-01-01", 2),  # the last day is part of the first look
        ("SPY", "2018-12-31T20:59:00+00:00", "2020-01-01", 2),
        ("SPY", "2019-01-01", "2020-01-01", 1),
        ("SPY", "2000-01-01", "2014-12-31T23:59:59Z", 1),
        ("SPY", "2014-12-31T20:00:00-05:00", "2014-12-31T21:00:00-05:00", 2),  # 01:00 UTC
        ("QQQ", "2015-01-01", "2018-12-31", 1),
    ],
)
def test_open_test_second_look_counts_by_instrument_and_overlap(
    tmp_path: Path, instrument: str, start: str, stop: str, looks: int
) -> None:
    _open(tmp_path)
    assert _open(tmp_path, instrument, start, stop, fingerprint="0" * 64).looks == looks


def test_open_test_record_is_synced_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, int]] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((status.st_ino, status.st_size))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    _open(tmp_path)
    written = ledger_path(tmp_path).stat()
    assert synced[0] == (written.st_ino, written.st_size)
    assert synced[1][0] == ledger_path(tmp_path).parent.stat().st_ino


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_open_test_disk_error_refuses_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(LedgerError, match="the test stays closed"):
            _open(tmp_path)


def test_open_test_partial_write_refuses_access_and_leaves_no_stump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _open(tmp_path)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
        with pytest.raises(LedgerError, match="the test stays closed"):
            _open(tmp_path)
    assert _open(tmp_path).looks == 2


def test_open_test_home_is_a_file_refuses_access(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(LedgerError, match="the test stays closed"):
        _open(tmp_path / "home")


def test_open_test_damaged_line_is_named_and_access_refused(tmp_path: Path) -> None:
    _open(tmp_path)
    with ledger_path(tmp_path).open("a") as file:
        file.write('{"instrument": "SPY"\n')
    with pytest.raises(LedgerError, match="line 2 is no record"):
        _open(tmp_path)


def test_open_test_line_end_lost_in_an_editor_keeps_both_records(tmp_path: Path) -> None:
    _open(tmp_path)
    path = ledger_path(tmp_path)
    path.write_text(path.read_text().rstrip("\n"))
    _open(tmp_path)
    assert [access.looks for access in past_accesses(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ("field", "value"), [("start", "yesterday"), ("start", "2019-01-01"), ("instrument", " ")]
)
def test_open_test_bad_field_is_refused_and_nothing_written(
    tmp_path: Path, field: str, value: str
) -> None:
    with pytest.raises(LedgerError):
        _open(tmp_path, **{field: value})
    assert not ledger_path(tmp_path).exists()


def _open_many(home: Path) -> None:
    for _ in range(20):
        _open(home)


def test_open_test_several_processes_count_every_look_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open_many, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [access.looks for access in past_accesses(tmp_path)] == list(range(1, 61))


def _shared(
    home: Path, look: str, start: str = "2015-01-01", fingerprint: str = "f" * 64
) -> Access:
    return open_test(home, "SPY", start, "2018-12-31", fingerprint, "comparison", look)


def test_open_test_processes_of_one_look_are_recorded_once(tmp_path: Path) -> None:
    first = _shared(tmp_path, "cmp-1")
    assert _shared(tmp_path, "cmp-1") == first
    assert past_accesses(tmp_path) == [first]


def test_open_test_next_comparison_is_the_second_look_in_any_file(tmp_path: Path) -> None:
    _shared(tmp_path, "cmp-1")
    _shared(tmp_path, "cmp-1")
    second = _shared(tmp_path, "cmp-2", start="2016-01-01", fingerprint="0" * 64)
    assert second.looks == 2


def test_open_test_folds_of_one_look_count_once(tmp_path: Path) -> None:
    _shared(tmp_path, "cmp-1")
    assert _shared(tmp_path, "cmp-1", start="2016-06-01").looks == 1
    assert len(past_accesses(tmp_path)) == 2
    assert _shared(tmp_path, "cmp-2").looks == 2


def test_open_test_other_bars_under_the_same_look_are_recorded(tmp_path: Path) -> None:
    _shared(tmp_path, "cmp-1")
    _shared(tmp_path, "cmp-1", fingerprint="0" * 64)
    assert len(past_accesses(tmp_path)) == 2


def test_past_openings_reads_lines_of_before_looks_were_shared(tmp_path: Path) -> None:
    access = _open(tmp_path)
    path = ledger_path(tmp_path)
    line = json.loads(path.read_text())
    del line["look"]
    path.write_text(json.dumps(line) + "\n")
    assert past_accesses(tmp_path) == [access]


@cache
def _market(seed: int = 3) -> Bars:
    return generate(SyntheticConfig(sessions=40, seed=seed)).bars


def _look(home: Path, bars: Bars, start: int, stop: int, variants: int = 1) -> Access:
    """Open the bars `start` .. `stop - 1`, as the pipeline does."""
    span = [str(np.datetime64(int(bars.start_ns[i]), "ns")) for i in (start, stop - 1)]
    return open_test(
        home,
        bars.instrument,
        span[0][:26],
        span[1][:26],
        bars.fingerprint,
        "a test",
        variants=variants,
        sessions=session_hashes(bars, start, stop),
    )


def _scaled(bars: Bars, factor: float) -> Bars:
    prices = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
    return replace(bars, **prices)


def _hourly(bars: Bars) -> Bars:
    """Return bars of 65 minutes, six a session."""
    ends = np.arange(len(bars)) % 65 == 64
    starts = bars.start_ns.reshape(-1, 65)[:, 0]
    kept = {
        name: getattr(bars, name)[ends]
        for name in ("open", "high", "low", "close", "volume", "session", "regular", "end_ns")
    }
    return replace(bars, start_ns=starts, bar_seconds=3900, bars_per_session=6, **kept)


@pytest.mark.parametrize(
    ("disguise", "why"),
    [
        (lambda bars: replace(bars, instrument="copy"), "another name"),
        (lambda bars: replace(_scaled(bars, 0.37), instrument="copy"), "a constant factor"),
        (lambda bars: replace(_hourly(bars), instrument="copy"), "other bar lengths"),
        (lambda bars: replace(bars.slice(390 * 5, 390 * 35), instrument="copy"), "a shorter copy"),
    ],
)
def test_same_test_is_found_by_its_bars(tmp_path: Path, disguise: object, why: str) -> None:
    bars = _market()
    _look(tmp_path, bars, 390 * 20, len(bars))
    assert callable(disguise)
    other = disguise(bars)

    assert _look(tmp_path, other, len(other) // 2, len(other)).looks == 2, why


def test_other_bars_of_the_same_name_and_dates_are_another_test(tmp_path: Path) -> None:
    bars, other = _market(), replace(_market(4), instrument=_market().instrument)
    _look(tmp_path, bars, 390 * 20, len(bars))

    assert _look(tmp_path, other, 390 * 20, len(other)).looks == 1


@pytest.mark.parametrize(("frac", "looks"), [(0.4, 2), (0.6, 1)])
def test_a_share_of_the_sessions_has_to_agree(tmp_path: Path, frac: float, looks: int) -> None:
    """Revisions, splits that one file adjusts, half of a series replaced: half is the border."""
    bars, start = _market(), 390 * 20
    other = replace(bars, close=bars.close.copy(), instrument="copy")
    count = int(frac * 20)
    for session in range(20, 20 + count):
        other.close[session * 390 : (session + 1) * 390] *= 1.003 ** (session - 19)
    # The return after the last revised session differs too, so the last one is left out.
    other.close[(20 + count) * 390 :] *= 1.003**count

    _look(tmp_path, bars, start, len(bars))

    assert _look(tmp_path, other, start, len(other)).looks == looks


def test_session_that_the_range_cuts_is_taken_whole_and_the_first_needs_a_close_before() -> None:
    bars = _market()
    whole = session_hashes(bars, 0, len(bars))
    assert len(whole) == 39
    assert session_hashes(bars, 390 * 20 + 100, 390 * 22 + 5) == dict(list(whole.items())[19:22])


def test_ledger_holds_hashes_and_no_returns(tmp_path: Path) -> None:
    bars = _market()
    _look(tmp_path, bars, 390 * 20, len(bars))
    sessions = json.loads(ledger_path(tmp_path).read_text())["sessions"]
    assert len(sessions) == 20
    assert {len(text) for text in sessions.values()} == {8}
    assert all(set(text) <= set("0123456789abcdef") for text in sessions.values())


def test_looks_are_counted_by_variants_scored(tmp_path: Path) -> None:
    bars = _market()
    assert _look(tmp_path, bars, 390 * 20, len(bars), variants=50).looks == 50
    assert _look(tmp_path, bars, 390 * 20, len(bars)).looks == 51


def test_line_of_before_there_were_hashes_counts_by_name_as_one(tmp_path: Path) -> None:
    bars = _market()
    _look(tmp_path, bars, 390 * 20, len(bars), variants=50)
    path = ledger_path(tmp_path)
    line = json.loads(path.read_text())
    del line["sessions"], line["variants"]
    path.write_text(json.dumps(line) + "\n")

    assert _look(tmp_path, _scaled(bars, 2.0), 390 * 20, len(bars)).looks == 2
    other = replace(_scaled(bars, 3.0), instrument="copy")
    # Of the line without hashes its name is all that is known; the second look is found.
    assert _look(tmp_path, other, 390 * 20, len(bars)).looks == 2
