"""Steps a second of the environment, one core, every rule on, random legal actions.

    python benchmarks/env_speed.py [--bars 1000000] [--repeats 5] [--json PATH]

Prints the batch of 256 environments, a plain Gymnasium loop over one environment, and the
memory of a fresh process that holds the bars and steps the batch.
"""

import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import numpy.typing as npt

from ppo_workbench.cli.main import compose
from ppo_workbench.jit import kernel
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.env import MaskableTradingEnv

BARS_PER_SESSION = 390
TARGETS = {
    "batch_steps_per_second": (">=", 2_000_000.0),
    "single_steps_per_second": (">=", 30_000.0),
    "peak_memory_gb": ("<", 1.5),
}


def prepare_market(bars: int) -> tuple[Any, Any, int]:
    """Return the default market with every rule switched on and margin to trade both sides."""
    sessions = math.ceil(bars / BARS_PER_SESSION)
    config = compose([f"data.synthetic.sessions={sessions}", "risk=conservative", "tracking=none"])
    return harness.whole_market(harness.every_rule(config))


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
    return float(harness.answer(command)["peak_memory_gb"])


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
    hidden = False, harness.HIDDEN
    flags = {"bars": 1_000_000, "repeats": 5, "json": Path, "memory_only": hidden}
    arguments = harness.parser(__doc__, **flags).parse_args()
    if arguments.memory_only:
        _memory_only(arguments.bars)
        return
    result = run(arguments.bars, arguments.repeats)
    _print_table(result)
    harness.write(arguments.json, result, indent=2)


if __name__ == "__main__":
    main()
