"""Same seed and timesteps, two processes: the same weights and the same scorecards."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e.workbench import BUDGET, TINY, process


def _train(home: Path, *overrides: str) -> "subprocess.Popen[str]":
    home.mkdir()
    arguments = [*TINY, *BUDGET, "budget.timesteps=512", "tracking.enabled=false", *overrides]
    arguments += ["output=same", f"result_json={home}/result.json"]
    return subprocess.Popen(
        **process(arguments, home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def _outcome(home: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    (path,) = home.glob("*/same.pth")
    result = json.loads((home / "result.json").read_text(encoding="utf-8"))
    return torch.load(path, weights_only=True), result["scorecards"]


@pytest.mark.parametrize("model", ["maskable_ppo", "ppo"])
def test_same_seed_in_two_processes_gives_identical_weights_and_scorecards(
    model: str, tmp_path: Path
) -> None:
    homes = [tmp_path / "one", tmp_path / "two", tmp_path / "other"]
    seeds = [3, 3, 4] if model == "maskable_ppo" else [3, 3]
    runs = [
        _train(home, f"model={model}", f"seed={seed}")
        for home, seed in zip(homes, seeds, strict=False)
    ]
    for run in runs:
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors

    (first, cards), (second, same_cards) = map(_outcome, homes[:2])

    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert cards == same_cards
    if len(seeds) == 3:
        other, _ = _outcome(homes[2])
        assert not all(torch.equal(first[key], other[key]) for key in first)
