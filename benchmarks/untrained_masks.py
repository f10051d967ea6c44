"""An untrained MaskablePPO policy cannot break a rule: millions of steps, nothing counted.

    python benchmarks/untrained_masks.py [--steps 10000000] [--envs 512] [--json PATH]

The steps are shared among the risk presets (and one with every rule on), both action sets and
both answers to forbidden actions.  Beside the environment's own counts an independent look at
the accounts asks whether anything was held overnight where the session rule forbids it.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sb3_contrib import MaskablePPO

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config, settled
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.market.features import compute_market
from ppo_workbench.market.horizons import derived
from ppo_workbench.market.sources import load_bars
from ppo_workbench.market.splits import Split, legal_starts
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.rewards import with_volatility
from ppo_workbench.trading.table import trading_market

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
            config = compose(
                [
                    f"data.synthetic.sessions={sessions}",
                    "features.volatility_slow_bars=390",
                    f"risk={risk}",
                    f"env.action_set={kind}",
                    f"env.exposure_levels={levels}",
                    f"env.forbidden_action={mode}",
                    "costs=us_etf",
                    "tracking=none",
                ]
            )
            if preset == "every rule":
                for rule in config.risk.rules().values():
                    rule.enabled = True
                config.risk.halt.market_wide = True
                config.risk.regime.blocked = ["trend_high_volatility"]
            yield f"{preset}, {kind}, {mode}", config


def vec_env(config: Config, envs: int) -> tuple[TradingVecEnv, np.ndarray]:
    """Return the batched environment over all bars, and the bars left at each bar."""
    bars = load_bars(config.data)
    config = derived(config, bars)
    table = compute_market(bars, config.features)
    scaler = Scaler.fit(table.features[table.warmup_bars :], config.features.clip)
    split = Split("all", table.warmup_bars, len(bars))
    config = with_volatility(config, bars, (split,))
    market = trading_market(bars, table, config, scaler)
    length = settled(config.env.episode_bars)
    starts = legal_starts(bars, (split,), length)
    return TradingVecEnv(TradingBatch(market, starts, length, envs, 0)), bars.bars_left


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
        counts["fills"] += int(np.count_nonzero(outcomes["fill_quantity"]))
        counts["masked"] += int(np.count_nonzero(~masks.all(axis=1)))
        counts["rejected"] += int(np.count_nonzero(outcomes["rejected"]))
        counts["violated"] += int(np.count_nonzero(outcomes["violated"]))
        counts["overnight"] += int(np.count_nonzero(last_bar & held)) if intraday else 0
    return counts


def run(steps: int, envs: int, sessions: int = 60) -> dict[str, dict[str, int]]:
    """Run every configuration with its share of the steps."""
    torch.set_num_threads(1)
    configs = list(configurations(sessions))
    share = steps // len(configs)
    return {name: run_one(config, share, envs) for name, config in configs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--envs", type=int, default=512)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    results = run(arguments.steps, arguments.envs)
    for name, counts in results.items():
        print(f"{name:<32}" + "  ".join(f"{key} {value:,}" for key, value in counts.items()))
    keys = next(iter(results.values()))
    total = {key: sum(counts[key] for counts in results.values()) for key in keys}
    seconds = time.perf_counter() - begun
    print(f"{'total':<32}" + "  ".join(f"{key} {value:,}" for key, value in total.items()))
    print(f"{seconds:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps({"total": total} | results, indent=2) + "\n")
    if total["rejected"] or total["violated"] or total["overnight"]:
        raise SystemExit("an untrained masked policy broke a rule")


if __name__ == "__main__":
    main()
