"""Out-of-sample traces of one arm, each begun in cash, joined to one curve."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from ppo_workbench.market.splits import Fold
from ppo_workbench.scoring.trace import RUIN_FRAC, Trace, TraceError

_SCALED = ("fill_quantity", "cost_usd", "carry_usd", "equity_usd")
_AS_THEY_ARE = (
    *("end_ns", "session", "close", "action", "mask", "blocked_by", "fill_price", "exposure"),
    *("reward_components", "regime", "rejected", "violated", "passive", "undecided"),
)
_ALIKE = (
    *("action_names", "rule_names", "rule_severity", "bars_per_session", "sessions_per_year"),
    "cash_interest_annual_bps",
)


def stitch(traces: Sequence[Trace]) -> Trace:
    """Join consecutive traces of one arm to one curve whose equity compounds.

    Each part takes over what its forerunner left, as cash: its shares, costs, carry and
    equity are multiplied by that equity over the part's own initial equity. So session
    returns, exposure and the return of each round trip stay those of the parts. A position
    that a part holds at its end is marked at the last close, never sold: it costs nothing,
    and its round trip is not counted, as at the end of any trace. Between two parts nothing
    is held or credited (the bar at whose close a part begins).

    A ruined curve ends with its part, as a backtest does. Limits in currency or shares were
    kept by the accounts of the parts: audit them, not the stitched trace.

    Args:
        traces: In time order; parts may be stitched traces themselves.

    Raises:
        TraceError: No trace, traces of different rules or actions, or sessions that two
            parts share or that run backwards.
    """
    if not traces:
        raise TraceError("stitch: has 0 traces, needs at least 1; give those of one arm")
    for number, (one, other) in enumerate(pairwise(traces), 2):
        _check_neighbours(one, other, number)
    parts: list[dict[str, np.ndarray[Any, Any]]] = []
    restarts: list[tuple[int, int]] = []
    rows, equity = 0, traces[0].initial_equity_usd
    for trace in traces:
        factor = equity / trace.initial_equity_usd
        parts.append(
            {name: getattr(trace, name) for name in _AS_THEY_ARE}
            | {name: getattr(trace, name) * factor for name in _SCALED}
        )
        restarts += [(rows, trace.opening_ns())] if rows else []
        restarts += [(rows + row, opened_ns) for row, opened_ns in trace.restarts]
        rows += len(trace)
        equity *= float(trace.equity_usd[-1]) / trace.initial_equity_usd
        if equity <= RUIN_FRAC * traces[0].initial_equity_usd:
            break
    joined: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts]) for name in parts[0]
    }
    start_ns = traces[0].opening_ns()
    return replace(traces[0], **joined, start_ns=start_ns, restarts=tuple(restarts))


def paths(folds: Sequence[Fold], traces: Sequence[Sequence[Trace]]) -> list[Trace]:
    """Join the tests of all folds to backtest paths, each of which covers every test range.

    Combinatorial folds test each of N groups in phi = C(N, k) k / N of them; path j takes of
    every group the j-th fold that tests it (Lopez de Prado 2018, section 12.3). The other
    protocols test each range once and have one path. Paths share their bars, and most of
    their training bars: they are no independent samples (docs/protocols.md).

    Args:
        folds: As `evaluation_folds` returns them.
        traces: For every fold, in its order, one trace for each of its tests.

    Returns:
        The stitched paths.

    Raises:
        TraceError: A trace is missing or one too many, ranges are tested unequally often, or
            the traces of a path cannot be stitched.
    """
    if not folds or len(folds) != len(traces):
        raise TraceError(
            f"paths: {len(traces)} folds with traces for {len(folds)} folds; give one sequence "
            "of traces for every fold"
        )
    groups: dict[int, list[Trace]] = {}
    for fold, tested in zip(folds, traces, strict=True):
        if len(tested) != len(fold.test):
            raise TraceError(
                f"paths: {fold.name} has {len(tested)} traces for {len(fold.test)} test ranges; "
                "give one for each"
            )
        for split, trace in zip(fold.test, tested, strict=True):
            groups.setdefault(split.start, []).append(trace)
    times = {len(group) for group in groups.values()}
    if len(times) != 1:
        raise TraceError(
            f"paths: test ranges are tested {min(times)} to {max(times)} times, must be equally "
            "often; give all folds of one protocol"
        )
    return [stitch(path) for path in zip(*(groups[start] for start in sorted(groups)), strict=True)]


def _check_neighbours(one: Trace, other: Trace, number: int) -> None:
    for name in _ALIKE:
        if getattr(one, name) != getattr(other, name):
            raise TraceError(
                f"stitch: trace {number} has {name}={getattr(other, name)}, the one before "
                f"{getattr(one, name)}; give traces of one arm on one market"
            )
    last, first = int(one.session[-1]), int(other.session[0])
    if first <= last or other.opening_ns() < one.end_ns[-1]:
        raise TraceError(
            f"stitch: trace {number} begins in session {first}, the one before ends in session "
            f"{last}; give traces in time order that share no session"
        )
