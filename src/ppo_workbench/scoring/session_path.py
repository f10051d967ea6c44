"""One run as a row of sessions that can be put in any order: what a bootstrap draws from."""

from dataclasses import dataclass, fields
from math import inf
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.statistics.samples import (
    StatisticsError,
    checked_between,
    checked_sample,
)
from ppo_workbench.scoring.trace import RUIN_FRAC, Trace

LEAST_SESSIONS = 20


@dataclass(frozen=True)
class SessionPath:
    """Equity of one run, session by session; all arrays are float64, shape (T,).

    Four numbers a session rebuild the maximum drawdown over bars of any order of sessions:
    no bar has to be kept.  Logarithms are relative to the equity before the session; minus
    infinity stands for equity of 0, and a debt counts as 0.

    Attributes:
        excess: Simple return over cash, fraction.
        log_close: Log growth to the session's last bar.
        log_high: Log of the highest bar.
        log_low: Log of the lowest bar.
        inner_drawdown: Deepest fall between two bars of the session, fraction of the peak.
        sessions_per_year: Sessions in a year of calendar time, as `Bars` count them.
    """

    excess: Floats
    log_close: Floats
    log_high: Floats
    log_low: Floats
    inner_drawdown: Floats
    sessions_per_year: float

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self.excess)

    @property
    def single_bars(self) -> bool:
        """Tell whether no session knows more than its close."""
        same = np.array_equal(self.log_high, self.log_close)
        return same and np.array_equal(self.log_low, self.log_close)

    @classmethod
    def from_returns(cls, returns: npt.ArrayLike, sessions_per_year: float) -> "SessionPath":
        """Return the path of session returns over cash that earns nothing, known at closes only.

        Args:
            returns: Simple returns, float64 (T,), fraction; -1 and below is the loss of all.
            sessions_per_year: Sessions in a year of calendar time, as `Bars` count them.

        Raises:
            StatisticsError: Fewer than 20 sessions, or a value that is not finite.
        """
        gains = checked_sample(returns, "returns", LEAST_SESSIONS)
        checked_between(sessions_per_year, "sessions_per_year", 0.0, inf)
        close = _log(1.0 + gains)
        return cls(gains, close, close, close, np.zeros_like(close), sessions_per_year)

    @classmethod
    def from_trace(cls, trace: Trace) -> "SessionPath":
        """Return the path of a trace; drawdowns are then those of its bars.

        A session that starts with a ruined account stands still, as in `Trace.daily_returns`.

        Raises:
            StatisticsError: Fewer than 20 sessions, or equity that is not finite.
        """
        equity = checked_sample(trace.equity_usd, "trace.equity_usd", 1)
        ends = trace.session_ends()
        checked_sample(equity[ends], "sessions of the trace", LEAST_SESSIONS)
        starts = np.concatenate(([0], ends[:-1] + 1))
        base = np.concatenate(([trace.initial_equity_usd], equity[ends[:-1]]))
        solvent = base > RUIN_FRAC * trace.initial_equity_usd

        def log_of(values: Floats) -> Floats:
            return np.where(solvent, _log(values / np.where(solvent, base, 1.0)), 0.0)

        inner = [_inner_drawdown(equity[a : b + 1]) for a, b in zip(starts, ends, strict=True)]
        return cls(
            excess=trace.daily_returns() - trace.cash_returns(),
            log_close=log_of(equity[ends]),
            log_high=log_of(np.maximum.reduceat(equity, starts)),
            log_low=log_of(np.minimum.reduceat(equity, starts)),
            inner_drawdown=np.where(solvent, inner, 0.0),
            sessions_per_year=trace.sessions_per_year,
        )


def write_path(path: SessionPath, file: Path) -> None:
    """Write a path as an npz file without pickles."""
    arrays = {item.name: np.asarray(getattr(path, item.name)) for item in fields(SessionPath)}
    with file.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def read_path(file: Path) -> SessionPath:
    """Read what `write_path` wrote.

    Raises:
        StatisticsError: The file is missing or is no path.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            values = {item.name: arrays[item.name] for item in fields(SessionPath)}
    except (OSError, ValueError, KeyError) as error:
        raise StatisticsError(f"{file}: holds no sessions of a run ({error})") from None
    return SessionPath(**{**values, "sessions_per_year": float(values["sessions_per_year"])})


def _log(growth: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        logs: Floats = np.log(np.maximum(growth, 0.0))
    return logs


def _inner_drawdown(equity: Floats) -> float:
    peak = np.maximum.accumulate(np.maximum(equity, 0.0))
    held = peak > 0.0
    fall = (peak[held] - np.maximum(equity[held], 0.0)) / peak[held]
    return float(fall.max(initial=0.0))
