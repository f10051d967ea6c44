"""The two perceptrons of the native learner: forward, and gradients by back-propagation.

All parameters of actor and critic live in one flat float32 vector, in torch's order and
layout (weight (out, in) by rows, then bias, layer after layer), so that clipping and Adam
run over one array and copying from and to the SB3 policy is a concatenation.

A network is described by `shape`, int64 (L, 3): inputs, outputs, offset of the weight.
"""

import numpy as np

from ppo_workbench.config.arrays import Ints, Singles
from ppo_workbench.delivery.network import TANH, rational_tanh
from ppo_workbench.jit import kernel

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@kernel
def bias_tanh(rows: Singles, bias: Singles) -> None:
    """Add `bias` (n,) to every row of `rows` (B, n) and take the hyperbolic tangent."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[i, j] = rational_tanh(rows[i, j] + bias[j])


@kernel
def bias_relu(rows: Singles, bias: Singles) -> None:
    """Add `bias` (n,) to every row of `rows` (B, n) and take the positive part."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[i, j] = max(rows[i, j] + bias[j], _ZERO)


@kernel
def add_bias(rows: Singles, bias: Singles) -> None:
    """Add `bias` (n,) to every row of `rows` (B, n)."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[i, j] += bias[j]


@kernel
def hidden_size(shape: Ints) -> int:
    """Return the sum of the hidden widths."""
    return shape[: shape.shape[0] - 1, 1].sum()


@kernel
def weight_of(params: Singles, shape: Ints, layer: int) -> Singles:
    """Return the weight of one layer as a view (outputs, inputs)."""
    n_in, n_out, offset = shape[layer, 0], shape[layer, 1], shape[layer, 2]
    return params[offset : offset + n_in * n_out].reshape(n_out, n_in)


@kernel
def transposed_of(turned: Singles, shape: Ints, layer: int) -> Singles:
    """Return the weight of one layer as a view (inputs, outputs) into what `turn` wrote."""
    n_in, n_out, offset = shape[layer, 0], shape[layer, 1], shape[layer, 2]
    return turned[offset : offset + n_in * n_out].reshape(n_in, n_out)


@kernel
def bias_of(params: Singles, shape: Ints, layer: int) -> Singles:
    """Return the bias of one layer as a view (outputs,)."""
    n_in, n_out, offset = shape[layer, 0], shape[layer, 1], shape[layer, 2]
    return params[offset + n_in * n_out : offset + n_in * n_out + n_out]


@kernel
def turn(params: Singles, shape: Ints, turned: Singles) -> None:
    """Copy a network's parameters with each weight transposed, to (inputs, outputs).

    The forward pass multiplies by transposed weights, which BLAS does a third slower than
    plain ones; turning them once by minibatch costs less.
    """
    for layer in range(shape.shape[0]):
        weight, target = weight_of(params, shape, layer), transposed_of(turned, shape, layer)
        for i in range(target.shape[0]):  # scattered reads cost less than scattered writes
            for j in range(target.shape[1]):
                target[i, j] = weight[j, i]
        bias_of(turned, shape, layer)[:] = bias_of(params, shape, layer)


@kernel
def forward(
    inputs: Singles, turned: Singles, shape: Ints, activation: int, hidden: Singles, out: Singles
) -> None:
    """Run a perceptron on B rows.

    Args:
        inputs: float32 (B, n).
        turned: All parameters, as `turn` wrote them.
        shape: int64 (L, 3), see the module.
        activation: 0 tanh, 1 relu, after each layer but the last.
        hidden: float32 scratch, flat, B * sum of hidden widths; keeps the activations.
        out: float32 (B, outputs), overwritten.
    """
    rows, layers = inputs.shape[0], shape.shape[0]
    source = inputs
    start = 0
    for layer in range(layers - 1):
        stop = start + rows * shape[layer, 1]
        target = hidden[start:stop].reshape(rows, shape[layer, 1])
        np.dot(source, transposed_of(turned, shape, layer), target)
        if activation == TANH:
            bias_tanh(target, bias_of(turned, shape, layer))
        else:
            bias_relu(target, bias_of(turned, shape, layer))
        source, start = target, stop
    np.dot(source, transposed_of(turned, shape, layers - 1), out)
    add_bias(out, bias_of(turned, shape, layers - 1))


@kernel
def _through_tanh(gradient: Singles, activated: Singles, sums: Singles) -> None:
    """Multiply by the derivative, given the activations (B, n); write the column sums (n,)."""
    sums[:] = _ZERO
    for i in range(gradient.shape[0]):
        for j in range(gradient.shape[1]):
            change = gradient[i, j] * (_ONE - activated[i, j] * activated[i, j])
            gradient[i, j] = change
            sums[j] += change


@kernel
def _through_relu(gradient: Singles, activated: Singles, sums: Singles) -> None:
    """Multiply by the derivative, given the activations (B, n); write the column sums (n,)."""
    sums[:] = _ZERO
    for i in range(gradient.shape[0]):
        for j in range(gradient.shape[1]):
            change = gradient[i, j] if activated[i, j] > _ZERO else _ZERO
            gradient[i, j] = change
            sums[j] += change


@kernel
def backward(
    inputs: Singles,
    params: Singles,
    shape: Ints,
    activation: int,
    hidden: Singles,
    out_gradient: Singles,
    scratch: Singles,
    gradients: Singles,
) -> None:
    """Write the gradients of a loss by back-propagation.

    Args:
        inputs: float32 (B, n), as in `forward`.
        params: All parameters.
        shape: int64 (L, 3).
        activation: 0 tanh, 1 relu.
        hidden: The activations that `forward` left.
        out_gradient: float32 (B, outputs), loss by output.
        scratch: float32 flat, 2 * B * widest hidden layer.
        gradients: float32, like `params`; this network's part is overwritten.
    """
    rows, layers = inputs.shape[0], shape.shape[0]
    half = scratch.shape[0] // 2
    stop = rows * shape[: layers - 1, 1].sum()
    upstream = out_gradient
    _column_sums(upstream, bias_of(gradients, shape, layers - 1))
    for layer in range(layers - 1, 0, -1):
        n_in = shape[layer, 0]
        below = hidden[stop - rows * n_in : stop].reshape(rows, n_in)
        np.dot(upstream.T, below, weight_of(gradients, shape, layer))
        side = half if layer % 2 else 0  # upstream lies in the other half
        downstream = scratch[side : side + rows * n_in].reshape(rows, n_in)
        np.dot(upstream, weight_of(params, shape, layer), downstream)
        if activation == TANH:
            _through_tanh(downstream, below, bias_of(gradients, shape, layer - 1))
        else:
            _through_relu(downstream, below, bias_of(gradients, shape, layer - 1))
        upstream, stop = downstream, stop - rows * n_in
    np.dot(upstream.T, inputs, weight_of(gradients, shape, 0))


@kernel
def _column_sums(rows: Singles, sums: Singles) -> None:
    sums[:] = _ZERO
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            sums[j] += rows[i, j]
