"""`result_json`: what a command found, for scripts."""

import json
from collections.abc import Mapping
from pathlib import Path

from ppo_workbench.config import ConfigError
from ppo_workbench.config.files import write_whole


def check_result_path(path: str | None) -> None:
    """Refuse a path that the result could not be written to."""
    if path is None:
        return
    if not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"result_json={path}: its folder does not exist; create it first")
    if Path(path).is_dir():
        raise ConfigError(f"result_json={path}: is a folder; name a file in it")


def write_result(path: str | None, document: Mapping[str, object]) -> None:
    """Write the outcome for scripts, whole or not at all."""
    if path is None:
        return
    try:
        write_whole(Path(path), json.dumps(document, indent=2))
    except OSError as error:
        raise ConfigError(
            f"result_json={path}: cannot be written ({error.strerror}), everything else is done; "
            "free space or name another file"
        ) from None
