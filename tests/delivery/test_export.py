import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.delivery.models import build, settings, small_artifact

from ppo_workbench.config import ArtifactError
from ppo_workbench.delivery import export as export_module
from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.export import (
    FORBIDDEN_LOGIT,
    export_model,
    export_onnx,
    export_torchscript,
)
from ppo_workbench.delivery.golden import find_golden

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

EXPORTS = {"model.onnx": export_onnx, "model.torchscript.pt": export_torchscript}


def _named(artifact: Artifact) -> Artifact:
    update = {"name": "model", "pth_sha256": "a" * 64}
    return Artifact(artifact.tensors, artifact.metadata.model_copy(update=update))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both exports of the small model."""
    folder = tmp_path_factory.mktemp("exported")
    export_model(_named(small_artifact()), folder)
    return folder


def test_export_model_writes_two_files_and_nothing_else(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == sorted(EXPORTS)


def test_export_onnx_has_the_published_signature(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    inputs = {x.name: (x.type, x.shape) for x in session.get_inputs()}
    outputs = {x.name: (x.type, x.shape) for x in session.get_outputs()}
    labels = session.get_modelmeta().custom_metadata_map

    assert inputs == {"observation": ("tensor(float)", [1, 11]), "mask": ("tensor(bool)", [3])}
    assert outputs == {"logits": ("tensor(float)", [1, 3])}
    assert json.loads(labels["action_names"]) == ["SELL", "HOLD", "BUY"]
    assert json.loads(labels["feature_names"]) == small_artifact().metadata.feature_names
    assert labels["pth_sha256"] == "a" * 64


def test_export_onnx_decides_as_the_golden_vectors(exported: Path) -> None:
    golden = find_golden(small_artifact().tensors)
    assert golden is not None
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    for observation, mask, logits, action in zip(
        golden.observation, golden.mask, golden.logits, golden.action, strict=True
    ):
        made = session.run(None, {"observation": observation[None], "mask": mask})[0][0]
        assert made.argmax() == action
        np.testing.assert_allclose(made[mask], logits[mask], rtol=1e-5, atol=1e-5)
        assert (made[~mask] == np.float32(FORBIDDEN_LOGIT)).all()


_FRESH = """
import sys, torch
module = torch.jit.load(sys.argv[1])
logits = module.forward(torch.zeros(1, 11), torch.tensor([False, True, False]))
print(logits.dtype, tuple(logits.shape), int(logits.argmax()), "ppo_workbench" in sys.modules)
"""


def test_export_torchscript_runs_where_there_is_only_torch(exported: Path) -> None:
    command = [sys.executable, "-I", "-c", _FRESH, str(exported / "model.torchscript.pt")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["torch.float32", "(1,", "3)", "1", "False"]


def test_exports_name_no_file_of_the_machine_that_made_them(exported: Path) -> None:
    with zipfile.ZipFile(exported / "model.torchscript.pt") as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    for content in [*contents, (exported / "model.onnx").read_bytes()]:
        assert str(Path(torch.__file__).parents[1]).encode() not in content
        assert str(Path(export_module.__file__).parent).encode() not in content


def test_export_model_of_another_kind_is_verified(tmp_path: Path) -> None:
    """Standard PPO ignores the mask; relu, one layer and other actions."""
    config = settings(
        model={"type": "ppo", "activation": "relu", "net_arch": [16]},
        env={"action_set": "target", "exposure_levels": [-1.0, 0.0, 0.5, 1.0]},
    )
    artifact = _named(Artifact(*build(config)))
    exports = export_model(artifact, tmp_path)
    session = onnxruntime.InferenceSession(str(exports.onnx))
    none_allowed = {"observation": np.zeros((1, 11), np.float32), "mask": np.zeros(5, np.bool_)}
    assert (session.run(None, none_allowed)[0] > FORBIDDEN_LOGIT).all()


@pytest.mark.parametrize("name", EXPORTS)
def test_export_that_decides_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = export_module._module

    def other(artifact: Artifact) -> Any:
        module = real(artifact)
        dict(module.named_parameters())["net.4.bias"][0] += 0.01
        return module

    monkeypatch.setattr(export_module, "_module", other)
    (tmp_path / name).write_bytes(b"the former export")
    with pytest.raises(ArtifactError, match=f"{name} makes logits"):
        EXPORTS[name](_named(small_artifact()), tmp_path / name)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the former export"]


def test_export_that_does_not_run_elsewhere_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_REPLAY_ONNX", "import ppo_workbench_is_not_there")
    with pytest.raises(ArtifactError, match="does not run in a fresh process"):
        export_onnx(_named(small_artifact()), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_onnx_without_the_extra_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match=r"install ppo-workbench\[export\]"):
        export_onnx(_named(small_artifact()), tmp_path / "model.onnx")


def test_export_model_without_golden_vectors_is_refused(tmp_path: Path) -> None:
    tensors, metadata = build(settings(), scale=1e-9)
    with pytest.raises(ArtifactError, match="no golden vectors"):
        export_model(_named(Artifact(tensors, metadata)), tmp_path)
    assert list(tmp_path.iterdir()) == []
