"""Stitched curves: the parts' returns and trades, one after the other, and CPCV's paths."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skfolio.model_selection import CombinatorialPurgedCV

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config, Protocol
from ppo_workbench.market.folds import evaluation_folds
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.splits import Fold, Split
from ppo_workbench.scoring.backtest import RANDOM, Policy, backtest
from ppo_workbench.scoring.metrics import round_trips, scorecard
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.sharpe import SharpeMoments, probabilistic_sharpe
from ppo_workbench.scoring.stitch import paths, stitch
from ppo_workbench.scoring.trace import Trace, TraceError
from ppo_workbench.trading.experiment import prepare_fold_with_test, usable_bars
from ppo_workbench.trading.rewards import REWARD_NAMES

TraceMaker = Callable[..., Trace]
DAY_NS = 86_400 * 10**9
ADDED = ("n_trades", "n_fills", "n_sessions", "n_decisions", "passive_breaches")


def later(trace: Trace, days: int) -> Trace:
    """Move a trace in time."""
    return replace(
        trace,
        end_ns=trace.end_ns + days * DAY_NS,
        session=trace.session + days,
        start_ns=trace.opening_ns() + days * DAY_NS,
    )


def traded(seed: int, sessions: int, bars: int) -> Trace:
    """Trade at random from cash, `bars` rows a session; most end with an open position."""
    random = np.random.default_rng(seed)
    n = sessions * bars
    price = 50.0 * np.exp(np.cumsum(random.normal(0, 0.01, n)))
    close = price * np.exp(random.normal(0, 0.002, n))
    wanted = random.choice([-40.0, 0.0, 0.0, 40.0, 80.0], n)
    quantity = np.where(random.random(n) < 0.4, np.diff(wanted, prepend=0.0), 0.0)
    held = np.cumsum(quantity)
    cost = np.abs(quantity) * price * 2e-4
    carry = np.where(np.concatenate(([0.0], held[:-1])) != 0, random.normal(0, 0.1, n), 0.0)
    initial = float(random.choice([10_000.0, 25_000.0]))
    equity = initial + np.cumsum(carry - cost - quantity * price) + held * close
    session, slot = np.divmod(np.arange(n), bars)
    return Trace(
        end_ns=session * DAY_NS + (slot + 1) * (DAY_NS // (2 * bars)),
        session=session,
        close=close,
        action=np.ones(n, np.int8),
        mask=random.random((n, 3)) < 0.9,
        blocked_by=random.integers(0, 8, (n, 3)),
        fill_quantity=quantity,
        fill_price=price,
        cost_usd=cost,
        carry_usd=carry,
        equity_usd=equity,
        exposure=held * close / equity,
        reward_components=random.normal(0, 1, (n, len(REWARD_NAMES))),
        regime=np.zeros(n, np.int8),
        rejected=random.integers(0, 8, n),
        violated=random.integers(0, 8, n),
        passive=np.zeros(n, np.int64),
        undecided=np.zeros(n, np.bool_),
        initial_equity_usd=initial,
        action_names=("SELL", "HOLD", "BUY"),
        rule_names=("capital", "short_sale_restriction", "volatility"),
        rule_severity=("impossible", "regulatory", "house"),
        bars_per_session=bars,
        sessions_per_year=252,
        cash_interest_annual_bps=400.0,
        start_ns=-3600 * 10**9,
    )


def rebuilt_equity(trace: Trace) -> npt.NDArray[np.float64]:
    """Book the fills of a trace anew, each account from the cash that it took over."""
    cash, rebuilt = trace.initial_equity_usd, []
    for rows in trace.accounts():
        quantity, price = trace.fill_quantity[rows], trace.fill_price[rows]
        flows = trace.carry_usd[rows] - trace.cost_usd[rows] - quantity * price
        rebuilt.append(cash + np.cumsum(flows) + np.cumsum(quantity) * trace.close[rows])
        cash = float(rebuilt[-1][-1])
    return np.concatenate(rebuilt)


def test_stitch_two_parts_by_hand_compounds_and_scales(make_trace: TraceMaker) -> None:
    one = make_trace([110, 120], fill_quantity=[1, 0], fill_price=[50, 0], cost_usd=[2, 0])
    other = later(
        make_trace(
            [90, 99],
            initial_equity_usd=60.0,
            fill_quantity=[-3, 3],
            fill_price=[10, 20],
            cost_usd=[1, 4],
            carry_usd=[0, 5],
        ),
        10,
    )

    joined = stitch([one, other])

    # The second account has 60 of its own for the 120 that it takes over: everything doubles.
    assert joined.equity_usd.tolist() == [110, 120, 180, 198]
    assert joined.fill_quantity.tolist() == [1, 0, -6, 6]
    assert joined.fill_price.tolist() == [50, 0, 10, 20]
    assert joined.cost_usd.tolist() == [2, 0, 2, 8]
    assert joined.carry_usd.tolist() == [0, 0, 0, 10]
    assert joined.session.tolist() == [0, 1, 10, 11]
    assert joined.initial_equity_usd == 100.0
    assert joined.restarts == ((2, other.opening_ns()),)
    assert joined.accounts() == [slice(0, 2), slice(2, 4)]


def test_stitch_open_position_is_not_closed_by_the_next_account(make_trace: TraceMaker) -> None:
    bought = make_trace([100, 100], fill_quantity=[1, 0], fill_price=[50, 0])
    round_trip = later(make_trace([100, 100], fill_quantity=[-1, 1], fill_price=[60, 50]), 5)

    trips = round_trips(stitch([bought, round_trip]))

    assert trips.direction.tolist() == [-1]
    assert (trips.entry_row.tolist(), trips.exit_row.tolist()) == ([2], [3])
    assert trips.pnl_usd.tolist() == [10]


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    bars=st.sampled_from([1, 4]),
    seed=st.integers(0, 10_000),
)
def test_stitch_keeps_returns_trades_and_books_of_its_parts(
    lengths: list[int], bars: int, seed: int
) -> None:
    parts = [later(traded(seed + k, n, bars), 20 * k) for k, n in enumerate(lengths)]

    joined = stitch(parts)

    for figures in ("daily_returns", "cash_returns"):
        expected = np.concatenate([getattr(part, figures)() for part in parts])
        np.testing.assert_allclose(getattr(joined, figures)(), expected, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(rebuilt_equity(joined), joined.equity_usd, rtol=1e-9)
    growth = np.prod([part.equity_usd[-1] / part.initial_equity_usd for part in parts])
    assert joined.equity_usd[-1] / joined.initial_equity_usd == pytest.approx(growth)
    cards, card = [scorecard(part) for part in parts], scorecard(joined)
    for name in ADDED:
        assert getattr(card, name) == sum(getattr(one, name) for one in cards)
    for severity in card.violations:
        assert card.violations[severity] == sum(one.violations[severity] for one in cards)
        assert card.rejections[severity] == sum(one.rejections[severity] for one in cards)
    trips = [round_trips(part) for part in parts]
    np.testing.assert_allclose(
        round_trips(joined).return_frac, np.concatenate([one.return_frac for one in trips])
    )
    assert card.win_rate_frac == pytest.approx(
        sum(one.win_rate_frac * one.n_trades for one in cards) / max(card.n_trades, 1)
    )


def test_stitch_of_stitched_traces_is_the_stitch_of_all_parts() -> None:
    parts = [later(traded(k, 9, 4), 20 * k) for k in range(4)]

    nested, flat = stitch([stitch(parts[:2]), stitch(parts[2:])]), stitch(parts)

    assert nested.restarts == flat.restarts
    np.testing.assert_allclose(nested.equity_usd, flat.equity_usd)
    assert scorecard(nested).n_trades == scorecard(flat).n_trades > 0


def test_stitch_of_one_trace_is_that_trace() -> None:
    trace = traded(1, 30, 4)

    joined = stitch([trace])

    assert scorecard(joined) == scorecard(trace)
    assert joined.equity_usd.tolist() == trace.equity_usd.tolist()


def test_stitch_statistics_are_those_of_the_joined_returns() -> None:
    parts = [later(traded(k, 30, 4), 40 * k) for k in range(3)]
    excess = np.concatenate([part.daily_returns() - part.cash_returns() for part in parts])

    path = SessionPath.from_trace(stitch(parts))

    np.testing.assert_allclose(path.excess, excess, rtol=1e-9, atol=1e-13)
    found, expected = (
        probabilistic_sharpe(SharpeMoments.of(values)).probability
        for values in (path.excess, excess)
    )
    assert 0.0 < found < 1.0
    assert found == pytest.approx(expected)


def test_stitch_ends_with_the_part_that_is_ruined(make_trace: TraceMaker) -> None:
    ruined = later(make_trace([50, -20]), 10)
    parts = [make_trace([110, 120]), ruined, later(make_trace([110, 130]), 20)]

    assert stitch(parts).equity_usd.tolist() == [110, 120, 60, -24]


def _otherwise(trace: Trace) -> Trace:
    return replace(trace, action_names=("DOWN", "HOLD", "UP"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda trace: trace, "trace 2 begins in session 0, the one before ends in session 1;"),
        (lambda trace: later(trace, 1), "begins in session 1, .* ends in session 1; give"),
        (lambda trace: later(trace, -5), "begins in session -5, .* share no session"),
        (
            lambda trace: replace(later(trace, 9), end_ns=trace.end_ns, start_ns=None),
            "begins in session 9, the one before ends in session 1",
        ),
        (lambda trace: _otherwise(later(trace, 9)), r"trace 2 has action_names=\('DOWN'"),
        (
            lambda trace: replace(later(trace, 9), rule_severity=("house",) * 3),
            "trace 2 has rule_severity=",
        ),
        (lambda trace: replace(later(trace, 9), sessions_per_year=365), "sessions_per_year=365"),
    ],
)
def test_stitch_traces_that_do_not_follow_are_refused(
    make_trace: TraceMaker, change: Callable[[Trace], Trace], sentence: str
) -> None:
    trace = make_trace([100, 101])

    with pytest.raises(TraceError, match=sentence):
        stitch([trace, change(trace)])


def test_stitch_of_nothing_is_refused() -> None:
    with pytest.raises(TraceError, match="0 traces, needs at least 1"):
        stitch([])


def _cpcv_folds(groups: int, tests: int) -> tuple[list[Fold], CombinatorialPurgedCV]:
    cv = CombinatorialPurgedCV(groups, tests)
    train, validation = (Split("train", 900, 950),), Split("validation", 960, 990)
    folds = [
        Fold(
            f"fold_{number}",
            train,
            validation,
            tuple(Split(f"test_{g}", 100 * g, 100 * g + 100) for g in chosen.tolist()),
        )
        for number, chosen in enumerate(cv.test_set_index)
    ]
    return folds, cv


@pytest.mark.parametrize(("groups", "tests", "count"), [(6, 2, 5), (5, 3, 6), (4, 3, 3)])
def test_paths_of_cpcv_take_every_group_once_as_skfolio_does(
    make_trace: TraceMaker, groups: int, tests: int, count: int
) -> None:
    folds, cv = _cpcv_folds(groups, tests)
    # The regime of a part tells which fold made it.
    made = [
        [later(make_trace([100, 101], regime=[number, number]), split.start) for split in fold.test]
        for number, fold in enumerate(folds)
    ]

    found = paths(folds, made)

    assert len(found) == count == cv.n_test_paths
    by_path = cv.get_path_ids()
    for number, path in enumerate(found):
        assert path.session[::2].tolist() == [100 * group for group in range(groups)]
        expected = [
            fold
            for group in range(groups)
            for fold, chosen in enumerate(cv.test_set_index)
            if group in chosen and by_path[fold][chosen.tolist().index(group)] == number
        ]
        assert path.regime[::2].tolist() == expected


def test_paths_of_folds_in_any_order_run_forward(make_trace: TraceMaker) -> None:
    folds = _cpcv_folds(4, 2)[0][::-1]
    made = [[later(make_trace([100, 101]), split.start) for split in fold.test] for fold in folds]

    assert [path.session[::2].tolist() for path in paths(folds, made)] == [[0, 100, 200, 300]] * 3


def test_paths_with_missing_traces_are_refused(make_trace: TraceMaker) -> None:
    folds, _ = _cpcv_folds(4, 2)
    trace = make_trace([100, 101])
    made = [[later(trace, split.start) for split in fold.test] for fold in folds]

    with pytest.raises(TraceError, match="5 folds with traces for 6 folds"):
        paths(folds, made[:-1])
    with pytest.raises(TraceError, match="fold_0 has 1 traces for 2 test ranges"):
        paths(folds, [made[0][:1], *made[1:]])
    with pytest.raises(TraceError, match="tested 2 to 3 times, must be equally often"):
        paths(folds[:-1], made[:-1])


@cache
def _configured(protocol: Protocol) -> Config:
    config = copy.deepcopy(compose(["tracking=none", "data=sp500", "env.episode_bars=60"]))
    config.splits.protocol, config.splits.folds = protocol, 4
    return config


@pytest.mark.parametrize(
    ("protocol", "count"),
    [(Protocol.walk_forward_rolling, 1), (Protocol.purged_kfold, 1), (Protocol.cpcv, 3)],
)
def test_paths_of_real_folds_cover_every_test_session(protocol: Protocol, count: int) -> None:
    config = _configured(protocol)
    bars, warmup = usable_bars(config)
    config = derived(config, bars)
    folds = evaluation_folds(bars, config.splits, warmup)
    policy = Policy("random", RANDOM, seed=4)
    made = []
    for fold in folds:
        experiment = prepare_fold_with_test(config, bars, fold)
        made.append(
            [backtest(policy, experiment.bars, experiment.market, t, config) for t in fold.test]
        )

    found = paths(folds, made)

    assert len(found) == count
    borders = sorted({(test.start, test.stop) for fold in folds for test in fold.test})
    marked = [bar for start, stop in borders for bar in range(start + 1, stop)]
    for path in found:
        assert path.session.tolist() == bars.session[marked].tolist()
        assert len(path.accounts()) == 4
        card = scorecard(path)
        assert card.n_sessions == len(marked)
        assert card.n_trades > 100
        assert np.isfinite(list(card.to_dict().values())).all()
