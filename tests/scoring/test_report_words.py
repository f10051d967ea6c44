from typing import Any

import pytest

from ppo_workbench.scoring.report_document import (
    FRACTION,
    POINTS,
    Arm,
    arms_of,
    estimate,
    interval_text,
    plain,
    primary,
    shown,
)
from ppo_workbench.scoring.report_words import (
    difference_sentence,
    findings,
    headline,
    looks,
    looks_counted,
)

ARMS = (
    Arm("masked", "Masked", "trained"),
    Arm("execute", "Execute", "trained"),
    Arm("reject", "Reject", "trained"),
    Arm("flat", "Flat", "yardstick"),
)


def _difference(second: str, figure: str, value: float, *, decided: bool) -> dict[str, Any]:
    return {
        "first": "masked", "second": second, "figure": figure, "estimate": value,
        "low": value - 0.1, "high": value + 0.1, "p_value": 0.02, "decided": decided,
    }  # fmt: skip


def test_headline_without_a_decided_difference_says_that_nothing_was_found() -> None:
    rows = [_difference(arm, "sharpe_annual", 0.05, decided=False) for arm in ("execute", "reject")]
    assert headline({"differences": rows}, ARMS) == (
        "Nothing was found: none of the 2 differences between Masked and another variant is "
        "decided."
    )
    one = {"differences": rows[:1]}
    assert headline(one, ARMS) == (
        "Nothing was found: no difference between Masked and Execute is decided."
    )


def test_headline_of_differences_among_other_arms_finds_nothing() -> None:
    row = _difference("flat", "sharpe_annual", 1.0, decided=True) | {"first": "execute"}
    assert headline({"differences": [row]}, ARMS) == (
        "Nothing was found: no difference of Masked to another variant was computed."
    )
    assert findings({"differences": [row]}, ARMS) == [
        "1 of 1 differences are decided; if none differed, about 0.1 would be by chance."
    ]


def test_headline_does_not_count_a_win_over_a_yardstick_as_a_find() -> None:
    rows = [
        _difference("execute", "sharpe_annual", 0.05, decided=False),
        _difference("flat", "sharpe_annual", 2.0, decided=True),
    ]
    assert headline({"differences": rows}, ARMS).startswith("Nothing was found")


def test_headline_counts_whom_an_arm_beats_and_what_is_open() -> None:
    rows = [
        _difference("execute", "max_drawdown_frac", -0.2, decided=True),
        _difference("reject", "max_drawdown_frac", 0.2, decided=True),
        _difference("execute", "sharpe_annual", 0.05, decided=False),
        _difference("reject", "sharpe_annual", 0.05, decided=False),
    ]
    assert headline({"differences": rows}, ARMS) == (
        "Masked against 2 other trained variants: better than 1 and worse than 1 in maximum "
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
    assert headline({"differences": rows}, ARMS).startswith(f"Masked: {verb} Execute in ")
    turned = rows[0] | {"first": "execute", "second": "masked", "estimate": -value}
    assert headline({"differences": [turned]}, ARMS).startswith(f"Masked: {verb} Execute in ")


def test_headline_without_differences_tells_the_targets() -> None:
    targets = [
        {"arm": "masked", "figure": "win_rate_frac", "target": 0.6, "sense": "above",
         "verdict": "met"},
        {"arm": "masked", "figure": "sharpe_annual", "target": 1.5, "sense": "above",
         "verdict": "not decidable", "years_to_decide": 12.4},
    ]  # fmt: skip
    assert headline({"targets": targets}, ARMS) == (
        "Targets of Masked: met: win rate > 60.0 %; not decidable: Sharpe ratio > 1.50 "
        "(about 12 test years would decide)."
    )


def test_headline_of_no_arm_claims_nothing() -> None:
    assert headline({}, ()) == "Nothing was compared: no variant is recorded."


def test_difference_sentence_gives_interval_and_p_value() -> None:
    row = _difference("execute", "win_rate_frac", 0.123, decided=True)
    assert difference_sentence(row, ARMS) == (
        "Masked is better than Execute in win rate by +12.3 % points "
        "(95 % interval 2.3 to 22.3 % points, p 0.02)."
    )


def test_findings_state_what_chance_would_decide() -> None:
    rows = [_difference("execute", "sharpe_annual", 1.0, decided=i == 0) for i in range(20)]
    assert findings({"differences": rows}, ARMS)[1] == (
        "1 of 20 differences are decided; if none differed, about 1.0 would be by chance."
    )


def test_findings_count_invalid_trades_and_tell_what_the_audit_found() -> None:
    document = {
        "invalid_trades": {
            "masked": {"impossible": 0, "house": 0},
            "execute": {"impossible": 3, "regulatory": 5, "house": 1234, "rejected_house": 9},
            "flat": {"house": 0},
        },
        "audit": {"masked": {"violations": 0}, "execute": {"violations": 1242}},
    }
    assert findings(document, ARMS) == [
        "The audit found 1,242 violations in Execute.",
        "Invalid trades executed: Masked 0; Execute 1,242.",
    ]


def test_looks_names_a_second_look_and_marks_it() -> None:
    document = {"setup": {"markets": [{"instrument": "SPY", "looks": 2}, {"instrument": "QQQ"}]}}
    first, second = looks(document)
    assert first.startswith("This is look 2 at these dates of SPY: what earlier looks taught")
    assert second == "The count of looks at QQQ is missing."
    assert looks_counted(document) == [True, False]


def test_looks_at_bars_that_were_not_the_test_are_called_so() -> None:
    market = {"name": "validation", "instrument": "SPY", "looks": 0}
    sentences = looks({"setup": {"markets": [market]}})
    assert sentences == [
        "No test was opened for these dates of SPY: they may have had a part in making the model."
    ]


def test_looks_of_many_alike_worlds_are_one_sentence() -> None:
    markets = [{"name": f"seed {i}", "looks": 1} for i in range(10)]
    assert looks({"setup": {"markets": markets}}) == [
        "This is look 1 at these dates of each of 10 markets: the first."
    ]


def test_estimate_prefers_what_was_judged_then_the_summary_then_the_runs() -> None:
    cards = [{"sharpe_annual": value} for value in (1.0, 2.0, 9.0)]
    assert estimate({}, "a", "sharpe_annual", cards).value == 2.0
    summary = {"figures": {"a": {"sharpe_annual": {"mean": 3.0, "low": 1.0, "high": 5.0}}}}
    found = estimate(summary, "a", "sharpe_annual", cards)
    assert (found.value, found.low, found.high) == (3.0, 1.0, 5.0)
    target = {"targets": [{"arm": "a", "figure": "sharpe_annual", "value": 4.0, "verdict": "met"}]}
    found = estimate(summary | target, "a", "sharpe_annual", cards)
    assert (found.value, found.verdict) == (4.0, "met")


def test_arms_of_lists_unnamed_arms_last_and_primary_is_trained() -> None:
    document = {"arms": [{"name": "flat", "kind": "yardstick"}, {"name": "x", "title": "X"}]}
    arms = arms_of(document, ["x", "new"])
    assert [arm.name for arm in arms] == ["flat", "x", "new"]
    chosen = primary(arms, document)
    assert chosen is not None
    assert chosen.name == "x"


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
