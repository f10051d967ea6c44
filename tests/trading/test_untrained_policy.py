"""The short version of benchmarks/untrained_masks.py: no training is needed to be legal."""

import importlib.util
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "untrained_masks.py"


def _benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("untrained_masks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_untrained_masked_policy_breaks_no_rule_in_200_000_steps() -> None:
    results = _benchmark().run(steps=200_000, envs=50, sessions=20)
    total = {key: sum(counts[key] for counts in results.values()) for key in ("steps", "fills")}
    assert total["steps"] >= 200_000
    for name, counts in results.items():
        assert counts["fills"] > 0, name
        assert counts["masked"] > 0 or name.startswith("unconstrained"), name
        assert (counts["rejected"], counts["violated"], counts["overnight"]) == (0, 0, 0), name
