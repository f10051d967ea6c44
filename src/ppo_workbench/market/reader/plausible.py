"""What is formally right in a file and yet wrong: refused where it is sure, else noted by row."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from ppo_workbench.config import Adjust, BarsError, Volume
from ppo_workbench.config.arrays import Bools, Floats, Ints
from ppo_workbench.market.bars import NS_PER_DAY, NS_PER_SECOND, Describe
from ppo_workbench.market.calendars.exchange import Placement
from ppo_workbench.market.reader.faults import Fault, refuse, refuse_values

_Numbers = TypeVar("_Numbers", Floats, float)
_WEEKLY_NS = int(4.5 * NS_PER_DAY)
# So many equal steps in a row are no accident of a thin market.
_STEPS = 12
# Bars with the four prices of the bar before; five days of a cheap share's closes can be real.
_FROZEN_BARS = 10
_SPLITS = np.log([1.5, *range(2, 9), 10, 12, 15, 20, 25, 30, 40, 50, 100])
# A split comes with a night's return; eight percent is a rare one.
_SPLIT_TOLERANCE = 0.08
# Adjusted over raw close may change by so much for a dividend, in logarithms.
_LARGEST_DIVIDEND = 0.33


class Doubt(str):
    """A note on rows that may be wrong.

    Attributes:
        kind: In a word or two.
        rows: Positions of the bars.
    """

    kind: str
    rows: Ints

    @classmethod
    def of(cls, kind: str, broken: Bools, describe: Describe, words: str) -> "list[Doubt]":
        """Return a doubt of the rows that are broken, none if there are none.

        `words` follow the count of rows, "{}" in them is the first.
        """
        rows = np.flatnonzero(broken).astype(np.int64)
        if len(rows) == 0:
            return []
        doubt = cls(f"{len(rows)} {words.format(describe(int(rows[0])))}")
        doubt.kind, doubt.rows = kind, rows
        return [doubt]


def check_weekly(label: str, stamp_ns: Ints, describe: Describe) -> None:
    """Refuse bars that last a week or longer, before any calendar is asked.

    Raises:
        Fault: Stamps are typically more than four days apart.
    """
    step = float(np.median(np.diff(stamp_ns)))
    if step >= _WEEKLY_NS:
        raise Fault(
            f"{label}: bars are weekly or longer ({describe(0)}, {describe(1)}, typically "
            f"{step / NS_PER_DAY:g} days apart), but bars must be daily or shorter; give daily "
            "bars",
            "weekly bars",
        )


def changed_length(
    label: str, stamp_ns: Ints, day: Ints, bar_seconds: int, describe: Describe
) -> None:
    """Refuse a file in which the length of the bars changes; stamps and local days int64 (T,).

    Raises:
        Fault: Twelve neighbours or more have one other distance; single nights, and the first bar
            of a day, which the open may cut, are left out.
    """
    steps, night = np.diff(stamp_ns), np.diff(day) != 0
    kinds = np.where(night, np.where(steps < _WEEKLY_NS, NS_PER_DAY, -1), steps)
    usual = min(bar_seconds * NS_PER_SECOND, NS_PER_DAY)
    around = np.concatenate([[False], night, [False]])
    kept = np.flatnonzero(np.where(night, around[:-2] | around[2:], ~around[:-2]))
    begin = np.flatnonzero(np.diff(kinds[kept], prepend=0))
    runs = np.diff(begin, append=len(kept))
    other = kept[np.repeat((runs >= _STEPS) & (kinds[kept[begin]] != usual), runs)]
    broken = np.zeros(len(stamp_ns), np.bool_)
    broken[other] = broken[other + 1] = True

    def say(at: int) -> str:
        change = at or int(np.argmin(broken)) - 1
        before, after = (
            float(np.median(steps[max(change + k, 0) : change + k + _STEPS])) / NS_PER_SECOND
            for k in (-_STEPS, 0)
        )
        return (
            f"{label}: from {describe(change)} on bars are {after:g} seconds apart, before "
            f"{before:g}, but bars must be of one length; cut the file there"
        )

    refuse(broken, range(len(stamp_ns)), "changed bar length", say)


def adjusted(
    label: str,
    prices: Mapping[str, Floats],
    evidence: Mapping[str, Floats],
    adjust: Adjust | None,
    labels: Ints,
    describe: Describe,
) -> tuple[dict[str, Floats], list[str]]:
    """Return prices as `data.adjust` says, and notes; refuse splits that nobody decided on.

    Prices are float64 (T,), `evidence` those of adj_close, split and dividend that there are.

    Raises:
        Fault: Prices jump by a split that a column names, and `adjust` is None.
        BarsError: The column to adjust by is missing or no number.
    """
    close, adj = prices["close"], evidence.get("adj_close")
    split = evidence.get("split", np.ones(len(close)))
    split = np.where(np.isfinite(split) & (split > 0), split, 1.0)
    gap = _gap(prices)
    raw = (split != 1) & (np.abs(gap + np.log(split)) < np.abs(gap))
    if adj is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = np.concatenate([[0.0], np.diff(np.log(adj / close))])
        raw |= (np.abs(moved) > _LARGEST_DIVIDEND) & (np.abs(gap + moved) < np.abs(gap))
    by = Adjust.splits if adj is None else Adjust.adj_close
    if adjust is None:
        refuse(
            raw,
            labels,
            "split not adjusted",
            lambda at: (
                f"{label}: {describe(at)} opens at {prices['open'][at]:g} after a close of "
                f"{close[at - 1]:g}: a split that its columns name and its prices are not adjusted "
                f"for; set data.adjust={by.value} (or none to trade the jump)"
            ),
            {"adjust": by},
        )
        return dict(prices), _raw_notes(close, evidence, describe)
    if adjust is Adjust.none:
        return dict(prices), [f"data.adjust=none: {int(raw.sum())} splits are left in the prices"]
    needed = "adj_close" if adjust is Adjust.adj_close else "split"
    if needed not in evidence:
        raise BarsError(
            f"{label}: data.adjust={adjust.value} needs a column {needed}; add it, "
            "or take the prices as they are with data.adjust=none"
        )
    if adjust is Adjust.adj_close:
        factor = evidence[needed] / close
        broken = ~(np.isfinite(factor) & (factor > 0))
        rule = "an adjusted close must be above 0; correct the row"
        refuse_values(label, labels, needed, evidence[needed], broken, rule)
    else:
        later = np.concatenate([np.where(raw, 1 / split, 1.0)[1:], [1.0]])
        factor = np.cumprod(later[::-1])[::-1]
    count = int((np.abs(factor - 1) > 1e-9).sum())
    first = describe(int(np.argmax(np.abs(factor - 1) > 1e-9))) if count else "none"
    return scaled(prices, factor), [
        f"data.adjust={adjust.value}: prices of {count} bars adjusted, the first {first}"
    ]


def scaled(prices: Mapping[str, _Numbers], factor: _Numbers) -> dict[str, _Numbers]:
    """Return prices, arrays or numbers, times a factor, and volume divided by it.

    The money traded stays.
    """
    return {
        name: values / factor if name == "volume" else values * factor
        for name, values in prices.items()
    }


def _gap(prices: Mapping[str, Floats]) -> Floats:
    """Return log(open / prior close), 0 in the first row."""
    return np.concatenate([[0.0], np.log(prices["open"][1:] / prices["close"][:-1])])


def _raw_notes(close: Floats, evidence: Mapping[str, Floats], describe: Describe) -> list[str]:
    paid = np.nan_to_num(evidence.get("dividend", np.zeros(len(close)))) != 0
    apart = np.abs(evidence.get("adj_close", close) / close - 1) > 1e-6
    return [
        *Doubt.of(
            "dividends", paid, describe,
            "dividends, the first at {}, are not in the prices (data.adjust=adj_close where the "
            "file has such a column)",
        ),
        *Doubt.of(
            "adjusted close", apart, describe,
            "bars, the first {}, have an adjusted close that departs from the close; prices are "
            "taken raw (data.adjust=adj_close adjusts them)",
        ),
    ]  # fmt: skip


def suspicions(
    prices: Mapping[str, Floats], placement: Placement, volume: Volume, describe: Describe
) -> list[Doubt]:
    """Return what may be wrong in T bars: jumps near n:1, wrong opens, frozen prices, volume 0."""
    gap, close = _gap(prices), np.log(prices["close"])
    overnight = np.concatenate([[False], np.diff(placement.session) != 0])
    ratio = np.abs(gap)
    far = ratio > _SPLITS[0] - _SPLIT_TOLERANCE
    # A split stays: where the bar closes near the close before, its open alone is off.
    back = far & (np.abs(np.diff(close, prepend=close[0])) < ratio / 2)
    jump = overnight & far & ~back
    jump[jump] &= (
        np.abs(ratio[jump, None] - _SPLITS[None]).min(axis=1, initial=np.inf) < _SPLIT_TOLERANCE
    )
    quoted = [prices[name] for name in ("open", "high", "low", "close")]
    same = np.all([np.diff(values, prepend=np.nan) == 0 for values in quoted], axis=0)
    frozen = _runs(same, _FROZEN_BARS)
    zero = (prices["volume"] == 0) & (volume is not Volume.none)
    at = int(np.argmax(jump))
    nearest = float(np.exp(_SPLITS[np.abs(_SPLITS - ratio[at]).argmin()]))
    split = f"{nearest:g}:1" if gap[at] < 0 else f"1:{nearest:g}"
    return [
        *Doubt.of(
            "jump near n:1", jump, describe,
            f"jumps as of a split overnight, the first ({split}) at {{}}: {prices['open'][at]:g} "
            f"after {prices['close'][at - 1]:g}; if it is one, adjust the file",
        ),
        *Doubt.of(
            "open far off", back, describe,
            "bars open far from the close before and return to it, the first {}; correct the open",
        ),
        *Doubt.of(
            "frozen prices", frozen, describe,
            f"bars repeat all four prices of the bar before, {_FROZEN_BARS} or more in a row, the "
            "first at {}",
        ),
        *Doubt.of("volume 0", zero, describe, "bars have zero volume, the first {}"),
    ]  # fmt: skip


def _runs(flags: Bools, shortest: int) -> Bools:
    """Keep only flags that stand `shortest` or more in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    kept = np.zeros_like(flags)
    start, stop = edges.reshape(-1, 2).T
    for at in np.flatnonzero(stop - start >= shortest).tolist():
        kept[start[at] : stop[at]] = True
    return kept
