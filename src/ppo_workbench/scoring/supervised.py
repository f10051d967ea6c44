"""Supervised reference policies: what a forecast earns under the same masks and costs.

A regression forecasts the mean return of the next bars from the market features that the agent
observes; of the account it sees nothing.  The forecast is traded like the threshold rule, and
whatever an agent earns beyond that is what reinforcement learning adds to a forecast.

Everything is fitted, chosen and tuned on the training split alone: horizon, entry and exit by
the Sharpe ratio of forecasts that are out of sample there too.  Its blocks are forecast in time
order, each by a model of the bars before it, for in-sample forecasts of a flexible model say
nothing of how far it may be trusted (Hastie, Tibshirani and Friedman 2009, chapter 7.10).
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ppo_workbench.scoring.backtest import THRESHOLD, Policy
from ppo_workbench.scoring.tuning import ThresholdScorer
from ppo_workbench.trading.experiment import Experiment
from ppo_workbench.trading.rules import SESSION_FLATTEN

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

HORIZONS = (4, 16, 64)  # bars
BLOCKS = 5  # of the training split; the first one is learned from only
ENTRIES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)  # in deviations of the forecast
EXIT_FRACTIONS = (0.0, 0.5)  # of the entry; 0 holds until the forecast changes its sign
# Ridge penalties a row: a feature of unit variance is shrunk by 1 / (1 + penalty).
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
PENALTY_FOLDS = 3
MOST_ROWS = 200_000  # more are thinned evenly: neighbouring targets overlap anyway


class Model(Protocol):
    """A fitted regression."""

    def predict(self, features: Floats) -> Floats:
        """Forecast rows of features, float64 (n, F) -> (n,)."""


Fit = Callable[[Floats, Floats, int], Model]


def supervised_policies(experiment: Experiment) -> list[Policy]:
    """Return the policies `ridge` and `boosting`, fitted and tuned on the training split.

    Full exposure levels only, as the threshold rule.  One that earned nothing on train in any
    setting never trades.  Nothing is drawn at random, and one thread fits: a market has one pair.
    """
    scorer = ThresholdScorer(experiment, "train")
    with threadpool_limits(1):
        return [_tuned(experiment, scorer, name, fit) for name, fit in FITS.items()]


def targets(experiment: Experiment, horizon: int) -> tuple[Rows, Rows, Floats]:
    """Return what decisions of the training split earn a bar, for those that can earn anything.

    An order decided at the close of bar t fills at the open (or close) of t + 1.  It is left
    `horizon` bars later, or where the session has to be flat or the split ends, if that is
    before: nights that cannot be held are no target, and no price behind the split is read.

    Returns:
        Rows t, int64 (n,); the bars at whose closes they are left, int64 (n,); mean log return
        a bar from fill to fill in volatilities of a bar at t, float64 (n,).  Costs, which
        depend on what is held, are left to the tuning.
    """
    bars, p, train = experiment.market.bars, experiment.market.params[0], experiment.splits["train"]
    rows = np.arange(train.start, train.stop - 1)
    flat = bars["rule_bits"][rows] & p["enabled"] & SESSION_FLATTEN != 0
    flat[-1] = True  # the last decision is filled in the last bar
    ends = rows[flat]
    leave = np.minimum(rows + horizon, ends[np.searchsorted(ends, rows)])
    earns = (leave > rows) & (bars["sigma"][rows] > 0.0)
    rows, leave = rows[earns], leave[earns]
    price = np.log(bars["close" if p["fill_next_close"] else "open"][: train.stop])
    moves = (price[leave + 1] - price[rows + 1]) / (leave - rows)
    return rows, leave, moves / bars["sigma"][rows]


def train_forecast(experiment: Experiment, horizon: int, fit: Fit) -> Floats:
    """Forecast each block of the training split by a model of the bars before it.

    Returns:
        float64 (T,), mean return a bar of the next `horizon` bars in volatilities of a bar; 0
        where too few bars came before, and outside the training split.
    """
    train, series = experiment.splits["train"], np.zeros(len(experiment.bars))
    rows, leave, moves = targets(experiment, horizon)
    borders = np.linspace(train.start, train.stop, BLOCKS + 1).astype(np.int64)
    for start, stop in pairwise(borders[1:]):
        past = leave + 1 < start  # filled before the block begins
        block = np.arange(start, stop)
        series[block] = _predicted(experiment, rows[past], moves[past], block, horizon, fit)
    return series


def later_forecast(experiment: Experiment, horizon: int, fit: Fit) -> Floats:
    """Forecast the bars outside the training split by one model of all of it.

    Returns:
        float64 (T,), as `train_forecast`; 0 in the training split and while features warm up.
    """
    train, series = experiment.splits["train"], np.zeros(len(experiment.bars))
    rows, _, moves = targets(experiment, horizon)
    bars = np.arange(experiment.table.warmup_bars, len(series))
    bars = bars[(bars < train.start) | (bars >= train.stop)]
    series[bars] = _predicted(experiment, rows, moves, bars, horizon, fit)
    return series


def _predicted(
    experiment: Experiment, rows: Rows, moves: Floats, bars: Rows, horizon: int, fit: Fit
) -> Floats:
    """Fit on rows and forecast bars; 0 where the rows are too few to choose a penalty by."""
    if len(rows) <= 5 * horizon + 50 or len(bars) == 0:
        return np.zeros(len(bars))
    features, thin = experiment.market.features, slice(None, None, -(-len(rows) // MOST_ROWS))
    model = fit(features[rows[thin]].astype(np.float64), moves[thin], horizon)
    return model.predict(features[bars].astype(np.float64))


def _tuned(experiment: Experiment, scorer: ThresholdScorer, name: str, fit: Fit) -> Policy:
    """Return the best setting on train; one that never trades is the first of equals, and wins."""
    best = Policy(name, THRESHOLD, series=np.zeros(len(experiment.bars)), entry=np.inf)
    reached, chosen = 0.0, 0
    for horizon in HORIZONS:
        series = train_forecast(experiment, horizon, fit)
        for policy in _candidates(name, series):
            sharpe = scorer.sharpe(policy)
            if sharpe > reached:
                best, reached, chosen = policy, sharpe, horizon
    if not chosen:
        return best
    assert best.series is not None
    return replace(best, series=best.series - later_forecast(experiment, chosen, fit))


def _candidates(name: str, series: Floats) -> list[Policy]:
    """Return the settings for a forecast; the rule trades against its signal, so it is negated."""
    deviation = float(series[series != 0.0].std()) if series.any() else 0.0
    return [
        Policy(name, THRESHOLD, series=-series, entry=entry, exit=fraction * entry)
        for entry in (deviation * size for size in ENTRIES)
        for fraction in EXIT_FRACTIONS
        if deviation > 0.0
    ]


def fit_ridge(features: Floats, moves: Floats, horizon: int) -> Model:
    """Fit ridge regression (Hoerl and Kennard 1970), its penalty chosen in time order.

    Leaving single rows out would choose too small a penalty, since targets overlap.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import TimeSeriesSplit

    folds = TimeSeriesSplit(PENALTY_FOLDS, gap=horizon)
    model: Model = RidgeCV(len(moves) * np.array(PENALTIES), cv=folds).fit(features, moves)
    return model


def fit_boosting(features: Floats, moves: Floats, horizon: int) -> Model:
    """Fit gradient boosting (Friedman 2001): few small trees, each leaf of many rows.

    Settings are fixed: returns are nearly noise, and choosing among settings would fit it.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    model: Model = HistGradientBoostingRegressor(
        learning_rate=0.05,
        max_iter=60,
        max_leaf_nodes=4,
        min_samples_leaf=max(20, len(moves) // 50),
        max_bins=64,
        early_stopping=False,
        random_state=0,
    ).fit(features, moves)
    return model


FITS: dict[str, Fit] = {"ridge": fit_ridge, "boosting": fit_boosting}
