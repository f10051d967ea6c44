"""One cell of a comparison: train on bars cut before the test, open the test, score, keep files.

A cell of a holdout never sees the test before its model is final.  All cells of one comparison
share one access: the first to open a market's test records it, the others find it recorded.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Literal

from ppo_workbench.config import Config, ForbiddenAction, Raw, Sizing
from ppo_workbench.config.files import write_whole
from ppo_workbench.delivery.artifact import save_artifact
from ppo_workbench.delivery.describe import describe_model, plain
from ppo_workbench.delivery.metadata import Scorecards
from ppo_workbench.learning.training import Hooks, TrainingResult, train_model
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.market.splits import Split
from ppo_workbench.pipeline.compare.plan import (
    MODEL,
    RESULT,
    STRESS,
    YARDSTICKS,
    cell_folder,
    trace_name,
)
from ppo_workbench.pipeline.compare.scored import (
    VALIDATION,
    check_sessions,
    folds_of,
    open_tests,
    prepare_scored,
    scored_splits,
)
from ppo_workbench.pipeline.compare.stressing import stressed
from ppo_workbench.pipeline.given import Given
from ppo_workbench.pipeline.models.stored import artifact_tensors, run_on_split, selected_policy
from ppo_workbench.pipeline.train.fitting import score_on_validation
from ppo_workbench.pipeline.train.outcome import bars_of, describe_training
from ppo_workbench.pipeline.train.scores import clearly_better, lower_bound
from ppo_workbench.scoring.audit.market import MarketFacts, market_facts
from ppo_workbench.scoring.audit.verdict import AuditReport, audit
from ppo_workbench.scoring.backtest import SERIES, Policy
from ppo_workbench.scoring.documents import AuditCounts, CellResult, CellScores
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.reference.forecasts import supervised_policies
from ppo_workbench.scoring.reference.own import own_policies
from ppo_workbench.scoring.reference.planning import reference_filter
from ppo_workbench.scoring.reference.yardsticks import tuned_threshold, yardsticks
from ppo_workbench.scoring.session_path import LEAST_SESSIONS, SessionPath, write_path
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.scoring.trace_file import write_trace
from ppo_workbench.trading.experiment import Experiment, prepare_fold

THRESHOLD = "threshold"
CURVE = ("sharpe_annual", "max_drawdown_frac", "win_rate_frac", "exposure_mean_abs", "n_trades")


@dataclass(frozen=True)
class _Trained:
    """A policy with what its training left."""

    result: TrainingResult
    curve: list[dict[str, float]]


def run_cell(given: Given) -> float:
    """Run one cell; `result.json`, written last, says that it is done.

    Args:
        given: The cell's experiment; `given.config.compare.cell` says which cell it is.

    Returns:
        The validation bound of a trained arm; 0 for other cells.
    """
    config, raw, home = given.config, given.raw, given.home
    cell = config.compare.cell
    assert cell.comparison is not None
    assert cell.name is not None
    began = monotonic()
    folder = cell_folder(home, cell.comparison, cell.name)
    folder.mkdir(parents=True, exist_ok=True)
    stresses = cell.kind == STRESS
    document = stressed(config, home) if stresses else _scored(config, raw, folder)
    document["seconds"] = monotonic() - began
    write_whole(folder / RESULT, json.dumps(document))
    arm = document.get("scores", {}).get(cell.arm or "", {})
    return arm.get("validation_lower_bound", 0.0)


def _scored(config: Config, raw: Raw, folder: Path) -> CellResult:
    """Train, open the test, score; return what is told of it."""
    cell = config.compare.cell
    assert cell.arm is not None
    bars, folds = folds_of(config)
    fold = folds[cell.fold]
    check_sessions(config, bars, folds)
    # Later folds train on the tests of earlier ones: there the access comes first.
    several = len(folds) > 1
    access = open_tests(config, bars, folds) if several else None
    experiment = prepare_fold(config, bars, fold)
    config = experiment.config
    trained = None if cell.kind == YARDSTICKS else _train(experiment)
    access = access or open_tests(config, bars, folds)
    closed = config.compare.split == VALIDATION
    opened = experiment if closed else prepare_scored(config, bars, fold)
    facts = market_facts(opened.bars, config)
    policies = (
        {policy.name: policy for policy in _reference_policies(opened)}
        if trained is None
        else {cell.arm: selected_policy(config, trained.result.tensors)}
    )
    keep = cell.keep_trace or several
    document: CellResult = {
        "arm": cell.arm,
        "market": cell.market,
        "seed": config.seed,
        "fold": cell.fold,
        "instrument": bars.instrument,
        "bar_seconds": bars.bar_seconds,
        "synthetic": config.data.source == "synthetic",
        "data": bars_of(opened, raw),
        "test": access,
        "scores": {
            name: _score(opened, facts, policy, scored_splits(config, fold), folder, name, keep)
            for name, policy in policies.items()
        },
    }
    if trained is not None:
        document |= _keep_model(opened, trained, raw, folder, document["scores"][cell.arm])
    return document


def _train(experiment: Experiment) -> _Trained:
    """Train on the training split, choosing the checkpoint on the validation split."""
    config = experiment.config
    config = replace(config, checkpoint=replace(config.checkpoint, every_seconds=None))
    rows: list[dict[str, float]] = []

    def record(metrics: dict[str, float], step: int) -> None:
        row = {f"validation/{key}": metrics.get(f"validation/{key}") for key in CURVE}
        row |= {key: metrics.get(key) for key in ("rollout/ep_rew_mean", "train/entropy_loss")}
        kept = {key: value for key, value in row.items() if value is not None}
        if "validation/sharpe_annual" in kept:
            rows.append({"step": float(step), **kept})

    hooks = Hooks(lambda weights: score_on_validation(experiment, weights), clearly_better, record)
    env = TradingVecEnv(experiment.batch())
    result = train_model(config, env, experiment.train_bars, hooks)
    if result.interrupted:
        raise KeyboardInterrupt
    return _Trained(result, rows)


def _reference_policies(opened: Experiment) -> list[Policy]:
    """Return the yardsticks: tuned rule, forecasts, usual ones, on synthetic bars who knows."""
    config = opened.config
    threshold = tuned_threshold(opened)
    policies = [] if threshold is None else [replace(threshold, name=THRESHOLD)]
    policies += supervised_policies(opened)
    policies += yardsticks(len(opened.bars), config.seed)
    policies += own_policies(opened)
    if config.data.source == "synthetic":
        from ppo_workbench.market.synthetic import generate

        exposure = generate(config.data.synthetic).oracle_exposure[: len(opened.bars)]
        policies.append(Policy("oracle", SERIES, series=exposure))
    reference = reference_filter(opened)
    if reference is not None:
        policies.append(reference)
    return policies


def _score(
    opened: Experiment,
    facts: MarketFacts,
    policy: Policy,
    splits: Sequence[Split],
    folder: Path,
    name: str,
    keep_traces: bool,
) -> CellScores:
    """Score a policy on validation and `splits`, and write what statistics and report need."""
    validation = scorecard(run_on_split(opened, policy, VALIDATION))
    traces = [run_on_split(opened, policy, split.name) for split in splits]
    if keep_traces:
        for number, trace in enumerate(traces):
            write_trace(trace, folder / trace_name(name, number))
    document: CellScores = {
        "validation": validation.to_dict(),
        "validation_lower_bound": lower_bound(validation),
    }
    if len(traces) == 1 and len(traces[0].session_ends()) >= LEAST_SESSIONS:
        write_path(SessionPath.from_trace(traces[0]), folder / f"sessions-{name}.npz")
        key: Literal["test", "validation"]
        key = "test" if opened.config.compare.split == "test" else "validation"
        document[key] = scorecard(traces[0]).to_dict()
    document["audit"] = audited(traces, opened, policy, facts)
    return document


def audited(
    traces: Sequence[Trace], opened: Experiment, policy: Policy, facts: MarketFacts | None = None
) -> AuditCounts:
    """Return the independent audit's counts over all tests of a policy; `facts` as for `audit`."""
    config = opened.config
    executes = config.env.forbidden_action is ForbiddenAction.execute and not policy.use_mask
    free = executes or policy.unconstrained
    if policy.unconstrained:  # it holds its level whatever the volatility
        config = replace(config, env=replace(config.env, sizing=Sizing.level))
    masked = policy.use_mask and config.env.masks_rules
    return audit_counts(
        [
            audit(trace, opened.bars, config, enforced=not free, masked=masked, facts=facts)
            for trace in traces
        ]
    )


def audit_counts(reports: Sequence[AuditReport]) -> AuditCounts:
    """Return what audits counted: violations, the same by rule, and rules that no check knows."""
    rules: Counter[str] = Counter()
    for report in reports:
        rules.update(report.by_rule)
    return {
        "violations": sum(sum(report.by_severity.values()) for report in reports),
        "by_rule": {rule: count for rule, count in rules.items() if count},
        "unaudited": sorted({rule for report in reports for rule in report.unaudited}),
    }


def _keep_model(
    opened: Experiment,
    trained: _Trained,
    raw: Raw,
    folder: Path,
    scores: CellScores,
) -> CellResult:
    """Write the cell's model; return what the document says of the training."""
    config, result = opened.config, trained.result
    training = describe_training(config, result)
    cards = Scorecards(validation=plain(scores["validation"]))
    metadata = describe_model(opened, training, cards, raw, None)
    tensors = artifact_tensors(opened, result.tensors)
    save_artifact(folder, MODEL, tensors, metadata, overwrite=True)
    entropies = [-row["train/entropy_loss"] for row in trained.curve if "train/entropy_loss" in row]
    return {
        "training": training.model_dump(mode="json"),
        "curve": trained.curve,
        "entropy_nats": entropies[-1] if entropies else None,
        "finite": all(bool(values.isfinite().all()) for values in result.last_tensors.values()),
    }
