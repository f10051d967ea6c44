"""A job's configuration made from another's is what Hydra composes."""

import copy
from collections.abc import Iterator
from typing import Any

import hydra
import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.pool import _compose
from ppo_workbench.cli.options import CONF

FIRST = [
    "sweep=smoke",
    "model.learning_rate=0.001",
    "model.net_arch=[32,32]",
    "data=synthetic",
    "output='a b'",
    "trial.number=0",
    "hydra.sweep.subdir='0'",
]
OTHER = [
    "sweep=smoke",
    "model.learning_rate=2e-05",
    "model.net_arch=[64]",
    "data=synthetic",
    "output='12'",
    "trial.number=7",
    "hydra.sweep.subdir='7'",
]


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[HydraContext, DictConfig]]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        main = GlobalHydra.instance().hydra
        assert main is not None
        cfg = main.compose_config("config", ["sweep=smoke"], RunMode.MULTIRUN)
        yield HydraContext(config_loader=main.config_loader, callbacks=Callbacks(cfg)), cfg


def _compose_both(
    loaded: tuple[HydraContext, DictConfig], first: list[str], other: list[str]
) -> tuple[Any, Any]:
    context, master = loaded
    base = context.config_loader.load_sweep_config(master, first)
    fast = _compose.compose(context, master, other, (copy.deepcopy(base), first))
    slow = context.config_loader.load_sweep_config(master, other)
    return OmegaConf.to_container(fast), OmegaConf.to_container(slow)


def test_composition_with_other_values_equals_hydras_without_composing(
    loaded: tuple[HydraContext, DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, slow = _compose_both(loaded, FIRST, OTHER)
    assert fast == slow
    assert fast["model"]["net_arch"] == [64]
    assert fast["output"] == "12"
    base = loaded[0].config_loader.load_sweep_config(loaded[1], FIRST)
    monkeypatch.setattr(type(loaded[0].config_loader), "load_sweep_config", None)
    _compose.compose(loaded[0], loaded[1], OTHER, (base, FIRST))


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (["data=synthetic"], ["data=sp500"]),  # an option brings values of its own
        (["seed=1", "seed=2"], ["seed=3", "seed=2"]),  # the later one wins
        (["budget.minutes=1", "budget=quick"], ["budget.minutes=2", "budget=quick"]),
        (["seed=1"], ["seed=2", "threads=2"]),
        (["seed=1"], ["threads=2"]),
        (["++seed=1"], ["++seed=2"]),
        (["data.columns={close: A}"], ["data.columns={close: B}"]),
    ],
)
def test_composition_that_differs_in_more_than_values_is_left_to_hydra(
    loaded: tuple[HydraContext, DictConfig], first: list[str], other: list[str]
) -> None:
    fast, slow = _compose_both(loaded, first, other)
    assert fast == slow
