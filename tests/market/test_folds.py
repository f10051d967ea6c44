"""Folds: ranges by hand, an oracle, and what holds for every length, gap and protocol."""

from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.model_selection import WalkForward

from ppo_workbench.config import BarsError, DataConfig, Protocol, SplitsConfig, settled
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.folds import evaluation_folds, gap_sessions
from ppo_workbench.market.sources import load_bars
from ppo_workbench.market.splits import (
    MIN_SPLIT_BARS,
    Fold,
    Split,
    legal_starts,
    time_splits,
)

FOLDED = [protocol for protocol in Protocol if protocol is not Protocol.holdout]
WALKS = [Protocol.walk_forward_anchored, Protocol.walk_forward_rolling]


def make_bars(lengths: list[int], nominal: int) -> Bars:
    """Make bars in sessions of these lengths; only the layout matters here."""
    rows = sum(lengths)
    session = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    slot = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])
    ones = np.ones(rows)
    values: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close", "volume"), ones)
    return Bars(
        instrument="TEST",
        source="file",
        calendar="24/7",
        timezone="UTC",
        bar_seconds=86_400 // nominal,
        bars_per_session=nominal,
        sessions_per_year=365,
        start_ns=session * 86_400_000_000_000 + slot * (86_400_000_000_000 // nominal),
        **values,
        half_spread_bps=ones * np.nan,
        session=session,
        bar_of_session=slot,
        bars_left=nominal - 1 - slot,
        regular=ones > 0,
        extra=np.empty((rows, 0)),
        extra_names=(),
        events=-ones.astype(np.int64),
        events_ahead=-ones.astype(np.int64),
        notes=(),
    )


def daily(count: int) -> Bars:
    return make_bars([1] * count, 1)


def spans(ranges: tuple[Split, ...]) -> list[tuple[int, int]]:
    return [(split.start, split.stop) for split in ranges]


def drawn(fold: Fold) -> tuple[list[tuple[int, int]], tuple[int, int], list[tuple[int, int]]]:
    """Return a fold as plain numbers: train, validation, test."""
    return spans(fold.train), spans((fold.validation,))[0], spans(fold.test)


def test_folds_of_the_holdout_are_its_splits() -> None:
    bars, config = make_bars([24] * 40, 24), SplitsConfig(gap_bars=10)

    folds = evaluation_folds(bars, config, 30)

    splits = time_splits(bars, config, 30)
    assert folds == [
        Fold("holdout", (splits["train"],), splits["validation"], (splits["test"],)),
    ]


def test_folds_anchored_keep_the_beginning_and_test_bar_after_bar() -> None:
    config = SplitsConfig(Protocol.walk_forward_anchored, 0.5, 0.2, 0.3, gap_bars=5, folds=3)

    folds = evaluation_folds(daily(1010), config, 10)

    assert [fold.name for fold in folds] == ["fold_1", "fold_2", "fold_3"]
    assert drawn(folds[0]) == ([(10, 505)], (510, 705), [(710, 810)])
    assert drawn(folds[1]) == ([(10, 605)], (610, 805), [(810, 910)])
    assert drawn(folds[2]) == ([(10, 705)], (710, 905), [(910, 1010)])


@pytest.mark.parametrize(("window", "first"), [(None, 10), (300, 205)])
def test_folds_rolling_keep_the_length_of_the_window(window: int | None, first: int) -> None:
    config = SplitsConfig(
        Protocol.walk_forward_rolling, 0.5, 0.2, 0.3, gap_bars=5, folds=3, train_sessions=window
    )

    folds = evaluation_folds(daily(1010), config, 10)

    assert [spans(fold.train) for fold in folds] == [
        [(first, 505)],
        [(first + 100, 605)],
        [(first + 200, 705)],
    ]
    assert [fold.validation.start for fold in folds] == [510, 610, 710]


@pytest.mark.parametrize("protocol", WALKS)
def test_folds_of_one_walk_forward_are_the_holdout(protocol: Protocol) -> None:
    """Train and validation are those of the holdout, and so is all that the tests cover."""
    bars = load_bars(DataConfig(source="sp500"))
    config = SplitsConfig(protocol, gap_bars=20, folds=1)

    fold = evaluation_folds(bars, config, 500)[0]

    splits = time_splits(bars, config, 500)
    assert (*fold.train, fold.validation, *fold.test) == tuple(splits.values())


@pytest.mark.parametrize("anchored", [True, False])
def test_folds_walk_forward_tests_agree_with_skfolio(anchored: bool) -> None:
    protocol = Protocol.walk_forward_anchored if anchored else Protocol.walk_forward_rolling
    config = SplitsConfig(protocol, 0.4, 0.2, 0.4, gap_bars=7, folds=4)

    folds = evaluation_folds(daily(1000), config, 0)

    oracle = WalkForward(test_size=100, train_size=593, purged_size=7, expand_train=anchored)
    for fold, (train, test) in zip(folds, oracle.split(np.zeros((1000, 1))), strict=True):
        assert spans(fold.test) == [(test[0], test[-1] + 1)]
        assert fold.validation.stop == train[-1] + 1
        assert fold.train[0].start == train[0]


def test_folds_kfold_train_on_both_sides_and_embargo_the_later_one() -> None:
    config = SplitsConfig(Protocol.purged_kfold, validation_frac=0.2, gap_bars=10, folds=5)

    folds = evaluation_folds(daily(1000), config, 0)

    assert drawn(folds[0]) == ([(210, 790)], (800, 1000), [(0, 200)])
    assert drawn(folds[1]) == ([(0, 190), (410, 790)], (800, 1000), [(200, 400)])
    assert drawn(folds[4]) == ([(0, 580)], (590, 790), [(800, 1000)])


def test_folds_kfold_validation_is_never_more_than_half_of_its_range() -> None:
    config = SplitsConfig(Protocol.purged_kfold, validation_frac=0.5, gap_bars=0, folds=2)

    folds = evaluation_folds(daily(400), config, 0)

    assert drawn(folds[0]) == ([(200, 300)], (300, 400), [(0, 200)])


def test_folds_cpcv_six_groups_of_two_are_fifteen_with_every_pair_once() -> None:
    config = SplitsConfig(Protocol.cpcv, validation_frac=0.1, gap_bars=10, folds=6, test_folds=2)

    folds = evaluation_folds(daily(603), config, 0)

    # The last group takes the three sessions that are left.
    groups = [(100 * k, 100 * k + 100) for k in range(5)] + [(500, 603)]
    assert [spans(fold.test) for fold in folds] == [list(pair) for pair in combinations(groups, 2)]
    assert folds[1].name == "groups_1_3"
    assert [split.name for split in folds[1].test] == ["test_1", "test_3"]
    assert drawn(folds[1])[:2] == ([(110, 190), (310, 533)], (543, 603))


def test_folds_intraday_borders_are_session_starts_and_gaps_hold_their_bars() -> None:
    """Half days hold fewer bars than a nominal session: the gap takes one session more."""
    bars = make_bars([24, 24, 10, 24, 24] * 24, 24)
    config = SplitsConfig(Protocol.purged_kfold, validation_frac=0.2, gap_bars=24, folds=4)

    folds = evaluation_folds(bars, config, 30)

    starts = {*bars.session_starts.tolist(), len(bars)}
    for fold in folds:
        for split in (*fold.train, fold.validation, *fold.test):
            assert {split.start, split.stop} <= starts
    assert folds[0].test[0].start == 48
    assert folds[0].train[0].start - folds[0].test[0].stop == 24 + 10


@pytest.mark.parametrize(
    ("lengths", "gap", "sessions"),
    [([24] * 9, 0, 0), ([24] * 9, 24, 1), ([24] * 9, 25, 2), ([24, 3, 24] * 3, 24, 2)],
)
def test_gap_sessions_hold_the_bars_wherever_they_lie(
    lengths: list[int], gap: int, sessions: int
) -> None:
    assert gap_sessions(np.cumsum([0, *lengths]), gap) == sessions


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Bars, SplitsConfig, int]:
    """Draw daily or intraday bars with short sessions among them, and a protocol on them."""
    nominal = draw(st.sampled_from([1, 7]))
    count = draw(st.integers(100, 1200) if nominal == 1 else st.integers(60, 250))
    short = draw(st.sets(st.integers(0, count - 1), max_size=5)) if nominal > 1 else set()
    bars = make_bars([3 if k in short else nominal for k in range(count)], nominal)
    folds = draw(st.integers(3, 7))
    train = draw(st.floats(0.15, 0.4))
    validation = draw(st.floats(0.1, 0.25))
    config = SplitsConfig(
        protocol=draw(st.sampled_from(FOLDED)),
        train_frac=train,
        validation_frac=validation,
        test_frac=draw(st.floats(0.25, 1.0 - train - validation)),
        gap_bars=draw(st.integers(0, 30)),
        folds=folds,
        test_folds=draw(st.integers(2, folds - 1)),
    )
    return bars, config, draw(st.integers(0, 60))


def _far_apart(one: Split, other: Split, gap: int) -> bool:
    return one.stop + gap <= other.start or other.stop + gap <= one.start


@settings(max_examples=300, deadline=None)
@given(layout=layouts())
def test_folds_keep_the_gap_between_all_their_parts(
    layout: tuple[Bars, SplitsConfig, int],
) -> None:
    bars, config, warmup = layout
    try:
        folds = evaluation_folds(bars, config, warmup)
    except BarsError:
        return

    starts = {*bars.session_starts.tolist(), len(bars)}
    for fold in folds:
        parts = (*fold.train, fold.validation, *fold.test)
        assert {border for split in parts for border in (split.start, split.stop)} <= starts
        assert min(split.start for split in parts) >= warmup
        assert sum(map(len, fold.train)) >= MIN_SPLIT_BARS
        assert min(map(len, (fold.validation, *fold.test))) >= MIN_SPLIT_BARS
        for test in fold.test:
            for seen in (*fold.train, fold.validation):
                assert _far_apart(seen, test, settled(config.gap_bars))
        for train in fold.train:
            assert _far_apart(train, fold.validation, settled(config.gap_bars))
        for ranges in (fold.train, fold.test):
            assert all(one.stop <= other.start for one, other in pairwise(ranges))


@settings(max_examples=200, deadline=None)
@given(layout=layouts())
def test_folds_test_every_bar_as_often_as_their_protocol_says(
    layout: tuple[Bars, SplitsConfig, int],
) -> None:
    bars, config, warmup = layout
    try:
        folds = evaluation_folds(bars, config, warmup)
    except BarsError:
        return

    tested = np.zeros(len(bars), np.int64)
    for fold in folds:
        for test in fold.test:
            tested[test.start : test.stop] += 1
    walks = config.protocol in WALKS
    first = folds[0].test[0].start if walks else bars.session_starts.searchsorted(warmup)
    first = first if walks else int(bars.session_starts[first])
    last = folds[-1].test[-1].stop
    times = 1
    if config.protocol is Protocol.cpcv:
        # phi = C(N, k) k / N paths, each bar once on every path.
        times = len(folds) * config.test_folds // config.folds
    assert walks or last == len(bars)
    assert set(tested[first:last].tolist()) == {times}
    assert tested.sum() == times * (last - first)
    if walks:
        assert all(fold.training_stop <= fold.test[0].start for fold in folds)


@pytest.mark.parametrize("protocol", FOLDED)
def test_folds_of_daily_and_minute_bars_exist_for_every_protocol(protocol: Protocol) -> None:
    config = SplitsConfig(protocol, gap_bars=20, folds=5)
    minutes = make_bars([390] * 60, 390)

    counts = {
        len(evaluation_folds(bars, config, 500))
        for bars in (load_bars(DataConfig(source="sp500")), minutes)
    }

    assert counts == {10 if protocol is Protocol.cpcv else 5}


Refusal = tuple[Callable[[], Bars], SplitsConfig, str]
REFUSED: list[Refusal] = [
    (
        lambda: daily(100),
        SplitsConfig(Protocol.walk_forward_anchored, gap_bars=2, folds=6),
        r"fold_1 of splits\.protocol=walk_forward_anchored would hold 18 validation bars of 100 "
        r"\(splits\.folds=6, splits\.gap_bars=2 or 2 sessions\), but at least 20 are needed",
    ),
    (
        lambda: daily(1000),
        SplitsConfig(Protocol.walk_forward_rolling, gap_bars=10, train_sessions=391),
        r"fold_1 has 390 sessions before its validation, fewer than splits\.train_sessions=391",
    ),
    (
        lambda: daily(200),
        SplitsConfig(Protocol.purged_kfold, gap_bars=90, folds=5),
        "would hold 0 train bars",
    ),
    (
        lambda: daily(4),
        SplitsConfig(Protocol.purged_kfold, gap_bars=0, folds=6),
        "would hold 2 train bars of 4",
    ),
    (
        lambda: daily(600),
        SplitsConfig(Protocol.cpcv, gap_bars=99, folds=6),
        r"a gap of 99 sessions \(splits\.gap_bars=99\) leaves nothing of groups of 100 sessions",
    ),
    (
        lambda: daily(600),
        SplitsConfig(Protocol.cpcv, gap_bars=60, folds=3),
        "would hold [0-9]+ (train|validation) bars",
    ),
]


@pytest.mark.parametrize(("bars", "config", "sentence"), REFUSED)
def test_folds_that_hold_too_little_are_refused(
    bars: Callable[[], Bars], config: SplitsConfig, sentence: str
) -> None:
    with pytest.raises(BarsError, match=sentence):
        evaluation_folds(bars(), config, 0)


def test_starts_of_several_ranges_are_those_of_each_and_skip_the_short_ones() -> None:
    bars = make_bars([24] * 20, 24)
    ranges = (Split("train", 0, 96), Split("train", 120, 144), Split("train", 240, 480))

    starts = legal_starts(bars, ranges, 48)

    expected = [*legal_starts(bars, ranges[:1], 48), *legal_starts(bars, ranges[2:3], 48)]
    np.testing.assert_array_equal(starts, expected)


def test_starts_of_ranges_that_are_all_too_short_name_the_longest_episode() -> None:
    bars = make_bars([24] * 20, 24)

    with pytest.raises(BarsError, match=r"env\.episode_bars=48 fits .* at most 47"):
        legal_starts(bars, (Split("train", 0, 24), Split("train", 48, 96)), 48)
