"""Market features: one jitted step per bar, looped for history and called once live.

A feature is named with its windows in bars (`return_5`, `macd_12_26_9`) or is a column of
the user's (`extra:<name>`).  docs/features.md lists them all.  A new one is a small kernel,
a branch in `feature_kernels` and a row of `KINDS`, or a plug-in's.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ppo_workbench import plugins
from ppo_workbench.config import ConfigError, FeaturesConfig, settled
from ppo_workbench.config.arrays import Bools, Codes, Floats, Ints
from ppo_workbench.market import feature_kernels as kernels
from ppo_workbench.market import regimes
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.indicators import ATR_STATE, MACD_STATE, RSI_STATE

EXTRA_PREFIX = "extra:"


class FeatureKind(NamedTuple):
    """One row of the registry.

    Attributes:
        form: The name, windows in angle brackets.
        code: Branch in the kernel.
        smallest: Smallest window.
        state_size: Floats of state from the windows.
        warmup: Bars before the value may be used, from the windows; recursions without an
            end count until their start has lost 99.9 % of its weight.
    """

    form: str
    code: int
    smallest: int = 1
    state_size: Callable[[Sequence[int]], int] = lambda windows: 0
    warmup: Callable[[Sequence[int]], int] = lambda windows: 0

    def match(self, name: str) -> re.Match[str] | None:
        """Match the name of a feature, its windows as groups."""
        return re.fullmatch(re.sub(r"<\w+>", r"(\\d{1,6})", self.form), name)


def _ring(windows: Sequence[int]) -> int:
    return 1 + windows[0]


def _tenfold(windows: Sequence[int]) -> int:
    return 10 * windows[0]


_BUILT_IN = (
    FeatureKind("return_<n>", kernels.RETURN, 1, _ring, _ring),
    FeatureKind("ema_distance_<halflife>", kernels.EMA_DISTANCE, 1, lambda _: 2, _tenfold),
    FeatureKind("rsi_<n>", kernels.RSI, 2, lambda _: RSI_STATE, _tenfold),
    FeatureKind(
        "macd_<fast>_<slow>_<signal>",
        kernels.MACD,
        2,
        lambda _: MACD_STATE,
        lambda n: 5 * (n[1] + n[2]),
    ),
    FeatureKind("bollinger_<n>", kernels.BOLLINGER, 2, _ring, _ring),
    FeatureKind("atr_<n>", kernels.ATR, 1, lambda _: ATR_STATE, _tenfold),
    FeatureKind("volume_<n>", kernels.VOLUME, 2, _ring, _ring),
    FeatureKind("efficiency_<n>", kernels.EFFICIENCY, 2, _ring, _ring),
    FeatureKind("trend_<n>", kernels.TREND, 2, _ring, _ring),
    FeatureKind("sigma", kernels.VOLATILITY),
    FeatureKind("volatility_ratio", kernels.RATIO),
    FeatureKind("session_time", kernels.TIME),
    FeatureKind("session_sine", kernels.SINE),
    FeatureKind("session_cosine", kernels.COSINE),
    FeatureKind("regime_high_volatility", kernels.HIGH_REGIME),
    FeatureKind("regime_trend", kernels.TREND_REGIME),
    FeatureKind("large_move", kernels.LARGE),
)
plugins.refuse_built_in(
    "feature",
    plugins.registered().features,
    [
        form
        for form in plugins.registered().features
        if any(kind.match(re.sub(r"<\w+>", "7", form)) for kind in _BUILT_IN)
    ],
)
KINDS = (
    *_BUILT_IN,
    *(
        FeatureKind(
            own.form,
            kernels.FIRST_OWN_FEATURE + k,
            own.smallest,
            lambda windows, size=own.state_size: size(*windows),  # type: ignore[misc]
            lambda windows, bars=own.warmup_bars: bars(*windows),  # type: ignore[misc]
        )
        for k, own in enumerate(plugins.registered().features.values())
    ),
)


_OWN = plugins.registered().features
_BARS_TRIED = 2_000


@dataclass(frozen=True)
class FeatureSpec:
    """What the step needs to know, as arrays; made by `feature_spec`.

    Attributes:
        names: Features in the order of the columns.
        warmup_bars: Rows before this are not to be used.
        plan: int64 (F, 6): code, start and stop of the state, windows.
        settings: float64 (SETTING_FIELDS,), see `regimes.context_settings`.
        state_size: Floats of state, zeros at the start of history.
    """

    names: tuple[str, ...]
    warmup_bars: int
    plan: Ints
    settings: Floats
    state_size: int


@dataclass(frozen=True)
class MarketTable:
    """Features and market context of T bars; row t uses bars <= t only.

    Attributes:
        names: Names of the F features.
        features: float64 (T, F), unscaled.
        sigma: float64 (T,), volatility of a bar's return, a fraction.
        volatility_ratio: float64 (T,), fast over slow volatility, time of day taken out.
        efficiency: float64 (T,), Kaufman's ratio in [0, 1].
        regime: int8 (T,), index of `regimes.REGIME_NAMES`.
        large_move: bool (T,), bar t moved over `large_move_sigmas`.
        mean_notional: float64 (T,), volume times close of a bar, mean of the last 20.
        warmup_bars: Rows before this are not to be used; features there may be NaN.
    """

    names: tuple[str, ...]
    features: Floats
    sigma: Floats
    volatility_ratio: Floats
    efficiency: Floats
    regime: Codes
    large_move: Bools
    mean_notional: Floats
    warmup_bars: int


def compute_market(bars: Bars, config: FeaturesConfig, state: Floats | None = None) -> MarketTable:
    """Run the step over all bars.

    The features are those of `config.names`, then the columns `bars.extra_names` that it
    does not name: who adds a column wants to see it.

    Args:
        bars: The bars, from the start of history or from where `state` was left.
        config: Names and windows of the features.
        state: float64 (state_size,), memory of the step before the first bar, moved on in
            place; zeros, the start of history, where left out.

    Raises:
        ConfigError: A name is unknown or given twice, or a window is out of range.
    """
    spec = feature_spec(config, bars.bars_per_session, bars.extra_names)
    features = np.empty((len(bars), len(spec.names)))
    context = np.empty((len(bars), regimes.CONTEXT_FIELDS))
    state = np.zeros(spec.state_size) if state is None else state
    prices = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    clock = (bars.session, bars.bar_of_session)
    kernels.run_steps(spec.plan, spec.settings, state, prices, clock, bars.extra, features, context)
    return MarketTable(
        names=spec.names,
        features=features,
        sigma=context[:, regimes.SIGMA].copy(),
        volatility_ratio=context[:, regimes.RATIO].copy(),
        efficiency=context[:, regimes.EFFICIENCY].copy(),
        regime=context[:, regimes.REGIME].astype(np.int8),
        large_move=context[:, regimes.LARGE_MOVE] > 0,
        mean_notional=context[:, regimes.MEAN_NOTIONAL].copy(),
        warmup_bars=max(spec.warmup_bars, bars.extra_warmup_bars),
    )


class MarketStream:
    """The same step for one bar at a time, with its memory: what live trading calls."""

    def __init__(
        self, config: FeaturesConfig, bars_per_session: int, extra_names: Sequence[str] = ()
    ) -> None:
        """Start at the beginning of history; feed `spec.warmup_bars` before use."""
        self.spec = feature_spec(config, bars_per_session, extra_names)
        self.state = np.zeros(self.spec.state_size)

    def update(self, bar: Floats) -> tuple[Floats, Floats]:
        """Take the bar that just closed, float64 (BAR_FIELDS + E,), see `bar_values`.

        Returns:
            Features (F,) and context (CONTEXT_FIELDS,), see `regimes.context_step`.
        """
        features, context = np.empty(len(self.spec.names)), np.empty(regimes.CONTEXT_FIELDS)
        kernels.market_step(self.spec.plan, self.spec.settings, self.state, bar, features, context)
        return features, context


def bar_values(bars: Bars, t: int) -> Floats:
    """Return bar t as the step takes it, float64 (BAR_FIELDS + E,)."""
    bar = np.empty(regimes.BAR_FIELDS + bars.extra.shape[1])
    prices = bars.open[t], bars.high[t], bars.low[t], bars.close[t], bars.volume[t]
    bar[: regimes.BAR_FIELDS] = *prices, bars.session[t], bars.bar_of_session[t]
    bar[regimes.BAR_FIELDS :] = bars.extra[t]
    return bar


def feature_spec(
    config: FeaturesConfig, bars_per_session: int, extra_names: Sequence[str] = ()
) -> FeatureSpec:
    """Turn names and windows into the arrays of the step.

    Raises:
        ConfigError: A name is unknown or given twice, or a window is out of range.
    """
    names = list(settled(config.names))
    names += [x for name in extra_names if (x := EXTRA_PREFIX + name) not in names]
    settings = regimes.context_settings(config, bars_per_session)
    size, warmup = regimes.context_state_size(settings), regimes.context_warmup_bars(config)
    plan = np.zeros((len(names), kernels.PLAN_FIELDS), dtype=np.int64)
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f"features.names={name!r}: is listed twice, name it once")
        kind, windows = _parse(name, extra_names)
        own = _OWN.get(kind.form)
        if own is not None:
            _check_state(own, tuple(windows), regimes.BAR_FIELDS + len(extra_names))
        stop = size + kind.state_size(windows)
        plan[i, : kernels.WINDOW] = kind.code, size, stop
        plan[i, kernels.WINDOW : kernels.WINDOW + len(windows)] = windows
        size, warmup = stop, max(warmup, kind.warmup(windows))
    return FeatureSpec(tuple(names), warmup, plan, settings, size)


def _parse(name: str, extra_names: Sequence[str]) -> tuple[FeatureKind, list[int]]:
    """Return the kind of a feature and its windows (a column's window is its index)."""
    if name.removeprefix(EXTRA_PREFIX) in extra_names and name.startswith(EXTRA_PREFIX):
        index = list(extra_names).index(name.removeprefix(EXTRA_PREFIX))
        return FeatureKind(name, kernels.EXTRA), [index]
    for kind in KINDS:
        match = kind.match(name)
        if match:
            windows = [int(text) for text in match.groups()]
            _check_windows(name, kind, windows)
            return kind, windows
    forms = ", ".join(kind.form for kind in KINDS)
    columns = ", ".join(EXTRA_PREFIX + column for column in extra_names)
    raise ConfigError(
        f"features.names={name!r}: is no feature; allowed are {forms}, and "
        f"{columns or EXTRA_PREFIX + '<a column of data.feature_columns>'}"
    )


@lru_cache
def _check_state(own: plugins.OwnFeature, windows: tuple[int, ...], bar_fields: int) -> None:
    """Run a plug-in's step as plain Python over some bars: compiled, it has no bounds.

    Raises:
        ConfigError: It reaches beyond `state`, `bar` or `context`.
    """
    draws = np.random.default_rng(0)
    state, context = np.zeros(own.state_size(*windows)), np.zeros(regimes.CONTEXT_FIELDS)
    for _ in range(min(3 * max(windows, default=0) + 16, _BARS_TRIED)):
        context[:] = draws.random(len(context))
        try:
            own.step(100 + draws.random(bar_fields), context, state, *windows)
        except IndexError as error:
            raise ConfigError(
                f"feature {own.form}: reaches beyond its arrays with windows {list(windows)} "
                f"({error}); its state_size there is {len(state)}"
            ) from None
        except Exception:  # what is compiled may do without it, or says so itself
            return


def _check_windows(name: str, kind: FeatureKind, windows: Sequence[int]) -> None:
    if windows and min(windows) < kind.smallest:
        raise ConfigError(
            f"features.names={name!r}: a window of {kind.form} must be at least {kind.smallest}"
        )
    if kind.code == kernels.MACD and windows[0] >= windows[1]:
        raise ConfigError(f"features.names={name!r}: the fast window must be less than the slow")
