"""The launcher: fresh processes beside each other, for any sweeper."""

from pathlib import Path
from typing import Any

import pytest
from tests.sweeps.toy import objective, sweep

from ppo_workbench.config import ConfigError


def test_pool_with_hydras_own_sweeper_returns_each_value_in_order(tmp_path: Path) -> None:
    folder = f"hydra.sweep.dir={tmp_path}"
    (batch,) = sweep(tmp_path, "hydra/sweeper=basic", "x=0.1,0.2,0.3,0.4", folder)
    assert [job.return_value for job in batch] == [objective(x) for x in (0.1, 0.2, 0.3, 0.4)]
    assert [job.cfg.x for job in batch] == [0.1, 0.2, 0.3, 0.4]
    assert (tmp_path / "3" / "log.txt").read_text() == "trial None\n"


def test_pool_with_a_task_in_a_function_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inner(cfg: Any) -> float:
        return 0.0

    monkeypatch.setattr("tests.sweeps.toy.task", inner)
    with pytest.raises(ConfigError, match="at the top of its module"):
        sweep(tmp_path, "x=interval(0,1)")


def test_pool_with_a_failed_job_raises_its_error_in_other_sweepers(tmp_path: Path) -> None:
    folder = f"hydra.sweep.dir={tmp_path}"
    with pytest.raises(ValueError, match="no luck"):
        sweep(tmp_path, "hydra/sweeper=basic", "mode=value,raise", folder)
    assert "ValueError: no luck" in (tmp_path / "1" / "log.txt").read_text()
    with pytest.raises(RuntimeError, match="killed by SIGKILL"):
        sweep(tmp_path, "hydra/sweeper=basic", "mode=kill,value", folder)
