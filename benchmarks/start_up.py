"""How long the first command takes until it trains, where the time goes, and the first compile.

    python benchmarks/start_up.py --json docs/results/start_up.json
    python benchmarks/start_up.py --against ../other/src    # in turn with another checkout

A process counts as training when it prints the line that begins with "training:".  Wall
time is what a user waits; CPU time (user and system, all threads) is what can be compared on
a machine that has other work.  The parts are those of one more run in which the steps of a
start are timed; what mlflow's import takes in its own thread is not part of them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import harness

COMMAND = ["model=maskable_ppo", "budget.minutes=30"]
TICKS = os.sysconf("SC_CLK_TCK")
PARTS = "parts: "


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a running process, all its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def start(
    arguments: list[str], source: Path | None, cache: str | None = None
) -> tuple[float, float, list[str]]:
    """Run until training begins; return wall and CPU seconds and the lines until then."""
    changes = harness.ONE_THREAD | ({"PYTHONPATH": str(source.resolve())} if source else {})
    changes |= {"PPO_WORKBENCH_CACHE": cache} if cache else {}
    command = [sys.executable, "-u", *arguments]
    with tempfile.TemporaryDirectory() as home:
        env, began = os.environ | changes | {"PPO_WORKBENCH_HOME": home}, time.monotonic()
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
            lines = harness.said(process, "\ntraining:")
            if not lines or not lines[-1].startswith("training:"):
                raise SystemExit(f"did not train: exit code {process.wait()}")
            wall, cpu = time.monotonic() - began, cpu_seconds(process.pid)
            process.kill()
    return wall, cpu, lines


def run(source: Path | None, cache: str | None = None) -> tuple[float, float, list[str]]:
    """Start the command as a user does."""
    return start(["-m", "ppo_workbench", *COMMAND], source, cache)


def parts(source: Path | None) -> Any:
    """Start the command with its steps timed; return seconds of wall time by step."""
    _, _, lines = start([__file__, "--timed"], source)
    text = next(line for line in lines if line.startswith(PARTS))
    return json.loads(text.removeprefix(PARTS))


def timed() -> None:
    """Run the command in this process and print what each step took."""
    seconds: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - began, 3)

    def wrap(module: Any, function: str, name: str) -> None:
        plain: Callable[..., Any] = getattr(module, function)

        def measured(*args: Any, **named: Any) -> Any:
            with part(name):
                return plain(*args, **named)

        setattr(module, function, measured)

    with part("import the command line"):
        from ppo_workbench.cli import main

        cli: Any = main
    with part("import torch and all boxes"):
        from ppo_workbench.learning.progress import WorkbenchConsole
        from ppo_workbench.pipeline import tasks
        from ppo_workbench.pipeline.train import fitting
    wrap(tasks, "prepared", "bars and features")
    wrap(tasks, "open_tracker_beside", "store")
    wrap(fitting, "warm_up", "kernels and a first small training")
    wrap(cli, "_checked", "check the configuration")
    run_checked = cli._run
    began = time.monotonic()

    def composed(*args: Any) -> Any:
        seconds["compose"] = round(time.monotonic() - began, 3)
        return run_checked(*args)

    cli._run = composed
    console_class: Any = WorkbenchConsole
    show_progress = console_class.training_progress

    def training(console: Any) -> Any:
        progress = show_progress(console)
        begin = progress.start

        def first(text: str) -> None:
            print(PARTS + json.dumps(seconds))
            begin(text)

        progress.start = first
        return progress

    console_class.training_progress = training
    sys.exit(cli.command(COMMAND))


def compare(sources: dict[str, Path | None], repeats: int) -> dict[str, dict[str, float]]:
    """Alternate the checkouts; return medians of wall and CPU seconds."""

    def once(source: Path | None) -> dict[str, float]:
        wall, cpu, _ = run(source)
        print(f"training after {wall:.2f} s, {cpu:.2f} s of CPU", flush=True)
        return {"wall_seconds": wall, "cpu_seconds": cpu}

    for source in sources.values():
        run(source)  # fills the cache
    sides = {name: partial(once, source) for name, source in sources.items()}
    found = harness.alternated(sides, repeats)
    return {name: harness.medians(rows) for name, rows in found.items()}


def first_compile() -> dict[str, Any]:
    """Start with an empty cache; return seconds to training and whether the user is told."""
    with tempfile.TemporaryDirectory() as cache:
        wall, cpu, lines = run(None, cache)
    told = any("compiling" in line for line in lines)
    return {"wall_seconds": wall, "cpu_seconds": cpu, "says_that_it_compiles": told}


def main() -> None:
    """Print medians, parts and the first compile."""
    against, less = (Path, "src folder of another checkout"), (False, "leave out the first compile")
    flags = {"repeats": 5, "against": against, "no_compile": less, "json": Path}
    args = harness.parser(__doc__, **flags, timed=(False, harness.HIDDEN)).parse_args()
    if args.timed:
        timed()
    sources: dict[str, Path | None] = {"warm": None}
    sources |= {"against": args.against} if args.against else {}
    document: dict[str, Any] = {"start": compare(sources, args.repeats), "parts": parts(None)}
    if not args.no_compile:
        document["first_compile"] = first_compile()
    print(json.dumps(document, indent=1))
    harness.write(args.json, document)


if __name__ == "__main__":
    main()
