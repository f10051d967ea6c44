"""What every figure of a scorecard is called, its unit, and which way is better.

One catalogue for objectives, comparisons, gates, pages and MLflow; docs/metrics.md has the
formulas.  Figures of a rule or a severity, `blocked_share/RULE`, have one entry for all of them.
"""

from dataclasses import dataclass
from math import inf

from ppo_workbench.plugins import refuse_built_in, registered

RATIO, FRACTION, COUNT, MONEY = "ratio", "fraction", "count", "USD"
HIGHER, LOWER, NEITHER = 1, -1, 0


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        title: What a reader calls it.
        unit: RATIO, FRACTION, COUNT or MONEY.
        better: HIGHER, LOWER, or NEITHER where more is neither better nor worse by itself.
        lowest, highest: What it can be, for the ends of intervals.
        of_trips: It is a figure of closed round trips: without one there is nothing to be told.
    """

    title: str
    unit: str
    better: int
    lowest: float = -inf
    highest: float = inf
    of_trips: bool = False


CATALOGUE = {
    "total_return_frac": Metric("Total return", FRACTION, HIGHER),
    "annual_return_frac": Metric("Annual return", FRACTION, HIGHER),
    "excess_return_annual_frac": Metric("Annual return over cash", FRACTION, HIGHER),
    "sharpe_annual": Metric("Sharpe ratio, annual", RATIO, HIGHER),
    "sharpe_standard_error": Metric("Standard error of the Sharpe ratio", RATIO, LOWER, 0.0),
    "sharpe_low_95": Metric("Sharpe ratio, low end of 95 %", RATIO, HIGHER),
    "sharpe_high_95": Metric("Sharpe ratio, high end of 95 %", RATIO, HIGHER),
    "sortino_annual": Metric("Sortino ratio, annual", RATIO, HIGHER),
    "calmar": Metric("Calmar ratio", RATIO, HIGHER),
    "max_drawdown_frac": Metric("Maximum drawdown", FRACTION, LOWER, 0.0),
    "max_drawdown_sessions": Metric("Length of the maximum drawdown, sessions", COUNT, LOWER, 0.0),
    "max_drawdown_at_10pct_vol_frac": Metric(
        "Maximum drawdown at 10 % volatility", FRACTION, LOWER, 0.0
    ),
    "volatility_annual_frac": Metric("Volatility, annual", FRACTION, LOWER, 0.0),
    "win_rate_frac": Metric("Win rate", FRACTION, HIGHER, 0.0, 1.0, of_trips=True),
    "expectancy_bps": Metric("Expectancy, bps", RATIO, HIGHER, of_trips=True),
    "expectancy_usd": Metric("Expectancy", MONEY, HIGHER, of_trips=True),
    "profit_factor": Metric("Profit factor", RATIO, HIGHER, 0.0, of_trips=True),
    "exposure_mean_abs": Metric("Mean exposure", RATIO, NEITHER, 0.0),
    "exposure_mean": Metric("Mean exposure, signed", RATIO, NEITHER),
    "turnover_annual": Metric("Turnover, times equity a year", RATIO, NEITHER, 0.0),
    "cost_usd": Metric("Costs", MONEY, LOWER, 0.0),
    "cost_bps_of_turnover": Metric("Costs, bps of turnover", RATIO, LOWER, 0.0),
    "carry_usd": Metric("Carry", MONEY, HIGHER),
    "n_trades": Metric("Round trips", COUNT, NEITHER, 0.0),
    "n_fills": Metric("Fills", COUNT, NEITHER, 0.0),
    "n_sessions": Metric("Sessions", COUNT, NEITHER, 0.0),
    "n_decisions": Metric("Decisions", COUNT, NEITHER, 0.0),
    "years": Metric("Years", RATIO, NEITHER, 0.0),
    "masked_share": Metric("Decisions with a mask", FRACTION, NEITHER, 0.0, 1.0),
    "undecided_share": Metric("Decisions after a gap", FRACTION, NEITHER, 0.0, 1.0),
    "blocked_share": Metric("Decisions blocked", FRACTION, NEITHER, 0.0, 1.0),
    "violations": Metric("Violations", COUNT, LOWER, 0.0),
    "rejections": Metric("Rejections", COUNT, LOWER, 0.0),
    "passive_breaches": Metric("Passive breaches", COUNT, LOWER, 0.0),
}
refuse_built_in("metric", registered().metrics, CATALOGUE)
CATALOGUE |= {
    name: Metric(own.title, own.unit, own.better) for name, own in registered().metrics.items()
}


# Of a comparison alone: the area under a training curve over its length.
CURVES = {
    "curve_sharpe_annual": Metric("Sharpe ratio on validation, mean of training", RATIO, HIGHER),
}


def metric_of(key: str) -> Metric:
    """Return a figure's entry; `violations/house` has that of `violations`.

    A figure that no scorecard has, such as one of an older document, is neither good nor bad.
    """
    known = CATALOGUE.get(key.partition("/")[0]) or CURVES.get(key)
    return known or Metric(key.replace("_", " "), RATIO, NEITHER)


def is_better(key: str, apart: float) -> bool:
    """Tell whether a figure that is `apart` from another one is better than it."""
    return apart * metric_of(key).better > 0.0
