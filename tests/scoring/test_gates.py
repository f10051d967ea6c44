"""Promotion gates: evidence that passes all of them, then each gate refusing it alone."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from ppo_workbench.config import PromotionProfile
from ppo_workbench.scoring import targets
from ppo_workbench.scoring.audit.verdict import AuditReport
from ppo_workbench.scoring.gates import checks as gates
from ppo_workbench.scoring.gates import profiles as gate_profiles
from ppo_workbench.scoring.gates.checks import (
    Alternative,
    Gate,
    better,
    decidedly_better,
    failed,
    target_drawdown,
    target_sharpe,
    target_win_rate,
)
from ppo_workbench.scoring.gates.profiles import (
    CHAMPION,
    EXECUTE,
    MODEL,
    REJECT,
    THRESHOLD,
    Evidence,
    judge,
)
from ppo_workbench.scoring.gates.sampled import (
    deflated_validation,
    expectancy,
    probabilistic_test,
    probability_of_loss,
)
from ppo_workbench.scoring.metrics import Scorecard, scorecard
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.resampling import Difference
from ppo_workbench.scoring.statistics.sharpe import SharpeMoments, probabilistic_sharpe
from ppo_workbench.scoring.trace import Trace

DAYS, YEAR = 1000, 252
NORMAL = NormalDist()
TraceMaker = Callable[..., Trace]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def _noise(seed: int, days: int = DAYS) -> Floats:
    """Return noise of mean 0 and deviation 1, exactly."""
    noise = np.random.default_rng(seed).standard_normal(days)
    return np.asarray((noise - noise.mean()) / noise.std(ddof=1), np.float64)


def _returns(sharpe: float, seed: int = 0, deviation: float = 0.004) -> Floats:
    """Return session returns with exactly this annual Sharpe ratio."""
    return (_noise(seed) + sharpe / sqrt(YEAR)) * deviation


def _trace(
    make_trace: TraceMaker, returns: Floats, won: int = 7, trips: int = DAYS // 2, **changes: Any
) -> Trace:
    """Make a trace of these returns whose trips win 20 bps `won` times in 10, else lose 20."""
    days = len(returns)
    quantity, price = np.zeros(days), np.full(days, 100.0)
    for trip in range(trips):
        quantity[2 * trip : 2 * trip + 2] = 1.0, -1.0
        price[2 * trip + 1] += 0.2 if trip * 7 % 10 < won else -0.2
    fields = {"fill_quantity": quantity, "fill_price": price, "exposure": np.full(days, 0.5)}
    return make_trace(100.0 * np.cumprod(1.0 + returns), **fields | changes)


def _audit(count: int = 0, unaudited: tuple[str, ...] = ()) -> AuditReport:
    return AuditReport((), {"capital": count}, {}, {}, {}, unaudited, DAYS, 0, 0, {})


def _remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a memory of what it has returned for equal arguments."""
    known = dict[bytes, Any]()

    def answer(*arguments: Any) -> Any:
        key = pickle.dumps(arguments)
        if key not in known:
            known[key] = function(*arguments)
        return known[key]

    return answer


@pytest.fixture(scope="module", autouse=True)
def _resamples_once() -> Iterator[None]:
    """Resample equal evidence once: each test changes one part of it, and `judge` asks for all."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("expectancy", "probability_of_loss", "paired_difference"):
            patch.setattr(gate_profiles, name, _remembering(getattr(gate_profiles, name)))
        yield


@pytest.fixture
def good(make_trace: TraceMaker) -> Evidence:
    """Return evidence that every profile passes."""
    trace = _trace(make_trace, _returns(3.5))
    card = scorecard(trace)
    return Evidence(
        trace=trace,
        accesses=1,
        validation_excess=_returns(3.5, 1),
        trial_returns=np.array([_returns(3.0, seed) for seed in range(2, 8)]),
        trials=40,
        rivals={
            EXECUTE: SessionPath.from_returns(_returns(0.0, 20), YEAR),
            REJECT: SessionPath.from_returns(_returns(3.5, 21), YEAR),
            THRESHOLD: SessionPath.from_returns(_returns(3.0, 22), YEAR),
            CHAMPION: SessionPath.from_returns(_returns(3.2, 23), YEAR),
        },
        stressed={"costs_x2": ("costs x 2", card), "latency_1_bar": ("later", card)},
        audit=_audit(),
        golden_failure=None,
        golden_vectors=64,
        gaps=(390, 390),
        gap_asked=390,
        seen_test=0,
    )


Change = Callable[[Evidence, TraceMaker], Evidence]


def _with_trace(**settings: Any) -> Change:
    return lambda good, make: replace(
        good, trace=_trace(make, **{"returns": _returns(3.5), **settings})
    )


def _with_rival(name: str, sharpe: float) -> Change:
    def change(good: Evidence, make: TraceMaker) -> Evidence:
        path = SessionPath.from_returns(_returns(sharpe, 20), YEAR)
        return replace(good, rivals={**good.rivals, name: path})

    return change


def _with_stress(name: str) -> Change:
    def change(good: Evidence, make: TraceMaker) -> Evidence:
        card = scorecard(_trace(make, _returns(-0.1)))
        return replace(good, stressed={**good.stressed, name: ("changed", card)})

    return change


def _with(**changes: Any) -> Change:
    return lambda good, make: replace(good, **changes)


PROTOCOL: dict[str, Change] = {
    "ledger": _with(accesses=0),
    "split_hygiene": _with(gaps=(390, 389)),
    "audit": _with(audit=_audit(1)),
    "golden": _with(golden_failure="the hash does not agree"),
}
ALONE: list[tuple[PromotionProfile, str, Change]] = [
    *(
        (PromotionProfile.production, name, change)
        for name, change in {
            "round_trips": _with_trace(trips=99),
            "expectancy": _with_trace(won=5),
            "deflated_sharpe": _with(validation_excess=_returns(0.8, 1)),
            "probability_of_loss": _with(
                trial_returns=np.array([_returns(0.0, seed) for seed in range(2, 8)])
            ),
            "probabilistic_sharpe": _with(accesses=10**12),
            EXECUTE: _with_rival(EXECUTE, 3.4),
            REJECT: _with_rival(REJECT, 7.0),
            THRESHOLD: _with_rival(THRESHOLD, 3.6),
            CHAMPION: _with_rival(CHAMPION, 3.6),
            "costs_x2": _with_stress("costs_x2"),
            "latency_1_bar": _with_stress("latency_1_bar"),
            **{name: change for name, change in PROTOCOL.items() if name != "ledger"},
        }.items()
    ),
    *(
        (PromotionProfile.targets, name, change)
        for name, change in {
            "target_sharpe": _with_trace(returns=_returns(1.49, deviation=0.002)),
            "target_drawdown": _with_trace(returns=_returns(3.5, deviation=0.02)),
            "target_win_rate": _with_trace(won=6),
            "target_trades": _with_trace(trips=199),
            "target_exposure": _with_trace(exposure=np.full(DAYS, 0.199)),
            "probabilistic_sharpe": _with(accesses=10**12),
            **{name: change for name, change in PROTOCOL.items() if name != "ledger"},
        }.items()
    ),
    *((PromotionProfile.research, name, change) for name, change in PROTOCOL.items()),
]


@pytest.mark.parametrize("profile", PromotionProfile)
def test_good_evidence_passes_every_gate(good: Evidence, profile: PromotionProfile) -> None:
    gates = judge(profile, good)

    assert [gate.reason for gate in failed(gates)] == []
    assert len({gate.name for gate in gates}) == len(gates)


@pytest.mark.parametrize(
    ("profile", "name", "change"), ALONE, ids=lambda value: getattr(value, "value", value)
)
def test_gate_alone_refuses(
    good: Evidence, make_trace: TraceMaker, profile: PromotionProfile, name: str, change: Change
) -> None:
    gates = judge(profile, change(good, make_trace))

    assert [gate.name for gate in failed(gates)] == [name]


def test_every_gate_has_a_test_where_it_alone_refuses(good: Evidence) -> None:
    for profile in PromotionProfile:
        names = {gate.name for gate in judge(profile, good)}
        tested = {name for of, name, _ in ALONE if of is profile}
        # Without a look in the ledger there is no PSR of production and targets either.
        assert names - tested <= {"ledger"}


def test_rule_that_no_check_knows_refuses(good: Evidence) -> None:
    (gate,) = failed(judge(PromotionProfile.research, replace(good, audit=_audit(0, ("new",)))))

    assert gate.name == "audit"
    assert "new" in gate.reason


def test_test_bars_in_memory_during_training_refuse(good: Evidence) -> None:
    gates = failed(judge(PromotionProfile.research, replace(good, seen_test=1)))

    assert [gate.name for gate in gates] == ["split_hygiene"]


def test_absent_evidence_refuses_and_says_so(good: Evidence) -> None:
    rivals: dict[str, SessionPath | str] = {CHAMPION: "its file is damaged"}
    gates = failed(judge(PromotionProfile.production, replace(good, rivals=rivals, stressed={})))

    assert [gate.name for gate in gates] == [
        *(EXECUTE, THRESHOLD, CHAMPION),
        *("costs_x2", "latency_1_bar"),
    ]
    assert all(gate.reason.startswith("evidence is missing") for gate in gates)


def test_no_champion_passes_and_no_reject_baseline_is_not_asked(good: Evidence) -> None:
    rivals = {name: good.rivals[name] for name in (EXECUTE, THRESHOLD)}
    gates = judge(PromotionProfile.production, replace(good, rivals=rivals))

    assert failed(gates) == []
    assert REJECT not in {gate.name for gate in gates}


def _runs(*sharpes: float) -> list[SessionPath]:
    return [
        SessionPath.from_returns(_returns(sharpe, 30 + run), YEAR)
        for run, sharpe in enumerate(sharpes)
    ]


def test_masks_are_not_said_to_harm_where_seeds_of_one_training_differ_as_much(
    good: Evidence,
) -> None:
    rivals = {**good.rivals, REJECT: SessionPath.from_returns(_returns(7.0, 20), YEAR)}
    spread = {MODEL: _runs(3.5, 6.5, 2.0), REJECT: _runs(7.0, 2.0, 3.0)}
    lucky = judge(PromotionProfile.production, replace(good, rivals=rivals, every_seed=spread))
    alike = {MODEL: _runs(3.4, 3.5, 3.6), REJECT: _runs(6.9, 7.0, 7.1)}
    worse = judge(PromotionProfile.production, replace(good, rivals=rivals, every_seed=alike))

    assert failed(lucky) == []
    assert [gate.name for gate in failed(worse)] == [REJECT]
    assert "mean of 3 seeds each" in failed(worse)[0].reason


def test_one_lucky_seed_does_not_beat_the_threshold_rule_for_its_training(good: Evidence) -> None:
    path = SessionPath.from_returns(_returns(3.0, 22), YEAR)
    rivals = {name: good.rivals[name] for name in (EXECUTE,)} | {THRESHOLD: path}
    seeds = {MODEL: _runs(3.6, 2.0, 2.2)}
    alone = judge(PromotionProfile.production, replace(good, rivals=rivals))
    among = judge(PromotionProfile.production, replace(good, rivals=rivals, every_seed=seeds))

    assert failed(alone) == []
    assert [gate.name for gate in failed(among)] == [THRESHOLD]
    assert "mean of 3 seeds" in failed(among)[0].reason
    assert "half would pass" in failed(among)[0].reason


def test_flat_model_is_refused_without_an_error(good: Evidence, make_trace: TraceMaker) -> None:
    flat = replace(
        good,
        trace=make_trace(np.full(DAYS, 100.0)),
        validation_excess=np.zeros(DAYS),
        trial_returns=np.zeros((6, DAYS)),
    )
    names = {gate.name for gate in failed(judge(PromotionProfile.production, flat))}

    assert {"round_trips", "expectancy", "deflated_sharpe", "probabilistic_sharpe"} <= names


def test_one_lucky_trial_among_200_is_refused_by_the_dsr_alone_of_its_trials() -> None:
    """Noise of one year each: the best of 200 looks good, and is what was to be expected."""
    lucky = _best_of(200, 252, np.random.default_rng(5))

    alone = deflated_validation(lucky, (1, 1.0), YEAR, Alternative())
    among = deflated_validation(lucky, (200, 1.0), YEAR, Alternative())

    assert alone.passed
    assert not among.passed
    assert "200 trials" in among.reason


def _best_of(trials: int, sessions: int, rng: np.random.Generator) -> Floats:
    """Return the best of so many series of mean 0 and heavy tails, float64 (sessions,)."""
    series = rng.standard_t(4, (trials, sessions)) * 0.01
    best: Floats = series[np.argmax(series.mean(axis=1) / series.std(axis=1))]
    return best


@pytest.mark.parametrize("trials", [1, 5, 40])
def test_the_best_of_noise_passes_the_dsr_in_5_of_100_at_most(trials: int) -> None:
    """At most 5 % of 400 samples, and three standard errors of that count."""
    rng = np.random.default_rng(trials)
    best = [_best_of(trials, 504, rng) for _ in range(400)]
    passed = [deflated_validation(x, (trials, 1.0), YEAR, Alternative()).passed for x in best]

    assert sum(passed) <= 20 + 3 * sqrt(400 * 0.05 * 0.95)


@pytest.mark.parametrize("trials", [1, 20])
def test_the_dsr_is_the_psr_above_the_best_that_noise_would_reach(trials: int) -> None:
    """Oracle: the mean of the largest of so many ratios of noise, drawn."""
    excess = _returns(2.0)
    noise = np.random.default_rng(0).standard_normal((20_000, trials)).max(axis=1)
    benchmark = float(noise.mean()) / sqrt(DAYS) if trials > 1 else 0.0

    found = deflated_validation(excess, (trials, 1.0), YEAR, Alternative())

    expected = probabilistic_sharpe(SharpeMoments.of(excess), benchmark).probability
    assert found.value == pytest.approx(expected, abs=2e-3)


def test_the_choice_among_evaluations_deflates_as_further_trials_do() -> None:
    excess = _returns(1.5)
    plain, chosen, many = (
        deflated_validation(excess, choices, YEAR, Alternative())
        for choices in ((10, 1.0), (10, 2.45), (25, 1.0))
    )
    assert plain.value is not None
    assert chosen.value is not None
    assert chosen.value == many.value
    assert chosen.value < plain.value
    assert "25 choices without skill (10 trials" in chosen.reason


def test_looks_deflate_the_psr_by_bonferroni() -> None:
    excess = _returns(1.2)
    values = [
        probabilistic_test(excess, accesses, YEAR, Alternative()).value for accesses in (1, 2, 5)
    ]
    first = values[0]

    assert first is not None
    assert values[1:] == pytest.approx([1 - 2 * (1 - first), 1 - 5 * (1 - first)])


def test_power_of_the_psr_is_the_share_of_samples_that_pass() -> None:
    """Normal days with the alternative's Sharpe ratio, drawn 400 times."""
    alternative, days = Alternative(sharpe_annual=1.0), 1000
    rng = np.random.default_rng(1)
    samples = rng.standard_normal((400, days)) * 0.01 + 0.01 * 1.0 / sqrt(YEAR)
    gates = [probabilistic_test(sample, 1, YEAR, alternative) for sample in samples]
    power = gates[0].power

    assert power is not None
    assert np.mean([gate.passed for gate in gates]) == pytest.approx(power, abs=0.06)


def test_power_of_cscv_is_high_where_trials_are_good_and_level_is_told() -> None:
    returns = np.array([_returns(0.0, seed) for seed in range(6)])
    strong = probability_of_loss(returns, YEAR, Alternative(sharpe_annual=4.0))
    none = probability_of_loss(returns, YEAR, Alternative(sharpe_annual=0.01))

    assert strong.power == 1.0
    assert none.power is not None
    assert none.power < 0.3
    assert "PBO" in strong.reason


def test_cscv_of_too_short_a_validation_is_missing_evidence() -> None:
    gate = probability_of_loss(np.ones((3, 39)), YEAR, Alternative())

    assert not gate.passed
    assert gate.value is None
    assert "39 sessions" in gate.reason


def test_expectancy_is_the_mean_of_the_trips_and_its_bound_lies_below(
    make_trace: TraceMaker,
) -> None:
    gate = expectancy(_trace(make_trace, _returns(3.5)), Alternative())

    assert gate.value is not None
    assert 0.0 < gate.value < 8.0
    assert gate.reason.startswith("8.00 bps")  # 7 of 10 times +20, else -20


def test_expectancy_keeps_trips_of_a_day_together(make_trace: TraceMaker) -> None:
    """Ten trips that win or lose together are worth one: the bound is lower."""
    days = 200
    rows = 20 * days
    price = np.full(rows, 100.0)
    wins = np.random.default_rng(0).random(days) < 0.6
    price[1::2] += np.repeat(np.where(wins, 0.2, -0.2), 10)
    quantity = np.tile([1.0, -1.0], rows // 2)
    fills = {"fill_quantity": quantity, "fill_price": price, "bars_per_session": 20}
    equity = np.full(rows, 100.0)
    together = make_trace(equity, session=np.repeat(np.arange(days), 20), **fills)
    apart = make_trace(equity, session=np.arange(rows), **fields_apart(fills, days))

    low, high = (expectancy(t, Alternative()).value for t in (together, apart))

    assert low is not None
    assert high is not None
    assert low < high - 0.5


def fields_apart(fills: dict[str, Any], days: int) -> dict[str, Any]:
    """Shuffle the trips over days that hold one each."""
    order = np.random.default_rng(1).permutation(10 * days)
    price = fills["fill_price"].reshape(-1, 2)[order].ravel()
    return {**fills, "fill_price": price}


def test_difference_gates_ask_for_what_they_say() -> None:
    open_one = Difference(0.5, -0.1, 1.1, 0.95, p_value=0.1, standard_error=0.3)
    decided = Difference(0.8, 0.2, 1.4, 0.95, p_value=0.01, standard_error=0.3)
    alternative = Alternative(difference_annual=1.0)

    refused = decidedly_better("x", "it", open_one, 4.0, alternative)

    assert not refused.passed
    assert "test years would decide" in refused.reason
    assert refused.power == pytest.approx(NORMAL.cdf(1.0 / 0.3 - 1.959964), abs=1e-6)
    assert decidedly_better("x", "it", decided, 4.0, alternative).passed
    assert better("x", "it", open_one, alternative).passed


def test_metadata_keep_the_power_in_the_reason() -> None:
    gate = Gate("x", True, 1.0, 0.5, "good", 0.8, "a true Sharpe ratio of 1.5")

    assert gate.for_metadata().reason == "good; power 80% at a true Sharpe ratio of 1.5"


@pytest.mark.parametrize(
    ("name", "ask"),
    [("SHARPE", target_sharpe), ("DRAWDOWN", target_drawdown), ("WIN_RATE", target_win_rate)],
)
def test_gates_of_the_specification_judge_by_its_targets(
    good: Evidence, monkeypatch: pytest.MonkeyPatch, name: str, ask: Callable[[Scorecard], Gate]
) -> None:
    card, target = scorecard(good.trace), getattr(targets, name)
    value = getattr(card, target.figure)
    assert (ask(card).threshold, ask(card).passed) == (target.value, target.reached_by(value))

    for bound, passes in ((value, False), (value - 0.01 if target.above else value + 0.01, True)):
        monkeypatch.setattr(gates, name, replace(target, value=bound))
        assert (ask(card).threshold, ask(card).passed) == (bound, passes)
