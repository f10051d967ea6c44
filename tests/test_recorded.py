"""What a model recorded, under what one command names itself."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from ppo_workbench.cli import _composed
from ppo_workbench.recorded import under_overrides


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """Return what a model trained with other costs, rules and bars recorded."""
    trained = [
        "costs=us_etf",
        "risk.daily_loss.max_loss_frac=0.5",
        "data.synthetic.seed=7",
        "data.columns={close: Last}",
        "env.gamma=0.5",
        "splits.train_frac=0.3",
    ]
    values = OmegaConf.to_container(_composed(trained).cfg, resolve=False, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _merged(recorded: dict[str, Any], *overrides: str) -> Any:
    return under_overrides(recorded, _composed(overrides), _composed([]), overrides)


def test_recorded_sections_stand_where_the_command_names_nothing(recorded: dict[str, Any]) -> None:
    merged = _merged(recorded, "task=report", "run=first", "model.learning_rate=0.5")

    assert merged.data.synthetic.seed == 7
    assert dict(merged.data.columns) == {"close": "Last"}
    assert merged.costs == OmegaConf.create(recorded)["costs"]
    assert merged.risk.daily_loss.max_loss_frac == 0.5
    assert (merged.env.gamma, merged.splits.train_frac) == (0.5, 0.3)
    assert (merged.run, merged.model.learning_rate) == ("first", 0.5)


def test_value_of_the_command_wins_even_where_it_is_the_default(recorded: dict[str, Any]) -> None:
    default = _composed([]).cfg.risk.daily_loss.max_loss_frac

    merged = _merged(recorded, f"risk.daily_loss.max_loss_frac={default}", "costs.fee_bps=3")

    assert merged.risk.daily_loss.max_loss_frac == default
    assert merged.costs.fee_bps == 3.0
    assert merged.costs.half_spread_bps == recorded["costs"]["half_spread_bps"]
    assert merged.data.synthetic.seed == 7


def test_option_of_the_command_replaces_its_section_even_the_default(
    recorded: dict[str, Any],
) -> None:
    assert recorded["costs"] != OmegaConf.to_container(_composed([]).cfg.costs)

    merged = _merged(recorded, "costs=synthetic")

    assert merged.costs == _composed([]).cfg.costs
    assert merged.data.synthetic.seed == 7


def test_option_brings_its_sections_along_and_an_experiment_its_values(
    recorded: dict[str, Any],
) -> None:
    daily, other = _merged(recorded, "data=sp500"), _merged(recorded, "experiment=deliverables")

    assert daily.data.source == "sp500"
    assert daily.env == _composed(["data=sp500"]).cfg.env
    assert daily.splits.train_frac == 0.3
    assert (other.data.synthetic.seed, other.data.synthetic.sessions) == (300, 5040)
    assert other.env.gamma == 0.5


def test_recording_of_an_older_version_is_filled_with_defaults(recorded: dict[str, Any]) -> None:
    older = {**recorded, "splits": {"train_frac": 0.3}}
    del older["reward"]

    merged = _merged(older)

    assert merged.splits.train_frac == 0.3
    assert merged.splits.protocol == _composed([]).cfg.splits.protocol
    assert merged.reward == _composed([]).cfg.reward
