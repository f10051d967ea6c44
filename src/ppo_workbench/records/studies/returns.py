"""Daily validation returns of a study's trials, for tests of overfitting such as CSCV.

Each trial that was scored, pruned ones too, keeps those of its latest evaluation (complete: of its
selected checkpoint) as `validation_returns.npz` in its folder and its MLflow run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppo_workbench.config.arrays import Singles
from ppo_workbench.records.storage import study_folder

if TYPE_CHECKING:
    import optuna

NAME = "validation_returns.npz"
Returns = Singles


def write_returns(folder: Path, returns: Mapping[int, Returns]) -> None:
    """Write seed -> daily returns, float32 (sessions,), into a trial's folder."""
    arrays = {f"seed_{seed}": values for seed, values in returns.items()}
    np.savez_compressed(folder / NAME, **arrays)  # type: ignore[arg-type]


def read_returns(folder: Path) -> dict[int, Returns]:
    """Return seed -> daily returns, float32 (sessions,), of one trial.

    Raises:
        FileNotFoundError: The trial was never scored, or ran on another machine.
    """
    with np.load(folder / NAME) as file:
        return {int(name.removeprefix("seed_")): file[name] for name in file.files}


def study_returns(study: "optuna.Study", home: Path) -> dict[int, dict[int, Returns]]:
    """Return trial -> seed -> daily returns of all trials whose folder is on this machine.

    Args:
        study: From `records.studies.session.load_study`.
        home: The workbench's home folder.
    """
    found = {}
    for trial in study.get_trials(deepcopy=False):
        folder = study_folder(home, study.study_name) / str(trial.number)
        if trial.state.is_finished() and (folder / NAME).is_file():
            found[trial.number] = read_returns(folder)
    return found
