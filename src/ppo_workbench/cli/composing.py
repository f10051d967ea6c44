"""Composing from Python: Hydra reads options once, and values are set on a copy of that.

Composing takes Hydra 0.15 seconds of a core, setting values 0.03.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf, open_dict

from ppo_workbench.cli.options import CONF, groups
from ppo_workbench.cli.recorded import Composed


def composed(overrides: Sequence[str]) -> Composed:
    """Compose overrides; interpolations stay as they are written.

    Raises:
        HydraException: An override is refused; some come as another error of OmegaConf.
    """
    with suppress(Exception):  # what is wrong with them, Hydra says
        return _with_values(overrides)
    return _by_hydra(tuple(overrides))


@contextmanager
def own_hydra() -> Iterator[None]:
    """Initialise Hydra for composing, also where a notebook or a job has done so before."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), job_name="ppo_workbench", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def _with_values(overrides: Sequence[str]) -> Composed:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = [one for one in parsed if _is_value(one)]
    others = tuple(str(one.input_line) for one in parsed if not _is_value(one))
    files = tuple((str(path), path.stat().st_mtime_ns) for path in sorted(CONF.rglob("*.yaml")))
    kept = _kept(others, files)
    cfg = copy.deepcopy(kept.cfg)
    for one in values:
        OmegaConf.update(cfg, one.key_or_group, one.value(), merge=True)
    return Composed(cfg, dict(kept.choices))


def _is_value(override: Override) -> bool:
    """Tell whether an override sets one value, which brings nothing else along."""
    odd = override.is_delete() or override.is_add() or override.is_force_add()
    key = override.key_or_group
    odd = odd or override.is_sweep_override() or override.package is not None or key in groups()
    return not (odd or key.startswith("hydra") or isinstance(override.value(), dict))


@lru_cache(maxsize=16)
def _kept(overrides: tuple[str, ...], files: Any) -> Composed:
    """Compose options once for each state of the files, `(path, time)` of each."""
    return _by_hydra(overrides)


def _by_hydra(overrides: tuple[str, ...]) -> Composed:
    with own_hydra():
        cfg = hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return Composed(cfg, choices)
