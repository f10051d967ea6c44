"""The two perceptrons of the native learner: forward, and gradients by back-propagation.

All parameters of actor and critic live in one flat float32 vector, in torch's order and
layout (weight (out, in) by rows, then bias, layer after layer), so that clipping and Adam
run over one array and copying from and to the SB3 policy is a concatenation.

A network is described by `shape`, int64 (L, 3): inputs, outputs, offset of the weight.
"""

import numpy as np
import numpy.typing as npt

from ppo_workbench.delivery.inference import RELU, TANH, relu_in_place, tanh_in_place
from ppo_workbench.jit import kernel

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@kernel
def add_bias(rows: Floats, bias: Floats) -> None:
    """Add `bias` (n,) to every row of `rows` (B, n)."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[i, j] += bias[j]


@kernel
def layer_output(source: Floats, params: Floats, shape: Ints, layer: int, out: Floats) -> None:
    """Write source @ weight.T + bias of one layer into `out` (B, outputs)."""
    n_in, n_out, offset = shape[layer, 0], shape[layer, 1], shape[layer, 2]
    weight = params[offset : offset + n_in * n_out].reshape(n_out, n_in)
    np.dot(source, weight.T, out)
    add_bias(out, params[offset + n_in * n_out : offset + n_in * n_out + n_out])


@kernel
def forward(
    inputs: Floats, params: Floats, shape: Ints, activation: int, hidden: Floats, out: Floats
) -> None:
    """Run a perceptron on B rows.

    Args:
        inputs: float32 (B, n).
        params: All parameters.
        shape: int64 (L, 3), see the module.
        activation: 0 tanh, 1 relu, after each layer but the last.
        hidden: float32 scratch, flat, B * sum of hidden widths; keeps the activations.
        out: float32 (B, outputs), overwritten.
    """
    rows, layers = inputs.shape[0], shape.shape[0]
    source = inputs
    start = 0
    for layer in range(layers - 1):
        width = shape[layer, 1]
        flat = hidden[start : start + rows * width]
        target = flat.reshape(rows, width)
        layer_output(source, params, shape, layer, target)
        if activation == TANH:
            tanh_in_place(flat)
        else:
            relu_in_place(flat)
        source = target
        start += rows * width
    layer_output(source, params, shape, layers - 1, out)


@kernel
def _through_activation(gradient: Floats, activated: Floats, activation: int) -> None:
    """Multiply by the derivative, given the activations themselves."""
    if activation == TANH:
        for i in range(gradient.shape[0]):
            gradient[i] *= _ONE - activated[i] * activated[i]
    else:
        for i in range(gradient.shape[0]):
            if activated[i] <= _ZERO:
                gradient[i] = _ZERO


@kernel
def backward(
    inputs: Floats,
    params: Floats,
    shape: Ints,
    activation: int,
    hidden: Floats,
    out_gradient: Floats,
    scratch: Floats,
    gradients: Floats,
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
    for back in range(layers):
        layer = layers - 1 - back
        n_in, n_out, offset = shape[layer, 0], shape[layer, 1], shape[layer, 2]
        below = inputs
        if layer > 0:
            below = hidden[stop - rows * n_in : stop].reshape(rows, n_in)
        weight_gradient = gradients[offset : offset + n_in * n_out].reshape(n_out, n_in)
        np.dot(upstream.T, below, weight_gradient)
        bias = gradients[offset + n_in * n_out : offset + n_in * n_out + n_out]
        _column_sums(upstream, bias)
        if layer > 0:
            weight = params[offset : offset + n_in * n_out].reshape(n_out, n_in)
            side = half if back % 2 else 0
            flat = scratch[side : side + rows * n_in]
            downstream = flat.reshape(rows, n_in)
            np.dot(upstream, weight, downstream)
            _through_activation(flat, hidden[stop - rows * n_in : stop], activation)
            upstream = downstream
            stop -= rows * n_in


@kernel
def _column_sums(rows: Floats, sums: Floats) -> None:
    sums[:] = _ZERO
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            sums[j] += rows[i, j]
