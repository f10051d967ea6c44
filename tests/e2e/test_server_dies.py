"""A real tracking server is killed during a training, a sweep and a comparison, and comes back."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.workbench import TINY

CANARY = "C4n4ry-pass%40word"
SMALL = [*TINY, "data.synthetic.sessions=70"]
COMPARED = [
    *("task=compare", "compare.seeds=[0,1]", "compare.stress=false"),
    *("budget.timesteps=512", "budget.evaluations=2", "output=both"),
]
SWEPT = [
    *("--multirun", "sweep=smoke", "hydra.sweeper.study_name=swept", "hydra.sweeper.n_trials=4"),
    *("budget.timesteps=512", "budget.evaluations=2", "hydra.launcher.n_jobs=1"),
]
# Long enough for its record to be open when the server is killed.
TRAINED = ["budget.timesteps=1000000", "budget.evaluations=40", "output=model"]


class _Server:
    """`mlflow server` with a store that outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://user:{CANARY}@127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
        ]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            command, start_new_session=True, env=environment, stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.5)
        raise AssertionError("the server did not come up")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def runs(self) -> list[Any]:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{self.folder / 'server.db'}")
        names = [found.experiment_id for found in client.search_experiments()]
        return list(client.search_runs(names, max_results=1000))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    server = _Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


def _command(home: Path, server: _Server, arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PPO_WORKBENCH_HOME": str(home),
        "MLFLOW_TRACKING_URI": server.uri,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "ppo_workbench", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _killed_after(
    home: Path, server: _Server, arguments: list[str], pattern: str, count: int
) -> str:
    """Run a command; kill the server when `pattern` has been printed `count` times."""
    said, seen, before = [], 0, len(server.runs())
    with _command(home, server, arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            seen += bool(re.search(pattern, line))
            if seen >= count and server.process is not None and len(server.runs()) > before:
                server.kill()  # not before the record is open: then a run is refused
        assert process.wait() == 0, "".join(said)
    assert seen >= count, "".join(said)
    return "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 2, 3])
@pytest.mark.parametrize(
    ("arguments", "pattern", "every", "kept", "children"),
    [
        (TRAINED, r"validation Sharpe", 10, "trained_models/model.pth", "none/*"),
        (SWEPT, r"^trial \d+ complete", 1, "sweeps/swept/analysis.html", "sweeps/swept/[0-9]*"),
        (COMPARED, r"^\d+/\d+ ", 2, "comparisons/both/comparison.json", "comparisons/both/cells/*"),
    ],
    ids=["training", "sweep", "comparison"],
)
def test_record_is_whole_after_the_next_start(
    server: _Server, tmp_path: Path, arguments: list[str], pattern: str, every: int, kept: str,
    children: str, moment: int,
) -> None:  # fmt: skip
    server.start()
    known = {run.info.run_id for run in server.runs()}
    said = _killed_after(tmp_path, server, [*arguments, *SMALL], pattern, every * moment)
    assert "incomplete" in said
    assert (tmp_path / kept).is_file()
    server.start()
    with _command(tmp_path, server, ["task=deliver_records"]) as delivery:
        assert delivery.wait() == 0
    server.kill()
    found = [run for run in server.runs() if run.info.run_id not in known]
    assert len(found) == 1 + len(list(tmp_path.glob(children)))
    assert {run.info.status for run in found} == {"FINISHED"}
    assert not list((tmp_path / "mlruns" / "spool").glob("*"))
    secret = CANARY.encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if secret in path.read_bytes()]
    assert CANARY not in said
