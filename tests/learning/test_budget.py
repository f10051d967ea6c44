"""The budget with a clock that the test turns."""

import json
from collections.abc import Callable

import pytest

from ppo_workbench.config import BudgetConfig
from ppo_workbench.learning.budget import Budget, evaluations_due


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _budget(
    minutes: float | None = None, episodes: int | None = None, timesteps: int | None = None
) -> tuple[Budget, Clock]:
    clock = Clock()
    budget = Budget(
        BudgetConfig(minutes=minutes, episodes=episodes, timesteps=timesteps), clock=clock
    )
    clock.now += 50.0  # loading bars and compiling is not training
    budget.start()
    return budget, clock


def test_timesteps_alone_are_planned_from_the_start_and_ignore_the_clock() -> None:
    budget, clock = _budget(timesteps=1000)
    assert budget.planned_timesteps == 1000
    clock.now += 1e6
    budget.update(250, 3)
    assert (budget.fraction, budget.progress_remaining) == (0.25, 0.75)
    assert not budget.exhausted
    budget.update(1024, 9)
    assert budget.exhausted
    assert (budget.fraction, budget.progress_remaining) == (1.0, 0.0)


def test_minutes_count_from_the_start_of_learning() -> None:
    budget, clock = _budget(minutes=1)
    assert budget.fraction == 0.0
    clock.now += 30
    assert budget.fraction == pytest.approx(0.5)
    clock.now += 30
    assert budget.exhausted


def test_minutes_are_planned_by_the_speed_so_far_once_enough_is_known() -> None:
    budget, clock = _budget(minutes=10)  # 600 s
    clock.now += 12
    assert not budget.update(5000, 0)  # 12 s is under 3 % of 600 s
    assert budget.planned_timesteps is None
    assert budget.progress_remaining == 1.0
    clock.now += 8
    assert budget.update(10_000, 0)  # 20 s: 10,000 steps, 580 s to go
    assert budget.planned_timesteps == 10_000 + 500 * 580
    assert budget.progress_remaining == pytest.approx(1 - 5000 / 295_000)
    clock.now += 30
    assert not budget.update(10_000 + 500 * 30, 0)  # as planned: kept
    assert budget.plan == [(5000, 300_000)]


def _run(minutes: float, speed: Callable[[float], float]) -> tuple[Budget, list[float]]:
    """Train in rollouts of 8,192; `speed` is timesteps a second by the share of time used.

    Returns:
        The budget at its end and the progress that every update was made with.
    """
    budget, clock = _budget(minutes=minutes)
    used, timesteps = [], 0
    while not budget.exhausted:
        used.append(budget.progress_remaining)
        clock.now += 8192 / speed(budget.fraction)
        timesteps += 8192
        budget.update(timesteps, 0)
    return budget, used


SPEEDS: dict[str, Callable[[float], float]] = {
    "steady": lambda share: 1e5,
    "busy at first": lambda share: 4e4 if share < 0.03 else 1e5,
    "very busy for a while": lambda share: 1e4 if share < 0.1 else 1e5,
    "busy until half": lambda share: 1e4 if share < 0.5 else 1e5,
    "busy from half on": lambda share: 1e5 if share < 0.5 else 1e4,
    "ever faster": lambda share: 1e5 * (0.3 + share),
}


@pytest.mark.parametrize("name", SPEEDS)
def test_minutes_are_kept_and_the_schedule_ends_with_them(name: str) -> None:
    budget, used = _run(1.0, SPEEDS[name])
    assert budget.elapsed_seconds == pytest.approx(60.0, rel=0.01)
    assert used == sorted(used, reverse=True)  # a learning rate never rises
    assert used[0] == 1.0
    assert 0.0 <= used[-1] < 0.02
    assert budget.planned_timesteps == pytest.approx(budget.timesteps, rel=0.01)
    assert len(budget.plan) < 20


def test_plans_tell_the_whole_schedule() -> None:
    budget, used = _run(1.0, SPEEDS["ever faster"])
    assert len(budget.plan) > 3
    progress, start, planned = 1.0, 0, 2**62
    for position, found in enumerate(used):
        for timestep, now in budget.plan:
            if timestep == (position - 1) * 8192:  # measured after the update that began there
                progress, start, planned = used[position - 1], timestep, now
        expected = progress * (1 - (position * 8192 - start) / (planned - start))
        assert found == pytest.approx(max(expected, 0.0), abs=1e-12)


def test_episodes_are_planned_by_timesteps_per_episode() -> None:
    budget, _ = _budget(episodes=100)
    budget.update(200, 2)
    assert budget.planned_timesteps is None
    budget.update(1000, 10)
    assert budget.planned_timesteps == 10_000
    budget.update(9999, 99)
    assert not budget.exhausted
    budget.update(9_900, 100)
    assert budget.exhausted


@pytest.mark.parametrize(
    ("seconds", "episodes", "timesteps", "fraction"),
    [(30.0, 10, 100, 0.5), (6.0, 60, 100, 0.6), (6.0, 10, 900, 0.9)],
)
def test_fraction_is_that_of_the_limit_nearest_to_its_end(
    seconds: float, episodes: int, timesteps: int, fraction: float
) -> None:
    budget, clock = _budget(minutes=1, episodes=100, timesteps=1000)
    clock.now += seconds
    budget.timesteps, budget.episodes = timesteps, episodes
    assert budget.fraction == pytest.approx(fraction)


def test_plan_takes_the_smallest_of_all_limits() -> None:
    budget, clock = _budget(minutes=1, episodes=1000, timesteps=5000)
    clock.now += 6
    budget.update(1100, 11)  # minutes: 11,000; episodes: 100,000; timesteps: 5,000
    assert budget.planned_timesteps == 5000


def test_state_and_restore_continue_the_clock_and_the_plan() -> None:
    budget, clock = _budget(minutes=1)
    budget.update(100, 1)
    clock.now += 6
    budget.update(700, 7)
    other, later = _budget(minutes=1)
    other.restore(json.loads(json.dumps(budget.state())))
    later.now += 1e5
    other.start()
    later.now += 4
    assert other.elapsed_seconds == pytest.approx(10.0)
    assert other.plan == budget.plan == [(100, 700 * 10)]
    assert other.progress_remaining == budget.progress_remaining
    assert (other.timesteps, other.episodes) == (700, 7)


def test_describe_names_every_limit() -> None:
    budget, _ = _budget(minutes=1.5, episodes=20_000, timesteps=1_000_000)
    assert budget.describe() == "1.5 minutes or 20,000 episodes or 1,000,000 timesteps"


def _looks(config: BudgetConfig, until: int, rollout: int, seconds: float) -> list[int]:
    """Return the timesteps at which a training in rollouts takes a look."""
    found, before = [], 0
    for timesteps in range(rollout, until + 1, rollout):
        if config.minutes is None:
            fraction = timesteps / until
        else:
            fraction = timesteps / until * seconds / (config.minutes * 60)
        due = evaluations_due(config, fraction, timesteps)
        if due > before:
            found.append(timesteps)
        before = due
    return found


def test_evaluations_are_equal_parts_of_a_budget_of_timesteps() -> None:
    config = BudgetConfig(minutes=None, timesteps=10_000_000, evaluations=4)
    looks = _looks(config, 10_000_000, 100_000, 0.0)
    assert looks == [2_500_000, 5_000_000, 7_500_000, 10_000_000]


@pytest.mark.parametrize("seconds", [60.0, 600.0], ids=["fast", "slow"])
def test_first_evaluations_of_many_minutes_do_not_depend_on_the_speed(seconds: float) -> None:
    config = BudgetConfig(minutes=30.0, evaluations=1)
    looks = _looks(config, 4_400_000, 8192, seconds)
    assert [look / 131_072 for look in looks] == [*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32]


def test_evaluations_of_many_minutes_end_with_its_equal_parts() -> None:
    config = BudgetConfig(minutes=30.0, evaluations=20)
    looks = _looks(config, 320_000_000, 100_000, 1800.0)
    parts = set(range(16_000_000, 320_000_001, 16_000_000))
    assert parts <= set(looks)
    early = sorted(set(looks) - parts)
    assert early[:3] == [200_000, 300_000, 400_000]  # the first rollouts that end beyond
    assert len(early) == 40


def test_evaluations_of_short_parts_are_the_parts_alone() -> None:
    config = BudgetConfig(minutes=1.0, evaluations=10)
    assert len(_looks(config, 4_000_000, 100_000, 60.0)) == 10


def test_a_rollout_beyond_several_evaluations_takes_one() -> None:
    config = BudgetConfig(minutes=30.0, evaluations=20)
    assert _looks(config, 2_000_000, 1_000_000, 1.0) == [1_000_000, 2_000_000]
