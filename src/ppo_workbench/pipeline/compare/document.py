"""The document of a comparison: every figure of its report, made from the files of its cells."""

from collections.abc import Mapping

from ppo_workbench.config import Config
from ppo_workbench.pipeline.compare.plan import MAIN, varies_market
from ppo_workbench.pipeline.compare.runs import Comparands
from ppo_workbench.scoring.annual import years_of
from ppo_workbench.scoring.comparison import MarketComparison, conclusions
from ppo_workbench.scoring.documents import Document, MarketPart, StressPart
from ppo_workbench.scoring.figures import display_name, invalid_trades
from ppo_workbench.scoring.targets import stability_sentence

_FORMAT_VERSION = 1


def comparison_document(
    found: Comparands, name: str, timesteps: int, stress: StressPart | None
) -> Document:
    """Return the document as JSON values; docs/comparison.md describes its parts.

    Args:
        found: The comparison on disk.
        name: Its name.
        timesteps: Budget of every training.
        stress: Of the winner, as `Stress.to_dict`.
    """
    config = found.config
    worlds, resamples = varies_market(config), config.compare.resamples
    compared = {
        market: MarketComparison(found.runs(market), worlds=worlds, resamples=resamples)
        for market in found.markets
    }
    main = compared[MAIN]
    trained = [arm for arm in main.runs if arm in config.compare.arms]
    pairs = config.compare.pairs or _all_pairs(config)
    figures, differences = main.figures(), main.differences(pairs)
    reference, stable = config.compare.reference, found.stability()
    told = (
        [stability_sentence(display_name(reference), stable[reference])]
        if reference in stable
        else []
    )
    where = "out of sample" if config.compare.split == "test" else "on validation"
    tests = _tests(found, compared)
    years = tests[0]["years"]
    second = next(iter(pair[1] for pair in pairs if pair[0] == reference), reference)
    return {
        "format_version": _FORMAT_VERSION,
        "name": name,
        "preset": config.compare.preset,
        "protocol": config.splits.protocol.value,
        "method": main.method,
        "setup": {"timesteps": timesteps, "seeds": config.compare.seeds, "markets": tests},
        "arms": [
            {
                "name": arm,
                "title": display_name(arm),
                "kind": "trained" if arm in trained else "yardstick",
                "overrides": config.compare.arms.get(arm, []),
            }
            for arm in main.runs
        ],
        "cards": {
            market: {arm: [dict(run.card) for run in runs] for arm, runs in own.runs.items()}
            for market, own in compared.items()
        },
        "figures": figures,
        "targets": [row for arm in trained for row in main.targets(arm, years)],
        "stability": stable,
        "differences": differences,
        "seeds": main.seed_figures(reference, second) if second in main.runs else None,
        "selection": main.selection(second if second in main.runs else reference),
        "probability_above_zero": {arm: main.probability_above_zero(arm) for arm in main.runs},
        "invalid_trades": {
            arm: invalid_trades(run.card for run in runs) for arm, runs in main.runs.items()
        },
        "other_markets": {
            market: {"figures": own.figures(), "differences": own.differences(pairs)}
            for market, own in compared.items()
            if market != MAIN
        },
        "audit": found.audits(MAIN),
        "path_sharpes": found.path_sharpes(),
        "winner": found.winner(),
        "stress": stress,
        "conclusion": [*conclusions(trained, figures, differences, where), *told],
    }


def _all_pairs(config: Config) -> list[list[str]]:
    reference = config.compare.reference
    return [[reference, arm] for arm in config.compare.arms if arm != reference]


def _tests(found: Comparands, compared: Mapping[str, MarketComparison]) -> list[MarketPart]:
    """Describe every test that was opened, that of the first seed first."""
    tests: dict[str, MarketPart] = {}
    for cell in found.cells:
        result = found.results[cell.name]
        test = result["test"]
        path = next(iter(compared[cell.market].runs.values()))[0].path
        tests.setdefault(
            result["instrument"],
            {
                "name": cell.market,
                "instrument": result["instrument"],
                "bar_seconds": result["bar_seconds"],
                "test_start": test["start"],
                "test_stop": test["stop"],
                "sessions": len(path),
                "years": years_of(len(path), path.sessions_per_year),
                "looks": test["looks"],
                "synthetic": result["synthetic"],
            },
        )
    return list(tests.values())
