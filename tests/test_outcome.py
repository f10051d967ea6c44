"""The last words of a command: what the agent does, which checkpoint it is, what is next."""

import io
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppo_workbench.config import Config
from ppo_workbench.delivery.artifact import ArtifactPaths
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.pipeline.compare.claims import Claims
from ppo_workbench.pipeline.compare.plan import Cell
from ppo_workbench.pipeline.compare.running import ComparisonError, Ended, _Shared
from ppo_workbench.pipeline.train.fitting import Keeper
from ppo_workbench.pipeline.train.outcome import say_end, say_if_nothing_trades, what_next

OWN = "MaskablePPO"
STORE = "sqlite:////home/me/mlruns/mlflow.db"


def _scores(exposure: float, fills: int = 90, random_fills: int = 5) -> Any:
    own = SimpleNamespace(
        exposure_mean_abs=exposure, n_fills=fills, sharpe_annual=0.98, ruined=False
    )
    last = SimpleNamespace(sharpe_annual=0.15, ruined=False)
    random = SimpleNamespace(
        n_fills=random_fills, blocked_share={"locate": 0.1, "capital": 0.9}, ruined=False
    )
    return {
        OWN: {"validation": own},
        f"{OWN}, last": {"validation": last},
        "random-legal": {"train": random},
    }


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (_scores(0.3), ""),
        (_scores(0.01), ""),
        (_scores(0.0004), "the agent trades nothing: on validation it held 0.0% of its equity"),
        (_scores(0.0, 0, 0), "warning: no policy could trade on the training bars; the rule cap"),
    ],
    ids=["trades", "trades little", "trades nothing", "must not trade"],
)
def test_agent_that_stopped_trading_is_told(scores: Any, words: str) -> None:
    console = WorkbenchConsole(io.StringIO())
    say_if_nothing_trades(console, Config(), scores)
    assert console.log_text.startswith(words)
    assert bool(console.log_text) == bool(words)


@pytest.mark.parametrize("selected", [49_152, 106_496], ids=["another", "the last"])
def test_checkpoint_that_is_not_the_last_is_told(selected: int) -> None:
    console = WorkbenchConsole(io.StringIO())
    counts = {"timesteps": 106_496, "episodes": 54, "minutes": 1.0, "passes": 0.3}
    result: Any = SimpleNamespace(interrupted=False, selected_timesteps=selected, **counts)
    tracker: Any = SimpleNamespace(run_id="0123", destination=STORE)
    paths = ArtifactPaths(Path("/m/a.pth"), Path("/m/a-metadata.json"))
    say_end(console, Config(), result, _scores(0.3), paths, tracker)
    text = " ".join(console.log_text.split())
    words = (
        "checkpoint: select=best took the one of timestep 49,152, not the last of 106,496: Sharpe "
        "+0.98 against +0.15 on validation"
    )
    assert (words in text) == (selected == 49_152)
    assert "model: /m/a.pth" in console.log_text.splitlines()
    assert f"record: MLflow run 0123 in {STORE}" in console.log_text.splitlines()


def test_next_commands_are_whole_and_fit_the_run() -> None:
    commands = [shlex.split(command) for _, command in what_next("my run", STORE, True)]
    assert [command[3:] for command in commands[:3]] == [
        ["resume=my run"],
        ["task=report", "run=my run"],
        ["task=paper", "artifact=my run"],
    ]
    assert commands[3] == ["mlflow", "ui", "--backend-store-uri", STORE]
    for store in (None, "https://mlflow.example"):
        assert [command for _, command in what_next("x", store, False)] == [
            "python -m ppo_workbench task=report run=x",
            "python -m ppo_workbench task=paper artifact=x",
        ]


def test_second_ctrl_c_in_training_says_whether_a_checkpoint_goes_on(tmp_path: Path) -> None:
    unused: Any = None
    keeper = Keeper(tmp_path, "my run", {}, {}, unused, unused, unused)
    assert keeper.what_happens().endswith("Ctrl-C again ends at once, with nothing kept")
    with pytest.raises(KeyboardInterrupt, match="nothing is kept"), keeper.last_words():
        raise KeyboardInterrupt

    keeper.path.parent.mkdir(parents=True)
    keeper.path.write_bytes(b"a checkpoint")
    assert keeper.what_happens().endswith("Ctrl-C again ends at once, with the last checkpoint")
    with (
        pytest.raises(KeyboardInterrupt, match=r"\n  python -m ppo_workbench 'resume=my run'$"),
        keeper.last_words(),
    ):
        raise KeyboardInterrupt


class InterruptedJobs:
    """Ends one cell, then meets Ctrl-C."""

    overrides: Sequence[str] = ("task=compare", "model.net_arch=[8, 8]", "output=old")

    def run(self, jobs: Iterable[tuple[str, Sequence[str]]], folder: Path) -> Iterator[Ended]:
        name, _ = next(iter(jobs))
        (folder / name).mkdir(parents=True)
        (folder / name / "result.json").write_text('{"seconds": 1.0}')
        yield Ended(name, None)
        raise KeyboardInterrupt


class KilledJobs:
    """Kills the process of every cell at first, of `b` always."""

    overrides: Sequence[str] = ()

    def __init__(self) -> None:
        self.ran = Counter[str]()

    def run(self, jobs: Iterable[tuple[str, Sequence[str]]], folder: Path) -> Iterator[Ended]:
        for name, _ in jobs:
            self.ran[name] += 1
            if name == "b" or self.ran[name] == 1:
                yield Ended(name, "the process was killed by SIGKILL", killed=True)
            else:
                (folder / name).mkdir(parents=True)
                (folder / name / "result.json").write_text('{"seconds": 1.0}')
                yield Ended(name, None)


def test_cell_whose_process_was_killed_is_run_once_more(tmp_path: Path) -> None:
    cells = [Cell(name, "yardsticks", "yardsticks", "main", 0, 0, ()) for name in ("a", "b")]
    console, jobs = WorkbenchConsole(io.StringIO()), KilledJobs()
    record: Any = SimpleNamespace(cell_ended=lambda *facts: None)
    with (
        Claims(tmp_path) as claims,
        pytest.raises(ComparisonError, match=r"1 of 2 cells failed, the first was b \(the process"),
    ):
        _Shared(tmp_path, claims, [], jobs, record, console).run(cells)
    assert jobs.ran == {"a": 2, "b": 2}
    assert "0/2 a: the process was killed by SIGKILL; it is run once more" in console.log_text
    assert "1/2 a: done in 1 s" in console.log_text


def test_ctrl_c_in_a_comparison_gives_the_command_that_goes_on(tmp_path: Path) -> None:
    console = WorkbenchConsole(io.StringIO())
    cells = [Cell(name, "yardsticks", "yardsticks", "main", 0, 0, ()) for name in ("a", "b")]
    record: Any = SimpleNamespace(cell_ended=lambda *facts: None)
    folder = tmp_path / "mine"
    with Claims(folder) as claims, pytest.raises(KeyboardInterrupt):
        _Shared(folder, claims, [], InterruptedJobs(), record, console).run(cells)
    assert "interrupted: 1 of 2 cells are done and kept" in console.log_text
    command = console.log_text.splitlines()[-1]
    assert shlex.split(command, comments=True) == [
        *("python", "-m", "ppo_workbench", "task=compare", "model.net_arch=[8, 8]", "output=mine")
    ]


def test_policies_that_were_ruined_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    fine = SimpleNamespace(exposure_mean_abs=0.5, n_fills=9, ruined=False)
    ruined = SimpleNamespace(exposure_mean_abs=0.5, n_fills=1, ruined=True)
    scores: Any = {
        "MaskablePPO": {"train": fine, "validation": fine},
        "random-legal": {"train": ruined, "validation": fine},
    }
    say_if_nothing_trades(WorkbenchConsole(), Config(), scores)
    assert (
        "warning: ruined, and nothing left to trade with: random-legal;" in capsys.readouterr().out
    )
