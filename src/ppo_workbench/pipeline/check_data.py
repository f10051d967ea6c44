"""`task=check_data`: what is wrong with a file, what it holds, which command trains on it."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from ppo_workbench.config import BarsError, Config, Fill, WorkbenchError
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.market.bars import (
    MAX_OPENS_EQUAL_PRIOR_CLOSE_FRAC,
    Bars,
    opens_equal_prior_close_frac,
    stamp_text,
)
from ppo_workbench.market.reader.check import CALENDAR_FAULTS, Checked, Problem, check_file
from ppo_workbench.market.reader.plausible import Doubt
from ppo_workbench.pipeline.outcome import check_result_path, write_result
from ppo_workbench.trading.experiment import split_bars

# Which markets are tried where none is named: the one whose hours the bars fill best.
MARKETS = ("us_equity", "fx", "us_futures", "crypto")
_KEPT = 0.1  # of the bars missing or outside its hours: surely that market's
_HOLES = 0.05  # more than that missing in a zone that nobody named: it may be another
Compose = Callable[[Sequence[str]], Config]


def check_data(
    config: Config,
    compose: Compose,
    given: Sequence[str],
    market: str | None,
    console: WorkbenchConsole | None = None,
) -> list[str]:
    """Check `data.path`; return the overrides of a command that trains on it.

    Args:
        config: The command's own.
        compose: Turns overrides into a configuration.
        given: Overrides of `data` that the command names.
        market: The market that it names, if any.
        console: Where to print.

    Raises:
        BarsError: No command trains on the file as it is.
    """
    console = console or WorkbenchConsole()
    check_result_path(config.result_json)
    chosen, checked = _fitting(compose, given, [market] if market else MARKETS)
    problems, overrides = list(checked.problems), list[str]()
    if checked.mended and checked.bars is not None:
        fill = _fill(checked.bars)
        overrides = [*given, f"market={chosen}", *checked.overrides, f"env.fill={fill.value}"]
        try:
            split_bars(compose(overrides))
        except WorkbenchError as error:
            problems.append(Problem("too few bars", 0, [], str(error)))
            overrides = []
    _show(console, config, checked, problems, chosen)
    document = {
        "overrides": overrides,
        "problems": [asdict(problem) for problem in problems],
        "notes": list(checked.bars.notes) if checked.bars else [],
        "market": chosen,
    }
    write_result(config.result_json, document)
    if not overrides:
        raise BarsError(
            f"data.path={config.data.path}: no command trains on it as it is; mend what stops it"
        )
    console.show(f"trains: python -m ppo_workbench {shlex.join(overrides)}", wrap=False)
    return overrides


def _fitting(compose: Compose, given: Sequence[str], markets: Sequence[str]) -> tuple[str, Checked]:
    """Return the first market whose hours the bars keep, else the one that they miss least."""
    found = []
    for name in markets:
        checked = check_file(compose([*given, f"market={name}"]).data)
        found.append((_missed(checked), name, checked))
        if found[-1][0] < _KEPT:
            break
    _, name, checked = min(found, key=lambda one: one[0])
    bars, assumed = checked.bars, any(one.kind == "no time zone" for one in checked.problems)
    if assumed and bars is not None and (missing := bars.missing.sum() / len(bars)) > _HOLES:
        sentence = (
            f"in {bars.timezone} time, which was assumed, {missing:.0%} as many bars of calendar "
            f"{bars.calendar} are missing as there are; set data.timezone to that of the stamps"
        )
        problems = [*checked.problems, Problem("unlikely time zone", 0, [], sentence)]
        checked = replace(checked, problems=problems, mended=False)
    return name, checked


def _missed(checked: Checked) -> float:
    """Return bars of the calendar that are missing, and half of those outside its hours, a bar.

    Half, since bars before and after regular hours are usual and holes are not; 0 where nothing
    was read for another reason than the calendar.
    """
    bars = checked.bars
    if bars is None:
        return sum(1e9 + one.count for one in checked.problems if one.kind in CALENDAR_FAULTS)
    return float(bars.missing.sum() + (~bars.regular).sum() / 2) / len(bars)


def _fill(bars: Bars) -> Fill:
    share = opens_equal_prior_close_frac(bars)
    return Fill.next_close if share > MAX_OPENS_EQUAL_PRIOR_CLOSE_FRAC else Fill.next_open


def _show(
    console: WorkbenchConsole,
    config: Config,
    checked: Checked,
    problems: Sequence[Problem],
    market: str,
) -> None:
    console.show(
        f"{config.data.path}: {len(problems)} kind{'s' * (len(problems) != 1)} of problems",
        wrap=False,
    )
    for one in problems:
        rows = f" {one.count} rows, first {', '.join(map(str, one.rows))}:" if one.count else ""
        mends = f" [{' '.join(one.fix)}]" if one.fix else ""
        word = ("mended" if one.fix else "stops") if one.stops else "look at"
        word = "assumed" if one.kind == "no time zone" else word
        console.show(f"{word}: {one.kind}:{rows} {one.sentence}{mends}", wrap=False)
    bars = checked.bars
    if bars is None:
        return
    share = opens_equal_prior_close_frac(bars)
    first, last = (stamp_text(int(bars.start_ns[at]), bars.timezone)[:10] for at in (0, -1))
    console.show_choices(
        [
            ("bars", f"{len(bars):,} of {bars.bar_seconds} seconds, {first} to {last}"),
            ("instrument", bars.instrument),
            ("market", f"{market}, calendar {bars.calendar} ({bars.timezone})"),
            ("fill", f"{_fill(bars).value}: {share:.1%} of opens equal the prior close"),
        ]
    )
    for note in bars.notes:
        if not isinstance(note, Doubt):  # those are among the problems
            console.show(f"note: {note}", wrap=False)
