"""The budget with a clock that the test turns."""

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


def test_minutes_are_calibrated_by_the_rate_after_the_first_rollout() -> None:
    budget, clock = _budget(minutes=10)  # 600 s
    clock.now += 12
    budget.update(1000, 0)  # the first rollout compiles: 12 s, not measured
    assert budget.planned_timesteps is None
    assert budget.progress_remaining == pytest.approx(1 - 12 / 600)
    clock.now += 2
    budget.update(2000, 0)  # 14 s is under 3 % of 600 s
    assert budget.planned_timesteps is None
    clock.now += 8
    budget.update(6000, 0)  # 22 s: 5,000 steps in the last 10 s, 578 s to go
    assert budget.planned_timesteps == 6000 + 500 * 578
    clock.now += 100
    budget.update(6000 + 500 * 100, 0)
    assert budget.planned_timesteps == 295_000  # once only
    assert budget.progress_remaining == pytest.approx(1 - 56_000 / 295_000)


def test_schedule_reaches_zero_at_the_planned_timesteps() -> None:
    budget, clock = _budget(minutes=1)
    budget.update(100, 0)
    clock.now += 6
    budget.update(700, 0)
    assert budget.planned_timesteps == 700 + 100 * 54
    clock.now += 53
    budget.update(budget.planned_timesteps, 0)
    assert budget.progress_remaining == 0.0
    assert budget.exhausted


def test_episodes_are_calibrated_by_timesteps_per_episode() -> None:
    budget, _ = _budget(episodes=100)
    budget.update(500, 5)
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


def test_calibration_takes_the_smallest_of_all_limits() -> None:
    budget, clock = _budget(minutes=1, episodes=1000, timesteps=5000)
    budget.update(100, 1)
    clock.now += 6
    budget.update(1100, 11)  # minutes: 10,100; episodes: 100,000; timesteps: 5,000
    assert budget.planned_timesteps == 5000


def test_state_and_restore_continue_the_clock_and_the_plan() -> None:
    budget, clock = _budget(minutes=1)
    budget.update(100, 1)
    clock.now += 6
    budget.update(700, 7)
    other, later = _budget(minutes=1)
    other.restore(budget.state())
    later.now += 1e5
    other.start()
    later.now += 4
    assert other.elapsed_seconds == pytest.approx(10.0)
    assert other.planned_timesteps == budget.planned_timesteps
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
