"""Find, load and activate the models of a folder, as an application does at its start.

    manager = ModelManager("models")
    for model in manager.discover().models:
        print(model.name, model.metadata.status.value)
    artifact = manager.activate("maskable_production_final")

Discovery reads both files of a pair and compares their hashes, but loads no tensors; what it
found is remembered until a file's inode, size or time changes.  Loading verifies everything
again: between the two calls a file may have been exchanged.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ppo_workbench.config import ArtifactError
from ppo_workbench.delivery.artifact import (
    METADATA_SUFFIX,
    PTH_SUFFIX,
    Artifact,
    check_pair,
    load_artifact,
    verify,
)
from ppo_workbench.delivery.golden import Level
from ppo_workbench.delivery.metadata import Metadata, Status
from ppo_workbench.jit import CACHE_ENABLED

_Stamp = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True)
class FoundModel:
    """A model whose two files are whole and belong together."""

    name: str
    folder: Path
    metadata: Metadata

    def expired(self, now: datetime | None = None) -> bool:
        """Tell whether its `expires_at` has passed at `now`, by default the present."""
        expires = self.metadata.expires_at
        return expires is not None and (now or datetime.now(UTC)) >= expires


@dataclass(frozen=True)
class BrokenModel:
    """Something with a model's file name that cannot be used, and why, in one sentence."""

    name: str
    folder: Path
    reason: str


@dataclass(frozen=True)
class Discovery:
    """What the folders hold.

    Attributes:
        models: Usable models by name.
        broken: The others by name.
        added: Names that the previous call did not find among `models`, or found changed.
        removed: Names that only the previous call found among `models`.
    """

    models: tuple[FoundModel, ...]
    broken: tuple[BrokenModel, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


class ModelManager:
    """The models of one or several folders; sub-folders are not looked into."""

    def __init__(self, *folders: Path | str) -> None:
        """Remember the folders; nothing is read yet."""
        self._folders = tuple(Path(folder) for folder in folders)
        self._known: dict[tuple[Path, str], tuple[_Stamp, FoundModel | BrokenModel]] = {}
        self._seen: dict[str, FoundModel] = {}

    def discover(self) -> Discovery:
        """Look at the folders as they are now.

        Raises:
            ArtifactError: A folder is missing or cannot be read.
        """
        places = [(folder, name) for folder in self._folders for name in _names(folder)]
        self._known = {place: self._look(*place) for place in places}
        found = [model for _, model in self._known.values()]
        models, broken = _without_doubles(found)
        before, self._seen = self._seen, {model.name: model for model in models}
        return Discovery(
            models=tuple(models),
            broken=tuple(broken),
            added=tuple(m.name for m in models if before.get(m.name) != m),
            removed=tuple(name for name in before if name not in self._seen),
        )

    def load(self, name: str) -> Artifact:
        """Load the model `name` and verify it, whatever its status (see `load_artifact`).

        Raises:
            ArtifactError: There is no such model, or it cannot be used; says why.
        """
        return load_artifact(self._find(name).folder, name)

    def activate(
        self,
        name: str,
        *,
        any_status: bool = False,
        level: Level | None = None,
        now: datetime | None = None,
    ) -> Artifact:
        """Load the model `name` to trade with it.

        Args:
            name: The model.
            any_status: Activate models that are not champions too.
            level: How much of the golden vectors is replayed.  By default `Level.step` where
                compiled kernels can be cached, else `Level.network`: there compiling them
                takes seconds, which `verify` can spend later.
            now: What `expires_at` is compared with, by default the present.

        Raises:
            ArtifactError: As `load`, or the model is no champion, has expired, has no golden
                vectors, or decides otherwise than where it was saved.
        """
        model = self._find(name)
        status = model.metadata.status
        if status is not Status.champion and not any_status:
            raise ArtifactError(
                f"model {name!r} is a {status.value}, and only a champion is activated; promote "
                "it or ask for any status"
            )
        if model.expired(now):
            raise ArtifactError(
                f"model {name!r} expired at {model.metadata.expires_at}; promote a newer one"
            )
        artifact = load_artifact(model.folder, name)
        if artifact.metadata != model.metadata:
            raise ArtifactError(f"model {name!r} was exchanged while it was loaded; try again")
        verify(artifact, level or (Level.step if CACHE_ENABLED else Level.network))
        return artifact

    def _find(self, name: str) -> FoundModel:
        """Return the model `name`; names are compared, so a path in one reaches no file."""
        discovery = self.discover()
        for model in discovery.models:
            if model.name == name:
                return model
        for broken in discovery.broken:
            if broken.name == name:
                raise ArtifactError(broken.reason)
        places = ", ".join(str(folder) for folder in self._folders)
        names = ", ".join(model.name for model in discovery.models) or "none"
        raise ArtifactError(f"model {name!r} is not in {places}; there are: {names}")

    def _look(self, folder: Path, name: str) -> tuple[_Stamp, FoundModel | BrokenModel]:
        stamp = _stamp(folder, name)
        known = self._known.get((folder, name))
        if known is not None and known[0] == stamp:
            return known
        try:
            return stamp, FoundModel(name, folder, check_pair(folder, name))
        except ArtifactError as error:
            return stamp, BrokenModel(name, folder, str(error))


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of all models of which the folder holds at least one file."""
    try:
        files = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise ArtifactError(
            f"{folder}: models cannot be looked for ({error.strerror}); give the folder that "
            "holds NAME.pth and NAME-metadata.json"
        ) from None
    names = {
        file.removesuffix(suffix)
        for file in files
        for suffix in (PTH_SUFFIX, METADATA_SUFFIX)
        if file.endswith(suffix) and not file.startswith(".")
    }
    yield from sorted(names)


def _stamp(folder: Path, name: str) -> _Stamp:
    """Return what changes when one of the two files does; links are followed."""
    stamps: list[tuple[int, int, int, int] | None] = []
    for suffix in (PTH_SUFFIX, METADATA_SUFFIX):
        try:
            found = (folder / f"{name}{suffix}").stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(stamps)


def _without_doubles(
    found: list[FoundModel | BrokenModel],
) -> tuple[list[FoundModel], list[BrokenModel]]:
    """Part usable models from the others; of two with one name neither is usable.

    Names that differ by case alone are one name: some file systems and people take them so.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for model in found:
        places[model.name.casefold()].append(str(model.folder / model.name))
    models: list[FoundModel] = []
    broken: list[BrokenModel] = []
    for model in sorted(found, key=lambda model: (model.name, str(model.folder))):
        same = places[model.name.casefold()]
        if len(same) > 1:
            reason = f"model {model.name!r} is there twice ({' and '.join(same)}); remove one"
            broken.append(BrokenModel(model.name, model.folder, reason))
        elif isinstance(model, FoundModel):
            models.append(model)
        else:
            broken.append(model)
    return models, broken
