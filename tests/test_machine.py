import os

import pytest

import ppo_workbench
from ppo_workbench.cli import main as cli
from ppo_workbench.config import ConfigError, machine


def test_usable_cores_counts_those_that_the_process_is_bound_to() -> None:
    everywhere = os.sched_getaffinity(0)
    one = {min(everywhere)}
    try:
        os.sched_setaffinity(0, one)
        assert machine.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, everywhere)


def test_usable_cores_where_processes_are_not_bound_counts_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.usable_cores() == 6


def test_system_without_posix_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "POSIX", False)
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert cli.command(["budget.minutes=-1"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("error: Windows: ")
    assert sentence.endswith("WSL 2")
    with pytest.raises(ConfigError, match="WSL 2"):
        _ = ppo_workbench.backtest
