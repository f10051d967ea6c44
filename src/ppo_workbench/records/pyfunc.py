"""Write a model as an MLflow pyfunc model, for the registry and for `mlflow models serve`.

The code is stored as a file, not pickled (models-from-code), and the model is the artefact's
own two files: nothing is unpickled when it is loaded.  Making one takes a second or two of
imports, so a promotion does it and a training does not.
"""

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ppo_workbench import __version__
from ppo_workbench.delivery.artifact import artifact_paths, load_artifact, verify
from ppo_workbench.records.mlflow_store import client_class

PAIR = "pair"
_CODE = Path(__file__).with_name("served_policy.py")


def save_pyfunc(target: Path, folder: Path, name: str) -> Path:
    """Write the model `name` of `folder` as a pyfunc model in the new folder `target`.

    Its signature: observation float32 (-1, n), scaled, and mask bool (-1, A) in, logits float32
    (-1, A) and action int64 (-1,) out, in the order of `action_names`.

    Args:
        target: Must not exist.
        folder: Of the artefact.
        name: Of the artefact.

    Returns:
        `target`; log it as a run's `model` to register it.

    Raises:
        ArtifactError: The artefact does not load or does not replay its golden vectors.
    """
    artifact = load_artifact(folder, name)
    verify(artifact)
    metadata = artifact.metadata
    client_class()  # imports mlflow quietly
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    paths = artifact_paths(folder, name)
    # Recorded to be silent: mlflow asks for type hints under a filter of its own.
    with TemporaryDirectory() as scratch, warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")  # of mlflow to itself, and for an example
        import mlflow.pyfunc

        pair = Path(scratch) / PAIR
        pair.mkdir()
        for path in (paths.pth, paths.metadata):
            shutil.copyfile(path, pair / path.name)
        mlflow.pyfunc.save_model(
            str(target),
            python_model=str(_CODE),
            artifacts={PAIR: str(pair)},
            signature=_signature(len(metadata.feature_names), len(metadata.action_names)),
            pip_requirements=[f"ppo-workbench=={__version__}", "mlflow"],
            metadata={
                "name": name,
                "pth_sha256": metadata.pth_sha256,
                "action_names": metadata.action_names,
                "feature_names": metadata.feature_names,
            },
        )
        _remove_source_names(target / "MLmodel", {str(pair): f"artifacts/{PAIR}"})
    return target


def _remove_source_names(path: Path, names: Mapping[str, str]) -> None:
    """Name files by where they are in the model, not by where they were on this machine."""
    text = path.read_text(encoding="utf-8")
    for name, inside in {**names, str(_CODE): _CODE.name}.items():
        text = text.replace(name, inside)
    path.write_text(text, encoding="utf-8")


def _signature(n_observed: int, n_actions: int) -> object:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    observation = TensorSpec(np.dtype(np.float32), (-1, n_observed), "observation")
    mask = TensorSpec(np.dtype(np.bool_), (-1, n_actions), "mask")
    logits = TensorSpec(np.dtype(np.float32), (-1, n_actions), "logits")
    action = TensorSpec(np.dtype(np.int64), (-1,), "action")
    return ModelSignature(inputs=Schema([observation, mask]), outputs=Schema([logits, action]))
