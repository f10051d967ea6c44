import shutil
from pathlib import Path

import mlflow
import pytest
from tests.e2e.workbench import BUDGET, TINY, Workbench


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow database without runs, to be copied: creating one takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def _with_store(home: Path, empty_store: Path) -> Path:
    (home / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, home / "mlruns" / "mlflow.db")
    return home


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Workbench:
    """Train the model `first` once, fully recorded, from the command line."""
    workbench = Workbench(_with_store(tmp_path_factory.mktemp("trained"), empty_store))
    result = workbench.home / "first.json"
    long = [*TINY, *BUDGET, "budget.timesteps=768", "budget.evaluations=3"]
    assert workbench.run(*long, "output=first", f"result_json={result}").code == 0
    return workbench


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """One home for many runs."""
    return _with_store(tmp_path_factory.mktemp("shared"), empty_store)


@pytest.fixture
def shared(shared_home: Path, capsys: pytest.CaptureFixture[str]) -> Workbench:
    """Run commands in the shared home."""
    return Workbench(shared_home, capsys)


@pytest.fixture
def recording(tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]) -> Workbench:
    """Run commands in a home of their own that has a database already."""
    return Workbench(_with_store(tmp_path / "home", empty_store), capsys)


@pytest.fixture
def workbench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workbench:
    """Run commands in an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    return Workbench(home, capsys)
