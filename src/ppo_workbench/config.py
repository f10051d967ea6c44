"""Typed configuration: what an experiment is, with ranges and cross-field checks.

YAML files under conf/ hold values, the dataclasses here hold types.  OmegaConf checks
keys and types, `validate_config` then checks every range and every rule between fields
and names the full key, what was given and what is allowed.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from math import comb
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

# What a command may say anew when it resumes a run; all else is the run's own.
CHANGES_ON_RESUME = ("resume", "result_json", "checkpoint", "overwrite", "tracking")
# Sources of bars that take no `data.path`; one of the user's own may.
SOURCES_WITHOUT_FILE = ("synthetic", "sp500", "nasdaq")


class WorkbenchError(Exception):
    """Base of the errors that a user can mend: rule, value, remedy in one sentence."""


class ConfigError(WorkbenchError):
    """A configuration key, type, range or combination is not allowed."""


class BarsError(WorkbenchError):
    """A price file or series breaks a rule; the message names the first bad row."""


class ArtifactError(WorkbenchError):
    """A model file is missing, damaged, foreign or would be overwritten."""


class PromotionError(WorkbenchError):
    """A promotion step cannot be carried out."""


class Interrupted(Exception):
    """Ctrl-C ended training early; the model so far was kept and recorded.

    Raised as `Interrupted(value)`, value being what `pipeline.run` would have returned.
    """

    @property
    def value(self) -> float:
        """The objective of the kept model."""
        return float(self.args[0])


class Task(Enum):
    """What one command does."""

    train = "train"
    evaluate = "evaluate"
    analyse = "analyse"
    compare = "compare"
    report = "report"
    power = "power"
    export = "export"
    decide = "decide"
    paper = "paper"
    promote = "promote"
    rollback = "rollback"
    verify = "verify"
    audit = "audit"


class PromotionProfile(Enum):
    """Which gates a promotion asks for (docs/promotion.md)."""

    production = "production"
    specification = "specification"
    research = "research"


class TimestampConvention(Enum):
    """What a bar's stamp marks."""

    bar_start = "bar_start"
    bar_end = "bar_end"


class ActionSet(Enum):
    """How action indices move the position (DESIGN: "Words")."""

    step = "step"
    target = "target"


class Fill(Enum):
    """Where an order decided at the close of bar t is filled."""

    next_open = "next_open"
    next_close = "next_close"


class ForbiddenAction(Enum):
    """What happens to regulatory and house rules that an unmasked agent breaks."""

    reject = "reject"
    execute = "execute"


class Severity(Enum):
    """Who forbids: the broker or exchange, a regulator, or the house's own risk policy."""

    impossible = "impossible"
    regulatory = "regulatory"
    house = "house"


class ModelType(Enum):
    """Which algorithm is trained."""

    maskable_ppo = "maskable_ppo"
    ppo = "ppo"


class Learner(Enum):
    """Who runs the algorithm: jitted kernels, or stable-baselines3 as it is."""

    native = "native"
    sb3 = "sb3"


class Select(Enum):
    """Which checkpoint becomes the artefact."""

    best = "best"
    last = "last"


class ScoredSplit(Enum):
    """Which bars `task=evaluate` scores; `test` and `all` are looks at the test."""

    train = "train"
    validation = "validation"
    test = "test"
    all = "all"


class Schedule(Enum):
    """How a hyperparameter changes over the training budget."""

    constant = "constant"
    linear = "linear"


class Protocol(Enum):
    """How train, validation and test are laid out (docs/protocols.md)."""

    holdout = "holdout"
    walk_forward_anchored = "walk_forward_anchored"
    walk_forward_rolling = "walk_forward_rolling"
    purged_kfold = "purged_kfold"
    cpcv = "cpcv"


class Activation(Enum):
    """Activation of the hidden layers."""

    tanh = "tanh"
    relu = "relu"


Fraction = Annotated[float, Field(ge=0, le=1)]
Bps = Annotated[float, Field(ge=0, le=10_000)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]


FourLoadings = Annotated[list[float], Field(min_length=4, max_length=4)]
FourPositive = Annotated[list[Positive], Field(min_length=4, max_length=4)]
FourRates = Annotated[list[NonNegative], Field(min_length=4, max_length=4)]


@dataclass
class SyntheticConfig:
    """Parameters of the synthetic minute market; see `market/synthetic.py` for the model.

    Lists of four are by regime: 0 range/low, 1 trend/low, 2 range/high volatility, 3 stress.
    `edge_by_session_part` multiplies the edge in equal parts of the session.
    """

    sessions: Annotated[int, Field(ge=10, le=20_000)] = 2520
    seed: Annotated[int, Field(ge=0)] = 0
    variant: Annotated[str, Field(pattern="^[A-Za-z0-9_]*$", max_length=40)] = ""
    edge: Annotated[float, Field(ge=0, le=1)] = 0.08
    edge_by_regime: FourLoadings = field(default_factory=lambda: [1.0, -1 / 6, 1 / 3, -1 / 3])
    edge_by_session_part: Annotated[list[float], Field(min_length=1, max_length=390)] = field(
        default_factory=lambda: [1.0]
    )
    deviation_clip: Positive = 3.0
    ema_halflife_bars: Positive = 40.0
    trend_drift: Annotated[float, Field(ge=0, le=1)] = 0.01
    stress_down_probability: Fraction = 0.7
    regime_dwell_bars: Annotated[
        list[Annotated[float, Field(ge=1)]], Field(min_length=4, max_length=4)
    ] = field(default_factory=lambda: [390.0, 195.0, 130.0, 130.0])
    regime_switch: Annotated[list[FourRates], Field(min_length=4, max_length=4)] = field(
        default_factory=lambda: [
            [0.0, 0.65, 0.20, 0.15],
            [0.75, 0.0, 0.10, 0.15],
            [0.55, 0.10, 0.0, 0.35],
            [0.55, 0.15, 0.30, 0.0],
        ]
    )
    sigma_bps: Annotated[float, Field(gt=0, le=500)] = 3.2
    volatility_by_regime: FourPositive = field(default_factory=lambda: [1.0, 1.0, 2.0, 3.0])
    seasonal_shape: Annotated[list[NonNegative], Field(min_length=5, max_length=5)] = field(
        default_factory=lambda: [0.75, 1.25, 10.0, 0.55, 9.0]
    )
    volatility_halflife_bars: Positive = 390.0
    volatility_sd: Annotated[float, Field(ge=0, le=2)] = 0.5
    volatility_leverage: Annotated[float, Field(ge=0, le=2)] = 0.8
    volatility_noise: Annotated[float, Field(ge=0, le=2)] = 0.6
    volatility_after_jump: Annotated[float, Field(ge=0, le=2)] = 0.6
    shock_degrees_of_freedom: Annotated[float, Field(gt=4, le=1000)] = 5.0
    jumps_per_session: FourRates = field(default_factory=lambda: [0.05, 0.05, 0.5, 1.5])
    jump_size_sigmas: Annotated[float, Field(ge=0, le=100)] = 7.0
    jump_shift: Fraction = 0.5
    overnight_gap_scale: NonNegative = 0.5
    gap_ema_frac: Fraction = 0.7
    open_variance_frac: Annotated[float, Field(gt=0, lt=1)] = 0.02
    log_volume: Annotated[float, Field(ge=0, le=25)] = 11.0
    volume_loadings: FourLoadings = field(default_factory=lambda: [0.9, 0.35, 0.25, 0.3])
    volume_noise_autocorrelation: Annotated[float, Field(gt=-1, lt=1)] = 0.7
    volume_noise_sd: Annotated[float, Field(ge=0, le=2)] = 0.35
    initial_price: Positive = 100.0


@dataclass
class DataConfig:
    """Which bars, and how a file is read."""

    source: str = "synthetic"
    path: str | None = None
    instrument: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    timezone: str | None = None
    timestamp: TimestampConvention = TimestampConvention.bar_start
    calendar: str = "XNYS"
    feature_columns: list[str] = field(default_factory=list)
    feature_lag_bars: CountOrZero = 1
    events_path: str | None = None
    sort: bool = False
    drop_duplicates: bool = False
    high_volatility_cost_multiplier: Annotated[float, Field(ge=1, le=100)] = 1.0
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)


@dataclass
class FeaturesConfig:
    """Which market features the policy observes, and the windows they use, in bars."""

    names: list[str] = field(default_factory=list)
    volatility_fast_bars: Count = 20
    volatility_slow_bars: Count = 1950
    seasonal_volatility: bool = True
    high_volatility_ratio: Positive = 1.25
    efficiency_bars: Annotated[int, Field(ge=2)] = 60
    trend_efficiency: Fraction = 0.3
    large_move_sigmas: Positive = 5.0
    gap_ema_frac: Fraction = 0.7
    clip: Annotated[float, Field(gt=0, le=1000)] = 8.0


@dataclass
class EnvConfig:
    """The trading environment: actions, fills, episodes and the session."""

    action_set: ActionSet = ActionSet.step
    exposure_levels: Annotated[list[float], Field(min_length=2, max_length=21)] = field(
        default_factory=lambda: [-1.0, 0.0, 1.0]
    )
    allow_short: bool = True
    fill: Fill = Fill.next_open
    forbidden_action: ForbiddenAction = ForbiddenAction.reject
    mask_all_true: bool = False
    episode_bars: Annotated[int, Field(ge=2)] = 1950
    initial_cash_usd: Positive = 100_000.0
    fractional_shares: bool = False
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.95
    no_open_last_bars: CountOrZero = 15
    flat_last_bars: CountOrZero = 5


@dataclass
class CostsConfig:
    """What a fill and a held position cost."""

    fee_bps: Bps = 0.0
    fee_per_share_usd: NonNegative = 0.0
    fee_minimum_usd: NonNegative = 0.0
    half_spread_bps: Bps = 1.0
    quoted_spread: bool = True
    slippage_volatility_frac: NonNegative = 0.0
    impact_volatility_frac: NonNegative = 0.0
    high_volatility_multiplier: Annotated[float, Field(ge=1, le=100)] = 1.0
    high_volatility_ratio: Positive = 1.6
    borrow_annual_bps: Bps = 0.0
    cash_interest_annual_bps: Bps = 0.0
    margin_interest_annual_bps: Bps = 0.0


@dataclass
class HaltRule:
    """Limit-up limit-down pauses and market-wide breakers: only HOLD is legal."""

    enabled: bool = False
    severity: Severity = Severity.impossible
    luld_band_frac: Annotated[float, Field(gt=0, le=1)] = 0.05
    luld_pause_seconds: Positive = 300.0
    market_wide: bool = False
    missing_bars: Count = 5


@dataclass
class ClosedSessionRule:
    """Bars outside the calendar's regular hours: only HOLD is legal."""

    enabled: bool = True
    severity: Severity = Severity.impossible


@dataclass
class CapitalRule:
    """Orders that cash cannot pay: a whole share, its costs, or gross exposure without margin."""

    enabled: bool = True
    severity: Severity = Severity.impossible
    max_gross_exposure: Positive = 1.0


@dataclass
class InitialMarginRule:
    """Regulation T, 12 CFR 220.12: 50 % of a long, 150 % of a short including its proceeds."""

    enabled: bool = True
    severity: Severity = Severity.impossible
    long_frac: Fraction = 0.5
    short_frac: Fraction = 0.5


@dataclass
class LocateRule:
    """Regulation SHO 203(b)(1): no short sale without a locate."""

    enabled: bool = True
    severity: Severity = Severity.impossible
    available: bool = True


@dataclass
class SettlementRule:
    """T+1 settlement in cash accounts, 15c6-1: buys need settled cash."""

    enabled: bool = False
    severity: Severity = Severity.regulatory


@dataclass
class MaintenanceMarginRule:
    """FINRA 4210(c): 25 % long; short the larger of 30 % and $5 a share; equity of $2,000."""

    enabled: bool = True
    severity: Severity = Severity.regulatory
    long_frac: Fraction = 0.25
    short_frac: Fraction = 0.30
    short_per_share_usd: NonNegative = 5.0
    minimum_equity_usd: NonNegative = 2000.0


@dataclass
class IntradayMarginRule:
    """FINRA 4210(d)(2), effective 4 June 2026: no order may create an intraday deficit."""

    enabled: bool = True
    severity: Severity = Severity.regulatory
    margin_frac: Fraction = 0.25


@dataclass
class ShortSaleRestrictionRule:
    """Regulation SHO 201: after a fall of 10 % no market shorts today and tomorrow."""

    enabled: bool = True
    severity: Severity = Severity.regulatory
    fall_frac: Annotated[float, Field(gt=0, lt=1)] = 0.10


@dataclass
class PatternDayTraderRule:
    """The repealed FINRA rule (legacy): no fourth day trade in five sessions below $25,000."""

    enabled: bool = False
    severity: Severity = Severity.regulatory
    minimum_equity_usd: NonNegative = 25_000.0
    day_trades: Count = 3
    sessions: Annotated[int, Field(ge=1, le=5)] = 5


@dataclass
class SessionRule:
    """No opens in the last bars of a session, and flat before its end (bars: `env`)."""

    enabled: bool = True
    severity: Severity = Severity.house


@dataclass
class PositionRule:
    """Largest position in currency."""

    enabled: bool = False
    severity: Severity = Severity.house
    max_notional_usd: Positive = 1e9


@dataclass
class ConcentrationRule:
    """Largest share of equity in the one instrument."""

    enabled: bool = True
    severity: Severity = Severity.house
    max_exposure: Positive = 1.0


@dataclass
class DailyLossRule:
    """No new risk, or flat, for the rest of a session that lost this much of its equity."""

    enabled: bool = True
    severity: Severity = Severity.house
    max_loss_frac: Annotated[float, Field(gt=0, le=1)] = 0.02
    flatten: bool = False


@dataclass
class DrawdownRule:
    """Drawdown ladder with a way back: pause, re-anchored peak, reduced size until recovered."""

    enabled: bool = True
    severity: Severity = Severity.house
    caution_frac: Annotated[float, Field(gt=0, le=1)] = 0.03
    flatten_frac: Annotated[float, Field(gt=0, le=1)] = 0.04
    pause_bars: Count = 390
    reduced_size: Annotated[float, Field(gt=0, le=1)] = 0.5


@dataclass
class VolatilityRule:
    """No new risk while the causal volatility ratio is high."""

    enabled: bool = True
    severity: Severity = Severity.house
    max_ratio: Positive = 1.4


@dataclass
class RegimeRule:
    """No new risk in the named regimes (see `market/regimes.py`)."""

    enabled: bool = False
    severity: Severity = Severity.house
    blocked: list[str] = field(default_factory=list)


@dataclass
class EventRule:
    """No new risk around large moves and around listed events."""

    enabled: bool = False
    severity: Severity = Severity.house
    large_move_bars: CountOrZero = 5
    event_before_bars: CountOrZero = 5
    event_after_bars: CountOrZero = 15


@dataclass
class LiquidityRule:
    """An order may take at most this share of the recent mean volume of a bar."""

    enabled: bool = True
    severity: Severity = Severity.house
    max_volume_frac: Annotated[float, Field(gt=0, le=1)] = 0.1


@dataclass
class OrderRateRule:
    """At most this many opening orders in a session."""

    enabled: bool = False
    severity: Severity = Severity.house
    max_opens_per_session: Count = 20


@dataclass
class CooldownRule:
    """No new risk for some bars after a losing round trip."""

    enabled: bool = False
    severity: Severity = Severity.house
    bars_after_loss: Count = 10


@dataclass
class RiskConfig:
    """The mask rules, in the order in which they are asked."""

    halt: HaltRule = field(default_factory=HaltRule)
    closed_session: ClosedSessionRule = field(default_factory=ClosedSessionRule)
    session: SessionRule = field(default_factory=SessionRule)
    drawdown: DrawdownRule = field(default_factory=DrawdownRule)
    daily_loss: DailyLossRule = field(default_factory=DailyLossRule)
    capital: CapitalRule = field(default_factory=CapitalRule)
    initial_margin: InitialMarginRule = field(default_factory=InitialMarginRule)
    locate: LocateRule = field(default_factory=LocateRule)
    settlement: SettlementRule = field(default_factory=SettlementRule)
    maintenance_margin: MaintenanceMarginRule = field(default_factory=MaintenanceMarginRule)
    intraday_margin: IntradayMarginRule = field(default_factory=IntradayMarginRule)
    short_sale_restriction: ShortSaleRestrictionRule = field(
        default_factory=ShortSaleRestrictionRule
    )
    pattern_day_trader: PatternDayTraderRule = field(default_factory=PatternDayTraderRule)
    position: PositionRule = field(default_factory=PositionRule)
    concentration: ConcentrationRule = field(default_factory=ConcentrationRule)
    volatility: VolatilityRule = field(default_factory=VolatilityRule)
    regime: RegimeRule = field(default_factory=RegimeRule)
    event: EventRule = field(default_factory=EventRule)
    liquidity: LiquidityRule = field(default_factory=LiquidityRule)
    order_rate: OrderRateRule = field(default_factory=OrderRateRule)
    cooldown: CooldownRule = field(default_factory=CooldownRule)


@dataclass
class RewardConfig:
    """Weights of the reward components (docs/metrics.md gives each formula).

    `extra` weighs components by name that have no field here (docs/extending.md).
    """

    log_return: NonNegative = 1.0
    variance: NonNegative = 0.03
    differential_sharpe: NonNegative = 0.0
    differential_sharpe_halflife_bars: Positive = 390.0
    drawdown: NonNegative = 0.0
    turnover: NonNegative = 0.0
    extra: dict[str, NonNegative] = field(default_factory=dict)


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
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.95
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
    episodes: Annotated[int | None, Field(gt=0)] = None
    timesteps: Annotated[int | None, Field(gt=0)] = None
    evaluations: Annotated[int, Field(ge=1, le=10_000)] = 20


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


class LineFormat(Enum):
    """How bars are written, one a line."""

    jsonl = "jsonl"
    csv = "csv"


class AccountSource(Enum):
    """Whose account a decision is made for."""

    simulated = "simulated"
    given = "given"


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


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)]
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=200)]


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
    `market_per_seed` gives every learner seed a synthetic market of the same seed.
    """

    preset: str = "custom"
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
    `alternative_sharpe` and `alternative_difference` are the truths that powers suppose.
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


@dataclass
class CheckpointConfig:
    """How often a training run is saved, so that it can be killed and resumed."""

    every_seconds: Annotated[float | None, Field(ge=0, le=1e9)] = 60.0


@dataclass
class SplitsConfig:
    """Shares of the bars, in time order, with a gap between neighbours.

    `protocol` lays them out: once, or in `folds` (docs/protocols.md). Only `cpcv` reads
    `test_folds`, only `walk_forward_rolling` reads `train_sessions` (null: as many as
    `train_frac` gives the first fold).
    """

    protocol: Protocol = Protocol.holdout
    train_frac: Annotated[float, Field(gt=0, lt=1)] = 0.4
    validation_frac: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test_frac: Annotated[float, Field(gt=0, lt=1)] = 0.4
    gap_bars: CountOrZero = 390
    folds: Annotated[int, Field(ge=1, le=100)] = 6
    test_folds: Annotated[int, Field(ge=1, le=99)] = 2
    train_sessions: Annotated[int | None, Field(ge=1)] = None


@dataclass
class TrackingConfig:
    """Where the run is recorded; `uri: null` is SQLite under mlruns/."""

    enabled: bool = True
    uri: str | None = None
    experiment: str | None = None
    plots: bool = True


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


DEFAULT_MINUTES = 30.0


def known_keys(section: type = Config, prefix: str = "") -> dict[str, Any]:
    """Map every full key (`model.learning_rate`), sections too, to its annotated type."""
    keys: dict[str, Any] = {}
    for name, kind in get_type_hints(section, include_extras=True).items():
        keys[prefix + name] = kind
        if is_dataclass(kind):
            keys |= known_keys(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
    return keys


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return full key -> value of nested values; an empty mapping is a value.

    >>> flatten({"env": {"gamma": 0.9, "levels": [0]}, "extra": {}})
    {'env.gamma': 0.9, 'env.levels': [0], 'extra': {}}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def unknown_key(key: str) -> str:
    """Say what is near an unknown full key, and what its section holds."""
    keys = list(known_keys())
    leaf = key.rpartition(".")[2]
    deep = [name for name in keys if name.count(".") >= key.count(".")]
    near = difflib.get_close_matches(key, deep, n=1, cutoff=0.75) or [
        name for name in keys if difflib.get_close_matches(leaf, [name.rpartition(".")[2]], 1, 0.8)
    ]
    section = key.rpartition(".")[0]
    while section and section not in keys:
        section = section.rpartition(".")[0]
    start = f"{section}." if section else ""
    names = [name[len(start) :] for name in keys if name.startswith(start)]
    inside = ", ".join(name for name in names if "." not in name)
    guess = f", did you mean {near[0]}?" if near else ";"
    return f"unknown key{guess} {section or 'the top level'} holds {inside}"


def _unknown_keys(values: dict[str, Any], section: type, prefix: str = "") -> Iterator[str]:
    """Yield a sentence for every key that the dataclass does not have; pydantic skips them."""
    kinds = get_type_hints(section)
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None:
            yield f"{prefix}{name}={value!r}: {unknown_key(prefix + str(name))}"
        elif is_dataclass(kind) and isinstance(value, dict):
            yield from _unknown_keys(value, kind, f"{prefix}{name}.")  # type: ignore[arg-type]


_CONFIG = TypeAdapter(Config)  # made once: 0.03 seconds, which every trial of a sweep would pay


def validate_config(values: dict[str, Any]) -> Config:
    """Turn plain nested values into a checked `Config`.

    A budget without any limit becomes `DEFAULT_MINUTES`: a preset with minutes in it would
    also limit a run that was given episodes alone.

    Args:
        values: What `OmegaConf.to_container(cfg, resolve=True)` returns.

    Raises:
        ConfigError: One sentence per broken rule, each with its full key and value.
    """
    problems = list(_unknown_keys(values, Config))
    if problems:
        raise ConfigError("; ".join(problems))
    try:
        config = _CONFIG.validate_python(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc'])}={item['input']!r}: {_in_words(item)}"
            for item in error.errors()
        ]
        raise ConfigError("; ".join(problems)) from None
    problems = _cross_field_problems(config)
    if problems:
        raise ConfigError("; ".join(problems))
    budget = config.budget
    if budget.minutes is None and budget.episodes is None and budget.timesteps is None:
        budget.minutes = DEFAULT_MINUTES
    return config


def _in_words(problem: Any) -> str:
    """Say what pydantic found, where its own words are about its types."""
    kind, limits = problem["type"], problem.get("ctx", {})
    if kind == "too_short":
        return f"give {limits['min_length']} or more, as in [1,2]"
    if kind == "too_long":
        return f"give at most {limits['max_length']}"
    if kind == "string_pattern_mismatch":
        return f"must be a plain name, no folder (pattern {limits['pattern']})"
    message: str = problem["msg"]
    return message[0].lower() + message[1:]


def _cross_field_problems(config: Config) -> list[str]:
    """Collect the broken rules that involve more than one field."""
    return [
        *_data_problems(config.data),
        *_env_problems(config.env),
        *_learning_problems(config),
        *_split_problems(config),
        *_risk_problems(config),
        *_compare_problems(config.compare),
        *_promote_problems(config.promote),
    ]


def _data_problems(data: DataConfig) -> list[str]:
    if data.source in SOURCES_WITHOUT_FILE and data.path is not None:
        return [
            f"data.path={data.path!r}: data={data.source} reads no file, "
            f"write data=file data.path={data.path}"
        ]
    if data.source == "file" and not data.path:
        return [f"data.path={data.path!r}: data=file reads a file, write data.path=FILE"]
    return []


def _env_problems(env: EnvConfig) -> list[str]:
    levels = env.exposure_levels
    problems = []
    if sorted(set(levels)) != levels:
        problems.append(f"env.exposure_levels={levels}: must rise strictly")
    if 0.0 not in levels:
        problems.append(f"env.exposure_levels={levels}: must contain 0, or nothing could be closed")
    if not env.allow_short and min(levels) < 0 and max(levels) <= 0:
        problems.append(
            f"env.exposure_levels={levels}: no long level is left by env.allow_short=false"
        )
    if env.flat_last_bars > env.no_open_last_bars:
        problems.append(
            f"env.flat_last_bars={env.flat_last_bars}: must not exceed "
            f"env.no_open_last_bars={env.no_open_last_bars}"
        )
    return problems


def _learning_problems(config: Config) -> list[str]:
    model = config.model
    problems = []
    rollout = model.n_envs * model.n_steps
    if model.batch_size > rollout or rollout % model.batch_size:
        problems.append(
            f"model.batch_size={model.batch_size}: must divide n_envs * n_steps = "
            f"{model.n_envs} * {model.n_steps} = {rollout}"
        )
    if model.type is ModelType.ppo and config.env.mask_all_true:
        problems.append("env.mask_all_true=true: is a control for model=maskable_ppo only")
    return problems


def _split_problems(config: Config) -> list[str]:
    splits, problems = config.splits, []
    total = splits.train_frac + splits.validation_frac + splits.test_frac
    if total > 1 + 1e-9:
        problems.append(
            f"splits: train_frac + validation_frac + test_frac = {total:g}, must be at most 1"
        )
    rolling = splits.protocol is Protocol.walk_forward_rolling
    if splits.train_sessions is not None and not rolling:
        problems.append(
            f"splits.train_sessions={splits.train_sessions}: is for splits=walk_forward_rolling "
            f"only, splits.protocol={splits.protocol.value} needs null"
        )
    if splits.protocol is not Protocol.holdout and config.task in (Task.train, Task.evaluate):
        problems.append(
            f"splits.protocol={splits.protocol.value}: task={config.task.value} takes one "
            "split, as sweeps do, write splits=holdout; task=compare trains once a fold"
        )
    return [*problems, *_fold_problems(splits)]


MOST_FOLDS = 1000  # each of them is a training


def _fold_problems(splits: SplitsConfig) -> list[str]:
    """Say which numbers of folds the protocol cannot lay out."""
    if splits.protocol is Protocol.purged_kfold and splits.folds < 2:
        return [f"splits.folds={splits.folds}: purged_kfold needs at least 2"]
    if splits.protocol is not Protocol.cpcv:
        return []
    if not 2 <= splits.test_folds < splits.folds:
        return [
            f"splits.test_folds={splits.test_folds}: cpcv needs 2 .. splits.folds - 1 = "
            f"{splits.folds - 1}; with one test fold it is splits=purged_kfold"
        ]
    count = comb(splits.folds, splits.test_folds)
    if count > MOST_FOLDS:
        return [
            f"splits.folds={splits.folds}, splits.test_folds={splits.test_folds}: {count:,} "
            f"trainings, at most {MOST_FOLDS:,}; write fewer of either"
        ]
    return []


def _risk_problems(config: Config) -> list[str]:
    drawdown = config.risk.drawdown
    problems = []
    if drawdown.enabled and drawdown.caution_frac > drawdown.flatten_frac:
        problems.append(
            f"risk.drawdown.caution_frac={drawdown.caution_frac:g}: must not exceed "
            f"risk.drawdown.flatten_frac={drawdown.flatten_frac:g}"
        )
    return problems


def _compare_problems(compare: CompareConfig) -> list[str]:
    arms = compare.arms
    if not arms:
        return []
    known = f"must be one of compare.arms: {', '.join(arms)}"
    problems = []
    if compare.reference not in arms:
        problems.append(f"compare.reference={compare.reference}: {known}")
    for name, market in compare.markets.items():
        problems += [
            f"compare.markets.{name}.arms={arm}: {known}" for arm in market.arms if arm not in arms
        ]
    for pair in compare.pairs:
        if len(pair) != 2:
            problems.append(f"compare.pairs={pair}: a pair has two names, first minus second")
    if len(set(compare.seeds)) < len(compare.seeds):
        problems.append(f"compare.seeds={compare.seeds}: must differ, or one run counts twice")
    return problems


def _promote_problems(promote: PromoteConfig) -> list[str]:
    if len(set(promote.seeds)) < len(promote.seeds):
        return [f"promote.seeds={promote.seeds}: must differ, or one run counts twice"]
    return []
