"""The risk section: one dataclass a mask rule."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from ppo_workbench.config.choices import Severity
from ppo_workbench.config.ranges import Count, CountOrZero, Fraction, Horizon, NonNegative, Positive


@dataclass
class MaskRule:
    """What every rule has: whether it is on, and who forbids; house rules are on as they are."""

    enabled: bool = True
    severity: Severity = Severity.house


@dataclass
class HaltRule(MaskRule):
    """Limit-up limit-down pauses and market-wide breakers: only HOLD is legal."""

    enabled: bool = False
    severity: Severity = Severity.impossible
    luld_band_frac: Annotated[float, Field(gt=0, le=1)] = 0.05
    luld_pause_seconds: Positive = 300.0
    market_wide: bool = False
    missing_bars: Count = 5


@dataclass
class ClosedSessionRule(MaskRule):
    """Bars outside the calendar's regular hours: only HOLD is legal."""

    severity: Severity = Severity.impossible


@dataclass
class CapitalRule(MaskRule):
    """Orders that cash cannot pay: a lot, its costs, or gross exposure without margin."""

    severity: Severity = Severity.impossible
    max_gross_exposure: Positive = 1.0


@dataclass
class InitialMarginRule(MaskRule):
    """Regulation T, 12 CFR 220.12: 50 % of a long, 150 % of a short including its proceeds."""

    severity: Severity = Severity.impossible
    long_frac: Fraction = 0.5
    short_frac: Fraction = 0.5


@dataclass
class LocateRule(MaskRule):
    """Regulation SHO 203(b)(1): no short sale without a locate."""

    severity: Severity = Severity.impossible
    available: bool = True


@dataclass
class SettlementRule(MaskRule):
    """T+1 settlement in cash accounts, 15c6-1: buys need settled cash."""

    enabled: bool = False
    severity: Severity = Severity.regulatory


@dataclass
class MaintenanceMarginRule(MaskRule):
    """FINRA 4210(c): 25 % long; short the larger of 30 % and $5 a share; equity of $2,000."""

    severity: Severity = Severity.regulatory
    long_frac: Fraction = 0.25
    short_frac: Fraction = 0.30
    short_per_share_usd: NonNegative = 5.0
    minimum_equity_usd: NonNegative = 2000.0


@dataclass
class IntradayMarginRule(MaskRule):
    """FINRA 4210(d)(2), effective 4 June 2026: no order may create an intraday deficit."""

    severity: Severity = Severity.regulatory
    margin_frac: Fraction = 0.25


@dataclass
class ShortSaleRestrictionRule(MaskRule):
    """Regulation SHO 201: after a fall of 10 % no market shorts today and tomorrow."""

    severity: Severity = Severity.regulatory
    fall_frac: Annotated[float, Field(gt=0, lt=1)] = 0.10


@dataclass
class PatternDayTraderRule(MaskRule):
    """The repealed FINRA rule (legacy): no fourth day trade in five sessions below $25,000."""

    enabled: bool = False
    severity: Severity = Severity.regulatory
    minimum_equity_usd: NonNegative = 25_000.0
    day_trades: Count = 3
    sessions: Annotated[int, Field(ge=1, le=5)] = 5


@dataclass
class SessionRule(MaskRule):
    """No opens in the last bars of a session, and flat before its end (bars: `env`)."""


@dataclass
class PositionRule(MaskRule):
    """Largest position in currency."""

    enabled: bool = False
    max_notional_usd: Positive = 1e9


@dataclass
class ConcentrationRule(MaskRule):
    """Largest share of equity in the one instrument."""

    max_exposure: Positive = 1.0


@dataclass
class DailyLossRule(MaskRule):
    """No new risk, or flat, for the rest of a session that lost this much of its equity."""

    max_loss_frac: Annotated[float, Field(gt=0, le=1)] = 0.02
    flatten: bool = False


@dataclass
class DrawdownRule(MaskRule):
    """Drawdown ladder with a way back: pause, re-anchored peak, reduced size until recovered."""

    caution_frac: Annotated[float, Field(gt=0, le=1)] = 0.03
    flatten_frac: Annotated[float, Field(gt=0, le=1)] = 0.04
    pause_bars: Count | None = None
    reduced_size: Annotated[float, Field(gt=0, le=1)] = 0.5


@dataclass
class VolatilityRule(MaskRule):
    """No new risk while the causal volatility ratio is high."""

    max_ratio: Positive = 1.4


@dataclass
class RegimeRule(MaskRule):
    """No new risk in the named regimes (see `market/regimes.py`)."""

    enabled: bool = False
    blocked: list[str] = field(default_factory=list)


@dataclass
class EventRule(MaskRule):
    """No new risk around large moves and around listed events."""

    enabled: bool = False
    large_move_bars: CountOrZero = 5
    event_before_bars: Horizon = None
    event_after_bars: Horizon = None


@dataclass
class LiquidityRule(MaskRule):
    """An order may take at most this share of the recent mean volume of a bar."""

    max_volume_frac: Annotated[float, Field(gt=0, le=1)] = 0.1


@dataclass
class OrderRateRule(MaskRule):
    """At most this many opening orders in a session."""

    enabled: bool = False
    max_opens_per_session: Count = 20


@dataclass
class CooldownRule(MaskRule):
    """No new risk for some bars after a losing round trip."""

    enabled: bool = False
    bars_after_loss: Count = 10


@dataclass
class GapRule(MaskRule):
    """No new risk while the features recover from bars that are missing."""


@dataclass
class StopLossRule(MaskRule):
    """A position that has lost this share of its average price at a close has to be closed."""

    enabled: bool = False
    loss_frac: Fraction = 0.02


@dataclass
class TakeProfitRule(MaskRule):
    """A position that has gained this share of its average price at a close has to be closed."""

    enabled: bool = False
    gain_frac: Positive = 0.04


@dataclass
class RiskConfig:
    """The mask rules, in the order in which they are asked.

    `extra` switches rules of plug-ins on, with their parameters and, if it is to be another than
    they were registered with, `severity`.
    """

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
    gap: GapRule = field(default_factory=GapRule)
    stop_loss: StopLossRule = field(default_factory=StopLossRule)
    take_profit: TakeProfitRule = field(default_factory=TakeProfitRule)
    extra: dict[str, Any] = field(default_factory=dict)

    def rules(self) -> dict[str, MaskRule]:
        """Return the sections of the built-in rules by name."""
        return {name: section for name, section in vars(self).items() if name != "extra"}
