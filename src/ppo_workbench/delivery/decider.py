"""A stored model as an application drives it: a bar and an account in, a decision out.

The Decider calls the jitted per-bar functions that training and backtest call, with their
state in arrays, so it decides bit for bit as they do.  The account that comes with a bar
is the truth for cash, shares, open orders, session profit and peak; the Decider keeps what
an account does not know: features, drawdown ladder, cooldown, counters of the session,
yesterday's short-sale trigger.

What it cannot decide on it says: `no_decision` with a reason, and reduce-only until it is
warm again.  It never answers with a HOLD that the model did not choose.
"""

import json
import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np

from ppo_workbench.config import ArtifactError, BarsError, settled
from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.decider_state import STATE_VERSION, DeciderState
from ppo_workbench.delivery.decision_kernel import choose_action, follow_and_observe
from ppo_workbench.delivery.golden import SCALER_MEANS, SCALER_STDS, stored_weights, uses_mask
from ppo_workbench.delivery.market_memory import MarketMemory
from ppo_workbench.delivery.messages import (
    Account,
    Bar,
    Decision,
    Status,
    bar_messages,
    check_message,
    moment_of,
    nanoseconds,
)
from ppo_workbench.delivery.settings import stored_config
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.clock import Place
from ppo_workbench.market.regimes import REGIME, REGIME_NAMES
from ppo_workbench.trading.account import OUTCOME_DTYPE
from ppo_workbench.trading.actions import action_space
from ppo_workbench.trading.following import REPORT_DTYPE, flatten_bits_between
from ppo_workbench.trading.kernel import Scaler, seed_accounts
from ppo_workbench.trading.rules import STOPPED, build_params, flatten_bits, rules_in

_NO_FILLS = np.empty((0, 3))


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
        max_missing_bars: int | None = None,
        events_path: str | None = None,
    ) -> None:
        """Prepare a model; it has seen no bar yet.

        Args:
            artifact: Of `load_artifact`.
            max_missing_bars: A longer hole in the bars is a gap.  By default what the model's
                halt rule takes for an ordinary silence, `risk.halt.missing_bars`; a replay of
                recorded bars, which hold all there was, may set it as high as it likes.
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
        missing = self.config.risk.halt.missing_bars
        self._max_missing = missing if max_missing_bars is None else max_missing_bars
        means, stds = (artifact.tensors[name].numpy() for name in (SCALER_MEANS, SCALER_STDS))
        self._scaler = Scaler(means, stds, self.config.features.clip)
        self._weights = stored_weights(metadata, artifact.tensors)
        self._use_mask = uses_mask(metadata.model_type)
        self.market = MarketMemory(self.config, metadata, self._scaler, events_path)
        self._make_buffers()
        self._begun, self._ordered = False, self.space.flat_rung
        self._broken: list[int] = []  # starts of bad bars that no good one has replaced
        self._day = -1  # session of the last decision, days since 1970-01-01
        self._last: Decision | None = None

    def _make_buffers(self) -> None:
        count, widest = self.space.size, int(self._weights.sizes.max())
        self.accounts = seed_accounts(1, 0)
        self.observation = np.zeros(self._scaler.means.size, dtype=np.float32)
        self.mask = np.zeros(count, dtype=np.bool_)
        self.reasons = np.zeros(count, dtype=np.int64)
        self.logits = np.zeros(count, dtype=np.float32)
        self._reports = np.zeros(1, dtype=REPORT_DTYPE)
        self._outcomes = np.zeros(1, dtype=OUTCOME_DTYPE)
        self._scratch = np.zeros((2, widest), dtype=np.float32)
        self._probabilities, self._order = np.zeros(count), np.zeros(2)
        self._named: dict[int, list[str]] = {}

    @property
    def bars_needed(self) -> int:
        """Bars still to come until the features may be used."""
        return self.market.needed

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
        market, fresh, restarted = self.market, True, False
        for bar in bar_messages(history) if isinstance(history, Bars) else history:
            check_message(bar, Bar)
            start = market.start_of(bar)
            if fresh and market.taken and start <= market.last_ns:
                market.forget()
                restarted = True
            if market.taken and start <= market.last_ns:
                raise BarsError(
                    f"history: the bar of {bar.start.isoformat()} is not later than the one "
                    "before; give bars in time order, each once"
                )
            if problem := market.problem_of(bar):
                raise BarsError(f"history: {bar.start.isoformat()}: {problem}; correct the bar")
            fresh = False
            place, _ = market.take(bar, start)
            self._count(place, start)
        if restarted:
            self._number_sessions_anew()

    def _number_sessions_anew(self) -> None:
        """Keep the account in its session when the market's history began anew."""
        a, memory = self.accounts[0], self.market.clock.memory
        number = memory.session if memory.day == self._day else -1
        a["opened_session"] = number if a["opened_session"] == a["session"] else -2
        a["session"] = number

    def decide(self, bar: Bar, account: Account) -> Decision:
        """Decide at the close of a bar.

        Args:
            bar: The bar that just closed.
            account: The account at that close.

        Returns:
            The decision.  A bar that came already gets the same decision again, an earlier one
            is ignored, and so is without a decision one that starts before the last has ended;
            after a gap or a bad bar there is no decision until the features are
            warm again.

        Raises:
            BarsError: Bar or account is none; nothing was taken.
        """
        check_message(bar, Bar)
        check_message(account, Account)
        market = self.market
        start = market.start_of(bar)
        if market.taken and start <= market.last_ns:
            if start == market.last_ns and self._last is not None:
                return self._last
            time = moment_of(start)
            reason = f"late: the last bar is of {moment_of(market.last_ns).isoformat()}"
            return Decision(status=Status.ignored, time=time, reason=reason)
        if problem := market.overlap_of(start):
            return _no_decision(moment_of(start), problem)
        if problem := market.problem_of(bar):
            if start not in self._broken:
                self._broken.append(start)
            return _no_decision(moment_of(start), problem)
        try:
            place, outside = market.take(bar, start)
        except BarsError as error:
            return _no_decision(moment_of(start), str(error))
        reason = self._count(place, start)
        self._follow(account)
        if outside < 0 and not reason:
            reason = "a feature is not a number"
        self._last = self._answer(place, account, reason, outside)
        return self._last

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
        if not self._begun:
            return _no_decision(now, "no bar was decided on yet")
        moment = self.market.clock.moment(nanoseconds(now))
        row, p = self.market.rows[1], self.params[0]
        if not moment.open:
            return Decision(status=Status.idle, time=now, reason="the market is closed")
        if moment.missing == 0 and row["rule_bits"] & STOPPED & p["enabled"]:
            return Decision(status=Status.idle, time=now, reason="trading is stopped")
        flat_bars = settled(self.config.env.flat_last_bars)
        ends = flat_bars > 0 and moment.bars_left <= flat_bars
        self._reports[0] = _report(account)
        bits = flatten_bits_between(self.accounts.copy()[0], row, p, self._reports[0], ends)
        if bits and account.shares != 0.0:
            return self._flatten(now, account, int(bits), "")
        if moment.missing > max(self._max_missing, 1):
            return _no_decision(now, f"stale: {moment.missing} bars of the calendar have not come")
        return Decision(status=Status.idle, time=now)

    def state(self) -> DeciderState:
        """Return everything that the Decider remembers, as plain arrays and JSON values."""
        arrays = {name: array.copy() for name, array in self._arrays().items()}
        arrays |= {f"market.{key}": array.copy() for key, array in self.market.arrays().items()}
        document = {
            "version": STATE_VERSION,
            "pth_sha256": self.artifact.metadata.pth_sha256,
            "begun": self._begun,
            "ordered": self._ordered,
            "broken": self._broken,
            "day": self._day,
            "last": None if self._last is None else self._last.model_dump(mode="json"),
            "market": self.market.document(),
        }
        return DeciderState(arrays, document)

    def restore(self, state: DeciderState) -> None:
        """Go on from a state, bit for bit as the Decider that it was taken from.

        Raises:
            ArtifactError: The state is another version's or another model's, or damaged.
        """
        document = state.document
        version = document.get("version", 1)  # the first one did not say it
        if version != STATE_VERSION:
            raise ArtifactError(
                f"state: has version {version!r}, this version of ppo_workbench reads "
                f"{STATE_VERSION}; warm up from history"
            )
        if document.get("pth_sha256") != self.artifact.metadata.pth_sha256:
            raise ArtifactError(
                f"state: belongs to another model than {self.artifact.metadata.name!r}; restore "
                "it into the model that it was taken from, or warm up from history"
            )
        try:
            self.market.restore(state.part("market."), document["market"])
            for name, array in self._arrays().items():
                array[...] = state.arrays[name]
            last = document["last"]
            self._last = None if last is None else Decision.model_validate_json(json.dumps(last))
            self._begun, self._ordered = bool(document["begun"]), int(document["ordered"])
            self._broken = [int(x) for x in document["broken"]]
            self._day = int(document["day"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"state: is damaged ({type(error).__name__}: {error}); warm up from history"
            ) from None

    def _arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        return {
            "account": self.accounts,
            "observation": self.observation,
            "mask": self.mask,
            "reasons": self.reasons,
            "logits": self.logits,
        }

    def _count(self, place: Place, start_ns: int) -> str:
        """Note a bar that was taken; return why the features cannot be used, "" if they can."""
        market, reason = self.market, ""
        if market.taken > 1 and place.missing > self._max_missing:
            market.needed = self.artifact.metadata.warmup_bars
            reason = f"gap: {place.missing} bars are missing before this one; "
        elif any(broken < start_ns for broken in self._broken):
            market.needed = self.artifact.metadata.warmup_bars
            reason = "gap: a bar before was bad and never corrected; "
        if self._broken:
            self._broken = [broken for broken in self._broken if broken > start_ns]
        if market.needed == 0:
            return ""
        market.needed -= 1
        return f"{reason}{market.needed + 1} more bars are needed to warm the features up"

    def _follow(self, account: Account) -> None:
        """Take the account over and write observation, mask and reasons."""
        market, fills = self.market, _NO_FILLS
        if account.fills:
            fills = np.array([(fill.quantity, fill.price, fill.cost) for fill in account.fills])
        # A flat account begins with the first decision, as an episode does: until then it had
        # nothing to decide on, and has nothing to remember.
        waiting = market.taken <= self.artifact.metadata.warmup_bars + 1 and account.shares == 0.0
        follow_and_observe(
            self._begun and not waiting, self.accounts, market.rows, market.scaled,
            self._scaler.means, self._scaler.stds, self.space.levels, self.params,
            self._ordered, fills, _report(account), self._reports,
            self._outcomes, self.observation, self.mask, self.reasons,
        )  # fmt: skip
        self._begun, self._ordered = True, int(self.accounts["rung"][0])
        self._day = market.clock.memory.day

    def _answer(self, place: Place, account: Account, reason: str, outside: int) -> Decision:
        row, a = self.market.rows[1], self.accounts[0]
        time = moment_of(place.end_ns)
        foreign = account.shares != 0.0 and self._ordered == self.space.flat_rung
        if reason or foreign:
            bits = flatten_bits(a, row, self.params[0])
            stopped = row["rule_bits"] & STOPPED & self.params["enabled"][0]
            if foreign and not reason:
                reason = f"the model has no level for a position of {account.shares:g} shares"
            if (bits or foreign) and account.shares != 0.0 and not stopped:
                return self._flatten(time, account, int(bits), reason)
            return _no_decision(time, reason)
        return self._decided(time, account, outside)

    def _decided(self, time: datetime, account: Account, outside: int) -> Decision:
        """Ask the model."""
        weights, market = self._weights, self.market
        action, rung = choose_action(
            self._use_mask, self.accounts, market.rows, self.space.levels, self.params,
            self.observation, self.mask, self.reasons, weights.sizes, weights.flat,
            weights.activation, self._scratch, self.logits, self._probabilities, self._outcomes,
            self._order,
        )  # fmt: skip
        moves = rung != self._ordered
        exposure, shares = self._order.tolist()
        self._ordered = rung
        names, reasons = self.space.names, self.reasons.tolist()
        return Decision.of_checked(
            version=2,
            status=Status.decided,
            time=time,
            reason="",
            action=names[action],
            action_index=action,
            target_exposure=exposure if moves else None,
            order_quantity=shares - account.shares - _working(account) if moves else 0.0,
            probabilities=dict(zip(names, self._probabilities.tolist(), strict=True)),
            logits=self.logits.tolist(),
            mask=dict(zip(names, self.mask.tolist(), strict=True)),
            blocked_by={
                name: self._rules_in(bits)
                for name, bits in zip(names, reasons, strict=True)
                if bits
            },
            regime=REGIME_NAMES[int(market.context[REGIME])],
            out_of_range=market.outside_names if outside else [],
            reduce_only=False,
        )

    def _flatten(self, time: datetime, account: Account, bits: int, reason: str) -> Decision:
        """Close the position by a rule, without the model."""
        rules = list(rules_in(bits))
        return Decision(
            status=Status.flatten,
            time=time,
            reason=reason or f"rules in force: {', '.join(rules)}",
            target_exposure=0.0,
            order_quantity=-account.shares - _working(account),
            blocked_by=dict.fromkeys(self.space.names, rules) if rules else {},
            reduce_only=True,
        )

    def _rules_in(self, bits: int) -> list[str]:
        if bits not in self._named:
            self._named[bits] = list(rules_in(bits))
        return self._named[bits]


def _report(account: Account) -> tuple[float, float, float, float, float]:
    """Return what the account says, in the order of `REPORT_DTYPE`; NaN = nothing."""
    pnl, peak, price = account.session_pnl, account.peak, account.average_price
    return (
        account.cash,
        account.shares,
        math.nan if pnl is None else pnl,
        math.nan if peak is None else peak,
        math.nan if price is None else price,
    )


def _no_decision(time: datetime, reason: str) -> Decision:
    return Decision(status=Status.no_decision, time=time, reason=reason, reduce_only=True)


def _working(account: Account) -> float:
    """Return the signed shares that open orders would still add."""
    return sum(order.quantity for order in account.open_orders)
