"""A canary in an address, given in any way, is found in nothing that is written or printed."""

import logging
from pathlib import Path

import pytest
from tests.e2e.workbench import BUDGET, SMALL_MODEL, TINY, Result, Workbench

from ppo_workbench import compose, train

CANARY = "canary-7f3a9c"
# SQLite has no passwords; SQLAlchemy says so, naming the key only.
pytestmark = pytest.mark.filterwarnings("ignore:Query string argument")


def _found(folder: Path) -> list[Path]:
    secret = CANARY.encode()
    return [p for p in folder.rglob("*") if p.is_file() and secret in p.read_bytes()]


def _uri(home: Path, key: str = "password") -> str:
    return f"sqlite:///{home}/mlruns/mlflow.db?{key}={CANARY}"


def _check_clean(result: Result, home: Path, code: int = 0) -> None:
    assert result.code == code, result.err
    assert CANARY not in result.out + result.err
    assert [p for p in home.rglob("*") if CANARY in p.name] == []
    assert _found(home) == []


@pytest.mark.parametrize("way", ["override", "override_of_environment", "environment"])
def test_canary_in_the_tracking_uri_is_in_no_file_and_on_no_screen(
    way: str,
    recording: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = _uri(recording.home)
    given = {
        "override": [f"tracking.uri='{uri}'"],
        "override_of_environment": ["tracking.uri='${oc.env:CANARY_URI}'"],
        "environment": [],
    }[way]
    monkeypatch.setenv("CANARY_URI", uri)
    if way == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    result_json = recording.home / "result.json"

    with caplog.at_level(logging.INFO):
        result = recording.train(
            *given, "tracking.plots=false", "output=secret", f"result_json={result_json}"
        )

    _check_clean(result, recording.home)
    assert recording.metadata("secret")["mlflow_run_id"]


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://user:{CANARY}@127.0.0.1:1/db",
        f"http://user:{CANARY}@127.0.0.1:1",
        f"ftp://user:{CANARY}@host/x",
        f"sqlite:////proc/nowhere/own.db?token={CANARY}",
    ],
)
def test_canary_in_a_uri_that_fails_is_not_in_the_message(
    uri: str, workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    _check_clean(workbench.train(f"tracking.uri='{uri}'"), workbench.home, code=2)


def test_canary_in_a_python_configuration_is_in_no_file(
    recording: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(recording.home))
    uri = _uri(recording.home, "api_key")
    config = compose([*TINY, *BUDGET, f"tracking.uri='{uri}'", "output=python"])
    assert config.tracking.uri == uri

    train(config)

    out, err = capsys.readouterr()
    _check_clean(Result(0, out, err), recording.home)


SMALL = ["data.synthetic.sessions=70", "env.episode_bars=390", *SMALL_MODEL, "tracking.plots=false"]
STUDY = ["--multirun", "sweep=smoke", "hydra.sweeper.study_name=smoke", "budget.timesteps=256"]
PROMOTE = [
    *("task=promote", "promote.study=smoke", "promote.seeds=[11,12]", "promote.top_k=1"),
    *("promote.profile=research", "tracking.plots=false"),
]
COMPARE = [
    *("task=compare", "output=tiny", "splits.gap_bars=0", "compare.seeds=[0]", *BUDGET),
    *(f"~compare.arms.{arm}" for arm in ("reject", "execute", "all_true")),
    *("compare.pairs=[[masked,flat]]", "compare.resamples=200"),
]


def test_canary_goes_through_a_study_its_champion_and_a_comparison_unseen(
    recording: Workbench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage, own = f"sqlite:///{recording.home}/s.db?password={CANARY}", recording.home
    tracking = f"tracking.uri='{_uri(own, 'token')}'"

    with caplog.at_level(logging.INFO):
        for arguments, key in (
            ([*STUDY, *SMALL], "hydra.sweeper.storage"),
            (PROMOTE, "trial.storage"),
            ([*COMPARE, *SMALL], "trial.storage"),
        ):
            result = recording.run(*arguments, tracking, f"{key}='{storage}'")
            _check_clean(result, own)

    assert CANARY not in caplog.text
    written = {name.partition("/")[0] for name in recording.files()}
    assert {"sweeps", "trained_models", "promotions", "comparisons", "mlruns"} <= written


@pytest.mark.parametrize(
    "storage",
    [
        f"postgresql+psycopg://user:se/{CANARY}@127.0.0.1:1/db",
        f"postgresql+psycopg://{CANARY}@127.0.0.1:1/db",
        f"postgresql+psycopg://127.0.0.1:1/db?user=u&password=a@b/{CANARY}",
        f"nosuch://user:{CANARY}@host/db",
        f"sqlite:////proc/nowhere/s.db?password={CANARY}",
    ],
)
def test_canary_in_a_storage_that_fails_is_not_in_the_message(
    storage: str, workbench: Workbench
) -> None:
    sweep = workbench.run(*STUDY, *SMALL, f"hydra.sweeper.storage='{storage}'")
    _check_clean(sweep, workbench.home, code=2)
    promote = workbench.run(*PROMOTE, f"trial.storage='{storage}'")
    _check_clean(promote, workbench.home, code=2)
