"""A job's configuration from another job's, where they differ in values alone.

Composing takes Hydra 0.15 seconds of a core, in every job again; replacing values 0.01.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf


def compose(
    context: HydraContext,
    master: DictConfig,
    overrides: Sequence[str],
    first: tuple[DictConfig, Sequence[str]] | None,
) -> DictConfig:
    """Return what Hydra's `load_sweep_config` would.

    Args:
        context: Hydra's.
        master: The sweep's configuration.
        overrides: All of the job's overrides.
        first: Another job's configuration, which is changed, and its overrides; None if
            there is none.
    """
    if first is not None:
        changes = _changes(context, list(overrides), list(first[1]))
        if changes is not None:
            texts = dict(zip(first[1], overrides, strict=True))
            return _replaced(first[0], changes, texts)
    return context.config_loader.load_sweep_config(master, list(overrides))


def _changes(
    context: HydraContext, overrides: list[str], others: list[str]
) -> list[Override] | None:
    """Return the overrides that differ, or None if they do more than to replace values."""
    if len(overrides) != len(others):
        return None
    places = [k for k, pair in enumerate(zip(overrides, others, strict=True)) if pair[0] != pair[1]]
    parser = OverridesParser.create()
    mine = parser.parse_overrides([overrides[k] for k in places])
    theirs = parser.parse_overrides([others[k] for k in places])
    keys = [_key(text) for text in overrides]
    repository: Any = context.config_loader
    for place, new, old in zip(places, mine, theirs, strict=True):
        key = new.key_or_group
        alone = all(k == place or not _overlap(key, other) for k, other in enumerate(keys))
        same = key == old.key_or_group and new.type == old.type and new.package is None
        if not (alone and same and _plain(new) and _plain(old)):
            return None
        if repository.repository.group_exists(key):
            return None
    return mine


def _plain(override: Override) -> bool:
    """Tell whether an override replaces a single value of the configuration."""
    odd = override.is_delete() or override.is_add() or override.is_force_add()
    return not (odd or override.is_sweep_override() or isinstance(override.value(), dict))


def _key(text: str) -> str:
    return text.lstrip("+~").partition("=")[0]


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _replaced(
    config: DictConfig, changes: Sequence[Override], texts: Mapping[str, str]
) -> DictConfig:
    for change in changes:
        OmegaConf.update(config, change.key_or_group, change.value(), merge=True)
    hydra = config.hydra
    hydra.overrides.task = [texts.get(text, text) for text in hydra.overrides.task]
    hydra.overrides.hydra = [texts.get(text, text) for text in hydra.overrides.hydra]
    rule = hydra.job.config.override_dirname
    shown = [text for text in hydra.overrides.task if _key(text) not in rule.exclude_keys]
    hydra.job.override_dirname = rule.item_sep.join(sorted(shown)).replace("=", rule.kv_sep)
    return config
