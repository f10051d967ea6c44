"""What is refused: exit code 2, one sentence with the row or the key, nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.workbench import BUDGET, SMALL_MODEL, Result, Workbench, without_override

from ppo_workbench.config import ConfigError
from ppo_workbench.pipeline.models.stored import find_artifact

HEADER = "timestamp,open,high,low,close,volume"
STAMP = "2013-10-04 09:{minute:02}:00-04:00"
FEATURES = [
    "features.names=[return_1]",
    "features.volatility_fast_bars=2",
    "features.volatility_slow_bars=5",
    "env.fill=next_close",
]


def _lines() -> list[str]:
    """Return a header and 25 good minute bars; line k + 1 is data row k."""
    rows = []
    for k in range(25):
        stamp, close = STAMP.format(minute=30 + k), 100 + k % 3 * 0.1
        rows.append(f"{stamp},100.0,100.5,99.5,{close:.1f},{1000 + k}")
    return [HEADER, *rows]


def _changed(row: int, column: str, value: str) -> bytes:
    lines = _lines()
    cells = lines[row + 1].split(",")
    cells[HEADER.split(",").index(column)] = value
    lines[row + 1] = ",".join(cells)
    return "\n".join(lines).encode()


def _swapped() -> bytes:
    lines = _lines()
    lines[8], lines[9] = lines[9], lines[8]
    return "\n".join(lines).encode()


def _doubled() -> bytes:
    lines = _lines()
    return "\n".join([*lines[:9], lines[8], *lines[9:]]).encode()


def _without_zone() -> bytes:
    return "\n".join(_lines()).replace("-04:00", "").encode()


def _mixed_zone() -> bytes:
    lines = _lines()
    lines[5] = lines[5].replace("-04:00", "")
    return "\n".join(lines).encode()


def _without_close() -> bytes:
    return "\n".join(line.rsplit(",", 2)[0] for line in _lines()).encode()


def _with_close_twice() -> bytes:
    return "\n".join(
        f"{line},{'close' if k == 0 else 100}" for k, line in enumerate(_lines())
    ).encode()


FILES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "bars.csv"),
    ("header_only", HEADER.encode(), "bars.csv"),
    ("binary_noise", bytes(range(256)) * 40, "bars.csv"),
    ("missing_column", _without_close(), "close"),
    ("nan", _changed(6, "close", ""), "data row 6 "),
    ("inf", _changed(6, "high", "inf"), "data row 6 "),
    ("negative_price", _changed(6, "low", "-1"), "data row 6 "),
    ("negative_volume", _changed(6, "volume", "-5"), "data row 6 "),
    ("high_below_low", _changed(6, "high", "99"), "data row 6 "),
    ("text_for_a_number", _changed(6, "open", "abc"), "data row 6 "),
    ("unsorted", _swapped(), "data row 8 "),
    ("duplicate_stamps", _doubled(), "data row 8 "),
    ("no_time_zone", _without_zone(), "data.timezone"),
    ("mixed_time_zones", _mixed_zone(), "row 4"),
    ("unreadable_stamp", _changed(6, "timestamp", "yesterday"), "row 6"),
    ("price_beyond_all_sense", _changed(6, "high", "1e300"), "data row 6 "),
    ("column_twice", _with_close_twice(), "'close' is there twice"),
    ("too_few_bars", "\n".join(_lines()).encode(), "split"),
]


def _check_refused(result: Result, *words: str) -> None:
    assert result.code == 2, result.out + result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err + result.out
    # The tracking store is asked after the banner, and before anything else is shown.
    assert "experiment " not in result.out
    for word in words:
        assert word in result.err


@pytest.mark.parametrize(
    ("content", "word"), [(c, w) for _, c, w in FILES], ids=[name for name, _, _ in FILES]
)
def test_bad_file_is_refused_and_nothing_written(
    content: bytes, word: str, workbench: Workbench, tmp_path: Path
) -> None:
    path = tmp_path / "bars.csv"
    path.write_bytes(content)

    bars = ("data=file", "market=us_equity", f"data.path={path}")

    result = workbench.run(*bars, *FEATURES, *SMALL_MODEL, *BUDGET)

    _check_refused(result, "bars.csv" if word != "split" else "bars", word)
    assert workbench.files() == set()
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_path_that_is_no_file_is_refused_and_never_becomes_synthetic_data(
    kind: str, workbench: Workbench, tmp_path: Path
) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "nowhere.csv"

    result = workbench.run("data=file", "market=us_equity", f"data.path={path}", *BUDGET)

    _check_refused(result, "data.path", str(path))
    assert workbench.files() == set()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model=dqn", "model=dqn: unknown option, allowed is maskable_ppo, ppo"),
        ("model.learning_rat=0.1", "did you mean model.learning_rate"),
        ("model.learning_rate=fast", "model.learning_rate=fast: must be a number"),
        ("model.learning_rate=-1", "model.learning_rate=-1"),
        ("budget.minutes=0", "budget.minutes=0"),
        ("data.path=bars.csv", "write data=file data.path=bars.csv"),
        ("budget.timesteps=0", "budget.timesteps=0"),
        ("budget.episodes=-3", "budget.episodes=-3"),
        ("output=../elsewhere", "output="),
        ("output=..", "output="),
        ("output=sub/name", "output="),
        ("output=/etc/model", "output="),
        ("result_json=/nowhere/at/all.json", "result_json=/nowhere/at/all.json"),
        ("tracking.uri=ftp://host/x", "tracking.uri=ftp://host/x"),
        ("tracking.uri=sqlite:////proc/nowhere/mlflow.db", "tracking.uri=sqlite:////proc"),
        ("env.episode_bars=100000", "env.episode_bars=100000"),
        ("splits.train_frac=0.9", "splits"),
        ("task=evaluate", "artifact"),
        ("features.names=[astrology]", "astrology"),
        ("data.source=syntetic market=index", "did you mean synthetic"),
    ],
)
def test_bad_value_is_refused_and_nothing_written(
    override: str, words: str, workbench: Workbench
) -> None:
    _check_refused(workbench.train(*override.split()), words)
    assert workbench.files() == set()


def test_result_json_that_is_a_folder_is_refused(workbench: Workbench, tmp_path: Path) -> None:
    _check_refused(workbench.train(f"result_json={tmp_path}"), "result_json=", "is a folder")
    assert workbench.files() == set()


@pytest.mark.parametrize("in_the_way", ["trained_models", "mlruns"])
def test_home_that_cannot_be_written_is_refused(in_the_way: str, workbench: Workbench) -> None:
    obstacle = workbench.home / in_the_way
    obstacle.write_text("a file where a folder has to be", encoding="utf-8")

    _check_refused(workbench.train("output=blocked"), str(obstacle))

    assert workbench.files() == {in_the_way}


@pytest.mark.parametrize("what", ["database", "folder", "artifacts", "no database"])
def test_store_that_cannot_be_written_is_refused_before_training(
    what: str, recording: Workbench
) -> None:
    folder = recording.home / "mlruns"
    path = {"folder": folder, "artifacts": folder / "artifacts"}.get(what, folder / "mlflow.db")
    if what == "no database":
        path.write_text("a table of something else altogether", encoding="utf-8")
    else:
        path.mkdir(exist_ok=True) if what == "artifacts" else None
        path.chmod(0o555)
    files = recording.files()

    with without_override():
        result = recording.train("output=unrecorded")

    _check_refused(result, "tracking.uri=sqlite:///", "cannot be recorded", "set tracking.enabled")
    assert "training:" not in result.out
    assert "autoflush" not in result.err
    assert recording.files() == files


def test_existing_output_is_kept_unless_overwrite_is_asked_for(workbench: Workbench) -> None:
    off = "tracking.enabled=false"
    assert workbench.train("output=mine", off).code == 0
    paths = sorted((workbench.home / "trained_models").iterdir())
    before = [path.read_bytes() for path in paths]

    refused = workbench.train("output=mine", off, "seed=1")

    _check_refused(refused, "output=mine", "overwrite=true")
    assert [path.read_bytes() for path in paths] == before
    assert workbench.train("output=mine", off, "seed=1", "overwrite=true").code == 0
    assert sorted((workbench.home / "trained_models").iterdir()) == paths
    assert all(path.read_bytes() != old for path, old in zip(paths, before, strict=True))


def test_next_open_fills_on_copied_opens_are_refused_with_the_remedy(workbench: Workbench) -> None:
    result = workbench.run("data=sp500", "env.fill=next_open", *BUDGET)

    _check_refused(result, "opens equal the prior close", "env.fill=next_close")
    assert workbench.files() == set()


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b[:-1] + b"x", lambda b: b""])
def test_damaged_model_is_refused_by_evaluate(
    damage: Callable[[bytes], bytes], workbench: Workbench
) -> None:
    assert workbench.train("output=whole", "tracking.enabled=false").code == 0
    path = workbench.home / "trained_models" / "whole.pth"
    path.write_bytes(damage(path.read_bytes()))

    _check_refused(workbench.run("task=evaluate", "artifact=whole"), "whole.pth")


def test_model_that_does_not_exist_is_refused_by_evaluate(workbench: Workbench) -> None:
    _check_refused(workbench.run("task=evaluate", "artifact=ghost"), "artifact=ghost", "no such")
    with pytest.raises(ConfigError, match="artifact=ghost"):
        find_artifact("ghost")
