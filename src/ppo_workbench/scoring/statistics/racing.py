"""Racing: drop candidates that are clearly worse before all of them are trained to the end."""

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np

CONFIDENCE = 0.975  # one-sided
LEAST_SEEDS = 2


def clearly_worse(scores: Mapping[int, Sequence[Sequence[float]]]) -> list[int]:
    """Return the candidates whose paired difference to the leader is below 0 with confidence.

    Scores are paired by seed and window, as in F-Race (Birattari et al. 2002), with Student's
    quantile. Windows of one seed share its luck, so a single seed drops nobody.

    Args:
        scores: Candidate -> one row of window scores for each seed, equal shapes, more is
            better.
    """
    from scipy.stats import t as student

    tables = {name: np.asarray(rows, np.float64) for name, rows in scores.items()}
    leader = max(tables, key=lambda name: float(tables[name].mean()))
    seeds, count = len(tables[leader]), tables[leader].size
    if seeds < LEAST_SEEDS:
        return []
    quantile = float(student.ppf(CONFIDENCE, count - 1))
    worse = []
    for name, table in tables.items():
        behind = (tables[leader] - table).ravel()
        error = float(behind.std(ddof=1)) / sqrt(count)
        if float(behind.mean()) > quantile * error:
            worse.append(name)
    return worse
