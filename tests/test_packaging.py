import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import ppo_workbench

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
    with pytest.raises(AttributeError, match="trian"):
        ppo_workbench.trian  # noqa: B018


def _locked() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("minor", ["3.11", "3.12", "3.13"])
def test_lock_file_pins_every_dependency_inside_its_range_on_every_python(minor: str) -> None:
    project, groups = _project()["project"], _project()["dependency-groups"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *itertools.chain(*extras.values(), *groups.values())]
    needed = [Requirement(line) for line in lines if not line.startswith(project["name"])]
    locked = _locked()
    for requirement in needed:
        pin = locked[canonicalize_name(requirement.name)]
        (version,) = pin.specifier
        assert requirement.specifier.contains(version.version), requirement
        assert not pin.marker or pin.marker.evaluate({"python_version": minor}), requirement


def test_development_group_names_every_extra() -> None:
    (own,) = [
        requirement
        for line in _project()["dependency-groups"]["dev"]
        if (requirement := Requirement(line)).name == "ppo-workbench"
    ]
    assert own.extras == set(_project()["project"]["optional-dependencies"])


def test_lock_file_serves_any_build_of_torch_and_leaves_the_project_out() -> None:
    locked = _locked()
    assert str(locked["torch"].specifier) == "==2.13.0"
    assert not [name for name in locked if name.startswith(("nvidia", "cuda", "ppo"))]


def test_version_is_the_same_in_package_changelog_citation_and_lock() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert heading[1] == citation["version"] == ppo_workbench.__version__


def test_supported_pythons_are_the_same_wherever_they_are_named() -> None:
    supported = ["3.11", "3.12", "3.13"]
    project = _project()["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3" in line]
    minors = [f"3.{minor}" for minor in range(8, 20)]
    allowed = SpecifierSet(project["requires-python"])
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    (job,) = jobs.values()
    assert named == [minor for minor in minors if allowed.contains(minor)] == supported
    assert job["strategy"]["matrix"]["python"] == supported
