"""A second process trains the same model again, and scores a stored one exactly the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from tests.e2e.workbench import BUDGET, TINY, Workbench, process

SEED = 3
MODELS = {"maskable_ppo": "trained_models", "ppo": "baselines"}
# One process for several commands: starting one takes longer than they do.
SCRIPT = """
import json, sys
from ppo_workbench.cli.main import command
print(*(command(arguments) for arguments in json.loads(sys.argv[1])), file=sys.stderr)
"""


def _training(home: Path, model: str, seed: int = SEED) -> list[str]:
    return [
        *[*TINY, *BUDGET, "budget.timesteps=512", "tracking.enabled=false", f"model={model}"],
        *[f"seed={seed}", f"output={model}", f"result_json={home}/{model}.json"],
    ]


def _outcome(home: Path, model: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    result = json.loads((home / f"{model}.json").read_text(encoding="utf-8"))
    path = home / MODELS[model] / f"{model}.pth"
    return torch.load(path, weights_only=True), result["scorecards"]


def test_second_process_gives_identical_weights_and_scorecards(
    trained: Workbench, tmp_path: Path
) -> None:
    here, there, other = (tmp_path / name for name in ("here", "there", "other"))
    for home in (here, there, other):
        home.mkdir()
    stored = trained.home / "trained_models" / "first"
    evaluation = ["task=evaluate", f"artifact={stored}", f"result_json={there}/first.json"]
    commands = [*(_training(there, model) for model in MODELS), evaluation]
    options = process([], there) | {"args": [sys.executable, "-c", SCRIPT, json.dumps(commands)]}
    run = subprocess.Popen(**options, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for model in MODELS:
        assert Workbench(here).run(*_training(here, model)).code == 0
        assert Workbench(other).run(*_training(other, model, SEED + 1)).code == 0
    _, errors = run.communicate(timeout=300)
    assert errors == "0 0 0\n"

    for model in MODELS:
        first, cards = _outcome(here, model)
        second, same_cards = _outcome(there, model)
        third, _ = _outcome(other, model)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert cards == same_cards
        assert not all(torch.equal(first[key], third[key]) for key in first)
    reloaded = json.loads((there / "first.json").read_text(encoding="utf-8"))
    original = json.loads((trained.home / "first.json").read_text(encoding="utf-8"))
    assert reloaded["score"] == original["score"]
    (card,) = reloaded["scorecards"].values()
    assert card["validation"] == original["scorecards"]["MaskablePPO"]["validation"]
