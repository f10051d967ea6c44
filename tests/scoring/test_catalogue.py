"""One catalogue of figures: whole, and what objectives, comparisons and pages go by."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ppo_workbench.config import Config, ConfigError
from ppo_workbench.pipeline.sweep.trial import check_objective
from ppo_workbench.scoring.catalogue import (
    CATALOGUE,
    CURVES,
    HIGHER,
    LOWER,
    NEITHER,
    is_better,
    metric_of,
)
from ppo_workbench.scoring.comparison import COMPARED
from ppo_workbench.scoring.metrics import Scorecard

GLOSSARY = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_catalogue_has_every_figure_of_a_scorecard_and_no_other() -> None:
    assert set(CATALOGUE) == set(Scorecard.__annotations__) - {"own"}
    assert set(COMPARED) <= set(CATALOGUE) | set(CURVES)


def test_glossary_has_every_figure() -> None:
    named = re.findall(r"`([a-z_0-9]+)(?:/[A-Z]+)?`", GLOSSARY.read_text(encoding="utf-8"))
    assert set(CATALOGUE) - set(named) == set()


@pytest.mark.parametrize(
    ("key", "better"),
    [
        ("sharpe_annual", HIGHER),
        ("max_drawdown_sessions", LOWER),
        ("passive_breaches", LOWER),
        ("violations/house", LOWER),
        ("turnover_annual", NEITHER),
        ("exposure_mean_abs", NEITHER),
    ],
)
def test_which_way_is_better(key: str, better: int) -> None:
    assert metric_of(key).better == better
    assert is_better(key, 1.0) is (better == HIGHER)
    assert is_better(key, -1.0) is (better == LOWER)


@pytest.mark.parametrize("name", ["turnover_annual", "n_trades", "violations", "sharp"])
def test_objective_that_is_no_figure_or_neither_good_nor_bad_is_refused(name: str) -> None:
    config = Config()
    config = replace(config, objective=replace(config.objective, metrics=[name]))
    with pytest.raises(ConfigError, match=r"must be one of .*max_drawdown_frac"):
        check_objective(config)


def test_objective_of_passive_breaches_is_bounded_from_above() -> None:
    from ppo_workbench.pipeline.sweep.trial import bound

    assert bound("passive_breaches", [1.0, 3.0], 1.0, 0.0).value > 2.0
    assert bound("sharpe_annual", [1.0, 3.0], 1.0, 0.0).value < 2.0
