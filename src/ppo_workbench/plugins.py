"""The door for parts of a user's own, without an edit of the package (docs/extending.md).

`plugins=[my_parts]` names modules, packages, or entry points of the group `ppo_workbench.plugins`.
Each is imported once, where the first part is asked for, and registers its parts with the
decorators below.  Features, reward terms and rules are compiled into the step, so a process has
one set of plug-ins for its life: `use` before anything that computes.
"""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from ppo_workbench.config.choices import Severity
from ppo_workbench.config.errors import ConfigError, WorkbenchError

_F = TypeVar("_F", bound=Callable[..., Any])
Windows = Callable[..., int]

GROUP = "ppo_workbench.plugins"
VARIABLE = "PPO_WORKBENCH_PLUGINS"  # how a process tells those that it starts


@dataclass(frozen=True)
class OwnFeature:
    """A streaming step; see `feature`."""

    form: str
    step: Callable[..., float]
    smallest: int
    state_size: Windows
    warmup_bars: Windows


@dataclass(frozen=True)
class OwnRule:
    """A test of an order that adds risk; see `rule`."""

    test: Callable[..., bool]
    severity: Severity
    audit: Callable[..., Any] | None
    asks_account: bool
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class OwnMetric:
    """A figure of a trace; see `metric`."""

    measure: Callable[[Any], float]
    title: str
    unit: str
    better: int


@dataclass
class Parts:
    """What plug-ins have registered, by name, in the order in which they did."""

    features: dict[str, OwnFeature] = field(default_factory=dict)
    reward_terms: dict[str, Callable[..., float]] = field(default_factory=dict)
    rules: dict[str, OwnRule] = field(default_factory=dict)
    metrics: dict[str, OwnMetric] = field(default_factory=dict)
    reference_policies: dict[str, Callable[..., Any]] = field(default_factory=dict)
    sources: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin before any module was imported."""
        self.read = self.reading = False


_PARTS = Parts()


def feature(
    form: str,
    *,
    state_size: Windows = lambda *windows: 0,
    warmup_bars: Windows = lambda *windows: 0,
    smallest: int = 1,
) -> Callable[[_F], _F]:
    """Register a market feature: a step over bars with a memory of its own.

    The function takes `(bar, context, state, *windows)` and returns the value at the close of
    `bar`.  `bar` and `context` are read by the indices of `market.regimes` (CLOSE, SIGMA, ...);
    `state` is float64 (state_size,), zeros at the start of history, changed in place.  It is
    compiled by numba, and what it calls has to be `jit.lean_kernel`s.

    Compiled, nothing checks that a step stays within its arrays; it is tried as plain Python on
    up to 2,000 bars of noise first, and refused where it does not.

    Args:
        form: Name with its windows in bars: "range_<n>" is named in `features.names` as range_20.
        state_size: Floats of memory, from the windows.
        warmup_bars: Bars before the value may be used, from the windows.
        smallest: Smallest window that is allowed.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*?(_<[a-z]+>){0,3}", form):
        raise ConfigError(
            f"feature {form!r}: must be a name of a-z, 0-9 and _ with at most three windows, such "
            "as range_<n>"
        )
    return lambda step: _add(
        _PARTS.features, form, OwnFeature(form, step, smallest, state_size, warmup_bars), step
    )


def reward_term(formula: _F) -> _F:
    """Register a component of the reward under the function's name.

    The function takes `(account, outcome, params)`, a row of `ACCOUNT_DTYPE` after the mark to
    market, of `OUTCOME_DTYPE` with the built-in components filled in, and of `PARAMS_DTYPE`, and
    returns the unweighted value, at most 100 in size.  It must change nothing.  It is compiled by
    numba; `reward.extra={NAME: weight}` weighs it.
    """
    return _add(_PARTS.reward_terms, formula.__name__, formula, formula)


def rule(
    *, audit: Callable[..., Any] | None = None, severity: Severity = Severity.house
) -> Callable[[_F], _F]:
    """Register a rule that asks the account: orders that add risk are masked where it is True.

    The function takes `(account, bar, exposure, *parameters)`, a row of `ACCOUNT_DTYPE`, the row
    of `BAR_DTYPE` that just closed and the exposure asked for.  Parameters are floats with a
    default; `risk.extra={NAME: {PARAMETER: value}}` switches the rule on.  It is compiled by numba.

    Args:
        audit: The rule said once more for the audit, in numpy: `(case, **parameters)`, see
            `scoring.audit.rules.Case`, to bool (n,), True where no fill may add risk.  Without
            one the rule masks, but no model that has it on can be promoted.
        severity: `risk.extra={NAME: {severity: regulatory}}` wins.
    """
    return functools.partial(_add_rule, audit, Severity(severity), 3)


def market_rule(
    *, audit: Callable[..., Any] | None = None, severity: Severity = Severity.house
) -> Callable[[_F], _F]:
    """Register a rule that asks the market alone, once a bar.

    As `rule`, of a function that takes `(bar, *parameters)`, a row of
    `rules.market.RULE_BAR_DTYPE`.
    """
    return functools.partial(_add_rule, audit, Severity(severity), 1)


def metric(title: str, unit: str = "ratio", better: int = 0) -> Callable[[_F], _F]:
    """Register a figure of the scorecard under the function's name.

    The function takes a `scoring.trace.Trace` and returns a finite number.

    Args:
        title: What a reader calls it.
        unit: "ratio", "fraction", "count" or "USD".
        better: 1 where more is better, -1 where less is, 0 where neither is.
    """
    if not isinstance(title, str):
        raise TypeError('write @metric("Title")')
    return lambda measure: _add(
        _PARTS.metrics, measure.__name__, OwnMetric(measure, title, unit, better), measure
    )


def reference_policy(exposures: _F) -> _F:
    """Register a policy that every comparison scores beside the trained ones.

    The function takes `(bars, table, train)`, `market.bars.Bars` of T bars, their
    `market.features.MarketTable` and the training `Split`, and returns float64 (T,), the exposure
    wanted at each close, NaN = keep.  It trades under the same masks and costs.  Row t may use
    bars up to t alone: it is asked again on an altered future, and refused where it knew it.
    """
    return _add(_PARTS.reference_policies, exposures.__name__, exposures, exposures)


def source(load: _F) -> _F:
    """Register a source of bars: `data.source=NAME`, the function's name.

    The function takes the `DataConfig` and returns `market.bars.Bars`.
    """
    return _add(_PARTS.sources, load.__name__, load, load)


def use(names: Sequence[str]) -> None:
    """Settle the plug-ins of this process and of those that it starts.

    Raises:
        ConfigError: One is not found, or kernels with other plug-ins are compiled already.
    """
    wanted = tuple(dict.fromkeys(names))
    for name in wanted:
        if not re.fullmatch(r"[A-Za-z_]\w*([.-]\w+)*", name):
            raise ConfigError(
                f"plugins=[{name}]: is no name of a module; write it as in an import, without .py"
            )
    if wanted == active():
        return
    if _PARTS.read:
        raise ConfigError(
            f"plugins={_shown(wanted)}: this process has begun with {_shown(active())}, and parts "
            "are compiled into its step; name them before anything else, or start another process"
        )
    os.environ[VARIABLE] = ",".join(wanted)
    digests()


def active() -> tuple[str, ...]:
    """Return the names of this process's plug-ins."""
    return tuple(name for name in os.environ.get(VARIABLE, "").split(",") if name)


def digests() -> dict[str, str]:
    """Return the SHA-256 of the sources of each plug-in: of a module, or of a whole package.

    Raises:
        ConfigError: There is no such module.
    """
    return {name: _digest(name) for name in active()}


def registered() -> Parts:
    """Return the parts of this process's plug-ins, importing them at the first call.

    Raises:
        ConfigError: A plug-in cannot be imported, or imports something that is made of parts.
    """
    if _PARTS.reading:
        raise ConfigError(
            "imports, at its top, a module of the workbench that parts are compiled into; import "
            "it inside the function that needs it, or under typing.TYPE_CHECKING"
        )
    if not _PARTS.read:
        _PARTS.reading = True
        try:
            for name in active():
                _import(name)
        finally:
            _PARTS.reading = False
        _PARTS.read = True
    return _PARTS


def refuse_built_in(kind: str, names: Iterable[str], built_in: Iterable[str]) -> None:
    """Refuse parts that have the name of something built in.

    Raises:
        ConfigError: One has.
    """
    known = set(built_in)
    for name in names:
        if name in known:
            raise ConfigError(
                f"plugins={_shown(active())}: {kind} {name!r} is built in; give yours another name"
            )


def check(trained_with: Mapping[str, str]) -> None:
    """Refuse what was trained with parts that this process does not have, or has changed.

    Raises:
        ConfigError: A plug-in is missing, or its code is another.
    """
    own = digests()
    for name, digest in trained_with.items():
        if name not in own:
            raise ConfigError(
                f"was trained with the plug-in {name}; name it, plugins=[{name}] on the command "
                f"line or {VARIABLE}={name} in the environment of an application"
            )
        if own[name] != digest:
            raise ConfigError(
                f"was trained with another version of the plug-in {name} ({digest[:12]}, here "
                f"{own[name][:12]}); give the version of then, or train again"
            )


def _add(known: dict[str, Any], name: str, part: Any, function: _F) -> _F:
    if name in known:
        raise ConfigError(f"{name!r} is registered twice; give each part a name of its own")
    known[name] = part
    return function


def _add_rule(audit: Callable[..., Any] | None, severity: Severity, given: int, test: _F) -> _F:
    """Register a rule; what follows its first `given` arguments are parameters."""
    own = list(inspect.signature(test).parameters.values())[given:]
    if any(not isinstance(each.default, int | float) for each in own):
        raise ConfigError(f"rule {test.__name__}: every parameter needs a number as its default")
    parameters = {each.name: float(each.default) for each in own}
    made = OwnRule(test, severity, audit, given > 1, parameters)
    return _add(_PARTS.rules, test.__name__, made, test)


def _module(name: str) -> str:
    """Return the module that a name stands for: of an entry point, else its own."""
    found = entry_points(group=GROUP, name=name)
    return next(iter(found)).module if found else name


@functools.cache
def _digest(name: str) -> str:
    module = _module(name)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(
            f"plugins=[{name}]: there is no module {module!r}; put {module.replace('.', '/')}.py "
            "into the current folder or a folder of PYTHONPATH, or install its package"
        )
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(origin.parent).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _import(name: str) -> None:
    try:
        importlib.import_module(_module(name))
    except WorkbenchError as error:
        raise ConfigError(f"plugins=[{name}]: {error}") from None
    except Exception as error:
        raise ConfigError(f"plugins=[{name}]: {told_fault(error, name)}; correct it") from error


def told_fault(error: Exception, name: str) -> str:
    """Say what went wrong in a plug-in, and in which of its lines."""
    parts = _module(name).split(".")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if parts[-1] in (Path(frame.filename).stem, Path(frame.filename).parent.name)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    place = Path(frames[-1].filename).name if frames else f"{parts[-1]}.py"
    where = f"{place}, line {line}" if line else place
    return f"{type(error).__name__} in {where} ({error})"


def told_compile_fault(error: Exception) -> str | None:
    """Say which line of a plug-in numba cannot compile; None where it is none of theirs."""
    text = str(error)
    lines = [line.strip() for line in text.splitlines()]
    what = next((line for line in lines if line and not line.startswith("Failed in nopython")), "")
    for name in active():
        file = f"{_module(name).split('.')[-1]}.py"
        place = re.search(rf"at \S*{re.escape(file)} \((\d+)\)", text)
        if place:
            return (
                f"plugins={_shown(active())}: {file}, line {place[1]} cannot be compiled "
                f"({what.rstrip(':')}); a feature, term or rule may use numbers, math, numpy's "
                "element functions and the indices of bar, context and state"
            )
    return None


def _shown(names: Sequence[str]) -> str:
    return f"[{','.join(names)}]"
