"""The configuration that a stored model recorded, under what one command names itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ppo_workbench.cli.options import groups
from ppo_workbench.config import ConfigError, Raw, flatten, section_of

# What decides how a stored model fares; all else is the command's.
_SECTIONS = ("market", "data", "features", "env", "costs", "risk", "reward", "splits")


@dataclass(frozen=True)
class Composed:
    """What Hydra composed: unresolved values, and the option chosen in each group."""

    cfg: DictConfig
    choices: Mapping[str, str | None]


def under_overrides(
    recorded: Raw, given: Composed, bare: Composed, overrides: Sequence[str]
) -> DictConfig:
    """Return the command's configuration with the sections that a model recorded.

    What the command names wins: a value for itself, the option of a group for its whole
    section, and whatever an option or an experiment brings along.  Horizons follow anew from
    the bars of another `data=`.

    Args:
        recorded: Unresolved sections of the model's training, older ones possibly lacking.
        given: Composed from `overrides`.
        bare: Composed from no override at all.
        overrides: As the user wrote them.
    """
    from ppo_workbench.market.horizons import KEYS, VOLATILITIES  # late: most commands need none

    merged = given.cfg.copy()
    keys = [text.lstrip("+").partition("=")[0] for text in overrides if text[0] != "~"]
    for section in _SECTIONS:
        if section not in recorded or _is_named(section, given, bare, keys):
            continue
        kept = section_of(recorded, section)
        own: Any = OmegaConf.merge(bare.cfg[section], kept)
        for container in ("columns", "extra"):  # of the user's own keys: replaced, not merged
            if container in kept:
                own[container] = kept[container]
        merged[section] = own
    # What the model recorded as it followed from its own bars.
    follow = (*KEYS, *VOLATILITIES) if _is_named("data", given, bare, keys) else ()
    with open_dict(merged):
        for key in follow:
            OmegaConf.update(merged, key, OmegaConf.select(given.cfg, key))
        for key in [*_changed(bare.cfg, given.cfg), *keys]:
            if key not in groups() and "/" not in key and key.partition(".")[0] in _SECTIONS:
                OmegaConf.update(merged, key, OmegaConf.select(given.cfg, key))
    return merged


def _is_named(section: str, given: Composed, bare: Composed, keys: Sequence[str]) -> bool:
    """Tell whether the command names the option of a whole section, directly or by another."""
    return section in keys or given.choices.get(section) != bare.choices.get(section)


def check_files(cfg: DictConfig, recorded: Raw) -> None:
    """Refuse a file of bars or events that is no longer where the model recorded it.

    Args:
        cfg: Of `under_overrides`; a file that the command names is not looked at.
        recorded: As there.

    Raises:
        ConfigError: There is no such file.
    """
    written = OmegaConf.to_container(cfg.data, resolve=False)
    assert isinstance(written, dict)
    for name in ("path", "events_path") if cfg.data.source == "file" else ("events_path",):
        place = written[name]
        recorded_there = place is not None and place == section_of(recorded, "data").get(name)
        if recorded_there and not Path(cfg.data[name]).exists():
            # As it is written: what it takes from the environment may be a secret.
            raise ConfigError(
                f"data.{name}={place}: the model was trained with this file and it is not there; "
                f"name its place, data.{name}=FILE"
            )


def _changed(bare: DictConfig, given: DictConfig) -> Iterator[str]:
    """Yield the full keys whose unresolved values differ."""
    before, after = (_leaves(cfg) for cfg in (bare, given))
    yield from (key for key, value in after.items() if key not in before or before[key] != value)


def _leaves(cfg: DictConfig) -> dict[str, object]:
    """Flatten the sections to full keys."""
    values = {name: OmegaConf.to_container(cfg[name], resolve=False) for name in _SECTIONS}
    return flatten(values)
