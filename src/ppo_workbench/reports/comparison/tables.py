"""The tables of a report as plain numbers: the page formats them, the JSON keeps them.

Every number is finite or None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import NotRequired, TypedDict

import numpy as np

from ppo_workbench.plugins import registered
from ppo_workbench.reports.comparison.document import (
    Arm,
    estimate,
    has_interval,
    plain,
    sampled,
    title_of,
    told_differences,
)
from ppo_workbench.reports.comparison.masks import MaskTable
from ppo_workbench.reports.comparison.shown import ShownMarket
from ppo_workbench.reports.plots import monthly_returns
from ppo_workbench.scoring.breakdown import Part, by_hour, by_regime, by_year, whole
from ppo_workbench.scoring.catalogue import metric_of
from ppo_workbench.scoring.documents import Document, Figures, PairedDifference
from ppo_workbench.scoring.figures import difference_unit, figure_title
from ppo_workbench.scoring.metrics import SEVERITIES, round_trips
from ppo_workbench.scoring.trace import Trace

# The specification's table, then what tells how much the figures rest on.
METRICS = (
    "sharpe_annual",
    "max_drawdown_frac",
    "win_rate_frac",
    "sortino_annual",
    "calmar",
    "max_drawdown_at_10pct_vol_frac",
    "annual_return_frac",
    "n_trades",
    "exposure_mean_abs",
    *registered().metrics,
)
PROMISED = {
    "sharpe_annual": "masked > 1.5, standard 0.8 to 1.2",
    "max_drawdown_frac": "masked < 8 %, standard 10 to 15 %",
    "win_rate_frac": "masked > 60 %, standard 50 to 55 %",
    "sortino_annual": "masked higher",
    "calmar": "masked higher",
}
MOST_TRIPS = 1500


class EstimateCell(TypedDict):
    """A `scoring.figures.Estimate`."""

    value: float | None
    low: float | None
    high: float | None
    basis: str
    over: str
    verdict: str
    years_to_decide: float | None


class MetricRow(TypedDict):
    """Every figure of one arm."""

    arm: str
    title: str
    kind: str
    figures: dict[str, EstimateCell]


class PlacedDifference(TypedDict):
    """A difference between two titles, and where it lies on its axis, in per cent of that."""

    first: str
    second: str
    estimate: float
    low: float | None
    high: float | None
    p_value: float | None
    decided: bool
    has_interval: bool
    over: str
    at: float | None
    left: float | None
    width: float | None
    zero: float | None


class DifferenceGroup(TypedDict):
    """The differences of one figure; the page counts those that it shows."""

    figure: str
    title: str
    unit: str
    better: str
    rows: list[PlacedDifference]
    count: NotRequired[int]


class InvalidRow(TypedDict):
    """Invalid trades of one arm by severity, and what the audit counted."""

    arm: str
    title: str
    executed: dict[str, int | None]
    rejected: dict[str, int | None]
    audit: int
    audit_by_rule: dict[str, int]
    unaudited: list[str]


class MonthGrid(TypedDict):
    """Returns by month, a row a year, as fractions; None where nothing was traded."""

    years: list[int]
    months: list[list[float | None]]
    totals: list[float | None]
    largest: float


class TripTable(TypedDict):
    """How many round trips there were, and the columns of `trip_table`."""

    count: int
    columns: dict[str, list[str | float]]


class ArmTables(TypedDict):
    """The tables of one arm's trace; a part has its `name` and figures."""

    whole: Figures
    by_regime: list[dict[str, str | float | None]]
    by_hour: list[dict[str, str | float | None]]
    by_year: list[dict[str, str | float | None]]
    monthly: MonthGrid
    trips: TripTable


class ReportTables(TypedDict):
    """Every table of a report; by arm where there is one for each."""

    metrics: list[MetricRow]
    differences: list[DifferenceGroup]
    invalid_trades: list[InvalidRow]
    masks: dict[str, MaskTable]
    arms: dict[str, ArmTables]


def metric_table(document: Document, arms: Sequence[Arm]) -> list[MetricRow]:
    """Return one row for each arm: every figure with its interval and verdict."""
    return [
        {
            "arm": arm.name,
            "title": arm.title,
            "kind": arm.kind,
            "figures": {key: plain(asdict(estimate(document, arm.name, key))) for key in METRICS},
        }
        for arm in arms
    ]


def difference_table(document: Document, arms: Sequence[Arm]) -> list[DifferenceGroup]:
    """Return the paired differences, figure by figure, with the scale of their picture.

    `left`, `width` and `at` are the interval and the estimate in per cent of the axis that
    all differences of one figure share; `zero` is where 0 stands on it.
    """
    groups: dict[str, list[PairedDifference]] = {}
    for row in told_differences(document):
        groups.setdefault(row["figure"], []).append(row)
    return [
        {
            "figure": figure,
            "title": figure_title(figure),
            "unit": difference_unit(figure),
            "better": {1: "right", -1: "left", 0: ""}[metric_of(figure).better],
            "rows": [_placed(row, arms, *_span(listed)) for row in listed],
        }
        for figure, listed in groups.items()
    ]


def invalid_table(document: Document, arms: Sequence[Arm]) -> list[InvalidRow]:
    """Return the invalid trades of each arm by severity: executed, and rejected."""
    table: list[InvalidRow] = []
    for arm in arms:
        counts, audit = document["invalid_trades"][arm.name], document["audit"][arm.name]
        table.append(
            {
                "arm": arm.name,
                "title": arm.title,
                "executed": {name: counts.get(name) for name in SEVERITIES},
                "rejected": {name: counts.get(f"rejected_{name}") for name in SEVERITIES},
                "audit": audit["violations"],
                "audit_by_rule": {
                    rule.replace("_", " "): count for rule, count in audit["by_rule"].items()
                },
                "unaudited": [rule.replace("_", " ") for rule in audit["unaudited"]],
            }
        )
    return table


def arm_tables(market: ShownMarket, name: str) -> ArmTables:
    """Return the tables of one arm's trace: months, regimes, hours, years and round trips."""
    trace, zone = market.traces[name], market.bars.timezone
    years, grid = monthly_returns(trace)
    growth = np.array([np.prod(1.0 + row[np.isfinite(row)]) - 1.0 for row in grid])
    return {
        "whole": whole(trace).to_dict(),
        "by_regime": _parts(by_regime(trace)),
        "by_hour": _parts(by_hour(trace, zone)),
        "by_year": _parts(by_year(trace, zone)),
        "monthly": {
            "years": years,
            "months": plain(grid),
            "totals": plain(growth),
            "largest": float(np.nanmax(np.abs(grid))),
        },
        "trips": trip_table(trace, market),
    }


def trip_table(trace: Trace, market: ShownMarket) -> TripTable:
    """Return the round trips, in the order of their exit, the largest if they are too many.

    Columns, as parallel lists: entry and exit in the exchange's local time, direction (1
    long, -1 short), shares, profit net of costs in USD, return in bps of the notional
    entered, and bars held.
    """
    trips = round_trips(trace)
    kept = np.arange(len(trips))
    if len(trips) > MOST_TRIPS:
        kept = np.sort(np.argsort(-np.abs(trips.pnl_usd), kind="stable")[:MOST_TRIPS])
    form = "%Y-%m-%d %H:%M" if market.is_intraday else "%Y-%m-%d"
    columns = {
        "entry": market.local(trace.end_ns[trips.entry_row[kept]]).strftime(form).tolist(),
        "exit": market.local(trace.end_ns[trips.exit_row[kept]]).strftime(form).tolist(),
        "direction": trips.direction[kept],
        "shares": np.round(trips.quantity[kept], 4),
        "profit_usd": np.round(trips.pnl_usd[kept], 2),
        "return_bps": np.round(1e4 * trips.return_frac[kept], 2),
        "bars": trips.bars_held[kept],
    }
    return {"count": len(trips), "columns": plain(columns)}


def _parts(parts: Mapping[str, Part]) -> list[dict[str, str | float | None]]:
    return [{"name": name, **plain(values.to_dict())} for name, values in parts.items()]


def _span(listed: Sequence[PairedDifference]) -> tuple[float, float]:
    """Return the ends of an axis that holds 0 and every interval."""
    ends = [end for row in listed for end in (row["low"], row["high"], row["estimate"])]
    values = [0.0, *(value for value in ends if value is not None)]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _placed(
    row: PairedDifference, arms: Sequence[Arm], left: float, right: float
) -> PlacedDifference:
    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - left) / (right - left), 2)

    start, stop = place(row["low"]), place(row["high"])
    return {
        "first": title_of(arms, row["first"]),
        "second": title_of(arms, row["second"]),
        "estimate": row["estimate"],
        "low": row["low"],
        "high": row["high"],
        "p_value": row["p_value"],
        "decided": row["decided"],
        "has_interval": has_interval(row),
        "over": sampled(row["method"], row["runs"], row["figure"]),
        "at": place(row["estimate"]),
        "left": start,
        "width": None if start is None or stop is None else round(stop - start, 2),
        "zero": place(0.0),
    }
