"""The tasks, composed from all the other boxes: train, evaluate, analyse, power, one trial."""

from ppo_workbench.pipeline.check_data import check_data
from ppo_workbench.pipeline.compare import Comparison, Jobs, compare
from ppo_workbench.pipeline.fitting import checkpoint_folder
from ppo_workbench.pipeline.outcome import Outcome
from ppo_workbench.pipeline.power import power
from ppo_workbench.pipeline.stored import (
    backtest,
    find_artifact,
    home_folder,
    open_with_test,
    stored_policy,
)
from ppo_workbench.pipeline.tasks import analyse, default_name, evaluate, run, train

__all__ = [
    "Comparison",
    "Jobs",
    "Outcome",
    "analyse",
    "backtest",
    "check_data",
    "checkpoint_folder",
    "compare",
    "default_name",
    "evaluate",
    "find_artifact",
    "home_folder",
    "open_with_test",
    "power",
    "run",
    "stored_policy",
    "train",
]
