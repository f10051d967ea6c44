"""Shared by all tests: one thread per worker, a home folder of their own, no timing limits."""

import gc
import os
import shutil

# Set before torch, numba or mlflow load: two workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from ppo_workbench.cli.main import OBJECTS_BETWEEN_COLLECTIONS

# Kernels compile on first use, so the first example may take seconds.
settings.register_profile("workbench", deadline=None)
settings.load_profile("workbench")

# The files to begin with, in this order: long ones, so that no worker ends alone.  The first one
# compiles the kernels of a training, half a minute in which its worker takes no other file; the
# files up to `test_analysis.py` compile nothing, so the other worker does not do it again.  Those
# of tests/sweeps come late: their server of processes, which stays, preloads nothing for trials.
FIRST = (
    "tests/e2e/test_commands.py",
    "tests/records/test_tracking.py",
    "tests/test_doc_commands.py",
    "tests/test_promotion_parts.py",
    "tests/test_conf.py",
    "tests/records/test_analysis.py",
    "tests/e2e/test_comparison.py",
    "tests/e2e/test_promotion.py",
    "tests/test_paper.py",
    "tests/e2e/test_secrets.py",
    "tests/e2e/test_sweep_interruption.py",
    "tests/e2e/test_pruning.py",
    "tests/learning/test_native_update.py",
    "tests/scoring/test_supervised.py",
    "tests/test_paper_feed.py",
    "tests/sweeps/test_faults.py",
)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: those of gzip hold the second, and xdist's workers differ."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `FIRST` first, and leave the others in their order."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(FIRST)))


def pytest_collection_finish() -> None:
    """Look for garbage as rarely as `cli.main` does, and never in what the imports have made.

    Those are a million objects by now.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


@pytest.fixture(scope="session", autouse=True)
def _isolated_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from the user's runs, whatever the shell has set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPO_WORKBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "PPO_WORKBENCH_CONF"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow database without runs, to be copied: creating one takes seconds.

    The first worker that asks makes it for all of them.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "empty_store.db"
    with FileLock(folder / "empty_store.lock"):
        if not path.exists():
            import mlflow

            mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def make_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Callable[[str], Path]:
    """Return a function from a name to a new home that has a database already."""

    def make(name: str) -> Path:
        home = tmp_path_factory.mktemp(name)
        (home / "mlruns").mkdir()
        shutil.copy(empty_store, home / "mlruns" / "mlflow.db")
        return home

    return make
