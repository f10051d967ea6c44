"""Steps a second of the environment, one core, every rule on, random legal actions.

    python benchmarks/env_speed.py [--bars 1000000] [--repeats 5] [--json PATH]

Prints the batch of 256 environments, a plain Gymnasium loop over one environment, and the
memory of a fresh process that holds the bars and steps the batch.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config, settled
from ppo_workbench.jit import kernel
from ppo_workbench.market.features import compute_market
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.sources import load_bars
from ppo_workbench.market.splits import Split, legal_starts
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.env import MaskableTradingEnv
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.table import TradingMarket, trading_market

BARS_PER_SESSION = 390
TARGETS = {
    "batch_steps_per_second": (">=", 2_000_000.0),
    "single_steps_per_second": (">=", 30_000.0),
    "peak_memory_gb": ("<", 1.5),
}


def every_rule_on(bars: int) -> Config:
    """Return the default market with every rule switched on and margin to trade both sides."""
    sessions = math.ceil(bars / BARS_PER_SESSION)
    config = compose([f"data.synthetic.sessions={sessions}", "risk=conservative", "tracking=none"])
    for rule in config.risk.rules().values():
        rule.enabled = True
    config.risk.halt.market_wide = True
    config.risk.regime.blocked = ["trend_high_volatility"]
    return config


def prepare_market(bars_wanted: int) -> tuple[TradingMarket, npt.NDArray[np.int64], int]:
    """Return the market, its legal starts and the length of an episode."""
    config = every_rule_on(bars_wanted)
    bars = load_bars(config.data)
    config = derived(config, bars)
    table = compute_market(bars, config.features)
    scaler = Scaler.fit(table.features[table.warmup_bars :], config.features.clip)
    market = trading_market(bars, table, config, scaler)
    split = Split("all", table.warmup_bars, len(bars))
    length = settled(config.env.episode_bars)
    return market, legal_starts(bars, split, length), length


@kernel
def choose_legal(
    masks: npt.NDArray[np.bool_],
    draws: npt.NDArray[np.float64],
    actions: npt.NDArray[np.int64],
) -> None:
    """Write a uniformly drawn legal action of each environment into `actions` (N,)."""
    for n in range(masks.shape[0]):
        skip = int(draws[n] * masks[n].sum())
        for action in range(masks.shape[1]):
            if masks[n, action]:
                if skip == 0:
                    actions[n] = action
                skip -= 1


def batch_rate(batch: TradingBatch, steps: int, random: np.random.Generator) -> float:
    """Return environment steps a second, the drawing of actions included."""
    actions = np.zeros(len(batch), dtype=np.int64)
    begun = time.perf_counter()
    for _ in range(steps):
        choose_legal(batch.masks, random.random(len(batch)), actions)
        batch.step(actions)
    return steps * len(batch) / (time.perf_counter() - begun)


def single_rate(env: MaskableTradingEnv, steps: int, random: np.random.Generator) -> float:
    """Return steps a second of a plain Gymnasium loop, the drawing of actions included."""
    env.reset(seed=0)
    draws = random.random(steps).tolist()
    begun = time.perf_counter()
    for draw in draws:
        legal = np.flatnonzero(env.action_masks())
        _, _, terminated, truncated, _ = env.step(int(legal[int(draw * len(legal))]))
        if terminated or truncated:
            env.reset()
    return steps / (time.perf_counter() - begun)


def measured(rate: Callable[[], float], repeats: int) -> float:
    """Return the median of several repeats, after one to compile and warm up."""
    rate()
    return statistics.median(rate() for _ in range(repeats))


def memory_gb(bars: int) -> float:
    """Return the peak resident memory of a fresh process that steps 256 environments."""
    command = [sys.executable, __file__, "--memory-only", "--bars", str(bars)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output)["peak_memory_gb"])


def _memory_only(bars: int) -> None:
    batch = TradingBatch(*prepare_market(bars), 256, 0)
    batch_rate(batch, 200, np.random.default_rng(0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
    print(json.dumps({"peak_memory_gb": peak / 1e9}))


def run(bars: int, repeats: int) -> dict[str, Any]:
    """Measure everything."""
    market, starts, length = prepare_market(bars)
    random = np.random.default_rng(0)
    batch = TradingBatch(market, starts, length, 256, 0)
    env = MaskableTradingEnv(market, starts, length)
    return {
        "bars": len(market.bars),
        "environments": 256,
        "repeats": repeats,
        "batch_steps_per_second": measured(lambda: batch_rate(batch, 4_000, random), repeats),
        "single_steps_per_second": measured(lambda: single_rate(env, 20_000, random), repeats),
        "peak_memory_gb": memory_gb(bars),
    }


def _print_table(result: dict[str, Any]) -> None:
    print(f"{result['bars']:,} bars, every rule on, medians of {result['repeats']}")
    for name, (sign, bound) in TARGETS.items():
        value = result[name]
        met = value >= bound if sign == ">=" else value < bound
        print(f"{name:<26}{value:>14,.2f}   bar {sign} {bound:,.1f}   {'met' if met else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_only:
        _memory_only(arguments.bars)
        return
    result = run(arguments.bars, arguments.repeats)
    _print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
