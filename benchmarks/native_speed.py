"""The native learner beside stable-baselines3: same data, network and hyperparameters.

    python benchmarks/native_speed.py [--repeats 5] [--only maskable_ppo,1] [--json PATH]

One thread each, in alternation within one process.  Rates are over CPU time, which a busy
neighbour disturbs less than wall time; the ratio over wall time stands beside it.  The
floor is the run's multiply-adds (2 FLOP each) over this core's own sgemm rate, the better
of a square product and of the products that the network really needs.
"""

import os

import harness

# One thread, before numpy, scipy and torch load.
os.environ.update(harness.ONE_THREAD)

import statistics
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config
from ppo_workbench.config.arrays import Singles
from ppo_workbench.jit import kernel
from ppo_workbench.trading.experiment import prepare, split_bars

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
    gflops: float
    floor_rate: float
    share: float

    @property
    def verdict(self) -> str:
        missed = [] if self.ratio >= self.case.least_ratio else ["ratio"]
        if self.case.batch_size == 64 and self.share < SHARE_AT_BATCH_64:
            missed.append(f"share of {SHARE_AT_BATCH_64:.0%}")
        return f"MISSED {' and '.join(missed)}" if missed else "met"


@kernel
def multiply_often(a: Singles, b: Singles, out: Singles, times: int) -> None:
    """Repeat one product through the BLAS that the kernels use."""
    for _ in range(times):
        np.dot(a, b, out)


def sgemm_gflops(m: int, n: int, k: int) -> float:
    """Return the median of several measured rates of an (m, k) by (k, n) product."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))
    out = np.zeros((m, n), np.float32)
    flop = 2.0 * m * n * k
    times = max(1, int(1e9 / flop))
    multiply_often(a, b, out, 1)
    rates = []
    for _ in range(5):
        begun = time.process_time()
        multiply_often(a, b, out, times)
        rates.append(flop * times / (time.process_time() - begun) / 1e9)
    return statistics.median(rates)


def flop_per_step(config: Config, inputs: int, actions: int) -> float:
    """Return the FLOP that one environment step costs: its forward pass and all its epochs."""
    total = 0.0
    for outputs in (actions, 1):
        pairs = list(pairwise([inputs, *config.model.net_arch, outputs]))
        forward = sum(a * b for a, b in pairs)
        backward = 2 * forward - pairs[0][0] * pairs[0][1]  # no gradient by the observation
        total += forward + config.model.n_epochs * (forward + backward)
    return 2.0 * total


def configure(case: Case, learner: str) -> Config:
    shape = {key: getattr(case, key) for key in ("n_envs", "n_steps", "batch_size")}
    shape |= {"learner": learner, "n_epochs": N_EPOCHS, "learning_rate_schedule": "constant"}
    changes = [f"model.{key}={value}" for key, value in shape.items()]
    data = "data.synthetic.sessions=120", "tracking=none"
    return compose([f"model={case.model}", *changes, *data])


def time_rollouts(model: Any, rollouts: int) -> tuple[float, float]:
    """Return (CPU, wall) seconds per environment step over whole rollouts and updates."""
    steps = rollouts * model.n_steps * model.get_env().num_envs
    cpu, wall = time.process_time(), time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    return (time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps


def core_gflops(batch: int) -> float:
    """Return this core's sgemm rate: a square product, or what the network multiplies."""
    return max(sgemm_gflops(1024, 1024, 1024), sgemm_gflops(batch, 64, 64))


def floor_and_native(batch: int, native: Any) -> tuple[float, tuple[float, float]]:
    """Return the core's sgemm rate, measured before and after the rollouts, and their time."""
    before = core_gflops(batch)
    seconds = time_rollouts(native, 5)
    return (before + core_gflops(batch)) / 2, seconds


def measure(case: Case, repeats: int) -> Measured:
    """Alternate floor and learners `repeats` times after one rollout of warm-up each."""
    config = configure(case, "native")
    experiment = prepare(config, *split_bars(config))
    native = harness.silent_model(experiment, config)
    sb3 = harness.silent_model(experiment, configure(case, "sb3"))
    time_rollouts(native, 1)
    time_rollouts(sb3, 1)
    rounds = [
        (*floor_and_native(case.batch_size, native), time_rollouts(sb3, 1)) for _ in range(repeats)
    ]
    market = experiment.market
    gflop = flop_per_step(config, market.observation_size, market.space.size) / 1e9
    rows = [
        {"native": fast[0], "sb3": slow[0], "ratio": slow[0] / fast[0], "gflops": rate}
        | {"ratio_wall": slow[1] / fast[1], "floor_rate": rate / gflop}
        | {"share": gflop / fast[0] / rate}
        for rate, fast, slow in rounds
    ]
    found = harness.medians(rows)
    rates = {f"{name}_rate": 1.0 / found.pop(name) for name in ("native", "sb3")}
    return Measured(case=case, **rates, **found)


def print_table(rows: list[Measured]) -> None:
    print(
        f"{'model':<14}{'envs':>5}{'n_steps':>8}{'batch':>7}{'native/s':>10}{'sb3/s':>9}"
        f"{'ratio':>7}{'wall':>7}{'bar':>6}{'GFLOP/s':>9}{'floor/s':>10}{'share':>7}"
    )
    for row in rows:
        case = row.case
        print(
            f"{case.model:<14}{case.n_envs:>5}{case.n_steps:>8}{case.batch_size:>7}"
            f"{row.native_rate:>10,.0f}{row.sb3_rate:>9,.0f}{row.ratio:>7.1f}"
            f"{row.ratio_wall:>7.1f}{case.least_ratio:>6.1f}{row.gflops:>9.0f}"
            f"{row.floor_rate:>10,.0f}{row.share:>7.0%}  {row.verdict}"
        )


def main() -> None:
    flags = {"repeats": 5, "only": (str, "MODEL,N_ENVS: one case"), "json": Path}
    arguments = harness.parser(__doc__, **flags).parse_args()
    cases = [c for c in CASES if arguments.only in (None, f"{c.model},{c.n_envs}")]
    rows = [measure(case, arguments.repeats) for case in cases]
    print_table(rows)
    harness.write(arguments.json, {"cases": [asdict(row) for row in rows]}, indent=2)


if __name__ == "__main__":
    main()
