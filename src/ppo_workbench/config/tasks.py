"""Sections of the tasks beyond training: sweeps, comparisons, promotion, live decisions."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from ppo_workbench.config.choices import (
    AccountSource,
    ForbiddenAction,
    LineFormat,
    PromotionProfile,
)
from ppo_workbench.config.ranges import FolderName, Name, Positive


@dataclass
class ObjectiveConfig:
    """What a trial of a sweep is judged by, on the validation split alone.

    Mean over seeds and windows less `standard_errors` times its standard error (more, where
    less of the metric is better).
    """

    metrics: Annotated[list[str], Field(min_length=1, max_length=3)] = field(
        default_factory=lambda: ["sharpe_annual"]
    )
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = field(
        default_factory=lambda: [0, 1]
    )
    windows: Annotated[int, Field(ge=1, le=100)] = 4
    standard_errors: Annotated[float, Field(ge=0, le=10)] = 1.0
    max_drawdown_frac: Annotated[float | None, Field(gt=0, le=1)] = None


@dataclass
class PowerConfig:
    """The comparison that `task=power` plans: how large a difference, how sure, on how much.

    Differences are of annual Sharpe ratios. `test_years` null is the test split's own length;
    `seed_deviation` is that of the paired difference between training seeds, from a pilot.
    """

    differences: Annotated[list[Positive], Field(min_length=1, max_length=20)] = field(
        default_factory=lambda: [0.25, 0.5, 1.0, 2.0]
    )
    power: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seeds: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    seed_deviation: Annotated[float, Field(ge=0, le=1000)] = 0.6
    test_years: Annotated[float | None, Field(gt=0, le=10_000)] = None
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 2000


@dataclass
class DecideConfig:
    """Where `task=decide` reads bars and writes decisions; "-" is standard input and output.

    `format` null: csv for a file of that ending, else JSON lines.  `account` simulated: filled
    at the next bar with the model's own costs; given: in each JSON line.  `state`: a file that
    a start goes on from, if it is there, and that is kept up to date.
    """

    input: str = "-"
    output: str = "-"
    state: str | None = None
    format: LineFormat | None = None
    account: AccountSource = AccountSource.simulated


@dataclass
class PaperConfig:
    """How fast `task=paper` replays bars; null is as fast as it can."""

    bars_per_second: Annotated[float | None, Field(gt=0, le=1_000_000)] = None


@dataclass
class TrialConfig:
    """Which trial of which study this run is; set by the sweeper."""

    study: str | None = None
    number: Annotated[int | None, Field(ge=0)] = None
    storage: str | None = None


@dataclass
class MarketArms:
    """A market of a comparison: what differs from the configured bars, and arms trained on it."""

    overrides: list[str] = field(default_factory=list)
    arms: list[Name] = field(default_factory=list)


@dataclass
class CellConfig:
    """Which cell of which comparison this run is; set by the comparison."""

    comparison: FolderName | None = None
    name: FolderName | None = None
    kind: Annotated[str, Field(pattern="^(train|yardsticks|stress)$")] = "train"
    arm: Name | None = None
    market: Name | None = None
    fold: Annotated[int, Field(ge=0)] = 0
    look: str | None = None
    keep_trace: bool = False


@dataclass
class CompareConfig:
    """What a comparison trains: arms, learner seeds and markets, all at one budget.

    Attributes of note: `arms` maps a name to the overrides that make the arm; `pairs` are
    differences, first minus second (empty: `reference` against every other arm);
    `market_per_seed` gives every learner seed a synthetic market of the same seed;
    `split=validation` scores on what checkpoints are chosen on, and opens no test.
    """

    preset: str = "custom"
    split: Annotated[str, Field(pattern="^(test|validation)$")] = "test"
    arms: dict[Name, list[str]] = field(default_factory=dict)
    reference: Name = "masked"
    pairs: list[list[Name]] = field(default_factory=list)
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)] = field(
        default_factory=lambda: [0, 1, 2]
    )
    market_per_seed: bool = True
    markets: dict[Name, MarketArms] = field(default_factory=dict)
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    stress: bool = True
    cell: CellConfig = field(default_factory=CellConfig)


@dataclass
class PromoteConfig:
    """What `task=promote` takes from a study, trains anew, and asks of it.

    Attributes of note: `study` names a folder in sweeps/; `seeds` must be none of the study's;
    `timesteps` null is the trials' own budget, as `baseline_timesteps` null is the
    candidates'; `racing` drops a candidate that is clearly worse after some of the seeds.
    `alternative_sharpe` and `alternative_difference` are the truths that powers suppose; `prior`
    is the share of trainings that are believed to be as good as the former, which only the
    report's false discovery rate asks.
    """

    study: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")] = None
    profile: PromotionProfile = PromotionProfile.production
    output: str = "maskable_production_final"
    top_k: Annotated[int, Field(ge=1, le=100)] = 3
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)] = field(
        default_factory=lambda: [1001, 1002, 1003, 1004, 1005]
    )
    racing: bool = True
    timesteps: Annotated[int | None, Field(gt=0)] = None
    baseline_timesteps: Annotated[int | None, Field(gt=0)] = None
    baselines: Annotated[list[ForbiddenAction], Field(min_length=1)] = field(
        default_factory=lambda: [ForbiddenAction.execute, ForbiddenAction.reject]
    )
    alternative_sharpe: Positive = 1.5
    alternative_difference: Positive = 1.0
    prior: Annotated[float, Field(gt=0, lt=1)] = 0.05
