"""Yardsticks: policies that a trained agent has to be compared with."""

import numpy as np

from ppo_workbench.scoring.backtest import RANDOM, SERIES, THRESHOLD, Policy
from ppo_workbench.scoring.reference.tuning import ThresholdScorer
from ppo_workbench.trading.experiment import Experiment

_ENTRIES = (0.5, 1.0, 1.5, 2.0)
EXIT_FRACTION_OF_ENTRY = 0.25


def yardsticks(length: int, seed: int) -> list[Policy]:
    """Return random-legal, buy-and-hold (no house rules) and flat over `length` bars."""
    return [
        Policy("random-legal", RANDOM, seed=seed),
        Policy("buy-and-hold", SERIES, series=np.ones(length), unconstrained=True),
        Policy("flat", SERIES, series=np.zeros(length)),
    ]


def threshold_candidates(experiment: Experiment) -> list[Policy]:
    """Return rules that trade against (or with) a large distance from a moving average."""
    table = experiment.table
    candidates = []
    for index, name in enumerate(table.names):
        if not name.startswith("ema_distance_"):
            continue
        for sign, kind in ((1.0, "against"), (-1.0, "with")):
            series = sign * table.features[:, index]
            candidates += [
                Policy(
                    f"threshold rule ({kind} {name} at {entry:g}, tuned on train)",
                    THRESHOLD,
                    series=series,
                    entry=entry,
                    exit=EXIT_FRACTION_OF_ENTRY * entry,
                )
                for entry in _ENTRIES
            ]
    return candidates


def tuned_threshold(experiment: Experiment) -> Policy | None:
    """Return the threshold rule with the best training Sharpe under the same masks.

    None where no `ema_distance_N` feature is observed.
    """
    scorer = ThresholdScorer(experiment)
    # The first of equals wins.
    return max(threshold_candidates(experiment), key=scorer.sharpe, default=None)
