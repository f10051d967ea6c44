"""What a model recorded, under what one command names itself."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ppo_workbench.cli.composing import composed
from ppo_workbench.cli.recorded import check_files, under_overrides
from ppo_workbench.config import ConfigError


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """Return what a model trained with other costs, rules and bars recorded."""
    trained = [
        "costs=us_etf",
        "risk.daily_loss.max_loss_frac=0.5",
        "market.lot=0.001",
        "data.synthetic.seed=7",
        "data.columns={close: Last}",
        "env.gamma=0.5",
        "env.flat_last_bars=5",
        "splits.train_frac=0.3",
    ]
    values = OmegaConf.to_container(composed(trained).cfg, resolve=False, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _merged(recorded: dict[str, Any], *overrides: str) -> Any:
    return under_overrides(recorded, composed(overrides), composed([]), overrides)


def test_recorded_sections_stand_where_the_command_names_nothing(recorded: dict[str, Any]) -> None:
    merged = _merged(recorded, "task=report", "run=first", "model.learning_rate=0.5")

    assert (merged.market.lot, merged.data.synthetic.seed) == (0.001, 7)
    assert dict(merged.data.columns) == {"close": "Last"}
    assert merged.costs == OmegaConf.create(recorded)["costs"]
    assert merged.risk.daily_loss.max_loss_frac == 0.5
    assert (merged.env.gamma, merged.splits.train_frac) == (0.5, 0.3)
    assert merged.env.flat_last_bars == 5
    assert (merged.run, merged.model.learning_rate) == ("first", 0.5)


def test_value_of_the_command_wins_even_where_it_is_the_default(recorded: dict[str, Any]) -> None:
    default = composed([]).cfg.risk.daily_loss.max_loss_frac

    merged = _merged(recorded, f"risk.daily_loss.max_loss_frac={default}", "costs.fee_bps=3")

    assert merged.risk.daily_loss.max_loss_frac == default
    assert merged.costs.fee_bps == 3.0
    assert merged.costs.half_spread_bps == recorded["costs"]["half_spread_bps"]
    assert merged.data.synthetic.seed == 7


def test_option_of_the_command_replaces_its_section_even_the_default(
    recorded: dict[str, Any],
) -> None:
    assert recorded["costs"] != OmegaConf.to_container(composed([]).cfg.costs)

    merged = _merged(recorded, "costs=synthetic")

    assert merged.costs == composed([]).cfg.costs
    assert merged.data.synthetic.seed == 7


def test_option_brings_its_sections_along_and_an_experiment_its_values(
    recorded: dict[str, Any],
) -> None:
    daily, other = _merged(recorded, "data=sp500"), _merged(recorded, "experiment=deliverables")

    assert daily.data.source == "sp500"
    assert daily.env == composed(["data=sp500"]).cfg.env
    assert daily.splits.train_frac == 0.3
    assert daily.env.flat_last_bars is None  # days have no last five minutes to be flat for
    assert (other.data.synthetic.seed, other.data.synthetic.sessions) == (303, 5040)
    assert (other.env.gamma, other.risk.daily_loss.max_loss_frac) == (None, 0.5)


def test_recording_of_an_older_version_is_filled_with_defaults(recorded: dict[str, Any]) -> None:
    older = {**recorded, "splits": {"train_frac": 0.3}}
    del older["reward"]

    merged = _merged(older)

    assert merged.splits.train_frac == 0.3
    assert merged.splits.protocol == composed([]).cfg.splits.protocol
    assert merged.reward == composed([]).cfg.reward


def _of_files(recorded: dict[str, Any], **files: str | None) -> dict[str, Any]:
    return {**recorded, "data": {**recorded["data"], "source": "file", **files}}


@pytest.mark.parametrize("key", ["path", "events_path"])
def test_recorded_file_that_has_moved_is_refused_with_its_key(
    recorded: dict[str, Any], tmp_path: Path, key: str
) -> None:
    there, gone = tmp_path / "there.csv", tmp_path / "gone.csv"
    there.touch()
    own = _of_files(recorded, **{"path": str(there), key: str(gone)})

    with pytest.raises(ConfigError, match=rf"^data\.{key}={gone}: .*, data\.{key}=FILE$"):
        check_files(_merged(own), own)
    # A file that the command names is the source's to refuse, and so is one that is there.
    check_files(_merged(own, f"data.{key}={tmp_path}/other.csv"), own)
    gone.touch()
    check_files(_merged(own), own)


def test_recorded_file_of_the_environment_is_told_as_it_is_written(
    recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARS", "/secret/bars.csv")
    own = _of_files(recorded, path="${oc.env:BARS}")

    with pytest.raises(ConfigError) as refused:
        check_files(_merged(own), own)

    assert str(refused.value).startswith("data.path=${oc.env:BARS}: ")
    assert "/secret" not in str(refused.value)


def test_path_of_a_source_of_ones_own_need_be_no_file(recorded: dict[str, Any]) -> None:
    own = {**recorded, "data": {**recorded["data"], "source": "mine", "path": "s3://bucket"}}

    check_files(_merged(own), own)
