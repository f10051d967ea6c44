"""The independent audit: every fill of a trace against every rule, without the masks.

A second opinion on the product's own rules, account and market state: it shares no code with
`trading` (import-linter holds it to that) and reads only the Trace, the raw bars and the plain
configuration.  The books are rebuilt from fill quantities (`audit_ledger.py`), the market's
state from raw bars (`audit_market.py`), and each rule is asked anew (`audit_rules.py`).

What is not independent, and what is bounded:

* `session`, `bars_left`, `regular` and the event counts are taken from `Bars` as given.
* Bookkeeping agrees to 1e-9 of the figure (carry: of the whole account's carry); closes and
  fill prices bit for bit.
* Limits count as passed when passed by more than 1e-9, rounding being no violation.
* Which rung an order went to is followed from the action and from `rejected`; the quantity
  that follows is then checked to one lot and 1e-9 of the position.
* Thresholds on equity use the recorded equity, which the books must confirm.

It asks whether anything forbidden happened, not whether a mask forbade too much.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import reduce

import numpy as np

from ppo_workbench.config import ActionSet, Config, ForbiddenAction, RiskConfig, Severity, settled
from ppo_workbench.config.arrays import Bools, Floats, Ints
from ppo_workbench.market.bars import Bars, stamp_text
from ppo_workbench.plugins import registered
from ppo_workbench.scoring.audit.books import (
    carry_scale,
    decisions,
    entry_gains,
    exposure_levels,
    ladder,
    ladder_size,
    orders,
    rebuild,
    volatility_size,
)
from ppo_workbench.scoring.audit.market import MarketFacts, market_facts
from ppo_workbench.scoring.audit.rules import CHECKS, Case, Finding, daily_loss, last_bars
from ppo_workbench.scoring.trace import Trace, TraceError

RELATIVE = 1e-9
LISTED_PER_RULE = 1000
RECORD = "record"  # severity of a trace that contradicts itself, the bars or the settings
_SECTION_OF = {"session_flatten": "session", "session_no_open": "session"}


@dataclass(frozen=True)
class Violation:
    """One row that breaks one rule.

    Attributes:
        row: Row of the trace.
        time: ISO 8601 UTC time of the row's mark.
        rule: A rule of docs/rules.md, or a check of the record.
        what: What was found, with value and limit.
    """

    row: int
    time: str
    rule: str
    what: str


@dataclass(frozen=True)
class AuditReport:
    """What the audit of one trace found.

    Attributes:
        violations: In order of row; at most `LISTED_PER_RULE` of each rule.
        by_rule: All violations counted, for every check made, 0 included.
        by_severity: The same by severity; "record" for contradictions of the record.
        checked: Decisions that each check could have found at fault.
        in_force: Decisions at which each rule's state held; for a rule on the size of an order,
            orders above the limit.
        unaudited: Rules that are on and that no check knows.
        decisions: Rows of the trace.
        rejected: Decisions that the trace says were rejected.
        held_overnight: Sessions that ended with a position, under the session rule, without
            a decision in their last bars that could be filled (holes in the data, halts, no
            volume): passive, no violation.
    """

    violations: tuple[Violation, ...]
    by_rule: dict[str, int]
    by_severity: dict[str, int]
    checked: dict[str, int]
    in_force: dict[str, int]
    unaudited: tuple[str, ...]
    decisions: int
    rejected: int
    held_overnight: int
    rows: dict[str, Ints] = field(repr=False, compare=False)

    @property
    def count(self) -> int:
        """All violations."""
        return sum(self.by_rule.values())

    def describe(self) -> str:
        """Say in a few lines what was looked at and what was found."""
        head = f"audit: {self.count:,} violations in {self.decisions:,} decisions, "
        lines = [head + f"{len(self.by_rule)} checks, {self.rejected:,} rejected"]
        if self.unaudited:
            lines.append(f"not audited: {', '.join(self.unaudited)}")
        if self.held_overnight:
            lines.append(f"held overnight for want of a bar: {self.held_overnight} sessions")
        for rule, count in self.by_rule.items():
            if count:
                first = next(item for item in self.violations if item.rule == rule)
                lines.append(f"{rule}: {count:,}, first at row {first.row}: {first.what}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON; the first ten violations of each rule are written out."""
        shown: Counter[str] = Counter()
        listed = []
        for item in self.violations:
            shown[item.rule] += 1
            if shown[item.rule] <= 10:
                listed.append(vars(item).copy())
        names = (each.name for each in fields(self) if each.name not in ("violations", "rows"))
        plain = {name: getattr(self, name) for name in names}
        plain["unaudited"] = list(self.unaudited)
        return {"count": self.count, **plain, "violations": listed}


def audit(
    trace: Trace,
    bars: Bars,
    config: Config,
    *,
    enforced: bool = True,
    masked: bool = False,
    facts: MarketFacts | None = None,
) -> AuditReport:
    """Check every decision of a trace against bars, costs and rules.

    Args:
        trace: What a policy did on one run of bars; stitched folds are audited one by one.
        bars: The bars that it traded, from the first of their history (volatilities never
            forget); later ones than the trace's do no harm.
        config: Costs, environment, features and rules.
        enforced: Masks or the broker kept the rules, so what is forbidden must not happen.
            False for `env.forbidden_action=execute` without masks and for policies that the
            house rules do not bind: they may break rules, which is counted, and a forbidden
            action is no fault of the record.
        masked: The policy chose among allowed actions, so that none was rejected either.
            True or False makes no difference where the mask does not know the rules.
        facts: What `market_facts` says of `bars`, where several traces are audited on them; most
            of an audit's time goes there.

    Raises:
        TraceError: The trace is stitched, its rows are not a run of these bars, or an action
            has no name.
    """
    facts = facts or market_facts(bars, config)
    case = _case(trace, _locate(trace, bars), config, enforced, facts)
    findings: dict[str, list[Finding]] = {}
    for name, finding in _record(case, enforced, masked):
        findings.setdefault(name, []).append(finding)
    enabled = enabled_rules(config.risk)
    for name in enabled:
        if name in CHECKS:
            findings[name] = list(CHECKS[name](case))
    return _report(case, findings, tuple(name for name in enabled if name not in CHECKS))


def enabled_rules(risk: RiskConfig) -> list[str]:
    """Name the rules that are on; `session` stands for two."""
    names = []
    for section in risk.rules():
        rules = [rule for rule, home in _SECTION_OF.items() if home == section] or [section]
        names += rules if getattr(risk, section).enabled else []
    return [*names, *risk.extra]


def _locate(trace: Trace, bars: Bars) -> tuple[Bars, int]:
    """Cut the bars behind the trace; return them with the bar of the first decision."""
    if trace.restarts:
        raise TraceError(
            f"trace: is stitched from {len(trace.restarts) + 1} accounts, but an audit follows "
            "one; audit the trace of each fold"
        )
    first = int(np.searchsorted(bars.end_ns, trace.end_ns[0])) - 1
    stop = first + 1 + len(trace)
    if first < 0 or stop > len(bars) or bars.end_ns[first + 1] != trace.end_ns[0]:
        raise TraceError(
            f"trace: its first row ends at {stamp_text(int(trace.end_ns[0]), 'UTC')}, but "
            f"{bars.instrument} has no run of {len(trace) + 1} bars around it; give the bars that "
            "were traded"
        )
    known = (trace.action >= 0) & (trace.action < len(trace.action_names))
    if not known.all():
        row = int(np.argmin(known))
        raise TraceError(
            f"trace.action: row {row} has {trace.action[row]}, must be 0 to "
            f"{len(trace.action_names) - 1}, an index of trace.action_names"
        )
    return bars.slice(0, stop), first


def _case(
    trace: Trace, cut: tuple[Bars, int], config: Config, enforced: bool, facts: MarketFacts
) -> Case:
    bars, first = cut
    at = decisions(trace, bars, facts, first)
    books = rebuild(trace, bars, at, config)
    risk, initial = config.risk, trace.initial_equity_usd
    stopped = facts.halted[at.row].copy()
    if risk.closed_session.enabled:
        stopped |= ~bars.regular[at.row]
    lost = daily_loss(at, initial, risk.daily_loss.max_loss_frac)
    state = ladder(at.equity, config)
    gains = entry_gains(books, at.close)
    flattening = dict[str, Bools]()
    if risk.session.enabled:
        flattening["session_flatten"] = last_bars(bars, at.row, settled(config.env.flat_last_bars))
    if risk.drawdown.enabled:
        flattening["drawdown"] = state.paused
    if risk.daily_loss.enabled and risk.daily_loss.flatten:
        flattening["daily_loss"] = lost
    if risk.stop_loss.enabled:
        flattening["stop_loss"] = gains <= -risk.stop_loss.loss_frac
    if risk.take_profit.enabled:
        flattening["take_profit"] = gains >= risk.take_profit.gain_frac
    flatten = reduce(np.logical_or, flattening.values(), np.zeros(len(trace), np.bool_))
    size = ladder_size(state.reduced, config, enforced)
    sized = size * volatility_size(at, config)
    asked = orders(trace, at, books, flatten & ~stopped, sized, config)
    return Case(
        trace, bars, config, facts, at, books, asked, state, size, stopped, lost, gains,
        flatten & ~stopped, tuple(flattening),
    )  # fmt: skip


def _record(case: Case, enforced: bool, masked: bool) -> Iterator[tuple[str, Finding]]:
    """Check the trace against bars, books and itself."""
    trace, books, after = case.trace, case.books, case.at.row + 1
    traded = books.quantity != 0.0
    scale = np.maximum(np.abs(books.equity), np.abs(books.shares) * case.bars.close[after])
    pairs: list[tuple[str, Floats, Floats, Floats | float]] = [
        ("time", trace.end_ns.astype(float), case.bars.end_ns[after].astype(float), 0.0),
        ("session", trace.session.astype(float), case.bars.session[after].astype(float), 0.0),
        ("close", trace.close, case.bars.close[after], 0.0),
        ("fill_price", trace.fill_price, np.where(traded, books.price, 0.0), 0.0),
        ("cost", trace.cost_usd, books.cost, RELATIVE * books.cost),
        (
            "carry",
            trace.carry_usd,
            books.carry,
            RELATIVE * carry_scale(case.bars, case.at, books, case.config.costs),
        ),
        ("equity", trace.equity_usd, books.equity, RELATIVE * scale),
        ("exposure", trace.exposure, _exposure(case), RELATIVE * (1 + np.abs(trace.exposure))),
        ("fill_quantity", trace.fill_quantity, case.orders.quantity, _share(case)),
    ]
    for name, recorded, expected, slack in pairs:
        yield name, _equal(recorded, expected, slack)
    yield "lot", _whole_lots(case)
    yield "no_volume", _no_volume(case)
    yield from _mask_record(case, masked)
    yield from _answer_record(case, enforced)


def _no_volume(case: Case) -> Finding:
    """Nothing is filled in a bar in which nothing was traded."""
    filled = case.books.quantity != 0.0
    return Finding(
        broken=filled & ~case.at.traded,
        looked=int(np.count_nonzero(filled)),
        in_force=int(np.count_nonzero(~case.at.traded)),
        what=lambda row: f"{case.books.quantity[row]:g} shares in a bar without volume",
    )


def _whole_lots(case: Case) -> Finding:
    """Fills leave whole lots."""
    market, books = case.config.market, case.books
    lot = market.lot * market.contract_multiplier
    whole = np.round(books.shares / lot) * lot if lot > 0 else books.shares
    broken = np.abs(books.shares - whole) > RELATIVE * np.abs(books.shares)
    return _flag(
        broken & (books.quantity != 0.0),
        lambda row: f"{books.shares[row]:g} shares are no whole lots of {lot:g}",
    )


def _share(case: Case) -> Floats:
    """How far a quantity may be off: a lot at a rounding edge, or rounding."""
    lot = case.config.market.lot * case.config.market.contract_multiplier
    size = np.maximum(np.abs(case.books.held), np.abs(case.books.shares))
    # A fill that should not be, or should be and is not, is no matter of rounding.
    edge = (case.orders.quantity != 0.0) & (case.books.quantity != 0.0)
    return np.where(edge, lot, 0.0) + RELATIVE * size


def _exposure(case: Case) -> Floats:
    equity = case.trace.equity_usd
    value = case.books.shares * case.bars.close[case.at.row + 1]
    return np.divide(value, equity, out=np.zeros_like(value), where=equity > 0)


def _equal(recorded: Floats, expected: Floats, slack: Floats | float) -> Finding:
    # Written so that a NaN in the record is a violation.
    same = np.abs(recorded - expected) <= slack
    return Finding(
        broken=~same,
        looked=len(same),
        in_force=len(same),
        what=lambda row: f"recorded {recorded[row]:.12g}, must be {expected[row]:.12g}",
    )


def _flag(broken: Bools, what: Callable[[int], str], looked: int | None = None) -> Finding:
    count = len(broken) if looked is None else looked
    return Finding(broken, count, count, what)


def _mask_record(case: Case, masked: bool) -> Iterator[tuple[str, Finding]]:
    """Some action is always allowed, masks follow their reasons, a masked policy obeys."""
    trace = case.trace
    allowed = trace.mask.sum(axis=1)
    yield "mask_empty", _flag(allowed == 0, lambda row: "no action was allowed")
    expected = (trace.blocked_by == 0) | (not case.config.env.masks_rules)
    wrong = np.logical_xor(trace.mask, expected)
    wrong = (wrong & (trace.mask | ~_second_hold(case))).any(axis=1)  # HOLD says it already
    yield "mask_reasons", _flag(wrong, lambda row: "the mask is not what its reasons say")
    if masked:
        obeyed = trace.mask[np.arange(len(trace)), trace.action]

        def named(row: int) -> str:
            return f"{trace.action_names[trace.action[row]]} was masked"

        yield "mask_obeyed", _flag(np.logical_not(obeyed), named)


def _second_hold(case: Case) -> Bools:
    """Return where an action asks for what is held under another name than HOLD, (n, A)."""
    env, rung = case.config.env, case.orders.rung[:, None]
    actions = np.arange(case.trace.mask.shape[1])
    if env.action_set is ActionSet.target:
        return np.asarray(actions == rung + 1)
    top = len(exposure_levels(case.config)) - 1
    return np.asarray((actions == 2) & (rung == top) | (actions == 0) & (rung == 0))


def _answer_record(case: Case, enforced: bool) -> Iterator[tuple[str, Finding]]:
    """What was forbidden was rejected; rejections and HOLD move nothing unless they flatten."""
    trace, books = case.trace, case.books
    reasons = trace.blocked_by[np.arange(len(trace)), trace.action]
    rejected = trace.rejected != 0
    due = np.where(case.at.traded, reasons & _breakable(case), 0)
    wrong = np.where(rejected, trace.rejected != reasons, trace.violated != due)
    if enforced and case.config.env.forbidden_action is ForbiddenAction.reject:
        wrong |= trace.violated != 0
    yield (
        "answer",
        _flag(
            wrong,
            lambda row: (
                f"reasons {reasons[row]:#x}, rejected {trace.rejected[row]:#x}, "
                f"violated {trace.violated[row]:#x}"
            ),
        ),
    )
    flattened = (books.shares == 0.0) & case.flatten & rejected
    moved = (books.quantity != 0.0) & ~flattened
    hold = trace.action == (1 if case.config.env.action_set is ActionSet.step else 0)
    yield "rejected_moved", _unmoved(case, "rejected", rejected, moved)
    yield "hold_moved", _unmoved(case, "HOLD", hold, moved)


def _unmoved(case: Case, word: str, still: Bools, moved: Bools) -> Finding:
    """No position moves where `still`."""
    return _flag(
        still & moved,
        lambda row: f"{word}, yet {case.books.quantity[row]:g} shares were traded",
        int(still.sum()),
    )


def _breakable(case: Case) -> Ints:
    """Return the bits of the rules that what was ordered could break, int64 (n,).

    All, where it adds risk; what leaves a position breaks those that ask to be flat.
    """
    held = case.books.held
    shares = held + case.orders.quantity
    adds = (np.abs(shares) > np.abs(held)) | (shares * held < 0.0)
    flatten = sum(1 << k for k, name in enumerate(CHECKS) if name in case.flattening)
    return np.where(adds, -1, np.where(shares != 0.0, flatten, 0))


def _report(
    case: Case, findings: dict[str, list[Finding]], unaudited: tuple[str, ...]
) -> AuditReport:
    broken = {name: _rows(found) for name, found in findings.items()}
    by_rule = {name: len(rows) for name, rows in broken.items()}
    listed = [item for name in findings for item in _listed(case, name, findings[name], broken)]
    by_severity = dict.fromkeys((*(each.value for each in Severity), RECORD), 0)
    for name, count in by_rule.items():
        by_severity[_severity(case.config.risk, name)] += count
    return AuditReport(
        violations=tuple(sorted(listed, key=lambda item: item.row)),
        by_rule=by_rule,
        by_severity=by_severity,
        checked={name: max(each.looked for each in found) for name, found in findings.items()},
        in_force={name: max(each.in_force for each in found) for name, found in findings.items()},
        unaudited=unaudited,
        decisions=len(case.trace),
        rejected=int(np.count_nonzero(case.trace.rejected)),
        held_overnight=_held_overnight(case),
        rows=broken,
    )


def _rows(found: list[Finding]) -> Ints:
    broken = np.logical_or.reduce([each.broken for each in found])
    return np.flatnonzero(broken).astype(np.int64)


def _listed(
    case: Case, name: str, found: list[Finding], broken: dict[str, Ints]
) -> Iterator[Violation]:
    for row in broken[name][:LISTED_PER_RULE].tolist():
        what = next(each.what(row) for each in found if each.broken[row])
        yield Violation(row, stamp_text(int(case.trace.end_ns[row]), "UTC"), name, what)


def _severity(risk: RiskConfig, name: str) -> str:
    if name not in CHECKS:
        return RECORD
    if name in risk.extra:
        own = risk.extra[name].get("severity", registered().rules[name].severity)
        return Severity(own).value
    return str(getattr(risk, _SECTION_OF.get(name, name)).severity.value)


def _held_overnight(case: Case) -> int:
    """Sessions that end in a position though the session rule is on and no bar was left."""
    count = settled(case.config.env.flat_last_bars)
    if not case.config.risk.session.enabled or count == 0:
        return 0
    ends = case.trace.session_ends()[:-1]
    due = last_bars(case.bars, case.at.row, count) & ~case.stopped & case.at.traded
    return int(np.count_nonzero((case.books.shares[ends] != 0.0) & ~due[ends]))
