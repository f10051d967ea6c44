"""Score a training: the agent and its yardsticks on the open splits."""

from dataclasses import replace

import numpy as np

from ppo_workbench.config import Config, Select
from ppo_workbench.learning.training import TrainingResult, Validation
from ppo_workbench.pipeline.models.stored import MODEL_NAMES, run_on_split, selected_policy
from ppo_workbench.scoring.metrics import RATIO_CAP, Scorecard, scorecard
from ppo_workbench.scoring.reference.yardsticks import tuned_threshold, yardsticks
from ppo_workbench.scoring.statistics.studentised import (
    effective_count,
    long_run_error,
    sharpe_influence,
)
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment

Scores = dict[str, dict[str, Scorecard]]


def lower_bound(card: Scorecard) -> float:
    """Return the objective: annual Sharpe less one standard error (Lo 2002).

    Of a ruined account, whose few sessions say little, it is the worst there is.
    """
    bound = card.sharpe_annual - card.sharpe_standard_error
    return min(bound, -RATIO_CAP) if card.ruined else bound


def validated(trace: Trace, card: Scorecard) -> Validation:
    """Return what checkpoints are compared by: the annual Sharpe ratio, of ruin the worst."""
    if card.ruined:
        return Validation(-RATIO_CAP, card.to_dict())
    excess = trace.daily_returns() - trace.cash_returns()
    parts = sharpe_influence(excess, trace.sessions_per_year).astype(np.float32)
    return Validation(card.sharpe_annual, card.to_dict(), parts)


def clearly_better(earlier: Validation, last: Validation) -> bool:
    """Return whether a checkpoint beats the last by more than a paired standard error.

    The last has learned longest, and one validation split cannot tell small differences from
    luck: docs/statistics.md has what other rules would have kept.
    """
    apart = earlier.score - last.score
    if not (len(earlier.parts) and len(last.parts)):  # one is ruined
        return apart > 0.0
    return bool(apart > long_run_error(earlier.parts.astype(np.float64) - last.parts))


def effective_evaluations(config: Config, result: TrainingResult) -> float:
    """Return of how many independent evaluations the checkpoint was chosen, 1 is no choice."""
    if config.select is Select.last:
        return 1.0
    counted = effective_count([found.parts.astype(np.float64) for _, found in result.evaluations])
    return max(counted, 1.0)  # equal evaluations come out at 1 less a rounding


def score_policies(
    experiment: Experiment, result: TrainingResult
) -> tuple[Scores, dict[str, Trace]]:
    """Score the selected and the last checkpoint and the yardsticks on both open splits."""
    config = experiment.config
    own = MODEL_NAMES[config.model.type]
    policies = [selected_policy(config, result.tensors)]
    if result.selected_timesteps != result.timesteps:
        last = selected_policy(config, result.last_tensors)
        policies.append(replace(last, name=f"{own}, last"))
    threshold = tuned_threshold(experiment)
    policies += [] if threshold is None else [threshold]
    policies += yardsticks(len(experiment.bars), config.seed)
    scores: Scores = {}
    traces = {}
    for policy in policies:
        scores[policy.name] = {}
        for split in ("train", "validation"):
            trace = run_on_split(experiment, policy, split)
            scores[policy.name][split] = scorecard(trace)
        traces[policy.name] = trace
    return scores, traces


def own_scores(config: Config, scores: Scores) -> dict[str, Scorecard]:
    """Return the scorecards of the trained agent by split."""
    return scores[MODEL_NAMES[config.model.type]]
