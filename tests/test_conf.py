"""Every preset composes and validates, and says what its name promises."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from ppo_workbench.cli.main import compose
from ppo_workbench.cli.options import CONF, groups
from ppo_workbench.config import (
    Config,
    ConfigError,
    Fill,
    MarketConfig,
    ModelType,
    Severity,
    Volume,
    flatten,
)
from ppo_workbench.market.horizons import KEYS

READS_A_FILE = {"data=file", "experiment=crypto", "experiment=us_hourly"}
READS_A_FILE |= {"experiment=us_minute_short"}
MARKETS = [name for name in groups()["market"] if not name.startswith("synthetic")]
# What governs US securities and nothing else.
SECURITIES_LAW = {
    "initial_margin",
    "settlement",
    "maintenance_margin",
    "intraday_margin",
    "short_sale_restriction",
    "pattern_day_trader",
}
CHOOSING = ("data", "experiment")  # groups whose presets choose other groups' presets
EACH_FOLD = "task=compare"  # other protocols than holdout are not for task=train
APART = (*CHOOSING, "sweep", "compare")
REST = {group: options for group, options in groups().items() if group not in APART}


@functools.cache
def _compose(*overrides: str) -> Config:
    path = ["data.path=bars.csv"] if READS_A_FILE & set(overrides) else []
    if "data=file" in overrides and not any(text.startswith("market=") for text in overrides):
        path.append("market=us_equity")
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
    promised = (
        "market data features env costs risk reward model budget splits sweep tracking experiment"
    )
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
def test_daily_data_alone_names_its_market(way: str, source: str) -> None:
    config = _compose(f"{way}={source}")

    assert config.data.source == source
    assert config.env.fill is Fill.next_close
    assert config.market.name == "index"
    assert config.costs == _compose("costs=us_etf").costs
    assert config.env.episode_bars is None  # follows from the bars


@pytest.mark.parametrize("way", ["data=sp500", "experiment=sp500"])
def test_command_line_wins_over_what_the_data_brings(way: str) -> None:
    config = _compose(way, "env.episode_bars=60", "costs=us_futures", "splits.gap_bars=7")

    assert config.data.source == "sp500"
    assert config.costs == _compose("costs=us_futures").costs
    assert (config.env.episode_bars, config.splits.gap_bars) == (60, 7)


@pytest.mark.parametrize("preset", ["", *(f"risk={name}" for name in groups()["risk"])])
def test_no_preset_counts_in_bars_of_a_length(preset: str) -> None:
    values = flatten(dataclasses.asdict(_compose(*filter(None, [preset]))))

    assert {key: values[key] for key in KEYS} == dict.fromkeys(KEYS)


def test_user_file_takes_columns_and_the_costs_of_its_market() -> None:
    config = _compose("data=file", "market=us_etf", "data.columns={close: Last, open: First}")

    assert config.data.path == "bars.csv"
    assert config.data.columns == {"close": "Last", "open": "First"}
    assert config.costs == _compose("costs=us_etf").costs


@pytest.mark.parametrize("way", [("data=file", "data.path=bars.csv"), ("data.source=acme",)])
def test_bars_of_a_file_or_an_own_source_need_a_market(way: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(way)

    assert str(refused.value) == (
        f"market: bars of a file need a market, write market=X with X one of {', '.join(MARKETS)}"
    )
    assert compose([*way, "market=us_equity"]).market.name == "us_equity"


# Market: costs, calendar, what volume counts, lot, price step, contract, are laws of securities on.
BY_MARKET = [
    ("us_equity", "us_equity", "XNYS", "traded", 1.0, 0.01, 1.0, True),
    ("us_etf", "us_etf", "XNYS", "traded", 1.0, 0.01, 1.0, True),
    ("index", "us_etf", "XNYS", "none", 1.0, 0.01, 1.0, True),
    ("fx", "fx", "FX", "ticks", 1000.0, None, 1.0, False),
    ("metal_cfd", "metal_cfd", "GLOBEX", "ticks", 1.0, None, 1.0, False),
    ("crypto", "crypto", "24/7", "traded", 0.0, None, 1.0, False),
    ("crypto_perp", "crypto_perp", "24/7", "traded", 0.001, None, 1.0, False),
    ("us_futures", "us_futures", "GLOBEX", "traded", 1.0, 0.25, 50.0, False),
    ("synthetic", "synthetic", "XNYS", "traded", 1.0, 0.0, 1.0, True),
    ("synthetic_fund", "synthetic_fund", "XNYS", "traded", 1.0, 0.0, 1.0, True),
]


@pytest.mark.parametrize(
    ("name", "costs", "calendar", "volume", "lot", "tick", "multiplier", "securities"), BY_MARKET
)
def test_market_brings_costs_hours_units_and_laws(
    name: str,
    costs: str,
    calendar: str,
    volume: str,
    lot: float,
    tick: float | None,
    multiplier: float,
    securities: bool,
) -> None:
    made = name.startswith("synthetic")
    config = _compose(*([] if made else ["data=file"]), f"market={name}")
    on = {rule for rule, enabled, _ in _rules(config) if enabled}

    assert config.market == MarketConfig(name, lot, config.market.minimum_order, tick, multiplier)
    assert (config.data.calendar, config.data.volume) == (calendar, Volume(volume))
    assert config.costs == _compose(f"costs={costs}").costs
    assert config.env.fill is (Fill.next_open if made else Fill.next_close)
    usual = {rule for rule, enabled, _ in _rules(_compose()) if enabled}
    assert on == (usual if securities else usual - SECURITIES_LAW)


def test_every_market_is_in_the_table() -> None:
    assert {row[0] for row in BY_MARKET} == set(groups()["market"])


@pytest.mark.parametrize("market", groups()["market"])
def test_market_switches_no_rule_on(market: str) -> None:
    config = _compose("data=file", f"market={market}", "risk=unconstrained")
    free = {name for name, enabled, _ in _rules(_compose("risk=unconstrained")) if enabled}

    assert {name for name, enabled, _ in _rules(config) if enabled} <= free


def test_command_line_wins_over_what_the_market_brings() -> None:
    given = ("costs=us_etf", "data.calendar=24/5", "env.fill=next_open", "market.lot=100")
    config = _compose("data=file", "market=fx", *given)

    assert config.costs == _compose("costs=us_etf").costs
    assert config.data.calendar == "24/5"
    assert config.env.fill is Fill.next_open
    assert (config.market.name, config.market.lot) == ("fx", 100.0)
    assert _compose("data=sp500", "market=us_etf").market.name == "us_etf"


@pytest.mark.parametrize(
    ("preset", "market"),
    [
        ("experiment=crypto", "crypto"),
        ("experiment=us_hourly", "us_equity"),
        ("experiment=us_minute_short", "us_etf"),
        ("data=sp500", "index"),
        ("data=nasdaq", "index"),
        ("data=null", "synthetic"),
        ("experiment=deliverables", "synthetic_fund"),
    ],
)
def test_preset_names_its_market(preset: str, market: str) -> None:
    assert _compose(preset).market.name == market


def test_short_sales_of_crypto_are_free_of_securities_law() -> None:
    config = _compose("experiment=crypto")

    assert (config.data.calendar, config.data.timezone) == ("24/7", "UTC")
    assert config.costs.fee_bps == 10.0


def test_discount_rate_of_the_learner_is_that_of_the_environment_unless_given() -> None:
    assert _compose("env.gamma=0.9").model.gamma == 0.9
    assert _compose("model.gamma=0.8").model.gamma == 0.8


def test_synthetic_costs_follow_the_market() -> None:
    assert _compose("data.high_volatility_cost_multiplier=3").costs.high_volatility_multiplier == 3


def test_ppo_differs_from_maskable_ppo_in_type_only() -> None:
    masked, plain = _compose("model=maskable_ppo").model, _compose("model=ppo").model

    assert plain.type is ModelType.ppo
    assert dataclasses.replace(plain, type=masked.type) == masked


def _rules(config: Config) -> Iterator[tuple[str, bool, Severity]]:
    for name, rule in config.risk.rules().items():
        yield name, rule.enabled, rule.severity


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
