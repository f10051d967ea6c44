"""The front door: every name is there, and importing it costs little."""

import subprocess
import sys

from ppo_workbench.scoring import statistics


def test_every_listed_name_exists_and_says_what_it_is() -> None:
    assert len(set(statistics.__all__)) == len(statistics.__all__)
    for name in statistics.__all__:
        assert getattr(statistics, name).__doc__, name


def test_import_leaves_slow_libraries_for_later() -> None:
    code = (
        "import sys, ppo_workbench.scoring.statistics\n"
        "print([name for name in ('arch', 'scipy.stats', 'torch') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
