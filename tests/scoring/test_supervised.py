"""Forecasts as reference policies: an independent computation, and known answers."""

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from ppo_workbench.cli.main import compose
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.synthetic import generate
from ppo_workbench.scoring.backtest import Policy, backtest
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.reference import forecasts as supervised
from ppo_workbench.scoring.reference.forecasts import (
    BLOCKS,
    PENALTIES,
    REGRESSIONS,
    Regression,
    forecast,
    ridge,
    supervised_policies,
    targets,
)
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars

Floats = npt.NDArray[np.float64]

SMALL = (
    "tracking=none",
    "data.synthetic.sessions=60",
    "features.names=[ema_distance_10,ema_distance_40,return_1]",
    "features.volatility_slow_bars=390",
    "splits.gap_bars=0",
    "env.episode_bars=390",
)
LINEAR = (
    "data.synthetic.sessions=120",
    "data.synthetic.edge_by_regime=[1,1,1,1]",
    "data.synthetic.trend_drift=0",
    "data.synthetic.jump_shift=0",
)


@cache
def _experiment(*overrides: str) -> Experiment:
    config = compose([*SMALL, *overrides])
    return prepare(config, *split_bars(config))


def _run(experiment: Experiment, policy: Policy, split: str = "validation") -> Trace:
    return backtest(
        policy, experiment.bars, experiment.market, experiment.splits[split], experiment.config
    )


def _everywhere(experiment: Experiment, horizon: int, regression: Regression) -> Floats:
    """Return the forecast of every bar."""
    later = forecast(experiment, horizon, regression, in_train=False)
    return forecast(experiment, horizon, regression, in_train=True) + later


def _looped_targets(experiment: Experiment, horizon: int) -> dict[int, float]:
    """Return row -> target, one decision after the other from the raw bars."""
    bars, train, env = experiment.bars, experiment.splits["train"], experiment.config.env
    prices = {"next_open": bars.open, "next_close": bars.close}[env.fill.value]
    flat_last = env.flat_last_bars or -1  # 0: nights are held
    found = {}
    for t in range(train.start, train.stop - 1):
        leave = t
        while leave < t + horizon and bars.bars_left[leave] > flat_last and leave < train.stop - 2:
            leave += 1
        if leave > t:
            gain = np.log(prices[leave + 1] / prices[t + 1]) / (leave - t)
            found[t] = gain / experiment.table.sigma[t]
    return found


def _scaled(experiment: Experiment) -> Floats:
    train, rows = experiment.splits["train"], experiment.table.features
    seen = rows[train.start : train.stop]
    clip = experiment.config.features.clip
    scaled = np.clip((rows - seen.mean(axis=0)) / seen.std(axis=0), -clip, clip)
    return np.asarray(scaled, np.float32).astype(np.float64)  # as the agent observes them


def _solved(x: Floats, y: Floats, penalty: float) -> Floats:
    """Return slope and, last, intercept by the normal equations."""
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred + penalty * np.eye(x.shape[1])
    slope: Floats = np.linalg.solve(gram, centred.T @ (y - y.mean()))
    return np.asarray(np.append(slope, y.mean() - x.mean(axis=0) @ slope))


def _predicted(x: Floats, solution: Floats) -> Floats:
    return np.asarray(x @ solution[:-1] + solution[-1])


def _independent_ridge(x: Floats, y: Floats, gap: int) -> Floats:
    """Choose the penalty by the last three quarters, each forecast from before it, and solve."""
    quarter = len(y) // 4
    scores = []
    for penalty in len(y) * np.array(PENALTIES):
        score = 0.0
        for k in (3, 2, 1):
            test = slice(len(y) - k * quarter, len(y) - (k - 1) * quarter)
            known = slice(0, test.start - gap)
            error = y[test] - _predicted(x[test], _solved(x[known], y[known], penalty))
            score += 1 - (error**2).sum() / ((y[test] - y[test].mean()) ** 2).sum()
        scores.append(score)
    return _solved(x, y, len(y) * PENALTIES[int(np.argmax(scores))])


@pytest.mark.parametrize(
    ("horizon", "overrides"),
    [
        (4, ()),
        (16, ("env.fill=next_close",)),
        (16, ("env.flat_last_bars=0", "env.no_open_last_bars=0")),
    ],
)
def test_ridge_forecast_equals_an_independent_computation(
    horizon: int, overrides: tuple[str, ...]
) -> None:
    experiment = _experiment(*overrides)
    train, x = experiment.splits["train"], _scaled(experiment)
    known = _looped_targets(experiment, horizon)
    rows, y = np.array(list(known)), np.array(list(known.values()))

    series = _everywhere(experiment, horizon, ridge)

    after = slice(train.stop, len(series))
    expected = _predicted(x[after], _independent_ridge(x[rows], y, horizon))
    np.testing.assert_allclose(series[after], expected, rtol=1e-8, atol=1e-12)


def test_ridge_penalty_is_chosen_in_time_order_behind_a_gap() -> None:
    draw, without_gap = np.random.default_rng(0), 0
    for _ in range(12):
        x = np.cumsum(draw.normal(size=(500, 3)), axis=0)
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        y = np.convolve(draw.normal(size=539), np.ones(40) / 40, "valid")  # overlapping targets
        solution = _independent_ridge(x, y, 40)
        np.testing.assert_allclose(ridge(x, y, 40, x), _predicted(x, solution), atol=1e-10)
        without_gap += not np.allclose(solution, _independent_ridge(x, y, 0))
    assert without_gap  # the gap decides


def test_setting_is_the_best_of_all_on_train_by_its_scorecard() -> None:
    experiment = _experiment(*LINEAR)
    train = experiment.splits["train"]
    found = supervised_policies(experiment)[0]
    sharpes = {}
    for horizon in supervised.HORIZONS:
        series = _everywhere(experiment, horizon, ridge)
        own = series[train.start : train.stop]
        for entry in own[own != 0].std() * np.array(supervised.ENTRIES):
            for fraction in supervised.EXIT_FRACTIONS:
                policy = replace(found, series=-series, entry=entry, exit=fraction * entry)
                key = horizon, entry, fraction * entry
                sharpes[key] = scorecard(_run(experiment, policy, "train")).sharpe_annual
    horizon, entry, leave = max(sharpes, key=lambda key: sharpes[key])
    assert (found.entry, found.exit) == (entry, leave)
    assert scorecard(_run(experiment, found, "train")).sharpe_annual == max(sharpes.values()) > 0


def _shaken(experiment: Experiment, start: int) -> Bars:
    """Return the bars with other prices from row `start` on."""
    moves = np.random.default_rng(0).normal(0, 0.003, len(experiment.bars) - start)
    factor = np.append(np.ones(start), np.exp(np.cumsum(moves)))
    prices = ("open", "high", "low", "close")
    return replace(
        experiment.bars, **{name: getattr(experiment.bars, name) * factor for name in prices}
    )


@pytest.mark.parametrize("name", REGRESSIONS)
def test_forecast_before_a_change_of_later_bars_stays_as_it_was(name: str) -> None:
    experiment = _experiment()
    splits = experiment.splits
    change = splits["validation"].start + 500
    other = prepare(
        experiment.config, _shaken(experiment, change), splits | {"test": splits["validation"]}
    )
    before, after = (_everywhere(one, 16, REGRESSIONS[name]) for one in (experiment, other))
    np.testing.assert_array_equal(before[:change], after[:change])
    assert before[: splits["train"].stop].any()
    assert not np.array_equal(before[change:], after[change:])


@pytest.mark.parametrize("name", REGRESSIONS)
def test_forecast_changes_nothing_when_prices_behind_the_train_split_change(name: str) -> None:
    """The targets: features stay, so that not even a coefficient may move."""
    experiment = _experiment()
    rows = experiment.market.bars.copy()
    stop = experiment.splits["train"].stop
    rows["open"][stop:] *= 2.0
    rows["close"][stop:] *= 2.0
    other = replace(experiment, market=replace(experiment.market, bars=rows))
    before, after = (_everywhere(one, 16, REGRESSIONS[name]) for one in (experiment, other))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_forecast_of_a_training_block_has_seen_no_price_of_it_or_later(name: str) -> None:
    # With nights held, targets would reach over the border of a block.
    experiment = _experiment("env.flat_last_bars=0", "env.no_open_last_bars=0")
    train = experiment.splits["train"]
    borders = np.linspace(train.start, train.stop, BLOCKS + 1).astype(int)
    rows = experiment.market.bars.copy()
    rows["open"][borders[2] :] *= 2.0
    other = replace(experiment, market=replace(experiment.market, bars=rows))
    before, after = (_everywhere(one, 64, REGRESSIONS[name]) for one in (experiment, other))
    assert not before[train.start : borders[1]].any()
    seen = slice(train.start, borders[3])
    np.testing.assert_array_equal(before[seen], after[seen])
    assert before[seen].any()
    later = slice(borders[3], borders[4])
    assert not np.array_equal(before[later], after[later])


def test_targets_of_the_last_decisions_end_inside_the_train_split() -> None:
    experiment = _experiment("env.flat_last_bars=0", "env.no_open_last_bars=0")
    stop = experiment.splits["train"].stop
    rows, leave, _ = targets(experiment, 64)
    assert rows[-1] == stop - 3
    assert leave.max() == stop - 2  # filled in bar stop - 1


def test_planted_edge_is_found_and_traded_out_of_sample() -> None:
    experiment = _experiment(*LINEAR, "data.synthetic.edge=0.3")
    validation = experiment.splits["validation"]
    seen = slice(validation.start, validation.stop)
    deviation = generate(experiment.config.data.synthetic).deviation[seen]
    series = _everywhere(experiment, 4, ridge)[seen]
    assert np.corrcoef(series, -deviation)[0, 1] > 0.9
    for policy in supervised_policies(experiment):
        assert scorecard(_run(experiment, policy)).sharpe_annual > 5.0, policy.name


def test_where_no_setting_earns_its_costs_on_train_nothing_is_traded() -> None:
    experiment = _experiment(*LINEAR, "data.synthetic.edge=0.0", "costs.half_spread_bps=50.0")
    for policy in supervised_policies(experiment):
        for split in ("train", "validation"):
            assert not _run(experiment, policy, split).fill_quantity.any(), policy.name


def test_market_without_an_edge_earns_nothing_out_of_sample() -> None:
    experiment = _experiment(*LINEAR, "data.synthetic.edge=0.0")
    for policy in supervised_policies(experiment):
        assert scorecard(_run(experiment, policy)).sharpe_annual <= 0.0, policy.name


def test_same_market_gives_the_same_policies_twice() -> None:
    experiment = _experiment()
    first, again = supervised_policies(experiment), supervised_policies(experiment)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_equal(vars(one), vars(other))
        assert one.series is not None
        assert one.series.dtype == np.float64
        assert len(one.series) == len(experiment.bars)
        assert np.isfinite(one.series).all()
    assert [policy.name for policy in first] == ["ridge", "boosting"]


def test_training_split_too_short_for_any_forecast_leaves_the_policies_flat() -> None:
    experiment = _experiment()
    start = experiment.splits["train"].start
    short = replace(experiment.splits["train"], stop=start + 60)
    experiment = replace(experiment, splits=experiment.splits | {"train": short})
    for policy in supervised_policies(experiment):
        assert not _run(experiment, policy).fill_quantity.any()
