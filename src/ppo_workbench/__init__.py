"""Research workbench for MaskablePPO trading agents.

The public functions load on first use: `import ppo_workbench` alone imports neither
torch nor hydra, so an application that only runs a model stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppo_workbench.cli.main import compose
    from ppo_workbench.pipeline.models.stored import backtest
    from ppo_workbench.pipeline.tasks import evaluate, train

__version__ = "0.2.0"

__all__ = ["__version__", "backtest", "compose", "evaluate", "train"]

_HOME_OF = {
    "compose": "ppo_workbench.cli.main",
    "train": "ppo_workbench.pipeline.tasks",
    "evaluate": "ppo_workbench.pipeline.tasks",
    "backtest": "ppo_workbench.pipeline.models.stored",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ppo_workbench.config.machine import require_posix

    require_posix()
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
