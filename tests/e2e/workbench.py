"""The command line as the tests run it: in this process, in a home of its own, tiny."""

import ctypes
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ppo_workbench.cli.main import command

SOURCE = Path(__file__).parents[2] / "src"
SMALL_MODEL = ["model.n_envs=4", "model.n_steps=32", "model.batch_size=64", "model.n_epochs=2"]
TINY = [
    "data.synthetic.sessions=16",
    "env.episode_bars=390",
    "features.names=[ema_distance_10,return_1,session_time]",
    "features.volatility_slow_bars=195",
    *SMALL_MODEL,
]
BUDGET = ["budget.timesteps=256", "budget.evaluations=1"]
# Leaves the start, which holds nine times of ten, within a budget as small as this.
TRADING = ["model.ent_coef=10", "model.learning_rate=0.03"]


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str


class Workbench:
    """Runs commands under one home folder and reads what they wrote."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str] | None = None) -> None:
        self.home = home
        self._capture = capture

    def run(self, *arguments: str) -> Result:
        """Run one command line with this home."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PPO_WORKBENCH_HOME", str(self.home))
            if self._capture is None:
                return Result(command(arguments), "", "")
            self._capture.readouterr()
            code = command(arguments)
        out, err = self._capture.readouterr()
        return Result(code, out, err)

    def train(self, *arguments: str) -> Result:
        """Train with the tiny market, model and budget."""
        return self.run(*TINY, *BUDGET, *arguments)

    def metadata(self, name: str, folder: str = "trained_models") -> dict[str, Any]:
        """Read a model's metadata."""
        path = self.home / folder / f"{name}-metadata.json"
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    def files(self) -> set[str]:
        """List every file under the home folder."""
        return {str(p.relative_to(self.home)) for p in self.home.rglob("*") if p.is_file()}


def process(arguments: Sequence[str], home: Path) -> dict[str, Any]:
    """Return the `subprocess` arguments of the command line as a process of its own."""
    return {
        "args": [sys.executable, "-m", "ppo_workbench", *arguments],
        "env": {**os.environ, "PYTHONPATH": str(SOURCE), "PPO_WORKBENCH_HOME": str(home)},
        "cwd": home,
        "text": True,
    }


@contextmanager
def without_override() -> Iterator[None]:
    """Let permissions of files bind this thread even where it is root's (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    assert libc.capget(header, data) == 0
    before = data[0]
    data[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, data) == 0
    try:
        yield
    finally:
        data[0] = before
        assert libc.capset(header, data) == 0
