"""Which interpreter `make` takes, with interpreters that only note how they were called."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GOOD, OLD, NEW = "(3, 12, 1)", "(3, 10, 13)", "(3, 14, 0)"
NO_SUCH_VERSION = 'echo "pyenv: $0: command not found" >&2\nexit 127\n'
WITHOUT_VENV = "sys.modules['ensurepip'] = None"


def _checks(version: str, also: str = "pass") -> str:
    """Return a script that judges `-c` as Python of a version would, and makes a fake .venv."""
    return f"""if [ "$1" = -c ]; then
  exec {sys.executable} -c "import sys; sys.version_info = {version}; {also}
$2"
fi
echo "${{0##*/}} $*" >> calls
if [ "$2" = venv ]; then mkdir -p .venv/bin; cp fake-of-venv .venv/bin/python; fi
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile, where no interpreter is on the PATH."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).touch()
    _script(tmp_path / "fake-of-venv", 'echo "venv $*" >> calls\n')
    (tmp_path / "bin").mkdir()
    for tool in ("make", "sh", "touch", "mkdir", "cp"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}")
    path.chmod(0o755)


def _make(clone: Path, *arguments: str, **interpreters: str) -> subprocess.CompletedProcess[str]:
    for name, body in interpreters.items():
        _script(clone / "bin" / name, body)
    return subprocess.run(
        [clone / "bin" / "make", "train", *arguments],
        cwd=clone,
        env={"PATH": str(clone / "bin")},
        check=False,
        capture_output=True,
        text=True,
    )


def _calls(clone: Path) -> list[str]:
    path = clone / "calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("interpreters", "taken"),
    [
        pytest.param({"python3.11": GOOD, "python3.12": GOOD}, "python3.11", id="the oldest"),
        pytest.param({"python3.13": GOOD}, "python3.13", id="the only one"),
        pytest.param({"python3.11": NO_SUCH_VERSION, "python3.12": GOOD}, "python3.12", id="shim"),
        pytest.param(
            {"python3.11": _checks(GOOD, WITHOUT_VENV), "python3.13": GOOD},
            "python3.13",
            id="without venv",
        ),
        pytest.param({"python3": GOOD}, "python3", id="without a number"),
        pytest.param({"python3.11": OLD, "python3": GOOD}, "python3", id="another's name"),
    ],
)
def test_make_takes_the_first_interpreter_that_runs_and_has_venv(
    clone: Path, interpreters: dict[str, str], taken: str
) -> None:
    scripts = {
        name: _checks(body) if body.startswith("(") else body for name, body in interpreters.items()
    }
    done = _make(clone, **scripts)
    assert done.returncode == 0, done.stderr
    assert _calls(clone)[0] == f"{taken} -m venv .venv"
    assert any("install" in call and "requirements.lock" in call for call in _calls(clone))
    assert "ppo_workbench" in _calls(clone)[-1]


@pytest.mark.parametrize(
    "interpreters",
    [
        pytest.param({}, id="none"),
        pytest.param({"python3.11": NO_SUCH_VERSION}, id="shim"),
        pytest.param({"python3.13": _checks(GOOD, WITHOUT_VENV)}, id="without venv"),
        pytest.param({"python3": _checks(OLD), "python3.12": _checks(NEW)}, id="other versions"),
    ],
)
def test_make_without_an_interpreter_says_what_to_install_before_any_download(
    clone: Path, interpreters: dict[str, str]
) -> None:
    done = _make(clone, **interpreters)
    assert done.returncode != 0
    sentence, _ = done.stderr.splitlines()
    assert sentence.startswith("error: found no Python 3.11 to 3.13 that runs and has venv")
    assert "apt install python3-venv" in sentence
    assert not _calls(clone)


def test_make_takes_the_interpreter_that_is_named(clone: Path) -> None:
    scripts = {"python3.11": _checks(GOOD), "mine": _checks(GOOD), "old": _checks(OLD)}
    refused = _make(clone, "PYTHON=old", **scripts)
    assert "(tried: old)" in refused.stderr
    assert not _calls(clone)
    assert _make(clone, "PYTHON=mine").returncode == 0
    assert _calls(clone)[0] == "mine -m venv .venv"


def test_make_keeps_a_venv_that_another_interpreter_made_and_gives_it_pip(clone: Path) -> None:
    (clone / ".venv" / "bin").mkdir(parents=True)
    no_pip = '[ "$1" != -c ] || exit 1\necho "venv $*" >> calls\n'
    _script(clone / ".venv" / "bin" / "python", no_pip)
    assert _make(clone).returncode == 0
    assert _calls(clone)[0] == "venv -m ensurepip"
