"""What this machine and its system offer, and where the presets lie on it."""

import os
import platform
from pathlib import Path

from ppo_workbench.config.errors import ConfigError

POSIX = os.name == "posix"


def config_folder() -> Path:
    """Return $PPO_WORKBENCH_CONF, else the installed conf folder, else the checkout's."""
    chosen = os.environ.get("PPO_WORKBENCH_CONF")
    if chosen:
        return Path(chosen).resolve()
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parents[1] / "conf"


def usable_cores() -> int:
    """Return how many cores this process may use; bound to some of them it can be on Linux."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_posix() -> None:
    """Refuse systems without the file locks, signals and fork server that runs are built on.

    Raises:
        ConfigError: This is not Linux, macOS or another POSIX system.
    """
    if not POSIX:
        raise ConfigError(
            f"{platform.system()}: file locks, signals and the fork server of POSIX are needed; "
            "use Linux, macOS or, on Windows, WSL 2"
        )
