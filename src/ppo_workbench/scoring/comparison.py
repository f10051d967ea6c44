"""From the runs of a comparison to what a referee reads: intervals, differences, verdicts.

Two ways to an interval, said with each figure.  `worlds`: every run traded a market of its
own (synthetic markets), so runs are independent and Student's t over them is the interval.
`days and seeds`: all runs traded the same days, which are resampled in blocks, together with
the seeds (`scoring.statistics.resampling`).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from math import isfinite, sqrt

import numpy as np

from ppo_workbench.config.arrays import Floats
from ppo_workbench.plugins import registered
from ppo_workbench.scoring.catalogue import NEITHER, is_better, metric_of
from ppo_workbench.scoring.documents import (
    AboveZero,
    Card,
    PairedDifference,
    Summaries,
    Summary,
    TargetVerdict,
)
from ppo_workbench.scoring.figures import KNOWING, display_name
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.resampling import FIGURES, Resamples, resample
from ppo_workbench.scoring.statistics.samples import NOTHING, StatisticsError
from ppo_workbench.scoring.statistics.seeds import compare_seeds
from ppo_workbench.scoring.statistics.selection import confidence_set, superior_ability
from ppo_workbench.scoring.statistics.sharpe import SharpeMoments, probabilistic_sharpe
from ppo_workbench.scoring.targets import TARGETS, Target, trades_enough

WORLDS, DAYS = "worlds", "days and seeds"
_CONFIDENCE = 0.95
MEDIAN_DRAWS = 10_000
COMPARED = (
    *("sharpe_annual", "max_drawdown_frac", "max_drawdown_at_10pct_vol_frac", "win_rate_frac"),
    *("volatility_annual_frac", "excess_return_annual_frac", "sortino_annual", "calmar"),
    *("expectancy_bps", "profit_factor", "turnover_annual", "exposure_mean_abs", "n_trades"),
    "curve_sharpe_annual",
    *registered().metrics,
)


@dataclass(frozen=True)
class ArmRun:
    """One arm with one seed, out of sample.

    Attributes:
        arm: Name of the arm.
        seed: Learner's seed; run k of all arms is paired.
        card: Flat scorecard.
        path: Its sessions.
    """

    arm: str
    seed: int
    card: Card
    path: SessionPath


class MarketComparison:
    """The runs of all arms on one market, or on one kind of synthetic market."""

    def __init__(self, runs: Sequence[ArmRun], *, worlds: bool, resamples: int = 2000) -> None:
        """Arrange the runs by arm; every arm must have the same seeds.

        Args:
            runs: All runs.
            worlds: Every seed traded a market of its own.
            resamples: Bootstrap draws of `days and seeds`.

        Raises:
            StatisticsError: No run, or arms with different seeds.
        """
        ordered = sorted(runs, key=lambda run: run.arm)
        by_arm = {
            arm: sorted(group, key=lambda run: run.seed)
            for arm, group in groupby(ordered, key=lambda run: run.arm)
        }
        # In the order in which the arms were given.
        self.runs = {arm: by_arm[arm] for arm in dict.fromkeys(run.arm for run in runs)}
        if not self.runs:
            raise StatisticsError("runs: there are none; score at least one arm")
        self.seeds = [run.seed for run in next(iter(self.runs.values()))]
        for arm, own in self.runs.items():
            if [run.seed for run in own] != self.seeds:
                raise StatisticsError(
                    f"arm {arm}: has the seeds {[run.seed for run in own]}, must have {self.seeds} "
                    "like the others; compare equal seeds"
                )
        known = set.intersection(*(set(run.card) for run in runs))
        self.compared = [name for name in COMPARED if name in known]
        self.method = WORLDS if worlds and len(self.seeds) > 1 else DAYS
        self._resamples: Resamples | None = None
        if self.method == DAYS:
            paths = {arm: [run.path for run in own] for arm, own in self.runs.items()}
            self._resamples = resample(paths, resamples=resamples)

    def values(self, arm: str, figure: str) -> Floats:
        """Return a figure of every run of an arm, float64 (seeds,)."""
        return np.array([run.card[figure] for run in self.runs[arm]])

    def figures(self) -> Summaries:
        """Return arm -> figure -> values, mean and median with their 95 % intervals."""
        return {arm: {name: self._figure(arm, name) for name in self.compared} for arm in self.runs}

    def _figure(self, arm: str, figure: str) -> Summary:
        values = self.values(arm, figure)
        low, high = self.interval(arm, figure)
        median_low, median_high = _median_interval(values)
        return {
            "values": values.tolist(),
            "mean": float(values.mean()),
            "low": low,
            "high": high,
            "median": float(np.median(values)),
            "median_low": median_low,
            "median_high": median_high,
        }

    def interval(self, arm: str, figure: str) -> tuple[float | None, float | None]:
        """Return the 95 % interval of the mean of a figure over runs; None where unknown."""
        if self._resamples is not None and figure in FIGURES:
            found = self._resamples.interval(figure, arm)
            return found.low, found.high
        values = self.values(arm, figure)
        if self.method == DAYS:  # seeds on the same days say nothing of other days
            if figure != "win_rate_frac":
                return None, None
            return _wilson(float(values.mean()), float(self.values(arm, "n_trades").mean()))
        half = _t(len(values)) * float(values.std(ddof=1)) / sqrt(len(values))
        return float(values.mean()) - half, float(values.mean()) + half

    def difference(self, first: str, second: str, figure: str) -> PairedDifference:
        """Return `first` minus `second` with interval and two-sided p-value, paired by seed."""
        apart = self.values(first, figure) - self.values(second, figure)
        low, high, p = (None, None, None) if self.method == DAYS else _paired(apart)
        if self._resamples is not None and figure in FIGURES:
            found = self._resamples.difference(figure, first, second)
            low, high, p = found.low, found.high, found.p_value
        excludes = low is not None and high is not None and not low <= 0.0 <= high
        better = None
        if metric_of(figure).better != NEITHER:
            better = int(np.sum(apart * metric_of(figure).better > 0))
        return {
            "first": first,
            "second": second,
            "figure": figure,
            "method": self.method,
            "estimate": float(apart.mean()),
            "low": low,
            "high": high,
            "p_value": p,
            "excludes_zero": excludes,
            "decided": excludes,
            "better_in": better,
            "runs": len(apart),
        }

    def differences(self, pairs: Sequence[Sequence[str]]) -> list[PairedDifference]:
        """Return the differences of all pairs, p-values corrected by Holm for each figure.

        `decided` asks both of the interval and of `p_holm`, which answers for all pairs of the
        same figure together.
        """
        known = [pair for pair in pairs if all(arm in self.runs for arm in pair)]
        rows = []
        for figure in self.compared:
            found = [self.difference(first, second, figure) for first, second in known]
            tested = [row for row in found if row["p_value"] is not None]
            if tested:
                holm = _holm(np.array([row["p_value"] for row in tested]))
                for row, p in zip(tested, holm, strict=True):
                    row["p_holm"] = float(p)
                    row["decided"] = row["excludes_zero"] and float(p) < 1 - _CONFIDENCE
            rows += found
        return rows

    def targets(self, arm: str, years: float) -> list[TargetVerdict]:
        """Return the verdict on every target of the specification for one arm.

        `met` and `missed` need the whole interval on one side; else it is `not decidable`, and
        `years_to_decide` is the length of test at which the interval, shrinking with the
        square root of it, would end at the target (a drawdown does not shrink so: None).
        `verdict` goes by the mean over runs, `median_verdict` by their median, None where all
        runs traded the same days.  An arm whose median run trades too little has missed.

        Args:
            arm: Whose figures.
            years: Length of the test.
        """
        trades, exposure = (
            float(np.median(self.values(arm, name))) for name in ("n_trades", "exposure_mean_abs")
        )
        active = trades_enough(trades, exposure)
        return [self._target(arm, target, years, active) for target in TARGETS]

    def _target(self, arm: str, target: Target, years: float, active: bool) -> TargetVerdict:
        values = self.values(arm, target.figure)
        value = float(values.mean())
        low, high = self.interval(arm, target.figure)
        verdict, needed = target.verdict(low, high, active), None
        apart = abs(value - target.value)
        shrinks = apart > 0 and target.figure != "max_drawdown_frac"
        if verdict == "not decidable" and low is not None and high is not None and shrinks:
            half = value - low if value > target.value else high - value
            needed = years * (half / apart) ** 2
        # Seeds that traded the same days say nothing of other days.
        ends = (None, None) if self.method == DAYS else _median_interval(values)
        return {
            "arm": arm,
            "figure": target.figure,
            "target": target.value,
            "sense": "above" if target.above else "below",
            "value": value,
            "low": low,
            "high": high,
            "verdict": verdict,
            "years_to_decide": needed,
            "median": float(np.median(values)),
            "median_low": ends[0],
            "median_high": ends[1],
            "median_verdict": None if self.method == DAYS else target.verdict(*ends, active),
            "trades_enough": active,
        }

    def seed_figures(self, first: str, second: str) -> dict[str, object] | None:
        """Return interquartile means and the probability of improvement of Sharpe ratios."""
        if len(self.seeds) < 2:
            return None
        scores = [self.values(arm, "sharpe_annual")[:, None] for arm in (first, second)]
        return asdict(compare_seeds(*scores)) | {"first": first, "second": second}

    def selection(self, reference: str, resamples: int = 1000) -> dict[str, object]:
        """Return the test of superior ability against `reference`, and the confidence set.

        Of arms that traded, by their runs' mean Sharpe ratio (`_scaled_excess`).  The seeds are
        taken as given.  What cannot be tested, such as two arms a constant apart, leaves its
        reason as `refused`.
        """
        excess = {
            arm: self._scaled_excess(own)
            for arm, own in self.runs.items()
            if arm not in KNOWING and any(np.std(run.path.excess) > 0 for run in own)
        }
        if len(excess) < 2 or reference not in excess:
            return {}
        try:
            superior = superior_ability(excess, reference, risk_adjusted=False, resamples=resamples)
            held = confidence_set(excess, risk_adjusted=False, resamples=resamples)
        except StatisticsError as error:
            return {"refused": str(error)}
        return {"superior_ability": asdict(superior), "confidence_set": asdict(held)}

    def _scaled_excess(self, runs: Sequence[ArmRun]) -> Floats:
        """Return returns whose mean is the runs' mean Sharpe ratio a session, float64 (days,).

        Each run is scaled to a deviation of 1.  Runs on markets of their own follow each other.
        On the same days their mean is taken day by day, so that a block of days is drawn for all
        seeds at once: another seed on the same days is not another day.  (It is not the account
        that trades all seeds together, whose deviation would be smaller.)
        """
        deviations = (float(np.std(run.path.excess, ddof=1)) for run in runs)
        scaled = [
            run.path.excess / (deviation if deviation > NOTHING else 1.0)
            for run, deviation in zip(runs, deviations, strict=True)
        ]
        return np.mean(scaled, axis=0) if self.method == DAYS else np.concatenate(scaled)

    def probability_above_zero(self, arm: str) -> AboveZero | None:
        """Return PSR(0) of each run by itself: `median`, `lowest`, and of how many `runs`.

        Runs without variance have none; None where no run has one.
        """
        found = []
        for run in self.runs[arm]:
            with suppress(StatisticsError):
                found.append(probabilistic_sharpe(SharpeMoments.of(run.path.excess)).probability)
        if not found:
            return None
        return {"median": float(np.median(found)), "lowest": min(found), "runs": len(found)}


def conclusions(
    trained: Sequence[str],
    figures: Summaries,
    differences: Sequence[PairedDifference],
    where: str = "out of sample",
) -> list[str]:
    """Say in sentences what was found, and that nothing was where nothing was.

    Args:
        trained: Names of the trained arms.
        figures: As `MarketComparison.figures` returns.
        differences: As `MarketComparison.differences` returns.
        where: What the figures are of.
    """
    earning = [
        arm for arm in trained if (figures[arm]["sharpe_annual"]["low"] or float("-inf")) > 0.0
    ]
    sentences = []
    if earning:
        sentences.append(f"Sharpe ratio above 0 {where}: {'; '.join(map(display_name, earning))}.")
    else:
        sentences.append("Nothing was found: no trained arm has a Sharpe ratio above 0.")
    for row in differences:
        if row["figure"] in ("sharpe_annual", "max_drawdown_frac"):
            sentences.append(_sentence(row))
    return sentences


def _sentence(row: PairedDifference) -> str:
    figure, form = {
        "sharpe_annual": ("Sharpe ratio", "{:+.2f}"),
        "max_drawdown_frac": ("drawdown", "{:+.1%}"),
    }[row["figure"]]
    pair = f"{display_name(row['first'])} against {display_name(row['second'])}, {figure}"
    if row["low"] is None:
        return f"{pair}: {form.format(row['estimate'])}, one run, no interval."
    span = f"{form.format(row['low'])} to {form.format(row['high'])}"
    text = f"{pair}: {form.format(row['estimate'])} ({span})"
    if not row["decided"]:
        why = " once all pairs are counted (Holm)" if row["excludes_zero"] else ""
        return f"{text}, not decided{why}."
    better = is_better(row["figure"], row["estimate"])
    return f"{text}, {'better' if better else 'worse'}."


def _paired(apart: Floats) -> tuple[float | None, float | None, float | None]:
    """Return interval and p-value of a mean by Student's t."""
    from scipy import stats

    n, mean = len(apart), float(apart.mean())
    if n < 2:
        return None, None, None
    error = float(apart.std(ddof=1)) / sqrt(n)
    if error <= 1e-12 * max(abs(mean), 1.0):
        return mean, mean, 1.0 if abs(mean) <= 1e-12 else 0.0
    half = _t(n) * error
    p = 2.0 * float(stats.t.sf(abs(mean) / error, n - 1))
    return mean - half, mean + half, p if isfinite(p) else None


def _holm(p: Floats) -> Floats:
    """Return p-values by Holm (1979), float64 (n,): the k-th smallest times those from it on.

    (That of statsmodels looks for garbage at each call, seconds among a million objects.)
    """
    order = np.argsort(p)
    held = np.empty_like(p)
    held[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return held


def _median_interval(values: Floats) -> tuple[float | None, float | None]:
    """Return the percentile interval of the median over runs."""
    if len(values) < 2:
        return None, None
    draws = np.random.default_rng(0).choice(values, (MEDIAN_DRAWS, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


def _t(n: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1.0 + _CONFIDENCE) / 2.0, n - 1))


def _wilson(share: float, count: float) -> tuple[float | None, float | None]:
    """Return Wilson's (1927) interval of a share of `count` independent trades."""
    from statsmodels.stats.proportion import proportion_confint

    if count < 1:
        return None, None
    low, high = proportion_confint(share * count, count, alpha=1 - _CONFIDENCE, method="wilson")
    return float(low), float(high)
