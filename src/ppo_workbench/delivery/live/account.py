"""An account that fills as the backtest does: at the next bar, with the modelled costs."""

from datetime import datetime
from typing import Any

import numpy as np

from ppo_workbench.config import ArtifactError, BarsError
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.decider_state import DeciderState, SimulatedDocument
from ppo_workbench.delivery.messages import Account, Bar, Decision, Fill
from ppo_workbench.market.calendars.clock import Place
from ppo_workbench.trading.account import BAR_DTYPE, OUTCOME_DTYPE
from ppo_workbench.trading.chance import seed_accounts
from ppo_workbench.trading.step import begin_episode, step_one
from ppo_workbench.trading.table import YEAR_NS

_PREFIX = "simulated."


class SimulatedAccount:
    """Carries out a Decider's decisions with the training's own step.

    Attributes:
        decider: Whose decisions it carries out.
        record: One row of `ACCOUNT_DTYPE`.
        outcome: One row of `OUTCOME_DTYPE`: what the last step did.
    """

    def __init__(self, decider: Decider) -> None:
        """Open an account with the model's initial cash, and no position.

        Args:
            decider: Whose decisions it carries out.
        """
        self.decider = decider
        self._records, self._outcomes = seed_accounts(1, 0), np.zeros(1, OUTCOME_DTYPE)
        self.record, self.outcome = self._records[0], self._outcomes[0]
        self._rows = np.zeros(2, dtype=BAR_DTYPE)
        self._begun = self._moved = self.ruined = False
        self.record["cash"] = decider.params["initial_cash"][0]
        self._action, self._reasons = decider.space.hold, 0

    def step(self, bar: Bar, now: datetime | None = None) -> Account:
        """Fill what was decided, mark at the bar's close and report, before the bar is decided on.

        A bar that the Decider will not take (late, of the future, bad) leaves the account as
        it is.
        """
        market = self.decider.market
        start = self.decider.start_of(bar, now)
        self._moved = False
        if start is None or (market.taken > 0 and start <= market.last_ns):
            return self.account()
        if not (market.overlap_of(start) or market.problem_of(bar)):
            try:
                self._move(bar, market.clock.look(start))
                self._moved = True
            except BarsError:  # a date without a session
                pass
        return self.account()

    def account(self) -> Account:
        """Report the account as it is."""
        return Account(
            cash=float(self.record["cash"]),
            shares=float(self.record["shares"]),
            fills=self._fills() if self._moved else [],
        )

    def take(self, decision: Decision) -> None:
        """Accept the decision on the bar of the last `step`, to be filled at the next one.

        Without a decision by the model nothing is ordered; a flatten rule in force is carried
        out, as the broker would.
        """
        if not self._moved:
            return
        action, reasons = decision.action_index, self.decider.reasons
        self._action = self.decider.space.hold if action is None else action
        self._reasons = int(reasons[self._action])

    def state(self) -> DeciderState:
        """Return everything that the Decider and this account remember, between two bars."""
        state = self.decider.state()
        arrays = {f"{_PREFIX}{name}": np.array(row) for name, row in self._arrays().items()}
        document: SimulatedDocument = {
            "begun": self._begun,
            "ruined": self.ruined,
            "action": self._action,
            "reasons": self._reasons,
        }
        return DeciderState(state.arrays | arrays, {**state.document, "simulated": document})

    def restore(self, state: DeciderState) -> None:
        """Go on from a state, Decider and account, bit for bit as those that it was taken from.

        Raises:
            ArtifactError: The state is another model's, damaged, or holds no simulated account.
        """
        document = state.document.get("simulated")
        if not isinstance(document, dict):
            raise ArtifactError(
                "state: holds no simulated account; it was saved with an account that was given, "
                "so go on with decide.account=given or begin anew"
            )
        self.decider.restore(state)
        try:
            stored = state.part(_PREFIX)
            for name, row in self._arrays().items():
                row[...] = stored[name]
            self._begun, self.ruined = bool(document["begun"]), bool(document["ruined"])
            self._action, self._reasons = int(document["action"]), int(document["reasons"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"state: is damaged ({type(error).__name__}: {error}); begin anew"
            ) from None
        self._moved = False

    def take_over(self, state: DeciderState) -> None:
        """Go on with the account of a state of another model, and what its rules remember.

        Raises:
            ArtifactError: The state is another version's, damaged, or holds no such account.
        """
        self.decider.take_over(state)
        try:
            for name, row in self._arrays().items():
                row[...] = state.part(_PREFIX)[name]
            document = state.document["simulated"]
            self._begun, self.ruined = bool(document["begun"]), bool(document["ruined"])
        except (KeyError, TypeError, ValueError):
            raise ArtifactError(
                "state: holds no simulated account, or is damaged; begin anew"
            ) from None
        self._action, self._reasons, self._moved = self.decider.space.hold, 0, False
        self.record["rung"] = self.decider.accounts["rung"][0]

    def _arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        return {"record": self._records, "outcome": self._outcomes, "bars": self._rows}

    def _move(self, bar: Bar, place: Place) -> None:
        p, market, row = self.decider.params[0], self.decider.market, self._rows[1]
        row["open"], row["close"], row["session"] = bar.open, bar.close, place.session
        row["trades"] = market.fills_in(bar)
        if not self._begun:
            begin_episode(self.record, self._rows, 1, 2, p)
            self._begun = True
            return
        self._rows[0] = market.rows[1]  # as the model knew it when it decided
        before = int(market.rules.memory["start_ns"][0]) if market.taken else place.start_ns
        row["years"] = (place.start_ns - before) / YEAR_NS
        self.record["t"] = 0
        levels = self.decider.space.levels
        self.ruined = step_one(
            self.record, self._rows, levels, p, self._action, self._reasons, self.outcome
        )

    def _fills(self) -> list[Fill]:
        out = self.outcome
        if out["fill_quantity"] == 0.0:
            return []
        quantity, price, cost = (float(out[x]) for x in ("fill_quantity", "fill_price", "cost"))
        return [Fill(quantity=quantity, price=price, cost=cost)]
