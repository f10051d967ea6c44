"""Commands on a model take its own bars, costs and rules, under what they name themselves."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.e2e.workbench import BUDGET, TINY, TRADING, Result, Workbench

from ppo_workbench import compose, train
from ppo_workbench.config import DataConfig
from ppo_workbench.market.sources import load_bars

COSTS = ["costs.half_spread_bps=7", "costs.fee_bps=2"]
RULES = ["risk.cooldown.enabled=true", "risk.volatility.max_ratio=5"]
AS_TRAINED = "bars, costs, rules and splits are set as in its training"
COMMANDS = ("evaluate", "audit", "paper", "verify")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with the model `m` of bars.csv, with costs and rules of its own."""
    home = tmp_path_factory.mktemp("own")
    long = "data.synthetic.sessions=60"  # what `verify` asks for: eight sessions of validation
    config = compose([*TINY, *BUDGET, *TRADING, *COSTS, *RULES, long, "tracking=none", "output=m"])
    bars = load_bars(config.data)
    names = ("open", "high", "low", "close", "volume")
    table = pd.DataFrame({name: getattr(bars, name) for name in names})
    table.insert(0, "timestamp", pd.to_datetime(bars.start_ns, utc=True))
    table.to_csv(home / "bars.csv", index=False)
    data = DataConfig(source="file", path=str(home / "bars.csv"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPO_WORKBENCH_HOME", str(home))
        train(replace(config, data=data))
    return home


def _run(home: Path, capsys: pytest.CaptureFixture[str], task: str, *more: str) -> Result:
    arguments = [f"task={task}", "artifact=m", f"result_json={home / 'result.json'}"]
    return Workbench(home, capsys).run(*arguments, "tracking=none", *more)


def _result(home: Path) -> Any:
    return json.loads((home / "result.json").read_text("utf-8"))


def _card(home: Path) -> dict[str, float]:
    card: dict[str, float] = _result(home)["scorecards"]["m"]["validation"]
    return card


def _recorded_card(home: Path) -> dict[str, Any]:
    metadata = Workbench(home).metadata("m")
    assert metadata["config"]["costs"]["half_spread_bps"] == 7.0
    card: dict[str, Any] = metadata["scorecards"]["validation"]
    assert card["n_trades"] > 0
    return {key: value for key, value in card.items() if not isinstance(value, dict)}


@pytest.mark.parametrize("task", ["evaluate", "paper"])
def test_model_named_alone_scores_as_recorded(
    home: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    found = _run(home, capsys, task)

    assert found.code == 0, found.err
    expected, card = _recorded_card(home), _card(home)
    assert {key: card[key] for key in expected} == expected
    assert AS_TRAINED in " ".join(found.out.split())


def test_model_named_alone_is_audited_by_its_own_rules(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _run(home, capsys, "audit")

    assert found.code == 0, found.err
    assert "m on validation of bars" in found.out
    assert AS_TRAINED in " ".join(found.out.split())
    assert _result(home)["checked"]["cooldown"] > 0  # a rule that is off by default


def test_model_named_alone_is_trained_again_on_its_own_bars(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _run(home, capsys, "verify")

    assert found.code == 0, found.err
    assert "every bit agrees" in found.out


@pytest.mark.parametrize("task", COMMANDS)
def test_moved_bars_are_refused_until_their_place_is_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    shutil.copytree(home / "trained_models", tmp_path / "trained_models")
    here, there = home / "bars.csv", tmp_path / "bars.csv"
    here.rename(there)
    try:
        refused = _run(tmp_path, capsys, task)
        mended = _run(tmp_path, capsys, task, f"data.path={there}")
    finally:
        there.rename(here)

    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert f"data.path={here}" in refused.err
    assert "data.path=FILE" in refused.err
    assert mended.code == 0, mended.err
    if task in ("evaluate", "paper"):
        assert _card(tmp_path)["sharpe_annual"] == _recorded_card(home)["sharpe_annual"]
        assert "not set as in its training: data.path" in " ".join(mended.out.split())


@pytest.mark.parametrize("task", ["evaluate", "paper"])
def test_costs_and_rules_of_the_command_win_and_are_told(
    home: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    found = _run(home, capsys, task, "costs.half_spread_bps=70")

    assert found.code == 0, found.err
    recorded = _recorded_card(home)
    assert _card(home)["cost_usd"] > 1.5 * recorded["cost_usd"] > 0
    assert "costs.half_spread_bps=70.0 (trained with 7.0)" in " ".join(found.out.split())

    found = _run(home, capsys, task, "risk.volatility.max_ratio=0.5")

    assert found.code == 0, found.err
    assert _card(home)["n_trades"] < recorded["n_trades"]


def test_audit_asks_the_rules_that_the_command_names(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _run(home, capsys, "audit", "risk.cooldown.enabled=false")

    assert found.code == 0, found.err
    assert "cooldown" not in _result(home)["checked"]
    assert "risk.cooldown.enabled=False (trained with True)" in " ".join(found.out.split())


def test_verify_refuses_other_settings_than_those_of_the_training(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _run(home, capsys, "verify", "costs.fee_bps=3")

    assert found.code == 2
    assert "costs.fee_bps: task=verify trains a model as its metadata record" in found.err


def test_python_composes_the_configuration_of_a_model(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(home))

    config = compose(["task=evaluate", "artifact=m", "costs.fee_bps=3"])

    assert config.data == DataConfig(source="file", path=str(home / "bars.csv"))
    assert (config.costs.half_spread_bps, config.costs.fee_bps) == (7.0, 3.0)
    assert config.risk.volatility.max_ratio == 5.0
