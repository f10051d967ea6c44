"""Real bars go the same way as synthetic ones: train, score, record, without a special case."""

import json
import re
from pathlib import Path

import pytest
from tests.e2e.workbench import BUDGET, SMALL_MODEL, Workbench

BARS = Path(__file__).parents[2] / ".." / "shared" / "data"


def _file(name: str) -> str:
    path = (BARS / name).resolve()
    if not path.is_file():
        pytest.skip(f"{name} is not beside the project")
    return f"data.path={path}"


def _check_trained(workbench: Workbench, *arguments: str) -> dict[str, object]:
    result_json = workbench.home / "result.json"
    result = workbench.run(
        *(*arguments, *SMALL_MODEL, *BUDGET, "overwrite=true"),
        *("tracking.plots=false", f"result_json={result_json}"),
    )
    assert result.code == 0, result.err
    assert re.search(r"^MaskablePPO +[+-]\d+\.\d\d +[+-]\d+\.\d [+-]\d+\.\d", result.out, re.M)
    assert "its 95 % interval over days" in result.out
    document = json.loads(result_json.read_text(encoding="utf-8"))
    card = document["scorecards"]["MaskablePPO"]["validation"]
    assert card["sharpe_low_95"] < card["sharpe_annual"] < card["sharpe_high_95"]
    assert card["n_decisions"] > 20
    assert document["mlflow_run_id"]
    metadata: dict[str, object] = json.loads(Path(document["metadata"]).read_text("utf-8"))
    return metadata


@pytest.mark.parametrize("source", ["sp500", "nasdaq"])
@pytest.mark.parametrize("kind", ["data", "experiment"])
def test_daily_index_trains_scores_and_records(source: str, kind: str, shared: Workbench) -> None:
    metadata = _check_trained(shared, f"{kind}={source}", f"output={source}")

    assert metadata["data"]["source"] == source  # type: ignore[index]
    assert metadata["data"]["bar_seconds"] == 86_400  # type: ignore[index]


def test_minute_file_trains_scores_and_records(shared: Workbench) -> None:
    path = _file("spy_1min_2013-10.csv")

    metadata = _check_trained(shared, "experiment=us_minute_short", path, "output=spy")

    assert metadata["data"]["bar_seconds"] == 60  # type: ignore[index]


def test_hourly_file_trains_scores_and_records(shared: Workbench) -> None:
    path = _file("ibm_1h_2000_2021.csv.gz")

    metadata = _check_trained(shared, "experiment=us_hourly", path, "output=ibm")

    assert metadata["data"]["bar_seconds"] == 3600  # type: ignore[index]


def test_test_of_a_single_session_is_refused_before_a_cell_is_begun(workbench: Workbench) -> None:
    path = _file("spy_1min_2013-10.csv")

    result = workbench.run("task=compare", "experiment=us_minute_short", path, "output=week")

    assert result.code == 2
    assert result.err.startswith("error: splits.test_frac: the tests have 1 sessions")
    assert not (workbench.home / "comparisons").exists()
