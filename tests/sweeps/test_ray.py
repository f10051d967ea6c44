"""The Ray launcher: two workers, killed workers, and a refusal where ray is absent."""

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.sweeps.toy import start, study

from ppo_workbench.config import ConfigError

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed"
)
RAY = ["hydra/launcher=ray_pool", "hydra.launcher.n_jobs=2"]


@needs_ray
def test_ray_workers_share_a_study_exactly_and_a_killed_one_is_a_failed_trial(
    tmp_path: Path,
) -> None:
    modes = "mode=choice(kill,session)"
    grid = ["hydra.sweeper.sampler.name=grid", "x=range(0.0,1.0,0.5)"]
    counts = ["hydra.sweeper.n_trials=4", "hydra.sweeper.max_failure_rate=1"]
    running = start(tmp_path, modes, *grid, *counts, *RAY)
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 0, output
    ended = study(tmp_path).trials
    by_mode = Counter((one.params["mode"], one.state.name) for one in ended)
    assert by_mode[("kill", "FAIL")] == 2
    assert by_mode[("session", "COMPLETE")] + by_mode[("session", "PRUNED")] == 2
    assert len({tuple(one.params.values()) for one in ended}) == len(ended) == 4
    reasons = {one.user_attrs["fail_reason"] for one in ended if one.state.name == "FAIL"}
    assert reasons == {"the process was killed"}
    assert (tmp_path / "sweeps/toy/0/log.txt").read_text() == "trial 0\n"


@needs_ray
def test_ray_without_an_address_listens_on_the_loopback_interface_alone() -> None:
    code = (
        "import os; os.environ['RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'] = '0'; "
        "import ray; from ray._private.services import get_node_ip_address as address; "
        "assert address() == '127.0.0.1', address()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ray_that_is_absent_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra_plugins.ray_pool import launcher

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ray_pool = launcher.RayPoolLauncher(n_jobs=2, threads=1, address=None, log=None)
    context, config = None, None
    with pytest.raises(ConfigError, match=r"pip install 'ppo-workbench\[ray\]'"):
        ray_pool.setup(hydra_context=context, task_function=None, config=config)  # type: ignore[arg-type]


def test_ray_is_not_imported_unless_chosen() -> None:
    code = (
        "import sys; from hydra.core.plugins import Plugins; Plugins.instance(); "
        "import hydra_plugins.ray_pool.launcher; sys.exit('ray' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
