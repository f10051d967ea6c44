"""Market-only rules as bits of hand-made bars."""

from typing import Any

import numpy as np
import pytest
from tests.trading.builders import hand_bars, names, only, quiet_table

from ppo_workbench.config import Config, ConfigError
from ppo_workbench.market.bars import Bars
from ppo_workbench.trading.rules.market import market_rule_bits
from ppo_workbench.trading.rules.names import RULE_NAMES


def _rows(rule: str, bars: Bars, config: Config, **table: Any) -> list[int]:
    """Return the rows at whose close `rule` fires."""
    bits = market_rule_bits(bars, quiet_table(bars, **table), config)
    return [int(t) for t in np.flatnonzero(bits >> RULE_NAMES.index(rule) & 1)]


def _halt(**changes: Any) -> Config:
    return only("halt", **{f"risk__halt__{name}": value for name, value in changes.items()})


def test_luld_pause_lasts_five_minutes_from_the_breach() -> None:
    closes = [100.0] * 10 + [105.1] * 10
    assert _rows("halt", hand_bars(closes, 20), _halt()) == [10, 11, 12, 13, 14]


def test_luld_breach_below_the_band_fires_too_and_at_the_band_does_not() -> None:
    assert _rows("halt", hand_bars([100.0] * 10 + [94.9] * 3, 13), _halt()) == [10, 11, 12]
    assert _rows("halt", hand_bars([100.0] * 10 + [104.9] * 3, 13), _halt()) == []
    wide = _halt(luld_band_frac=0.10)
    assert _rows("halt", hand_bars([100.0] * 10 + [94.9] * 3, 13), wide) == []


def test_luld_reference_is_the_mean_of_the_last_five_minutes() -> None:
    closes = [98.0] * 5 + [100.0, 101.0, 102.0, 103.0, 104.0] + [107.2]  # mean 102, +5.1 %
    bars = hand_bars(closes, 11)
    assert 10 in _rows("halt", bars, _halt())
    assert 10 not in _rows("halt", bars, _halt(luld_band_frac=0.052))


def test_luld_pause_and_reference_end_with_the_session() -> None:
    closes = [100.0] * 9 + [106.0] + [106.0] * 10
    assert _rows("halt", hand_bars(closes, 10), _halt()) == [9]
    gap = [100.0] * 10 + [120.0] * 10  # overnight: no five minutes to compare with
    assert _rows("halt", hand_bars(gap, 10), _halt()) == []


def test_halt_follows_a_hole_of_missing_bars() -> None:
    bars = hand_bars([100.0] * 12, 12)
    minute = 60 * 10**9
    for missing, expected in ((4, []), (5, [6])):
        start = bars.start_ns + np.where(np.arange(12) >= 6, missing * minute, 0)
        shifted = hand_bars([100.0] * 12, 12, start_ns=start)
        assert _rows("halt", shifted, _halt()) == expected


def _falling(low: float, at: int, until: int | None = None) -> Bars:
    """Return two sessions of 390 minutes; in the second the low falls from minute `at`."""
    lows = [100.0] * 780
    stop = 780 if until is None else 390 + until
    lows[390 + at : stop] = [low] * (stop - 390 - at)
    return hand_bars([100.0] * 780, 390, lows)


@pytest.mark.parametrize("low", [93.0, 87.0])
def test_breaker_before_1525_stops_a_quarter_of_an_hour_once(low: float) -> None:
    config = _halt(market_wide=True)
    assert _rows("halt", _falling(low, 100), config) == list(range(490, 505))
    assert _rows("halt", _falling(93.1, 100), config) == []


def test_breaker_level_two_after_level_one_stops_again() -> None:
    bars = _falling(93.0, 100)
    bars.low[390 + 200 :] = 87.0
    expected = [*range(490, 505), *range(590, 605)]
    assert _rows("halt", bars, _halt(market_wide=True)) == expected


def test_breaker_from_1525_on_does_not_stop_below_level_three() -> None:
    config = _halt(market_wide=True)
    last = 354  # the minute from 15:24 to 15:25
    assert _rows("halt", _falling(90.0, last), config)[0] == 390 + last
    assert _rows("halt", _falling(90.0, last + 1), config) == []
    assert _rows("halt", _falling(80.0, last + 1), config) == list(range(391 + last, 780))


def test_breaker_is_silent_where_it_is_not_switched_on() -> None:
    assert _rows("halt", _falling(80.0, 100), _halt()) == []


def test_short_sale_restriction_holds_that_day_and_the_next() -> None:
    lows = [100.0] * 20
    lows[7] = 90.0  # exactly 10 % under the prior close, in the second session
    config = only("short_sale_restriction")
    assert _rows("short_sale_restriction", hand_bars([100.0] * 20, 5, lows), config) == [
        *range(7, 15)
    ]
    lows[7] = 90.01
    assert _rows("short_sale_restriction", hand_bars([100.0] * 20, 5, lows), config) == []


def test_short_sale_restriction_needs_a_prior_close_and_regular_hours() -> None:
    lows = [80.0] * 5 + [100.0] * 5
    config = only("short_sale_restriction")
    assert _rows("short_sale_restriction", hand_bars([100.0] * 10, 5, lows), config) == []
    lows = [100.0] * 5 + [80.0] + [100.0] * 4
    regular = np.arange(10) != 5
    bars = hand_bars([100.0] * 10, 5, lows, regular=regular)
    assert _rows("short_sale_restriction", bars, config) == []


def test_session_rules_count_bars_left_by_the_calendar() -> None:
    bars = hand_bars([100.0] * 20, 10)
    config = only("session", env__no_open_last_bars=3, env__flat_last_bars=1)
    assert _rows("session_no_open", bars, config) == [6, 7, 8, 9, 16, 17, 18, 19]
    assert _rows("session_flatten", bars, config) == [8, 9, 18, 19]
    off = only("session", env__no_open_last_bars=0, env__flat_last_bars=0)
    assert market_rule_bits(bars, quiet_table(bars), off).tolist() == [0] * 20


def test_session_rule_on_a_half_day_ends_with_it() -> None:
    left = np.array([4, 3, 2, 1, 0])  # by the calendar: the session closes early
    bars = hand_bars([100.0] * 5, 10, bars_left=left)
    assert _rows("session_flatten", bars, only("session", env__flat_last_bars=2)) == [2, 3, 4]


def test_closed_session_is_whatever_is_not_regular() -> None:
    bars = hand_bars([100.0] * 4, 4, regular=np.array([False, True, True, False]))
    assert _rows("closed_session", bars, only("closed_session")) == [0, 3]


def test_volatility_fires_above_its_ratio() -> None:
    ratio = np.array([1.0, 1.4, 1.41, np.nan])
    config = only("volatility", risk__volatility__max_ratio=1.4)
    bars = hand_bars([100.0] * 4, 4)
    assert _rows("volatility", bars, config, volatility_ratio=ratio) == [2]


def test_regime_fires_in_the_named_regimes() -> None:
    blocked = ["trend_low_volatility", "trend_high_volatility"]
    config = only("regime", risk__regime__blocked=blocked)
    regime = np.array([0, 1, 2, 3], dtype=np.int8)
    assert _rows("regime", hand_bars([100.0] * 4, 4), config, regime=regime) == [1, 3]


def test_regime_unknown_is_refused_with_the_known_ones() -> None:
    config = only("regime", risk__regime__blocked=["bull"])
    with pytest.raises(ConfigError, match=r"risk\.regime\.blocked.*'bull'.*range_low_volatility"):
        _rows("regime", hand_bars([100.0] * 4, 4), config)


def test_event_fires_after_a_large_move_and_around_listed_events() -> None:
    config = only(
        "event",
        risk__event__large_move_bars=2,
        risk__event__event_before_bars=1,
        risk__event__event_after_bars=3,
    )
    bars = hand_bars([100.0] * 10, 10)
    moved = np.arange(10) == 4
    assert _rows("event", bars, config, large_move=moved) == [4, 5]
    listed = hand_bars(
        [100.0] * 10,
        10,
        events=np.array([-1, -1, -1, 0, 1, 2, 3, 4, 5, 6]),
        events_ahead=np.array([3, 2, 1, -1, -1, -1, -1, -1, -1, -1]),
    )
    assert _rows("event", listed, config) == [2, 3, 4, 5]


def test_rules_switched_off_leave_no_bits() -> None:
    bars = _falling(75.0, 100)
    table = quiet_table(bars, volatility_ratio=np.full(780, 9.0), large_move=np.ones(780, bool))
    assert not market_rule_bits(bars, table, only()).any()
    every = only(*only().risk.rules(), env__no_open_last_bars=2, env__flat_last_bars=1)
    every.risk.regime.blocked = ["range_low_volatility"]
    fired = set().union(*(names(int(b)) for b in market_rule_bits(bars, table, every)))
    assert {"session_flatten", "volatility", "regime", "event"} <= fired
