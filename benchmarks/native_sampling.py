"""Draw 10^8 actions of the native rollout's sampler; a masked one must never come.

    python benchmarks/native_sampling.py [--draws 100000000] [--json PATH]

Logits are random up to +-80, masks are random with one action allowed at least, and both
ends of the uniform numbers (0 and 1 - 2^-53) are among the draws.  Ends with exit code 1
if any masked action was drawn.
"""

import sys
import time
from pathlib import Path

import harness
import numpy as np
import numpy.typing as npt

from ppo_workbench.jit import kernel
from ppo_workbench.learning.native.rollout import sample, uniform
from ppo_workbench.learning.native.update import masked_softmax
from ppo_workbench.trading.chance import seed_accounts

DRAWS_PER_ROW = 50
N_ACTIONS = 5
LAST = 1.0 - 2.0**-53


@kernel
def masked_draws(rows: int, generator: npt.NDArray[np.void], counts: npt.NDArray[np.int64]) -> None:
    """Add the draws of masked actions to `counts[0]`."""
    logits = np.empty((1, N_ACTIONS), np.float32)
    log_p, p = np.empty_like(logits), np.empty_like(logits)
    mask = np.empty((1, N_ACTIONS), np.bool_)
    for row in range(rows):
        for k in range(N_ACTIONS):
            u = uniform(generator[0])
            logits[0, k] = 80.0 if u < 0.3 else (-80.0 if u < 0.6 else 20.0 * u - 16.0)
            mask[0, k] = uniform(generator[0]) < 0.5
        mask[0, row % N_ACTIONS] = True
        masked_softmax(logits, mask, log_p, p)
        for draw in range(DRAWS_PER_ROW):
            u = uniform(generator[0])
            u = 0.0 if draw == 0 else (LAST if draw == 1 else u)
            action = sample(p[0], mask[0], u)
            counts[0] += not mask[0, action]


def main() -> None:
    arguments = harness.parser(__doc__, draws=100_000_000, json=Path).parse_args()
    rows = -(-arguments.draws // DRAWS_PER_ROW)
    counts = np.zeros(1, dtype=np.int64)
    begun = time.perf_counter()
    masked_draws(rows, seed_accounts(1, 1), counts)
    seconds = time.perf_counter() - begun
    result = {"draws": rows * DRAWS_PER_ROW, "masked": int(counts[0]), "seconds": seconds}
    print(", ".join(f"{key}: {value:,}" for key, value in result.items()))
    harness.write(arguments.json, result, indent=2)
    sys.exit(1 if counts[0] else 0)


if __name__ == "__main__":
    main()
