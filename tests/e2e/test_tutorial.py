"""Every command and script of docs/tutorial.md runs, in order, and says what the page quotes."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from ppo_workbench.cli.main import command
from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.delivery.metadata import Status

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
COMMAND = "python -m ppo_workbench"
CHAMPION = "my_champion"


class Block(NamedTuple):
    """A fenced block of the page: its language ("" = quoted output) and its text."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(*block) for block in found]


def _plain(text: str) -> str:
    """Leave figures, verdicts, folders and line ends away: they differ from run to run."""
    text = re.sub(r"\S*/(?=\w+/)", "", text)
    text = re.sub(r"[+-]?\d+(\.\d+)?(e-?\d+)?", "#", text)
    return " ".join(re.sub(r"\b(FAIL|pass)\b", "verdict", text).split())


def run_commands(text: str) -> None:
    """Run each line as the shell would; its comment names the exit code where it is not 0."""
    for line in text.splitlines():
        assert line.startswith(COMMAND), f"{line!r} is no command that this test can run"
        expected = re.search(r"# exit code (\d)", line)
        arguments = shlex.split(line.removeprefix(COMMAND), comments=True)
        assert command(arguments) == (int(expected[1]) if expected else 0), line


@pytest.mark.slow  # `.ci/run` runs it
def test_tutorial_runs_from_top_to_bottom_and_says_what_it_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path))
    install, *others = blocks(PAGE)
    assert install.language == "bash"
    seen = ""
    for block in others:
        if block.language == "bash":
            run_commands(block.text)
        elif block.language == "python":
            exec(compile(block.text, str(PAGE), "exec"), {"__name__": "__main__"})
        captured = capsys.readouterr()
        if block.language:
            seen = captured.out + captured.err + (seen if block.language == "" else "")
            csv = tmp_path / "my_bars.csv"
            seen += csv.read_text("utf-8")[:500] if "to_csv" in block.text else ""
        for line in block.text.splitlines() if not block.language else ():
            assert _plain(line) in _plain(seen), line

    promoted, former = (
        load_artifact(tmp_path / "trained_models", name).metadata
        for name in (CHAMPION, f"{CHAMPION}.previous")
    )
    assert (promoted.status, former.status) == (Status.champion, Status.previous)
    assert promoted.created_utc < former.created_utc  # rolled back to the first
    assert len((tmp_path / "mlruns" / "test_openings.jsonl").read_text().splitlines()) == 3


def test_tutorial_installs_by_targets_of_the_makefile() -> None:
    lines = [line.split("#")[0].split() for line in blocks(PAGE)[0].text.splitlines()]
    targets = [words[1] for words in lines if words[0] == "make"]
    assert targets == ["train"]
    done = subprocess.run(
        ["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "-m ppo_workbench" in done.stdout


def test_tutorial_links_to_pages_that_exist() -> None:
    links = re.findall(r"\]\(([\w.]+)\)", PAGE.read_text("utf-8"))
    assert links
    assert [link for link in links if not (PAGE.parent / link).is_file()] == []
