"""How long does a comparison take?  The quick preset as a user starts it, then its parts.

    python benchmarks/compare_speed.py --json docs/results/compare_speed.json
    python benchmarks/compare_speed.py --home FOLDER --name full     # statistics of a finished one

Without --home it runs `task=compare` in a new home (jit cache warm) and times the command;
then, and for a finished comparison alone, the statistics and the page.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any


def run_quick(home: Path) -> float:
    """Run the quick preset; return seconds."""
    command = [sys.executable, "-m", "ppo_workbench", "task=compare", "output=quick"]
    began = monotonic()
    subprocess.run(command, env=os.environ | {"PPO_WORKBENCH_HOME": str(home)}, check=True)
    return monotonic() - began


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
        comparison_document(found, name, 0, None)
        seconds.append(monotonic() - began)
    began = monotonic()
    page = draw_comparison(folder).page
    return {
        "cells": len(found.cells),
        "statistics_seconds": statistics.median(seconds),
        "page_seconds": monotonic() - began,
        "page_megabytes": page.stat().st_size / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--name", default="quick")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {"comparison": args.name}
    if args.home is None:
        with tempfile.TemporaryDirectory() as folder:
            result["command_seconds"] = run_quick(Path(folder))
            result |= parts(Path(folder), args.name, args.repeats)
    else:
        result |= parts(args.home.absolute(), args.name, args.repeats)
    for key, value in result.items():
        print(f"{key}: {value if isinstance(value, str | int) else f'{value:.2f}'}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
