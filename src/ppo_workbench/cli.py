"""The command line: Hydra composes, types and ranges are checked, the pipeline runs.

The only `@hydra.main` and the last place that knows a DictConfig.  Whatever Hydra,
OmegaConf or the workbench refuses ends as one sentence on stderr and an exit code:
0 done, 1 internal error, 2 bad input, 3 nothing promoted, 130 interrupted.
"""

import argparse
import difflib
import functools
import gc
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import hydra
import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ppo_workbench.config import (
    CHANGES_ON_RESUME,
    Config,
    ConfigError,
    Interrupted,
    PromotionError,
    WorkbenchError,
    known_keys,
    unknown_key,
    validate_config,
)

FLAGS_OF_OLD = {
    "--model-type": "model",
    "--minutes": "budget.minutes",
    "--episodes": "budget.episodes",
    "--lr": "model.learning_rate",
    "--output": "output",
}


OBJECTS_BETWEEN_COLLECTIONS = 100_000
OPTIONAL_GROUPS = ("experiment", "sweep")


class _Refused(BaseException):
    """Carries a failure past Hydra, which would report any Exception itself and exit 1."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def config_folder() -> Path:
    """Return $PPO_WORKBENCH_CONF, else the installed conf folder, else the checkout's."""
    chosen = os.environ.get("PPO_WORKBENCH_CONF")
    if chosen:
        return Path(chosen).resolve()
    installed = Path(__file__).resolve().parent / "conf"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "conf"


CONF = config_folder()


def _register_schema() -> None:
    schema = OmegaConf.structured(Config)
    # The names of a file's columns are the user's: `data.columns={close: Last}` needs no `+`.
    OmegaConf.set_struct(schema.data.columns, False)
    ConfigStore.instance().store(name="config_schema", node=schema)


_register_schema()


def compose(overrides: Sequence[str] = ()) -> Config:
    """Compose and check a configuration from Python, as the command line does.

    Args:
        overrides: Hydra overrides such as `"model=ppo"` or `"budget.minutes=10"`.

    Returns:
        The resolved, checked configuration.

    Raises:
        ConfigError: A key, type, value, option or combination is not allowed.
    """
    overrides = _with_null_options(overrides)
    try:
        _check_overrides(overrides)
        with _own_hydra():
            cfg = hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
        choices = dict(cfg.hydra.runtime.choices)
        with open_dict(cfg):
            del cfg["hydra"]
        return _checked(cfg, choices)[0]
    except Exception as error:
        refused = refusal(error, overrides)
        if refused is None:
            raise
        raise refused from None


def main() -> None:
    """Run one command of the command line and exit with its code."""
    # Imports make a million objects that all stay: looking for garbage among them every 700
    # new ones was measured to take a sixth of a warm start.
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    sys.exit(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; `--help` and its kin return theirs.

    Args:
        arguments: What follows the program's name, Hydra's flags and overrides.
    """
    arguments = _with_null_options(arguments)
    verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        with _hydra_process(arguments):
            _check_flags(arguments)
            _job()
    except _Refused as carried:
        return _report(carried.error, arguments, verbose)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        print("interrupted before there was a model to keep", file=sys.stderr)
        return 130
    except Exception as error:
        return _report(error, arguments, verbose)
    return 0


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(cfg: DictConfig) -> float:
    """Run one composed configuration; a sweeper receives the float."""
    try:
        return _run(cfg)
    except Exception as error:
        if HydraConfig.get().mode is RunMode.RUN:
            raise _Refused(error) from error
        raise


def _run(cfg: DictConfig) -> float:
    config, raw, choices = _checked(cfg, dict(HydraConfig.get().runtime.choices))
    if "sweep" in choices and HydraConfig.get().mode is RunMode.RUN:
        raise ConfigError(f"sweep={choices['sweep']}: is searched under --multirun only, add it")
    # Late: refusing bad input must not wait for torch.
    from ppo_workbench import pipeline

    return float(pipeline.run(config, raw, choices))


def _checked(
    cfg: DictConfig, choices: dict[str, Any]
) -> tuple[Config, dict[str, Any], dict[str, str]]:
    """Return the checked configuration, its unresolved record and the chosen group options."""
    if cfg.get("resume"):
        cfg = _resumed(cfg)
    for group in groups():
        if choices.get(group) is None and group not in OPTIONAL_GROUPS:
            raise ConfigError(f"{group}: no option is chosen, {_choose(group)}")
    values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    config = validate_config(values)  # type: ignore[arg-type]
    raw: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        cfg, resolve=False, enum_to_str=True
    )
    if raw["budget"]["minutes"] is None:
        raw["budget"]["minutes"] = config.budget.minutes
    own = {
        group: str(option)
        for group, option in choices.items()
        if option is not None and not group.startswith("hydra/")
    }
    return config, _masked(raw), own


def _with_null_options(overrides: Sequence[str]) -> list[str]:
    """Quote null where it names an option: Hydra reads a bare `data=null` as no option at all."""
    quoted = {f"{group}=null": f"{group}='null'" for group in groups() if "null" in groups()[group]}
    return [quoted.get(override, override) for override in overrides]


def _resumed(cfg: DictConfig) -> DictConfig:
    """Return the configuration that the run to resume was started with."""
    from ppo_workbench.learning.checkpoints import find_checkpoint, read_header
    from ppo_workbench.pipeline import checkpoint_folder, home_folder

    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for override in given:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] not in CHANGES_ON_RESUME:
            allowed = ", ".join(CHANGES_ON_RESUME)
            raise ConfigError(
                f"{override}: cannot be changed on resume, the run keeps its own configuration; "
                f"only {allowed} may be given"
            )
    stored = read_header(find_checkpoint(checkpoint_folder(home_folder()), cfg.resume))["config"]
    # What was masked for the record, such as a password, is taken from this command.
    kept = {key: cfg[key] for key in CHANGES_ON_RESUME}
    schema = OmegaConf.structured(Config)
    OmegaConf.set_struct(schema.data.columns, False)
    merged = OmegaConf.merge(schema, stored, kept)
    assert isinstance(merged, DictConfig)
    return merged


def check_sweep(cfg: DictConfig, choices: dict[str, str]) -> None:
    """Check one sample of a sweep before its first trial; named by conf/sweep/.

    Raises:
        ConfigError: The sample, or what trials are judged by, is not allowed.
    """
    config, _, _ = _checked(cfg, choices)
    if config.output is not None:
        raise ConfigError(
            f"output={config.output}: a sweep writes no model; train the recommended setting that "
            "its analysis names with this output"
        )
    from ppo_workbench.pipeline.trial import check_objective

    check_objective(config)


def settle_sweep(
    cfg: DictConfig, choices: dict[str, str], kept: dict[str, Any] | None
) -> dict[str, Any]:
    """Settle once what all trials of a study share; named by conf/sweep/.

    Raises:
        ConfigError: The study was begun with another budget or objective.
    """
    config, _, _ = _checked(cfg, choices)
    from ppo_workbench.pipeline.calibration import settle

    return settle(config, kept)


def observe_sweep(home: Path, study: str, cfg: DictConfig, choices: dict[str, str]) -> Any:
    """Open the record of a study in MLflow for the sweeper; named by conf/sweep/."""
    config, raw, _ = _checked(cfg, choices)
    from ppo_workbench.records.study_record import open_study_record

    return open_study_record(config, home, study, raw)


@functools.cache
def groups() -> dict[str, tuple[str, ...]]:
    """Return the config groups and their options, from the conf folder."""
    return {
        folder.name: tuple(sorted(file.stem for file in folder.glob("*.yaml")))
        for folder in sorted(CONF.glob("*/"))
    }


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Initialise Hydra for `compose`, also where a notebook or a job has done so before."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), job_name="ppo_workbench", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


@contextmanager
def _hydra_process(arguments: Sequence[str]) -> Iterator[None]:
    """Let Hydra read these arguments and pass its exceptions on instead of exiting with 1."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [sys.argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]


def _check_flags(arguments: Sequence[str]) -> None:
    """Refuse flags that Hydra does not know or cannot combine, before it exits by itself."""
    for position, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in FLAGS_OF_OLD:
            value = value or next(iter(arguments[position + 1 :]), "VALUE")
            raise ConfigError(f"{flag}: is not a flag here, write {FLAGS_OF_OLD[flag]}={value}")
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        args, extra = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}, --help lists the flags") from None
    if extra:
        raise ConfigError(f"{extra[0]}: unknown or misplaced flag, --help lists the flags")
    modes = [args.run, args.cfg, args.multirun, args.shell_completion, args.info]
    if sum(mode not in (None, False) for mode in modes) > 1:
        raise ConfigError("--run, --cfg, --multirun, --info and --shell-completion exclude another")
    if args.resolve and not (args.cfg or args.help):
        raise ConfigError("--resolve: goes with --cfg or --help only")
    if not (args.shell_completion or args.hydra_help):
        _check_overrides(args.overrides)
    if args.multirun:
        _check_outputs(args.overrides)


def _check_overrides(overrides: Sequence[str]) -> None:
    """Refuse a group set to nothing, which Hydra reports without its name."""
    for override in overrides:
        group, equals, option = override.partition("=")
        if equals and not group:
            raise ConfigError(f"{override}: has no key, write key=value")
        if group in groups() and group not in OPTIONAL_GROUPS and option in ("", "null", "~"):
            raise ConfigError(f"{override}: is no option, {_choose(group)}")


def _check_outputs(overrides: Sequence[str]) -> None:
    """Refuse jobs that would train under one name, before the first of them has trained."""
    with _own_hydra():
        loader = GlobalHydra.instance().config_loader()
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
        keys = {override.get_key_element().lstrip("+~") for override in parsed}
        if "sweep" in keys or not keys & {"output", "experiment"}:
            return  # a sweeper with a check of its own, or names that each job makes itself
        jobs = BasicSweeper.split_arguments(parsed, None)[0]
        names = [_output_of(job) for job in jobs] if len(jobs) > 1 else []
    for name in names:
        if name is not None and names.count(name) > 1:
            raise ConfigError(
                f"output={name}: {names.count(name)} of the {len(jobs)} jobs would write this "
                f"model; give each a name of its own (\"output='{name}_${{seed}}'\") or none"
            )


def _output_of(job: Sequence[str]) -> str | None:
    """Return a job's output name; None if it has none or Hydra makes it from the job's number."""
    cfg = hydra.compose("config", overrides=list(job))
    text: Any = dict(OmegaConf.to_container(cfg, resolve=False))["output"]  # type: ignore[arg-type]
    return None if text is None or "${hydra:" in text else str(cfg.output)


def _choose(group: str) -> str:
    return f"choose {group}=X with X one of {', '.join(groups()[group])}"


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
    elif isinstance(error, OverrideParseException):
        sentence = (
            f"{error.override}: cannot be read as key=value; quote a value that holds spaces, "
            "commas, brackets or '=' (\"output='a=b'\")"
        )
    elif isinstance(error, HydraException | OmegaConfBaseException):
        sentence = _composition(error, overrides)
    elif isinstance(error, yaml.YAMLError):
        sentence = f"a configuration file is no valid YAML: {_line(str(error))}"
    else:
        return None
    return ConfigError(_without_secrets(sentence, overrides))


def _missing_option(error: MissingConfigException) -> str:
    """Explain an option, or a whole configuration, that no file defines."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group or error.options is None:
        return _line(str(error).partition("Config search path")[0])
    near = difflib.get_close_matches(option, error.options, n=1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    names = ", ".join(error.options) or "nothing, there is no such group"
    return f"{group}={option}: unknown option{guess}, allowed is {names}"


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


def _report(error: Exception, arguments: Sequence[str], verbose: bool) -> int:
    """Print what failed on stderr and return the exit code."""
    if isinstance(error, Interrupted):
        return 130  # the pipeline has said what was kept
    refused = refusal(error, arguments)
    if refused is None or verbose:
        text = "".join(traceback.format_exception(error))
        print(_without_secrets(text, arguments), file=sys.stderr)
    if refused is None:
        return 1
    print(f"error: {refused}", file=sys.stderr)
    return 3 if isinstance(refused, PromotionError) else 2


def _without_secrets(text: str, overrides: Sequence[str]) -> str:
    """Replace passwords in URLs, and values that overrides took from the environment."""
    for name in re.findall(r"oc\.env:\s*([^,}\s]+)", " ".join(overrides)):
        value = os.environ.get(name, "")
        if len(value) > 3:
            text = text.replace(value, f"${{oc.env:{name}}}")
    return _without_passwords(text)


def _without_passwords(text: str) -> str:
    return re.sub(r"(://[^:/@\s]*:)[^@/\s]+@", r"\1***@", text)


def _masked(values: Any) -> Any:
    """Copy nested plain values with the passwords of URLs masked."""
    if isinstance(values, dict):
        return {key: _masked(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_masked(value) for value in values]
    return _without_passwords(values) if isinstance(values, str) else values


def _line(text: str) -> str:
    return " ".join(text.split())
