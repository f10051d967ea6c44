import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
RESEARCH = ("mlflow", "hydra", "omegaconf", "optuna", "stable_baselines3", "sb3_contrib")
DELIVERY = sorted(
    f"ppo_workbench.delivery.{path.stem}"
    for path in (ROOT / "src" / "ppo_workbench" / "delivery").glob("[!_]*.py")
)


def test_boxes_import_only_to_the_left() -> None:
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def _imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules, sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return set(result.stdout.split())


def test_delivery_imports_nothing_of_the_research_stack() -> None:
    imported = _imported_by(f"import {', '.join(DELIVERY)}")
    assert set(DELIVERY) <= imported
    assert imported.isdisjoint({*RESEARCH, "gymnasium"})


def test_package_import_is_light_and_public_functions_are_listed() -> None:
    imported = _imported_by("import ppo_workbench; assert 'train' in dir(ppo_workbench)")
    assert imported.isdisjoint({*RESEARCH, "torch", "numba", "pandas"})


def test_package_unknown_attribute_raises_attribute_error() -> None:
    import ppo_workbench

    with pytest.raises(AttributeError, match="trian"):
        ppo_workbench.trian  # noqa: B018


def _locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def test_lock_file_pins_every_dependency_inside_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    del extras["ray"]  # heavy, and chosen by few
    groups = [project["dependencies"], *extras.values()]
    locked = _locked()
    for requirement in map(Requirement, [line for group in groups for line in group]):
        version = locked[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), requirement


def test_lock_file_serves_any_build_of_torch_and_leaves_the_project_out() -> None:
    locked = _locked()
    assert locked["torch"] == "2.13.0"
    assert "ppo-workbench" not in locked
