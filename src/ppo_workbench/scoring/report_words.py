"""What a comparison found, in plain words: a null result is said first and as such."""

from collections.abc import Mapping, Sequence
from typing import Any

from ppo_workbench.scoring.report_document import (
    Arm,
    Document,
    better_sign,
    figure_title,
    interval_text,
    number,
    part,
    primary,
    rows,
    shown,
    title_of,
    unit_of,
)

CHANCE = 0.05
_MOST_NAMED = 4
_PARTS = {
    "cards": "scorecards of the runs",
    "targets": "verdicts on the specification's targets",
    "differences": "paired differences between arms",
    "seeds": "statistics over seeds",
    "selection": "tests for having chosen the best of several arms",
    "invalid_trades": "counts of invalid trades",
    "audit": "the independent audit of the rules",
    "stress": "scores under higher costs, latency, slippage and borrow",
}


def headline(document: Document, arms: Sequence[Arm]) -> str:
    """Return the verdict in one sentence."""
    found = rows(document, "differences")
    chosen = primary(arms, document)
    if chosen is None:
        return "Nothing was compared: no arm is recorded."
    if found:
        return _difference_headline(found, chosen, arms)
    if rows(document, "targets"):
        return _target_sentence(document, chosen, arms)
    return f"{chosen.title}: shown without a comparison, so better than nothing is not claimed."


def findings(document: Document, arms: Sequence[Arm]) -> list[str]:
    """Return the sentences under the headline: what was decided, targets, then conclusions."""
    sentences: list[str] = []
    found, chosen = rows(document, "differences"), primary(arms, document)
    if found and chosen is not None:
        decided = [row for row in found if row.get("decided")]
        sentences += [difference_sentence(row, arms) for row in decided[:_MOST_NAMED]]
        chance = CHANCE * len(found)
        sentences.append(
            f"{len(decided)} of {len(found)} differences are decided; if no arm differed, "
            f"about {chance:.1f} would be by chance."
        )
        if rows(document, "targets"):
            sentences.append(_target_sentence(document, chosen, arms))
    listed = document.get("conclusion")
    more = [str(item) for item in listed] if isinstance(listed, list | tuple) else []
    return sentences + [sentence for sentence in more if sentence not in sentences]


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
    if len(markets) > 3 and set(counts) == {counts[0]} and counts[0] is not None:
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
    sign = better_sign(figure) * (1 if (value or 0.0) >= 0 else -1)
    verb = {1: "is better than", -1: "is worse than", 0: "differs from"}[sign]
    unit = unit_of(figure)
    interval = interval_text(low, high, unit)
    p_value = number(row, "p_value")
    details = [f"95 % interval {interval}"] if interval else []
    details += [f"p {p_value:.2g}"] if p_value is not None else []
    extra = f" ({', '.join(details)})" if details else ""
    name = figure_title(figure)
    return f"{first} {verb} {second} in {name} by {shown(value, unit, signed=True)}{extra}."


def _difference_headline(
    found: Sequence[Mapping[str, Any]], chosen: Arm, arms: Sequence[Arm]
) -> str:
    own = [row for row in found if chosen.name in (row.get("first"), row.get("second"))]
    decided = [row for row in own if row.get("decided")]
    if not decided:
        others = [row for row in found if row.get("decided")]
        rest = f" ({len(others)} between other arms)" if others else ""
        subject = f"of {chosen.title} to another arm is decided{rest}"
        if not own:
            subject = "between arms is decided" if not others else "concerns " + chosen.title
        count = len(own) or len(found)
        return f"Nothing was found: none of the {count} differences {subject}."
    won: dict[str, list[str]] = {}
    for row in decided:
        flip = 1 if row.get("first") == chosen.name else -1
        other = title_of(arms, row.get("second" if flip == 1 else "first"))
        figure = str(row.get("figure"))
        sign = better_sign(figure) * flip * (1 if (number(row, "estimate") or 0.0) >= 0 else -1)
        verb = {1: "better than", -1: "worse than", 0: "different from"}[sign]
        won.setdefault(f"{verb} {other}", []).append(figure_title(figure))
    parts = [f"{verb} in {_listed(names)}" for verb, names in won.items()]
    more = f"; {len(parts) - _MOST_NAMED} more below" if len(parts) > _MOST_NAMED else ""
    return f"{chosen.title} is {'; '.join(parts[:_MOST_NAMED])}{more}."


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
    text = f"{figure_title(figure)} {sense} {shown(number(row, 'target'), unit_of(figure))}"
    years = number(row, "years_to_decide")
    if row.get("verdict") == "not decidable" and years is not None:
        text += f" (about {years:,.0f} test years would decide)"
    return text


def _look_sentence(count: int, dates: str) -> str:
    if count <= 1:
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
