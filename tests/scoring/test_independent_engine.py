"""The fills of a trace replayed by another engine, `backtesting`, end in the same equity.

Decisions are not compared, the accounting is: cash, position, costs and marking to market.
What its accounting forces upon the replay:

* `margin=0.01`: it cancels orders beyond its margin, and ours were sized to the last dollar.
* Costs are linear in shares: it closes trades first in, first out, and charges a flip or a
  partial close in parts, so a minimum for each order would be paid more than once.  Carry is
  off, because it knows none.
* Its strategy first speaks at its second bar, so one bar stands before the first decision;
  `trade_on_close` fills when the next bar comes, so one that stands still follows the last.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import backtesting
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from ppo_workbench.cli.main import compose
from ppo_workbench.config import CostsConfig, Fill
from ppo_workbench.scoring.backtest import RANDOM, Policy, backtest
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment, prepare_with_test, split_bars

# Of the other engine: pandas 3.1 renamed an attribute, and our last position stays open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:DatetimeIndex.dayofweek is deprecated"),
    pytest.mark.filterwarnings("ignore:Some trades remain open:UserWarning"),
]

REAL = Path(__file__).parents[2] / "../shared/data"
COSTS = (
    "costs.half_spread_bps=2.0",
    "costs.quoted_spread=false",
    "costs.fee_bps=0.5",
    "costs.fee_per_share_usd=0.005",
    "costs.fee_minimum_usd=0",
    "costs.impact_volatility_frac=0",
    "costs.high_volatility_multiplier=1",
    "costs.borrow_annual_bps=0",
    "costs.margin_interest_annual_bps=0",
)
DATA = {
    "synthetic": ("data.synthetic.sessions=40", "features.volatility_slow_bars=390"),
    "nasdaq": ("data=nasdaq", "env.fill=next_open"),
    "spy_1min": ("experiment=us_minute_short", f"data.path={REAL / 'spy_1min_2013-10.csv'}"),
}
LADDERS = {
    "three levels": (),
    "five levels": ("env.exposure_levels=[-1.0,-0.5,0.0,0.5,1.0]",),
}


@cache
def _traded(data: str, ladder: str) -> tuple[Experiment, Trace]:
    if data == "spy_1min" and not REAL.exists():
        pytest.skip("no real bars beside the project")
    config = compose(["tracking=none", *DATA[data], *COSTS, *LADDERS[ladder]])
    experiment = prepare_with_test(config, *split_bars(config))
    train, test = experiment.splits["train"], experiment.splits["test"]
    split = replace(test, start=train.start)  # from training on: the more fills, the better
    policy = Policy("random", RANDOM, seed=4)
    return experiment, backtest(policy, experiment.bars, experiment.market, split, config)


def _table(experiment: Experiment, trace: Trace) -> pd.DataFrame:
    """Return the bars from one before the first decision to one behind the last mark."""
    bars = experiment.bars
    first = int(np.searchsorted(bars.end_ns, trace.end_ns[0])) - 2
    rows = slice(first, first + 2 + len(trace))
    columns = {name.title(): getattr(bars, name)[rows] for name in ("open", "high", "low", "close")}
    table = pd.DataFrame(columns, index=pd.to_datetime(bars.start_ns[rows]))
    still = table.iloc[[-1]].assign(**dict.fromkeys(columns, table["Close"].iloc[-1]))
    still.index = still.index + pd.Timedelta(days=1)
    return pd.concat([table, still])


def _replayed(experiment: Experiment, trace: Trace, costs: CostsConfig) -> npt.NDArray[np.float64]:
    """Return the other engine's equity at the mark of every row, and one bar later."""
    at_close = experiment.config.env.fill is Fill.next_close
    orders = np.zeros(len(trace) + 3)
    # An order for the next open is given at the decision, one for this close at the fill's bar.
    begin = 2 if at_close else 1
    orders[begin : begin + len(trace)] = trace.fill_quantity
    equity: list[float] = []

    class Replay(backtesting.Strategy):  # type: ignore[misc] # untyped library
        def init(self) -> None:
            pass

        def next(self) -> None:
            equity.append(self.equity)
            quantity = orders[len(self.data) - 1]
            if quantity > 0:
                self.buy(size=quantity)
            elif quantity < 0:
                self.sell(size=-quantity)

    def commission(size: float, price: float) -> float:
        notional_share = (costs.half_spread_bps + costs.fee_bps) / 10_000
        return float(abs(size) * (price * notional_share + costs.fee_per_share_usd))

    backtesting.Backtest(
        _table(experiment, trace),
        Replay,
        cash=trace.initial_equity_usd,
        commission=commission,
        margin=0.01,
        trade_on_close=at_close,
    ).run()
    return np.array(equity[1:])


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("data", DATA)
def test_same_fills_in_another_engine_give_the_same_equity(data: str, ladder: str) -> None:
    experiment, trace = _traded(data, ladder)
    filled = trace.fill_quantity != 0
    assert filled.sum() > 200
    assert (np.cumsum(trace.fill_quantity) < 0).any()
    equity = _replayed(experiment, trace, experiment.config.costs)
    assert equity[-1] == pytest.approx(trace.equity_usd[-1], rel=1e-9)
    # Filled at the close, its costs are booked at the next bar: those rows differ by them.
    late = filled & (experiment.config.env.fill is Fill.next_close)
    assert np.allclose(equity[:-1] - late * trace.cost_usd, trace.equity_usd, rtol=1e-9, atol=0)


def test_commission_off_by_one_percent_is_seen_in_the_other_engine() -> None:
    experiment, trace = _traded("synthetic", "three levels")
    costs = replace(experiment.config.costs, fee_per_share_usd=0.00505)
    equity = _replayed(experiment, trace, costs)
    assert abs(equity[-1] / trace.equity_usd[-1] - 1) > 1e-5
