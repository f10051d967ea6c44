"""How often two equal algorithms are told apart by Sharpe ratio, by number of seeds.

    python benchmarks/seed_false_claims.py [--comparisons 1000] [--resamples 500] [--json PATH]

Every run of 504 days shares the market's noise; its own noise takes the rest (`own`, a share
of the variance), and its true annual Sharpe ratio differs from seed to seed by .6.  Both arms
have one law, so every difference that is claimed is false: 5 % is the level.
"""

from math import sqrt
from pathlib import Path

import harness
import numpy as np

from ppo_workbench.config.arrays import Floats
from ppo_workbench.scoring.session_path import SessionPath
from ppo_workbench.scoring.statistics.resampling import resample

DAYS, PER_YEAR, SHARPE, SEED_DEVIATION, DEVIATION = 504, 252, 1.5, 0.6, 0.01


def runs(rng: np.random.Generator, common: Floats, seeds: int, own: float) -> list[SessionPath]:
    """Return the runs of one arm."""
    ratio = rng.normal(SHARPE, SEED_DEVIATION, (seeds, 1)) / sqrt(PER_YEAR)
    noise = sqrt(1 - own) * common + sqrt(own) * rng.normal(size=(seeds, DAYS))
    return [SessionPath.from_returns(x, PER_YEAR) for x in DEVIATION * (noise + ratio)]


def share_of_claims(seeds: int, own: float, comparisons: int, resamples: int) -> float:
    """Return the share of comparisons whose 95 % interval excludes 0."""
    rng = np.random.default_rng(seeds)
    claims = 0
    for k in range(comparisons):
        common = rng.normal(size=DAYS)
        arms = {arm: runs(rng, common, seeds, own) for arm in "ab"}
        drawn = resample(
            arms, resamples=resamples, seed=k, figures=["sharpe_annual"], block_sessions=1.0
        )
        claims += drawn.difference("sharpe_annual", "a", "b").decided
    return claims / comparisons


def main() -> None:
    size = {"comparisons": 1000, "resamples": 500}
    arguments = harness.parser(__doc__, **size, json=Path).parse_args()
    results = {}
    for own in (0.4, 0.0):
        for seeds in (3, 5, 10):
            share = share_of_claims(seeds, own, arguments.comparisons, arguments.resamples)
            results[f"own {own}, {seeds} seeds"] = share
            print(f"own {own}, {seeds:2} seeds: {share:.3f}", flush=True)
    setup = {name: getattr(arguments, name) for name in size}
    harness.write(arguments.json, {"setup": setup, **results}, indent=2)


if __name__ == "__main__":
    main()
