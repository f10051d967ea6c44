"""Exit codes, one-sentence refusals, secrets, and Hydra's own commands."""

import gc
import logging
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import pytest

import ppo_workbench.pipeline
from ppo_workbench.cli import main as cli
from ppo_workbench.cli.main import command, compose
from ppo_workbench.cli.options import CONF
from ppo_workbench.config import (
    BarsError,
    Config,
    ConfigError,
    Interrupted,
    ModelType,
    PromotionError,
)
from ppo_workbench.config.machine import config_folder
from ppo_workbench.pipeline.given import Given

CANARY = "postgresql://user:canary-7f3a@host/db"


@dataclass
class FakePipeline:
    """Records what the command line hands over."""

    calls: list[tuple[Config, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    error: BaseException | None = None

    def run(self, given: Given) -> float:
        self.calls.append((given.config, dict(given.raw), dict(given.choices)))
        if self.error is not None:
            raise self.error
        return 1.5


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePipeline:
    """Replace the pipeline and work in an empty folder."""
    root = logging.getLogger()  # Hydra's --info adds a handler that outlives the captured stdout
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    fake = FakePipeline()
    module = types.ModuleType("ppo_workbench.pipeline.tasks")
    module.run = fake.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ppo_workbench.pipeline.tasks", module)
    monkeypatch.setattr(ppo_workbench.pipeline, "tasks", module, raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return fake


def test_command_hands_config_raw_values_and_choices_to_the_pipeline(
    pipeline: FakePipeline,
) -> None:
    assert command(["model=ppo", "data=sp500", "output=name"]) == 0

    ((config, raw, choices),) = pipeline.calls
    assert config == compose(["model=ppo", "data=sp500", "output=name"])
    assert raw["model"]["gamma"] == "${env.gamma}"
    assert raw["model"]["type"] == "ppo"
    assert raw["budget"]["minutes"] == 30.0
    assert {"model": "ppo", "data": "sp500", "market": "index", "costs": "us_etf"}.items() <= (
        choices.items()
    )
    assert "experiment" not in choices
    assert not [group for group in choices if group.startswith("hydra")]
    assert list(Path.cwd().iterdir()) == []


REFUSED_COMMANDS = [
    ("model=foo", "model=foo: unknown option, allowed is maskable_ppo, ppo"),
    ("+model.learning_rat=1", "model.learning_rat=1: unknown key, did you mean model.learning_"),
    ("model.learning_rate=abc", "model.learning_rate=abc: must be a number, > 0, <= 1"),
    ("budget.minutes=0", "budget.minutes=0.0: input should be greater than 0"),
    ("model.batch_size=500", "model.batch_size=500: must divide n_envs * n_steps = 64 * 128"),
    ("data=file market=fx", "data.path=None: data=file reads a file, write data.path=FILE"),
    (
        "data=file data.path=a.csv",
        "market: bars of a file need a market, write market=X with X one",
    ),
    ("output=a=b", "output=a=b: cannot be read as key=value; quote a value"),
    ("tracking.uri=${oc.env:UNSET_X}", "tracking.uri=${oc.env:UNSET_X}: KeyError raised while"),
    ("--model-type ppo", "--model-type: is not a flag here, write model=ppo"),
    ("--minutes=10", "--minutes: is not a flag here, write budget.minutes=10"),
    ("--speed", "--speed: unknown or misplaced flag, --help lists the flags"),
    ("--cfg everything", "argument --cfg/-c: invalid choice: 'everything'"),
    ("--cfg job --multirun", "--run, --cfg, --multirun, --info and --shell-completion exclude"),
    ("--resolve", "--resolve: goes with --cfg or --help only"),
    ("--config-name nope", "Cannot find primary config 'nope'."),
    ("--multirun model=ppo seed=x", "seed=x: must be a whole number"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED_COMMANDS)
def test_command_with_bad_input_exits_2_with_one_sentence_and_writes_nothing(
    arguments: str,
    sentence: str,
    pipeline: FakePipeline,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(arguments.split()) == 2

    output = capsys.readouterr()
    assert output.err.startswith(f"error: {sentence}")
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert pipeline.calls == []
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "model=pppo",
            "model=pppo: unknown option (did you mean ppo?), allowed is maskable_ppo, ppo",
        ),
        ("model=", "model=: is no option, choose model=X with X one of maskable_ppo, ppo"),
        ("model=null", "model=null: is no option, choose model=X with X one of maskable_ppo, ppo"),
        ("~model", "model: no option is chosen, choose model=X with X one of maskable_ppo, ppo"),
        ("model=ppo,maskable_ppo", "model=ppo,maskable_ppo: gives several values, add --multirun"),
        ("modle=ppo", "modle=ppo: unknown group, did you mean model? the groups are budget"),
        ("experimnt=sp500", "experimnt=sp500: unknown group, did you mean experiment?"),
        ("experiment=nope", "experiment=nope: unknown option, allowed is crypto, deliverables, "),
        (
            "model.learning_rat=1",
            "model.learning_rat=1: unknown key, did you mean model.learning_rate",
        ),
        ("promote.seeds=[]", "promote.seeds=[]: give 1 or more, as in [1,2]"),
        ("promote.study=../x", "promote.study='../x': must be a plain name, no folder"),
        ("learning_rate=1", "learning_rate=1: unknown key, did you mean model.learning_rate?"),
        ("+speed=1", "speed=1: unknown key"),
        ("hydra.run.dri=x", "Could not override 'hydra.run.dri'."),
        ("model.learning_rate=", "model.learning_rate=: must be a number, > 0, <= 1"),
        (
            "model.learning_rate=5",
            "model.learning_rate=5.0: input should be less than or equal to 1",
        ),
        (
            "model.net_arch=[a]",
            "model.net_arch=[a]: must be a list [a, b], each a whole number, >= 1",
        ),
        *(
            (f"data={path}", f"data={path}: names a file, write data=file data.path={place} market")
            for path, place in (
                ("/data/x.csv", "/data/x.csv"),
                ("x.parquet", "x.parquet"),
                ("bars/x", "bars/x"),
                ("~/x.csv", "$HOME/x.csv"),
            )
        ),
        ("data=sp5000", "data=sp5000: unknown option (did you mean sp500?), allowed is file"),
        ("experiment=/a/b", "experiment=/a/b: unknown option, allowed is"),
        ("seed=1.5", "seed=1.5: must be a whole number, >= 0, <= 2147483647"),
        ("threads=null", "threads=null: must be a whole number, >= 1, <= 1024"),
        ("seed=???", "seed=???: a value is needed, write seed=VALUE"),
        ("env.allow_short=maybe", "env.allow_short=maybe: must be true or false"),
        ("task=fly", "task=fly: must be one of train, evaluate"),
        ("budget.minutes=x", "budget.minutes=x: must be a number or null, > 0, <= 100000"),
        ("model", "model: is no option, choose"),
        ("seed", "seed: cannot be read as key=value"),
        ("=3", "=3: has no key, write key=value"),
        ("model=[1", "model=[1: cannot be read as key=value"),
        ("model.gamma=${nowhere}", "model.gamma=${nowhere}: Interpolation key 'nowhere' not found"),
    ],
)
def test_override_that_is_refused_is_explained_in_one_line(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose([override])

    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_file_given_to_the_group_is_answered_with_markets_to_choose_from() -> None:
    with pytest.raises(ConfigError, match=r"market=X with X one of crypto, .*, us_futures$"):
        compose(["data=/data/x.csv"])


def test_refusal_on_a_terminal_breaks_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")

    assert command(["data=/data/x.csv"]) == 2

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 40
    with pytest.raises(ConfigError) as refused:
        compose(["data=/data/x.csv"])
    assert " ".join(lines) == f"error: {refused.value}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("# @package _global_\nmodel:\n  gama: 1\n", "model.gama: unknown key, did you mean"),
        ("# @package _global_\nseed: x\n", "seed: must be a whole number, >= 0, <= 2147483647 (V"),
        ("model:\n  gamma: 1\n", "experiment=own: '# @package _global_' must be the first line"),
        ("# @package _global_\ndefaults:\n  - override /modle: ppo\n", "modle: unknown group,"),
    ],
)
def test_experiment_file_with_an_error_is_named(
    content: str,
    sentence: str,
    pipeline: FakePipeline,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "own_conf" / "experiment" / "own.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content, encoding="utf-8")

    assert command(["--config-dir", str(file.parents[1]), "experiment=own"]) == 2

    assert capsys.readouterr().err.startswith(f"error: experiment/own.yaml: {sentence}")


def test_experiment_file_that_is_no_yaml_is_named(
    pipeline: FakePipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own_conf" / "experiment" / "own.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nseed: [1\n", encoding="utf-8")

    assert command(["--config-dir", str(file.parents[1]), "experiment=own"]) == 2

    error = capsys.readouterr().err
    assert error.startswith("error: a configuration file is no valid YAML: ")
    assert "own.yaml" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (BarsError("row 3: close=-1:\n must be positive"), 2, "error: row 3: close=-1: must be"),
        (PromotionError("the gate failed"), 3, "error: the gate failed\n"),
        (Interrupted(0.5), 130, ""),
        (KeyboardInterrupt(), 130, "interrupted: nothing had begun, nothing is written\n"),
        (KeyboardInterrupt("what is left"), 130, "what is left\n"),
        (ValueError("a bug"), 1, "Traceback (most recent call last):\n"),
    ],
)
def test_command_exits_with_the_code_of_the_failure(
    error: BaseException,
    code: int,
    text: str,
    pipeline: FakePipeline,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipeline.error = error

    assert command([]) == code

    found = capsys.readouterr().err
    assert found.startswith(text) if text else found == ""
    assert ("Traceback" in found) == (code == 1)


def test_command_with_full_error_asked_for_shows_the_traceback_too(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    assert command(["model=foo"]) == 2

    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.splitlines()[-1].startswith("error: model=foo: ")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_command_leaves_the_process_as_it_was(pipeline: FakePipeline) -> None:
    before = list(sys.argv)

    command(["model=foo"])

    assert sys.argv == before
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_secret_of_the_environment_stays_unresolved_in_the_record(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_URI", CANARY)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "canary-name")

    assert command(["tracking.uri='${oc.env:CANARY_URI}'"]) == 0

    ((config, raw, choices),) = pipeline.calls
    assert config.tracking.uri == CANARY
    assert config.tracking.experiment == "canary-name"
    assert raw["tracking"]["uri"] == "${oc.env:CANARY_URI}"
    assert "canary" not in str(raw) + str(choices)


def test_password_given_literally_is_masked_in_the_record(pipeline: FakePipeline) -> None:
    assert command([f"tracking.uri={CANARY}"]) == 0

    ((config, raw, _),) = pipeline.calls
    assert config.tracking.uri == CANARY
    assert raw["tracking"]["uri"] == "postgresql://***@host/db"


@pytest.mark.parametrize("error", [ConfigError(f"cannot reach {CANARY}"), ValueError(CANARY)])
def test_secret_in_a_failure_is_not_printed(
    error: Exception,
    pipeline: FakePipeline,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CANARY_URI", CANARY)
    pipeline.error = error

    command(["tracking.uri='${oc.env:CANARY_URI}'"])
    command([f"tracking.uri={CANARY}"])

    assert "canary-7f3a" not in capsys.readouterr().err


def test_secret_of_the_wrong_type_is_not_printed(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "canary-7f3a")

    assert command(["seed='${oc.env:CANARY_TOKEN}'"]) == 2

    error = capsys.readouterr().err
    assert error.startswith("error: seed='${oc.env:CANARY_TOKEN}': ")
    assert "canary-7f3a" not in error


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--help"], "risk: aggressive, conservative, moderate, unconstrained"),
        (["--cfg", "job", "model=ppo"], "type: ppo"),
        (["--cfg", "job", "--resolve", "-p", "model"], "gae_lambda: 0.9"),
        (["--info", "searchpath"], "Config search path"),
    ],
)
def test_flag_of_hydra_prints_and_runs_nothing(
    arguments: list[str],
    text: str,
    pipeline: FakePipeline,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(arguments) == 0

    assert text in capsys.readouterr().out
    assert pipeline.calls == []
    assert list(Path.cwd().iterdir()) == []


def test_shell_completion_completes_groups_and_keys(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", "ppo-workbench data=sp500 model=")

    assert command(["-sc", "query=bash"]) == 0

    assert capsys.readouterr().out.split() == ["model=maskable_ppo", "model=ppo"]


def test_multirun_runs_every_choice_outside_the_current_folder(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path / "home"))

    assert command(["--multirun", "model=ppo,maskable_ppo"]) == 0

    assert {config.model.type for config, _, _ in pipeline.calls} == set(ModelType)
    assert list(Path.cwd().iterdir()) == []


def test_multirun_stops_at_a_refused_job_with_exit_2(
    pipeline: FakePipeline,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path / "home"))

    assert command(["--multirun", "seed=-1"]) == 2

    assert capsys.readouterr().err.splitlines()[-1].startswith("error: seed=-1: ")


def test_compose_works_where_hydra_is_initialised_already() -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose(["seed=3"]).seed == 3
        assert hydra.compose("config", overrides=["seed=4"]).seed == 4
    assert compose(["seed=5"]).seed == 5


@pytest.mark.parametrize("give", [True, False])
def test_config_folder_is_the_chosen_one_else_the_checkout(
    give: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if give:
        monkeypatch.setenv("PPO_WORKBENCH_CONF", str(tmp_path))
    else:
        monkeypatch.delenv("PPO_WORKBENCH_CONF", raising=False)

    assert config_folder() == (tmp_path if give else Path(__file__).parents[1] / "conf")


def _module(runner: Callable[..., Any], folder: Path, *arguments: str) -> Any:
    source = str(Path(__file__).parents[1] / "src")
    return runner(
        [sys.executable, "-m", "ppo_workbench", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("argument", ["model=foo", "model.learning_rate=9"])
def test_process_with_bad_input_exits_2_with_one_sentence_and_writes_nothing(
    argument: str, tmp_path: Path
) -> None:
    done = _module(subprocess.run, tmp_path, argument)

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {argument}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_garbage_is_collected_while_modules_load_and_more_often_after() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(cli.OBJECTS_WHILE_IMPORTING)
        cli._collect_garbage_as_usual()
        assert gc.get_threshold()[0] == cli.OBJECTS_BETWEEN_COLLECTIONS
        gc.set_threshold(7)  # another's choice, such as a notebook's, is left alone
        cli._collect_garbage_as_usual()
        assert gc.get_threshold()[0] == 7
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
