"""What the analysis of a study finds, for its page and its sentences."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppo_workbench.reports.study.importance import Importance
from ppo_workbench.reports.study.trials import Cost


@dataclass(frozen=True)
class Recommendation:
    """The setting to train.

    Attributes:
        number: The trial that had it.
        params: Its parameters, exactly as sampled.
        values: What the trial itself reached, one an objective.
        expected: What the surface expects there, luck taken out.
        expected_sd: Standard deviation of `expected`.
    """

    number: int
    params: Mapping[str, Any]
    values: tuple[float, ...]
    expected: tuple[float, ...]
    expected_sd: tuple[float, ...]


@dataclass(frozen=True)
class Analysis:
    """What a study tells.

    Attributes:
        counts: Trials a state, adding up to all trials.
        best: Number of the trial with the best first objective, None without a complete one.
        best_value: Its value.
        best_error: Its recorded standard error.
        pareto: Numbers of the Pareto front, empty for one objective.
        importances: Largest first, empty for too few trials.
        plateau: Trial numbers that cannot be told from the best, best expected first.
        cost: What pruning saved, None without recorded timesteps.
        summary: Sentences for a person.
        command: Trains the recommendation; empty without one.
    """

    study: str
    objective_names: tuple[str, ...]
    directions: tuple[str, ...]
    written_utc: str
    counts: Mapping[str, int]
    best: int | None
    best_value: float | None
    best_error: float | None
    pareto: tuple[int, ...]
    importances: tuple[Importance, ...]
    plateau: tuple[int, ...]
    plateau_definition: str
    recommended: Recommendation | None
    cost: Cost | None
    summary: tuple[str, ...]
    command: str
    html_path: Path
    json_path: Path
