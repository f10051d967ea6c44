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
from ppo_workbench.market.horizons import DAY_SECONDS
from ppo_workbench.market.reader.check import Checked, Problem, check_file
from ppo_workbench.market.reader.plausible import Doubt
from ppo_workbench.pipeline.result_json import check_result_path, write_result
from ppo_workbench.trading.experiment import split_bars

# Which markets are tried where none is named: the one whose hours the bars fill best.  Behind each
# those that keep the same hours.
MARKETS = {
    "us_equity": ("us_etf", "index"),
    "fx": (),
    "us_futures": ("metal_cfd",),
    "crypto": ("crypto_perp",),
}
_SURELY = 0.01  # of the bars missing or outside its hours: no other is tried
_BADLY = 0.1  # more than that: the hours of no market that is known
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
    chosen, checked = _fitting(compose, given, [market] if market else list(MARKETS))
    problems, overrides = list(checked.problems), list[str]()
    if checked.mended and checked.bars is not None:
        fill = _fill(checked.bars)
        overrides = [*given, f"market={chosen}", *checked.overrides, f"env.fill={fill.value}"]
        try:
            split_bars(compose(overrides))
        except WorkbenchError as error:
            problems.append(Problem("too few bars", 0, [], str(error)))
            overrides = []
    _show(console, config, checked, problems, chosen if market else f"{chosen}{_alike(chosen)}")
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
        if found[-1][0] < _SURELY:
            break
    missed, name, checked = min(found, key=lambda one: one[0])
    bars, assumed = checked.bars, any(one.kind == "no time zone" for one in checked.problems)
    if bars is None:
        return name, checked
    kind, sentence = "", ""
    missing = bars.missing.sum() / len(bars)
    if assumed and (missing > _HOLES or checked.outside_frac > 0.0):
        kind = "unlikely time zone"
        sentence = (
            f"in {bars.timezone} time, which was assumed, {missing:.1%} as many bars of calendar "
            f"{bars.calendar} are missing as there are, and {checked.outside_frac:.1%} of the rows "
            "lie outside of it; set data.timezone to that of the stamps"
        )
    elif missed > _BADLY and len(markets) > 1:
        kind = "hours of no market"
        sentence = (
            f"calendar {bars.calendar} of market={name} fits best, but its missing bars and the "
            f"rows outside of it are {missed:.0%} of the bars; name the market, or its hours with "
            "data.calendar"
        )
    if kind:
        problems = [*checked.problems, Problem(kind, 0, [], sentence)]
        checked = replace(checked, problems=problems, mended=False)
    return name, checked


def _missed(checked: Checked) -> float:
    """Return how badly a calendar fits: its bars that are missing, rows outside of it, a bar.

    Half of those outside its regular hours: bars before and after these are usual and holes are
    not.  0 where nothing was read for another reason than the calendar.
    """
    bars = checked.bars
    if bars is None:
        return 1e9 * checked.outside_frac
    missing = bars.missing.sum() + (~bars.regular).sum() / 2
    return float(missing / len(bars)) + checked.outside_frac


def _fill(bars: Bars) -> Fill:
    share = opens_equal_prior_close_frac(bars)
    return Fill.next_close if share > MAX_OPENS_EQUAL_PRIOR_CLOSE_FRAC else Fill.next_open


def _alike(market: str) -> str:
    """Say that hours do not tell a share from an index."""
    others = MARKETS[market]
    return f" by its hours ({' and '.join(others)} keep the same: name yours)" if others else ""


def _ends(bars: Bars) -> tuple[str, str]:
    """Return when the first and last bars are: dates of days, which may open the evening before."""
    if bars.bar_seconds < DAY_SECONDS:
        first, last = (stamp_text(int(bars.start_ns[at]), bars.timezone)[:16] for at in (0, -1))
    else:
        first, last = (stamp_text(int(bars.end_ns[at]) - 1, bars.timezone)[:10] for at in (0, -1))
    return first, last


def _show(
    console: WorkbenchConsole,
    config: Config,
    checked: Checked,
    problems: Sequence[Problem],
    market: str,
) -> None:
    console.show(
        f"{config.data.path}: {len(problems)} kind{'s' * (len(problems) != 1)} of problem",
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
    first, last = _ends(bars)
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
