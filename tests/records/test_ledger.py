import json
import multiprocessing
import os
from pathlib import Path

import pytest

from ppo_workbench.records.ledger import LedgerError, Opening, ledger_path, open_test, past_openings


def _open(
    home: Path,
    instrument: str = "SPY",
    start: str = "2015-01-01",
    stop: str = "2018-12-31",
    fingerprint: str = "f" * 64,
) -> Opening:
    return open_test(home, instrument, start, stop, fingerprint, "promotion of maskable_v1")


def test_open_test_first_look_counts_one_and_is_on_disk(tmp_path: Path) -> None:
    opening = _open(tmp_path)
    (line,) = ledger_path(tmp_path).read_text().splitlines()
    assert opening.looks == 1
    assert json.loads(line)["why"] == "promotion of maskable_v1"
    assert past_openings(tmp_path) == [opening]


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
    assert [opening.looks for opening in past_openings(tmp_path)] == [1, 2]


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
    assert [opening.looks for opening in past_openings(tmp_path)] == list(range(1, 61))


def _shared(home: Path, look: str, start: str = "2015-01-01", **changes: str) -> Opening:
    span = {"instrument": "SPY", "stop_iso": "2018-12-31", "fingerprint": "f" * 64} | changes
    return open_test(home, start_iso=start, why="comparison", look=look, **span)


def test_open_test_processes_of_one_look_are_recorded_once(tmp_path: Path) -> None:
    first = _shared(tmp_path, "cmp-1")
    assert _shared(tmp_path, "cmp-1") == first
    assert past_openings(tmp_path) == [first]


def test_open_test_next_comparison_is_the_second_look_in_any_file(tmp_path: Path) -> None:
    _shared(tmp_path, "cmp-1")
    _shared(tmp_path, "cmp-1")
    second = _shared(tmp_path, "cmp-2", start="2016-01-01", fingerprint="0" * 64)
    assert second.looks == 2


def test_open_test_folds_of_one_look_count_once(tmp_path: Path) -> None:
    _shared(tmp_path, "cmp-1")
    assert _shared(tmp_path, "cmp-1", start="2016-06-01").looks == 1
    assert len(past_openings(tmp_path)) == 2
    assert _shared(tmp_path, "cmp-2").looks == 2


def test_open_test_other_bars_under_the_same_look_are_recorded(tmp_path: Path) -> None:
    _shared(tmp_path, "cmp-1")
    _shared(tmp_path, "cmp-1", fingerprint="0" * 64)
    assert len(past_openings(tmp_path)) == 2


def test_past_openings_reads_lines_of_before_looks_were_shared(tmp_path: Path) -> None:
    opening = _open(tmp_path)
    path = ledger_path(tmp_path)
    line = json.loads(path.read_text())
    del line["look"]
    path.write_text(json.dumps(line) + "\n")
    assert past_openings(tmp_path) == [opening]
