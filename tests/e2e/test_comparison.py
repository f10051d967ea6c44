"""`task=compare` end to end: cells over processes, one look, a document, a record, going on."""

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from tests.e2e.workbench import SMALL_MODEL, TRADING, Workbench

from ppo_workbench.delivery.artifact import load_artifact, verify
from ppo_workbench.pipeline.compare.claims import Claims
from ppo_workbench.records.ledger import past_accesses
from ppo_workbench.scoring.trace_file import read_trace

TINY = [
    "data.synthetic.sessions=70",
    "env.episode_bars=390",
    "features.names=[ema_distance_10,return_1,session_time]",
    "features.volatility_slow_bars=390",
    "splits.gap_bars=0",
    *SMALL_MODEL,
]
COMPARE = ["task=compare", *TINY, *TRADING, "budget.timesteps=512", "budget.evaluations=2"]
SHORT = [*COMPARE, "compare.seeds=[0,1]", "compare.resamples=200"]
# The masked arm of the preset alone.
ONE_ARM = [*(f"~compare.arms.{arm}" for arm in ("reject", "execute", "all_true"))]
ONE_ARM += ["compare.pairs=[[masked,flat]]", "compare.resamples=200"]


def _document(home: Path, name: str) -> dict[str, Any]:
    text = (home / "comparisons" / name / "comparison.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


@pytest.fixture(scope="module")
def compared(make_home: Callable[[str], Path]) -> Path:
    """Run one tiny comparison."""
    home = make_home("compared")
    assert Workbench(home).run(*SHORT, "output=tiny").code == 0
    return home


def test_all_arms_and_yardsticks_are_scored_on_every_seed(compared: Path) -> None:
    document = _document(compared, "tiny")
    arms = {arm["name"]: arm["kind"] for arm in document["arms"]}
    assert {"masked", "reject", "execute", "all_true"} == {
        name for name, kind in arms.items() if kind == "trained"
    }
    references = {
        "flat",
        "buy-and-hold",
        "random-legal",
        "threshold",
        "ridge",
        "boosting",
        "oracle",
        "reference",
    }
    assert references == {name for name, kind in arms.items() if kind == "yardstick"}
    titles = {arm["name"]: arm["title"] for arm in document["arms"]}
    assert titles["ridge"] == "ridge forecast"
    assert titles["boosting"] == "gradient boosting forecast"
    assert {"ridge", "boosting"} <= {row["second"] for row in document["differences"]}
    assert all(len(cards) == 2 for cards in document["cards"]["main"].values())
    assert document["setup"]["timesteps"] == 512


def test_control_without_a_mask_equals_standard_ppo(compared: Path) -> None:
    document = _document(compared, "tiny")
    rows = [
        r for r in document["differences"] if (r["first"], r["second"]) == ("all_true", "reject")
    ]
    assert rows
    assert all(row["estimate"] == 0.0 and not row["decided"] for row in rows)


def test_model_of_every_trained_cell_replays(compared: Path) -> None:
    found = sorted((compared / "comparisons" / "tiny").rglob("model.pth"))
    assert len(found) == 8  # four arms, two seeds
    for path in found:
        verify(load_artifact(path.parent, "model"))


def test_masked_arm_has_no_invalid_trade(compared: Path) -> None:
    counts = _document(compared, "tiny")["invalid_trades"]
    assert set(counts["masked"].values()) == {0}
    assert sum(counts["execute"].values()) > 0


def test_each_market_is_opened_once_for_all_arms(compared: Path) -> None:
    accesses = past_accesses(compared)
    assert [(access.looks, access.variants) for access in accesses] == [(4, 4), (4, 4)]
    assert len({access.instrument for access in accesses}) == 2
    assert len({access.look for access in accesses}) == 1


def test_cells_are_children_of_one_parent_in_the_record(compared: Path) -> None:
    client = MlflowClient(f"sqlite:///{compared}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("ppo_workbench")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.comparison = 'tiny'")
    parents = [run for run in runs if run.data.tags["task"] == "compare"]
    children = [run for run in runs if run.data.tags["task"] == "compare_cell"]
    assert len(parents) == 1
    assert len(children) == 2 * (4 + 1) + 1  # the stress cell
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert "masked/sharpe_annual" in parents[0].data.metrics


def test_figures_are_those_of_the_traces(compared: Path) -> None:
    document = _document(compared, "tiny")
    (path,) = (compared / "comparisons" / "tiny" / "cells").glob("main-0-masked/trace-*.parquet")
    trace = read_trace(path)
    card = document["cards"]["main"]["masked"][0]
    total = trace.equity_usd[-1] / trace.initial_equity_usd - 1
    assert card["total_return_frac"] == pytest.approx(total)


def test_comparison_on_validation_opens_no_test(tmp_path: Path) -> None:
    ask = [*COMPARE, *ONE_ARM, "compare.split=validation", "compare.seeds=[0]", "output=quiet"]
    ask += ["compare.pairs=[[masked,threshold]]", "splits.train_frac=0.5"]
    ask += ["splits.validation_frac=0.35", "splits.test_frac=0.15"]

    assert Workbench(tmp_path).run(*ask).code == 0

    assert past_accesses(tmp_path) == []
    document = _document(tmp_path, "quiet")
    assert [market["looks"] for market in document["setup"]["markets"]] == [0]
    assert document["stability"] == {}
    cells = tmp_path / "comparisons" / "quiet" / "cells"
    own, beside = (
        json.loads((cells / f"main-0-{cell}" / "result.json").read_text())
        for cell in ("masked", "yardsticks")
    )
    assert "test" not in own["scores"]["masked"]
    curve = own["curve"]
    assert [row["step"] for row in curve] == [256.0, 512.0]
    first, second = (row["validation/sharpe_annual"] for row in curve)
    card = document["cards"]["main"]["masked"][0]
    assert card["curve_sharpe_annual"] == pytest.approx((first / 2 + (first + second) / 2) / 2)
    assert card["sharpe_annual"] == own["scores"]["masked"]["validation"]["sharpe_annual"]
    threshold = beside["scores"]["threshold"]["validation"]["sharpe_annual"]
    assert document["cards"]["main"]["threshold"][0]["curve_sharpe_annual"] == threshold
    rows = {row["figure"]: row for row in document["differences"]}
    values = [document["figures"][arm]["curve_sharpe_annual"] for arm in ("masked", "threshold")]
    apart = values[0]["mean"] - values[1]["mean"]
    assert rows["curve_sharpe_annual"]["estimate"] == pytest.approx(apart)
    page = (tmp_path / "comparisons" / "quiet" / "report" / "report.html").read_text()
    assert "No test was opened" in page


def test_second_comparison_counts_the_variants_of_the_first(compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared / "mlruns", tmp_path / "mlruns")
    again = [*COMPARE, *ONE_ARM, "compare.seeds=[1]", "compare.stress=false"]
    again += ["tracking=none", "output='1e5'"]
    assert Workbench(tmp_path).run(*again).code == 0
    assert _document(tmp_path, "1e5")["setup"]["markets"][0]["looks"] == 4 + 1
    assert _document(compared, "tiny")["setup"]["markets"][0]["looks"] == 1


def test_comparison_goes_on_beside_another_process(compared: Path, tmp_path: Path) -> None:
    """Another one runs two cells when this starts: one it ends well, with the other it dies.

    Before, one was killed while it recorded a cell, and one before it did so.
    """
    home = tmp_path / "home"
    shutil.copytree(compared / "comparisons", home / "comparisons")
    shutil.copytree(compared / "mlruns", home / "mlruns")
    folder = home / "comparisons" / "tiny"
    (folder / "comparison.json").unlink()
    before = _document(compared, "tiny")
    given, lost, kept = (folder / "cells" / f"main-1-{x}" for x in ("all_true", "masked", "reject"))
    given.rename(tmp_path / "given")
    shutil.rmtree(lost)
    stamp = (kept / "result.json").stat().st_mtime_ns
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    by_cell = {run.data.tags["cell"]: run.info.run_id for run in _cell_runs(client)}
    client.delete_run(by_cell["main-1-all_true"])
    client.update_run(by_cell["main-1-masked"], "RUNNING")
    finished = threading.Timer(6.0, (tmp_path / "given").rename, [given])

    with Claims(folder) as other:
        assert other.take("main-1-all_true")
        assert other.take("main-1-masked")
        finished.start()
        lets_go = threading.Timer(7.0, other.__exit__, [None, None, None])
        lets_go.start()
        assert Workbench(home).run(*SHORT, "output=tiny").code == 0
        lets_go.join()

    after = _document(home, "tiny")
    assert (kept / "result.json").stat().st_mtime_ns == stamp
    np.testing.assert_equal(after["figures"], before["figures"])
    assert len(past_accesses(home)) == 2  # the same look, not a new one
    states = Counter((run.data.tags["cell"], run.info.status) for run in _cell_runs(client))
    assert states == Counter({(cell, "FINISHED"): 1 for cell in by_cell}) + Counter(
        {("main-1-masked", "KILLED"): 1}
    )


def test_comparison_that_runs_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Claims(tmp_path / "comparisons" / "tiny"):
        result = Workbench(tmp_path, capsys).run(*SHORT, "output=tiny", "overwrite=true")
    assert result.code == 2
    assert "another process works on" in result.err


def _cell_runs(client: MlflowClient) -> list[Any]:
    experiment = client.get_experiment_by_name("ppo_workbench")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "tags.task = 'compare_cell'"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["output=../up"], "output='../up'"),
        (["output=tiny"], "holds a finished comparison"),
        (["compare.seeds=[1,1]"], "must differ"),
        (["compare.reference=nobody"], "compare.reference=nobody"),
        (["--multirun"], "leave --multirun away"),
        (["compare=fast"], "compare=fast"),
    ],
)
def test_bad_comparison_is_refused_in_one_sentence(
    compared: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], words: str
) -> None:
    result = Workbench(compared, capsys).run(*SHORT, *overrides)
    assert result.code == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_cell_that_fails_names_itself_and_its_log(
    workbench: Workbench,
) -> None:
    short = ["task=compare", *TINY, "data.synthetic.sessions=30", "tracking=none", "output=bad"]
    result = workbench.run(*short, *ONE_ARM, "budget.timesteps=512", "compare.seeds=[0]")
    assert result.code == 2
    assert "cells failed" in result.err
    assert "log.txt" in result.err


def test_audit_finds_nothing_in_masked_and_rejected_arms(compared: Path) -> None:
    audits = _document(compared, "tiny")["audit"]
    for arm in ("masked", "reject", "threshold", "random-legal"):
        if arm in audits:
            assert audits[arm]["violations"] == 0, arm
    assert audits["execute"]["violations"] > 0
    assert audits["masked"]["unaudited"] == []


def test_every_seed_says_whether_it_meets_the_targets_and_diverged(compared: Path) -> None:
    stable = _document(compared, "tiny")["stability"]
    assert set(stable) == {"masked", "reject", "execute", "all_true"}
    cells = compared / "comparisons" / "tiny" / "cells"
    for row in stable["masked"]["seeds"]:
        result = json.loads((cells / f"main-{row['seed']}-masked" / "result.json").read_text())
        card = result["scores"]["masked"]["validation"]
        assert row["validation"]["sharpe_annual"] == card["sharpe_annual"]
        assert 0.01 < row["entropy_nats"] == -result["curve"][-1]["train/entropy_loss"] < 1.1
        assert result["finite"]
    assert any("validation years" in line for line in _document(compared, "tiny")["conclusion"])


def test_winner_is_stressed_and_its_report_stands_beside_the_document(compared: Path) -> None:
    document = _document(compared, "tiny")
    assert document["winner"] in {"masked", "reject", "execute", "all_true"}
    assert {"costs_x2", "costs_x3"} <= set(document["stress"]["scenarios"])
    page = (compared / "comparisons" / "tiny" / "report" / "report.html").read_text("utf-8")
    assert document["conclusion"][0].rstrip(".") in page


def test_report_is_drawn_again_from_the_name_and_from_the_run(
    compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = compared / "comparisons" / "tiny" / "report" / "report.html"
    run_id = _document(compared, "tiny")["mlflow_run_id"]
    for name in ("tiny", run_id):
        page.unlink()
        result = Workbench(compared, capsys).run("task=report", f"run={name}")
        assert result.code == 0
        assert page.is_file()
    assert len(past_accesses(compared)) == 2  # drawing is no look of its own


def test_report_of_nothing_is_refused(workbench: Workbench) -> None:
    for name, words in (("ghost", "run=ghost: no comparison"), ("../up", "../up")):
        result = workbench.run("task=report", f"run={name}", "tracking=none")
        assert result.code == 2
        assert words in result.err
    assert "run=NAME" in workbench.run("task=report").err


def test_report_of_a_model_takes_bars_costs_and_rules_from_its_training(
    trained: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in ("first", trained.metadata("first")["mlflow_run_id"]):
        result = Workbench(trained.home, capsys).run("task=report", f"run={run}")
        assert result.code == 0, result.err
        said = " ".join(result.out.split())
        assert "bars, costs, rules and splits are set as in its training" in said

    page = trained.home / "reports" / "first" / "report.html"
    assert "set as in its training" in page.read_text("utf-8")
    assert _reported(trained) == trained.metadata("first")["scorecards"]["validation"]
    assert not (trained.home / "mlruns" / "test_openings.jsonl").exists()


def test_report_of_a_model_keeps_to_what_the_command_names(
    trained: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["task=report", "run=first", "costs.half_spread_bps=30.0", "tracking=none"]
    result = Workbench(trained.home, capsys).run(*ask)

    assert result.code == 0, result.err
    said = " ".join(result.out.split())
    assert "costs.half_spread_bps=30.0 (trained with 1.0)" in said
    own = trained.metadata("first")["scorecards"]["validation"]
    assert _reported(trained)["n_sessions"] == own["n_sessions"]
    assert _reported(trained)["cost_usd"] > 5 * own["cost_usd"] > 0


def _reported(home: Workbench) -> dict[str, Any]:
    text = (home.home / "reports" / "first" / "report.json").read_text("utf-8")
    (card,) = json.loads(text)["document"]["cards"]["validation"]["maskable_ppo"]
    own = home.metadata("first")["scorecards"]["validation"]
    return {key: card[key] for key in own if key in card} | {
        key: {name: card[f"{key}/{name}"] for name in own[key]}
        for key in own
        if isinstance(own[key], dict)
    }


def test_walk_forward_retrains_each_fold_and_stitches_one_curve(workbench: Workbench) -> None:
    daily = ["task=compare", "data=sp500", "splits=walk_forward_anchored", "splits.folds=2"]
    small = ["budget.timesteps=256", "budget.evaluations=1", *SMALL_MODEL, "tracking=none"]
    one = [*ONE_ARM, "compare.seeds=[0]", "output=forward"]

    result = workbench.run(*daily, *small, *one)

    assert result.code == 0, result.err
    document = _document(workbench.home, "forward")
    cells = workbench.home / "comparisons" / "forward" / "cells"
    parts = [
        read_trace(cells / f"main-0-masked-{fold}" / "trace-masked-0.parquet") for fold in (0, 1)
    ]
    returns = np.concatenate([part.daily_returns() for part in parts])
    card = document["cards"]["main"]["masked"][0]
    assert document["protocol"] == "walk_forward_anchored"
    assert document["method"] == "days and seeds"
    assert card["total_return_frac"] == pytest.approx(np.prod(1 + returns) - 1)
    assert parts[0].end_ns[-1] <= parts[1].opening_ns()
    assert [access.looks for access in past_accesses(workbench.home)] == [1]


def test_evaluation_of_other_bars_says_so_and_counts_the_look(
    trained: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.e2e.workbench import TINY as MARKET

    shutil.copytree(trained.home / "trained_models", tmp_path / "trained_models")
    ask = ["task=evaluate", "artifact=first", *MARKET, "data.synthetic.seed=9", "split=all"]

    first, second = (Workbench(tmp_path, capsys).run(*ask) for _ in range(2))

    assert first.code == second.code == 0
    assert "test access 1 to" in first.out
    assert "test access 2 to" in second.out
    assert "other bars" in " ".join(first.out.split())


def test_evaluation_takes_features_and_actions_from_the_model(
    trained: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["task=evaluate", "artifact=first", "data.synthetic.sessions=40"]
    result = Workbench(trained.home, capsys).run(*ask, "env.exposure_levels=[0.0,1.0]")
    assert result.code == 0, result.err
