"""What a cell is scored on: its folds, and the one access that all cells of a comparison share."""

from collections.abc import Sequence

import numpy as np

from ppo_workbench.config import Config, ConfigError
from ppo_workbench.delivery.describe import utc
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.folds import evaluation_folds
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.splits import Fold, Split
from ppo_workbench.pipeline.compare.plan import MAIN
from ppo_workbench.pipeline.models.stored import open_range
from ppo_workbench.scoring.documents import LookPart
from ppo_workbench.scoring.session_path import LEAST_SESSIONS
from ppo_workbench.trading.experiment import (
    Experiment,
    prepare_fold,
    prepare_fold_with_test,
    usable_bars,
)

VALIDATION = "validation"
_SCORED = {"test": "the tests have", VALIDATION: "the validation has"}


def folds_of(config: Config) -> tuple[Bars, list[Fold]]:
    """Return the bars of a configuration and the folds of its protocol."""
    bars, warmup = usable_bars(config)
    return bars, evaluation_folds(bars, derived(config, bars).splits, warmup)


def scored_splits(config: Config, fold: Fold) -> tuple[Split, ...]:
    """Return what a fold is scored on: its tests, or with `compare.split` its validation."""
    return (fold.validation,) if config.compare.split == VALIDATION else fold.test


def open_tests(config: Config, bars: Bars, folds: Sequence[Fold]) -> LookPart:
    """Record the one access of a comparison to all its tests: it scores the market's arms.

    Returns:
        First and last bar scored on (`start`, `stop`) and `looks`, which counts this
        comparison's first variant: 1 where nothing was scored before it.  Where no test is
        opened they are of the validation, `looks` is 0, and nothing is recorded.

    Raises:
        LedgerError: It cannot be recorded, so nothing is opened.
    """
    cell = config.compare.cell
    splits = [split for fold in folds for split in scored_splits(config, fold)]
    start, stop = min(split.start for split in splits), max(split.stop for split in splits)
    if config.compare.split == VALIDATION:
        first, last = (utc(int(bars.start_ns[i])).isoformat() for i in (start, stop - 1))
        return {"start": first, "stop": last, "looks": 0}
    market = config.compare.markets.get(cell.market or MAIN)
    arms = (market.arms if market else []) or config.compare.arms
    why = f"comparison {cell.comparison}"
    access = open_range(bars, start, stop, why, cell.look, max(len(arms), 1))
    looks = access.looks - access.variants + 1
    return {"start": access.start, "stop": access.stop, "looks": looks}


def prepare_scored(config: Config, bars: Bars, fold: Fold) -> Experiment:
    """Compute what a fold is scored on; its tests only after `open_tests` has recorded them."""
    prepare = prepare_fold if config.compare.split == VALIDATION else prepare_fold_with_test
    return prepare(config, bars, fold)


def check_sessions(config: Config, bars: Bars, folds: Sequence[Fold]) -> None:
    """Refuse tests that are too short for any statistics, before the training.

    Raises:
        ConfigError: Fewer than `LEAST_SESSIONS` sessions.
    """
    splits = [split for fold in folds for split in scored_splits(config, fold)]
    tests = {(split.start, split.stop) for split in splits}
    sessions = sum(len(np.unique(bars.session[start + 1 : stop])) for start, stop in tests)
    if sessions < LEAST_SESSIONS:
        raise ConfigError(
            f"splits.{config.compare.split}_frac: {_SCORED[config.compare.split]} {sessions} "
            f"sessions, a comparison needs {LEAST_SESSIONS} or more; give more bars or a larger "
            "share"
        )
