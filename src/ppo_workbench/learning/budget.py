"""When training ends, and how far it has come: minutes, episodes, timesteps, the first of them.

Minutes count from the start of learning.  Wall time is not reproducible, so a budget of
minutes (or episodes) is calibrated early into a recorded number of timesteps, which
drives the schedules; time stays as the hard stop.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

from ppo_workbench.config import BudgetConfig

CALIBRATE_AFTER_FRAC = 0.03
EVALUATION_TIMESTEPS = 131_072
LONG_PART_SECONDS = 30.0


def evaluations_due(config: BudgetConfig, fraction: float, timesteps: int) -> int:
    """Return how many looks at the validation split belong before this point of training.

    `evaluations` equal parts of the budget.  Where one of them takes long (a budget of minutes)
    also every 131,072 timesteps at first and at four points of each doubling later, so that a
    good model is seen within seconds; by timesteps, so that a slow learner or a busy machine
    changes nothing about these looks.

    Args:
        config: The budget.
        fraction: Share of it that is used.
        timesteps: Trained so far.
    """
    count = config.evaluations
    parts = bisect_right(range(1, count + 1), fraction, key=lambda part: part / count)
    if config.minutes is None or config.minutes * 60 / count < LONG_PART_SECONDS:
        return parts
    return parts + early_evaluations(timesteps)


def early_evaluations(timesteps: int) -> int:
    """Return how many looks by timesteps belong before this one.

    At 1, 2 ... 8, 10, 12, 14, 16, 20 ... times 131,072.
    """
    units = timesteps // EVALUATION_TIMESTEPS
    if units < 4:
        return units
    doublings = units.bit_length() - 3
    return 4 * doublings + (units >> doublings)


class Budget:
    """Track one training run against its limits.

    Attributes:
        planned_timesteps: The limit in timesteps, given or calibrated; None until known.
        timesteps, episodes: Counted so far.
    """

    def __init__(self, config: BudgetConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep the limits; `start` starts the clock."""
        self.seconds = None if config.minutes is None else config.minutes * 60.0
        self.max_episodes = config.episodes
        self.max_timesteps = config.timesteps
        self.planned_timesteps: int | None = config.timesteps if self._is_plain() else None
        self.timesteps = self.episodes = 0
        self._clock = clock
        self._started = clock()
        self._used_seconds = 0.0
        self._first: tuple[float, int] | None = None

    def _is_plain(self) -> bool:
        return self.seconds is None and self.max_episodes is None

    def start(self) -> None:
        """Start the clock; what was used before a resume stays used."""
        self._started = self._clock() - self._used_seconds

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON values."""
        return {
            "used_seconds": self.elapsed_seconds,
            "planned_timesteps": self.planned_timesteps,
            "first": self._first,
            "timesteps": self.timesteps,
            "episodes": self.episodes,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over `state()` of the run that is resumed."""
        self._used_seconds = state["used_seconds"]
        self.planned_timesteps = state["planned_timesteps"]
        self._first = None if state["first"] is None else tuple(state["first"])
        self.timesteps, self.episodes = state["timesteps"], state["episodes"]

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the start of learning."""
        return self._clock() - self._started

    def update(self, timesteps: int, episodes: int) -> None:
        """Take the counts at the end of a rollout and calibrate once enough is known."""
        self.timesteps, self.episodes = timesteps, episodes
        if self.planned_timesteps is not None:
            return
        if self._first is None:  # the first rollout compiles and warms up: not measured
            self._first = (self.elapsed_seconds, timesteps)
        elif self.fraction >= CALIBRATE_AFTER_FRAC:
            self.planned_timesteps = self._estimate()

    def _estimate(self) -> int:
        assert self._first is not None
        estimates = [] if self.max_timesteps is None else [float(self.max_timesteps)]
        if self.seconds is not None:
            seconds, steps = self._first
            rate = (self.timesteps - steps) / max(self.elapsed_seconds - seconds, 1e-9)
            estimates.append(self.timesteps + rate * max(self.seconds - self.elapsed_seconds, 0.0))
        if self.max_episodes is not None and self.episodes:
            estimates.append(self.timesteps * self.max_episodes / self.episodes)
        planned = max(int(min(estimates, default=2.0**53)), self.timesteps + 1)
        return min(planned, self.max_timesteps or planned)

    @property
    def fraction(self) -> float:
        """Share of the budget that is used, 0 .. 1, by the limit nearest to its end."""
        shares = [0.0]
        if self.seconds is not None:
            shares.append(self.elapsed_seconds / self.seconds)
        if self.max_episodes is not None:
            shares.append(self.episodes / self.max_episodes)
        limits = (self.planned_timesteps, self.max_timesteps)
        shares += [self.timesteps / limit for limit in limits if limit is not None]
        return min(max(shares), 1.0)

    @property
    def progress_remaining(self) -> float:
        """What the schedules read: 1 at the start, 0 at the planned last timestep."""
        if self.planned_timesteps is None:
            return 1.0 - self.fraction
        return max(0.0, 1.0 - self.timesteps / self.planned_timesteps)

    @property
    def exhausted(self) -> bool:
        """True once any limit is reached."""
        return self.fraction >= 1.0

    def describe(self) -> str:
        """Name the limits, for the screen."""
        parts = []
        if self.seconds is not None:
            parts.append(f"{self.seconds / 60:g} minutes")
        if self.max_episodes is not None:
            parts.append(f"{self.max_episodes:,} episodes")
        if self.max_timesteps is not None:
            parts.append(f"{self.max_timesteps:,} timesteps")
        return " or ".join(parts)
