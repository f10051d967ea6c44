"""The figures of README and docs are those of the committed results, to their last digit."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
NUMBER = re.compile(r"[+-]?(?:\d[\d,]*)?\.?\d+")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _rows(page: str, header: str) -> list[list[str]]:
    """Return the cells of the table whose first row starts with `header`."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(header)) + 2
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip(" *") for cell in line.strip("|").split("|")])
    return found


def _check(cell: str, expected: list[float], scale: float = 1.0) -> None:
    """Compare the numbers of a cell with what they are rounded from."""
    shown = [text.replace(",", "") for text in NUMBER.findall(cell)]
    assert len(shown) >= len(expected), cell
    for text, value in zip(shown, expected, strict=False):
        half_a_digit = 0.5 * 10.0 ** -len(text.partition(".")[2])
        assert float(text) == pytest.approx(value * scale, abs=half_a_digit * 1.0001), cell


def _median(figure: dict[str, Any]) -> list[float]:
    return [figure[key] for key in ("median", "median_low", "median_high")]


def _mean(figure: dict[str, Any]) -> list[float]:
    """Return a mean with its interval, which is none where a policy never trades."""
    ends = [figure["low"], figure["high"]]
    return [figure["mean"], *(ends if ends[0] != ends[1] else [])]


def test_headline_is_that_of_the_reporting_comparison() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "headline.py"))
    comparison = _read(ROOT / "docs" / "deliverables" / "comparison.json")
    for page, table in (("README.md", "readme"), ("docs/results.md", "results")):
        assert made[table](comparison) in (ROOT / page).read_text(encoding="utf-8")


def test_picture_is_drawn_from_its_curves(tmp_path: Path) -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "picture.py"))
    curves = _read(ROOT / "docs" / "results" / "curves.json")
    comparison = _read(ROOT / "docs" / "deliverables" / "comparison.json")
    seeds, cards = comparison["setup"]["seeds"], comparison["cards"]["main"]
    rule = curves["policies"]["threshold"]  # trainings of another machine differ (docs/seeds.md)
    for seed, growth, falls in zip(
        curves["seeds"], rule["growth"], rule["drawdown_frac"], strict=True
    ):
        card = cards["threshold"][seeds.index(seed)]
        assert growth[-1] == pytest.approx(1.0 + card["total_return_frac"], abs=1e-4)
        assert max(falls) <= card["max_drawdown_frac"] + 1e-4
    made["draw"](curves, tmp_path / "equity.svg")
    assert (tmp_path / "equity.svg").read_bytes() == (ROOT / "docs" / "equity.svg").read_bytes()


def test_mask_experiment_is_that_of_its_results(tmp_path: Path) -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "mask_experiment.py"))
    found = _read(RESULTS / "mask_experiment.json")
    page = (ROOT / "docs" / "mask_experiment.md").read_text("utf-8")
    for name in (made["FIRST"], made["SECOND"]):
        assert made["tables"](found, name) in page
    row = made["primary"](found, made["SECOND"])
    span = "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**row).replace("0.", ".")
    for told in ("README.md", "docs/results.md"):
        assert f"ahead by {span}" in (ROOT / told).read_text("utf-8")
    made["draw"](found, tmp_path / "masks.svg")
    drawn = (ROOT / "docs" / "mask_experiment.svg").read_bytes()
    assert (tmp_path / "masks.svg").read_bytes() == drawn


def test_power_curve_is_that_of_its_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "promotion_gates.py"))
    table = made["curve"](_read(RESULTS / "promotion_gates_curve.json"))
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_growth_is_that_of_its_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "growth.py"))
    found, page = _read(RESULTS / "growth.json"), (ROOT / "docs" / "results.md").read_text("utf-8")
    assert made["table"](found) in page
    assert made["rates_table"](found) in page


def test_machines_are_those_of_their_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "several_machines.py"))
    table = made["table"](_read(RESULTS / "several_machines.json"))
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_jax_peer_is_that_of_its_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "jax_peer.py"))
    table = made["table"](_read(RESULTS / "jax_peer.json"))
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_recipe_is_that_of_its_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "recipe.py"))
    table = made["table"](_read(RESULTS / "recipe.json"))
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_references_are_those_of_their_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "references.py"))
    table = made["table"](_read(RESULTS / "references.json"))
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_hurdle_is_that_of_its_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "reward_hurdle.py"))
    table = made["table"](_read(RESULTS / "reward_hurdle.json"))
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_starts_are_those_of_their_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "hold_at_first.py"))
    table = made["table"](_read(RESULTS / "hold_at_first.json"))
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_rules_of_checkpoints_are_those_of_their_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "select_checkpoint.py"))
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    for name in ("select_checkpoint.json", "select_checkpoint_recipe.json"):
        assert made["table"](_read(RESULTS / name)) in page


def test_markets_hard_on_masks_are_those_of_their_results() -> None:
    for row in _rows("docs/results.md", "| market | masked, median Sharpe"):
        found = _read(RESULTS / f"comparison_{row[0].strip('`')}.json")
        figures = found["figures"]
        masked = figures["masked"]
        _check(
            row[1], [masked["sharpe_annual"]["median"], masked["max_drawdown_frac"]["median"] * 100]
        )
        for cell, rival, figure, scale in (
            (row[2], "reject", "sharpe_annual", 1.0),
            (row[3], "execute", "sharpe_annual", 1.0),
            (row[4], "execute", "max_drawdown_frac", 100.0),
            (row[5], "threshold", "sharpe_annual", 1.0),
            (row[6], "ridge", "sharpe_annual", 1.0),
        ):
            (one,) = (
                each
                for each in found["differences"]
                if (each["first"], each["second"], each["figure"]) == ("masked", rival, figure)
            )
            _check(cell, [one["estimate"], one["low"], one["high"]], scale)
        _check(row[7], [figures["oracle"]["sharpe_annual"]["median"]])


def test_real_bars_are_those_of_their_results() -> None:
    rows = _rows("docs/no_edge.md", "| bars, tests |")
    long = [one for one in _read(RESULTS / "real_bars.json") if "figures" in one]
    names = ("masked", "reject", "execute", "threshold", "ridge", "boosting", "buy-and-hold")
    expected = [(one, name) for one in long for name in names]
    assert len(rows) == len(expected) == 21
    for row, (one, name) in zip(rows, expected, strict=True):
        figures = one["figures"][name]
        _check(row[2], _mean(figures["sharpe_annual"]))
        _check(row[3], [figures["max_drawdown_frac"]["mean"]], scale=100.0)
        _check(row[4], [figures["n_trades"]["median"]])
        _check(row[5], [figures["exposure_mean_abs"]["mean"]])
        costs = [found["cost_bps"] for found in one["break_even"].get(name, ())]
        assert row[6].count("never") == costs.count(None)
        _check(row[6], [cost for cost in costs if cost is not None])


def test_time_to_target_is_that_of_its_results() -> None:
    found = _read(RESULTS / "time_to_target.json")
    rows = _rows("docs/results.md", "| learner | seconds, seeds")
    assert len(rows) == len(found["runs"])
    for row, (name, runs) in zip(rows, found["runs"].items(), strict=True):
        assert row[0].startswith(name)
        _check(row[1], [run["seconds"] for run in runs])
        _check(row[2], [found["median_seconds"][name]])
