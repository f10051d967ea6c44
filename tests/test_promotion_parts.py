"""Parts of promotion and verification that need no training."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from tests.browser import check_page, needs_browser
from tests.delivery.test_artifact import _fields

from ppo_workbench.cli.main import compose
from ppo_workbench.cli.options import groups
from ppo_workbench.config import (
    ArtifactError,
    ConfigError,
    ForbiddenAction,
    Interrupted,
    ModelType,
    PromotionProfile,
    flatten,
    section_of,
)
from ppo_workbench.delivery.artifact import Artifact, load_metadata
from ppo_workbench.delivery.champions import install_champion
from ppo_workbench.delivery.describe import library_versions, plain
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.market.splits import Split
from ppo_workbench.pipeline.models.document import references
from ppo_workbench.pipeline.models.verifying import compare_models, recorded_config
from ppo_workbench.pipeline.promote import running as promotion
from ppo_workbench.pipeline.promote.contender import (
    Contender,
    baseline_config,
    candidate_config,
    check_same_bars,
    resolved_config,
)
from ppo_workbench.pipeline.promote.floors import check_floors, market_floor
from ppo_workbench.pipeline.promote.running import promote, rollback
from ppo_workbench.pipeline.promote.succession import check_succession
from ppo_workbench.records.registry import register
from ppo_workbench.records.studies.candidates import Candidate
from ppo_workbench.reports.promotion import describe, headline, write_reports
from ppo_workbench.trading.experiment import prepare, split_bars


def _model(value: float = 1.0, sharpe: float = 1.0, **changes: Any) -> Artifact:
    card = {"sharpe_annual": sharpe, "sharpe_standard_error": 0.3}
    fields = _fields(scorecards={"validation": card}, libraries=library_versions(), **changes)
    tensors = {"policy.0.weight": torch.full((4, 2), value), "golden.mask": torch.rand(3)}
    return Artifact(tensors, Metadata(**fields))


def _candidate(**raw: Any) -> Candidate:
    config = plain(asdict(compose(["tracking=none", "budget.timesteps=4096"])))
    return Candidate(7, 1.0, {"model.learning_rate": 0.001}, (0, 1), {**config, **raw})


def test_same_machine_asks_for_every_bit_golden_vectors_aside() -> None:
    assert compare_models(_model(), _model()).agrees
    one_bit = _model()
    one_bit.tensors["policy.0.weight"][0, 0] += 1e-7
    found = compare_models(_model(), one_bit)
    assert found.same_machine
    assert not found.agrees


@pytest.mark.parametrize(("sharpe", "agrees"), [(1.29, True), (0.71, True), (1.31, False)])
def test_another_machine_asks_for_the_sharpe_within_a_standard_error(
    sharpe: float, agrees: bool
) -> None:
    found = compare_models(_model(cpu="another"), _model(2.0, sharpe))

    assert not found.same_machine
    assert found.agrees is agrees


def test_other_libraries_are_another_machine() -> None:
    older = _model()
    metadata = older.metadata.model_copy(update={"libraries": {"torch": "1.0"}})

    assert not compare_models(Artifact(older.tensors, metadata), _model()).same_machine


def test_recorded_timesteps_replace_a_budget_of_minutes() -> None:
    config = plain(asdict(compose(["tracking=none", "budget.minutes=5"])))
    metadata = Metadata(**_fields(config=config, seed=9))

    own = recorded_config(metadata, compose(["tracking=none"]))

    assert own.seed == 9
    assert (own.budget.timesteps, own.budget.minutes) == (10, None)


def test_candidate_is_its_own_configuration_not_the_commands() -> None:
    config = compose(["data=sp500", "model=ppo", "promote.timesteps=8192", "threads=2"])

    own, raw = candidate_config(_candidate(), config)

    assert (own.data.source, own.model.type) == ("synthetic", ModelType.maskable_ppo)
    assert own.budget.timesteps == section_of(raw, "budget")["timesteps"] == 8192
    assert own.threads == 2
    assert own.trial.study is None


def test_secret_of_a_trial_stays_unresolved_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARS", "secret.csv")
    config = compose(["tracking=none"])
    data = {**section_of(_candidate().raw, "data"), "source": "file", "path": "${oc.env:BARS}"}

    own, raw = candidate_config(_candidate(data=data), config)

    assert own.data.path == "secret.csv"
    assert section_of(raw, "data")["path"] == "${oc.env:BARS}"
    monkeypatch.delenv("BARS")
    with pytest.raises(ConfigError, match="BARS"):
        resolved_config(raw, config)


def test_seed_of_the_study_and_standard_ppo_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trial 7.*\[1\]; give fresh ones"):
        candidate_config(_candidate(), compose(["promote.seeds=[1,5]"]))
    model = {**section_of(_candidate().raw, "model"), "type": "ppo"}
    with pytest.raises(ConfigError, match="sweep model=maskable_ppo"):
        candidate_config(_candidate(model=model), compose([]))


def _scored_on(fingerprint: str, stop: int) -> Any:
    split = Split("test", 5, stop)
    return Mock(spec=Contender, bars=Mock(fingerprint=fingerprint), splits={"test": split})


def test_candidates_of_one_study_on_unlike_bars_or_splits_are_refused() -> None:
    same = {k: _scored_on("a", 9) for k in (4, 1, 7)}

    check_same_bars(same, "spring")
    for other in (_scored_on("b", 9), _scored_on("a", 8)):
        with pytest.raises(ConfigError, match=r"study=spring: the trials \[1, 4\] and \[7\] were"):
            check_same_bars({**same, 7: other}, "spring")


def test_baseline_differs_in_masks_and_answer_alone_and_keeps_secrets_unresolved() -> None:
    config = compose(["tracking=none", "budget.timesteps=4096", "model.learning_rate=0.002"])
    raw = {**plain(asdict(config)), "data": {"path": "${oc.env:BARS}"}}
    rival = Mock(spec=Contender, config=config, raw=raw)

    own, recorded = baseline_config(rival, ForbiddenAction.execute, None)

    assert own.model == replace(config.model, type=ModelType.ppo)
    assert own.env == replace(config.env, forbidden_action=ForbiddenAction.execute)
    assert replace(own, model=config.model, env=config.env) == config
    assert recorded["data"] == {"path": "${oc.env:BARS}"}
    assert section_of(recorded, "model")["type"] == "ppo"
    assert section_of(recorded, "env")["forbidden_action"] == "execute"
    longer, recorded = baseline_config(rival, ForbiddenAction.reject, 9999)
    assert longer.budget == replace(config.budget, timesteps=9999)
    assert section_of(recorded, "budget")["timesteps"] == 9999


def test_registry_that_is_down_costs_a_warning_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"no database")
    config = compose([]).tracking

    assert register(config, tmp_path, "final", {"champion": None}) == {}

    assert "does not know the new state of final" in caplog.text


def _promotion() -> Any:
    gate = {"value": 1.0, "threshold": 2.0, "power": 0.25, "alternative": "a truth"}
    card = dict.fromkeys(
        (
            *("sharpe_annual", "max_drawdown_frac", "win_rate_frac", "n_trades"),
            *("exposure_mean_abs", "excess_return_annual_frac", "expectancy_bps"),
        ),
        1.0,
    )
    return {
        "name": "<b>final</b>",
        "study": "spring",
        "profile": "production",
        "promoted": False,
        "created_utc": "2026-01-01T00:00:00+00:00",
        "gates": [
            {**gate, "name": "good", "passed": True, "reason": "fine"},
            {**gate, "name": "bad", "passed": False, "reason": "1 < 2"},
        ],
        "winner": {"trial": 3, "seed": 5, "bound": 1.0},
        "candidates": [
            {"trial": 3, "study_value": 1.0, "bound": 0.5, "seeds": [5], "params": {"x": 1}}
        ],
        "trials": 12,
        "trials_by_state": {"COMPLETE": 10},
        "trials_elsewhere": {"study autumn": 7},
        "trials_unknown": "Other homes are not known.",
        "trials_with_returns": 9,
        "test": {"looks": 2, "instrument": "SPY", "start": "2020-01-01", "stop": "2021-01-01"},
        "scorecards": {"validation": card, "test": card},
        "inference": {
            **{"probability": 0.991, "critical_annual": 0.61, "power": 0.93, "significance": 0.05},
            **{"planned_false_discovery": 0.505, "observed_false_discovery": 0.306},
            **{"alternative_annual": 1.5, "prior": 0.05},
        },
    }


def test_report_names_what_refuses_first_and_escapes(tmp_path: Path) -> None:
    document = _promotion()

    write_reports(tmp_path, document)

    page = (tmp_path / "promotion.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;final" in page
    assert "<b>final" not in page
    assert "1 &lt; 2" in page
    assert "10 complete; 7 of study autumn; and the new ones" in page
    assert "Other homes are not known." in page
    assert "promote.prior=0.05" in page
    assert "the probability is 30.6%" in page
    assert page.index("<td>bad<") < page.index("<td>good<")
    assert headline(document) == "trial 3 of spring, seed 5 is not promoted: 1 of 2 gates refuse"
    assert describe(document).splitlines()[1] == "FAIL bad: 1 < 2 (power 25% at a truth)"


@pytest.mark.slow
@needs_browser
def test_promotion_page_fits_screen_and_phone_and_explains_its_columns(tmp_path: Path) -> None:
    config = compose(["tracking=none", "data.synthetic.sessions=40"])
    experiment = prepare(config, *split_bars(config))
    shown = references(experiment, "validation")
    gate = {"name": "deflated_sharpe", "passed": True, "value": 0.97, "threshold": 0.95}
    gate |= {"reason": "lucky", "power": 0.5, "alternative": "a true Sharpe ratio of 1.5"}
    document = _promotion()
    document["gates"].append(gate)
    write_reports(tmp_path, document, experiment.bars, shown)
    words = check_page(tmp_path / "promotion.html", tmp_path)[1280]["words"]
    assert "Better than the luckiest of all trials would be" in words
    assert "deflated_sharpe" not in words
    assert {arm.title for arm in shown} == {"tuned threshold rule", "buy and hold"}


@pytest.fixture
def champions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return trained_models/ of a home with two champions, of which the second reigns."""
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path))
    folder = tmp_path / "trained_models"
    for trial in (3, 8):
        model = _model(float(trial), study="spring", trial_number=trial, seed=1000 + trial)
        install_champion(folder, "final", model)
    return folder


def _roll_back(capsys: pytest.CaptureFixture[str]) -> str:
    rollback(compose(["task=rollback", "promote.output=final", "tracking=none"]))
    return capsys.readouterr().out


def test_exchange_of_a_champion_warns_of_exports_of_the_former_one(
    champions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "warning" not in _roll_back(capsys)
    for name in ("final.onnx", "final.previous.torchscript.pt", "other.onnx"):
        (champions / name).touch()

    told = _roll_back(capsys)

    assert "warning: final.onnx, final.previous.torchscript.pt in" in told
    assert "task=export artifact=final\n" in told


def test_roll_back_says_who_reigns_and_twice_is_undone(
    champions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for reigns, former in ((3, 8), (8, 3)):
        told = _roll_back(capsys)

        assert f"final: trial {reigns} of study spring, seed {1000 + reigns}\n" in told
        assert f"final.previous: trial {former} of study spring, seed {1000 + former}; " in told
        assert load_metadata(champions, "final").trial_number == reigns


def test_roll_back_of_a_damaged_champion_says_where_it_is_kept(
    champions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (champions / "final.pth").write_bytes(b"damaged")

    told = _roll_back(capsys)

    assert "final: trial 3 of study spring" in told
    assert "kept as final.damaged-1-metadata.json, final.damaged-1.pth; final.previous is" in told
    assert "exchanges them back" not in told


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("training", "nothing is promoted and final is as it was"),
        ("exchange", "the exchange of final is half done"),
        ("record", "final is exchanged already"),
    ],
)
def test_interrupted_promotion_says_what_became_of_the_champion(
    champions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: str,
    words: str,
) -> None:
    def interrupt(*_: Any) -> None:
        if step == "exchange":
            (champions / ".final.promotion").mkdir()
        if step == "record":
            install_champion(champions, "final", _model(5.0))
        raise KeyboardInterrupt

    monkeypatch.setattr(promotion, "_Promotion", interrupt)
    with pytest.raises(Interrupted):
        promote(compose(["task=promote", "promote.output=final", "tracking=none"]))

    assert f"interrupted: {words}" in capsys.readouterr().out


def _gates(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "passed": True, "reason": "", "threshold": 0.0} for name in names]


def _champion(**changes: Any) -> tuple[Metadata, Any]:
    """Return a champion of the default configuration, and bars that it trades."""
    config = plain(asdict(compose([])))
    features = {"feature_specification": config["features"]}
    reigning = _model(config=config, **features, **changes).metadata
    data = reigning.data
    return reigning, Mock(instrument=data.instrument, bar_seconds=data.bar_seconds)


@pytest.mark.parametrize(
    ("gates", "profile", "refused"),
    [
        (["audit"], PromotionProfile.research, False),
        (["target_sharpe", "audit"], PromotionProfile.research, True),
        (["target_sharpe", "audit"], PromotionProfile.targets, False),
        (["threshold", "audit"], PromotionProfile.targets, True),
        (["threshold", "audit"], PromotionProfile.production, False),
    ],
)
def test_champion_is_not_replaced_by_a_weaker_profile(
    gates: list[str], profile: PromotionProfile, refused: bool
) -> None:
    reigning, bars = _champion(gates=_gates(*gates))
    if not refused:
        check_succession(reigning, bars, compose([]), profile, "final")
        return
    with pytest.raises(ArtifactError, match=rf"promote.profile={profile.value}: .* final passed"):
        check_succession(reigning, bars, compose([]), profile, "final")


@pytest.mark.parametrize("other", [{"instrument": "OTHER"}, {"bar_seconds": 86_400}])
def test_champion_is_not_replaced_by_a_model_of_other_bars(other: dict[str, Any]) -> None:
    reigning = _model().metadata
    own = {"instrument": reigning.data.instrument, "bar_seconds": reigning.data.bar_seconds}
    bars = Mock(**{**own, **other})
    with pytest.raises(ArtifactError, match=r"the reigning champion trades .* choose another"):
        check_succession(reigning, bars, compose([]), PromotionProfile.production, "final")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (["costs.half_spread_bps=0.5"], r"costs.half_spread_bps=0.5 \(1.0 there\)"),
        (["costs.cash_interest_annual_bps=50"], r"cash_interest_annual_bps=50.0 \(0.0 there\)"),
        (["risk=unconstrained"], r"risk.session.enabled=False \(True there\), risk.drawdown.enab"),
        (["risk.drawdown.flatten_frac=0.5"], r"risk.drawdown.flatten_frac=0.5 \(0.04 there\)"),
        (["costs.half_spread_bps=2", "costs.fee_bps=1", "risk.order_rate.enabled=true"], None),
    ],
)
def test_champion_is_not_replaced_by_a_model_that_was_held_to_less(
    changed: list[str], sentence: str | None
) -> None:
    reigning, bars = _champion(gates=_gates("audit"))
    arguments = (reigning, bars, compose(changed), PromotionProfile.research, "final")
    if sentence is None:
        check_succession(*arguments)
        return
    with pytest.raises(ArtifactError, match=rf"held to other costs and rules, by .*{sentence}"):
        check_succession(*arguments)


def test_champion_with_a_plugins_rule_is_not_replaced_by_a_model_without_it() -> None:
    own = compose()
    own.risk.extra = {"not_on": {"weekday": 4}}
    config = plain(asdict(own))
    reigning = _model(config=config, feature_specification=config["features"]).metadata
    bars: Any = Mock(instrument=reigning.data.instrument, bar_seconds=reigning.data.bar_seconds)
    check_succession(reigning, bars, own, PromotionProfile.research, "final")
    with pytest.raises(ArtifactError, match=r"risk.extra.not_on.weekday=None \(4 there\)"):
        check_succession(reigning, bars, compose(), PromotionProfile.research, "final")


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["costs.half_spread_bps=0"], "costs.half_spread_bps=0.0 (1.0 there)"),
        (["costs.quoted_spread=false"], "costs.quoted_spread=False (True there)"),
        (["costs.high_volatility_ratio=9"], "costs.high_volatility_ratio=9.0 (1.6 there)"),
        (["data=mask_neutral"], "costs.high_volatility_multiplier=1.0 (2.0 there)"),
        (["risk.session.enabled=false"], "risk.session.enabled=False (True there)"),
        (["risk=unconstrained"], "risk.drawdown.enabled=False (True there)"),
        (["data=sp500", "costs=synthetic"], "costs.borrow_annual_bps=0.0 (50.0 there)"),
        (["market.name=mine"], "market.name=mine: there is no preset"),
    ],
)
def test_model_below_the_floor_of_its_market_passes_research_alone(
    overrides: list[str], found: str
) -> None:
    config = compose(overrides)
    for profile in (PromotionProfile.production, PromotionProfile.targets):
        with pytest.raises(ConfigError, match=re.escape(found)):
            check_floors(config, profile, "trial 3")
    check_floors(config, PromotionProfile.research, "trial 3")


def test_every_preset_that_is_meant_for_trading_is_at_its_own_floor() -> None:
    for market in groups()["market"]:
        file = [] if market.startswith("synthetic") else ["data=file", "data.path=bars.csv"]
        widest = compose([*file, f"market={market}", "risk=aggressive"])
        check_floors(widest, PromotionProfile.production, "trial 3")
        floor = market_floor(market)
        assert {key: value for key, value in floor.items() if key.startswith("costs.")} == flatten(
            {"costs": asdict(widest.costs)}
        )
        on = {name for name, rule in widest.risk.rules().items() if rule.enabled}
        assert {key for key in floor if key.startswith("risk.")} == {
            f"risk.{name}.enabled" for name in on
        }
    for own in ("experiment=deliverables", "risk=moderate", "risk=conservative"):
        check_floors(compose([own]), PromotionProfile.production, "trial 3")
