"""The stress cell of a comparison: the winner, chosen on validation, under worse conditions."""

from pathlib import Path

from ppo_workbench.config import Config, Protocol
from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.pipeline.compare.plan import MODEL, cell_folder, cell_name
from ppo_workbench.pipeline.compare.scored import (
    folds_of,
    open_tests,
    prepare_scored,
    scored_splits,
)
from ppo_workbench.pipeline.models.stored import as_stored
from ppo_workbench.scoring.documents import CellResult
from ppo_workbench.scoring.stress import Stretch, stress_stretches


def stressed(config: Config, home: Path) -> CellResult:
    """Re-score the models of one arm, market and seed, one for each fold.

    Args:
        config: The cell's; its arm, market and seed are the winner's.
        home: The workbench's home folder.

    Returns:
        `{"stress": ...}` as `Stress.to_dict`, None under combinatorial folds, whose tests do
        not follow each other.
    """
    if config.splits.protocol is Protocol.cpcv:
        return {"stress": None}
    cell = config.compare.cell
    assert cell.comparison is not None
    assert cell.arm is not None
    assert cell.market is not None
    bars, folds = folds_of(config)
    open_tests(config, bars, folds)  # the access that the comparison has recorded
    stretches = []
    for number, fold in enumerate(folds):
        name = cell_name(cell.market, config.seed, cell.arm, number, len(folds))
        stored = load_artifact(cell_folder(home, cell.comparison, name), MODEL)
        opened = prepare_scored(config, bars, fold)
        policy, seen = as_stored(stored, opened)
        stretches += [Stretch(policy, seen, split.name) for split in scored_splits(config, fold)]
    return {"stress": stress_stretches(stretches).to_dict()}
