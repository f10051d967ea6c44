"""`task=power`: what a comparison could decide, asked before any training."""

import json
import re

import pytest
from tests.e2e.workbench import TINY, Workbench

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config
from ppo_workbench.pipeline.power import find_stand_ins, power
from ppo_workbench.scoring.statistics.power import sharpe_power
from ppo_workbench.trading.experiment import prepare, split_bars

SHORT = [*TINY, "data.synthetic.sessions=60", "power.resamples=200"]


def _config(*overrides: str) -> Config:
    return compose(["tracking=none", "task=power", *SHORT, *overrides])


def test_power_on_sp500_prints_its_answers_and_writes_nothing_but_the_result(
    workbench: Workbench,
) -> None:
    path = workbench.home / "power.json"

    result = workbench.run("task=power", "experiment=sp500", f"result_json={path}")

    assert result.code == 0, result.err
    assert "against ema_distance_" in result.out
    assert re.search(r"^Planned +7\.\d\d test years, 10 seeds", result.out, re.M)
    assert re.search(r"^A difference of 2\.00 +[\d.]+ years, or \d+ seeds", result.out, re.M)
    assert workbench.files() == {"power.json"}  # no ledger: the test split stayed closed
    document = json.loads(path.read_text(encoding="utf-8"))
    # A year of daily returns leaves an error of at most sqrt(2): two arms without correlation.
    assert 0.1 < document["power"]["error_one_year"] < 1.5
    assert document["power"]["test_years"] == pytest.approx(document["sessions"] / 252 * 2 / 3, 0.1)
    assert [answer["difference_annual"] for answer in document["years"]] == [0.25, 0.5, 1.0, 2.0]
    years = [answer["years"] for answer in document["years"]]
    assert years == sorted(years, reverse=True)


def test_power_of_a_short_market_plans_what_it_is_told(workbench: Workbench) -> None:
    path = workbench.home / "power.json"
    plan = ["power.differences=[3.0]", "power.test_years=2.5", "power.seeds=4"]

    result = workbench.run("task=power", *SHORT, *plan, f"result_json={path}")

    assert result.code == 0, result.err
    assert re.search(r"^Planned +2\.50 test years, 4 seeds", result.out, re.M)
    assert re.search(r"^A difference of 3\.00 ", result.out, re.M)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["score"] == document["power"]["smallest_difference_annual"]
    assert len(document["years"]) == len(document["seeds"]) == 1


def test_power_returns_what_the_statistic_says_of_its_stand_ins() -> None:
    config = _config("power.seed_deviation=0.0", "power.test_years=1.0")
    experiment = prepare(config, *split_bars(config))
    one, other = find_stand_ins(experiment).paths

    report = sharpe_power(one, other, test_years=1.0, seeds=10, resamples=200)

    assert power(config) == report.smallest_difference_annual
    splits = experiment.splits
    seen = experiment.bars.session[splits["train"].start + 1 : splits["validation"].stop]
    assert len(one) == len(set(seen.tolist()))


def test_stand_ins_are_the_tuned_rule_with_and_without_house_rules() -> None:
    config = _config()

    names = find_stand_ins(prepare(config, *split_bars(config))).names

    assert names[0].startswith("threshold rule")
    assert names[1] == "the same without regulatory and house rules"


@pytest.mark.parametrize(
    ("override", "first"),
    [("risk=unconstrained", "threshold rule"), ("features.names=[return_1]", "random-legal")],
)
def test_stand_ins_where_the_rules_change_nothing_or_no_rule_is_there(
    override: str, first: str
) -> None:
    config = _config(override)

    names = find_stand_ins(prepare(config, *split_bars(config))).names

    assert names[0].startswith(first)
    assert names[1] == "buy-and-hold"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("power.differences=[]", "power.differences="),
        ("power.differences=[-1.0]", "power.differences.0=-1.0"),
        ("power.power=1.0", "power.power=1.0"),
        ("power.confidence=95", "power.confidence=95"),
        ("power.seeds=0", "power.seeds=0"),
        ("power.differnces=[1.0]", "did you mean power.differences?"),
        ("result_json=nowhere/power.json", "its folder does not exist"),
        ("data.synthetic.sessions=20", "at least 20 observations"),
        ("env.initial_cash_usd=10", "no strategy trades"),
    ],
)
def test_power_refuses_bad_input_in_one_sentence(
    override: str, sentence: str, workbench: Workbench
) -> None:
    result = workbench.run("task=power", *SHORT, override)

    assert result.code == 2
    assert sentence in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert workbench.files() == set()
