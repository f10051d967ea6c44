"""Every mask rule, asked once more of the rebuilt account: who held or bought what it forbids.

A rule is judged by what happened to the position, not by what the action was called: a fill
that adds risk where none may be added, a position where there may be none.  `CHECKS` maps
each rule's name (docs/rules.md) to its check.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ppo_workbench import plugins
from ppo_workbench.config import Config, ConfigError, settled
from ppo_workbench.config.arrays import Bools, Floats, Ints
from ppo_workbench.market.bars import Bars
from ppo_workbench.scoring.audit.books import (
    Decisions,
    Ladder,
    Ledger,
    Orders,
    Trips,
    below_minimum,
    round_trips,
    session_equity,
    so_far_in_session,
)
from ppo_workbench.scoring.audit.market import REGIMES, TOLERANCE, MarketFacts, rows_since
from ppo_workbench.scoring.trace import Trace

Words = Callable[[int], str]

LOW_PRICE_USD = 5.0  # FINRA 4210(c)(2) and (3): other requirements for cheaper shorts
GAP_FACTOR = 5  # bars to recover for each that is missing
_ABOVE = 1.0 + TOLERANCE
Check = Callable[["Case"], Iterator["Finding"]]


@dataclass(frozen=True)
class Case:
    """All that a check may look at; arrays have one row a decision."""

    trace: Trace
    bars: Bars
    config: Config
    facts: MarketFacts
    at: Decisions
    books: Ledger
    orders: Orders
    ladder: Ladder
    size: Floats
    stopped: Bools
    daily_loss: Bools
    gains: Floats
    flatten: Bools
    flattening: tuple[str, ...]  # the rules that are on and can ask for it


class Finding(NamedTuple):
    """What one check saw.

    Attributes:
        broken: bool (n,), rows that break the rule.
        looked: Decisions that the check could have found at fault.
        in_force: Decisions at which the rule's state held, or orders above its limit.
        what: Words for a broken row, with value and limit.
    """

    broken: Bools
    looked: int
    in_force: int
    what: Words


def last_bars(bars: Bars, rows: Ints, count: int) -> Bools:
    """Return whether at most `count` bars of the session are to come; never where it is 0."""
    return (bars.bars_left[rows] <= count) & (count > 0)


def daily_loss(at: Decisions, initial: float, max_loss_frac: float) -> Bools:
    """Return whether the session has lost its limit at each decision, bool (n,)."""
    begun = session_equity(at, initial)
    return at.equity <= begun * (1.0 - max_loss_frac)


def _position(case: Case, row: int) -> str:
    return f"the position went from {case.books.held[row]:g} to {case.books.shares[row]:g} shares"


def _no_increase(case: Case, forbidden: Bools, state: Words) -> Finding:
    """No fill may add risk where `forbidden`."""
    return Finding(
        broken=forbidden & case.books.adds,
        looked=int(case.books.adds.sum()),
        in_force=int(forbidden.sum()),
        what=lambda row: f"{state(row)}, yet {_position(case, row)}",
    )


def _must_be_flat(case: Case, flatten: Bools, state: Words) -> Finding:
    """No position may be left by the fill where `flatten` and the market trades."""
    due = flatten & ~case.stopped & case.at.traded
    return Finding(
        broken=due & (case.books.shares != 0.0),
        looked=len(case.trace),
        in_force=int(due.sum()),
        what=lambda row: f"{state(row)}, yet {case.books.shares[row]:g} shares were held",
    )


def _no_fill(case: Case, forbidden: Bools, state: str) -> Finding:
    return Finding(
        broken=forbidden & (case.books.quantity != 0.0),
        looked=int(np.count_nonzero(case.books.quantity)),
        in_force=int(forbidden.sum()),
        what=lambda row: f"{state}, yet {case.books.quantity[row]:g} shares were traded",
    )


def _order_above(case: Case, name: str, values: Floats, limits: Floats | float) -> Finding:
    """No fill may add risk by an order whose figure is above its limit."""
    bounds = np.broadcast_to(np.asarray(limits, dtype=np.float64), values.shape)
    above = values > bounds * _ABOVE

    def state(row: int) -> str:
        return f"{name} {values[row]:.6g} is above {bounds[row]:.6g}"

    return _no_increase(case, above, state)


def _exposures(case: Case) -> Floats:
    """Return what an order asked for, or the fill reached if that is more, unsigned (n,)."""
    books = case.books
    value = np.abs(books.shares) * books.price
    after = books.fill_equity - books.cost
    ruined = np.where(value > 0, np.inf, 0.0)
    reached = np.divide(value, after, out=ruined, where=after > 0)
    return np.fmax(np.abs(case.orders.exposure), reached)


def _halt(case: Case) -> Iterator[Finding]:
    yield _no_fill(case, case.facts.halted[case.at.row], "the market was halted")


def _closed_session(case: Case) -> Iterator[Finding]:
    yield _no_fill(case, ~case.bars.regular[case.at.row], "the session was closed")


def _session_flatten(case: Case) -> Iterator[Finding]:
    count = settled(case.config.env.flat_last_bars)
    left = case.bars.bars_left[case.at.row]
    flatten = last_bars(case.bars, case.at.row, count)
    yield _must_be_flat(
        case, flatten, lambda row: f"{left[row]} bars of the session were left, flat from {count}"
    )


def _session_no_open(case: Case) -> Iterator[Finding]:
    count = settled(case.config.env.no_open_last_bars)
    left = case.bars.bars_left[case.at.row]
    late = last_bars(case.bars, case.at.row, count)
    yield _no_increase(
        case, late, lambda row: f"{left[row]} bars of the session were left, no opens from {count}"
    )


def _drawdown(case: Case) -> Iterator[Finding]:
    rule = case.config.risk.drawdown

    def state(row: int) -> str:
        return f"paused after a drawdown of {rule.flatten_frac:g}"

    yield _must_be_flat(case, case.ladder.paused, state)
    yield _no_increase(case, case.ladder.paused, state)
    value = np.abs(case.books.shares) * case.books.price
    largest = max(abs(x) for x in case.config.env.exposure_levels) * case.size
    limit = np.where(case.size < 1.0, largest * case.books.fill_equity, np.inf)
    yield _order_above(case, "position value", value, limit)


def _daily_loss(case: Case) -> Iterator[Finding]:
    rule = case.config.risk.daily_loss

    def state(row: int) -> str:
        return f"the session had lost {rule.max_loss_frac:g} at equity {case.at.equity[row]:.6g}"

    yield _no_increase(case, case.daily_loss, state)
    if rule.flatten:
        yield _must_be_flat(case, case.daily_loss, state)


def _stop_loss(case: Case) -> Iterator[Finding]:
    limit, gains = case.config.risk.stop_loss.loss_frac, case.gains
    yield _must_be_flat(
        case, gains <= -limit, lambda row: f"the position had lost {-gains[row]:.6g}"
    )


def _take_profit(case: Case) -> Iterator[Finding]:
    limit, gains = case.config.risk.take_profit.gain_frac, case.gains
    yield _must_be_flat(
        case, gains >= limit, lambda row: f"the position had gained {gains[row]:.6g}"
    )


def _capital(case: Case) -> Iterator[Finding]:
    limit = case.config.risk.capital.max_gross_exposure
    yield _order_above(case, "gross exposure", _exposures(case), limit)
    poor = (case.orders.shares_at_close == 0.0) & ~np.isnan(case.orders.exposure)
    broke = case.at.equity <= 0.0
    small = below_minimum(case.books.held, case.orders.shares_at_close, case.config.market)
    yield _no_increase(
        case,
        poor | broke | small,
        lambda row: f"equity {case.at.equity[row]:.6g} pays no lot, or less than an order",
    )


def _initial_margin(case: Case) -> Iterator[Finding]:
    rule = case.config.risk.initial_margin
    share = np.where(case.books.shares > 0, rule.long_frac, rule.short_frac)
    yield _order_above(case, "initial margin", _exposures(case) * share, 1.0)


def _intraday_margin(case: Case) -> Iterator[Finding]:
    share = case.config.risk.intraday_margin.margin_frac
    yield _order_above(case, "intraday margin", _exposures(case) * share, 1.0)


def _concentration(case: Case) -> Iterator[Finding]:
    limit = case.config.risk.concentration.max_exposure
    yield _order_above(case, "exposure", _exposures(case), limit)


def _position_size(case: Case) -> Iterator[Finding]:
    notional = np.abs(case.orders.shares_at_close) * case.at.close
    limit = case.config.risk.position.max_notional_usd
    yield _order_above(case, "order notional", notional, limit)


def _locate(case: Case) -> Iterator[Finding]:
    missing = (case.books.shares < 0) & (not case.config.risk.locate.available)
    yield _no_increase(case, missing, lambda row: "no borrow was located")


def _settlement(case: Case) -> Iterator[Finding]:
    books, at = case.books, case.at
    sold = np.minimum(-books.quantity, np.maximum(books.held, 0.0)).clip(min=0.0) * books.price
    settled = books.cash_before - so_far_in_session(sold, case.trace)
    needed = (case.orders.shares_at_close - np.maximum(books.held, 0.0)) * at.close
    # Rounding of sums of cash is relative to the account, not to what is left of it.
    limit = settled + TOLERANCE * np.abs(at.equity)
    yield _order_above(case, "purchase", needed, limit)
    yield _no_increase(case, books.shares < 0, lambda row: "a cash account cannot sell short")


def _maintenance_margin(case: Case) -> Iterator[Finding]:
    rule, at, books = case.config.risk.maintenance_margin, case.at, case.books
    held = _requirement(case, books.held, at.close)
    yield _no_increase(
        case,
        (books.held != 0.0) & (at.equity * _ABOVE < held),
        lambda row: f"equity {at.equity[row]:.6g} was below maintenance {held[row]:.6g}",
    )
    margin = (case.orders.exposure < 0) | (case.orders.exposure > 1.0)
    poor = margin & (at.equity < rule.minimum_equity_usd)
    yield _no_increase(
        case, poor, lambda row: f"equity {at.equity[row]:.6g} < {rule.minimum_equity_usd:g}"
    )
    asked = np.where(margin, _requirement(case, case.orders.shares_at_close, at.close), 0.0)
    yield _no_increase(
        case,
        margin & (at.equity * _ABOVE < asked),
        lambda row: f"equity {at.equity[row]:.6g} is below the order's {asked[row]:.6g}",
    )


def _requirement(case: Case, shares: Floats, price: Floats) -> Floats:
    """FINRA 4210(c) for a long or short position, currency (n,)."""
    rule = case.config.risk.maintenance_margin
    dear = np.maximum(rule.short_per_share_usd, rule.short_frac * price)
    cheap = np.maximum(0.5 * rule.short_per_share_usd, price)
    short = np.where(price < LOW_PRICE_USD, cheap, dear)
    return np.where(shares > 0, rule.long_frac * price, short) * np.abs(shares)


def _short_sale_restriction(case: Case) -> Iterator[Finding]:
    fall = case.config.risk.short_sale_restriction.fall_frac
    restricted = case.facts.restricted[case.at.row]
    finding = _no_increase(
        case,
        restricted & (case.books.shares < 0),
        lambda row: f"a fall of {fall:g} restricts short sales",
    )
    yield finding._replace(in_force=int(restricted.sum()))


def _pattern_day_trader(case: Case) -> Iterator[Finding]:
    rule = case.config.risk.pattern_day_trader
    trips: Trips = round_trips(case.trace, case.books)
    session = case.trace.session - case.trace.session[0]
    per_session = np.zeros(int(session[-1]) + 2)
    day_trades = np.zeros(len(case.trace))
    day_trades[trips.closed[trips.same_session]] = 1.0
    np.add.at(per_session, session + 1, day_trades)
    total = np.cumsum(per_session)  # day trades before session k
    now = np.maximum(case.at.session - case.trace.session[0], 0)
    recent = total[now] - total[np.maximum(now - rule.sessions + 1, 0)]
    recent = recent + so_far_in_session(day_trades, case.trace)
    yield _no_increase(
        case,
        (case.at.equity < rule.minimum_equity_usd) & (recent >= rule.day_trades),
        lambda row: f"{recent[row]:g} day trades below {rule.minimum_equity_usd:g}",
    )


def _volatility(case: Case) -> Iterator[Finding]:
    limit, ratio = case.config.risk.volatility.max_ratio, case.at.ratio
    yield _order_above(case, "volatility ratio", ratio, limit)


def _regime(case: Case) -> Iterator[Finding]:
    blocked = [REGIMES.index(name) for name in case.config.risk.regime.blocked]
    regime = case.facts.regime[case.at.row]
    yield _no_increase(
        case, np.isin(regime, blocked), lambda row: f"the regime was {REGIMES[regime[row]]}"
    )


def _event(case: Case) -> Iterator[Finding]:
    rule, bars, row = case.config.risk.event, case.bars, case.at.row
    near = rows_since(case.facts.large_move)[row] < rule.large_move_bars
    near |= (bars.events[row] >= 0) & (bars.events[row] < settled(rule.event_after_bars))
    near |= (bars.events_ahead[row] >= 0) & (
        bars.events_ahead[row] <= settled(rule.event_before_bars)
    )
    yield _no_increase(case, near, lambda row: "a large move or an event was near")


def _liquidity(case: Case) -> Iterator[Finding]:
    frac, traded = case.config.risk.liquidity.max_volume_frac, case.at.mean_notional
    asked = np.abs(case.orders.shares_at_close - case.books.held) * case.at.close
    yield _order_above(case, "order notional", asked, frac * traded)
    yield _no_increase(case, traded == 0.0, lambda row: "nothing was traded in 20 bars")


def _order_rate(case: Case) -> Iterator[Finding]:
    limit = case.config.risk.order_rate.max_opens_per_session
    opens = so_far_in_session(case.books.adds.astype(np.float64), case.trace)
    yield _no_increase(
        case, opens >= limit, lambda row: f"{opens[row]:g} opens in the session, at most {limit}"
    )


def _cooldown(case: Case) -> Iterator[Finding]:
    bars = case.config.risk.cooldown.bars_after_loss
    trips = round_trips(case.trace, case.books)
    lost = np.zeros(len(case.trace), dtype=np.bool_)
    lost[trips.closed[trips.lost]] = True
    since = rows_since(np.concatenate(([False], lost[:-1])))
    yield _no_increase(
        case, since < bars, lambda row: f"{since[row]:g} of {bars} bars since a losing round trip"
    )


def _gap(case: Case) -> Iterator[Finding]:
    bars, row = case.bars, case.at.row
    longest = settled(case.config.features.volatility_slow_bars)
    missing = np.where(np.arange(len(bars)) > 0, bars.missing, 0)
    gap = missing > case.config.risk.halt.missing_bars
    needed = np.where(gap, np.minimum(GAP_FACTOR * missing, longest), 0)
    until = np.maximum.accumulate(np.arange(len(bars)) + needed)
    yield _no_increase(
        case, (until > np.arange(len(bars)))[row], lambda row: "features recovered from a gap"
    )


def _own(name: str, rule: plugins.OwnRule, audit: Callable[..., Bools]) -> Check:
    """Return the check of a plug-in's rule: what its audit says beside each fill."""

    def check(case: Case) -> Iterator[Finding]:
        settings = case.config.risk.extra[name]
        own = {key: float(settings.get(key, value)) for key, value in rule.parameters.items()}
        try:
            forbidden = np.broadcast_to(np.asarray(audit(case, **own), np.bool_), len(case.trace))
        except Exception as error:
            told = f"{type(error).__name__} ({error})"
            raise ConfigError(f"audit of the rule {name}: {told}; correct it") from error
        yield _no_increase(case, forbidden, lambda row: f"{name} was in force")

    return check


CHECKS: dict[str, Check] = {
    "halt": _halt,
    "closed_session": _closed_session,
    "session_flatten": _session_flatten,
    "drawdown": _drawdown,
    "daily_loss": _daily_loss,
    "capital": _capital,
    "initial_margin": _initial_margin,
    "locate": _locate,
    "settlement": _settlement,
    "maintenance_margin": _maintenance_margin,
    "intraday_margin": _intraday_margin,
    "short_sale_restriction": _short_sale_restriction,
    "pattern_day_trader": _pattern_day_trader,
    "session_no_open": _session_no_open,
    "position": _position_size,
    "concentration": _concentration,
    "volatility": _volatility,
    "regime": _regime,
    "event": _event,
    "liquidity": _liquidity,
    "order_rate": _order_rate,
    "cooldown": _cooldown,
    "gap": _gap,
    "stop_loss": _stop_loss,
    "take_profit": _take_profit,
} | {
    name: _own(name, rule, rule.audit)
    for name, rule in plugins.registered().rules.items()
    if rule.audit is not None
}
