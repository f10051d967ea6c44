"""Same seed and timesteps, two processes: the same weights and the same scorecards."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e.workbench import BUDGET, TINY, Workbench, process

SEED = 3


def _arguments(home: Path, model: str, seed: int) -> list[str]:
    home.mkdir()
    arguments = [*TINY, *BUDGET, "budget.timesteps=512", "tracking.enabled=false"]
    return [
        *arguments,
        f"model={model}",
        f"seed={seed}",
        "output=same",
        f"result_json={home}/result.json",
    ]


def _outcome(home: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    (path,) = home.glob("*/same.pth")
    result = json.loads((home / "result.json").read_text(encoding="utf-8"))
    return torch.load(path, weights_only=True), result["scorecards"]


@pytest.mark.parametrize("model", ["maskable_ppo", "ppo"])
def test_same_seed_in_two_processes_gives_identical_weights_and_scorecards(
    model: str, tmp_path: Path
) -> None:
    here, there, other = (tmp_path / name for name in ("here", "there", "other"))
    run = subprocess.Popen(
        **process(_arguments(there, model, SEED), there),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert Workbench(here).run(*_arguments(here, model, SEED)).code == 0
    assert Workbench(other).run(*_arguments(other, model, SEED + 1)).code == 0
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors

    first, cards = _outcome(here)
    second, same_cards = _outcome(there)
    third, _ = _outcome(other)

    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert cards == same_cards
    assert not all(torch.equal(first[key], third[key]) for key in first)
