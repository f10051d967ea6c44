"""Record a study in MLflow: a parent run, and its trials as children, by one writer.

The sweeper's process writes for all trials: a preloaded process would still pay 0.2
seconds for a run of its own.  A sweep that was killed finds its parent run again by tag,
and ends the children whose trials have ended; live ones of other processes are left alone.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from ppo_workbench.config import Config, ConfigError
from ppo_workbench.records.tracking import (
    NullTracker,
    RunInfo,
    RunStatus,
    Tracker,
    find_runs,
    open_tracker,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from ppo_workbench.records.analysis import Analysis

_LOG = logging.getLogger("ppo_workbench.tracking")

STATUS = {
    "COMPLETE": RunStatus.finished,
    "PRUNED": RunStatus.finished,
    "FAIL": RunStatus.failed,
}


class StudyRecord:
    """What the sweeper tells; see `open_study_record`."""

    def __init__(self, config: Config, home: Path, study: str, parent: Tracker) -> None:
        """Take over the parent run."""
        self._config, self._home, self._study = config.tracking, home, study
        self._parent, self._folder = parent, home / "sweeps" / study
        self._storage, self._metrics = config.trial.storage, config.objective.metrics
        self._children: dict[int, Tracker] = {}
        self._started = monotonic()
        self._seconds = 0.0
        self._timesteps = 0

    def trial_started(self, number: int, params: Mapping[str, Any]) -> str | None:
        """Begin the child run of a trial; return its id."""
        tags = {"study": self._study, "trial": str(number), "state": "RUNNING"}
        if self._parent.run_id is not None:
            tags["mlflow.parentRunId"] = self._parent.run_id
        name = f"{self._study}/{number}"
        child = open_tracker(self._config, self._home, name, params, tags)
        self._children[number] = child
        return child.run_id

    def trial_finished(
        self,
        number: int,
        state: str,
        values: Sequence[float] | None,
        params: Mapping[str, Any],
        folder: Path,
        user_attrs: Mapping[str, Any],
    ) -> str | None:
        """Write what the trial left in its folder and end its run; return the run's id."""
        child = self._children.pop(number, None) or self._left_behind(number)
        if child is None:
            self.trial_started(number, params)
            child = self._children.pop(number)
        names = ("seeds", "pruned_at", "fail_reason", "timesteps", "mean", "standard_error")
        tags = {name: str(user_attrs[name]) for name in names if user_attrs.get(name) is not None}
        child.set_tags({**tags, "state": state})
        for step, metrics in _metrics_of(folder):
            child.log_metrics(metrics, step)
        for k, value in enumerate(values or ()):
            child.log_metrics({f"objective_{k}" if k else "objective_final": value}, 0)
        for name in ("config.json", "result.json", "log.txt"):
            if (folder / name).is_file():
                child.log_artifact(folder / name)
        child.end_as(STATUS.get(state, RunStatus.killed))
        child.__exit__(None, None, None)
        self._seconds += float(user_attrs.get("seconds") or 0.0)
        self._timesteps += int(user_attrs.get("timesteps") or 0)
        if values:
            self._parent.log_metrics({"trial_objective": values[0]}, number)
        return child.run_id

    def _left_behind(self, number: int) -> Tracker | None:
        """Go on with the run of a trial that another, killed process had begun."""
        if not self._config.enabled:
            return None
        known = find_runs(self._config, self._home, {"study": self._study, "trial": str(number)})
        if not known:
            return None
        run_id = known[-1].run_id
        return open_tracker(self._config, self._home, self._study, resume_run_id=run_id)

    def settle(self, runs: Sequence[RunInfo]) -> None:
        """Record trials that have ended in the study, but not or not wholly in the record.

        Those of other sweep processes that live are left to them.
        """
        from ppo_workbench.records.study import GRACE_BEATS, HEARTBEAT_SECONDS, is_watched

        if not self._config.enabled:
            return
        recorded = {run.tags["trial"] for run in runs if run.status != "RUNNING" and is_child(run)}
        grace = GRACE_BEATS * HEARTBEAT_SECONDS
        for trial in self._trials():
            number = trial.number
            ended = trial.state.is_finished() and str(number) not in recorded
            if ended and not is_watched(trial, grace):
                folder = self._folder / str(number)
                self.trial_finished(
                    number, trial.state.name, trial.values, trial.params, folder, trial.user_attrs
                )

    def _trials(self) -> "list[FrozenTrial]":
        from ppo_workbench.records.storage import open_storage
        from ppo_workbench.records.study import load_study

        study = load_study(open_storage(self._storage, self._home, self._study), self._study)
        return study.get_trials(deepcopy=False)

    def _attempted(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Do what may fail, on a full disk or without a server: the parent run still has to end."""
        try:
            return act(*arguments)
        except Exception as error:
            _LOG.warning("the end of study %s is not recorded whole: %s", self._study, error)
            self._parent.log_text(str(error), "analysis.txt")
            return None

    def _settle_the_rest(self) -> bool:
        """Make up for what the store did not take; tell whether other sweeps still run trials."""
        from ppo_workbench.records.study import is_watched

        self.settle(find_runs(self._config, self._home, {"study": self._study}))
        return any(
            not trial.state.is_finished() and is_watched(trial, 0.0) for trial in self._trials()
        )

    def close(self, best: Mapping[str, Any], interrupted: bool = False) -> None:
        """Write the summary of the study and end the parent run.

        Args:
            best: Parameters and value of the best trial, empty if there is none.
            interrupted: The user ended the sweep.
        """
        for number in list(self._children):
            child = self._children.pop(number)
            child.set_tags({"state": "KILLED"})
            child.end_as(RunStatus.killed)
            child.__exit__(None, None, None)
        goes_on = self._config.enabled and self._attempted(self._settle_the_rest)
        self._attempted(analyse_study, self._storage, self._home, self._study, self._metrics)
        self._parent.set_tags({f"best.{key}": str(value) for key, value in best.items()})
        wall = max(monotonic() - self._started, 1e-9)
        cost = {
            "core_minutes": self._seconds / 60,
            "steps_per_second": self._timesteps / wall,
        }
        self._parent.log_metrics(cost, 0)
        for name in ("analysis.html", "analysis.json"):
            if (self._folder / name).is_file():
                self._parent.log_artifact(self._folder / name)
        if goes_on:
            self._parent.flush()  # another sweep process ends the run
            return
        self._parent.end_as(RunStatus.killed if interrupted else RunStatus.finished)
        self._parent.__exit__(None, None, None)


def is_child(run: RunInfo) -> bool:
    """Tell a trial's run from the study's."""
    return "trial" in run.tags


def open_study_record(
    config: Config, home: Path, study: str, params: Mapping[str, Any]
) -> StudyRecord:
    """Begin, or go on with, the parent run of a study.

    Args:
        config: A trial's configuration: where runs are recorded, which storage.
        home: The workbench's home folder.
        study: Its name.
        params: The sweep's configuration with secrets unresolved.
    """
    tracking = config.tracking
    if not tracking.enabled:
        return StudyRecord(config, home, study, NullTracker())
    known = find_runs(tracking, home, {"study": study})
    parents = [run for run in known if not is_child(run)]
    parent_id = parents[0].run_id if parents else None
    tags = {"study": study, "task": "sweep"}
    parent = open_tracker(tracking, home, study, params, tags, resume_run_id=parent_id)
    record = StudyRecord(config, home, study, parent)
    record.settle(known)
    return record


def analyse_study(
    storage: str | None, home: Path, study: str, metrics: Sequence[str]
) -> "Analysis":
    """Write sweeps/STUDY/analysis.html and .json; see `records.analysis`.

    Raises:
        StudyError: There is no such study.
    """
    from ppo_workbench.records.analysis import analyse
    from ppo_workbench.records.storage import open_storage
    from ppo_workbench.records.study import load_study

    folder = home / "sweeps" / study
    inside = folder.resolve().parent == (home / "sweeps").resolve()
    if not inside or (storage is None and not (folder / "journal.log").is_file()):
        raise ConfigError(
            f"study={study}: is no study in {home / 'sweeps'}; name one of its folders"
        )
    found = load_study(open_storage(storage, home, study), study)
    return analyse(found, folder, objective_name=", ".join(metrics))


def _metrics_of(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Read a trial's metrics over time, keys of a seed prefixed by it."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        (
            row["step"],
            {
                key if row["seed"] is None else f"seed_{row['seed']}/{key}": value
                for key, value in row["metrics"].items()
            },
        )
        for row in rows
    ]
