"""The rollout, jitted: masked forward, sampling, environment step, bootstrapping and GAE."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ppo_workbench.jit import kernel
from ppo_workbench.learning.native_network import Floats, Ints, forward
from ppo_workbench.learning.native_update import (
    Bools,
    Network,
    hidden_size,
    masked_log_softmax,
)
from ppo_workbench.trading.kernel import random_uint, step_batch

TWO_TO_MINUS_53 = 2.0**-53


class Environments(NamedTuple):
    """The arrays of a `TradingBatch`, in the order in which `step_batch` takes them."""

    bars: npt.NDArray[np.void]
    features: Floats
    means: npt.NDArray[np.float64]
    stds: npt.NDArray[np.float64]
    levels: npt.NDArray[np.float64]
    params: npt.NDArray[np.void]
    starts: Ints
    episode_bars: int
    accounts: npt.NDArray[np.void]
    observations: Floats
    masks: Bools
    reasons: Ints
    outcomes: npt.NDArray[np.void]
    rewards: Floats
    done: npt.NDArray[np.int8]
    terminal_observations: Floats


class Buffer(NamedTuple):
    """What a rollout of T steps of N environments leaves, time first (T, N, ...)."""

    observations: Floats
    actions: Ints
    masks: Bools
    rewards: Floats
    episode_starts: Floats
    values: Floats
    log_probs: Floats
    advantages: Floats
    returns: Floats


class Counts(NamedTuple):
    """Sums over a rollout, changed in place.

    Attributes:
        blocked: int64 (R,), decisions at which a rule blocked any action.
        totals: int64 (4,): decisions with any mask, rejected, violated, passive.
        components: float64 (5,), reward components.
        actions: int64 (A,), actions sent.
        episodes: float64 (2, K), reward and length of finished episodes, in order.
        finished: int64 (1,), how many of them there are.
    """

    blocked: Ints
    totals: Ints
    components: npt.NDArray[np.float64]
    actions: Ints
    episodes: npt.NDArray[np.float64]
    finished: Ints


@kernel
def sample(log_p: Floats, mask: Bools, uniform: float) -> int:
    """Return the allowed action at the quantile `uniform`, in [0, 1), of its distribution.

    Forbidden actions are skipped, whatever rounding does to the sum of probabilities.
    """
    total = 0.0
    chosen = -1
    for k in range(log_p.shape[0]):
        if mask[k]:
            chosen = k
            total += np.exp(np.float64(log_p[k]))
            if uniform < total:
                break
    return chosen


@kernel
def _count(env: Environments, actions: Ints, counts: Counts) -> None:
    for n in range(actions.shape[0]):
        bits = np.int64(0)
        for k in range(env.reasons.shape[1]):
            bits |= env.reasons[n, k]
        counts.actions[actions[n]] += 1
        if bits != 0:
            counts.totals[0] += 1
            for rule in range(counts.blocked.shape[0]):
                counts.blocked[rule] += (bits >> rule) & 1


@kernel
def _count_outcomes(env: Environments, counts: Counts) -> None:
    for n in range(env.done.shape[0]):
        out = env.outcomes[n]
        counts.totals[1] += out.rejected != 0
        counts.totals[2] += out.violated != 0
        counts.totals[3] += out.passive != 0
        counts.components[0] += out.log_return
        counts.components[1] += out.variance
        counts.components[2] += out.differential_sharpe
        counts.components[3] += out.drawdown
        counts.components[4] += out.turnover
        if env.done[n] != 0 and counts.finished[0] < counts.episodes.shape[1]:
            counts.episodes[0, counts.finished[0]] = out.episode_reward
            counts.episodes[1, counts.finished[0]] = out.episode_length
            counts.finished[0] += 1


@kernel
def collect(
    env: Environments,
    net: Network,
    buffer: Buffer,
    counts: Counts,
    generator: npt.NDArray[np.void],
    last_starts: Floats,
    use_mask: bool,
    gamma: float,
    gae_lambda: float,
) -> None:
    """Fill `buffer` with one rollout, advantages and returns included.

    Args:
        env: The environments, at the present observation; they move on.
        net: The policy.
        buffer: Overwritten.
        counts: Overwritten sums.
        generator: One account record; only its random state is used.
        last_starts: float32 (N,), 1 where an episode begins now; updated.
        use_mask: Draw among allowed actions only; the buffer then holds the masks.
        gamma: Discount.
        gae_lambda: Of generalised advantage estimation.
    """
    steps, n_envs, n_actions = buffer.masks.shape
    actor_hidden = np.empty(max(n_envs * hidden_size(net.actor), 1), np.float32)
    critic_hidden = np.empty(max(n_envs * hidden_size(net.critic), 1), np.float32)
    logits = np.empty((n_envs, n_actions), np.float32)
    values = np.empty((n_envs, 1), np.float32)
    log_p = np.empty(n_actions, np.float32)
    for t in range(steps):
        buffer.observations[t] = env.observations
        buffer.episode_starts[t] = last_starts
        if use_mask:
            buffer.masks[t] = env.masks
        forward(env.observations, net.params, net.actor, net.activation, actor_hidden, logits)
        forward(env.observations, net.params, net.critic, net.activation, critic_hidden, values)
        for n in range(n_envs):
            masked_log_softmax(logits[n], buffer.masks[t, n], log_p)
            uniform = (random_uint(generator[0]) >> np.uint64(11)) * TWO_TO_MINUS_53
            action = sample(log_p, buffer.masks[t, n], uniform)
            buffer.actions[t, n] = action
            buffer.log_probs[t, n] = log_p[action]
            buffer.values[t, n] = values[n, 0]
        _count(env, buffer.actions[t], counts)
        finished = step_batch(
            buffer.actions[t], env.bars, env.features, env.means, env.stds, env.levels,
            env.params, env.starts, env.episode_bars, env.accounts, env.observations,
            env.masks, env.reasons, env.outcomes, env.rewards, env.done,
            env.terminal_observations,
        )  # fmt: skip
        _count_outcomes(env, counts)
        buffer.rewards[t] = env.rewards
        if finished > 0:
            bootstrap(env, net, buffer.rewards[t], gamma)
        for n in range(n_envs):
            last_starts[n] = 1.0 if env.done[n] != 0 else 0.0
    forward(env.observations, net.params, net.critic, net.activation, critic_hidden, values)
    advantages(buffer, values[:, 0], last_starts, gamma, gae_lambda)


@kernel
def bootstrap(env: Environments, net: Network, rewards: Floats, gamma: float) -> None:
    """Add gamma V(last observation) to the reward of truncated episodes (Pardo et al. 2018)."""
    hidden = np.empty(max(hidden_size(net.critic), 1), np.float32)
    value = np.empty((1, 1), np.float32)
    for n in range(env.done.shape[0]):
        if env.done[n] == 1:
            last = env.terminal_observations[n : n + 1]
            forward(last, net.params, net.critic, net.activation, hidden, value)
            rewards[n] += np.float32(gamma) * value[0, 0]


@kernel
def advantages(
    buffer: Buffer, last_values: Floats, last_starts: Floats, gamma: float, gae_lambda: float
) -> None:
    """Generalised advantage estimation (Schulman et al. 2016), as SB3's rollout buffer."""
    steps, n_envs = buffer.rewards.shape
    g, gl = np.float32(gamma), np.float32(gamma * gae_lambda)
    one = np.float32(1.0)
    for n in range(n_envs):
        running = np.float32(0.0)
        for back in range(steps):
            t = steps - 1 - back
            if t == steps - 1:
                goes_on, following = one - last_starts[n], last_values[n]
            else:
                goes_on, following = one - buffer.episode_starts[t + 1, n], buffer.values[t + 1, n]
            delta = buffer.rewards[t, n] + g * following * goes_on - buffer.values[t, n]
            running = delta + gl * goes_on * running
            buffer.advantages[t, n] = running
            buffer.returns[t, n] = running + buffer.values[t, n]
