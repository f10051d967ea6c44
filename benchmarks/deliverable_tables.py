"""Tables of the deliverables in Markdown, and the rows of the success criteria.

    python benchmarks/deliverable_tables.py            # print the rows
    python benchmarks/deliverable_tables.py --write    # put them into docs/asked.md

Everything is made from docs/deliverables/ and the metadata of the two models, so that
`make verify-deliverables` can make it again and compare.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import harness

Document = Mapping[str, Any]

PAGE = "docs/asked.md"
BEGIN, END = "<!-- criteria -->", "<!-- /criteria -->"
HEAD = ("criterion", "measured", "95 % interval", "verdict")
MASKED, EXECUTE, REJECT = "masked", "execute", "reject"
SHOWN = (
    ("sharpe_annual", "annual Sharpe", "ratio"),
    ("max_drawdown_frac", "max drawdown", "share"),
    ("max_drawdown_at_10pct_vol_frac", "at 10 % volatility", "share"),
    ("win_rate_frac", "win rate", "share"),
    ("n_trades", "round trips", "count"),
    ("exposure_mean_abs", "exposure", "plain"),
)
TITLES = {name: title for name, title, _ in SHOWN} | {"volatility_annual_frac": "volatility"}
UNITS = {name: unit for name, _, unit in SHOWN} | {"volatility_annual_frac": "share"}
BETTER = {"sharpe_annual": 1, "max_drawdown_frac": -1, "volatility_annual_frac": -1}


def shown(value: float | None, unit: str, *, signed: bool = False) -> str:
    """Return a figure for a reader."""
    if value is None:
        return "-"
    sign = "+" if signed or unit == "ratio" else ""
    if unit == "share":
        return f"{100 * value:{sign}.1f} %" + (" points" if signed else "")
    return f"{value:{sign},.0f}" if unit == "count" else f"{value:{sign}.2f}"


def interval(low: float | None, high: float | None, unit: str, *, signed: bool = False) -> str:
    """Return "[low, high]", a dash where there is none: unknown ends, or equal runs."""
    if low is None or high is None or low == high:
        return "-"
    return f"[{shown(low, unit, signed=signed)}, {shown(high, unit, signed=signed)}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def comparison(document: Document) -> str:
    """Return a comparison as a page: figures, differences, seeds, conclusion."""
    setup, stable = document["setup"], document["stability"]
    figures = [_arm(document, arm["name"]) for arm in document["arms"]]
    years = setup["markets"][0]["years"]
    parts = [
        "# Masked against standard PPO\n",
        f"{len(setup['seeds'])} seeds, {setup['timesteps']:,} timesteps a training, "
        f"{years:.1f} test years each, made by `task=compare` (preset {document['preset']}). "
        "Medians over seeds with their 95 % bootstrap interval; everything in comparison.json.\n",
        table(["arm", *(title for _, title, _ in SHOWN)], figures),
        "Paired differences (mean, 95 % interval; decided: Holm-corrected too):\n",
        table(
            ["first", "second", "figure", "difference", "95 % interval", "decided", "better in"],
            [_difference(row) for row in document["differences"] if row["figure"] in BETTER],
        ),
        "Seed by seed, the masked arm:\n",
        table(["seed", "split", *(title for _, title, _ in SHOWN), "targets", "diverged"],
              _seeds(stable.get(MASKED, {"seeds": []}))),
        *(f"* {sentence}" for sentence in document["conclusion"]),
        "",
    ]  # fmt: skip
    return "\n".join(parts)


def analysis(document: Document) -> str:
    """Return the analysis of a study as a page."""
    found = document.get("recommended") or {}
    rows = [
        [str(each["number"]), each["state"], shown(next(iter(each["values"] or ()), None), "ratio"),
         json.dumps(each.get("params", {}))]
        for each in document["trials"]
    ]  # fmt: skip
    parts = [
        f"# Hyperparameters: study {document['study']}\n",
        *(f"* {sentence}" for sentence in document["summary"]),
        f"\nRecommended: `{json.dumps(found.get('params', {}))}`\n",
        table(["trial", "state", "value", "parameters"], rows),
    ]
    return "\n".join(parts)


def criteria(
    compared: Document,
    promotion: Document,
    champion: Document,
    baseline: Document,
    refused: str | None = None,
) -> str:
    """Return the specification's success criteria as a table.

    Args:
        compared: comparison.json.
        promotion: promotion.json.
        champion: Metadata of the champion.
        baseline: Metadata of the baseline.
        refused: Why the ModelManager does not load the two models, None if it does.
    """
    rows = [
        _trains(compared),
        _invalid(compared),
        _risk(promotion),
        *(_against(compared, EXECUTE, figure) for figure in BETTER),
        _fewer_invalid(compared),
        *(_against(compared, REJECT, figure) for figure in BETTER),
        *(_target(row) for row in compared["targets"] if row["arm"] == MASKED),
        _activity(compared),
        _seeds_meet(compared),
        _delivered(promotion),
        _metadata(champion, baseline),
        [
            "both models load in the application's ModelManager",
            refused or "champion activated, baseline loaded, golden vectors replayed",
            "-",
            _verdict(refused is None),
        ],
    ]
    return table(HEAD, rows)


def _trains(compared: Document) -> list[str]:
    found = compared["stability"][MASKED]
    bad = found["diverged"]
    runs = found["runs"]
    told = f"{runs - bad} of {runs} trainings end without divergence"
    return ["MaskablePPO trains without errors", told, _wilson(runs - bad, runs), _verdict(not bad)]


def _invalid(compared: Document) -> list[str]:
    cards = compared["cards"]["main"][MASKED]
    decisions = sum(card["n_decisions"] for card in cards)
    audit = compared["audit"][MASKED]
    broken = audit["violations"] + sum(compared["invalid_trades"][MASKED].values())
    told = f"{broken:,.0f} in {decisions:,.0f} decisions (independent audit)"
    # The rule of three: the upper end of a rate of which nothing was seen.
    span = f"[0, {3 / decisions:.1e}] a decision" if broken == 0 else "-"
    return ["action masking prevents invalid trades", told, span, _verdict(broken == 0)]


def _risk(promotion: Document) -> list[str]:
    gate = next(gate for gate in promotion["gates"] if gate["name"] == "audit")
    told = f"delivered model, its test: {gate['reason']}"
    return ["risk constraints are respected", told, "-", _verdict(gate["passed"])]


def _against(compared: Document, rival: str, figure: str) -> list[str]:
    row = next(
        row
        for row in compared["differences"]
        if (row["first"], row["second"], row["figure"]) == (MASKED, rival, figure)
    )
    unit = UNITS[figure]
    span = interval(row["low"], row["high"], unit, signed=True)
    counted = f"better in {row['better_in']} of {row['runs']}"
    told = f"{shown(row['estimate'], unit, signed=True)}, {counted}"
    verdict = "not decided"
    if row["decided"]:
        verdict = "better" if row["estimate"] * BETTER[figure] > 0 else "worse"
    kind = "carried out" if rival == EXECUTE else "rejected by the broker"
    return [f"{TITLES[figure]}, less standard PPO's (forbidden orders {kind})", told, span, verdict]


def _fewer_invalid(compared: Document) -> list[str]:
    counts = {arm: sum(compared["invalid_trades"][arm].values()) for arm in (MASKED, EXECUTE)}
    told = f"{counts[MASKED]:,} against {counts[EXECUTE]:,}"
    better = counts[MASKED] < counts[EXECUTE]
    return ["fewer invalid trades than standard PPO", told, "-", _verdict(better)]


def _target(row: Document) -> list[str]:
    unit = UNITS[row["figure"]]
    sense = ">" if row["sense"] == "above" else "<"
    asked = shown(row["target"], "plain" if unit == "ratio" else unit)
    name = f"{TITLES[row['figure']]} {sense} {asked}, median over seeds"
    span = interval(row["median_low"], row["median_high"], unit)
    return [name, shown(row["median"], unit), span, row["median_verdict"] or "not decidable"]


def _activity(compared: Document) -> list[str]:
    figures = compared["figures"][MASKED]
    trades, exposure = (figures[name]["median"] for name in ("n_trades", "exposure_mean_abs"))
    at_10 = figures["max_drawdown_at_10pct_vol_frac"]
    told = (
        f"{shown(trades, 'count')} round trips, exposure {shown(exposure, 'plain')}, drawdown at "
        f"10 % volatility {shown(at_10['median'], 'share')}"
    )
    enough = all(row["trades_enough"] for row in compared["targets"] if row["arm"] == MASKED)
    return ["200 round trips, exposure .2, medians over seeds", told, "-", _verdict(enough)]


def _seeds_meet(compared: Document) -> list[str]:
    found = compared["stability"][MASKED]
    told = (
        f"{found['meet_on_validation']} of {found['runs']} on validation, "
        f"{found['meet_on_test']} on the test"
    )
    met = found["meet_on_validation"] >= 0.8 * found["runs"]
    span = _wilson(found["meet_on_validation"], found["runs"])
    return ["all three targets, seeds (asked: 16 of 20 on validation)", told, span, _verdict(met)]


def _delivered(promotion: Document) -> list[str]:
    card = promotion["scorecards"]["test"]
    told = (
        f"Sharpe {shown(card['sharpe_annual'], 'ratio')}, drawdown "
        f"{shown(card['max_drawdown_frac'], 'share')}, win rate "
        f"{shown(card['win_rate_frac'], 'share')} in {card['years']:.1f} test years "
        f"of {promotion['test']['instrument']}"
    )
    span = f"Sharpe {interval(card['sharpe_low_95'], card['sharpe_high_95'], 'ratio')}"
    passed = sum(gate["passed"] for gate in promotion["gates"])
    verdict = f"{passed} of {len(promotion['gates'])} gates pass"
    return ["the delivered model", told, span, verdict]


def _metadata(champion: Document, baseline: Document) -> list[str]:
    cards, names = champion["scorecards"], [each["model_type"] for each in (champion, baseline)]
    whole = (
        champion["status"] == "champion"
        and names == ["maskable_ppo", "ppo"]
        and all(cards[split] for split in ("validation", "test"))
        and all(gate["passed"] for gate in champion["gates"])
        and bool(champion["rules"] and champion["gates"] and champion["config"])
    )
    told = (
        f"{champion['model_type']}, {champion['status']}, {len(champion['rules'])} mask rules, "
        f"{len(champion['gates'])} gates, {len(champion['feature_names'])} observations"
    )
    return ["metadata are complete", told, "-", _verdict(whole)]


def _wilson(count: int, runs: int) -> str:
    """Return Wilson's (1927) interval of a share."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, runs, alpha=0.05, method="wilson")
    return interval(float(low), float(high), "share")


def _verdict(holds: bool) -> str:
    return "met" if holds else "missed"


def _arm(document: Document, arm: str) -> list[str]:
    title = next(each["title"] for each in document["arms"] if each["name"] == arm)
    cells = [title]
    for name, _, unit in SHOWN:
        found = document["figures"][arm][name]
        span = interval(found["median_low"], found["median_high"], unit)
        cells.append(f"{shown(found['median'], unit)} {span}")
    return cells


def _difference(row: Document) -> list[str]:
    unit = UNITS[row["figure"]]
    span = interval(row["low"], row["high"], unit, signed=True)
    found = [shown(row["estimate"], unit, signed=True), span, "yes" if row["decided"] else "no"]
    better = f"{row['better_in']} of {row['runs']}"
    return [row["first"], row["second"], TITLES[row["figure"]], *found, better]


def _seeds(found: Document) -> list[list[str]]:
    rows = []
    for run in found["seeds"]:
        for split in ("validation", "test"):
            figures = [shown(run[split][name], unit) for name, _, unit in SHOWN]
            held = "held" if run[f"meets_on_{split}"] else "missed"
            diverged = ", ".join(run["diverged"]) or "-"
            rows.append([str(run["seed"]), split, *figures, held, diverged])
    return rows


def criteria_of(home: Path) -> str:
    """Return the table of the evidence in a home."""
    folder = home / "docs" / "deliverables"
    sources = (
        folder / "comparison.json",
        folder / "promotion.json",
        home / "trained_models" / "maskable_production_final-metadata.json",
        home / "baselines" / "ppo_baseline_final-metadata.json",
    )
    compared, promotion, champion, baseline = map(harness.read, sources)
    return criteria(compared, promotion, champion, baseline, refusal(home))


def refusal(home: Path) -> str | None:
    """Return why the application's ModelManager does not take the two models, None if it does."""
    from ppo_workbench.config import ArtifactError
    from ppo_workbench.delivery.artifact import verify
    from ppo_workbench.delivery.model_manager import ModelManager

    try:
        manager = ModelManager(home / "trained_models", home / "baselines")
        manager.activate("maskable_production_final")
        verify(manager.load("ppo_baseline_final"))
    except ArtifactError as error:
        return str(error)
    return None


def between_markers(text: str) -> str | None:
    """Return what stands between the page's markers, None if they are not there."""
    if text.count(BEGIN) != 1 or END not in text.partition(BEGIN)[2]:
        return None
    return text.partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


def main() -> None:
    write = False, "into docs/asked.md of the home"
    arguments = harness.parser(__doc__, write=write).parse_args()
    home = Path(os.environ.get("PPO_WORKBENCH_HOME") or ".")
    rows = criteria_of(home)
    if not arguments.write:
        print(rows, end="")
        return
    harness.put_between(home / PAGE, f"{BEGIN}\n", END, rows)


if __name__ == "__main__":
    main()
