"""Write the tables of the reporting comparison into README and docs/results.md.

    python benchmarks/headline.py

Between the lines `<!-- headline -->` and `<!-- /headline -->`; sentences around them are written
by hand and compared with the same file by tests/test_pages.py.
"""

from typing import Any

import harness
from harness import ROOT

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
    head = ("policy", "annual Sharpe", "max drawdown", "win rate", "broken rules")
    rows = []
    for arm in FIRST:
        figures, broken = found["figures"][arm], found["audit"][arm]["violations"]
        shown = (("sharpe_annual", 1.0, 2), ("max_drawdown_frac", 100.0, 1))
        spans = [span(figures[k], by, n) for k, by, n in (*shown, ("win_rate_frac", 100.0, 0))]
        rows.append([ARMS[arm], *spans, f"{broken:,}"])
    return harness.table(head, rows) + "\n"


def results(found: Figures) -> str:
    """Return the tables of docs/results.md: every policy, and the paired differences."""
    head = ("policy", "Sharpe", "max drawdown", "at 10 % volatility", "win rate", "round trips")
    rows = []
    for arm, title in ARMS.items():
        broken = f"{found['audit'][arm]['violations']:,}"
        rows.append(_results_row(title, found["figures"][arm], broken))
    other = found["other_markets"]["no_edge"]["figures"]["masked"]
    rows.append(_results_row("MaskablePPO, market without an edge", other, "0"))
    parts = [
        harness.table((*head, "exposure", "audit's violations"), rows),
        "Paired by market (mean, 95 % interval; Holm over all pairs of a figure):",
        harness.table(
            ("difference", "Sharpe", "better in", "drawdown", "better in", "decided"),
            [_difference_row(found, rival) for rival in RIVALS],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _results_row(title: str, figures: Figures, broken: str) -> list[str]:
    trades = figures["n_trades"]["median"]
    wins = span(figures["win_rate_frac"], 100.0, 1) if trades else "-"
    return [
        title,
        span(figures["sharpe_annual"], 1.0, 2),
        *(span(figures[f"max_drawdown_{name}frac"], 100.0, 1) for name in ("", "at_10pct_vol_")),
        wins,
        f"{trades:,.0f}",
        f"{figures['exposure_mean_abs']['median']:.2f}",
        broken,
    ]


def _difference_row(found: Figures, rival: str) -> list[str]:
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
    return [*cells, " and ".join(decided) or "neither"]


def main() -> None:
    """Write both pages from the committed comparison."""
    found = harness.read(ROOT / "docs" / "deliverables" / "comparison.json")
    harness.put_between(ROOT / "README.md", BEGIN, END, readme(found))
    harness.put_between(ROOT / "docs" / "results.md", BEGIN, END, results(found))


if __name__ == "__main__":
    main()
