"""The MLflow Model Registry: every promoted or refused model is a version, aliases say which.

The files decide who is champion.  A version is found again by the run of its promotion or by the
hash of its weights; a model of the files that has none, because the registry was down or the
promotion was killed after the exchange of files, becomes one by the next promotion or roll-back.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ppo_workbench.config import ArtifactError, TrackingConfig
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.delivery.artifact import load_metadata
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.records.mlflow_store import (
    creation_lock,
    first_line,
    open_client,
    tracking_uri,
)
from ppo_workbench.records.pyfunc import save_pyfunc
from ppo_workbench.records.tracking import open_tracker

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
_MODEL = "model"
_HASH = "pth_sha256"
_LOG = logging.getLogger("ppo_workbench.tracking")


@dataclass(frozen=True)
class StoredModel:
    """A model on disk that the registry shall know: its folder, its file's name, its metadata."""

    folder: Path
    name: str
    metadata: Metadata

    @classmethod
    def find(cls, folder: Path, name: str) -> "StoredModel | None":
        """Return the model `name` of a folder, None where there is no whole one."""
        try:
            return cls(folder, name, load_metadata(folder, name))
        except ArtifactError:
            return None


def register(
    config: TrackingConfig,
    home: Path,
    name: str,
    models: Mapping[str, StoredModel | None],
    own_run: str | None = None,
) -> dict[str, str]:
    """Make the registry say what the files say: a version for every model, aliases on them.

    A version is an MLflow pyfunc model with a signature for observation and mask, in the folder
    `model` of the run of its promotion, or of a new run where the store does not know that one.
    A registry that is down costs a warning.

    Args:
        config: Where runs are recorded.
        home: The workbench's home folder.
        name: Of the registered model.
        models: Alias -> the model that it shall stand for, None to take it away.
        own_run: The run that goes on; another one of these models that still counts as running
            was killed, and is ended as that.

    Returns:
        Alias -> number of its version; nothing if the registry is down or nothing is recorded.
    """
    if not config.enabled:
        return {}
    uri = tracking_uri(config, home.absolute())
    found: dict[str, str] = {}
    try:
        with creation_lock(uri, home.absolute()):
            client = open_client(uri)
        registry = _Registry(client, config, home, name, own_run)
        for alias, model in models.items():
            version = None if model is None else registry.version_of(model)
            registry.point(alias, version)
            if version is not None:
                found[alias] = version
    except Exception as error:
        reason = first_line(Redactor(uri)(str(error)))
        _LOG.warning("the registry does not know the new state of %s: %s", name, reason)
    return found


class _Registry:
    """One registered model and its versions."""

    def __init__(
        self, client: Any, config: TrackingConfig, home: Path, name: str, own_run: str | None
    ) -> None:
        self._client, self._config, self._home = client, config, home
        self._name, self._own_run = name, own_run
        self._versions = list(client.search_model_versions(f"name = '{name}'"))

    def version_of(self, model: StoredModel) -> str | None:
        """Return the number of a model's version, made if there is none; None if it is no model."""
        run_id = model.metadata.mlflow_run_id
        run = None if run_id is None else self._run(run_id)
        if run is None:  # promoted without a record, or in another store
            known = [v for v in self._versions if v.tags.get(_HASH) == model.metadata.pth_sha256]
        else:
            known = [v for v in self._versions if v.run_id == run_id]
        if known:
            return str(max(int(v.version) for v in known))
        with TemporaryDirectory() as scratch:
            try:
                folder = save_pyfunc(Path(scratch) / _MODEL, model.folder, model.name)
            except ArtifactError as error:
                _LOG.warning("%s is not registered: %s", model.name, error)
                return None
            made = self._create(model, self._upload(model, run, folder))
        self._versions.append(made)
        return str(made.version)

    def point(self, alias: str, version: str | None) -> None:
        """Let an alias stand for a version, or take it away."""
        if version is not None:
            self._client.set_registered_model_alias(self._name, alias, version)
        elif self._versions and alias in self._client.get_registered_model(self._name).aliases:
            self._client.delete_registered_model_alias(self._name, alias)

    def _upload(self, model: StoredModel, run: Any | None, folder: Path) -> str:
        """Store a pyfunc model in the run of its promotion, or in a new one; return its id."""
        if run is not None:
            run_id = str(run.info.run_id)
            self._client.log_artifacts(run_id, str(folder), _MODEL)
            if run.info.status == "RUNNING" and run_id != self._own_run:
                self._client.set_tag(run_id, "promoted", "true")
                self._client.set_terminated(run_id, "KILLED")
            return run_id
        title, tags = f"registration of {model.name}", {"task": "register"}
        with open_tracker(self._config, self._home, title, {}, tags) as tracker:
            assert tracker.run_id is not None
            self._client.log_artifacts(tracker.run_id, str(folder), _MODEL)
            return tracker.run_id

    def _run(self, run_id: str) -> Any | None:
        """Return a run, None if this store does not have it."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _create(self, model: StoredModel, run_id: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._client.create_registered_model(
                self._name, description="Promoted by ppo_workbench"
            )
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{_MODEL}"
        facts = {"study": model.metadata.study, "trial": model.metadata.trial_number}
        tags = {key: str(fact) for key, fact in facts.items() if fact is not None}
        tags[_HASH] = model.metadata.pth_sha256
        return self._client.create_model_version(self._name, source, run_id, tags=tags)
