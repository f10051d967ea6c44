"""The update of PPO over one rollout, jitted: what SB3's `train` does, number for number.

Clipped surrogate objective, clipped value loss, entropy bonus (Schulman et al. 2017),
masked softmax (sb3-contrib: forbidden logits become -1e8), advantages normalised per
minibatch, global-norm clipping and Adam (Kingma and Ba 2015) as torch computes them.
"""

from typing import NamedTuple

import numba
import numpy as np

from ppo_workbench.config.arrays import Bools, Floats, Ints, Singles
from ppo_workbench.jit import inlined_kernel, kernel, parallel_kernel
from ppo_workbench.learning.native.network import backward, forward, hidden_size, turn

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
MASKED_LOGIT = np.float32(-1e8)  # sb3_contrib.common.maskable.distributions
# Rows of a minibatch that are worked on together.  Their activations stay in cache, and
# OpenBLAS multiplies up to a million times without packing (240 x 64 x 64), a third faster.
TILE = 240
ADAM_BETA1, ADAM_BETA2, ADAM_EPS = 0.9, 0.999, 1e-5  # SB3's ActorCriticPolicy sets eps
LOSSES = ("policy_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction", "loss")
POLICY, VALUE, ENTROPY, KL, CLIPPED, TOTAL = range(len(LOSSES))
EPOCHS = len(LOSSES)  # behind them, the number of epochs begun


class Rollout(NamedTuple):
    """Rows of a rollout: all M of it, or those of a minibatch.

    Attributes:
        observations: float32 (M, n).
        actions: int64 (M,).
        masks: bool (M, A).
        values, log_probs, advantages, returns: float32 (M,).
    """

    observations: Singles
    actions: Ints
    masks: Bools
    values: Singles
    log_probs: Singles
    advantages: Singles
    returns: Singles


class Network(NamedTuple):
    """Parameters and optimizer state.

    Attributes:
        params, gradients, first_moment, second_moment: float32 (P,).
        turned: float32 (P,), what `network.turn` makes of params for a forward pass.
        actor, critic: int64 (L, 3), see `network`.
        activation: 0 tanh, 1 relu.
        steps: int64 (1,), Adam steps taken.
    """

    params: Singles
    gradients: Singles
    first_moment: Singles
    second_moment: Singles
    turned: Singles
    actor: Ints
    critic: Ints
    activation: int
    steps: Ints


class Hyperparameters(NamedTuple):
    """SB3's names; `clip_range_vf` and `target_kl` are negative where SB3 has None."""

    learning_rate: float
    batch_size: int
    clip_range: float
    clip_range_vf: float
    ent_coef: float
    vf_coef: float
    max_grad_norm: float
    target_kl: float
    normalize_advantage: bool


@kernel
def masked_softmax(logits: Singles, masks: Bools, log_p: Singles, p: Singles) -> None:
    """Write log-probabilities and probabilities of N rows, each (N, A).

    Forbidden actions count with logit -1e8, so their probability is exactly 0.
    """
    n_actions = logits.shape[1]
    for n in range(logits.shape[0]):
        top = MASKED_LOGIT
        for k in range(n_actions):
            if masks[n, k]:
                top = max(top, logits[n, k])
        total = _ZERO
        for k in range(n_actions):
            p[n, k] = np.exp(logits[n, k] - top) if masks[n, k] else _ZERO
            total += p[n, k]
        shift, scale = top + np.log(total), _ONE / total
        for k in range(n_actions):
            log_p[n, k] = (logits[n, k] if masks[n, k] else MASKED_LOGIT) - shift
            p[n, k] *= scale


@kernel
def _normalise(values: Singles) -> None:
    """Subtract the mean and divide by the unbiased standard deviation plus 1e-8."""
    n = values.shape[0]
    total = 0.0
    for i in range(n):
        total += values[i]
    mean = total / n
    squares = 0.0
    for i in range(n):
        squares += (values[i] - mean) ** 2
    scale = 1.0 / (np.sqrt(squares / (n - 1)) + 1e-8)
    for i in range(n):
        values[i] = (values[i] - mean) * scale


@kernel
def _policy_loss(
    batch: Rollout,
    log_p: Singles,
    p: Singles,
    share: float,
    h: Hyperparameters,
    gradient: Singles,
    losses: Floats,
) -> None:
    """Add policy loss, entropy loss, KL and clip fraction; write the gradient by logit.

    `share` w is the weight of a row in the mean over its minibatch.  With r the ratio of new to
    old probability of the action a that was taken, A its advantage, c the entropy's weight:

        L = w (-min(r A, clip(r) A) - c H),    H = -sum_k p_k ln p_k

    The softmax gives d ln p_a / d logit_k = [k = a] - p_k and dH / d logit_k = -p_k (ln p_k + H),
    and d(r A) / d ln p_a = r A, so where the plain term passes

        dL / d logit_k = w r A (p_k - [k = a]) + w c p_k (ln p_k + H)
    """
    actions, advantages, old_log_p = batch.actions, batch.advantages, batch.log_probs
    # In float32 like the ratio: a float64 bound would make the clipped product differ from
    # the plain one by rounding, and the comparison below would drop half the gradients.
    low, high = np.float32(1.0 - h.clip_range), np.float32(1.0 + h.clip_range)
    weight, bonus = np.float32(share), np.float32(share * h.ent_coef)
    for i in range(log_p.shape[0]):
        log_ratio = log_p[i, actions[i]] - old_log_p[i]
        ratio = np.exp(log_ratio)
        plain, clipped = advantages[i] * ratio, advantages[i] * min(max(ratio, low), high)
        entropy = _ZERO
        for k in range(log_p.shape[1]):
            entropy -= p[i, k] * log_p[i, k]  # a forbidden action has p = 0
        losses[POLICY] -= min(plain, clipped)
        losses[ENTROPY] -= entropy
        # Schulman's estimate of the divergence: not negative, and of little variance.
        losses[KL] += (ratio - _ONE) - log_ratio
        losses[CLIPPED] += abs(ratio - _ONE) > h.clip_range
        # The minimum passes the gradient of the plain term unless the clipped one is less.
        by_log_prob = plain * weight if plain <= clipped else _ZERO
        for k in range(log_p.shape[1]):
            by_entropy = bonus * p[i, k] * (log_p[i, k] + entropy)
            gradient[i, k] = by_log_prob * p[i, k] + by_entropy
        gradient[i, actions[i]] -= by_log_prob


@kernel
def _value_loss(
    batch: Rollout,
    values: Singles,
    share: float,
    h: Hyperparameters,
    gradient: Singles,
    losses: Floats,
) -> None:
    """Add the value loss and write its gradient by value, weighted by `vf_coef`.

    L = w v (V - R)^2, so dL / dV = 2 w v (V - R); where V is held within `clip_range_vf` of the
    old value it does not depend on the network, and nothing passes.
    """
    old_values, returns = batch.values, batch.returns
    for i in range(values.shape[0]):
        value, passes = values[i, 0], 1.0
        if h.clip_range_vf >= 0.0:
            change = value - old_values[i]
            limited = min(max(change, -h.clip_range_vf), h.clip_range_vf)
            passes = 1.0 if limited == change else 0.0
            value = old_values[i] + limited
        error = value - returns[i]
        losses[VALUE] += error * error
        gradient[i, 0] = h.vf_coef * 2.0 * error * passes * share


@kernel
def clip_scale(gradients: Singles, max_norm: float) -> float:
    """Return the factor that limits a gradient to a global norm of `max_norm`, at most 1."""
    norm = np.sqrt(np.float64(np.dot(gradients, gradients)))
    return min(max_norm / (norm + 1e-6), 1.0)


@kernel
def adam_step(net: Network, learning_rate: float, scale: float) -> None:
    """One step of Adam on all parameters by `scale` times the gradients, as torch does it.

    Moments begin at 0 and so are too small by 1 - beta^t, which is divided out: of the first in
    the size of the step, of the second under the root.
    """
    net.steps[0] += 1
    t = net.steps[0]
    correction1 = 1.0 - ADAM_BETA1**t
    correction2 = np.float32(1.0 / np.sqrt(1.0 - ADAM_BETA2**t))
    size = np.float32(learning_rate / correction1)
    b1, b2, eps = np.float32(ADAM_BETA1), np.float32(ADAM_BETA2), np.float32(ADAM_EPS)
    c1, c2 = np.float32(1.0 - ADAM_BETA1), np.float32(1.0 - ADAM_BETA2)
    factor = np.float32(scale)
    params, gradients = net.params, net.gradients
    first, second = net.first_moment, net.second_moment
    for i in range(params.shape[0]):
        g = gradients[i] * factor
        m = b1 * first[i] + c1 * g
        v = b2 * second[i] + c2 * g * g
        first[i], second[i] = m, v
        params[i] -= size * m / (np.sqrt(v) * correction2 + eps)


class Scratch(NamedTuple):
    """Memory of the tiles of a minibatch: what a lane needs, and what a tile leaves.

    Attributes:
        log_p, p, logits: float32 (lanes, rows, A).
        values: float32 (lanes, rows, 1).
        actor_hidden, critic_hidden, downstream: float32 (lanes, ...), flat by lane.
        gradients: float32 (tiles, P), of each tile but the first, whose place is the sum's.
        losses: float64 (tiles, 5), of each tile.
    """

    log_p: Singles
    p: Singles
    logits: Singles
    values: Singles
    actor_hidden: Singles
    critic_hidden: Singles
    downstream: Singles
    gradients: Singles
    losses: Floats


@kernel
def _scratch(net: Network, rows: int, n_actions: int, lanes: int) -> Scratch:
    """Return memory for minibatches of up to `rows` rows."""
    actor, critic = hidden_size(net.actor), hidden_size(net.critic)
    tiles, tile = (rows + TILE - 1) // TILE, min(rows, TILE)
    return Scratch(
        np.empty((lanes, tile, n_actions), np.float32),
        np.empty((lanes, tile, n_actions), np.float32),
        np.empty((lanes, tile, n_actions), np.float32),
        np.empty((lanes, tile, 1), np.float32),
        np.empty((lanes, tile * actor), np.float32),
        np.empty((lanes, tile * critic), np.float32),
        np.empty((lanes, 2 * tile * max(actor, critic)), np.float32),
        np.empty((tiles, net.gradients.shape[0]), np.float32),
        np.empty((tiles, 5)),
    )


@kernel
def _gather(rollout: Rollout, rows: Ints, out: Rollout) -> None:
    """Copy some rows of a rollout into the first rows of another."""
    for i in range(rows.shape[0]):
        row = rows[i]
        out.actions[i], out.values[i] = rollout.actions[row], rollout.values[row]
        out.log_probs[i], out.returns[i] = rollout.log_probs[row], rollout.returns[row]
        out.advantages[i] = rollout.advantages[row]
    for i in range(rows.shape[0]):
        for j in range(out.observations.shape[1]):
            out.observations[i, j] = rollout.observations[rows[i], j]
        for k in range(out.masks.shape[1]):
            out.masks[i, k] = rollout.masks[rows[i], k]


@inlined_kernel
def _part(r: Rollout, start: int, stop: int) -> Rollout:
    """Return rows `start` .. `stop` of a rollout as views."""
    return Rollout(
        r.observations[start:stop], r.actions[start:stop], r.masks[start:stop],
        r.values[start:stop], r.log_probs[start:stop], r.advantages[start:stop],
        r.returns[start:stop],
    )  # fmt: skip


@inlined_kernel
def _tile(
    net: Network, batch: Rollout, share: float, h: Hyperparameters, s: Scratch, tile: int, lane: int
) -> None:
    """Forward, losses and backward of one tile of a minibatch, in the memory of one lane."""
    start = tile * TILE
    part = _part(batch, start, min(start + TILE, batch.actions.shape[0]))
    n, inputs = part.actions.shape[0], part.observations
    logits, log_p, p = s.logits[lane, :n], s.log_p[lane, :n], s.p[lane, :n]
    values, downstream = s.values[lane, :n], s.downstream[lane]
    gradients, losses = (net.gradients if tile == 0 else s.gradients[tile]), s.losses[tile]
    losses[:] = 0.0
    forward(inputs, net.turned, net.actor, net.activation, s.actor_hidden[lane], logits)
    masked_softmax(logits, part.masks, log_p, p)
    _policy_loss(part, log_p, p, share, h, logits, losses)  # now gradients by logit
    backward(
        inputs, net.params, net.actor, net.activation, s.actor_hidden[lane],
        logits, downstream, gradients,
    )  # fmt: skip
    forward(inputs, net.turned, net.critic, net.activation, s.critic_hidden[lane], values)
    _value_loss(part, values, share, h, values, losses)  # now gradients by value
    backward(
        inputs, net.params, net.critic, net.activation, s.critic_hidden[lane],
        values, downstream, gradients,
    )  # fmt: skip


@parallel_kernel
def _tiles_in_lanes(
    net: Network, batch: Rollout, share: float, h: Hyperparameters, s: Scratch, tiles: int
) -> None:
    """Do the tiles of a minibatch in as many threads as the memory has lanes."""
    lanes = s.logits.shape[0]
    for lane in numba.prange(lanes):
        for tile in range(lane, tiles, lanes):
            _tile(net, batch, share, h, s, tile, lane)


@kernel
def turn_weights(net: Network) -> None:
    """Prepare the forward passes of both networks."""
    turn(net.params, net.actor, net.turned)
    turn(net.params, net.critic, net.turned)


@kernel
def _minibatch(
    net: Network,
    batch: Rollout,
    h: Hyperparameters,
    s: Scratch,
    losses: Floats,
    lanes: int | None,
) -> None:
    """Write the losses of a minibatch and the gradients of its total loss.

    Tiles are summed in their order, whoever did them: the number of threads changes nothing.
    """
    n = batch.actions.shape[0]
    if h.normalize_advantage and n > 1:
        _normalise(batch.advantages)
    turn_weights(net)
    tiles = (n + TILE - 1) // TILE
    if lanes is None:
        for tile in range(tiles):
            _tile(net, batch, 1.0 / n, h, s, tile, 0)
    else:
        _tiles_in_lanes(net, batch, 1.0 / n, h, s, tiles)
    losses[:] = s.losses[0]
    for tile in range(1, tiles):
        add_to(net.gradients, s.gradients[tile])
        losses += s.losses[tile]
    losses /= n


@kernel
def add_to(sums: Singles, values: Singles) -> None:
    """Add one flat array to another."""
    for i in range(sums.shape[0]):
        sums[i] += values[i]


@kernel
def update(
    net: Network, rollout: Rollout, order: Ints, h: Hyperparameters, lanes: int | None
) -> Floats:
    """Run all epochs of minibatch updates; stop early at `target_kl` as SB3 does.

    Args:
        net: Parameters and optimizer state, changed in place.
        rollout: M rows.
        order: int64 (epochs, M), the rows in the order in which minibatches take them.
        h: Hyperparameters.
        lanes: How many threads share the tiles of a minibatch; None works without threads,
            and numba compiles that case without them.

    Returns:
        float64 (len(LOSSES) + 1,): SB3's means of the losses (approx_kl over the last epoch
        begun, loss of the last minibatch), then the number of epochs begun.
    """
    epochs, total = order.shape
    size = min(h.batch_size, total)
    scratch = _scratch(net, size, rollout.masks.shape[1], 1 if lanes is None else lanes)
    r = _part(rollout, 0, size)
    taken = Rollout(
        r.observations.copy(), r.actions.copy(), r.masks.copy(), r.values.copy(),
        r.log_probs.copy(), r.advantages.copy(), r.returns.copy(),
    )  # fmt: skip
    sums, losses = np.zeros(len(LOSSES) + 1), np.zeros(TOTAL)
    minibatches, proceed = 0, True
    for epoch in range(epochs):
        sums[KL], begun = 0.0, minibatches
        for start in range(0, total, size):
            rows = order[epoch, start : min(start + size, total)]
            _gather(rollout, rows, taken)
            _minibatch(net, _part(taken, 0, rows.shape[0]), h, scratch, losses, lanes)
            sums[:TOTAL] += losses
            sums[TOTAL] = losses[POLICY] + h.ent_coef * losses[ENTROPY] + h.vf_coef * losses[VALUE]
            minibatches += 1
            proceed = h.target_kl < 0.0 or losses[KL] <= 1.5 * h.target_kl
            if not proceed:
                break
            adam_step(net, h.learning_rate, clip_scale(net.gradients, h.max_grad_norm))
        sums[KL] /= minibatches - begun
        sums[EPOCHS] = epoch + 1
        if not proceed:
            break
    sums[:KL] /= minibatches
    sums[CLIPPED] /= minibatches
    return sums
