"""Hand-made traces: everything flat, allowed and quiet unless a test says otherwise."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from ppo_workbench.market.bars import Bars
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.rewards import REWARD_NAMES

TraceMaker = Callable[..., Trace]

DAY_NS = 86_400 * 10**9


@pytest.fixture
def make_trace() -> TraceMaker:
    """Return a function from the equity of n rows (and any other field) to a `Trace`."""

    def make(equity: Sequence[float], **changes: Any) -> Trace:
        n = len(equity)
        end_ns = np.datetime64("2024-01-02T21:00", "ns").astype(np.int64) + DAY_NS * np.arange(n)
        fields: dict[str, Any] = {
            "end_ns": end_ns,
            "session": np.arange(n),
            "close": np.full(n, 100.0),
            "action": np.ones(n, np.int8),
            "mask": np.ones((n, 3), np.bool_),
            "blocked_by": np.zeros((n, 3), np.int64),
            "equity_usd": np.asarray(equity, np.float64),
            "reward_components": np.zeros((n, len(REWARD_NAMES))),
            "regime": np.zeros(n, np.int8),
            "undecided": np.zeros(n, np.bool_),
            "initial_equity_usd": 100.0,
            "action_names": ("SELL", "HOLD", "BUY"),
            "rule_names": ("capital", "short_sale_restriction", "volatility"),
            "rule_severity": ("impossible", "regulatory", "house"),
            "bars_per_session": 1,
            "sessions_per_year": 252,
            "cash_interest_annual_bps": 0.0,
        }
        for name in ("fill_quantity", "fill_price", "cost_usd", "carry_usd", "exposure"):
            fields[name] = np.zeros(n)
        for name in ("rejected", "violated", "passive"):
            fields[name] = np.zeros(n, np.int64)
        for name, value in changes.items():
            same_type = isinstance(fields.get(name), np.ndarray)
            fields[name] = np.asarray(value, fields[name].dtype) if same_type else value
        return Trace(**fields)

    return make


@pytest.fixture
def bars_of() -> Callable[[Trace], Bars]:
    """Return a function from a trace to bars that cover it, half a per cent high each."""

    def make(trace: Trace) -> Bars:
        n = len(trace)
        length = int(np.diff(trace.end_ns).min()) if n > 1 and trace.bars_per_session > 1 else 0
        start_ns = trace.end_ns - (length or 6 * 3600 * 10**9)
        zeros = np.zeros(n, np.int64)
        return Bars(
            instrument="SPY", source="test", calendar="XNYS", timezone="America/New_York",
            bar_seconds=length // 10**9 or DAY_NS // 10**9,
            bars_per_session=trace.bars_per_session, sessions_per_year=trace.sessions_per_year,
            start_ns=start_ns, open=trace.close, high=1.005 * trace.close, low=trace.close,
            close=trace.close, volume=np.ones(n), half_spread_bps=np.full(n, np.nan),
            session=trace.session, bar_of_session=zeros, bars_left=zeros,
            regular=np.ones(n, np.bool_), extra=np.empty((n, 0)), extra_names=(),
            events=zeros - 1, events_ahead=zeros - 1, notes=(), end_ns=trace.end_ns,
        )  # fmt: skip

    return make
