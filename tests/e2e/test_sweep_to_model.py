"""The line from sweep to MLflow to promotion to a loaded `.pth`, as docs/sweep_to_model.md says."""

import json
from pathlib import Path

import mlflow
import pytest
from tests.e2e.test_tutorial import blocks, run_commands

from ppo_workbench.delivery.model_manager import ModelManager

PAGE = Path(__file__).parents[2] / "docs" / "sweep_to_model.md"


@pytest.mark.slow
def test_page_leads_from_a_sweep_to_a_loaded_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path))
    for block in blocks(PAGE):
        if block.language == "bash":
            run_commands(block.text)
        else:
            exec(compile(block.text, str(PAGE), "exec"), {"__name__": "__main__"})

    printed = capsys.readouterr().out
    assert "champion" in printed
    champion = ModelManager(tmp_path / "trained_models").activate("from_sweep").metadata
    assert champion.status.value == "champion"
    assert len(champion.gates) == 15
    assert all(gate.passed for gate in champion.gates)
    (verdict,) = (tmp_path / "promotions").glob("*/promotion.json")
    assert json.loads(verdict.read_text("utf-8"))["promoted"] is True
    runs = mlflow.search_runs(experiment_names=["ppo_workbench"])
    assert {"planted"} <= set(runs["tags.study"].dropna())
    assert champion.mlflow_run_id in set(runs["run_id"])
