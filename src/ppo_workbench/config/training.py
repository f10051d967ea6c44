"""Sections that say how a model is trained, and where the run is kept."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from ppo_workbench.config.choices import (
    ActionSet,
    Activation,
    Fill,
    ForbiddenAction,
    Learner,
    ModelType,
    Schedule,
    Sizing,
)
from ppo_workbench.config.ranges import Fraction, Horizon, NonNegative, Positive


@dataclass
class EnvConfig:
    """The trading environment: actions, fills, episodes and the session.

    Null follows from the bars (`market.horizons`).
    """

    action_set: ActionSet = ActionSet.step
    exposure_levels: Annotated[list[float], Field(min_length=2, max_length=21)] = field(
        default_factory=lambda: [-1.0, 0.0, 1.0]
    )
    allow_short: bool = True
    sizing: Sizing = Sizing.level
    volatility_target_annual_frac: Positive = 0.1
    fill: Fill = Fill.next_open
    forbidden_action: ForbiddenAction = ForbiddenAction.reject
    mask_rules: bool = True
    mask_all_true: bool = False
    observe_mask: bool = False
    episode_bars: Annotated[int | None, Field(ge=2)] = None
    initial_cash_usd: Positive = 100_000.0
    gamma: Annotated[float | None, Field(gt=0, le=1)] = None
    no_open_last_bars: Horizon = None
    flat_last_bars: Horizon = None

    @property
    def masks_rules(self) -> bool:
        """Whether what a rule forbids cannot be chosen by who is held to the mask."""
        return self.mask_rules and not self.mask_all_true


@dataclass
class RewardConfig:
    """Weights of the reward components (docs/metrics.md gives each formula).

    `variance` is the annual Sharpe ratio above which holding pays.  `extra` weighs components
    by name that have no field here (docs/extending.md).  The two volatilities are units: null
    is that of the training bars, of one bar and of a year.
    """

    log_return: NonNegative = 1.0
    variance: NonNegative = 0.0
    differential_sharpe: NonNegative = 0.0
    differential_sharpe_halflife_bars: Positive | None = None
    drawdown: NonNegative = 0.0
    turnover: NonNegative = 0.0
    invalid_action: NonNegative = 0.0
    extra: dict[str, NonNegative] = field(default_factory=dict)
    bar_volatility_frac: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    annual_volatility_frac: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None


@dataclass
class ModelConfig:
    """Algorithm and hyperparameters under stable-baselines3's own names."""

    type: ModelType = ModelType.maskable_ppo
    learner: Learner = Learner.native
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    learning_rate_schedule: Schedule = Schedule.linear
    n_envs: Annotated[int, Field(ge=1, le=65_536)] = 64
    n_steps: Annotated[int, Field(ge=2, le=1_000_000)] = 128
    batch_size: Annotated[int, Field(ge=2)] = 512
    n_epochs: Annotated[int, Field(ge=1, le=1000)] = 6
    gamma: Annotated[float | None, Field(gt=0, le=1)] = None
    gae_lambda: Fraction = 0.9
    clip_range: Annotated[float, Field(gt=0, le=10)] = 0.2
    clip_range_schedule: Schedule = Schedule.constant
    clip_range_vf: Annotated[float | None, Field(gt=0)] = None
    normalize_advantage: bool = True
    ent_coef: Annotated[float, Field(ge=0, le=10)] = 0.005
    vf_coef: Annotated[float, Field(ge=0, le=10)] = 0.5
    max_grad_norm: Positive = 0.5
    target_kl: Annotated[float | None, Field(gt=0)] = None
    net_arch: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(max_length=8)] = field(
        default_factory=lambda: [64, 64]
    )
    activation: Activation = Activation.tanh
    ortho_init: bool = True
    device: str = "cpu"


@dataclass
class BudgetConfig:
    """When training ends: whichever limit comes first; unset limits are null.

    With no limit at all, `validate_config` sets `DEFAULT_MINUTES`.
    """

    minutes: Annotated[float | None, Field(gt=0, le=100_000)] = None
    episodes: Annotated[int | None, Field(gt=0, le=10**12)] = None
    timesteps: Annotated[int | None, Field(gt=0, le=10**12)] = None
    evaluations: Annotated[int, Field(ge=1, le=10_000)] = 20


@dataclass
class CheckpointConfig:
    """How often a training run is saved, so that it can be killed and resumed."""

    every_seconds: Annotated[float | None, Field(ge=0, le=1e9)] = 60.0


@dataclass
class TrackingConfig:
    """Where the run is recorded; `uri: null` is SQLite under mlruns/."""

    enabled: bool = True
    uri: str | None = None
    experiment: str | None = None
    plots: bool = True
