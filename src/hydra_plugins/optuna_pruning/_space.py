"""Hydra's sweep syntax read as a search space: what is fixed, what is sampled, from what."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
)
from hydra.errors import HydraException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ppo_workbench.config import ConfigError


@dataclass(frozen=True)
class Parameter:
    """One searched parameter.

    Attributes:
        name: Its name in the study, a config key or group.
        key: Left side of its override, `name` with `+` or `++` if given so.
        text: The sweep as the user wrote it.
        distribution: What Optuna samples from.
        choices: Override text of each categorical choice.
    """

    name: str
    key: str
    text: str
    distribution: BaseDistribution
    choices: tuple[str, ...] = field(default=())

    def override(self, value: Any) -> str:
        """Return the override that gives the parameter this value."""
        if isinstance(self.distribution, CategoricalDistribution):
            return f"{self.key}={self.choices[int(self.distribution.to_internal_repr(value))]}"
        return f"{self.key}={value!r}"

    def ends(self) -> list[Any]:
        """Return the values to try when a configuration is checked: all choices, or both ends."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        return [distribution.low, distribution.high]

    def middle(self) -> Any:
        """Return a value in the middle, by the search's scale."""
        values, distribution = self.values(), self.distribution
        if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
            low, high = math.log(distribution.low), math.log(distribution.high)
            middle = min(max(math.exp((low + high) / 2), distribution.low), distribution.high)
            return round(middle) if isinstance(distribution, IntDistribution) else middle
        if values is not None:
            return values[len(values) // 2]
        assert isinstance(distribution, FloatDistribution)
        return (distribution.low + distribution.high) / 2

    def values(self) -> list[Any] | None:
        """Return every value, or None where there are infinitely many."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        if distribution.step is None:
            return None
        count = round((distribution.high - distribution.low) / distribution.step) + 1
        return [distribution.low + k * distribution.step for k in range(count)]

    def stored(self, value: Any) -> Any:
        """Return a given value as the study stores it.

        Raises:
            ConfigError: The value is not in the distribution.
        """
        if isinstance(value, list | dict):
            value = Override._get_value_element_as_str(value)
        distribution = self.distribution
        try:
            if isinstance(distribution, FloatDistribution) and not isinstance(value, bool):
                value = float(value)
            inside = distribution._contains(distribution.to_internal_repr(value))
        except (ValueError, TypeError):
            inside = False
        if not inside:
            raise ConfigError(f"{self.name}={value}: is outside of the search space {self.text}")
        return value


@dataclass(frozen=True)
class Space:
    """Fixed overrides, and the parameters that are searched."""

    fixed: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Return name -> distribution."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    def overrides(self, values: Mapping[str, object]) -> list[str]:
        """Return all overrides of the job with these parameter values."""
        searched = [one.override(values[one.name]) for one in self.parameters]
        return [*self.fixed, *searched]


def read_space(
    params: Mapping[str, object], arguments: Sequence[str], loader: ConfigLoader | None = None
) -> Space:
    """Read the `params:` mapping and the command line, which wins for a key given in both.

    Args:
        params: Key -> sweep syntax, or a plain value that all trials share.
        arguments: Overrides of the command line.
        loader: Knows the options of config groups, for `glob`.

    Raises:
        ConfigError: A sweep cannot be sampled, or nothing is searched.
    """
    texts = [f"{key}={_as_text(value)}" for key, value in params.items()]
    parser = OverridesParser.create(config_loader=loader)
    found: dict[str, tuple[Override, str]] = {}
    for text in [*texts, *arguments]:
        override = _parse(parser, text)
        override.config_loader = loader  # knows a group's options for `glob`
        name = override.get_key_element().lstrip("+~")
        found.pop(name, None)
        found[name] = (override, text)
    fixed, parameters = [], []
    for name, (override, text) in found.items():
        if override.is_sweep_override():
            parameters.append(_parameter(name, override, text))
        else:
            fixed.append(text)
    if not parameters:
        raise ConfigError(
            "nothing to search: give a parameter a sweep such as "
            "'model.learning_rate=tag(log,interval(1e-4,1e-3))', or choose sweep=NAME"
        )
    return Space(tuple(fixed), tuple(parameters))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else Override._get_value_element_as_str(value)


def _parse(parser: OverridesParser, text: str) -> Override:
    try:
        return parser.parse_override(text)
    except HydraException as error:
        if re.search(r"args.*NoneType|isinstance\(None", str(error), re.DOTALL):
            raise ConfigError(
                f"{text}: Hydra takes no null inside a function, write the values as a,null"
            ) from None
        reason = " ".join(str(error.__cause__ or error).split())
        if reason == "None":  # the parser's own way to say nothing
            reason = "a bracket or quote is not closed, or a comma is missing"
        raise ConfigError(f"{text}: cannot be read as a sweep or a value ({reason})") from None


def _parameter(name: str, override: Override, text: str) -> Parameter:
    key, given = override.get_key_element(), text.partition("=")[2]
    sweep = override._value
    try:
        tags: set[str] = getattr(sweep, "tags", set())
        if tags - {"log"}:
            raise ValueError(f"the tag {sorted(tags - {'log'})[0]} is unknown, known is log")
        if isinstance(sweep, IntervalSweep):
            return Parameter(name, key, given, _interval(sweep))
        if isinstance(sweep, RangeSweep):
            return Parameter(name, key, given, _range(sweep))
        if isinstance(sweep, ChoiceSweep) and "log" in tags:
            raise ValueError("log goes with an interval or a range")
        # Not shuffled: the study keeps the order of the choices.
        items = sweep.list if isinstance(sweep, ChoiceSweep) else list(override.sweep_iterator())
        values = [_choice_value(item) for item in items]
        _check_choices(values)
    except (ValueError, HydraException) as error:
        raise ConfigError(f"{text}: {error}") from None
    texts = tuple(_item_text(item) for item in items)
    return Parameter(name, key, given, CategoricalDistribution(values), texts)


def _check_choices(values: Sequence[Any]) -> None:
    if not values:
        raise ValueError("there is nothing to choose from")
    for position, value in enumerate(values):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} cannot be a choice, quote it if it is a word")
        # Python holds 1, 1.0 and True for equal, and so does the study.
        if any(value == other for other in values[:position]):
            raise ValueError(f"the choice {value} is given twice")


def _choice_value(item: Any) -> Any:
    """Return what the study stores for a choice: a plain value, or the text of a list."""
    if isinstance(item, QuotedString):
        return item.text
    if isinstance(item, list | dict):
        return Override._get_value_element_as_str(item)
    return item


def _item_text(item: Any) -> str:
    text = Override._get_value_element_as_str(item)
    if isinstance(item, str) and not isinstance(
        _parse(OverridesParser.create(), f"k={text}")._value, str
    ):
        return QuotedString(item, Quote.single).with_quotes()  # str(1) must stay a text
    return text


def _interval(sweep: IntervalSweep) -> BaseDistribution:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    _check_finite(low, high)
    if low > high:
        raise ValueError(f"the interval is upside down, write interval({high},{low})")
    _check_log(log, low)
    make: Callable[..., BaseDistribution] = FloatDistribution
    if isinstance(low, int) and isinstance(high, int):
        make = IntDistribution
    return make(low, high, log=log)


def _range(sweep: RangeSweep) -> BaseDistribution:
    """Read a range as Hydra does: `stop` is not part of it, and the order has no meaning."""
    _check_finite(sweep.start, sweep.stop, sweep.step)
    if not sweep.step:
        raise ValueError("the step of a range must not be 0")
    values = list(sweep.range())
    if not values:
        raise ValueError("the range is empty, its stop does not belong to it")
    low, high, step = min(values), max(values), abs(sweep.step)
    log = "log" in sweep.tags
    _check_log(log, low)
    if all(isinstance(value, int) for value in values):
        if log and step != 1:
            raise ValueError("log goes with a step of 1 only")
        return IntDistribution(int(low), int(high), log=log, step=int(step))
    if log:
        raise ValueError("log goes with an interval where values are no whole numbers")
    return FloatDistribution(float(low), float(high), step=float(step))


def _check_finite(*numbers: float | None) -> None:
    for number in numbers:
        if number is not None and not math.isfinite(number):
            raise ValueError(f"{number} cannot be an end or a step, write a finite number")


def _check_log(log: bool, low: float) -> None:
    if log and low <= 0:
        raise ValueError(f"a logarithmic scale must begin above 0, not at {low}")
