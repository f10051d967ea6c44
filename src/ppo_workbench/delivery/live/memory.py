"""The market as a stored model knows it: features, market rules and the calendar, by bar."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC
from typing import Any

import numpy as np

from ppo_workbench.config import Config
from ppo_workbench.delivery.decider_state import MarketDocument
from ppo_workbench.delivery.live.kernel import take_bar
from ppo_workbench.delivery.messages import Bar, half_spread_bps, moment_of, nanoseconds
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.jit import direct, keep
from ppo_workbench.market.calendars.clock import BarClock, ClockMemory, Place
from ppo_workbench.market.events import EventMemory, EventStream
from ppo_workbench.market.features import EXTRA_PREFIX, MarketStream
from ppo_workbench.market.regimes import BAR_FIELDS, CLOSE, CONTEXT_FIELDS, HIGH, LOW, OPEN, VOLUME
from ppo_workbench.trading.account import BAR_DTYPE
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rules.market import RULE_BAR_DTYPE, MarketRules

_SLACK = 1e-9  # of prices between low and high, as in `market.bars`


class MarketMemory:
    """Everything that asks the market alone, moved on one closed bar at a time.

    Attributes:
        clock: Places bars in their sessions.
        stream: Memory of the features; None before the first bar, which tells the slots.
        rules: Memory of the market rules.
        taken: Bars since the beginning of history.
        needed: Bars still to come before the features may be used.
        rows: `BAR_DTYPE`, shape (2,): the bar before and the last one, as the step reads them.
        scaled: float32 (2, F): their scaled features.
        context: float64 (CONTEXT_FIELDS,) of the last bar, see `regimes.context_step`.
        outside: bool (F,): features of the last bar beyond what training saw.
        scale: Shares of today for one at the beginning of history.
        events: Counts bars from and to listed events; None leaves that to the bars.
        overlapping: Bars may start before the last one has ended.
    """

    def __init__(
        self, config: Config, metadata: Metadata, scaler: Scaler, events_path: str | None = None
    ) -> None:
        """Begin before the first bar.

        Raises:
            BarsError: The model's calendar is unknown, or the file of events cannot be used.
        """
        self.overlapping = False
        self.events = None if events_path is None else EventStream(events_path)
        self._config, self._metadata, self._scaler = config, metadata, scaler
        self._has_volume = metadata.data.has_volume
        self._multiplier = config.market.contract_multiplier
        data, names = metadata.data, metadata.observation.market_names
        stamps = [nanoseconds(x) for span in data.splits.values() for x in (span.start, span.stop)]
        self.clock = BarClock(
            data.calendar, data.bar_seconds, min(stamps), max(stamps), data.bars_per_session,
            full_sessions_only=data.source == "synthetic",
        )  # fmt: skip
        self.extra_names = tuple(
            name.removeprefix(EXTRA_PREFIX) for name in names if name.startswith(EXTRA_PREFIX)
        )
        ranges = [metadata.feature_ranges.get(name, (-np.inf, np.inf)) for name in names]
        self._ranges = np.array(ranges, dtype=np.float64).T.copy()
        self.rows = np.zeros(2, dtype=BAR_DTYPE)
        self.scaled = np.zeros((2, len(names)), dtype=np.float32)
        self.context, self.outside = np.zeros(CONTEXT_FIELDS), np.zeros(len(names), dtype=np.bool_)
        self._features = np.zeros((1, len(names)))
        self._bar = np.zeros(BAR_FIELDS + len(self.extra_names))
        self._news = np.zeros(1, dtype=RULE_BAR_DTYPE)
        self.forget()

    def forget(self) -> None:
        """Return to the beginning of history."""
        self.clock.memory = ClockMemory()
        self.stream: MarketStream | None = None
        self.rules = MarketRules(self._config, self._metadata.data.bar_seconds)
        if self.events is not None:
            self.events.memory = EventMemory()
        own = (self.rows, self.scaled, self.context, self.outside, self._features, self._bar)
        for array in (*own, self._news):
            array[...] = np.zeros((), array.dtype)
        self.taken, self.needed, self.scale = 0, self._metadata.warmup_bars, 1.0

    def _begin(self) -> None:
        """Make the memory of the features, of a clock that knows its slots."""
        features, per_session = self._config.features, self.clock.bars_per_session
        self.stream = MarketStream(features, per_session, self.extra_names)
        spec, rules, scaler = self.stream.spec, self.rules, self._scaler
        self._memory = keep((  # the fields of `MarketArrays`
            spec.plan, spec.settings, self.stream.state, self._bar, self._features, self.context,
            self._news, rules.settings, rules.memory, rules.closes, self.rows, scaler.means,
            scaler.stds, scaler.clip, self.scaled, self._ranges, self.outside, self._has_volume,
            self._multiplier,
        ))  # fmt: skip
        values = (0.0,) * 6 + (0,) * 8  # as `take` makes them
        self._take_bar = direct(take_bar, values, self.scale, self._memory)

    @property
    def last_ns(self) -> int:
        """UTC nanoseconds of the start of the last bar; 0 before the first."""
        return self.clock.memory.start_ns

    @property
    def outside_names(self) -> list[str]:
        """Names of the features of the last bar beyond what training saw."""
        names = self._metadata.observation.market_names
        return [name for name, out in zip(names, self.outside.tolist(), strict=True) if out]

    def start_of(self, bar: Bar) -> int:
        """Return the start of a bar, UTC nanoseconds; of a daily bar that of its session.

        A daily bar at midnight, as its start is written, is of that date (`session_days`).
        """
        start = bar.start_ns
        if self.clock.daily:
            wall_ns = nanoseconds(bar.start.replace(tzinfo=UTC))
            opened = self.clock.session_open(start, wall_ns)
            return start if opened is None else opened  # without a session `take` will say so
        return start

    def overlap_of(self, start_ns: int) -> str | None:
        """Say in words that a later bar is off the model's bars, None if it is not."""
        if self.overlapping or not self.taken or not self.clock.overlaps(start_ns):
            return None
        return (
            f"overlap: the bar of {moment_of(self.last_ns).isoformat()} has not ended, bars of the "
            f"model last {self._metadata.data.bar_seconds} seconds"
        )

    def fills_in(self, bar: Bar) -> bool:
        """Return whether orders are filled in a bar: something was traded, or none can tell."""
        return bar.volume is not None and (bar.volume > 0 or not self._has_volume)

    def problem_of(self, bar: Bar) -> str | None:
        """Say in words what is wrong with the values of a bar, None if nothing is."""
        low, high, open_, close = bar.low, bar.high, bar.open, bar.close
        if low is None or high is None or open_ is None or close is None or bar.volume is None:
            return "a price or the volume of the bar is missing"
        lowest, highest = low - _SLACK * abs(high), high + _SLACK * abs(high)
        # A comparison with NaN is false, so an undefined price is no price bar either.
        inside = lowest <= open_ <= highest and lowest <= close <= highest
        if not (inside and low > 0 and open_ > 0 and close > 0 and high < math.inf):
            return f"open={open_}, high={high}, low={low}, close={close} is no price bar"
        if not 0 <= bar.volume < math.inf:
            return f"volume={bar.volume} must be a number and not negative"
        for name in self.extra_names:
            value = bar.features.get(name)
            if self.needed == 0 and (value is None or not math.isfinite(value)):
                return f"the bar lacks the model's feature {name!r}"
        return None

    def is_last(self, bar: Bar) -> bool:
        """Return whether prices and volume are those of the last bar that was taken."""
        prices: Any = (bar.open, bar.high, bar.low, bar.close)
        last = self._bar[[OPEN, HIGH, LOW, CLOSE]].tolist()
        same = all(x is not None and x * self.scale == y for x, y in zip(prices, last, strict=True))
        return same and bar.volume is not None and bar.volume / self.scale == self._bar[VOLUME]

    def take(self, bar: Bar, start_ns: int, split: float = 1.0) -> tuple[Place, int]:
        """Take a bar in which `problem_of` finds nothing wrong.

        Args:
            bar: Later than the last one.
            start_ns: Its start, UTC nanoseconds.
            split: New shares for an old one since the last bar.

        Returns:
            Where it lies, and the number of features beyond what training saw; -1 where a
            feature is not a number.

        Raises:
            BarsError: Its date is no session of the calendar; nothing was taken.
        """
        place = self.clock.place(start_ns)
        if self.stream is None:
            self._begin()
        for k, name in enumerate(self.extra_names):
            value = bar.features.get(name)
            self._bar[BAR_FIELDS + k] = math.nan if value is None else value
        events = bar.bars_since_event, bar.bars_to_event
        if self.events is not None:
            events = self.events.step(self.clock, place)
        if split != 1.0:
            self.scale *= split
            self.rows["open"] /= split
            self.rows["close"] /= split
        values = (  # the fields of `BarValues`, six of them float
            bar.open, bar.high, bar.low, bar.close, bar.volume, half_spread_bps(bar),
            place.start_ns, place.session, place.bar_of_session, place.bars_left,
            int(place.regular), *events, place.missing,
        )  # fmt: skip
        count: int = self._take_bar(values, self.scale, self._memory)
        self.taken += 1
        return place, count

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the memory itself, not copies, under plain names."""
        known = {
            "rows": self.rows,
            "bar": self._bar,
            "scaled": self.scaled,
            "context": self.context,
            "outside": self.outside,
            "rules": self.rules.memory,
            "closes": self.rules.closes,
        }
        return known if self.stream is None else known | {"features": self.stream.state}

    def document(self) -> MarketDocument:
        """Return the rest of the memory as JSON values."""
        events = None if self.events is None else asdict(self.events.memory)
        clock = asdict(self.clock.memory)
        return {
            "taken": self.taken,
            "needed": self.needed,
            "scale": self.scale,
            "clock": clock,
            "events": events,
        }

    def restore(self, arrays: Mapping[str, np.ndarray[Any, Any]], document: MarketDocument) -> None:
        """Go on from `arrays` and `document` of another memory of the same model.

        Raises:
            KeyError, TypeError, ValueError: Something is missing or has another shape.
        """
        self.forget()
        self.clock.memory = ClockMemory(**document["clock"])
        self.taken, self.needed = int(document["taken"]), int(document["needed"])
        self.scale = float(document["scale"])
        if self.events is not None:
            self.events.memory = EventMemory(**(document["events"] or {}))
        if self.taken:
            self.clock.anchor(np.array([self.last_ns]))
            self._begin()
        for name, array in self.arrays().items():
            array[...] = arrays[name]
