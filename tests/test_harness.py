"""What benchmarks share: a killed run goes on, files are whole, figures are known ones."""

import json
import math
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import harness
import pytest

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import harness

def cell(number, folder):
    with (folder / "calls").open("a") as file:
        file.write(f"{number}\\n")
    if number == 2 and not (folder / "mended").exists():
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    print("told by", number, os.environ["OMP_NUM_THREADS"])
    return {"square": number**2}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    cells = {folder / "cells" / f"{n}.json": (n, folder) for n in range(4)}
    print([one["square"] for one in harness.kept(cell, cells, 1)])
"""


def test_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    path = str(Path(harness.__file__).parent)
    script.write_text(f"import sys\nsys.path.append({path!r})\n{SCRIPT}")
    command = [sys.executable, str(script), str(tmp_path)]
    # The pipe is closed when the process of the cell has ended, too.
    assert subprocess.run(command, capture_output=True, timeout=300).returncode == -signal.SIGKILL
    kept = tmp_path / "cells"
    assert sorted(one.name for one in kept.glob("*.json")) == ["0.json", "1.json"]
    (tmp_path / "mended").touch()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == "2: done\n3: done\n[0, 1, 4, 9]\n"
    assert (tmp_path / "calls").read_text().split() == ["0", "1", "2", "2", "3"]
    assert (kept / "3.log").read_text() == "told by 3 1\n"


def test_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "results" / "one.json"
    harness.write(path, {"a": [1, 2.5]}, indent=2)
    assert path.read_text() == json.dumps({"a": [1, 2.5]}, indent=2) + "\n"
    with pytest.raises(TypeError):
        harness.write(path, {"a": object()})
    assert harness.read(path) == {"a": [1, 2.5]}
    assert list(path.parent.iterdir()) == [path]
    harness.write(path, b"\0")
    assert path.read_bytes() == b"\0"
    harness.write(None, object())


def test_spread_of_a_paired_difference_is_the_known_one() -> None:
    assert harness.spread([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, math.sqrt(5 / 12)))
    assert harness.paired([3.0, 5.0], [1.0, 2.0]) == "+2.50 (0.50)"
    assert harness.shown([1.0]) == "1.00 (nan)"
    with pytest.raises(ValueError, match="shorter"):
        harness.paired([1.0, 2.0], [1.0])


def test_sides_are_called_in_turn_and_their_medians_known() -> None:
    calls: list[str] = []
    found = harness.alternated({name: partial(calls.append, name) for name in "ab"}, 2)
    assert calls == ["a", "b", "a", "b"]
    assert found == {"a": [None, None], "b": [None, None]}
    rows = [{"x": 1.0}, {"x": 9.0}, {"x": 2.25}]
    assert harness.medians(rows) == {"x": 2.25}
    assert harness.medians(rows, 1) == {"x": 2.2}


def test_flags_follow_from_their_defaults() -> None:
    made = harness.parser("Doc.", seeds=5, first_seed=(7, "help"), json=Path, set=[], quick=False)
    plain = vars(made.parse_args([]))
    assert plain == {"seeds": 5, "first_seed": 7, "json": None, "set": [], "quick": False}
    line = "--seeds 1 --first-seed 2 --json x --set a=1 --set b=2 --quick"
    told = vars(made.parse_args(line.split()))
    files = {"json": Path("x"), "set": ["a=1", "b=2"], "quick": True}
    assert told == {"seeds": 1, "first_seed": 2, **files}


def test_table_and_what_stands_between_marks(tmp_path: Path) -> None:
    text = harness.table(("a", "b"), [("1", "2")], rule="---:")
    assert text == "| a | b |\n|---|---:|\n| 1 | 2 |"
    page = tmp_path / "page.md"
    page.write_text("head\n<!-- x -->\nold\n<!-- /x -->\nrest\n")
    harness.put_between(page, "<!-- x -->\n", "<!-- /x -->", "new\n")
    assert page.read_text() == "head\n<!-- x -->\nnew\n<!-- /x -->\nrest\n"
    with pytest.raises(SystemExit, match="has no lines <!-- y -->"):
        harness.put_between(page, "<!-- y -->\n", "<!-- /y -->", "")
