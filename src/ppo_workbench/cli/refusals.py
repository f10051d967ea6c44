"""One sentence for everything that is refused: what was given, what is wrong, what to do."""

import difflib
import os
import re
import shlex
import shutil
import sys
import textwrap
import traceback
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml  # type: ignore[import-untyped]
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ppo_workbench.cli.options import file_markets, groups
from ppo_workbench.config import (
    ConfigError,
    Interrupted,
    PromotionError,
    WorkbenchError,
    known_keys,
    unknown_key,
)
from ppo_workbench.config.secrets import Redactor
from ppo_workbench.plugins import told_compile_fault
from ppo_workbench.starting import START_LINE


def refusal(error: Exception, overrides: Sequence[str] = ()) -> WorkbenchError | None:
    """Return the one sentence that a user can act on, or None for an internal error.

    Args:
        error: What Hydra, OmegaConf, a YAML file or the workbench raised.
        overrides: What the user gave, to repeat it in the sentence.
    """
    if isinstance(error, WorkbenchError):
        return type(error)(_without_secrets(_line(str(error)), overrides))
    if isinstance(error, MissingConfigException):
        sentence = _missing_option(error)
    elif isinstance(error, OverrideParseException) and error.override.startswith("data=~/"):
        sentence = _file_as_option(error.override.removeprefix("data="))
    elif isinstance(error, OverrideParseException):
        sentence = (
            f"{error.override}: cannot be read as key=value; quote a value that holds spaces, "
            "commas, brackets or '=' (\"output='a=b'\")"
        )
    elif isinstance(error, HydraException | OmegaConfBaseException):
        sentence = _composition(error, overrides)
    elif isinstance(error, yaml.YAMLError):
        sentence = f"a configuration file is no valid YAML: {_line(str(error))}"
    elif type(error).__module__.startswith("numba.") and (told := told_compile_fault(error)):
        sentence = told
    else:
        return None
    return ConfigError(_without_secrets(sentence, overrides))


def _missing_option(error: MissingConfigException) -> str:
    """Explain an option, or a whole configuration, that no file defines."""
    group, _, option = (error.missing_cfg_file or "").partition("/")
    if group not in groups():
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if group == "data" and ("/" in option or Path(option).suffix):
        return _file_as_option(option)
    if not group or error.options is None:
        return _line(str(error).partition("Config search path")[0])
    near = difflib.get_close_matches(option, error.options, n=1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    names = ", ".join(error.options) or "nothing, there is no such group"
    return f"{group}={option}: unknown option{guess}, allowed is {names}"


def _file_as_option(path: str) -> str:
    """Say how bars of a file are named."""
    place = shlex.quote(path) if path[0] != "~" else f"$HOME{path[1:]}"
    return (
        f"data={path}: names a file, write data=file data.path={place} market=X with X one of "
        f"{file_markets()}"
    )


def _composition(error: Exception, overrides: Sequence[str]) -> str:
    """Explain a refused key or value; Hydra names it in the text, OmegaConf in an attribute."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(error) if cause is error else f"{error}\n{cause}"
    found = re.search(r"full_key: (\S+)", text)
    key = (getattr(cause, "full_key", None) or (found[1] if found else "")).split("[")[0]
    ambiguous = re.search(r"Ambiguous value for argument '(.*)'", text)
    if ambiguous:
        return f"{ambiguous[1]}: gives several values, add --multirun or quote them as one value"
    group = re.search(r"Could not override '([^']+)'\. No match in the defaults list", text)
    if group:
        return f"{_source(text)}{group[1]}: unknown group, known are {', '.join(groups())}"
    if not key or key.startswith("hydra."):
        return _line(text.partition("full_key")[0])
    subject = _source(text) + _given(key, overrides)
    if isinstance(cause, MissingMandatoryValue):
        return f"{subject}: a value is needed, write {key}=VALUE"
    if re.search(r"Key '[^']*' (not in|is not in struct)", text):
        return f"{subject}: {_unknown(key)}"
    if "interpolation" in text.lower():
        return f"{subject}: {_line(str(cause).partition('full_key')[0])}"
    detail = _line(str(cause).partition("full_key")[0].partition("composing config:")[2])
    allowed = known_keys().get(key)
    expected = f"must be {_in_words(allowed)}" if allowed is not None else "cannot be set so"
    return f"{subject}: {expected}" + (f" ({detail})" if detail else "")


def _unknown(key: str) -> str:
    """Say what is near an unknown key, a group among them."""
    near = [] if "." in key else difflib.get_close_matches(key, groups(), n=1)
    if near == [key]:  # only experiment is a group without being a section
        return "'# @package _global_' must be the first line of an experiment"
    if near:
        return f"unknown group, did you mean {near[0]}? the groups are {', '.join(groups())}"
    return unknown_key(key)


def _source(text: str) -> str:
    """Name the configuration file that is to blame, if Hydra did."""
    found = re.match(r"In '([^']+)'", text)
    return f"{found[1]}.yaml: " if found else ""


def _given(key: str, overrides: Sequence[str]) -> str:
    """Return the override that set this key as the user wrote it, else the key."""
    given = [text for text in overrides if text.lstrip("+~").partition("=")[0] == key]
    return given[-1] if given else key


def _in_words(kind: Any) -> str:
    """Say which values a field of this annotated type takes."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        limits = [
            f", {sign} {getattr(limit, name)}"
            for limit in getattr(arguments[1], "metadata", ())
            for name, sign in signs.items()
            if hasattr(limit, name)
        ]
        return _in_words(arguments[0]) + "".join(limits)
    if origin in (UnionType, Union):
        return " or ".join(_in_words(argument) for argument in arguments)
    if origin is list:
        return f"a list [a, b], each {_in_words(arguments[0])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(member.name for member in kind)}"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    return words.get(kind, "null" if kind is type(None) else "a section {key: value}")


def report(error: Exception, arguments: Sequence[str], verbose: bool) -> int:
    """Print what failed on stderr and return the exit code."""
    START_LINE.end()
    if isinstance(error, Interrupted):
        return 130  # the pipeline has said what was kept
    refused = refusal(error, arguments)
    if refused is None or verbose:
        text = "".join(traceback.format_exception(error))
        print(_without_secrets(text, arguments), file=sys.stderr)
    if refused is None:
        return 1
    print(_wrapped(f"error: {refused}"), file=sys.stderr)
    return 3 if isinstance(refused, PromotionError) else 2


def _wrapped(sentence: str) -> str:
    """Break a sentence between words where a terminal would break it within one."""
    if not sys.stderr.isatty():
        return sentence
    columns = shutil.get_terminal_size().columns
    return textwrap.fill(sentence, columns, break_long_words=False, break_on_hyphens=False)


def _without_secrets(text: str, overrides: Sequence[str]) -> str:
    """Replace secrets, and values that overrides took from the environment."""
    for name in re.findall(r"oc\.env:\s*([^,}\s]+)", " ".join(overrides)):
        value = os.environ.get(name, "")
        if len(value) > 3:
            text = text.replace(value, f"${{oc.env:{name}}}")
    return Redactor(*overrides)(text)


def _line(text: str) -> str:
    return " ".join(text.split())
