"""Random numbers of an environment: a generator in each account."""

from typing import Any

import numpy as np

from ppo_workbench.config.arrays import Ints, Records
from ppo_workbench.jit import kernel
from ppo_workbench.trading.account import ACCOUNT_DTYPE


@kernel
def random_uint(a: Any) -> np.uint64:
    """Advance the account's own xorshift64* generator (Vigna 2016); return 64 random bits."""
    x = np.uint64(a.rng)
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    a.rng = x
    return x * np.uint64(2685821657736338717)


@kernel
def random_start(a: Any, starts: Ints) -> int:
    """Draw one of the legal episode starts."""
    return starts[np.int64(random_uint(a) % np.uint64(starts.shape[0]))]


def seed_accounts(count: int, seed: int) -> Records:
    """Return `count` accounts whose generators are seeded from `seed`, never with zero."""
    accounts = np.zeros(count, dtype=ACCOUNT_DTYPE)
    accounts["rng"] = np.random.SeedSequence(seed).generate_state(count, np.uint64) | np.uint64(1)
    return accounts
