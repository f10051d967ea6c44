"""What the tasks decide by themselves; tests/e2e runs them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ppo_workbench.cli.main import compose
from ppo_workbench.config import ConfigError, flatten
from ppo_workbench.market.horizons import KEYS
from ppo_workbench.pipeline import tasks
from ppo_workbench.pipeline.models import stored
from ppo_workbench.pipeline.models.stored import find_artifact, home_folder
from ppo_workbench.pipeline.tasks import default_name
from ppo_workbench.pipeline.train import fitting


def test_default_name_is_model_type_time_and_a_short_id() -> None:
    names = {default_name(compose(["model=ppo"])) for _ in range(2)}

    assert len(names) == 2
    assert all(re.fullmatch(r"ppo_\d{8}T\d{6}Z_[0-9a-f]{4}", name) for name in names)


def test_home_folder_is_the_environment_else_the_current_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path))
    assert home_folder() == tmp_path

    monkeypatch.delenv("PPO_WORKBENCH_HOME")
    monkeypatch.chdir(tmp_path)
    assert home_folder() == tmp_path


@pytest.mark.parametrize("folder", ["trained_models", "baselines"])
def test_find_artifact_by_name_looks_in_both_folders(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path))
    path = tmp_path / folder / "model.pth"
    path.parent.mkdir()
    path.touch()

    assert find_artifact("model") == (path.parent, "model")
    assert find_artifact(str(path)) == (path.parent, "model")
    assert find_artifact(str(path.with_suffix(""))) == (path.parent, "model")
    with pytest.raises(ConfigError, match="artifact=other: no such model"):
        find_artifact("other")


def test_training_of_the_warm_up_leaves_no_trace_in_the_real_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path))
    overrides = [
        "data.synthetic.sessions=16",
        "env.episode_bars=390",
        "features.names=[return_1]",
        "features.volatility_slow_bars=195",
        "model.n_envs=4",
        "model.n_steps=32",
        "model.batch_size=64",
        "budget.timesteps=256",
        "tracking.enabled=false",
        "overwrite=true",
        "output=same",
    ]
    with_warm_up = tasks.train(compose(overrides))
    first = torch.load(with_warm_up.paths.pth, weights_only=True)
    monkeypatch.setattr(fitting, "warm_up", lambda *_: None)

    without = tasks.train(compose(overrides))

    second = torch.load(without.paths.pth, weights_only=True)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert without.scorecards == with_warm_up.scorecards


def test_model_and_checkpoint_record_what_followed_from_the_bars(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path))
    headers: list[Mapping[str, Any]] = []
    monkeypatch.setattr(
        fitting, "write_checkpoint", lambda path, state, header: headers.append(header)
    )
    overrides = [
        "data.synthetic.sessions=40",
        "env.gamma=0.9",
        "features.volatility_slow_bars=195",
        *("model.n_envs=4", "model.n_steps=32", "model.batch_size=64", "budget.timesteps=256"),
        *("tracking.enabled=false", "checkpoint.every_seconds=0", "output=recorded"),
    ]

    outcome = tasks.train(compose(overrides))

    assert headers
    for recorded in (outcome.metadata.config, headers[-1]["config"]):
        values = flatten(recorded)
        assert [key for key in KEYS if values[key] is None] == []
        assert (values["env.episode_bars"], values["splits.gap_bars"]) == (1950, 390)
        assert (values["env.gamma"], values["model.gamma"]) == (0.9, 0.9)
        assert values["features.volatility_slow_bars"] == 195
    assert stored.backtest(compose(overrides), "recorded").initial_equity_usd == 100_000.0


def test_artifact_path_is_found_from_home_and_from_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(home))
    (tmp_path / "here" / "sweeps" / "s" / "0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    folder = home / "sweeps" / "s" / "0"
    folder.mkdir(parents=True)
    (folder / "seed_0.pth").touch()

    assert find_artifact("sweeps/s/0/seed_0") == (folder, "seed_0")
    (tmp_path / "here" / "sweeps" / "s" / "0" / "seed_0.pth").touch()
    assert find_artifact("sweeps/s/0/seed_0.pth") == (Path("sweeps/s/0"), "seed_0")
