"""Figures of a trace: closed round trips and the scorecard, all finite by definition.

docs/metrics.md is the glossary: formula, unit, source and degenerate case of every figure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from math import exp, isfinite, log1p, sqrt
from typing import Any

import numpy as np

from ppo_workbench.config import ConfigError
from ppo_workbench.config.arrays import Codes, Floats, Ints
from ppo_workbench.jit import kernel
from ppo_workbench.plugins import registered
from ppo_workbench.scoring.annual import annual_root, years_of
from ppo_workbench.scoring.trace import RUIN_FRAC, Trace

SEVERITIES = ("impossible", "regulatory", "house")
RATIO_CAP = 1000.0
RETURN_CAP = 1e6
NORMAL_95 = 1.959963984540054
REFERENCE_VOLATILITY = 0.10
_DUST_FRAC = 1e-9
_NOTHING = 1e-9  # below this, per-session volatility and the like are rounding noise


@dataclass(frozen=True)
class RoundTrips:
    """Closed round trips in the order of their exit; all arrays have shape (trips,).

    Attributes:
        entry_row: int64, trace row of the fill that left flat (or flipped).
        exit_row: int64, trace row of the fill that came back to flat (or flipped).
        direction: int8, 1 long, -1 short.
        quantity: float64, shares entered over the life of the trip, scale-ins included.
        pnl_usd: float64, profit net of fill costs and including carry.
        return_frac: float64, `pnl_usd` over the notional entered.
        bars_held: int64, `exit_row - entry_row`.
    """

    entry_row: Ints
    exit_row: Ints
    direction: Codes
    quantity: Floats
    pnl_usd: Floats
    return_frac: Floats
    bars_held: Ints

    def __len__(self) -> int:
        """Return the number of closed round trips."""
        return len(self.entry_row)


@kernel
def _close_trips(
    quantities: Floats, prices: Floats, costs: Floats, carry: Floats, out: Floats
) -> int:
    """Write one row (entry, exit, direction, quantity, pnl, notional) per closed trip."""
    position, pnl, entered, notional = 0.0, 0.0, 0.0, 0.0
    entry, count = 0, 0
    for row in range(len(quantities)):
        # Carry accrues over the time before the fill, so it belongs to the trip open then.
        if position != 0.0:
            pnl += carry[row]
        size = abs(quantities[row])
        if size == 0.0:
            continue
        sign = 1.0 if quantities[row] > 0.0 else -1.0
        closing = min(size, abs(position)) if position * sign < 0.0 else 0.0
        opening = size - closing
        if closing > 0.0:
            if opening <= _DUST_FRAC * size:
                opening = 0.0
            pnl -= sign * closing * prices[row] + costs[row] * (1.0 - opening / size)
            position += sign * closing
            if abs(position) <= _DUST_FRAC * entered:
                out[count] = np.array([entry, row, -sign, entered, pnl, notional])
                count += 1
                position = 0.0
        if opening > 0.0:
            if position == 0.0:
                entry, pnl, entered, notional = row, 0.0, 0.0, 0.0
            pnl -= sign * opening * prices[row] + costs[row] * (opening / size)
            position += sign * opening
            entered += opening
            notional += opening * prices[row]
    return count


def round_trips(trace: Trace) -> RoundTrips:
    """Return the closed round trips of a trace.

    A trip opens when a fill leaves flat and closes when the position is flat again; partial
    reductions accumulate into it (the sum of cash flows equals the average-cost profit).  A
    flip closes one trip and opens the next, its cost split by shares.  Carry goes to the
    trip that is open before the row's fill.  A trip that is still open in the last row, of
    the trace or of an account of a stitched one, is not counted.
    """
    trips = np.concatenate([_trips_of(trace, rows) for rows in trace.accounts()])
    entry, leave, direction, quantity, pnl, notional = trips.T.copy()
    rows_in, rows_out = entry.astype(np.int64), leave.astype(np.int64)
    return RoundTrips(
        entry_row=rows_in,
        exit_row=rows_out,
        direction=direction.astype(np.int8),
        quantity=quantity,
        pnl_usd=pnl,
        return_frac=pnl / notional,
        bars_held=rows_out - rows_in,
    )


def _trips_of(trace: Trace, rows: slice) -> Floats:
    """Return what `_close_trips` writes of one account, float64 (trips, 6), in trace rows."""
    quantities = trace.fill_quantity[rows]
    out = np.empty((np.count_nonzero(quantities), 6))
    count = _close_trips(
        quantities, trace.fill_price[rows], trace.cost_usd[rows], trace.carry_usd[rows], out
    )
    out[:count, :2] += rows.start
    return out[:count]


def sharpe_ratio(excess: Floats, sessions_per_year: float) -> float:
    """Return the annual Sharpe ratio of per-session excess returns, float64 (T,).

    Fewer than two sessions or returns without variance give 0.  An account that is ruined in its
    first session is not one without a figure: a session of 0 after it is counted.
    """
    if len(excess) == 1 and excess[0] <= RUIN_FRAC - 1.0:
        excess = np.append(excess, 0.0)
    if len(excess) < 2:
        return 0.0
    deviation = float(np.std(excess, ddof=1))
    return _ratio(float(np.mean(excess)), deviation, capped=False) * annual_root(sessions_per_year)


def sharpe_standard_error(sharpe_annual: float, sessions: int, sessions_per_year: float) -> float:
    """Return the standard error of an annual Sharpe ratio for iid returns (Lo 2002, eq. 9)."""
    per_session = sharpe_annual / annual_root(sessions_per_year)
    return sqrt((1.0 + per_session**2 / 2.0) / max(sessions, 1)) * annual_root(sessions_per_year)


def sortino_ratio(excess: Floats, sessions_per_year: float) -> float:
    """Return the annual Sortino ratio of per-session excess returns, float64 (T,).

    The downside deviation is the root mean square of min(return, 0) over all T sessions;
    without a losing session the ratio is 0 or the cap.
    """
    downside = sqrt(float(np.mean(np.minimum(excess, 0.0) ** 2)))
    return _cap(_ratio(float(np.mean(excess)), downside) * annual_root(sessions_per_year))


def drawdowns(equity: Floats) -> Floats:
    """Return the fall below the running peak, float64 (T,), fraction of the peak.

    The first value must be above 0; a debt gives more than 1.
    """
    peak: Floats = np.maximum.accumulate(equity)
    return (peak - equity) / peak


def drawdowns_at_reference(trace: Trace) -> Floats:
    """Return the drawdowns of session returns scaled to 10 % volatility, float64 (sessions + 1,).

    Fractions of the peak, the first one 0; a scaled loss of all ends the equity at 0.
    """
    returns = trace.daily_returns()
    volatility = _volatility(returns, trace.sessions_per_year)
    scaled = returns * _ratio(REFERENCE_VOLATILITY, volatility, capped=False)
    growth = np.cumprod(1.0 + np.maximum(scaled, -1.0))
    return drawdowns(np.concatenate(([1.0], growth)))


@dataclass(frozen=True)
class Scorecard:
    """The figures of one trace; docs/metrics.md defines every one of them.

    Fractions end in `_frac` or `_share`, basis points in `_bps`, currency in `_usd`.
    `blocked_share` is keyed by rule, `violations` and `rejections` by severity, `own` by the
    metrics of plug-ins.
    """

    total_return_frac: float
    annual_return_frac: float
    excess_return_annual_frac: float
    sharpe_annual: float
    sharpe_standard_error: float
    sharpe_low_95: float
    sharpe_high_95: float
    sortino_annual: float
    calmar: float
    max_drawdown_frac: float
    max_drawdown_sessions: float
    max_drawdown_at_10pct_vol_frac: float
    volatility_annual_frac: float
    win_rate_frac: float
    expectancy_bps: float
    expectancy_usd: float
    profit_factor: float
    exposure_mean_abs: float
    exposure_mean: float
    turnover_annual: float
    cost_usd: float
    cost_bps_of_turnover: float
    carry_usd: float
    n_trades: int
    n_fills: int
    n_sessions: int
    n_decisions: int
    years: float
    masked_share: float
    undecided_share: float
    blocked_share: Mapping[str, float]
    violations: Mapping[str, int]
    rejections: Mapping[str, int]
    passive_breaches: int
    own: Mapping[str, float] = field(default_factory=dict)

    @property
    def ruined(self) -> bool:
        """Whether nothing was left of the account: worse than any Sharpe ratio says."""
        return self.total_return_frac <= RUIN_FRAC - 1.0

    def to_dict(self) -> dict[str, float]:
        """Return every figure as a float; nested ones as `blocked_share/RULE` and the like."""
        nested = {name: value for name, value in vars(self).items() if name != "own"}
        return {**flat(nested), **self.own}

    def describe(self) -> list[tuple[str, str]]:
        """Return (label, text) pairs for a reader, the most important first."""
        blocked = sorted(self.blocked_share.items(), key=lambda item: -item[1])[:3]
        return [
            ("Sharpe, annual", f"{self.sharpe_annual:+.2f}"),
            ("  95 % interval", f"{self.sharpe_low_95:+.2f} to {self.sharpe_high_95:+.2f}"),
            ("Max drawdown", f"{self.max_drawdown_frac:.1%}"),
            ("  its length", f"{self.max_drawdown_sessions:,.0f} sessions"),
            ("  at 10 % volatility", f"{self.max_drawdown_at_10pct_vol_frac:.1%}"),
            ("Win rate", f"{self.win_rate_frac:.1%} of {self.n_trades:,} round trips"),
            ("Expectancy", f"{self.expectancy_bps:+.2f} bps, {self.expectancy_usd:+,.2f} USD"),
            ("Profit factor", f"{self.profit_factor:.2f}"),
            ("Total return", f"{self.total_return_frac:+.1%} in {self.years:.2f} years"),
            ("Annual return", f"{self.annual_return_frac:+.1%}"),
            ("  over cash", f"{self.excess_return_annual_frac:+.1%}"),
            ("Volatility, annual", f"{self.volatility_annual_frac:.1%}"),
            ("Sortino, Calmar", f"{self.sortino_annual:+.2f}, {self.calmar:+.2f}"),
            ("Exposure", f"{self.exposure_mean_abs:.2f} absolute, {self.exposure_mean:+.2f} net"),
            ("Turnover", f"{self.turnover_annual:,.1f} x equity a year in {self.n_fills:,} fills"),
            ("Costs", f"{self.cost_usd:,.2f} USD, {self.cost_bps_of_turnover:.2f} bps of turnover"),
            ("Carry", f"{self.carry_usd:+,.2f} USD"),
            ("Decisions with a mask", f"{self.masked_share:.1%} of {self.n_decisions:,}"),
            ("  after a gap", f"{self.undecided_share:.1%}: nothing could be added"),
            ("  most active rules", _join(f"{k} {v:.1%}" for k, v in blocked if v > 0)),
            ("Violations", _join(f"{v:,} {k}" for k, v in self.violations.items() if v)),
            ("Rejections", _join(f"{v:,} {k}" for k, v in self.rejections.items() if v)),
            ("Passive breaches", f"{self.passive_breaches:,}"),
            *(_told_own(name, value) for name, value in self.own.items()),
        ]


def _told_own(name: str, value: float) -> tuple[str, str]:
    own = registered().metrics[name]
    return own.title, f"{value:+.2%}" if own.unit == "fraction" else f"{value:+,.4g}"


def flat(card: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a nested scorecard, as `Scorecard.to_dict`."""
    figures: dict[str, float] = {}
    for name, value in card.items():
        if isinstance(value, Mapping):
            figures |= {f"{name}/{key}": float(number) for key, number in value.items()}
        else:
            figures[name] = float(value)
    return figures


def scorecard(trace: Trace) -> Scorecard:
    """Return every figure of a trace; pure, and the same for the same trace."""
    figures: dict[str, Any] = {
        **_return_figures(trace),
        **_drawdown_figures(trace),
        **_trip_figures(round_trips(trace)),
        **_trading_figures(trace),
        **_mask_figures(trace),
    }
    return Scorecard(
        n_sessions=len(trace.session_ends()),
        n_decisions=len(trace),
        n_fills=int(np.count_nonzero(trace.fill_quantity)),
        years=_years(trace),
        **figures,
        own={name: _own_figure(name, trace) for name in registered().metrics},
    )


def _own_figure(name: str, trace: Trace) -> float:
    """Return a plug-in's metric of a trace.

    Raises:
        ConfigError: It is not finite, or there is an error in it.
    """
    try:
        value = float(registered().metrics[name].measure(trace))
    except Exception as error:
        raise ConfigError(f"metric {name}: {type(error).__name__} ({error}); correct it") from error
    if not isfinite(value):
        raise ConfigError(f"metric {name}={value}: must be finite for every trace; define it")
    return value


def blocked_shares(trace: Trace) -> dict[str, float]:
    """Return, for every rule, the share of decisions at which it blocked any action."""
    rules = trace.blocked_rules()
    found = int(np.bitwise_or.reduce(rules))
    return {
        name: float(np.count_nonzero(rules & (1 << k)) / len(trace)) if found & (1 << k) else 0.0
        for k, name in enumerate(trace.rule_names)
    }


def _years(trace: Trace) -> float:
    return years_of(len(trace.session_ends()), trace.sessions_per_year)


def _return_figures(trace: Trace) -> dict[str, float]:
    returns, per_year = trace.daily_returns(), trace.sessions_per_year
    cash = trace.cash_returns()
    excess = returns - cash
    total = float(trace.equity_usd[-1]) / trace.initial_equity_usd - 1.0
    cash_total = float(np.prod(1.0 + cash)) - 1.0
    annual = _annual_return(total, _years(trace))
    sharpe = sharpe_ratio(excess, per_year)
    error = sharpe_standard_error(sharpe, len(returns), per_year)
    return {
        "total_return_frac": total,
        "annual_return_frac": annual,
        "excess_return_annual_frac": annual - _annual_return(cash_total, _years(trace)),
        "sharpe_annual": sharpe,
        "sharpe_standard_error": error,
        "sharpe_low_95": sharpe - NORMAL_95 * error,
        "sharpe_high_95": sharpe + NORMAL_95 * error,
        "sortino_annual": sortino_ratio(excess, per_year),
        "volatility_annual_frac": _volatility(returns, per_year),
    }


def _drawdown_figures(trace: Trace) -> dict[str, float]:
    falls = drawdowns(trace.equity_curve())
    deepest = float(falls.max())
    annual = _annual_return(
        float(trace.equity_usd[-1]) / trace.initial_equity_usd - 1.0, _years(trace)
    )
    return {
        "max_drawdown_frac": deepest,
        "max_drawdown_sessions": _drawdown_sessions(trace, falls),
        "max_drawdown_at_10pct_vol_frac": float(drawdowns_at_reference(trace).max()),
        "calmar": _cap(_ratio(annual, deepest)),
    }


def _trip_figures(trips: RoundTrips) -> dict[str, float]:
    if len(trips) == 0:
        names = ("win_rate_frac", "expectancy_bps", "expectancy_usd", "profit_factor", "n_trades")
        return dict.fromkeys(names, 0)
    won = float(trips.pnl_usd[trips.pnl_usd > 0].sum())
    lost = -float(trips.pnl_usd[trips.pnl_usd < 0].sum())
    return {
        "win_rate_frac": float(np.mean(trips.pnl_usd > 0)),
        "expectancy_bps": float(trips.return_frac.mean()) * 1e4,
        "expectancy_usd": float(trips.pnl_usd.mean()),
        "profit_factor": _cap(_ratio(won, lost)),
        "n_trades": len(trips),
    }


def _trading_figures(trace: Trace) -> dict[str, float]:
    # No dot product: that of BLAS adds up in another order with another number of threads.
    traded = float((np.abs(trace.fill_quantity) * trace.fill_price).sum())
    cost, equity = float(trace.cost_usd.sum()), float(trace.equity_usd.mean())
    solvent = equity > RUIN_FRAC * trace.initial_equity_usd
    return {
        "exposure_mean_abs": float(np.abs(trace.exposure).mean()),
        "exposure_mean": float(trace.exposure.mean()),
        "turnover_annual": traded / equity / _years(trace) if solvent else 0.0,
        "cost_usd": cost,
        "cost_bps_of_turnover": cost / traded * 1e4 if traded > 0 else 0.0,
        "carry_usd": float(trace.carry_usd.sum()),
    }


def _mask_figures(trace: Trace) -> dict[str, float | dict[str, float] | dict[str, int]]:
    masked = ~trace.mask & (trace.blocked_by != 0)
    return {
        "masked_share": float(np.mean(reduce(np.logical_or, masked.T))),
        "undecided_share": float(np.mean(trace.undecided)),
        "blocked_share": blocked_shares(trace),
        "violations": _count_by_severity(trace, trace.violated),
        "rejections": _count_by_severity(trace, trace.rejected),
        "passive_breaches": _count_onsets(trace.passive),
    }


def _annual_return(total: float, years: float) -> float:
    """Compound a total return to one year; -1 for a ruined account."""
    if total <= -1.0:
        return -1.0
    return min(exp(min(log1p(total) / years, 700.0)) - 1.0, RETURN_CAP)


def _volatility(returns: Floats, per_year: float) -> float:
    return float(np.std(returns, ddof=1)) * annual_root(per_year) if len(returns) > 1 else 0.0


def _drawdown_sessions(trace: Trace, falls: Floats) -> float:
    """Count sessions from the peak before the deepest fall to its recovery or the end."""
    bottom = int(np.argmax(falls))
    if falls[bottom] == 0.0:
        return 0.0
    peak = int(np.flatnonzero(falls[:bottom] == 0.0)[-1])
    recovered = np.flatnonzero(falls[bottom:] == 0.0)
    end = bottom + int(recovered[0]) if len(recovered) else len(trace)
    steps = np.concatenate(([trace.bars_per_session == 1], np.diff(trace.session) > 0))
    # Index 0 is the mark before the first row: with daily bars it is the session before.
    ordinal = np.concatenate(([0], np.cumsum(steps)))
    return float(ordinal[end] - ordinal[peak])


def _count_by_severity(trace: Trace, broken: Ints) -> dict[str, int]:
    return {
        severity: int(np.count_nonzero(broken & trace.severity_bits(severity)))
        for severity in SEVERITIES
    }


def _count_onsets(bits: Ints) -> int:
    """Count the bits that a row has and the row before it has not."""
    before = np.concatenate((np.zeros(1, np.int64), bits[:-1]))
    return int(np.bitwise_count(bits & ~before).sum())


def _ratio(value: float, scale: float, *, capped: bool = True) -> float:
    """Divide; by (nearly) nothing the answer is 0, or the cap for a gain if `capped`."""
    if scale > _NOTHING:
        return value / scale
    return RATIO_CAP if capped and value > _NOTHING else 0.0


def _cap(ratio: float) -> float:
    return min(max(ratio, -RATIO_CAP), RATIO_CAP)


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts) or "none"
