"""How much each parameter decides whether a trial is among the best, and how sure that is.

PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255) as Optuna implements it.  The interval
comes from a bootstrap over trials, the chance level from shuffling which trials were good.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_workbench.config.arrays import Floats, Ints

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


MIN_TRIALS = 8
TOP_FRAC = 0.25
RESAMPLES, FEWEST_RESAMPLES = 100, 20
RESAMPLED_TRIALS = 30_000  # a study of thousands has narrow intervals and needs fewer draws


@dataclass(frozen=True)
class Importance:
    """One parameter's share of all importances.

    Attributes:
        share: 0 .. 1, adding up to 1 over the parameters.
        low: 5th percentile over bootstrap resamples of the trials.
        high: 95th percentile.
        chance: 95th percentile of the share that the parameter gets, in the unit of `share`,
            when it is shuffled who was good.
    """

    name: str
    share: float
    low: float
    high: float
    chance: float

    @property
    def is_above_chance(self) -> bool:
        """Whether the share is more than shuffled trials give."""
        return self.share > self.chance


def measure_importances(
    study: "optuna.Study", usable: Sequence[int], names: Sequence[str], seed: int = 0
) -> tuple[Importance, ...]:
    """Return the importances, largest first.

    Args:
        study: The study.
        usable: Numbers of the complete, feasible trials.  Pruned and infeasible trials
            count as not among the best, so that what pruning weeds out shows too.
        names: Parameters to rank.
        seed: Of the resampling.

    Returns:
        One entry a parameter; nothing when fewer than `MIN_TRIALS` trials can be ranked.
    """
    trials = _ranked_trials(study, set(usable))
    if len(trials) < MIN_TRIALS or len(usable) < 2 or not names:
        return ()
    draws = max(FEWEST_RESAMPLES, min(RESAMPLES, RESAMPLED_TRIALS // len(trials)))
    rng = np.random.default_rng(seed)
    everything = np.arange(len(trials))
    evaluate = _evaluator(study, trials, len(usable), names)
    raw = evaluate(everything, everything)
    total = raw.sum()
    if not total > 0:
        return ()
    picks = [rng.integers(0, len(trials), len(trials)) for _ in range(draws)]
    boots = np.stack([_shares(evaluate(pick, pick)) for pick in picks])
    nulls = np.stack([evaluate(everything, rng.permutation(everything)) for _ in range(draws)])
    low, high = np.quantile(boots, (0.05, 0.95), axis=0)
    shares = _shares(raw)
    found = np.stack([shares, np.minimum(low, shares), np.maximum(high, shares),
                      np.quantile(nulls, 0.95, axis=0) / total], axis=1)  # fmt: skip
    order = np.argsort(-shares, kind="stable")
    return tuple(Importance(names[i], *found[i].tolist()) for i in order)


def _evaluator(
    study: "optuna.Study", trials: "Sequence[FrozenTrial]", usable: int, names: Sequence[str]
) -> Callable[[Ints, Ints], Floats]:
    """Return PED-ANOVA on resampled trials: whose parameters, whose values."""
    import warnings

    from optuna.importance import PedAnovaImportanceEvaluator

    scratch = scratch_study(study.directions)
    # Optuna asks for 5 trials at the top; more than half of the usable ones would be no top.
    top = min(max(5, round(TOP_FRAC * len(trials))), max(1, usable // 2))
    pedanova = PedAnovaImportanceEvaluator(target_quantile=top / len(trials))

    def evaluate(settings: Ints, values: Ints) -> Floats:
        drawn = [copy(trials[i]) for i in settings]
        for number, (trial, i) in enumerate(zip(drawn, values, strict=True)):
            trial.number = trial._trial_id = number  # the bootstrap draws a trial more than once
            trial.values = trials[i].values
        # Adding trials to a study copies each deeply, which took four fifths of the time.
        scratch.get_trials = lambda *_, **__: drawn  # type: ignore[method-assign]
        present = {name for trial in drawn for name in trial.params}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # thin regimes are expected in resamples
            known = [name for name in names if name in present]
            found = pedanova.evaluate(scratch, params=known)
        return np.array([found.get(name, 0.0) for name in names])

    return evaluate


def _ranked_trials(study: "optuna.Study", usable: set[int]) -> "list[FrozenTrial]":
    """Return the usable trials, and pruned or infeasible ones with the worst value."""
    from optuna.trial import TrialState, create_trial

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    good = [trial for trial in ended if trial.number in usable]
    if not good:
        return []
    columns = zip(*(trial.values for trial in good), strict=True)
    ends = [min if direction.name == "MAXIMIZE" else max for direction in study.directions]
    worst = [end(column) for end, column in zip(ends, columns, strict=True)]
    poor = [
        create_trial(params=trial.params, distributions=trial.distributions, values=worst)
        for trial in ended
        if trial.number not in usable
    ]
    return [*good, *poor]


def _shares(raw: Floats) -> Floats:
    total = raw.sum()
    return raw / total if total > 0 else np.full(len(raw), 1.0 / len(raw))


def scratch_study(directions: "Sequence[Any]") -> "optuna.Study":
    """Return an empty study in memory, which Optuna does not announce."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(directions=directions)
    finally:
        optuna.logging.set_verbosity(before)
