"""The native learner beside its true rival: the whole loop as one jitted JAX program.

    python benchmarks/jax_peer.py --rounds 7 --json docs/results/jax_peer.json

JAX is no dependency: an environment of its own is made for it (`--python` names one that is
there).  Both learners get the same market, rules, network and hyperparameters, and one core.
First the peer plays one episode of legal actions that this side played: observations, masks
and rewards have to agree, or nothing is measured.  Then they take turns; what is compared is
CPU time of whole rollouts and updates, compilation apart.
"""

import os

import harness

# One thread, before numpy, scipy and torch load.
os.environ.update(harness.ONE_THREAD)

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppo_workbench import compose
from ppo_workbench.config import Config
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars
from ppo_workbench.trading.rules import names as rule

JAX = "jax==0.10.2"
REPLAYED = 2000  # decisions at most
HYPERPARAMETERS = (
    *("learning_rate", "gamma", "gae_lambda", "clip_range", "ent_coef", "vf_coef"),
    *("max_grad_norm", "n_epochs", "n_envs", "n_steps", "batch_size"),
)


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    n_envs: int
    n_steps: int
    batch_size: int
    rollouts: int  # of a turn


CASES = (
    Case(1, 2048, 64, 10),
    Case(8, 256, 64, 10),
    Case(64, 64, 512, 10),
    Case(256, 64, 2048, 4),
)


def configured(case: Case) -> Config:
    """Return the experiment of a case: the default rules, whole shares apart."""
    shape = {key: getattr(case, key) for key in ("n_envs", "n_steps", "batch_size")}
    shape |= {"n_epochs": 10, "learning_rate_schedule": "constant"}
    changes = [f"model.{key}={value}" for key, value in shape.items()]
    market = "data.synthetic.sessions=120", "market.lot=0.0", "market.minimum_order=0.0"
    return compose([*changes, *market, "tracking=none"])


def written(experiment: Experiment, case: Case, folder: Path) -> dict[str, Any]:
    """Write what the peer learns from; return an episode that was played here."""
    config, market = experiment.config, experiment.market
    bars, p = market.bars, market.params[0]
    batch = experiment.batch()
    cash = float(p["initial_cash"])
    bits = bars["rule_bits"] & int(p["enabled"])
    wide = bars["volatility_ratio"] > p["cost_volatility_ratio"]
    spread = np.where(wide, p["high_volatility_multiplier"], 1.0) * p["half_spread_bps"]
    numbers = {
        "features": market.features,
        "open": bars["open"],
        "close": bars["close"],
        "sigma": bars["sigma"],
        "cost_rate": spread * 1e-4,
        "largest_order": bars["mean_notional"] * (p["liquidity__max_volume_frac"] / cash),
        "means": market.scaler.means[-8:],
        "stds": market.scaler.stds[-8:],
    }
    played = play(experiment)
    single: Any = {name: np.asarray(x, np.float32) for name, x in numbers.items()}
    np.savez(
        folder / "market.npz",
        **single,
        session=bars["session"].astype(np.int32),
        trades=bars["trades"].astype(np.int32),
        flatten=bits & rule.SESSION_FLATTEN != 0,
        no_increase=bits & rule.MARKET_NO_INCREASE != 0,
        no_short=bits & rule.SHORT_SALE != 0,
        starts=batch.starts.astype(np.int32),
        replay_start=played["start"],
        replay_actions=played["actions"],
    )
    account = {
        "episode_bars": batch.episode_bars,
        "annual_volatility": float(p["annual_volatility"]),
        "bar_volatility": float(p["bar_volatility"]),
        "mean_scale": float(np.sqrt(2.0 / p["sharpe_decay"])),
        "decay": float(p["sharpe_decay"]),
        "clip": float(p["observation_clip"]),
        "daily_loss": float(p["daily_loss__max_loss_frac"]),
        "caution": float(p["drawdown__caution_frac"]),
        "flatten_at": float(p["drawdown__flatten_frac"]),
        "pause_bars": int(p["drawdown__pause_bars"]),
        "reduced_size": float(p["drawdown__reduced_size"]),
        "minimum_equity": float(p["maintenance_margin__minimum_equity_usd"]) / cash,
    }
    learner = {name: getattr(config.model, name) for name in HYPERPARAMETERS}
    learner |= {"hidden": config.model.net_arch[0]}
    document = {"account": account, "learner": learner}
    (folder / "case.json").write_text(json.dumps(document), encoding="utf-8")
    return played


def play(experiment: Experiment) -> dict[str, Any]:
    """Play legal actions at random that move often, from the first start on."""
    batch = experiment.batch()
    start = int(batch.starts[0])
    count = min(batch.episode_bars - 1, REPLAYED)
    batch.reset_one(0, start)
    rng = np.random.default_rng(0)
    kept: dict[str, list[Any]] = {k: [] for k in ("actions", "seen", "masks", "rewards", "equity")}
    actions = np.ones(len(batch), np.int64)
    for _ in range(count):
        kept["seen"].append(batch.observations[0].copy())
        kept["masks"].append(batch.masks[0].copy())
        actions[0] = rng.choice(np.flatnonzero(batch.masks[0]))
        kept["actions"].append(actions[0])
        actions[1:] = 1
        batch.step(actions)
        kept["rewards"].append(float(batch.rewards[0]))
        kept["equity"].append(float(batch.outcomes["equity"][0]))
    return {"start": start, **{name: np.array(x) for name, x in kept.items()}}


class Peer:
    """The JAX program in a process of its own."""

    def __init__(self, python: str, folder: Path) -> None:
        """Start it on the files of `folder`."""
        command = [python, str(Path(__file__).with_name("jax_learner.py")), str(folder)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process: subprocess.Popen[str] = subprocess.Popen(command, **pipes)
        self.version = self._line().split()[1]

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended with code {self.process.wait()}")
        return line.strip()

    def ask(self, words: str) -> str:
        """Send one line and return the answer."""
        assert self.process.stdin is not None
        print(words, file=self.process.stdin, flush=True)
        return self._line()

    def run(self, rollouts: int) -> tuple[float, float, list[float]]:
        """Return CPU and wall seconds and the mean reward of each rollout."""
        cpu, wall, rewards = json.loads(self.ask(f"run {rollouts}"))
        return cpu, wall, rewards


def agreement(peer: Peer, played: dict[str, Any], folder: Path) -> dict[str, float]:
    """Return how far apart both sides are on one episode.

    Raises:
        SystemExit: They do not play the same market.
    """
    peer.ask("replay")
    with np.load(folder / "replayed.npz") as stored:
        seen, masks, rewards, equity = (stored[f"arr_{k}"] for k in range(4))
    equity = equity * played["equity"][0] / equity[0]
    found = {
        "decisions": len(masks),
        "blocked_frac": float((~played["masks"]).any(axis=1).mean()),
        "masks_equal_frac": float((masks == played["masks"]).all(axis=1).mean()),
        "largest_observation_difference": float(np.abs(seen - played["seen"]).max()),
        "largest_reward_difference": float(np.abs(rewards - played["rewards"]).max()),
        "equity_ratio_at_the_end": float(equity[-1] / played["equity"][-1]),
    }
    if found["masks_equal_frac"] < 0.999 or found["largest_reward_difference"] > 0.05:
        raise SystemExit(f"the peer plays another market: {found}")
    return found


def measured(case: Case, rounds: int, python: str) -> dict[str, Any]:
    """Alternate both learners on one case."""
    config = configured(case)
    experiment = prepare(config, *split_bars(config))
    model = harness.silent_model(experiment, config)
    steps = case.n_envs * case.n_steps

    def native() -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        model.learn(case.rollouts * steps, reset_num_timesteps=False)
        return time.process_time() - cpu, time.perf_counter() - wall

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        played = written(experiment, case, folder)
        peer = Peer(python, folder)
        same = agreement(peer, played, folder)
        compiling = peer.run(1)[1]
        native()
        first = statistics.mean(peer.run(case.rollouts)[2])
        sides: Any = {"native": native, "jax": lambda: peer.run(case.rollouts)}
        taken: Any = harness.alternated(sides, rounds)
        ratios = sorted(b[0] / a[0] for a, b in zip(taken["native"], taken["jax"], strict=True))
        done = case.rollouts * steps
        result = {
            "case": vars(case),
            "jax": peer.version,
            "native_steps_a_second": done / statistics.median(x[0] for x in taken["native"]),
            "jax_steps_a_second": done / statistics.median(x[0] for x in taken["jax"]),
            "jax_time_over_native": statistics.median(ratios),
            "least": ratios[0],
            "most": ratios[-1],
            "jax_compile_seconds": compiling,
            "jax_reward_at_first": first,
            "jax_reward_at_last": statistics.mean(taken["jax"][-1][2]),
            "same_market": same,
        }
        assert peer.process.stdin is not None
        peer.process.stdin.close()
        peer.process.wait()
    return result


def processor() -> list[str]:
    """Return the name of the processor and the widest vectors that it has."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = next(x for x in text.splitlines() if x.startswith("model name"))
    wide = next((x for x in ("avx512f", "avx2") if x in text.split()), "")
    return [name.partition(":")[2].strip(), wide]


def table(found: dict[str, Any]) -> str:
    """Return the rows of docs/results.md."""
    head = (
        "environments",
        "n_steps",
        "batch",
        "native/s",
        "JAX/s",
        "JAX time / native",
        "JAX compiles",
    )
    rows = []
    for row in found["cases"]:
        ratio = "{jax_time_over_native:.2f} ({least:.2f} to {most:.2f})".format(**row)
        rates = (f"{row[f'{side}_steps_a_second']:,.0f}" for side in ("native", "jax"))
        case = (str(row["case"][key]) for key in ("n_envs", "n_steps", "batch_size"))
        rows.append((*case, *rates, ratio, f"{row['jax_compile_seconds']:.0f} s"))
    return harness.table(head, rows)


def made_python(folder: Path) -> str:
    """Make an environment with JAX and return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", JAX], check=True)
    return python


def main() -> None:
    flags: dict[str, Any] = {
        "rounds": 7,
        "python": (str, "interpreter that has JAX; without it one is made"),
        "json": Path,
    }
    arguments = harness.parser(__doc__, **flags).parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        python = arguments.python or made_python(Path(name) / "jax")
        rows = []
        for case in CASES:
            rows.append(measured(case, arguments.rounds, python))
            print(json.dumps(rows[-1], indent=1), flush=True)
    document = {"processor": processor(), "rounds": arguments.rounds, "cases": rows}
    harness.write(arguments.json, document)


if __name__ == "__main__":
    main()
