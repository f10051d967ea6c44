"""The code inside an MLflow pyfunc model: mlflow runs this file when it loads the model."""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from ppo_workbench.delivery.artifact import METADATA_SUFFIX, load_artifact
from ppo_workbench.delivery.golden import stored_weights, uses_mask
from ppo_workbench.delivery.network import best_allowed, forward_row


class ServedPolicy(PythonModel):
    """Logits and decisions of many observations at once, by the forward pass that trades."""

    def load_context(self, context: Any) -> None:
        """Load and verify the artefact that lies in the model's folder."""
        folder = Path(context.artifacts["pair"])
        (found,) = folder.glob(f"*{METADATA_SUFFIX}")
        artifact = load_artifact(folder, found.name.removesuffix(METADATA_SUFFIX))
        self._weights = stored_weights(artifact.metadata, artifact.tensors)
        self._masked = uses_mask(artifact.metadata.model_type)

    # Not annotated: MLflow would read that as a schema beside the model's signature.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Take observation (R, n), mask (R, A); return logits (R, A), action (R,)."""
        observation = np.ascontiguousarray(model_input["observation"], dtype=np.float32)
        mask = np.array(model_input["mask"], dtype=np.bool_)
        if not self._masked:
            mask[:] = True
        weights, scratch = self._weights, self._weights.scratch()
        logits = np.empty(mask.shape, dtype=np.float32)
        action = np.empty(len(mask), dtype=np.int64)
        for i in range(len(mask)):
            logits[i] = forward_row(observation[i], weights, scratch)
            action[i] = best_allowed(logits[i], mask[i])
        return {"logits": logits, "action": action}


set_model(ServedPolicy())
