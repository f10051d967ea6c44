"""What goes wrong in a sweep: dead workers, dead sweeps, Ctrl-C, several sweeps at once."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.sweeps.toy import start, study, sweep, trials

X = "x=interval(0,1)"
GRID = "hydra.sweeper.sampler.name=grid"


def _wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_trials_that_fail_in_every_way_keep_their_reason_and_the_sweep_goes_on(
    tmp_path: Path,
) -> None:
    modes = "mode=kill,raise,exit,nothing,text,pruned,value"
    sweep(tmp_path, modes, GRID, "hydra.sweeper.n_trials=7", "hydra.sweeper.max_failure_rate=1")
    ended = {one.params["mode"]: one for one in study(tmp_path).trials}
    reasons = {mode: one.user_attrs.get("fail_reason") for mode, one in ended.items()}
    assert reasons == {
        "kill": "the process was killed by SIGKILL",
        "raise": "ValueError: no luck",
        "exit": "the job ended itself with sys.exit(3)",
        "nothing": "the value is nan",
        "text": "the job returned 'seven'",
        "pruned": None,
        "value": None,
    }
    states = Counter(one.state.name for one in ended.values())
    assert states == {"FAIL": 5, "PRUNED": 1, "COMPLETE": 1}


@pytest.mark.parametrize(
    ("number", "send"),
    [
        (signal.SIGKILL, os.kill),
        (signal.SIGINT, os.kill),
        (signal.SIGINT, os.killpg),
        (signal.SIGTERM, os.killpg),
    ],
    ids=["killed", "interrupted", "interrupted by the terminal", "ended by its group"],
)
def test_sweep_that_is_ended_leaves_nothing_running_and_can_be_gone_on_with(
    tmp_path: Path, number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    running = start(tmp_path, X, "mode=sleep")
    _wait_for(lambda: len(list(tmp_path.glob("asleep_*"))) == 2)
    family = psutil.Process(running.pid).children(recursive=True)
    assert len(family) >= 3  # the fork server, two jobs
    send(running.pid, number)
    output, _ = running.communicate(timeout=60)
    psutil.wait_procs(family, timeout=30)
    assert not [one for one in family if one.is_running()]
    first = trials(tmp_path)
    states = [state for state, *_ in first]
    assert states == ["RUNNING" if number is signal.SIGKILL else "FAIL"] * 2
    if number is not signal.SIGKILL:
        assert "running trials are ending" in output
        reasons = {one.user_attrs["fail_reason"] for one in study(tmp_path).trials}
        assert reasons == {"interrupted"}
    sweep(tmp_path, X)
    ended = trials(tmp_path)
    assert Counter(state for state, *_ in ended) == {"COMPLETE": 4, "FAIL": 2}
    # What was lost is tried again: nothing is skipped, nothing counted twice.
    assert [params for *_, params in ended[2:4]] == [params for *_, params in first]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_sweeps_started_together_share_a_new_study_exactly(tmp_path: Path, kind: str) -> None:
    uri = None if kind == "journal" else f"sqlite:///{tmp_path}/all.db"
    arguments = [X, "hydra.sweeper.n_trials=8", "mode=session", "hydra.launcher.n_jobs=2"]
    if uri is not None:
        arguments.append(f"hydra.sweeper.storage='{uri}'")
    other = start(tmp_path, *arguments)
    sweep(tmp_path, *arguments)
    output, _ = other.communicate(timeout=60)
    assert other.returncode == 0, output
    ended = trials(tmp_path, uri=uri)
    assert len(ended) == 8
    assert {state for state, *_ in ended} <= {"COMPLETE", "PRUNED"}
    assert len({params["x"] for *_, params in ended}) == 8
