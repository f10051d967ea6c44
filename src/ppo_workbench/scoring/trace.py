"""What a policy did over a split, one row per decision: the only input of the scores."""

from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ppo_workbench.config import WorkbenchError
from ppo_workbench.config.arrays import Bools, Codes, Floats, Ints
from ppo_workbench.trading.rewards import REWARD_NAMES

if TYPE_CHECKING:
    import pandas as pd

RUIN_FRAC = 1e-9
NS_PER_YEAR = 365 * 86_400 * 1_000_000_000

_ROW_ARRAYS = (
    *("session", "close", "action", "mask", "blocked_by", "fill_quantity", "fill_price"),
    *("cost_usd", "carry_usd", "equity_usd", "exposure", "reward_components", "regime"),
    *("rejected", "violated", "passive", "undecided"),
)
_PLAIN_COLUMNS = tuple(
    name
    for name in _ROW_ARRAYS
    if name not in ("action", "mask", "blocked_by", "reward_components")
)


class TraceError(WorkbenchError):
    """A trace is empty, its arrays disagree in length, or its time runs backwards."""


@dataclass(frozen=True)
class Trace:
    """The n decisions of one policy on one run of bars, starting flat.

    Row i was decided at the close of bar t, filled in bar t+1 and marked at the close of
    bar t+1.  There are A actions and at most 63 rules; rule k is bit k of every bitmask.

    Attributes:
        end_ns: int64 (n,), UTC nanoseconds of the end of bar t+1.
        session: int64 (n,), session of bar t+1, never falling.
        close: float64 (n,), close of bar t+1.
        action: int8 (n,), index of the action sent.
        mask: bool (n, A), True = allowed.
        blocked_by: int64 (n, A), bitmask of the rules that forbid the action.
        fill_quantity: float64 (n,), signed shares, 0 if none.
        fill_price: float64 (n,), price before costs.
        cost_usd: float64 (n,), commission, spread, slippage and impact of the fill.
        carry_usd: float64 (n,), interest received minus interest and borrow paid.
        equity_usd: float64 (n,), account equity at the close of bar t+1.
        exposure: float64 (n,), signed share of equity at the close of bar t+1.
        reward_components: float64 (n, C), in the order of `REWARD_NAMES`.
        regime: int8 (n,), 0 range/low, 1 trend/low, 2 range/high, 3 trend/high volatility.
        rejected: int64 (n,), bitmask of the rules that rejected the action sent.
        violated: int64 (n,), bitmask of the rules that an executed action broke.
        passive: int64 (n,), bitmask of the limits that a price move crossed while holding.
        undecided: bool (n,), features were recovering from a gap: nothing could be added.
        initial_equity_usd: Equity before the first decision.
        action_names: A names.
        rule_names: One name for every rule.
        rule_severity: "impossible", "regulatory" or "house" for every rule.
        bars_per_session: Nominal bars of a full session.
        sessions_per_year: Sessions in a year of calendar time, as `Bars` count them.
        cash_interest_annual_bps: Rate credited on cash, basis points a year, actual/365.
        start_ns: UTC nanoseconds of the mark of the initial equity (the end of bar t of row
            0); None stands for one median bar before the first row.
        restarts: Of a stitched trace, (row, UTC nanoseconds) of every later part: a new
            account took over all equity as cash at that time, and this is its first row.

    Raises:
        TraceError: No rows, arrays of different length, sessions that fall, or an initial
            equity that is not above zero.
    """

    end_ns: Ints
    session: Ints
    close: Floats
    action: Codes
    mask: Bools
    blocked_by: Ints
    fill_quantity: Floats
    fill_price: Floats
    cost_usd: Floats
    carry_usd: Floats
    equity_usd: Floats
    exposure: Floats
    reward_components: Floats
    regime: Codes
    rejected: Ints
    violated: Ints
    passive: Ints
    undecided: Bools
    initial_equity_usd: float
    action_names: tuple[str, ...]
    rule_names: tuple[str, ...]
    rule_severity: tuple[str, ...]
    bars_per_session: int
    sessions_per_year: float
    cash_interest_annual_bps: float
    start_ns: int | None = None
    restarts: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that cannot be scored."""
        rows = len(self.end_ns)
        if rows == 0:
            raise TraceError("trace: has 0 decisions, needs at least 1; score a longer split")
        for name in _ROW_ARRAYS:
            if len(getattr(self, name)) != rows:
                raise TraceError(
                    f"trace.{name}: has {len(getattr(self, name))} rows, must have {rows} like "
                    "trace.end_ns; write one row per decision"
                )
        if np.any(np.diff(self.session) < 0):
            row = int(np.argmax(np.diff(self.session) < 0)) + 1
            raise TraceError(f"trace.session: falls at row {row}; give rows in time order")
        if not self.initial_equity_usd > 0:
            raise TraceError(
                f"trace.initial_equity_usd={self.initial_equity_usd}: must be above 0, or no "
                "return can be computed"
            )

    def __len__(self) -> int:
        """Return the number of decisions."""
        return len(self.end_ns)

    def session_ends(self) -> Ints:
        """Return the last row of every session, int64 (sessions,)."""
        return self._session_ends

    @cached_property
    def _session_ends(self) -> Ints:
        ends = session_ends(self.session)
        ends.flags.writeable = False
        return ends

    def equity_curve(self) -> Floats:
        """Return the initial equity and the equity after every row, float64 (n + 1,), USD."""
        return np.concatenate(([self.initial_equity_usd], self.equity_usd))

    def daily_returns(self) -> Floats:
        """Return the simple return of every session, float64 (sessions,), fraction.

        A session that starts with less than `RUIN_FRAC` of the initial equity returns 0: a
        ruined account has no return, and a ratio to dust would not be finite.
        """
        return session_returns(self.equity_usd[self.session_ends()], self.initial_equity_usd)

    def cash_returns(self) -> Floats:
        """Return what cash earned in every session, float64 (sessions,), fraction.

        Simple interest from row to row, actual/365, as the account credits it: so an
        account that stays flat has no excess return, weekends or not.
        """
        return cash_returns(
            self.end_ns,
            self.opening_ns(),
            self.session_ends(),
            self.cash_interest_annual_bps,
            self.restarts,
        )

    def accounts(self) -> list[slice]:
        """Return the rows of each account, one slice unless the trace was stitched.

        Positions end with their account: the fills of one never close those of another.
        """
        borders = [0, *(row for row, _ in self.restarts), len(self)]
        return [slice(start, stop) for start, stop in pairwise(borders)]

    def opening_ns(self) -> int:
        """Return when the initial equity was marked, UTC nanoseconds."""
        if self.start_ns is not None:
            return self.start_ns
        steps = np.diff(self.end_ns)
        return int(self.end_ns[0] - (np.median(steps) if len(steps) else 0))

    def blocked_rules(self) -> Ints:
        """Return the bitmask of rules that blocked any action of a row, int64 (n,)."""
        # By columns: along short rows numpy takes five times as long.
        return reduce(np.bitwise_or, self.blocked_by.T)

    def severity_bits(self, severity: str) -> int:
        """Return the bitmask of all rules of one severity."""
        return sum(1 << k for k, value in enumerate(self.rule_severity) if value == severity)

    def to_frame(self) -> "pd.DataFrame":
        """Return the rows as a table, indexed by the UTC end of the bar.

        Action names replace indices; `allowed_X` and `blocked_by_X` stand for every action
        X, `reward_X` for every reward component.
        """
        import pandas as pd

        columns: dict[str, object] = {name: getattr(self, name) for name in _PLAIN_COLUMNS}
        columns["action"] = pd.Categorical.from_codes(self.action, pd.Index(self.action_names))
        for index, name in enumerate(self.action_names):
            columns[f"allowed_{name}"] = self.mask[:, index]
            columns[f"blocked_by_{name}"] = self.blocked_by[:, index]
        for index, name in enumerate(REWARD_NAMES):
            columns[f"reward_{name}"] = self.reward_components[:, index]
        return pd.DataFrame(columns, index=pd.to_datetime(self.end_ns, utc=True).rename("end"))


def session_ends(session: Ints) -> Ints:
    """Return the last row of every session, int64 (sessions,), of rows `session`, int64 (n,)."""
    return np.append(np.flatnonzero(np.diff(session)), len(session) - 1).astype(np.int64)


def session_returns(after: Floats, initial_equity_usd: float) -> Floats:
    """Return `Trace.daily_returns` of the equity at session ends, float64 (sessions,)."""
    before = np.concatenate(([initial_equity_usd], after[:-1]))
    solvent = before > RUIN_FRAC * initial_equity_usd
    returns = np.zeros_like(after)
    returns[solvent] = after[solvent] / before[solvent] - 1.0
    return returns


def row_years(end_ns: Ints, start_ns: int, restarts: tuple[tuple[int, int], ...] = ()) -> Floats:
    """Return the time from mark to mark, float64 (n,), years of 365 days."""
    before = np.concatenate(([start_ns], end_ns[:-1]))
    for row, opened_ns in restarts:
        before[row] = opened_ns
    return (end_ns - before) / NS_PER_YEAR


def cash_returns(
    end_ns: Ints,
    start_ns: int,
    ends: Ints,
    interest_annual_bps: float,
    restarts: tuple[tuple[int, int], ...] = (),
) -> Floats:
    """Return `Trace.cash_returns` of rows whose sessions end at `ends`, float64 (sessions,)."""
    years = row_years(end_ns, start_ns, restarts)
    growth = np.log1p(interest_annual_bps / 1e4 * years)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return np.expm1(np.add.reduceat(growth, starts))
