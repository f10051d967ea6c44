"""A broker that fills in part and moves money, and the batch kernels fed with what it reports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.golden import stored_weights, uses_mask
from ppo_workbench.delivery.messages import (
    Account,
    Bar,
    CashFlow,
    Decision,
    Fill,
    Order,
    bar_messages,
)
from ppo_workbench.delivery.network import best_allowed, forward_row
from ppo_workbench.market.bars import NS_PER_SECOND
from ppo_workbench.market.calendars.exchange import load_sessions
from ppo_workbench.market.splits import Split
from ppo_workbench.trading.account import OUTCOME_DTYPE
from ppo_workbench.trading.chance import seed_accounts
from ppo_workbench.trading.experiment import Experiment
from ppo_workbench.trading.following import (
    REPORT_DTYPE,
    adopt_account,
    follow_account,
    level_of,
    order_after,
    reasons_when_short,
)
from ppo_workbench.trading.observation import observe_mask
from ppo_workbench.trading.step import refresh

PARTS = (1.0, 1.0, 1.0, 1.0, 0.6, 0.3, 0.01, 0.0)
DUST = 1e-8


def write_minutes(path: Path, calendar: str, first: str, last: str, seed: int = 0) -> None:
    """Write minutes of a calendar, with holes of 3 to 400 bars and bars of volume 0, as CSV."""
    span = (np.array([first, last], dtype="datetime64[ns]")).astype(np.int64)
    table, minute = load_sessions(calendar, int(span[0]), int(span[1])), 60 * NS_PER_SECOND
    edges = (table.open_ns, table.break_start_ns, table.break_end_ns, table.close_ns)
    pieces = [
        np.arange(start, stop, minute)
        for k in range(len(table.day))
        for start, stop in ((edges[0][k], edges[1][k]), (edges[2][k], edges[3][k]))
    ]
    stamps = np.concatenate(pieces)
    stamps = stamps[(stamps >= span[0]) & (stamps < span[1])]
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 5e-4, len(stamps))))
    open_ = close * np.exp(rng.normal(0, 2e-4, len(stamps)))
    volume = rng.integers(1, 9, len(stamps)) * 1e5 * (rng.random(len(stamps)) > 0.02)
    rows = pd.DataFrame(
        {
            "timestamp": pd.to_datetime(stamps, utc=True),
            "open": open_,
            "high": np.maximum(open_, close) * 1.0002,
            "low": np.minimum(open_, close) * 0.9998,
            "close": close,
            "volume": volume,
        }
    )
    holes = np.zeros(len(stamps), np.bool_)
    for start in rng.choice(len(stamps), len(stamps) // 500, replace=False):
        holes[start : start + rng.choice([3, 6, 20, 400])] = True
    rows[~holes].to_csv(path, index=False)


class Broker:
    """Fills a part of each order at the next bar, and now and then moves money."""

    def __init__(self, experiment: Experiment, seed: int) -> None:
        """Open an account with the configured cash."""
        self.rng, self._config = np.random.default_rng(seed), experiment.config
        self.cash, self.shares = experiment.config.env.initial_cash_usd, 0.0
        self._left = 0.0

    def report(self, bar: Bar, decision: Decision | None) -> Account:
        """Fill what was decided at the bar before; report the account at this bar's close."""
        market, order = self._config.market, self._left
        if decision is not None:
            order += decision.order_quantity
        at_close = self._config.env.fill.value == "next_close"
        price = float((bar.close if at_close else bar.open) or 0.0)
        lot = market.lot * market.contract_multiplier
        part = float(self.rng.choice(PARTS)) if bar.volume else 0.0
        done = order * part
        done = np.trunc(done / lot + 1e-9 * np.sign(done)) * lot if lot and part < 1.0 else done
        if part == 1.0 and lot == 0.0 and self.shares + done == 0.0 and done:
            done -= np.sign(done) * DUST  # what rounding leaves at an exchange
        cost = abs(done) * price * 1e-4
        self.cash -= done * price + cost
        self.shares += done
        self._left = order - done if self.rng.random() < 0.3 else 0.0
        flows = self._move(float(bar.close or 0.0))
        told = done != 0.0 and self.rng.random() < 0.8
        return Account(
            cash=self.cash,
            shares=self.shares,
            fills=[Fill(quantity=done, price=price, cost=cost)] if told else [],
            open_orders=[Order(quantity=self._left)] if self._left else [],
            cash_flows=flows,
            high_water_mark=2e5 if self.rng.random() < 0.1 else None,
        )

    def _move(self, close: float) -> list[CashFlow]:
        if self.rng.random() > 0.02:
            return []
        kind: Any = self.rng.choice(["deposit", "withdrawal", "dividend", "fee"])
        equity = max(self.cash + self.shares * close, 1.0)
        small = kind in ("dividend", "fee")
        amount = float(equity * self.rng.uniform(0.01, 0.3) * (0.01 if small else 1.0))
        flow = CashFlow(kind=kind, amount=amount)
        self.cash += flow.signed
        return [flow]


@dataclass
class Oracle:
    """The batch's market and the training's kernels, fed with the reports of an account."""

    experiment: Experiment
    artifact: Artifact

    def __post_init__(self) -> None:
        """Begin before the first report."""
        market = self.experiment.market
        self.a: Any = seed_accounts(1, 0)[0]
        self.begun = self.short = False
        self.start = self.ordered = market.space.flat_rung
        self.target, self.last = 0.0, 0
        self.observation = np.zeros(market.observation_size, np.float32)
        self.mask = np.zeros(market.space.size, np.bool_)
        self.reasons = np.zeros(market.space.size, np.int64)
        self.exchange(self.artifact)

    def exchange(self, artifact: Artifact) -> None:
        """Let another model decide from now on."""
        self.artifact, space = artifact, self.experiment.market.space
        self.weights = stored_weights(artifact.metadata, artifact.tensors)
        self.scratch = self.weights.scratch()
        self.logits = np.zeros(space.size, np.float32)
        if not self.begun:
            return
        a, p = self.a, self.experiment.market.params[0]
        a["rung"], self.short, self.target = space.flat_rung, False, float(a["shares"])
        if self.target:
            price = (float(a["equity"]) - float(a["cash"])) / self.target
            bar = self.experiment.market.bars[self.last]
            a["rung"], self.short = level_of(a, bar, price, space.levels, p)
        self.start = self.ordered = int(a["rung"])

    def decide(self, t: int, account: Account) -> tuple[int, float]:
        """Return action and order at the close of bar `t`."""
        market, a = self.experiment.market, self.a
        p, levels = market.params[0], market.space.levels
        rows, self.last = market.bars[t - 1 : t + 1], t
        flow = sum(x.signed for x in account.cash_flows if x.is_transfer)
        income = sum(x.signed for x in account.cash_flows if not x.is_transfer)
        mark = np.nan if account.high_water_mark is None else account.high_water_mark
        report = np.array(
            [(account.cash, account.shares, np.nan, mark, np.nan, flow, income, 1.0)],
            dtype=REPORT_DTYPE,
        )[0]
        out = np.zeros(1, OUTCOME_DTYPE)[0]
        if self.begun:
            fills = np.array([(x.quantity, x.price, x.cost) for x in account.fills])
            self.short = follow_account(
                a, rows, levels, p, self.short, self.start, self.ordered, self.target,
                fills.reshape(-1, 3), report, out,
            )  # fmt: skip
        else:
            self.short = adopt_account(a, rows, levels, p, report)
        self.begun = True
        refresh(
            a, market.inputs._replace(bars=rows, features=market.features[t - 1 : t + 1]),
            self.observation, self.mask, self.reasons,
        )  # fmt: skip
        if self.short:
            reasons_when_short(a, rows[1], levels, p, self.reasons)
            self.mask = self.reasons == 0
            observe_mask(self.mask, p, self.observation)
        w = self.weights
        self.logits = forward_row(self.observation, w, self.scratch).copy()
        free = np.ones_like(self.mask)
        masked = uses_mask(self.artifact.metadata.model_type)
        action = best_allowed(self.logits, self.mask if masked else free)
        order = np.zeros(3)
        self.start, self.ordered = order_after(
            a, rows[1], levels, p, action, self.reasons[action], self.short, out, order
        )
        self.target = float(order[1])
        working = sum(x.quantity for x in account.open_orders)
        moves = self.ordered != self.start
        return action, self.target - account.shares - working if moves else 0.0


def differing(
    experiment: Experiment, artifacts: tuple[Artifact, Artifact], split: Split, seed: int
) -> dict[str, int]:
    """Decide on a split live and by the oracle; count what differs, and what happened.

    The Decider is restarted from its state and exchanged for another model now and then.
    """
    bars, p = experiment.bars, experiment.market.params[0]
    broker, oracle = Broker(experiment, seed), Oracle(experiment, artifacts[0])
    decider, chosen = Decider(artifacts[0]), 0
    decider.warm_up(bars.slice(0, split.start))
    names = ("observations", "masks", "reasons", "logits", "actions", "orders")
    wrong: dict[str, int] = dict.fromkeys(names, 0)
    happened = dict.fromkeys(("decisions", "short", "dust", "flows", "gap", "swaps"), 0)
    decision: Decision | None = None
    for t, bar in enumerate(bar_messages(bars.slice(split.start, split.stop)), split.start):
        account = broker.report(bar, decision)
        if broker.rng.random() < 0.01:
            again = Decider(artifacts[chosen])
            again.restore(decider.state())
            decider = again
        elif t > split.start and broker.rng.random() < 0.002:
            chosen, memory = 1 - chosen, decider.account_memory()
            assert memory is not None
            decider = Decider(artifacts[chosen])
            decider.take_over(type(memory).model_validate_json(memory.model_dump_json()))
            decider.warm_up(bars.slice(0, t))
            oracle.exchange(artifacts[chosen])
            happened["swaps"] += 1
        decision = decider.decide(bar, account, now=bar.start)
        if decision.action is None:  # no level for what is held: not the model's affair
            raise AssertionError(decision.reason)
        action, order = oracle.decide(t, account)
        pairs = (
            (decider.observation, oracle.observation),
            (decider.mask, oracle.mask),
            (decider.reasons, oracle.reasons),
            (decider.logits, oracle.logits),
            (decision.action_index, action),
            (decision.order_quantity, order),
        )
        for name, (found, expected) in zip(names, pairs, strict=True):
            wrong[name] += int(np.sum(np.asarray(found) != np.asarray(expected)))
        happened["decisions"] += 1
        happened["short"] += oracle.short
        happened["dust"] += int(account.shares != 0.0 and oracle.a["rung"] == p["flat_rung"])
        happened["flows"] += len(account.cash_flows)
        happened["gap"] += decision.reduce_only
    return wrong | happened
