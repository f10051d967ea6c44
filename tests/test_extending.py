"""docs/extending.md works: its files pass their tests in an empty folder, its commands run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"^    python (-m ppo_workbench .*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (made / name).write_text(text, encoding="utf-8")
    return made


def _run(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    # Kernels with these parts are compiled for this test alone: without optimising, which takes
    # longest.
    own = {"NUMBA_OPT": "0", "PPO_WORKBENCH_CACHE": str(folder), "PPO_WORKBENCH_HOME": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **own, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow  # `.ci/run` runs this file against the wheel
def test_parts_of_the_page_pass_their_own_tests(folder: Path) -> None:
    assert list(FILES) == ["my_parts.py", "test_my_parts.py"]
    done = _run(folder, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "."])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


@pytest.mark.slow
def test_commands_of_the_page_train_and_run_a_model_with_them(folder: Path) -> None:
    assert len(COMMANDS) == 3
    told = []
    for line in COMMANDS:
        done = _run(folder, [*shlex.split(line), "tracking.uri=null"])
        assert done.returncode == 0, line + done.stdout + done.stderr
        told.append(done.stdout)
    assert "range_20, return_1, ema_distance_40 + account" in told[0]
    assert "not_on" in told[0]
    assert all("Worst session" in text for text in told[1:])


@pytest.mark.slow
def test_model_with_parts_is_refused_by_name_without_them(folder: Path) -> None:
    missing = _run(folder, ["-m", "ppo_workbench", "task=evaluate", "artifact=own"])
    assert missing.returncode == 2
    assert "was trained with the plug-in my_parts; name it, plugins=[my_parts]" in missing.stderr

    text = FILES["my_parts.py"].replace("weekday=4.0", "weekday=3.0")
    (folder / "my_parts.py").write_text(text, encoding="utf-8")
    other = _run(
        folder, ["-m", "ppo_workbench", "plugins=[my_parts]", "task=evaluate", "artifact=own"]
    )
    (folder / "my_parts.py").write_text(FILES["my_parts.py"], encoding="utf-8")
    assert other.returncode == 2
    assert "another version of the plug-in my_parts" in other.stderr


@pytest.mark.slow
def test_application_names_the_plugin_in_its_environment(folder: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from ppo_workbench.delivery.artifact import load_artifact\n"
        "from ppo_workbench.delivery.decider import Decider\n"
        "print(Decider(load_artifact(Path('trained_models'), 'own')).space.names)\n"
    )
    named = "import os; os.environ['PPO_WORKBENCH_PLUGINS'] = 'my_parts'\n"
    refused = _run(folder, ["-c", script])
    assert refused.returncode == 1
    assert "was trained with the plug-in my_parts" in refused.stderr
    known = _run(folder, ["-c", named + script])
    assert known.returncode == 0, known.stderr
    assert "SELL" in known.stdout
