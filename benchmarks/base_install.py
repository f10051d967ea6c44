"""A trading application's environment, really: the wheel with the base dependencies alone.

    python benchmarks/base_install.py --json docs/results/base_install.json
    python benchmarks/base_install.py --python VENV/bin/python    # one that is there already

Builds the wheel, installs it into a fresh virtual environment (versions of requirements.lock),
and shows there: no package of the research stack is installed, every module of
`ppo_workbench.delivery` imports, the Decider decides a week of minutes bit for bit as the
backtest does in this environment, and how long a start takes.  The start is measured in a mount
namespace whose root is remounted read-only (`unshare`, Linux), so nothing can be written: no jit
cache, no bytecode, no temporary file.  Times are since the process was called: wall time, median
and fastest of the repeats, and CPU time, which compares between machines under load.  Ends with
exit code 1 if a claim does not hold.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import harness
from decider_parity import HEAVY, compare
from harness import ROOT

WEEK = 5 * 390
START_SECONDS = 5.0
IMPORTS = """
import importlib, importlib.metadata, importlib.util, json, sys
from pathlib import Path
import ppo_workbench.delivery
folder = Path(ppo_workbench.delivery.__file__).parent
modules = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
for module in modules:
    importlib.import_module(f"ppo_workbench.delivery.{module}")
heavy = sys.argv[1].split(",")
names = [dist.metadata["Name"] for dist in importlib.metadata.distributions()]
print(json.dumps({
    "modules_of_delivery": len(modules),
    "research_packages_loaded": [name for name in heavy if name in sys.modules],
    "research_packages_installed": [name for name in heavy if importlib.util.find_spec(name)],
    "distributions": sorted(names, key=str.lower),
    "package_is_installed": Path(sys.prefix) in folder.parents,
}))
"""
START = """
import json, os, sys, time
began, folder, benchmarks = float(sys.argv[1]), sys.argv[2], sys.argv[3]
marks = {}
def mark(what):
    marks[what] = {
        "wall_seconds": time.time() - began, "cpu_seconds": time.process_time()
    }
from pathlib import Path
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.messages import Account, bar_messages
from ppo_workbench.delivery.model_manager import ModelManager
from ppo_workbench.jit import CACHE_ENABLED
mark("imported")
manager = ModelManager(folder)
manager.discover()
mark("models discovered")
artifact = manager.activate("m", any_status=True)
mark("model activated")
decider = Decider(artifact)
mark("Decider made")
if sys.argv[4] == "start":
    print(json.dumps({"marks": marks}))
    sys.exit()
sys.path.append(benchmarks)
from decider_parity import read_bars
bars = read_bars(Path(folder) / "bars.npz")
needed = artifact.metadata.warmup_bars
decider.warm_up(bars.slice(0, needed))
mark("warmed up")
(bar,) = bar_messages(bars.slice(needed, needed + 1))
decision = decider.decide(bar, Account(cash=100_000.0, shares=0.0))
assert decision.status.value == "decided", decision
mark("first decision")
def writable(path):
    try:
        Path(path, ".probe").touch()
        Path(path, ".probe").unlink()
    except OSError:
        return False
    return True
places = {
    "models": folder, "environment": sys.prefix, "home": os.path.expanduser("~"), "tmp": "/tmp",
    "working folder": os.getcwd(),
}
print(json.dumps({
    "marks": marks,
    "jit_cache": CACHE_ENABLED,
    "writable": [name for name, path in places.items() if writable(path)],
}))
"""
READ_ONLY = [
    *("unshare", "--map-root-user", "--mount", "sh", "-c"),
    *('mount -o remount,ro,bind / && exec "$@"', "sh"),
]


def install(folder: Path) -> Path:
    """Build the wheel and install it without extras; return the interpreter."""
    pip = [sys.executable, "-m", "pip"]
    subprocess.run(
        [*pip, "wheel", str(ROOT), "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    pinned = _base_pins()
    subprocess.run([str(python), "-m", "pip", "install", "-q", *pinned, str(wheel)], check=True)
    return python


def _base_pins() -> list[str]:
    """Return the direct dependencies of the base install as requirements.lock pins them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        needed = tomllib.load(file)["project"]["dependencies"]
    names = {text.partition(">")[0].replace("_", "-") for text in needed}
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0] in names]


def base_environment(**changes: str) -> dict[str, str]:
    """Return the environment of an application's process: nothing of ours but what is told."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return kept | changes


def imports(python: Path) -> Any:
    command = [str(python), "-I", "-c", IMPORTS, ",".join(HEAVY)]
    return harness.answer(command, env=base_environment())


def start(python: Path, models: Path, read_only: bool, cache: Path, until: str = "decision") -> Any:
    """Start one process, up to its first decision; its times are since it was called."""
    facts_of = str(time.time()), str(models), str(ROOT / "benchmarks"), until
    command = [*(READ_ONLY if read_only else []), str(python), "-c", START, *facts_of]
    environment = base_environment(PPO_WORKBENCH_CACHE=str(cache))
    try:
        return harness.answer(command, env=environment, cwd=models)
    except subprocess.CalledProcessError as error:
        sys.exit(f"the start failed (read_only={read_only}):\n{error.stderr}")


def starts(
    python: Path, models: Path, read_only: bool, cache: Path, repeats: int
) -> dict[str, Any]:
    """Start several times, and once up to the first decision, which may compile for long."""
    whole = start(python, models, read_only, cache)
    runs = [start(python, models, read_only, cache, "start") for _ in range(repeats)]
    marks = {
        what: _times([run["marks"][what] for run in (whole, *runs) if what in run["marks"]])
        for what in whole["marks"]
    }
    return {**whole, "marks": marks, "repeats": repeats + 1}


def _times(marks: list[dict[str, float]]) -> dict[str, float]:
    wall, cpu = harness.medians(marks, 2).values()
    fastest = round(min(mark["wall_seconds"] for mark in marks), 2)
    return {"wall_seconds": wall, "fastest_wall_seconds": fastest, "cpu_seconds": cpu}


def measure(python: Path, scratch: Path, repeats: int) -> dict[str, Any]:
    week = ("data.synthetic.sessions=100", "risk=conservative")
    parity = compare("synthetic minutes, 1 week", week, scratch / "home", python, WEEK)
    models, cache = scratch / "home" / "trained_models", scratch / "cache"
    (scratch / "none").write_text("a file, so that no folder can be made here")
    start(python, models, False, cache)  # fills the cache
    kinds: dict[str, Any] = {
        "disk written to, kernels in the cache": (False, cache, repeats),
        "read-only disk, no cache": (True, scratch / "none", repeats),
    }
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        shipped = Path(memory) / "cache"
        shutil.copytree(cache, shipped)
        kinds["read-only disk, cache copied to memory"] = (True, shipped, repeats)
        found = {kind: starts(python, models, *how) for kind, how in kinds.items()}
    return {
        **imports(python),
        "parity": parity,
        "starts": found,
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }


def failures(result: dict[str, Any]) -> list[str]:
    """Say which claims do not hold."""
    parity, read_only = result["parity"], result["starts"]["read-only disk, no cache"]
    claims = {
        "no research package is installed": not result["research_packages_installed"],
        "the package is the installed one": result["package_is_installed"],
        "decisions are the same bytes": parity["same_bytes"],
        "the disk is read-only": not read_only["writable"] and not read_only["jit_cache"],
        f"a start takes less than {START_SECONDS} s": (
            read_only["marks"]["Decider made"]["fastest_wall_seconds"] < START_SECONDS
        ),
    }
    return [claim for claim, holds in claims.items() if not holds]


def show(result: dict[str, Any]) -> None:
    installed, parity = result["distributions"], result["parity"]
    print(f"{len(installed)} distributions: {', '.join(installed)}")
    print(f"of the research stack: {', '.join(result['research_packages_installed']) or 'none'}")
    differing = sum(abs(n) for n in parity["differing_values"].values())
    print(
        f"{parity['market']}: {parity['decisions']:,d} decisions, {parity['fills']:,d} fills, "
        f"{parity['rows_with_a_mask']:,d} masked rows, {differing} values differ"
    )
    print(f"\nseconds since the call: wall median, fastest (CPU), load {result['load_average']}")
    for kind, found in result["starts"].items():
        print(f"{kind} (writable: {len(found['writable'])} of 5 folders)")
        for what, clocks in found["marks"].items():
            wall, fastest, cpu = clocks.values()
            print(f"  {what:18s} {wall:6.2f} {fastest:6.2f} ({cpu:.2f})")


def main() -> None:
    python = Path, "interpreter of an environment that is there"
    arguments = harness.parser(__doc__, python=python, repeats=9, json=Path).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        own = arguments.python.absolute() if arguments.python else install(scratch)
        result = measure(own, scratch, arguments.repeats)
    show(result)
    harness.write(arguments.json, result)
    if wrong := failures(result):
        sys.exit(f"does not hold: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
