"""Bars for the golden vectors, and the walk through them with the training step itself.

The bars are a random walk in the model's own layout (bar length, bars a session, columns of
the user's), after a warm-up of the model's length.  128 of them are kept, with the memory of
the features before the first one.  They cross the end of a session and hold a burst of
volatility, and the account wanders through all its positions, so that masks differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ppo_workbench.config import ArtifactError, Config
from ppo_workbench.config.arrays import Bools, Floats, Ints, Singles
from ppo_workbench.delivery.golden import (
    ROWS,
    SCALER_MEANS,
    SCALER_STDS,
    Golden,
    check_step,
    decisive,
    uses_mask,
)
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.delivery.network import PolicyWeights, best_allowed, forward_row
from ppo_workbench.delivery.settings import stored_config
from ppo_workbench.market.bars import NS_PER_DAY, NS_PER_SECOND, Bars
from ppo_workbench.market.features import EXTRA_PREFIX, bar_values, compute_market, feature_spec
from ppo_workbench.market.regimes import BAR_FIELDS
from ppo_workbench.trading.account import OUTCOME_DTYPE
from ppo_workbench.trading.chance import seed_accounts
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.step import begin_episode, refresh, step_one
from ppo_workbench.trading.table import TradingMarket, trading_market

BARS = 128
_SIGMA_A_MINUTE = 5e-4
_LARGEST_SIGMA = 0.02
_BURST = slice(80, 112)  # rows of the kept bars
_BURST_FACTOR = 3.0
_PRICE, _VOLUME = 100.0, 1e5


@dataclass(frozen=True)
class Layout:
    """How the bars of a model look.

    Attributes:
        bar_seconds: Nominal length of a bar.
        bars_per_session: Nominal bars of a full session.
        market_names: Market features in the order of the observation.
    """

    bar_seconds: int
    bars_per_session: int
    market_names: tuple[str, ...]

    @property
    def extra_names(self) -> tuple[str, ...]:
        """The user's own columns, in the order in which they are observed."""
        names = (name for name in self.market_names if name.startswith(EXTRA_PREFIX))
        return tuple(name.removeprefix(EXTRA_PREFIX) for name in names)


@dataclass(frozen=True)
class _Walk:
    """What the step shows at each of T bars: observation (T, n), mask (T, A), path (T,)."""

    observation: Singles
    mask: Bools
    path: Ints


def golden_vectors(
    config: Config, layout: Layout, scaler: Scaler, weights: PolicyWeights
) -> dict[str, torch.Tensor]:
    """Make the golden vectors of a model, the same ones each time.

    Args:
        config: What it decides with.
        layout: How its bars look.
        scaler: Its scaler.
        weights: Its actor.

    Returns:
        Tensors whose names start with `golden.`; none where fewer than 64 of the 128 bars are
        decided by a margin: such a policy decides by its rounding errors.
    """
    state, bars = _golden_bars(config, layout, scaler)
    market = _market(config, layout, scaler, bars, state.copy())
    walk = _walk(market, None)
    masks = walk.mask if uses_mask(config.model.type) else np.ones_like(walk.mask)
    scratch = weights.scratch()
    logits = np.stack([forward_row(row, weights, scratch).copy() for row in walk.observation])
    clear = [t for t in range(BARS) if decisive(logits[t], masks[t])]
    if len(clear) < ROWS:
        return {}
    rows = _chosen(np.array(clear, dtype=np.int64), walk.mask)
    return Golden(
        observation=walk.observation[rows],
        mask=walk.mask[rows],
        logits=logits[rows],
        action=np.array([best_allowed(logits[t], masks[t]) for t in rows], dtype=np.int64),
        rows=rows,
        path=walk.path,
        state=state,
        bars=np.stack([bar_values(bars, t) for t in range(BARS)]),
        start_ns=bars.start_ns,
        bars_left=bars.bars_left,
    ).tensors()


def replay_step(metadata: Metadata, tensors: Mapping[str, torch.Tensor], golden: Golden) -> None:
    """Make features, observations and masks again from the stored bars.

    Raises:
        ArtifactError: Something comes out otherwise, or the metadata contradict themselves.
    """
    config, data = stored_config(metadata), metadata.data
    if data.bars_per_session is None:
        raise ArtifactError(
            f"model {metadata.name!r} does not say how many bars a session has, so its features "
            "cannot be made; train it anew"
        )
    names = tuple(metadata.observation.market_names)
    layout = Layout(data.bar_seconds, data.bars_per_session, names)
    spec = feature_spec(config.features, layout.bars_per_session, layout.extra_names)
    if spec.names != names or golden.state.shape != (spec.state_size,):
        raise ArtifactError(
            f"model {metadata.name!r}: it observes {list(names)}, its feature settings make "
            f"{list(spec.names)}; use the version of ppo_workbench that wrote it"
        )
    means, stds = (tensors[name].numpy() for name in (SCALER_MEANS, SCALER_STDS))
    scaler = Scaler(means, stds, config.features.clip)
    market = _market(config, layout, scaler, _as_bars(layout, golden), golden.state.copy())
    walk = _walk(market, golden.path)
    check_step(metadata, golden, walk.observation[golden.rows], walk.mask[golden.rows])


def _market(
    config: Config, layout: Layout, scaler: Scaler, bars: Bars, state: Floats
) -> TradingMarket:
    table = compute_market(bars, config.features, state)
    assert table.names == layout.market_names
    return trading_market(bars, table, config, scaler)


def _walk(market: TradingMarket, path: Ints | None) -> _Walk:
    """Lead an account through all bars by the given actions, or let it wander."""
    generator, hold = np.random.default_rng(0), market.space.hold
    count, p = len(market.bars), market.params[0]
    account, outcome = seed_accounts(1, 0)[0], np.zeros(1, dtype=OUTCOME_DTYPE)[0]
    begin_episode(account, market.bars, 0, count, p)
    observation = np.zeros((count, market.observation_size), dtype=np.float32)
    mask = np.zeros((count, market.space.size), dtype=np.bool_)
    taken = np.zeros(count, dtype=np.int64)
    reasons = np.zeros(market.space.size, dtype=np.int64)
    inputs, levels = market.inputs, market.space.levels
    for t in range(count):
        refresh(account, inputs, observation[t], mask[t], reasons)
        taken[t] = path[t] if path is not None else _wander(generator, t, mask[t], hold)
        if t + 1 < count:
            step_one(account, market.bars, levels, p, taken[t], reasons[taken[t]], outcome)
    return _Walk(observation, mask, taken)


def _wander(generator: np.random.Generator, t: int, mask: Bools, hold: int) -> int:
    """Keep what is held while a rule forbids anything, else lean up 20 bars, then down 20."""
    if not mask.all() and mask[hold]:
        return hold
    middle, allowed = len(mask) // 2, np.flatnonzero(mask)
    leaning = allowed[allowed >= middle if t // 20 % 2 == 0 else allowed <= middle]
    return int(generator.choice(leaning if len(leaning) else allowed))


def _chosen(clear: Ints, mask: Bools) -> Ints:
    """Choose ROWS of the bars `clear`: one of each mask (T, A) that occurs, the rest evenly."""
    _, kinds = np.unique(mask[clear], axis=0, return_index=True)
    kinds = kinds[: ROWS // 2]
    spread = np.linspace(0, len(clear) - 1, ROWS - len(kinds)).round().astype(np.int64)
    picked = np.union1d(kinds, spread)
    others = np.setdiff1d(np.arange(len(clear)), picked)[: ROWS - len(picked)]
    return clear[np.union1d(picked, others)]


def _golden_bars(config: Config, layout: Layout, scaler: Scaler) -> tuple[Floats, Bars]:
    """Return the memory of the features after the warm-up, and the bars that are kept."""
    spec = feature_spec(config.features, layout.bars_per_session, layout.extra_names)
    # A session ends in the middle of what is kept.
    warmup = spec.warmup_bars + (-spec.warmup_bars - BARS // 2) % layout.bars_per_session
    bars = _random_bars(layout, scaler, warmup)
    state = np.zeros(spec.state_size)
    compute_market(bars.slice(0, warmup), config.features, state)
    return state, bars.slice(warmup, warmup + BARS)


def _random_bars(layout: Layout, scaler: Scaler, warmup: int) -> Bars:
    """Return a random walk of `warmup` + BARS bars."""
    generator, count = np.random.default_rng(0), warmup + BARS
    noise = generator.standard_normal((count, 5))
    sigma = np.full(count, min(_SIGMA_A_MINUTE * (layout.bar_seconds / 60) ** 0.5, _LARGEST_SIGMA))
    sigma[warmup:][_BURST] *= _BURST_FACTOR
    close = _PRICE * np.exp(np.cumsum(sigma * noise[:, 0]))
    open_ = np.r_[_PRICE, close[:-1]] * np.exp(0.1 * sigma * noise[:, 1])
    high = np.maximum(open_, close) * np.exp(0.5 * sigma * np.abs(noise[:, 2]))
    low = np.minimum(open_, close) * np.exp(-0.5 * sigma * np.abs(noise[:, 3]))
    columns = [layout.market_names.index(EXTRA_PREFIX + name) for name in layout.extra_names]
    own = generator.standard_normal((count, len(columns)))
    session, slot = np.divmod(np.arange(count, dtype=np.int64), layout.bars_per_session)
    bar_ns = layout.bar_seconds * NS_PER_SECOND
    session_ns = max(NS_PER_DAY, layout.bars_per_session * bar_ns)
    return _bars(
        layout,
        prices=np.stack([open_, high, low, close, np.floor(_VOLUME * np.exp(0.3 * noise[:, 4]))]),
        clock=np.stack([session, slot]),
        start_ns=session * session_ns + slot * bar_ns,
        bars_left=layout.bars_per_session - 1 - slot,
        extra=scaler.means[columns] + scaler.stds[columns] * own,
    )


def _as_bars(layout: Layout, golden: Golden) -> Bars:
    """Turn stored rows into bars."""
    expected = BAR_FIELDS + len(layout.extra_names)
    if golden.bars.shape[1:] != (expected,):
        raise ArtifactError(
            f"golden.bars has shape {golden.bars.shape}, rows of {expected} values are needed; "
            "use the version of ppo_workbench that wrote the model"
        )
    columns = np.ascontiguousarray(golden.bars.T)
    return _bars(
        layout,
        prices=columns[:5],
        clock=columns[5:BAR_FIELDS].astype(np.int64),
        start_ns=golden.start_ns,
        bars_left=golden.bars_left,
        extra=np.ascontiguousarray(golden.bars[:, BAR_FIELDS:]),
    )


def _bars(
    layout: Layout,
    prices: Floats,
    clock: Ints,
    start_ns: Ints,
    bars_left: Ints,
    extra: Floats,
) -> Bars:
    """Name what belongs to T bars; prices (5, T), clock (2, T)."""
    count = len(start_ns)
    never = np.full(count, -1, dtype=np.int64)
    open_, high, low, close, volume = prices
    return Bars(
        instrument="GOLDEN",
        source="golden",
        calendar="24/7",
        timezone="UTC",
        bar_seconds=layout.bar_seconds,
        bars_per_session=layout.bars_per_session,
        sessions_per_year=252.0,
        start_ns=start_ns,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        half_spread_bps=np.full(count, np.nan),
        session=clock[0],
        bar_of_session=clock[1],
        bars_left=bars_left,
        regular=np.ones(count, dtype=np.bool_),
        extra=extra,
        extra_names=layout.extra_names,
        events=never,
        events_ahead=never.copy(),
        notes=(),
    )
