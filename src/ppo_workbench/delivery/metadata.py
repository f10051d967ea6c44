"""Schema of `NAME-metadata.json`: everything a consumer has to know about a model.

docs/artifact.md publishes it field by field.  Unknown fields are refused, so a change of
the schema is a change of `FORMAT_VERSION`.
"""

from enum import Enum
from typing import Annotated, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from ppo_workbench.config import ActionSet, ModelType, Select, Severity
from ppo_workbench.market.reader.conventions import Conventions

FORMAT_VERSION = 2
STEP_ACTIONS = ("SELL", "HOLD", "BUY")

Name = Annotated[str, StringConstraints(min_length=1)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]


class Status(Enum):
    """State of an artefact; an application activates champions only, unless told."""

    candidate = "candidate"
    champion = "champion"
    previous = "previous"
    challenger = "challenger"


class _Model(BaseModel):
    """Immutable, finite, closed: a misspelt or unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Rule(_Model):
    """One mask rule that was on in training, with the parameters it was trained with."""

    code: Annotated[int, Field(ge=0, le=62)]
    name: Name
    severity: Severity
    parameters: dict[str, JsonValue] = {}


class Observation(_Model):
    """Order of the observation vector: market features first, then the account's state."""

    market_names: list[Name]
    account_names: list[Name]
    scaled: bool


class Architecture(_Model):
    """Shape of the policy network."""

    feature_dim: Annotated[int, Field(ge=1)]
    sequence_length: Annotated[int, Field(ge=1, le=1)] = 1
    net_arch: list[Annotated[int, Field(ge=1)]]
    activation: Name


class Normalization(_Model):
    """Scaler of the observation: (value - mean) / std, fitted on the training split only."""

    means: list[float]
    stds: list[Annotated[float, Field(gt=0)]]


class DateRange(_Model):
    """First and last bar of a split, start of the bar in UTC, both included."""

    start: AwareDatetime
    stop: AwareDatetime

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start > self.stop:
            raise ValueError(f"start {self.start} is later than stop {self.stop}")
        return self


class Data(_Model):
    """Which bars the model was trained, selected and (if at all) tested on."""

    source: Name
    instrument: Name
    fingerprint: Name
    calendar: Name
    timezone: Name
    bar_seconds: Annotated[int, Field(ge=1)]
    bars_per_session: Annotated[int, Field(ge=1)] | None = None
    has_volume: bool = True
    conventions: Conventions | None = None
    splits: dict[Name, DateRange]


class Scorecards(_Model):
    """Scorecards with units in their names; `test` stays null until a promotion opens it."""

    train: dict[str, JsonValue] | None = None
    validation: dict[str, JsonValue] | None = None
    test: dict[str, JsonValue] | None = None


class Gate(_Model):
    """One promotion gate and its verdict."""

    name: Name
    passed: bool
    value: float | None = None
    threshold: float | None = None
    reason: str = ""


class Training(_Model):
    """What the training took, and which checkpoint was kept.

    `effective_evaluations`: of how many independent evaluations, by their correlation, the
    checkpoint was chosen; 1 is no choice.
    """

    timesteps: Annotated[int, Field(ge=0)]
    episodes: Annotated[int, Field(ge=0)]
    minutes: Annotated[float, Field(ge=0)]
    passes: Annotated[float, Field(ge=0)]
    select: Select
    selected_timesteps: Annotated[int, Field(ge=0)]
    plan: list[tuple[int, int]] = []
    effective_evaluations: Annotated[float, Field(ge=1)] = 1.0


class Metadata(_Model):
    """The whole of `NAME-metadata.json`.

    `name`, `tensors`, `pth_sha256` and `metadata_sha256` are filled in by
    `save_artifact`; whoever builds the metadata leaves them out.
    """

    format_version: Annotated[int, Field(ge=1)] = FORMAT_VERSION
    name: str = ""
    status: Status = Status.candidate
    model_type: ModelType
    created_utc: AwareDatetime
    expires_at: AwareDatetime | None = None

    action_set: ActionSet
    action_names: list[Name]
    action_target_exposures: list[float | None]
    exposure_levels: Annotated[list[float], Field(min_length=2)]
    rules: list[Rule]

    feature_names: Annotated[list[Name], Field(min_length=1)]
    feature_specification: dict[str, JsonValue]
    feature_ranges: dict[str, tuple[float, float]]
    warmup_bars: Annotated[int, Field(ge=0)]
    observation: Observation
    sequence_length: Annotated[int, Field(ge=1, le=1)] = 1
    architecture: Architecture
    normalization: Normalization

    config: dict[str, JsonValue]
    seed: Annotated[int, Field(ge=0)]
    data: Data
    training: Training
    scorecards: Scorecards = Scorecards()
    gates: list[Gate] = []

    mlflow_run_id: str | None = None
    study: str | None = None
    trial_number: Annotated[int, Field(ge=0)] | None = None
    git_commit: str | None = None
    plugins: dict[Name, Sha256] = {}
    libraries: dict[str, str]
    cpu: str

    tensors: dict[str, list[int]] = {}
    pth_sha256: Sha256 = ""
    metadata_sha256: Sha256 = ""

    @model_validator(mode="after")
    def _actions_agree(self) -> Self:
        names, targets = self.action_names, self.action_target_exposures
        if len(set(names)) != len(names):
            raise ValueError(f"action_names {names} repeat a name")
        if len(names) != len(targets):
            raise ValueError(
                f"action_names has {len(names)} and action_target_exposures {len(targets)} entries"
            )
        if self.action_set is ActionSet.step and tuple(names) != STEP_ACTIONS:
            raise ValueError(f"action_names {names} must be {list(STEP_ACTIONS)} in this order")
        if foreign := [x for x in targets if x is not None and x not in self.exposure_levels]:
            raise ValueError(
                f"action_target_exposures {foreign} are not in exposure_levels "
                f"{self.exposure_levels}"
            )
        return self

    @model_validator(mode="after")
    def _features_agree(self) -> Self:
        names, layout = self.feature_names, self.observation
        if names != [*layout.market_names, *layout.account_names]:
            raise ValueError(
                "feature_names must be observation.market_names followed by "
                "observation.account_names"
            )
        if len(set(names)) != len(names):
            raise ValueError("feature_names repeat a name")
        lengths = {
            "architecture.feature_dim": self.architecture.feature_dim,
            "normalization.means": len(self.normalization.means),
            "normalization.stds": len(self.normalization.stds),
        }
        if wrong := {key: n for key, n in lengths.items() if n != len(names)}:
            raise ValueError(f"{wrong} must equal the number of feature_names, {len(names)}")
        if unknown := sorted(set(self.feature_ranges) - set(names)):
            raise ValueError(f"feature_ranges name unknown features {unknown}")
        return self
