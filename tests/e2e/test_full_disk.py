"""A disk that is really full: a tiny file system of its own, mounted in a user namespace."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import small_disks
from tests.e2e.workbench import BUDGET, TINY, Workbench, process

NO_SPACE = "No space left on device"
RUN = [*TINY, *BUDGET, "output=run", "tracking.plots=false"]
KILOBYTE = 1024
COMPILE = """
from ppo_workbench.trading.actions import target_rung
print(target_rung(2, 1, 3, 1, 1, False))
"""


@cache
def _why_not() -> str | None:
    """Return why no file system can be mounted here, or None."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    probe = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=4k", "none", "/mnt"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    return tried.stderr.strip() or "mounting failed" if tried.returncode else None


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    reason = _why_not()
    if reason is not None:
        pytest.skip(f"user namespaces are not allowed here: {reason}")


@dataclass(frozen=True)
class Left:
    """What a command on a small disk left, and its home."""

    code: int
    out: str
    err: str
    on_disk: list[str]
    home: Path


def _cases(root: Path, store: Path) -> dict[str, dict[str, Any]]:
    """Return what the tests ask for by name: a disk in a home of its own, and the command."""
    cases = dict[str, dict[str, Any]]()

    def add(name: str, disk: str, size: int, *command: str, **more: Any) -> None:
        home = root / name
        cases[name] = {"home": str(home), "disk": str(home / disk), "size": size, **more}
        cases[name]["command"] = [*RUN, *command] if command else None

    off, kept = "tracking=none", store.stat().st_size
    often = ["checkpoint.every_seconds=0", "budget.timesteps=1024"]
    add("checkpoints", "mlruns/checkpoints", 8 * KILOBYTE, *often, off)
    for size in (4, 20):
        add(f"models of {size} KB", "trained_models", size * KILOBYTE, off)
    record = f"tracking.uri=sqlite:///{root}/record/store/mlflow.db"
    room = kept + 100 * KILOBYTE
    add("record", "store", room, record, "budget.timesteps=20000", store=str(store))
    result = f"result_json={root}/result/results/result.json"
    add("result", "results", 4 * KILOBYTE, off, result)
    for base in ("home", "disk"):
        for freed in (True, False):
            more = {"store": str(store), "freed": freed, "base": base}
            add(f"spool {base} {freed}", "disk", kept + 1000 * KILOBYTE, **more)
    add("kernels", "cache", 64 * KILOBYTE, program=[sys.executable, "-c", COMPILE])
    return cases


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> dict[str, Left]:
    """Run every case, each on its own disk, in one process."""
    root = tmp_path_factory.mktemp("disks")
    cases = _cases(root, empty_store)
    options = process([], root) | {
        "args": ["unshare", "-Urm", sys.executable, small_disks.__file__]
    }
    ran = subprocess.run(
        **options, input=json.dumps(cases), capture_output=True, timeout=400, check=False
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout.splitlines()[-1])
    return {name: Left(**answers[name], home=Path(cases[name]["home"])) for name in cases}


def test_checkpoints_on_a_full_disk_cost_one_line_and_not_the_model(left: dict[str, Left]) -> None:
    full = left["checkpoints"]
    assert full.code == 0, full.err
    assert full.out.count("checkpoint not written") == 1
    assert NO_SPACE in full.out
    assert full.on_disk == []
    assert Workbench(full.home).metadata("run")["status"] == "candidate"


@pytest.mark.parametrize("size", [4, 20])
def test_full_disk_under_the_models_leaves_no_half_artefact_and_the_run_can_go_on(
    size: int, left: dict[str, Left]
) -> None:
    full = left[f"models of {size} KB"]

    if full.code == 0:
        assert sorted(full.on_disk) == ["run-metadata.json", "run.pth"]
        return
    assert full.code == 2, full.err
    assert full.on_disk == []
    assert NO_SPACE in full.err
    assert "resume=run" in full.err
    assert len(full.err.strip().splitlines()) == 1
    if size == 4:
        assert Workbench(full.home).run("resume=run", "tracking=none").code == 0
        assert (full.home / "trained_models" / "run.pth").is_file()


def test_record_on_a_full_disk_costs_one_warning_and_not_the_model(left: dict[str, Left]) -> None:
    full = left["record"]
    assert full.code == 0, full.err
    assert full.err.count("tracking failed and work goes on") == 1
    assert "disk is full" in full.err
    assert "Traceback" not in full.err
    assert Workbench(full.home).metadata("run")["status"] == "candidate"
    (spool,) = (full.home / "mlruns" / "spool").iterdir()
    assert "final_validation/sharpe_annual" in spool.read_text(encoding="utf-8")


@pytest.mark.parametrize("base", ["home", "disk"])
@pytest.mark.parametrize("freed", [True, False])
def test_metrics_that_a_full_disk_refuses_arrive_when_there_is_room_or_are_told(
    base: str, freed: bool, left: dict[str, Left]
) -> None:
    full = left[f"spool {base} {freed}"]
    spool_has_room = base == "home"

    assert full.code == 0, full.err
    assert full.err.count("tracking failed and work goes on") == 1
    spooled = 2000 if spool_has_room else 0
    assert f"SPOOLED {spooled}" in full.out
    if freed:
        assert "ARRIVED 2000" in full.out
        assert "STATUS FINISHED" in full.out
        assert "WAITING 0" in full.out
    else:
        assert ("parts of the record are lost" in full.err) != spool_has_room
        assert "WAITING 1" in full.out or not spool_has_room


def test_kernels_compile_where_their_cache_is_full(left: dict[str, Left]) -> None:
    full = left["kernels"]
    assert (full.code, full.out.strip()) == (0, "2"), full.err


def test_result_file_on_a_full_disk_is_one_sentence_after_the_model(left: dict[str, Left]) -> None:
    full = left["result"]
    assert full.code == 2
    assert "result_json" in full.err
    assert NO_SPACE in full.err
    assert len(full.err.strip().splitlines()) == 1
    assert full.on_disk == []
    assert Workbench(full.home).metadata("run")["status"] == "candidate"
