"""Training curves with intervals over the runs of an arm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from ppo_workbench.config.arrays import Floats

Curves = Mapping[str, Sequence[Sequence[Mapping[str, float]]]]

GRID = 60
MOST_KEYS = 10
# What a reader asks first; any other key follows in the order of its first run.
FIRST_KEYS = (
    "validation/sharpe_annual",
    "validation/max_drawdown_frac",
    "rollout/ep_rew_mean",
    "train/explained_variance",
    "train/entropy_loss",
    "train/approx_kl",
    "mask/any",
    "rules/rejected",
    "rules/violated",
)
CURVE_TITLES = {
    "validation/sharpe_annual": "Sharpe ratio on validation",
    "validation/max_drawdown_frac": "Maximum drawdown on validation",
    "validation/win_rate_frac": "Win rate on validation",
    "validation/exposure_mean_abs": "Mean exposure on validation",
    "validation/n_trades": "Round trips on validation",
    "rollout/ep_rew_mean": "Reward of an episode",
    "train/explained_variance": "Explained variance of the value network",
    "train/entropy_loss": "Entropy loss",
    "train/approx_kl": "KL divergence of an update",
    "mask/any": "Share of decisions with a masked action",
    "rules/rejected": "Rejected orders",
    "rules/violated": "Violations of rules",
}


@dataclass(frozen=True)
class Band:
    """Mean of some runs over their steps, with a 95 % interval; float64, shape (S,) each.

    Attributes:
        steps: Timesteps.
        mean: Mean of the runs that reach the step.
        low: Lower end of Student's interval of the mean; NaN below two runs.
        high: Upper end.
        runs: Number of runs with this figure.
    """

    steps: Floats
    mean: Floats
    low: Floats
    high: Floats
    runs: int


def curve_title(key: str) -> str:
    """Return what a reader calls a figure of training."""
    return CURVE_TITLES.get(key) or key.replace("_", " ").replace("/", ": ")


def curve_keys(curves: Curves) -> list[str]:
    """Return the figures that any run has at two steps or more, the most asked first."""
    counts: dict[str, int] = {}
    for runs in curves.values():
        for run in runs:
            own: dict[str, int] = {}
            for point in run:
                for key in point:
                    own[key] = own.get(key, 0) + 1
            for key, count in own.items():
                counts[key] = max(counts.get(key, 0), count)
    known = [key for key, count in counts.items() if key != "step" and count > 1]
    first = [key for key in FIRST_KEYS if key in known]
    return (first + [key for key in known if key not in first])[:MOST_KEYS]


def curve_band(runs: Sequence[Sequence[Mapping[str, float]]], key: str) -> Band | None:
    """Return mean and interval of one figure over runs, None where no run has it.

    Runs that looked at the same steps are compared there; others are interpolated onto
    `GRID` common steps, each within its own range.
    """
    found = [columns for run in runs if (columns := _columns(run, key)) is not None]
    if not found:
        return None
    steps = found[0][0]
    if not all(np.array_equal(own, steps) for own, _ in found):
        ends = [own[0] for own, _ in found], [own[-1] for own, _ in found]
        steps = np.linspace(min(ends[0]), max(ends[1]), GRID)
    values = np.stack([_onto(steps, *columns) for columns in found])
    return Band(steps, *_interval(values), len(found))


def _columns(run: Sequence[Mapping[str, float]], key: str) -> tuple[Floats, Floats] | None:
    points = {
        float(point["step"]): float(point[key])
        for point in run
        if _is_number(point.get(key)) and _is_number(point.get("step"))
    }
    if not points:
        return None
    steps = np.array(sorted(points))
    return steps, np.array([points[step] for step in steps.tolist()])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and isfinite(float(value))


def _onto(steps: Floats, own: Floats, values: Floats) -> Floats:
    found: Floats = np.interp(steps, own, values, left=np.nan, right=np.nan)
    return found


def _interval(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean, low and high over runs, values (runs, S), NaN where a run has none."""
    from scipy.stats import t as student

    present = np.isfinite(values)
    count = present.sum(axis=0)
    mean = np.where(present, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    squares = np.where(present, (values - mean) ** 2, 0.0).sum(axis=0)
    several = count > 1
    freedom = np.where(several, count - 1, 1)
    error = np.sqrt(squares / freedom) / np.sqrt(np.maximum(count, 1))
    half = np.where(several, student.ppf(0.975, freedom) * error, np.nan)
    mean = np.where(count > 0, mean, np.nan)
    return mean, mean - half, mean + half
