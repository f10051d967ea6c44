"""Names and bits of the rules, and the sections of the configuration that switch them.

Rule k owns bit k; docs/rules.md gives each rule's source and severity.
"""

from ppo_workbench import plugins
from ppo_workbench.config import MaskRule, RiskConfig, Severity
from ppo_workbench.trading.rules.own import own_rules

_BUILT_IN = (
    "halt",
    "closed_session",
    "session_flatten",
    "drawdown",
    "daily_loss",
    "capital",
    "initial_margin",
    "locate",
    "settlement",
    "maintenance_margin",
    "intraday_margin",
    "short_sale_restriction",
    "pattern_day_trader",
    "session_no_open",
    "position",
    "concentration",
    "volatility",
    "regime",
    "event",
    "liquidity",
    "order_rate",
    "cooldown",
    "gap",
    "stop_loss",
    "take_profit",
)
plugins.refuse_built_in("rule", plugins.registered().rules, (*_BUILT_IN, "session", "extra"))
RULE_NAMES = (*_BUILT_IN, *plugins.registered().rules)
BIT = {name: 1 << k for k, name in enumerate(RULE_NAMES)}

HALT = BIT["halt"]
CLOSED_SESSION = BIT["closed_session"]
SESSION_FLATTEN = BIT["session_flatten"]
DRAWDOWN = BIT["drawdown"]
DAILY_LOSS = BIT["daily_loss"]
CAPITAL = BIT["capital"]
INITIAL_MARGIN = BIT["initial_margin"]
LOCATE = BIT["locate"]
SETTLEMENT = BIT["settlement"]
MAINTENANCE = BIT["maintenance_margin"]
INTRADAY = BIT["intraday_margin"]
SHORT_SALE = BIT["short_sale_restriction"]
DAY_TRADER = BIT["pattern_day_trader"]
SESSION_NO_OPEN = BIT["session_no_open"]
POSITION = BIT["position"]
CONCENTRATION = BIT["concentration"]
VOLATILITY = BIT["volatility"]
REGIME = BIT["regime"]
EVENT = BIT["event"]
LIQUIDITY = BIT["liquidity"]
ORDER_RATE = BIT["order_rate"]
COOLDOWN = BIT["cooldown"]
GAP = BIT["gap"]
STOP_LOSS = BIT["stop_loss"]
TAKE_PROFIT = BIT["take_profit"]

STOPPED = HALT | CLOSED_SESSION
EXITS = STOP_LOSS | TAKE_PROFIT
OWN_MARKET_RULES = sum(
    BIT[name] for name, own in plugins.registered().rules.items() if not own.asks_account
)
MARKET_NO_INCREASE = SESSION_NO_OPEN | VOLATILITY | REGIME | EVENT | GAP | OWN_MARKET_RULES
ASK_MARKET = STOPPED | SESSION_FLATTEN | MARKET_NO_INCREASE | SHORT_SALE


def rules_in(bits: int) -> tuple[str, ...]:
    """Return the names of the rules whose bits are set."""
    return tuple(name for k, name in enumerate(RULE_NAMES) if bits >> k & 1)


def rule_sections(risk: RiskConfig) -> dict[str, MaskRule]:
    """Map each rule name to the section of the configuration that switches it."""
    shared: dict[str, MaskRule] = {
        "session_flatten": risk.session,
        "session_no_open": risk.session,
        **own_rules(risk),
    }
    return {name: shared.get(name) or getattr(risk, name) for name in RULE_NAMES}


def rule_severity(risk: RiskConfig) -> tuple[str, ...]:
    """Return the severity of each rule, in the order of `RULE_NAMES`."""
    return tuple(section.severity.value for section in rule_sections(risk).values())


def severity_bits(risk: RiskConfig, severity: Severity) -> int:
    """Return the bits of the rules of one severity."""
    names = rule_severity(risk)
    return sum(BIT[rule] for rule, s in zip(RULE_NAMES, names, strict=True) if s == severity.value)


def enabled_bits(risk: RiskConfig) -> int:
    """Return the bits of the rules that are switched on."""
    return sum(BIT[name] for name, section in rule_sections(risk).items() if section.enabled)
