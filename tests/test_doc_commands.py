"""Every command that a page shows is one that the command line reads."""

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ppo_workbench.cli.main import compose

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMAND = re.compile(r"(?:^|`)\s*(?:\S+=\S+ )*python -m ppo_workbench ([^`\n]*)", re.MULTILINE)
# Of a stored model, run or rule of the reader's own: read, but not composed.
NEEDS_MORE = ("artifact=", "run=", "resume=", "plugins=")
FLAGS = ("--multirun", "-m", "--help", "--cfg", "job", "--cfg job", "--info", "--verbose")


def _commands() -> list[tuple[str, str]]:
    joined = [(page, page.read_text(encoding="utf-8").replace("\\\n", " ")) for page in PAGES]
    found = [
        (page.name, match[1].strip()) for page, text in joined for match in COMMAND.finditer(text)
    ]
    return sorted({(page, command) for page, command in found if command and "..." not in command})


@pytest.mark.parametrize(("page", "command"), _commands(), ids=lambda text: str(text)[:60])
def test_command_of_a_page_is_read(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    overrides = [word for word in words if word not in FLAGS]
    parsed = OverridesParser.create().parse_overrides(overrides)
    sweeps = "--multirun" in words or any(one.is_sweep_override() for one in parsed)
    stored = any(word.startswith(NEEDS_MORE) for word in overrides)
    if not (sweeps or stored):
        compose(overrides)


def test_pages_show_commands() -> None:
    assert len(_commands()) > 60
