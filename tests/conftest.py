"""Shared by all tests: one thread per worker, a home folder of their own, no timing limits."""

import gc
import os

# Set before torch, numba or mlflow load: two workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from collections.abc import Iterator

import pytest
from hypothesis import settings

from ppo_workbench.cli import OBJECTS_BETWEEN_COLLECTIONS

# Kernels compile on first use, so the first example may take seconds.
settings.register_profile("workbench", deadline=None)
settings.load_profile("workbench")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: those of gzip hold the second, and xdist's workers differ."""
    return argname if isinstance(val, bytes) else None


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
