"""Every preset composes and validates, and says what its name promises."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from ppo_workbench.cli import compose
from ppo_workbench.config import Config, Fill, ModelType, Severity
from ppo_workbench.options import CONF, groups

READS_A_FILE = {"data=file", "experiment=crypto", "experiment=us_hourly"}
READS_A_FILE |= {"experiment=us_minute_short"}
CHOOSING = ("data", "experiment")  # groups whose presets choose other groups' presets
EACH_FOLD = "task=compare"  # other protocols than holdout are not for task=train
APART = (*CHOOSING, "sweep", "compare")
REST = {group: options for group, options in groups().items() if group not in APART}


@functools.cache
def _compose(*overrides: str) -> Config:
    path = ["data.path=bars.csv"] if READS_A_FILE & set(overrides) else []
    return compose([*overrides, *path])


@pytest.mark.parametrize(
    "option", [f"{group}={option}" for group in CHOOSING for option in groups()[group]]
)
def test_preset_that_chooses_others_composes_and_validates(option: str) -> None:
    budget = _compose(option).budget
    # Timesteps alone where a result has to be repeated bit for bit.
    assert (budget.minutes is None) == (option == "experiment=deliverables")
    assert budget.minutes or budget.timesteps


@pytest.mark.parametrize("row", range(max(map(len, REST.values()))))
def test_presets_of_the_other_groups_compose_and_validate(row: int) -> None:
    """Row k takes the k-th preset of every group, round and round: each at least once."""
    chosen = {name: options[row % len(options)] for name, options in REST.items()}
    task = [EACH_FOLD, "compare=quick"] if chosen["splits"] != "holdout" else []

    config = _compose(*(f"{name}={option}" for name, option in chosen.items()), *task)

    assert task or config.budget.minutes is not None
    assert config.splits.protocol.value == chosen["splits"]


def test_null_market_is_chosen_by_its_plain_name() -> None:
    config = _compose("data=null")

    assert config.data == _compose("data='null'").data
    assert config.data.synthetic.edge == 0.0


@pytest.mark.parametrize("preset", groups()["compare"])
def test_comparison_preset_composes_and_runs_on_timesteps(preset: str) -> None:
    config = _compose(f"compare={preset}")

    assert config.task.value == "compare"
    assert config.compare.preset == preset
    assert config.budget.timesteps is not None
    assert config.budget.minutes is None
    assert {"masked", "reject", "execute"} <= set(config.compare.arms)


def test_comparison_without_a_preset_is_the_quick_one() -> None:
    assert _compose("task=compare") == _compose("compare=quick")


@pytest.mark.parametrize("sweep", groups()["sweep"])
def test_sweep_preset_composes_and_runs_on_timesteps(sweep: str) -> None:
    config = _compose(f"sweep={sweep}")

    assert config.budget.timesteps is not None
    assert config.budget.minutes is None


def test_conf_holds_every_promised_group() -> None:
    promised = "data features env costs risk reward model budget splits sweep tracking experiment"
    sections = {field.name for field in dataclasses.fields(Config)}

    assert set(promised.split()) <= groups().keys()
    assert groups().keys() - {"experiment", "sweep"} <= sections
    assert all(groups().values())


def test_no_argument_is_maskable_ppo_on_the_synthetic_market_for_half_an_hour() -> None:
    config = _compose()

    assert config.model.type is ModelType.maskable_ppo
    assert config.data.source == "synthetic"
    assert (config.budget.minutes, config.budget.episodes) == (30.0, None)
    assert config.risk.volatility.enabled
    assert config.tracking.enabled
    assert config.output is None


# The specification's commands and their counterparts: (overrides, expected values).
COMMANDS: list[tuple[str, dict[str, object]]] = [
    ("model=maskable_ppo budget.minutes=10", {"model.type": "maskable_ppo", "budget.minutes": 10}),
    (
        "model=maskable_ppo budget.episodes=20000 output=maskable_v1",
        {"budget.episodes": 20000, "budget.minutes": None, "output": "maskable_v1"},
    ),
    (
        "model=ppo budget.episodes=5000 output=standard_baseline",
        {"model.type": "ppo", "budget.episodes": 5000, "budget.minutes": None},
    ),
    (
        "model=maskable_ppo model.learning_rate=0.001 budget.episodes=1000 output=maskable_high_lr",
        {"model.learning_rate": 0.001, "budget.episodes": 1000, "output": "maskable_high_lr"},
    ),
    ("model=maskable_ppo budget.minutes=60 output=maskable_1hour", {"budget.minutes": 60}),
    (
        "budget.episodes=5000 output=maskable_default",
        {"model.type": "maskable_ppo", "budget.episodes": 5000, "budget.minutes": None},
    ),
    ("model=ppo budget.minutes=10 output=ppo_baseline", {"output": "ppo_baseline"}),
    (
        "model=maskable_ppo model.learning_rate=0.0001 budget.minutes=30 output=maskable_lr_low",
        {"model.learning_rate": 0.0001, "budget.minutes": 30},
    ),
    ("budget.timesteps=16384", {"budget.timesteps": 16384, "budget.minutes": None}),
    (
        "budget.minutes=5 budget.episodes=100",
        {"budget.minutes": 5, "budget.episodes": 100, "budget.timesteps": None},
    ),
    ("experiment=quick_validation", {"budget.minutes": 10}),
    ("experiment=quick_validation model=ppo", {"budget.minutes": 10, "model.type": "ppo"}),
    ("experiment=exploration", {"budget.minutes": 30}),
    ("experiment=production", {"budget.minutes": 240}),
    ("experiment=production budget=quick", {"budget.minutes": 10}),
    ("task=export artifact=maskable_v1", {"task": "export", "artifact": "maskable_v1"}),
]


@pytest.mark.parametrize(("command", "expected"), COMMANDS)
def test_command_composes_to_its_values(command: str, expected: dict[str, object]) -> None:
    config = _compose(*command.split())

    for key, value in expected.items():
        found: object = config
        for name in key.split("."):
            found = getattr(found, name)
        assert getattr(found, "value", found) == value, key


@pytest.mark.parametrize("source", ["sp500", "nasdaq"])
@pytest.mark.parametrize("way", ["data", "experiment"])
def test_daily_data_alone_brings_daily_settings(way: str, source: str) -> None:
    config = _compose(f"{way}={source}")

    assert config.data.source == source
    assert config.env.fill is Fill.next_close
    assert (config.env.no_open_last_bars, config.env.flat_last_bars) == (0, 0)
    assert config.env.episode_bars == 252
    assert config.splits.gap_bars == 20
    assert config.risk.drawdown.pause_bars == 20
    assert config.costs == _compose("costs=us_etf").costs
    assert config.features == _compose("features=daily").features


@pytest.mark.parametrize("way", ["data=sp500", "experiment=sp500"])
def test_command_line_wins_over_what_the_data_brings(way: str) -> None:
    config = _compose(way, "env=hourly", "costs=futures", "splits.gap_bars=7")

    assert config.data.source == "sp500"
    assert config.env.episode_bars == 441
    assert config.costs == _compose("costs=futures").costs
    assert config.features == _compose("features=hourly").features
    assert config.splits.gap_bars == 7


def test_command_line_features_win_over_what_the_bar_length_brings() -> None:
    config = _compose("env=daily", "features=minute")

    assert config.features == _compose().features
    assert config.env.episode_bars == 252


def test_user_file_takes_bar_length_columns_and_costs() -> None:
    config = _compose("data=file", "env=hourly", "data.columns={close: Last, open: First}")

    assert config.data.path == "bars.csv"
    assert config.data.columns == {"close": "Last", "open": "First"}
    assert config.features == _compose("features=hourly").features
    assert config.costs == _compose("costs=us_equity").costs


def test_crypto_trades_around_the_clock_without_securities_rules() -> None:
    config = _compose("experiment=crypto")

    assert config.data.calendar == "24/7"
    assert config.costs.fee_bps == 10.0
    assert not config.risk.session.enabled
    assert not config.risk.short_sale_restriction.enabled
    assert (config.env.no_open_last_bars, config.env.flat_last_bars) == (0, 0)


def test_discount_rate_follows_the_bar_length_unless_given() -> None:
    assert _compose("env=hourly").model.gamma == _compose("env=hourly").env.gamma == 0.97
    assert _compose("env.gamma=0.9").model.gamma == 0.9
    assert _compose("model.gamma=0.8").model.gamma == 0.8


def test_synthetic_costs_follow_the_market() -> None:
    assert _compose("data.high_volatility_cost_multiplier=3").costs.high_volatility_multiplier == 3


def test_ppo_differs_from_maskable_ppo_in_type_only() -> None:
    masked, plain = _compose("model=maskable_ppo").model, _compose("model=ppo").model

    assert plain.type is ModelType.ppo
    assert dataclasses.replace(plain, type=masked.type) == masked


def _rules(config: Config) -> Iterator[tuple[str, bool, Severity]]:
    for field in dataclasses.fields(config.risk):
        rule = getattr(config.risk, field.name)
        yield field.name, rule.enabled, rule.severity


def test_unconstrained_keeps_exactly_the_impossible_rules() -> None:
    moderate = {name: enabled for name, enabled, _ in _rules(_compose("risk=moderate"))}

    for name, enabled, severity in _rules(_compose("risk=unconstrained")):
        expected = moderate[name] if severity is Severity.impossible else False
        assert enabled == expected, name


def test_risk_presets_are_ordered_from_tight_to_wide() -> None:
    risks = [_compose(f"risk={name}").risk for name in ("conservative", "moderate", "aggressive")]

    flatten = [risk.drawdown.flatten_frac for risk in risks]
    loss = [risk.daily_loss.max_loss_frac for risk in risks]
    assert flatten == sorted(flatten)
    assert loss == sorted(loss)
    assert len(set(flatten)) == len(set(loss)) == 3
    assert [risk.volatility.enabled for risk in risks] == [True, True, False]


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: file.stem)
def test_preset_file_is_annotated_and_an_experiment_names_its_command(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()

    assert yaml.safe_load("\n".join(lines))
    assert lines[0].startswith("# ")
    if file.parent.name == "experiment":
        assert lines[0] == "# @package _global_"
        assert lines[1].startswith(f"# python -m ppo_workbench experiment={file.stem}")
