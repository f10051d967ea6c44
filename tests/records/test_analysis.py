import json
import math
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from tests.browser import check_page, needs_browser

from ppo_workbench.records.studies.returns import write_returns
from ppo_workbench.reports.study.analysis import analyse, overrides_of
from ppo_workbench.reports.study.findings import Analysis
from ppo_workbench.reports.study.plateau import find_plateau
from ppo_workbench.reports.study.surface import Surface
from ppo_workbench.reports.study.trials import Parameter, TrialRow, read_parameters, read_trials

NOISE = 0.4
Setting = dict[str, Any]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _study(*directions: Literal["maximize", "minimize"]) -> optuna.Study:
    return optuna.create_study(study_name="known", directions=list(directions) or ["maximize"])


def _add(
    study: optuna.Study,
    params: Setting,
    values: list[float] | None,
    state: TrialState = TrialState.COMPLETE,
    attrs: Setting | None = None,
    reports: dict[int, float] | None = None,
) -> None:
    ranges: dict[str, optuna.distributions.BaseDistribution] = {
        "lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
        "ent": optuna.distributions.FloatDistribution(0.0, 1.0),
        "idle": optuna.distributions.FloatDistribution(0.0, 1.0),
        "net": optuna.distributions.CategoricalDistribution(("<small>", "big", None)),
    }
    study.add_trial(
        optuna.trial.create_trial(
            state=state,
            values=values,
            params=params,
            distributions={name: ranges[name] for name in params},
            user_attrs=attrs,
            intermediate_values=reports,
        )
    )


def _truth(setting: Setting) -> float:
    """A peak at lr 1e-3, ent 0.5; lr matters four times as much, idle not at all."""
    lr, ent = float(setting["lr"]), float(setting["ent"])
    return 2.0 - (math.log10(lr) + 3.0) ** 2 - (2 * ent - 1.0) ** 2


def _noisy_quadratic(
    seed: int, trials: int = 60, sign: int = 1, errors: bool = True
) -> optuna.Study:
    rng = np.random.default_rng(seed)
    study = _study("maximize" if sign > 0 else "minimize")
    for _ in range(trials):
        setting = {
            "lr": float(10 ** rng.uniform(-5, -1)),
            "ent": float(rng.uniform()),
            "idle": float(rng.uniform()),
        }
        value = sign * (_truth(setting) + NOISE * rng.normal())
        _add(study, setting, [value], attrs={"standard_error": NOISE} if errors else None)
    return study


def _analyse(study: optuna.Study, folder: Path, name: str = "sharpe_annual") -> Analysis:
    return analyse(study, folder, objective_names=name.split(", "))


def _read(folder: Path) -> dict[str, Any]:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    record = json.loads((folder / "analysis.json").read_text(), parse_constant=refuse)
    assert isinstance(record, dict)
    return record


def _text(folder: Path) -> str:
    """Return the page without plotly.js, which is full of strings that look like anything."""
    page = (folder / "analysis.html").read_text()
    bare, count = re.subn(r'<script id="plotly">.*?</script>', "", page, flags=re.DOTALL)
    assert count == 1
    return bare


@pytest.mark.parametrize("sign", [1, -1])
def test_analyse_noisy_quadratic_ranks_what_matters(tmp_path: Path, sign: int) -> None:
    analysis = _analyse(_noisy_quadratic(3, sign=sign), tmp_path)
    first = analysis.importances[0]
    assert first.name == "lr"
    assert first.is_above_chance
    assert analysis.importances[0].low <= first.share <= first.high
    assert sum(i.share for i in analysis.importances) == pytest.approx(1.0)
    assert not next(i for i in analysis.importances if i.name == "idle").is_above_chance


def _recommend(study: optuna.Study) -> tuple[float, float]:
    """Return by how much the recommendation falls short, and how far its estimate is off."""
    rows = read_trials(study)
    plateau = find_plateau(rows, read_parameters(study), [1])
    assert plateau is not None
    assert plateau.recommended in plateau.numbers
    truth = _truth(dict(rows[plateau.recommended].params))
    return 2.0 - truth, abs(plateau.expected[plateau.recommended][0] - truth)


def test_find_plateau_noisy_quadratic_recommends_its_middle_not_the_luckiest() -> None:
    lucky, recommended = [], []
    for seed in range(8):
        study = _noisy_quadratic(seed, trials=40, errors=seed % 2 == 0)
        lucky.append(2.0 - _truth(study.best_params))
        recommended.append(_recommend(study))
    short, surprise = np.mean(recommended, axis=0)
    assert short < 0.7 * np.mean(lucky)
    assert short < 0.2  # a third of a decade of lr, at a noise of 0.4
    assert surprise < NOISE


def test_find_plateau_one_ruined_trial_does_not_bend_the_surface() -> None:
    clean, ruined = [], []
    for seed in range(8):
        study = _noisy_quadratic(seed, trials=40)
        clean.append(_recommend(study)[0])
        attrs = {"standard_error": math.nan}
        _add(study, {"lr": 0.09, "ent": 0.9, "idle": 0.5}, [-1e4], attrs=attrs)
        ruined.append(_recommend(study)[0])
    assert np.mean(ruined) < np.mean(clean) + 0.07


def test_analyse_plateau_covers_the_peak_and_leaves_the_slopes_out(tmp_path: Path) -> None:
    analysis = _analyse(_noisy_quadratic(1), tmp_path)
    low, high = next(
        (r["low"], r["high"]) for r in _read(tmp_path)["plateau_region"] if r["name"] == "lr"
    )
    assert 2e-5 < low < 1e-3 < high < 5e-2
    assert analysis.plateau is not None
    assert 1 < len(analysis.plateau.numbers) < 40
    assert "1.645" in _text(tmp_path)  # the definition is on the page


def test_analyse_mixed_states_add_up_and_name_reasons(tmp_path: Path) -> None:
    study = _study()
    for i in range(4):
        attrs = {"timesteps": 1000, "seeds": [0, 1], "mlflow_run_id": f"run{i}"}
        _add(study, {"lr": 10.0 ** -(i + 1)}, [float(i)], attrs=attrs)
    for steps in (100, 300):
        attrs = {"timesteps": steps}
        _add(study, {"lr": 0.01}, None, TrialState.PRUNED, attrs, {steps: math.nan})
    reason = "the loss is NaN, see postgresql://user:secret@host/db"
    _add(study, {"lr": 0.02}, None, TrialState.FAIL, {"fail_reason": reason, "timesteps": 70})
    _add(study, {"lr": 0.03}, [math.inf])
    _add(study, {"lr": 0.03}, None, TrialState.RUNNING)
    analysis = _analyse(study, tmp_path)
    assert analysis.counts == {
        "complete": 4, "infeasible": 0, "pruned": 2, "failed": 2, "running": 1, "waiting": 0,
    }  # fmt: skip
    cost = analysis.cost
    assert cost is not None
    assert (cost.trained_timesteps, cost.unpruned_timesteps) == (4400.0, 6000.0)
    assert (cost.saved_timesteps, cost.failed_timesteps, cost.unrecorded) == (1600.0, 70.0, 0)
    assert cost.saved_frac == pytest.approx(1600 / 6000)
    page, record = _text(tmp_path), _read(tmp_path)
    assert "the loss is NaN" in page
    assert "run3" in page
    assert "secret" not in page + json.dumps(record)
    assert [t["state"] for t in record["trials"]].count("failed") == 2
    assert record["trials"][0]["seeds"] == "0, 1"
    assert "9 trials: 4 complete, 2 pruned, 2 failed, 1 running" in analysis.summary[0]


def test_analyse_one_trial_recommends_it_and_claims_nothing(tmp_path: Path) -> None:
    study = _study()
    _add(study, {"lr": 1e-3, "net": "big"}, [1.5])
    analysis = _analyse(study, tmp_path)
    assert analysis.recommended is not None
    assert analysis.recommended == analysis.best
    assert analysis.plateau is not None
    assert analysis.plateau.expected == {0: pytest.approx((1.5,))}
    assert analysis.importances == ()
    assert any("a hint, not a finding" in sentence for sentence in analysis.summary)
    assert analysis.command == "python -m ppo_workbench lr=0.001 net=big"


def test_analyse_command_keeps_what_all_trials_were_given(tmp_path: Path) -> None:
    study = _study()
    fixed = ["sweep=full", "data=null", "+risk=aggressive", "budget.timesteps=64", "hydra.x=1"]
    study.set_user_attr("sweep", {"fixed": fixed})
    _add(study, {"lr": 1e-3}, [1.5])

    analysis = _analyse(study, tmp_path)

    assert analysis.command == "python -m ppo_workbench data=null +risk=aggressive lr=0.001"
    study.set_user_attr("settled", {"timesteps": 64, "budget": {"evaluations": 3}})
    assert _analyse(study, tmp_path).command == (
        "python -m ppo_workbench data=null +risk=aggressive budget.minutes=null "
        "budget.timesteps=64 budget.evaluations=3 lr=0.001"
    )


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_analyse_nothing_complete_recommends_nothing(tmp_path: Path, state: TrialState) -> None:
    study = _study()
    for lr in (1e-4, 1e-3):
        _add(study, {"lr": lr}, None, state)
    analysis = _analyse(study, tmp_path)
    assert (analysis.recommended, analysis.command, analysis.plateau) == (None, "", None)
    assert "nothing to recommend" in " ".join(analysis.summary)
    assert _read(tmp_path)["recommended"] is None


def test_analyse_empty_study_writes_both_files(tmp_path: Path) -> None:
    analysis = _analyse(_study(), tmp_path / "new")
    assert analysis.html_path.exists()
    assert sum(_read(tmp_path / "new")["counts"].values()) == 0
    assert [path.name for path in sorted((tmp_path / "new").iterdir())] == [
        "analysis.html", "analysis.json",
    ]  # fmt: skip


def test_analyse_options_with_markup_and_null_are_escaped_and_quoted(tmp_path: Path) -> None:
    study = _study()
    for i in range(12):
        net = ("<small>", "big", None)[i % 3]
        _add(study, {"net": net, "lr": 1e-3}, [{"big": 2.0}.get(str(net), 0.0) + 0.01 * i])
    analysis = _analyse(study, tmp_path)
    assert analysis.recommended is not None
    assert analysis.recommended.params["net"] == "big"
    assert analysis.importances[0].name == "net"
    assert "<small>" not in _text(tmp_path)


def test_analyse_missing_parameters_and_equal_values_are_accepted(tmp_path: Path) -> None:
    study = _study()
    for i in range(10):
        _add(study, {"lr": 1e-3 * (i + 1)} | ({"ent": 0.1 * i} if i % 2 else {}), [1.0])
    analysis = _analyse(study, tmp_path)
    assert analysis.plateau is not None
    assert len(analysis.plateau.numbers) == 10


def test_analyse_infeasible_trial_is_never_recommended(tmp_path: Path) -> None:
    study = _study()
    for lr, value, drawdown in ((1e-4, 1.0, -0.01), (1e-3, 9.0, 0.05), (1e-2, 1.2, -0.02)):
        trial = study.ask({"lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)})
        trial.set_constraint("max_drawdown_frac", drawdown)
        study.tell(trial, value + lr)
    analysis = _analyse(study, tmp_path)
    assert analysis.counts["infeasible"] == 1
    assert analysis.best is not None
    assert analysis.best.number == 2
    assert analysis.plateau is not None
    assert 1 not in analysis.plateau.numbers
    assert "breaks constraint max_drawdown_frac by 0.05" in _text(tmp_path)


def test_analyse_two_objectives_gives_the_front_and_a_compromise(tmp_path: Path) -> None:
    study = _study("maximize", "minimize")
    for i in range(30):
        ent, waste = i / 29, (i * 7 % 10) / 10
        values = [math.sqrt(ent) - waste, ent + waste]
        _add(study, {"ent": ent, "idle": waste}, values, attrs={"standard_error": [0.01, 0.01]})
    analysis = _analyse(study, tmp_path, "sharpe_annual, max_drawdown_frac")
    assert analysis.objective_names == ("sharpe_annual", "max_drawdown_frac")
    assert set(analysis.pareto) == {trial.number for trial in study.best_trials}
    assert analysis.recommended is not None
    assert analysis.plateau is not None
    assert analysis.recommended.number in analysis.plateau.numbers
    assert analysis.recommended.params["idle"] <= 0.1
    assert 0.05 < analysis.recommended.params["ent"] < 0.8
    assert len(analysis.plateau.numbers) < 15
    assert '"pareto"' in _text(tmp_path)


def test_analyse_page_reaches_for_nothing_outside(tmp_path: Path) -> None:
    _analyse(_noisy_quadratic(2), tmp_path)
    text = _text(tmp_path)
    assert not re.search(r"https?:|\bsrc=|<link|@import|url\(", text)
    assert "default-src 'none'" in text
    page = (tmp_path / "analysis.html").read_bytes()
    assert len(page) < 8e6
    assert page.count(b'<script id="plotly">') == 1


def test_analyse_figures_are_valid_plotly(tmp_path: Path) -> None:
    import plotly.graph_objects as go

    study = _noisy_quadratic(2, trials=20)
    _add(study, {"lr": 1e-3, "net": "big"}, None, TrialState.PRUNED, None, {1: 0.1, 2: 0.2})
    _add(study, {"lr": 1e-3, "net": "<small>"}, [0.3])
    _analyse(study, tmp_path)
    found = re.search(r'<script id="figures"[^>]*>(.*?)</script>', _text(tmp_path), re.DOTALL)
    assert found is not None
    figures = json.loads(found[1])
    assert {"history0", "importance", "parallel", "slice0-0", "contour0-5"} <= set(figures)
    for figure in figures.values():
        go.Figure(data=figure["data"], layout=figure["layout"])
    field, axis = figures["contour0-5"]["data"][0], figures["contour0-5"]["layout"]["yaxis"]
    assert field["y"] == axis["categoryarray"]  # a field of other categories is not drawn


def test_analyse_same_study_gives_the_same_record(tmp_path: Path) -> None:
    study = _noisy_quadratic(4, trials=20)
    records = []
    for _ in range(2):
        _analyse(study, tmp_path)
        records.append({k: v for k, v in _read(tmp_path).items() if k != "written_utc"})
    assert records[0] == records[1]


def test_overrides_of_every_kind_parse_back_in_hydra() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    params = {"a": 1e-05, "b": True, "c": None, "d": "it's, odd=", "e": [64, 64], "f": "[1,2]"}
    parsed = OverridesParser.create().parse_overrides(overrides_of(params))
    values = [override.value() for override in parsed]
    assert [str(value) for value in values[:4]] == ["1e-05", "True", "None", "it's, odd="]
    assert values[4:] == [[64, 64], [1, 2]]


def test_surface_without_noise_passes_through_its_points() -> None:
    parameter = Parameter("x", 0.0, 1.0, log=False)
    settings = [{"x": i / 10} for i in range(11)]
    values = np.array([math.sin(3 * s["x"]) for s in settings])
    surface = Surface([parameter], settings, values, np.full(11, 1e-4))
    mean, sd = surface.predict([{"x": 0.55}])
    assert mean[0] == pytest.approx(math.sin(1.65), abs=0.02)
    assert sd[0] < 0.1
    assert surface.difference_sd(settings[:1], settings[0])[0] == pytest.approx(0.0, abs=1e-6)


def test_surface_gradient_agrees_with_finite_differences() -> None:
    rng = np.random.default_rng(0)
    parameters = [Parameter(name, 0.0, 1.0, log=False) for name in "xy"]
    settings = [{"x": x, "y": y} for x, y in rng.uniform(size=(12, 2))]
    surface = Surface(parameters, settings, rng.normal(size=12), np.full(12, 0.3))
    squares = ((surface._x[:, :, None] - surface._x[:, None]) ** 2).sum(axis=3)
    theta = np.array([-0.7, 0.2, 0.3, -3.0])
    _, gradient = surface._loss(theta, squares)
    for i, step in enumerate(1e-6 * np.eye(4)):
        up, down = (surface._loss(theta + s, squares)[0] for s in (step, -step))
        assert gradient[i] == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-6)


def test_read_parameters_changing_range_is_joined_and_single_value_dropped() -> None:
    study = _study()
    for low, high in ((0.0, 1.0), (0.5, 3.0)):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", low, high) + trial.suggest_int("one", 4, 4))
    assert read_parameters(study) == [Parameter("x", 0.0, 3.0, log=False)]
    assert all(isinstance(row, TrialRow) and "one" in row.params for row in read_trials(study))


@pytest.mark.slow
@needs_browser
def test_analyse_page_fits_screen_and_phone_with_its_equity_first(tmp_path: Path) -> None:
    _analyse(_noisy_quadratic(2), tmp_path)
    best = _read(tmp_path)["recommended"]["number"]
    _leave_scores(tmp_path / str(best))
    _analyse(_noisy_quadratic(2), tmp_path)
    found = check_page(tmp_path / "analysis.html", tmp_path)
    assert found[390]["plots"] >= 9


def _leave_scores(folder: Path) -> None:
    """Write what a trial leaves, of two seeds, one of which never traded."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    write_returns(folder, {s: rng.normal(0, 0.01, 60).astype(np.float32) for s in (0, 1)})
    card = {"sharpe_annual": 2.0, "max_drawdown_frac": 0.05, "win_rate_frac": 0.6, "n_trades": 9}
    cards = {"0": card, "1": card | {"sharpe_annual": 1.0}}
    result = {"scorecards": cards, "interval": [-0.5, 3.5], "mean": 1.5}
    (folder / "result.json").write_text(json.dumps(result))


def test_analyse_says_first_that_nothing_beats_doing_nothing(tmp_path: Path) -> None:
    poor, open_ = _study(), _study()
    _add(poor, {"lr": 1e-3}, [-0.5])
    _add(open_, {"lr": 1e-3}, [0.5])
    _leave_scores(tmp_path / "open" / "0")
    for study, name in ((poor, "poor"), (open_, "open")):
        _analyse(study, tmp_path / name, "bound of Sharpe ratio")
    assert "<h1>Nothing was found: the best setting, of trial 0, is expected to be no" in _text(
        tmp_path / "poor"
    )
    page = _text(tmp_path / "open")
    assert "<h1>Not shown to be better than doing nothing: the mean Sharpe ratio" in page
    assert "-0.50 to 3.50, 95 % interval over 2 seeds, on the same days" in page
    assert "seeds: 2.00, 1.00" in page


def test_analyse_draws_nothing_from_less_than_it_needs(tmp_path: Path) -> None:
    study = _study()
    for i in range(9):
        _add(study, {"lr": 10.0 ** -(1 + i % 5), "ent": i / 9}, [float(i)])
        _analyse(study, tmp_path)
        page = _text(tmp_path)
        assert ('id="slice0-0"' in page) == ('id="parallel"' in page) == (i >= 4)
        assert 'id="contour0-0"' not in page
        assert "Not drawn yet" in page
    assert '"name":"surface"' not in page
    _add(study, {"lr": 1e-2, "ent": 0.5}, [3.0])
    _analyse(study, tmp_path)
    page = _text(tmp_path)
    assert 'id="contour0-0"' in page
    assert "Not drawn yet" not in page
