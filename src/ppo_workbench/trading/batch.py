"""A batch of environments as arrays: what the Gymnasium and the SB3 wrappers stand on."""

import numpy as np

from ppo_workbench.config.arrays import Ints
from ppo_workbench.trading.account import OUTCOME_DTYPE
from ppo_workbench.trading.chance import random_start, seed_accounts
from ppo_workbench.trading.step import Environments, begin_episode, refresh, step_batch
from ppo_workbench.trading.table import TradingMarket


class TradingBatch:
    """N environments on one market, stepped together by one jitted call.

    Attributes:
        observations: float32 (N, F + S), scaled.
        masks: bool (N, A), True = allowed.
        reasons: int64 (N, A), bits of the rules that forbid each action.
        outcomes: `OUTCOME_DTYPE` (N,), what the last step did.
        rewards: float32 (N,).
        done: int8 (N,): 0, 1 truncated, 2 terminated.
        terminal_observations: float32 (N, F + S), valid where done is not 0.
        accounts: `ACCOUNT_DTYPE` (N,), the whole state.
        arrays: All of these, as `step_batch` takes them.
    """

    def __init__(
        self,
        market: TradingMarket,
        starts: Ints,
        episode_bars: int,
        count: int,
        seed: int,
    ) -> None:
        """Create the batch and begin an episode in each environment.

        Args:
            market: Bars, features and parameters.
            starts: int64 (K,), legal episode starts.
            episode_bars: Decisions of an episode.
            count: Number of environments N.
            seed: Seeds the starts.
        """
        self.market, self.starts, self.episode_bars = market, starts, episode_bars
        width, n_actions = market.observation_size, market.space.size
        self.accounts = seed_accounts(count, seed)
        self.observations = np.zeros((count, width), dtype=np.float32)
        self.terminal_observations = np.zeros((count, width), dtype=np.float32)
        self.masks = np.zeros((count, n_actions), dtype=np.bool_)
        self.reasons = np.zeros((count, n_actions), dtype=np.int64)
        self.outcomes = np.zeros(count, dtype=OUTCOME_DTYPE)
        self.rewards = np.zeros(count, dtype=np.float32)
        self.done = np.zeros(count, dtype=np.int8)
        self.arrays = Environments(
            market.inputs, starts, episode_bars, self.accounts, self.observations, self.masks,
            self.reasons, self.outcomes, self.rewards, self.done, self.terminal_observations,
        )  # fmt: skip
        self.reset()

    def __len__(self) -> int:
        """Return the number of environments."""
        return len(self.accounts)

    def reseed(self, seed: int) -> None:
        """Seed the generators of all environments anew."""
        self.accounts["rng"] = seed_accounts(len(self), seed)["rng"]

    def reset(self) -> None:
        """Begin a new episode at a random legal start in every environment."""
        for n in range(len(self)):
            self.reset_one(n, random_start(self.accounts[n], self.starts))

    def reset_one(self, n: int, start: int) -> None:
        """Begin an episode of environment `n` at bar `start`."""
        p = self.market.params[0]
        stop = start + self.episode_bars
        begin_episode(self.accounts[n], self.market.bars, start, stop, p)
        self._refresh_one(n)

    def refresh(self) -> None:
        """Observe all environments anew, after `accounts` were replaced."""
        for n in range(len(self)):
            self._refresh_one(n)

    def _refresh_one(self, n: int) -> None:
        refresh(
            self.accounts[n],
            self.arrays.inputs,
            self.observations[n],
            self.masks[n],
            self.reasons[n],
        )

    def step(self, actions: Ints) -> int:
        """Step all environments; return how many episodes finished."""
        return step_batch(actions, self.arrays)
