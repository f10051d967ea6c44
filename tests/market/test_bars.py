"""Bars: invariants, copies, fingerprint and the check of a fill rule, on hand-made bars."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ppo_workbench.config import BarsError, Fill
from ppo_workbench.market.bars import (
    Bars,
    check_fill,
    opens_equal_prior_close_frac,
    validate_bars,
)

OPEN_NS = 1_380_893_400_000_000_000  # 2013-10-04 09:30 in New York
MINUTE_NS = 60_000_000_000


def make_bars(sessions: int = 2, bars: int = 5, **changes: Any) -> Bars:
    """Make rising minute bars in short sessions."""
    rows = sessions * bars
    session, slot = np.divmod(np.arange(rows, dtype=np.int64), bars)
    close = 100.0 + np.arange(rows)
    values: dict[str, Any] = {
        "instrument": "TEST",
        "source": "file",
        "calendar": "XNYS",
        "timezone": "America/New_York",
        "bar_seconds": 60,
        "bars_per_session": bars,
        "sessions_per_year": 252,
        "start_ns": OPEN_NS + session * 1440 * MINUTE_NS + slot * MINUTE_NS,
        "open": close - 0.5,
        "high": close + 1,
        "low": close - 1,
        "close": close,
        "volume": np.full(rows, 1000.0),
        "half_spread_bps": np.full(rows, np.nan),
        "session": session,
        "bar_of_session": slot,
        "bars_left": bars - 1 - slot,
        "regular": np.ones(rows, np.bool_),
        "extra": np.empty((rows, 0)),
        "extra_names": (),
        "events": np.full(rows, -1, np.int64),
        "events_ahead": np.full(rows, -1, np.int64),
        "notes": (),
    }
    return Bars(**(values | changes))


def test_bars_ends_left_out_follow_from_the_length() -> None:
    bars = make_bars()

    np.testing.assert_array_equal(bars.end_ns, bars.start_ns + MINUTE_NS)
    np.testing.assert_array_equal(bars.session_starts, [0, 5])


def test_slice_copies_and_shares_no_memory() -> None:
    bars = make_bars()

    part = bars.slice(2, 6)

    assert len(part) == 4
    np.testing.assert_array_equal(part.close, bars.close[2:6])
    np.testing.assert_array_equal(part.end_ns, bars.end_ns[2:6])
    assert part.close.base is None
    assert part.extra.shape == (4, 0)
    validate_bars(part)


@pytest.mark.parametrize("name", ["start_ns", "open", "high", "low", "close", "volume"])
def test_fingerprint_changes_with_any_price_array(name: str) -> None:
    bars = make_bars()
    changed = getattr(bars, name).copy()
    changed[3] += 1

    assert replace(bars, **{name: changed}).fingerprint != bars.fingerprint
    assert replace(bars, notes=("other",)).fingerprint == bars.fingerprint
    assert len(bars.fingerprint) == 64


def test_validate_clean_bars_passes() -> None:
    validate_bars(make_bars())


@pytest.mark.parametrize(
    ("name", "row", "value", "words"),
    [
        ("open", 3, np.nan, "open=nan, but open must be a finite number"),
        ("volume", 3, -1.0, "volume=-1, but volume must not be negative"),
        ("high", 3, 101.0, "high=101, low=102, but high must not be below low"),
        ("low", 3, 103.5, "open must lie between low and high"),
    ],
)
def test_validate_bad_value_names_row_stamp_and_rule(
    name: str, row: int, value: float, words: str
) -> None:
    bars = make_bars()
    values = getattr(bars, name).copy()
    values[row] = value

    with pytest.raises(BarsError) as caught:
        validate_bars(replace(bars, **{name: values}))

    assert "data row 3 (2013-10-04T09:33:00-04:00)" in str(caught.value)
    assert words in str(caught.value)


def test_validate_repeated_stamp_is_refused() -> None:
    bars = make_bars()
    start_ns = bars.start_ns.copy()
    start_ns[4] = start_ns[3]

    with pytest.raises(BarsError, match=r"data row 4 .* has the same stamp as data row 3"):
        validate_bars(replace(bars, start_ns=start_ns))


def test_validate_arrays_of_other_length_or_too_short_are_refused() -> None:
    bars = make_bars()

    with pytest.raises(BarsError, match="session has 3 rows, must have 10"):
        validate_bars(replace(bars, session=bars.session[:3]))
    with pytest.raises(BarsError, match="1 bars, at least 2"):
        validate_bars(bars.slice(0, 1))


def test_equal_opens_count_only_neighbours_within_a_session() -> None:
    bars = make_bars()
    opens = bars.open.copy()
    opens[[1, 5]] = bars.close[[0, 4]]  # one within a session, one across

    assert opens_equal_prior_close_frac(replace(bars, open=opens)) == 1 / 8
    daily = make_bars(sessions=10, bars=1, open=opens)
    assert opens_equal_prior_close_frac(daily) == 2 / 9


def test_check_fill_allows_exactly_five_percent() -> None:
    bars = make_bars(sessions=1, bars=21)
    opens = bars.open.copy()
    opens[1] = bars.close[0]

    check_fill(replace(bars, open=opens), Fill.next_open)
    opens[2] = bars.close[1]
    with pytest.raises(BarsError, match=r"10\.0% of opens.*set env\.fill=next_close"):
        check_fill(replace(bars, open=opens), Fill.next_open)
    check_fill(replace(bars, open=opens), Fill.next_close)


def test_extra_warmup_counts_rows_up_to_the_last_unknown() -> None:
    extra = np.arange(20.0).reshape(10, 2)
    extra[:1, 0] = np.nan
    extra[:3, 1] = np.nan

    assert make_bars(extra=extra, extra_names=("a", "b")).extra_warmup_bars == 3
    assert make_bars().extra_warmup_bars == 0
