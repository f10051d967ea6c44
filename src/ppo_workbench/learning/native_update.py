"""The update of PPO over one rollout, jitted: what SB3's `train` does, number for number.

Clipped surrogate objective, clipped value loss, entropy bonus (Schulman et al. 2017),
masked softmax (sb3-contrib: forbidden logits become -1e8), advantages normalised per
minibatch, global-norm clipping and Adam (Kingma and Ba 2015) as torch computes them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ppo_workbench.jit import kernel
from ppo_workbench.learning.native_network import Floats, Ints, backward, forward

Bools = npt.NDArray[np.bool_]

MASKED_LOGIT = np.float32(-1e8)  # sb3_contrib.common.maskable.distributions
ADAM_BETA1, ADAM_BETA2, ADAM_EPS = 0.9, 0.999, 1e-5  # SB3's ActorCriticPolicy sets eps
LOSSES = ("policy_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction", "loss")


class Rollout(NamedTuple):
    """One rollout, flattened to M rows.

    Attributes:
        observations: float32 (M, n).
        actions: int64 (M,).
        masks: bool (M, A).
        values, log_probs, advantages, returns: float32 (M,).
    """

    observations: Floats
    actions: Ints
    masks: Bools
    values: Floats
    log_probs: Floats
    advantages: Floats
    returns: Floats


class Network(NamedTuple):
    """Parameters and optimizer state.

    Attributes:
        params, gradients, first_moment, second_moment: float32 (P,).
        actor, critic: int64 (L, 3), see `native_network`.
        activation: 0 tanh, 1 relu.
        steps: int64 (1,), Adam steps taken.
    """

    params: Floats
    gradients: Floats
    first_moment: Floats
    second_moment: Floats
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
def masked_log_softmax(logits: Floats, mask: Bools, out: Floats) -> None:
    """Write log probabilities of one row; forbidden actions count with logit -1e8."""
    top = MASKED_LOGIT
    for k in range(logits.shape[0]):
        out[k] = logits[k] if mask[k] else MASKED_LOGIT
        top = max(top, out[k])
    total = np.float32(0.0)
    for k in range(logits.shape[0]):
        total += np.exp(out[k] - top)
    shift = top + np.log(total)
    for k in range(logits.shape[0]):
        out[k] -= shift


@kernel
def _normalise(values: Floats) -> None:
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
    rollout: Rollout,
    rows: Ints,
    advantages: Floats,
    logits: Floats,
    h: Hyperparameters,
    gradient: Floats,
    losses: npt.NDArray[np.float64],
) -> None:
    """Add policy loss, entropy loss, KL and clip fraction; write the gradient by logit."""
    batch, n_actions = logits.shape
    # In float32 like the ratio: a float64 bound would make the clipped product differ from
    # the plain one by rounding, and the comparison below would drop half the gradients.
    low, high = np.float32(1.0 - h.clip_range), np.float32(1.0 + h.clip_range)
    log_p = np.empty(n_actions, np.float32)
    for i in range(batch):
        row = rows[i]
        mask, action, advantage = rollout.masks[row], rollout.actions[row], advantages[i]
        masked_log_softmax(logits[i], mask, log_p)
        log_ratio = log_p[action] - rollout.log_probs[row]
        ratio = np.exp(log_ratio)
        plain, clipped = advantage * ratio, advantage * min(max(ratio, low), high)
        losses[0] -= min(plain, clipped)
        losses[3] += (ratio - 1.0) - log_ratio
        losses[4] += 1.0 if abs(ratio - 1.0) > h.clip_range else 0.0
        entropy = 0.0
        for k in range(n_actions):
            if mask[k]:
                entropy -= np.exp(log_p[k]) * log_p[k]
        losses[2] -= entropy
        # The minimum passes the gradient of the plain term unless the clipped one is less.
        by_log_prob = -plain if plain <= clipped else 0.0
        for k in range(n_actions):
            if mask[k]:
                p = np.exp(log_p[k])
                one = 1.0 if k == action else 0.0
                by_logit = by_log_prob * (one - p) + h.ent_coef * p * (log_p[k] + entropy)
                gradient[i, k] = by_logit / batch
            else:
                gradient[i, k] = 0.0


@kernel
def _value_loss(
    rollout: Rollout,
    rows: Ints,
    values: Floats,
    h: Hyperparameters,
    gradient: Floats,
    losses: npt.NDArray[np.float64],
) -> None:
    """Add the value loss and write its gradient by value, weighted by `vf_coef`."""
    batch = values.shape[0]
    for i in range(batch):
        value, old = values[i, 0], rollout.values[rows[i]]
        passes = 1.0
        if h.clip_range_vf >= 0.0:
            change = value - old
            limited = min(max(change, -h.clip_range_vf), h.clip_range_vf)
            passes = 1.0 if limited == change else 0.0
            value = old + limited
        error = value - rollout.returns[rows[i]]
        losses[1] += error * error
        gradient[i, 0] = h.vf_coef * 2.0 * error * passes / batch


@kernel
def clip_gradients(gradients: Floats, max_norm: float) -> float:
    """Scale gradients to a global norm of at most `max_norm`; return the norm before."""
    # Eight partial sums: vectorises, and the order stays fixed.
    sums = np.zeros(8, np.float32)
    n = gradients.shape[0]
    whole = n - n % 8
    for i in range(0, whole, 8):
        for k in range(8):
            sums[k] += gradients[i + k] * gradients[i + k]
    total = 0.0
    for k in range(8):
        total += sums[k]
    for i in range(whole, n):
        total += gradients[i] * gradients[i]
    norm = np.sqrt(total)
    scale = np.float32(max_norm / (norm + 1e-6))
    if scale < 1.0:
        for i in range(n):
            gradients[i] *= scale
    return norm  # type: ignore[no-any-return]


@kernel
def adam_step(net: Network, learning_rate: float) -> None:
    """One step of Adam on all parameters, in torch's formulation."""
    net.steps[0] += 1
    t = net.steps[0]
    correction1 = 1.0 - ADAM_BETA1**t
    correction2 = np.float32(1.0 / np.sqrt(1.0 - ADAM_BETA2**t))
    size = np.float32(learning_rate / correction1)
    b1, b2, eps = np.float32(ADAM_BETA1), np.float32(ADAM_BETA2), np.float32(ADAM_EPS)
    c1, c2 = np.float32(1.0 - ADAM_BETA1), np.float32(1.0 - ADAM_BETA2)
    params, gradients = net.params, net.gradients
    first, second = net.first_moment, net.second_moment
    for i in range(params.shape[0]):
        g = gradients[i]
        m = b1 * first[i] + c1 * g
        v = b2 * second[i] + c2 * g * g
        first[i], second[i] = m, v
        params[i] -= size * m / (np.sqrt(v) * correction2 + eps)


@kernel
def _gather(rollout: Rollout, rows: Ints, observations: Floats, advantages: Floats) -> None:
    for i in range(rows.shape[0]):
        row = rows[i]
        advantages[i] = rollout.advantages[row]
        for j in range(observations.shape[1]):
            observations[i, j] = rollout.observations[row, j]


@kernel
def hidden_size(shape: Ints) -> int:
    """Return the sum of the hidden widths."""
    return shape[: shape.shape[0] - 1, 1].sum()  # type: ignore[no-any-return]


@kernel
def update(net: Network, rollout: Rollout, order: Ints, h: Hyperparameters) -> Floats:
    """Run all epochs of minibatch updates; stop early at `target_kl` as SB3 does.

    Args:
        net: Parameters and optimizer state, changed in place.
        rollout: M rows.
        order: int64 (epochs, M), the rows in the order in which minibatches take them.
        h: Hyperparameters.

    Returns:
        float64 (len(LOSSES) + 1,): SB3's means of the losses (approx_kl over the last epoch
        begun, loss of the last minibatch), then the number of epochs begun.
    """
    epochs, total = order.shape
    size = min(h.batch_size, total)
    n_obs, n_actions = rollout.observations.shape[1], rollout.masks.shape[1]
    wide = max(hidden_size(net.actor), hidden_size(net.critic))
    actor_hidden = np.empty(max(size * hidden_size(net.actor), 1), np.float32)
    critic_hidden = np.empty(max(size * hidden_size(net.critic), 1), np.float32)
    scratch = np.empty(2 * size * max(wide, 1), np.float32)
    observations_ = np.empty((size, n_obs), np.float32)
    advantages_ = np.empty(size, np.float32)
    logits_, values_ = np.empty((size, n_actions), np.float32), np.empty((size, 1), np.float32)
    by_logit_, by_value_ = np.empty_like(logits_), np.empty_like(values_)
    sums = np.zeros(len(LOSSES) + 1)
    losses = np.zeros(5)
    minibatches, proceed = 0, True
    for epoch in range(epochs):
        kl, kl_count = 0.0, 0
        for start in range(0, total, size):
            rows = order[epoch, start : min(start + size, total)]
            n = rows.shape[0]
            observations, advantages = observations_[:n], advantages_[:n]
            logits, values = logits_[:n], values_[:n]
            by_logit, by_value = by_logit_[:n], by_value_[:n]
            _gather(rollout, rows, observations, advantages)
            if h.normalize_advantage and n > 1:
                _normalise(advantages)
            forward(observations, net.params, net.actor, net.activation, actor_hidden, logits)
            forward(observations, net.params, net.critic, net.activation, critic_hidden, values)
            losses[:] = 0.0
            _policy_loss(rollout, rows, advantages, logits, h, by_logit, losses)
            _value_loss(rollout, rows, values, h, by_value, losses)
            losses /= n
            sums[:3] += losses[:3]
            sums[4] += losses[4]
            sums[5] = losses[0] + h.ent_coef * losses[2] + h.vf_coef * losses[1]
            minibatches += 1
            kl += losses[3]
            kl_count += 1
            if h.target_kl >= 0.0 and losses[3] > 1.5 * h.target_kl:
                proceed = False
                break
            backward(
                observations, net.params, net.actor, net.activation, actor_hidden,
                by_logit, scratch, net.gradients,
            )  # fmt: skip
            backward(
                observations, net.params, net.critic, net.activation, critic_hidden,
                by_value, scratch, net.gradients,
            )  # fmt: skip
            clip_gradients(net.gradients, h.max_grad_norm)
            adam_step(net, h.learning_rate)
        sums[3] = kl / kl_count
        sums[6] = epoch + 1
        if not proceed:
            break
    sums[:3] /= minibatches
    sums[4] /= minibatches
    return sums
