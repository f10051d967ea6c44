"""Coverage of the bootstrap's 95 % intervals on simulated days whose answer is known.

    python benchmarks/interval_coverage.py [--series 2000] [--resamples 600] [--json PATH]

Each series is 504 days of two arms of one law with noise that correlates .5 and the same
annual Sharpe ratio of 1.5, so every difference that is claimed is false.  A drawdown has two
known answers: the median of the law, and the drawdown of another, independent series.
"""

import time
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import harness
import numpy as np

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.resampling import FIGURES, drawdown_draws, resample

DAYS, WARMUP, PER_YEAR, SHARPE, DEVIATION = 504, 200, 252, 1.5, 0.01
CONFIDENCE = 0.95
Law = Callable[[Floats], Floats]


def independent(noise: Floats) -> Floats:
    return noise


def autoregressive(rho: float) -> Law:
    def law(noise: Floats) -> Floats:
        x = noise.copy()
        for t in range(1, x.shape[-1]):
            x[..., t] = rho * x[..., t - 1] + sqrt(1 - rho**2) * noise[..., t]
        return x

    return law


def garch(noise: Floats) -> Floats:
    """GARCH(1, 1), alpha .08, beta .90, unconditional variance 1."""
    variance, x = np.ones(noise.shape[:-1]), np.empty_like(noise)
    for t in range(noise.shape[-1]):
        x[..., t] = np.sqrt(variance) * noise[..., t]
        variance = 0.02 + 0.08 * x[..., t] ** 2 + 0.90 * variance
    return x


def student(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.standard_t(5, shape) / sqrt(5 / 3)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.normal(size=shape)


LAWS = {
    "iid normal": (independent, normal),
    "AR(1) .1": (autoregressive(0.1), normal),
    "AR(1) .3": (autoregressive(0.3), normal),
    "t(5) GARCH": (garch, student),
}


def simulate(name: str, series: int, seed: int) -> Floats:
    """Return daily returns, float64 (series, 2 arms, days)."""
    law, draw = LAWS[name]
    rng = np.random.default_rng(seed)
    days = WARMUP + DAYS
    common = draw(rng, (series, 1, days))
    noise = sqrt(0.5) * common + sqrt(0.5) * draw(rng, (series, 2, days))
    returns: Floats = DEVIATION * (law(noise)[..., WARMUP:] + SHARPE / sqrt(PER_YEAR))
    return returns


def measure(name: str, series: int, resamples: int, seed: int) -> dict[str, float]:
    """Return shares of series, and the standard error of a share of 95 %."""
    itself = np.arange(DAYS)[None, :]
    many = simulate(name, 10_000, 1)[:, 0]
    law = [drawdown_draws(SessionPath.from_returns(x, PER_YEAR), itself)[0] for x in many]
    median = float(np.median(law))
    count = dict.fromkeys(("sharpe", "drawdown median", "drawdown of another series"), 0)
    claims = dict.fromkeys(FIGURES, 0)
    blocks: list[tuple[float, ...]] = []
    for k, pair in enumerate(simulate(name, series, seed)):
        arms = {arm: [SessionPath.from_returns(pair[i], PER_YEAR)] for i, arm in enumerate("ab")}
        drawn = resample(arms, resamples=resamples, seed=k)
        blocks.append(tuple(drawn.block_lengths.values()))
        count["sharpe"] += not drawn.interval("sharpe_annual", "a", CONFIDENCE).excludes(SHARPE)
        depth = drawn.interval("max_drawdown_frac", "a", CONFIDENCE)
        count["drawdown median"] += not depth.excludes(median)
        count["drawdown of another series"] += not depth.excludes(law[k % len(law)])
        for figure in FIGURES:
            claims[figure] += drawn.difference(figure, "a", "b", CONFIDENCE).decided
    shares = {f"covered: {key}": value / series for key, value in count.items()}
    shares |= {f"false claim: {key}": value / series for key, value in claims.items()}
    for q in (0.1, 0.5, 0.9):
        lengths = dict(zip(FIGURES, np.quantile(blocks, q, axis=0), strict=True))
        shares[f"block sessions, {q:.0%}"] = float(lengths["max_drawdown_frac"])
        shares[f"block sessions of Sharpe ratios, {q:.0%}"] = float(lengths["sharpe_annual"])
    return shares | {"error of a share": sqrt(0.05 * 0.95 / series)}


def main() -> None:
    # Variants of the interval were compared on seed 0: report another one.
    flags = {"series": 2000, "resamples": 600, "seed": 2, "json": Path}
    arguments = harness.parser(__doc__, **flags).parse_args()
    results = {}
    for name in LAWS:
        begun = time.perf_counter()
        results[name] = measure(name, arguments.series, arguments.resamples, arguments.seed)
        print(f"{name} ({time.perf_counter() - begun:.0f} s)")
        for key, value in results[name].items():
            print(f"  {key:<48}{value:8.4f}", flush=True)
    setup = {"days": DAYS, **{k: v for k, v in vars(arguments).items() if k != "json"}}
    harness.write(arguments.json, {"setup": setup, **results}, indent=2)


if __name__ == "__main__":
    main()
