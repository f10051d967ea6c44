"""`task=paper` over a feed that lasts: killed at any moment, no decision is lost or doubled."""

import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.delivery.builders import experiment_of, small_config, store_model

from ppo_workbench.cli.main import command
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.live.account import SimulatedAccount
from ppo_workbench.delivery.messages import bar_messages
from ppo_workbench.pipeline.models import feed as paper_feed
from ppo_workbench.trading.experiment import Experiment

MORE = 120  # bars after the warm-up


class Home:
    """A model, the lines of a feed, and what one run decides on them."""

    def __init__(self, folder: Path) -> None:
        experiment: Experiment = experiment_of(small_config("features.volatility_slow_bars=300"))
        self.folder = folder
        artifact = store_model(experiment, folder / "trained_models", seed=3)
        store_model(experiment, folder / "trained_models", "other", seed=4)
        self.count = artifact.metadata.warmup_bars + MORE
        bars = list(bar_messages(experiment.bars.slice(0, self.count)))
        self.lines = [bar.model_dump_json() + "\n" for bar in bars]
        decider = Decider(artifact)
        account, expected = SimulatedAccount(decider), []
        for bar in bars:
            decision = decider.decide(bar, account.step(bar))
            account.take(decision)
            expected.append(decision.line() + "\n")
        self.expected = "".join(expected)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a home with the model `m`."""
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def home(made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Run commands there, with files in `tmp_path`."""
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(made.folder))
    monkeypatch.chdir(tmp_path)
    return made


def _arguments(source: str, name: str = "m") -> list[str]:
    files = [f"decide.input={source}", "decide.output=out.jsonl", "decide.state=state.npz"]
    return ["task=paper", f"artifact={name}", "tracking=none", *files]


def _typed(lines: list[str], monkeypatch: pytest.MonkeyPatch, name: str = "m") -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(lines)))
    return command(_arguments("-", name))


def test_paper_over_standard_input_goes_on_and_passes_over_what_came(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = home.count - 40
    assert _typed(home.lines[:cut], monkeypatch) == 0
    assert _typed(home.lines[cut - 5 :], monkeypatch) == 0
    assert Path("out.jsonl").read_text() == home.expected
    assert _typed(home.lines[-3:], monkeypatch) == 0
    assert Path("out.jsonl").read_text() == home.expected


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before the state", "after the state", "in the line"])
def test_paper_that_dies_between_state_and_decision_writes_each_once(
    home: Home, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    journal, left = paper_feed._Journal, [home.count - 20]
    save, write = journal._save, journal._write

    def dying(act: Callable[[Any], None]) -> Callable[[Any], None]:
        def die(self: Any) -> None:
            left[0] -= 1
            if left[0]:
                act(self)
                return
            if moment == "in the line":
                with self._output.open("ab") as file:
                    file.write(self._text[:40].encode())
            raise _Killed

        return die

    with monkeypatch.context() as patch:
        at_save = moment == "before the state"
        patch.setattr(journal, "_save" if at_save else "_write", dying(save if at_save else write))
        with pytest.raises(_Killed):
            _typed(home.lines, monkeypatch)
    done = len(Path("out.jsonl").read_text().splitlines())
    assert done < home.count - 15
    assert _typed(home.lines[done - 3 :], monkeypatch) == 0
    assert Path("out.jsonl").read_text() == home.expected


def _child(home: Home) -> int:
    """Follow the file in a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    os.environ["PPO_WORKBENCH_HOME"] = str(home.folder)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    code = 1
    try:
        code = command(_arguments("bars.jsonl"))
    finally:
        os._exit(code)


def _size() -> int:
    return Path("out.jsonl").stat().st_size if Path("out.jsonl").exists() else 0


def _kills(home: Home, count: int, seed: int) -> None:
    rng, source = np.random.default_rng(seed), Path("bars.jsonl")
    source.write_text("".join(home.lines[:1]))
    written, size = 1, len(home.expected.encode())
    for goal in np.append(np.sort(rng.integers(0, size, count)), size):
        pid, end = _child(home), time.monotonic() + 300
        while _size() < goal:
            assert time.monotonic() < end
            assert os.waitpid(pid, os.WNOHANG)[0] == 0
            with source.open("a") as file:  # it grows, by pieces that are no lines
                part = "".join(home.lines[written : written + 7])
                file.write(part[:-9])
                file.flush()
                file.write(part[-9:])
            written = min(written + 7, home.count)
            time.sleep(float(rng.random()) * 0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert Path("out.jsonl").read_text() == home.expected


def test_paper_over_a_growing_file_survives_sigkill(home: Home) -> None:
    _kills(home, 2, seed=0)


@pytest.mark.slow
def test_paper_over_a_growing_file_survives_twenty_sigkills(home: Home) -> None:
    _kills(home, 20, seed=1)


def test_paper_goes_on_with_another_champion(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _typed(home.lines[: home.count - 10], monkeypatch) == 0
    assert _typed(home.lines[home.count - 10 :], monkeypatch, "other") == 0
    assert "note: the state is of another model; other takes its account over" in (
        capsys.readouterr().err
    )
    after = Path("out.jsonl").read_text().splitlines()[-10:]
    assert all("more bars are needed" in line for line in after)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("decide.output=-", "wants decide.output=FILE"),
        ("decide.account=given", "wants decide.output=FILE and decide.account=simulated"),
    ],
)
def test_paper_feed_refuses_what_could_lose_a_decision(
    home: Home, capsys: pytest.CaptureFixture[str], change: str, problem: str
) -> None:
    assert command([*_arguments("-"), change]) == 2
    assert problem in capsys.readouterr().err


def test_paper_feed_refuses_decisions_and_state_that_do_not_belong_together(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out.jsonl").write_text("a line\n")
    assert _typed(home.lines[:3], monkeypatch) == 2
    assert "holds decisions, but decide.state=state.npz is not there" in capsys.readouterr().err
    Path("out.jsonl").unlink()
    assert _typed(home.lines[:3], monkeypatch) == 0
    Path("out.jsonl").write_text("")
    assert _typed(home.lines[:3], monkeypatch) == 2
    assert "is shorter than decide.state" in capsys.readouterr().err
