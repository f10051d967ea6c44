"""A canary in the tracking URI, given in any way, is found in nothing that is written."""

import logging
from pathlib import Path

import pytest
from tests.e2e.workbench import BUDGET, TINY, Result, Workbench

from ppo_workbench import compose, train

CANARY = "canary-7f3a9c"
STUDY = [
    *("--multirun", "sweep=smoke", "hydra.sweeper.study_name=leak", "hydra.sweeper.n_trials=2"),
    *("data.synthetic.sessions=70", "model.n_envs=4", "budget.timesteps=1024"),
]
PROMOTE = ["task=promote", "promote.study=leak", "promote.seeds=[11,12]", "promote.top_k=1"]
COMPARE = [
    *("task=compare", *TINY, *BUDGET, "data.synthetic.sessions=70", "splits.gap_bars=0"),
    *("features.volatility_slow_bars=390", "compare.resamples=200", "compare.seeds=[0]"),
    *(f"~compare.arms.{arm}" for arm in ("reject", "execute", "all_true")),
    "compare.pairs=[[masked,flat]]",
]
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


def test_canaries_of_a_study_its_promotion_and_a_comparison_are_nowhere(
    recording: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    home = recording.home
    storage = f"'sqlite:///{home}/study.db?password={CANARY}'"
    record = [f"tracking.uri='{_uri(home, 'token')}'", "tracking.plots=false"]

    with caplog.at_level(logging.INFO):
        _check_clean(recording.run(*STUDY, f"hydra.sweeper.storage={storage}", *record), home)
        promotion = recording.run(*PROMOTE, f"trial.storage={storage}", *record)
        _check_clean(promotion, home, code=3)
        _check_clean(recording.run(*COMPARE, *record), home)

    assert {path.name for path in home.iterdir()} >= {"sweeps", "promotions", "comparisons"}
