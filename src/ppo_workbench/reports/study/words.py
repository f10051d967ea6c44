"""The analysis in plain sentences."""

from ppo_workbench.reports.study.findings import Analysis
from ppo_workbench.reports.study.plateau import Plateau
from ppo_workbench.reports.study.trials import Cost, TrialRow

FEW_TRIALS = 10


def summarise(analysis: Analysis) -> tuple[str, ...]:
    """Return what a person should know, the most important first."""
    sentences, plateau = [_counts(analysis)], analysis.plateau
    best, chosen = analysis.best, analysis.recommended
    if not (plateau and best and chosen):
        sentences.append(
            "No trial completed, so there is nothing to recommend; the reasons stand in the "
            "table of trials."
        )
        return (*sentences, *_cost(analysis.cost))
    sentences += [_best(analysis, best), _recommended(analysis, plateau, best, chosen)]
    sentences += [_plateau(analysis, plateau)]
    sentences += _importances(analysis)
    sentences += _borders(plateau)
    if analysis.counts["complete"] < FEW_TRIALS:
        sentences.append(
            f"With only {_many(analysis.counts['complete'], 'complete trial')} all of this is a "
            "hint, not a finding."
        )
    return (*sentences, *_cost(analysis.cost))


def error_note(plateau: Plateau, complete: int) -> str:
    """Say where the standard errors come from."""
    if not plateau.missing_errors:
        return "Every trial recorded its standard error."
    spread = ", ".join(f"{error:.4g}" for error in plateau.fallback_error)
    return (
        f"{plateau.missing_errors} of {complete} complete trials recorded no standard error; for "
        f"them the spread of the best quarter of the trials stands in ({spread})."
    )


def _counts(analysis: Analysis) -> str:
    total = sum(analysis.counts.values())
    parts = [f"{count} {state}" for state, count in analysis.counts.items() if count]
    return f"The study holds {_many(total, 'trial')}: {', '.join(parts) or 'none started'}."


def _best(analysis: Analysis, best: TrialRow) -> str:
    error = "" if best.errors[0] is None else f" (standard error {best.errors[0]:.2g})"
    text = (
        f"The best single {analysis.objective_names[0]} is {best.values[0]:.4g}{error}, of "
        f"trial {best.number}"
    )
    complete = analysis.counts["complete"]
    if complete == 1:
        return f"{text}, the only complete one."
    return f"{text}; being the best of {complete} it is probably lucky, so expect less."


def _recommended(analysis: Analysis, plateau: Plateau, best: TrialRow, chosen: TrialRow) -> str:
    expected, sds = plateau.expected[chosen.number], plateau.expected_sd[chosen.number]
    parts = [
        f"{name} {mean:.4g} ± {sd:.2g} (it reached {value:.4g} itself)"
        for name, mean, sd, value in zip(
            analysis.objective_names, expected, sds, chosen.values, strict=True
        )
    ]
    same = " That is the same trial." if chosen.number == best.number else ""
    return f"Recommended: the setting of trial {chosen.number}, expected {', '.join(parts)}.{same}"


def _plateau(analysis: Analysis, plateau: Plateau) -> str:
    inside, complete = len(plateau.numbers), analysis.counts["complete"]
    if inside == 1:
        return f"No other of the {complete} complete trials comes close enough to equal it."
    if len(analysis.pareto):
        return (
            f"{inside} of {complete} complete trials lie on or indistinguishably near the Pareto "
            f"front, which {_many(len(analysis.pareto), 'trial')} form."
        )
    return (
        f"{inside} of {complete} complete trials cannot be told from the best: anything on this "
        "plateau is as good as far as this study can tell."
    )


def _importances(analysis: Analysis) -> list[str]:
    if not analysis.importances:
        return ["There are too few trials to tell which parameters matter."]
    if len(analysis.importances) == 1:
        return []
    clear = [i for i in analysis.importances if i.is_above_chance]
    if not clear:
        return ["No parameter matters more than chance would make it seem."]
    parts = [f"{i.name} ({i.share:.0%}, {i.low:.0%} to {i.high:.0%})" for i in clear[:4]]
    rest = len(analysis.importances) - len(clear)
    tail = f"; {_many(rest, 'other')} cannot be told from chance" if rest else ""
    return [f"What matters, with 90 % interval: {', '.join(parts)}{tail}."]


def _borders(plateau: Plateau) -> list[str]:
    parts = [
        f"{e.parameter.name} ({e.at_border})" for e in plateau.extents
        if e.at_border in ("lowest", "highest")
    ]  # fmt: skip
    if not parts:
        return []
    return [f"The plateau reaches the end of the search in {', '.join(parts)}: search further."]


def _cost(cost: Cost | None) -> list[str]:
    """Return what pruning saved, nothing where it saved nothing."""
    if cost is None or not cost.saved_timesteps:
        return []
    text = (
        f"Complete and pruned trials trained {cost.trained_timesteps:,.0f} timesteps; without "
        f"pruning they would have trained {cost.unpruned_timesteps:,.0f} (a whole trial takes "
        f"{cost.full_timesteps:,.0f}), so pruning saved {cost.saved_timesteps:,.0f} or "
        f"{cost.saved_frac:.0%}."
    )
    if cost.failed_timesteps:
        text += f" Failed trials took another {cost.failed_timesteps:,.0f}."
    if cost.unrecorded:
        text += f" {_many(cost.unrecorded, 'trial')} without recorded timesteps left out."
    return [text]


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
