"""The MLflow Model Registry: every promoted or refused model is a version, aliases say which.

The files decide who is champion: a registry that is down costs a warning, and the next promotion
or roll-back sets the aliases right, as versions are found by the run of their promotion.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppo_workbench.config import TrackingConfig
from ppo_workbench.records.mlflow_store import (
    creation_lock,
    first_line,
    open_client,
    tracking_uri,
)
from ppo_workbench.records.redaction import Redactor

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
_LOG = logging.getLogger("ppo_workbench.tracking")


def register(
    config: TrackingConfig,
    home: Path,
    name: str,
    run_id: str | None,
    tags: Mapping[str, str],
    aliases: Mapping[str, str | None],
) -> str | None:
    """Make the model in the folder `model` of a run a version, and set the aliases.

    Args:
        config: Where runs are recorded.
        home: The workbench's home folder.
        name: Of the registered model.
        run_id: Run that holds the model; None only sets aliases.
        tags: Of the new version.
        aliases: Alias -> run whose model it shall stand for, None to take it away.

    Returns:
        The number of the version, None if none was made.
    """
    if not config.enabled:
        return None
    uri = tracking_uri(config, home.absolute())
    try:
        with creation_lock(uri, home.absolute()):
            client = open_client(uri)
            version = None if run_id is None else _create(client, name, run_id, tags)
            _set_aliases(client, name, aliases)
            return version
    except Exception as error:
        reason = first_line(Redactor(uri)(str(error)))
        _LOG.warning("the registry does not know the new state of %s: %s", name, reason)
        return None


def _create(client: Any, name: str, run_id: str, tags: Mapping[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name, description="Promoted by ppo_workbench")
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    made = client.create_model_version(name, source, run_id, tags=dict(tags))
    return str(made.version)


def _set_aliases(client: Any, name: str, aliases: Mapping[str, str | None]) -> None:
    """Point every alias to the latest version of its run; one without a version ends."""
    versions = client.search_model_versions(f"name = '{name}'")
    of_run: dict[str, int] = {}
    for version in versions:
        of_run[version.run_id] = max(int(version.version), of_run.get(version.run_id, 0))
    present = client.get_registered_model(name).aliases if versions else {}
    for alias, run_id in aliases.items():
        if run_id is not None and run_id in of_run:
            client.set_registered_model_alias(name, alias, str(of_run[run_id]))
        elif alias in present:
            client.delete_registered_model_alias(name, alias)
