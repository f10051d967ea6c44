"""When training ends, and how far it has come: minutes, episodes, timesteps, the first of them.

Minutes count from the start of learning.  Wall time is not reproducible, so the schedules
follow a planned number of timesteps.  A budget of minutes or episodes measures its plan early
and, since a machine may be busy then, again at a few points of the run.  Each plan begins
where the schedules were, so they never rise; all are recorded, and between two of them
nothing depends on the clock.  Only the limits themselves end training.
"""

import time
from bisect import bisect_right
from collections.abc import Callable
from typing import TypedDict

from ppo_workbench.config import BudgetConfig

REVIEW_FRAC = 0.03
TOLERANCE_FRAC = 0.02
EVALUATION_TIMESTEPS = 131_072
LONG_PART_SECONDS = 30.0


def evaluations_due(config: BudgetConfig, fraction: float, timesteps: int) -> int:
    """Return how many checkpoint evaluations belong before this point of training.

    `evaluations` equal parts of the budget.  Where one of them takes long (a budget of minutes)
    also every 131,072 timesteps at first and at four points of each doubling later, so that a
    good model is seen within seconds; by timesteps, so that a slow learner or a busy machine
    changes nothing about these evaluations.

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
    """Return how many evaluations by timesteps belong before this point.

    At 1, 2 ... 8, 10, 12, 14, 16, 20 ... times 131,072.
    """
    units = timesteps // EVALUATION_TIMESTEPS
    if units < 4:
        return units
    doublings = units.bit_length() - 3
    return 4 * doublings + (units >> doublings)


class BudgetState(TypedDict):
    """What a checkpoint keeps of a budget."""

    used_seconds: float
    plan: list[tuple[int, int]]
    anchor: tuple[int, float]
    reviewed: tuple[float, float, int]
    timesteps: int
    episodes: int


class Budget:
    """Track one training run against its limits.

    Attributes:
        plan: (timestep, planned timesteps) of every plan that was measured: from that timestep
            on the schedules go linearly to zero at the planned one.
        timesteps, episodes: Counted so far.
    """

    def __init__(self, config: BudgetConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep the limits; `start` starts the clock."""
        self.seconds = None if config.minutes is None else config.minutes * 60.0
        self.max_episodes = config.episodes
        self.max_timesteps = config.timesteps
        self.plan: list[tuple[int, int]] = []
        self.timesteps = self.episodes = 0
        self._clock = clock
        self._started = clock()
        self._used_seconds = 0.0
        self._anchor = (0, 1.0)  # timestep and progress at which the present plan begins
        self._reviewed = (0.0, 0.0, 0)  # fraction, seconds and timesteps at the last review

    def start(self) -> None:
        """Start the clock; what was used before a resume stays used."""
        self._started = self._clock() - self._used_seconds

    def state(self) -> BudgetState:
        """Return what a checkpoint keeps, as JSON values."""
        return {
            "used_seconds": self.elapsed_seconds,
            "plan": list(self.plan),
            "anchor": self._anchor,
            "reviewed": self._reviewed,
            "timesteps": self.timesteps,
            "episodes": self.episodes,
        }

    def restore(self, state: BudgetState) -> None:
        """Take over `state()` of the run that is resumed."""
        self._used_seconds = state["used_seconds"]
        self.plan = [(timestep, planned) for timestep, planned in state["plan"]]
        (start, progress), (at, seconds, steps) = state["anchor"], state["reviewed"]
        self._anchor, self._reviewed = (start, progress), (at, seconds, steps)
        self.timesteps, self.episodes = state["timesteps"], state["episodes"]

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the start of learning."""
        return self._clock() - self._started

    @property
    def planned_timesteps(self) -> int | None:
        """Timesteps that the budget comes to, given or measured; None until known."""
        if self.seconds is None and self.max_episodes is None:
            return self.max_timesteps
        return self.plan[-1][1] if self.plan else None

    def update(self, timesteps: int, episodes: int) -> bool:
        """Take the counts at the end of a rollout; return whether the plan was changed."""
        before = (self.timesteps, self.progress_remaining)
        self.timesteps, self.episodes = timesteps, episodes
        if (self.seconds is None and self.max_episodes is None) or not self._is_due():
            return False
        planned, kept = self._estimate(), self.planned_timesteps
        self._reviewed = (self.fraction, self.elapsed_seconds, timesteps)
        tolerance = TOLERANCE_FRAC * (planned - timesteps)
        if kept is not None and abs(planned - kept) <= tolerance:
            return False
        self._anchor = before  # what the last update was made with
        self.plan.append((before[0], planned))
        return True

    def _is_due(self) -> bool:
        """Tell whether to measure: at 3, 6, 12, 24, 43, 57, 68, 76 ... % of the budget.

        Sooner where a quarter of what was left of the plan is trained: the machine has become
        faster, and the schedules must not be at their end before the budget is.
        """
        (at, _, timesteps), planned = self._reviewed, self.planned_timesteps
        if planned is not None and self.fraction > 1.0 - REVIEW_FRAC:
            return False
        ahead = planned is not None and 4 * (self.timesteps - timesteps) >= planned - timesteps
        return ahead or self.fraction >= at + max(REVIEW_FRAC, min(at, (1.0 - at) / 4))

    def _estimate(self) -> int:
        estimates = [] if self.max_timesteps is None else [float(self.max_timesteps)]
        if self.seconds is not None:
            _, seconds, steps = self._reviewed
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
        if self.max_timesteps is not None:
            shares.append(self.timesteps / self.max_timesteps)
        return min(max(shares), 1.0)

    @property
    def progress_remaining(self) -> float:
        """What the schedules read: 1 until there is a plan, 0 at its last timestep."""
        planned, (start, progress) = self.planned_timesteps, self._anchor
        if planned is None:
            return 1.0
        return progress * max(0.0, 1.0 - (self.timesteps - start) / (planned - start))

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
