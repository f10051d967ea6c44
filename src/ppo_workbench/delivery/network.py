"""What a policy's network is: its weights, one row through it, its repetition and its export.

Backtest and live decisions run `forward_row`, one row at a time and always in the same order, so
they agree bit for bit; batched training (`learning.native.network`, which has the derivatives)
may differ from it in the last digits.  Inputs are the scaled observation.  Another kind of network
is described here, in its derivative there, and in `config`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ppo_workbench.config import Activation
from ppo_workbench.config.arrays import Bools, Floats, Ints, Singles
from ppo_workbench.jit import fused_kernel, kernel

TANH, RELU = 0, 1
LANES = 8


class ActivationKind(NamedTuple):
    """An activation: its code in kernels, as a module of torch, and in numpy."""

    code: int
    module: type[torch.nn.Module]
    function: Callable[[Floats], Floats]


ACTIVATIONS = {
    Activation.tanh: ActivationKind(TANH, torch.nn.Tanh, np.tanh),
    Activation.relu: ActivationKind(RELU, torch.nn.ReLU, partial(np.maximum, 0.0)),
}

# Rational approximation of tanh, exact to a few ulp of float32: the coefficients of
# Eigen's generic_fast_tanh_float (odd numerator of degree 13, even denominator of degree 6).
_LIMIT = np.float32(7.90531110763549805)
_A1, _A3, _A5, _A7, _A9, _A11, _A13 = (
    np.float32(x)
    for x in (
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    )
)
_B0, _B2, _B4, _B6 = (
    np.float32(x)
    for x in (
        4.89352518554385e-03,
        2.26843463243900e-03,
        1.18534705686654e-04,
        1.19825839466702e-06,
    )
)


@fused_kernel
def rational_tanh(value: Any) -> Any:
    """Return the hyperbolic tangent of a float32."""
    x = min(max(value, -_LIMIT), _LIMIT)
    s = x * x
    p = _A13 * s + _A11
    p = p * s + _A9
    p = p * s + _A7
    p = p * s + _A5
    p = p * s + _A3
    p = p * s + _A1
    q = _B6 * s + _B4
    q = q * s + _B2
    q = q * s + _B0
    return x * p / q


@kernel
def activate(values: Singles, activation: int) -> None:
    """Replace a flat float32 array by its activations."""
    if activation == TANH:
        for i in range(values.shape[0]):
            values[i] = rational_tanh(values[i])
    else:
        for i in range(values.shape[0]):
            values[i] = max(values[i], np.float32(0.0))


class PolicyWeights(NamedTuple):
    """A multilayer perceptron from observation to logits, flattened for the kernel.

    Attributes:
        sizes: int64 (L + 1,), layer widths from the observation to the logits.
        flat: float32, for each layer its (inputs, outputs) matrix by rows, then its bias; then
            `LANES` zeros, since outputs are summed in whole vectors.
        activation: 0 tanh, 1 relu, after each layer but the last.
    """

    sizes: Ints
    flat: Singles
    activation: int

    @classmethod
    def from_layers(
        cls,
        layers: list[tuple[Singles, Singles]],
        activation: Activation,
    ) -> "PolicyWeights":
        """Flatten torch-style layers: weight (outputs, inputs) and bias (outputs,)."""
        sizes = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)]
        parts = [x for weight, bias in layers for x in (weight.T.ravel(), bias)]
        parts.append(np.zeros(LANES, dtype=np.float32))
        return cls(
            np.array(sizes, dtype=np.int64),
            np.ascontiguousarray(np.concatenate(parts), dtype=np.float32),
            ACTIVATIONS[activation].code,
        )

    def layers(self) -> list[tuple[Singles, Singles]]:
        """Return torch-style layers, the inverse of `from_layers`."""
        found, offset = [], 0
        for n_in, n_out in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            stop = offset + int(n_in * n_out)
            weight = self.flat[offset:stop].reshape(n_in, n_out).T.copy()
            found.append((weight, self.flat[stop : stop + n_out].copy()))
            offset = stop + int(n_out)
        return found

    def kind(self) -> ActivationKind:
        """Return the activation of the hidden layers."""
        return next(kind for kind in ACTIVATIONS.values() if kind.code == self.activation)

    def scratch(self) -> Singles:
        """Return what `forward_row` needs, float32 (2, widest layer in whole vectors)."""
        return np.zeros((2, int(self.sizes.max()) + LANES), dtype=np.float32)

    def logits(self, observations: Singles) -> Floats:
        """Return the logits of R observations in plain numpy, float64 (R, A)."""
        values, layers = observations.astype(np.float64), self.layers()
        for k, (weight, bias) in enumerate(layers):
            values = values @ weight.T.astype(np.float64) + bias
            if k < len(layers) - 1:
                values = self.kind().function(values)
        return values

    def module(self) -> torch.nn.Sequential:
        """Return the network as layers of torch."""
        layers: list[torch.nn.Module] = []
        for weight, bias in self.layers():
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
            values = {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
            layer.load_state_dict(values)
            layers += [layer, self.kind().module()]
        return torch.nn.Sequential(*layers[:-1])


def policy_weights(
    tensors: Mapping[str, torch.Tensor], activation: Activation, prefix: str = ""
) -> PolicyWeights:
    """Extract the actor from an SB3 policy's state dict.

    Args:
        tensors: `policy.state_dict()`, or artefact tensors whose names start with `prefix`.
        activation: Activation of the hidden layers.
        prefix: Put before SB3's own names.
    """
    hidden = f"{prefix}mlp_extractor.policy_net."
    indices = sorted(
        int(name.removeprefix(hidden).split(".")[0])
        for name in tensors
        if name.startswith(hidden) and name.endswith(".weight")
    )
    stems = [f"{hidden}{i}" for i in indices] + [f"{prefix}action_net"]
    layers = [
        (
            tensors[f"{stem}.weight"].detach().cpu().numpy().astype(np.float32),
            tensors[f"{stem}.bias"].detach().cpu().numpy().astype(np.float32),
        )
        for stem in stems
    ]
    return PolicyWeights.from_layers(layers, activation)


def _adder(vectors: int) -> Any:
    """Make `add(inputs, n, flat, offset, m, sums, first)`, of 8 outputs a vector.

    It adds inputs[i] * flat[offset + i * m + j] to sums[j] for each i < n, j from `first` on,
    input after input: every sum is rounded as a plain loop rounds it, on any processor.  But it
    stays in a register, where a compiled loop fetches and stores it at every input.
    """

    @intrinsic
    def add(
        typing: Any, inputs: Any, n: Any, flat: Any, offset: Any, m: Any, sums: Any, first: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def data(at: int) -> Any:
                return context.make_array(signature.args[at])(context, builder, arguments[at]).data

            def place(array: Any, start: Any, vector: int) -> Any:
                at = builder.add(start, index(vector * LANES))
                return builder.bitcast(builder.gep(array, [at]), lanes.as_pointer())

            inputs, flat, sums = data(0), data(2), data(5)
            _, n, _, offset, m, _, first = arguments
            index, lanes = n.type, ir.VectorType(ir.FloatType(), LANES)
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            begun = [builder.load(place(sums, first, k), align=4) for k in range(vectors)]
            held = [cgutils.alloca_once_value(builder, x) for x in begun]  # type: ignore[no-untyped-call]
            with cgutils.for_range(builder, n) as loop:
                value = builder.load(builder.gep(inputs, [loop.index]))
                alone = builder.insert_element(lanes(ir.Undefined), value, zeros.type.element(0))
                spread = builder.shuffle_vector(alone, alone, zeros)
                row = builder.add(offset, builder.add(builder.mul(loop.index, m), first))
                for k, total in enumerate(held):
                    weight = builder.load(place(flat, row, k), align=4)
                    product = builder.fmul(spread, weight)
                    builder.store(builder.fadd(builder.load(total), product), total)
            for k, total in enumerate(held):
                builder.store(builder.load(total), place(sums, first, k), align=4)
            return context.get_dummy_value()

        return types.void(inputs, n, flat, offset, m, sums, first), generate

    return add


_add_four, _add_one = _adder(4), _adder(1)


@kernel
def forward_row(observation: Singles, weights: PolicyWeights, scratch: Singles) -> Singles:
    """Return the logits of one scaled observation as a view into `scratch`.

    Args:
        observation: float32 (n,).
        weights: The network.
        scratch: float32, of `PolicyWeights.scratch`, overwritten.
    """
    sizes, flat = weights.sizes, weights.flat
    layers = sizes.shape[0] - 1
    source = observation
    offset = 0
    for layer in range(layers):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        sums = scratch[layer % 2]
        bias = offset + n_in * n_out
        if n_out + LANES > sums.shape[0] or bias + n_out + LANES > flat.shape[0]:
            raise ValueError("no room for whole vectors; use PolicyWeights.from_layers and scratch")
        for j in range(n_out):
            sums[j] = flat[bias + j]
        first = 0
        while first + 3 * LANES < n_out:
            _add_four(source, n_in, flat, offset, n_out, sums, first)
            first += 4 * LANES
        while first < n_out:
            _add_one(source, n_in, flat, offset, n_out, sums, first)
            first += LANES
        offset = bias + n_out
        if layer < layers - 1:
            activate(sums[:n_out], weights.activation)
        source = sums
    return source[: sizes[layers]]


@kernel
def best_allowed(logits: Singles, mask: Bools) -> int:
    """Return the index of the largest allowed logit, the lowest index of equal ones."""
    best = -1
    for i in range(logits.shape[0]):
        if mask[i] and (best < 0 or logits[i] > logits[best]):
            best = i
    return best


@kernel
def only_allowed(mask: Bools) -> int:
    """Return the index of the one allowed action, -1 where there are several."""
    found = -1
    for i in range(mask.shape[0]):
        if mask[i]:
            if found >= 0:
                return -1
            found = i
    return found
