"""Nothing knows the future, and what does is caught by the same helper."""

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.market.builders import minute_features

from ppo_workbench.config import SyntheticConfig
from ppo_workbench.market.bars import Bars, validate_bars
from ppo_workbench.market.causality import alter_future, look_ahead
from ppo_workbench.market.features import KINDS, compute_market
from ppo_workbench.market.synthetic import generate

Arrays = dict[str, npt.NDArray[np.generic]]

WINDOWS = {"<fast>": "12", "<slow>": "26", "<signal>": "9", "<n>": "20", "<halflife>": "40"}


@cache
def _bars(bars_per_session: int) -> Bars:
    """Return 12 sessions of minutes, or the same prices as if they were daily bars."""
    bars = generate(SyntheticConfig(sessions=12, seed=3)).bars
    column = np.random.default_rng(0).normal(size=(len(bars), 1))
    bars = replace(bars, extra=column, extra_names=("mine",))
    if bars_per_session == 1:
        count = np.arange(len(bars), dtype=np.int64)
        bars = replace(bars, session=count, bar_of_session=0 * count, bars_per_session=1)
    return bars


def _all_features() -> list[str]:
    names = [kind.form for kind in KINDS]
    for form, window in WINDOWS.items():
        names = [name.replace(form, window) for name in names]
    return names


def _market_arrays(bars: Bars) -> Arrays:
    table = compute_market(bars, minute_features(names=_all_features()))
    features = {name: table.features[:, i] for i, name in enumerate(table.names)}
    context = ("sigma", "volatility_ratio", "efficiency", "regime", "large_move", "mean_notional")
    return {**features, **{f"context {name}": getattr(table, name) for name in context}}


@settings(max_examples=12)
@given(st.integers(1, 12 * 390 - 1), st.integers(0, 1000), st.sampled_from([390, 1]))
def test_look_ahead_market_table_has_none(at: int, seed: int, bars_per_session: int) -> None:
    assert look_ahead(_market_arrays, _bars(bars_per_session), at, seed) == []


@pytest.mark.parametrize("at", [390, 391, 779, 780])
def test_look_ahead_around_session_borders_has_none(at: int) -> None:
    assert look_ahead(_market_arrays, _bars(390), at) == []


def _next_return(bars: Bars) -> Arrays:
    return {"planted": np.append(np.diff(np.log(bars.close)), 0.0)}


def _centred_mean(bars: Bars) -> Arrays:
    return {"planted": np.convolve(bars.close, np.ones(5) / 5, mode="same")}


def _scaled_by_the_whole_sample(bars: Bars) -> Arrays:
    return {"planted": bars.close / bars.close.std()}


def _high_of_the_whole_session(bars: Bars) -> Arrays:
    tops = np.full(int(bars.session[-1]) + 1, -np.inf)
    np.maximum.at(tops, bars.session, bars.high)
    return {"planted": tops[bars.session]}


def _future_volume_only(bars: Bars) -> Arrays:
    return {"honest": bars.close, "planted": np.roll(bars.volume, -3)}


@pytest.mark.parametrize(
    "compute",
    [
        _next_return,
        _centred_mean,
        _scaled_by_the_whole_sample,
        _high_of_the_whole_session,
        _future_volume_only,
    ],
)
def test_look_ahead_planted_feature_is_caught(compute: object) -> None:
    assert callable(compute)
    found = look_ahead(compute, _bars(390), 1000)
    assert found
    assert all(line.startswith("planted: ") for line in found)


def test_look_ahead_names_the_first_row_that_changes() -> None:
    found = look_ahead(_next_return, _bars(390), 1000)
    assert "planted: altering the future changes row 999" in found


def test_alter_future_changes_every_later_bar_and_keeps_them_valid() -> None:
    bars, changed = _bars(390), alter_future(_bars(390), 500)
    validate_bars(changed)
    for name in ("open", "high", "low", "close", "volume", "extra"):
        before, after = getattr(bars, name), getattr(changed, name)
        np.testing.assert_array_equal(before[:500], after[:500])
        assert (before[500:] != after[500:]).all(), name
