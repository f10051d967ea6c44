"""Every process collects the same tests: xdist compares what its workers have collected."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import FIRST

ROOT = Path(__file__).parents[1]


def _collected(hash_seed: str, *paths: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", *paths]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    found = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, check=True
    )
    return [line for line in found.stdout.splitlines() if "::" in line]


def test_no_id_of_this_run_holds_bytes(request: pytest.FixtureRequest) -> None:
    ids = [item.nodeid for item in request.session.items]
    # Three escapes in a row: a zip's or gzip's head has them, a name with one odd letter has not.
    assert [name for name in ids if re.search(r"(\\x[0-9a-f]{2}){3}", name)] == []


def test_files_that_are_begun_with_exist() -> None:
    assert [name for name in FIRST if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    "path", ["tests/market/test_sources.py", pytest.param("tests", marks=pytest.mark.slow)]
)
def test_collections_of_two_seconds_agree(path: str) -> None:
    first = _collected("1", path)
    time.sleep(1.1)

    assert len(first) > 10
    assert _collected("2", path) == first
