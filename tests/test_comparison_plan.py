"""Which cells a comparison runs, and what a start after a kill must repeat."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from ppo_workbench.cli.launching import merged
from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config, ConfigError
from ppo_workbench.config.tasks import MarketArms
from ppo_workbench.market.splits import Split
from ppo_workbench.pipeline.compare import scored as cell_tests
from ppo_workbench.pipeline.compare.plan import (
    YARDSTICKS,
    check_plan,
    fold_count,
    plan_cells,
    settled_plan,
    stress_cell,
)


def _config(*overrides: str) -> Config:
    return compose(["task=compare", *overrides])


def test_every_seed_has_its_market_its_yardsticks_and_every_arm() -> None:
    cells = plan_cells(_config("compare.seeds=[3,4]"), "name", "look")
    assert [cell.name for cell in cells[:5]] == [
        "main-3-yardsticks",
        "main-3-masked",
        "main-3-reject",
        "main-3-execute",
        "main-3-all_true",
    ]
    assert len(cells) == 2 * 5
    assert all(f"data.synthetic.seed={cell.seed}" in cell.overrides for cell in cells)
    assert all(f"seed={cell.seed}" in cell.overrides for cell in cells)


def test_on_one_market_all_seeds_share_the_yardsticks() -> None:
    cells = plan_cells(_config("experiment=sp500"), "name", "look")
    assert [cell.seed for cell in cells if cell.kind == YARDSTICKS] == [0]
    assert not any("synthetic" in override for cell in cells for override in cell.overrides)


@pytest.mark.parametrize(
    ("protocol", "count"),
    [
        ("holdout", 1),
        ("walk_forward_anchored", 6),
        ("walk_forward_rolling", 6),
        ("purged_kfold", 6),
        ("cpcv", 15),
    ],
)
def test_every_fold_is_a_cell(protocol: str, count: int) -> None:
    config = _config(f"splits={protocol}", "compare.seeds=[0]", "splits.folds=6")
    assert fold_count(config) == count
    cells = plan_cells(config, "name", "look")
    assert len(cells) == count * 5
    assert len({cell.name for cell in cells}) == len(cells)


def test_other_markets_train_their_own_arms_without_yardsticks() -> None:
    cells = plan_cells(_config("compare=full", "compare.seeds=[0]"), "name", "look")
    neutral = [cell for cell in cells if cell.market == "mask_neutral"]
    assert [cell.arm for cell in neutral] == ["masked", "reject", "execute"]
    assert all(cell.overrides[0] == "data=mask_neutral" for cell in neutral)


def test_trace_is_kept_of_the_shown_world_alone() -> None:
    cells = plan_cells(_config("compare=full"), "name", "look")
    kept = {
        (cell.market, cell.seed)
        for cell in cells
        if "compare.cell.keep_trace=true" in cell.overrides
    }
    assert kept == {("main", 0)}


def test_stress_cell_repeats_the_overrides_of_its_arm() -> None:
    cell = stress_cell(_config(), "name", "look", "execute")
    assert (cell.name, cell.kind) == ("stress", "stress")
    assert "env.forbidden_action=execute" in cell.overrides
    assert "compare.cell.name='stress'" in cell.overrides


def test_comparison_without_arms_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to compare"):
        plan_cells(compose(["compare.seeds=[0]"]), "name", "look")


def test_plan_of_another_experiment_is_refused_and_the_same_goes_on(tmp_path: Path) -> None:
    plan = settled_plan(_config())
    assert check_plan(tmp_path, plan, overwrite=False) is None
    (tmp_path / "plan.json").write_text(json.dumps({"plan": plan, "plugins": {}, "look": "a"}))

    assert check_plan(tmp_path, settled_plan(_config("output=x")), overwrite=False)
    with pytest.raises(ConfigError, match="begun with other settings"):
        check_plan(tmp_path, settled_plan(_config("model.gamma=0.9")), overwrite=False)
    assert check_plan(tmp_path, settled_plan(_config("model.gamma=0.9")), overwrite=True) is None


def test_finished_comparison_of_that_name_is_refused(tmp_path: Path) -> None:
    plan = settled_plan(_config())
    (tmp_path / "plan.json").write_text(json.dumps({"plan": plan, "plugins": {}, "look": "a"}))
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(ConfigError, match="finished comparison"):
        check_plan(tmp_path, plan, overwrite=False)


def test_merged_overrides_keep_the_last_word_of_the_cell() -> None:
    first = ["seed=1", "++model.gamma=0.9", "data=sp500"]
    assert merged(first, ["model.gamma=0.5", "seed=2"]) == [
        "data=sp500",
        "model.gamma=0.5",
        "seed=2",
    ]


def test_reporting_varies_market_and_seed_and_adds_a_market_without_an_edge() -> None:
    config = _config("compare=reporting")
    cells = plan_cells(config, "name", "look")
    seeds = set(config.compare.seeds)
    assert len(seeds) == 20
    assert {cell.seed for cell in cells if cell.arm == YARDSTICKS} == seeds
    assert {cell.seed for cell in cells if cell.market == "no_edge"} == seeds
    own = next(cell for cell in cells if cell.market == "no_edge")
    resolved = compose(merged(["task=compare", "compare=reporting"], own.overrides))
    assert resolved.data.synthetic.edge == 0.0
    assert resolved.data.synthetic.sessions == config.data.synthetic.sessions
    assert resolved.data.synthetic.seed == own.seed


def test_comparison_costs_one_look_an_arm_that_is_scored_on_the_market(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[int] = []

    def open_range(*given: Any) -> SimpleNamespace:
        counted.append(given[-1])
        return SimpleNamespace(start="", stop="", looks=given[-1], variants=given[-1])

    monkeypatch.setattr(cell_tests, "open_range", open_range)
    config = compose(["task=compare", "compare=quick"])
    arms = [f"variant_{k}" for k in range(50)]
    config.compare.arms = {arm: [] for arm in arms}
    config.compare.markets = {"null": MarketArms(arms=arms[:2]), "every": MarketArms()}
    for market in ("main", "null", "every"):
        config.compare.cell.market = market
        fold: Any = SimpleNamespace(test=[Split("test", 0, 10)])
        cell_tests.open_tests(config, Mock(), [fold])
    assert counted == [50, 2, 50]
