"""The specification's targets, and whether trainings reach them seed by seed.

A drawdown limiter alone keeps any drawdown small, so a target counts as met only by an agent
that trades: `LEAST_TRADES` and `LEAST_EXPOSURE` go with all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from ppo_workbench.scoring.documents import Card, SeedVerdict, Stability

LEAST_TRADES = 200
LEAST_EXPOSURE = 0.2
RUINOUS_DRAWDOWN_FRAC = 0.25
COLLAPSED_ENTROPY_NATS = 0.01  # and idle: where orders have one name, the skilled are certain too
TOLD = (
    *("sharpe_annual", "max_drawdown_frac", "max_drawdown_at_10pct_vol_frac", "win_rate_frac"),
    *("n_trades", "exposure_mean_abs", "years"),
)


@dataclass(frozen=True)
class Target:
    """A figure that the specification asks for.

    Attributes:
        figure: Name in the scorecard.
        value: Bound, in the figure's unit.
        above: Whether the figure must lie above it, else below.
    """

    figure: str
    value: float
    above: bool

    def reached_by(self, value: float) -> bool:
        """Tell whether a value of the figure lies on the right side of the bound."""
        return value > self.value if self.above else value < self.value

    def verdict(self, low: float | None, high: float | None, active: bool) -> str:
        """Return `met` or `missed` if a whole interval says so, else `not decidable`.

        Args:
            low: Lower end, None if there is no interval.
            high: Upper end.
            active: Whether the agent trades enough; one that does not has missed.
        """
        if not active:
            return "missed"
        if low is None or high is None or low <= self.value <= high:
            return "not decidable"
        return "met" if (low > self.value) == self.above else "missed"


SHARPE = Target("sharpe_annual", 1.5, above=True)
DRAWDOWN = Target("max_drawdown_frac", 0.08, above=False)
WIN_RATE = Target("win_rate_frac", 0.60, above=True)
TARGETS = (SHARPE, DRAWDOWN, WIN_RATE)


@dataclass(frozen=True)
class SeedRun:
    """One training of one seed, as a verdict on its stability needs it.

    Attributes:
        seed: Of the learner.
        validation: Flat scorecard on validation.
        test: Flat scorecard on the test.
        entropy_nats: Mean entropy of the policy in the last update, None if it is not known.
        finite: Whether all weights are finite numbers.
    """

    seed: int
    validation: Card
    test: Card
    entropy_nats: float | None
    finite: bool


def trades_enough(trades: float, exposure: float) -> bool:
    """Tell whether an agent trades enough to be judged by the targets.

    Args:
        trades: Closed round trips.
        exposure: Mean absolute exposure, fraction of equity.
    """
    return trades >= LEAST_TRADES and exposure >= LEAST_EXPOSURE


def meets_targets(card: Card) -> bool:
    """Tell whether one scorecard holds all targets, and trades."""
    active = trades_enough(card["n_trades"], card["exposure_mean_abs"])
    return active and all(each.reached_by(card[each.figure]) for each in TARGETS)


def divergences(run: SeedRun) -> list[str]:
    """Say how learning left the numbers: weights, figures or entropy that are not finite."""
    entropy = 0.0 if run.entropy_nats is None else run.entropy_nats
    finite = run.finite and all(isfinite(value) for value in (entropy, *run.validation.values()))
    return [] if finite else ["not finite"]


def failures(run: SeedRun) -> list[str]:
    """Say how a training that did not diverge came to a bad end; empty if it did not."""
    found = []
    entropy, trades = run.entropy_nats, run.validation["n_trades"]
    idle = not trades_enough(trades, run.validation["exposure_mean_abs"])
    if idle and entropy is not None and entropy < COLLAPSED_ENTROPY_NATS:
        found.append(
            f"collapsed to an entropy of {entropy:.4f} nats, {trades:.0f} round trips on validation"
        )
    for split, card in (("validation", run.validation), ("test", run.test)):
        if card["max_drawdown_frac"] > RUINOUS_DRAWDOWN_FRAC:
            found.append(f"drawdown {card['max_drawdown_frac']:.1%} on {split}")
    return found


def stability(runs: Sequence[SeedRun]) -> Stability:
    """Return how many seeds of an arm hold all targets, diverge or fail, and all figures.

    Args:
        runs: One run or more.
    """
    seeds = [_told(run) for run in runs]
    return {
        "runs": len(seeds),
        "validation_years": float(np.mean([run.validation["years"] for run in runs])),
        "meet_on_validation": sum(row["meets_on_validation"] for row in seeds),
        "meet_on_test": sum(row["meets_on_test"] for row in seeds),
        "diverged": sum(bool(row["diverged"]) for row in seeds),
        "failed": sum(bool(row["failures"]) for row in seeds),
        "seeds": seeds,
    }


def stability_sentence(arm: str, found: Stability) -> str:
    """Say of an arm what `stability` counted."""
    runs, failed = found["runs"], found["failed"]
    lost = f", {RUINOUS_DRAWDOWN_FRAC:.0%} or more were lost or the policy collapsed in {failed}"
    return (
        f"{arm}: {found['meet_on_validation']} of {runs} seeds hold all targets on "
        f"{found['validation_years']:.1f} validation years, {found['meet_on_test']} on the test; "
        f"{found['diverged'] or 'none'} diverged{lost if failed else ''}."
    )


def _told(run: SeedRun) -> SeedVerdict:
    return {
        "seed": run.seed,
        "validation": {key: run.validation[key] for key in TOLD},
        "test": {key: run.test[key] for key in TOLD},
        "meets_on_validation": meets_targets(run.validation),
        "meets_on_test": meets_targets(run.test),
        "entropy_nats": run.entropy_nats,
        "diverged": divergences(run),
        "failures": failures(run),
    }
