"""The rollout, jitted: masked forward, sampling, environment step, bootstrapping and GAE."""

from typing import Any, NamedTuple

import numpy as np

from ppo_workbench.config.arrays import Bools, Floats, Ints, Records, Singles
from ppo_workbench.jit import borrowed, inlined_kernel, kernel
from ppo_workbench.learning.native.network import forward, hidden_size
from ppo_workbench.learning.native.update import (
    TILE,
    Network,
    masked_softmax,
    turn_weights,
)
from ppo_workbench.trading.chance import random_uint
from ppo_workbench.trading.rewards import add_components
from ppo_workbench.trading.step import Environments, step_batch

TWO_TO_MINUS_53 = 2.0**-53


class Buffer(NamedTuple):
    """What a rollout of T steps of N environments leaves, time first (T, N, ...)."""

    observations: Singles
    actions: Ints
    masks: Bools
    rewards: Singles
    episode_starts: Singles
    values: Singles
    log_probs: Singles
    advantages: Singles
    returns: Singles


class Counts(NamedTuple):
    """Sums over a rollout, changed in place.

    Attributes:
        blocked: int64 (R,), decisions at which a rule blocked any action.
        totals: int64 (4,): decisions with any mask, rejected, violated, passive.
        components: float64 (C,), reward components in the order of `REWARD_NAMES`.
        actions: int64 (A,), actions sent.
        episodes: float64 (2, K), reward and length of finished episodes; number i is in
            column i % K.
        finished: int64 (1,), how many of them there were.
    """

    blocked: Ints
    totals: Ints
    components: Floats
    actions: Ints
    episodes: Floats
    finished: Ints


@inlined_kernel
def uniform(generator: Any) -> float:
    """Return 53 random bits of a generator (one account record) as a number in [0, 1)."""
    return (random_uint(generator) >> np.uint64(11)) * TWO_TO_MINUS_53


@inlined_kernel
def sample(p: Singles, mask: Bools, number: float) -> int:
    """Return the allowed action at the quantile `number`, in [0, 1), of probabilities `p`.

    Forbidden actions are skipped, whatever rounding does to the sum of probabilities, and
    so are allowed ones whose probability is 0.
    """
    total = 0.0
    for k in range(p.shape[0]):
        total += p[k]
    quantile, reached = number * total, 0.0
    chosen = -1
    for k in range(p.shape[0]):
        if mask[k] and p[k] > 0.0:
            chosen = k
            reached += p[k]
            if quantile < reached:
                break
    return chosen


@inlined_kernel
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


@inlined_kernel
def _count_outcomes(env: Environments, counts: Counts) -> None:
    for n in range(env.done.shape[0]):
        out = env.outcomes[n]
        counts.totals[1] += out.rejected != 0
        counts.totals[2] += out.violated != 0
        counts.totals[3] += out.passive != 0
        add_components(out, counts.components)
        if env.done[n] != 0:  # of very many, the last ones are kept
            slot = counts.finished[0] % counts.episodes.shape[1]
            counts.episodes[0, slot] = out.episode_reward
            counts.episodes[1, slot] = out.episode_length
            counts.finished[0] += 1


@kernel
def collect(
    env: Environments,
    net: Network,
    buffer: Buffer,
    counts: Counts,
    generator: Records,
    last_starts: Singles,
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
    env, net, buffer, counts = borrowed((env, net, buffer, counts))
    generator, last_starts = borrowed((generator, last_starts))
    steps, n_envs, n_actions = buffer.masks.shape
    actor_hidden = np.empty(max(n_envs * hidden_size(net.actor), 1), np.float32)
    logits = np.empty((n_envs, n_actions), np.float32)
    log_p, p = np.empty_like(logits), np.empty_like(logits)
    turn_weights(net)
    for t in range(steps):
        buffer.observations[t] = env.observations
        buffer.episode_starts[t] = last_starts
        if use_mask:
            buffer.masks[t] = env.masks
        forward(env.observations, net.turned, net.actor, net.activation, actor_hidden, logits)
        masked_softmax(logits, buffer.masks[t], log_p, p)
        for n in range(n_envs):
            action = sample(p[n], buffer.masks[t, n], uniform(generator[0]))
            buffer.actions[t, n] = action
            buffer.log_probs[t, n] = log_p[n, action]
        _count(env, buffer.actions[t], counts)
        finished = step_batch(buffer.actions[t], env)
        _count_outcomes(env, counts)
        buffer.rewards[t] = env.rewards
        if finished > 0:
            bootstrap(env, net, buffer.rewards[t], gamma)
        for n in range(n_envs):
            last_starts[n] = 1.0 if env.done[n] != 0 else 0.0
    flat = buffer.observations.reshape(steps * n_envs, buffer.observations.shape[2])
    state_values(net, flat, buffer.values.reshape(steps * n_envs))
    last_values = np.empty(n_envs, np.float32)
    state_values(net, env.observations, last_values)
    advantages(buffer, last_values, last_starts, gamma, gae_lambda)


@kernel
def state_values(net: Network, observations: Singles, out: Singles) -> None:
    """Write V of each row (M, n) into `out` (M,).

    No decision needs the values, so they are computed after the rollout, in large pieces.
    """
    hidden = np.empty(TILE * hidden_size(net.critic), np.float32)
    values = np.empty((TILE, 1), np.float32)
    for start in range(0, out.shape[0], TILE):
        rows = observations[start : min(start + TILE, out.shape[0])]
        n = rows.shape[0]
        forward(rows, net.turned, net.critic, net.activation, hidden, values[:n])
        out[start : start + n] = values[:n, 0]


@kernel
def bootstrap(env: Environments, net: Network, rewards: Singles, gamma: float) -> None:
    """Add gamma V(last observation) to the reward of truncated episodes (Pardo et al. 2018)."""
    value = np.empty(1, np.float32)
    for n in range(env.done.shape[0]):
        if env.done[n] == 1:
            state_values(net, env.terminal_observations[n : n + 1], value)
            rewards[n] += np.float32(gamma) * value[0]


@kernel
def advantages(
    buffer: Buffer, last_values: Singles, last_starts: Singles, gamma: float, gae_lambda: float
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
