"""The folders of compiled kernels: one for each state of the sources, old ones removed."""

import gc
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numba.core.errors import NumbaError

from ppo_workbench import jit

DAY = 86_400


def _folder(root: Path, name: str, days: float) -> Path:
    """Make a folder of kernels that was last used some days ago."""
    folder = root / name
    (folder / "module").mkdir(parents=True)
    (folder / "module" / "kernel.nbc").write_bytes(b"machine code")
    then = time.time() - days * DAY
    os.utime(folder, (then, then))
    return folder


def test_remove_unused_keeps_own_recent_and_foreign_folders(tmp_path: Path) -> None:
    own = _folder(tmp_path, "kernels-own", 100)
    kept = [
        own,
        _folder(tmp_path, "kernels-recent", jit.UNUSED_DAYS - 1),
        _folder(tmp_path, f"kernels-own-parts{jit.WITH_PLUGINS}", 0.5),
        _folder(tmp_path, "models", 400),
    ]
    _folder(tmp_path, f"kernels-old-parts{jit.WITH_PLUGINS}", 2)
    _folder(tmp_path, "kernels-old", jit.UNUSED_DAYS + 1)
    _folder(tmp_path, "kernels-older.old-77", 400)  # its process was killed while removing it

    jit._remove_unused(own)

    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert all((folder / "module" / "kernel.nbc").exists() for folder in kept)


def test_remove_unused_beside_a_faster_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = _folder(tmp_path, "kernels-own", 0)
    names = {_folder(tmp_path, f"kernels-{k}", 100).name for k in range(3)}
    rename, refused = Path.rename, list[Path]()

    def race(path: Path, target: Path) -> Path:
        if not refused:
            refused.append(path)
            rename(path, path.with_name("taken-by-another-process"))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", race)
    jit._remove_unused(own)

    assert len(refused) == 1
    assert not names & {path.name for path in tmp_path.iterdir()}


def test_processes_that_start_together_remove_old_folders_and_compile(tmp_path: Path) -> None:
    for k in range(20):
        _folder(tmp_path / "ppo_workbench", f"kernels-{k:016x}", 100)
    code = (
        "from ppo_workbench.trading.actions import target_rung\n"
        "print(target_rung(2, 1, 3, 1, 1, False))"
    )
    environment = os.environ | {"PPO_WORKBENCH_CACHE": str(tmp_path)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [run.communicate(timeout=240)[0].strip() for run in runs] == ["2", "2"]
    (left,) = (tmp_path / "ppo_workbench").iterdir()
    assert left.name == f"kernels-{jit.source_hash()}"
    assert list(left.rglob("*.nbc"))
    assert left.stat().st_mode & 0o777 == 0o700


def _made(values: npt.NDArray[np.float64]) -> float:
    return float(np.empty_like(values).size)


def _part(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values[1:]


@pytest.mark.parametrize("function", [_made, _part])
def test_lean_kernel_that_makes_or_returns_an_array_does_not_compile(function: Any) -> None:
    with pytest.raises(NumbaError):
        jit.lean_kernel(function)(np.zeros(3))


def test_lean_kernel_leaves_the_references_of_its_arguments_alone() -> None:
    @jit.lean_kernel
    def last(values: npt.NDArray[np.float64]) -> float:
        part = values[1:]
        return float(part[-1])

    values = np.arange(3.0)
    before = sys.getrefcount(values)
    assert [last(values) for _ in range(1000)] == [2.0] * 1000
    assert sys.getrefcount(values) == before


def test_borrowed_arrays_are_the_same_memory_and_not_counted() -> None:
    @jit.kernel
    def double(pair: tuple[npt.NDArray[np.float64], tuple[npt.NDArray[np.int64], int]]) -> int:
        values, (counts, more) = jit.borrowed(pair)
        part = values[1:]
        for k in range(part.shape[0]):
            part[k] *= 2.0
        counts[0] += more
        return int(counts[0])

    values, counts = np.arange(3.0), np.zeros(1, np.int64)
    before = sys.getrefcount(values), sys.getrefcount(counts)
    assert [double((values, (counts, 2))) for _ in range(1000)][-1] == 2000
    assert (sys.getrefcount(values), sys.getrefcount(counts)) == before
    assert values.tolist() == [0.0, 2.0**1000, 2.0**1001]


@jit.kernel
def _add_to_kept(amount: float, kept: jit.Kept) -> float:
    numbers, times = kept.value
    numbers[0] += amount * times
    return float(numbers[0])


def test_keep_holds_the_arrays_themselves_as_long_as_it_lives() -> None:
    numbers = np.zeros(1000)
    kept = jit.keep((numbers, 2))
    add = jit.direct(_add_to_kept, 0.0, kept)
    assert add(1.5, kept) == 3.0
    assert numbers[0] == 3.0
    watched = weakref.ref(numbers)
    del numbers
    gc.collect()
    assert watched() is not None
    assert _add_to_kept(1.0, kept) == 5.0
    del kept
    gc.collect()
    assert watched() is None
