"""The first line of a command: there before anything heavy, gone before anything else."""

import io
import subprocess
import sys

import pytest

from ppo_workbench import __main__ as program
from ppo_workbench import starting
from ppo_workbench.config import Task
from ppo_workbench.pipeline.tasks import TASKS
from ppo_workbench.starting import CLEAR, StartLine


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


def _stderr(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_start_line_imports_nothing_that_takes_time() -> None:
    code = "import sys; from ppo_workbench import __main__; print(*sys.modules, sep='\\n')"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"hydra", "rich", "numpy", "numba", "torch", "mlflow", "ppo_workbench.cli.main"}
    assert heavy.isdisjoint(found.stdout.split())


def test_start_line_on_a_terminal_moves_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _stderr(monkeypatch, TerminalStream())
    with StartLine().begin("starting") as line:
        line.say("reading bars")
        line.end()
        shown = stream.getvalue()
        line.say("more")  # has ended
        line.end()
    assert stream.getvalue() == shown
    assert "ppo_workbench: " in shown
    assert shown.endswith(CLEAR)
    assert "\n" not in shown


def test_start_line_elsewhere_is_one_plain_line_once_there_is_something_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = _stderr(monkeypatch, io.StringIO())
    with StartLine().begin("starting") as line:
        assert stream.getvalue() == ""  # what is refused at once is refused in one line
        line.say("loading torch")
        line.say("reading bars")
    assert stream.getvalue() == "ppo_workbench: loading torch ...\n"


def test_program_draws_the_line_before_it_imports_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = _stderr(monkeypatch, TerminalStream())
    seen = []

    def run() -> None:
        seen.append(starting.START_LINE._thread is not None)
        raise KeyboardInterrupt

    monkeypatch.setattr("ppo_workbench.cli.main.main", run)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert seen == [True]
    assert ended.value.code == 130
    assert stream.getvalue().endswith(f"{CLEAR}interrupted: nothing had begun\n")


def test_every_task_says_what_ctrl_c_leaves() -> None:
    assert {*TASKS, Task.check_data} == set(Task)  # which the command line carries out itself
    left = [row.left for row in TASKS.values()]
    assert len(set(left)) > len(left) - 2  # audit and verify leave the same
