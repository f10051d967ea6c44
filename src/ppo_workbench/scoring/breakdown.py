"""Where a result comes from: the rows of a trace parted by regime, hour of day or year.

The parts add up to the whole: profit, excess return, costs, time and trades.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ppo_workbench.config.arrays import Bools, Floats, Ints
from ppo_workbench.market.regimes import REGIME_NAMES
from ppo_workbench.scoring.metrics import RoundTrips, round_trips, sharpe_ratio
from ppo_workbench.scoring.trace import RUIN_FRAC, Trace, row_years

_LEAST_SESSIONS = 20


@dataclass(frozen=True)
class Part:
    """Figures of some rows of a trace.

    Attributes:
        profit_usd: Sum of the changes of equity; all parts together make final less initial.
        excess_return_frac: Sum of simple returns over cash, bar by bar, fraction.
        sharpe_annual: Sharpe ratio of what these rows earned over cash, session by session
            from the first to the last row, 0 where a session has none of them; None below
            `_LEAST_SESSIONS` sessions or without variance.
        n_trades: Closed round trips that were opened in these rows.
        win_rate_frac: Share of them that made money; None without any.
        time_share: Share of all rows.
        exposure_mean_abs: Mean absolute exposure, share of equity.
        cost_usd: Costs of the fills.
    """

    profit_usd: float
    excess_return_frac: float
    sharpe_annual: float | None
    n_trades: int
    win_rate_frac: float | None
    time_share: float
    exposure_mean_abs: float
    cost_usd: float

    def to_dict(self) -> dict[str, float | None]:
        """Return every figure, finite or None."""
        return asdict(self)


def whole(trace: Trace) -> Part:
    """Return the figures of all rows together."""
    return _parts(trace, np.zeros(len(trace), np.int64))[0]


def by_regime(trace: Trace) -> dict[str, Part]:
    """Return the part of every regime that occurs, by its causal label at the decision."""
    parts = _parts(trace, trace.regime.astype(np.int64))
    return {REGIME_NAMES[label]: part for label, part in parts.items()}


def by_hour(trace: Trace, timezone: str) -> dict[str, Part]:
    """Return the part of every hour of the day, named 00 to 23, of the bars' own time.

    A row belongs to the hour in which its bar ends, a bar that ends on the hour to the hour
    before.  Daily bars have no hours: the answer is empty.

    Args:
        trace: What a policy did.
        timezone: IANA name, `Bars.timezone`: the exchange's local time.
    """
    if trace.bars_per_session == 1:
        return {}
    return {f"{hour:02d}": part for hour, part in _parts(trace, _local(trace, timezone)[0]).items()}


def by_year(trace: Trace, timezone: str) -> dict[str, Part]:
    """Return the part of every calendar year, in the exchange's local time."""
    return {str(year): part for year, part in _parts(trace, _local(trace, timezone)[1]).items()}


def _local(trace: Trace, timezone: str) -> tuple[Ints, Ints]:
    """Return hour and year of the last moment of each row's bar, int64 (n,) each."""
    import pandas as pd

    local = pd.DatetimeIndex(trace.end_ns - 1, tz="UTC").tz_convert(timezone)
    return np.asarray(local.hour, np.int64), np.asarray(local.year, np.int64)


def _parts(trace: Trace, labels: Ints) -> Mapping[int, Part]:
    """Return the part of each label, int64 (n,), in rising order."""
    excess, profit = _row_excess(trace), np.diff(trace.equity_curve())
    trips = round_trips(trace)
    return {
        int(label): _part(trace, labels == label, excess, profit, trips)
        for label in np.unique(labels)
    }


def _row_excess(trace: Trace) -> Floats:
    """Return the simple return of every row over cash, float64 (n,); 0 for a ruined account."""
    before = trace.equity_curve()[:-1]
    solvent = before > RUIN_FRAC * trace.initial_equity_usd
    returns = np.where(solvent, np.diff(trace.equity_curve()) / np.where(solvent, before, 1.0), 0.0)
    years = row_years(trace.end_ns, trace.opening_ns(), trace.restarts)
    return returns - trace.cash_interest_annual_bps / 1e4 * years


def _part(trace: Trace, rows: Bools, excess: Floats, profit: Floats, trips: RoundTrips) -> Part:
    opened = rows[trips.entry_row]
    won = trips.pnl_usd[opened] > 0.0
    return Part(
        profit_usd=float(profit[rows].sum()),
        excess_return_frac=float(excess[rows].sum()),
        sharpe_annual=_sharpe(trace, rows, excess),
        n_trades=int(opened.sum()),
        win_rate_frac=float(won.mean()) if len(won) else None,
        time_share=float(rows.mean()),
        exposure_mean_abs=float(np.abs(trace.exposure[rows]).mean()),
        cost_usd=float(trace.cost_usd[rows].sum()),
    )


def _sharpe(trace: Trace, rows: Bools, excess: Floats) -> float | None:
    ends = trace.session_ends()
    starts = np.concatenate(([0], ends[:-1] + 1))
    earned = np.add.reduceat(np.where(rows, excess, 0.0), starts)
    at = np.flatnonzero(np.add.reduceat(rows.astype(np.int64), starts))
    earned = earned[at[0] : at[-1] + 1]
    ratio = sharpe_ratio(earned, trace.sessions_per_year)
    return ratio if len(earned) >= _LEAST_SESSIONS and ratio != 0.0 else None
