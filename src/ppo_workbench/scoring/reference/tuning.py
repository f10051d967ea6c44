"""The Sharpe ratio of a threshold rule without its trace: what tuning one needs.

The same step, rules and figures as `backtest` and `scorecard`, bit for bit.  What is left
out has no effect on the equity: observations, the reasons of actions that are not
considered, and the rows of a trace.
"""

from functools import cache

import numpy as np

from ppo_workbench.config.arrays import Floats, Ints, Records
from ppo_workbench.jit import kernel
from ppo_workbench.scoring.backtest import Policy, action_towards, rung_nearest, threshold_exposure
from ppo_workbench.scoring.metrics import sharpe_ratio
from ppo_workbench.scoring.trace import cash_returns, session_ends, session_returns
from ppo_workbench.trading.account import OUTCOME_DTYPE
from ppo_workbench.trading.chance import seed_accounts
from ppo_workbench.trading.experiment import Experiment
from ppo_workbench.trading.rules.reasons import action_reasons, fill_mask, flatten_bits
from ppo_workbench.trading.step import begin_episode, step_one


@kernel
def _fill_equity(
    series: Floats,
    entry: float,
    leave: float,
    bars: Records,
    levels: Floats,
    params: Records,
    accounts: Records,
    outcomes: Records,
    reasons: Ints,
    equity: Floats,
) -> int:
    """Write the equity after every decision; return how many were made before ruin, if any."""
    a, p, out = accounts[0], params[0], outcomes[0]
    mask = np.empty(reasons.shape[0], dtype=np.bool_)
    for i in range(equity.shape[0]):
        wanted = rung_nearest(levels, threshold_exposure(series[a.t], levels[a.rung], entry, leave))
        action, why = p.hold, 0
        # A rung that is wanted and held is kept by HOLD, which only a flatten rule forbids.
        if wanted != a.rung or flatten_bits(a, bars[a.t], p) != 0:
            action_reasons(a, bars[a.t], levels, p, reasons)
            fill_mask(a, reasons, False, p, mask)
            action = action_towards(a.rung, wanted, mask, p)
            why = reasons[action]
        ruined = step_one(a, bars, levels, p, action, why, out)
        equity[i] = out.equity
        if ruined:
            return i + 1
    return equity.shape[0]


class ThresholdScorer:
    """Scores threshold rules on the training split; the buffers are made once."""

    def __init__(self, experiment: Experiment) -> None:
        """Lay out the training split of an experiment."""
        self._experiment, self._split = experiment, experiment.splits["train"]
        rows = len(self._split) - 1
        self._equity = np.zeros(rows)
        self._outcomes = np.zeros(1, dtype=OUTCOME_DTYPE)
        self._reasons = np.zeros(experiment.market.space.size, dtype=np.int64)
        self._sessions = cache(self._find_sessions)

    def sharpe(self, policy: Policy) -> float:
        """Return `scorecard(backtest(policy, ...)).sharpe_annual` of a THRESHOLD policy."""
        assert policy.series is not None
        experiment, market = self._experiment, self._experiment.market
        accounts = seed_accounts(1, policy.seed)
        params = market.params
        begin_episode(accounts[0], market.bars, self._split.start, self._split.stop, params[0])
        rows = _fill_equity(
            policy.series, policy.entry, policy.exit, market.bars, market.space.levels, params,
            accounts, self._outcomes, self._reasons, self._equity,
        )  # fmt: skip
        ends, cash = self._sessions(rows)
        returns = session_returns(self._equity[ends], experiment.config.env.initial_cash_usd)
        return sharpe_ratio(returns - cash, experiment.bars.sessions_per_year)

    def _find_sessions(self, rows: int) -> tuple[Ints, Floats]:
        """Return the last row and the return of cash of every session of the first rows."""
        bars, start = self._experiment.bars, self._split.start
        marked = slice(start + 1, start + 1 + rows)
        ends = session_ends(bars.session[marked])
        interest = self._experiment.config.costs.cash_interest_annual_bps
        return ends, cash_returns(bars.end_ns[marked], int(bars.end_ns[start]), ends, interest)
