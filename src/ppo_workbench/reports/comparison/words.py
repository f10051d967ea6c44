"""What a comparison found, in plain words: a null result is said first and as such."""

from collections.abc import Sequence

from ppo_workbench.reports.comparison.document import (
    SIDES,
    Arm,
    estimate,
    has_interval,
    primary,
    title_of,
    told_differences,
)
from ppo_workbench.scoring.catalogue import metric_of
from ppo_workbench.scoring.documents import Document, PairedDifference, TargetVerdict
from ppo_workbench.scoring.figures import KNOWING, interval_text, shown, spoken, unit_of
from ppo_workbench.scoring.metrics import SEVERITIES

SINGLE = "model"  # kind of a document that is about one stored model
CHANCE = 0.05
_FIRST = ("sharpe_annual", "max_drawdown_frac", "win_rate_frac")
_PARTS = {
    "targets": "verdicts on the targets",
    "differences": "paired differences",
    "seeds": "statistics over seeds",
    "selection": "tests for having chosen the best of several",
    "stress": "scores under higher costs, latency, slippage and borrow",
}


def headline(document: Document, arms: Sequence[Arm]) -> str:
    """Return the verdict in one sentence."""
    found, chosen = told_differences(document), primary(arms)
    if document.get("kind") == SINGLE:
        return _model_headline(document, found, chosen, arms)
    if found:
        return _difference_headline(found, chosen, arms) + _simpler(found, chosen, arms)
    return _target_sentence(document, chosen)


def findings(document: Document, arms: Sequence[Arm]) -> list[str]:
    """Return the sentences under the headline: how much is decided, targets, conclusions."""
    sentences = []
    found = told_differences(document)
    if found:
        sentences.append(_count_sentence(found))
        if document.get("targets"):
            sentences.append(_target_sentence(document, primary(arms)))
    return [*sentences, *_rule_sentences(document, arms), *document["conclusion"]]


def _count_sentence(found: Sequence[PairedDifference]) -> str:
    """Say how many differences are decided, and what chance alone would have decided."""
    said = f"{sum(row['decided'] for row in found)} of {len(found)} differences are decided"
    if any("p_holm" in row for row in found):
        return f"{said}, all pairs of a figure counted together (Holm)."
    return f"{said}; if none differed, about {CHANCE * len(found):.1f} would be by chance."


def _rule_sentences(document: Document, arms: Sequence[Arm]) -> list[str]:
    """Return sentences on invalid trades of trained arms, and on what the audit found."""
    sentences, executed = [], []
    for arm in arms:
        if arm.kind != "trained":
            continue  # buy and hold asks no rule
        counts = document["invalid_trades"][arm.name]
        executed.append(f"{arm.title} {sum(counts.get(key, 0) for key in SEVERITIES):,.0f}")
        violations = document["audit"][arm.name]["violations"]
        if violations:
            sentences.append(f"The audit found {violations:,.0f} violations in {arm.title}.")
    return [*sentences, f"Invalid trades executed: {'; '.join(executed)}."]


def accesses(document: Document) -> list[tuple[str, bool]]:
    """Say of each market which access to its test dates this is, and whether it had earlier ones.

    Many synthetic markets say the same thing once.
    """
    markets = document["setup"]["markets"]
    counts = [market["looks"] for market in markets]
    if len(markets) > 1 and len(set(counts)) == 1:
        told = [(counts[0], f"these dates of each of {len(markets)} markets")]
    else:
        told = [(market["looks"], f"these dates of {market['instrument']}") for market in markets]
    return [(_access_sentence(count, dates), count > 1) for count, dates in told]


def missing(document: Document, has_curves: bool) -> list[str]:
    """Return what a reader might look for and does not find, one phrase each."""
    phrases = [words for key, words in _PARTS.items() if not document.get(key)]
    if not has_curves:
        phrases.append("training curves")
    if not document.get("git_commit"):
        phrases.append("the commit of the code")
    return phrases


def _model_headline(
    document: Document, found: Sequence[PairedDifference], chosen: Arm, arms: Sequence[Arm]
) -> str:
    """Say whether one model earned anything, and how it stands to those beside it."""
    own = estimate(document, chosen.name, "sharpe_annual")
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
    listed = [row for row in found if row["figure"] == "sharpe_annual" and has_interval(row)]
    standing = _standing(listed, chosen, arms, named=True)
    equal = [title_of(arms, _rival(row, chosen)) for row in listed if not row["decided"]]
    if equal:
        standing += f"{' and ' if standing else ''}not told apart from {_listed(equal)}"
    return f"{chosen.title} on {document['protocol']}: {verdict}" + (
        f"; {standing}." if standing else "."
    )


def _difference_headline(
    found: Sequence[PairedDifference], chosen: Arm, arms: Sequence[Arm]
) -> str:
    """Say where an arm is better or worse than other trained arms, or all where there are none."""
    trained = {arm.name for arm in arms if arm.kind == "trained"}
    own = [row for row in found if chosen.name in (row[side] for side in SIDES)]
    own = [row for row in own if _rival(row, chosen) in trained] or own
    rivals = list(dict.fromkeys(_rival(row, chosen) for row in own))
    if not own:
        return f"Nothing was found: no difference of {chosen.title} to another arm was computed."
    if not any(row["decided"] for row in own):
        against = "another arm" if len(rivals) != 1 else title_of(arms, rivals[0])
        count = f"none of the {len(own)} differences" if len(own) > 1 else "no difference"
        return f"Nothing was found: {count} between {chosen.title} and {against} is decided."
    figures = dict.fromkeys(row["figure"] for row in own)
    first = sorted(figures, key=lambda f: _FIRST.index(f) if f in _FIRST else len(_FIRST))
    phrases, undecided = [], []
    for figure in first[: len(_FIRST)]:
        listed = [row for row in own if row["figure"] == figure]
        phrase = _standing(listed, chosen, arms, named=len(rivals) == 1)
        if phrase:
            phrases.append(f"{phrase} in {spoken(figure)}")
        else:
            undecided.append(spoken(figure))
    said = f"nothing is decided in {_listed(undecided)}" if undecided else ""
    verdict = "; ".join(text for text in (", ".join(phrases), said) if text) + "."
    if len(rivals) == 1:
        return f"{chosen.title}: {verdict}"
    kind = "trained arms" if trained.issuperset(rivals) else "arms"
    return f"{chosen.title} against {len(rivals)} other {kind}: {verdict}"


def _simpler(found: Sequence[PairedDifference], chosen: Arm, arms: Sequence[Arm]) -> str:
    """Name the policies that nobody trained as an agent and that are better nevertheless."""
    simple = {arm.name for arm in arms if arm.kind != "trained"}.difference(KNOWING)
    better = [
        title_of(arms, _rival(row, chosen))
        for row in found
        if row["figure"] == _FIRST[0] and row["decided"]
        if chosen.name in (row[side] for side in SIDES) and _rival(row, chosen) in simple
        if _sign(row) == (-1 if row["first"] == chosen.name else 1)
    ]
    said = f"Better than {chosen.title} in {spoken(_FIRST[0])} without reinforcement learning"
    return f" {said}: {_listed(better)}." if better else ""


def _rival(row: PairedDifference, chosen: Arm) -> str:
    return row["second"] if row["first"] == chosen.name else row["first"]


def _standing(
    listed: Sequence[PairedDifference], chosen: Arm, arms: Sequence[Arm], *, named: bool
) -> str:
    """Return than how many, or whom, an arm is better or worse in one figure, empty if none."""
    against: dict[int, list[str]] = {}
    for row in listed:
        if row["decided"]:
            flip = 1 if row["first"] == chosen.name else -1
            against.setdefault(flip * _sign(row), []).append(title_of(arms, _rival(row, chosen)))
    verbs = {1: "better than", -1: "worse than", 0: "different from"}
    return " and ".join(
        f"{verbs[sign]} {_listed(names) if named else len(names)}"
        for sign, names in sorted(against.items(), reverse=True)
    )


def _sign(row: PairedDifference) -> int:
    """Return +1 where the first arm is better, -1 where it is worse, 0 where neither is said."""
    return metric_of(row["figure"]).better * (1 if row["estimate"] >= 0 else -1)


def _target_sentence(document: Document, chosen: Arm) -> str:
    mine = [row for row in (document.get("targets") or ()) if row["arm"] == chosen.name]
    phrases = []
    for verdict in ("met", "missed", "not decidable"):
        named = [_target_name(row) for row in mine if row["verdict"] == verdict]
        if named:
            phrases.append(f"{verdict}: {_listed(named)}")
    return f"Targets of {chosen.title}: {'; '.join(phrases)}."


def _target_name(row: TargetVerdict) -> str:
    figure, years = row["figure"], row["years_to_decide"]
    sense = "<" if row["sense"] == "below" else ">"
    text = f"{spoken(figure)} {sense} {shown(row['target'], unit_of(figure))}"
    if row["verdict"] == "not decidable" and years is not None:
        text += f" (about {years:,.0f} test years would decide)"
    return text if row["trades_enough"] else f"{text} (trades too little to be judged)"


def _access_sentence(count: int, dates: str) -> str:
    if count < 1:
        return f"No test was opened for {dates}: they may have had a part in making the model."
    if count == 1:
        return f"This is test access {count} to {dates}: the first."
    return (
        f"This is test access {count} to {dates}: what earlier ones taught is not in the "
        "intervals, read them as too narrow."
    )


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
