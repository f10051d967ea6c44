"""The plateau: the settings that cannot be told from the best, and which of them to take."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppo_workbench.config.arrays import Bools, Floats
from ppo_workbench.reports.study.surface import Surface
from ppo_workbench.reports.study.trials import Parameter, TrialRow

Z = 1.645  # one-sided 95 %
NEAR_BORDER = 0.05
RUIN = 3.0
DEFINITION = (
    "A smooth surface (Gaussian process) is fitted through the values of all complete trials, "
    "each weighted by its standard error, so that one lucky trial cannot stand out alone (far "
    f"misses count as lying {RUIN:.0f} times as far from the median as the poorer quartile). "
    "A trial belongs to the plateau when the surface at its setting is lower than at the "
    f"surface's best trial by no more than {Z} standard deviations of that difference "
    "(one-sided 95 %). The recommended setting is the plateau trial whose surface less one "
    "standard deviation is highest: good, and well supported by its neighbours."
)
DEFINITION_TWO = (
    "For each objective a smooth surface (Gaussian process) is fitted through the values of all "
    "complete trials, each weighted by its standard error. A trial belongs to the plateau when "
    f"no other trial is better in every objective by more than {Z} standard deviations of the "
    "difference (one-sided 95 %). The recommended setting is the plateau trial nearest to the "
    "best reached in each objective, each objective scaled to its range on the plateau."
)


@dataclass(frozen=True)
class Extent:
    """The range of one parameter on the plateau.

    Attributes:
        low: Lowest value among the plateau's trials, None for a choice.
        high: Highest value.
        counts: Trials an option, for a choice.
        width_frac: `high` - `low` over the searched range, 0 .. 1, on the search's scale.
        at_border: "lowest", "highest", "both" or "": the borders of the search it reaches.
    """

    parameter: Parameter
    low: float | None
    high: float | None
    counts: Mapping[str, int]
    width_frac: float
    at_border: str


@dataclass(frozen=True)
class Plateau:
    """The trials that cannot be told from the best, and their region.

    Attributes:
        numbers: Trial numbers, best expected value first.
        expected: For each trial of the surface, by its number: the value that the surface
            expects at its setting, one an objective.
        expected_sd: The same for its standard deviation.
        fallback_error: Standard error taken where a trial recorded none, one an objective.
        missing_errors: Trials that recorded none for the first objective.
    """

    numbers: tuple[int, ...]
    recommended: int
    extents: tuple[Extent, ...]
    expected: Mapping[int, tuple[float, ...]]
    expected_sd: Mapping[int, tuple[float, ...]]
    fallback_error: tuple[float, ...]
    missing_errors: int
    definition: str
    surfaces: tuple[Surface, ...] = field(repr=False)


def find_plateau(
    rows: Sequence[TrialRow], parameters: Sequence[Parameter], signs: Sequence[int]
) -> Plateau | None:
    """Return the plateau of the complete trials, or None without any.

    Args:
        rows: All trials; only complete ones count.
        parameters: What was searched.
        signs: +1 for an objective to maximise, -1 to minimise.
    """
    good = [row for row in rows if row.state == "complete"]
    if not good:
        return None
    settings = [row.params for row in good]
    values = np.array([row.values for row in good])
    errors, fallback = _filled_errors(good, values * np.array(signs))
    fitted = _without_ruins(values * np.array(signs)) * np.array(signs)
    surfaces = tuple(
        Surface(parameters, settings, fitted[:, k], errors[:, k]) for k in range(len(signs))
    )
    both = [surface.predict(settings) for surface in surfaces]
    mean = np.stack([pair[0] for pair in both], axis=1)
    sd = np.stack([pair[1] for pair in both], axis=1)
    score = mean * np.array(signs)
    if len(signs) == 1:
        member, choice = _one_objective(surfaces[0], settings, score[:, 0], sd[:, 0])
    else:
        member, choice = _several_objectives(surfaces, settings, score)
    inside = sorted(np.flatnonzero(member), key=lambda i: (-score[i, 0], good[i].number))
    return Plateau(
        numbers=tuple(good[i].number for i in inside),
        recommended=good[choice].number,
        extents=tuple(_extent(p, [settings[i] for i in inside]) for p in parameters),
        expected={r.number: tuple(map(float, m)) for r, m in zip(good, mean, strict=True)},
        expected_sd={r.number: tuple(map(float, s)) for r, s in zip(good, sd, strict=True)},
        fallback_error=tuple(map(float, fallback)),
        missing_errors=sum(row.errors[0] is None for row in good),
        definition=DEFINITION if len(signs) == 1 else DEFINITION_TWO,
        surfaces=surfaces,
    )


def _filled_errors(good: Sequence[TrialRow], score: Floats) -> tuple[Floats, Floats]:
    """Return standard errors (n, K), the spread of the best quarter where none was recorded."""
    best = np.sort(score, axis=0)[-max(3, len(good) // 4) :]
    fallback = best.std(axis=0, ddof=1) if len(best) > 1 else np.zeros(score.shape[1])
    given = np.array([[np.nan if e is None else e for e in row.errors] for row in good])
    return np.where(np.isnan(given), fallback, given), fallback


def _without_ruins(score: Floats) -> Floats:
    """Raise far misses to a floor: one ruined trial must not bend the surface elsewhere."""
    quarter, middle = np.quantile(score, (0.25, 0.5), axis=0)
    return np.asarray(np.maximum(score, middle - RUIN * (middle - quarter)))


def _one_objective(
    surface: Surface, settings: Sequence[Mapping[str, Any]], score: Floats, sd: Floats
) -> tuple[Bools, int]:
    top = int(np.argmax(score))
    apart = surface.difference_sd(settings, settings[top])
    member = score[top] - score <= Z * apart + 1e-12
    return member, int(np.argmax(np.where(member, score - sd, -np.inf)))


def _several_objectives(
    surfaces: Sequence[Surface], settings: Sequence[Mapping[str, Any]], score: Floats
) -> tuple[Bools, int]:
    member = np.ones(len(settings), dtype=np.bool_)
    for i, setting in enumerate(settings):
        apart = np.stack([s.difference_sd(settings, setting) for s in surfaces], axis=1)
        beaten = (score - score[i] > Z * apart + 1e-12).all(axis=1)
        member[i] = not beaten.any()
    inside = score[member]
    low, high = inside.min(axis=0), inside.max(axis=0)
    distance = np.linalg.norm((high - score) / np.where(high > low, high - low, 1.0), axis=1)
    return member, int(np.argmin(np.where(member, distance, np.inf)))


def _extent(parameter: Parameter, settings: Sequence[Mapping[str, Any]]) -> Extent:
    values = [s[parameter.name] for s in settings if parameter.name in s]
    if parameter.choices or not values:
        counts = Counter(map(str, values))
        width = len(counts) / max(len(parameter.choices), 1)
        return Extent(parameter, None, None, dict(counts.most_common()), width, "")
    low, high = float(min(values)), float(max(values))
    start, stop = parameter.position(low), parameter.position(high)
    reached = (start <= NEAR_BORDER, stop >= 1.0 - NEAR_BORDER)
    names = {(True, True): "both", (True, False): "lowest", (False, True): "highest"}
    return Extent(parameter, low, high, {}, stop - start, names.get(reached, ""))
