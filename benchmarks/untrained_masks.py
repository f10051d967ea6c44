"""An untrained MaskablePPO policy cannot break a rule: millions of steps, nothing counted.

    python benchmarks/untrained_masks.py [--steps 10000000] [--envs 512] [--json PATH]

The steps are shared among the risk presets (and one with every rule on), both action sets and
both answers to forbidden actions.  Beside the environment's own counts an independent look at
the accounts asks whether anything was held overnight where the session rule forbids it.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from sb3_contrib import MaskablePPO

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.market.sources import load_bars
from ppo_workbench.trading.batch import TradingBatch

PRESETS = ("conservative", "moderate", "aggressive", "unconstrained", "every rule")
LADDERS = {"step": "[-1,0,1]", "target": "[-1,-0.5,0,0.5,1]"}


def configurations(sessions: int) -> Iterator[tuple[str, Config]]:
    """Yield each preset with each action set, rejecting and executing in turn."""
    modes = ("reject", "execute")
    count = 0
    for preset in PRESETS:
        for kind, levels in LADDERS.items():
            mode = modes[count % 2]
            count += 1 if kind == "step" else 2  # so that both modes meet both sets
            risk = "conservative" if preset == "every rule" else preset
            actions = f"env.action_set={kind}", f"env.exposure_levels={levels}"
            data = f"data.synthetic.sessions={sessions}", "features.volatility_slow_bars=390"
            rules = f"risk={risk}", f"env.forbidden_action={mode}", "costs=us_etf"
            config = compose([*data, *rules, *actions, "tracking=none"])
            if preset == "every rule":
                harness.every_rule(config)
            yield f"{preset}, {kind}, {mode}", config


def vec_env(config: Config, envs: int) -> tuple[TradingVecEnv, np.ndarray]:
    """Return the batched environment over all bars, and the bars left at each bar."""
    market, starts, length = harness.whole_market(config)
    batch = TradingBatch(market, starts, length, envs, 0)
    return TradingVecEnv(batch), load_bars(config.data).bars_left


def run_one(config: Config, steps: int, envs: int) -> dict[str, int]:
    """Let an untrained policy sample `steps` masked actions; return what was counted."""
    env, bars_left = vec_env(config, envs)
    torch.manual_seed(0)
    policy = MaskablePPO("MlpPolicy", env, n_steps=2, batch_size=2 * envs, device="cpu").policy
    observations = np.asarray(env.reset())
    counts = {"steps": 0, "fills": 0, "masked": 0, "rejected": 0, "violated": 0, "overnight": 0}
    intraday = config.risk.session.enabled
    accounts, outcomes = env.batch.accounts, env.batch.outcomes
    while counts["steps"] < steps:
        masks = env.action_masks()
        with torch.no_grad():
            actions = policy(torch.from_numpy(observations), action_masks=masks)[0].numpy()
        last_bar = bars_left[accounts["t"]] == 0
        held = accounts["shares"] != 0.0
        observations = np.asarray(env.step(actions)[0])
        counts["steps"] += envs
        seen: dict[str, Any] = {key: outcomes[key] for key in ("rejected", "violated")}
        seen |= {"fills": outcomes["fill_quantity"], "masked": ~masks.all(axis=1)}
        for key, found in (seen | {"overnight": last_bar & held & intraday}).items():
            counts[key] += int(np.count_nonzero(found))
    return counts


def run(steps: int, envs: int, sessions: int = 60) -> dict[str, dict[str, int]]:
    """Run every configuration with its share of the steps."""
    torch.set_num_threads(1)
    configs = list(configurations(sessions))
    share = steps // len(configs)
    return {name: run_one(config, share, envs) for name, config in configs}


def main() -> None:
    arguments = harness.parser(__doc__, steps=10_000_000, envs=512, json=Path).parse_args()
    begun = time.perf_counter()
    results = run(arguments.steps, arguments.envs)
    for name, counts in results.items():
        print(f"{name:<32}" + "  ".join(f"{key} {value:,}" for key, value in counts.items()))
    keys = next(iter(results.values()))
    total = {key: sum(counts[key] for counts in results.values()) for key in keys}
    seconds = time.perf_counter() - begun
    print(f"{'total':<32}" + "  ".join(f"{key} {value:,}" for key, value in total.items()))
    print(f"{seconds:.0f} s")
    harness.write(arguments.json, {"total": total, **results}, indent=2)
    if total["rejected"] or total["violated"] or total["overnight"]:
        raise SystemExit("an untrained masked policy broke a rule")


if __name__ == "__main__":
    main()
