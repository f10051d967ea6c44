"""What a Decider remembers, as arrays and JSON: kept in one file without pickle."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ppo_workbench.config import ArtifactError
from ppo_workbench.config.files import write_whole
from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.messages import AccountMemory
from ppo_workbench.market.reader.rows import RowDocument

STATE_VERSION = 3
_DOCUMENT = "document"


class MarketDocument(TypedDict):
    """What `MarketMemory` counts; clock and events are the fields of their memories."""

    taken: int
    needed: int
    scale: float
    clock: dict[str, int]
    events: dict[str, int] | None


class SimulatedDocument(TypedDict):
    """What a simulated account knows beside its arrays."""

    begun: bool
    ruined: bool
    action: int
    reasons: int


class PaperDocument(TypedDict):
    """How far task=paper has written: lines read, bytes of the file, the last decision."""

    line: int
    size: int
    text: str


class StateDocument(TypedDict, total=False):
    """What a Decider remembers as JSON; from `simulated` on what goes with it in one file."""

    version: int
    pth_sha256: str
    account: Mapping[str, object] | None
    begun: bool
    rung: int
    short: bool
    start: int
    ordered: int
    target: float
    last: Mapping[str, object] | None
    market: MarketDocument
    simulated: SimulatedDocument
    rows: RowDocument
    paper: PaperDocument


@dataclass(frozen=True)
class DeciderState:
    """The state of a Decider between two bars.

    Attributes:
        arrays: Plain and structured numpy arrays by name.
        document: JSON values: its version, which model it belongs to, counters, the last
            decision.
    """

    arrays: dict[str, np.ndarray[Any, Any]]
    document: StateDocument

    def belongs_to(self, artifact: Artifact) -> bool:
        """Return whether the state was taken from a Decider of this model."""
        return bool(self.document.get("pth_sha256") == artifact.metadata.pth_sha256)

    @property
    def account(self) -> AccountMemory | None:
        """What the rules remember of the account, for the model that trades next.

        Raises:
            ArtifactError: It is damaged.
        """
        try:
            document = self.document["account"]
            text = json.dumps(document)
            return None if document is None else AccountMemory.model_validate_json(text)
        except (KeyError, ValueError):
            raise ArtifactError("state: its account is damaged; warm up from history") from None

    def part(self, prefix: str) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays whose names start with `prefix`, without it."""
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def save(self, path: Path) -> None:
        """Write one npz file, whole or not at all.

        Raises:
            ArtifactError: The path is a folder.
            OSError: It cannot be written.
        """
        if path.is_dir():
            raise ArtifactError(f"state {path}: is a folder; name a file")
        text = np.frombuffer(json.dumps(self.document).encode(), dtype=np.uint8)
        arrays: dict[str, Any] = {**self.arrays, _DOCUMENT: text}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_whole(path, buffer.getvalue())

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
        except OSError as error:
            raise cls._unread(path, error.strerror or str(error)) from None
        except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
            # Not in numpy's words: it would advise to unpickle what is not its own.
            raise cls._unread(path, "no Decider saved it, or it is damaged") from None
        return cls(arrays, document)

    @staticmethod
    def _unread(path: Path, problem: str) -> ArtifactError:
        return ArtifactError(f"state {path}: cannot be read ({problem}); warm up from history")
