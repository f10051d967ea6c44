"""Which study a folder in sweeps/ belongs to: two storages may hold studies of one name."""

import json
import os
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_workbench.config import ConfigError

if TYPE_CHECKING:
    import optuna

IDENTITY = "identity"  # attribute of the study
FILE = "study.json"
OF_ANY_VERSION = (FILE, "sweep.yaml")  # what a begun sweep leaves in its folder


@dataclass(frozen=True)
class _Owner:
    """The study that a folder belongs to, and the storage it was begun with, to be shown."""

    identity: str
    storage: str


def check_unclaimed(folder: Path, storage: str) -> None:
    """Refuse a folder of another study before one of its name is made anew.

    Args:
        folder: Of the study.
        storage: The present storage without secrets, to be shown.

    Raises:
        ConfigError: A sweep has been begun there.
    """
    if any((folder / name).exists() for name in OF_ANY_VERSION):
        raise _taken(folder, storage, _owner(folder))


def claim_folder(study: "optuna.Study", folder: Path, storage: str) -> None:
    """Give a study its folder, or find that it is its own.

    Under a lock that keeps other processes of the same storage out: each study gets one identity.

    Args:
        study: Opened from `storage`.
        folder: Its folder, which need not exist.
        storage: As for `check_unclaimed`.

    Raises:
        ConfigError: The folder is that of another study.
    """
    if IDENTITY not in study.user_attrs:  # new, or of an earlier version
        if (folder / FILE).exists():
            raise _taken(folder, storage, _owner(folder))
        study.set_user_attr(IDENTITY, uuid.uuid4().hex)
    own = _Owner(study.user_attrs[IDENTITY], storage)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(own)), encoding="utf-8")
    try:
        with suppress(FileExistsError):  # whole or not at all, and of two at once one is first
            os.link(temporary, folder / FILE)
    finally:
        temporary.unlink()
    owner = _owner(folder)
    if owner is not None and owner.identity != own.identity:
        raise _taken(folder, storage, owner)


def check_folder(study: "optuna.Study", folder: Path) -> None:
    """Refuse to read a folder with another study's trials; of earlier versions nothing is known.

    Raises:
        ConfigError: The folder belongs to the study of this name of another storage.
    """
    owner = _owner(folder)
    if owner is not None and owner.identity != study.user_attrs.get(IDENTITY):
        raise ConfigError(
            f"trial.storage: holds another study of this name than the folder {folder} "
            f"(hydra.sweeper.storage={owner.storage}); write trial.storage with that"
        )


def _owner(folder: Path) -> _Owner | None:
    try:
        return _Owner(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{folder / FILE}: cannot be read ({error}); move the folder away or restore the file"
        ) from None


def _taken(folder: Path, storage: str, owner: _Owner | None) -> ConfigError:
    begun = "" if owner is None else f" (begun with hydra.sweeper.storage={owner.storage})"
    return ConfigError(
        f"hydra.sweeper.storage={storage}: the folder {folder} holds another study of this name"
        f"{begun}; choose another hydra.sweeper.study_name, or move that folder away"
    )
