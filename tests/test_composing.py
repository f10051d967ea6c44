"""Composing by setting values on a copy gives what Hydra gives, for the files as they are."""

import os
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ppo_workbench.cli import composing
from ppo_workbench.cli.composing import composed
from ppo_workbench.cli.main import compose
from ppo_workbench.cli.options import CONF
from ppo_workbench.config import ConfigError


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=3", "model.net_arch=[16,16]", "output='a b'", "budget.minutes=null"],
        ["model=ppo", "model.learning_rate=1e-5", "data=sp500"],
        ["model.gamma=0.5", "experiment=production", "risk.cooldown.enabled=true"],
        ["market=index", "data=file", "data.path=x.csv", "data.columns={close: Last}"],
        ["++seed=3", "seed=4", "data.events_path='${oc.env:HOME}'"],
        ["compare=quick", "~compare.arms.reject", "compare.seeds=[1]"],
        ["env.exposure_levels=[-1,0,1]", "env.exposure_levels=[0,1]"],
        ["reward.extra={a: 1}"],
    ],
)
def test_composition_equals_hydras(overrides: list[str]) -> None:
    composed([])
    ours, theirs = composed(overrides), composing._by_hydra(tuple(overrides))
    assert OmegaConf.to_container(ours.cfg) == OmegaConf.to_container(theirs.cfg)
    assert ours.choices == theirs.choices
    assert OmegaConf.is_struct(ours.cfg) == OmegaConf.is_struct(theirs.cfg)


def test_values_are_set_without_hydra_and_on_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    composed([]).cfg.seed = 8
    monkeypatch.setattr(composing, "_by_hydra", None)
    assert composed(["model.gamma=0.5"]).cfg.model.gamma == 0.5
    assert composed(["threads=1"]).cfg.seed != 8
    assert composed([]).cfg.model.gamma != 0.5


def test_bad_value_is_refused_as_hydra_refuses_it() -> None:
    for override, words in {
        "model.gama=0.5": "did you mean model.gamma",
        "model.gamma=high": "model.gamma=high: must be a number",
    }.items():
        with pytest.raises(ConfigError, match=words):
            compose([override])


def test_edited_file_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.setattr(composing, "CONF", tmp_path / "conf")
    before = composed(["seed=1"]).cfg.model.n_epochs
    path = tmp_path / "conf" / "model" / "mine.yaml"
    for epochs in (before + 1, before + 2):
        path.write_text(f"defaults: [maskable_ppo]\nn_epochs: {epochs}\n", encoding="utf-8")
        os.utime(path, ns=(epochs, epochs))
        assert composed(["model=mine", "seed=1"]).cfg.model.n_epochs == epochs
