"""A study's trials as plain rows: states, values, errors, costs and where to find them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_workbench.config.secrets import redact

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STATES = ("complete", "infeasible", "pruned", "failed", "running", "waiting")


@dataclass(frozen=True)
class Parameter:
    """One searched parameter, over all trials.

    Attributes:
        name: The full key, such as "model.learning_rate".
        low: Lowest value of the search; of a choice 0.
        high: Highest value of the search; of a choice its number of options less 1.
        log: Searched on a logarithmic scale.
        choices: The options as text, empty for a number.
    """

    name: str
    low: float
    high: float
    log: bool
    choices: tuple[str, ...] = ()

    def position(self, value: object) -> float:
        """Return where a value lies between `low` (0) and `high` (1), by the search's scale."""
        if self.choices:
            place, low, high = float(self.choices.index(str(value))), self.low, self.high
        else:
            scale = math.log if self.log else float
            place, low, high = (scale(float(v)) for v in (value, self.low, self.high))  # type: ignore[arg-type]
        return (place - low) / (high - low) if high > low else 0.5

    def grid(self, points: int) -> list[Any]:
        """Return `points` values over the searched range, or all options."""
        if self.choices:
            return list(self.choices)
        spaced = np.geomspace if self.log else np.linspace
        return [float(v) for v in spaced(self.low, self.high, points)]


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        state: One of `STATES`.  Infeasible is a complete trial that breaks a constraint;
            a value that is not finite counts as failed.
        values: One finite value an objective; empty unless complete or infeasible.
        errors: The standard error of each value, None where the trial recorded none.
        intermediate: Reported (step, value), finite values only.
        timesteps: Environment steps trained, None where not recorded.
    """

    number: int
    state: str
    values: tuple[float, ...]
    errors: tuple[float | None, ...]
    params: Mapping[str, Any]
    intermediate: tuple[tuple[int, float], ...]
    timesteps: float | None
    seconds: float | None
    seeds: str
    run_id: str
    reason: str

    @property
    def shown_value(self) -> float | None:
        """The first objective, or the last value that a pruned or running trial reported."""
        if self.values:
            return self.values[0]
        return self.intermediate[-1][1] if self.intermediate else None


@dataclass(frozen=True)
class Cost:
    """What pruning saved, in environment steps.

    Attributes:
        full_timesteps: Median of the complete trials, or the most of any trial if none is.
        trained_timesteps: Steps of complete and pruned trials together.
        unpruned_timesteps: The same trials, had every pruned one run to `full_timesteps`.
        saved_timesteps: The difference.
        saved_frac: Saved over unpruned, 0 .. 1.
        failed_timesteps: Steps that failed trials took, in none of the above.
        unrecorded: Complete and pruned trials without recorded steps, in none of the above.
    """

    full_timesteps: float
    trained_timesteps: float
    unpruned_timesteps: float
    saved_timesteps: float
    saved_frac: float
    failed_timesteps: float
    unrecorded: int


def read_trials(study: "optuna.Study") -> list[TrialRow]:
    """Return all trials of a study in the order of their numbers."""
    trials = study.get_trials(deepcopy=False)
    return [_row(trial, len(study.directions)) for trial in trials]


def read_parameters(study: "optuna.Study") -> list[Parameter]:
    """Return the parameters that any trial sampled, without those with a single value."""
    found: dict[str, list[BaseDistribution]] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, distribution in trial.distributions.items():
            seen = found.setdefault(name, [])
            if distribution not in seen:
                seen.append(distribution)
    parameters = [_parameter(name, seen) for name, seen in found.items()]
    return [p for p in parameters if p.high > p.low]


def measure_cost(rows: Sequence[TrialRow]) -> Cost | None:
    """Return what pruning saved, or None if no complete or pruned trial recorded its steps."""
    ended = [row for row in rows if row.state in ("complete", "infeasible", "pruned")]
    known = [row for row in ended if row.timesteps is not None]
    if not known:
        return None
    whole = [row.timesteps or 0.0 for row in known if row.state != "pruned"]
    cut = [row.timesteps or 0.0 for row in known if row.state == "pruned"]
    full = float(np.median(whole)) if whole else max(cut)
    saved = sum(max(full - steps, 0.0) for steps in cut)
    trained = sum(whole) + sum(cut)
    return Cost(
        full_timesteps=full,
        trained_timesteps=trained,
        unpruned_timesteps=trained + saved,
        saved_timesteps=saved,
        saved_frac=saved / (trained + saved) if trained + saved else 0.0,
        failed_timesteps=sum(row.timesteps or 0.0 for row in rows if row.state == "failed"),
        unrecorded=len(ended) - len(known),
    )


def _row(trial: "FrozenTrial", objectives: int) -> TrialRow:
    attrs = trial.user_attrs
    state, values, reason = _outcome(trial)
    seconds = trial.duration.total_seconds() if trial.duration else None
    return TrialRow(
        number=trial.number,
        state=state,
        values=values,
        errors=_errors(attrs.get("standard_error"), objectives),
        params=dict(trial.params),
        intermediate=tuple(
            (step, float(value))
            for step, value in sorted(trial.intermediate_values.items())
            if math.isfinite(value)
        ),
        timesteps=_number(attrs.get("timesteps")),
        seconds=seconds,
        seeds=_text(attrs.get("seeds", attrs.get("seed"))),
        run_id=_text(attrs.get("mlflow_run_id", attrs.get("run_id"))),
        reason=reason,
    )


def _outcome(trial: "FrozenTrial") -> tuple[str, tuple[float, ...], str]:
    from optuna.trial import TrialState

    reason = redact(_text(trial.user_attrs.get("fail_reason")))
    if trial.state == TrialState.FAIL:
        return "failed", (), reason or "no reason recorded"
    if trial.state == TrialState.PRUNED:
        step = trial.last_step
        return "pruned", (), reason or ("" if step is None else f"pruned at step {step}")
    if trial.state != TrialState.COMPLETE:
        return trial.state.name.lower(), (), reason
    values = tuple(float(value) for value in trial.values)
    if not all(map(math.isfinite, values)):
        return "failed", (), f"the objective is {', '.join(map(str, values))}"
    broken = [f"{key} by {v:.4g}" for key, v in trial.constraints.items() if not v <= 0.0]
    if broken:
        return "infeasible", values, f"breaks constraint {', '.join(broken)}"
    return "complete", values, reason


def _errors(stored: object, objectives: int) -> tuple[float | None, ...]:
    """Take one error an objective; a single number belongs to the first."""
    given = list(stored) if isinstance(stored, list | tuple) else [stored]
    errors = [_number(error) for error in given][:objectives]
    errors = [error if error is not None and error > 0 else None for error in errors]
    return (*errors, *[None] * (objectives - len(errors)))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _text(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _parameter(name: str, seen: "Sequence[BaseDistribution]") -> Parameter:
    """Join the distributions that a parameter had; the search space may change on the way."""
    from optuna.distributions import FloatDistribution, IntDistribution

    numbers = [d for d in seen if isinstance(d, FloatDistribution | IntDistribution)]
    if len(numbers) == len(seen):
        low = float(min(d.low for d in numbers))
        high = float(max(d.high for d in numbers))
        return Parameter(name, low, high, log=all(d.log for d in numbers))
    choices = tuple(dict.fromkeys(str(c) for d in seen for c in getattr(d, "choices", ())))
    return Parameter(name, 0.0, len(choices) - 1.0, log=False, choices=choices)
