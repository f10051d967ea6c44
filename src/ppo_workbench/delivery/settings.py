"""The settings that a stored model decides with, read back from its metadata."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ppo_workbench import plugins
from ppo_workbench.config import ArtifactError, Config, ConfigError, validate_config
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.trading.actions import action_space

# What the step reads. Other sections say how a model was found, and may hold secrets.
SECTIONS = ("features", "env", "costs", "risk", "reward", "market")

_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")


def stored_config(metadata: Metadata) -> Config:
    """Return the configuration that a model decides with, checked against its actions.

    Market, features, environment, costs, risk rules and reward are the model's own; everything
    else has its default.  `metadata.config` is recorded as it was written: references to other keys
    (`${data.high_volatility_cost_multiplier}`) are looked up in it.

    Raises:
        ArtifactError: A section is missing or breaks a rule of the configuration, a value
            depends on the environment of the training, or actions, exposure levels or
            feature settings are not those that the metadata name.
    """
    check_plugins(metadata)
    values = {name: _resolved(metadata, metadata.config.get(name)) for name in SECTIONS}
    missing = [name for name, value in values.items() if not isinstance(value, Mapping)]
    if missing:
        raise _refused(metadata, f"its configuration has no section {missing[0]!r}")
    model = {"type": metadata.model_type, "activation": metadata.architecture.activation}
    try:
        config = validate_config({**values, "model": model})
    except ConfigError as error:
        raise _refused(metadata, f"its configuration cannot be used: {error}") from None
    _check_actions(metadata, config)
    if asdict(config.features) != metadata.feature_specification:
        raise _refused(metadata, "feature_specification differs from its configuration")
    return config


def check_plugins(metadata: Metadata) -> None:
    """Refuse a model whose training had parts that this process lacks.

    They are never imported for a model's sake: whoever runs it names them.

    Raises:
        ArtifactError: A plug-in is not named, or its code is another.
    """
    try:
        plugins.check(metadata.plugins)
    except ConfigError as error:
        raise ArtifactError(f"model {metadata.name!r}: {error}") from None


def _check_actions(metadata: Metadata, config: Config) -> None:
    space = action_space(config.env)
    pairs = {
        "action_names": (metadata.action_names, list(space.names)),
        "exposure_levels": (metadata.exposure_levels, [float(x) for x in space.levels]),
    }
    for field, (named, made) in pairs.items():
        if named != made:
            raise _refused(metadata, f"{field} are {named}, its configuration makes {made}")


def _resolved(metadata: Metadata, value: Any) -> Any:
    """Copy nested values with references to other keys of the configuration looked up."""
    if isinstance(value, Mapping):
        return {key: _resolved(metadata, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(metadata, item) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    found: Any = metadata.config
    reference = _REFERENCE.fullmatch(value)
    for key in reference[1].split(".") if reference else ("",):
        found = found.get(key) if isinstance(found, Mapping) else None
    if found is None or isinstance(found, str):
        raise _refused(metadata, f"{value} in its configuration is known only where it was trained")
    return found


def _refused(metadata: Metadata, reason: str) -> ArtifactError:
    return ArtifactError(f"model {metadata.name!r}: {reason}; train it anew")
