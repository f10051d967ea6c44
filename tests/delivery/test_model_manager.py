import hashlib
import os
import pickle
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.delivery.models import forge, save_model, small_model

from ppo_workbench.config import ArtifactError
from ppo_workbench.delivery import artifact as artifact_module
from ppo_workbench.delivery.artifact import artifact_paths, save_artifact
from ppo_workbench.delivery.golden import Level
from ppo_workbench.delivery.metadata import Status
from ppo_workbench.delivery.model_manager import ModelManager

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def _champion(folder: Path, name: str = "model", **changes: Any) -> None:
    save_model(folder, name, status=Status.champion, **changes)


def _reason(manager: ModelManager, name: str = "model") -> str:
    """Return why the model is broken; loading and activating it say the same."""
    reasons = {broken.name: broken.reason for broken in manager.discover().broken}
    for refused in (manager.load, manager.activate):
        with pytest.raises(ArtifactError) as error:
            refused(name)
        assert str(error.value) == reasons[name]
    assert len(reasons[name].splitlines()) == 1
    return reasons[name]


def test_discover_valid_models_come_with_their_metadata(tmp_path: Path) -> None:
    _champion(tmp_path, "b")
    save_model(tmp_path, "a", seed=7)
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / ".b.pth.x1y2").write_text("half written")

    found = ModelManager(tmp_path).discover()

    assert [(m.name, m.metadata.seed, m.metadata.status.value) for m in found.models] == [
        ("a", 7, "candidate"),
        ("b", 0, "champion"),
    ]
    assert found.broken == ()
    assert found.added == ("a", "b")


def test_discover_new_changed_and_removed_models_are_noticed_on_the_next_call(
    tmp_path: Path,
) -> None:
    manager = ModelManager(str(tmp_path))
    assert manager.discover().models == ()
    _champion(tmp_path, "a")
    _champion(tmp_path, "b")
    assert manager.discover().added == ("a", "b")
    assert manager.discover().added == ()

    artifact_paths(tmp_path, "a").pth.unlink()
    tensors, metadata = small_model()
    save_artifact(tmp_path, "b", tensors, metadata.model_copy(update={"seed": 9}), overwrite=True)
    found = manager.discover()

    assert found.removed == ("a",)
    assert [(m.name, m.metadata.seed) for m in found.models] == [("b", 9)]
    assert found.added == ("b",)
    assert [broken.name for broken in found.broken] == ["a"]


def test_discover_a_hundred_models_loads_no_tensors_and_reads_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _champion(tmp_path, "m0")
    for k in range(1, 100):
        save_model(tmp_path, f"m{k}", seed=k)
    reads: list[Path] = []
    real = artifact_module._read_inside

    def spy(folder: Path, path: Path) -> bytes:
        reads.append(path)
        return real(folder, path)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("tensors were loaded")

    monkeypatch.setattr(artifact_module, "_read_inside", spy)
    monkeypatch.setattr(torch, "load", never)
    manager = ModelManager(tmp_path)

    assert len(manager.discover().models) == 100
    assert len(manager.discover().models) == 100
    assert len(reads) == 200


@pytest.mark.parametrize(
    ("missing", "message"),
    [("model.pth", "model.pth does not exist"), ("model-metadata.json", "does not exist")],
)
def test_discover_half_a_pair_is_broken(tmp_path: Path, missing: str, message: str) -> None:
    _champion(tmp_path)
    (tmp_path / missing).unlink()
    manager = ModelManager(tmp_path)
    assert manager.discover().models == ()
    assert message in _reason(manager)


@pytest.mark.parametrize("file", ["model.pth", "model-metadata.json"])
@pytest.mark.parametrize("damage", ["truncated", "one byte", "empty"])
def test_discover_damaged_file_is_broken(tmp_path: Path, file: str, damage: str) -> None:
    _champion(tmp_path)
    content = bytearray((tmp_path / file).read_bytes())
    if damage == "one byte":
        content[len(content) // 2] ^= 1
    else:
        del content[0 if damage == "empty" else len(content) // 2 :]
    (tmp_path / file).write_bytes(content)
    assert "copy both files" in _reason(ModelManager(tmp_path))


def test_discover_pth_of_another_model_is_broken(tmp_path: Path) -> None:
    _champion(tmp_path, "model")
    tensors = dict(small_model()[0])
    tensors["policy.action_net.bias"] = tensors["policy.action_net.bias"] + 1
    (tmp_path / "other").mkdir()
    torch.save(tensors, tmp_path / "model.pth")
    assert "belongs to another metadata file" in _reason(ModelManager(tmp_path))


def test_discover_two_models_of_one_name_are_both_broken(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        _champion(tmp_path / folder)
    _champion(tmp_path / "b", "single")
    manager = ModelManager(tmp_path / "a", tmp_path / "b")
    assert [model.name for model in manager.discover().models] == ["single"]
    assert "is there twice" in _reason(manager)


def test_discover_names_that_differ_by_case_are_both_broken(tmp_path: Path) -> None:
    _champion(tmp_path, "model")
    _champion(tmp_path, "Model")
    manager = ModelManager(tmp_path)
    assert manager.discover().models == ()
    assert "is there twice" in _reason(manager, "Model")


@pytest.mark.parametrize("file", ["model.pth", "model-metadata.json"])
def test_discover_symbolic_link_out_of_the_folder_is_broken(tmp_path: Path, file: str) -> None:
    _champion(tmp_path / "models")
    (tmp_path / "models" / file).rename(tmp_path / file)
    (tmp_path / "models" / file).symlink_to(tmp_path / file)
    assert "symbolic link out of" in _reason(ModelManager(tmp_path / "models"))


def test_discover_odd_file_names_and_folders_are_broken(tmp_path: Path) -> None:
    (tmp_path / "my model.pth").write_bytes(b"")
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "pipe-metadata.json")  # reading it would wait for ever
    (tmp_path / "pipe.pth").write_bytes(b"")
    found = ModelManager(tmp_path).discover()
    assert [broken.name for broken in found.broken] == ["folder", "my model", "pipe"]


@pytest.mark.parametrize("name", ["../model", "/etc/passwd", "sub/model", "", "model.pth", "\0"])
def test_load_path_or_unknown_name_is_refused(tmp_path: Path, name: str) -> None:
    _champion(tmp_path)
    _champion(tmp_path / "sub")
    with pytest.raises(ArtifactError, match=r"is not in .*there are: model"):
        ModelManager(tmp_path).load(name)


def test_discover_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be looked for"):
        ModelManager(tmp_path / "absent").discover()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, "format_version 1"),
        ({"surprise": 1}, "surprise"),
        ({"action_names": ["BUY", "HOLD", "SELL"]}, "in this order"),
    ],
)
def test_discover_forged_metadata_are_broken(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    _champion(tmp_path)
    forge(tmp_path, **changes)
    assert message in _reason(ModelManager(tmp_path))


def test_activate_forged_feature_name_or_rule_is_refused(tmp_path: Path) -> None:
    _champion(tmp_path)
    document = small_model()[1].model_dump(mode="json")
    names = ["return_5" if name == "return_1" else name for name in document["feature_names"]]
    observation = document["observation"] | {"market_names": names[:3]}
    forge(tmp_path, feature_names=names, observation=observation, feature_ranges={})
    with pytest.raises(ArtifactError, match="its feature settings make"):
        ModelManager(tmp_path).activate("model", level=Level.step)


def test_activate_champion_returns_it_verified(tmp_path: Path) -> None:
    _champion(tmp_path)
    for level in (None, *Level):
        artifact = ModelManager(tmp_path).activate("model", level=level)
        assert artifact.metadata.action_names == ["SELL", "HOLD", "BUY"]


@pytest.mark.parametrize("status", [Status.candidate, Status.previous, Status.challenger])
def test_activate_other_status_is_refused_unless_told(tmp_path: Path, status: Status) -> None:
    save_model(tmp_path, status=status)
    manager = ModelManager(tmp_path)
    with pytest.raises(ArtifactError, match=f"is a {status.value}"):
        manager.activate("model")
    assert manager.activate("model", any_status=True).metadata.status is status


def test_activate_expired_model_is_refused_and_still_loads(tmp_path: Path) -> None:
    _champion(tmp_path, expires_at=NOON)
    manager = ModelManager(tmp_path)
    manager.activate("model", now=NOON - timedelta(seconds=1))
    for now in (NOON, None if datetime.now(UTC) > NOON else NOON):
        with pytest.raises(ArtifactError, match="expired at 2026-01-02 12:00"):
            manager.activate("model", any_status=True, now=now)
    manager.load("model")


def test_activate_model_without_golden_vectors_is_refused_and_still_loads(tmp_path: Path) -> None:
    tensors, metadata = small_model()
    old = {name: x for name, x in tensors.items() if not name.startswith("golden.")}
    save_artifact(tmp_path, "old", old, metadata.model_copy(update={"status": Status.champion}))
    manager = ModelManager(tmp_path)
    manager.load("old")
    with pytest.raises(ArtifactError, match="has no golden vectors"):
        manager.activate("old")


class _Exploit:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_activate_pickle_with_valid_hashes_is_refused_and_not_run(tmp_path: Path) -> None:
    _champion(tmp_path / "models")
    path, marker = tmp_path / "models" / "model.pth", tmp_path / "pwned"
    path.write_bytes(pickle.dumps(_Exploit(marker)))
    forge(tmp_path / "models", pth_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    manager = ModelManager(tmp_path / "models")
    assert [model.name for model in manager.discover().models] == ["model"]
    with pytest.raises(ArtifactError, match="does not load as a dictionary of tensors"):
        manager.activate("model")
    assert not marker.exists()


def test_activate_model_exchanged_after_it_was_found_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _champion(tmp_path / "a")
    _champion(tmp_path / "b", seed=5)
    real = ModelManager._find

    def exchange(self: ModelManager, name: str) -> Any:
        found = real(self, name)
        shutil.copytree(tmp_path / "b", tmp_path / "a", dirs_exist_ok=True)
        return found

    monkeypatch.setattr(ModelManager, "_find", exchange)
    with pytest.raises(ArtifactError, match="exchanged while it was loaded"):
        ModelManager(tmp_path / "a").activate("model")
