"""Rules of plug-ins in the step: their settings, the fields of their parameters, their bits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ppo_workbench import plugins
from ppo_workbench.config import ConfigError, MaskRule, RiskConfig, Severity
from ppo_workbench.jit import composed_kernel


@dataclass
class OwnRuleSettings(MaskRule):
    """A plug-in's rule as `risk.extra` sets it."""

    parameters: dict[str, float] = field(default_factory=dict)


def own_fields(*, asks_account: bool) -> list[str]:
    """Return the fields that parameters of the plug-ins' rules have in the records of kernels."""
    return [
        f"{name}__{parameter}"
        for name, own in plugins.registered().rules.items()
        if own.asks_account is asks_account
        for parameter in own.parameters
    ]


def own_bits(
    bit: Mapping[str, int], head: Sequence[str], record: str, *, asks_account: bool
) -> Any:
    """Compile the plug-ins' rules of one kind into one function that returns their bits.

    Args:
        bit: Of each rule.
        head: What each rule is given, beside its parameters.
        record: The name of the record that holds the parameters.
        asks_account: Which kind.
    """
    own = {
        name: rule
        for name, rule in plugins.registered().rules.items()
        if rule.asks_account is asks_account
    }
    lines = []
    for name, rule in own.items():
        given = ", ".join([*head, *(f"{record}.{name}__{each}" for each in rule.parameters)])
        lines.append(f"    if {record}.enabled & {bit[name]} != 0 and rule_{name}({given}):\n")
        lines.append(f"        bits |= {bit[name]}\n")
    source = f"def own_bits({', '.join([*head, record])}):\n    bits = 0\n{''.join(lines)}"
    return composed_kernel(
        f"{source}    return bits\n", {f"rule_{name}": rule.test for name, rule in own.items()}
    )


def own_rules(risk: RiskConfig) -> dict[str, OwnRuleSettings]:
    """Map each rule of a plug-in to its settings.

    Raises:
        ConfigError: `risk.extra` names no such rule, or a setting that it does not have.
    """
    own = plugins.registered().rules
    for name, given in risk.extra.items():
        if name not in own:
            raise ConfigError(
                f"risk.extra has {name!r}, but switches only rules of plug-ins "
                f"({', '.join(own) or 'there are none'}); name one of these or leave it away"
            )
        if not isinstance(given, dict) or set(given) - {"severity", *own[name].parameters}:
            raise ConfigError(
                f"risk.extra.{name}={given}: must map names of "
                f"{', '.join(['severity', *own[name].parameters])} to values, {{}} changes nothing"
            )
    return {name: _own_rule(name, rule, risk) for name, rule in own.items()}


def _own_rule(name: str, rule: plugins.OwnRule, risk: RiskConfig) -> OwnRuleSettings:
    given = dict(risk.extra.get(name, {}))
    try:
        severity = Severity(given.pop("severity", rule.severity))
        parameters = {key: float(value) for key, value in {**rule.parameters, **given}.items()}
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"risk.extra.{name}: {error}; parameters are numbers, severity is one of "
            f"{', '.join(each.value for each in Severity)}"
        ) from None
    return OwnRuleSettings(name in risk.extra, severity, parameters)


def own_parameters(risk: RiskConfig, *, asks_account: bool) -> dict[str, float]:
    """Return the values of `own_fields`."""
    values = {
        f"{name}__{key}": value
        for name, settings in own_rules(risk).items()
        for key, value in settings.parameters.items()
    }
    return {key: values[key] for key in own_fields(asks_account=asks_account)}
