"""A disk that is really full: a tiny file system of its own, mounted in a user namespace."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from tests.e2e.workbench import BUDGET, TINY, Workbench, process

NO_SPACE = "No space left on device"
RUN = [*TINY, *BUDGET, "output=run", "tracking.plots=false"]
KILOBYTE = 1024
# What a command leaves on the small disk is listed before the disk is gone.
SCRIPT = """
disk=$1; size=$2; shift 2
mkdir -p "$disk" && mount -t tmpfs -o size=$size none "$disk" || exit 99
"$@"; code=$?
echo ON THE DISK; find "$disk" -type f
exit $code
"""
DELIVER_LATER = """
import os, sys
from pathlib import Path
from ppo_workbench.config import TrackingConfig
from ppo_workbench.records.tracking import open_tracker

disk, store, home = map(Path, sys.argv[1:])
database = disk / "mlflow.db"
database.write_bytes(store.read_bytes())
config = TrackingConfig(uri=f"sqlite:///{database}")
with open_tracker(config, home, "run") as tracker:
    ballast = (disk / "ballast").open("wb", buffering=0)
    try:
        while ballast.write(bytes(4096)):
            pass
    except OSError:
        ballast.close()
    for step in range(2000):
        tracker.log_metrics({"a": float(step)}, step)
    tracker.flush()
    spooled = list(home.rglob("*.jsonl"))
    print("SPOOLED", sum(len(path.read_text().splitlines()) for path in spooled))
    if sys.stdin.read() == "free":
        (disk / "ballast").unlink()
client = tracker._client
print("ARRIVED", len(client.get_metric_history(tracker.run_id, "a")))
print("STATUS", client.get_run(tracker.run_id).info.status)
print("WAITING", len(list(home.rglob("*.jsonl"))))
"""


@cache
def _why_not() -> str | None:
    """Return why no file system can be mounted here, or None."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    probe = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=4k", "none", "/mnt"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    return tried.stderr.strip() or "mounting failed" if tried.returncode else None


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    reason = _why_not()
    if reason is not None:
        pytest.skip(f"user namespaces are not allowed here: {reason}")


@dataclass(frozen=True)
class Left:
    """What a command on a small disk left."""

    code: int
    out: str
    err: str
    on_disk: list[str]


def _with_small_disk(
    disk: Path, size: int, command: list[str], home: Path, answer: str = ""
) -> Left:
    """Run a command while `disk` is a file system of `size` bytes."""
    options = process([], home)
    options["args"] = ["unshare", "-Urm", "sh", "-c", SCRIPT, "sh", str(disk), str(size), *command]
    ran = subprocess.run(**options, input=answer, capture_output=True, timeout=400, check=False)
    out, _, files = ran.stdout.partition("ON THE DISK\n")
    return Left(ran.returncode, out, ran.stderr, [Path(x).name for x in files.splitlines()])


def _workbench(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ppo_workbench", *RUN, *arguments]


def test_checkpoints_on_a_full_disk_cost_one_line_and_not_the_model(tmp_path: Path) -> None:
    disk = tmp_path / "mlruns" / "checkpoints"
    often = ["checkpoint.every_seconds=0", "budget.timesteps=1024", "tracking=none"]

    left = _with_small_disk(disk, 8 * KILOBYTE, _workbench(*often), tmp_path)

    assert left.code == 0, left.err
    assert left.out.count("checkpoint not written") == 1
    assert NO_SPACE in left.out
    assert left.on_disk == []
    assert Workbench(tmp_path).metadata("run")["status"] == "candidate"


@pytest.mark.parametrize("size", [4, 20])
def test_full_disk_under_the_models_leaves_no_half_artefact_and_the_run_can_go_on(
    size: int, tmp_path: Path
) -> None:
    disk = tmp_path / "trained_models"

    left = _with_small_disk(disk, size * KILOBYTE, _workbench("tracking=none"), tmp_path)

    if left.code == 0:
        assert sorted(left.on_disk) == ["run-metadata.json", "run.pth"]
        return
    assert left.code == 2, left.err
    assert left.on_disk == []
    assert NO_SPACE in left.err
    assert "resume=run" in left.err
    assert len(left.err.strip().splitlines()) == 1
    if size == 4:
        assert Workbench(tmp_path).run("resume=run", "tracking=none").code == 0
        assert (disk / "run.pth").is_file()


def test_record_on_a_full_disk_costs_one_warning_and_not_the_model(
    tmp_path: Path, empty_store: Path
) -> None:
    disk, room = tmp_path / "store", empty_store.stat().st_size + 100 * KILOBYTE
    copy = f'cp {empty_store} {disk}/mlflow.db && exec "$@"'
    train = _workbench(f"tracking.uri=sqlite:///{disk}/mlflow.db", "budget.timesteps=20000")

    left = _with_small_disk(disk, room, ["sh", "-c", copy, "sh", *train], tmp_path)

    assert left.code == 0, left.err
    assert left.err.count("tracking failed and work goes on") == 1
    assert "disk is full" in left.err
    assert "Traceback" not in left.err
    assert Workbench(tmp_path).metadata("run")["status"] == "candidate"
    (spool,) = (tmp_path / "mlruns" / "spool").iterdir()
    assert "final_validation/sharpe_annual" in spool.read_text(encoding="utf-8")


@pytest.mark.parametrize("spool_has_room", [True, False])
@pytest.mark.parametrize("freed", [True, False])
def test_metrics_that_a_full_disk_refuses_arrive_when_there_is_room_or_are_told(
    spool_has_room: bool, freed: bool, tmp_path: Path, empty_store: Path
) -> None:
    disk, home = tmp_path / "disk", tmp_path / "home"
    home.mkdir()
    base = home if spool_has_room else disk
    size = empty_store.stat().st_size + 1000 * KILOBYTE
    script = [sys.executable, "-c", DELIVER_LATER, str(disk), str(empty_store), str(base)]

    left = _with_small_disk(disk, size, script, home, "free" if freed else "")

    assert left.code == 0, left.err
    assert left.err.count("tracking failed and work goes on") == 1
    spooled = 2000 if spool_has_room else 0
    assert f"SPOOLED {spooled}" in left.out
    if freed:
        assert "ARRIVED 2000" in left.out
        assert "STATUS FINISHED" in left.out
        assert "WAITING 0" in left.out
    else:
        assert ("metric values are lost" in left.err) != spool_has_room
        assert "WAITING 1" in left.out or not spool_has_room


def test_kernels_compile_where_their_cache_is_full(tmp_path: Path) -> None:
    code = (
        "from ppo_workbench.trading.actions import target_rung\n"
        "print(target_rung(2, 1, 3, 1, 1, False))"
    )
    disk = tmp_path / "cache"
    command = ["env", f"PPO_WORKBENCH_CACHE={disk}", sys.executable, "-c", code]
    left = _with_small_disk(disk, 64 * KILOBYTE, command, tmp_path)
    assert (left.code, left.out.strip()) == (0, "2"), left.err


def test_result_file_on_a_full_disk_is_one_sentence_after_the_model(tmp_path: Path) -> None:
    disk = tmp_path / "results"
    train = _workbench("tracking=none", f"result_json={disk}/result.json")
    left = _with_small_disk(disk, 4 * KILOBYTE, train, tmp_path)
    assert left.code == 2
    assert "result_json" in left.err
    assert NO_SPACE in left.err
    assert len(left.err.strip().splitlines()) == 1
    assert left.on_disk == []
    assert Workbench(tmp_path).metadata("run")["status"] == "candidate"
