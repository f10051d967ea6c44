"""The reference filter and its policy: brute force, closed answers, causality, convergence."""

import math
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import integrate, stats

from ppo_workbench.cli.main import compose
from ppo_workbench.config import SyntheticConfig
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.synthetic import SyntheticMarket, generate, model_of
from ppo_workbench.scoring.backtest import backtest, rung_nearest, threshold_exposure
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.reference.filtering import NODES, Grid, filter_bars, grid_of
from ppo_workbench.scoring.reference.planning import (
    Problem,
    policy_of,
    reference_filter,
    signal,
    solve,
    summarised,
)
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars

Floats = npt.NDArray[np.float64]

LEVELS = np.array([-1.0, 0.0, 1.0])
SHORT, FLAT, LONG = range(3)


@cache
def _market(**changes: Any) -> SyntheticMarket:
    return generate(SyntheticConfig(sessions=12, seed=3, **changes))


@cache
def _experiment(*overrides: str) -> Experiment:
    config = compose(["tracking=none", "data.synthetic.sessions=60", *overrides])
    return prepare(config, *split_bars(config))


def _run(experiment: Experiment, nodes: int = 13) -> Trace:
    policy = reference_filter(experiment, nodes)
    assert policy is not None
    split = experiment.splits["validation"]
    return backtest(policy, experiment.bars, experiment.market, split, experiment.config)


# The likelihood, against all hidden paths.


def _normal(x: float, variance: float) -> float:
    return math.exp(-(x**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def _mixed_over(function: Any, freedom: float) -> float:
    """Return the mean of a function of mixing^2, by quadrature over its gamma variable."""
    a = freedom / 2

    def integrand(log_gamma: float) -> float:
        gamma = math.exp(log_gamma)
        return float(function((a - 1) / gamma) * math.exp(a * log_gamma - gamma) / math.gamma(a))

    return float(integrate.quad(integrand, -14.0, 5.0, epsabs=0, epsrel=1e-12, limit=400)[0])


class _BruteForce:
    """Densities and moves of one bar in one state, written from the model's text."""

    def __init__(self, config: SyntheticConfig, grid: Grid, bars: Bars) -> None:
        self.config, self.grid, self.m = config, grid, model_of(config)
        self.slot = bars.bar_of_session
        self.price = {n: np.log(getattr(bars, n)) for n in ("open", "high", "low", "close")}
        self.log_volume = np.log(bars.volume / 100) + self.price["close"]
        ema, self.distance, self.base = math.log(config.initial_price), [], []
        close = ema
        for t, slot in enumerate(self.slot):
            if slot == 0 and t > 0:
                ema += config.gap_ema_frac * (self.price["open"][t] - close)
                close = self.price["open"][t]
            self.base.append(close)
            self.distance.append(close - ema)
            close = self.price["close"][t]
            ema += self.m.ema_step * (close - ema)

    def is_gap(self, t: int) -> bool:
        return bool(self.slot[t] == 0 and t > 0)

    def sigma(self, t: int, s: int, h: float) -> float:
        config = self.config
        unit = config.sigma_bps * 1e-4 * config.volatility_by_regime[s]
        return float(
            unit * self.m.season[self.slot[t]] * math.exp(h / 2 - config.volatility_sd**2 / 4)
        )

    def bar(self, t: int, k: int, h: float, jumped: bool) -> tuple[float, float]:
        """Return the density of bar t and its shock."""
        config, s = self.config, int(self.grid.regime[k])
        sigma, body = self.sigma(t, s, h), 1 - config.open_variance_frac
        before = t if self.is_gap(t) or t == 0 else t - 1
        unit = self.sigma(before, s, h)
        deviation = self.distance[t] / (unit * math.sqrt(config.ema_halflife_bars))
        deviation = float(np.clip(deviation, -config.deviation_clip, config.deviation_clip))
        rate = config.jumps_per_session[s] / 390
        size = config.jump_size_sigmas * config.sigma_bps * 1e-4 * config.volatility_by_regime[s]
        mean = -config.jump_shift * size * (s >= 2)
        direction = config.trend_drift * self.grid.direction[k] * (s in (1, 3))
        edge = config.edge * config.edge_by_regime[s]
        drift = (direction - edge * deviation) * sigma
        drift -= (sigma**2 + rate * (size**2 + mean**2)) / 2
        start = self.price["open"][t] - self.base[t]
        move = float(self.price["close"][t] - self.price["open"][t])
        top = float(self.price["high"][t] - self.price["open"][t])
        bottom = float(self.price["low"][t] - self.price["open"][t])
        rest = move - drift

        def opened(v: float) -> float:
            if self.is_gap(t):
                return 1.0
            return _normal(start, config.open_variance_frac * v)

        if jumped:
            rest -= mean
            wide = size**2 + body * sigma**2
            density = _normal(rest, wide)
            reach = (top - max(move, 0)) + (min(move, 0) - bottom)

            def extremes(v: float) -> float:
                return math.exp(-(reach**2) / (2 * body * v)) / (body * v)

            def all_prices(mixing: float) -> float:
                return opened(mixing * sigma**2) * extremes(mixing * sigma**2)

            rest *= body * sigma**2 / wide
        else:
            density = 1.0

            def all_prices(mixing: float) -> float:
                v = body * mixing * sigma**2
                high = 2 * (2 * top - move) / v * math.exp(-2 * top * (top - move) / v)
                low = 2 * (move - 2 * bottom) / v * math.exp(-2 * bottom * (bottom - move) / v)
                return opened(mixing * sigma**2) * _normal(rest, v) * high * low

        density *= _mixed_over(all_prices, config.shock_degrees_of_freedom)
        density *= rate if jumped else 1 - rate
        if self.is_gap(t):
            size = self.m.gap_size[s]
            gap = self.price["open"][t] - self.price["close"][t - 1]
            shift = config.shock_degrees_of_freedom / (config.shock_degrees_of_freedom - 2) / 2
            density *= (
                stats.t.pdf(gap / size + shift * size, config.shock_degrees_of_freedom) / size
            )
        shock = (rest if self.is_gap(t) else start + rest) / sigma
        return float(density * self.volume(t, s, h)), float(shock)

    def volume(self, t: int, s: int, h: float) -> float:
        """Return the density of the log volume given the bar before."""
        config, load = self.config, self.config.volume_loadings

        def noise(at: int) -> float:
            size = abs(self.price["close"][at] - self.base[at]) / self.sigma(at, s, h)
            level = config.log_volume + load[0] * math.log(self.m.season[self.slot[at]])
            level += load[1] * math.log(config.volatility_by_regime[s])
            return float(self.log_volume[at] - level - load[2] * min(size, 10) - load[3] * h)

        keep = config.volume_noise_autocorrelation
        step = config.volume_noise_sd * math.sqrt(1 - keep**2)
        return _normal(noise(t) - (keep * noise(t - 1) if t > 0 else 0.0), step**2)

    def moves(self, h: float, shock: float, jumped: bool) -> Floats:
        """Return the probabilities of the next h."""
        config = self.config
        keep = 0.5 ** (1 / config.volatility_halflife_bars)
        step = config.volatility_sd * math.sqrt(1 - keep**2)
        target = keep * h - step * config.volatility_leverage * float(np.clip(shock, -4, 4))
        target += config.volatility_after_jump * jumped
        return _three_nodes(self.grid, target, step * config.volatility_noise)


def _three_nodes(grid: Grid, target: float, deviation: float) -> Floats:
    """Return weights on the grid with this mean and deviation, but for the ends of the grid."""
    last = len(grid.h) - 1
    x = float(np.clip((target - grid.h[0]) / grid.step, 0, last))
    near = round(x)
    around = np.array([near - 1, near, near + 1])
    moments = np.array([1.0, x - near, (deviation / grid.step) ** 2 + (x - near) ** 2])
    weights = np.linalg.solve(np.vander([-1.0, 0.0, 1.0], increasing=True).T, moments)
    row = np.zeros(last + 1)
    np.add.at(row, np.clip(around, 0, last), weights)
    return row


def _tiny_grid(config: SyntheticConfig) -> Grid:
    """Return two of the regimes and three values of h."""
    switch = np.array([[0.9, 0.1], [0.2, 0.8]])
    full, kept = grid_of(config, 3), np.array([0, 5])
    return full._replace(
        regime=full.regime[kept], direction=full.direction[kept], switch=switch, negligible=-np.inf
    )


@pytest.mark.parametrize("first", [0, 387])
def test_filter_equals_the_sum_over_all_hidden_paths(first: int) -> None:
    config = SyntheticConfig(
        sessions=12, seed=3, trend_drift=0.3, jumps_per_session=[1, 1, 40, 60],
        volatility_halflife_bars=10.0, volatility_noise=2.0,
    )  # fmt: skip
    bars = generate(config).bars
    config = replace(config, initial_price=float(bars.close[first - 1]) if first else 100.0)
    grid, bars = _tiny_grid(config), bars.slice(first, first + 5)
    brute = _BruteForce(config, grid, bars)
    states = list(product(range(2), range(3)))
    # One weight for each path of (regime, h) up to the bar, jumps of each bar both ways.
    start = grid.switch[0][:, None] * _three_nodes(grid, 0.0, 0.0)
    weights = start.ravel()[:, None]
    likelihood = []
    for t in range(len(bars)):
        step = np.zeros((2, 6, 6))
        for jumped, (n, (k, i)) in product((0, 1), enumerate(states)):
            density, shock = brute.bar(t, k, grid.h[i], bool(jumped))
            ahead = grid.switch[k][:, None] * brute.moves(grid.h[i], shock, bool(jumped))
            step[jumped, n] = density * ahead.ravel()
        # (6 states now, paths before) -> (6 states next, all paths before, 2 jumps, 6 now).
        weights = np.einsum("np,jnm->mpjn", weights, step).reshape(6, -1)
        likelihood.append(weights.sum())
    assert weights.size == 6 * (2 * 6) ** 5
    beliefs = filter_bars(bars, config, grid)
    total = np.cumsum(beliefs.log_likelihood)
    assert total == pytest.approx(np.log(likelihood), rel=1e-10)
    posterior = weights.sum(axis=1).reshape(2, 3).sum(axis=1) / weights.sum()
    assert beliefs.regime[-1, [0, 3]] == pytest.approx(posterior, abs=1e-10)


# Closed answers.


def test_filter_of_a_direction_in_gaussian_noise_is_bayes_formula() -> None:
    config = SyntheticConfig(
        sessions=10, seed=5, edge=0.0, trend_drift=0.2, volatility_sd=0.0, jump_shift=0.0,
        volatility_after_jump=0.0, jumps_per_session=[0.0] * 4, shock_degrees_of_freedom=1000.0,
        regime_switch=[[0, 1, 0, 0]] * 4, regime_dwell_bars=[100.0] * 4,
    )  # fmt: skip
    bars = generate(config).bars.slice(0, 380)
    grid, q = grid_of(config, 1), 0.01
    grid = grid._replace(
        regime=np.array([1, 1]),
        direction=np.array([1.0, -1.0]),
        switch=np.array([[1 - q, q], [q, 1 - q]]),
    )
    beliefs = filter_bars(bars, config, grid)
    up, wanted = 1 - q, []
    season = model_of(config).season
    for t in range(len(bars)):
        sigma = 3.2e-4 * season[t]
        move = math.log(bars.close[t] / bars.open[t]) + sigma**2 / 2
        odds = up / (1 - up) * math.exp(2 * 0.2 * move / (0.98 * sigma))
        up = odds / (1 + odds)
        up = up * (1 - q) + (1 - up) * q
        wanted.append(0.2 * (2 * up - 1) * 3.2e-4 * season[t + 1])
    wanted_drift = np.array(wanted)
    assert np.abs(beliefs.drift - wanted_drift).max() < 0.03 * np.abs(wanted_drift).max()
    assert np.ptp(wanted_drift / season[1:381]) > 0.3 * 0.2 * 3.2e-4  # it did change its mind


def test_filter_finds_the_true_drift_better_than_who_takes_the_usual_regime() -> None:
    config = SyntheticConfig(sessions=60, seed=3)
    market = generate(config)
    m, s = model_of(config), market.true_regime[1:]
    inside = market.bars.bar_of_session[1:] > 0
    true = -m.edge[s] * market.deviation[:-1] * market.sigma[1:]
    true = (true + (m.jump_rate * m.jump_mean)[s])[inside]
    believed = filter_bars(market.bars, config).drift[:-1][inside]
    naive = (-m.edge[0] * market.deviation[:-1] * market.sigma[1:])[inside]
    error, naive_error = np.square(believed - true).mean(), np.square(naive - true).mean()
    assert error < 0.5 * true.var()
    assert error < 0.7 * naive_error


def test_filter_without_an_edge_believes_in_no_return_and_its_policy_never_trades() -> None:
    experiment = _experiment("data=null", "data.synthetic.sessions=60")
    trace = _run(experiment)
    assert not trace.fill_quantity.any()


def _problem(drift: Floats, cost: float, follow: Floats, slots: int = 400) -> Problem:
    cells = len(drift)
    free = np.ones(slots, dtype=np.bool_)
    return Problem(
        drift=np.tile(drift, (slots, 1)),
        variance=np.ones((slots, cells)),
        cost=np.full(cells, cost),
        follow=follow,
        may_open=free,
        may_hold=free.copy(),
        lowest=-1.0,
        largest_step=2,
    )


def test_solve_without_costs_holds_a_constant_drift_until_it_must_be_flat() -> None:
    problem = _problem(np.array([1e-5]), 0.0, np.ones((1, 1)), slots=10)
    problem.may_hold[8:] = False
    problem.may_open[6:] = False
    table = solve(problem, 0.0)[:, :, 0]
    assert (table[:6] == 1).all()
    assert table[6:8].tolist() == [[0, 0, 1]] * 2
    assert (table[8:] == 0).all()


def test_solve_charges_for_variance() -> None:
    problem = _problem(np.array([1.0]), 0.0, np.ones((1, 1)))
    assert (solve(problem, 1.9)[0] == 1).all()
    assert (solve(problem, 2.1)[0] == 0).all()


def test_solve_keeps_to_what_the_account_may_do() -> None:
    follow = np.full((2, 2), 0.5)
    problem = _problem(np.array([1.0, -1.0]), 0.1, follow)
    assert solve(problem, 0.0)[0].T.tolist() == [[1, 1, 1], [-1, -1, -1]]
    steps = solve(replace(problem, largest_step=1), 0.0)[0].T
    assert steps.tolist() == [[0, 1, 1], [-1, -1, 0]]
    assert solve(replace(problem, lowest=0.0), 0.0)[0, 1:].T.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("q", [0.02, 0.2])
def test_solve_of_two_states_has_the_known_band(q: float) -> None:
    # A drift of mu that turns with probability q a bar is worth mu / (2 q) to who holds with
    # it and as much less to who holds against it: with dearer trades nothing is ever moved.
    mu, follow = 1e-4, np.array([[1 - q, q], [q, 1 - q]])
    worth = mu / (2 * q)
    dear = solve(_problem(np.array([mu, -mu]), 1.05 * worth, follow), 0.0)[0]
    assert dear.T.tolist() == [[-1, 0, 1]] * 2
    cheap = solve(_problem(np.array([mu, -mu]), 0.95 * worth, follow), 0.0)[0]
    assert cheap.T.tolist() == [[1, 1, 1], [-1, -1, -1]]


@pytest.mark.parametrize(
    "wanted", [(-1, 0, 1), (-1, 0, 0), (0, 0, 1), (0, 0, 0), (1, 1, 1), (-1, -1, -1)]
)
def test_signal_makes_a_threshold_rule_want_what_the_table_says(
    wanted: tuple[int, int, int],
) -> None:
    (x,) = signal(np.array([wanted], dtype=np.int8))
    for held, target in zip(LEVELS, wanted, strict=True):
        assert threshold_exposure(x, held, 1.5, 0.5) == target
        assert rung_nearest(LEVELS, target) == target + 1


# Causality, other sources, convergence.


def test_beliefs_and_cells_do_not_change_with_later_bars() -> None:
    bars, other = _market().bars, generate(SyntheticConfig(sessions=12, seed=4)).bars
    at = 2000
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(bars, name)[:at], getattr(other, name)[at:]])
        for name in ("open", "high", "low", "close", "volume")
    }
    config = SyntheticConfig(sessions=12, seed=3)
    first, second = filter_bars(bars, config), filter_bars(replace(bars, **columns), config)
    cut = filter_bars(bars.slice(0, at), config)
    for name in ("drift", "variance", "regime", "log_likelihood"):
        whole = getattr(first, name)
        assert np.array_equal(whole[:at], getattr(second, name)[:at])
        assert np.array_equal(whole[:at], getattr(cut, name))
        assert not np.array_equal(whole[at:], getattr(second, name)[at:])


def test_policy_is_tuned_on_training_bars_alone() -> None:
    experiment = _experiment()
    beliefs = filter_bars(experiment.bars, experiment.config.data.synthetic)
    stop = experiment.splits["train"].stop
    later = np.arange(len(experiment.bars)) >= stop
    changed = replace(
        beliefs,
        drift=np.where(later, -2 * beliefs.drift, beliefs.drift),
        variance=np.where(later, 3 * beliefs.variance, beliefs.variance),
    )
    (cells, first), (others, second) = (summarised(experiment, b) for b in (beliefs, changed))
    assert np.array_equal(first.drift, second.drift)
    assert np.array_equal(first.follow, second.follow)
    assert np.array_equal(cells[:stop], others[:stop])
    series = [policy_of(experiment, b).series for b in (beliefs, changed)]
    assert series[0] is not None
    assert series[1] is not None
    assert np.array_equal(series[0][:stop], series[1][:stop], equal_nan=True)


def test_reference_policy_trades_and_is_flat_overnight() -> None:
    experiment = _experiment()
    trace = _run(experiment)
    card = scorecard(trace)
    assert card.n_trades > 20
    assert not trace.violated.any()
    ends = np.flatnonzero(np.diff(trace.session))
    assert not trace.exposure[ends].any()


def test_reference_policy_of_other_sources_is_none() -> None:
    experiment = _experiment()
    config = replace(experiment.config, data=replace(experiment.config.data, source="file"))
    assert reference_filter(replace(experiment, config=config)) is None


def test_beliefs_hardly_change_with_a_grid_twice_as_fine() -> None:
    config, bars = SyntheticConfig(sessions=12, seed=3), _market().bars
    coarse, fine = (filter_bars(bars, config, grid_of(config, n)) for n in (NODES, 2 * NODES))
    difference = np.std(coarse.drift - fine.drift)
    assert difference < 0.04 * np.std(fine.drift)
    assert coarse.log_likelihood.mean() == pytest.approx(fine.log_likelihood.mean(), abs=3e-4)


@pytest.mark.slow
def test_policy_hardly_changes_with_a_grid_twice_as_fine() -> None:
    # Without the drawdown ladder, where a hair's breadth decides over weeks.
    experiment = _experiment("data.synthetic.sessions=1000", "risk.drawdown.enabled=false")
    coarse, fine = (_run(experiment, nodes) for nodes in (NODES, 2 * NODES))
    assert np.corrcoef(coarse.exposure, fine.exposure)[0, 1] > 0.9
    sharpes = [scorecard(trace).sharpe_annual for trace in (coarse, fine)]
    assert sharpes[0] == pytest.approx(sharpes[1], abs=0.4)  # 200 sessions are few
