"""One configuration on fresh seeds: a candidate of a promotion, or a baseline it has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from ppo_workbench.config import (
    Config,
    ConfigError,
    ForbiddenAction,
    ModelType,
    Raw,
    section_of,
    validate_config,
)
from ppo_workbench.config.arrays import Floats
from ppo_workbench.delivery.artifact import Artifact, load_artifact
from ppo_workbench.delivery.describe import plain
from ppo_workbench.market.horizons import recorded_horizons
from ppo_workbench.pipeline.models.stored import run_on_split, selected_policy
from ppo_workbench.pipeline.sweep.trial import Bound, SeedTraining, instances, objective
from ppo_workbench.pipeline.train.scores import lower_bound
from ppo_workbench.records.studies.candidates import Candidate
from ppo_workbench.scoring.backtest import Policy
from ppo_workbench.scoring.catalogue import metric_of
from ppo_workbench.scoring.session_path import LEAST_SESSIONS
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import prepare, split_bars


class Contender:
    """Trains one configuration on fresh seeds and keeps every model; the test stays cut off."""

    def __init__(self, label: str, config: Config, raw: Raw, folder: Path) -> None:
        """Load bars and lay out the splits.

        Args:
            label: What the report calls it.
            config: Bars, rules, model and a budget in timesteps.
            raw: The same with secrets unresolved.
            folder: Where its models go.
        """
        self.label, self.folder = label, folder
        self.bars, self.splits = split_bars(config)
        self.experiment = prepare(config, self.bars, self.splits)
        self.config = self.experiment.config
        self.raw = recorded_horizons(raw, self.config)
        self.runs: list[SeedTraining] = []
        self._metric = config.objective.metrics[0]

    def train(self, seed: int) -> SeedTraining:
        """Train one seed to its end and keep the selected checkpoint as `seed_SEED`."""
        run = SeedTraining(self.experiment, seed, [])
        while run.training.advance():
            pass
        run.finish(self.folder, self.raw, None)
        self.runs.append(run)
        return run

    def scores(self) -> list[list[float]]:
        """Return one row of window scores a seed on validation, more is better."""
        sign = metric_of(self._metric).better
        return [[sign * score for score in instances(self._metric, run)] for run in self.runs]

    def bound(self) -> Bound:
        """Return the confidence bound of the validation objective over seeds and windows."""
        return objective(self.config, self._metric, self.runs, -1)

    def rank(self) -> float:
        """Return the bound, more is better."""
        return metric_of(self._metric).better * self.bound().value

    def delivered(self) -> SeedTraining:
        """Return the run that would be delivered: the best validation bound of its own."""
        return max(self.runs, key=lambda run: lower_bound(run.cards[-1]))

    def policy(self, run: SeedTraining) -> Policy:
        """Return the selected checkpoint of a run as a policy."""
        return selected_policy(self.config, run.training.result().tensors)

    def validation_trace(self, run: SeedTraining) -> Trace:
        """Return what a run's selected checkpoint does on validation."""
        return run_on_split(self.experiment, self.policy(run), "validation")

    def artifact(self, run: SeedTraining) -> Artifact:
        """Load what was kept of a run."""
        return load_artifact(self.folder, f"seed_{run.seed}")

    def check_test(self) -> None:
        """Refuse a test that is too short for any statistics, before the training.

        Raises:
            ConfigError: Fewer than `LEAST_SESSIONS` sessions.
        """
        test = self.splits["test"]
        sessions = len(np.unique(self.bars.session[test.start + 1 : test.stop]))
        if sessions < LEAST_SESSIONS:
            raise ConfigError(
                f"{self.label}: its test has {sessions} sessions, a promotion needs "
                f"{LEAST_SESSIONS} or more; sweep on more bars or with a larger splits.test_frac"
            )


def check_same_bars(contenders: Mapping[int, Contender], study: str) -> None:
    """Refuse candidates that were chosen on unlike bars: their scores cannot be compared.

    Args:
        contenders: By the number of their trial.
        study: Its name, for the sentence.

    Raises:
        ConfigError: The bars or the splits of two trials differ.
    """
    groups: dict[object, list[int]] = {}
    for number, one in contenders.items():
        splits = tuple((split.name, split.start, split.stop) for split in one.splits.values())
        groups.setdefault((one.bars.fingerprint, splits), []).append(number)
    if len(groups) > 1:
        unlike = " and ".join(str(sorted(numbers)) for numbers in groups.values())
        raise ConfigError(
            f"promote.study={study}: the trials {unlike} were scored on different bars or splits, "
            "so none is known to be the best; sweep each market under a hydra.sweeper.study_name "
            "of its own"
        )


def candidate_config(candidate: Candidate, config: Config) -> tuple[Config, Raw]:
    """Return a trial's own configuration, resolved and raw, to be trained anew.

    Args:
        candidate: The trial: bars, rules, rewards, model and budget are its own.
        config: The promotion's: where it is recorded, and its `promote` section.

    Raises:
        ConfigError: The trial trained standard PPO, or shares a seed with `promote.seeds`.
    """
    raw = {**candidate.raw, "promote": plain(asdict(config.promote))}
    if config.promote.timesteps is not None:
        raw["budget"] = section_of(raw, "budget") | {"timesteps": config.promote.timesteps}
    own = resolved_config(raw, config)
    where = f"promote.study={config.promote.study}: trial {candidate.number}"
    if own.model.type is not ModelType.maskable_ppo:
        raise ConfigError(f"{where} trained {own.model.type.value}; sweep model=maskable_ppo")
    known = sorted(set(config.promote.seeds) & set(candidate.seeds))
    if known:
        raise ConfigError(
            f"promote.seeds: {where} was chosen by its results on {known}; give fresh ones"
        )
    return own, raw


def resolved_config(raw: Raw, config: Config) -> Config:
    """Return a recorded configuration with secrets resolved, recorded where `config` says.

    Raises:
        ConfigError: It does not fit this version, or a variable of the environment is not set.
    """
    from omegaconf.errors import OmegaConfBaseException

    own = {key: value for key, value in raw.items() if key not in ("tracking", "trial", "compare")}
    own |= {"output": None, "resume": None, "result_json": None, "threads": config.threads}
    try:
        values = OmegaConf.to_container(OmegaConf.create(own), resolve=True)
    except OmegaConfBaseException as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"the recorded configuration cannot be resolved: {text}") from None
    assert isinstance(values, dict)
    resolved = validate_config({str(key): value for key, value in values.items()})
    checkpoint = replace(resolved.checkpoint, every_seconds=None)
    return replace(resolved, tracking=config.tracking, checkpoint=checkpoint)


def baseline_config(
    rival: Contender, answer: ForbiddenAction, timesteps: int | None
) -> tuple[Config, Raw]:
    """Return a rival's configuration, resolved and raw, as standard PPO without masks.

    Args:
        rival: What it is the baseline of; all else is the same.
        answer: What happens to forbidden actions.
        timesteps: Its budget; None is the rival's.
    """
    changes: dict[str, dict[str, object]] = {
        "env": {"forbidden_action": answer, "mask_all_true": False, "mask_rules": True},
        "model": {"type": ModelType.ppo},
    }
    if timesteps is not None:
        changes["budget"] = {"timesteps": timesteps}
    own, raw = rival.config, dict(rival.raw)
    for section, values in changes.items():
        own = replace(own, **{section: replace(getattr(own, section), **values)})
        raw[section] = {**section_of(raw, section), **plain(values)}
    return own, raw


def mean_excess(returns: Sequence[Floats], cash: Floats) -> Floats:
    """Return the mean over runs of session returns less cash, float64 (T,)."""
    mean: Floats = np.mean([np.asarray(run, np.float64) for run in returns], axis=0) - cash
    return mean
