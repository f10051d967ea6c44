"""An account that fills as the backtest does: at the next bar, with the modelled costs."""

from typing import Any

import numpy as np

from ppo_workbench.config import ArtifactError, BarsError
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.decider_state import DeciderState
from ppo_workbench.delivery.messages import Account, Bar, Decision, Fill
from ppo_workbench.market.clock import Place
from ppo_workbench.trading.account import BAR_DTYPE, OUTCOME_DTYPE
from ppo_workbench.trading.kernel import YEAR_NS, begin_episode, seed_accounts, step_one

_PREFIX = "simulated."


class SimulatedAccount:
    """Carries out a Decider's decisions with the training's own step.

    Attributes:
        record: One row of `ACCOUNT_DTYPE`.
        outcome: One row of `OUTCOME_DTYPE`: what the last step did.
    """

    def __init__(self, decider: Decider) -> None:
        """Open an account with the model's initial cash, and no position.

        Args:
            decider: Whose decisions it carries out.
        """
        self._decider = decider
        self._records, self._outcomes = seed_accounts(1, 0), np.zeros(1, OUTCOME_DTYPE)
        self.record, self.outcome = self._records[0], self._outcomes[0]
        self._rows = np.zeros(2, dtype=BAR_DTYPE)
        self._begun = self._moved = self.ruined = False
        self.record["cash"] = decider.params["initial_cash"][0]
        self._action, self._reasons = decider.space.hold, 0

    def step(self, bar: Bar) -> Account:
        """Fill what was decided, mark at the bar's close and report, before the bar is decided on.

        A bar that the Decider will not take (late, twice, overlapping, bad) leaves the account as
        it is.
        """
        market = self._decider.market
        start = market.start_of(bar)
        late = market.taken > 0 and start <= market.last_ns
        self._moved = not (late or market.overlap_of(start) or market.problem_of(bar))
        if self._moved:
            try:
                self._move(bar, market.clock.look(start))
            except BarsError:  # a date without a session
                self._moved = False
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
        action, reasons = decision.action_index, self._decider.reasons
        self._action = self._decider.space.hold if action is None else action
        self._reasons = int(reasons[self._action])

    def state(self) -> DeciderState:
        """Return everything that the Decider and this account remember, between two bars."""
        state = self._decider.state()
        arrays = {f"{_PREFIX}{name}": np.array(row) for name, row in self._arrays().items()}
        document = {
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
        self._decider.restore(state)
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

    def _arrays(self) -> dict[str, Any]:
        return {"record": self._records, "outcome": self._outcomes, "bars": self._rows}

    def _move(self, bar: Bar, place: Place) -> None:
        p, market, row = self._decider.params[0], self._decider.market, self._rows[1]
        row["open"], row["close"], row["session"] = bar.open, bar.close, place.session
        row["trades"] = market.fills_in(bar)
        if not self._begun:
            begin_episode(self.record, self._rows, 1, 2, p)
            self._begun = True
            return
        self._rows[0] = market.rows[1]  # as the model knew it when it decided
        row["years"] = (place.start_ns - int(market.rules.memory["start_ns"][0])) / YEAR_NS
        self.record["t"] = 0
        levels = self._decider.space.levels
        self.ruined = step_one(
            self.record, self._rows, levels, p, self._action, self._reasons, self.outcome
        )

    def _fills(self) -> list[Fill]:
        out = self.outcome
        if out["fill_quantity"] == 0.0:
            return []
        quantity, price, cost = (float(out[x]) for x in ("fill_quantity", "fill_price", "cost"))
        return [Fill(quantity=quantity, price=price, cost=cost)]
