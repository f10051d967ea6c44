from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.delivery.models import build, save_model, settings, small_model

from ppo_workbench.config import ArtifactError
from ppo_workbench.delivery.artifact import save_artifact
from ppo_workbench.delivery.golden import find_golden
from ppo_workbench.records.pyfunc import save_pyfunc


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small model as a pyfunc model."""
    folder = tmp_path_factory.mktemp("pyfunc")
    save_model(folder / "models", "model")
    return save_pyfunc(folder / "saved", folder / "models", "model")


def _load(path: Path) -> Any:
    from mlflow import pyfunc

    return pyfunc.load_model(str(path))


def test_save_pyfunc_model_decides_as_the_golden_vectors(saved: Path) -> None:
    golden = find_golden(small_model()[0])
    assert golden is not None
    made = _load(saved).predict({"observation": golden.observation, "mask": golden.mask})
    np.testing.assert_array_equal(made["logits"], golden.logits)
    np.testing.assert_array_equal(made["action"], golden.action)


def test_save_pyfunc_signature_names_observation_and_mask(saved: Path) -> None:
    signature = _load(saved).metadata.signature
    inputs = {x.name: (x.type.name, x.shape) for x in signature.inputs}
    outputs = {x.name: (x.type.name, x.shape) for x in signature.outputs}
    assert inputs == {"observation": ("float32", (-1, 11)), "mask": ("bool", (-1, 3))}
    assert outputs == {"logits": ("float32", (-1, 3)), "action": ("int64", (-1,))}


def test_save_pyfunc_wrong_width_is_refused_by_the_signature(saved: Path) -> None:
    from mlflow.exceptions import MlflowException

    given = {"observation": np.zeros((1, 8), np.float32), "mask": np.ones((1, 3), np.bool_)}
    with pytest.raises(MlflowException, match="shape"):
        _load(saved).predict(given)


def test_save_pyfunc_holds_no_pickle_and_no_path_of_this_machine(
    saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = {path.relative_to(saved).as_posix(): path for path in saved.rglob("*.*")}
    assert {"artifacts/pair/model.pth", "served_policy.py"} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pickle"))]
    text = (saved / "MLmodel").read_text()
    assert "model_code_path: served_policy.py" in text
    assert "uri: artifacts/pair" in text


def test_save_pyfunc_standard_ppo_ignores_the_mask(tmp_path: Path) -> None:
    tensors, metadata = build(settings(model={"type": "ppo"}))
    save_artifact(tmp_path / "models", "ppo", tensors, metadata)
    golden = find_golden(tensors)
    assert golden is not None
    model = _load(save_pyfunc(tmp_path / "saved", tmp_path / "models", "ppo"))
    made = model.predict({"observation": golden.observation, "mask": golden.mask})
    np.testing.assert_array_equal(made["action"], golden.logits.argmax(axis=1))


def test_save_pyfunc_model_that_cannot_be_verified_is_refused(tmp_path: Path) -> None:
    tensors, metadata = build(settings(), scale=1e-9)
    save_artifact(tmp_path / "models", "tied", tensors, metadata)
    with pytest.raises(ArtifactError, match="no golden vectors"):
        save_pyfunc(tmp_path / "saved", tmp_path / "models", "tied")
    assert not (tmp_path / "saved").exists()
