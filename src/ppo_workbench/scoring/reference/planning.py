"""Trade what a reference filter believes: dynamic programming with costs.

At every close the belief is summed up in two figures that no time of day changes: the
expected return of the next bar and its deviation, both in units of the usual volatility at
that time of day.  They lie in one of `BINS` cells each; how cells follow each other is
counted on the training bars.  Backwards through the session,

    V(slot, cell, x) = max over y of y drift - risk_aversion / 2 y^2 variance
                       - cost |y - x| + E[V(slot + 1, next cell, y)],

with exposures x, y in -1, 0, 1, the session's own rules and, where an action moves one
level, no turn in one bar.  With proportional costs the best is to keep a position within a
band (Davis and Norman 1990), which comes out as what each cell says to a long, a flat and a
short account.  The charge for variance is chosen by the Sharpe ratio on the training bars.
"""

from dataclasses import dataclass

import numpy as np

from ppo_workbench.config import ActionSet, settled
from ppo_workbench.config.arrays import Bools, Codes, Floats, Ints
from ppo_workbench.market.synthetic import BARS_PER_SESSION, model_of
from ppo_workbench.scoring.backtest import THRESHOLD, Policy
from ppo_workbench.scoring.reference.filtering import NODES, Beliefs, filter_bars, grid_of
from ppo_workbench.scoring.reference.tuning import ThresholdScorer
from ppo_workbench.trading.experiment import Experiment

Table = Codes

_NAME = "reference"
BINS = (61, 6)
RISK_AVERSIONS = (0.0, 15.0, 60.0, 240.0)  # mean over variance of returns at which risk pays
EXPOSURES = np.array([-1.0, 0.0, 1.0])
_REACH_SD = 4.0
_ENTRY, _EXIT = 1.5, 0.5


@dataclass(frozen=True)
class Problem:
    """A session to be traded, C cells of belief and S slots, the last of them closed at.

    Attributes:
        drift: (S, C), expected return of the bar after the decision.
        variance: (S, C), its variance.
        cost: (C,), cost a side, a fraction.
        follow: (C, C), probabilities of the next cell, from row to column.
        may_open: bool (S,), positions may be opened or turned.
        may_hold: bool (S,), positions may be kept.
        lowest: Least exposure, -1 or 0.
        largest_step: Levels that an exposure may move in one decision, 1 or 2.
    """

    drift: Floats
    variance: Floats
    cost: Floats
    follow: Floats
    may_open: Bools
    may_hold: Bools
    lowest: float
    largest_step: int


def solve(problem: Problem, risk_aversion: float, sessions: int = 2) -> Table:
    """Return the best next exposure by slot, exposure held and cell, int8 (S, 3, C).

    Args:
        problem: Returns, costs and rules of a session.
        risk_aversion: Charge for variance.
        sessions: How many sessions are looked ahead where positions are held over night.
    """
    slots, cells = problem.drift.shape
    table = np.zeros((slots, len(EXPOSURES), cells), dtype=np.int8)
    value = np.zeros((cells, len(EXPOSURES)))
    held, wanted = EXPOSURES[:, None], EXPOSURES[None, :]
    moves = np.abs(wanted - held)
    reached = (moves <= problem.largest_step) & (wanted >= problem.lowest)
    opens = (np.abs(wanted) > np.abs(held)) | (wanted * held < 0)
    for slot in np.tile(np.arange(slots)[::-1], sessions):
        risk = risk_aversion / 2 * problem.variance[slot, :, None] * EXPOSURES**2
        worth = problem.drift[slot, :, None] * EXPOSURES - risk + problem.follow @ value
        allowed = reached & (problem.may_open[slot] | ~opens)
        allowed &= problem.may_hold[slot] | (wanted == 0)
        net = worth[:, None, :] - problem.cost[:, None, None] * moves
        net = np.where(allowed, net, -np.inf)
        best = net.argmax(axis=2)
        value = np.take_along_axis(net, best[:, :, None], axis=2)[:, :, 0]
        value -= value[:, 1:2].mean()
        table[slot] = EXPOSURES[best].T.astype(np.int8)
    return table


def reference_filter(experiment: Experiment, nodes: int = NODES) -> Policy | None:
    """Return the reference filter as a policy; None where the bars are not synthetic.

    It trades exposures -1, 0 and 1 as the threshold rule does, under the same masks and costs.
    """
    config = experiment.config.data
    if config.source != "synthetic":
        return None
    parameters = config.synthetic
    beliefs = filter_bars(experiment.bars, parameters, grid_of(parameters, nodes))
    return policy_of(experiment, beliefs)


def policy_of(experiment: Experiment, beliefs: Beliefs) -> Policy:
    """Return what trades `beliefs` best, as tuned on the training bars."""
    slots = experiment.bars.bar_of_session
    cell, problem = summarised(experiment, beliefs)
    scorer = ThresholdScorer(experiment)
    candidates = [
        Policy(
            _NAME, THRESHOLD, series=signal(solve(problem, charge)[slots, :, cell]),
            entry=_ENTRY, exit=_EXIT,
        )
        for charge in RISK_AVERSIONS
    ]  # fmt: skip
    return max(candidates, key=scorer.sharpe)


def signal(wanted: Table) -> Floats:
    """Return what makes a threshold rule follow (T, 3) exposures wanted if short, flat, long."""
    keeps_short, opens, keeps_long = wanted[:, 0] < 0, wanted[:, 1], wanted[:, 2] > 0
    kept = keeps_short.astype(np.float64) - keeps_long
    kept[keeps_short & keeps_long] = np.nan
    return np.where(opens != 0, -2.0 * opens, kept)


def summarised(experiment: Experiment, beliefs: Beliefs) -> tuple[Ints, Problem]:
    """Return each close's cell, int64 (T,), and the problem as counted on training bars."""
    config, bars = experiment.config, experiment.bars
    model = model_of(config.data.synthetic)
    usual = model.scale[0] * np.roll(model.season, -1)  # of the bar after each slot
    unit = usual[bars.bar_of_session]
    seen = np.zeros(len(bars), dtype=np.bool_)
    for split in experiment.train_ranges:
        seen[split.start : split.stop] = True
    drift, size = beliefs.drift / unit, np.sqrt(beliefs.variance) / unit
    reach = _REACH_SD * drift[seen].std()
    inner = np.linspace(-reach, reach, BINS[0] - 1)
    parts = np.quantile(size[seen], np.arange(1, BINS[1]) / BINS[1])
    cell = np.searchsorted(inner, drift) * BINS[1] + np.searchsorted(parts, size)
    cells = BINS[0] * BINS[1]
    counts = np.bincount(cell[seen], minlength=cells).astype(np.float64)

    def mean(values: Floats) -> Floats:
        sums = np.bincount(cell[seen], values[seen], cells)
        return np.asarray(sums / np.maximum(counts, 1.0))

    both = seen[:-1] & seen[1:]
    pairs = np.bincount(cell[:-1][both] * cells + cell[1:][both], minlength=cells**2)
    follow = pairs.reshape(cells, cells) / np.maximum(pairs.reshape(cells, -1).sum(1), 1)[:, None]
    left = BARS_PER_SESSION - 1 - np.arange(BARS_PER_SESSION)
    flat, no_open = settled(config.env.flat_last_bars), settled(config.env.no_open_last_bars)
    rules = config.risk.session.enabled
    problem = Problem(
        drift=usual[:, None] * mean(drift),
        variance=usual[:, None] ** 2 * mean(size**2),
        cost=mean(_costs(experiment)),
        follow=follow,
        may_open=(left > no_open) | (no_open == 0) | (not rules),
        may_hold=(left > flat) | (flat == 0) | (not rules),
        lowest=-1.0 if experiment.market.space.levels.min() < 0 else 0.0,
        largest_step=1 if config.env.action_set is ActionSet.step else 2,
    )
    return cell, problem


def _costs(experiment: Experiment) -> Floats:
    """Return the cost a side of a fill decided at each close, a fraction, impact left out."""
    costs, bars = experiment.config.costs, experiment.market.bars
    wide = bars["volatility_ratio"] > costs.high_volatility_ratio
    spread = costs.half_spread_bps * np.where(wide, costs.high_volatility_multiplier, 1.0)
    return (spread + costs.fee_bps) * 1e-4 + costs.slippage_volatility_frac * bars["sigma"]
