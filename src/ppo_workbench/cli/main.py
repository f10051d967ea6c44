"""The command line: Hydra composes, types and ranges are checked, the pipeline runs.

The only `@hydra.main` and the last place that knows a DictConfig.  Whatever Hydra,
OmegaConf or the workbench refuses ends as one sentence on stderr and an exit code:
0 done, 1 internal error, 2 bad input, 3 nothing promoted, 130 interrupted.
"""

import argparse
import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ppo_workbench import plugins
from ppo_workbench.cli.composing import composed, own_hydra
from ppo_workbench.cli.options import CONF, SYNTHETIC, choose, file_markets, groups
from ppo_workbench.cli.recorded import Composed, check_files, under_overrides
from ppo_workbench.cli.refusals import refusal, report
from ppo_workbench.config import (
    CHANGES_ON_RESUME,
    SOURCES_WITHOUT_FILE,
    Config,
    ConfigError,
    Raw,
    Task,
    TrackingConfig,
    section_of,
    validate_config,
)
from ppo_workbench.config.machine import require_posix
from ppo_workbench.config.secrets import masked
from ppo_workbench.starting import START_LINE

if TYPE_CHECKING:
    from ppo_workbench.pipeline.train.calibration import Settled

FLAGS_OF_OLD = {
    "--model-type": "model",
    "--minutes": "budget.minutes",
    "--episodes": "budget.episodes",
    "--lr": "model.learning_rate",
    "--output": "output",
}


OBJECTS_WHILE_IMPORTING = 1_000_000
OBJECTS_BETWEEN_COLLECTIONS = 100_000
OPTIONAL_GROUPS = ("experiment", "sweep", "compare")
ON_ITS_BARS = (Task.evaluate, Task.audit, Task.paper, Task.verify)
NOTHING_BEGUN = "interrupted: nothing had begun, nothing is written"
DEFAULT_COMPARISON = "compare=quick"


class _Refused(BaseException):
    """Carries a failure past Hydra, which would report any Exception itself and exit 1."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _schema() -> DictConfig:
    """Return the typed configuration, in which the keys of some containers are the user's."""
    schema: DictConfig = OmegaConf.structured(Config)
    # `data.columns={close: Last}` needs no `+`.
    for key in ("data.columns", "reward.extra", "risk.extra", "compare.arms", "compare.markets"):
        OmegaConf.set_struct(OmegaConf.select(schema, key), False)
    return schema


ConfigStore.instance().store(name="config_schema", node=_schema())


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
        given = composed(overrides)
        _check_market(given)
        return _checked(_with_recorded(given, overrides), given.choices)[0]
    except Exception as error:
        refused = refusal(error, overrides)
        if refused is None:
            raise
        raise refused from None


def main() -> None:
    """Run one command of the command line and exit with its code."""
    # Imports make a million objects that all stay: looking for garbage among them every 700
    # new ones was measured to take a sixth of a warm start, every 100,000 a tenth.
    gc.set_threshold(OBJECTS_WHILE_IMPORTING)
    sys.exit(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; `--help` and its kin return theirs.

    Args:
        arguments: What follows the program's name, Hydra's flags and overrides.
    """
    if any(flag.startswith("-") and flag not in ("--multirun", "-m") for flag in arguments):
        START_LINE.end()  # Hydra prints what is asked for
    arguments = _with_null_options(arguments)
    verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        require_posix()
        with _hydra_process(arguments):
            _check_flags(arguments)
            _job()
    except _Refused as carried:
        return report(carried.error, arguments, verbose)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt as interrupt:
        START_LINE.end()
        print(interrupt if interrupt.args else NOTHING_BEGUN, file=sys.stderr)
        return 130
    except Exception as error:
        return report(error, arguments, verbose)
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
    given = Composed(cfg, dict(HydraConfig.get().runtime.choices))
    _check_market(given)
    # As they were written: a value from the environment is for no record.
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(overrides, list)
    cfg = _with_recorded(given, overrides)
    config, raw, choices = _checked(cfg, given.choices)
    if "sweep" in choices and HydraConfig.get().mode is RunMode.RUN:
        raise ConfigError(f"sweep={choices['sweep']}: is searched under --multirun only, add it")
    if config.task is Task.check_data:
        return _check_data(config, choices, overrides)
    # Late: refusing bad input must not wait for torch.
    START_LINE.say("loading torch and stable-baselines3")
    from ppo_workbench.pipeline import tasks
    from ppo_workbench.pipeline.given import Given

    _collect_garbage_as_usual()
    START_LINE.end()
    asked = Given(config, raw, choices, overrides)
    if config.task is not Task.compare or config.compare.cell.name is not None:
        return float(tasks.run(asked))
    from ppo_workbench.cli.launching import LauncherJobs

    return float(tasks.run(asked, LauncherJobs(_job)))


def _check_data(config: Config, choices: Mapping[str, str], overrides: Sequence[str]) -> float:
    """Check a file; return the number of overrides of the command that trains on it."""
    START_LINE.say("reading the file")
    from ppo_workbench.pipeline.check_data import check_data

    _collect_garbage_as_usual()
    START_LINE.end()
    passed = ("data.", "plugins=")
    own = [text for text in overrides if text.lstrip("+").startswith(passed)]
    market = choices.get("market", SYNTHETIC)
    named = None if market == SYNTHETIC else market
    return float(len(check_data(config, compose, ["data=file", *own], named)))


def _collect_garbage_as_usual() -> None:
    """End what `main` began: what is there by now was imported and stays."""
    if gc.get_threshold()[0] == OBJECTS_WHILE_IMPORTING:
        gc.freeze()
        gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def _checked(
    cfg: DictConfig, choices: Mapping[str, str | None]
) -> tuple[Config, Raw, dict[str, str]]:
    """Return the checked configuration, its unresolved record and the chosen group options."""
    if cfg.get("resume"):
        cfg = _resumed(cfg)
    optional = (*OPTIONAL_GROUPS, *(["market"] if cfg.task is Task.check_data else []))
    for group in groups():
        if choices.get(group) is None and group not in optional:
            raise ConfigError(f"{group}: no option is chosen, {choose(group)}")
    values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    config = validate_config(values)  # type: ignore[arg-type]
    plugins.use(config.plugins)
    raw: Raw = OmegaConf.to_container(  # type: ignore[assignment]
        cfg, resolve=False, enum_to_str=True
    )
    budget = section_of(raw, "budget")
    if budget["minutes"] is None:
        budget["minutes"] = config.budget.minutes
    own = {
        group: str(option)
        for group, option in choices.items()
        if option is not None and not group.startswith("hydra/")
    }
    return config, masked(raw), own


def _check_market(given: Composed) -> None:
    """Refuse bars of a file, or of a source of the user's own, whose market nobody named."""
    if given.cfg.data.source in SOURCES_WITHOUT_FILE or given.cfg.task is Task.check_data:
        return
    market, named = given.choices.get("market"), given.choices.get("data") == "file"
    if market is None or (market == SYNTHETIC and not named):
        raise ConfigError(
            f"market: bars of a file need a market, write market=X with X one of {file_markets()}"
        )


def _with_null_options(overrides: Sequence[str]) -> list[str]:
    """Quote null where it names an option: Hydra reads a bare `data=null` as no option at all.

    A comparison without a preset is the quick one.
    """
    if "task=compare" in overrides and not any(o.startswith("compare=") for o in overrides):
        at = list(overrides).index("task=compare")  # beside it: flags do not stand in between
        overrides = [*overrides[:at], DEFAULT_COMPARISON, *overrides[at:]]
    quoted = {f"{group}=null": f"{group}='null'" for group in groups() if "null" in groups()[group]}
    return [quoted.get(override, override) for override in overrides]


def _resumed(cfg: DictConfig) -> DictConfig:
    """Return the configuration that the run to resume was started with."""
    from ppo_workbench.learning.checkpoints import find_checkpoint, read_header
    from ppo_workbench.pipeline.models.stored import home_folder
    from ppo_workbench.pipeline.train.fitting import checkpoint_folder

    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for override in given:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] not in (*CHANGES_ON_RESUME, "plugins"):
            allowed = ", ".join(CHANGES_ON_RESUME)
            raise ConfigError(
                f"{override}: cannot be changed on resume, the run keeps its own configuration; "
                f"only {allowed} may be given"
            )
    header = read_header(find_checkpoint(checkpoint_folder(home_folder()), cfg.resume))
    try:
        plugins.check(header.get("plugins", {}))  # the damage of a damaged one is told later
    except ConfigError as error:
        raise ConfigError(f"resume={cfg.resume}: {error}") from None
    # What was masked for the record, such as a password, is taken from this command, and code
    # that runs is what this command names.
    kept = {key: cfg[key] for key in (*CHANGES_ON_RESUME, "plugins")}
    merged = OmegaConf.merge(_schema(), header["config"], kept)
    assert isinstance(merged, DictConfig)
    return merged


def _with_recorded(given: Composed, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration; a command on a model has what the model recorded in it."""
    plugins.use(given.cfg.plugins)  # before anything that is compiled with them
    recorded = _recorded(given.cfg)
    if recorded is None:
        return given.cfg
    merged = under_overrides(recorded, given, composed([]), overrides)
    check_files(merged, recorded)
    return merged


def _recorded(cfg: DictConfig) -> Raw | None:
    """Return what the model recorded that a command is about, None for any other command."""
    if cfg.task is Task.report and cfg.run is not None:
        from ppo_workbench.pipeline.report import recorded_by

        tracking = OmegaConf.to_object(cfg.tracking)
        assert isinstance(tracking, TrackingConfig)
        return recorded_by(cfg.run, tracking)
    if cfg.task in ON_ITS_BARS and cfg.artifact is not None:
        from ppo_workbench.pipeline.models.stored import recorded_of

        return recorded_of(cfg.artifact)
    return None


def check_sweep(cfg: DictConfig, choices: dict[str, str], directions: Sequence[str]) -> None:
    """Check one sample of a sweep, its bars too, before its first trial; named by conf/sweep/.

    Raises:
        WorkbenchError: The sample, its bars, or what trials are judged by, is not allowed.
    """
    START_LINE.say("checking the bars and settings of the sweep")
    _check_market(Composed(cfg, choices))
    config, _, _ = _checked(cfg, choices)
    if config.output is not None:
        raise ConfigError(
            f"output={config.output}: a sweep names its models itself; train the recommended "
            "setting that its analysis names with this output"
        )
    from ppo_workbench.learning.models import check_device
    from ppo_workbench.pipeline.sweep.trial import check_directions, check_market, check_objective

    check_device(config.model.device)
    check_objective(config)
    check_directions(config, directions)
    check_market(config)


def settle_sweep(
    cfg: DictConfig, choices: dict[str, str], kept: "Settled | None", searched: Sequence[str]
) -> "Settled":
    """Settle once what all trials of a study share; named by conf/sweep/.

    Raises:
        ConfigError: The study was begun with another budget, objective, market or rule.
    """
    START_LINE.say("measuring what a trial of this budget trains")
    config, raw, _ = _checked(cfg, choices)
    from ppo_workbench.pipeline.train.calibration import settle

    return settle(config, kept, raw, searched)


def observe_sweep(home: Path, study: str, cfg: DictConfig, choices: dict[str, str]) -> Any:
    """Open the record of a study in MLflow for the sweeper; named by conf/sweep/."""
    config, raw, _ = _checked(cfg, choices)
    from ppo_workbench.pipeline.sweep.record import open_study_record

    return open_study_record(config, home, study, raw)


@contextmanager
def _hydra_process(arguments: Sequence[str]) -> Iterator[None]:
    """Let Hydra read these arguments and pass its exceptions on instead of exiting with 1."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    look = Hydra.get_mode
    sys.argv = [sys.argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    own_conf = "PPO_WORKBENCH_CONF" in os.environ
    if not own_conf and not any("hydra.mode" in argument for argument in arguments):
        # It composes everything a first time, half of a refusal's time, to look for `hydra.mode`,
        # which no file of ours sets.
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = look  # type: ignore[method-assign]
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
        if "task=compare" in args.overrides:
            raise ConfigError("task=compare: spreads its own jobs, leave --multirun away")
        _check_outputs(args.overrides)


def _check_overrides(overrides: Sequence[str]) -> None:
    """Refuse a group set to nothing, which Hydra reports without its name."""
    for override in overrides:
        group, equals, option = override.partition("=")
        if equals and not group:
            raise ConfigError(f"{override}: has no key, write key=value")
        if group in groups() and group not in OPTIONAL_GROUPS and option in ("", "null", "~"):
            raise ConfigError(f"{override}: is no option, {choose(group)}")


def _check_outputs(overrides: Sequence[str]) -> None:
    """Refuse jobs that would train under one name, before the first of them has trained."""
    with own_hydra():
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
