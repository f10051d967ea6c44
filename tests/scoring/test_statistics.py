"""Importing the statistics costs little."""

import pkgutil
import subprocess
import sys

from ppo_workbench.scoring import statistics


def test_import_leaves_slow_libraries_for_later() -> None:
    names = [module.name for module in pkgutil.iter_modules(statistics.__path__)]
    assert len(names) > 8
    code = (
        f"import sys; from ppo_workbench.scoring.statistics import {', '.join(names)}\n"
        "print([name for name in ('arch', 'scipy.stats', 'torch') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
