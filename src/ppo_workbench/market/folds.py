"""Evaluation protocols: which bars train, which choose and which judge, fold by fold.

Folds are laid out in whole sessions after the warm-up (a daily bar is a session), so that a
border never parts a session. docs/protocols.md says which protocol answers what.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ppo_workbench.config import BarsError, Protocol, SplitsConfig, settled
from ppo_workbench.config.arrays import Ints
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.splits import MIN_SPLIT_BARS, Fold, Split, time_splits

Range = tuple[int, int]  # first session, and the one after the last


@dataclass(frozen=True)
class _Plan:
    """A fold in sessions: what `Fold` is in bars."""

    name: str
    train: list[Range]
    validation: Range
    test: dict[str, Range]


@dataclass(frozen=True)
class _Calendar:
    """The usable sessions.

    Attributes:
        borders: int64 (count + 1,), the first bar of every session, then the end of the bars.
        gap: Sessions between any two parts of a fold.
        config: Shares and numbers of folds.
    """

    borders: Ints
    gap: int
    config: SplitsConfig

    @property
    def count(self) -> int:
        return len(self.borders) - 1

    def share(self, frac: float) -> int:
        return min(round(self.count * frac), self.count)

    def parts(self, start: int, stop: int) -> list[Range]:
        """Cut sessions into `splits.folds` neighbours of (nearly) equal length."""
        edges = [round(edge) for edge in np.linspace(start, stop, self.config.folds + 1)]
        return list(pairwise(edges))


def evaluation_folds(bars: Bars, config: SplitsConfig, warmup_bars: int) -> list[Fold]:
    """Lay out the folds of `splits.protocol`, in the order of their tests.

    Args:
        bars: T bars.
        config: Protocol, shares, gap and numbers of folds.
        warmup_bars: Bars at the beginning whose features are not to be used.

    Returns:
        `holdout`: one fold, the ranges of `time_splits`. Walk-forward: `splits.folds` folds
        whose tests follow each other without gap or overlap over the holdout's test bars;
        training ends, and validation lies, before the test. `purged_kfold`: `splits.folds`
        folds, each session after the warm-up in one test. `cpcv`: every choice of
        `splits.test_folds` of `splits.folds` groups is the test of one fold.

    Raises:
        BarsError: If a part of a fold would hold fewer than `MIN_SPLIT_BARS` bars.
    """
    if config.protocol is Protocol.holdout:
        splits = time_splits(bars, config, warmup_bars)
        return [Fold("holdout", (splits["train"],), splits["validation"], (splits["test"],))]
    borders = _session_borders(bars, warmup_bars)
    calendar = _Calendar(borders, gap_sessions(borders, settled(config.gap_bars)), config)
    _check_room(bars, calendar)
    plans = list(_PROTOCOLS[config.protocol](calendar))
    for plan in plans:
        _check_plan(bars, calendar, plan)
    return [_in_bars(plan, borders) for plan in plans]


def gap_sessions(borders: Ints, gap_bars: int) -> int:
    """Round a gap up to sessions: so many neighbours hold `gap_bars` bars wherever they lie.

    A nominal length will not do: half days and holes in the data hold fewer bars.

    Args:
        borders: int64 (S + 1,), first bar of every session, then the end.
        gap_bars: Bars that the gap must hold.
    """
    count = len(borders) - 1
    sessions = 0
    while gap_bars > 0 and sessions < count:
        sessions += 1
        if (borders[sessions:] - borders[:-sessions]).min() >= gap_bars:
            break
    return sessions


def _session_borders(bars: Bars, warmup_bars: int) -> Ints:
    if bars.bars_per_session == 1:
        starts = np.arange(len(bars), dtype=np.int64)
    else:
        starts = bars.session_starts
    return np.append(starts[starts >= warmup_bars], len(bars)).astype(np.int64)


def _walk_forward(calendar: _Calendar) -> Iterator[_Plan]:
    """Yield folds whose training ends before their test: what trading would have done."""
    config, gap = calendar.config, calendar.gap
    seen = config.train_frac + config.validation_frac
    held = calendar.share(seen) - calendar.share(config.train_frac)
    tests = calendar.parts(calendar.share(seen), calendar.share(seen + config.test_frac))
    length = config.train_sessions or tests[0][0] - held - gap
    rolling = config.protocol is Protocol.walk_forward_rolling
    for number, test in enumerate(tests, 1):
        chosen = test[0] - held
        start = chosen - gap - length if rolling else 0
        yield _Plan(
            f"fold_{number}", [(start, chosen - gap)], (chosen, test[0] - gap), {"test": test}
        )


def _purged_kfold(calendar: _Calendar) -> Iterator[_Plan]:
    """Yield folds that train on both sides of their test."""
    for number, test in enumerate(calendar.parts(0, calendar.count), 1):
        sides = [(0, test[0] - calendar.gap), (test[1] + calendar.gap, calendar.count)]
        yield _with_validation(calendar, f"fold_{number}", sides, {"test": test})


def _combinatorial(calendar: _Calendar) -> Iterator[_Plan]:
    """Yield every choice of test groups (Lopez de Prado 2018, chapter 12), by skfolio."""
    # Imported here: delivery imports this box and is installed without the research stack.
    from skfolio.model_selection import CombinatorialPurgedCV

    cv = CombinatorialPurgedCV(
        calendar.config.folds, calendar.config.test_folds, purged_size=calendar.gap
    )
    groups = cv.test_set_index + 1
    for numbers, (train, tests) in zip(
        groups, cv.split(np.zeros((calendar.count, 1))), strict=True
    ):
        name = "_".join(["groups", *map(str, numbers)])
        spans = {
            f"test_{number}": (int(test[0]), int(test[-1]) + 1)
            for number, test in zip(numbers, tests, strict=True)
        }
        yield _with_validation(calendar, name, _runs(train), spans)


def _runs(sessions: Ints) -> list[Range]:
    """Return the runs of neighbours in rising sessions, int64 (n,)."""
    runs = np.split(sessions, np.flatnonzero(np.diff(sessions) > 1) + 1)
    return [(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]


def _with_validation(
    calendar: _Calendar, name: str, train: list[Range], test: dict[str, Range]
) -> _Plan:
    """Cut the validation from the end of the longest training range, the latest among equals.

    There it costs one gap, where a place inside would cost two, and no range is lost: it
    takes `validation_frac` of all sessions, but never more than half of that range. The gap
    to the test behind it is there already.
    """
    start, stop = max(train, key=lambda span: (span[1] - span[0], span[0]), default=(0, 0))
    most = max(stop - start - calendar.gap, 0) // 2
    wanted = min(calendar.share(calendar.config.validation_frac), most)
    shortened = (start, stop - wanted - calendar.gap)
    ranges = [shortened if span == (start, stop) else span for span in train]
    ranges = [span for span in ranges if span[1] > span[0]]
    return _Plan(name, ranges, (stop - wanted, stop), test)


_PROTOCOLS: dict[Protocol, Callable[[_Calendar], Iterator[_Plan]]] = {
    Protocol.walk_forward_anchored: _walk_forward,
    Protocol.walk_forward_rolling: _walk_forward,
    Protocol.purged_kfold: _purged_kfold,
    Protocol.cpcv: _combinatorial,
}


def _in_bars(plan: _Plan, borders: Ints) -> Fold:
    def split(name: str, span: Range) -> Split:
        return Split(name, int(borders[span[0]]), int(borders[span[1]]))

    return Fold(
        plan.name,
        tuple(split("train", span) for span in plan.train),
        split("validation", plan.validation),
        tuple(split(name, span) for name, span in plan.test.items()),
    )


def _check_room(bars: Bars, calendar: _Calendar) -> None:
    """Refuse groups that skfolio cannot purge, in words of the configuration."""
    config = calendar.config
    smallest = calendar.count // config.folds
    if config.protocol is Protocol.cpcv and calendar.gap >= smallest - 1:
        raise BarsError(
            f"bars of {bars.instrument}: a gap of {calendar.gap} sessions (splits.gap_bars="
            f"{config.gap_bars}) leaves nothing of groups of {smallest} sessions (splits.folds="
            f"{config.folds} of {calendar.count}); give more bars, or smaller splits.folds or "
            "splits.gap_bars"
        )


def _check_plan(bars: Bars, calendar: _Calendar, plan: _Plan) -> None:
    """Refuse parts that are too short to train on or to judge by."""
    config = calendar.config
    if plan.train and plan.train[0][0] < 0:
        room = plan.train[0][1]
        raise BarsError(
            f"bars of {bars.instrument}: {plan.name} has {max(room, 0)} sessions before its "
            f"validation, fewer than splits.train_sessions={config.train_sessions}; set it to at "
            f"most {max(room, 0)}, or give more bars or a larger splits.train_frac"
        )
    parts = {"train": plan.train, "validation": [plan.validation]}
    parts |= {name: [span] for name, span in plan.test.items()}
    for name, spans in parts.items():
        held = sum(_length(calendar, span) for span in spans)
        if held >= MIN_SPLIT_BARS:
            continue
        raise BarsError(
            f"bars of {bars.instrument}: {plan.name} of splits.protocol={config.protocol.value} "
            f"would hold {held} {name} bars of {len(bars)} (splits.folds={config.folds}, "
            f"splits.gap_bars={config.gap_bars} or {calendar.gap} sessions), but at least "
            f"{MIN_SPLIT_BARS} are needed; give more bars, or smaller splits.folds or "
            "splits.gap_bars"
        )


def _length(calendar: _Calendar, span: Range) -> int:
    """Count the bars of a range, 0 where the gap left none."""
    if span[1] <= span[0] or span[1] < 0:
        return 0
    return int(calendar.borders[span[1]] - calendar.borders[span[0]])
