"""Every worker collects the same tests, whenever and with whatever hash seed it starts."""

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("value", [gzip.compress(b"carries the second"), b"plain"])
def test_id_of_bytes_is_the_name_of_the_argument(
    value: bytes, request: pytest.FixtureRequest
) -> None:
    assert value
    name = "test_id_of_bytes_is_the_name_of_the_argument"
    assert request.node.name in (f"{name}[value0]", f"{name}[value1]")


def test_ids_of_this_session_hold_no_address(request: pytest.FixtureRequest) -> None:
    assert [item.nodeid for item in request.session.items if " at 0x" in item.nodeid] == []


def _collected(hash_seed: str) -> list[str]:
    """Return the ids of all tests, in their order, as a process of its own collects them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-m", ""]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_two_collections_are_equal() -> None:
    first = _collected("1")
    time.sleep(1.0)  # what is made of the time, even to the second, differs
    assert first == _collected("2")
    assert len(first) > 2000
