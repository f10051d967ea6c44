"""Where the presets lie."""

import os
from pathlib import Path


def config_folder() -> Path:
    """Return $PPO_WORKBENCH_CONF, else the installed conf folder, else the checkout's."""
    chosen = os.environ.get("PPO_WORKBENCH_CONF")
    if chosen:
        return Path(chosen).resolve()
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
