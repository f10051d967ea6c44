"""All statistics of a comparison under one name; docs/statistics.md says which to trust when.

One idea a file: `samples` (what is refused, intervals), `session_path` (a run as sessions),
`resampling` (block bootstrap), `sharpe_statistics`, `overfitting`, `arm_selection`,
`seed_statistics` and `power`.
"""

from ppo_workbench.scoring.arm_selection import (
    ConfidenceSet,
    SuperiorAbility,
    confidence_set,
    superior_ability,
)
from ppo_workbench.scoring.overfitting import Overfitting, probability_of_overfitting
from ppo_workbench.scoring.power import (
    PowerReport,
    SeedsToDecide,
    YearsToDecide,
    seeds_to_decide,
    sharpe_difference_error,
    sharpe_power,
    years_to_decide,
)
from ppo_workbench.scoring.resampling import (
    FIGURES,
    Difference,
    Resamples,
    optimal_block_sessions,
    pool,
    resample,
)
from ppo_workbench.scoring.samples import Interval, StatisticsError
from ppo_workbench.scoring.seed_statistics import (
    SeedComparison,
    compare_seeds,
    interquartile_mean,
    probability_of_improvement,
)
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.sharpe_statistics import (
    AnnualSharpe,
    DeflatedSharpe,
    ProbabilisticSharpe,
    SharpeMoments,
    TrackRecord,
    annual_sharpe,
    deflated_sharpe,
    expected_maximum_sharpe,
    lo_factor,
    minimum_backtest_years,
    minimum_track_record,
    probabilistic_sharpe,
)

__all__ = [
    "FIGURES",
    "AnnualSharpe",
    "ConfidenceSet",
    "DeflatedSharpe",
    "Difference",
    "Interval",
    "Overfitting",
    "PowerReport",
    "ProbabilisticSharpe",
    "Resamples",
    "SeedComparison",
    "SeedsToDecide",
    "SessionPath",
    "SharpeMoments",
    "StatisticsError",
    "SuperiorAbility",
    "TrackRecord",
    "YearsToDecide",
    "annual_sharpe",
    "compare_seeds",
    "confidence_set",
    "deflated_sharpe",
    "expected_maximum_sharpe",
    "interquartile_mean",
    "lo_factor",
    "minimum_backtest_years",
    "minimum_track_record",
    "optimal_block_sessions",
    "pool",
    "probabilistic_sharpe",
    "probability_of_improvement",
    "probability_of_overfitting",
    "resample",
    "seeds_to_decide",
    "sharpe_difference_error",
    "sharpe_power",
    "superior_ability",
    "years_to_decide",
]
