"""What a Decider remembers, as arrays and JSON: kept in one file without pickle."""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppo_workbench.config import ArtifactError

_DOCUMENT = "document"


@dataclass(frozen=True)
class DeciderState:
    """The state of a Decider between two bars.

    Attributes:
        arrays: Plain and structured numpy arrays by name.
        document: JSON values: which model it belongs to, counters, the last decision.
    """

    arrays: dict[str, np.ndarray[Any, Any]]
    document: dict[str, Any]

    def part(self, prefix: str) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays whose names start with `prefix`, without it."""
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def save(self, path: Path) -> None:
        """Write one npz file, whole or not at all."""
        text = np.frombuffer(json.dumps(self.document).encode(), dtype=np.uint8)
        arrays: dict[str, Any] = {**self.arrays, _DOCUMENT: text}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "DeciderState":
        """Read what `save` wrote; nothing is unpickled.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            document = json.loads(arrays.pop(_DOCUMENT).tobytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ArtifactError(
                f"state {path}: cannot be read ({error}); warm up from history"
            ) from None
        return cls(arrays, document)
