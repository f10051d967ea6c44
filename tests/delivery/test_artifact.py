import hashlib
import json
import math
import os
import pickle
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ValidationError

from ppo_workbench.config import ArtifactError
from ppo_workbench.delivery import artifact as artifact_module
from ppo_workbench.delivery import metadata as metadata_module
from ppo_workbench.delivery.artifact import (
    MAX_METADATA_BYTES,
    artifact_paths,
    check_free,
    check_output_name,
    load_artifact,
    load_metadata,
    save_artifact,
)
from ppo_workbench.delivery.metadata import Metadata

DOCS = Path(__file__).parents[2] / "docs" / "artifact.md"


def _fields(**changes: Any) -> dict[str, Any]:
    """The smallest complete metadata of a model with two observed values."""
    stamp = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return {
        "model_type": "maskable_ppo",
        "created_utc": stamp,
        "action_set": "step",
        "action_names": ["SELL", "HOLD", "BUY"],
        "action_target_exposures": [None, None, None],
        "exposure_levels": [-1.0, 0.0, 1.0],
        "rules": [{"code": 0, "name": "halt", "severity": "impossible"}],
        "feature_names": ["return_1", "exposure"],
        "feature_specification": {"clip": 8.0},
        "feature_ranges": {"return_1": (-0.1, 1 / 3)},
        "warmup_bars": 100,
        "observation": {
            "market_names": ["return_1"],
            "account_names": ["exposure"],
            "scaled": True,
        },
        "architecture": {"feature_dim": 2, "net_arch": [64, 64], "activation": "tanh"},
        "normalization": {"means": [0.1, 0.0], "stds": [1.0, 2.0]},
        "config": {"seed": 0, "tracking": {"uri": "${oc.env:MY_URI}"}},
        "seed": 0,
        "data": {
            "source": "synthetic",
            "instrument": "SYN",
            "fingerprint": "f" * 64,
            "calendar": "XNYS",
            "timezone": "America/New_York",
            "bar_seconds": 60,
            "splits": {"train": {"start": stamp, "stop": stamp}},
        },
        "training": {
            "timesteps": 10,
            "episodes": 1,
            "minutes": 0.5,
            "passes": 0.1,
            "select": "best",
            "selected_timesteps": 10,
        },
        "libraries": {"torch": "2.13.0"},
        "cpu": "x86_64",
    } | changes


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "policy.0.weight": torch.randn(4, 2, generator=generator),
        "scaler.mean": torch.tensor([0.1, 0.0], dtype=torch.float64),
        "golden.mask": torch.tensor([True, False]),
    }


def _save(folder: Path, name: str = "model", overwrite: bool = False, **changes: Any) -> None:
    save_artifact(folder, name, _tensors(), Metadata(**_fields(**changes)), overwrite)


def _reseal(folder: Path, **changes: Any) -> None:
    """Forge: write valid hashes over changed fields, as an attacker with the code could."""
    path = artifact_paths(folder, "model").metadata
    path.write_bytes(artifact_module._sealed(json.loads(path.read_bytes()) | changes, "model"))


def test_save_artifact_then_load_returns_the_same(tmp_path: Path) -> None:
    _save(tmp_path / "new" / "folder")
    loaded = load_artifact(tmp_path / "new" / "folder", "model")
    assert {k: v.dtype for k, v in loaded.tensors.items()} == {
        k: v.dtype for k, v in _tensors().items()
    }
    assert all(torch.equal(loaded.tensors[key], value) for key, value in _tensors().items())
    assert loaded.metadata.name == "model"
    assert loaded.metadata.tensors["policy.0.weight"] == [4, 2]
    assert loaded.metadata.feature_ranges == {"return_1": (-0.1, 1 / 3)}
    assert loaded.metadata.config["tracking"] == {"uri": "${oc.env:MY_URI}"}
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "model-metadata.json",
        "model.pth",
    ]


def test_save_artifact_json_has_the_aliases_and_hashes_that_consumers_read(tmp_path: Path) -> None:
    _save(tmp_path)
    paths = artifact_paths(tmp_path, "model")
    text = paths.metadata.read_text()
    document = json.loads(text)
    assert document["architecture"]["feature_dim"] == 2
    assert document["architecture"]["sequence_length"] == document["sequence_length"] == 1
    assert document["normalization"] == {"means": [0.1, 0.0], "stds": [1.0, 2.0]}
    assert document["status"] == "candidate"
    assert document["created_utc"] == "2026-01-02T03:04:05Z"
    assert document["pth_sha256"] == hashlib.sha256(paths.pth.read_bytes()).hexdigest()
    # The recipe of docs/artifact.md, without our code.
    body = re.sub(r',\n  "metadata_sha256": "[0-9a-f]{64}"\n', "\n", text)
    assert document["metadata_sha256"] == hashlib.sha256(body.encode()).hexdigest()


def test_save_artifact_pth_is_plain_tensors_for_torch_alone(tmp_path: Path) -> None:
    _save(tmp_path)
    loaded = torch.load(tmp_path / "model.pth", weights_only=True)
    assert {type(value) for value in loaded.values()} == {torch.Tensor}


def test_save_artifact_views_parameters_and_gradients_are_stored_as_small_plain_tensors(
    tmp_path: Path,
) -> None:
    big = torch.zeros(1_000_000)
    tensors = {"view": big[:3], "weight": torch.nn.Parameter(torch.ones(2))}
    paths = save_artifact(tmp_path, "model", tensors, Metadata(**_fields()))
    assert paths.pth.stat().st_size < 10_000
    assert not load_artifact(tmp_path, "model").tensors["weight"].requires_grad


def test_save_artifact_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        _save(tmp_path / folder)
    for name in ("model.pth", "model-metadata.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["v1", "maskable_v1", "a.b-c_9", "_x", "-x", "x" * 100])
def test_check_output_name_ordinary_names_are_allowed(name: str) -> None:
    assert check_output_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", ".hidden", "a/b", "/a", "a\\b", "../a", "a..b"),
        *("a b", "a\n", "a\0", "ä", "a:b", "a*", "x" * 101),
    ],
)
def test_check_output_name_paths_and_odd_characters_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError):
        check_output_name(name)
    with pytest.raises(ArtifactError):
        _save(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["model.pth", "model-metadata.json"])
def test_save_artifact_taken_name_is_refused_and_kept(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    for attempt in (_save, lambda folder: check_free(folder, "model", overwrite=False)):
        with pytest.raises(ArtifactError, match="overwrite=true"):
            attempt(tmp_path)
    assert (tmp_path / existing).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_save_artifact_name_taken_after_the_check_is_refused_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.pth").write_text("precious")
    monkeypatch.setattr(artifact_module, "_check_not_taken", lambda *_: None)
    with pytest.raises(ArtifactError, match="overwrite=true"):
        _save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
    assert (tmp_path / "model.pth").read_text() == "precious"


def test_check_free_name_that_differs_by_case_alone_is_refused(tmp_path: Path) -> None:
    _save(tmp_path)
    with pytest.raises(ArtifactError, match=r"output=MODEL: .*model\.pth differs by its case"):
        check_free(tmp_path, "MODEL", overwrite=True)


def test_save_artifact_overwrite_replaces_both(tmp_path: Path) -> None:
    _save(tmp_path, seed=1)
    check_free(tmp_path, "model", overwrite=True)
    _save(tmp_path, overwrite=True, seed=2)
    assert load_artifact(tmp_path, "model").metadata.seed == 2


def test_check_free_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="PPO_WORKBENCH_HOME"):
        check_free(tmp_path / "file" / "sub", "model", overwrite=False)
    check_free(tmp_path / "not" / "yet", "model", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("failing_call", "error", "left"),
    [
        (1, OSError(28, "No space left on device"), set()),  # the tensors
        (2, OSError(28, "No space left on device"), set()),  # the metadata
        (2, KeyboardInterrupt(), set()),
        (3, KeyboardInterrupt(), {"model.pth"}),  # the folder, between the two names
    ],
)
def test_save_artifact_disk_error_is_one_sentence_and_leaves_no_valid_half(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing_call: int,
    error: BaseException,
    left: set[str],
) -> None:
    calls = 0
    real = os.fsync

    def fail(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise error
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    expected = ArtifactError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        _save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == left
    with pytest.raises(ArtifactError, match="does not exist"):
        load_artifact(tmp_path, "model")


def test_save_artifact_pth_is_in_place_before_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = artifact_module._rename

    def spy(temporary: Path, path: Path, name: str, overwrite: bool) -> None:
        assert temporary.parent == path.parent
        order.append(path.name)
        real(temporary, path, name, overwrite)

    monkeypatch.setattr(artifact_module, "_rename", spy)
    _save(tmp_path)
    assert order == ["model.pth", "model-metadata.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_save_artifact_diverged_weights_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ArtifactError, match="diverged"):
        save_artifact(tmp_path, "m", {"w": torch.tensor([value])}, Metadata(**_fields()))
    assert list(tmp_path.iterdir()) == []


def test_save_artifact_large_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="keep series and tables out"):
        _save(tmp_path, config={"series": "x" * MAX_METADATA_BYTES})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["model.pth", "model-metadata.json"])
def test_load_artifact_any_tampered_byte_is_refused(tmp_path: Path, file: str) -> None:
    _save(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    step = max(1, len(content) // 150)
    for position in [*range(0, len(content), step), len(content) - 1]:
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            load_artifact(tmp_path, "model")
    for damaged_length in (content[:-1], content + b"\n", b""):
        path.write_bytes(damaged_length)
        with pytest.raises(ArtifactError):
            load_artifact(tmp_path, "model")
    path.write_bytes(content)
    load_artifact(tmp_path, "model")


def test_load_artifact_reindented_json_is_refused(tmp_path: Path) -> None:
    _save(tmp_path)
    path = tmp_path / "model-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(ArtifactError, match="altered"):
        load_artifact(tmp_path, "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, "this version of ppo_workbench reads 2; train it again"),
        ({"format_version": 3}, "format_version 3"),
        ({"format_version": True}, "format_version True"),
        ({"surprise": 1}, "surprise"),
        ({"warmup_bars": -1}, "warmup_bars"),
        ({"name": "other"}, "belongs to the artefact 'other'"),
        ({"feature_names": ["exposure", "return_1"]}, "feature_names must be"),
        ({"action_names": ["BUY", "HOLD", "SELL"]}, "in this order"),
        ({"tensors": {"policy.0.weight": [4, 2]}}, "golden.mask"),
        ({"pth_sha256": "0" * 64}, "its hash does not agree"),
    ],
)
def test_load_artifact_consistently_forged_field_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    _save(tmp_path)
    _reseal(tmp_path, **changes)
    with pytest.raises(ArtifactError, match=re.escape(message)):
        load_artifact(tmp_path, "model")


class _Exploit:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", ["pickle", "torch"])
def test_load_artifact_pickle_with_a_valid_hash_is_refused_and_not_run(
    tmp_path: Path, protocol: str
) -> None:
    _save(tmp_path)
    path, marker = tmp_path / "model.pth", tmp_path / "pwned"
    if protocol == "torch":
        torch.save({"policy.0.weight": _Exploit(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(_Exploit(marker)))
    _reseal(tmp_path, pth_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ArtifactError, match="does not load as a dictionary of tensors"):
        load_artifact(tmp_path, "model")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", [{"w": [1, 2]}, torch.zeros(2), {"w": torch.eye(2).to_sparse()}, {1: torch.ones(1)}]
)
def test_load_artifact_other_objects_with_a_valid_hash_are_refused(
    tmp_path: Path, content: object
) -> None:
    _save(tmp_path)
    path = tmp_path / "model.pth"
    torch.save(content, path)
    _reseal(tmp_path, pth_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ArtifactError, match="something else than named dense tensors"):
        load_artifact(tmp_path, "model")


def test_load_artifact_nan_with_a_valid_hash_is_refused(tmp_path: Path) -> None:
    _save(tmp_path)
    path = tmp_path / "model.pth"
    torch.save({"w": torch.tensor([math.nan])}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _reseal(tmp_path, pth_sha256=digest, tensors={"w": [1]})
    with pytest.raises(ArtifactError, match="NaN or infinite"):
        load_artifact(tmp_path, "model")


@pytest.mark.parametrize("file", ["model.pth", "model-metadata.json"])
def test_load_artifact_symlink_out_of_the_folder_is_refused(tmp_path: Path, file: str) -> None:
    _save(tmp_path / "inside")
    link = tmp_path / "inside" / file
    link.rename(tmp_path / file)
    link.symlink_to(tmp_path / file)
    with pytest.raises(ArtifactError, match="symbolic link"):
        load_artifact(tmp_path / "inside", "model")


def test_load_artifact_folder_that_is_a_symlink_itself_loads(tmp_path: Path) -> None:
    _save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    load_artifact(tmp_path / "link", "model")


@pytest.mark.parametrize("file", ["model.pth", "model-metadata.json"])
def test_load_artifact_missing_or_no_file_is_refused(tmp_path: Path, file: str) -> None:
    _save(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ArtifactError, match="does not exist"):
        load_artifact(tmp_path, "model")
    (tmp_path / file).mkdir()
    with pytest.raises(ArtifactError, match="not a regular file"):
        load_artifact(tmp_path, "model")


def test_load_metadata_alone_needs_no_weights(tmp_path: Path) -> None:
    _save(tmp_path)
    (tmp_path / "model.pth").unlink()
    assert load_metadata(tmp_path, "model").seed == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"created_utc": datetime(2026, 1, 1)},  # no time zone
        {"normalization": {"means": [0.0], "stds": [1.0]}},
        {"normalization": {"means": [0.0, 0.0], "stds": [1.0, 0.0]}},
        {"normalization": {"means": [0.0, math.nan], "stds": [1.0, 1.0]}},
        {"config": {"x": math.nan}},
        {"feature_ranges": {"unknown": (0.0, 1.0)}},
        {"action_target_exposures": [None, None]},
        {"action_target_exposures": [None, None, 0.5]},
        {"action_set": "target", "action_names": ["HOLD", "HOLD", "FLAT"]},
        {"sequence_length": 2},
        {"typo": 1},
    ],
)
def test_metadata_inconsistent_fields_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Metadata(**_fields(**changes))


def test_metadata_target_action_set_names_every_level() -> None:
    metadata = Metadata(
        **_fields(
            action_set="target",
            action_names=["HOLD", "SHORT", "FLAT", "LONG"],
            action_target_exposures=[None, -1.0, 0.0, 1.0],
        )
    )
    assert metadata.action_target_exposures[3] == 1.0


def _models() -> list[type[BaseModel]]:
    return [
        value
        for value in vars(metadata_module).values()
        if isinstance(value, type)
        and issubclass(value, metadata_module._Model)
        and value is not metadata_module._Model
    ]


@pytest.mark.parametrize("model", _models())
def test_metadata_every_field_is_published_in_the_docs(model: type[BaseModel]) -> None:
    section = DOCS.read_text()
    if model is not Metadata:
        heading = f"## {model.__name__}\n"
        assert heading in section
        section = section.split(heading)[1].split("\n## ")[0]
    missing = [name for name in model.model_fields if f"| `{name}` |" not in section]
    assert missing == []


_FRESH = """
import sys, torch
from pathlib import Path
from ppo_workbench.delivery.artifact import load_artifact
print(load_artifact(Path(sys.argv[1]), "model").tensors["policy.0.weight"].double().sum().item())
"""


def test_load_artifact_fresh_process_sees_the_same_weights(tmp_path: Path) -> None:
    _save(tmp_path)
    command = [sys.executable, "-c", _FRESH, str(tmp_path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(printed) == _tensors()["policy.0.weight"].double().sum().item()
