"""How long does a comparison take?  The quick preset as a user starts it, then its parts.

    python benchmarks/compare_speed.py --json docs/results/compare_speed.json
    python benchmarks/compare_speed.py --home FOLDER --name full     # statistics of a finished one

Without --home it runs `task=compare` in a new home (jit cache warm) and times the command;
then, and for a finished comparison alone, the statistics and the page.
"""

import os
import statistics
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

import harness


def run_quick(home: Path) -> float:
    """Run the quick preset; return seconds."""
    began = monotonic()
    assert harness.start(home, "task=compare", "output=quick").wait() == 0
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
    flags = {"home": Path, "name": "quick", "repeats": 3, "json": Path}
    args = harness.parser(__doc__, **flags).parse_args()
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
