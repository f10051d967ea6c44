"""Intervals, differences and verdicts of a comparison, against scipy and known answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ppo_workbench.scoring.comparison import (
    COMPARED,
    DAYS,
    WORLDS,
    ArmRun,
    MarketComparison,
    conclusions,
)
from ppo_workbench.scoring.metrics import sharpe_ratio
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.samples import StatisticsError
from ppo_workbench.scoring.statistics.sharpe import SharpeMoments, probabilistic_sharpe

SESSIONS = 120


def _run(arm: str, seed: int, returns: np.ndarray, **card: float) -> ArmRun:
    figures = dict.fromkeys(COMPARED, 0.0) | {"n_trades": 300.0, "exposure_mean_abs": 0.4}
    figures |= {"sharpe_annual": sharpe_ratio(returns, 252)}
    return ArmRun(arm, seed, figures | card, SessionPath.from_returns(returns, 252))


def _runs(arm: str, means: Sequence[float], **card: float) -> list[ArmRun]:
    rng = np.random.default_rng(7)
    noise = rng.normal(0.0, 0.01, (len(means), SESSIONS))
    noise -= noise.mean(axis=1, keepdims=True)
    return [_run(arm, k, mean + noise[k], **card) for k, mean in enumerate(means)]


def test_worlds_difference_is_the_paired_t_test_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a = [_run("a", k, rng.normal(0.001, 0.01, SESSIONS)) for k in range(6)]
    b = [_run("b", k, rng.normal(0.000, 0.01, SESSIONS)) for k in range(6)]
    x, y = ([run.card["sharpe_annual"] for run in runs] for runs in (a, b))
    expected = stats.ttest_rel(x, y)

    row = MarketComparison([*a, *b], worlds=True, resamples=500).difference(
        "a", "b", "sharpe_annual"
    )

    assert row["method"] == WORLDS
    assert row["p_value"] == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["estimate"] == pytest.approx(np.mean(x) - np.mean(y))


def test_runs_are_paired_by_seed_whatever_their_order() -> None:
    a, b = _runs("a", [0.001, 0.002, 0.003]), _runs("b", [0.0, 0.001, 0.002])
    ordered = MarketComparison([*a, *b], worlds=True, resamples=500).difference(
        "a", "b", "sharpe_annual"
    )
    mixed = MarketComparison([b[2], *a[::-1], b[0], b[1]], worlds=True, resamples=500)
    assert mixed.difference("a", "b", "sharpe_annual") == ordered


def test_identical_arms_differ_by_nothing_and_are_not_decided() -> None:
    means = [0.001, 0.0, -0.001]
    for worlds in (True, False):
        found = MarketComparison(
            [*_runs("a", means), *_runs("b", means)], worlds=worlds, resamples=500
        )
        for figure in COMPARED:
            row = found.difference("a", "b", figure)
            assert row["estimate"] == 0.0
            assert not row["decided"]


def test_days_and_seeds_gives_no_interval_that_only_seeds_would_carry() -> None:
    runs = [*_runs("a", [0.001, 0.002], calmar=1.0), *_runs("b", [0.0, 0.001], calmar=0.5)]
    row = MarketComparison(runs, worlds=False, resamples=200).difference("a", "b", "calmar")
    assert row["method"] == DAYS
    assert (row["estimate"], row["low"], row["p_value"], row["decided"]) == (0.5, None, None, False)


def test_one_run_is_compared_by_its_days() -> None:
    runs = [*_runs("a", [0.002]), *_runs("b", [-0.002])]
    found = MarketComparison(runs, worlds=True, resamples=500)
    row = found.difference("a", "b", "sharpe_annual")
    assert found.method == DAYS
    assert row["decided"]
    assert (row["low"] or 0.0) > 0


def test_holm_p_values_are_those_of_the_step_down_rule() -> None:
    rng = np.random.default_rng(3)
    runs = [
        _run(arm, k, rng.normal(mean, 0.01, SESSIONS))
        for arm, mean in (("a", 0.001), ("b", 0.0005), ("c", 0.0), ("d", -0.001))
        for k in range(5)
    ]
    rows = MarketComparison(runs, worlds=True, resamples=500).differences(
        [["a", "b"], ["a", "c"], ["a", "d"]]
    )
    told = [row for row in rows if row["figure"] == "sharpe_annual"]
    sharpe = sorted((row["p_value"] or 0.0, row["p_holm"]) for row in told)
    expected, largest = [], 0.0
    for rank, (p, _) in enumerate(sharpe):
        largest = max(largest, min(1.0, p * (3 - rank)))
        expected.append(largest)
    assert [holm for _, holm in sharpe] == pytest.approx(expected)


def test_pairs_with_an_arm_that_is_not_there_are_left_out() -> None:
    found = MarketComparison(
        [*_runs("a", [0.0, 0.1]), *_runs("b", [0.1, 0.0])], worlds=True, resamples=500
    )
    rows = found.differences([["a", "b"], ["a", "threshold"]])
    assert {(row["first"], row["second"]) for row in rows} == {("a", "b")}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([2.0, 2.1, 2.2], "met"), ([0.1, 0.2, 0.3], "missed"), ([0.5, 1.5, 3.0], "not decidable")],
)
def test_target_is_met_or_missed_only_with_its_whole_interval(
    values: list[float], verdict: str
) -> None:
    runs = [
        _run("a", k, np.linspace(-0.01, 0.01, SESSIONS), sharpe_annual=value)
        for k, value in enumerate(values)
    ]
    row = MarketComparison(runs, worlds=True, resamples=500).targets("a", 4.0)[0]
    assert (row["figure"], row["verdict"]) == ("sharpe_annual", verdict)
    assert (row["years_to_decide"] is None) == (verdict != "not decidable")


def test_years_to_decide_put_the_end_of_the_interval_on_the_target() -> None:
    values = [1.0, 2.0, 3.6]
    runs = [
        _run("a", k, np.linspace(-0.01, 0.01, SESSIONS), sharpe_annual=value)
        for k, value in enumerate(values)
    ]
    row = MarketComparison(runs, worlds=True, resamples=500).targets("a", 4.0)[0]
    low, years = row["low"], row["years_to_decide"]
    assert low is not None
    assert years is not None
    half = row["value"] - low
    assert half / np.sqrt(years / 4.0) == pytest.approx(row["value"] - 1.5)


def test_drawdown_target_is_met_below_its_bound() -> None:
    runs = [
        _run("a", k, np.linspace(-0.01, 0.01, SESSIONS), max_drawdown_frac=value)
        for k, value in enumerate([0.05, 0.051, 0.049])
    ]
    rows = MarketComparison(runs, worlds=True, resamples=500).targets("a", 4.0)
    assert {row["figure"]: row["verdict"] for row in rows}["max_drawdown_frac"] == "met"


@pytest.mark.parametrize(
    ("trades", "exposure", "verdict"),
    [(200, 0.2, "met"), (199, 0.2, "missed"), (200, 0.19, "missed")],
)
def test_target_is_missed_by_an_arm_that_trades_too_little(
    trades: float, exposure: float, verdict: str
) -> None:
    card = {"max_drawdown_frac": 0.01, "n_trades": trades, "exposure_mean_abs": exposure}
    runs = [_run("a", k, np.linspace(-0.01, 0.01, SESSIONS), **card) for k in range(3)]
    rows = {
        row["figure"]: row
        for row in MarketComparison(runs, worlds=True, resamples=500).targets("a", 4.0)
    }
    row = rows["max_drawdown_frac"]
    assert (row["verdict"], row["median_verdict"]) == (verdict, verdict)
    assert row["trades_enough"] == (verdict == "met")


def test_median_verdict_is_not_moved_by_one_bad_run() -> None:
    values = [2.0, 2.1, 2.2, 2.0, 2.1, 2.2, 2.1, 2.0, 2.2, -9.0]
    returns = np.linspace(-0.01, 0.01, SESSIONS)
    runs = [_run("a", k, returns, sharpe_annual=value) for k, value in enumerate(values)]
    row = MarketComparison(runs, worlds=True, resamples=500).targets("a", 4.0)[0]
    assert (row["verdict"], row["median_verdict"]) == ("not decidable", "met")
    assert row["median"] == pytest.approx(2.1)
    assert (row["median_low"] or 0.0) >= 2.0


def test_seeds_on_the_same_days_have_no_median_verdict() -> None:
    runs = _runs("a", [0.01, 0.011, 0.012])
    row = MarketComparison(runs, worlds=False, resamples=200).targets("a", 4.0)[0]
    assert row["verdict"] == "met"
    assert (row["median_low"], row["median_verdict"]) == (None, None)


def test_win_rate_on_one_market_has_the_interval_of_wilson() -> None:
    runs = _runs("a", [0.001], win_rate_frac=0.6, n_trades=200.0)
    low, high = MarketComparison(runs, worlds=False, resamples=200).interval("a", "win_rate_frac")
    expected = stats.binomtest(120, 200).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_unequal_seeds_are_refused() -> None:
    with pytest.raises(StatisticsError, match="arm b: has the seeds"):
        MarketComparison([*_runs("a", [0.0, 0.1]), *_runs("b", [0.1])], worlds=True, resamples=500)


def test_conclusion_on_noise_says_that_nothing_was_found() -> None:
    rng = np.random.default_rng(5)
    runs = [
        _run(arm, k, rng.normal(-0.0005, 0.01, SESSIONS)) for arm in ("a", "b") for k in range(5)
    ]
    found = MarketComparison(runs, worlds=True, resamples=500)
    said = conclusions(["a", "b"], found.figures(), found.differences([["a", "b"]]))
    assert said[0].startswith("Nothing was found")
    assert all(sentence.endswith("not decided.") for sentence in said[1:])


def test_conclusion_names_the_better_side_of_a_drawdown() -> None:
    runs = [
        _run(arm, k, np.linspace(-0.01, 0.01, SESSIONS), max_drawdown_frac=fall + 0.001 * k)
        for arm, fall in (("a", 0.05), ("b", 0.25))
        for k in range(5)
    ]
    found = MarketComparison(runs, worlds=True, resamples=500)
    said = conclusions(["a", "b"], found.figures(), found.differences([["a", "b"]]))
    assert any("drawdown" in sentence and sentence.endswith("better.") for sentence in said)


def test_selection_leaves_out_the_oracle_and_finds_the_better_arm() -> None:
    rng = np.random.default_rng(1)
    runs = [
        _run(arm, k, rng.normal(mean, 0.01, SESSIONS))
        for arm, mean in (("a", 0.004), ("b", 0.0), ("oracle", 0.1))
        for k in range(2)
    ]
    found: Any = MarketComparison(runs, worlds=True, resamples=500).selection("b", resamples=200)
    assert found["superior_ability"]["best"] == "a"
    assert "oracle" not in found["confidence_set"]["p_values"]


@pytest.mark.parametrize("copies", [2, 10])
def test_seeds_copied_on_the_same_days_are_no_new_days(copies: int) -> None:
    rng = np.random.default_rng(3)
    paths = {
        arm: [rng.normal(mean, 0.01, SESSIONS) for _ in range(2)]
        for arm, mean in (("a", 0.001), ("b", 0.0), ("c", 0.0005))
    }

    def compared(times: int) -> MarketComparison:
        runs = [
            _run(arm, len(own) * copy + k, returns)
            for arm, own in paths.items()
            for copy in range(times)
            for k, returns in enumerate(own)
        ]
        return MarketComparison(runs, worlds=False, resamples=200)

    once, often = compared(1), compared(copies)
    for arm in paths:
        one, many = once.probability_above_zero(arm), often.probability_above_zero(arm)
        assert one is not None
        assert many == pytest.approx(one | {"runs": 2 * copies})
    tested: Any = once.selection("b", resamples=300)
    again: Any = often.selection("b", resamples=300)
    assert again["superior_ability"] == pytest.approx(tested["superior_ability"])
    held, held_often = tested["confidence_set"], again["confidence_set"]
    assert held_often["p_values"] == pytest.approx(held["p_values"])
    assert held_often["included"] == held["included"]


def test_one_seed_copied_leaves_every_interval_as_it_was() -> None:
    returns = np.random.default_rng(4).normal(0.001, 0.01, SESSIONS)
    once, often = (
        MarketComparison([_run("a", k, returns) for k in range(n)], worlds=False, resamples=300)
        for n in (1, 8)
    )
    for figure in ("sharpe_annual", "max_drawdown_frac", "max_drawdown_at_10pct_vol_frac"):
        assert often.interval("a", figure) == pytest.approx(once.interval("a", figure))


def test_selection_tests_the_mean_sharpe_ratio_of_the_runs() -> None:
    """Not that of the account which trades all seeds: opposite runs would leave it no risk."""
    rng = np.random.default_rng(6)
    noise = rng.normal(0.0, 0.01, SESSIONS)
    noise -= noise.mean()
    runs = [
        *(_run("a", k, 0.0005 + sign * noise) for k, sign in enumerate((1, -1))),
        *(_run("b", k, rng.normal(0.0, 0.01, SESSIONS)) for k in range(2)),
    ]
    found = MarketComparison(runs, worlds=False, resamples=200)
    scaled = found._scaled_excess(found.runs["a"])
    own = [run.path.excess.mean() / run.path.excess.std(ddof=1) for run in found.runs["a"]]
    assert scaled.mean() == pytest.approx(np.mean(own))


def test_probability_above_zero_is_of_each_run_and_leaves_out_what_never_traded() -> None:
    rng = np.random.default_rng(8)
    good, bad = rng.normal(0.002, 0.01, SESSIONS), rng.normal(-0.001, 0.01, SESSIONS)
    runs = [_run("a", k, x) for k, x in enumerate((good, bad, np.zeros(SESSIONS)))]
    found = MarketComparison(runs, worlds=True, resamples=200).probability_above_zero("a")
    expected = [probabilistic_sharpe(SharpeMoments.of(x)).probability for x in (good, bad)]
    assert found == {"median": np.median(expected), "lowest": min(expected), "runs": 2}
    flat = MarketComparison([_run("a", 0, np.zeros(SESSIONS))], worlds=False, resamples=200)
    assert flat.probability_above_zero("a") is None
