"""The study of a sweep: its pruner, who is alive, and what the job of a trial tells it.

Sweeper and jobs are separate processes that share nothing but the storage.  A trial is alive
while the process that it names in `last_seen` is: on the same machine the process is looked
up, elsewhere the age of `last_seen` decides.  While the process named in `sweeper` lives, the
trial and its record are its affair.  optuna is imported inside functions: the command
line must answer before it is loaded.
"""

import inspect
import math
import os
import platform
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ppo_workbench.config import ConfigError, WorkbenchError
from ppo_workbench.config.secrets import redact
from ppo_workbench.records.storage import open_storage as open_storage

if TYPE_CHECKING:
    import optuna

HEARTBEAT_SECONDS = 30.0
GRACE_BEATS = 4  # a trial elsewhere is lost after this many missed heartbeats
LAST_SEEN, SWEEPER, FAIL_REASON = "last_seen", "sweeper", "fail_reason"
SWEEP, SETTLED = "sweep", "settled"
LINEAGE = "lineage"  # studies that it was warm started from -> trials that had been begun in each
INTERRUPTED, LOST = "interrupted", "its process died without a word"
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "asha": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "percentile": "PercentilePruner",
    "wilcoxon": "WilcoxonPruner",
}


class Seen(TypedDict):
    """A process that showed itself alive: Unix time, and what names it."""

    time: float
    machine: str
    pid: int
    started: float


class TrialAttributes(TypedDict, total=False):
    """What a study keeps of a trial, beside parameters and values."""

    seeds: list[int]
    mean: float
    standard_error: float
    interval: list[float]
    timesteps: int
    seconds: float
    pruned_at: int | None
    folder: str
    artifacts: list[str]
    run_id: str
    last_seen: Seen
    sweeper: Seen
    fail_reason: str
    retry_of: int


_PROCESS: tuple[Literal["machine", "pid", "started"], ...] = ("machine", "pid", "started")


class StudyError(WorkbenchError):
    """A trial or its study cannot be recorded as asked."""


def make_pruner(spec: Mapping[str, object]) -> "optuna.pruners.BasePruner":
    """Build the pruner `{name: ..., argument: ...}`.

    Raises:
        ConfigError: The name or an argument is unknown, or a value is not allowed.
    """
    import optuna

    return build("pruner", PRUNERS, spec, optuna.pruners)  # type: ignore[no-any-return]


def build(
    kind: str,
    registry: Mapping[str, str],
    spec: Mapping[str, object],
    module: Any,
    hidden: Sequence[str] = (),
    **own: Any,
) -> Any:
    """Build what `spec` names, its arguments checked first.

    Args:
        kind: "sampler" or "pruner", for the sentence.
        registry: name -> name of the class in `module`.
        spec: `{name: ..., argument: value, ...}`.
        module: `optuna.samplers` or `optuna.pruners`.
        hidden: Arguments that a user cannot give.
        own: Arguments that are not the user's.

    Raises:
        ConfigError: The name or an argument is unknown, or a value is not allowed.
    """
    # Null takes an argument back that a file gave to another pruner or sampler.
    arguments = {key: value for key, value in spec.items() if value is not None}
    name, where = str(arguments.pop("name", None)), f"hydra.sweeper.{kind}"
    if name not in registry:
        raise ConfigError(f"{where}.name={name}: must be one of {', '.join(registry)}")
    if name == "none":
        arguments.clear()
    kind_class = getattr(module, registry[name])
    signature = inspect.signature(kind_class.__init__).parameters
    known = {
        key: parameter
        for key, parameter in signature.items()
        if key not in ("self", *hidden, *own)
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    if not arguments.keys() <= known.keys():
        unknown = next(key for key in arguments if key not in known)
        takes = ", ".join(known) or "no argument"
        raise ConfigError(
            f"{where}.{unknown}: {name} has no such argument, it takes {takes}; "
            f"write {where}.{unknown}=null if another file gives it"
        )
    for key, parameter in known.items():
        if key not in arguments and parameter.default is parameter.empty:
            raise ConfigError(f"{where}.{key}: {name} needs a value, write {where}.{key}=VALUE")
        if key in arguments and not _fits(arguments[key], str(parameter.annotation)):
            raise ConfigError(
                f"{where}.{key}={arguments[key]!r}: must be {parameter.annotation} for {name}"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a class is young is no news to the user
            return kind_class(**arguments, **own)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {name} refuses its arguments ({error})") from None


def _fits(value: Any, annotation: str) -> bool:
    kinds = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    names = [name.strip() for name in annotation.split("|")]
    if any(name not in {*kinds, "None"} for name in names):
        return True
    if value is None:
        return "None" in names
    if isinstance(value, bool):
        return "bool" in names
    return any(isinstance(value, kinds[name]) for name in names if name != "None")


def load_study(storage: "optuna.storages.BaseStorage", name: str) -> "optuna.Study":
    """Load a study for reading, reporting and telling, with the pruner it was given.

    Raises:
        StudyError: The storage holds no such study.
    """
    import optuna

    try:
        study = optuna.load_study(
            study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler()
        )
    except KeyError:
        raise StudyError(f"study {name}: the storage holds no study of this name") from None
    study.pruner = make_pruner(study.user_attrs.get(SWEEP, {}).get("pruner", {"name": "none"}))
    return study


def heartbeat_seconds(study: "optuna.Study") -> float:
    """Return how often a trial of this study shows itself alive."""
    return float(study.user_attrs.get(SWEEP, {}).get("heartbeat_seconds", HEARTBEAT_SECONDS))


@cache
def _machine() -> str:
    """Identify this boot of this machine and this space of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def last_seen() -> Seen:
    """Return the attribute by which others tell whether this process is alive."""
    import psutil

    return {
        "time": time.time(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def is_here(seen: Seen | None) -> bool:
    """Tell whether `last_seen` or `sweeper` names this process."""
    mine = last_seen()
    return seen is not None and all(seen[key] == mine[key] for key in _PROCESS)


def is_watched(trial: "optuna.trial.FrozenTrial", grace_seconds: float) -> bool:
    """Tell whether another sweep process, which lives, ends or records this trial itself.

    Args:
        trial: As read from the storage.
        grace_seconds: What a process on another machine gets to record a trial that has ended.
    """
    sweeper = trial.user_attrs.get(SWEEPER)
    if sweeper is None or is_here(sweeper):
        return False
    if sweeper["machine"] == _machine():
        return _is_running(sweeper["pid"], sweeper["started"])
    end = trial.datetime_complete
    return end is not None and time.time() - end.timestamp() < grace_seconds


def is_lost(trial: "optuna.trial.FrozenTrial", grace_seconds: float) -> bool:
    """Tell whether a RUNNING trial's process is gone and nobody else will notice.

    Args:
        trial: As read from the storage.
        grace_seconds: Silence after which a trial on another machine counts as lost.
    """
    if is_watched(trial, grace_seconds):
        return False
    seen = trial.user_attrs.get(LAST_SEEN)
    if seen is None:
        start = trial.datetime_start
        return start is None or time.time() - start.timestamp() > grace_seconds
    if seen["machine"] == _machine():
        return not _is_running(seen["pid"], seen["started"])
    return bool(time.time() - seen["time"] > grace_seconds)


def _is_running(pid: int, started: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 2.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def tell(
    study: "optuna.Study", number: int, state: str, values: Sequence[float] | None = None
) -> bool:
    """End a trial, once; its sampler was chosen by whoever asked, so none is consulted.

    Args:
        study: From `load_study`.
        number: The trial.
        state: "COMPLETE", "PRUNED" or "FAIL".
        values: One for each direction if complete.

    Returns:
        False if somebody had ended the trial before.
    """
    from optuna.trial import TrialState

    if _frozen(study, number).state.is_finished():
        return False
    study.tell(number, list(values) if values is not None else None, TrialState[state])
    return True


def _frozen(study: "optuna.Study", number: int) -> "optuna.trial.FrozenTrial":
    storage = study._storage
    return storage.get_trial(
        storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    )


def fail(study: "optuna.Study", number: int, reason: str) -> bool:
    """End a trial as FAIL with its reason; False if it had ended before."""
    frozen = _frozen(study, number)
    if frozen.state.is_finished():
        return False
    study._storage.set_trial_user_attr(frozen._trial_id, FAIL_REASON, redact(reason)[:2000])
    return tell(study, number, "FAIL")


def bad_values(values: Sequence[float], wanted: int) -> str | None:
    """Say why values cannot end a trial as COMPLETE, or return None."""
    if len(values) != wanted:
        return f"{len(values)} values for {wanted} directions"
    bad = next((value for value in values if not math.isfinite(value)), None)
    return None if bad is None else f"the value is {bad}"


class TrialSession:
    """A trial as its job sees it: reports, asks whether to go on, and tells its own end.

    A context manager: an exception that leaves it fails the trial with its reason.
    """

    def __init__(self, storage_uri: str | None, study: str, number: int, home: Path) -> None:
        """Open the trial that the sweeper has asked for and begin to show it alive.

        Args:
            storage_uri: As for `open_storage`.
            study: Name of the study.
            number: Number of the trial in it.
            home: The workbench's home folder.

        Raises:
            ConfigError: The storage cannot be reached.
            StudyError: There is no such trial, or it is not running.
        """
        self.number = number
        self.study = load_study(open_storage(storage_uri, home, study), study)
        self._storage = self.study._storage
        try:
            frozen = _frozen(self.study, number)
        except KeyError:
            raise StudyError(f"study {study} has no trial {number}") from None
        if frozen.state.is_finished():
            raise StudyError(f"trial {number} of {study} has ended as {frozen.state.name}")
        self.params: dict[str, object] = frozen.params
        self.run_id: str | None = frozen.user_attrs.get("run_id")
        self._id = frozen._trial_id
        self._single = len(self.study.directions) == 1
        self._beat()
        self._ended = threading.Event()
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()

    @property
    def compares_instances(self) -> bool:
        """Whether the pruner compares final scores by seed and window, not by training time."""
        import optuna

        return isinstance(self.study.pruner, optuna.pruners.WilcoxonPruner)

    def report(self, value: float, step: int) -> bool:
        """Record an intermediate value and tell whether the trial should be pruned.

        Args:
            value: Finite; larger is better or worse as the study's direction says.
            step: Index of the part of the budget, or of the seed and window, from 0, each once.

        Returns:
            True = end this trial with `pruned`.  Always False with several objectives, which
            Optuna cannot prune.

        Raises:
            StudyError: The value is not finite.
        """
        if not math.isfinite(value):
            raise StudyError(f"the value reported at step {step} is {value}")
        if not self._single:
            return False
        self._storage.set_trial_intermediate_value(self._id, step, float(value))
        return self.study.pruner.prune(self.study, self._storage.get_trial(self._id))

    def complete(
        self,
        values: Sequence[float],
        user_attrs: Mapping[str, object] | None = None,
        constraints: Sequence[float] = (),
    ) -> None:
        """End the trial as COMPLETE, or as FAIL if a value is not finite.

        Args:
            values: One for each direction.
            user_attrs: JSON values kept with the trial.
            constraints: Each is met at <= 0; a trial that misses one is infeasible.
        """
        reason = bad_values(values, len(self.study.directions))
        if reason is None and any(math.isnan(value) for value in constraints):
            reason = "a constraint is nan"
        self._attributes(user_attrs)
        if reason is not None:
            self.failed(reason)
            return
        if constraints:
            import optuna

            trial = optuna.trial.Trial(self.study, self._id)
            for position, constraint in enumerate(constraints):
                trial.set_constraint(f"constraint_{position}", constraint)
        self._end("COMPLETE", [float(value) for value in values])

    def pruned(self, user_attrs: Mapping[str, object] | None = None) -> None:
        """End the trial as PRUNED; its value is the last one reported."""
        self._attributes(user_attrs)
        self._end("PRUNED")

    def failed(self, reason: str) -> None:
        """End the trial as FAIL, keeping the reason as the attribute `fail_reason`."""
        self._ended.set()
        fail(self.study, self.number, reason)

    def close(self) -> None:
        """Stop showing the trial alive; without an end told before, the sweeper will tell."""
        self._ended.set()

    def __enter__(self) -> "TrialSession":
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Fail the trial if an exception leaves the job."""
        if error is not None:
            self.failed(describe(error))
        self.close()

    def _end(self, state: str, values: Sequence[float] | None = None) -> None:
        self._ended.set()
        tell(self.study, self.number, state, values)

    def _attributes(self, values: Mapping[str, object] | None) -> None:
        for key, value in (values or {}).items():
            self._storage.set_trial_user_attr(self._id, key, value)

    def _beat(self) -> None:
        self._storage.set_trial_user_attr(self._id, LAST_SEEN, last_seen())

    def _keep_beating(self) -> None:
        while not self._ended.wait(heartbeat_seconds(self.study)):
            try:
                self._beat()
            except Exception:  # told at the next report; a missed beat alone loses nothing
                continue


def describe(error: BaseException) -> str:
    """Return one line for the reason of a failure."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return f"the job ended itself with sys.exit({error.code})"
    text = redact(" ".join(str(error).split()))
    return text if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {text}"
