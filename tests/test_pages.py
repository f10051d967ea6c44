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
    return [figure[key] for key in ("mean", "low", "high")]


ARMS_OF_README = {
    "MaskablePPO": "masked",
    "standard PPO, same reward, rules not enforced": "execute",
    "standard PPO, same reward, rules enforced by the broker": "reject",
    "threshold rule tuned on train, same masks": "threshold",
    "oracle that knows the regime, same masks": "oracle",
    "buy and hold": "buy-and-hold",
}
ARMS_OF_RESULTS = {
    "MaskablePPO": "masked",
    "standard PPO, forbidden orders carried out": "execute",
    "standard PPO, orders rejected by the broker": "reject",
    "threshold rule, tuned on train, same masks": "threshold",
    "oracle, same masks": "oracle",
    "buy-and-hold": "buy-and-hold",
}


@pytest.mark.parametrize(
    ("page", "header", "arms"),
    [
        ("README.md", "| policy | annual Sharpe", ARMS_OF_README),
        ("docs/results.md", "| policy | Sharpe | max drawdown | at 10 %", ARMS_OF_RESULTS),
    ],
)
def test_headline_is_that_of_the_reporting_comparison(
    page: str, header: str, arms: dict[str, str]
) -> None:
    comparison = _read(ROOT / "docs" / "deliverables" / "comparison.json")
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    titles = next(line for line in lines if line.startswith(header)).split("|")[1:]
    column = {title.strip(): at for at, title in enumerate(titles)}
    rows = {row[0]: row for row in _rows(page, header)}
    assert len(rows) == len(arms) + 1  # and the market without an edge
    cases = [(rows[text], comparison["figures"][arm]) for text, arm in arms.items()]
    no_edge = next(row for text, row in rows.items() if "without an edge" in text)
    cases.append((no_edge, comparison["other_markets"]["no_edge"]["figures"]["masked"]))
    for row, figures in cases:
        sharpe = row[column.get("annual Sharpe", column.get("Sharpe", 0))]
        n = len(NUMBER.findall(sharpe))
        _check(sharpe, _median(figures["sharpe_annual"])[:n])
        for title, key in (("max drawdown", "max_drawdown_frac"), ("win rate", "win_rate_frac")):
            cell = row[column[title]]
            if cell != "-":
                _check(cell, _median(figures[key])[: len(NUMBER.findall(cell))], scale=100.0)
        for title, key in (("round trips", "n_trades"), ("exposure", "exposure_mean_abs")):
            if row[column[title]]:
                _check(row[column[title]], [figures[key]["median"]])
    for text, arm in arms.items():
        audited = comparison["audit"][arm]["violations"]
        _check(rows[text][-1 if page == "README.md" else 7], [audited])


def test_recipe_is_that_of_its_results() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "recipe.py"))
    table = made["table"](_read(RESULTS / "recipe.json"))
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_real_bars_are_those_of_their_results() -> None:
    rows = _rows("docs/no_edge.md", "| bars, tests |")
    long = [one for one in _read(RESULTS / "real_bars.json") if "figures" in one]
    names = ("masked", "reject", "execute", "threshold", "buy-and-hold")
    expected = [(one, name) for one in long for name in names]
    assert len(rows) == len(expected) == 15
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
