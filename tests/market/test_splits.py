"""Splits: borders by hand, gaps, legal starts and the physical cut."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_workbench.config import BarsError, SplitsConfig
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.splits import MIN_SPLIT_BARS, Split, cut, legal_starts, time_splits


def make_bars(sessions: int, bars: int) -> Bars:
    """Make bars in equal sessions; only the layout matters here."""
    rows = sessions * bars
    session, slot = np.divmod(np.arange(rows, dtype=np.int64), bars)
    ones = np.ones(rows)
    values: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close", "volume"), ones)
    return Bars(
        instrument="TEST",
        source="file",
        calendar="24/7",
        timezone="UTC",
        bar_seconds=86_400 // bars,
        bars_per_session=bars,
        sessions_per_year=365,
        start_ns=np.arange(rows, dtype=np.int64) * 86_400_000_000_000 // bars,
        **values,
        half_spread_bps=ones * np.nan,
        session=session,
        bar_of_session=slot,
        bars_left=bars - 1 - slot,
        regular=ones > 0,
        extra=np.empty((rows, 0)),
        extra_names=(),
        events=-ones.astype(np.int64),
        events_ahead=-ones.astype(np.int64),
        notes=(),
    )


def shares(train: float, validation: float, test: float, gap: int) -> SplitsConfig:
    return SplitsConfig(train_frac=train, validation_frac=validation, test_frac=test, gap_bars=gap)


def test_splits_daily_borders_are_the_shares_after_the_warmup() -> None:
    splits = time_splits(make_bars(1010, 1), shares(0.5, 0.25, 0.25, 7), warmup_bars=10)

    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"] == Split("train", 10, 510 - 7)
    assert splits["validation"] == Split("validation", 510, 760 - 7)
    assert splits["test"] == Split("test", 760, 1010)


def test_splits_intraday_borders_are_session_starts() -> None:
    bars = make_bars(20, 24)

    splits = time_splits(bars, shares(0.4, 0.2, 0.4, 24), warmup_bars=30)

    # Warm-up ends in session 1, so train starts at session 2; shares are of 450 bars.
    assert splits["train"] == Split("train", 48, 168 - 0)
    assert splits["validation"] == Split("validation", 192, 264)
    assert splits["test"] == Split("test", 288, 480)


def test_splits_shares_below_one_leave_the_end_unused() -> None:
    splits = time_splits(make_bars(100, 1), shares(0.3, 0.3, 0.3, 0), warmup_bars=0)

    assert [(s.start, s.stop) for s in splits.values()] == [(0, 30), (30, 60), (60, 90)]


@pytest.mark.parametrize(("sessions", "bars", "warmup"), [(50, 1, 0), (3, 24, 30), (9, 24, 500)])
def test_splits_too_few_bars_are_refused(sessions: int, bars: int, warmup: int) -> None:
    with pytest.raises(BarsError, match=rf"split would hold .* at least {MIN_SPLIT_BARS}"):
        time_splits(make_bars(sessions, bars), shares(0.4, 0.2, 0.4, 10), warmup)


@settings(max_examples=200, deadline=None)
@given(
    sessions=st.integers(1, 60),
    bars=st.sampled_from([1, 7, 24]),
    warmup=st.integers(0, 100),
    gap=st.integers(0, 60),
    train=st.floats(0.1, 0.6),
    validation=st.floats(0.05, 0.3),
)
def test_splits_never_overlap_and_keep_the_gap(
    sessions: int, bars: int, warmup: int, gap: int, train: float, validation: float
) -> None:
    made = make_bars(sessions, bars)
    config = shares(train, validation, 0.1, gap)
    try:
        first, second, third = time_splits(made, config, warmup).values()
    except BarsError:
        return

    assert first.start >= warmup
    assert first.stop + gap <= second.start
    assert second.stop + gap <= third.start
    assert third.stop <= len(made)
    for split in (first, second, third):
        assert split.start in made.session_starts
        assert split.stop == len(made) or split.stop in made.session_starts or bars == 1


def test_starts_daily_may_be_any_bar_that_leaves_room() -> None:
    starts = legal_starts(make_bars(100, 1), (Split("train", 10, 50),), episode_bars=30)

    # The last decision of an episode from 19 is at 48, marked at 49, inside the split.
    np.testing.assert_array_equal(starts, np.arange(10, 20))


def test_starts_intraday_are_session_starts_that_leave_room() -> None:
    bars = make_bars(10, 24)

    one_short_of_two_days = legal_starts(bars, (Split("train", 24, 96),), episode_bars=47)
    two_days = legal_starts(bars, (Split("train", 24, 96),), episode_bars=48)

    np.testing.assert_array_equal(one_short_of_two_days, [24, 48])
    np.testing.assert_array_equal(two_days, [24])


def test_starts_episode_longer_than_the_split_names_the_longest() -> None:
    bars = make_bars(10, 24)

    with pytest.raises(BarsError, match=r"env\.episode_bars=72 .* to at most 71"):
        legal_starts(bars, (Split("train", 24, 96),), episode_bars=72)
    assert len(legal_starts(bars, (Split("train", 24, 96),), episode_bars=71)) == 1


def test_cut_keeps_nothing_from_the_split_end_on() -> None:
    bars = make_bars(100, 1)
    splits = time_splits(bars, shares(0.4, 0.3, 0.3, 5), warmup_bars=0)

    trial = cut(bars, splits["validation"])

    assert len(trial) == splits["validation"].stop < splits["test"].start
    assert trial.close.base is None
