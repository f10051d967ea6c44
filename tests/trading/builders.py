"""Hand-made bars, markets and accounts: quiet, liquid and open unless a test says otherwise."""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import MarketTable
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.splits import Split
from ppo_workbench.trading.account import ACCOUNT_DTYPE, BAR_DTYPE, OUTCOME_DTYPE
from ppo_workbench.trading.actions import ActionSpace, action_space
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rewards import with_volatility
from ppo_workbench.trading.rules.names import RULE_NAMES
from ppo_workbench.trading.rules.params import build_params
from ppo_workbench.trading.rules.reasons import action_reasons, fill_mask
from ppo_workbench.trading.step import begin_episode, step_one
from ppo_workbench.trading.table import TradingMarket

Values = Sequence[float] | npt.NDArray[Any] | float

RISKS = ("conservative", "moderate", "aggressive", "unconstrained")
SELL, HOLD, BUY = 0, 1, 2
FREE = {
    "costs.half_spread_bps": 0.0,
    "costs.quoted_spread": False,
    "env.no_open_last_bars": 0,
    "env.flat_last_bars": 0,
    "reward.bar_volatility_frac": 0.001,
    "reward.annual_volatility_frac": 0.001,
}


@cache
def _preset(risk: str) -> Config:
    return of_minutes(compose([f"risk={risk}", "tracking=none"]))


def of_minutes(config: Config) -> Config:
    """Return a configuration with what follows from minute bars of 5 bp in sessions of 390."""
    bars = hand_bars([100.0, 100.05] * 195, 390)
    return with_volatility(derived(config, bars), bars, (Split("train", 0, len(bars)),))


def configure(risk: str = "unconstrained", **changes: Any) -> Config:
    """Return a preset with `section__field=value` changes; no costs, no session rules."""
    config = copy.deepcopy(_preset(risk))
    settings = FREE | {name.replace("__", "."): value for name, value in changes.items()}
    for name, value in settings.items():
        *sections, field = name.split(".")
        target: Any = config
        for section in sections:
            target = getattr(target, section)
        if not hasattr(target, field):
            raise KeyError(name)
        setattr(target, field, value)
    return config


def only(*rules: str, **changes: Any) -> Config:
    """Return a configuration in which no rule is on but `rules`."""
    config = configure(**changes)
    for name, rule in config.risk.rules().items():
        rule.enabled = name in rules
    return config


def bar_rows(
    closes: Sequence[float], opens: Sequence[float] | None = None, **fields: Values
) -> npt.NDArray[np.void]:
    """Return `BAR_DTYPE` rows: liquid, no volatility, one session, no time between bars."""
    rows = np.zeros(len(closes), dtype=BAR_DTYPE)
    rows["close"] = closes
    rows["open"] = closes if opens is None else opens
    rows["half_spread_bps"], rows["volatility_ratio"], rows["mean_notional"] = np.nan, 1.0, 1e14
    rows["trades"] = 1
    for name, values in fields.items():
        rows[name] = values
    return rows


def hand_market(config: Config, rows: npt.NDArray[np.void]) -> TradingMarket:
    """Return a market over hand-made rows with one constant feature."""
    space = action_space(config.env)
    features = np.zeros((len(rows), 1))
    scaler = Scaler.fit(features, config.features.clip)
    return TradingMarket(
        bars=rows,
        features=scaler.transform_market(features),
        params=build_params(config, space),
        space=space,
        scaler=scaler,
        feature_names=("nothing",),
        regime=np.zeros(len(rows), dtype=np.int8),
    )


class Account:
    """One account on hand-made rows, stepped by the kernel itself."""

    def __init__(self, config: Config, rows: npt.NDArray[np.void], start: int = 0) -> None:
        """Begin with cash at the close of bar `start`."""
        self.space: ActionSpace = action_space(config.env)
        self.rows, self.params = rows, build_params(config, self.space)
        self.state: Any = np.zeros(1, dtype=ACCOUNT_DTYPE)[0]
        self.out: Any = np.zeros(1, dtype=OUTCOME_DTYPE)[0]
        begin_episode(self.state, rows, start, len(rows), self.params[0])

    def __getitem__(self, name: str) -> Any:
        """Return a field of the account."""
        return self.state[name]

    def reasons(self) -> npt.NDArray[np.int64]:
        """Return the bits of the rules that forbid each action now."""
        row = np.full(self.space.size, -1, dtype=np.int64)
        bar = self.rows[self.state["t"]]
        action_reasons(self.state, bar, self.space.levels, self.params[0], row)
        return row

    def blocked(self, action: int) -> set[str]:
        """Return the names of the rules that forbid `action` now."""
        return names(int(self.reasons()[action]))

    def legal(self) -> list[bool]:
        """Return the mask."""
        mask = np.zeros(self.space.size, dtype=np.bool_)
        fill_mask(self.state, self.reasons(), False, self.params[0], mask)
        return [bool(allowed) for allowed in mask]

    def step(self, action: int) -> Any:
        """Carry out `action` and return the outcome."""
        bits = self.reasons()[action]
        step_one(self.state, self.rows, self.space.levels, self.params[0], action, bits, self.out)
        return self.out


def names(bits: int) -> set[str]:
    """Return the rules whose bits are set."""
    return {name for k, name in enumerate(RULE_NAMES) if bits >> k & 1}


def hand_bars(
    closes: Sequence[float],
    bars_per_session: int,
    lows: Sequence[float] | None = None,
    bar_seconds: int = 60,
    **fields: Any,
) -> Bars:
    """Return `Bars` of whole sessions; a session starts every day at 14:30 UTC."""
    close = np.asarray(closes, dtype=np.float64)
    count = np.arange(len(close), dtype=np.int64)
    session, slot = count // bars_per_session, count % bars_per_session
    start = np.datetime64("2024-01-02T14:30", "ns").astype(np.int64)
    values: dict[str, Any] = {
        "start_ns": start + (session * 86_400 + slot * bar_seconds) * 10**9,
        "open": close,
        "high": close,
        "low": close if lows is None else np.asarray(lows, dtype=np.float64),
        "close": close,
        "volume": np.full(len(close), 1e6),
        "half_spread_bps": np.full(len(close), np.nan),
        "session": session,
        "bar_of_session": slot,
        "bars_left": bars_per_session - 1 - slot,
        "regular": np.ones(len(close), dtype=np.bool_),
        "extra": np.zeros((len(close), 0)),
        "events": np.full(len(close), -1, dtype=np.int64),
        "events_ahead": np.full(len(close), -1, dtype=np.int64),
    }
    values |= fields
    return Bars(
        instrument="HAND",
        source="file",
        calendar="XNYS",
        timezone="America/New_York",
        bar_seconds=bar_seconds,
        bars_per_session=bars_per_session,
        sessions_per_year=252,
        extra_names=(),
        notes=(),
        **values,
    )


def quiet_table(bars: Bars, **fields: Any) -> MarketTable:
    """Return market state in which nothing happens."""
    n = len(bars)
    values: dict[str, Any] = {
        "names": ("nothing",),
        "features": np.zeros((n, 1)),
        "sigma": np.full(n, 1e-4),
        "volatility_ratio": np.ones(n),
        "efficiency": np.zeros(n),
        "regime": np.zeros(n, dtype=np.int8),
        "large_move": np.zeros(n, dtype=np.bool_),
        "mean_notional": np.full(n, 1e8),
        "warmup_bars": 0,
    }
    return MarketTable(**(values | fields))
