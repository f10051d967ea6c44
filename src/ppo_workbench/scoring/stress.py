"""Re-score one policy under worse conditions, and find the cost at which it earns nothing.

The policy and what it observes of the market stay; costs, latency and borrow change.  So the
account it observes changes with them, and its decisions may.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import isfinite

import numpy as np

from ppo_workbench.config import Config, CostsConfig
from ppo_workbench.scoring.backtest import Policy, backtest
from ppo_workbench.scoring.breakdown import Part, by_hour, by_regime, by_year, whole
from ppo_workbench.scoring.documents import BreakEvenPart, StressPart
from ppo_workbench.scoring.metrics import Scorecard, scorecard
from ppo_workbench.scoring.stitch import stitch
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment
from ppo_workbench.trading.rules.params import build_params
from ppo_workbench.trading.table import TradingMarket

COST_MULTIPLES = (0.5, 1.0, 2.0, 3.0)
AS_CONFIGURED = "costs_x1"
BORROW_ANNUAL_BPS = 300.0
BREAK_EVEN_CAP_BPS = 100.0
BREAK_EVEN_TOLERANCE_BPS = 0.01

_COST_TERMS = (
    "fee_bps",
    "fee_per_share_usd",
    "fee_minimum_usd",
    "half_spread_bps",
    "slippage_volatility_frac",
    "impact_volatility_frac",
)


@dataclass(frozen=True)
class Conditions:
    """What a policy is re-scored under.

    Attributes:
        name: Key in documents.
        change: What differs from the configuration, in words.
        costs: Costs of fills and of carry.
        quote_factor: Factor of quoted half spreads and of the tick, which replace the
            configured half spread.
        delay_bars: Latency of every order, bars.
    """

    name: str
    change: str
    costs: CostsConfig
    quote_factor: float = 1.0
    delay_bars: int = 0


@dataclass(frozen=True)
class Scenario:
    """One re-scored backtest."""

    conditions: Conditions
    card: Scorecard


@dataclass(frozen=True)
class BreakEven:
    """The flat cost a side, in place of all configured fill costs, that eats all profit.

    Attributes:
        cost_bps: Basis points of notional a side at which the mean session return over cash
            is 0, to `BREAK_EVEN_TOLERANCE_BPS`; None where there is no such cost.
        verdict: "found", "never profitable" (nothing is earned even without costs),
            "profitable up to the cap" or "no trades".
        cap_bps: Highest cost that was tried.
        configured_bps: What the configured costs come to, basis points of notional traded.
    """

    cost_bps: float | None
    verdict: str
    cap_bps: float
    configured_bps: float

    @property
    def multiple(self) -> float | None:
        """Break-even cost in units of the configured costs; None without either."""
        if self.cost_bps is None or self.configured_bps <= 0.0:
            return None
        return self.cost_bps / self.configured_bps

    def to_dict(self) -> BreakEvenPart:
        """Return JSON values."""
        return {
            "cost_bps": self.cost_bps,
            "verdict": self.verdict,
            "cap_bps": self.cap_bps,
            "configured_bps": self.configured_bps,
            "multiple_of_configured": self.multiple,
        }


@dataclass(frozen=True)
class Stress:
    """One policy on one split under changed conditions, and where its result comes from.

    Attributes:
        policy: Name of the policy.
        split: Name of the split.
        scenarios: In the order of a report; `AS_CONFIGURED` is among them.
        break_even: Break-even cost a side.
        whole: The result as configured; the parts below add up to it.
        regimes: Part of every regime.
        hours: Part of every hour of the exchange's day; empty for daily bars.
        years: Part of every calendar year.
    """

    policy: str
    split: str
    scenarios: tuple[Scenario, ...]
    break_even: BreakEven
    whole: Part
    regimes: Mapping[str, Part]
    hours: Mapping[str, Part]
    years: Mapping[str, Part]

    def to_dict(self) -> StressPart:
        """Return JSON values; every number is finite or None."""
        return {
            "policy": self.policy,
            "split": self.split,
            "scenarios": {
                s.conditions.name: {
                    "change": s.conditions.change,
                    "figures": {
                        key: value if isfinite(value) else None
                        for key, value in s.card.to_dict().items()
                    },
                }
                for s in self.scenarios
            },
            "break_even": self.break_even.to_dict(),
            "whole": self.whole.to_dict(),
            "by_regime": {name: part.to_dict() for name, part in self.regimes.items()},
            "by_hour": {name: part.to_dict() for name, part in self.hours.items()},
            "by_year": {name: part.to_dict() for name, part in self.years.items()},
        }


@dataclass(frozen=True)
class Stretch:
    """What one policy is scored on.

    Attributes:
        policy: What decides.
        experiment: Bars and market; for a stored model the market as that model saw it.
        split: Name of the split; a test must have been opened before.
    """

    policy: Policy
    experiment: Experiment
    split: str


def stress(policy: Policy, experiment: Experiment, split: str) -> Stress:
    """Re-score a policy under changed costs, latency and borrow, and part its result.

    The test split must have been opened before (`experiment.splits` holds it then).

    Args:
        policy: What decides.
        experiment: Bars, market and the costs, rules and fills that the changes start from; for
            a stored model the market as that model saw it.
        split: Name of the split.
    """
    return stress_stretches([Stretch(policy, experiment, split)])


def stress_stretches(stretches: Sequence[Stretch]) -> Stress:
    """Do as `stress` for an arm that was trained anew for every stretch, as in walk-forward.

    Args:
        stretches: In time order, of one configuration; their traces are stitched.
    """
    scores = _Scores(stretches)
    traces = {c.name: (c, scores.trace(c)) for c in conditions(scores.costs)}
    base = traces[AS_CONFIGURED][1]
    timezone = stretches[0].experiment.bars.timezone
    return Stress(
        policy=stretches[0].policy.name,
        split=stretches[0].split,
        scenarios=tuple(Scenario(c, scorecard(trace)) for c, trace in traces.values()),
        break_even=_break_even(scores, scorecard(base)),
        whole=whole(base),
        regimes=by_regime(base),
        hours=by_hour(base, timezone),
        years=by_year(base, timezone),
    )


def conditions(costs: CostsConfig) -> list[Conditions]:
    """Return what a policy is re-scored under, from the costs that are configured."""
    slippage, of_quotes, slipping = _doubled_slippage(costs)
    rate = max(costs.borrow_annual_bps, BORROW_ANNUAL_BPS)
    borrow = f"borrow at {rate:g} bps a year"
    together = replace(scaled(slippage, 2.0), borrow_annual_bps=rate)
    return [
        *(
            Conditions(f"costs_x{k:g}", f"all costs of fills x {k:g}", scaled(costs, k), k)
            for k in COST_MULTIPLES
        ),
        Conditions("latency_1_bar", "every order one bar later", costs, delay_bars=1),
        Conditions("slippage_x2", slipping, slippage, of_quotes),
        Conditions("borrow", borrow, replace(costs, borrow_annual_bps=rate)),
        Conditions(
            "all_together",
            f"{slipping}, then all costs of fills x 2, every order one bar later, {borrow}",
            together,
            2.0 * of_quotes,
            1,
        ),
    ]


def scaled(costs: CostsConfig, factor: float) -> CostsConfig:
    """Return the costs with every term of a fill's cost times `factor`; carry stays."""
    return replace(costs, **{name: getattr(costs, name) * factor for name in _COST_TERMS})


def _doubled_slippage(costs: CostsConfig) -> tuple[CostsConfig, float, str]:
    """Return costs, factor of quoted half spreads, and words for twice the slippage."""
    if costs.slippage_volatility_frac > 0.0:
        twice = 2.0 * costs.slippage_volatility_frac
        return replace(costs, slippage_volatility_frac=twice), 1.0, "slippage x 2"
    wider = replace(costs, half_spread_bps=2.0 * costs.half_spread_bps)
    return wider, 2.0, "one extra half spread (no slippage is configured)"


class _Scores:
    """Backtests of one arm under any conditions."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._stretches = stretches
        self.costs = stretches[0].experiment.config.costs

    def trace(self, conditions: Conditions) -> Trace:
        traces = [rescored(stretch, conditions) for stretch in self._stretches]
        return traces[0] if len(traces) == 1 else stitch(traces)

    def mean_excess(self, cost_bps: float) -> float:
        """Return the mean session return over cash at a flat cost a side."""
        costs = replace(
            scaled(self.costs, 0.0), fee_bps=cost_bps, quoted_spread=False
        )  # a quote would replace the half spread of 0, as would the tick
        trace = self.trace(Conditions("flat", "", costs, quote_factor=0.0))
        return float(np.mean(trace.daily_returns() - trace.cash_returns()))


def rescored(stretch: Stretch, conditions: Conditions) -> Trace:
    """Return what the policy of a stretch does under other conditions."""
    experiment = stretch.experiment
    config = replace(experiment.config, costs=conditions.costs)
    market = priced(experiment.market, config, conditions.quote_factor)
    split = experiment.splits[stretch.split]
    return backtest(stretch.policy, experiment.bars, market, split, config, conditions.delay_bars)


def priced(market: TradingMarket, config: Config, quote_factor: float = 1.0) -> TradingMarket:
    """Return the market with the costs of `config`; features and scaler stay as they are.

    Args:
        market: What the step read so far.
        config: The experiment with other costs.
        quote_factor: Factor of the quoted half spreads, and of the tick.
    """
    bars = market.bars
    if quote_factor != 1.0:
        bars = bars.copy()
        bars["half_spread_bps"] *= quote_factor
    params = build_params(config, market.space)
    params["half_tick"] *= quote_factor
    return replace(market, bars=bars, params=params)


def _break_even(scores: _Scores, base: Scorecard) -> BreakEven:
    def answer(cost_bps: float | None, verdict: str) -> BreakEven:
        return BreakEven(cost_bps, verdict, BREAK_EVEN_CAP_BPS, base.cost_bps_of_turnover)

    mean_excess = cache(scores.mean_excess)
    if base.n_fills == 0:
        return answer(None, "no trades")
    if mean_excess(0.0) <= 0.0:
        return answer(None, "never profitable")
    bracket = _first_loss(mean_excess, max(base.cost_bps_of_turnover, 1.0))
    if bracket is None:
        return answer(None, "profitable up to the cap")
    return answer(_root(mean_excess, *bracket), "found")


def _first_loss(mean_excess: Callable[[float], float], cost: float) -> tuple[float, float] | None:
    """Return a cost that earns and one that does not, doubling from `cost`, up to the cap."""
    low = 0.0
    while mean_excess(cost) > 0.0:
        if cost >= BREAK_EVEN_CAP_BPS:
            return None
        low, cost = cost, min(2.0 * cost, BREAK_EVEN_CAP_BPS)
    return low, cost


def _root(mean_excess: Callable[[float], float], low: float, high: float) -> float:
    """Return where the mean is 0 between two costs.

    Whole shares and rules make it jump a little, so the bracket is what is kept.
    """
    from scipy.optimize import brentq

    return float(brentq(mean_excess, low, high, xtol=BREAK_EVEN_TOLERANCE_BPS))
