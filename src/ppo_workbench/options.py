"""Where the configuration lies, and which options it offers."""

import functools
import os
from pathlib import Path


def config_folder() -> Path:
    """Return $PPO_WORKBENCH_CONF, else the installed conf folder, else the checkout's."""
    chosen = os.environ.get("PPO_WORKBENCH_CONF")
    if chosen:
        return Path(chosen).resolve()
    installed = Path(__file__).resolve().parent / "conf"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "conf"


CONF = config_folder()
SYNTHETIC = "synthetic"  # the market that is chosen unless one is named


@functools.cache
def groups() -> dict[str, tuple[str, ...]]:
    """Return the config groups and their options, from the conf folder."""
    return {
        folder.name: tuple(sorted(file.stem for file in folder.glob("*.yaml")))
        for folder in sorted(CONF.glob("*/"))
    }


def choose(group: str) -> str:
    """Say which options a group has."""
    return f"choose {group}=X with X one of {', '.join(groups()[group])}"


def file_markets() -> str:
    """Say which markets the bars of a file can be of."""
    return ", ".join(name for name in groups()["market"] if name != SYNTHETIC)
