"""How long does a comparison take?  The quick preset as a user starts it, then its parts.

    python benchmarks/compare_speed.py --json docs/results/compare_speed.json
    python benchmarks/compare_speed.py --home FOLDER --name full     # statistics of a finished one
    python benchmarks/compare_speed.py --against ../before           # in turn with another tree

With --against both trees first compile, then take turns, and their documents have to be the
same but for time, commit and run.  Without --home it runs `task=compare` in a new home (jit
cache warm) and times the command; then, and for a finished comparison alone, the statistics
and the page.
"""

import os
import statistics
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

import harness

OWN = ("created_utc", "git_commit", "mlflow_run_id")


def run_quick(home: Path, *changes: str, tree: Path = harness.ROOT) -> float:
    """Run the quick preset with the code of a tree; return seconds."""
    began = monotonic()
    search = {"PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}"}
    command = ("task=compare", "output=quick", *changes)
    assert harness.start(home, *command, changes=search, cwd=tree).wait() == 0
    return monotonic() - began


def in_turn(trees: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Return seconds by tree and how many times as long the first one takes, medians."""
    found: dict[str, list[Any]] = {name: [] for name in trees}
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    for number in range(rounds + 1):
        for name, tree in trees.items():
            with tempfile.TemporaryDirectory() as folder:
                home = Path(folder)
                small = () if number else ("budget.timesteps=8192",)
                taken = run_quick(home, *small, tree=tree.absolute())
                document = harness.read(home / "comparisons" / "quick" / "comparison.json")
            if number:
                seconds[name].append(taken)
                found[name].append({k: v for k, v in document.items() if k not in OWN})
    assert all(one == found["now"][0] for each in found.values() for one in each)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"seconds": seconds, "ratio": medians["before"] / medians["now"]}


def parts(home: Path, name: str, repeats: int) -> dict[str, Any]:
    """Time statistics and page of a finished comparison, medians."""
    os.environ["PPO_WORKBENCH_HOME"] = str(home)
    from ppo_workbench.pipeline.compare.document import comparison_document
    from ppo_workbench.pipeline.report import draw_comparison, finished

    folder = home / "comparisons" / name
    found, _ = finished(folder)
    seconds = []
    for _ in range(repeats):
        began = monotonic()
        document = comparison_document(found, name, 0, None)
        seconds.append(monotonic() - began)
    began = monotonic()
    page = draw_comparison(folder, document).page
    return {
        "cells": len(found.cells),
        "statistics_seconds": statistics.median(seconds),
        "page_seconds": monotonic() - began,
        "page_megabytes": page.stat().st_size / 1e6,
    }


def main() -> None:
    flags = {"home": Path, "name": "quick", "repeats": 3, "against": Path, "json": Path}
    args = harness.parser(__doc__, **flags).parse_args()
    if args.against is not None:
        pair = in_turn({"before": args.against, "now": harness.ROOT}, args.repeats)
        print(pair)
        harness.write(args.json, pair, indent=2)
        return
    result: dict[str, Any] = {"comparison": args.name}
    with tempfile.TemporaryDirectory() as folder:
        home = (args.home or Path(folder)).absolute()
        if args.home is None:
            result["command_seconds"] = run_quick(home)
        result |= parts(home, args.name, args.repeats)
    for key, value in result.items():
        print(f"{key}: {value if isinstance(value, str | int) else f'{value:.2f}'}")
    harness.write(args.json, result, indent=2)


if __name__ == "__main__":
    main()
