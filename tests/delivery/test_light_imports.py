"""A trading application pays only for what it runs."""

import subprocess
import sys
from pathlib import Path

import ppo_workbench.delivery

MODULES = sorted(path.stem for path in Path(ppo_workbench.delivery.__file__).parent.glob("*.py"))
HEAVY = (
    "gymnasium",
    "hydra",
    "matplotlib",
    "mlflow",
    "omegaconf",
    "onnx",
    "onnxruntime",
    "optuna",
    "sb3_contrib",
    "scipy.stats",
    "stable_baselines3",
)
_FRESH = """
import importlib, sys
names, heavy = sys.argv[1].split(","), sys.argv[2].split(",")
for name in names:
    importlib.import_module(name)
    if loaded := [x for x in heavy if x in sys.modules]:
        sys.exit(f"{name} imports {loaded}")
"""


def test_delivery_modules_import_none_of_the_research_stack() -> None:
    names = [f"ppo_workbench.delivery.{module}".removesuffix(".__init__") for module in MODULES]
    command = [sys.executable, "-c", _FRESH, ",".join(names), ",".join(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
