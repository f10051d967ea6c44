"""A budget in timesteps, settled once for all trials of a study."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from ppo_workbench.cli.main import compose
from ppo_workbench.config import BudgetConfig, Config, ConfigError
from ppo_workbench.delivery.describe import plain
from ppo_workbench.pipeline.train import calibration
from ppo_workbench.pipeline.train.calibration import Speed, planned_timesteps, settle

SPEED = Speed(steps_per_second=1000.0, evaluation_seconds=0.5, steps_per_episode=20.0)


@pytest.fixture
def config() -> Config:
    return compose(["budget.minutes=2", "budget.evaluations=8"])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Record what is measured instead of training."""
    calls: list[Config] = []

    def fake(config: Config) -> Speed:
        calls.append(config)
        return SPEED

    monkeypatch.setattr(calibration, "measure", fake)
    return calls


@pytest.mark.parametrize(
    ("budget", "timesteps"),
    [
        (BudgetConfig(minutes=2.0, evaluations=8), 1000 * (120 - 8 * 0.5)),
        (BudgetConfig(minutes=2.0, timesteps=5_000), 5_000),  # whichever comes first
        (BudgetConfig(episodes=50), 50 * 20),
        (BudgetConfig(minutes=2.0, episodes=50, timesteps=70_000), 1_000),
        (BudgetConfig(minutes=0.001, evaluations=20), 1),  # no time left beside evaluations
    ],
)
def test_budget_comes_to_the_least_of_its_limits(budget: BudgetConfig, timesteps: float) -> None:
    assert planned_timesteps(budget, SPEED) == timesteps


def test_budget_of_minutes_is_measured_at_the_first_start_alone(
    config: Config, measured: list[Config]
) -> None:
    first = settle(config, None)

    assert first["overrides"] == [
        "budget.timesteps=116000",
        "budget.minutes=null",
        "budget.episodes=null",
    ]
    assert settle(config, first) == first
    assert len(measured) == 1


def test_budget_of_timesteps_is_taken_as_it_is(measured: list[Config]) -> None:
    settled = settle(compose(["budget.timesteps=300"]), None)

    assert (settled["overrides"], settled["timesteps"], measured) == ([], 300, [])


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("budget.minutes=3", r"budget.minutes=3.0: the study was begun with 2.0"),
        ("budget.evaluations=4", r"budget.evaluations=4: the study was begun with 8"),
        ("objective.metrics=[calmar]", r"objective.metrics=\['calmar'\]: .* \['sharpe_annual'\]"),
        ("objective.seeds=[0,1,2]", r"objective.seeds=\[0, 1, 2\]: .* \[0, 1\]"),
        ("objective.windows=2", r"objective.windows=2: the study was begun with 4"),
    ],
)
def test_study_with_another_budget_or_objective_is_refused(
    config: Config, measured: list[Any], override: str, problem: str
) -> None:
    kept = settle(config, None)
    other = compose(["budget.minutes=2", "budget.evaluations=8", override])

    with pytest.raises(ConfigError, match=problem):
        settle(other, kept)


def _start(overrides: list[str], kept: Any = None, searched: tuple[str, ...] = ()) -> Any:
    config = compose(["budget.timesteps=300", *overrides])
    return settle(config, kept, plain(asdict(config)), searched)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("data.synthetic.seed=5", "data.synthetic.seed=5: the study was begun with 0 "),
        ("data.synthetic.sessions=99", "data.synthetic.sessions=99: the study was begun with 2520"),
        ("data=null", "data.synthetic.variant=null: the study was begun with '' and"),
        ("data.columns={close: Last}", "data.columns.close=Last: the study was begun with null"),
        ("reward.variance=7.0", "reward.variance=7.0: the study"),
        ("env.no_open_last_bars=77", "env.no_open_last_bars=77: the study"),
        ("risk.drawdown.enabled=false", "risk.drawdown.enabled=False: the study was begun with T"),
        ("costs.half_spread_bps=9.0", "costs.half_spread_bps=9.0: the study"),
        ("features.names=[return_1]", r"features.names=\['return_1'\]: the study"),
        ("splits.gap_bars=780", "splits.gap_bars=780: the study"),
        ("model.n_epochs=3", "model.n_epochs=3: the study"),
        ("select=last", "select=last: the study was begun with best"),
    ],
)
def test_study_with_another_market_or_rule_is_refused(override: str, problem: str) -> None:
    kept = json.loads(json.dumps(_start([])))  # as a storage keeps it

    with pytest.raises(ConfigError, match=problem) as refused:
        _start([override], kept)

    assert "choose another hydra.sweeper.study_name" in str(refused.value)


def test_study_goes_on_with_what_is_searched_or_of_the_machine() -> None:
    searched = ("model.learning_rate", "costs")
    kept = _start(["model.learning_rate=0.01"], searched=searched)
    changed = ["output=x", "threads=2", "tracking=none", "model.device=cuda", "seed=9"]

    assert _start(changed, kept, ("model.learning_rate", "costs")) == kept
    assert _start(["costs.half_spread_bps=9.0", "reward.variance=7.0"], kept, ("reward",)) == kept
    earlier = {key: kept[key] for key in ("budget", "objective", "overrides", "timesteps")}
    assert _start(["reward.variance=7.0"], earlier) == earlier


def test_measured_speed_is_that_of_training_without_looks() -> None:
    """Three rollouts of 100 timesteps a second each; a look took 9 s of the last."""
    seen = [(0.0, 0), (5.0, 100), (6.0, 200), (16.0, 300)]

    assert calibration._rate(seen, looking_seconds=9.0) == pytest.approx(200 / 2)
    assert calibration._rate(seen[:2], looking_seconds=0.0) == pytest.approx(20)


def test_measurement_of_a_tiny_training_is_positive() -> None:
    tiny = compose(
        [
            "data.synthetic.sessions=16",
            "env.episode_bars=390",
            "features.names=[ema_distance_10,return_1,session_time]",
            "features.volatility_slow_bars=195",
            "model.n_envs=4",
            "model.n_steps=32",
            "model.batch_size=64",
            "budget.minutes=0.01",
        ]
    )

    speed = calibration.measure(tiny)

    assert speed.steps_per_second > 0
    assert speed.evaluation_seconds > 0
    assert 0 < speed.steps_per_episode <= 390 * 4 + 128
