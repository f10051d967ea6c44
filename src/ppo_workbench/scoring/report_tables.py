"""The tables of a report as plain numbers: the page formats them, the JSON keeps them.

Every number is finite or None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ppo_workbench.scoring.breakdown import Part, by_hour, by_regime, by_year, whole
from ppo_workbench.scoring.metrics import SEVERITIES, RoundTrips, round_trips, scorecard
from ppo_workbench.scoring.plots import monthly_returns
from ppo_workbench.scoring.report_document import (
    Arm,
    Document,
    audit_count,
    better_sign,
    cards_of,
    difference_unit,
    estimate,
    figure_title,
    has_interval,
    number,
    part,
    plain,
    title_of,
    told_differences,
)
from ppo_workbench.scoring.report_world import World
from ppo_workbench.scoring.trace import Trace

Table = dict[str, Any]

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
)
PROMISED = {
    "sharpe_annual": "masked > 1.5, standard 0.8 to 1.2",
    "max_drawdown_frac": "masked < 8 %, standard 10 to 15 %",
    "win_rate_frac": "masked > 60 %, standard 50 to 55 %",
    "sortino_annual": "masked higher",
    "calmar": "masked higher",
}
MOST_TRIPS = 1500
EXTREME_TRIPS = 5


def metric_table(document: Document, arms: Sequence[Arm], world: World) -> list[Table]:
    """Return one row for each arm: every figure with its interval and verdict."""
    table = []
    for arm in arms:
        cards = cards_of(document, arm.name)
        if not cards and arm.name in world.traces:
            cards = [scorecard(world.traces[arm.name]).to_dict()]
        cells = {key: asdict(estimate(document, arm.name, key, cards)) for key in METRICS}
        table.append({"arm": arm.name, "title": arm.title, "kind": arm.kind, "figures": cells})
    return table


def difference_table(document: Document, arms: Sequence[Arm]) -> list[Table]:
    """Return the paired differences, figure by figure, with the scale of their picture.

    `left`, `width` and `at` are the interval and the estimate in per cent of the axis that
    all differences of one figure share; `zero` is where 0 stands on it.
    """
    groups: dict[str, list[Table]] = {}
    for row in told_differences(document):
        groups.setdefault(str(row.get("figure")), []).append(row)
    return [
        {
            "figure": figure,
            "title": figure_title(figure),
            "unit": difference_unit(figure),
            "better": {1: "right", -1: "left", 0: ""}[better_sign(figure)],
            "rows": [_placed(row, arms, *_span(listed)) for row in listed],
        }
        for figure, listed in groups.items()
    ]


def invalid_table(document: Document, arms: Sequence[Arm], world: World) -> list[Table]:
    """Return the invalid trades of each arm by severity: executed, and rejected."""
    table = []
    for arm in arms:
        counts = part(document, "invalid_trades", arm.name) or _invalid(world, arm.name)
        audit = part(document, "audit", arm.name)
        if not counts and not audit:
            continue
        executed = {name: number(counts, name) for name in SEVERITIES}
        rejected = {name: number(counts, f"rejected_{name}") for name in SEVERITIES}
        table.append(
            {
                "arm": arm.name,
                "title": arm.title,
                "executed": executed,
                "rejected": rejected,
                "audit": audit_count(document, arm.name),
                "audit_by_rule": {
                    rule.replace("_", " "): count for rule, count in part(audit, "by_rule").items()
                },
                "unaudited": [str(r).replace("_", " ") for r in audit.get("unaudited") or ()],
            }
        )
    return table


def stress_tables(document: Document, arms: Sequence[Arm] = ()) -> list[Table]:
    """Return each re-scored policy: scenarios with their figures, and the break-even cost."""
    found = part(document, "stress")
    policies = [found] if "scenarios" in found else list(found.values())
    tables = []
    for policy in policies:
        scenarios = part(policy, "scenarios")
        if not scenarios:
            continue
        tables.append(
            {
                "policy": title_of(arms, part(policy).get("policy") or "policy"),
                "scenarios": [
                    {
                        "name": name,
                        "change": str(part(scenarios, name).get("change") or name),
                        "figures": part(scenarios, name, "figures"),
                    }
                    for name in scenarios
                ],
                "break_even": part(policy, "break_even"),
            }
        )
    return tables


def arm_tables(world: World, name: str) -> Table:
    """Return the tables of one arm's trace: months, regimes, hours, years and round trips."""
    trace, zone = world.traces[name], world.bars.timezone
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
        "trips": trip_table(trace, world),
    }


def trip_table(trace: Trace, world: World) -> Table:
    """Return the round trips, in the order of their exit, the largest if they are too many.

    Columns, as parallel lists: entry and exit in the exchange's local time, direction (1
    long, -1 short), shares, profit net of costs in USD, return in bps of the notional
    entered, and bars held.
    """
    trips = round_trips(trace)
    kept = np.arange(len(trips))
    if len(trips) > MOST_TRIPS:
        kept = np.sort(np.argsort(-np.abs(trips.pnl_usd), kind="stable")[:MOST_TRIPS])
    order = kept[np.argsort(-trips.pnl_usd[kept], kind="stable")]
    places = {int(trip): place for place, trip in enumerate(kept)}
    won, lost = order[:EXTREME_TRIPS], order[::-1][:EXTREME_TRIPS]
    return {
        "count": len(trips),
        "columns": _trip_columns(trips, kept, trace, world),
        "winners": [places[int(i)] for i in won if trips.pnl_usd[i] > 0],
        "losers": [places[int(i)] for i in lost if trips.pnl_usd[i] < 0],
    }


def _trip_columns(
    trips: RoundTrips, kept: np.ndarray[Any, np.dtype[np.int64]], trace: Trace, world: World
) -> Table:
    form = "%Y-%m-%d %H:%M" if world.is_intraday else "%Y-%m-%d"
    return {
        "entry": world.local(trace.end_ns[trips.entry_row[kept]]).strftime(form).tolist(),
        "exit": world.local(trace.end_ns[trips.exit_row[kept]]).strftime(form).tolist(),
        "direction": trips.direction[kept].tolist(),
        "shares": plain(_short(trips.quantity[kept])),
        "profit_usd": plain(np.round(trips.pnl_usd[kept], 2)),
        "return_bps": plain(np.round(1e4 * trips.return_frac[kept], 2)),
        "bars": trips.bars_held[kept].tolist(),
    }


def _short(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float | int]:
    """Return numbers without digits that a table does not show."""
    return [int(v) if v == int(v) else round(float(v), 4) for v in values]


def _parts(parts: Mapping[str, Part]) -> list[Table]:
    return [{"name": name, **plain(values.to_dict())} for name, values in parts.items()]


def _invalid(world: World, name: str) -> Table:
    if name not in world.traces:
        return {}
    card = scorecard(world.traces[name])
    return {**card.violations, **{f"rejected_{k}": v for k, v in card.rejections.items()}}


def _span(listed: Sequence[Document]) -> tuple[float, float]:
    """Return the ends of an axis that holds 0 and every interval."""
    ends = [number(row, key) for row in listed for key in ("low", "high", "estimate")]
    values = [0.0, *(value for value in ends if value is not None)]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _placed(row: Document, arms: Sequence[Arm], left: float, right: float) -> Table:
    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - left) / (right - left), 2)

    low, high = number(row, "low"), number(row, "high")
    start, stop = place(low), place(high)
    return {
        "first": title_of(arms, row.get("first")),
        "second": title_of(arms, row.get("second")),
        "estimate": number(row, "estimate"),
        "low": low,
        "high": high,
        "p_value": number(row, "p_value"),
        "decided": bool(row.get("decided")),
        "method": str(row.get("method") or ""),
        "has_interval": has_interval(row),
        "at": place(number(row, "estimate")),
        "left": start,
        "width": None if start is None or stop is None else round(stop - start, 2),
        "zero": place(0.0),
    }
