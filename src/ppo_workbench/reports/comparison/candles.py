"""Candles with entries, exits and blocked actions, for the days that tell most.

Only the chosen stretches of bars are embedded: days of minute data, months of hourly data,
years of daily data.  The page draws one of them at a time from these numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, TypedDict

import numpy as np

from ppo_workbench.config.arrays import Floats, Ints
from ppo_workbench.reports.comparison.shown import ShownMarket
from ppo_workbench.scoring.trace import RUIN_FRAC, Trace

INTRADAY_BARS, MOST_BARS, MOST_YEARS = 48, 1500, 12


@dataclass(frozen=True)
class Stretch:
    """Rows `start` .. `stop - 1` of a trace under one label, such as a date."""

    label: str
    start: int
    stop: int


class StretchBars(TypedDict):
    """Bars of a stretch as parallel lists: local time as text, and prices."""

    time: list[str]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]


class Episode(TypedDict):
    """What an arm did in a stretch: fills, blocked runs, and rows that broke a rule."""

    label: str
    reason: str
    fills: list[list[float]]
    blocked: list[list[Any]]
    broken: list[int]


class CandleData(TypedDict):
    """All chosen stretches by label, and every arm's episodes."""

    stretches: dict[str, StretchBars]
    arms: dict[str, list[Episode]]
    unit: str


def candle_data(market: ShownMarket) -> CandleData:
    """Return the bars of all chosen stretches, and what each arm did in its own.

    `stretches` maps a label to bar times (local, text) and prices; `arms` maps an arm to its
    choices: label, why it was chosen, return, fills as (bar, signed shares, price, position
    before and after in signs), and blocked runs as (action, first bar, last bar, rules).
    """
    data: CandleData = {"stretches": {}, "arms": {}, "unit": _unit(market)}
    for name, trace in market.traces.items():
        bars = market.bar_of_row(name)
        chosen = _chosen(market, trace)
        data["arms"][name] = [
            _episode(trace, stretch, reasons) for stretch, reasons in chosen if reasons
        ]
        for stretch, _ in chosen:
            rows = bars[stretch.start : stretch.stop]
            known = data["stretches"].get(stretch.label)
            # Arms that were ruined saw fewer bars of the same stretch.
            if known is None or len(known["open"]) < len(rows):
                data["stretches"][stretch.label] = _bars(market, rows)
    return data


def stretches(market: ShownMarket, trace: Trace) -> list[Stretch]:
    """Cut a trace into days, months or years, whichever makes a readable chart."""
    local = market.local(trace.end_ns)
    if market.bars.bars_per_session >= INTRADAY_BARS:
        ends = trace.session_ends() + 1
        labels = local[ends - 1].strftime("%Y-%m-%d")
    else:
        codes = local.year * 12 + local.month if market.is_intraday else local.year
        ends = np.append(np.flatnonzero(np.diff(np.asarray(codes))) + 1, len(trace))
        labels = local[ends - 1].strftime("%Y-%m" if market.is_intraday else "%Y")
    starts = np.concatenate(([0], ends[:-1]))
    return [
        piece
        for label, start, stop in zip(labels, starts, ends, strict=True)
        for piece in _pieces(str(label), int(start), int(stop))
    ]


def _pieces(label: str, start: int, stop: int) -> list[Stretch]:
    if stop - start <= MOST_BARS:
        return [Stretch(label, start, stop)]
    cuts = [*range(start, stop, MOST_BARS), stop]
    return [Stretch(f"{label}, part {k + 1}", *ends) for k, ends in enumerate(pairwise(cuts))]


def _chosen(market: ShownMarket, trace: Trace) -> list[tuple[Stretch, str]]:
    """Return best, worst, median and most blocked stretch; every one of a few years."""
    found = stretches(market, trace)
    gains = _gains(trace, found)
    any_rule = trace.blocked_rules() != 0
    blocked = np.array([np.mean(any_rule[s.start : s.stop]) for s in found])
    order = np.argsort(gains, kind="stable")
    picks = [(int(order[-1]), "best"), (int(order[0]), "worst")]
    picks.append((int(order[(len(order) - 1) // 2]), "median"))
    if blocked.max() > 0:
        picks.append((int(blocked.argmax()), "most blocked"))
    reasons: dict[int, list[str]] = {}
    for index, reason in picks:
        reasons.setdefault(index, []).append(reason)
    if not market.is_intraday and len(found) <= MOST_YEARS:
        reasons = {index: reasons.get(index, []) for index in range(len(found))}
    return [
        (found[index], _reason(named, gains[index], blocked[index]))
        for index, named in reasons.items()
    ]


def _reason(named: Sequence[str], gain: float, blocked: float) -> str:
    parts = [", ".join(named)] if named else []
    return "; ".join([*parts, f"{100 * gain:+.2f} %", f"{100 * blocked:.0f} % blocked"])


def _gains(trace: Trace, found: Sequence[Stretch]) -> Floats:
    curve = trace.equity_curve()
    before = curve[[s.start for s in found]]
    after = curve[[s.stop for s in found]]
    solvent = before > RUIN_FRAC * trace.initial_equity_usd
    gains: Floats = np.where(solvent, after / np.where(solvent, before, 1.0) - 1.0, 0.0)
    return gains


def _bars(market: ShownMarket, rows: Ints) -> StretchBars:
    bars = market.bars
    form = "%Y-%m-%d %H:%M" if market.is_intraday else "%Y-%m-%d"
    times = market.local(bars.end_ns[rows] + (1 if market.is_intraday else 0)).strftime(form)
    first, high, low, last = (
        [float(f"{value:.7g}") for value in prices[rows]]
        for prices in (bars.open, bars.high, bars.low, bars.close)
    )
    return {"time": times.tolist(), "open": first, "high": high, "low": low, "close": last}


def _episode(trace: Trace, stretch: Stretch, reason: str) -> Episode:
    rows = slice(stretch.start, stretch.stop)
    return {
        "label": stretch.label,
        "reason": reason,
        "fills": _fills(trace, rows),
        "blocked": _blocked_runs(trace, rows),
        "broken": np.flatnonzero(trace.rejected[rows] | trace.violated[rows]).tolist(),
    }


def _fills(trace: Trace, rows: slice) -> list[list[float]]:
    position = np.cumsum(trace.fill_quantity)
    # Sums of fractions leave dust where the account is flat.
    size = np.abs(trace.fill_quantity).max(initial=0.0)
    position = np.where(np.abs(position) <= 1e-9 * max(size, 1e-300), 0.0, position)
    before = np.concatenate(([0.0], position[:-1]))[rows]
    after, quantity, price = position[rows], trace.fill_quantity[rows], trace.fill_price[rows]
    return [
        [
            int(i),
            float(f"{quantity[i]:.7g}"),
            float(f"{price[i]:.7g}"),
            int(np.sign(before[i])),
            int(np.sign(after[i])),
        ]
        for i in np.flatnonzero(quantity)
    ]


def _blocked_runs(trace: Trace, rows: slice) -> list[list[Any]]:
    """Return runs of bars at which an action was blocked by the same rules."""
    runs: list[list[Any]] = []
    blocked = trace.blocked_by[rows]
    for action in range(blocked.shape[1]):
        for bits, group in groupby(enumerate(blocked[:, action].tolist()), key=lambda p: p[1]):
            places = [place for place, _ in group]
            if bits:
                runs.append([action, places[0], places[-1], _rules(trace, bits)])
    return runs


def _rules(trace: Trace, bits: int) -> str:
    named = [rule for k, rule in enumerate(trace.rule_names) if bits >> k & 1]
    return ", ".join(rule.replace("_", " ") for rule in named)


def _unit(market: ShownMarket) -> str:
    if market.bars.bars_per_session >= INTRADAY_BARS:
        return "day"
    return "month" if market.is_intraday else "year"
