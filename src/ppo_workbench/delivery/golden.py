"""Golden vectors: 64 decisions that are stored with a model and must come out again.

Two things are replayed.  The network needs no bars: stored observation and mask in, logits
and action out, here in plain numpy float64.  The step needs its kernels: stored bars in,
observation and mask out (`golden_bars.py`).  Masks and actions must agree exactly,
observations and logits within 1e-5, absolute and relative: other processors round
differently, and no stored decision hangs on less than a margin of 1e-4.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum

import numpy as np
import torch

from ppo_workbench.config import Activation, ArtifactError, ModelType
from ppo_workbench.config.arrays import Bools, Floats, Ints, Singles
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.delivery.network import PolicyWeights, policy_weights

PREFIX = "golden."
POLICY_PREFIX = "policy."
SCALER_MEANS, SCALER_STDS = "scaler.means", "scaler.stds"
ROWS = 64
MARGIN = 1e-4
_TOLERANCE = 1e-5


class Level(Enum):
    """How much of the golden vectors is replayed."""

    network = "network"
    step = "step"


@dataclass(frozen=True)
class Golden:
    """Stored decisions, and the bars that lead to them.

    T bars are walked through from cash with the actions of `path`; `rows` are the R of them
    whose observation, mask and decision are stored.

    Attributes:
        observation: float32 (R, n), scaled.
        mask: bool (R, A), True = allowed.
        logits: float32 (R, A), of all actions, allowed or not.
        action: int64 (R,), the decision.
        rows: int64 (R,), rising, below T.
        path: int64 (T,), action that is carried out at each bar, not the model's.
        state: float64 (S,), memory of the features before the first bar, warmed up.
        bars: float64 (T, 7 + E), as `market.features.bar_values` gives them.
        start_ns: int64 (T,), UTC nanoseconds.
        bars_left: int64 (T,), bars to come in the session.
    """

    observation: Singles
    mask: Bools
    logits: Singles
    action: Ints
    rows: Ints
    path: Ints
    state: Floats
    bars: Floats
    start_ns: Ints
    bars_left: Ints

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays under the names that an artefact has for them."""
        return {PREFIX + f.name: torch.from_numpy(getattr(self, f.name)) for f in fields(self)}


def find_golden(tensors: Mapping[str, torch.Tensor]) -> Golden | None:
    """Return the golden vectors among an artefact's tensors; None where there is no whole set."""
    names = [f.name for f in fields(Golden)]
    if any(PREFIX + name not in tensors for name in names):
        return None
    return Golden(**{name: tensors[PREFIX + name].numpy() for name in names})


def uses_mask(model_type: ModelType) -> bool:
    """MaskablePPO chooses among allowed actions; standard PPO sends whatever it likes best."""
    return model_type is ModelType.maskable_ppo


def stored_weights(metadata: Metadata, tensors: Mapping[str, torch.Tensor]) -> PolicyWeights:
    """Return the actor of a stored model."""
    activation = Activation(metadata.architecture.activation)
    return policy_weights(tensors, activation, POLICY_PREFIX)


def decisive(logits: Singles, mask: Bools) -> bool:
    """Tell whether the best of the allowed logits (A,) leads by more than `MARGIN`."""
    best = np.sort(logits[mask].astype(np.float64))[-2:]
    return len(best) == 1 or bool(best[1] - best[0] > MARGIN)


def replay_network(metadata: Metadata, tensors: Mapping[str, torch.Tensor], golden: Golden) -> None:
    """Decide again from the stored observations and masks, in plain numpy; 1 ms.

    Raises:
        ArtifactError: Logits or actions come out otherwise, or the arrays do not fit.
    """
    _check_shapes(metadata, golden)
    weights = stored_weights(metadata, tensors)
    check_decisions(metadata, golden, lambda seen, _: weights.logits(seen), "the network")


def check_decisions(
    metadata: Metadata,
    golden: Golden,
    forward: Callable[[Singles, Bools], Floats],
    what: str,
) -> None:
    """Compare what `forward` makes of the stored observations with the stored decisions.

    Args:
        metadata: The model's.
        golden: Its golden vectors.
        forward: Takes observations (R, n) and masks (R, A) and returns logits (R, A), of
            allowed actions at least.
        what: What replays, for the message.

    Raises:
        ArtifactError: Logits differ by more than `_TOLERANCE`, or an action differs.
    """
    masked = uses_mask(metadata.model_type)
    logits = np.asarray(forward(golden.observation, golden.mask), dtype=np.float64)
    compared = golden.mask if masked else np.ones_like(golden.mask)
    close = np.isclose(logits, golden.logits, rtol=_TOLERANCE, atol=_TOLERANCE)
    action = np.where(compared, logits, -np.inf).argmax(axis=1)
    wrong = np.flatnonzero((compared & ~close).any(axis=1) | (action != golden.action))
    if wrong.size:
        row = int(wrong[0])
        raise _differs(
            metadata,
            f"{what} makes logits {np.round(logits[row], 6).tolist()} of golden vector {row}, "
            f"stored are {np.round(golden.logits[row].astype(float), 6).tolist()}",
        )


def check_step(
    metadata: Metadata,
    golden: Golden,
    observation: Singles,
    mask: Bools,
) -> None:
    """Compare observations (R, n) and masks (R, A) made from the stored bars with the stored.

    Raises:
        ArtifactError: A mask differs, or an observation by more than `_TOLERANCE`.
    """
    wrong = np.flatnonzero((mask != golden.mask).any(axis=1))
    if wrong.size:
        row = int(wrong[0])
        raise _differs(
            metadata,
            f"its rules make the mask {mask[row].tolist()} of golden vector {row}, stored is "
            f"{golden.mask[row].tolist()}",
        )
    close = np.isclose(observation, golden.observation, rtol=_TOLERANCE, atol=_TOLERANCE)
    if not close.all():
        row, k = (int(x) for x in np.argwhere(~close)[0])
        raise _differs(
            metadata,
            f"feature {metadata.feature_names[k]!r} of golden vector {row} comes out as "
            f"{observation[row, k]:g}, stored is {golden.observation[row, k]:g}",
        )


def _check_shapes(metadata: Metadata, golden: Golden) -> None:
    rows, actions = len(golden.rows), len(metadata.action_names)
    bars = len(golden.bars)
    expected = {
        "observation": (golden.observation, (rows, len(metadata.feature_names))),
        "mask": (golden.mask, (rows, actions)),
        "logits": (golden.logits, (rows, actions)),
        "action": (golden.action, (rows,)),
        "path": (golden.path, (bars,)),
        "start_ns": (golden.start_ns, (bars,)),
        "bars_left": (golden.bars_left, (bars,)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise _differs(metadata, f"{PREFIX}{name} has shape {array.shape} instead of {shape}")
    if golden.mask.dtype != np.bool_ or not golden.mask.any(axis=1).all():
        raise _differs(metadata, f"{PREFIX}mask forbids every action somewhere")
    if rows == 0 or golden.rows.min() < 0 or golden.rows.max() >= bars:
        raise _differs(metadata, f"{PREFIX}rows do not lie among its {bars} bars")


def _differs(metadata: Metadata, reason: str) -> ArtifactError:
    return ArtifactError(
        f"model {metadata.name!r} does not decide here as where it was saved: {reason}; use the "
        "version of ppo_workbench that wrote it or train it anew"
    )
