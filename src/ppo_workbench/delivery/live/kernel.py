"""One bar in, one decision out: the training's own per-bar functions in live order.

Arrays are handed over once (`jit.keep`).  What Python calls once a bar takes plain tuples and names
their fields inside: numba takes longer to tell the type of a `NamedTuple`.
"""

from typing import Any, NamedTuple

import numpy as np

from ppo_workbench.config.arrays import Bools, Floats, Ints, Records, Singles
from ppo_workbench.delivery.network import PolicyWeights, best_allowed, forward_row
from ppo_workbench.jit import Kept, kernel
from ppo_workbench.market.feature_kernels import market_step
from ppo_workbench.market.regimes import (
    CLOSE,
    HIGH,
    LARGE_MOVE,
    LOW,
    MEAN_NOTIONAL,
    OPEN,
    RATIO,
    REGIME,
    SESSION,
    SIGMA,
    SLOT,
    VOLUME,
)
from ppo_workbench.trading.following import (
    adopt_account,
    follow_account,
    order_after,
    reasons_when_short,
)
from ppo_workbench.trading.observation import observe_mask, scale_rows
from ppo_workbench.trading.rules.market import rules_step
from ppo_workbench.trading.rules.names import GAP
from ppo_workbench.trading.rules.reasons import fill_mask
from ppo_workbench.trading.step import StepInputs, refresh
from ppo_workbench.trading.table import YEAR_NS


class BarValues(NamedTuple):
    """A closed bar as it came, and where it lies.

    Attributes:
        half_spread_bps: Basis points, NaN where there was no quote.
        start_ns: UTC nanoseconds.
        regular: 0 or 1.
        events: Bars since a listed event.
        events_ahead: Bars until one.
        missing: Bars of the calendar that did not come before it.
    """

    open: float
    high: float
    low: float
    close: float
    volume: float
    half_spread_bps: float
    start_ns: int
    session: int
    bar_of_session: int
    bars_left: int
    regular: int
    events: int
    events_ahead: int
    missing: int


class MarketArrays(NamedTuple):
    """The memory of the market and what it is moved on by; all but the settings is overwritten.

    Attributes:
        plan, settings: Of a `FeatureSpec`, as is the size of `state`.
        state: Memory of the features.
        bar: float64 (7 + E,), see `market.features.bar_values`; filled but for its columns.
        features: float64 (1, F), unscaled.
        context: float64 (CONTEXT_FIELDS,).
        rule_bars: `RULE_BAR_DTYPE`, shape (1,).
        rule_settings: `SETTINGS_DTYPE`, shape (1,).
        rule_memory: `MEMORY_DTYPE`, shape (1,).
        closes: The rules' ring of closes.
        rows: `BAR_DTYPE`, shape (2,): moves up, row 1 is the new bar.
        means, stds, clip: Of the scaler.
        scaled: float32 (2, F): moves up, row 1 is new.
        ranges: float64 (2, F), smallest and largest feature in training.
        outside: bool (F,): the feature is outside of its range.
        has_volume: See `Bars`.
        contract_multiplier: Units that one of the bar's volume stands for.
    """

    plan: Ints
    settings: Floats
    state: Floats
    bar: Floats
    features: Floats
    context: Floats
    rule_bars: Records
    rule_settings: Records
    rule_memory: Records
    closes: Floats
    rows: Records
    means: Floats
    stds: Floats
    clip: float
    scaled: Singles
    ranges: Floats
    outside: Bools
    has_volume: bool
    contract_multiplier: float


@kernel
def take_bar(values: tuple[Any, ...], scale: float, memory: Kept) -> int:
    """Move everything that asks the market alone on by one closed bar.

    Args:
        values: The fields of `BarValues`.
        scale: Shares of today for one at the beginning of history: features and rules see the
            prices of one scale, the account those of the bar.
        memory: Keeps the fields of `MarketArrays`, changed in place.

    Returns:
        The number of features outside of their ranges; -1 where one is not a number.
    """
    return _take_bar(BarValues(*values), scale, MarketArrays(*memory.value))


@kernel
def _take_bar(new: BarValues, scale: float, m: MarketArrays) -> int:
    m.rows[0] = m.rows[1]
    m.scaled[0] = m.scaled[1]
    bar, context = m.bar, m.context
    facts, memory, row = m.rule_bars[0], m.rule_memory[0], m.rows[1]
    bar[OPEN], bar[HIGH] = new.open * scale, new.high * scale
    bar[LOW], bar[CLOSE] = new.low * scale, new.close * scale
    bar[VOLUME], bar[SESSION], bar[SLOT] = new.volume / scale, new.session, new.bar_of_session
    facts.start_ns, facts.low, facts.close = new.start_ns, bar[LOW], bar[CLOSE]
    facts.session, facts.bars_left, facts.regular = new.session, new.bars_left, new.regular
    facts.bar_of_session = new.bar_of_session
    facts.events, facts.events_ahead, facts.missing = new.events, new.events_ahead, new.missing
    market_step(m.plan, m.settings, m.state, bar, m.features[0], context)
    row.years = (facts.start_ns - memory.start_ns) / YEAR_NS if memory.bars > 0 else 0.0
    facts.volatility_ratio = context[RATIO]
    facts.regime = np.int64(context[REGIME])
    facts.large_move = 1 if context[LARGE_MOVE] > 0 else 0
    row.open, row.close, row.half_spread_bps = new.open, new.close, new.half_spread_bps
    row.sigma, row.volatility_ratio = context[SIGMA], context[RATIO]
    notional = context[MEAN_NOTIONAL] * m.contract_multiplier
    row.mean_notional = notional if m.has_volume else np.inf
    row.trades = 1 if new.volume > 0 or not m.has_volume else 0
    row.session = facts.session
    row.rule_bits = rules_step(facts, m.rule_settings[0], memory, m.closes)
    scale_rows(m.features, m.means, m.stds, m.clip, m.scaled[1:2])
    return _count_outside(m.features[0], m.ranges, m.outside)


@kernel
def _count_outside(features: Floats, ranges: Floats, outside: Bools) -> int:
    count = 0
    for i in range(features.shape[0]):
        x = features[i]
        if np.isnan(x):
            return -1
        outside[i] = x < ranges[0, i] or x > ranges[1, i]
        count += outside[i]
    return count


class AccountArrays(NamedTuple):
    """What decides for an account, and its memory; all from `accounts` to `order` is overwritten.

    Attributes:
        bars, features, means, stds, levels, params: Of `StepInputs`: the bar before and the last.
        use_mask: The policy chooses among allowed actions only.
        sizes, flat, activation: Of `PolicyWeights`.
        scratch: Of `PolicyWeights.scratch`.
        accounts: `ACCOUNT_DTYPE`, shape (1,).
        reports: `REPORT_DTYPE`, shape (1,).
        outcomes: `OUTCOME_DTYPE`, shape (1,).
        observation: float32 (F + S,).
        mask: bool (A,).
        reasons: int64 (A,).
        logits: float32 (A,).
        probabilities: float64 (A,).
        order: float64 (3,), see `order_after`.
    """

    bars: Records
    features: Singles
    means: Floats
    stds: Floats
    levels: Floats
    params: Records
    use_mask: bool
    sizes: Ints
    flat: Singles
    activation: int
    scratch: Singles
    accounts: Records
    reports: Records
    outcomes: Records
    observation: Singles
    mask: Bools
    reasons: Ints
    logits: Singles
    probabilities: Floats
    order: Floats


@kernel
def follow_and_observe(
    begun: bool,
    short: bool,
    start: int,
    ordered: int,
    target: float,
    fills: Floats,
    report: tuple[float, float, float, float, float, float, float, float],
    kept: Kept,
) -> tuple[bool, int]:
    """Take over the account's report, then write observation, mask and reasons at this close.

    `begun` is False for the first report; `report` holds the fields of `REPORT_DTYPE`, `kept`
    those of `AccountArrays`; for the rest see `following.follow_account` and `step.refresh`.

    Returns:
        Whether the position stands short of its rung, and the rung.
    """
    m = AccountArrays(*kept.value)
    a, p, said = m.accounts[0], m.params[0], m.reports[0]
    said.cash, said.shares, said.session_pnl = report[0], report[1], report[2]
    said.high_water_mark, said.average_price = report[3], report[4]
    said.flow, said.income, said.split = report[5], report[6], report[7]
    if begun:
        short = follow_account(
            a, m.bars, m.levels, p, short, start, ordered, target, fills, said, m.outcomes[0]
        )
    else:
        short = adopt_account(a, m.bars, m.levels, p, said)
    inputs = StepInputs(m.bars, m.features, m.means, m.stds, m.levels, m.params)
    refresh(a, inputs, m.observation, m.mask, m.reasons)
    if short:
        reasons_when_short(a, m.bars[1], m.levels, p, m.reasons)
        fill_mask(a, m.reasons, True, p, m.mask)
        observe_mask(m.mask, p, m.observation)
    return short, a.rung


@kernel
def choose_action(short: bool, kept: Kept) -> tuple[int, int, int, bool]:
    """Decide; write logits, probabilities and order.

    Args:
        short: What `follow_and_observe` returned.
        kept: The fields of `AccountArrays`.

    Returns:
        The action, the rung that it is asked from, the rung that it trades to, and whether the
        features recover from a gap.
    """
    m = AccountArrays(*kept.value)
    logits, probabilities, bar = m.logits, m.probabilities, m.bars[1]
    policy = PolicyWeights(m.sizes, m.flat, m.activation)
    logits[:] = forward_row(m.observation, policy, m.scratch)
    allowed = m.mask if m.use_mask else np.ones(m.mask.shape[0], dtype=np.bool_)
    action = best_allowed(logits, allowed)
    total = 0.0
    for i in range(logits.shape[0]):
        probabilities[i] = np.exp(np.float64(logits[i]) - logits[action]) if allowed[i] else 0.0
        total += probabilities[i]
    for i in range(logits.shape[0]):
        probabilities[i] /= total
    a, p, out = m.accounts[0], m.params[0], m.outcomes[0]
    start, rung = order_after(a, bar, m.levels, p, action, m.reasons[action], short, out, m.order)
    return action, start, rung, (bar.rule_bits & GAP) != 0
