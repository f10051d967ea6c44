"""Where the configuration lies, and which options it offers."""

import functools

from ppo_workbench.config.machine import config_folder

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
    return ", ".join(name for name in groups()["market"] if not name.startswith(SYNTHETIC))
