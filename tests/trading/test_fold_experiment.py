"""A fold's experiment: trained on all its ranges, and on nothing of its tests."""

import copy
from functools import cache

import numpy as np
import pytest

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config, Protocol, settled
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.folds import evaluation_folds
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.splits import Fold, Split
from ppo_workbench.trading.experiment import (
    Experiment,
    prepare,
    prepare_fold,
    prepare_fold_with_test,
    split_bars,
    usable_bars,
)
from ppo_workbench.trading.observation import Scaler


@cache
def _config(source: str, protocol: Protocol = Protocol.holdout) -> Config:
    small = {
        "synthetic": [
            *("data.synthetic.sessions=40", "env.episode_bars=390", "splits.gap_bars=390"),
            *("features.volatility_fast_bars=10", "features.volatility_slow_bars=100"),
        ],
        "sp500": ["data=sp500", "env.episode_bars=60"],
    }[source]
    config = copy.deepcopy(compose(["tracking=none", "model.n_envs=64", *small]))
    config.splits.protocol, config.splits.folds = protocol, 5
    return config


@cache
def _folds(source: str, protocol: Protocol) -> tuple[Bars, list[Fold]]:
    config = _config(source, protocol)
    bars, warmup = usable_bars(config)
    return bars, evaluation_folds(bars, derived(config, bars).splits, warmup)


def _made(source: str, protocol: Protocol, number: int) -> tuple[Bars, Fold, Experiment]:
    bars, folds = _folds(source, protocol)
    return bars, folds[number], prepare_fold(_config(source, protocol), bars, folds[number])


def _rows(ranges: tuple[Split, ...]) -> set[int]:
    return {row for split in ranges for row in range(split.start, split.stop)}


def test_fold_of_the_holdout_prepares_what_the_splits_prepare() -> None:
    bars, fold, folded = _made("synthetic", Protocol.holdout, 0)

    plain = prepare(_config("synthetic"), bars, split_bars(_config("synthetic"))[1])

    assert folded.splits == plain.splits
    assert folded.train_ranges == plain.train_ranges == fold.train
    assert folded.test_range == plain.test_range
    assert folded.market.bars.tobytes() == plain.market.bars.tobytes()
    assert folded.market.features.tobytes() == plain.market.features.tobytes()
    np.testing.assert_array_equal(folded.batch().starts, plain.batch().starts)


@pytest.mark.parametrize("source", ["synthetic", "sp500"])
@pytest.mark.parametrize(
    "protocol", [Protocol.walk_forward_anchored, Protocol.walk_forward_rolling]
)
def test_fold_of_a_walk_forward_holds_no_bar_from_its_test_on(
    source: str, protocol: Protocol
) -> None:
    bars, fold, experiment = _made(source, protocol, 1)

    assert len(experiment.bars) == fold.validation.stop < fold.test[0].start
    assert experiment.bars.close.base is None
    assert set(experiment.splits) == {"train", "validation"}
    assert experiment.test_range == (
        bars.start_ns[fold.test[0].start],
        bars.start_ns[fold.test[0].stop - 1],
    )


@pytest.mark.parametrize("source", ["synthetic", "sp500"])
@pytest.mark.parametrize("protocol", [Protocol.purged_kfold, Protocol.cpcv])
def test_fold_with_tests_inside_trains_on_none_of_their_bars(
    source: str, protocol: Protocol
) -> None:
    _, fold, experiment = _made(source, protocol, 2)
    train, tested = _rows(fold.train), _rows(fold.test)
    episode_bars = settled(experiment.config.env.episode_bars)
    batch = experiment.batch()

    assert len(fold.train) > 1
    assert fold.test[0].stop < len(experiment.bars) == fold.training_stop
    # Every bar that an episode reads, its last mark included, lies in one training range.
    for split in fold.train:
        inside = (batch.starts >= split.start) & (batch.starts < split.stop)
        assert (batch.starts[inside] + episode_bars < split.stop).all()
    read = np.unique(batch.starts[:, None] + np.arange(episode_bars + 1))
    assert set(read.tolist()) <= train
    assert not train & tested
    rows = np.array(sorted(train))
    scaler = Scaler.fit(experiment.table.features[rows], experiment.config.features.clip)
    np.testing.assert_array_equal(experiment.market.scaler.means, scaler.means)
    np.testing.assert_array_equal(experiment.train_features, experiment.table.features[rows])
    assert experiment.train_bars == len(train)
    assert experiment.splits["train"] == max(fold.train, key=len)


def test_fold_that_is_trained_decides_in_every_range_and_in_no_test() -> None:
    """Random actions for many episodes: where the environments stand is where they may."""
    _, fold, experiment = _made("sp500", Protocol.cpcv, 1)
    batch, seen = experiment.batch(), set()
    random = np.random.default_rng(3)

    for _ in range(400):
        allowed = batch.masks * random.random(batch.masks.shape)
        batch.step(allowed.argmax(axis=1))
        seen |= set(batch.accounts["t"].tolist())

    assert seen <= _rows(fold.train)
    for split in fold.train:
        assert seen & _rows((split,))


@pytest.mark.parametrize(
    "protocol", [Protocol.walk_forward_rolling, Protocol.purged_kfold, Protocol.cpcv]
)
def test_fold_with_its_test_equals_the_one_without_it_before_the_test(protocol: Protocol) -> None:
    bars, fold, closed = _made("synthetic", protocol, 3)

    opened = prepare_fold_with_test(closed.config, bars, fold)

    stop = fold.training_stop
    assert len(opened.bars) == fold.stop
    assert {name: opened.splits[name] for name in closed.splits} == closed.splits
    assert [opened.splits[split.name] for split in fold.test] == list(fold.test)
    assert opened.market.features[:stop].tobytes() == closed.market.features.tobytes()
    assert opened.market.bars[:stop].tobytes() == closed.market.bars.tobytes()
    assert opened.market.scaler.means.tobytes() == closed.market.scaler.means.tobytes()
    assert opened.market.scaler.stds.tobytes() == closed.market.scaler.stds.tobytes()
    assert opened.test_range == closed.test_range
