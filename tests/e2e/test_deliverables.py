"""The deliverables: verified from their files alone, every fault that is put in is refused."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.workbench import TINY, TRADING, Workbench

from ppo_workbench.config import Config, ScoredSplit
from ppo_workbench.delivery.artifact import load_artifact, save_artifact
from ppo_workbench.delivery.metadata import Gate, Status
from ppo_workbench.pipeline.models.rescore import differences, rescore
from ppo_workbench.scoring.targets import TOLD, SeedRun, stability

ROOT = Path(__file__).parents[2]
CHAMPION, BASELINE = "maskable_production_final", "ppo_baseline_final"
SHORT = [*TINY, *TRADING, "budget.timesteps=768", "budget.evaluations=3", "tracking=none"]
GATE: dict[str, Any] = {
    "name": "audit",
    "passed": True,
    "value": 0.0,
    "threshold": 0.0,
    "reason": "0 violations",
}


def _script(name: str) -> Any:
    """Import a script of benchmarks/, which import each other by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        if name not in sys.modules:
            importlib.import_module(name)
        return sys.modules[name]


evidence, tables, verification, driver = (
    _script(name)
    for name in (
        "deliverable_evidence",
        "deliverable_tables",
        "verify_deliverables",
        "deliverables",
    )
)


def _comparison() -> dict[str, Any]:
    """Return a comparison of two seeds, as far as the tables read one."""
    card = dict.fromkeys(TOLD, 1.0) | {"n_decisions": 1000.0, "n_trades": 300.0}
    figure = {"median": 1.0, "median_low": 0.5, "median_high": 1.5}
    shown = {name: figure for name, _, _ in tables.SHOWN}
    difference = {"estimate": 0.5, "low": 0.1, "high": 0.9, "better_in": 2, "runs": 2}
    runs = [SeedRun(seed, card, card, 0.4, finite=True) for seed in (0, 1)]
    target = {"arm": "masked", "figure": "sharpe_annual", "target": 1.5, "sense": "above"}
    return {
        "preset": "reporting",
        "git_commit": None,
        "setup": {"seeds": [0, 1], "timesteps": 10, "markets": [{"years": 4.0}]},
        "arms": [{"name": arm, "title": arm} for arm in ("masked", "execute", "reject")],
        "cards": {"main": {"masked": [card, card]}},
        "figures": dict.fromkeys(("masked", "execute", "reject"), shown),
        "targets": [target | figure | {"median_verdict": "not decidable", "trades_enough": True}],
        "stability": {"masked": stability(runs)},
        "differences": [
            {"first": "masked", "second": rival, "figure": name, "decided": True, **difference}
            for rival in ("execute", "reject")
            for name in tables.BETTER
        ],
        "invalid_trades": {"masked": {"house": 0}, "execute": {"house": 7}},
        "audit": {"masked": {"violations": 0}},
        "conclusion": ["Nothing was found."],
    }


def _write(home: Path, name: str, document: Any) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    evidence.write_whole(home / evidence.EVIDENCE / name, text)


def _rows(home: Path) -> None:
    """Write the rows of the criteria."""
    rows = tables.criteria_of(home)
    (home / tables.PAGE).write_text(f"# x\n\n{tables.BEGIN}\n{rows}{tables.END}\n", "utf-8")


def _crown(home: Path, **changes: Any) -> None:
    """Save the champion again with other metadata, its hashes in order."""
    folder = home / "trained_models"
    stored = load_artifact(folder, CHAMPION)
    metadata = stored.metadata.model_copy(update=changes)
    save_artifact(folder, CHAMPION, stored.tensors, metadata, overwrite=True)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make small deliverables: two tiny models, true scores, an invented comparison."""
    home = tmp_path_factory.mktemp("delivered")
    bench = Workbench(home)
    scores: dict[str, Any] = {}
    extra: dict[str, list[str]] = {
        CHAMPION: [],
        BASELINE: ["model=ppo", "env.forbidden_action=execute"],
    }
    for name, own in extra.items():
        assert bench.run(*SHORT, *own, f"output={name}").code == 0
        scores[name] = {}
        for split in evidence.SPLITS:
            result = home / "result.json"
            ask = ["task=evaluate", f"artifact={name}", f"split={split}", f"result_json={result}"]
            assert bench.run(*SHORT, *own, *ask).code == 0
            scores[name][split] = evidence.read(result)["scorecards"][name][split]
    cards = load_artifact(home / "trained_models", CHAMPION).metadata.scorecards
    cards = cards.model_copy(update={"test": scores[CHAMPION]["test"]})
    _crown(home, status=Status.champion, gates=[Gate(**GATE)], scorecards=cards)
    compared, promotion = _comparison(), {
        "promoted": True, "gates": [GATE], "scorecards": {"test": scores[CHAMPION]["test"]},
        "test": {"instrument": "SYNTHETIC-0-default"},
    }  # fmt: skip
    study = {"study": "s", "trials": [], "summary": ["Two trials."], "recommended": None}
    for name, document in {
        "comparison.json": compared, "comparison.md": tables.comparison(compared),
        "analysis.json": study, "analysis.md": tables.analysis(study),
        "promotion.json": promotion, "scores.json": scores,
    }.items():  # fmt: skip
        _write(home, name, document)
    for name in extra:
        _write(home, f"training/{name}.log", "done\n")
        _write(home, f"training/{name}.csv", "timesteps\n768\n")
    evidence.write_manifest(home, compared)
    _rows(home)
    return home


@pytest.fixture
def home(delivered: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a copy to put faults into, and a home of its own for what verifying records."""
    copy = tmp_path / "copy"
    shutil.copytree(delivered, copy, ignore=shutil.ignore_patterns("mlruns"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPO_WORKBENCH_HOME", str(tmp_path / "scratch"))
        yield copy


def test_whole_deliverables_hold_and_nothing_is_written_to_them(home: Path) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert verification.problems(home) == []
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", range(14))
def test_missing_file_is_named(home: Path, place: int) -> None:
    names = evidence.delivered()
    assert len(names) == 14
    (home / names[place]).unlink()
    assert verification.problems(home, quick=True) == [f"{names[place]} is missing"]


def test_missing_manifest_and_additional_files_are_named(home: Path) -> None:
    _write(home, "more.json", {})
    (found,) = verification.problems(home, quick=True)
    assert "more.json is there and not in the manifest" in found
    (home / evidence.EVIDENCE / evidence.MANIFEST).unlink()
    (found,) = verification.problems(home, quick=True)
    assert "manifest.json is missing" in found


@pytest.mark.parametrize("place", range(14))
def test_changed_byte_is_refused(home: Path, place: int) -> None:
    name = evidence.delivered()[place]
    content = bytearray((home / name).read_bytes())
    content[len(content) // 2] ^= 1
    (home / name).write_bytes(content)
    (found,) = verification.problems(home, quick=True)
    assert found.startswith(f"{name} was changed")


def _changed(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def put(home: Path) -> None:
        document = evidence.read(home / evidence.EVIDENCE / name)
        change(document)
        _write(home, name, document)

    return put


def _byte_of_weights(home: Path) -> None:
    path = home / "baselines" / f"{BASELINE}.pth"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def _figure_of_page(home: Path) -> None:
    path = home / tables.PAGE
    path.write_text(path.read_text("utf-8").replace("+1.00", "+1.01"), "utf-8")


def _no_markers(home: Path) -> None:
    (home / tables.PAGE).write_text("x", "utf-8")


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights": (_byte_of_weights, "hash does not agree"),
    "status": (lambda home: _crown(home, status=Status.candidate), "only a champion"),
    "gate": (
        lambda home: _crown(home, gates=[Gate(**GATE | {"passed": False})]),
        "was not promoted by its gates",
    ),
    "verdict": (_changed("promotion.json", lambda d: d.update(promoted=False)), "not promoted by"),
    "gates": (
        _changed("promotion.json", lambda d: d["gates"].append(GATE | {"name": "more"})),
        "not those of promotion.json",
    ),
    "figure": (
        _changed("comparison.json", lambda d: d["figures"]["masked"].update(n_trades={
            "median": 9.0, "median_low": 8.0, "median_high": 10.0})),
        "comparison.md is not what comparison.json says",
    ),
    "analysis": (
        _changed("analysis.json", lambda d: d.update(summary=["Three trials."])),
        "analysis.md is not what analysis.json says",
    ),
    "page": (_figure_of_page, "rows of the success criteria are not"),
    "markers": (_no_markers, "no rows"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_with_fitting_hashes_is_refused_all_the_same(home: Path, fault: str) -> None:
    put, words = FAULTS[fault]
    put(home)
    evidence.write_manifest(home, {})
    found = " ".join(verification.problems(home, quick=True))
    assert words in found


def test_score_that_was_raised_is_refused(home: Path) -> None:
    def raise_it(document: Any) -> None:
        document[BASELINE]["test"]["sharpe_annual"] += 1e-9

    _changed("scores.json", raise_it)(home)
    evidence.write_manifest(home, {})
    assert verification.problems(home, quick=True) == []
    (found,) = verification.problems(home)
    assert found.startswith(f"{BASELINE} on test: sharpe_annual was")


def test_score_of_metadata_must_be_that_of_the_evidence(home: Path) -> None:
    stored = load_artifact(home / "trained_models", CHAMPION).metadata.scorecards
    card = dict(stored.validation or {}) | {"sharpe_annual": 9.0}
    _crown(home, scorecards=stored.model_copy(update={"validation": card}))
    evidence.write_manifest(home, {})
    found = verification.problems(home)
    assert f"{CHAMPION} on validation: scores.json is not what its metadata say" in found


def test_large_file_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOST_BYTES", 1000)
    assert any("1,000 bytes or more" in each for each in verification.problems(home, quick=True))
    with pytest.raises(SystemExit, match="too large to commit"):
        evidence.write_manifest(home, {})


def test_rescore_elsewhere_allows_the_stated_tolerances(home: Path) -> None:
    folder = home / "trained_models"
    kept = evidence.read(home / evidence.EVIDENCE / "scores.json")[CHAMPION]["validation"]
    near = kept | {"sharpe_annual": kept["sharpe_annual"] + 0.04, "cost_usd": 0.0}
    here = rescore(folder, CHAMPION, ScoredSplit.validation, near, Config())
    assert here.same_machine
    assert here.same_bars
    assert set(here.apart) == {"sharpe_annual", "cost_usd"}

    _crown(home, cpu="another processor")
    elsewhere = rescore(folder, CHAMPION, ScoredSplit.validation, near, Config())
    assert not elsewhere.same_machine
    assert elsewhere.apart == {}
    far = kept | {"win_rate_frac": kept["win_rate_frac"] + 0.011}
    assert set(rescore(folder, CHAMPION, ScoredSplit.validation, far, Config()).apart) == {
        "win_rate_frac"
    }


def test_recorded_figure_that_is_no_longer_there_differs_and_a_later_rules_does_not() -> None:
    kept = {"sharpe_annual": 1.0, "cost_usd": 2.0}
    found = {"sharpe_annual": 1.0, "blocked_share/stop_loss": 0.0}
    assert differences(kept, found, exact=True) == {"cost_usd": (2.0, None)}


def _home(path: Path, codes: list[int], calls: list[list[str]]) -> Any:
    home = driver.Home(path)

    def call(step: str, arguments: list[str]) -> int:
        calls.append(list(arguments))
        return codes.pop(0)

    home._call = call
    return home


def test_finished_step_is_not_run_again_and_other_options_are_refused(tmp_path: Path) -> None:
    calls: list[list[str]] = []
    home = _home(tmp_path, [0], calls)
    assert home.run("sweep", "a", "b") == home.run("sweep", "a", "b") == 0
    assert calls == [["a", "b"]]
    with pytest.raises(SystemExit, match="other options"):
        home.run("sweep", "a", "c")


def test_failed_step_ends_and_goes_on_with_the_next_start(tmp_path: Path) -> None:
    calls: list[list[str]] = []
    home = _home(tmp_path, [2, 0], calls)
    with pytest.raises(SystemExit, match="code 2"):
        home.run("analyse", "a")
    assert home.run("analyse", "a") == 0


def test_training_that_was_killed_is_resumed(tmp_path: Path) -> None:
    calls: list[list[str]] = []
    home = _home(tmp_path, [0], calls)
    checkpoint = tmp_path / "mlruns" / "checkpoints" / "x.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    driver.train(home, "masked", "trained_models", "x", ["seed=1"])
    assert calls == [["resume=x"]]


def test_refusal_ends_with_code_3_and_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []
    home = _home(tmp_path, [3], calls)
    options = driver.argparse.Namespace(promote_set=[])
    with pytest.raises(SystemExit, match="came to no verdict"):
        driver.promote(home, options)  # such as a promotion that is under way already

    folder = tmp_path / "promotions" / f"{CHAMPION}-1"
    document = {"study": driver.STUDY, "promoted": False, "gates": [GATE | {"passed": False}]}
    evidence.write_whole(folder / "promotion.json", json.dumps(document))
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            driver.promote(home, options)
        assert ended.value.code == 3
        assert "nothing is delivered: 1 of 1 gates refuse" in capsys.readouterr().out
    assert len(calls) == 1


def test_second_start_is_refused_while_a_command_of_the_first_runs(tmp_path: Path) -> None:
    first = driver.Home(tmp_path)
    first.lock()
    with pytest.raises(SystemExit, match="still running"):
        driver.Home(tmp_path).lock()


def test_git_keeps_exactly_the_deliverables() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    kept = [name for name in evidence.delivered() if not name.startswith("docs")]
    others = [
        *("trained_models/other.pth", f"trained_models/{CHAMPION}.previous.pth"),
        *(
            "baselines/other-metadata.json",
            "promotions/x/promotion.json",
            "comparisons/x/plan.json",
        ),
        *("mlruns/mlflow.db", "sweeps/deliverables/journal.log"),
    ]
    asked = subprocess.run(
        ["git", "check-ignore", "--no-index", *kept, *others],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert asked.stdout.split() == others
