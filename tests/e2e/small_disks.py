"""Commands on disks that are really full, run under `unshare -Urm`, where mounting is allowed.

One process for all of them: starting one takes longer than they do.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ppo_workbench.cli.main import command
from ppo_workbench.config import TrackingConfig
from ppo_workbench.records.tracking import open_tracker


def _deliver_later(disk: Path, home: Path, freed: bool) -> None:
    """Record 2,000 values in a store whose disk is full, until it is freed or for good."""
    config = TrackingConfig(uri=f"sqlite:///{disk / 'mlflow.db'}")
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
        calls = [json.loads(line) for path in spooled for line in path.read_text().splitlines()]
        print("SPOOLED", sum(len(call.get("metrics", ())) for call in calls))
        if freed:
            (disk / "ballast").unlink()
    client: Any = vars(tracker)["_client"]
    print("ARRIVED", len(client.get_metric_history(tracker.run_id, "a")))
    print("STATUS", client.get_run(tracker.run_id).info.status)
    print("WAITING", len(list(home.rglob("*.jsonl"))))


def _act(case: dict[str, Any], disk: Path, home: Path) -> int:
    if case.get("command"):
        return command(case["command"])
    if case.get("program"):
        environment = {**os.environ, "PPO_WORKBENCH_CACHE": str(disk)}
        ran = subprocess.run(
            case["program"], env=environment, capture_output=True, text=True, check=False
        )
        print(ran.stdout)
        print(ran.stderr, file=sys.stderr)
        return ran.returncode
    _deliver_later(disk, disk if case["base"] == "disk" else home, case["freed"])
    return 0


def _run(case: dict[str, Any]) -> dict[str, Any]:
    """Mount a file system of `size` bytes at `disk`, run the case there, say what it left.

    The files on the disk are listed while there is one: it goes with this process.
    """
    disk, home = Path(case["disk"]), Path(case["home"])
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={case['size']}", "none", str(disk)]
    subprocess.run(mount, check=True)
    if case.get("store"):
        shutil.copy(case["store"], disk / "mlflow.db")
    os.environ["PPO_WORKBENCH_HOME"] = str(home)
    os.chdir(home)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _act(case, disk, home)
    on_disk = [path.name for path in disk.rglob("*") if path.is_file()]
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "on_disk": on_disk}


if __name__ == "__main__":
    print(json.dumps({name: _run(case) for name, case in json.load(sys.stdin).items()}))
