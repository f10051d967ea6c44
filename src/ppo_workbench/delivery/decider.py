"""A stored model as an application drives it: a bar and an account in, a decision out.

The Decider calls the jitted per-bar functions that training and backtest call, with their
state in arrays, so it decides bit for bit as they do.  The account that comes with a bar
is the truth for cash, shares, open orders and session profit; the Decider keeps what an
account does not know: features, drawdown ladder, cooldown, counters of the session,
yesterday's short-sale trigger.  What concerns the account alone is a document of its own
(`account_memory`), which another model can take over.

What it cannot decide on it says: `no_decision` with a reason.  It never answers with a HOLD
that the model did not choose.
"""

import json
import math
import time as clocks
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from ppo_workbench.config import ArtifactError, BarsError, settled
from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.decider_state import STATE_VERSION, DeciderState, StateDocument
from ppo_workbench.delivery.golden import SCALER_MEANS, SCALER_STDS, stored_weights, uses_mask
from ppo_workbench.delivery.live.kernel import choose_action, follow_and_observe
from ppo_workbench.delivery.live.memory import MarketMemory
from ppo_workbench.delivery.messages import (
    Account,
    AccountMemory,
    Bar,
    Decision,
    Status,
    bar_messages,
    check_message,
    moment_of,
    nanoseconds,
)
from ppo_workbench.delivery.settings import stored_config
from ppo_workbench.jit import direct, keep
from ppo_workbench.market.bars import NS_PER_DAY, Bars
from ppo_workbench.market.calendars.clock import Place
from ppo_workbench.market.regimes import REGIME, REGIME_NAMES
from ppo_workbench.trading.account import ACCOUNT_DTYPE, OUTCOME_DTYPE
from ppo_workbench.trading.actions import action_space
from ppo_workbench.trading.chance import seed_accounts
from ppo_workbench.trading.following import REPORT_DTYPE, flatten_bits_between, is_dust, level_of
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rules.names import STOPPED, rules_in
from ppo_workbench.trading.rules.params import build_params
from ppo_workbench.trading.rules.reasons import flatten_bits

_NO_FILLS = np.empty((0, 3))
_EPOCH = date(1970, 1, 1)
# Fields of an `AccountMemory` that `ACCOUNT_DTYPE` has, some under another name.
_NAMES = {
    "anchor": "peak",
    "high_water_mark": "episode_peak",
    "return_mean": "sharpe_a",
    "return_square": "sharpe_b",
}
_REMEMBERED = {
    name: _NAMES.get(name, name)
    for name in AccountMemory.model_fields
    if _NAMES.get(name, name) in (ACCOUNT_DTYPE.names or ())
}


class Decider:
    """Decides for one account on the bars of one instrument, in time order.

    Attributes:
        artifact: The model.
        config: What it decides with: its own features, actions, costs and rules.
        space: Its actions.
        params: `PARAMS_DTYPE`, shape (1,), as every kernel reads them.
        market: What it knows of the market.
        observation: float32 (F + S,), scaled, of the last bar.
        mask: bool (A,), True = allowed, at the last bar.
        reasons: int64 (A,), bits of the rules that forbid each action at the last bar.
        logits: float32 (A,), of the last decision.
    """

    def __init__(
        self,
        artifact: Artifact,
        events_path: str | None = None,
    ) -> None:
        """Prepare a model; it has seen no bar yet.

        Args:
            artifact: Of `load_artifact`.
            events_path: Listed events of the instrument, columns time and kind, as
                `data.events_path`; then counts in the bars do not matter.  Without it the bars
                say how far events are (`needs_events`).

        Raises:
            ArtifactError: The model's settings cannot be used.
            BarsError: Its calendar is unknown, or the file of events cannot be used.
        """
        self.artifact, metadata = artifact, artifact.metadata
        self.config = stored_config(metadata)
        self.space = action_space(self.config.env)
        self.params = build_params(self.config, self.space)
        means, stds = (artifact.tensors[name].numpy() for name in (SCALER_MEANS, SCALER_STDS))
        self._scaler = Scaler(means, stds, self.config.features.clip)
        self.market = MarketMemory(self.config, metadata, self._scaler, events_path)
        self._make_buffers()
        self._begun = self._short = False  # short: the position stands short of its rung
        self._start = self._ordered = self.space.flat_rung
        self._target = 0.0
        self._day = -1  # session of the last bar followed, days since 1970-01-01
        self._last: Decision | None = None

    def _make_buffers(self) -> None:
        count = self.space.size
        self.accounts = seed_accounts(1, 0)
        self.observation = np.zeros(self._scaler.means.size, dtype=np.float32)
        self.mask = np.zeros(count, dtype=np.bool_)
        self.reasons = np.zeros(count, dtype=np.int64)
        self.logits = np.zeros(count, dtype=np.float32)
        self._reports = np.zeros(1, dtype=REPORT_DTYPE)
        self._outcomes = np.zeros(1, dtype=OUTCOME_DTYPE)
        self._probabilities, self._order = np.zeros(count), np.zeros(3)
        self._named: dict[int, list[str]] = {}
        scaler, market = self._scaler, self.market
        weights = stored_weights(self.artifact.metadata, self.artifact.tensors)
        kept = keep((  # the fields of `AccountArrays`
            market.rows, market.scaled, scaler.means, scaler.stds, self.space.levels, self.params,
            uses_mask(self.artifact.metadata.model_type), *weights, weights.scratch(),
            self.accounts, self._reports, self._outcomes, self.observation, self.mask,
            self.reasons, self.logits, self._probabilities, self._order,
        ))  # fmt: skip
        example = (False, False, 0, 0, 0.0, _NO_FILLS, (0.0,) * 8, kept)
        self._observe = direct(follow_and_observe, *example)
        self._kept, self._choose = kept, direct(choose_action, False, kept)

    @property
    def needs_events(self) -> bool:
        """The model was trained with listed events, and bars have to say how far they are."""
        trained = self.artifact.metadata.config.get("data")
        listed = isinstance(trained, dict) and trained.get("events_path") is not None
        return listed and self.config.risk.event.enabled and self.market.events is None

    def warm_up(self, history: Bars | Iterable[Bar]) -> None:
        """Take bars without deciding, up to the bar before the first decision.

        Bars later than those taken before go on from there, such as bars that were missed
        while the feed was down.  A history that begins earlier begins anew: the features
        forget what they knew, the memory of the account stays.

        Args:
            history: `metadata.warmup_bars` bars or more, in time order.  Features equal the
                backtest's bit for bit where both begin at the same bar.

        Raises:
            BarsError: A bar is none, is not usable, or not later than the one before.
        """
        market, fresh = self.market, True
        for bar in bar_messages(history) if isinstance(history, Bars) else history:
            check_message(bar, Bar)
            start = self.start_of(bar, None)
            if start is None:
                raise BarsError(
                    f"history: the bar of {bar.start.isoformat()} starts in the future; correct "
                    "its stamp or the clock"
                )
            if fresh and market.taken and start <= market.last_ns:
                market.forget()
            if market.taken and start <= market.last_ns:
                raise BarsError(
                    f"history: the bar of {bar.start.isoformat()} is not later than the one "
                    "before; give bars in time order, each once"
                )
            if problem := market.problem_of(bar):
                raise BarsError(f"history: {bar.start.isoformat()}: {problem}; correct the bar")
            fresh = False
            market.take(bar, start)
            market.needed = max(market.needed - 1, 0)
        self._number_sessions()
        if self._begun and self._last is None:  # taken over before the market was known
            self._stand()

    def start_of(self, bar: Bar, now: datetime | None) -> int | None:
        """Return the start of a bar, UTC nanoseconds; None where it lies after the clock."""
        now_ns = clocks.time_ns() if now is None else nanoseconds(now)
        start = bar.start_ns
        if self.market.clock.daily and start <= now_ns + NS_PER_DAY:
            # Any moment of its session is a stamp.  One beyond that is not even looked up: the
            # calendar would have to be laid out so far.
            start = self.market.start_of(bar)
        return None if start > now_ns else start

    def _number_sessions(self) -> None:
        """Keep the account in its session by the market's present numbers."""
        a, memory = self.accounts[0], self.market.clock.memory
        number = memory.session if memory.day == self._day else -1
        a["opened_session"] = number if a["opened_session"] == a["session"] else -2
        a["session"] = number

    def decide(self, bar: Bar, account: Account, now: datetime | None = None) -> Decision:
        """Decide at the close of a bar.

        Args:
            bar: The bar that just closed.
            account: The account at that close.
            now: The time, with an offset; this machine's clock where left out.

        Returns:
            The decision.  A bar that came already gets the same decision again, or is ignored
            where its values differ; an earlier one is ignored.  No decision is made on a bar
            that starts in the future, or before the last one has ended, or is bad: nothing is
            remembered of it.  While the features recover from a gap the model may reduce only.

        Raises:
            BarsError: Bar or account is none; nothing was taken.
        """
        check_message(bar, Bar)
        check_message(account, Account)
        market = self.market
        start = self.start_of(bar, now)
        if start is None:
            return _no_decision(bar.start, "future: the bar starts after the clock")
        if market.taken and start <= market.last_ns:
            return self._passed(bar, start)
        if problem := market.overlap_of(start) or market.problem_of(bar):
            return _no_decision(moment_of(start), problem)
        split = math.prod(split.ratio for split in account.splits) if account.splits else 1.0
        try:
            place, outside = market.take(bar, start, split)
        except BarsError as error:
            return _no_decision(moment_of(start), str(error))
        reason = ""
        if market.needed:
            market.needed -= 1
            reason = f"{market.needed + 1} more bars are needed to warm the features up"
        self._follow(account, split, not reason)
        if not reason and not account.cash + account.shares * (bar.close or 0.0) > 0.0:
            reason = "the account has no equity"
        if outside < 0 and not reason:
            reason = "a feature is not a number"
        self._last = self._answer(place, account, reason, outside)
        return self._last

    def _passed(self, bar: Bar, start: int) -> Decision:
        """Answer a bar that is not later than the last one."""
        market = self.market
        last = moment_of(market.last_ns).isoformat()
        reason = f"late: the last bar is of {last}"
        if start == market.last_ns and self._last is not None:
            if market.is_last(bar) or market.problem_of(bar):
                return self._last
            reason = f"corrected: the bar of {last} was decided on with other values"
        return Decision(status=Status.ignored, time=moment_of(start), reason=reason)

    def on_clock(self, now: datetime, account: Account) -> Decision:
        """Apply what does not wait for a bar: session end, kill rules, a feed that went quiet.

        Nothing is remembered, so it may be called at any time and as often as one likes.

        Args:
            now: The time, with an offset.
            account: The account now.

        Raises:
            BarsError: The time has no offset, or the account is none.
        """
        check_message(account, Account)
        if not isinstance(now, datetime) or now.utcoffset() is None:
            raise BarsError(f"now: {now} must be a datetime with an offset; give it a time zone")
        if self._day < 0 or not self.market.taken:
            return _no_decision(now, "no bar was decided on yet")
        if nanoseconds(now) < self.market.last_ns:
            last = moment_of(self.market.last_ns).isoformat()
            return _no_decision(now, f"clock: {now.isoformat()} is before the last bar, of {last}")
        moment = self.market.clock.moment(nanoseconds(now))
        row, p = self.market.rows[1], self.params[0]
        if not moment.open:
            return Decision(status=Status.idle, time=now, reason="the market is closed")
        if moment.missing == 0 and row["rule_bits"] & STOPPED & p["enabled"]:
            return Decision(status=Status.idle, time=now, reason="trading is stopped")
        flat_bars = settled(self.config.env.flat_last_bars)
        ends = flat_bars > 0 and moment.bars_left <= flat_bars
        split = math.prod(split.ratio for split in account.splits)
        self._reports[0] = _report(account, split)
        bits = flatten_bits_between(self.accounts.copy()[0], row, p, self._reports[0], ends)
        if bits and self._holds(account):
            return self._flatten(now, account, int(bits), "")
        if moment.missing > max(self.config.risk.halt.missing_bars, 1):
            return _no_decision(now, f"stale: {moment.missing} bars of the calendar have not come")
        return Decision(status=Status.idle, time=now)

    def state(self) -> DeciderState:
        """Return everything that the Decider remembers, as plain arrays and JSON values."""
        arrays = {name: array.copy() for name, array in self._arrays().items()}
        arrays |= {f"market.{key}": array.copy() for key, array in self.market.arrays().items()}
        memory = self.account_memory()
        document: StateDocument = {
            "version": STATE_VERSION,
            "pth_sha256": self.artifact.metadata.pth_sha256,
            "account": None if memory is None else memory.model_dump(mode="json"),
            "begun": self._begun,
            "rung": int(self.accounts["rung"][0]),
            "short": self._short,
            "start": self._start,
            "ordered": self._ordered,
            "target": self._target,
            "last": None if self._last is None else self._last.model_dump(mode="json"),
            "market": self.market.document(),
        }
        return DeciderState(arrays, document)

    def account_memory(self) -> AccountMemory | None:
        """Return what the rules remember of the account; None before the first bar.

        It is the model's that trades next, too: `take_over`.
        """
        if self._day < 0:
            return None
        a = self.accounts[0]
        values = {name: a[field].tolist() for name, field in _REMEMBERED.items()}
        opened = bool(a["shares"] != 0.0 and a["opened_session"] == a["session"])
        day = _EPOCH + timedelta(days=self._day)
        return AccountMemory(**values, session_date=day, opened_in_session=opened)

    def take_over(self, source: AccountMemory | DeciderState) -> None:
        """Go on with an account that another Decider has led: pause, size, anchor, cooldown.

        The market is asked anew: warm up first.  The position stands on the level of this
        model that it is nearest to, see `following.level_of`.

        Raises:
            ArtifactError: The state is another version's, or damaged.
        """
        if isinstance(source, DeciderState):
            _check_version(source)
        memory = source.account if isinstance(source, DeciderState) else source
        if memory is None:  # of a Decider that saw no bar
            return
        a = self.accounts[0]
        for name, field in _REMEMBERED.items():
            a[field] = getattr(memory, name)
        self._day, self._begun, self._last = (memory.session_date - _EPOCH).days, True, None
        a["session"], a["opened_session"] = 0, 0 if memory.opened_in_session else -2
        self._number_sessions()
        self._stand()

    def _stand(self) -> None:
        """Put what another Decider has led on its level; how large one is may ask the market."""
        a, bar, p = self.accounts[0], self.market.rows[1], self.params[0]
        a["rung"], self._short, self._target = self.space.flat_rung, False, float(a["shares"])
        if self._target != 0.0:
            price = (float(a["equity"]) - float(a["cash"])) / self._target
            a["rung"], self._short = level_of(a, bar, price, self.space.levels, p)
        self._start = self._ordered = int(a["rung"])

    def restore(self, state: DeciderState) -> None:
        """Go on from a state, bit for bit as the Decider that it was taken from.

        Raises:
            ArtifactError: The state is another version's or another model's, or damaged.
        """
        document = state.document
        _check_version(state)
        if not state.belongs_to(self.artifact):
            raise ArtifactError(
                f"state: belongs to another model than {self.artifact.metadata.name!r}; take its "
                "account over (take_over) and warm up from history"
            )
        try:
            self.market.restore(state.part("market."), document["market"])
            for name, array in self._arrays().items():
                array[...] = state.arrays[name]
            self.take_over(state)
            self.accounts["rung"] = int(document["rung"])
            self._begun, self._short = bool(document["begun"]), bool(document["short"])
            self._start, self._ordered = int(document["start"]), int(document["ordered"])
            self._target = float(document["target"])
            last = document["last"]
            self._last = None if last is None else Decision.model_validate_json(json.dumps(last))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"state: is damaged ({type(error).__name__}: {error}); warm up from history"
            ) from None

    def _arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        return {
            "observation": self.observation,
            "mask": self.mask,
            "reasons": self.reasons,
            "logits": self.logits,
        }

    def _follow(self, account: Account, split: float, warm: bool) -> None:
        """Take the account over and write observation, mask and reasons."""
        market, fills = self.market, _NO_FILLS
        if account.fills:
            told = [(fill.quantity, fill.price, fill.cost) for fill in account.fills]
            fills = np.array(told, dtype=np.float64)
        self._short, rung = self._observe(
            self._begun, self._short, self._start, self._ordered, self._target, fills,
            _report(account, split), self._kept,
        )  # fmt: skip
        # A flat account begins with the first decision, as an episode does: until then it had
        # nothing to decide on, and has nothing to remember.
        self._begun = self._begun or warm or account.shares != 0.0
        self._start = self._ordered = rung
        self._target = account.shares
        self._day = market.clock.memory.day

    def _holds(self, account: Account) -> bool:
        """Return whether the account has a position that is worth an order."""
        if account.shares == 0.0:
            return False
        a, close = self.accounts.copy()[0], float(self.market.rows[1]["close"])
        a["cash"], a["shares"] = account.cash, account.shares
        return a["rung"] != self.space.flat_rung or not is_dust(a, close, self.params[0])

    def _answer(self, place: Place, account: Account, reason: str, outside: int) -> Decision:
        time = moment_of(place.end_ns)
        off_levels = self._ordered == self.space.flat_rung and self._holds(account)
        if not (reason or off_levels):
            return self._decided(time, account, outside)
        row = self.market.rows[1]
        bits = flatten_bits(self.accounts[0], row, self.params[0])
        stopped = row["rule_bits"] & STOPPED & self.params["enabled"][0]
        reason = reason or f"the model has no level for a position of {account.shares:g} shares"
        if (bits or off_levels) and self._holds(account) and not stopped:
            return self._flatten(time, account, int(bits), reason, taken=True)
        return _no_decision(time, reason, account.shares)

    def _decided(self, time: datetime, account: Account, outside: int) -> Decision:
        """Ask the model."""
        market = self.market
        action, self._start, rung, recovers = self._choose(self._short, self._kept)
        moves = rung != self._start
        exposure, self._target, drawdown = self._order.tolist()
        self._ordered = rung
        names, probabilities = self.space.names, self._probabilities.tolist()
        blocked = {
            name: self._rules_in(bits)
            for name, bits in zip(names, self.reasons.tolist(), strict=False)
            if bits
        }
        return Decision.of_checked({
            "version": 3,
            "status": Status.decided,
            "time": time,
            "reason": "gap: the features recover from missing bars" if recovers else "",
            "action": names[action],
            "action_index": action,
            "target_exposure": exposure if moves else None,
            "target_quantity": self._target,
            "held_quantity": account.shares,
            "order_quantity": self._target - account.shares - _working(account) if moves else 0.0,
            "drawdown_frac": drawdown,
            "probabilities": dict(zip(names, probabilities, strict=False)),
            "logits": self.logits.tolist(),
            "mask": dict(zip(names, self.mask.tolist(), strict=False)),
            "blocked_by": blocked,
            "regime": REGIME_NAMES[int(market.context.item(REGIME))],
            "out_of_range": market.outside_names if outside else [],
            "reduce_only": recovers,
            "taken": True,
        })  # fmt: skip

    def _flatten(
        self, time: datetime, account: Account, bits: int, reason: str, taken: bool = False
    ) -> Decision:
        """Close the position by a rule, without the model."""
        rules = list(rules_in(bits))
        return Decision(
            status=Status.flatten,
            time=time,
            reason=reason or f"rules in force: {', '.join(rules)}",
            target_exposure=0.0,
            target_quantity=0.0,
            held_quantity=account.shares,
            order_quantity=-account.shares - _working(account),
            blocked_by=dict.fromkeys(self.space.names, rules) if rules else {},
            reduce_only=True,
            taken=taken,
        )

    def _rules_in(self, bits: int) -> list[str]:
        if bits not in self._named:
            self._named[bits] = list(rules_in(bits))
        return self._named[bits]


def _check_version(state: DeciderState) -> None:
    version = state.document.get("version", 1)  # the first one did not say it
    if version != STATE_VERSION:
        raise ArtifactError(
            f"state: has version {version!r}, this version of ppo_workbench reads "
            f"{STATE_VERSION}; warm up from history"
        )


def _report(
    account: Account, split: float
) -> tuple[float, float, float, float, float, float, float, float]:
    """Return what the account says, in the order of `REPORT_DTYPE`; NaN = nothing."""
    pnl, mark, price = account.session_pnl, account.high_water_mark, account.average_price
    flow = income = 0.0
    for item in account.cash_flows:
        flow += item.signed if item.is_transfer else 0.0
        income += 0.0 if item.is_transfer else item.signed
    return (
        account.cash,
        account.shares,
        math.nan if pnl is None else pnl,
        math.nan if mark is None else mark,
        math.nan if price is None else price,
        flow,
        income,
        split,
    )


def _no_decision(time: datetime, reason: str, held: float | None = None) -> Decision:
    """Decline; what the account holds is named where bar and account were taken."""
    return Decision(
        status=Status.no_decision,
        time=time,
        reason=reason,
        held_quantity=held,
        reduce_only=True,
        taken=held is not None,
    )


def _working(account: Account) -> float:
    """Return the signed shares that open orders would still add."""
    return sum(order.quantity for order in account.open_orders)
