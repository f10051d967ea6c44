"""The default market is frozen: figures of different times can be compared.

Whoever changes these numbers changes what every committed figure means.  Do not: give the
change a variant of its own (conf/data/), as mask_neutral and planted are.
"""

import hashlib
from functools import cache

import numpy as np
import pytest

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.synthetic import generate
from ppo_workbench.scoring.backtest import SERIES, Policy, backtest
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.reference.tuning import ThresholdScorer
from ppo_workbench.scoring.reference.yardsticks import threshold_candidates
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars

SEEDS = (500, 501)
DIGESTS = {
    500: "6505acd4fc5df00cc381bef4497869697817039a9ebafbb58d9083a94986d410",
    501: "f5f35f998897562be543e437033e5a49c25817eaf647eb93eb675650af686c57",
}
THRESHOLDS: dict[int, list[float]] = {
    500: [
        -5.08914,
        -2.53122,
        0.08823,
        -0.06489,
        -9.9936,
        -9.38013,
        -7.30743,
        -3.32189,
        4.16476,
        4.41887,
        0.0825,
        3.97501,
        -11.96676,
        -8.66534,
        -3.10267,
        -5.26068,
        7.33253,
        5.76492,
        4.65604,
        4.48613,
        -11.88163,
        -8.28958,
        -6.17,
        -5.03747,
    ],
    501: [
        -5.25044,
        -3.16216,
        -1.90433,
        -2.30314,
        -12.90962,
        -8.30561,
        -5.19204,
        -0.23035,
        -0.26439,
        -1.10814,
        -2.16836,
        -1.6086,
        -6.30244,
        -2.34549,
        1.13036,
        1.22344,
        0.01468,
        -0.36378,
        -1.07335,
        -0.58016,
        -4.43543,
        -1.91188,
        0.02561,
        -0.23005,
    ],
}
ORACLE = {500: 6.51234, 501: 8.39415}


@cache
def _experiment(seed: int) -> Experiment:
    config = compose([f"data.synthetic.seed={seed}", "data.synthetic.sessions=252"])
    return prepare(config, *split_bars(config))


def _digest(bars: Bars) -> str:
    """Digest stamps, prices to nine digits and whole shares: last bits are a processor's own."""
    digest = hashlib.sha256(bars.start_ns.astype("<i8").tobytes())
    for name in ("open", "high", "low", "close"):
        digest.update(np.round(np.log(getattr(bars, name)) * 1e9).astype("<i8").tobytes())
    digest.update(bars.volume.astype("<i8").tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("seed", SEEDS)
def test_bars_of_the_default_market_are_what_they_were(seed: int) -> None:
    assert _digest(generate(_config(seed).data.synthetic).bars) == DIGESTS[seed]


def _config(seed: int) -> Config:
    return _experiment(seed).config


@pytest.mark.parametrize("seed", SEEDS)
def test_threshold_rules_score_what_they_scored(seed: int) -> None:
    experiment = _experiment(seed)
    scorer = ThresholdScorer(experiment)
    found = [scorer.sharpe(policy) for policy in threshold_candidates(experiment)]
    assert found == pytest.approx(THRESHOLDS[seed], abs=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_oracle_scores_what_it_scored(seed: int) -> None:
    experiment = _experiment(seed)
    exposure = generate(experiment.config.data.synthetic).oracle_exposure[: len(experiment.bars)]
    trace = backtest(
        Policy("oracle", SERIES, series=exposure),
        experiment.bars,
        experiment.market,
        experiment.splits["validation"],
        experiment.config,
    )
    assert scorecard(trace).sharpe_annual == pytest.approx(ORACLE[seed], abs=1e-3)
