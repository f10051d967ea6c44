"""Sections that say what is traded: bars, features, costs and splits."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from ppo_workbench.config.choices import Adjust, Keep, Protocol, TimestampConvention, Volume
from ppo_workbench.config.ranges import (
    Bps,
    Count,
    CountOrZero,
    FourLoadings,
    FourPositive,
    FourRates,
    Fraction,
    Horizon,
    NonNegative,
    Positive,
)

# Sources of bars that take no `data.path`; one of the user's own may.
SOURCES_WITHOUT_FILE = ("synthetic", "sp500", "nasdaq")


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
    volume: Volume = Volume.traded
    feature_columns: list[str] = field(default_factory=list)
    feature_lag_bars: CountOrZero = 1
    events_path: str | None = None
    sort: bool = False
    keep: Keep | None = None
    adjust: Adjust | None = None
    header: list[str] = field(default_factory=list)
    high_volatility_cost_multiplier: Annotated[float, Field(ge=1, le=100)] = 1.0
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)


@dataclass
class MarketConfig:
    """How orders are counted in a market; conf/market/ names the markets there are.

    A position is counted in units of what the price is quoted for: shares, coins, units of a
    base currency, ounces; a future's contracts times `contract_multiplier`.

    Attributes of note: `lot` is the step of an order, in contracts, shares or coins, 0 = any
    fraction; `minimum_order` the smallest order, in the same; `tick` the price step, in
    currency: a spread is never narrower, 0 = not known, null = the decimals of the bars.
    """

    name: str = "synthetic"
    lot: NonNegative = 1.0
    minimum_order: NonNegative = 0.0
    tick: NonNegative | None = 0.0
    contract_multiplier: Positive = 1.0


@dataclass
class FeaturesConfig:
    """Which market features the policy observes, and the windows they use, in bars.

    Null follows from the bars (`market.horizons`).
    """

    names: list[str] | None = None
    volatility_fast_bars: Count | None = None
    volatility_slow_bars: Count | None = None
    seasonal_volatility: bool | None = None
    high_volatility_ratio: Positive = 1.25
    efficiency_bars: Annotated[int | None, Field(ge=2)] = None
    trend_efficiency: Fraction = 0.3
    large_move_sigmas: Positive = 5.0
    gap_ema_frac: Fraction | None = None
    clip: Annotated[float, Field(gt=0, le=1000)] = 8.0


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
    gap_bars: Horizon = None
    folds: Annotated[int, Field(ge=1, le=100)] = 6
    test_folds: Annotated[int, Field(ge=1, le=99)] = 2
    train_sessions: Annotated[int | None, Field(ge=1)] = None
