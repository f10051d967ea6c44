from typing import Any

import pytest

from ppo_workbench.reports.comparison.document import (
    Arm,
    arms_of,
    estimate,
    plain,
    primary,
    sampled,
)
from ppo_workbench.reports.comparison.words import accesses, findings, headline
from ppo_workbench.scoring.catalogue import FRACTION
from ppo_workbench.scoring.figures import POINTS, interval_text, of_card, shown

ARMS = (
    Arm("masked", "Masked", "trained"),
    Arm("execute", "Execute", "trained"),
    Arm("reject", "Reject", "trained"),
    Arm("flat", "Flat", "yardstick"),
)


def _difference(second: str, figure: str, value: float, *, decided: bool) -> Any:
    return {
        "first": "masked", "second": second, "figure": figure, "estimate": value,
        "low": value - 0.1, "high": value + 0.1, "p_value": 0.02, "decided": decided,
    }  # fmt: skip


def _document(**parts: Any) -> Any:
    """Return a document whose arms traded, broke no rule and were audited, with more parts."""
    return {
        "cards": {"market": {arm.name: [{"n_trades": 5}] for arm in ARMS}},
        "invalid_trades": {arm.name: {"house": 0} for arm in ARMS},
        "audit": {arm.name: {"violations": 0} for arm in ARMS},
        "conclusion": [],
        **parts,
    }


def test_headline_without_a_decided_difference_says_that_nothing_was_found() -> None:
    rows = [_difference(arm, "sharpe_annual", 0.05, decided=False) for arm in ("execute", "reject")]
    assert headline(_document(differences=rows), ARMS) == (
        "Nothing was found: none of the 2 differences between Masked and another arm is decided."
    )
    one = _document(differences=rows[:1])
    assert headline(one, ARMS) == (
        "Nothing was found: no difference between Masked and Execute is decided."
    )


def test_headline_of_differences_among_other_arms_finds_nothing() -> None:
    row = _difference("flat", "sharpe_annual", 1.0, decided=True) | {"first": "execute"}
    assert headline(_document(differences=[row]), ARMS) == (
        "Nothing was found: no difference of Masked to another arm was computed."
    )
    assert findings(_document(differences=[row]), ARMS) == [
        "1 of 1 differences are decided; if none differed, about 0.1 would be by chance.",
        "Invalid trades executed: Masked 0; Execute 0; Reject 0.",
    ]


def test_headline_does_not_count_a_win_over_a_yardstick_as_a_find() -> None:
    rows = [
        _difference("execute", "sharpe_annual", 0.05, decided=False),
        _difference("flat", "sharpe_annual", 2.0, decided=True),
    ]
    assert headline(_document(differences=rows), ARMS).startswith("Nothing was found")


def test_headline_names_a_simple_policy_that_is_better_and_no_policy_that_knows() -> None:
    arms = (
        *ARMS,
        Arm("ridge", "Ridge", "yardstick"),
        Arm("boosting", "Boosting", "yardstick"),
        Arm("oracle", "Oracle", "yardstick"),
    )
    cards = {"market": {arm.name: [{"n_trades": 5}] for arm in arms}}
    rows = [
        _difference("execute", "sharpe_annual", 1.4, decided=True),
        _difference("flat", "sharpe_annual", 2.0, decided=True),
        _difference("boosting", "sharpe_annual", -0.1, decided=False),
        _difference("oracle", "sharpe_annual", -5.0, decided=True),
        _difference("ridge", "max_drawdown_frac", 0.02, decided=True),
    ]
    said = "Masked: better than Execute in Sharpe ratio."
    assert headline(_document(differences=rows, cards=cards), arms) == said

    worse = _difference("ridge", "sharpe_annual", -0.4, decided=True)
    turned = worse | {"first": "ridge", "second": "masked", "estimate": 0.4}
    for row in (worse, turned):
        assert headline(_document(differences=[*rows, row], cards=cards), arms) == (
            f"{said} Better than Masked in Sharpe ratio without reinforcement learning: Ridge."
        )


def test_headline_counts_whom_an_arm_beats_and_what_is_open() -> None:
    rows = [
        _difference("execute", "max_drawdown_frac", -0.2, decided=True),
        _difference("reject", "max_drawdown_frac", 0.2, decided=True),
        _difference("execute", "sharpe_annual", 0.05, decided=False),
        _difference("reject", "sharpe_annual", 0.05, decided=False),
    ]
    assert headline(_document(differences=rows), ARMS) == (
        "Masked against 2 other trained arms: better than 1 and worse than 1 in maximum "
        "drawdown; nothing is decided in Sharpe ratio."
    )


@pytest.mark.parametrize(
    ("figure", "value", "verb"),
    [
        ("sharpe_annual", 0.5, "better than"),
        ("sharpe_annual", -0.5, "worse than"),
        ("max_drawdown_frac", 0.5, "worse than"),
        ("violations/house", -3.0, "better than"),
        ("n_trades", 40.0, "different from"),
    ],
)
def test_headline_knows_which_side_of_a_figure_is_better(
    figure: str, value: float, verb: str
) -> None:
    rows = [_difference("execute", figure, value, decided=True)]
    assert headline(_document(differences=rows), ARMS).startswith(f"Masked: {verb} Execute in ")
    turned = rows[0] | {"first": "execute", "second": "masked", "estimate": -value}
    assert headline(_document(differences=[turned]), ARMS).startswith(f"Masked: {verb} Execute in ")


def test_headline_without_differences_tells_the_targets() -> None:
    targets = [
        {"arm": "masked", "figure": "win_rate_frac", "target": 0.6, "sense": "above",
         "verdict": "met", "years_to_decide": None, "trades_enough": True},
        {"arm": "masked", "figure": "sharpe_annual", "target": 1.5, "sense": "above",
         "verdict": "not decidable", "years_to_decide": 12.4, "trades_enough": True},
    ]  # fmt: skip
    assert headline(_document(targets=targets), ARMS) == (
        "Targets of Masked: met: win rate > 60.0 %; not decidable: Sharpe ratio > 1.50 "
        "(about 12 test years would decide)."
    )


def test_findings_state_what_chance_would_decide() -> None:
    rows = [_difference("execute", "sharpe_annual", 1.0, decided=i == 0) for i in range(20)]
    assert findings(_document(differences=rows), ARMS)[0] == (
        "1 of 20 differences are decided; if none differed, about 1.0 would be by chance."
    )


def test_findings_count_invalid_trades_and_tell_what_the_audit_found() -> None:
    document = _document()
    counts = {"impossible": 3, "regulatory": 5, "house": 1234, "rejected_house": 9}
    document["invalid_trades"]["execute"] = counts
    document["audit"]["execute"] = {"violations": 1242}
    assert findings(document, ARMS) == [
        "The audit found 1,242 violations in Execute.",
        "Invalid trades executed: Masked 0; Execute 1,242; Reject 0.",
    ]


def _accesses(*markets: Any) -> list[tuple[str, bool]]:
    document: Any = {"setup": {"markets": markets}}
    return accesses(document)


def test_accesses_name_a_second_one_and_mark_it() -> None:
    first, second = _accesses({"instrument": "SPY", "looks": 2}, {"instrument": "QQQ", "looks": 1})
    assert first[0].startswith("This is test access 2 to these dates of SPY: what earlier ones")
    assert second == ("This is test access 1 to these dates of QQQ: the first.", False)
    assert first[1]


def test_accesses_to_bars_that_were_not_the_test_are_called_so() -> None:
    ((sentence, again),) = _accesses({"name": "validation", "instrument": "SPY", "looks": 0})
    assert sentence == (
        "No test was opened for these dates of SPY: they may have had a part in making the model."
    )
    assert not again


def test_accesses_to_many_alike_markets_are_one_sentence() -> None:
    assert _accesses(*({"instrument": f"seed {i}", "looks": 1} for i in range(10))) == [
        ("This is test access 1 to these dates of each of 10 markets: the first.", False)
    ]


def test_estimate_prefers_what_was_judged_then_the_summary_then_the_run() -> None:
    card = {"n_trades": 4, "sharpe_annual": 2.0, "volatility_annual_frac": 0.1}
    card |= {"sharpe_low_95": 1.5, "sharpe_high_95": 2.5}
    alone: Any = {"cards": {"m": {"a": [card]}}, "method": "worlds"}
    found = estimate(alone, "a", "sharpe_annual")
    assert (found.value, found.low, found.high, found.over) == (2.0, 1.5, 2.5, "days")
    several: Any = {"cards": {"m": {"a": [card, card | {"sharpe_annual": 5.0}]}}}
    found = estimate(several, "a", "sharpe_annual")
    assert (found.value, found.low, found.basis) == (3.5, None, "median of 2 runs")
    summary = {"values": [2.0, 4.0], "median": 3.0, "median_low": 1.0, "median_high": 5.0}
    summarised = alone | {"figures": {"a": {"sharpe_annual": summary}}}
    found = estimate(summarised, "a", "sharpe_annual")
    assert (found.value, found.low, found.high, found.basis) == (3.0, 1.0, 5.0, "median of 2 runs")
    assert found.over == "2 markets"
    target = {"arm": "a", "figure": "sharpe_annual", "value": 4.0, "low": None, "high": None}
    target |= {"verdict": "met", "years_to_decide": None}
    found = estimate(summarised | {"targets": [target]}, "a", "sharpe_annual")
    assert (found.value, found.verdict) == (4.0, "met")


@pytest.mark.parametrize(
    ("method", "runs", "figure", "words"),
    [
        ("worlds", 20, "win_rate_frac", "20 markets"),
        ("days and seeds", 1, "sharpe_annual", "days"),
        ("days and seeds", 5, "max_drawdown_frac", "days and 5 seeds"),
        ("days and seeds", 5, "win_rate_frac", "round trips"),
    ],
)
def test_an_interval_says_what_it_is_over(method: str, runs: int, figure: str, words: str) -> None:
    assert sampled(method, runs, figure) == words


def test_of_card_tells_no_win_rate_without_a_trade_and_no_interval_without_risk() -> None:
    idle = {"n_trades": 0, "win_rate_frac": 0.0, "sharpe_annual": 0.0, "volatility_annual_frac": 0}
    assert of_card(idle, "win_rate_frac").basis == "no round trip was closed"
    assert of_card(idle, "sharpe_annual").low is None


def test_primary_is_the_first_trained_arm() -> None:
    rows = [("flat", "Flat", "yardstick"), ("x", "X", "trained"), ("y", "Y", "trained")]
    listed = [dict(zip(("name", "title", "kind"), row, strict=True)) for row in rows]
    document: Any = {"arms": listed}
    assert primary(arms_of(document)) == Arm("x", "X", "trained")


def test_plain_makes_json_of_anything() -> None:
    import numpy as np

    found = plain({1: np.float64("nan"), "b": (np.int64(3), float("inf")), "c": np.array([1.5])})
    assert found == {"1": None, "b": [3, None], "c": [1.5]}


def test_shown_keeps_small_fractions_and_drops_the_sign_of_zero() -> None:
    assert shown(-0.0, FRACTION) == "0.0 %"
    assert shown(-0.0004, FRACTION) == "-0.04 %"
    assert shown(0.25, POINTS, signed=True) == "+25.0 % points"
    assert shown(-0.001) == "0.00"
    assert shown(None) == "-"
    assert interval_text(None, 1.0) == ""
