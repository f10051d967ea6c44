"""The document of a comparison: every figure of its report, made from the files of its cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppo_workbench.config import Config
from ppo_workbench.pipeline.comparison_plan import MAIN, Cell, varies_market
from ppo_workbench.scoring.comparison import ArmRun, MarketComparison, conclusions
from ppo_workbench.scoring.session_path import read_path

FORMAT_VERSION = 1
TITLES = {
    "masked": "MaskablePPO",
    "reject": "PPO, forbidden orders rejected",
    "execute": "PPO, forbidden orders executed",
    "all_true": "MaskablePPO without a mask (control)",
    "masked_no_variance": "MaskablePPO, no variance penalty",
    "execute_no_variance": "PPO executed, no variance penalty",
    "threshold": "threshold rule, tuned on train",
    "oracle": "oracle (knows the edge)",
}
INVALID = ("violations", "rejections")


def comparison_document(
    config: Config,
    name: str,
    timesteps: int,
    cells: Sequence[Cell],
    results: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> dict[str, Any]:
    """Return the document as JSON values; docs/statistics.md describes its parts.

    Args:
        config: The comparison's configuration.
        name: Of the comparison.
        timesteps: Budget of every training.
        cells: All cells.
        results: `result.json` by cell.
        folder: Of the comparison.
    """
    markets = {
        market: _runs(config, market, cells, results, folder)
        for market in dict.fromkeys(cell.market for cell in cells)
    }
    compared = {
        market: MarketComparison(
            runs, worlds=varies_market(config), resamples=config.compare.resamples
        )
        for market, runs in markets.items()
    }
    main = compared[MAIN]
    trained = [arm for arm in main.runs if arm in config.compare.arms]
    pairs = config.compare.pairs or _all_pairs(config)
    figures, differences = main.figures(), main.differences(pairs)
    tests = _tests(cells, results, compared)
    years = tests[0]["years"]
    reference = config.compare.reference
    second = next(iter(pair[1] for pair in pairs if pair[0] == reference), reference)
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "preset": config.compare.preset,
        "protocol": "holdout",
        "method": main.method,
        "setup": {"timesteps": timesteps, "seeds": config.compare.seeds, "markets": tests},
        "arms": [
            {
                "name": arm,
                "title": TITLES.get(arm, arm),
                "kind": "trained" if arm in trained else "yardstick",
                "overrides": config.compare.arms.get(arm, []),
            }
            for arm in main.runs
        ],
        "cards": {
            market: {arm: [dict(run.card) for run in runs] for arm, runs in found.runs.items()}
            for market, found in compared.items()
        },
        "figures": figures,
        "targets": [row for arm in trained for row in main.targets(arm, years)],
        "differences": differences,
        "seeds": main.seed_figures(reference, second) if second in main.runs else None,
        "selection": main.selection(second if second in main.runs else reference),
        "probability_above_zero": {arm: main.probability_above_zero(arm) for arm in main.runs},
        "invalid_trades": {arm: _invalid(runs) for arm, runs in main.runs.items()},
        "other_markets": {
            market: {"figures": found.figures(), "differences": found.differences(pairs)}
            for market, found in compared.items()
            if market != MAIN
        },
        "winner": _winner(config, cells, results),
        "conclusion": conclusions(trained, figures, differences),
    }


def _all_pairs(config: Config) -> list[list[str]]:
    reference = config.compare.reference
    return [[reference, arm] for arm in config.compare.arms if arm != reference]


def _runs(
    config: Config,
    market: str,
    cells: Sequence[Cell],
    results: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> list[ArmRun]:
    """Return the runs of one market; on one market every seed meets the same yardsticks."""
    runs = []
    for cell in (cell for cell in cells if cell.market == market):
        for arm, scores in results[cell.name]["scores"].items():
            path = read_path(folder / "cells" / cell.name / f"sessions-{arm}.npz")
            shared = cell.kind != "train" and not varies_market(config)
            seeds = config.compare.seeds if shared else [cell.seed]
            runs += [ArmRun(arm, seed, scores["test"], path) for seed in seeds]
    order = {arm: position for position, arm in enumerate(config.compare.arms)}
    return sorted(runs, key=lambda run: order.get(run.arm, len(order)))


def _tests(
    cells: Sequence[Cell],
    results: Mapping[str, Mapping[str, Any]],
    compared: Mapping[str, MarketComparison],
) -> list[dict[str, Any]]:
    """Describe every test that was opened, that of the first seed first."""
    tests: dict[str, dict[str, Any]] = {}
    for cell in cells:
        found = results[cell.name]
        test = found["test"]
        path = next(iter(compared[cell.market].runs.values()))[0].path
        tests.setdefault(
            found["instrument"],
            {
                "name": cell.market,
                "instrument": found["instrument"],
                "bar_seconds": found["bar_seconds"],
                "test_start": test["start"],
                "test_stop": test["stop"],
                "sessions": len(path),
                "years": len(path) / path.sessions_per_year,
                "looks": test["looks"],
                "synthetic": found["synthetic"],
            },
        )
    return list(tests.values())


def _invalid(runs: Sequence[ArmRun]) -> dict[str, int]:
    """Sum orders that broke a rule, executed (`SEVERITY`) and rejected (`rejected_SEVERITY`)."""
    totals: dict[str, int] = {}
    for kind in INVALID:
        for run in runs:
            for key, value in run.card.items():
                if key.startswith(f"{kind}/"):
                    severity = key.partition("/")[2]
                    label = severity if kind == "violations" else f"rejected_{severity}"
                    totals[label] = totals.get(label, 0) + int(value)
    return totals


def _winner(config: Config, cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the trained arm with the best mean validation bound: the test has no say."""
    bounds: dict[str, list[float]] = {arm: [] for arm in config.compare.arms}
    for cell in cells:
        if cell.kind == "train" and cell.market == MAIN:
            bounds[cell.arm].append(
                results[cell.name]["scores"][cell.arm]["validation_lower_bound"]
            )
    return max(bounds, key=lambda arm: sum(bounds[arm]) / len(bounds[arm]))
