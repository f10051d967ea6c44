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
from itertools import pairwise, product

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ppo_workbench.config.arrays import Floats, Ints
from ppo_workbench.scoring.backtest import THRESHOLD, Policy
from ppo_workbench.scoring.reference.tuning import ThresholdScorer
from ppo_workbench.trading.experiment import Experiment
from ppo_workbench.trading.rules.names import SESSION_FLATTEN

HORIZONS = (4, 16, 64)  # bars
BLOCKS = 5  # of the training split; the first one is learned from only
ENTRIES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)  # in deviations of the forecast
EXIT_FRACTIONS = (0.0, 0.5)  # of the entry; 0 holds until the forecast changes its sign
# Ridge penalties a row: a feature of unit variance is shrunk by 1 / (1 + penalty).
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MOST_ROWS = 200_000  # more are thinned evenly: neighbouring targets overlap anyway

# Features (n, F) and moves (n,) to learn from, horizon, features (m, F) asked -> forecast (m,).
Regression = Callable[[Floats, Floats, int, Floats], Floats]


def supervised_policies(experiment: Experiment) -> list[Policy]:
    """Return the policies `ridge` and `boosting`, fitted and tuned on the training split.

    They take full exposure levels only, as the threshold rule does, and one that earned nothing
    on train in any setting never trades.  One thread fits, so no number depends on cores.
    """
    import sklearn.ensemble  # noqa: F401  # brings its own OpenMP, which must be there to be limited

    scorer = ThresholdScorer(experiment)
    with threadpool_limits(1):
        return [_tuned(experiment, scorer, *named) for named in REGRESSIONS.items()]


def targets(experiment: Experiment, horizon: int) -> tuple[Ints, Ints, Floats]:
    """Return what decisions of the training split earn a bar, for those that can earn anything.

    An order decided at the close of bar t fills at the open (or close) of t + 1.  It is left
    `horizon` bars later, or where the session has to be flat or the split ends, if that is
    before: nights that cannot be held are no target, and no price behind the split is read.

    Returns:
        Ints t, int64 (n,); the bars at whose closes they are left, int64 (n,); mean log return
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


def forecast(
    experiment: Experiment, horizon: int, regression: Regression, *, in_train: bool
) -> Floats:
    """Forecast the training split, each block from the bars before it, or all other bars.

    Returns:
        float64 (T,), mean return a bar of the next `horizon` bars in volatilities of a bar.  0
        where it is not asked for, features warm up, or too few bars are known to choose by.
    """
    train, features = experiment.splits["train"], experiment.market.features
    series, all_bars = np.zeros(len(features)), np.arange(len(features))
    rows, leave, moves = targets(experiment, horizon)
    borders = np.linspace(train.start, train.stop, BLOCKS + 1).astype(np.int64)[1:]
    # What is left is filled a bar later: before the block begins.
    parts = [(all_bars[start:stop], leave + 1 < start) for start, stop in pairwise(borders)]
    if not in_train:
        outside = (all_bars < train.start) | (all_bars >= train.stop)
        outside[: experiment.table.warmup_bars] = False
        parts = [(all_bars[outside], leave < train.stop)]
    for bars, known in parts:
        seen = np.flatnonzero(known)
        if len(bars) and len(seen) > 5 * horizon + 50:
            seen = seen[:: -(-len(seen) // MOST_ROWS)]
            learned, asked = (features[at].astype(np.float64) for at in (rows[seen], bars))
            series[bars] = regression(learned, moves[seen], horizon, asked)
    return series


def _tuned(
    experiment: Experiment, scorer: ThresholdScorer, name: str, regression: Regression
) -> Policy:
    """Return the setting with the best Sharpe ratio on train, one that never trades before all."""
    best = Policy(name, THRESHOLD, series=np.zeros(len(experiment.bars)), entry=np.inf)
    reached, chosen = 0.0, 0
    for horizon in HORIZONS:
        series = forecast(experiment, horizon, regression, in_train=True)
        deviation = float(series[series != 0.0].std()) if series.any() else 0.0
        for size, fraction in product(ENTRIES, EXIT_FRACTIONS):
            entry = size * deviation
            # The rule trades against its signal.
            policy = Policy(name, THRESHOLD, series=-series, entry=entry, exit=fraction * entry)
            sharpe = scorer.sharpe(policy)
            if sharpe > reached:
                best, reached, chosen = policy, sharpe, horizon
    if not chosen:
        return best
    assert best.series is not None
    later = forecast(experiment, chosen, regression, in_train=False)
    return replace(best, series=best.series - later)


def ridge(features: Floats, moves: Floats, horizon: int, asked: Floats) -> Floats:
    """Forecast by ridge regression (Hoerl and Kennard 1970), its penalty chosen in time order.

    Leaving single rows out would choose too small a penalty, since targets overlap.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import TimeSeriesSplit

    folds = TimeSeriesSplit(3, gap=horizon)
    model = RidgeCV(len(moves) * np.array(PENALTIES), cv=folds).fit(features, moves)
    return np.asarray(model.predict(asked), np.float64)


def boosting(features: Floats, moves: Floats, horizon: int, asked: Floats) -> Floats:
    """Forecast by gradient boosting (Friedman 2001): few small trees, many rows in each leaf.

    Settings are fixed: returns are nearly noise, and choosing among settings would fit it.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        learning_rate=0.05,
        max_iter=60,
        max_leaf_nodes=4,
        min_samples_leaf=max(20, len(moves) // 50),
        max_bins=64,
        early_stopping=False,
        random_state=0,
    )
    return np.asarray(model.fit(features, moves).predict(asked), np.float64)


REGRESSIONS: dict[str, Regression] = {"ridge": ridge, "boosting": boosting}
