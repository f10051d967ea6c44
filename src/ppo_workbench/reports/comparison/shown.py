"""The shown market of a report: its bars, the arms' traces, and where a row lies in time."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ppo_workbench.config import WorkbenchError
from ppo_workbench.config.arrays import Floats, Ints
from ppo_workbench.market.bars import Bars
from ppo_workbench.scoring.metrics import drawdowns
from ppo_workbench.scoring.trace import Trace

if TYPE_CHECKING:
    import pandas as pd


class ReportError(WorkbenchError):
    """A report's input does not belong together."""


@dataclass(frozen=True)
class ShownMarket:
    """Bars and the out-of-sample traces of the arms on them.

    Attributes:
        bars: Cover every row of every trace.
        traces: By the arm's name, in the order of the report.
    """

    bars: Bars
    traces: Mapping[str, Trace]

    def __post_init__(self) -> None:
        """Refuse traces whose rows are no bars."""
        for name in self.traces:
            self.bar_of_row(name)

    @property
    def is_intraday(self) -> bool:
        """Tell whether a session has more than one bar."""
        return self.bars.bars_per_session > 1

    def bar_of_row(self, name: str) -> Ints:
        """Return the bar in which each row of an arm's trace is filled, int64 (n,).

        Raises:
            ReportError: A row's end is not the end of a bar.
        """
        ends = self.traces[name].end_ns
        places = np.searchsorted(self.bars.end_ns, ends)
        found = places < len(self.bars)
        found &= self.bars.end_ns[np.minimum(places, len(self.bars) - 1)] == ends
        if not found.all():
            row = int(np.argmin(found))
            stamp = np.datetime64(int(ends[row]), "ns").astype("datetime64[s]")
            raise ReportError(
                f"traces[{name}]: row {row} ends at {stamp} UTC, where no bar of "
                f"{self.bars.instrument} ends; give the bars that were traded"
            )
        return places.astype(np.int64)

    def local(self, end_ns: Ints) -> "pd.DatetimeIndex":
        """Return the last moments of bars in the exchange's own time."""
        import pandas as pd

        return pd.DatetimeIndex(end_ns - 1, tz="UTC").tz_convert(self.bars.timezone)

    def dates(self, name: str) -> list[str]:
        """Return the local date of every session of an arm's trace, such as "2024-01-31"."""
        trace = self.traces[name]
        return self.local(trace.end_ns[trace.session_ends()]).strftime("%Y-%m-%d").tolist()

    @cached_property
    def period(self) -> tuple[str, str]:
        """The first and last date of any trace."""
        first = min(int(trace.end_ns[0]) for trace in self.traces.values())
        last = max(int(trace.end_ns[-1]) for trace in self.traces.values())
        days = self.local(np.array([first, last])).strftime("%Y-%m-%d").tolist()
        return str(days[0]), str(days[1])


def session_drawdowns(trace: Trace) -> Floats:
    """Return the deepest drawdown over the bars of each session, float64 (sessions,)."""
    falls = drawdowns(trace.equity_curve())[1:]
    starts = np.concatenate(([0], trace.session_ends()[:-1] + 1))
    deepest: Floats = np.maximum.reduceat(falls, starts)
    return deepest


def session_regimes(trace: Trace) -> Ints:
    """Return the regime that most bars of each session had, int64 (sessions,)."""
    ends = trace.session_ends()
    session = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
    counts = np.zeros((len(ends), int(trace.regime.max()) + 1), np.int64)
    np.add.at(counts, (session, trace.regime.astype(np.int64)), 1)
    most: Ints = counts.argmax(axis=1)
    return most
