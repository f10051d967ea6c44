"""Find look-ahead: change the future of some bars and see whether the past moves."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ppo_workbench.market.bars import Bars

Arrays = Mapping[str, npt.NDArray[np.generic]]


def look_ahead(compute: Callable[[Bars], Arrays], bars: Bars, at: int, seed: int = 0) -> list[str]:
    """Return which arrays know, before bar `at`, something that happens from bar `at` on.

    The future is cut off (seen from the shorter history: appended) and altered.  Every
    array must then be the same before `at`, bit for bit.

    Args:
        compute: Returns named arrays whose first axis is the T bars it is given.
        bars: T bars.
        at: 0 < at < T; rows before it are compared.
        seed: Of the altered future.

    Returns:
        One "<array>: <change> changes row <t>" for each array that looks ahead.
    """
    before = compute(bars)
    futures = {
        "cutting the future": compute(bars.slice(0, at)),
        "altering the future": compute(alter_future(bars, at, seed)),
    }
    return [
        f"{name}: {change} changes row {row}"
        for change, after in futures.items()
        for name in before
        if (row := _first_difference(before[name][:at], after[name][:at])) is not None
    ]


def alter_future(bars: Bars, at: int, seed: int = 0) -> Bars:
    """Return the bars with other prices, volumes, spreads, extras and events from `at` on."""
    random = np.random.default_rng(seed)
    count = len(bars) - at
    factor = np.ones(len(bars))
    factor[at:] = np.exp(random.normal(0.05, 0.02, count).cumsum())
    # High and low move apart, so that a bar stays a bar while its shape changes.
    wider = np.where(factor == 1, 1.0, 1.01)
    extra, quote = bars.extra.copy(), bars.half_spread_bps * factor
    extra[at:] += random.normal(size=(count, extra.shape[1]))
    events, ahead = bars.events.copy(), bars.events_ahead.copy()
    events[at:], ahead[at:] = np.arange(count), 1
    return replace(
        bars,
        open=bars.open * factor,
        high=bars.high * factor * wider,
        low=bars.low * factor / wider,
        close=bars.close * factor,
        volume=bars.volume * factor + (factor != 1),
        half_spread_bps=quote,
        extra=extra,
        events=events,
        events_ahead=ahead,
    )


def _first_difference(
    before: npt.NDArray[np.generic], after: npt.NDArray[np.generic]
) -> int | None:
    """Return the first row whose bytes differ (NaN equals NaN), or None."""
    if before.tobytes() == after.tobytes():
        return None
    if before.shape != after.shape or before.dtype != after.dtype:
        return 0
    return next(t for t in range(len(before)) if before[t].tobytes() != after[t].tobytes())
