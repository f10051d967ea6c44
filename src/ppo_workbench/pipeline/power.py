"""What a comparison on these bars could decide, asked before any training."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from ppo_workbench.config import Config
from ppo_workbench.delivery.describe import utc
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.splits import Split
from ppo_workbench.pipeline.result_json import check_result_path, write_result
from ppo_workbench.scoring.annual import years_of
from ppo_workbench.scoring.backtest import Policy, backtest
from ppo_workbench.scoring.metrics import sharpe_ratio
from ppo_workbench.scoring.reference.yardsticks import tuned_threshold, yardsticks
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.power import PowerReport, sharpe_power
from ppo_workbench.scoring.statistics.samples import StatisticsError
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars


@dataclass(frozen=True)
class StandIns:
    """Two strategies that stand for the arms of a comparison, on the same days."""

    names: tuple[str, str]
    paths: tuple[SessionPath, SessionPath]


def power(config: Config, console: WorkbenchConsole | None = None) -> float:
    """Say how many test years or seeds would decide a difference on these bars.

    Trains nothing and leaves the test split closed: of it, only the number of sessions is
    used.  The error of the days comes from two stand-ins, scored on the train and validation
    splits, as their difference moves like that of two arms on the same days.

    Args:
        config: The experiment; `config.power` says what is planned.
        console: Where to print.

    Returns:
        The smallest difference of annual Sharpe ratios that the plan would find.

    Raises:
        BarsError: The bars or their splits are not usable.
        StatisticsError: Fewer than 20 sessions, or stand-ins that never differ.
    """
    console = console or WorkbenchConsole()
    check_result_path(config.result_json)
    bars, splits = split_bars(config)
    plan = config.power
    years = plan.test_years or years_of(_sessions(bars, splits["test"]), bars.sessions_per_year)
    with console.waiting("computing features, replaying stand-ins, drawing days again"):
        experiment = prepare(config, bars, splits)
        stand_ins = find_stand_ins(experiment)
        report = sharpe_power(
            *stand_ins.paths,
            test_years=years,
            seeds=plan.seeds,
            seed_deviation=plan.seed_deviation,
            differences=plan.differences,
            confidence=plan.confidence,
            power=plan.power,
            resamples=plan.resamples,
            seed=config.seed,
        )
    console.show("What a comparison on these bars could decide (test split closed, no training)")
    console.show_choices([*_basis(experiment, stand_ins), *report.describe()])
    write_result(config.result_json, _document(experiment, stand_ins, report))
    return report.smallest_difference_annual


def find_stand_ins(experiment: Experiment) -> StandIns:
    """Return the first two strategies whose results differ on train and validation together.

    The threshold rule tuned on train under the masks against the same rule without
    regulatory and house rules; where the rules change nothing, or there is no such rule,
    against buy-and-hold, then random-legal against buy-and-hold.

    Raises:
        StatisticsError: Fewer than 20 sessions, or no two differ.
    """
    for first, second in _pairs(experiment):
        one, other = (_path(experiment, policy) for policy in (first, second))
        if not np.array_equal(one.excess, other.excess):
            return StandIns((first.name, second.name), (one, other))
    raise StatisticsError(
        f"bars of {experiment.bars.instrument}: no strategy trades on the train and validation "
        "splits, so nothing says how two arms would differ; loosen the rules under risk. or give "
        "other bars"
    )


def _pairs(experiment: Experiment) -> Iterator[tuple[Policy, Policy]]:
    random_legal, buy_and_hold, _ = yardsticks(len(experiment.bars), experiment.config.seed)
    rule = tuned_threshold(experiment)
    if rule is not None:
        free = replace(rule, name="the same without regulatory and house rules", unconstrained=True)
        yield rule, free
        yield rule, buy_and_hold
    yield random_legal, buy_and_hold


def _path(experiment: Experiment, policy: Policy) -> SessionPath:
    first, last = experiment.splits["train"], experiment.splits["validation"]
    seen = Split("train and validation", first.start, last.stop)
    return SessionPath.from_trace(
        backtest(policy, experiment.bars, experiment.market, seen, experiment.config)
    )


def _sessions(bars: Bars, split: Split) -> int:
    """Count the sessions in which decisions of a split are marked; no price is read."""
    return int(bars.session[split.stop - 1] - bars.session[split.start + 1]) + 1


def _basis(experiment: Experiment, stand_ins: StandIns) -> list[tuple[str, str]]:
    bars, one = experiment.bars, stand_ins.paths[0]
    first = int(bars.start_ns[experiment.splits["train"].start])
    last = int(bars.start_ns[experiment.splits["validation"].stop - 1])
    return [
        ("Bars", f"{bars.instrument}, {utc(first):%Y-%m-%d} .. {utc(last):%Y-%m-%d}"),
        ("  sessions", f"{len(one)} of train and validation"),
        *(
            (label, f"{name}: annual Sharpe {_sharpe(path):+.2f}")
            for label, name, path in zip(
                ("Stand-ins", "  against"), stand_ins.names, stand_ins.paths, strict=True
            )
        ),
    ]


def _sharpe(path: SessionPath) -> float:
    return sharpe_ratio(path.excess, path.sessions_per_year)


def _document(
    experiment: Experiment, stand_ins: StandIns, report: PowerReport
) -> dict[str, object]:
    return {
        "score": report.smallest_difference_annual,
        "instrument": experiment.bars.instrument,
        "sessions": len(stand_ins.paths[0]),
        "stand_ins": {
            name: {"sharpe_annual": _sharpe(path)}
            for name, path in zip(stand_ins.names, stand_ins.paths, strict=True)
        },
        "power": report.to_dict(),
        "years": [asdict(answer) for answer in report.years],
        "seeds": [asdict(answer) for answer in report.more_seeds],
    }
