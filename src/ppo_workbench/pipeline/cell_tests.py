"""The tests of a cell: its folds, and the one look that all cells of a comparison share."""

from collections.abc import Sequence

import numpy as np

from ppo_workbench.config import Config, ConfigError
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.folds import evaluation_folds
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.splits import Fold
from ppo_workbench.pipeline.comparison_plan import MAIN
from ppo_workbench.pipeline.stored import open_range
from ppo_workbench.records.ledger import Opening
from ppo_workbench.scoring.session_path import LEAST_SESSIONS
from ppo_workbench.trading.experiment import usable_bars


def folds_of(config: Config) -> tuple[Bars, list[Fold]]:
    """Return the bars of a configuration and the folds of its protocol."""
    bars, warmup = usable_bars(config)
    return bars, evaluation_folds(bars, derived(config, bars).splits, warmup)


def open_tests(config: Config, bars: Bars, folds: Sequence[Fold]) -> Opening:
    """Record the one look of a comparison at all its tests: it scores the market's arms.

    Raises:
        LedgerError: It cannot be recorded, so nothing is opened.
    """
    cell = config.compare.cell
    tests = [split for fold in folds for split in fold.test]
    start, stop = min(split.start for split in tests), max(split.stop for split in tests)
    market = config.compare.markets.get(cell.market or MAIN)
    arms = (market.arms if market else []) or config.compare.arms
    why = f"comparison {cell.comparison}"
    return open_range(bars, start, stop, why, cell.look, max(len(arms), 1))


def check_sessions(bars: Bars, folds: Sequence[Fold]) -> None:
    """Refuse tests that are too short for any statistics, before the training.

    Raises:
        ConfigError: Fewer than `LEAST_SESSIONS` sessions.
    """
    tests = {(split.start, split.stop) for fold in folds for split in fold.test}
    sessions = sum(len(np.unique(bars.session[start + 1 : stop])) for start, stop in tests)
    if sessions < LEAST_SESSIONS:
        raise ConfigError(
            f"splits.test_frac: the tests have {sessions} sessions, a comparison needs "
            f"{LEAST_SESSIONS} or more; give more bars or a larger share"
        )
