"""Save, load and verify a model: `NAME.pth` (tensors only) and `NAME-metadata.json`.

Two files cannot be renamed at once, so the `.pth` is put in place first and the JSON,
which names its hash, last: a pair without a valid JSON does not exist for a reader.
Nothing is ever unpickled: `torch.load(weights_only=True)` on bytes whose hash was checked.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from pydantic import ValidationError

from ppo_workbench.config import ArtifactError, DivergedError
from ppo_workbench.config.files import written_beside
from ppo_workbench.delivery.golden import Level, find_golden, replay_network
from ppo_workbench.delivery.metadata import FORMAT_VERSION, Metadata

MAX_NAME_LENGTH = 100
MAX_METADATA_BYTES = 1_000_000

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
PTH_SUFFIX, METADATA_SUFFIX = ".pth", "-metadata.json"
_HASH_FIELD = "metadata_sha256"
_SEAL = re.compile(rb',\n  "metadata_sha256": "([0-9a-f]{64})"\n}\n')


@dataclass(frozen=True)
class ArtifactPaths:
    """Where the two files of one artefact are."""

    pth: Path
    metadata: Path


@dataclass(frozen=True)
class Artifact:
    """A loaded and verified model: dense, finite CPU tensors and their metadata."""

    tensors: dict[str, torch.Tensor]
    metadata: Metadata


def check_output_name(name: str, key: str = "output") -> str:
    """Return `name` if it can be an artefact's name.

    Args:
        name: As given.
        key: The setting that gave it, for the sentence.

    Raises:
        ArtifactError: The name is empty, too long, holds a path or other characters than
            letters, digits, `.`, `_` and `-`, or starts with a dot.
    """
    if len(name) > MAX_NAME_LENGTH:
        raise ArtifactError(
            f"{key}={name[:20]}...: a name has at most {MAX_NAME_LENGTH} characters, "
            f"this one has {len(name)}; shorten it"
        )
    if not _NAME.fullmatch(name) or ".." in name:
        raise ArtifactError(
            f"{key}={name!r}: a name consists of letters, digits, '.', '_' and '-', without "
            f"a path, a leading dot or '..'; for example {key}=maskable_v1"
        )
    return name


def artifact_paths(folder: Path, name: str) -> ArtifactPaths:
    """Return the paths of the artefact `name` in `folder`, whether it exists or not."""
    check_output_name(name)
    return ArtifactPaths(folder / f"{name}{PTH_SUFFIX}", folder / f"{name}{METADATA_SUFFIX}")


def exchange_folder(folder: Path, name: str) -> Path:
    """Return the hidden folder in which an exchange of the champion `name` is prepared."""
    check_output_name(name)
    return folder / f".{name}.promotion"


def kept_weights(folder: Path, name: str) -> Path:
    """Return where the old weights are while the champion `name` is exchanged."""
    return exchange_folder(folder, name) / "kept.pth"


def check_free(folder: Path, name: str, overwrite: bool) -> ArtifactPaths:
    """Refuse, before any work is done, a name that is taken or a folder that is not writable.

    Raises:
        ArtifactError: Either of it, a name that differs from a model's by case alone, or one
            that `check_output_name` refuses.
    """
    paths = artifact_paths(folder, name)
    _check_not_taken(paths, name, overwrite)
    _check_case(folder, name)
    check_writable(folder)
    return paths


def _check_case(folder: Path, name: str) -> None:
    """Refuse a name that another model has but for its case: some disks hold one of the two."""
    known = {path.stem for path in folder.glob("*.pth")}
    for other in sorted(known - {name}):
        if other.casefold() == name.casefold():
            raise ArtifactError(
                f"output={name}: {folder / other}.pth differs by its case alone, and some disks "
                "and every application would take one for the other; choose another output"
            )


def check_writable(folder: Path) -> None:
    """Refuse a folder, there or to be made, in which no file can be made.

    Raises:
        ArtifactError: It is such a folder.
    """
    ancestor = folder.absolute()
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    try:
        with tempfile.TemporaryFile(dir=ancestor):
            pass
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot be written ({error.strerror}); mend its permissions or set "
            "PPO_WORKBENCH_HOME to a folder that can"
        ) from None


def save_artifact(
    folder: Path,
    name: str,
    tensors: Mapping[str, torch.Tensor],
    metadata: Metadata,
    overwrite: bool = False,
) -> ArtifactPaths:
    """Write the pair atomically and durably, `.pth` first.

    Args:
        folder: Created if absent.
        name: See `check_output_name`.
        tensors: Weights, scaler and, under names that start with `golden.`, the golden
            vectors; any float, integer or bool type, all values finite.
        metadata: Its `name`, `tensors` and hashes are filled in here.
        overwrite: Replace an existing artefact of this name.

    Raises:
        ArtifactError: The name is not allowed or taken, a tensor is not finite, the metadata
            is too large or not finite, or the folder cannot be written.
    """
    paths = artifact_paths(folder, name)
    _check_not_taken(paths, name, overwrite)
    plain = {key: _plain(key, tensor) for key, tensor in tensors.items()}
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    weights = buffer.getvalue()
    document = metadata.model_dump(mode="json") | {
        "name": name,
        "tensors": {key: list(tensor.shape) for key, tensor in plain.items()},
        "pth_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = _sealed(document, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            written_beside(paths.pth, weights) as pth,
            written_beside(paths.metadata, text) as sidecar,
        ):
            # Both are on the disk: from here on it cannot be too full for one of the two.
            _rename(pth, paths.pth, name, overwrite)
            _sync_folder(folder)
            _rename(sidecar, paths.metadata, name, overwrite=True)
        _sync_folder(folder)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: the artefact {name!r} cannot be written ({error.strerror}); free space "
            "or set PPO_WORKBENCH_HOME to a folder that can be written"
        ) from error
    return paths


def load_metadata(folder: Path, name: str) -> Metadata:
    """Read and verify `NAME-metadata.json` alone: format version, own hash, schema and name.

    Raises:
        ArtifactError: The file is missing, damaged, of another format or another artefact's.
    """
    path = artifact_paths(folder, name).metadata
    content = _read_inside(folder, path)
    if len(content) > MAX_METADATA_BYTES:
        _refuse(path, f"is larger than {MAX_METADATA_BYTES} bytes, so it is no model's metadata")
    document = _parse(path, content)
    _check_version(path, document.get("format_version"))
    if not _is_sealed(content):
        _refuse(path, "was altered after it was saved: its own hash does not agree")
    try:
        metadata = Metadata.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        _refuse(path, f"breaks the published schema at {key or 'its fields'}: {first['msg']}")
    if metadata.name != name:
        _refuse(path, f"belongs to the artefact {metadata.name!r}, not to {name!r}")
    return metadata


def check_pair(folder: Path, name: str) -> Metadata:
    """Read and verify the metadata and the hash of the `.pth`, without loading the tensors.

    Raises:
        ArtifactError: As `load_metadata`, or the `.pth` is missing, damaged or another one's.
    """
    return _read_pair(folder, name)[0]


def load_artifact(folder: Path, name: str) -> Artifact:
    """Load the artefact `name` from `folder` and verify everything that needs no kernels.

    Golden vectors are replayed through the network (`Level.network`).  A model that was saved
    without them loads, for research; `verify` and an activation refuse it.

    Raises:
        ArtifactError: A file is missing, lies outside the folder behind a symbolic link, or
            was altered; the format, the schema, the tensors' names, shapes or values are
            not what the metadata say; the network decides otherwise than where it was saved.
    """
    metadata, path, weights = _read_pair(folder, name)
    try:
        # The hash says who wrote the bytes, weights_only that they can be nothing but tensors.
        loaded = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    except Exception:
        _refuse(path, "does not load as a dictionary of tensors")
    tensors = _checked_tensors(path, loaded, metadata)
    golden = find_golden(tensors)
    if golden is not None:
        replay_network(metadata, tensors, golden)
    return Artifact(tensors, metadata)


def verify(artifact: Artifact, level: Level = Level.step) -> None:
    """Replay a model's golden vectors: here it decides as where it was saved.

    Args:
        artifact: A loaded model; `load_artifact` has replayed the network already.
        level: `network` takes a millisecond.  `step` makes features, observations and masks
            again from the stored bars; where no compiled kernels are cached it compiles them,
            as the first decision would.

    Raises:
        ArtifactError: It decides otherwise, its metadata contradict themselves, or it was
            saved without golden vectors.
    """
    metadata, golden = artifact.metadata, find_golden(artifact.tensors)
    if golden is None:
        raise ArtifactError(
            f"model {metadata.name!r} has no golden vectors, because an earlier version saved it "
            "or its actions are nearly tied; train it anew"
        )
    replay_network(metadata, artifact.tensors, golden)
    if level is Level.step:
        from ppo_workbench.delivery.golden_bars import replay_step

        replay_step(metadata, artifact.tensors, golden)


def _read_pair(folder: Path, name: str) -> tuple[Metadata, Path, bytes]:
    """Return metadata, path and content of the `.pth`, whose hash agrees."""
    metadata = load_metadata(folder, name)
    path = artifact_paths(folder, name).pth
    weights = _read_inside(folder, path)
    if not _is_of(weights, metadata) and kept_weights(folder, name).is_file():
        # A champion is being exchanged: the weights are renamed before the JSON that names them.
        weights = _read_inside(folder, kept_weights(folder, name))
    if not _is_of(weights, metadata):
        _refuse(path, "was altered or belongs to another metadata file: its hash does not agree")
    return metadata, path, weights


def _check_not_taken(paths: ArtifactPaths, name: str, overwrite: bool) -> None:
    taken = [path for path in (paths.pth, paths.metadata) if os.path.lexists(path)]
    if taken and not overwrite:
        _taken(taken[0], name)


def _taken(path: Path, name: str) -> NoReturn:
    raise ArtifactError(
        f"output={name}: {path} exists; choose another output or set overwrite=true"
    ) from None


def _is_of(weights: bytes, metadata: Metadata) -> bool:
    return hashlib.sha256(weights).hexdigest() == metadata.pth_sha256


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ArtifactError(
        f"{path} {reason}; copy both files of the artefact again or train it anew"
    ) from None


def _plain(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Copy to a dense CPU tensor that owns exactly its own storage."""
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        raise ArtifactError(f"tensor {key!r} is not a dense tensor; an artefact holds no others")
    plain = tensor.detach().cpu().contiguous().clone()
    if not bool(torch.isfinite(plain).all()):
        raise DivergedError(
            f"tensor {key!r} holds NaN or infinite values, so the training diverged; lower "
            "model.learning_rate or the reward's weights and train again"
        )
    return plain


def _dump(document: Mapping[str, object], name: str) -> bytes:
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()
    except (ValueError, TypeError, UnicodeEncodeError) as error:
        raise ArtifactError(f"metadata of {name!r} cannot be written as JSON: {error}") from None


def _sealed(document: Mapping[str, object], name: str) -> bytes:
    """Serialise with the hash of the same bytes without the hash's line as last field."""
    body = {key: value for key, value in document.items() if key != _HASH_FIELD}
    digest = hashlib.sha256(_dump(body, name)).hexdigest()
    content = _dump(body | {_HASH_FIELD: digest}, name)
    if len(content) > MAX_METADATA_BYTES:
        raise ArtifactError(
            f"metadata of {name!r} has {len(content)} bytes, at most {MAX_METADATA_BYTES} are "
            "allowed; keep series and tables out of it"
        )
    return content


def _is_sealed(content: bytes) -> bool:
    """Tell whether the last field is the hash of the rest (the recipe of docs/artifact.md)."""
    seal = _SEAL.search(content, max(0, len(content) - 100))
    if seal is None or seal.end() != len(content):
        return False
    body = content[: seal.start()] + b"\n}\n"
    return hashlib.sha256(body).hexdigest().encode() == seal[1]


def _rename(temporary: Path, path: Path, name: str, overwrite: bool) -> None:
    if not overwrite:
        # A hard link, unlike a rename, fails if another process took the name meanwhile.
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            _taken(path, name)
        except OSError:
            pass  # a file system without hard links
        else:
            return
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot sync a folder; the files themselves are synced.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_inside(folder: Path, path: Path) -> bytes:
    try:
        resolved = path.resolve(strict=True)
        if not resolved.is_relative_to(folder.resolve()):
            _refuse(path, f"is a symbolic link out of {folder}")
        if not resolved.is_file():
            _refuse(path, "is not a regular file")
        return resolved.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} does not exist; an artefact is the pair NAME.pth and NAME-metadata.json"
        ) from None
    except (OSError, RuntimeError) as error:
        _refuse(path, f"cannot be read ({error})")


def _parse(path: Path, content: bytes) -> dict[str, object]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        _refuse(path, "is not JSON")
    if not isinstance(document, dict):
        _refuse(path, "is not a JSON object")
    return document


def _check_version(path: Path, version: object) -> None:
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise ArtifactError(
            f"{path} has format_version {version!r}, this version of ppo_workbench reads "
            f"{FORMAT_VERSION}; train it again"
        )


def _checked_tensors(path: Path, loaded: object, metadata: Metadata) -> dict[str, torch.Tensor]:
    """Compare names, shapes, kinds and values with the metadata."""
    if not isinstance(loaded, dict) or any(
        not isinstance(key, str)
        or type(value) is not torch.Tensor
        or value.layout is not torch.strided
        for key, value in loaded.items()
    ):
        _refuse(path, "holds something else than named dense tensors")
    shapes = {key: list(tensor.shape) for key, tensor in loaded.items()}
    if shapes != metadata.tensors:
        wrong = sorted(
            key
            for key in shapes.keys() | metadata.tensors.keys()
            if shapes.get(key) != metadata.tensors.get(key)
        )
        _refuse(path, f"lacks, adds or reshapes the tensors {wrong}")
    for key, tensor in loaded.items():
        if not bool(torch.isfinite(tensor).all()):
            _refuse(path, f"holds NaN or infinite values in tensor {key!r}")
    return loaded
