"""Hydra's own launchers under the sweeper: blocking batches; skipped where they are absent."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from tests.sweeps.toy import start, study

MODULES = {
    "basic": "hydra",
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
}


@pytest.mark.parametrize("launcher", MODULES)
def test_sweep_with_a_stock_launcher_ends_with_exact_totals(launcher: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(MODULES[launcher]) is None:
        pytest.skip(f"{MODULES[launcher]} is not installed")
    extra = {
        "joblib": ["hydra.launcher.n_jobs=2"],
        "submitit_local": ["hydra.sweeper.batch_size=2", "hydra.launcher.cpus_per_task=1"],
    }.get(launcher, [])
    grid = ["mode=session,raise", "x=0.2,0.4", "hydra.sweeper.sampler.name=grid"]
    counts = ["hydra.sweeper.n_trials=4", "hydra.sweeper.max_failure_rate=1"]
    sweep = start(tmp_path, f"hydra/launcher={launcher}", *extra, *grid, *counts)
    output, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, output
    ended = study(tmp_path).trials
    states = Counter((one.params["mode"], one.state.name) for one in ended)
    assert states[("raise", "FAIL")] == 2
    assert states[("session", "COMPLETE")] + states[("session", "PRUNED")] == 2
    assert len({tuple(one.params.values()) for one in ended}) == len(ended) == 4
    reasons = {one.user_attrs.get("fail_reason") for one in ended if one.state.name == "FAIL"}
    assert reasons == {"ValueError: no luck"}
