"""Backtests: a trace known by hand, and every kind of policy through the same loop."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.trading.builders import of_minutes

from ppo_workbench.cli.main import compose
from ppo_workbench.config import ActionSet, Activation, Config
from ppo_workbench.delivery.network import PolicyWeights, forward_row
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import compute_market
from ppo_workbench.market.sources import load_bars
from ppo_workbench.market.splits import Split
from ppo_workbench.scoring.backtest import (
    NETWORK,
    RANDOM,
    SERIES,
    THRESHOLD,
    Policy,
    action_towards,
    backtest,
)
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.reference.tuning import ThresholdScorer
from ppo_workbench.scoring.reference.yardsticks import (
    threshold_candidates,
    tuned_threshold,
    yardsticks,
)
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import prepare, split_bars
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rules.names import BIT
from ppo_workbench.trading.rules.params import build_params
from ppo_workbench.trading.table import TradingMarket, trading_market

SELL, HOLD, BUY = 0, 1, 2
START, STOP = 2000, 2400


@cache
def _config(*overrides: str) -> Config:
    base = [
        "tracking=none",
        "data.synthetic.sessions=12",
        "features.volatility_slow_bars=100",
        "risk=unconstrained",
        "env.episode_bars=390",
        "splits.gap_bars=0",
        "reward.bar_volatility_frac=0.0005",
        "reward.annual_volatility_frac=0.16",
    ]
    return of_minutes(compose([*base, *overrides]))


@cache
def _bars() -> Bars:
    return load_bars(_config().data)


@cache
def _market(*overrides: str) -> TradingMarket:
    config = _config(*overrides)
    table = compute_market(_bars(), config.features)
    return trading_market(_bars(), table, config, Scaler.fit(table.features[500:1500], 8.0))


def _run(policy: Policy, *overrides: str, market: TradingMarket | None = None) -> Trace:
    split = Split("some", START, STOP)
    return backtest(policy, _bars(), market or _market(*overrides), split, _config(*overrides))


def _series(*wishes: tuple[int, float]) -> npt.NDArray[np.float64]:
    """Return NaN = keep, but for the wishes (bars after `START`, exposure)."""
    series = np.full(len(_bars()), np.nan)
    for at, exposure in wishes:
        series[START + at] = exposure
    return series


def test_trace_of_a_known_series_is_what_the_bars_say() -> None:
    trace = _run(Policy("known", SERIES, series=_series((3, 1.0), (10, 0.0), (20, -1.0))))
    bars = _bars()
    assert len(trace.action) == STOP - 1 - START
    assert np.array_equal(trace.close, bars.close[START + 1 : STOP])
    assert np.array_equal(trace.session, bars.session[START + 1 : STOP])
    assert np.array_equal(trace.end_ns, bars.end_ns[START + 1 : STOP])
    assert np.flatnonzero(trace.action != HOLD).tolist() == [3, 10, 20]
    assert trace.action[[3, 10, 20]].tolist() == [BUY, SELL, SELL]
    fills = np.flatnonzero(trace.fill_quantity)
    assert fills.tolist() == [3, 10, 20]
    assert np.array_equal(trace.fill_price[fills], bars.open[START + 1 + fills])
    assert trace.fill_quantity[10] == -trace.fill_quantity[3] < 0
    assert (trace.exposure[3:10] > 0.99).all()
    assert (trace.exposure[10:20] == 0).all()
    assert (trace.exposure[20:] < -0.9).all()


def test_trace_equity_is_cash_and_position_rebuilt_from_its_own_fills() -> None:
    trace = _run(Policy("random", RANDOM, seed=1), "costs=us_equity", "risk=moderate")
    spent = trace.fill_quantity * trace.fill_price + trace.cost_usd - trace.carry_usd
    cash = trace.initial_equity_usd - np.cumsum(spent)
    shares = np.cumsum(trace.fill_quantity)
    assert np.count_nonzero(trace.fill_quantity) > 50
    assert np.allclose(cash + shares * trace.close, trace.equity_usd, rtol=1e-9, atol=0)
    logs = trace.reward_components[:, 0].sum() * 0.0005
    change = np.log(trace.equity_usd[-1] / trace.initial_equity_usd)
    assert logs == pytest.approx(change, rel=1e-9, abs=1e-12)
    assert not trace.rejected.any()
    assert not trace.violated.any()


def _network(sizes: list[int], activation: Activation, seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out)]
        layers += [torch.nn.Tanh() if activation is Activation.tanh else torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _weights(network: torch.nn.Sequential, activation: Activation) -> PolicyWeights:
    linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    layers = [(x.weight.detach().numpy(), x.bias.detach().numpy()) for x in linear]
    return PolicyWeights.from_layers(layers, activation)


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("hidden", [[], [16], [64, 64], [5, 128, 7]])
def test_forward_equals_torch_and_itself_bit_for_bit(
    activation: Activation, hidden: list[int]
) -> None:
    network = _network([12, *hidden, 3], activation)
    weights = _weights(network, activation)
    observations = np.random.default_rng(0).normal(0, 2, (50, 12)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(observations)).numpy()

    def forward() -> npt.NDArray[np.float32]:
        scratch = np.full_like(weights.scratch(), np.nan)
        rows = [forward_row(row, weights, scratch).copy() for row in observations]
        return np.stack(rows)

    assert np.abs(forward() - expected).max() < 1e-5
    assert forward().tobytes() == forward().tobytes()


def test_network_policy_takes_the_best_allowed_action_of_torch() -> None:
    config, market = _config("risk=moderate"), _market("risk=moderate")
    network = _network([market.observation_size, 32, 3], Activation.tanh, seed=4)
    policy = Policy("net", NETWORK, weights=_weights(network, Activation.tanh))
    trace = _run(policy, "risk=moderate")
    again = _run(policy, "risk=moderate")
    assert trace.action.tobytes() == again.action.tobytes()
    assert trace.equity_usd.tobytes() == again.equity_usd.tobytes()
    assert trace.mask[np.arange(len(trace.action)), trace.action].all()
    assert not (trace.mask & (trace.blocked_by != 0)).any()
    held = np.round(np.concatenate([[0.0], trace.exposure[:-1]]))
    for action, top in ((0, -1.0), (2, 1.0)):  # at an end the order that changes nothing is closed
        unasked = ~trace.mask[:, action] & (trace.blocked_by[:, action] == 0)
        assert unasked.any()
        assert (held[unasked] == top).all()
    free = _run(replace(policy, use_mask=False), "risk=moderate")
    assert free.rejected.any()  # unmasked, it asks for what it may not have
    assert config.env.forbidden_action.value == "reject"


def test_threshold_policy_trades_against_a_large_signal_and_leaves_near_zero() -> None:
    signal = np.zeros(len(_bars()))
    signal[START + 2 : START + 6] = [-2.0, -1.0, -0.6, -0.2]  # in at 2, out at 5
    signal[START + 10 : START + 13] = [1.5, 0.7, -0.1]  # short at 10, out at 12
    signal[START + 20] = np.nan
    policy = Policy("threshold", THRESHOLD, series=signal, entry=1.2, exit=0.3)
    trace = _run(policy)
    moved = np.flatnonzero(trace.action != HOLD)
    assert moved.tolist() == [2, 5, 10, 12]
    assert trace.action[moved].tolist() == [BUY, SELL, SELL, BUY]


def test_threshold_policy_leaves_once_the_signal_has_crossed() -> None:
    signal = np.zeros(len(_bars()))
    signal[START + 2 : START + 5] = [-2.0, 0.9, 0.9]  # long, then the signal is on its side
    trace = _run(Policy("threshold", THRESHOLD, series=signal, entry=1.2, exit=0.3))
    assert np.flatnonzero(trace.action != HOLD).tolist() == [2, 3]


def test_random_policy_takes_legal_actions_only_and_follows_its_seed() -> None:
    first, again, other = (
        _run(Policy("random", RANDOM, seed=seed), "risk=conservative") for seed in (1, 1, 2)
    )
    assert first.mask[np.arange(len(first.action)), first.action].all()
    assert first.action.tobytes() == again.action.tobytes() != other.action.tobytes()
    assert set(first.action) == {SELL, HOLD, BUY}


def test_yardsticks_flat_earns_nothing_and_buy_and_hold_ignores_house_rules() -> None:
    _, buy_and_hold, flat = (
        _run(policy, "risk=conservative") for policy in yardsticks(len(_bars()), 0)
    )
    assert (flat.equity_usd == flat.initial_equity_usd).all()
    assert np.count_nonzero(buy_and_hold.fill_quantity) == 1
    assert (buy_and_hold.exposure > 0.99).all()  # overnight too
    assert not buy_and_hold.rejected.any()


def test_threshold_tuned_is_the_best_of_its_candidates_on_train() -> None:
    config = _config("risk=moderate", "data.synthetic.sessions=20")
    experiment = prepare(config, *split_bars(config))
    policy = tuned_threshold(experiment)
    assert policy is not None
    assert policy.name.startswith("threshold rule")
    assert policy.exit == 0.25 * policy.entry


@pytest.mark.parametrize(
    "overrides",
    [
        ("risk=moderate",),
        ("risk=conservative", "risk.daily_loss.flatten=true", "costs=us_equity"),
        ("env.action_set=target", "env.exposure_levels=[-1.0,-0.5,0.0,0.5,1.0]", "risk=moderate"),
        ("risk=moderate", "env.mask_all_true=true", "env.forbidden_action=execute"),
    ],
)
def test_threshold_scorer_gives_every_candidate_the_sharpe_of_its_scorecard(
    overrides: tuple[str, ...],
) -> None:
    config = _config(*overrides, "data.synthetic.sessions=30")
    experiment = prepare(config, *split_bars(config))
    scorer, train = ThresholdScorer(experiment), experiment.splits["train"]
    candidates = threshold_candidates(experiment)
    traces = [
        backtest(policy, experiment.bars, experiment.market, train, config) for policy in candidates
    ]
    expected = [scorecard(trace).sharpe_annual for trace in traces]
    assert len(set(expected)) > 12
    assert [scorer.sharpe(policy) for policy in candidates] == expected


def test_threshold_scorer_stops_at_ruin_as_the_trace_does() -> None:
    config = _config("data.synthetic.sessions=30")
    experiment = prepare(config, *split_bars(config))
    train, rows = experiment.splits["train"], experiment.market.bars.copy()
    rows["open"][train.start + 900 :] *= 3
    rows["close"][train.start + 900 :] *= 3
    experiment = replace(experiment, market=replace(experiment.market, bars=rows))
    short = Policy("short", THRESHOLD, series=np.full(len(rows), 9.0), entry=1.0, exit=0.5)
    trace = backtest(short, experiment.bars, experiment.market, train, config)
    assert len(trace) < len(train) - 1
    assert ThresholdScorer(experiment).sharpe(short) == scorecard(trace).sharpe_annual


def _wishing(rung: int, wanted: int, blocked: set[int], **changes: Any) -> int:
    config = _config(*(f"env.{name}={value}" for name, value in changes.items()))
    market = _market(*(f"env.{name}={value}" for name, value in changes.items()))
    mask = np.array([action not in blocked for action in range(market.space.size)])
    return action_towards(rung, wanted, mask, build_params(config, market.space)[0])


def test_wish_that_is_forbidden_becomes_the_nearest_allowed_action() -> None:
    target = {"action_set": ActionSet.target.value}
    assert _wishing(2, 0, set(), **target) == 1  # long to short at once
    assert _wishing(2, 0, {1}, **target) == 2  # the flip is forbidden: flat is nearer than long
    assert _wishing(2, 0, {1, 2}, **target) == 0  # HOLD
    assert _wishing(1, 1, set(), **target) == 0  # HOLD rather than naming the rung it is on
    assert _wishing(1, 2, {BUY}) == HOLD
    assert _wishing(2, 2, {HOLD, BUY}) == SELL  # a flatten rule leaves no other


def test_ruin_ends_the_trace() -> None:
    market = _market()
    rows = market.bars.copy()
    rows["open"][START + 5 :] *= 3
    rows["close"][START + 5 :] *= 3
    trace = _run(
        Policy("short", SERIES, series=_series((0, -1.0))), market=replace(market, bars=rows)
    )
    assert len(trace.action) == 5
    assert trace.equity_usd[-1] < 0 < trace.equity_usd[-2]


def test_trace_blocked_bits_name_the_rule() -> None:
    market = _market("risk=moderate")
    rows = market.bars.copy()
    rows["rule_bits"] = BIT["volatility"]
    trace = _run(
        Policy("wish", SERIES, series=np.ones(len(rows))),
        "risk=moderate",
        market=replace(market, bars=rows),
    )
    assert (trace.action == HOLD).all()
    assert (trace.blocked_by[:, BUY] == BIT["volatility"]).all()
    assert trace.rule_names[BIT["volatility"].bit_length() - 1] == "volatility"
