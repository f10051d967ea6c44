"""Score a stored model on any bars: those it was trained on, or others."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from ppo_workbench.config import (
    ActionSet,
    Config,
    ConfigError,
    FeaturesConfig,
    ForbiddenAction,
    ModelType,
    ScoredSplit,
    flatten,
)
from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.market.splits import Split
from ppo_workbench.pipeline.models.stored import (
    as_stored,
    find_artifact,
    open_bars_with_test,
    run_on_split,
)
from ppo_workbench.pipeline.promote.contender import resolved_config
from ppo_workbench.records.ledger import Access
from ppo_workbench.scoring.audit.verdict import AuditReport, audit
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars

SCORED_WITH = ("market", "data", "env", "costs", "risk", "splits")
MOST_NAMED = 4


@dataclass(frozen=True)
class Evaluation:
    """What a stored model did.

    Attributes:
        trace: Its decisions.
        experiment: The bars and everything made of them.
        metadata: The model's.
        access: The access to the test that this was, if it was one.
        split: Name in the experiment's splits of what was scored.
    """

    trace: Trace
    experiment: Experiment
    metadata: Metadata
    access: Access | None
    split: str

    def audit(self) -> AuditReport:
        """Check every fill against every rule, without the masks."""
        own = self.experiment.config
        masked = self.metadata.model_type is ModelType.maskable_ppo
        free = not masked and own.env.forbidden_action is ForbiddenAction.execute
        return audit(
            self.trace,
            self.experiment.bars,
            own,
            enforced=not free,
            masked=masked and own.env.masks_rules,
        )

    def notes(self) -> Iterator[str]:
        """Say what a reader of the figures must know."""
        data, bars = self.metadata.data, self.experiment.bars
        if self.access is not None:
            access = self.access
            dates = f"{access.start[:10]} .. {access.stop[:10]} of {access.instrument}"
            yield f"test access {access.looks} to {dates}, recorded"
        if bars.instrument != data.instrument or bars.bar_seconds != data.bar_seconds:
            yield (
                f"other bars than it was trained on: {bars.instrument} of {bars.bar_seconds} s, "
                f"trained on {data.instrument} of {data.bar_seconds} s"
            )
        elif bars.fingerprint != data.fingerprint:
            yield f"{bars.instrument}: other bars of the instrument that it was trained on"
        yield settings_note(self.experiment.config, self.metadata)


def evaluate_artifact(config: Config, artifact: str, split: ScoredSplit) -> Evaluation:
    """Run a stored model over a split of the configured bars.

    Features and actions are the model's own, whatever the configuration says; bars, costs,
    rules and splits are the configuration's.  Whatever holds test bars is recorded first.

    Args:
        config: Gives bars, costs, rules and splits.
        artifact: Name in trained_models/ or baselines/, or a path without its ending.
        split: `all` is everything after the warm-up, the test included.

    Raises:
        ConfigError: The bars have other columns of features than the model observes.
        ArtifactError: The artefact is missing or damaged.
        LedgerError: The access cannot be recorded, so nothing is opened.
    """
    folder, file = find_artifact(artifact)
    stored = load_artifact(folder, file)
    config = as_trained(config, stored.metadata)
    bars, splits = split_bars(config)
    access = None
    if split in (ScoredSplit.test, ScoredSplit.all):
        if split is ScoredSplit.all:
            splits["test"] = Split("test", splits["train"].start, splits["test"].stop)
        experiment, access = open_bars_with_test(config, bars, splits, f"evaluation of {file}")
        name = "test"
    else:
        experiment = prepare(config, bars, splits)
        name = split.value
    policy, seen = as_stored(stored, experiment)
    return Evaluation(run_on_split(seen, policy, name), seen, stored.metadata, access, name)


def settings_note(config: Config, metadata: Metadata) -> str:
    """Say whether bars, costs, rules and splits are those that a model was trained with."""
    try:
        found = settings_apart(config, metadata)
    except ConfigError as error:
        return f"whether bars, costs and rules are those of its training is not known: {error}"
    apart = [
        # Texts are left out: one taken from the environment may be a secret.
        key if isinstance(here, str | dict) else f"{key}={here} (trained with {there})"
        for key, (here, there) in found.items()
    ]
    if not apart:
        return "bars, costs, rules and splits are set as in its training"
    more = f" and {len(apart) - MOST_NAMED} more" if len(apart) > MOST_NAMED else ""
    return f"not set as in its training: {', '.join(apart[:MOST_NAMED])}{more}"


def settings_apart(config: Config, metadata: Metadata) -> dict[str, tuple[object, object]]:
    """Return full key -> value here and in a model's training, of those that differ.

    Raises:
        ConfigError: What the model recorded cannot be resolved here.
    """
    own = _leaves(as_trained(resolved_config(metadata.config, config), metadata))
    pairs = {key: (value, own.get(key)) for key, value in _leaves(config).items()}
    return {key: (here, there) for key, (here, there) in pairs.items() if here != there}


def _leaves(config: Config) -> dict[str, object]:
    """Flatten what decides how a stored model fares, except features, which are always its own."""
    return flatten({name: plain(asdict(getattr(config, name))) for name in SCORED_WITH})


def as_trained(config: Config, metadata: Metadata) -> Config:
    """Return the configuration with the features and actions of a stored model."""
    levels = list(metadata.exposure_levels)
    env = replace(
        config.env,
        action_set=ActionSet(metadata.action_set),
        exposure_levels=levels,
        allow_short=min(levels) < 0.0,
    )
    features = FeaturesConfig(**metadata.feature_specification)  # type: ignore[arg-type]
    return replace(config, env=env, features=features)
