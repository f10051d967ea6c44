"""The loop of a sweep: claim a trial, start its job, take its end, until the study is full."""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypedDict

import optuna
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.optuna_pruning._jobs import Batches
from hydra_plugins.optuna_pruning._live import View
from hydra_plugins.optuna_pruning._observer import Observed
from hydra_plugins.optuna_pruning._plan import DONE, Plan, best_trials, failures_allowed
from hydra_plugins.optuna_pruning._samplers import make_sampler, next_grid_point, unlucky
from hydra_plugins.pool._processes import Job
from ppo_workbench.config import ConfigError, Interrupted, WorkbenchError
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.records.studies.session import (
    FAIL_REASON,
    GRACE_BEATS,
    INTERRUPTED,
    LAST_SEEN,
    LOST,
    SWEEPER,
    bad_values,
    fail,
    is_here,
    is_lost,
    last_seen,
    tell,
)

TICK_SECONDS = 0.25
POLL_SECONDS = 1.0  # between looks at what other processes do
RUN_ID_SECONDS = 0.2  # a job takes about as long to begin; a record that is down costs no more


class SweepError(WorkbenchError):
    """A sweep ended before its study was full."""


class BestTrial(TypedDict):
    """A trial that no other is better than."""

    number: int
    values: list[float] | None
    params: dict[str, object]


class Outcome(TypedDict):
    """What a sweep returns: its study, and the best trials, several with several directions."""

    study: str
    best: list[BestTrial]


def run(plan: Plan) -> Outcome:
    """Carry out a planned sweep; see `OptunaPruningSweeper.sweep`."""
    return _Sweep(plan).run()


class _Sweep:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.study = plan, plan.study
        blocking = not hasattr(plan.launcher, "submit")
        self.jobs: Any = plan.launcher
        if blocking:
            self.jobs = Batches(plan.launcher, plan.config, plan.settings.batch_size)
        self.blocking = blocking
        self.running: dict[int, dict[str, object]] = {}
        self.failures: list[str] = []
        self.signals = 0
        self.done = False
        self.look_again = 0.0
        self.view = View(plan.name, plan.settings.n_trials, self.study)
        self.observed = Observed(plan.observer, self.view.say)

    def run(self) -> Outcome:
        with self.view, _signals(self._on_signal), self._beating():
            try:
                self._loop()
            except KeyboardInterrupt:  # a blocking launcher, between two batches
                self.signals += 1
            except Exception as error:
                self._leave()
                self.observed.close({}, True)
                if not _of_storage(error):
                    raise
                reason = " ".join(str(error.__cause__ or error).split("\n(Background")[0].split())
                told = Redactor(self.plan.settings.storage)(reason)
                raise SweepError(
                    f"study {self.plan.name}: the storage failed ({told}); "
                    "mend that and start the same command again, finished trials are kept"
                ) from error
            self._leave()
        return self._end()

    def _leave(self) -> None:
        """Leave no process and no running trial behind."""
        self.jobs.close()
        for number in list(self.running):
            with suppress(Exception):
                fail(self.study, number, INTERRUPTED)
                self._tell_observer(number)
        self.running.clear()

    def _loop(self) -> None:
        deadline = None
        while True:
            if self._may_ask():
                self._fill()
            if not self.running and (self.done or not self._may_ask()):
                return
            ended = self.jobs.wait(TICK_SECONDS if self.running else POLL_SECONDS)
            for job in ended:
                self._settle(job)
            self.view.show(len(self.running))
            if self.signals and deadline is None:
                self.view.say("interrupted: running trials are ending, Ctrl-C again kills them")
                self.jobs.interrupt()
                deadline = time.monotonic() + self.plan.settings.interrupt_seconds
            if self.signals > 1 or (deadline is not None and time.monotonic() > deadline):
                return

    def _may_ask(self) -> bool:
        too_many = len(self.failures) > failures_allowed(self.plan.settings)
        return not (self.signals or too_many)

    def _fill(self) -> None:
        """Start trials while there is room and the study wants more."""
        if time.monotonic() < self.look_again:
            return
        while len(self.running) < self.jobs.n_jobs and not self.signals:
            trial = self._claim()
            if trial is None:
                self.look_again = time.monotonic() + POLL_SECONDS
                return
            self._start(trial)

    def _claim(self) -> optuna.Trial | None:
        """Ask for a trial unless enough are finished or running, in all processes together."""
        plan, settings = self.plan, self.plan.settings
        with plan.lock():
            self._fail_lost()
            self._retry()
            trials = self.study.get_trials(deepcopy=False)
            finished = sum(trial.state in DONE for trial in trials)
            under_way = sum(trial.state is TrialState.RUNNING for trial in trials)
            self.view.take(trials)
            self.done = finished >= settings.n_trials
            if finished + under_way >= settings.n_trials:
                return None
            waiting = [one for one in trials if one.state is TrialState.WAITING]
            if not waiting:
                point = self._next_point(trials)
                if point is None:
                    self.done = not under_way
                    return None
                # Queued first: the trial then never runs without naming its process.
                seen = last_seen()
                self.study.enqueue_trial(point, {LAST_SEEN: seen, SWEEPER: seen})
            number = waiting[0].number if waiting else len(trials)
            self.study.sampler = make_sampler(settings.sampler, settings.seed, number)
            trial = self.study.ask(plan.space.distributions)
            if waiting:
                trial.set_user_attr(SWEEPER, last_seen())
                trial.set_user_attr(LAST_SEEN, last_seen())
            return trial

    def _next_point(self, trials: Sequence[FrozenTrial]) -> dict[str, object] | None:
        """Return what the next trial is given: nothing, but for a grid, which may end."""
        if self.plan.settings.sampler["name"] == "grid":
            return next_grid_point(self.plan.space, trials)
        return {}

    def _fail_lost(self) -> None:
        """End trials whose process is gone."""
        grace = GRACE_BEATS * self.plan.settings.heartbeat_seconds
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number in self.running:
                continue
            # One that names this process was begun by somebody who died before he could sign.
            stray = is_here(trial.user_attrs.get(SWEEPER, trial.user_attrs.get(LAST_SEEN)))
            if (stray or is_lost(trial, grace)) and fail(self.study, trial.number, LOST):
                self._tell_observer(trial.number)

    def _retry(self) -> None:
        """Queue once more what was interrupted or lost, whoever ran it."""
        trials = self.study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get("retry_of") for trial in trials}
        for trial in trials:
            again = "retry_of" in trial.user_attrs or trial.number in retried
            if not unlucky(trial) or again or not self._fits(trial.params):
                continue
            attrs = {LAST_SEEN: last_seen(), "retry_of": trial.number}
            self.study.enqueue_trial(trial.params, attrs)

    def _fits(self, params: Mapping[str, object]) -> bool:
        """Tell whether a point lies in the search space, which may have changed."""
        known = {one.name: one for one in self.plan.space.parameters}
        try:
            for name, value in params.items():
                known[name].stored(value)
        except (KeyError, ConfigError):
            return False
        return bool(params)

    def _start(self, trial: optuna.Trial) -> None:
        self.running[trial.number] = trial.params
        begun = self.observed.tell("trial_started", trial.number, trial.params)
        begun.add_done_callback(partial(self._keep_run_id, trial._trial_id))
        self.jobs.submit(self.plan.overrides(trial.number, trial.params), trial.number)
        with suppress(TimeoutError):
            begun.result(RUN_ID_SECONDS)

    def _keep_run_id(self, trial_id: int, begun: Future[Any]) -> None:
        # A trial that has ended takes no more attributes; its run names it by tags.
        with suppress(Exception):
            if isinstance(begun.result(), str):
                self.plan.storage.set_trial_user_attr(trial_id, "run_id", begun.result())

    def _settle(self, job: Job) -> None:
        """Tell the study of a job's end if the job has not done so itself."""
        number = job.index
        if job.kind == "value":
            self._tell_values(number, job.value)
        elif job.kind == "pruned":
            tell(self.study, number, "PRUNED")
        else:
            fail(self.study, number, job.reason or "unknown")
        self._tell_observer(number)
        self.running.pop(number)
        self.look_again = 0.0
        trial = self._frozen(number)
        if trial.state is TrialState.FAIL and job.kind != "interrupted":
            self.failures.append(str(trial.user_attrs.get(FAIL_REASON)))
        self.view.show(len(self.running))
        self.view.ended(trial, best_trials(self.study)[:1])

    def _tell_values(self, number: int, returned: Any) -> None:
        if self._frozen(number).state.is_finished():
            return
        values = _numbers(returned)
        wanted = len(self.study.directions)
        reason = f"the job returned {returned!r}" if values is None else bad_values(values, wanted)
        if reason is not None:
            fail(self.study, number, reason)
        else:
            tell(self.study, number, "COMPLETE", values)

    def _tell_observer(self, number: int) -> None:
        trial, folder = self._frozen(number), self.plan.folder / str(number)
        self.observed.tell(
            "trial_finished",
            number,
            trial.state.name,
            trial.values,
            trial.params,
            folder,
            trial.user_attrs,
        )

    def _frozen(self, number: int) -> FrozenTrial:
        storage = self.plan.storage
        study_id = storage.get_study_id_from_name(self.plan.name)
        trial: FrozenTrial = storage.get_trial(
            storage.get_trial_id_from_study_id_trial_number(study_id, number)
        )
        return trial

    def _on_signal(self) -> None:
        self.signals += 1
        if self.blocking:
            raise KeyboardInterrupt

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Show trials alive that wait for a machine, or whose job does not do so itself."""
        stop, seconds = threading.Event(), self.plan.settings.heartbeat_seconds

        def beat() -> None:
            while not stop.wait(seconds):
                for number in list(self.running):
                    with suppress(Exception):
                        self._beat(number)

        thread = threading.Thread(target=beat, name="sweep heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()

    def _beat(self, number: int) -> None:
        trial = self._frozen(number)
        mine = trial.user_attrs.get(LAST_SEEN, {}).get("pid") == last_seen()["pid"]
        if mine and not trial.state.is_finished():
            self.plan.storage.set_trial_user_attr(trial._trial_id, LAST_SEEN, last_seen())

    def _end(self) -> Outcome:
        best = best_trials(self.study)
        summary = {**best[0].params, "value": best[0].values[0]} if best else {}
        self.observed.close(summary, bool(self.signals))
        self.view.summary(best)
        page = self.plan.folder / "analysis.html"
        if page.is_file():
            what = "analysis, with a setting to recommend" if best else "analysis"
            self.view.say(f"{what}: {page}")
        if hasattr(self.plan.observer, "what_next"):
            words = self.plan.observer.what_next(_overrides(self.plan), self.done, bool(best))
            self.view.say(words)
        if self.signals:
            raise Interrupted(best[0].values[0] if best else float("nan"))
        if not self.done and len(self.failures) > failures_allowed(self.plan.settings):
            raise SweepError(
                f"study {self.plan.name}: {len(self.failures)} trials failed, more than "
                f"hydra.sweeper.max_failure_rate={self.plan.settings.max_failure_rate:g} of "
                f"{self.plan.settings.n_trials} allows; the last one because {self.failures[-1]}; "
                f"mend that and start the same command again, finished trials are kept"
            )
        front = best if len(self.study.directions) > 1 else best[:1]
        return {"study": self.plan.name, "best": [_row(trial) for trial in front]}


def _overrides(plan: Plan) -> list[str]:
    """Return flags and overrides of the command that goes on with this study."""
    given = plan.config.hydra.overrides
    own = [o for o in given.hydra if not o.startswith(("hydra.mode=", "hydra.sweeper.study_name="))]
    return ["--multirun", *given.task, *own, f"hydra.sweeper.study_name={plan.name}"]


def _row(trial: FrozenTrial) -> BestTrial:
    return {"number": trial.number, "values": trial.values, "params": trial.params}


def _of_storage(error: Exception) -> bool:
    """Tell whether an error came from the disk or the database, which need not be loaded."""
    database = getattr(sys.modules.get("sqlalchemy.exc"), "SQLAlchemyError", OSError)
    return isinstance(error, OSError | optuna.exceptions.StorageInternalError | database)


def _numbers(returned: Any) -> Sequence[float] | None:
    items = returned if isinstance(returned, list | tuple) else [returned]
    try:
        return [float(item) for item in items]
    except (TypeError, ValueError):
        return None


@contextmanager
def _signals(act: Any) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the sweep in order; a signal that is ignored stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda *_: act())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
