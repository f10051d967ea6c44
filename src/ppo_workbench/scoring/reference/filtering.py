"""What can be known of a synthetic market by one who knows its parameters, not its state.

A grid filter (Hamilton 1989) over regime, direction and log variance h, bar by bar.  Of a
bar it reads all that a trader sees: open, high, low, close and volume.  Given its state a bar
without a jump has a known density: with v = (sigma x mixing)^2, open and body are normal,
the extremes those of a Brownian bridge (both exponential in 1 / v), and the mixing of a
Student-t shock integrates out in closed form:

    E[v^-n exp(-q / v)] = c^-n Gamma(a + n) / Gamma(a) (1 + q / c)^-(a + n),

a half the degrees of freedom and c = sigma^2 (a - 1).  Volume is log-normal given the bar
before.  h moves by the shock, which the bar reveals, and by a normal noise.

Approximated:

* h lies on a grid: a step is spread over three nodes with its own mean and variance.  (Where
  volatility has a half-life of a few bars, a step is wider than that and is cut.)
* With a jump the body is normal and the extremes are those of a large jump: before and after
  it a Brownian path each, whose reach beyond the jump adds up to a Rayleigh law.
* The gap overnight is taken to end at the open, which lies .14 of a bar's deviation off.
* In the bar of a switch, deviation and volume of the bar before are taken in the new state.
* Volume is taken as not rounded to whole shares; without noise of its own it is not read.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ppo_workbench.config import SyntheticConfig
from ppo_workbench.config.arrays import Floats, Ints
from ppo_workbench.jit import kernel
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.synthetic import (
    BARS_PER_SESSION,
    PRICE_OF_VOLUME,
    SHOCK_CLIP,
    VOLUME_MOVE_CLIP,
    Model,
    clipped_deviation,
    model_of,
)

NODES = 49
_REACH_SD, _REACH_JUMPS = 3.0, 1.5  # of the grid of h: below its mean, and further above it
_LEAST = 1e-30  # where rounding left nothing between an extreme and a price
_POWER = 3.0  # of 1 / v in the density of open, body, high and low
_OPEN_POWER = 0.5  # the open's share of it
_BODY_AND_SLOPE = 1.5  # what a jump takes away: its body is another, reach has 1 instead of 2


class Grid(NamedTuple):
    """Hidden states: K of regime and direction times N of h."""

    regime: Ints  # (K,)
    direction: Floats  # (K,) -1, 0, +1
    switch: Floats  # (K, K) probabilities from row to column
    h: Floats  # (N,) equally spaced
    step: float  # between nodes
    sigma: Floats  # (4, N) at a time-of-day factor of 1
    log_sigma: Floats  # (4, N)
    volume: Floats  # (4, N) what regime and h add to log volume
    freedom: float  # degrees of freedom of the shocks
    negligible: float = 1e-8  # probability below which a state counts as impossible in a bar


@dataclass(frozen=True)
class Beliefs:
    """What is believed at the close of bar t, from bars up to t alone.

    Attributes:
        drift: float64 (T,), expected return of the next bar, a fraction.
        variance: float64 (T,), expected variance of the next bar's return, jumps included.
        regime: float64 (T, 4), probabilities of the regime in force during the next bar.
        log_likelihood: float64 (T,), log density of bar t given the bars before it.
    """

    drift: Floats
    variance: Floats
    regime: Floats
    log_likelihood: Floats


def grid_of(config: SyntheticConfig, nodes: int = NODES) -> Grid:
    """Return the states of the market of `config` with `nodes` values of h."""
    m = model_of(config)
    regime = np.array([0, 1, 1, 2, 3, 3])
    direction = np.array([0.0, 1.0, -1.0, 0.0, 1.0, -1.0])  # of no effect in 0 and 2
    enter = np.diff(m.switch, axis=1, prepend=0.0)[regime][:, regime]
    down = m.down[regime]
    enter *= np.where(direction == 0, 1.0, np.where(direction > 0, 1 - down, down))
    leave = m.leave[regime][:, None]
    low = -_REACH_SD * config.volatility_sd
    high = -low + _REACH_JUMPS * config.volatility_after_jump
    h = np.linspace(low, high, nodes) if high > low else np.zeros(1)
    sigma = m.scale[:, None] * np.exp(h / 2 - m.h_mean)
    load = m.volume_loadings
    return Grid(
        regime=regime,
        direction=direction,
        switch=leave * enter + (1 - leave) * np.eye(len(regime)),
        h=h,
        step=float(h[1] - h[0]) if len(h) > 1 else 1.0,
        sigma=sigma,
        log_sigma=np.log(sigma),
        volume=load[1] * np.log(m.scale / m.scale[0])[:, None] + load[3] * h,
        freedom=config.shock_degrees_of_freedom,
    )


def filter_bars(bars: Bars, config: SyntheticConfig, grid: Grid | None = None) -> Beliefs:
    """Return what one who knows `config` believes at each close, strictly causal.

    Args:
        bars: Bars of the market from its first one on.
        config: Its parameters.
        grid: Hidden states; None is `grid_of(config)`.
    """
    count = len(bars)
    beliefs = Beliefs(np.empty(count), np.empty(count), np.zeros((count, 4)), np.empty(count))
    prices = np.log(np.stack([bars.open, bars.high, bars.low, bars.close], axis=1))
    # The log volume at a price of `PRICE_OF_VOLUME`, see `synthetic._simulate`.
    volume = np.log(bars.volume / PRICE_OF_VOLUME) + prices[:, 3]
    out = beliefs.drift, beliefs.variance, beliefs.regime, beliefs.log_likelihood
    _filter(model_of(config), grid or grid_of(config), prices, volume, bars.bar_of_session, out)
    return beliefs


class _Seen(NamedTuple):
    """What a bar shows, in log prices."""

    slot: int
    before_slot: int
    log_c: float  # log of (a - 1) times the time-of-day factor squared
    start: float  # open less the close before
    move: float  # close less open
    extremes: float  # q of the extremes without a jump, times the variance frac of the body
    slopes: float  # what the densities of the extremes have before the exponential, times body^2
    reach: float  # of the extremes beyond open and close together
    power: float  # n of all prices without a jump
    distance: float  # of the price before the bar from its EMA
    volume: float  # innovation of log volume, but for the state
    volume_keep: float
    size: float  # |close less close before| over the time-of-day factor
    size_before: float


@kernel
def _gap_density(m: Model, size: float, gap: float, freedom: float) -> float:
    """Return the density of a gap overnight in a regime with gaps of `size`."""
    x, half = gap / size + m.gap_fair * size, freedom / 2
    scale = math.exp(math.lgamma(half + 0.5) - math.lgamma(half)) / math.sqrt(math.pi * freedom)
    density: float = scale / size * (1 + x * x / freedom) ** -(half + 0.5)
    return density


@kernel
def _drift(m: Model, s: int, sign: float, slot: int, deviation: float, sigma: float) -> float:
    """Return the expected return of a bar but for jumps, fair part not taken off."""
    drift: float = (m.drift[s] * sign - m.edge[s] * m.edge_season[slot] * deviation) * sigma
    return drift


@kernel
def _volume_exponent(m: Model, seen: _Seen, level: float, unit: float) -> float:
    """Return the log density of the volume, but for what no state changes."""
    if m.volume_step == 0.0:
        return 0.0
    load, keep = m.volume_loadings, seen.volume_keep
    size = min(seen.size / unit, VOLUME_MOVE_CLIP)
    before = min(seen.size_before / unit, VOLUME_MOVE_CLIP)
    rest = seen.volume - (1 - keep) * level - load[2] * (size - keep * before)
    exponent: float = -0.5 * (rest / m.volume_step) ** 2
    return exponent


@kernel
def _common(m: Model, g: Grid, seen: _Seen) -> tuple[float, float]:
    """Return the factors of a bar's density, without and with a jump, that no state changes."""
    a, body, root = g.freedom / 2, 1 - m.open_variance, math.sqrt(2 * math.pi)
    opened = seen.power == _POWER
    shared = 1.0 / (root * math.sqrt(m.open_variance)) if opened else 1.0
    if m.volume_step > 0.0:
        shared /= root * m.volume_step
    gamma = math.exp(math.lgamma(a + seen.power) - math.lgamma(a))
    plain = shared * seen.slopes / (root * body**2.5) * gamma
    gamma = math.exp(math.lgamma(a + seen.power - _BODY_AND_SLOPE) - math.lgamma(a))
    leaped = shared / (root * body) * gamma
    return plain, leaped


@kernel
def _densities(
    m: Model, g: Grid, seen: _Seen, k: int, i: int, rate: float
) -> tuple[float, float, float, float]:
    """Return density and shock of the bar without a jump, density and mean shock with one.

    Densities leave out the factors of `_common`.
    """
    s, unit = g.regime[k], g.sigma[g.regime[k], i]
    sigma = unit * m.season[seen.slot]
    deviation = clipped_deviation(m, seen.distance, unit * m.season[seen.before_slot])
    drift = _drift(m, s, g.direction[k], seen.slot, deviation, sigma)
    variance = sigma * sigma
    drift -= (variance + m.jump_variance[s]) / 2
    a, body = g.freedom / 2, 1 - m.open_variance
    c = variance * (a - 1)
    known = a * (2 * g.log_sigma[s, i] + seen.log_c)
    known += _volume_exponent(m, seen, g.volume[s, i], unit)
    rest = seen.move - drift
    opening = seen.start * seen.start / m.open_variance
    q = 0.5 * opening + (0.5 * rest * rest + seen.extremes) / body
    plain = math.exp(known - (a + seen.power) * math.log(c + q))
    shock: float = (seen.start + rest) / sigma
    if rate == 0.0:
        return plain, shock, 0.0, 0.0
    power = seen.power - _BODY_AND_SLOPE
    jump = m.jump_mean[s]
    wide = m.jump_size[s] ** 2 + body * variance
    rest -= jump
    q = 0.5 * (opening + seen.reach * seen.reach / body)
    exponent = known - (a + power) * math.log(c + q) - 0.5 * rest * rest / wide
    leaped = math.exp(exponent) / math.sqrt(wide)
    return plain, shock, leaped, (seen.start + rest * body * variance / wide) / sigma


@kernel
def _spread(g: Grid, target: float, variance: float, weight: float, row: Floats) -> None:
    """Add `weight` to three nodes of `row` (N,) with mean `target` and `variance`.

    A weight below zero, -1/8 of the whole at most, is the price of a variance that is right
    on a coarse grid (Lax and Wendroff 1960); on a smooth belief it cancels.
    """
    last = row.shape[0] - 1
    x = min(max((target - g.h[0]) / g.step, 0.0), float(last))
    near = round(x)
    d = x - near
    wide = min(variance / g.step**2 + d * d, 1.0)
    row[min(near + 1, last)] += weight * (wide + d) / 2
    row[max(near - 1, 0)] += weight * (wide - d) / 2
    row[near] += weight * (1 - wide)


@kernel
def _update(m: Model, g: Grid, seen: _Seen, gap: float, prior: Floats, ahead: Floats) -> float:
    """Weigh `prior` (K, N) by a bar, move h into `ahead` and return the density of the bar."""
    scale, scale_with_jump = _common(m, g, seen)
    ahead[:] = 0.0
    total, noise = 0.0, (m.h_step * m.h_noise) ** 2
    for k in range(prior.shape[0]):
        s = g.regime[k]
        rate = m.jump_rate[s]
        before = 1.0 if np.isnan(gap) else _gap_density(m, m.gap_size[s], gap, g.freedom)
        for i in range(prior.shape[1]):
            if prior[k, i] <= g.negligible:
                continue
            plain, shock, leaped, mean_shock = _densities(m, g, seen, k, i, rate)
            plain *= prior[k, i] * before * (1 - rate) * scale
            leaped *= prior[k, i] * before * rate * scale_with_jump
            total += plain + leaped
            kept = m.h_keep * g.h[i]
            shock = min(max(shock, -SHOCK_CLIP), SHOCK_CLIP)
            _spread(g, kept - m.h_step * m.leverage * shock, noise, plain, ahead[k])
            if rate > 0.0:
                shock = min(max(mean_shock, -SHOCK_CLIP), SHOCK_CLIP)
                target = kept - m.h_step * m.leverage * shock + m.h_jump
                _spread(g, target, noise, leaped, ahead[k])
    ahead /= total
    return total


@kernel
def _mix(
    m: Model, g: Grid, slots: tuple[int, int], distance: float, ahead: Floats, prior: Floats,
    regime: Floats,
) -> tuple[float, float]:  # fmt: skip
    """Switch regimes into `prior`; return expected return and variance of the next bar."""
    slot, following = slots
    drift, variance = 0.0, 0.0
    prior[:] = 0.0
    for k in range(prior.shape[0]):
        s = g.regime[k]
        for j in range(prior.shape[0]):
            for i in range(prior.shape[1]):
                prior[k, i] += g.switch[j, k] * ahead[j, i]
        for i in range(prior.shape[1]):
            unit = g.sigma[s, i]
            sigma = unit * m.season[following]
            deviation = clipped_deviation(m, distance, unit * m.season[slot])
            expected = _drift(m, s, g.direction[k], following, deviation, sigma)
            drift += prior[k, i] * (expected + m.jump_rate[s] * m.jump_mean[s])
            variance += prior[k, i] * (sigma * sigma + m.jump_variance[s])
            regime[s] += prior[k, i]
    return drift, variance


@kernel
def _filter(
    m: Model,
    g: Grid,
    prices: Floats,
    volume: Floats,
    slots: Ints,
    out: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Fill `out` bar by bar from log prices (T, 4) and log volume at one price (T,)."""
    drift, variance, regime, log_likelihood = out
    prior, ahead = np.zeros((len(g.regime), len(g.h))), np.zeros((len(g.regime), len(g.h)))
    _spread(g, 0.0, 0.0, 1.0, ahead[0])  # regime 0 with h = 0, before the first switch
    _mix(m, g, (0, 0), 0.0, ahead, prior, np.zeros(4))
    close = ema = m.log_initial_price
    load, noise, size_before, slot_before = m.volume_loadings[0], 0.0, 0.0, 0
    for t in range(len(volume)):
        slot, opened = slots[t], prices[t, 0]
        gap = np.nan
        if slot == 0 and t > 0 and m.gap_size.min() > 0.0:
            gap = opened - close
            ema += m.gap_ema_frac * gap
            close = opened
        move, top, bottom = prices[t, 3] - opened, prices[t, 1] - opened, prices[t, 2] - opened
        log_season = math.log(m.season[slot])
        level = volume[t] - m.log_volume - load * log_season
        keep = m.volume_keep if t > 0 else 0.0
        seen = _Seen(
            slot=slot,
            before_slot=slot_before if np.isnan(gap) else slot,
            log_c=2 * log_season + math.log(g.freedom / 2 - 1),
            start=opened - close,
            move=move,
            extremes=2 * top * (top - move) + 2 * bottom * (bottom - move),
            slopes=4 * max(2 * top - move, _LEAST) * max(move - 2 * bottom, _LEAST),
            reach=top - bottom - abs(move),
            power=_POWER if np.isnan(gap) else _POWER - _OPEN_POWER,
            distance=close - ema,
            volume=level - keep * noise,
            volume_keep=keep,
            size=abs(prices[t, 3] - close) / m.season[slot],
            size_before=size_before,
        )
        log_likelihood[t] = math.log(_update(m, g, seen, gap, prior, ahead))
        noise, size_before, slot_before = level, seen.size, slot
        close = prices[t, 3]
        ema += m.ema_step * (close - ema)
        following = (slot + 1) % BARS_PER_SESSION
        drift[t], variance[t] = _mix(m, g, (slot, following), close - ema, ahead, prior, regime[t])
