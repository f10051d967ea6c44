"""The bootstrap against loops, closed forms, the scorecard and known answers."""

from collections.abc import Callable
from dataclasses import replace
from math import isfinite, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppo_workbench.config.arrays import Floats, Ints
from ppo_workbench.scoring.metrics import drawdowns, scorecard, sharpe_ratio
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.resampling import (
    FIGURES,
    drawdown_draws,
    equal_volatility_drawdown_draws,
    optimal_block_sessions,
    pool,
    resample,
    sharpe_draws,
    stationary_indices,
)
from ppo_workbench.scoring.statistics.samples import (
    StatisticsError,
    percentile_interval,
    two_sided_p_value,
)
from ppo_workbench.scoring.trace import Trace

TraceMaker = Callable[..., Trace]


def _returns(seed: int, sessions: int = 120, mean: float = 0.0005) -> Floats:
    return np.random.default_rng(seed).normal(mean, 0.01, sessions)


def _path(seed: int, sessions: int = 120, mean: float = 0.0005) -> SessionPath:
    return SessionPath.from_returns(_returns(seed, sessions, mean), 252)


@pytest.mark.parametrize("block", [1.0, 4.0, 25.0])
def test_stationary_indices_have_geometric_blocks_and_uniform_days(block: float) -> None:
    days = stationary_indices(50, 4000, block, np.random.default_rng(0))
    assert days.min() == 0
    assert days.max() == 49
    runs_on = days[:, 1:] == (days[:, :-1] + 1) % 50
    # A new block happens to begin at the next day once in fifty.
    expected = (1 - 1 / block) + 1 / block / 50
    assert runs_on.mean() == pytest.approx(expected, abs=0.005)
    np.testing.assert_allclose(np.bincount(days.ravel(), minlength=50) / days.size, 0.02, rtol=0.1)


@pytest.mark.parametrize("block", [1.0, 3.0, 10.0])
def test_bootstrap_variance_of_the_mean_is_that_of_politis_and_romano(block: float) -> None:
    rng = np.random.default_rng(4)
    x = np.convolve(rng.normal(size=209), np.ones(10), "valid")
    n = len(x)
    days = stationary_indices(n, 20_000, block, rng)
    # Politis and Romano (1994), lemma 1, with circular autocovariances.
    centred = x - x.mean()
    keep = 1 - 1 / block
    variance = centred @ centred / n
    for lag in range(1, n):
        circular = centred @ np.roll(centred, -lag) / n
        variance += 2 * (1 - lag / n) * keep**lag * circular
    assert x[days].mean(axis=1).var() == pytest.approx(variance / n, rel=0.04)


def test_sharpe_draws_agree_with_the_scorecards_ratio_draw_by_draw() -> None:
    path = SessionPath.from_returns(_returns(1), 252)
    days = stationary_indices(120, 300, 5.0, np.random.default_rng(0))
    by_loop = [sharpe_ratio(path.excess[row], 252) for row in days]
    np.testing.assert_allclose(sharpe_draws(path, days), by_loop, rtol=1e-9)


def test_sharpe_draws_without_variance_are_zero_like_the_scorecards() -> None:
    path = SessionPath.from_returns([0.1] * 29 + [7000.0], 252)
    days = stationary_indices(30, 300, 10.0, np.random.default_rng(0))
    by_loop = [sharpe_ratio(path.excess[row], 252) for row in days]
    assert by_loop.count(0.0) > 50
    np.testing.assert_allclose(sharpe_draws(path, days), by_loop, rtol=1e-9)


def _compounded_drawdown(returns: Floats) -> float:
    equity = np.exp(np.cumsum(np.log(np.concatenate(([1.0], 1.0 + returns)))))
    return float(drawdowns(equity).max())


def test_drawdown_draws_agree_with_compounding_each_draw() -> None:
    x = _returns(2)
    days = stationary_indices(120, 300, 5.0, np.random.default_rng(0))
    plain, scaled = [], []
    for row in days:
        plain.append(_compounded_drawdown(x[row]))
        scaled.append(_compounded_drawdown(x[row] * 0.10 / (x[row].std(ddof=1) * sqrt(252))))
    path = SessionPath.from_returns(x, 252)
    np.testing.assert_allclose(drawdown_draws(path, days), plain, rtol=1e-9)
    np.testing.assert_allclose(equal_volatility_drawdown_draws(path, days), scaled, rtol=1e-9)


def _bar_trace(make_trace: TraceMaker, seed: int, lengths: Ints) -> Trace:
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(len(lengths)), lengths)
    equity = 100 * np.cumprod(1 + rng.normal(0, 0.02, len(session)))
    return make_trace(equity, session=session, bars_per_session=4)


def test_drawdown_draws_of_bars_agree_with_rebuilding_every_bar(make_trace: TraceMaker) -> None:
    rng = np.random.default_rng(5)
    trace = _bar_trace(make_trace, 5, rng.integers(1, 6, 40))
    days = stationary_indices(40, 300, 4.0, rng)
    growth = np.diff(np.log(trace.equity_curve()))
    rows = [np.flatnonzero(trace.session == day) for day in range(40)]
    expected = []
    for draw in days:
        path = np.concatenate([growth[rows[day]] for day in draw])
        expected.append(drawdowns(np.exp(np.concatenate(([0.0], np.cumsum(path))))).max())
    found = drawdown_draws(SessionPath.from_trace(trace), days)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_drawdown_within_one_session_is_kept_in_every_draw_of_it(make_trace: TraceMaker) -> None:
    equity = 100 * np.cumprod(np.tile([1.2, 0.5, 2.0], 20))
    trace = make_trace(equity, session=np.repeat(np.arange(20), 3), bars_per_session=3)
    found = resample({"a": [SessionPath.from_trace(trace)]}, resamples=20)
    np.testing.assert_allclose(found.draws["max_drawdown_frac"], 0.5)


def test_estimates_of_a_trace_are_the_scorecards_figures(make_trace: TraceMaker) -> None:
    bare = _bar_trace(make_trace, 6, np.full(60, 4))
    trace = replace(bare, cash_interest_annual_bps=500.0)
    card = scorecard(trace).to_dict()
    found = resample({"a": [SessionPath.from_trace(trace)]}, resamples=50)
    for figure in FIGURES:
        assert found.interval(figure, "a").estimate == pytest.approx(card[figure])


def test_interval_of_independent_returns_is_as_wide_as_theory_says() -> None:
    path = _path(7, 1000)
    found = resample({"a": [path]}, figures=["sharpe_annual"], seed=1)
    interval = found.interval("sharpe_annual", "a")
    ratio = interval.estimate / sqrt(252)
    error = sqrt((1 + ratio**2 / 2) / 1000 * 252)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert interval.low < interval.estimate < interval.high


def test_intervals_cover_the_known_sharpe_ratio_about_as_often_as_promised() -> None:
    # Long evidence: benchmarks/interval_coverage.py.  300 series have an error of 1.3 points.
    mean = 1.5 / 252 * 0.01 * sqrt(252)
    covered = 0
    for seed in range(300):
        found = resample(
            {"a": [_path(seed, 252, mean)]},
            resamples=300,
            block_sessions=1.0,
            seed=seed,
            figures=["sharpe_annual"],
        )
        covered += not found.interval("sharpe_annual", "a").excludes(1.5)
    assert 0.90 <= covered / 300 <= 0.985


def test_paired_difference_is_narrower_than_one_of_strangers() -> None:
    rng = np.random.default_rng(8)
    market, extra = rng.normal(0, 0.01, 500), rng.normal(0.0004, 0.001, 500)
    arms = {
        "masked": [SessionPath.from_returns(market + extra, 252)],
        "plain": [SessionPath.from_returns(market, 252)],
        "stranger": [SessionPath.from_returns(rng.permutation(market), 252)],
    }
    found = resample(arms, figures=["sharpe_annual"])
    paired = found.difference("sharpe_annual", "masked", "plain")
    assert paired.decided
    assert paired.p_value < 0.01
    assert not found.difference("sharpe_annual", "masked", "stranger").decided


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(sorted(FIGURES)))
def test_difference_is_antisymmetric_and_nothing_against_itself(seed: int, figure: str) -> None:
    arms = {"a": [_path(seed)], "b": [_path(seed + 1)], "twin": [_path(seed)]}
    found = resample(arms, resamples=101, seed=seed)
    there, back = found.difference(figure, "a", "b"), found.difference(figure, "b", "a")
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.estimate == -back.estimate
    assert there.p_value == back.p_value
    same = found.difference(figure, "a", "twin")
    assert (same.estimate, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert not same.decided


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.05, 5.0))
def test_sharpe_and_equal_volatility_drawdown_do_not_depend_on_size(
    seed: int, scale: float
) -> None:
    x = _returns(seed)
    arms = {
        "a": [SessionPath.from_returns(x, 252)],
        "scaled": [SessionPath.from_returns(scale * x, 252)],
    }
    found = resample(arms, resamples=50, seed=seed)
    for figure in ("sharpe_annual", "max_drawdown_at_10pct_vol_frac"):
        a, b = found.draws[figure].T
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_p_value_inverts_the_percentile_interval() -> None:
    draws = np.arange(-4.5, 95.0)  # 100 draws, 5 of them below 0
    assert two_sided_p_value(draws) == pytest.approx(2 * 6 / 101)
    assert two_sided_p_value(-draws) == pytest.approx(2 * 6 / 101)
    assert percentile_interval(0.0, draws, 0.95).low < 0 < percentile_interval(0, draws, 0.89).low


def test_resample_repeats_itself_and_shares_days_among_arms() -> None:
    one = resample({"a": [_path(1)], "b": [_path(2)]}, resamples=60, block_sessions=3.0)
    two = resample({"b": [_path(2)], "a": [_path(1)]}, resamples=60, block_sessions=3.0)
    for figure in FIGURES:
        np.testing.assert_array_equal(one.draws[figure], two.draws[figure][:, ::-1])
    other = resample({"a": [_path(1)]}, resamples=60, block_sessions=3.0, seed=1)
    assert not np.array_equal(other.draws["sharpe_annual"][:, 0], one.draws["sharpe_annual"][:, 0])


def test_seeds_that_disagree_widen_the_interval() -> None:
    same = resample({"a": [_path(3)] * 4}, figures=["sharpe_annual"], seed=5)
    alone = resample({"a": [_path(3)]}, figures=["sharpe_annual"], seed=5)
    np.testing.assert_allclose(same.draws["sharpe_annual"], alone.draws["sharpe_annual"])
    spread = [SessionPath.from_returns(_returns(3) + d, 252) for d in (-0.003, 0, 0, 0.003)]
    wide = resample({"a": spread}, figures=["sharpe_annual"], seed=5).draws["sharpe_annual"]
    assert np.ptp(wide) > 2 * np.ptp(alone.draws["sharpe_annual"])


def test_seeds_on_days_that_say_nothing_have_the_interval_of_a_paired_t_test() -> None:
    x, offsets = _returns(4, 500), np.array([0.001, 0.0, 0.0005, 0.002])
    arms = {
        "a": [SessionPath.from_returns(x + d, 252) for d in offsets],
        "b": [SessionPath.from_returns(x, 252)] * 4,
    }
    found = resample(arms, figures=["sharpe_annual"], resamples=20_000, block_sessions=1.0)
    difference = found.difference("sharpe_annual", "a", "b")
    gains = offsets / x.std(ddof=1) * sqrt(252)
    expected = stats.t.interval(0.95, 3, gains.mean(), stats.sem(gains))
    np.testing.assert_allclose([difference.low, difference.high], expected, rtol=0.05)


def test_pooled_markets_average_estimates_and_halve_the_variance() -> None:
    parts = [resample({"a": [_path(k)]}, seed=k, figures=["sharpe_annual"]) for k in (11, 12)]
    both = pool(parts)
    mean = np.mean([part.estimates["sharpe_annual"][0] for part in parts])
    assert both.interval("sharpe_annual", "a").estimate == pytest.approx(mean)
    expected = np.mean([part.draws["sharpe_annual"].var() for part in parts]) / 2
    assert both.draws["sharpe_annual"].var() == pytest.approx(expected, rel=0.08)
    assert both.sessions == 240


def test_optimal_block_grows_with_dependence() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=2000)
    smooth = np.convolve(rng.normal(size=2009), np.ones(10), "valid")
    assert optimal_block_sessions(noise) < 4.0
    assert optimal_block_sessions(smooth) > 15.0
    assert optimal_block_sessions(np.full(50, 0.01)) == 1.0


@pytest.mark.parametrize(
    "returns",
    [[0.0] * 30, [0.01] * 30, [0.01] * 10 + [-1.0] + [0.0] * 19, [0.0] * 29 + [0.5], [-2.0] * 30],
)
def test_flat_constant_and_ruined_paths_have_finite_figures(returns: list[float]) -> None:
    found = resample({"a": [SessionPath.from_returns(returns, 252)]}, resamples=200)
    for figure in FIGURES:
        interval = found.interval(figure, "a")
        assert all(map(isfinite, (interval.estimate, interval.low, interval.high)))
    drawdown = found.interval("max_drawdown_frac", "a").estimate
    assert drawdown == (1.0 if min(returns) <= -1.0 else 0.0)
    if len(set(returns)) == 1:
        assert found.interval("sharpe_annual", "a").estimate == 0.0


def test_ruined_trace_has_a_drawdown_of_one(make_trace: TraceMaker) -> None:
    equity = np.concatenate((np.full(50, 100.0), [50.0, -10.0], np.full(48, -20.0)))
    trace = make_trace(equity, session=np.repeat(np.arange(25), 4), bars_per_session=4)
    found = resample({"a": [SessionPath.from_trace(trace)]}, resamples=100)
    assert found.interval("max_drawdown_frac", "a").estimate == 1.0
    assert np.all(np.isfinite(found.draws["max_drawdown_frac"]))


def test_impossible_paths_are_refused(make_trace: TraceMaker) -> None:
    with pytest.raises(StatisticsError, match="at least 20"):
        SessionPath.from_returns([0.01] * 19, 252)
    with pytest.raises(StatisticsError, match="not finite"):
        SessionPath.from_returns([0.01] * 20 + [float("nan")], 252)
    with pytest.raises(StatisticsError, match="at least 20"):
        SessionPath.from_trace(make_trace([100.0] * 19))


def test_impossible_resamples_are_refused() -> None:
    a, longer = _path(1), _path(1, 121)
    with pytest.raises(StatisticsError, match="at least one run"):
        resample({})
    with pytest.raises(StatisticsError, match="arm b: has 2 runs"):
        resample({"a": [a], "b": [a, a]})
    with pytest.raises(StatisticsError, match="arm b: has other sessions"):
        resample({"a": [a], "b": [longer]})
    with pytest.raises(StatisticsError, match="figure=calmar"):
        resample({"a": [a]}, figures=["calmar"])
    with pytest.raises(StatisticsError, match=r"block_sessions=0\.5"):
        resample({"a": [a]}, block_sessions=0.5)
    found = resample({"a": [a]}, resamples=10)
    with pytest.raises(StatisticsError, match="arm=b: is unknown"):
        found.interval("sharpe_annual", "b")
    with pytest.raises(StatisticsError, match="figure=x: was not resampled"):
        found.interval("x", "a")
    with pytest.raises(StatisticsError, match=r"confidence=1\.0"):
        found.interval("sharpe_annual", "a", 1.0)
    with pytest.raises(StatisticsError, match="there is none"):
        pool([])
    with pytest.raises(StatisticsError, match="resample all of them alike"):
        pool([found, resample({"a": [a]}, resamples=11)])
