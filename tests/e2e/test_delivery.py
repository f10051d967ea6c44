"""What the tasks write is what an application can use."""

from pathlib import Path

import pytest
from tests.e2e.workbench import Workbench

from ppo_workbench.config import ArtifactError
from ppo_workbench.delivery.artifact import load_artifact, verify
from ppo_workbench.delivery.model_manager import ModelManager


def test_trained_model_replays_and_is_activated_when_told(trained: Workbench) -> None:
    manager = ModelManager(trained.home / "trained_models")
    with pytest.raises(ArtifactError, match="is a candidate"):
        manager.activate("first")
    verify(manager.activate("first", any_status=True))


def test_export_task_writes_both_files_beside_the_model(trained: Workbench) -> None:
    pytest.importorskip("onnxscript")
    assert trained.run("task=export", "artifact=first").code == 0
    folder = trained.home / "trained_models"
    assert (folder / "first.onnx").is_file()
    assert (folder / "first.torchscript.pt").is_file()
    assert [model.name for model in ModelManager(folder).discover().models] == ["first"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "write artifact=NAME"), (("artifact=absent",), "no such model in trained_models/")],
)
def test_export_of_no_model_is_refused(
    workbench: Workbench, arguments: tuple[str, ...], message: str
) -> None:
    result = workbench.run("task=export", *arguments)
    assert result.code == 2
    assert message in result.err


def test_trained_baseline_replays(workbench: Workbench) -> None:
    workbench.train("model=ppo", "output=base", "tracking.enabled=false")
    folder: Path = workbench.home / "baselines"
    verify(load_artifact(folder, "base"))
