"""The registry says what the files say, whatever a kill or a dead store left out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from tests.delivery.models import build, save_model, settings, small_model

from ppo_workbench.config import TrackingConfig
from ppo_workbench.delivery.artifact import save_artifact
from ppo_workbench.delivery.golden import find_golden
from ppo_workbench.records.registry import StoredModel, register
from ppo_workbench.records.tracking import open_tracker


@pytest.fixture(scope="module")
def home(make_home: Callable[[str], Path]) -> Path:
    """Return a home whose store the tests share, each under a name of its own."""
    return make_home("registry")


def _client(home: Path) -> Any:
    return mlflow.MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")


def _stored(home: Path, name: str, **changes: Any) -> StoredModel:
    save_model(home / "trained_models", name, **changes)
    found = StoredModel.find(home / "trained_models", name)
    assert found is not None
    return found


def _killed_run(home: Path) -> str:
    """Start a run as a promotion does, and leave it as a kill would."""
    run_id = open_tracker(TrackingConfig(), home, "promotion").run_id
    assert run_id is not None
    return run_id


def _runs(home: Path, name: str) -> dict[str, str]:
    """Return alias -> run of its version."""
    client = _client(home)
    aliases = client.get_registered_model(name).aliases
    return {
        alias: client.get_model_version(name, version).run_id for alias, version in aliases.items()
    }


def test_registered_version_decides_as_the_golden_vectors_and_unpickles_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _stored(home, "served", mlflow_run_id=_killed_run(home), study="spring", trial_number=4)

    assert register(TrackingConfig(), home, "served", {"champion": model}) == {"champion": "1"}

    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(variable, f"sqlite:///{home}/mlruns/mlflow.db")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    loaded = mlflow.pyfunc.load_model("models:/served@champion")
    golden = find_golden(small_model()[0])
    assert golden is not None
    made = loaded.predict({"observation": golden.observation, "mask": golden.mask})
    np.testing.assert_array_equal(made["logits"], golden.logits)
    np.testing.assert_array_equal(made["action"], golden.action)
    assert {x.name for x in loaded.metadata.signature.inputs} == {"observation", "mask"}
    tags = _client(home).get_model_version("served", "1").tags
    assert tags == {"study": "spring", "trial": "4", "pth_sha256": model.metadata.pth_sha256}


def test_model_of_a_killed_run_becomes_a_version_once_and_the_run_is_ended(home: Path) -> None:
    run_id = _killed_run(home)
    models = {"champion": _stored(home, "killed", mlflow_run_id=run_id), "previous": None}

    for _ in range(2):
        register(TrackingConfig(), home, "killed", models)

    client = _client(home)
    assert len(client.search_model_versions("name = 'killed'")) == 1
    assert _runs(home, "killed") == {"champion": run_id}
    run = client.get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["promoted"] == "true"


def test_run_that_goes_on_is_not_ended(home: Path) -> None:
    run_id = _killed_run(home)
    model = _stored(home, "own", mlflow_run_id=run_id)

    register(TrackingConfig(), home, "own", {"champion": model}, own_run=run_id)

    assert _client(home).get_run(run_id).info.status == "RUNNING"


@pytest.mark.parametrize("run_id", [None, "0" * 32])
def test_model_without_a_run_in_this_store_gets_one_once(home: Path, run_id: str | None) -> None:
    name = f"elsewhere_{run_id is None}"
    model = _stored(home, name, mlflow_run_id=run_id)

    versions = [register(TrackingConfig(), home, name, {"champion": model}) for _ in range(2)]

    assert versions == [{"champion": "1"}, {"champion": "1"}]
    made = _client(home).get_run(_runs(home, name)["champion"])
    assert made.info.run_name == f"registration of {name}"
    assert made.info.status == "FINISHED"


def test_aliases_follow_the_files_and_end_with_them(home: Path) -> None:
    runs = [_killed_run(home) for _ in range(2)]
    first, second = (_stored(home, f"turn_{run}", mlflow_run_id=run) for run in runs)

    register(TrackingConfig(), home, "turn", {"champion": first, "challenger": second})
    assert _runs(home, "turn") == {"champion": runs[0], "challenger": runs[1]}
    register(
        TrackingConfig(), home, "turn", {"champion": second, "previous": first, "challenger": None}
    )
    assert _runs(home, "turn") == {"champion": runs[1], "previous": runs[0]}


def test_model_that_does_not_verify_is_not_registered_and_the_others_are(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = _stored(home, "good", mlflow_run_id=_killed_run(home))
    save_artifact(home / "trained_models", "tied", *build(settings(), scale=1e-9))
    tied = StoredModel.find(home / "trained_models", "tied")

    found = register(TrackingConfig(), home, "mixed", {"challenger": tied, "champion": good})

    assert found == {"champion": "1"}
    assert "tied is not registered: " in caplog.text


def test_nothing_is_registered_where_nothing_is_recorded(tmp_path: Path) -> None:
    model = _stored(tmp_path, "quiet")
    off = TrackingConfig(enabled=False)
    assert register(off, tmp_path, "quiet", {"champion": model}) == {}
    assert not (tmp_path / "mlruns").exists()
