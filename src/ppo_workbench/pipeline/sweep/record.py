"""Record a study in MLflow: a parent run, and its trials as children, by one writer.

The sweeper's process writes for all trials: a preloaded process would still pay 0.2
seconds for a run of its own.  A sweep that was killed finds its parent run again by tag,
and ends the children whose trials have ended; live ones of other processes are left alone.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_workbench.config import Config, Raw
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.learning.progress import command_line, next_lines
from ppo_workbench.records.mlflow_store import RunInfo, find_runs
from ppo_workbench.records.run_notes import NOTE, headline_metrics, run_note
from ppo_workbench.records.storage import check_study_folder, open_storage
from ppo_workbench.records.studies.candidates import research_alone
from ppo_workbench.records.studies.identity import check_folder
from ppo_workbench.records.studies.lineage import read_json
from ppo_workbench.records.studies.returns import NAME
from ppo_workbench.records.studies.session import (
    FAIL_REASON,
    GRACE_BEATS,
    INTERRUPTED,
    TrialAttributes,
    heartbeat_seconds,
    is_watched,
    load_study,
)
from ppo_workbench.records.tracking import (
    NullTracker,
    RunStatus,
    Tracker,
    deliver_records,
    open_tracker,
)
from ppo_workbench.scoring.figures import spoken

if TYPE_CHECKING:
    import optuna

    from ppo_workbench.reports.study.findings import Analysis

_LOG = logging.getLogger("ppo_workbench.tracking")
FILES = ("config.json", "result.json", "log.txt", NAME)
TAGS = (
    *("seeds", "pruned_at", "fail_reason", "timesteps", "mean", "standard_error"),
    *("folder", "retry_of"),
)
_STATES = ("complete", "pruned", "fail", "running", "waiting")
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

    def trial_started(self, number: int, params: Mapping[str, object]) -> str | None:
        """Begin the child run of a trial; return its id."""
        tags = {"study": self._study, "trial": str(number), "state": "RUNNING"}
        tags["overrides"] = " ".join(f"{key}={value}" for key, value in params.items())
        if self._parent.run_id is not None:
            tags["mlflow.parentRunId"] = self._parent.run_id
        name = f"{self._study}/{number}"
        child = open_tracker(self._config, self._home, name, params, tags, may_wait=True)
        self._children[number] = child
        return child.run_id

    def trial_finished(
        self,
        number: int,
        state: str,
        values: Sequence[float] | None,
        params: Mapping[str, object],
        folder: Path,
        user_attrs: TrialAttributes,
    ) -> str | None:
        """Write what the trial left in its folder and end its run; return the run's id."""
        child = self._children.pop(number, None) or self._left_behind(number)
        if child is None:
            self.trial_started(number, params)
            child = self._children.pop(number)
        known = {name: user_attrs.get(name) for name in TAGS}
        tags = {name: str(value) for name, value in known.items() if value is not None}
        self._describe(child, number, folder, {**tags, "state": state, "status": state.lower()})
        for step, metrics in _metrics_of(folder):
            child.log_metrics(metrics, step)
        for k, value in enumerate(values or ()):
            child.log_metrics({f"objective_{k}" if k else "objective_final": value}, 0)
        for name in FILES:
            if (folder / name).is_file():
                child.log_artifact(folder / name)
        for name in user_attrs.get("artifacts", ()):
            for path in (folder / f"{name}.pth", folder / f"{name}-metadata.json"):
                if path.is_file():
                    child.log_artifact(path, "model")
        interrupted = user_attrs.get(FAIL_REASON) == INTERRUPTED
        child.end_as(RunStatus.killed if interrupted else STATUS.get(state, RunStatus.killed))
        child.__exit__(None, None, None)
        if values:
            self._parent.log_metrics({"trial_objective": values[0]}, number)
        return child.run_id

    def _describe(self, child: Tracker, number: int, folder: Path, tags: Mapping[str, str]) -> None:
        """Give a trial's run its tags, columns, description and bars."""
        result = read_json(folder / "result.json")
        cards = result.get("scorecards", {})
        held = f"Trial {number} of study {self._study}: `sweeps/{self._study}/analysis.html`"
        note = run_note({f"seed {seed}": card for seed, card in cards.items()}, [held])
        child.set_tags({**tags, NOTE: note})
        child.log_metrics(headline_metrics(list(cards.values())), 0)
        if "data" in result:
            child.log_bars(result["data"])

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
        if not self._config.enabled:
            return
        recorded = {run.tags["trial"] for run in runs if run.status != "RUNNING" and is_child(run)}
        study = self._loaded()
        grace = GRACE_BEATS * heartbeat_seconds(study)
        for trial in study.get_trials(deepcopy=False):
            number = trial.number
            ended = trial.state.is_finished() and str(number) not in recorded
            if ended and not is_watched(trial, grace):
                folder = self._folder / str(number)
                kept: Any = trial.user_attrs
                self.trial_finished(
                    number, trial.state.name, trial.values, trial.params, folder, kept
                )

    def _loaded(self) -> "optuna.Study":
        return load_study(open_storage(self._storage, self._home, self._study), self._study)

    def _attempted(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Do what may fail, on a full disk or without a server: the parent run still has to end."""
        try:
            return act(*arguments)
        except Exception as error:
            reason = Redactor(self._storage, self._config.uri)(str(error))
            _LOG.warning("the end of study %s is not recorded whole: %s", self._study, reason)
            self._parent.log_text(reason, "analysis.txt")
            return None

    def _settle_the_rest(self) -> bool:
        """Make up for what the store did not take; tell whether other sweeps still run trials."""
        deliver_records(self._config, self._home)
        self.settle(find_runs(self._config, self._home, {"study": self._study}))
        return any(
            not trial.state.is_finished() and is_watched(trial, 0.0)
            for trial in self._loaded().get_trials(deepcopy=False)
        )

    def close(self, best: Mapping[str, object], interrupted: bool = False) -> None:
        """Write the summary of the study and end the parent run.

        Args:
            best: Parameters and value of the best trial, empty if there is none.
            interrupted: The user ended the sweep.
        """
        goes_on = False
        try:  # the run is ended whatever happens, a second Ctrl-C included
            for number in list(self._children):
                child = self._children.pop(number)
                child.set_tags({"state": "KILLED"})
                child.end_as(RunStatus.killed)
                child.__exit__(None, None, None)
            goes_on = bool(self._config.enabled and self._attempted(self._settle_the_rest))
            self._parent.set_tags({f"best.{key}": str(value) for key, value in best.items()})
            self._attempted(self._summarise)
        finally:
            if goes_on:
                self._parent.flush()  # another sweep process ends the run
            else:
                self._parent.end_as(RunStatus.killed if interrupted else RunStatus.finished)
                self._parent.__exit__(None, None, None)

    def what_next(self, overrides: Sequence[str], full: bool, found: bool) -> str:
        """Return the last words of a sweep: commands to copy.

        Args:
            overrides: Flags and overrides of the command that goes on with the study.
            full: It holds all the trials that were wanted.
            found: It has a best trial.
        """
        study = self._study
        commands = [] if full else [("go on, finished trials are kept", command_line(overrides))]
        commands.append(("analyse it again", command_line(["task=analyse", f"study={study}"])))
        mark = research_alone(self._loaded())
        if found and mark is None:
            promote = ["task=promote", f"promote.study={study}"]
            commands.append(("promote the best if it passes the gates", command_line(promote)))
        return "\n".join(["", *([mark] if mark else []), *next_lines(commands)])

    def _summarise(self) -> None:
        """Analyse the study; give the parent run its figures and page."""
        found = analyse_study(self._storage, self._home, self._study, self._metrics)
        lines = [
            *(f"* {sentence}" for sentence in found.summary),
            *([f"Train the recommended setting: `{found.command}`"] if found.command else []),
            f"Report: `sweeps/{self._study}/analysis.html`, and among the artifacts",
        ]
        best = self._folder / str(found.recommended.number) if found.recommended else None
        cards = read_json(best / "result.json").get("scorecards", {}) if best else {}
        self._parent.log_metrics(headline_metrics(list(cards.values())), 0)
        self._parent.set_tags({NOTE: "\n".join(lines), "status": "study"})
        for name in ("analysis.html", "analysis.json"):
            self._parent.log_artifact(self._folder / name)
        study = self._loaded()
        # A step of its own for every start that added trials: older figures stay in the run.
        self._parent.log_metrics(study_figures(study), len(study.get_trials(deepcopy=False)))


def study_figures(study: "optuna.Study") -> dict[str, float]:
    """Return trials by state, cost and speed of a whole study, all its starts together.

    Returns:
        `trials/STATE`; `core_minutes`: of all ended trials, a core each; `timesteps`;
        `steps_per_second`: timesteps over the time in which any trial ran.
    """
    trials = study.get_trials(deepcopy=False)
    states = [trial.state.name.lower() for trial in trials]
    spans = sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in trials
        if trial.datetime_start is not None and trial.datetime_complete is not None
    )
    timesteps = sum(int(trial.user_attrs.get("timesteps") or 0) for trial in trials)
    return {
        **{f"trials/{state}": float(states.count(state)) for state in _STATES},
        "core_minutes": sum(stop - start for start, stop in spans) / 60,
        "timesteps": float(timesteps),
        "steps_per_second": timesteps / max(_covered(spans), 1e-9),
    }


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of (start, stop) spans, ordered by start."""
    seconds, reached = 0.0, float("-inf")
    for start, stop in spans:
        seconds += max(stop - max(start, reached), 0.0)
        reached = max(reached, stop)
    return seconds


def is_child(run: RunInfo) -> bool:
    """Tell a trial's run from the study's."""
    return "trial" in run.tags


def open_study_record(config: Config, home: Path, study: str, params: Raw) -> StudyRecord:
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
    record.settle(find_runs(tracking, home, {"study": study}))  # with what has waited until now
    return record


def analyse_study(
    storage: str | None, home: Path, study: str, metrics: Sequence[str]
) -> "Analysis":
    """Write sweeps/STUDY/analysis.html and .json; see `reports.study.analysis`.

    Raises:
        StudyError: There is no such study.
    """
    from ppo_workbench.reports.study.analysis import analyse

    folder = check_study_folder("study", storage, home, study)
    found = load_study(open_storage(storage, home, study), study)
    check_folder(found, folder)
    # What trials return is not the figure of that name on the scorecard.
    return analyse(found, folder, objective_names=[f"bound of {spoken(name)}" for name in metrics])


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
