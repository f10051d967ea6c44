"""The whole configuration, and its keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, get_type_hints

from pydantic import Field, JsonValue

from ppo_workbench.config.choices import ScoredSplit, Select, Task
from ppo_workbench.config.market import (
    CostsConfig,
    DataConfig,
    FeaturesConfig,
    MarketConfig,
    SplitsConfig,
)
from ppo_workbench.config.rules import RiskConfig
from ppo_workbench.config.tasks import (
    CompareConfig,
    DecideConfig,
    ObjectiveConfig,
    PaperConfig,
    PowerConfig,
    PromoteConfig,
    TrialConfig,
)
from ppo_workbench.config.training import (
    BudgetConfig,
    CheckpointConfig,
    EnvConfig,
    ModelConfig,
    RewardConfig,
    TrackingConfig,
)

Raw = Mapping[str, JsonValue]  # a configuration as plain values, secrets unresolved
# What a command may say anew when it resumes a run; all else is the run's own.
CHANGES_ON_RESUME = ("resume", "result_json", "checkpoint", "overwrite", "tracking")


@dataclass
class Config:
    """One resolved experiment."""

    task: Task = Task.train
    output: str | None = None
    overwrite: bool = False
    result_json: str | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    select: Select = Select.best
    artifact: str | None = None
    split: ScoredSplit = ScoredSplit.validation
    resume: str | None = None
    study: str | None = None
    run: str | None = None
    plugins: list[Annotated[str, Field(pattern=r"^[A-Za-z_][\w.-]*$")]] = field(
        default_factory=list
    )
    market: MarketConfig = field(default_factory=MarketConfig)
    data: DataConfig = field(default_factory=DataConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    costs: CostsConfig = field(default_factory=CostsConfig)
    risk: RiskConfig = field(default_factory=RiskConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    splits: SplitsConfig = field(default_factory=SplitsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    power: PowerConfig = field(default_factory=PowerConfig)
    decide: DecideConfig = field(default_factory=DecideConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)
    trial: TrialConfig = field(default_factory=TrialConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    promote: PromoteConfig = field(default_factory=PromoteConfig)


def known_keys(section: type = Config, prefix: str = "") -> dict[str, object]:
    """Map every full key (`model.learning_rate`), sections too, to its annotated type."""
    keys: dict[str, object] = {}
    for name, kind in get_type_hints(section, include_extras=True).items():
        keys[prefix + name] = kind
        if is_dataclass(kind):
            keys |= known_keys(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
    return keys


def section_of(raw: Raw, name: str) -> dict[str, JsonValue]:
    """Return a section of a plain configuration, empty where it is missing."""
    section = raw.get(name)
    return section if isinstance(section, dict) else {}


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return full key -> value of nested values; an empty mapping is a value.

    >>> flatten({"env": {"gamma": 0.9, "levels": [0]}, "extra": {}})
    {'env.gamma': 0.9, 'env.levels': [0], 'extra': {}}
    """
    found: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
