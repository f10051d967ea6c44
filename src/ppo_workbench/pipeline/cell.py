"""One cell of a comparison: train on bars cut before the test, open the test, score, leave files.

A cell never sees the test before its model is final.  All cells of one comparison share one
look: the first to open a market's test records it, the others find it recorded.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from ppo_workbench.config import Config, ConfigError
from ppo_workbench.delivery.artifact import save_artifact
from ppo_workbench.delivery.describe import describe_model, plain
from ppo_workbench.delivery.metadata import Scorecards
from ppo_workbench.learning.models import policy_weights
from ppo_workbench.learning.training import Hooks, TrainingResult, train_model
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.pipeline.comparison_plan import FOLDER, RESULT, YARDSTICKS
from ppo_workbench.pipeline.fitting import look_at
from ppo_workbench.pipeline.outcome import describe_training
from ppo_workbench.pipeline.scores import lower_bound, run_on_split
from ppo_workbench.pipeline.stored import artifact_tensors, open_bars_with_test, trained_policy
from ppo_workbench.scoring.backtest import SERIES, Policy
from ppo_workbench.scoring.baselines import tuned_threshold, yardsticks
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.session_path import LEAST_SESSIONS, SessionPath, write_path
from ppo_workbench.scoring.trace_file import write_trace
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars

MODEL = "model"
CURVE = ("sharpe_annual", "max_drawdown_frac", "win_rate_frac", "exposure_mean_abs", "n_trades")


@dataclass(frozen=True)
class _Trained:
    """A policy with what its training left."""

    result: TrainingResult
    curve: list[dict[str, float]]


def cell_folder(home: Path, comparison: str, name: str) -> Path:
    """Return the folder of one cell."""
    return home / FOLDER / comparison / "cells" / name


def run_cell(config: Config, raw: Mapping[str, Any], home: Path) -> float:
    """Train and score one cell; `result.json`, written last, says that it is done.

    Args:
        config: The cell's experiment; `config.compare.cell` says which cell it is.
        raw: The configuration with secrets unresolved.
        home: The workbench's home folder.

    Returns:
        The test Sharpe ratio of the arm; 0 for the yardsticks.
    """
    cell = config.compare.cell
    assert cell.comparison is not None
    assert cell.name is not None
    began = monotonic()
    folder = cell_folder(home, cell.comparison, cell.name)
    folder.mkdir(parents=True, exist_ok=True)
    bars, splits = split_bars(config)
    test = splits["test"]
    sessions = len(np.unique(bars.session[test.start + 1 : test.stop]))
    if sessions < LEAST_SESSIONS:
        raise ConfigError(
            f"splits.test_frac={config.splits.test_frac:g}: the test has {sessions} sessions, a "
            f"comparison needs {LEAST_SESSIONS} or more; give more bars or a larger share"
        )
    experiment = prepare(config, bars, splits)
    trained = None if cell.kind == YARDSTICKS else _train(experiment)
    opened, opening = open_bars_with_test(
        config, bars, splits, f"comparison {cell.comparison}", cell.look
    )
    policies = _reference_policies(opened) if trained is None else [_policy(config, trained.result)]
    document: dict[str, Any] = {
        "arm": cell.arm,
        "market": cell.market,
        "seed": config.seed,
        "fold": cell.fold,
        "instrument": bars.instrument,
        "bar_seconds": bars.bar_seconds,
        "synthetic": config.data.source == "synthetic",
        "test": {"start": opening.start, "stop": opening.stop, "looks": opening.looks},
        "scores": {},
    }
    for policy in policies:
        name = cell.arm if trained is not None else policy.name.partition(" (")[0]
        assert name is not None
        document["scores"][name] = _score(opened, policy, folder, name, cell.keep_trace)
    if trained is not None:
        document |= _keep_model(opened, trained, raw, folder, document["scores"][cell.arm])
    document["seconds"] = monotonic() - began
    temporary = folder / f".{RESULT}.tmp"
    temporary.write_text(json.dumps(document), encoding="utf-8")
    temporary.replace(folder / RESULT)
    return 0.0 if trained is None else float(document["scores"][cell.arm]["test"]["sharpe_annual"])


def _train(experiment: Experiment) -> _Trained:
    """Train on the training split, choosing the checkpoint on the validation split."""
    config = experiment.config
    config = replace(config, checkpoint=replace(config.checkpoint, every_seconds=None))
    rows: list[dict[str, float]] = []

    def record(metrics: dict[str, float], step: int) -> None:
        row = {f"validation/{key}": metrics.get(f"validation/{key}") for key in CURVE}
        row |= {"rollout/ep_rew_mean": metrics.get("rollout/ep_rew_mean")}
        kept = {key: value for key, value in row.items() if value is not None}
        if "validation/sharpe_annual" in kept:
            rows.append({"step": float(step), **kept})

    hooks = Hooks(
        evaluate=lambda weights: look_at(experiment, weights),
        record=record,
        progress=lambda standing: None,
    )
    env = TradingVecEnv(experiment.batch())
    result = train_model(config, env, len(experiment.splits["train"]), hooks)
    if result.interrupted:
        raise KeyboardInterrupt
    return _Trained(result, rows)


def _policy(config: Config, result: TrainingResult) -> Policy:
    weights = policy_weights(result.tensors, config.model.activation)
    return trained_policy(config.model.type, weights)


def _reference_policies(opened: Experiment) -> list[Policy]:
    """Return the yardsticks: threshold rule, the usual ones, and on synthetic bars the oracle."""
    config = opened.config
    threshold = tuned_threshold(opened)
    policies = [] if threshold is None else [replace(threshold, name="threshold")]
    policies += yardsticks(len(opened.bars), config.seed)
    if config.data.source == "synthetic":
        from ppo_workbench.market.synthetic import generate

        exposure = generate(config.data.synthetic).oracle_exposure[: len(opened.bars)]
        policies.append(Policy("oracle", SERIES, series=exposure))
    return policies


def _score(
    opened: Experiment, policy: Policy, folder: Path, name: str, keep_trace: bool
) -> dict[str, Any]:
    """Score a policy on validation and test, and write what statistics and report need."""
    validation = scorecard(run_on_split(opened, policy, "validation"))
    trace = run_on_split(opened, policy, "test")
    write_path(SessionPath.from_trace(trace), folder / f"sessions-{name}.npz")
    if keep_trace:
        write_trace(trace, folder / f"trace-{name}.parquet")
    return {
        "validation": validation.to_dict(),
        "validation_lower_bound": lower_bound(validation),
        "test": scorecard(trace).to_dict(),
    }


def _keep_model(
    opened: Experiment,
    trained: _Trained,
    raw: Mapping[str, Any],
    folder: Path,
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the cell's model; return what the document says of the training."""
    config, result = opened.config, trained.result
    training = describe_training(config, result)
    cards = Scorecards(validation=plain(scores["validation"]))
    metadata = describe_model(opened, training, cards, raw, None)
    tensors = artifact_tensors(opened, result.tensors)
    save_artifact(folder, MODEL, tensors, metadata, overwrite=True)
    return {"training": training.model_dump(mode="json"), "curve": trained.curve}


def remove_cells(folder: Path) -> None:
    """Delete a comparison that is done anew (`overwrite=true`)."""
    shutil.rmtree(folder / "cells", ignore_errors=True)
