"""A trace survives its file bit for bit; what is no trace is refused."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.scoring.conftest import TraceMaker

from ppo_workbench.scoring.session_path import SessionPath, read_path, write_path
from ppo_workbench.scoring.trace import Trace, TraceError
from ppo_workbench.scoring.trace_file import read_trace, write_trace


def test_trace_is_read_back_bit_for_bit(tmp_path: Path, make_trace: TraceMaker) -> None:
    rng = np.random.default_rng(0)
    trace = make_trace(
        100 + rng.normal(size=30).cumsum(), mask=rng.random((30, 3)) > 0.5, start_ns=5
    )
    write_trace(trace, tmp_path / "t.parquet")
    again = read_trace(tmp_path / "t.parquet")
    for item in fields(Trace):
        one, other = getattr(trace, item.name), getattr(again, item.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        else:
            assert one == other


def test_trace_file_opens_in_pandas(tmp_path: Path, make_trace: TraceMaker) -> None:
    write_trace(make_trace([101.0, 102.0]), tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert frame["equity_usd"].tolist() == [101.0, 102.0]
    assert "mask.2" in frame


@pytest.mark.parametrize("content", [b"", b"not parquet", None])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TraceError, match="no trace file"):
        read_trace(path)


def test_parquet_without_a_trace_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TraceError, match="no trace file"):
        read_trace(tmp_path / "t.parquet")


def test_session_path_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    path = SessionPath.from_returns(np.random.default_rng(0).normal(0, 0.01, 30), 252)
    write_path(path, tmp_path / "p.npz")
    again = read_path(tmp_path / "p.npz")
    for item in fields(SessionPath):
        np.testing.assert_array_equal(getattr(path, item.name), getattr(again, item.name))
