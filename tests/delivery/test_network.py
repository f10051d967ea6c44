"""The single-row forward pass against torch, and the choice among allowed actions."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_workbench.config import Activation
from ppo_workbench.delivery.network import (
    RELU,
    TANH,
    PolicyWeights,
    activate,
    best_allowed,
    forward_row,
    only_allowed,
)

Layers = list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
MODULES = {Activation.tanh: torch.nn.Tanh, Activation.relu: torch.nn.ReLU}


def _network(widths: list[int], activation: Activation) -> tuple[torch.nn.Sequential, Layers]:
    torch.manual_seed(sum(widths))
    linear = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
    modules = [m for layer in linear for m in (layer, MODULES[activation]())][:-1]
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in linear]
    return torch.nn.Sequential(*modules), layers


def _logits(weights: PolicyWeights, row: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    scratch = np.full_like(weights.scratch(), np.nan)
    return forward_row(row, weights, scratch).copy()


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize(
    "widths", [[12, 3], [12, 64, 3], [12, 64, 64, 3], [5, 7, 1, 9, 2], [1, 128, 32, 16, 8, 21]]
)
def test_forward_row_of_any_depth_equals_torch(widths: list[int], activation: Activation) -> None:
    network, layers = _network(widths, activation)
    weights = PolicyWeights.from_layers(layers, activation)
    assert weights.sizes.tolist() == widths
    rows = np.random.default_rng(0).standard_normal((50, widths[0])).astype(np.float32) * 4
    with torch.no_grad():
        expected = network(torch.as_tensor(rows)).numpy()
    got = np.stack([_logits(weights, row) for row in rows])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", list(Activation))
def test_forward_row_repeats_bit_for_bit_whatever_the_scratch_held(activation: Activation) -> None:
    _, layers = _network([9, 33, 17, 4], activation)
    weights = PolicyWeights.from_layers(layers, activation)
    row = np.random.default_rng(1).standard_normal(9).astype(np.float32)
    first = _logits(weights, row)
    assert first.shape == (4,)
    for _ in range(20):
        assert _logits(weights, row).tobytes() == first.tobytes()


@pytest.mark.parametrize("widths", [[5, 7, 3], [8, 33, 12], [9, 25, 26, 2], [27, 64, 64, 3]])
def test_forward_row_adds_input_after_input_bit_for_bit(widths: list[int]) -> None:
    _, layers = _network(widths, Activation.relu)
    weights = PolicyWeights.from_layers(layers, Activation.relu)
    for row in np.random.default_rng(2).standard_normal((20, widths[0])).astype(np.float32):
        values = row
        for number, (weight, bias) in enumerate(layers):
            sums = bias.copy()
            for x, outputs in zip(values, weight.T, strict=True):
                sums += x * outputs
            values = sums if number == len(layers) - 1 else np.maximum(sums, np.float32(0.0))
        assert _logits(weights, row).tobytes() == values.tobytes()


def test_forward_row_refuses_arrays_that_end_within_a_vector() -> None:
    _, layers = _network([4, 4, 3], Activation.relu)
    weights, row = PolicyWeights.from_layers(layers, Activation.relu), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="no room for whole vectors"):
        forward_row(row, weights, np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="no room for whole vectors"):
        forward_row(row, weights._replace(flat=weights.flat[:-1]), weights.scratch())


def test_forward_row_leaves_the_observation_alone() -> None:
    _, layers = _network([4, 4, 4], Activation.relu)
    row = np.arange(4, dtype=np.float32)
    _logits(PolicyWeights.from_layers(layers, Activation.relu), row)
    assert row.tolist() == [0, 1, 2, 3]


def test_forward_row_by_hand() -> None:
    """h = relu([1*2 + 2*1 - 3, -1*2 + 1*1 + 0]) = [1, 0]; out = 5*1 + 7*0 - 4."""
    layers: Layers = [
        (np.array([[1, 2], [-1, 1]], np.float32), np.array([-3, 0], np.float32)),
        (np.array([[5, 7]], np.float32), np.array([-4], np.float32)),
    ]
    weights = PolicyWeights.from_layers(layers, Activation.relu)
    assert _logits(weights, np.array([2, 1], np.float32)).tolist() == [1.0]


def test_tanh_in_place_is_within_a_few_units_of_the_last_place() -> None:
    x = np.concatenate([np.linspace(-12, 12, 40_001), [-1e30, 0.0, 1e-7, 1e30]]).astype(np.float32)
    got = x.copy()
    activate(got, TANH)
    exact = np.tanh(x.astype(np.float64))
    np.testing.assert_allclose(got, exact, rtol=6e-7, atol=1e-12)
    assert (np.abs(got) <= 1.0).all()
    np.testing.assert_array_equal(got, -_tanh(-x))


def _tanh(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    out = values.copy()
    activate(out, TANH)
    return out


def test_relu_in_place_is_the_positive_part() -> None:
    values = np.array([-2.0, -0.0, 0.0, 3.0], dtype=np.float32)
    activate(values, RELU)
    assert values.tolist() == [0.0, 0.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("logits", "mask", "expected"),
    [
        ([1.0, 3.0, 2.0], [1, 1, 1], 1),
        ([1.0, 3.0, 2.0], [1, 0, 1], 2),
        ([1.0, 3.0, 2.0], [1, 0, 0], 0),
        ([2.0, 2.0, 2.0], [1, 1, 1], 0),
        ([2.0, 2.0, 2.0], [0, 1, 1], 1),
        ([-1e30, -1e30, 5.0], [0, 1, 0], 1),
        ([5.0, -np.inf, -np.inf], [0, 0, 1], 2),
    ],
)
def test_best_allowed_of_ties_and_masks(
    logits: list[float], mask: list[int], expected: int
) -> None:
    assert best_allowed(np.array(logits, np.float32), np.array(mask, np.bool_)) == expected


@given(
    st.lists(
        st.tuples(st.floats(-80, 80, width=32), st.booleans()), min_size=1, max_size=12
    ).filter(lambda rows: any(allowed for _, allowed in rows))
)
def test_best_allowed_is_the_first_largest_allowed_logit(rows: list[tuple[float, bool]]) -> None:
    logits = np.array([logit for logit, _ in rows], np.float32)
    mask = np.array([allowed for _, allowed in rows], np.bool_)
    assert best_allowed(logits, mask) == int(np.argmax(np.where(mask, logits, -np.inf)))


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_only_allowed_action_is_the_best_whatever_the_logits(mask: list[bool]) -> None:
    allowed = np.array(mask)
    logits = np.random.default_rng(len(mask)).standard_normal(len(mask)).astype(np.float32)
    if sum(mask) == 1:
        assert only_allowed(allowed) == best_allowed(logits, allowed) == mask.index(True)
    else:
        assert only_allowed(allowed) == -1
