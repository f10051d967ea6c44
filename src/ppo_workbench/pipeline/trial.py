"""One trial of a study: seeds in lockstep, an objective from validation alone, pruning.

The test split is out of reach: `prepare` cuts the bars before it.  A trial tells the
study its own end; its folder holds everything that it was.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from ppo_workbench.config import Config, ConfigError, ModelType
from ppo_workbench.delivery.inference import PolicyWeights
from ppo_workbench.learning.models import policy_weights
from ppo_workbench.learning.training import Hooks, Training, Validation
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.records.study import TrialSession
from ppo_workbench.scoring.backtest import NETWORK, Policy, backtest
from ppo_workbench.scoring.metrics import Scorecard, scorecard, sharpe_ratio
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars

LOWER_IS_BETTER = (
    "max_drawdown_frac",
    "max_drawdown_sessions",
    "max_drawdown_at_10pct_vol_frac",
    "volatility_annual_frac",
    "turnover_annual",
    "cost_usd",
    "cost_bps_of_turnover",
)
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


class SeedTraining:
    """One seed of a trial: its learner, and the scores of its evaluations."""

    def __init__(self, experiment: Experiment, seed: int, metrics: list[dict[str, Any]]) -> None:
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
        self._experiment, self._metrics = replace(experiment, config=config), metrics
        env = TradingVecEnv(self._experiment.batch())
        hooks = Hooks(evaluate=self._evaluate, record=self._record, progress=lambda standing: None)
        bars = len(experiment.splits["train"])
        config = replace(config, checkpoint=replace(config.checkpoint, every_seconds=None))
        self.training = Training(config, env, bars, hooks)

    def _evaluate(self, weights: PolicyWeights) -> Validation:
        card, windows, _ = self.score(weights)
        self.cards.append(card)
        self.windows.append(windows)
        return Validation(card.sharpe_annual - card.sharpe_standard_error, card.to_dict())

    def _record(self, metrics: dict[str, float], step: int) -> None:
        self._metrics.append({"step": step, "seed": self.seed, "metrics": metrics})

    def score(self, weights: PolicyWeights) -> tuple[Scorecard, list[float], Trace]:
        """Score weights on the validation split, whole and by window."""
        experiment = self._experiment
        config = experiment.config
        policy = Policy(
            "trial", NETWORK, weights, use_mask=config.model.type is ModelType.maskable_ppo
        )
        split = experiment.splits["validation"]
        trace = backtest(policy, experiment.bars, experiment.market, split, config)
        excess = trace.daily_returns() - trace.cash_returns()
        parts = np.array_split(excess, config.objective.windows)
        windows = [sharpe_ratio(part, trace.sessions_per_year) for part in parts if len(part) > 1]
        return scorecard(trace), windows, trace


def bound(metric: str, values: Sequence[float], k: float, fallback: float) -> Bound:
    """Return mean -/+ k standard errors of values over seeds and windows.

    Args:
        metric: Decides the side.
        values: One for each seed (and window).
        k: Standard errors.
        fallback: Standard error where there is a single value.
    """
    mean = fmean(values)
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else fallback
    sign = 1.0 if metric in LOWER_IS_BETTER else -1.0
    return Bound(mean + sign * k * error, mean, error)


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


def check_objective(config: Config) -> None:
    """Refuse metrics that no scorecard has.

    Raises:
        ConfigError: An unknown name.
    """
    known = sorted(name for name, kind in Scorecard.__annotations__.items() if kind in (int, float))
    for name in config.objective.metrics:
        if name not in known:
            raise ConfigError(f"objective.metrics={name!r}: must be one of {', '.join(known)}")


def run_trial(config: Config, raw: Mapping[str, Any], home: Path) -> float:
    """Train all seeds of one trial, report to the study, and tell its end.

    Args:
        config: The trial's experiment; `config.trial` names study and number.
        raw: The configuration with secrets unresolved.
        home: The workbench's home folder.

    Returns:
        The first objective; the pessimistic bound of what was reached when it was pruned.
    """
    trial = config.trial
    assert trial.study is not None
    assert trial.number is not None
    check_objective(config)
    folder = home / "sweeps" / trial.study / str(trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")
    session = TrialSession(trial.storage, trial.study, trial.number, home)
    try:
        return _train_seeds(config, session, folder)
    except Exception as error:
        session.failed(f"{type(error).__name__}: {error}")
        raise


def _train_seeds(config: Config, session: TrialSession, folder: Path) -> float:
    started = monotonic()
    experiment = prepare(config, *split_bars(config))
    metrics: list[dict[str, Any]] = []
    seeds = [SeedTraining(experiment, seed, metrics) for seed in config.objective.seeds]
    first = config.objective.metrics[0]
    step, more = 0, True
    while more:
        more = False
        for seed in seeds:  # lockstep: every seed up to its next evaluation
            more = seed.training.advance() or more
        now = objective(config, first, seeds, step)
        metrics.append({"step": step, "seed": None, "metrics": {"objective": now.value}})
        if session.report(now.value, step) and more:
            session.pruned(_write(folder, "PRUNED", [now], seeds, metrics, started, step))
            return now.value
        step += 1
    return _complete(config, session, folder, seeds, metrics, started)


def _complete(
    config: Config,
    session: TrialSession,
    folder: Path,
    seeds: Sequence[SeedTraining],
    metrics: list[dict[str, Any]],
    started: float,
) -> float:
    """Score the selected checkpoints of all seeds and tell the study."""
    returns: dict[str, npt.NDArray[np.float64]] = {}
    for seed in seeds:
        result = seed.training.result()
        weights = policy_weights(result.tensors, config.model.activation)
        card, windows, trace = seed.score(weights)
        seed.cards.append(card)
        seed.windows.append(windows)
        returns[f"seed_{seed.seed}"] = trace.daily_returns()
    np.savez_compressed(folder / "validation_returns.npz", **returns)  # type: ignore[arg-type]
    bounds = [objective(config, metric, seeds, -1) for metric in config.objective.metrics]
    fall = max(seed.cards[-1].max_drawdown_frac for seed in seeds)
    limit = config.objective.max_drawdown_frac
    attributes = _write(folder, "COMPLETE", bounds, seeds, metrics, started, None)
    constraints = [] if limit is None else [fall - limit]
    session.complete([b.value for b in bounds], attributes, constraints)
    return bounds[0].value


def _write(
    folder: Path,
    state: str,
    bounds: Sequence[Bound],
    seeds: Sequence[SeedTraining],
    metrics: list[dict[str, Any]],
    started: float,
    pruned_at: int | None,
) -> dict[str, Any]:
    """Write result and metrics of the trial; return what the study keeps as attributes."""
    attributes: dict[str, Any] = {
        "seeds": [seed.seed for seed in seeds],
        "mean": bounds[0].mean,
        "standard_error": bounds[0].standard_error,
        "interval": [bounds[0].mean + z * bounds[0].standard_error for z in (-1.96, 1.96)],
        "timesteps": sum(seed.training.timesteps for seed in seeds),
        "seconds": monotonic() - started,
        "pruned_at": pruned_at,
    }
    result = {
        "state": state,
        "values": [b.value for b in bounds],
        **attributes,
        "scorecards": {str(seed.seed): seed.cards[-1].to_dict() for seed in seeds},
        "windows": {str(seed.seed): seed.windows[-1] for seed in seeds},
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in metrics)
    return attributes
