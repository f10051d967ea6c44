"""A model that was written is the model that was trained, from the command line and Python."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.workbench import BUDGET, TINY, Workbench

from ppo_workbench import backtest, compose, evaluate, train
from ppo_workbench.config import Config, ConfigError
from ppo_workbench.market.features import compute_market
from ppo_workbench.market.sources import load_bars
from ppo_workbench.pipeline.models import stored
from ppo_workbench.pipeline.train.outcome import Outcome
from ppo_workbench.records.ledger import past_accesses
from ppo_workbench.scoring.backtest import backtest as run_backtest
from ppo_workbench.scoring.metrics import Scorecard, scorecard
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading import experiment as layout
from ppo_workbench.trading.table import TradingMarket


@pytest.fixture
def home(trained: Workbench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the home of the trained model `first`."""
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(trained.home))
    return trained.home


def _small(*overrides: str) -> Config:
    return compose([*TINY, *BUDGET, "tracking.enabled=false", *overrides])


def test_result_json_agrees_with_metadata_and_names_the_files(trained: Workbench) -> None:
    result = json.loads((trained.home / "first.json").read_text(encoding="utf-8"))
    metadata = trained.metadata("first")

    assert result["model"] == str(trained.home / "trained_models" / "first.pth")
    assert result["mlflow_run_id"] == metadata["mlflow_run_id"]
    card = result["scorecards"]["MaskablePPO"]["validation"]
    assert result["score"] == card["sharpe_annual"] - card["sharpe_standard_error"]
    assert card["sharpe_annual"] == metadata["scorecards"]["validation"]["sharpe_annual"]
    assert result["interrupted"] is False
    assert {"flat", "buy-and-hold", "random-legal"} < set(result["scorecards"])


def test_python_functions_return_typed_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path))
    config = _small("model=ppo", "output=typed")

    outcome = train(config)
    trace = backtest(config, "typed")
    card = evaluate(_small("model=ppo", "artifact=typed"))

    assert isinstance(outcome, Outcome)
    assert isinstance(trace, Trace)
    assert isinstance(card, Scorecard)
    assert outcome.paths.pth == tmp_path / "baselines" / "typed.pth"
    assert outcome.run_id is None
    assert not [path for path in (tmp_path / "mlruns").rglob("*") if path.is_file()]
    assert card == outcome.scorecards["PPO"]["validation"] == scorecard(trace)
    np.testing.assert_array_equal(trace.equity_usd, outcome.validation_trace.equity_usd)
    assert list(trace.to_frame()["equity_usd"]) == list(trace.equity_usd)


def test_training_never_holds_a_bar_of_the_test_split(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _small("output=cut", "overwrite=true")
    every = load_bars(config.data)
    seen: list[int] = []

    def spy(bars, features):  # type: ignore[no-untyped-def]
        seen.append(len(bars))
        assert bars.close.base is None  # a copy: nothing behind it
        return compute_market(bars, features)

    monkeypatch.setattr(layout, "compute_market", spy)

    outcome = train(config)

    split = outcome.metadata.data.splits
    closed = int(split["test"].start.timestamp()) * 1_000_000_000
    assert seen == [int(np.searchsorted(every.start_ns, closed)) - 390]
    assert not (home / "mlruns" / "test_openings.jsonl").exists()
    assert outcome.metadata.scorecards.test is None


def test_backtest_of_the_test_split_is_in_the_ledger_first_and_counted(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(workbench.home))
    config = _small("output=looked")
    outcome = train(config)

    def refuse(bars, features):  # type: ignore[no-untyped-def]
        raise RuntimeError("the bars are about to be read")

    monkeypatch.setattr(layout, "compute_market", refuse)
    with pytest.raises(RuntimeError, match="about to be read"):
        backtest(config, "looked", "test")
    (first,) = past_accesses(workbench.home)
    monkeypatch.setattr(layout, "compute_market", compute_market)

    trace = backtest(config, "looked", "test")

    second = past_accesses(workbench.home)[1]
    assert (first.looks, second.looks) == (1, 2)
    assert first.fingerprint == load_bars(config.data).fingerprint
    assert "looked" in second.why
    split = outcome.metadata.data.splits["test"]
    assert trace.start_ns is not None
    assert split.start.timestamp() * 1e9 <= trace.start_ns <= int(trace.end_ns[-1])


def test_stored_model_is_run_with_its_own_scaler(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = json.loads((home / "trained_models" / "first-metadata.json").read_text("utf-8"))[
        "normalization"
    ]
    other = _small("data.synthetic.seed=1")
    fitted = layout.prepare(other, *layout.split_bars(other)).market.scaler
    seen: list[TradingMarket] = []

    def spy(policy, bars, market, split, config):  # type: ignore[no-untyped-def]
        seen.append(market)
        return run_backtest(policy, bars, market, split, config)

    monkeypatch.setattr(stored, "run_backtest", spy)

    backtest(other, "first")

    assert list(seen[0].scaler.means) == scaler["means"] != list(fitted.means)
    assert list(seen[0].scaler.stds) == scaler["stds"] != list(fitted.stds)


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ("env.allow_short=false", "exposure levels"),
        ("env.action_set=target", "action names"),
        ("features.names=[return_1]", "market features"),
        ("features.volatility_fast_bars=5", "feature settings"),
    ],
)
def test_stored_model_that_does_not_fit_is_refused(home: Path, overrides: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"artifact=first: its {what} are"):
        backtest(_small(overrides), "first")


def test_backtest_of_an_unknown_split_or_model_is_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="split='tset': must be train, validation or test"):
        backtest(_small(), "first", "tset")
    with pytest.raises(ConfigError, match="artifact=frist: no such model in trained_models/ or"):
        backtest(_small(), "frist")
