"""Does a model hold what it says: train it again from its metadata, or audit every fill."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ppo_workbench.config import BudgetConfig, Config, ConfigError, WorkbenchError
from ppo_workbench.delivery.artifact import Artifact, load_artifact
from ppo_workbench.delivery.describe import library_versions
from ppo_workbench.delivery.golden import PREFIX
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.pipeline.models.evaluation import as_trained, evaluate_artifact, settings_apart
from ppo_workbench.pipeline.models.stored import named_artifact
from ppo_workbench.pipeline.promote.contender import Contender, resolved_config
from ppo_workbench.pipeline.result_json import check_result_path, write_result
from ppo_workbench.scoring.audit.verdict import AuditReport


class VerificationError(WorkbenchError):
    """A model is not what its metadata say, or breaks a rule that it was to keep."""


@dataclass(frozen=True)
class Verification:
    """A model against its second training.

    Attributes:
        same_machine: Processor and libraries are those of the first training: then every bit has
            to agree.
        identical: Every tensor is the same to the last bit.
        sharpe_difference: Annual validation Sharpe ratio, second minus first.
        tolerance: Largest size of it elsewhere: one standard error of the first.
    """

    same_machine: bool
    identical: bool
    sharpe_difference: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Tell whether the model was reproduced as far as this machine can."""
        if self.same_machine:
            return self.identical
        return self.identical or abs(self.sharpe_difference) <= self.tolerance

    def describe(self) -> str:
        """Say it in words."""
        where = "the same processor and libraries" if self.same_machine else "another machine"
        bits = "every bit agrees" if self.identical else "weights differ"
        return (
            f"trained again on {where}: {bits}, validation Sharpe ratio differs by "
            f"{self.sharpe_difference:+.4f} (tolerance elsewhere {self.tolerance:.2f})"
        )


def verify(config: Config, console: WorkbenchConsole | None = None) -> Verification:
    """Carry out `task=verify`: train `config.artifact` again and compare.

    Costs, rules, hyperparameters, seed and timesteps are those that its metadata record; where
    its bars are says `config.data`.

    Raises:
        ConfigError: The bars are not those that it was trained on, or `config` has other costs,
            rules or splits.
        VerificationError: It was not reproduced.
    """
    console = console or WorkbenchConsole()
    check_result_path(config.result_json)
    folder, name = named_artifact(config)
    stored = load_artifact(folder, name)
    _check_settings(config, stored.metadata)
    own = replace(recorded_config(stored.metadata, config), data=config.data)
    with TemporaryDirectory() as scratch:
        again = Contender(name, own, stored.metadata.config, Path(scratch))
        if again.experiment.bars.fingerprint != stored.metadata.data.fingerprint:
            raise ConfigError(
                f"artifact={name}: the bars differ from those that it was trained on; give the "
                "same file, data.path=FILE"
            )
        run = again.train(stored.metadata.seed)
        found = compare_models(stored, again.artifact(run))
    console.show(f"{name}: {found.describe()}")
    write_result(config.result_json, {**vars(found), "agrees": found.agrees})
    if not found.agrees:
        raise VerificationError(
            f"artifact={name}: {found.describe()}; it was not made as its metadata say"
        )
    return found


def _check_settings(config: Config, metadata: Metadata) -> None:
    """Refuse other settings than those of the training, but for where the bars are."""
    apart = settings_apart(as_trained(config, metadata), metadata)
    named = [key for key in apart if not key.startswith("data.")]
    if named:
        raise ConfigError(
            f"{', '.join(named)}: task=verify trains a model as its metadata record, with no other "
            "value; name at most where its bars are, data.path=FILE"
        )


def recorded_config(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a model's training, its budget in recorded timesteps."""
    raw = dict(metadata.config)
    own = resolved_config({**raw, "seed": metadata.seed}, config)
    if own.budget.timesteps is None or own.budget.minutes or own.budget.episodes:
        # What time or episodes ended is repeated by the number of steps that it came to.
        own.budget = BudgetConfig(
            timesteps=metadata.training.timesteps, evaluations=own.budget.evaluations
        )
    return own


def compare_models(first: Artifact, second: Artifact) -> Verification:
    """Compare weights and validation of two trainings of one model; golden vectors aside."""
    one, two = _learnt(first), _learnt(second)
    same = one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    a, b = first.metadata, second.metadata
    cards = [model.scorecards.validation or {} for model in (a, b)]
    values = [_figure(card, "sharpe_annual") for card in cards]
    return Verification(
        same_machine=a.cpu == b.cpu and a.libraries == library_versions(),
        identical=same,
        sharpe_difference=values[1] - values[0],
        tolerance=_figure(cards[0], "sharpe_standard_error"),
    )


def _learnt(artifact: Artifact) -> dict[str, torch.Tensor]:
    return {key: value for key, value in artifact.tensors.items() if not key.startswith(PREFIX)}


def _figure(card: object, name: str) -> float:
    value = card.get(name) if isinstance(card, dict) else None
    return float(value) if isinstance(value, int | float) else 0.0


def audit_artifact(config: Config, console: WorkbenchConsole | None = None) -> AuditReport:
    """Carry out `task=audit`: check every fill of `config.artifact` against every rule.

    Raises:
        VerificationError: A rule is broken, or one is on that the audit does not know.
    """
    console = console or WorkbenchConsole()
    check_result_path(config.result_json)
    name = named_artifact(config)[1]
    found = evaluate_artifact(config, str(config.artifact), config.split)
    report = found.audit()
    console.show(f"{name} on {config.split.value} of {found.experiment.bars.instrument}")
    for note in found.notes():
        console.show(f"note: {note}")
    console.show(report.describe())
    write_result(config.result_json, report.to_dict())
    if report.count or report.unaudited:
        broken = [rule for rule, count in report.by_rule.items() if count]
        raise VerificationError(
            f"artifact={name}: {report.count} violations "
            f"({', '.join([*broken, *report.unaudited])}); the lines above say where"
        )
    return report
