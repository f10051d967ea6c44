"""The exchange of champions: whole at every moment, killed wherever it may be."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.delivery.test_artifact import _fields

from ppo_workbench.config import ArtifactError, PromotionError
from ppo_workbench.delivery.artifact import (
    Artifact,
    artifact_paths,
    exchange_folder,
    load_artifact,
    save_artifact,
)
from ppo_workbench.delivery.champions import (
    damaged_copies,
    install_champion,
    previous_name,
    recover,
    reigning_champion,
    roll_back,
)
from ppo_workbench.delivery.metadata import Metadata, Status

NAME = "final"
STEPS = ("replace", "rename", "fsync", "unlink", "rmdir", "link", "open", "mkdir")


class _Killed(BaseException):
    """Ends the process as SIGKILL would: nothing that follows reaches the disk."""


def _artifact(value: float) -> Artifact:
    tensors = {"policy.0.weight": torch.full((4, 2), value)}
    return Artifact(tensors, Metadata(**_fields()))


def _value(folder: Path, name: str = NAME) -> float:
    return float(load_artifact(folder, name).tensors["policy.0.weight"][0, 0])


def _two_champions(folder: Path) -> None:
    install_champion(folder, NAME, _artifact(1.0))
    install_champion(folder, NAME, _artifact(2.0))


@contextmanager
def _killed_at(step: int) -> Iterator[list[str]]:
    """Kill before the call number `step` that changes the disk, and all calls after it."""
    calls: list[str] = []

    def deadly(name: str) -> Any:
        original = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) > step:
                raise _Killed
            return original(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, deadly(name))
        with suppress(_Killed):
            yield calls


def test_first_champion_is_installed_without_a_previous_one(tmp_path: Path) -> None:
    install_champion(tmp_path, NAME, _artifact(1.0))

    metadata = reigning_champion(tmp_path, NAME)
    assert metadata is not None
    assert metadata.status is Status.champion
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{NAME}-metadata.json",
        f"{NAME}.pth",
    ]


def test_second_champion_keeps_the_first_as_previous(tmp_path: Path) -> None:
    _two_champions(tmp_path)

    former = load_artifact(tmp_path, previous_name(NAME))
    assert (_value(tmp_path), _value(tmp_path, previous_name(NAME))) == (2.0, 1.0)
    assert former.metadata.status is Status.previous
    assert len(list(tmp_path.iterdir())) == 4


def test_roll_back_swaps_both_and_again_swaps_back(tmp_path: Path) -> None:
    _two_champions(tmp_path)

    roll_back(tmp_path, NAME)
    assert (_value(tmp_path), _value(tmp_path, previous_name(NAME))) == (1.0, 2.0)
    metadata = reigning_champion(tmp_path, NAME)
    assert metadata is not None
    roll_back(tmp_path, NAME)
    assert (_value(tmp_path), _value(tmp_path, previous_name(NAME))) == (2.0, 1.0)


def test_roll_back_replaces_a_damaged_champion_and_keeps_a_copy(tmp_path: Path) -> None:
    _two_champions(tmp_path)
    paths = artifact_paths(tmp_path, NAME)
    metadata = paths.metadata.read_bytes()
    for number in (1, 2):
        damaged = f"damaged {number}".encode()
        paths.pth.write_bytes(damaged)

        roll_back(tmp_path, NAME)

        assert (_value(tmp_path), _value(tmp_path, previous_name(NAME))) == (1.0, 1.0)
        assert (tmp_path / f"{NAME}.damaged-{number}.pth").read_bytes() == damaged
    assert (tmp_path / f"{NAME}.damaged-1-metadata.json").read_bytes() == metadata
    assert len(damaged_copies(tmp_path, NAME)) == 4


def test_roll_back_without_a_former_champion_is_refused(tmp_path: Path) -> None:
    install_champion(tmp_path, NAME, _artifact(1.0))

    with pytest.raises(PromotionError, match="nothing to go back to"):
        roll_back(tmp_path, NAME)
    assert _value(tmp_path) == 1.0


def test_model_of_the_name_that_is_no_champion_is_refused(tmp_path: Path) -> None:
    save_artifact(tmp_path, NAME, _artifact(1.0).tensors, Metadata(**_fields()))

    with pytest.raises(ArtifactError, match=r"candidate.*overwrite=true"):
        reigning_champion(tmp_path, NAME)
    assert reigning_champion(tmp_path, "other") is None


def test_model_that_does_not_verify_changes_nothing(tmp_path: Path) -> None:
    install_champion(tmp_path, NAME, _artifact(1.0))

    with pytest.raises(ArtifactError, match="NaN"):
        install_champion(tmp_path, NAME, _artifact(float("nan")))

    assert _value(tmp_path) == 1.0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("act", ["install", "roll_back"])
def test_killed_at_any_step_a_reader_finds_the_old_or_the_new_champion(
    tmp_path: Path, act: str
) -> None:
    outcomes, step, done = [], 0, False
    _two_champions(tmp_path / "before")
    while not done:
        folder = tmp_path / str(step)
        shutil.copytree(tmp_path / "before", folder)
        new = 3.0 if act == "install" else 1.0
        with _killed_at(step) as calls:
            if act == "install":
                install_champion(folder, NAME, _artifact(3.0))
            else:
                roll_back(folder, NAME)
        done = len(calls) <= step
        assert _value(folder) in (2.0, new)  # before anything is recovered
        metadata = reigning_champion(folder, NAME)
        assert metadata is not None

        recover(folder, NAME)

        outcomes.append(_value(folder))
        assert _value(folder, previous_name(NAME)) == (1.0 if outcomes[-1] == 2.0 else 2.0)
        assert len(list(folder.iterdir())) == 4
        step += 1
    changed = outcomes.index(new)
    assert set(outcomes[:changed]) == {2.0}
    assert set(outcomes[changed:]) == {new}  # once committed it is always finished
    assert 0 < changed < len(outcomes) - 4


def test_recovery_killed_at_any_step_is_finished_by_the_next(tmp_path: Path) -> None:
    _two_champions(tmp_path / "before")
    first_rename = _first_rename(tmp_path / "probe")
    for step in range(40):
        folder = tmp_path / str(step)
        shutil.copytree(tmp_path / "before", folder)
        with _killed_at(first_rename):
            install_champion(folder, NAME, _artifact(3.0))
        with _killed_at(step) as calls:
            recover(folder, NAME)
        assert _value(folder) in (2.0, 3.0)
        recover(folder, NAME)
        assert (_value(folder), _value(folder, previous_name(NAME))) == (3.0, 2.0)
        assert not exchange_folder(folder, NAME).exists()
        if len(calls) <= step:
            return
    pytest.fail("the recovery has more steps than were tried")


def _first_rename(folder: Path) -> int:
    """Return the number of the first call after the commit."""
    _two_champions(folder)
    with _killed_at(10_000) as calls:
        install_champion(folder, NAME, _artifact(3.0))
    # The last renames are those of the four files; those of `save_artifact` come before.
    return [i for i, name in enumerate(calls) if name in ("replace", "rename")][-4] + 1
