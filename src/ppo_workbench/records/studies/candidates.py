"""The trials of a study as a promotion needs them: its best, their settings, and its true size."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_workbench.config import ConfigError, Raw, RiskConfig, Severity
from ppo_workbench.records.storage import check_study_folder, open_storage
from ppo_workbench.records.studies.identity import check_folder
from ppo_workbench.records.studies.lineage import trials_elsewhere
from ppo_workbench.records.studies.returns import Returns, study_returns
from ppo_workbench.records.studies.session import LINEAGE, load_study

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

# Settings that decide what a trial's score means, and so are no hyperparameters.
JUDGES = ("costs", "data", "experiment", "market", "objective", "risk", "splits")
HOUSE_LIMITS = {
    f"risk.{name}.{key}"
    for name, rule in asdict(RiskConfig()).items()
    for key in rule
    if rule["severity"] is Severity.house and key not in ("enabled", "severity")
}


@dataclass(frozen=True)
class Candidate:
    """A trial that may be promoted.

    Attributes:
        number: Of the trial in its study.
        value: Its validation objective.
        params: What the sweep chose.
        seeds: Learner seeds that the study scored it with.
        raw: Its configuration with secrets unresolved.
    """

    number: int
    value: float
    params: Mapping[str, object]
    seeds: tuple[int, ...]
    raw: Raw


@dataclass(frozen=True)
class StudyTrials:
    """A study.

    Attributes:
        name: Its name.
        states: Trials by state, in words of Optuna.
        candidates: The best complete, feasible trials, the best first, each set of parameters
            once.
        returns: Trial -> seed -> daily validation returns, of all that were scored.
        elsewhere: Trials that are not its own, see `records.studies.lineage`.
        research: Why it is for research alone; None where it may be promoted from.
    """

    name: str
    states: Mapping[str, int]
    candidates: tuple[Candidate, ...]
    returns: Mapping[int, Mapping[int, Returns]]
    elsewhere: Mapping[str, int]
    research: str | None

    @property
    def trials(self) -> int:
        """Every trial that was begun: complete, pruned, failed, run again, running, elsewhere."""
        own = sum(count for state, count in self.states.items() if state != "WAITING")
        return own + sum(self.elsewhere.values())


def read_study(storage: str | None, home: Path, name: str, top: int) -> StudyTrials:
    """Read a study and its `top` best candidates.

    Raises:
        ConfigError: There is no such study, none of its trials is complete and feasible, or
            the folder of a candidate is not on this machine.
    """
    folder = check_study_folder("promote.study", storage, home, name)
    study = load_study(open_storage(storage, home, name), name)
    check_folder(study, folder)
    states = Counter(trial.state.name for trial in study.get_trials(deepcopy=False))
    best = _best(study, top)
    if not best:
        counts = ", ".join(f"{count} {state.lower()}" for state, count in states.items())
        raise ConfigError(
            f"promote.study={name}: none of its trials is complete and feasible "
            f"({counts or 'there is none'}); run the sweep to its end"
        )
    candidates = tuple(_candidate(trial, folder) for trial in best)
    returns = study_returns(study, home)
    elsewhere = trials_elsewhere(folder, best[0].number, study.user_attrs.get(LINEAGE, {}), home)
    return StudyTrials(name, dict(states), candidates, returns, elsewhere, research_alone(study))


def research_alone(study: "Study") -> str | None:
    """Say which searched settings make a study research and not promotable; None if none does.

    The best under unlike costs, rules, splits or objectives is the most kindly judged.  The
    limits of house rules may be searched, not whether they are on, and no law.
    """
    searched = {key for trial in study.get_trials(deepcopy=False) for key in trial.params}
    found = sorted(key for key in searched - HOUSE_LIMITS if key.partition(".")[0] in JUDGES)
    told = (
        f"Study {study.study_name} is research and not promotable: it searched {', '.join(found)}, "
        "so its trials were judged by unlike measures; fix these in a study to promote from, or "
        "write promote.profile=research"
    )
    return told if found else None


def _best(study: "Study", top: int) -> "list[FrozenTrial]":
    """Return the best trials by the first objective, each set of parameters once."""
    usable = [trial for trial in study.get_trials(deepcopy=False) if _is_usable(trial)]
    rising = study.directions[0].name == "MINIMIZE"
    # The earlier of equals first.
    usable.sort(key=lambda t: (t.values[0] if rising else -t.values[0], t.number))
    distinct: dict[str, FrozenTrial] = {}
    for trial in usable:
        distinct.setdefault(json.dumps(trial.params, sort_keys=True, default=str), trial)
    return list(distinct.values())[:top]


def _is_usable(trial: "FrozenTrial") -> bool:
    if trial.state.name != "COMPLETE" or not all(map(math.isfinite, trial.values)):
        return False
    return all(value <= 0.0 for value in trial.constraints.values())


def _candidate(trial: "FrozenTrial", folder: Path) -> Candidate:
    path = folder / str(trial.number) / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"promote.study={folder.name}: the configuration of trial {trial.number} cannot be "
            f"read ({error}); copy its folder from the machine that ran it"
        ) from None
    seeds = tuple(int(seed) for seed in trial.user_attrs.get("seeds", ()))
    return Candidate(trial.number, float(trial.values[0]), dict(trial.params), seeds, raw)
