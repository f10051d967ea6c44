"""What a comparison found, in plain words: a null result is said first and as such."""

from collections.abc import Mapping, Sequence
from typing import Any

from ppo_workbench.scoring.metrics import SEVERITIES
from ppo_workbench.scoring.report_document import (
    Arm,
    Document,
    audit_count,
    better_sign,
    cards_of,
    difference_unit,
    estimate,
    has_interval,
    interval_text,
    number,
    part,
    primary,
    rows,
    shown,
    spoken,
    title_of,
    told_differences,
    unit_of,
)

SINGLE = "model"  # kind of a document that is about one stored model
CHANCE = 0.05
_MOST_NAMED = 4
_FIRST = ("sharpe_annual", "max_drawdown_frac", "win_rate_frac")
_PARTS = {
    "cards": "scorecards of the runs",
    "targets": "verdicts on the targets",
    "differences": "paired differences",
    "seeds": "statistics over seeds",
    "selection": "tests for having chosen the best of several",
    "invalid_trades": "counts of invalid trades",
    "audit": "the independent audit of the rules",
    "stress": "scores under higher costs, latency, slippage and borrow",
}


def headline(document: Document, arms: Sequence[Arm]) -> str:
    """Return the verdict in one sentence."""
    found = told_differences(document)
    chosen = primary(arms, document)
    if chosen is None:
        return "Nothing was compared: no variant is recorded."
    if document.get("kind") == SINGLE:
        return _model_headline(document, found, chosen, arms)
    if found:
        return _difference_headline(found, chosen, arms)
    if rows(document, "targets"):
        return _target_sentence(document, chosen, arms)
    return f"{chosen.title}: no comparison was made, so nothing is claimed."


def findings(document: Document, arms: Sequence[Arm]) -> list[str]:
    """Return the sentences under the headline: what was decided, targets, then conclusions."""
    sentences: list[str] = []
    found, chosen = told_differences(document), primary(arms, document)
    if found and chosen is not None:
        decided = [row for row in found if row.get("decided")]
        own = [row for row in _own(found, chosen, arms)[0] if row.get("decided")]
        first = [row for figure in _figures_of(own) for row in own if row["figure"] == figure]
        sentences += [difference_sentence(row, arms) for row in first[:_MOST_NAMED]]
        sentences.append(_count_sentence(found, len(decided)))
        if rows(document, "targets"):
            sentences.append(_target_sentence(document, chosen, arms))
    sentences += _rule_sentences(document, arms)
    listed = document.get("conclusion")
    more = [str(item) for item in listed] if isinstance(listed, list | tuple) else []
    return sentences + [sentence for sentence in more if sentence not in sentences]


def _count_sentence(found: Sequence[Mapping[str, Any]], decided: int) -> str:
    """Say how many differences are decided, and what chance alone would have decided."""
    said = f"{decided} of {len(found)} differences are decided"
    if any("p_holm" in row for row in found):
        return f"{said}, all pairs of a figure counted together (Holm)."
    return f"{said}; if none differed, about {CHANCE * len(found):.1f} would be by chance."


def _rule_sentences(document: Document, arms: Sequence[Arm]) -> list[str]:
    """Return sentences on invalid trades of trained arms, and on what the audit found."""
    sentences, executed = [], []
    for arm in arms:
        counts = part(document, "invalid_trades", arm.name)
        known = [n for n in (number(counts, key) for key in SEVERITIES) if n is not None]
        if arm.kind == "trained" and known:
            executed.append(f"{arm.title} {sum(known):,.0f}")
        violations = audit_count(document, arm.name)
        if violations:
            sentences.append(f"The audit found {violations:,.0f} violations in {arm.title}.")
    if executed:
        sentences.append(f"Invalid trades executed: {'; '.join(executed)}.")
    return sentences


def looks(document: Document) -> list[str]:
    """Return sentences: which look at its test dates this is, for each market."""
    return [sentence for sentence, _ in _looks(document)]


def looks_counted(document: Document) -> list[bool]:
    """Tell for each sentence of `looks` whether the dates were looked at before."""
    return [count is not None and count > 1 for _, count in _looks(document)]


def _looks(document: Document) -> list[tuple[str, float | None]]:
    markets = rows(part(document, "setup"), "markets")
    if not markets:
        return [("The count of looks at the test is missing.", None)]
    counts = [number(market, "looks") for market in markets]
    # Many synthetic worlds say the same thing once.
    if len(markets) > 1 and set(counts) == {counts[0]} and counts[0] is not None:
        names = f"these dates of each of {len(markets)} markets"
        return [(_look_sentence(int(counts[0]), names), counts[0])]
    return [
        (f"The count of looks at {_name(market)} is missing.", None)
        if count is None
        else (_look_sentence(int(count), f"these dates of {_name(market)}"), count)
        for market, count in zip(markets, counts, strict=True)
    ]


def missing(
    document: Document, arms: Sequence[Arm], traced: Sequence[str], has_curves: bool
) -> list[str]:
    """Return what a reader might look for and does not find, one phrase each."""
    phrases = [words for key, words in _PARTS.items() if not document.get(key)]
    if not has_curves:
        phrases.append("training curves")
    untraced = [arm.title for arm in arms if arm.name not in traced]
    if untraced:
        phrases.append(f"traces, and so the charts, of {', '.join(untraced)}")
    if not document.get("git_commit"):
        phrases.append("the commit of the code")
    return phrases


def difference_sentence(row: Mapping[str, Any], arms: Sequence[Arm]) -> str:
    """Return one paired difference in words, the better arm first."""
    figure = str(row.get("figure"))
    value, low, high = (number(row, key) for key in ("estimate", "low", "high"))
    first, second = title_of(arms, row.get("first")), title_of(arms, row.get("second"))
    verb = {1: "is better than", -1: "is worse than", 0: "differs from"}[_sign(row)]
    unit = difference_unit(figure)
    interval = interval_text(low, high, unit)
    p_value = number(row, "p_value")
    details = [f"95 % interval {interval}"] if interval else []
    details += [f"p {p_value:.2g}"] if p_value is not None else []
    extra = f" ({', '.join(details)})" if details else ""
    return (
        f"{first} {verb} {second} in {spoken(figure)} by {shown(value, unit, signed=True)}{extra}."
    )


def _model_headline(
    document: Document, found: Sequence[Mapping[str, Any]], chosen: Arm, arms: Sequence[Arm]
) -> str:
    """Say whether one model earned anything, and how it stands to those beside it."""
    own = estimate(document, chosen.name, "sharpe_annual", cards_of(document, chosen.name))
    if own.value is None:
        return f"{chosen.title}: nothing was scored."
    span = interval_text(own.low, own.high)
    ratio = f"Sharpe ratio {shown(own.value)}{f' ({span})' if span else ''}"
    if own.low is None or own.high is None:
        verdict = f"nothing is shown: {ratio} without an interval"
    elif own.low > 0.0:
        verdict = f"earns more than cash: {ratio}"
    elif own.high < 0.0:
        verdict = f"loses against cash: {ratio}"
    else:
        verdict = f"not shown to earn anything: {ratio} may be chance"
    listed = [row for row in found if row.get("figure") == "sharpe_annual" and has_interval(row)]
    standing = _standing(listed, chosen, arms, alone=False, named=True)
    equal = [title_of(arms, _rival(row, chosen)) for row in listed if not row.get("decided")]
    if equal:
        standing += f"{' and ' if standing else ''}not told apart from {_listed(equal)}"
    return f"{chosen.title} on {document.get('protocol')}: {verdict}" + (
        f"; {standing}." if standing else "."
    )


def _difference_headline(
    found: Sequence[Mapping[str, Any]], chosen: Arm, arms: Sequence[Arm]
) -> str:
    own, rivals = _own(found, chosen, arms)
    if not own:
        return (
            f"Nothing was found: no difference of {chosen.title} to another variant was computed."
        )
    if not any(row.get("decided") for row in own):
        against = "another variant" if len(rivals) != 1 else title_of(arms, rivals[0])
        count = f"none of the {len(own)} differences" if len(own) > 1 else "no difference"
        return f"Nothing was found: {count} between {chosen.title} and {against} is decided."
    phrases, undecided = [], []
    for figure in _figures_of(own)[: len(_FIRST)]:
        listed = [row for row in own if row.get("figure") == figure]
        phrase = _standing(listed, chosen, arms, alone=len(rivals) == 1)
        if phrase:
            phrases.append(f"{phrase} in {spoken(figure)}")
        else:
            undecided.append(spoken(figure))
    said = f"nothing is decided in {_listed(undecided)}" if undecided else ""
    verdict = "; ".join(text for text in (", ".join(phrases), said) if text) + "."
    if len(rivals) == 1:
        return f"{chosen.title}: {verdict}"
    trained = {arm.name for arm in arms if arm.kind == "trained"}
    kind = "trained variants" if trained.issuperset(rivals) else "variants"
    return f"{chosen.title} against {len(rivals)} other {kind}: {verdict}"


def _own(
    found: Sequence[Mapping[str, Any]], chosen: Arm, arms: Sequence[Arm]
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return an arm's differences and its rivals: trained arms, or all where there are none."""
    own = [row for row in found if chosen.name in (row.get("first"), row.get("second"))]
    trained = {arm.name for arm in arms if arm.kind == "trained"}
    among = [row for row in own if _rival(row, chosen) in trained] or own
    return among, list(dict.fromkeys(_rival(row, chosen) for row in among))


def _rival(row: Mapping[str, Any], chosen: Arm) -> str:
    return str(row.get("second" if row.get("first") == chosen.name else "first"))


def _figures_of(own: Sequence[Mapping[str, Any]]) -> list[str]:
    figures = list(dict.fromkeys(str(row.get("figure")) for row in own))
    return sorted(figures, key=lambda f: _FIRST.index(f) if f in _FIRST else len(_FIRST))


def _standing(
    listed: Sequence[Mapping[str, Any]],
    chosen: Arm,
    arms: Sequence[Arm],
    *,
    alone: bool,
    named: bool = False,
) -> str:
    """Return than how many, or whom, an arm is better or worse in one figure, empty if none."""
    against: dict[int, list[str]] = {}
    for row in listed:
        if row.get("decided"):
            flip = 1 if row.get("first") == chosen.name else -1
            against.setdefault(flip * _sign(row), []).append(title_of(arms, _rival(row, chosen)))
    verbs = {1: "better than", -1: "worse than", 0: "different from"}
    return " and ".join(
        f"{verbs[sign]} {_listed(names) if alone or named else len(names)}"
        for sign, names in sorted(against.items(), reverse=True)
    )


def _sign(row: Mapping[str, Any]) -> int:
    """Return +1 where the first arm is better, -1 where it is worse, 0 where neither is said."""
    return better_sign(str(row.get("figure"))) * (1 if (number(row, "estimate") or 0) >= 0 else -1)


def _target_sentence(document: Document, chosen: Arm, arms: Sequence[Arm]) -> str:
    mine = [row for row in rows(document, "targets") if row.get("arm") == chosen.name]
    phrases = []
    for verdict in ("met", "missed", "not decidable"):
        named = [row for row in mine if row.get("verdict") == verdict]
        if named:
            texts = _listed([_target_name(row) for row in named])
            phrases.append(f"{verdict}: {texts}")
    return f"Targets of {chosen.title}: {'; '.join(phrases) or 'not judged'}."


def _target_name(row: Mapping[str, Any]) -> str:
    figure = str(row.get("figure"))
    sense = "<" if row.get("sense") == "below" else ">"
    text = f"{spoken(figure)} {sense} {shown(number(row, 'target'), unit_of(figure))}"
    years = number(row, "years_to_decide")
    if row.get("verdict") == "not decidable" and years is not None:
        text += f" (about {years:,.0f} test years would decide)"
    if row.get("trades_enough") is False:
        text += " (trades too little to be judged)"
    return text


def _look_sentence(count: int, dates: str) -> str:
    if count < 1:
        return f"No test was opened for {dates}: they may have had a part in making the model."
    if count == 1:
        return f"This is look {count} at {dates}: the first."
    return (
        f"This is look {count} at {dates}: what earlier looks taught is not in the intervals, "
        "read them as too narrow."
    )


def _name(market: Mapping[str, Any]) -> str:
    return str(market.get("instrument") or market.get("name") or "the market")


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
