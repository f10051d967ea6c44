"""A minute market with a known, learnable structure: the default data and the yardstick.

Log prices follow, bar by bar, with s the regime, U the time-of-day shape and e a Student-t
shock of unit variance:

    sigma = sigma_bps * volatility_by_regime[s] * U(x) * exp(h / 2 - sd^2 / 4)
    r     = (-edge * edge_by_regime[s] * dev + trend_drift * direction + e) * sigma + jump
    dev   = (p - EMA(p)) / (sigma * sqrt(ema_halflife_bars)), clipped

less half the variance, so that without an edge the price, not its logarithm, is fair.  The
factor exp(h - sd^2 / 2) has mean one for a normal h of standard deviation sd.  h is an AR(1)
that rises when prices fall (leverage effect) and after jumps.  An overnight gap moves the
EMA by `gap_ema_frac` of its size.

Each bar opens after `open_variance_frac` of its variance, so a fill at the next open is a
real fill and still earns the drift and the jump, which lie between open and close.  Given
its shock a bar is a Brownian path, whose high and low are drawn from the exact
distribution of a bridge's maximum and minimum (independently of each other).

What is traded is made in currency: volume is whole shares worth 100 times exp(log volume), so
the market is as liquid at any price, wherever it begins and however far it falls.

Every shock has its own random stream, fixed by the seed alone: two configs of one seed
meet the same shocks, and more sessions only append bars.  Sessions are the full XNYS
sessions from 2010-01-04; half days are left out.  The first bar is in regime 0, h = 0.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ppo_workbench.config import ConfigError, SyntheticConfig
from ppo_workbench.config.arrays import Codes, Floats, Ints
from ppo_workbench.jit import kernel
from ppo_workbench.market.bars import NS_PER_DAY, Bars
from ppo_workbench.market.calendars.exchange import load_sessions

BARS_PER_SESSION = 390
SESSIONS_PER_YEAR = 252.0
BAR_NS = 60_000_000_000
ORACLE_COST_BPS = 1.0
"""Cost a side, in basis points, for which `SyntheticMarket.oracle_exposure` is made."""

_FEWEST_SESSIONS_A_YEAR = 240  # full ones of XNYS: 245 in 2012, the year of a hurricane
_FIRST_DAY, _LAST_DAY = np.datetime64("2010-01-04"), np.datetime64("2092-12-31")
SHOCK_CLIP = 4.0
VOLUME_MOVE_CLIP = 10.0
PRICE_OF_VOLUME = 100.0  # at which the log volume is one of shares
_FLAT_BARS = 5
_NO_OPEN_BARS = 15
# Mean over variance of a good strategy's daily returns, roughly: chosen once on 12 markets of
# a year, where 60 to 120 make no difference to the Sharpe ratio.
_ORACLE_RISK_AVERSION = 60.0


@dataclass(frozen=True)
class SyntheticMarket:
    """Bars with the hidden state that made them, all of shape (T,).

    Attributes:
        bars: What a trader sees.
        true_regime: int8, 0 range/low, 1 trend/low, 2 range/high volatility, 3 stress, in
            force during bar t.
        deviation: Log close less its EMA, in units of `sigma * sqrt(half-life)`, clipped.
        sigma: Standard deviation of the bar's diffusion, a fraction.
        oracle_exposure: Exposure in {-1, 0, 1} wanted at the close of bar t by a trader who
            knows the regime and the parameters and pays `ORACLE_COST_BPS` a side.
    """

    bars: Bars
    true_regime: Codes
    deviation: Floats
    sigma: Floats
    oracle_exposure: Floats


class Model(NamedTuple):
    """Parameters as the kernels take them; log returns, per bar."""

    edge: Floats  # (4,) per regime
    edge_season: Floats  # (390,) time-of-day factor of the edge
    drift: Floats  # (4,) size of the directional drift, in sigma
    down: Floats  # (4,) probability that a directional regime points down
    leave: Floats  # (4,) probability to leave the regime
    switch: Floats  # (4, 4) cumulative probabilities of the next regime
    scale: Floats  # (4,) sigma of the regime
    season: Floats  # (390,) time-of-day factor
    jump_rate: Floats  # (4,)
    jump_size: Floats  # (4,) standard deviation
    jump_mean: Floats  # (4,)
    jump_variance: Floats  # (4,) per bar
    gap_size: Floats  # (4,)
    gap_fair: float  # half the variance of a gap shock
    gap_ema_frac: float
    ema_step: float
    deviation_bars: float
    deviation_clip: float
    h_keep: float
    h_step: float
    h_mean: float
    leverage: float
    h_noise: float
    h_jump: float
    open_variance: float
    log_volume: float
    volume_loadings: Floats  # (4,)
    volume_keep: float
    volume_step: float
    log_initial_price: float


class _Shocks(NamedTuple):
    """Random numbers of every bar, float64 (T,) each; u uniform, z normal, x exponential."""

    switch_u: Floats
    next_u: Floats
    direction_u: Floats
    mixing: Floats
    open_z: Floats
    body_z: Floats
    h_z: Floats
    jump_u: Floats
    jump_z: Floats
    jump_time_u: Floats
    jump_bridge_z: Floats
    high_x: Floats
    low_x: Floats
    volume_z: Floats


class _Path(NamedTuple):
    """Outputs of the simulation, (T,) each."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    regime: Codes
    deviation: Floats
    sigma: Floats


def generate(config: SyntheticConfig) -> SyntheticMarket:
    """Simulate the market of `config`; the same config gives the same bits.

    Returns:
        `config.sessions * 390` bars with their hidden state.
    """
    model = model_of(config)
    count = config.sessions * BARS_PER_SESSION
    path = _empty_path(count)
    _simulate(model, _draw(config, count), _draw_gaps(config), path)
    return SyntheticMarket(
        bars=_bars(config, path),
        true_regime=path.regime,
        deviation=path.deviation,
        sigma=path.sigma,
        oracle_exposure=oracle_exposure(
            config, path.regime, path.deviation, path.sigma, ORACLE_COST_BPS
        ),
    )


def oracle_exposure(
    config: SyntheticConfig,
    regime: Codes,
    deviation: Floats,
    sigma: Floats,
    cost_bps: float,
) -> Floats:
    """Return the exposure, float64 (T,) in {-1, 0, 1}, wanted by one who knows `config`.

    A position is opened or turned when the expected return less a charge for variance, over
    the life of the deviation, pays for both sides; it is closed when the expected return
    falls below half of that charge.  Wanted flat from the close of bar 384, so filled flat
    at the open of bar 385; no opens in the last 15 bars.

    Args:
        config: The parameters that are believed; with those of another market this is
            the trader who is sure of an edge that may not exist.
        regime: int8 (T,), in force during each bar.
        deviation: (T,), at the close of each bar.
        sigma: (T,), of each bar.
        cost_bps: Cost a side in basis points.
    """
    exposure = np.zeros(len(regime))
    belief = _belief(model_of(config))
    _hysteresis(belief, regime, deviation, sigma, cost_bps * 1e-4, exposure)
    return exposure


def model_of(config: SyntheticConfig) -> Model:
    """Return the parameters of `config` as the kernels take them."""
    unit, freedom = config.sigma_bps * 1e-4, config.shock_degrees_of_freedom
    scale = unit * np.asarray(config.volatility_by_regime)
    jump_rate = np.asarray(config.jumps_per_session) / BARS_PER_SESSION
    jump_size = config.jump_size_sigmas * scale
    jump_mean = -config.jump_shift * jump_size * np.array([0.0, 0.0, 1.0, 1.0])
    h_keep = 0.5 ** (1 / config.volatility_halflife_bars)
    return Model(
        edge=config.edge * np.asarray(config.edge_by_regime),
        edge_season=_edge_season(config),
        drift=config.trend_drift * np.array([0.0, 1.0, 0.0, 1.0]),
        down=np.array([0.5, 0.5, 0.5, config.stress_down_probability]),
        leave=1 / np.asarray(config.regime_dwell_bars),
        switch=_cumulative_switch(config),
        scale=scale,
        season=_season(config),
        jump_rate=jump_rate,
        jump_size=jump_size,
        jump_mean=jump_mean,
        jump_variance=jump_rate * (jump_size**2 + jump_mean**2),
        gap_size=config.overnight_gap_scale * scale * math.sqrt(BARS_PER_SESSION),
        gap_fair=freedom / (freedom - 2) / 2,
        gap_ema_frac=config.gap_ema_frac,
        ema_step=1 - 0.5 ** (1 / config.ema_halflife_bars),
        deviation_bars=config.ema_halflife_bars,
        deviation_clip=config.deviation_clip,
        h_keep=h_keep,
        h_step=config.volatility_sd * math.sqrt(1 - h_keep**2),
        h_mean=config.volatility_sd**2 / 4,
        leverage=config.volatility_leverage,
        h_noise=config.volatility_noise,
        h_jump=config.volatility_after_jump,
        open_variance=config.open_variance_frac,
        log_volume=config.log_volume,
        volume_loadings=np.asarray(config.volume_loadings),
        volume_keep=config.volume_noise_autocorrelation,
        volume_step=config.volume_noise_sd * math.sqrt(1 - config.volume_noise_autocorrelation**2),
        log_initial_price=math.log(config.initial_price),
    )


def _edge_season(config: SyntheticConfig) -> Floats:
    """Return the factor of the edge by bar of the session, (390,)."""
    parts = np.asarray(config.edge_by_session_part, dtype=np.float64)
    return parts[np.arange(BARS_PER_SESSION) * len(parts) // BARS_PER_SESSION]


def _season(config: SyntheticConfig) -> Floats:
    """Return the time-of-day factor of volatility, (390,)."""
    base, opening, opening_rate, closing, closing_rate = config.seasonal_shape
    x = np.arange(BARS_PER_SESSION) / (BARS_PER_SESSION - 1)
    shape = base + opening * np.exp(-opening_rate * x) + closing * np.exp(-closing_rate * (1 - x))
    return np.asarray(shape, dtype=np.float64)


def _cumulative_switch(config: SyntheticConfig) -> Floats:
    """Return cumulative switching probabilities (4, 4); rows are normalised."""
    weights = np.asarray(config.regime_switch, dtype=np.float64)
    sums = weights.sum(axis=1, keepdims=True)
    if not sums.all():
        raise ConfigError(
            f"data.synthetic.regime_switch={config.regime_switch}: each row needs a positive "
            "weight, or the regime could not be left"
        )
    cumulative: Floats = np.cumsum(weights, axis=1) / sums
    cumulative[:, -1] = 1.0
    return cumulative


def _stream(config: SyntheticConfig, number: int) -> np.random.Generator:
    """Return the generator of one kind of shock, the same for every length of history."""
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(number,)))


def _draw(config: SyntheticConfig, count: int) -> _Shocks:
    kinds = {"u": "random", "z": "standard_normal", "x": "standard_exponential"}
    arrays = []
    for number, name in enumerate(_Shocks._fields):
        stream = _stream(config, number)
        if name == "mixing":
            arrays.append(_draw_mixing(stream, config.shock_degrees_of_freedom, count))
        else:
            arrays.append(getattr(stream, kinds[name[-1]])(count))
    return _Shocks(*arrays)


def _draw_mixing(stream: np.random.Generator, freedom: float, count: int) -> Floats:
    """Return standard deviations whose product with a normal is Student-t of unit variance."""
    gamma = stream.standard_gamma(freedom / 2, count)
    return np.asarray(np.sqrt((freedom / 2 - 1) / gamma))


def _draw_gaps(config: SyntheticConfig) -> Floats:
    """Return the Student-t shock of the gap before each session, (sessions,)."""
    stream = _stream(config, len(_Shocks._fields))
    return stream.standard_t(config.shock_degrees_of_freedom, config.sessions)


def _empty_path(count: int) -> _Path:
    arrays = {name: np.empty(count) for name in _Path._fields if name != "regime"}
    return _Path(regime=np.empty(count, dtype=np.int8), **arrays)


@kernel
def _simulate(m: Model, z: _Shocks, gaps: Floats, out: _Path) -> None:
    """Fill `out` bar by bar."""
    price = m.log_initial_price
    ema, h, noise, deviation, direction = price, 0.0, 0.0, 0.0, 0.0
    regime = 0
    for t in range(len(out.close)):
        if z.switch_u[t] < m.leave[regime]:
            regime = np.searchsorted(m.switch[regime], z.next_u[t], side="right")
            direction = -1.0 if z.direction_u[t] < m.down[regime] else 1.0
        slot = t % BARS_PER_SESSION
        sigma = m.scale[regime] * m.season[slot] * math.exp(h / 2 - m.h_mean)
        if slot == 0 and t > 0:
            size = m.gap_size[regime]
            gap = (gaps[t // BARS_PER_SESSION] - m.gap_fair * size) * size
            price += gap
            ema += m.gap_ema_frac * gap
            deviation = clipped_deviation(m, price - ema, sigma)
        edge = m.edge[regime] * m.edge_season[slot]
        drift = (m.drift[regime] * direction - edge * deviation) * sigma
        drift -= (sigma * sigma + m.jump_variance[regime]) / 2
        before, price = price, _bar(m, z, t, regime, price, drift, sigma, out)
        ema += m.ema_step * (price - ema)
        deviation = clipped_deviation(m, price - ema, sigma)
        noise = m.volume_keep * noise + m.volume_step * z.volume_z[t]
        volume = _log_volume(m, regime, slot, abs(price - before) / sigma, h, noise)
        out.volume[t] = max(1.0, math.floor(math.exp(volume - price) * PRICE_OF_VOLUME))
        out.regime[t], out.deviation[t], out.sigma[t] = regime, deviation, sigma
        h = _next_h(m, z, t, regime, h)


@kernel
def clipped_deviation(m: Model, distance: float, sigma: float) -> float:
    """Return the distance from the EMA in units of its volatility, clipped."""
    clip = m.deviation_clip
    value: float = distance / (sigma * math.sqrt(m.deviation_bars))
    return min(max(value, -clip), clip)


@kernel
def _bar(
    m: Model,
    z: _Shocks,
    t: int,
    regime: int,
    price: float,
    drift: float,
    sigma: float,
    out: _Path,
) -> float:
    """Write one bar's prices and return its log close."""
    spread = sigma * z.mixing[t]
    start = price + spread * math.sqrt(m.open_variance) * z.open_z[t]
    variance = spread * spread * (1 - m.open_variance)
    move = drift + math.sqrt(variance) * z.body_z[t]
    jumped = z.jump_u[t] < m.jump_rate[regime]
    if jumped:
        # The path is cut at the jump: each side is a Brownian bridge of its own.
        share = z.jump_time_u[t]
        jump = m.jump_mean[regime] + m.jump_size[regime] * z.jump_z[t]
        middle = share * move + math.sqrt(variance * share * (1 - share)) * z.jump_bridge_z[t]
        move += jump
        top, bottom = _extremes(0.0, middle, variance * share, z.high_x[t], z.low_x[t])
        # The second bridge takes the numbers crosswise, so that no more are needed.
        top_2, bottom_2 = _extremes(
            middle + jump, move, variance * (1 - share), z.low_x[t], z.high_x[t]
        )
        top, bottom = max(top, top_2), min(bottom, bottom_2)
    else:
        top, bottom = _extremes(0.0, move, variance, z.high_x[t], z.low_x[t])
    out.open[t] = math.exp(start)
    out.close[t] = math.exp(start + move)
    out.high[t] = max(math.exp(start + top), out.open[t], out.close[t])
    out.low[t] = min(math.exp(start + bottom), out.open[t], out.close[t])
    end: float = start + move
    return end


@kernel
def _extremes(
    start: float, end: float, variance: float, high_x: float, low_x: float
) -> tuple[float, float]:
    """Return maximum and minimum of a Brownian bridge from two standard exponentials.

    P(max > m) = exp(-2 (m - start)(m - end) / variance), inverted; the minimum mirrors it.
    """
    square = (end - start) ** 2
    top = 0.5 * (start + end + math.sqrt(square + 2 * variance * high_x))
    bottom = 0.5 * (start + end - math.sqrt(square + 2 * variance * low_x))
    return top, bottom


@kernel
def _log_volume(m: Model, regime: int, slot: int, move: float, h: float, noise: float) -> float:
    """Return log shares at a price of 100; moves beyond the clip (jumps) add no more volume."""
    load = m.volume_loadings
    value: float = m.log_volume + noise + load[3] * h
    value += load[0] * math.log(m.season[slot]) + load[1] * math.log(m.scale[regime] / m.scale[0])
    value += load[2] * min(move, VOLUME_MOVE_CLIP)
    return value


@kernel
def _next_h(m: Model, z: _Shocks, t: int, regime: int, h: float) -> float:
    """Return log variance after the bar: falls raise it (leverage effect), so do jumps."""
    root = math.sqrt(m.open_variance)
    shock = z.mixing[t] * (root * z.open_z[t] + math.sqrt(1 - m.open_variance) * z.body_z[t])
    shock = min(max(shock, -SHOCK_CLIP), SHOCK_CLIP)
    h = m.h_keep * h + m.h_step * (m.h_noise * z.h_z[t] - m.leverage * shock)
    return h + m.h_jump if z.jump_u[t] < m.jump_rate[regime] else h


class _Belief(NamedTuple):
    """What the oracle knows of each regime, (4,) each but one, log returns per bar."""

    edge: Floats  # reversion per unit of deviation, in sigma
    edge_season: Floats  # (390,) its factor by bar of the session
    drift: Floats  # expected return that does not depend on the deviation
    jump_variance: Floats  # per bar
    life: Floats  # bars in which a deviation decays


def _belief(m: Model) -> _Belief:
    """Return the expected return, its risk and its life by regime.

    A deviation decays as the EMA catches up, as the price reverts and as the regime ends.
    """
    stress = np.array([0.0, 0.0, 0.0, 1.0]) * (1 - 2 * m.down)
    return _Belief(
        edge=m.edge,
        edge_season=m.edge_season,
        drift=m.jump_rate * m.jump_mean + m.drift * stress * m.scale,
        jump_variance=m.jump_variance,
        life=1 / (m.ema_step + m.edge / math.sqrt(m.deviation_bars) + m.leave),
    )


@kernel
def _hysteresis(
    belief: _Belief,
    regime: Codes,
    deviation: Floats,
    sigma: Floats,
    cost: float,
    out: Floats,
) -> None:
    """Fill `out` (T,) with the exposure wanted at each close."""
    held = 0.0
    for t in range(len(out)):
        s, left = regime[t], BARS_PER_SESSION - 1 - t % BARS_PER_SESSION
        # The next bar's edge; what a life beyond the part of the session brings is not counted.
        edge = belief.edge[s] * belief.edge_season[(t + 1) % BARS_PER_SESSION]
        gain = belief.drift[s] - edge * deviation[t] * sigma[t]
        risk = _ORACLE_RISK_AVERSION * (sigma[t] ** 2 + belief.jump_variance[s])
        if left <= _FLAT_BARS:
            held = 0.0
        elif left > _NO_OPEN_BARS and (abs(gain) - risk) * min(belief.life[s], left) > 2 * cost:
            held = 1.0 if gain > 0 else -1.0
        elif held * gain < risk / 2:
            held = 0.0
        out[t] = held


@lru_cache(maxsize=1)
def _session_opens(count: int) -> Ints:
    """Return the UTC nanoseconds at which the first `count` full XNYS sessions open."""
    years = np.timedelta64(366 * (count // _FEWEST_SESSIONS_A_YEAR + 1), "D")
    days = _FIRST_DAY, min(_FIRST_DAY + years, _LAST_DAY)
    first, last = (int(day.astype(np.int64)) * NS_PER_DAY for day in days)
    table = load_sessions("XNYS", first, last)
    full = table.close_ns - table.open_ns == BARS_PER_SESSION * BAR_NS
    opens: Ints = table.open_ns[full & (table.open_ns >= first)]
    return opens[:count]


def _bars(config: SyntheticConfig, path: _Path) -> Bars:
    count = len(path.close)
    session, slot = np.divmod(np.arange(count, dtype=np.int64), BARS_PER_SESSION)
    never = np.full(count, -1, dtype=np.int64)
    return Bars(
        instrument="-".join(filter(None, ["SYNTHETIC", str(config.seed), config.variant])),
        source="synthetic",
        calendar="XNYS",
        timezone="America/New_York",
        bar_seconds=60,
        bars_per_session=BARS_PER_SESSION,
        sessions_per_year=SESSIONS_PER_YEAR,
        start_ns=_session_opens(config.sessions)[session] + slot * BAR_NS,
        open=path.open,
        high=path.high,
        low=path.low,
        close=path.close,
        volume=path.volume,
        half_spread_bps=np.full(count, np.nan),
        session=session,
        bar_of_session=slot,
        bars_left=BARS_PER_SESSION - 1 - slot,
        regular=np.ones(count, dtype=np.bool_),
        extra=np.empty((count, 0)),
        extra_names=(),
        events=never,
        events_ahead=never.copy(),
        notes=("synthetic market: full sessions only, no quotes, no ticks",),
    )
