"""All statistics of a comparison under one name; docs/statistics.md says which to trust when.

One idea a file: `samples` (what is refused, intervals), `session_path` (a run as sessions),
`resampling` (block bootstrap), `sharpe_statistics`, `overfitting`, `arm_selection`,
`seed_statistics` and `power`.
"""

from ppo_workbench.scoring.arm_selection import ConfidenceSet as ConfidenceSet
from ppo_workbench.scoring.arm_selection import SuperiorAbility as SuperiorAbility
from ppo_workbench.scoring.arm_selection import confidence_set as confidence_set
from ppo_workbench.scoring.arm_selection import superior_ability as superior_ability
from ppo_workbench.scoring.overfitting import Overfitting as Overfitting
from ppo_workbench.scoring.overfitting import (
    probability_of_overfitting as probability_of_overfitting,
)
from ppo_workbench.scoring.power import PowerReport as PowerReport
from ppo_workbench.scoring.power import SeedsToDecide as SeedsToDecide
from ppo_workbench.scoring.power import YearsToDecide as YearsToDecide
from ppo_workbench.scoring.power import seeds_to_decide as seeds_to_decide
from ppo_workbench.scoring.power import sharpe_difference_error as sharpe_difference_error
from ppo_workbench.scoring.power import sharpe_power as sharpe_power
from ppo_workbench.scoring.power import years_to_decide as years_to_decide
from ppo_workbench.scoring.resampling import FIGURES as FIGURES
from ppo_workbench.scoring.resampling import Difference as Difference
from ppo_workbench.scoring.resampling import Resamples as Resamples
from ppo_workbench.scoring.resampling import optimal_block_sessions as optimal_block_sessions
from ppo_workbench.scoring.resampling import pool as pool
from ppo_workbench.scoring.resampling import resample as resample
from ppo_workbench.scoring.samples import Interval as Interval
from ppo_workbench.scoring.samples import StatisticsError as StatisticsError
from ppo_workbench.scoring.seed_statistics import SeedComparison as SeedComparison
from ppo_workbench.scoring.seed_statistics import compare_seeds as compare_seeds
from ppo_workbench.scoring.seed_statistics import interquartile_mean as interquartile_mean
from ppo_workbench.scoring.seed_statistics import (
    probability_of_improvement as probability_of_improvement,
)
from ppo_workbench.scoring.session_path import SessionPath as SessionPath
from ppo_workbench.scoring.sharpe_inference import sharpe_inference as sharpe_inference
from ppo_workbench.scoring.sharpe_statistics import AnnualSharpe as AnnualSharpe
from ppo_workbench.scoring.sharpe_statistics import DeflatedSharpe as DeflatedSharpe
from ppo_workbench.scoring.sharpe_statistics import ProbabilisticSharpe as ProbabilisticSharpe
from ppo_workbench.scoring.sharpe_statistics import SharpeMoments as SharpeMoments
from ppo_workbench.scoring.sharpe_statistics import TrackRecord as TrackRecord
from ppo_workbench.scoring.sharpe_statistics import annual_sharpe as annual_sharpe
from ppo_workbench.scoring.sharpe_statistics import deflated_sharpe as deflated_sharpe
from ppo_workbench.scoring.sharpe_statistics import (
    expected_maximum_sharpe as expected_maximum_sharpe,
)
from ppo_workbench.scoring.sharpe_statistics import lo_factor as lo_factor
from ppo_workbench.scoring.sharpe_statistics import minimum_backtest_years as minimum_backtest_years
from ppo_workbench.scoring.sharpe_statistics import minimum_track_record as minimum_track_record
from ppo_workbench.scoring.sharpe_statistics import probabilistic_sharpe as probabilistic_sharpe
