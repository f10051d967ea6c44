"""Checkpoints: everything that a training run is, in one file, so that it can be killed.

A file is one line of JSON (format, version, SHA-256 of the rest, MLflow run) and then
tensors only, loaded with `weights_only=True`; numbers and texts travel as JSON in a byte
tensor.  It appears whole or not at all, and is written between two rollouts, so a run
that is resumed from it goes on bit for bit.
"""

import base64
import hashlib
import io
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch

from ppo_workbench.config import ArtifactError, Raw
from ppo_workbench.config.files import write_whole
from ppo_workbench.learning.budget import BudgetState
from ppo_workbench.learning.models import Algorithm
from ppo_workbench.learning.native.algorithms import NativeMaskablePPO, NativePPO, NativeState
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.trading.account import ACCOUNT_DTYPE

FORMAT = "ppo_workbench checkpoint"
VERSION = 1
SUFFIX = ".ckpt"
MAX_HEADER_BYTES = 1_000_000
_DOCUMENT = "document"


class CheckpointError(ArtifactError):
    """A checkpoint is missing, damaged, foreign or does not fit."""


class Owner(TypedDict):
    """Which run a checkpoint is of."""

    name: str
    run_id: str | None
    fingerprint: str
    plugins: dict[str, str]
    config: Raw
    choices: Mapping[str, str]


class Header(Owner):
    """The first line of a checkpoint."""

    format: str
    version: int
    sha256: str


class RunState(TypedDict, total=False):
    """What a checkpoint holds as JSON, `numpy_rng` with its key in base64."""

    num_timesteps: int
    n_updates: int
    episodes: int
    episode_infos: list[dict[str, float]]
    episode_starts: list[int]
    progress_remaining: float
    numpy_rng: Mapping[str, object]
    native: NativeState
    budget: BudgetState
    evaluations_due: int
    evaluations: list[tuple[int, float, dict[str, float]]]
    stopped: bool
    best: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: tensors, and everything else as JSON values."""

    tensors: dict[str, torch.Tensor]
    document: RunState


def write_checkpoint(path: Path, checkpoint: Checkpoint, owner: Owner) -> None:
    """Write `path` atomically and durably.

    Args:
        path: Replaced if it exists.
        checkpoint: The state of a run.
        owner: What can be read without the tensors.

    Raises:
        OSError: The disk is full or the folder cannot be written; an older checkpoint stays.
    """
    text = json.dumps(checkpoint.document, allow_nan=True).encode()
    payload = io.BytesIO()
    document = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    torch.save({**checkpoint.tensors, _DOCUMENT: document}, payload)
    body = payload.getvalue()
    digest = hashlib.sha256(body).hexdigest()
    line = {"format": FORMAT, "version": VERSION, "sha256": digest, **owner}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(line).encode() + b"\n" + body)


def read_header(path: Path) -> Header:
    """Return the first line of a checkpoint.

    Raises:
        CheckpointError: It is missing or no checkpoint of this version.
    """
    try:
        with path.open("rb") as file:
            header: Any = json.loads(file.readline(MAX_HEADER_BYTES))
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise _refused(path, "is not a checkpoint") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _refused(path, "is not a checkpoint")
    if header.get("version") != VERSION:
        raise _refused(path, f"has version {header.get('version')!r}, this program reads {VERSION}")
    return cast(Header, header)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: It is missing, damaged or foreign.
    """
    header = read_header(path)
    with path.open("rb") as file:
        file.readline()
        body = file.read()
    if hashlib.sha256(body).hexdigest() != header.get("sha256"):
        raise _refused(path, "is damaged: its hash does not agree")
    tensors = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    document = json.loads(bytes(tensors.pop(_DOCUMENT).numpy()))
    return Checkpoint(tensors, document)


def find_checkpoint(folder: Path, resume: str) -> Path:
    """Return the checkpoint that `resume` names: a path, a run's output name or its MLflow run.

    Raises:
        CheckpointError: There is none.
    """
    if Path(resume).suffix == SUFFIX:
        return Path(resume)
    if "/" not in resume and (folder / f"{resume}{SUFFIX}").is_file():
        return folder / f"{resume}{SUFFIX}"
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if read_header(path).get("run_id") == resume:
            return path
    names = ", ".join(path.stem for path in sorted(folder.glob(f"*{SUFFIX}"))) or "none"
    raise CheckpointError(f"resume={resume}: no such checkpoint in {folder}; there are: {names}")


def _refused(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"resume={path}: {reason}; name a checkpoint of this workbench")


def capture_model(model: Algorithm, env: TradingVecEnv) -> Checkpoint:
    """Copy the state of algorithm, optimizer, generators and environments."""
    tensors = {f"policy.{k}": v.clone() for k, v in model.policy.state_dict().items()}
    for k, state in enumerate(model.policy.optimizer.state.values()):
        tensors |= {f"optimizer.{k}.{name}": value.clone() for name, value in state.items()}
    tensors["accounts"] = torch.frombuffer(
        bytearray(env.batch.accounts.tobytes()), dtype=torch.uint8
    )
    tensors["torch_rng"] = torch.get_rng_state()
    numpy_state = np.random.get_state(legacy=False)
    document: RunState = {
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "episodes": env.statistics.episodes,
        "episode_infos": [dict(info) for info in model.ep_info_buffer or ()],
        "episode_starts": [int(x) for x in np.asarray(model._last_episode_starts)],
        "progress_remaining": model._current_progress_remaining,
        "numpy_rng": _plain_rng(numpy_state),
    }
    if isinstance(model, NativeMaskablePPO | NativePPO):
        document["native"] = model.native_state()
    return Checkpoint(tensors, document)


def restore_model(model: Algorithm, env: TradingVecEnv, checkpoint: Checkpoint) -> None:
    """Put a state from `capture_model` back into a model and environments just built.

    Raises:
        CheckpointError: Networks or environments have other shapes.
    """
    tensors, document = checkpoint.tensors, checkpoint.document
    accounts = np.frombuffer(tensors["accounts"].numpy().tobytes(), dtype=ACCOUNT_DTYPE)
    if len(accounts) != len(env.batch):
        raise CheckpointError(
            f"resume: the checkpoint has {len(accounts)} environments, the configuration "
            f"{len(env.batch)}; resume with the configuration that it was made with"
        )
    env.batch.accounts[:] = accounts
    env.batch.refresh()
    env.statistics.episodes = document["episodes"]
    _load_policy(model, tensors)
    model.num_timesteps = document["num_timesteps"]
    model._n_updates = document["n_updates"]
    model._current_progress_remaining = document["progress_remaining"]
    model._last_obs = env.batch.observations.copy()
    model._last_episode_starts = np.array(document["episode_starts"], dtype=bool)
    model.ep_info_buffer = deque(document["episode_infos"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)
    torch.set_rng_state(tensors["torch_rng"])
    np.random.set_state(_rng_from_plain(document["numpy_rng"]))
    if isinstance(model, NativeMaskablePPO | NativePPO):
        model.restore_native(document["native"])


def _load_policy(model: Algorithm, tensors: Mapping[str, torch.Tensor]) -> None:
    prefix = "policy."
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        model.policy.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise CheckpointError(f"resume: the network does not fit ({first})") from None
    for k, parameter in enumerate(model.policy.parameters()):
        names = ("step", "exp_avg", "exp_avg_sq")
        found = {n: tensors[f"optimizer.{k}.{n}"] for n in names if f"optimizer.{k}.{n}" in tensors}
        if found:
            model.policy.optimizer.state[parameter] = {n: v.clone() for n, v in found.items()}


def _plain_rng(state: Any) -> dict[str, object]:
    """Turn a numpy generator's state into JSON values."""
    inner = {
        key: base64.b64encode(value.tobytes()).decode() if isinstance(value, np.ndarray) else value
        for key, value in state["state"].items()
    }
    return {**state, "state": inner}


def _rng_from_plain(state: Any) -> dict[str, object]:
    key = np.frombuffer(base64.b64decode(state["state"]["key"]), dtype=np.uint32)
    return {**state, "state": {**state["state"], "key": key}}
