"""One trial of a study: seeds in lockstep, an objective from validation alone, pruning.

The test split is out of reach: `prepare` cuts the bars before it.  A trial tells the
study its own end; its folder holds everything that it was.

Most pruners compare trials at the same point of training, so all seeds advance in lockstep
and report their common objective at every evaluation.  The Wilcoxon pruner compares finished
scores on the same seed and window, so the seeds are trained one after the other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from time import monotonic
from typing import TypedDict

import numpy as np

from ppo_workbench.config import Config, ConfigError, Raw
from ppo_workbench.config.arrays import Singles
from ppo_workbench.delivery.artifact import save_artifact
from ppo_workbench.delivery.describe import describe_model, plain
from ppo_workbench.delivery.metadata import Scorecards
from ppo_workbench.delivery.network import PolicyWeights
from ppo_workbench.learning.training import Hooks, Training, Validation
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.market.horizons import recorded_horizons
from ppo_workbench.pipeline.given import Given
from ppo_workbench.pipeline.models.stored import artifact_tensors, run_on_split, trained_policy
from ppo_workbench.pipeline.train.outcome import bars_of, describe_training
from ppo_workbench.pipeline.train.scores import clearly_better, effective_evaluations, validated
from ppo_workbench.plugins import registered
from ppo_workbench.records.studies.returns import write_returns
from ppo_workbench.records.studies.session import TrialAttributes, TrialSession
from ppo_workbench.scoring.catalogue import NEITHER, metric_of
from ppo_workbench.scoring.metrics import (
    RATIO_CAP,
    Scorecard,
    scorecard,
    sharpe_ratio,
)
from ppo_workbench.trading.experiment import Experiment, prepared

WINDOWED = "sharpe_annual"


@dataclass(frozen=True)
class Bound:
    """A pessimistic mean of a metric over seeds (and windows).

    Attributes:
        value: mean less (or plus) k standard errors.
        mean, standard_error: What it is made of.
    """

    value: float
    mean: float
    standard_error: float


class MetricsLine(TypedDict):
    """A line of metrics.jsonl; without a seed it is of the whole trial."""

    step: int
    seed: int | None
    metrics: dict[str, float]


class SeedTraining:
    """One seed of a trial: its learner, and the scores of its evaluations."""

    def __init__(self, experiment: Experiment, seed: int, metrics: list[MetricsLine]) -> None:
        """Build the learner.

        Args:
            experiment: Shared by all seeds.
            seed: Of the learner and its environments.
            metrics: Receives (step, key, value) rows for the record.
        """
        config = replace(experiment.config, seed=seed)
        self.seed = seed
        self.cards: list[Scorecard] = []
        self.windows: list[list[float]] = []
        self._returns: list[Singles] = []
        self.artifact: str | None = None
        self._experiment, self._metrics = replace(experiment, config=config), metrics
        env = TradingVecEnv(self._experiment.batch())
        hooks = Hooks(self.evaluate, clearly_better, self._record)
        bars = len(experiment.splits["train"])
        config = replace(config, checkpoint=replace(config.checkpoint, every_seconds=None))
        self.training = Training(config, env, bars, hooks)

    @property
    def returns(self) -> Singles:
        """Daily returns on the validation split, of the latest score."""
        return self._returns[-1]

    @property
    def effective_evaluations(self) -> float:
        """Of how many independent evaluations the checkpoint was chosen."""
        return effective_evaluations(self._experiment.config, self.training.result())

    def _record(self, metrics: dict[str, float], step: int) -> None:
        self._metrics.append({"step": step, "seed": self.seed, "metrics": metrics})

    def finish(self, folder: Path, raw: Raw, run_id: str | None) -> None:
        """Repeat the scores of the selected checkpoint as the last, keep it as `seed_SEED.pth`.

        Args:
            folder: The trial's.
            raw: The configuration with secrets unresolved.
            run_id: MLflow run of the trial, if any.
        """
        result, config = self.training.result(), self._experiment.config
        at = [step for step, _ in result.evaluations].index(result.selected_timesteps)
        self.cards.append(self.cards[at])
        self.windows.append(self.windows[at])
        self._returns.append(self._returns[at])
        metadata = describe_model(
            self._experiment,
            describe_training(config, result),
            Scorecards(validation=plain(result.evaluations[at][1].metrics)),
            {**raw, "seed": self.seed},
            run_id,
        )
        self.artifact = f"seed_{self.seed}"
        tensors = artifact_tensors(self._experiment, result.tensors)
        save_artifact(folder, self.artifact, tensors, metadata, overwrite=True)

    def evaluate(self, weights: PolicyWeights) -> Validation:
        """Score weights on the validation split, whole and by window, and keep the scores."""
        experiment = self._experiment
        config = experiment.config
        policy = trained_policy(config.model.type, weights)
        trace = run_on_split(experiment, policy, "validation")
        excess = trace.daily_returns() - trace.cash_returns()
        count, card = config.objective.windows, scorecard(trace)
        if card.ruined:  # after few sessions, perhaps
            self.windows.append([-RATIO_CAP] * count)
        else:
            _check_windows(count, len(excess))
            parts = np.array_split(excess, count)
            self.windows.append([sharpe_ratio(part, trace.sessions_per_year) for part in parts])
        self.cards.append(card)
        self._returns.append(trace.daily_returns().astype(np.float32))
        return validated(trace, card)


def bound(key: str, values: Sequence[float], k: float, fallback: float) -> Bound:
    """Return mean -/+ k standard errors of values over seeds and windows.

    Args:
        key: Of the metric, which decides the side.
        values: One for each seed (and window).
        k: Standard errors.
        fallback: Standard error where there is a single value.
    """
    mean = fmean(values)
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else fallback
    return Bound(mean - metric_of(key).better * k * error, mean, error)


def objective(config: Config, metric: str, seeds: Sequence[SeedTraining], at: int) -> Bound:
    """Return the bound of one metric at evaluation number `at` of all seeds."""
    cards = [seed.cards[at] for seed in seeds]
    if metric == WINDOWED and len(seeds) > 1:
        values = [value for seed in seeds for value in seed.windows[at]]
    else:
        values = [card.to_dict()[metric] for card in cards]
    card = cards[0]
    fallback = card.sharpe_standard_error if metric == WINDOWED else 0.0
    return bound(metric, values, config.objective.standard_errors, fallback)


def instances(metric: str, seed: SeedTraining) -> list[float]:
    """Return the latest scores of a seed that are paired between trials, one for each window."""
    return seed.windows[-1] if metric == WINDOWED else [seed.cards[-1].to_dict()[metric]]


def check_objective(config: Config) -> None:
    """Refuse metrics that no scorecard has, or that are neither good nor bad by themselves.

    Raises:
        ConfigError: Another name.
    """
    single = [name for name, kind in Scorecard.__annotations__.items() if kind in (int, float)]
    single += registered().metrics
    known = sorted(name for name in single if metric_of(name).better != NEITHER)
    for name in config.objective.metrics:
        if name not in known:
            raise ConfigError(f"objective.metrics={name!r}: must be one of {', '.join(known)}")


def check_directions(config: Config, directions: Sequence[str]) -> None:
    """Refuse a sweep that looks for the wrong end of a metric, or for another number of them.

    Args:
        config: Of a trial; `objective.metrics` are those that `check_objective` lets through.
        directions: `hydra.sweeper.directions`.

    Raises:
        ConfigError: They are not those of the metrics.
    """
    names = config.objective.metrics
    wanted = ["maximize" if metric_of(name).better > 0 else "minimize" for name in names]
    if list(directions) != wanted:
        raise ConfigError(
            f"hydra.sweeper.directions={list(directions)}: objective.metrics={names} are better "
            f"with {wanted}; set hydra.sweeper.directions=[{','.join(wanted)}]"
        )


def check_market(config: Config) -> None:
    """Refuse bars, splits and episodes that no trial could be trained and judged on.

    What agrees in all that this depends on with what was checked before is not laid out again.

    Raises:
        BarsError: The bars cannot be had, or break a rule.
        ConfigError: They are too few for `objective.windows`.
    """
    env, count = config.env, config.objective.windows
    files = [_identity(path) for path in (config.data.path, config.data.events_path)]
    parts = (config.data, config.splits, config.features, env.fill, env.episode_bars, count, files)
    if repr(parts) in _LAID_OUT:
        return
    experiment = prepared(config)
    experiment.batch()  # refuses episodes that are longer than the training bars
    split = experiment.splits["validation"]
    _check_windows(count, len(np.unique(experiment.bars.session[split.start + 1 : split.stop])))
    _LAID_OUT.add(repr(parts))


_LAID_OUT: set[str] = set()


def _identity(path: str | None) -> object:
    """Return what changes with a file; None without one."""
    try:
        found = Path(path).stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


def _check_windows(count: int, sessions: int) -> None:
    if sessions < 2 * count:
        raise ConfigError(
            f"objective.windows={count}: the validation split has {sessions} sessions, and "
            "each window needs 2 or more; use fewer windows or more bars"
        )


def run_trial(given: Given) -> float:
    """Train all seeds of one trial, report to the study, and tell its end.

    Args:
        given: The trial's experiment; `given.config.trial` names study and number.

    Returns:
        The first objective; the pessimistic bound of what was reached when it was pruned.
    """
    config, raw, home = given.config, given.raw, given.home
    trial = config.trial
    assert trial.study is not None
    assert trial.number is not None
    check_objective(config)
    folder = home / "sweeps" / trial.study / str(trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    _write_config(folder, raw)
    session = TrialSession(trial.storage, trial.study, trial.number, home)
    try:
        return _Run(config, raw, session, folder).run()
    except Exception as error:
        session.failed(f"{type(error).__name__}: {error}")
        raise


def _write_config(folder: Path, raw: Raw) -> None:
    (folder / "config.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")


class _Run:
    """The seeds of one trial, and what is told of them."""

    def __init__(self, config: Config, raw: Raw, session: TrialSession, folder: Path) -> None:
        self._started = monotonic()
        self._session, self._folder = session, folder
        self._metric = config.objective.metrics[0]
        self._metrics: list[MetricsLine] = []
        experiment = prepared(config)
        self._config = experiment.config
        self._raw = recorded_horizons(raw, self._config)
        self._bars = bars_of(experiment, self._raw)
        _write_config(folder, self._raw)  # again: with what followed from the bars
        self._seeds = [
            SeedTraining(experiment, seed, self._metrics) for seed in config.objective.seeds
        ]

    def run(self) -> float:
        pruned_at = self._in_turn() if self._session.compares_instances else self._lockstep()
        if pruned_at is None:
            return self._complete()
        now = objective(self._config, self._metric, self._scored(), -1)
        self._session.pruned(self._write("PRUNED", [now], pruned_at))
        return now.value

    def _lockstep(self) -> int | None:
        """Train all seeds from evaluation to evaluation; return where it was pruned.

        The step of a report counts the parts of the budget that are trained, not the
        evaluations: a rollout longer than a part skips some, and a pruner compares trials that
        were trained equally long.
        """
        evaluation, more = 0, True
        while more:
            more = False
            for seed in self._seeds:
                more = seed.training.advance() or more
            now = objective(self._config, self._metric, self._seeds, evaluation)
            step = min(seed.training.evaluations_due for seed in self._seeds) - 1
            self._record(now, step)
            if self._session.report(now.value, step) and more:
                return step
            evaluation += 1
        for seed in self._seeds:
            self._finish(seed)
        return None

    def _in_turn(self) -> int | None:
        """Train seed after seed to its end; return the last instance before it was pruned.

        The step of a report is the number of the (seed, window) that it is the score of.
        """
        step = 0
        for position, seed in enumerate(self._seeds):
            while seed.training.advance():
                pass
            self._finish(seed)
            self._record(objective(self._config, self._metric, self._scored(), -1), position)
            prune = False
            for value in instances(self._metric, seed):
                prune = self._session.report(value, step)
                step += 1
            if prune and seed is not self._seeds[-1]:
                return step - 1
        return None

    def _record(self, now: Bound, step: int) -> None:
        self._metrics.append({"step": step, "seed": None, "metrics": {"objective": now.value}})

    def _finish(self, seed: SeedTraining) -> None:
        seed.finish(self._folder, self._raw, self._session.run_id)

    def _scored(self) -> list[SeedTraining]:
        return [seed for seed in self._seeds if seed.cards]

    def _complete(self) -> float:
        """Tell the study what the selected checkpoints of all seeds reached."""
        config = self._config
        bounds = [objective(config, name, self._seeds, -1) for name in config.objective.metrics]
        fall = max(seed.cards[-1].max_drawdown_frac for seed in self._seeds)
        limit = config.objective.max_drawdown_frac
        attributes = self._write("COMPLETE", bounds, None)
        constraints = [] if limit is None else [fall - limit]
        self._session.complete([b.value for b in bounds], attributes, constraints)
        return bounds[0].value

    def _write(self, state: str, bounds: Sequence[Bound], pruned_at: int | None) -> TrialAttributes:
        """Write what the trial leaves in its folder; return what the study keeps of it."""
        scored, trial = self._scored(), self._config.trial
        attributes: TrialAttributes = {
            "seeds": [seed.seed for seed in self._seeds],
            "mean": bounds[0].mean,
            "standard_error": bounds[0].standard_error,
            "interval": [bounds[0].mean + z * bounds[0].standard_error for z in (-1.96, 1.96)],
            "timesteps": sum(seed.training.timesteps for seed in self._seeds),
            "seconds": monotonic() - self._started,
            "pruned_at": pruned_at,
            "folder": f"sweeps/{trial.study}/{trial.number}",
            "artifacts": [seed.artifact for seed in scored if seed.artifact is not None],
        }
        result = {
            "study": trial.study,
            "trial": trial.number,
            "run_id": self._session.run_id,
            "params": self._session.params,
            "state": state,
            "values": [b.value for b in bounds],
            **attributes,
            "data": self._bars,
            "scorecards": {str(seed.seed): seed.cards[-1].to_dict() for seed in scored},
            "windows": {str(seed.seed): seed.windows[-1] for seed in scored},
        }
        write_returns(self._folder, {seed.seed: seed.returns for seed in scored})
        (self._folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        with (self._folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in self._metrics)
        return attributes
