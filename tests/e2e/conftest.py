from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.workbench import BUDGET, TINY, TRADING, Workbench


@pytest.fixture(scope="session")
def trained(make_home: Callable[[str], Path]) -> Workbench:
    """Train the model `first` once, fully recorded, from the command line."""
    workbench = Workbench(make_home("trained"))
    result = workbench.home / "first.json"
    long = [*TINY, *BUDGET, *TRADING, "budget.timesteps=768", "budget.evaluations=3"]
    assert workbench.run(*long, "output=first", f"result_json={result}").code == 0
    return workbench


@pytest.fixture(scope="session")
def shared_home(make_home: Callable[[str], Path]) -> Path:
    """One home for many runs."""
    return make_home("shared")


@pytest.fixture
def shared(shared_home: Path, capsys: pytest.CaptureFixture[str]) -> Workbench:
    """Run commands in the shared home."""
    return Workbench(shared_home, capsys)


@pytest.fixture
def recording(make_home: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> Workbench:
    """Run commands in a home of their own that has a database already."""
    return Workbench(make_home("recording"), capsys)


@pytest.fixture
def workbench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workbench:
    """Run commands in an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    return Workbench(home, capsys)
