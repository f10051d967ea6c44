from pathlib import Path

import pytest
from tests.e2e.workbench import BUDGET, TINY, Workbench


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Train the model `first` once, fully recorded, from the command line."""
    workbench = Workbench(tmp_path_factory.mktemp("trained"))
    result = workbench.home / "first.json"
    long = [*TINY, *BUDGET, "budget.timesteps=768", "budget.evaluations=3"]
    assert workbench.run(*long, "output=first", f"result_json={result}").code == 0
    return workbench


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for many runs: creating MLflow's database takes seconds."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def shared(shared_home: Path, capsys: pytest.CaptureFixture[str]) -> Workbench:
    """Run commands in the shared home."""
    return Workbench(shared_home, capsys)


@pytest.fixture
def workbench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workbench:
    """Run commands in an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    return Workbench(home, capsys)
