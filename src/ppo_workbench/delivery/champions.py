"""Exchange a champion: at any moment, kills included, a reader finds the old or the new one.

Four files change (`NAME` and `NAME.previous`, two each) and no file system renames four at once.
So the new files are written whole into the hidden folder `.NAME.promotion` beside them, a marker
there commits the exchange, and only then they are renamed into place one by one: a promotion
that was killed before the marker never happened, one killed after it is finished by `recover`.
Between the renames of `NAME.pth` and of its JSON the folder keeps the old weights, and
`load_artifact` takes them from there: the JSON alone decides which model is the champion.
"""

import os
import shutil
from pathlib import Path

from ppo_workbench.config import ArtifactError, PromotionError
from ppo_workbench.delivery.artifact import (
    Artifact,
    ArtifactPaths,
    artifact_paths,
    exchange_folder,
    kept_weights,
    load_artifact,
    load_metadata,
    save_artifact,
)
from ppo_workbench.delivery.export import ONNX_SUFFIX, TORCHSCRIPT_SUFFIX
from ppo_workbench.delivery.metadata import Metadata, Status

COMMITTED = "committed"
EXPORTS = (ONNX_SUFFIX, TORCHSCRIPT_SUFFIX)


def previous_name(name: str) -> str:
    """Return the name under which the former champion is kept."""
    return f"{name}.previous"


def reigning_champion(folder: Path, name: str) -> Metadata | None:
    """Return the metadata of the champion `name`, None where there is none of this name.

    Raises:
        ArtifactError: There are files of this name, but they are damaged or no champion's.
    """
    paths = artifact_paths(folder, name)
    if not (os.path.lexists(paths.pth) or os.path.lexists(paths.metadata)):
        return None
    metadata = load_metadata(folder, name)
    if metadata.status is not Status.champion:
        raise ArtifactError(
            f"promote.output={name}: {paths.pth} is a model with status {metadata.status.value}, "
            "no champion; choose another promote.output or set overwrite=true to replace it"
        )
    return metadata


def install_champion(folder: Path, name: str, artifact: Artifact) -> ArtifactPaths:
    """Make `artifact` the champion `name`; the pair that was there becomes `NAME.previous`.

    A pair that does not load is copied to `NAME.damaged-1` (or a higher number) instead, and
    `NAME.previous` stays what it was.  One process at a time: the caller holds a lock.

    Raises:
        ArtifactError: The new model does not verify, or the folder cannot be written; nothing
            was changed then.
    """
    staging = exchange_folder(folder, name)
    try:
        recover(folder, name)
        former = _former(folder, name)
        staging.mkdir(parents=True)
        champion = artifact.metadata.model_copy(update={"status": Status.champion})
        save_artifact(staging, name, artifact.tensors, champion)
        load_artifact(staging, name)
        if former is not None:
            _keep(folder, name)
            kept = former.metadata.model_copy(update={"status": Status.previous})
            save_artifact(staging, previous_name(name), former.tensors, kept)
        else:
            _keep_damaged(folder, name)
        _commit(staging)
        recover(folder, name)
    except ArtifactError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    except OSError as error:
        raise _not_exchanged(folder, name, error) from error
    return artifact_paths(folder, name)


def roll_back(folder: Path, name: str) -> ArtifactPaths:
    """Make `NAME.previous` the champion again; the present champion becomes `NAME.previous`.

    A damaged champion is copied aside (`damaged_copies`), and both are the former one then.

    Raises:
        PromotionError: There is no former champion.
        ArtifactError: It is damaged, or the folder cannot be written.
    """
    finish_exchange(folder, name)
    former = previous_name(name)
    if not artifact_paths(folder, former).metadata.is_file():
        raise PromotionError(
            f"promote.output={name}: {folder} holds no former champion {former!r}, so there is "
            "nothing to go back to"
        )
    return install_champion(folder, name, load_artifact(folder, former))


def damaged_copies(folder: Path, name: str) -> list[Path]:
    """Return the copies of champions `name` that did not load when they were replaced."""
    return sorted(folder.glob(f"{name}.damaged-*"))


def stale_exports(folder: Path, name: str) -> list[Path]:
    """Return exports of the champion and the former one, which no exchange writes anew."""
    names = [each + suffix for each in (name, previous_name(name)) for suffix in EXPORTS]
    return [folder / each for each in names if (folder / each).is_file()]


def finish_exchange(folder: Path, name: str) -> None:
    """Finish what a kill interrupted, so that the files say what was decided last.

    One process at a time: the caller holds a lock.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    try:
        recover(folder, name)
    except OSError as error:
        raise _not_exchanged(folder, name, error) from error


def recover(folder: Path, name: str) -> None:
    """Finish an exchange that was committed, and remove what another left behind.

    Raises:
        OSError: The folder cannot be written.
    """
    staging = exchange_folder(folder, name)
    if not staging.is_dir():
        return
    if (staging / COMMITTED).is_file():
        pairs = [artifact_paths(staging, each) for each in (previous_name(name), name)]
        for path in [path for pair in pairs for path in (pair.pth, pair.metadata)]:
            if path.is_file():  # else it was moved before the kill
                path.replace(folder / path.name)
                _sync(folder)
        (staging / COMMITTED).unlink()
        _sync(staging)
    shutil.rmtree(staging)
    _sync(folder)


def _not_exchanged(folder: Path, name: str, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"{folder}: the champion {name!r} cannot be exchanged ({error.strerror}), the one that "
        "was there is still whole; free space or mend the folder and repeat"
    )


def _former(folder: Path, name: str) -> Artifact | None:
    """Load what is replaced; what does not load is not worth keeping."""
    try:
        return load_artifact(folder, name)
    except ArtifactError:
        return None


def _keep_damaged(folder: Path, name: str) -> None:
    """Copy what is there and does not load: weights beside bad metadata may be all there is."""
    paths = artifact_paths(folder, name)
    number = 1
    while any(folder.glob(f"{name}.damaged-{number}[.-]*")):
        number += 1
    for path in (paths.pth, paths.metadata):
        if path.is_file():
            copy = folder / path.name.replace(name, f"{name}.damaged-{number}", 1)
            shutil.copyfile(path, copy)
            _sync(copy)


def _keep(folder: Path, name: str) -> None:
    """Put the old weights where a reader finds them between the two renames."""
    kept = kept_weights(folder, name)
    kept.write_bytes(artifact_paths(folder, name).pth.read_bytes())
    _sync(kept)


def _commit(staging: Path) -> None:
    _sync(staging)
    marker = staging / COMMITTED
    marker.touch()
    _sync(marker)
    _sync(staging)
    _sync(staging.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
