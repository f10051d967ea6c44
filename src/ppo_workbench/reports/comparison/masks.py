"""What masks blocked and when: by rule, action, regime and hour, and over time."""

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from ppo_workbench.config.arrays import Bools
from ppo_workbench.market.regimes import REGIME_NAMES
from ppo_workbench.reports.comparison.shown import ShownMarket
from ppo_workbench.reports.plots import bucket_edges, bucket_means
from ppo_workbench.scoring.trace import Trace

MOST_BUCKETS, MOST_RULES = 80, 6


class MaskColumn(TypedDict):
    """A heading, and the share of decisions that fall under it."""

    name: str
    time_share: float


class RuleInMask(TypedDict):
    """A rule, or any rule on one action; its shares by column."""

    name: str
    shares: list[float]


class MaskTable(TypedDict):
    """What the masks of one arm blocked."""

    columns: list[MaskColumn]
    rules: list[RuleInMask]
    masked_share: float


class MaskHistory(TypedDict):
    """Shares of the most active rules over time, by rule; the first date of each stretch."""

    dates: list[str]
    rules: dict[str, list[float]]


def mask_table(market: ShownMarket, name: str) -> MaskTable:
    """Return the share of decisions at which each rule blocked an action, in columns.

    `columns` has a heading and the share of decisions that fall under it; a rule's `shares`
    are of the decisions in its column.  Rules that never blocked are left out.
    """
    trace = market.traces[name]
    rules = trace.blocked_rules()
    columns = _columns(market, trace)
    listed = [
        (rule, [_share((rules >> k) & 1, rows) for _, rows in columns])
        for k, rule in enumerate(trace.rule_names)
        if np.any((rules >> k) & 1)
    ]
    actions = [
        (f"any rule: {action}", [_share(trace.blocked_by[:, k] != 0, rows) for _, rows in columns])
        for k, action in enumerate(trace.action_names)
    ]
    found = sorted(listed, key=lambda row: -row[1][0])
    found += [row for row in actions if row[1][0]]
    return {
        "columns": [{"name": head, "time_share": float(rows.mean())} for head, rows in columns],
        "rules": [{"name": rule.replace("_", " "), "shares": shares} for rule, shares in found],
        "masked_share": float(np.mean(np.any(~trace.mask & (trace.blocked_by != 0), axis=1))),
    }


def mask_history(market: ShownMarket, name: str) -> MaskHistory:
    """Return the shares of the most active rules in equal stretches of sessions."""
    trace = market.traces[name]
    rules = trace.blocked_rules()
    dates, ends = market.dates(name), trace.session_ends()
    sessions = bucket_edges(len(ends), MOST_BUCKETS)
    edges = np.concatenate(([0], ends + 1))[sessions]
    totals = np.array([np.count_nonzero((rules >> k) & 1) for k in range(len(trace.rule_names))])
    active = [int(k) for k in np.argsort(-totals, kind="stable")[:MOST_RULES] if totals[k]]
    return {
        "dates": [dates[i] for i in sessions[:-1]],
        "rules": {
            trace.rule_names[k].replace("_", " "): bucket_means((rules >> k) & 1, edges).tolist()
            for k in active
        },
    }


def _columns(market: ShownMarket, trace: Trace) -> list[tuple[str, Bools]]:
    columns = [("all", np.ones(len(trace), np.bool_))]
    columns += [
        (label.replace("_", " ").replace("volatility", "vol."), trace.regime == k)
        for k, label in enumerate(REGIME_NAMES)
        if np.any(trace.regime == k)
    ]
    if market.is_intraday:
        hours = np.asarray(market.local(trace.end_ns).hour, np.int64)
        columns += [(f"{hour:02d} h", hours == hour) for hour in np.unique(hours)]
    return columns


def _share(blocked: npt.NDArray[Any], rows: Bools) -> float:
    return float(np.count_nonzero(blocked[rows]) / np.count_nonzero(rows))
