"""The native learner beside stable-baselines3: same data, network and hyperparameters.

    python benchmarks/native_speed.py [--repeats 5] [--only maskable_ppo,1] [--json PATH]

One thread each, in alternation within one process.  Rates are over CPU time, which a busy
neighbour disturbs less than wall time; the ratio over wall time stands beside it.  The
floor is the run's multiply-adds (2 FLOP each) over this core's own sgemm rate, the better
of a square product and of the products that the network really needs.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy, scipy and torch load

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.logger import Logger

from ppo_workbench.cli import compose
from ppo_workbench.config import BudgetConfig, Config
from ppo_workbench.jit import kernel
from ppo_workbench.learning.budget import Budget
from ppo_workbench.learning.models import Algorithm, build_model
from ppo_workbench.learning.native_network import Floats
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars

SHARE_AT_BATCH_64 = 0.40


@dataclass(frozen=True)
class Case:
    """One row of the table; `least_ratio` is what the native learner has to reach."""

    model: str
    n_envs: int
    n_steps: int
    batch_size: int
    least_ratio: float


CASES = (
    Case("maskable_ppo", 1, 2048, 64, 35.0),
    Case("maskable_ppo", 8, 256, 64, 22.0),
    Case("maskable_ppo", 256, 64, 2048, 3.5),
    Case("ppo", 1, 2048, 64, 25.0),
    Case("ppo", 8, 256, 64, 18.0),
    Case("ppo", 256, 64, 2048, 3.0),
)
N_EPOCHS = 10


@dataclass(frozen=True)
class Measured:
    """What one case took; rates are steps a second of CPU time, medians."""

    case: Case
    native_rate: float
    sb3_rate: float
    ratio: float
    ratio_wall: float
    floor_rate: float
    share: float

    @property
    def met(self) -> bool:
        enough = self.case.batch_size != 64 or self.share >= SHARE_AT_BATCH_64
        return self.ratio >= self.case.least_ratio and enough


@kernel
def multiply_often(a: Floats, b: Floats, out: Floats, times: int) -> None:
    """Repeat one product through the BLAS that the kernels use."""
    for _ in range(times):
        np.dot(a, b, out)


def sgemm_gflops(m: int, n: int, k: int) -> float:
    """Return the best of several measured rates of an (m, k) by (k, n) product."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))
    out = np.zeros((m, n), np.float32)
    flop = 2.0 * m * n * k
    times = max(1, int(4e9 / flop))
    multiply_often(a, b, out, 1)
    rates = []
    for _ in range(5):
        begun = time.process_time()
        multiply_often(a, b, out, times)
        rates.append(flop * times / (time.process_time() - begun) / 1e9)
    return max(rates)


def layer_pairs(config: Config, inputs: int, outputs: int) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of each layer of one perceptron."""
    widths = [inputs, *config.model.net_arch, outputs]
    return list(zip(widths[:-1], widths[1:], strict=True))


def flop_per_step(config: Config, inputs: int, actions: int) -> float:
    """Return the FLOP that one environment step costs: its forward pass and all its epochs."""
    total = 0.0
    for outputs in (actions, 1):
        pairs = layer_pairs(config, inputs, outputs)
        forward = sum(a * b for a, b in pairs)
        backward = 2 * forward - pairs[0][0] * pairs[0][1]  # no gradient by the observation
        total += forward + config.model.n_epochs * (forward + backward)
    return 2.0 * total


def configure(case: Case, learner: str) -> Config:
    config = compose(
        [
            f"model={case.model}",
            f"model.learner={learner}",
            f"model.n_envs={case.n_envs}",
            f"model.n_steps={case.n_steps}",
            f"model.batch_size={case.batch_size}",
            f"model.n_epochs={N_EPOCHS}",
            "model.learning_rate_schedule=constant",
            "data.synthetic.sessions=120",
            "tracking=none",
        ]
    )
    return config


def build(experiment: Experiment, config: Config) -> Algorithm:
    batch = Experiment(
        config,
        experiment.bars,
        experiment.table,
        experiment.splits,
        experiment.market,
        experiment.test_range,
    ).batch()
    budget = Budget(BudgetConfig(timesteps=2**40))
    model = build_model(config.model, TradingVecEnv(batch), budget, config.seed)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def time_rollouts(model: Algorithm, rollouts: int) -> tuple[float, float]:
    """Return (CPU, wall) seconds per environment step over whole rollouts and updates."""
    env = model.get_env()
    assert env is not None
    steps = rollouts * model.n_steps * env.num_envs
    cpu, wall = time.process_time(), time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    return (time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps


def measure(case: Case, repeats: int, rate: Callable[[Case], float]) -> Measured:
    """Alternate the two learners `repeats` times after one rollout of warm-up each."""
    config = configure(case, "native")
    bars, splits = split_bars(config)
    experiment = prepare(config, bars, splits)
    native, sb3 = build(experiment, config), build(experiment, configure(case, "sb3"))
    time_rollouts(native, 1)
    time_rollouts(sb3, 1)
    pairs = [(time_rollouts(native, 5), time_rollouts(sb3, 1)) for _ in range(repeats)]
    market = experiment.market
    flop = flop_per_step(config, market.observation_size, market.space.size)
    native_rate = 1.0 / statistics.median(fast[0] for fast, _ in pairs)
    floor_rate = rate(case) * 1e9 / flop
    return Measured(
        case=case,
        native_rate=native_rate,
        sb3_rate=1.0 / statistics.median(slow[0] for _, slow in pairs),
        ratio=statistics.median(slow[0] / fast[0] for fast, slow in pairs),
        ratio_wall=statistics.median(slow[1] / fast[1] for fast, slow in pairs),
        floor_rate=floor_rate,
        share=native_rate / floor_rate,
    )


def print_table(rows: list[Measured], rates: dict[str, float]) -> None:
    print(", ".join(f"sgemm {name}: {value:.0f} GFLOP/s" for name, value in rates.items()))
    print(
        f"{'model':<14}{'envs':>5}{'n_steps':>8}{'batch':>7}{'native/s':>10}{'sb3/s':>9}"
        f"{'ratio':>7}{'wall':>7}{'bar':>6}{'floor/s':>10}{'share':>7}"
    )
    for row in rows:
        case = row.case
        print(
            f"{case.model:<14}{case.n_envs:>5}{case.n_steps:>8}{case.batch_size:>7}"
            f"{row.native_rate:>10,.0f}{row.sb3_rate:>9,.0f}{row.ratio:>7.1f}"
            f"{row.ratio_wall:>7.1f}{case.least_ratio:>6.1f}{row.floor_rate:>10,.0f}"
            f"{row.share:>7.0%}  {'met' if row.met else 'MISSED'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="MODEL,N_ENVS: one case")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    square = sgemm_gflops(1024, 1024, 1024)
    rates = {"1024 square": square}
    for batch in sorted({case.batch_size for case in CASES}):
        rates[f"{batch} x 64 x 64"] = sgemm_gflops(batch, 64, 64)
    cases = [c for c in CASES if arguments.only in (None, f"{c.model},{c.n_envs}")]
    rows = []
    for case in cases:
        rows.append(
            measure(
                case,
                arguments.repeats,
                lambda c: max(square, rates[f"{c.batch_size} x 64 x 64"]),
            )
        )
    print_table(rows, rates)
    if arguments.json:
        document = {"sgemm_gflops": rates, "cases": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
