"""Export a model's network for applications without this package: ONNX and TorchScript.

Both files hold one function, `forward(observation, mask) -> logits`: observation float32
[1, n], scaled as the metadata say; mask bool [A], True = allowed; logits float32 [1, A] in the
order of `action_names`, those of forbidden actions -1e8 as in sb3-contrib (standard PPO: the
mask is ignored).  The decision is the largest logit.  Features, rules and scaling are not in
the files.

Before a file gets its name a fresh process, which has onnxruntime or torch and none of this
package, repeats the golden vectors with it.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ppo_workbench.config import ArtifactError
from ppo_workbench.delivery.artifact import Artifact, artifact_paths, verify
from ppo_workbench.delivery.golden import (
    Golden,
    check_decisions,
    find_golden,
    stored_weights,
    uses_mask,
)
from ppo_workbench.delivery.network import PolicyWeights

FORBIDDEN_LOGIT = -1e8
OPSET = 18
ONNX_SUFFIX, TORCHSCRIPT_SUFFIX = ".onnx", ".torchscript.pt"
_REPLAY_SECONDS = 300

_REPLAY_ONNX = """
import sys, numpy, onnxruntime
onnxruntime.set_default_logger_severity(3)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
forward = lambda x, mask: session.run(["logits"], {"observation": x, "mask": mask})[0]
"""
_REPLAY_TORCHSCRIPT = """
import sys, numpy, torch
module = torch.jit.load(sys.argv[1])
forward = lambda x, mask: module(torch.from_numpy(x), torch.from_numpy(mask)).numpy()
"""
_REPLAY_ROWS = """
golden = numpy.load(sys.argv[2])
rows = [forward(x[None], m) for x, m in zip(golden["observation"], golden["mask"])]
assert all(row.shape == (1, golden["mask"].shape[1]) for row in rows), rows[0].shape
numpy.save(sys.argv[3], numpy.concatenate(rows))
"""


@dataclass(frozen=True)
class Exports:
    """The two files of one model."""

    onnx: Path
    torchscript: Path


class PolicyModule(torch.nn.Module):
    """The actor as torch layers, with the mask applied."""

    forbidden: torch.Tensor

    def __init__(self, weights: PolicyWeights, masked: bool) -> None:
        """Copy the weights; `masked` false ignores the mask."""
        super().__init__()
        self.net = weights.module()
        self.masked = masked
        self.register_buffer("forbidden", torch.tensor(FORBIDDEN_LOGIT))

    def forward(self, observation: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return logits float32 [1, A] of an observation float32 [1, n] and a mask bool [A]."""
        logits: torch.Tensor = self.net(observation)
        return torch.where(mask, logits, self.forbidden) if self.masked else logits


def export_model(artifact: Artifact, folder: Path) -> Exports:
    """Write both files beside the model, each verified, replacing earlier exports.

    Args:
        artifact: A loaded model.
        folder: Its folder.

    Raises:
        ArtifactError: As `verify`; a package of the extra `export` is missing; an exported file
            decides otherwise, or the folder cannot be written.  What failed is not written.
    """
    stem = artifact_paths(folder, artifact.metadata.name).pth.with_suffix("")
    return Exports(
        export_onnx(artifact, stem.with_name(stem.name + ONNX_SUFFIX)),
        export_torchscript(artifact, stem.with_name(stem.name + TORCHSCRIPT_SUFFIX)),
    )


def export_onnx(artifact: Artifact, path: Path) -> Path:
    """Write the ONNX file `path`; inputs `observation` and `mask`, output `logits`.

    Raises:
        ArtifactError: See `export_model`.
    """
    for package in ("onnx", "onnxruntime", "onnxscript"):
        if find_spec(package) is None:
            raise ArtifactError(
                f"{path.name}: the package {package} is not installed; install "
                "ppo-workbench[export]"
            )

    def write(temporary: Path) -> None:
        import onnx

        module, inputs = _module(artifact), _example(artifact)
        with _quiet():
            program = torch.onnx.export(
                module,
                inputs,
                input_names=["observation", "mask"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        for node in model.graph.node:  # they name source files of the machine that exported
            del node.metadata_props[:]
        onnx.helper.set_model_props(model, _labels(artifact))
        onnx.checker.check_model(model)
        temporary.write_bytes(model.SerializeToString())

    return _export(artifact, path, write, _REPLAY_ONNX)


def export_torchscript(artifact: Artifact, path: Path) -> Path:
    """Write the TorchScript file `path`, for consumers in C++ (`torch::jit::load`).

    Raises:
        ArtifactError: See `export_model`.
    """

    def write(temporary: Path) -> None:
        with _quiet():
            trace: Callable[..., torch.jit.ScriptModule] = torch.jit.trace
            traced = trace(_module(artifact), _example(artifact))
            traced.save(str(temporary), _extra_files=_labels(artifact))
        _remove_source_names(temporary)

    return _export(artifact, path, write, _REPLAY_TORCHSCRIPT)


def _export(artifact: Artifact, path: Path, write: Callable[[Path], None], replay: str) -> Path:
    """Write under another name, verify in a fresh process, rename."""
    verify(artifact)
    golden = find_golden(artifact.tensors)
    assert golden is not None
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
            temporary = Path(scratch) / path.name
            write(temporary)
            logits = _replayed(temporary, golden, replay)
            check_decisions(artifact.metadata, golden, lambda *_: logits, path.name)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written ({error.strerror}); free space or mend the folder"
        ) from error
    return path


def _remove_source_names(path: Path) -> None:
    """Drop what names source files of the machine that exported; torch runs without it."""
    reader = torch._C.PyTorchFileReader(str(path))
    records = {name: reader.get_record(name) for name in reader.get_all_records()}
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, content in records.items():
        # The writer makes the last three anew.
        if not name.endswith(".debug_pkl") and not name.startswith(
            ("traced_inputs", "version", "byteorder", ".data/")
        ):
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()


def _replayed(path: Path, golden: Golden, replay: str) -> np.ndarray[tuple[int, int], np.dtype]:
    """Return the logits (R, A) that a process without this package makes of the file."""
    given, made = path.with_name("golden.npz"), path.with_name("logits.npy")
    np.savez(given, observation=golden.observation, mask=golden.mask)
    # -I: neither PYTHONPATH nor the present folder can put this package on its path.
    command = [sys.executable, "-I", "-W", "ignore", "-c", replay + _REPLAY_ROWS]
    done = subprocess.run(
        [*command, str(path), str(given), str(made)],
        capture_output=True,
        text=True,
        timeout=_REPLAY_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ArtifactError(f"{path.name} does not run in a fresh process ({last}); report this")
    logits: np.ndarray[tuple[int, int], np.dtype] = np.load(made)
    return logits


def _module(artifact: Artifact) -> PolicyModule:
    metadata = artifact.metadata
    weights = stored_weights(metadata, artifact.tensors)
    return PolicyModule(weights, uses_mask(metadata.model_type)).eval().requires_grad_(False)


def _example(artifact: Artifact) -> tuple[torch.Tensor, torch.Tensor]:
    metadata = artifact.metadata
    observed, actions = len(metadata.feature_names), len(metadata.action_names)
    return torch.zeros(1, observed), torch.ones(actions, dtype=torch.bool)


def _labels(artifact: Artifact) -> dict[str, str]:
    """Say in the file which model it is of, and the order of what goes in and out."""
    metadata = artifact.metadata
    return {
        "name": metadata.name,
        "pth_sha256": metadata.pth_sha256,
        "action_names": json.dumps(metadata.action_names),
        "feature_names": json.dumps(metadata.feature_names),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch 2.13 says of itself: deprecations, and that torchvision is missing."""
    logger = logging.getLogger("torch.onnx._internal.exporter")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
