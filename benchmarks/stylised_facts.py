"""Print the stylised facts of the synthetic market, and what known policies earn in it.

Run: python benchmarks/stylised_facts.py [--seeds 30] [--sessions 504] [--json PATH]
Takes about ten seconds.  The target column holds minimum, median and maximum over 30 seeds of
504 sessions of the pilot that fixed the model; the reached column those of this run.
"""

from dataclasses import replace
from pathlib import Path

import harness
import numpy as np
import numpy.typing as npt

from ppo_workbench.config import SyntheticConfig
from ppo_workbench.market.synthetic import SyntheticMarket, generate

Floats = npt.NDArray[np.float64]

NULL = SyntheticConfig(edge=0.0, trend_drift=0.0, jump_shift=0.0, stress_down_probability=0.5)
EDGE_BARS = 15

TARGETS: dict[str, tuple[float, float, float]] = {
    "minute_sd_bps": (4.9, 5.2, 5.8),
    "annual_volatility_pct": (15.8, 18.1, 21.7),
    "minute_kurtosis": (51, 70, 192),
    "daily_kurtosis": (3.1, 7.7, 17),
    "acf_abs_lag_1": (0.22, 0.25, 0.30),
    "acf_abs_lag_30": (0.18, 0.22, 0.26),
    "acf_abs_lag_390": (0.03, 0.05, 0.09),
    "acf_return_lag_1": (-0.015, 0.0, 0.015),
    "leverage_correlation": (-0.34, -0.22, -0.04),
    "volume_move_correlation": (0.48, 0.50, 0.51),
    "open_over_midday": (2.2, 2.3, 2.5),
    "close_over_midday": (1.5, 1.6, 1.7),
    "share_regime_0": (0.6, 0.6, 0.6),
    "share_regime_1": (0.22, 0.22, 0.22),
    "share_regime_2": (0.08, 0.08, 0.08),
    "share_regime_3": (0.09, 0.09, 0.09),
}


def stylised_facts(market: SyntheticMarket) -> dict[str, float]:
    """Return the facts of `TARGETS`; minute moves are within sessions, without the gap."""
    bars = market.bars
    per_session = bars.bars_per_session
    log_close = np.log(bars.close)
    moves = np.diff(log_close)
    inside = bars.bar_of_session[1:] > 0
    days = np.diff(log_close[per_session - 1 :: per_session])
    size = np.abs(moves)
    pattern = _mean_by_slot(size, bars.bar_of_session[1:], per_session)
    flat_size = size / pattern[bars.bar_of_session[1:]]
    midday = pattern[180:210].mean()
    shares = np.bincount(market.true_regime, minlength=4) / len(bars)
    return {
        "minute_sd_bps": float(moves[inside].std() * 1e4),
        "annual_volatility_pct": float(days.std() * np.sqrt(252) * 100),
        "minute_kurtosis": _kurtosis(moves[inside]),
        "daily_kurtosis": _kurtosis(days),
        **{f"acf_abs_lag_{lag}": _acf(flat_size, lag) for lag in (1, 30, 390)},
        "acf_return_lag_1": _acf(moves[inside], 1),
        "leverage_correlation": _leverage(moves, per_session),
        "volume_move_correlation": _correlation(np.log(bars.volume[1:])[inside], size[inside]),
        "open_over_midday": float(pattern[1 : 1 + EDGE_BARS].mean() / midday),
        "close_over_midday": float(pattern[-EDGE_BARS:].mean() / midday),
        **{f"share_regime_{s}": float(shares[s]) for s in range(4)},
    }


def daily_returns(
    market: SyntheticMarket, wanted: Floats, cost_bps: float = 0.0, high_multiplier: float = 1.0
) -> Floats:
    """Return returns per session on a fixed capital, (sessions,), of exposures wanted.

    Orders are filled at the next open.  Cost is multiplied in the true high volatility
    regimes, where the default market's rule on the volatility ratio mostly fires.
    """
    bars = market.bars
    held = np.concatenate([[0.0], wanted[:-1]])
    before = np.concatenate([[0.0], held[:-1]])
    last_close = np.concatenate([[bars.open[0]], bars.close[:-1]])
    cost = cost_bps * 1e-4 * np.where(market.true_regime >= 2, high_multiplier, 1.0)
    gain = before * (bars.open / last_close - 1) + held * (bars.close / bars.open - 1)
    gain -= np.abs(held - before) * cost
    return np.asarray(gain.reshape(-1, bars.bars_per_session).sum(axis=1))


def intraday_exposure(market: SyntheticMarket, side: float) -> Floats:
    """Return `side` all day, flat at the open of bar 385."""
    return np.where(market.bars.bars_left > 5, side, 0.0)


def fade_exposure(market: SyntheticMarket, enter: float) -> Floats:
    """Return the side against the last deviation beyond `enter`, in every regime."""
    deviation, flat = market.deviation, market.bars.bars_left <= 5
    marked = (np.abs(deviation) > enter) | flat
    last = np.maximum.accumulate(np.where(marked, np.arange(len(deviation)), 0))
    return np.where(flat | flat[last], 0.0, -np.sign(deviation[last]))


def annual_sharpe(days: Floats) -> float:
    """Return the Sharpe ratio of daily returns, a year having 252."""
    return float(days.mean() / days.std() * np.sqrt(252)) if days.any() else 0.0


def policy_sharpes(market: SyntheticMarket, null: SyntheticMarket) -> dict[str, float]:
    """Return annual Sharpe ratios; `null` is the market of the same seed without an edge."""
    long, short = intraday_exposure(market, 1.0), intraday_exposure(market, -1.0)
    hold = np.ones(len(market.bars))
    fade = fade_exposure(market, 1.0)
    return {
        "oracle_1bp": annual_sharpe(daily_returns(market, market.oracle_exposure, 1.0, 2.0)),
        "fade_unmasked_1bp": annual_sharpe(daily_returns(market, fade, 1.0, 2.0)),
        "fade_true_low_volatility_1bp": annual_sharpe(
            daily_returns(market, np.where(market.true_regime < 2, fade, 0.0), 1.0, 2.0)
        ),
        "buy_and_hold_gross": annual_sharpe(daily_returns(market, hold)),
        "intraday_short_gross": annual_sharpe(daily_returns(market, short)),
        "null_intraday_long_gross": annual_sharpe(daily_returns(null, long)),
        "null_intraday_short_gross": annual_sharpe(daily_returns(null, short)),
        "null_fooled_oracle_1bp": annual_sharpe(
            daily_returns(null, market.oracle_exposure, 1.0, 2.0)
        ),
    }


def _kurtosis(values: Floats) -> float:
    deviation = values - values.mean()
    return float((deviation**4).mean() / (deviation**2).mean() ** 2)


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _acf(values: Floats, lag: int) -> float:
    return _correlation(values[:-lag], values[lag:])


def _mean_by_slot(values: Floats, slot: npt.NDArray[np.int64], slots: int) -> Floats:
    return np.asarray(np.bincount(slot, values, slots) / np.bincount(slot, minlength=slots))


def _leverage(moves: Floats, window: int) -> float:
    """Correlate the past window's return with the next window's mean absolute move."""
    total = np.concatenate([[0.0], np.cumsum(moves)])
    size = np.concatenate([[0.0], np.cumsum(np.abs(moves))])
    past, sizes = total[window:] - total[:-window], size[window:] - size[:-window]
    return _correlation(past[:-window], sizes[window:])


def _spread(values: list[float]) -> tuple[float, float, float]:
    return min(values), float(np.median(values)), max(values)


def _row(name: str, reached: tuple[float, float, float], target: str = "") -> str:
    return f"{name:32}{' / '.join(f'{value:.3g}' for value in reached):>28}   {target}"


def main() -> None:
    options = harness.parser(__doc__, seeds=30, sessions=504, json=Path).parse_args()
    facts, sharpes = [], []
    for seed in range(options.seeds):
        market = generate(SyntheticConfig(sessions=options.sessions, seed=seed))
        null = generate(replace(NULL, sessions=options.sessions, seed=seed))
        facts.append(stylised_facts(market))
        sharpes.append(policy_sharpes(market, null))
    print(f"{'minimum / median / maximum':32}{'reached':>28}   target")
    for name, target in TARGETS.items():
        reached = _spread([row[name] for row in facts])
        print(_row(name, reached, " / ".join(f"{value:g}" for value in target)))
    print("\nannual Sharpe ratio")
    for name in sharpes[0]:
        values = [row[name] for row in sharpes]
        mean, error = harness.spread(values)
        print(_row(name, _spread(values), f"mean {mean:+.2f} +- {error:.2f}"))
    result = {"sessions": options.sessions, "facts": facts, "sharpe_annual": sharpes}
    harness.write(options.json, result)


if __name__ == "__main__":
    main()
