"""What an agent observes: market features, the account's, the mask if asked for; scaled."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppo_workbench.config.arrays import Bools, Floats, Records, Singles
from ppo_workbench.jit import kernel
from ppo_workbench.trading.account import order_size

ACCOUNT_FEATURES = (
    "exposure",
    "unrealised_return",
    "log_bars_held",
    "session_return",
    "drawdown",
    "size",
    "return_mean",
    "return_deviation",
)
# Fixed means and standard deviations of the account features: they come in units of volatility,
# so their scale does not depend on the data; a running estimate would make runs incomparable.
ACCOUNT_MEANS = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.5])
ACCOUNT_STDS = np.array([1.0, 1.0, 3.0, 1.0, 0.3, 0.5, 1.0, 0.5])


@dataclass(frozen=True)
class Scaler:
    """Standardise observations: (x - mean) / std, clipped.

    Attributes:
        means, stds: float64, shape (F + S,), market features then account features, then A more
            where the mask is observed.
        clip: Largest absolute scaled value.
    """

    means: Floats
    stds: Floats
    clip: float

    @classmethod
    def fit(cls, features: Floats, clip: float, bits: int = 0) -> "Scaler":
        """Fit on the market features of the training bars, float64 (T, F).

        Args:
            features: Market features.
            clip: Largest absolute scaled value.
            bits: Bits of the mask that are observed too (`env.observe_mask`), as they are.
        """
        stds = features.std(axis=0)
        stds = np.where(stds > 1e-12, stds, 1.0)
        means = np.concatenate([features.mean(axis=0), ACCOUNT_MEANS, np.zeros(bits)])
        return cls(means, np.concatenate([stds, ACCOUNT_STDS, np.ones(bits)]), clip)

    def transform_market(self, features: Floats) -> Singles:
        """Scale market features, float64 (T, F) -> float32 (T, F)."""
        scaled = np.empty(features.shape, dtype=np.float32)
        scale_rows(features, self.means, self.stds, self.clip, scaled)
        return scaled


@kernel
def scale_rows(
    features: Floats,
    means: Floats,
    stds: Floats,
    clip: float,
    scaled: Singles,
) -> None:
    """Scale market features (T, F) by the first F means and deviations; NaN stays NaN."""
    for t in range(features.shape[0]):
        for i in range(features.shape[1]):
            x = (features[t, i] - means[i]) / stds[i]
            scaled[t, i] = clip if x > clip else -clip if x < -clip else x


@kernel
def observe_account(a: Any, bar: Any, p: Any, row: Singles) -> None:
    """Write the unscaled account features (`ACCOUNT_FEATURES`) at this close into `row` (S,).

    Returns are in deviations of so many bars at the present volatility, the drawdown in annual
    volatilities of the training bars, the running mean of the account's returns in its own
    standard errors, their root mean square in bar volatilities.
    """
    held = a.shares * bar.close
    row[0] = held / a.equity if a.equity > 0 else 0.0
    row[1] = 0.0
    if a.average_price > 0:
        gain = (bar.close / a.average_price - 1.0) * np.sign(a.shares)
        row[1] = in_deviations(gain, bar.sigma, a.bars_held)
    row[2] = np.log1p(float(a.bars_held))
    row[3] = in_deviations(a.equity / a.session_equity - 1.0, bar.sigma, a.session_bars)
    row[4] = (1.0 - a.equity / a.peak) / p.annual_volatility if a.equity < a.peak else 0.0
    row[5] = order_size(a, bar, p)
    deviation = np.sqrt(a.sharpe_b)
    row[6] = a.sharpe_a / max(deviation, 0.1) * np.sqrt(2.0 / p.sharpe_decay)
    row[7] = deviation


@kernel
def in_deviations(gain: float, sigma: float, bars: int) -> float:
    """Return `gain` over the deviation of so many bars, 0 while nothing moves."""
    return gain / (sigma * np.sqrt(max(bars, 1))) if sigma > 0.0 else 0.0


@kernel
def observe(
    a: Any,
    bars: Records,
    features: Singles,
    means: Floats,
    stds: Floats,
    p: Any,
    row: Singles,
) -> None:
    """Write the scaled observation at the account's bar into `row`, float32 (F + S,)."""
    n_market = features.shape[1]
    for i in range(n_market):
        row[i] = features[a.t, i]
    observe_account(a, bars[a.t], p, row[n_market:])
    for i in range(n_market, row.shape[0]):
        scaled = (row[i] - means[i]) / stds[i]
        row[i] = min(max(scaled, -p.observation_clip), p.observation_clip)


@kernel
def observe_mask(mask: Bools, p: Any, row: Singles) -> None:
    """Write the mask (A,), 0 or 1, at the end of an observation that shows it."""
    if p.observe_mask != 0:
        for k in range(mask.shape[0]):
            row[row.shape[0] - mask.shape[0] + k] = np.float32(mask[k])
