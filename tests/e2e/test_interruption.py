"""Ctrl-C, a late Ctrl-C and a tracking store that dies: the model is kept."""

import os
import re
import select
import signal
import subprocess
import threading
import time

import mlflow
import pytest
from tests.e2e.workbench import TINY, Workbench, process

from ppo_workbench.learning.training import train_model
from ppo_workbench.pipeline.train import fitting, scores
from ppo_workbench.scoring.reference.yardsticks import tuned_threshold


def _read_until(run: "subprocess.Popen[str]", words: str, seconds: float) -> str:
    """Return what the process has printed once `words`, a pattern, are in it."""
    assert run.stdout is not None
    text, limit = "", time.monotonic() + seconds
    while not re.search(words, text) and time.monotonic() < limit:
        if select.select([run.stdout], [], [], 1.0)[0]:
            part = os.read(run.stdout.fileno(), 65_536).decode()
            if not part:
                break
            text += part
    assert re.search(words, text), text
    return text


def test_ctrl_c_keeps_the_model_records_the_run_as_killed_and_exits_130(
    recording: Workbench,
) -> None:
    home = recording.home
    arguments = [*TINY, "budget.minutes=20", "output=stopped", "tracking.plots=false"]
    options = process(arguments, home)
    with subprocess.Popen(**options, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            _read_until(run, r" steps, [\d,]+/s", 240)
            run.send_signal(signal.SIGINT)
            out, err = run.communicate(timeout=240)
        finally:
            run.kill()

    assert run.returncode == 130, out + err
    assert "Ctrl-C: after this rollout the model so far is scored and written" in out
    assert "interrupted, the model so far is kept" in out
    assert "\n  python -m ppo_workbench resume=stopped  # train on" in out
    assert err.startswith("ppo_workbench: loading torch and stable-baselines3 ...\n")
    assert "Traceback" not in err
    assert (home / "trained_models" / "stopped.pth").is_file()
    metadata = recording.metadata("stopped")
    assert metadata["training"]["timesteps"] > 0
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    record = client.get_run(metadata["mlflow_run_id"])
    assert record.info.status == "KILLED"
    assert record.data.tags["interrupted"] == "true"
    assert "final_validation/sharpe_annual" in record.data.metrics
    assert recording.run("task=evaluate", "artifact=stopped").code == 0


def test_ctrl_c_during_the_final_scoring_keeps_the_model(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(experiment):  # type: ignore[no-untyped-def]
        os.kill(os.getpid(), signal.SIGINT)
        return tuned_threshold(experiment)

    monkeypatch.setattr(scores, "tuned_threshold", interrupted)

    result = workbench.train("tracking.enabled=false", "output=late")

    assert result.code == 0, result.err
    assert (workbench.home / "trained_models" / "late.pth").is_file()


def test_tracking_store_that_dies_midway_costs_one_warning_and_no_model(
    recording: Workbench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments, **named):  # type: ignore[no-untyped-def]
        for thread in threading.enumerate():
            if thread.name == "open record":
                thread.join()
        (recording.home / "mlruns" / "mlflow.db").write_bytes(b"no database any more" * 1000)
        return train_model(*arguments, **named)

    monkeypatch.setattr(fitting, "train_model", broken)

    result = recording.train("output=survivor", "tracking.plots=false")

    assert result.code == 0, result.err
    assert recording.metadata("survivor")["status"] == "candidate"
    warnings = [r for r in caplog.records if "tracking failed and work goes on" in r.message]
    assert len(warnings) == 1
    (spool,) = (recording.home / "mlruns" / "spool").iterdir()
    assert "final_validation/sharpe_annual" in spool.read_text(encoding="utf-8")
