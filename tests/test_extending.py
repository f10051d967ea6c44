"""The examples of docs/extending.md work: edited into a copy of the project and tested there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ppo_workbench.config import BarsError, ConfigError, DataConfig, RewardConfig
from ppo_workbench.market.sources import load_bars
from ppo_workbench.trading.rewards import REWARD_NAMES, reward_weights

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
COPIED = ("src", "conf", "docs/rules.md", "tests/trading", "tests/scoring", "tests/conftest.py")
# The changed kernels are compiled for this test alone: without optimising, which takes longest.
QUICK = {"NUMBA_OPT": "0", "PPO_WORKBENCH_CACHE": os.devnull}
EXAMPLES = [
    "test_commands.py",
    "test_sqlite.py",
    "tests/trading/test_downside.py",
    "tests/trading/test_rules_doc.py",
    *(f"tests/trading/test_rules.py::test_rule_{name}[minimum_price]" for name in (
        "alone_blocks_with_its_own_reason", "switched_off_lets_the_same_action_pass",
    )),
    "tests/scoring/test_audit_rules.py::test_every_rule_has_a_check_and_a_plant",
    *(f"tests/scoring/test_audit_rules.py::test_plant{name}[minimum_price]" for name in (
        "ed_violation_is_found_at_its_rows_and_nowhere_else",
        "_under_the_rules_own_mask_breaks_nothing",
    )),
]  # fmt: skip


# Put into the copy: the commands of the page are such as can be given.
COMMANDS = """
import shlex

import pytest

from ppo_workbench.cli.main import compose


@pytest.mark.parametrize("line", {lines!r})
def test_command_composes(line: str) -> None:
    assert compose(shlex.split(line))
"""


def _copy(home: Path) -> None:
    for name in (*COPIED, "pyproject.toml"):
        source, target = ROOT / name, home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def _new_files() -> dict[str, str]:
    return dict(
        re.findall(r"^`([\w/.]+)`:\n\n```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    )


def _commands() -> list[str]:
    return re.findall(r"^    python -m ppo_workbench (.*)$", PAGE, re.MULTILINE)


def _edits() -> list[tuple[str, str, str]]:
    """Return file, old and new lines of every hunk."""
    found = []
    for block in re.findall(r"^```diff\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        for part in block.split("--- ")[1:]:
            name, *hunks = part.split("\n@@\n")
            for hunk in hunks:
                lines = [(line[:1], line[1:]) for line in hunk.splitlines()]
                old, new = (
                    "".join(f"{text}\n" for mark, text in lines if mark != other)
                    for other in ("+", "-")
                )
                found.append((name, old, new))
    return found


def test_examples_of_source_term_and_rule_pass_their_tests(tmp_path: Path) -> None:
    _copy(tmp_path)
    files, edits, lines = _new_files(), _edits(), _commands()
    assert (len(files), len(edits), len(lines)) == (3, 15, 3)
    files["test_commands.py"] = COMMANDS.format(lines=lines)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, old, new in edits:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} holds {text.count(old)} times:\n{old}"
        (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *EXAMPLES],
        cwd=tmp_path,
        env={**os.environ, **QUICK, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 passed" in done.stdout


def test_unknown_source_names_the_users_own_beside_the_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ppo_workbench_sources").mkdir()
    (tmp_path / "ppo_workbench_sources" / "ticker_tape.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(BarsError, match=r"file, ticker_tape \(did you mean ticker_tape\?\)"):
        load_bars(DataConfig(source="ticker_tap"))
    with pytest.raises(BarsError, match="has no function load"):
        load_bars(DataConfig(source="ticker_tape"))
    for name in [name for name in sys.modules if name.startswith("ppo_workbench_sources")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = = 1\n", r"SyntaxError in .*faulty\.py, line 1 "),
        ("import no_such_module\n", r"ModuleNotFoundError in .*faulty\.py, line 1 "),
        ("def load(config):\n    return 1 / 0\n", r"ZeroDivisionError in .*faulty\.py, line 2 "),
        ("def load(config):\n    return 42\n", "load returned int; return Bars"),
    ],
)
def test_fault_in_an_own_source_is_one_sentence(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ppo_workbench_sources").mkdir()
    (tmp_path / "ppo_workbench_sources" / "faulty.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(BarsError, match=f"data.source=faulty: {told}"):
        load_bars(DataConfig(source="faulty"))
    for name in [name for name in sys.modules if name.startswith("ppo_workbench_sources")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["os", "ppo_workbench.cli.main", "..jit", ""])
def test_source_name_reaches_no_other_module(name: str) -> None:
    with pytest.raises(BarsError, match="is unknown"):
        load_bars(DataConfig(source=name))


@pytest.mark.parametrize("name", ["downside", "turnover", "extra"])
def test_weight_of_no_component_is_refused(name: str) -> None:
    assert list(reward_weights(RewardConfig(turnover=0.5))) == list(REWARD_NAMES)
    with pytest.raises(ConfigError, match=f"reward.extra has '{name}'"):
        reward_weights(RewardConfig(extra={name: 0.1}))
