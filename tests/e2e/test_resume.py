"""A training that is killed goes on from its checkpoint as if nothing had happened."""

import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e.workbench import TINY, Workbench, process

from ppo_workbench.learning.checkpoints import Checkpoint, Owner, write_checkpoint
from ppo_workbench.pipeline.train import fitting

RUN = [
    *TINY,
    "budget.timesteps=2048",
    "budget.evaluations=4",
    "checkpoint.every_seconds=0",
    "tracking.plots=false",
    "output=run",
]


def _weights(home: Path, folder: str = "trained_models") -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(home / folder / "run.pth", weights_only=True)
    return loaded


def _metrics(home: Path) -> list[tuple[Any, ...]]:
    """Every metric of the finished run but the clock's, each row as often as it was recorded."""
    with sqlite3.connect(home / "mlruns" / "mlflow.db") as database:
        ids = database.execute("select run_uuid from runs where status = 'FINISHED'").fetchall()
        assert len(ids) == 1
        rows = database.execute(
            "select key, step, value from metrics where run_uuid = ? and key not like 'time/%'",
            ids[0],
        ).fetchall()
    return sorted(rows)


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_resume_after_sigkill_ends_with_the_same_weights_and_metrics(
    make_home: Callable[[str], Path],
) -> None:
    calm, rough = make_home("calm"), make_home("rough")
    assert Workbench(calm).run(*RUN).code == 0
    checkpoint = rough / "mlruns" / "checkpoints" / "run.ckpt"
    with subprocess.Popen(
        **process([*RUN], rough), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        limit = time.monotonic() + 240
        while not checkpoint.exists() and time.monotonic() < limit and run.poll() is None:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert checkpoint.exists()
    assert not (rough / "trained_models" / "run.pth").exists()

    assert Workbench(rough).run("resume=run").code == 0

    assert _same(_weights(calm), _weights(rough))
    assert _metrics(calm) == _metrics(rough)
    assert not checkpoint.exists()


@pytest.mark.parametrize("learner", ["native", "sb3"])
@pytest.mark.parametrize("model", ["maskable_ppo", "ppo"])
def test_resume_from_any_checkpoint_is_bit_identical(
    learner: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Path] = []

    def write_and_keep(path: Path, checkpoint: Checkpoint, owner: Owner) -> None:
        write_checkpoint(path, checkpoint, owner)
        kept.append(Path(shutil.copy(path, tmp_path / f"{len(kept)}.ckpt")))

    monkeypatch.setattr(fitting, "write_checkpoint", write_and_keep)
    arguments = [*RUN, f"model={model}", f"model.learner={learner}", "tracking=none"]
    folder = "trained_models" if model == "maskable_ppo" else "baselines"
    calm, rough = Workbench(tmp_path / "calm"), Workbench(tmp_path / "rough")
    calm.home.mkdir()
    rough.home.mkdir()
    assert calm.run(*arguments).code == 0
    middle = kept[len(kept) // 2]

    assert rough.run(f"resume={middle}", "tracking=none").code == 0

    assert _same(_weights(calm.home, folder), _weights(rough.home, folder))
    ours, theirs = (bench.metadata("run", folder) for bench in (calm, rough))
    assert ours["scorecards"] == theirs["scorecards"]


def test_resume_after_a_kill_behind_the_saved_model_replaces_only_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Workbench(tmp_path, capsys)
    kept = tmp_path / "kept.ckpt"

    def write_and_keep(path: Path, checkpoint: Checkpoint, owner: Owner) -> None:
        write_checkpoint(path, checkpoint, owner)
        shutil.copy(path, kept)

    monkeypatch.setattr(fitting, "write_checkpoint", write_and_keep)
    assert bench.run(*RUN, "tracking=none").code == 0
    before = _weights(tmp_path)

    again = bench.run(f"resume={kept}", "tracking=none")
    assert again.code == 0, again.err
    assert _same(before, _weights(tmp_path))

    mine = kept.read_bytes()
    assert bench.run(*RUN, "tracking=none", "seed=7", "overwrite=true").code == 0
    kept.write_bytes(mine)
    other = bench.run(f"resume={kept}", "tracking=none")
    assert other.code == 2
    assert "exists" in other.err


@pytest.mark.parametrize("harm", ["changed byte", "other file", "missing", "other setting"])
def test_resume_refuses_what_is_not_its_checkpoint(
    harm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Workbench(tmp_path, capsys)
    path = tmp_path / "some.ckpt"
    extra = []
    if harm == "changed byte":
        path.write_bytes(
            b'{"format": "ppo_workbench checkpoint", "version": 1, "sha256": "0", "config": {}}\n'
            b"not what the hash says"
        )
    elif harm == "other file":
        path.write_bytes(b"\x00\x01 nothing of ours")
    elif harm == "other setting":
        extra = ["model.learning_rate=0.1"]

    result = bench.run(f"resume={path}", *extra)

    assert result.code == 2
    assert "resume" in result.err
    assert "Traceback" not in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_checkpoints_that_cannot_be_written_cost_a_line_and_not_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "checkpoints").write_text("a file in the way")
    bench = Workbench(tmp_path, capsys)

    result = bench.run(*RUN, "tracking=none")

    assert result.code == 0
    assert "checkpoint not written" in result.out
    assert (tmp_path / "trained_models" / "run.pth").is_file()


def test_training_under_the_name_of_a_killed_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "mlruns" / "checkpoints" / "run.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"the state of a run")

    result = Workbench(tmp_path, capsys).run(*RUN, "tracking=none")

    assert result.code == 2
    assert "resume=run" in result.err
    assert checkpoint.read_bytes() == b"the state of a run"


def test_rules_that_leave_nothing_to_trade_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = "risk.liquidity.max_volume_frac=0.000001"

    result = Workbench(tmp_path, capsys).run(*RUN, "tracking=none", limit)

    assert result.code == 0
    assert "no policy could trade" in result.out
    assert "liquidity" in result.out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_diverged_training_leaves_no_checkpoint_and_its_name_is_free(
    workbench: Workbench,
) -> None:
    diverged = workbench.run(*RUN, "reward.log_return=1e308", "tracking=none")
    assert diverged.code == 2
    assert "the training diverged; lower model.learning_rate" in diverged.err
    assert "resume" not in diverged.err

    assert not [path for path in workbench.files() if path.endswith(".ckpt")]
    assert workbench.run(*RUN, "tracking=none").code == 0
