from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from ppo_workbench.scoring.trace import Trace, TraceError

TraceMaker = Callable[..., Trace]


def test_daily_returns_minute_rows_follow_the_last_equity_of_each_session(
    make_trace: TraceMaker,
) -> None:
    trace = make_trace([101, 102, 99, 102, 51], session=[3, 3, 3, 4, 7], bars_per_session=3)
    assert trace.session_ends().tolist() == [2, 3, 4]
    np.testing.assert_allclose(trace.daily_returns(), [99 / 100 - 1, 102 / 99 - 1, -0.5])


def test_daily_returns_compounded_give_the_total_return(make_trace: TraceMaker) -> None:
    rng = np.random.default_rng(0)
    equity = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 300)))
    trace = make_trace(equity, session=np.arange(300) // 7, bars_per_session=7)
    growth = np.prod(1 + trace.daily_returns())
    assert growth == pytest.approx(equity[-1] / 100, rel=1e-12)


def test_daily_return_of_a_session_begun_in_debt_is_zero(make_trace: TraceMaker) -> None:
    assert make_trace([50, -10, 20, 30]).daily_returns().tolist() == [-0.5, -1.2, 0, 0.5]


def test_cash_returns_over_a_weekend_count_three_days(make_trace: TraceMaker) -> None:
    hours = np.array([0, 24, 96])
    end_ns = np.datetime64("2024-01-04T21:00", "ns").astype(np.int64) + hours * 3_600 * 10**9
    start_ns = int(end_ns[0]) - 86_400 * 10**9
    trace = make_trace(
        [100, 100, 100], end_ns=end_ns, start_ns=start_ns, cash_interest_annual_bps=365.0
    )
    np.testing.assert_allclose(trace.cash_returns(), [1e-4, 1e-4, 3e-4], rtol=1e-12)


def test_blocked_rules_are_the_union_over_actions(make_trace: TraceMaker) -> None:
    trace = make_trace([100, 100], blocked_by=[[1, 0, 4], [0, 0, 2]])
    assert trace.blocked_rules().tolist() == [5, 2]
    assert trace.severity_bits("house") == 4


def test_to_frame_names_actions_masks_and_rewards(make_trace: TraceMaker) -> None:
    trace = make_trace([100, 101], action=[2, 0], mask=[[True, True, True], [True, True, False]])
    frame = trace.to_frame()
    assert frame["action"].tolist() == ["BUY", "SELL"]
    assert frame["allowed_BUY"].tolist() == [True, False]
    assert frame["equity_usd"].tolist() == [100.0, 101.0]
    assert {"reward_log_return", "blocked_by_SELL", "close"} <= set(frame.columns)
    assert isinstance(frame.index, pd.DatetimeIndex)
    assert frame.index[0] == pd.Timestamp("2024-01-02T21:00", tz="UTC")


def test_trace_empty_raises(make_trace: TraceMaker) -> None:
    with pytest.raises(TraceError, match="0 decisions"):
        make_trace([])


def test_trace_array_of_other_length_raises_with_its_name(make_trace: TraceMaker) -> None:
    with pytest.raises(TraceError, match=r"trace\.carry_usd: has 3 rows, must have 2"):
        make_trace([100, 100], carry_usd=[0, 0, 0])


def test_trace_sessions_that_fall_raise_with_the_row(make_trace: TraceMaker) -> None:
    with pytest.raises(TraceError, match="falls at row 2"):
        make_trace([100, 100, 100], session=[0, 1, 0])


def test_trace_without_initial_equity_raises(make_trace: TraceMaker) -> None:
    with pytest.raises(TraceError, match="initial_equity_usd"):
        make_trace([100], initial_equity_usd=0.0)
