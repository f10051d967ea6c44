"""Write the tables of the reporting comparison into README and docs/results.md.

    python benchmarks/headline.py

Between the lines `<!-- headline -->` and `<!-- /headline -->`; sentences around them are written
by hand and compared with the same file by tests/test_pages.py.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- headline -->\n", "<!-- /headline -->"
Figures = dict[str, Any]

ARMS = {
    "masked": "**MaskablePPO**",
    "execute": "standard PPO, forbidden orders carried out",
    "reject": "standard PPO, orders rejected by the broker",
    "threshold": "threshold rule, tuned on train, same masks",
    "ridge": "ridge forecast, same masks",
    "boosting": "gradient boosting forecast, same masks",
    "reference": "reference filter (knows the parameters), same masks",
    "oracle": "oracle (knows the state), same masks",
    "buy-and-hold": "buy-and-hold",
}
RIVALS = ("execute", "reject", "threshold", "ridge", "boosting", "reference", "buy-and-hold")
FIRST = ("masked", "execute", "threshold", "ridge", "reference")  # on README


def span(figure: Figures, scale: float, digits: int) -> str:
    """Return median and interval, `3.10 [2.61, 3.39]`."""
    median, low, high = (figure[k] * scale for k in ("median", "median_low", "median_high"))
    shown = f"{median:.{digits}f}{' %' if scale != 1.0 else ''}"
    return f"{shown} [{low:.{digits}f}, {high:.{digits}f}]"


def readme(found: Figures) -> str:
    """Return the README's table: the agent, and what it is compared with."""
    lines = [
        "| policy | annual Sharpe | max drawdown | win rate | broken rules |",
        "|---|---|---|---|---|",
    ]
    for arm in FIRST:
        figures, broken = found["figures"][arm], found["audit"][arm]["violations"]
        lines.append(
            f"| {ARMS[arm]} | {span(figures['sharpe_annual'], 1.0, 2)} "
            f"| {span(figures['max_drawdown_frac'], 100.0, 1)} "
            f"| {span(figures['win_rate_frac'], 100.0, 0)} | {broken:,} |"
        )
    return "\n".join(lines) + "\n"


def results(found: Figures) -> str:
    """Return the tables of docs/results.md: every policy, and the paired differences."""
    lines = [
        "| policy | Sharpe | max drawdown | at 10 % volatility | win rate | round trips | exposure "
        "| audit's violations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, title in ARMS.items():
        broken = f"{found['audit'][arm]['violations']:,}"
        lines.append(_results_row(title, found["figures"][arm], broken))
    other = found["other_markets"]["no_edge"]["figures"]["masked"]
    lines.append(_results_row("MaskablePPO, market without an edge", other, "0"))
    lines += [
        "",
        "Paired by market (mean, 95 % interval; Holm over all pairs of a figure):",
        "",
        "| difference | Sharpe | better in | drawdown | better in | decided |",
        "|---|---|---|---|---|---|",
        *(_difference_row(found, rival) for rival in RIVALS),
    ]
    return "\n".join(lines) + "\n"


def _results_row(title: str, figures: Figures, broken: str) -> str:
    trades = figures["n_trades"]["median"]
    wins = span(figures["win_rate_frac"], 100.0, 1) if trades else "-"
    cells = [
        title,
        span(figures["sharpe_annual"], 1.0, 2),
        span(figures["max_drawdown_frac"], 100.0, 1),
        span(figures["max_drawdown_at_10pct_vol_frac"], 100.0, 1),
        wins,
        f"{trades:,.0f}",
        f"{figures['exposure_mean_abs']['median']:.2f}",
        broken,
    ]
    return f"| {' | '.join(cells)} |"


def _difference_row(found: Figures, rival: str) -> str:
    cells, decided = [f"masked - {ARMS[rival]}"], []
    for figure, scale, digits in (("sharpe_annual", 1.0, 2), ("max_drawdown_frac", 100.0, 1)):
        row = next(
            row
            for row in found["differences"]
            if (row["first"], row["second"], row["figure"]) == ("masked", rival, figure)
        )
        estimate, low, high = (row[key] * scale for key in ("estimate", "low", "high"))
        unit = " %" if scale != 1.0 else ""
        cells.append(f"{estimate:+.{digits}f}{unit} [{low:+.{digits}f}, {high:+.{digits}f}]")
        cells.append(f"{row['better_in']} of {row['runs']}")
        decided += [figure.split("_")[0].replace("max", "drawdown")] if row["decided"] else []
    return f"| {' | '.join([*cells, ' and '.join(decided) or 'neither'])} |"


def write(page: Path, table: str) -> None:
    """Replace what stands between the markers of a page."""
    head, marked, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    if not marked or END not in rest:
        raise SystemExit(f"{page}: has no lines {BEGIN.strip()} and {END}; add them")
    page.write_text(head + BEGIN + table + END + rest.partition(END)[2], encoding="utf-8")


def main() -> None:
    """Write both pages from the committed comparison."""
    path = ROOT / "docs" / "deliverables" / "comparison.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    write(ROOT / "README.md", readme(found))
    write(ROOT / "docs" / "results.md", results(found))


if __name__ == "__main__":
    main()
