"""The front door: every name is there, and importing it costs little."""

import subprocess
import sys

from ppo_workbench.scoring import statistics


def test_every_listed_name_exists_and_says_what_it_is() -> None:
    listed = {name: value for name, value in vars(statistics).items() if name[0] != "_"}
    assert len(listed) > 30
    for name, value in listed.items():
        assert value.__doc__, name


def test_import_leaves_slow_libraries_for_later() -> None:
    code = (
        "import sys, ppo_workbench.scoring.statistics\n"
        "print([name for name in ('arch', 'scipy.stats', 'torch') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
