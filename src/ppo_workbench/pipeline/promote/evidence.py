"""Collect what the gates judge: the trials' returns, rivals on the same test, stress, the audit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from ppo_workbench.config import Config, ForbiddenAction, WorkbenchError, settled
from ppo_workbench.config.arrays import Floats
from ppo_workbench.delivery.artifact import Artifact, load_artifact, verify
from ppo_workbench.delivery.golden import find_golden
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.splits import Split
from ppo_workbench.pipeline.models.evaluation import as_trained
from ppo_workbench.pipeline.models.stored import as_stored, run_on_split
from ppo_workbench.pipeline.promote.contender import Contender, mean_excess
from ppo_workbench.records.ledger import Access
from ppo_workbench.records.studies.candidates import StudyTrials
from ppo_workbench.scoring.annual import annual_root
from ppo_workbench.scoring.audit.verdict import audit
from ppo_workbench.scoring.backtest import Policy
from ppo_workbench.scoring.gates.checks import Alternative
from ppo_workbench.scoring.gates.profiles import (
    EXECUTE,
    MODEL,
    REJECT,
    STRESSES,
    Evidence,
)
from ppo_workbench.scoring.metrics import Scorecard, scorecard
from ppo_workbench.scoring.reference.yardsticks import tuned_threshold
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.inference import inference_of
from ppo_workbench.scoring.statistics.samples import StatisticsError
from ppo_workbench.scoring.stress import Stretch, conditions, rescored
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment, prepare_with_test

BASELINES = {ForbiddenAction.execute: EXECUTE, ForbiddenAction.reject: REJECT}


@dataclass(frozen=True)
class TrialEvidence:
    """What the study's trials did on validation.

    Attributes:
        validation_excess: float64 (T,), of the model.
        trial_returns: float64 (trials, T), of trials on the same sessions.
        trials: True number of trials, the promotion's own trainings included.
        evaluations: Independent evaluations among which each of the promotion's trainings chose
            its checkpoint, the mean; those of the trials are taken to be as many.
    """

    validation_excess: Floats
    trial_returns: Floats
    trials: int
    evaluations: float


def trial_evidence(
    study: StudyTrials, contenders: list[Contender], winner: Contender
) -> TrialEvidence:
    """Collect the validation returns of the trials, over the winner's sessions."""
    trace = winner.validation_trace(winner.delivered())
    cash = trace.cash_returns()
    scored = [list(seeds.values()) for seeds in study.returns.values()]
    same = [[run.astype(float) for run in runs if len(run) == len(cash)] for runs in scored]
    rows = [mean_excess(runs, cash) for runs in same if runs]
    fresh = [run for contender in contenders for run in contender.runs]
    return TrialEvidence(
        validation_excess=trace.daily_returns() - cash,
        trial_returns=np.array(rows) if rows else np.empty((0, len(cash))),
        trials=study.trials + len(fresh),
        evaluations=fmean(run.effective_evaluations for run in fresh),
    )


@dataclass(frozen=True)
class Opened:
    """The winner on the opened test."""

    experiment: Experiment
    access: Access
    policy: Policy


def collect(
    config: Config,
    trials: TrialEvidence,
    winner: Contender,
    opened: Opened,
    rivals: Mapping[str, SessionPath | str],
    seeds: Mapping[str, list[SessionPath]],
    golden: tuple[str | None, int],
) -> Evidence:
    """Score the winner on the opened test and put all evidence together."""
    experiment, own = opened.experiment, winner.config
    trace = run_on_split(experiment, opened.policy, "test")
    train, validation, test = (winner.splits[name] for name in ("train", "validation", "test"))
    return Evidence(
        trace=trace,
        accesses=opened.access.looks,
        validation_excess=trials.validation_excess,
        trial_returns=trials.trial_returns,
        trials=trials.trials,
        evaluations=trials.evaluations,
        rivals=rivals,
        every_seed=seeds,
        stressed=_stressed(opened.policy, experiment),
        audit=audit(trace, experiment.bars, own, masked=own.env.masks_rules),
        golden_failure=golden[0],
        golden_vectors=golden[1],
        gaps=(validation.start - train.stop, test.start - validation.stop),
        gap_asked=settled(own.splits.gap_bars),
        seen_test=max(0, len(winner.experiment.bars) - test.start),
        alternative=Alternative(
            config.promote.alternative_sharpe, config.promote.alternative_difference
        ),
    )


def _stressed(policy: Policy, experiment: Experiment) -> dict[str, tuple[str, Scorecard]]:
    """Score a policy on the test under each of `STRESSES`."""
    test = Stretch(policy, experiment, "test")
    return {
        each.name: (each.change, scorecard(rescored(test, each)))
        for each in conditions(experiment.config.costs)
        if each.name in STRESSES
    }


def inferred(trace: Trace, config: Config) -> dict[str, float] | None:
    """Return what the test's Sharpe ratio says of a find, for the report alone; ratios annual.

    None where the returns leave it no variance.
    """
    asked = config.promote
    excess, q = trace.daily_returns() - trace.cash_returns(), trace.sessions_per_year
    try:
        found = inference_of(excess, q, asked.alternative_sharpe, asked.prior)
    except StatisticsError:
        return None
    return {
        "probability": found.probability,
        "critical_annual": found.critical_per_session * annual_root(q),
        "power": found.power,
        "planned_false_discovery": found.planned_false_discovery,
        "observed_false_discovery": found.observed_false_discovery,
        "alternative_annual": asked.alternative_sharpe,
        "prior": asked.prior,
        "significance": found.significance,
    }


def test_path(experiment: Experiment, policy: Policy) -> SessionPath:
    """Return the sessions of a policy on the opened test."""
    return SessionPath.from_trace(run_on_split(experiment, policy, "test"))


def baseline_paths(baselines: Mapping[str, Contender]) -> dict[str, SessionPath | str]:
    """Score each baseline's delivered model on the test, the access to which was recorded."""
    return {
        name: test_path(
            prepare_with_test(rival.config, rival.bars, rival.splits),
            rival.policy(rival.delivered()),
        )
        for name, rival in baselines.items()
    }


def every_seed(
    winner: Contender, baselines: Mapping[str, Contender]
) -> dict[str, list[SessionPath]]:
    """Score all seeds of the winner on the test, and of the rejecting baseline.

    Without the latter where it was not trained, or not on the winner's seeds.
    """
    found, asked = {}, {MODEL: winner}
    rival = baselines.get(REJECT)
    if rival is not None and [r.seed for r in rival.runs] == [r.seed for r in winner.runs]:
        asked[REJECT] = rival
    for name, contender in asked.items():
        experiment = prepare_with_test(contender.config, contender.bars, contender.splits)
        found[name] = [test_path(experiment, contender.policy(run)) for run in contender.runs]
    return found


def threshold_path(experiment: Experiment) -> SessionPath | str:
    """Score the threshold rule tuned on train; say so where no moving average is observed."""
    policy = tuned_threshold(experiment)
    if policy is None:
        return "no ema_distance feature is observed, so there is no threshold rule; add one"
    return test_path(experiment, policy)


def champion_path(
    config: Config, bars: Bars, splits: dict[str, Split], folder: Path, name: str
) -> SessionPath | str:
    """Score the reigning champion on the same test, or say why it cannot be."""
    try:
        stored = load_artifact(folder, name)
        own = as_trained(config, stored.metadata)
        experiment = prepare_with_test(own, bars, splits)
        policy, seen = as_stored(stored, experiment)
        return test_path(seen, policy)
    except WorkbenchError as error:
        return f"the reigning champion cannot be scored on this test ({error})"


def replayed(artifact: Artifact) -> int:
    """Replay the golden vectors of a loaded model and return their number.

    Raises:
        ArtifactError: It decides otherwise than where it was saved, or has none.
    """
    verify(artifact)
    golden = find_golden(artifact.tensors)
    return 0 if golden is None else len(golden.rows)
