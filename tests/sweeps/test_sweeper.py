"""The sweeper: what it asks, what it records, what it refuses."""

from pathlib import Path

import pytest
import tests.sweeps.toy as toy
from hydra.errors import HydraException
from tests.sweeps.toy import study, sweep, trials

from hydra_plugins.optuna_pruning._run import SweepError
from ppo_workbench.config import ConfigError

X = "x=interval(0,1)"
BASIC = "hydra/launcher=basic"


def test_sweep_with_defaults_ends_with_n_trials_finished(tmp_path: Path) -> None:
    result = sweep(tmp_path, X, "mode=session", "hydra.sweeper.n_trials=8")
    ended = study(tmp_path)
    states = [one.state.name for one in ended.trials]
    assert len(states) == 8
    assert set(states) <= {"COMPLETE", "PRUNED"}
    complete = [one for one in ended.trials if one.state.name == "COMPLETE"]
    feasible = [one for one in complete if one.constraints["constraint_0"] <= 0]
    assert result["best"][0]["values"] == [max(one.value or 0.0 for one in feasible)]
    assert "PRUNED" in states
    assert all((tmp_path / f"sweeps/toy/{k}/log.txt").is_file() for k in range(8))
    assert (tmp_path / "sweeps/toy/0/log.txt").read_text() == "trial 0\n"


def test_sweep_with_a_fuller_study_only_adds_what_is_missing(tmp_path: Path) -> None:
    for wanted, finished in ((2, 2), (3, 3), (2, 3)):
        sweep(tmp_path, X, BASIC, f"hydra.sweeper.n_trials={wanted}")
        assert len(trials(tmp_path)) == finished


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_sweep_with_the_same_seed_repeats_trials_and_values_even_in_parts(
    tmp_path: Path, sampler: str
) -> None:
    arguments: tuple[str, ...] = (X, "n=1,2,3", BASIC, f"hydra.sweeper.sampler.name={sampler}")
    if sampler == "tpe":
        arguments += ("hydra.sweeper.sampler.n_startup_trials=2",)
    sweep(tmp_path / "a", *arguments, "hydra.sweeper.n_trials=5")
    for wanted in (3, 5):
        sweep(tmp_path / "b", *arguments, f"hydra.sweeper.n_trials={wanted}")
    assert trials(tmp_path / "a") == trials(tmp_path / "b")
    points = [tuple(params.values()) for _, _, params in trials(tmp_path / "a")]
    assert len(set(points)) == len(points)


def test_sweep_with_gp_finds_its_way(tmp_path: Path) -> None:
    arguments = (
        "hydra.sweeper.sampler={name: gp, n_startup_trials: 3}",
        "hydra.sweeper.n_trials=5",
    )
    sweep(tmp_path, X, BASIC, *arguments)
    assert [state for state, *_ in trials(tmp_path)] == ["COMPLETE"] * 5


def test_sweep_with_grid_tries_each_point_once_and_stops(tmp_path: Path) -> None:
    arguments = ("x=range(0,1,0.5)", "n=1,2", "word='a b',null", BASIC)
    grid = ("hydra.sweeper.sampler.name=grid", "hydra.sweeper.n_trials=50")
    sweep(tmp_path, *arguments, *grid)
    points = {tuple(params.values()) for _, _, params in trials(tmp_path)}
    assert points == {(x, n, w) for x in (0.0, 0.5) for n in (1, 2) for w in ("a b", None)}
    assert len(trials(tmp_path)) == 8
    sweep(tmp_path, *arguments, *grid)
    assert len(trials(tmp_path)) == 8


def test_sweep_with_two_directions_keeps_both_values_and_does_not_prune(tmp_path: Path) -> None:
    sweep(tmp_path, X, "mode=front", BASIC, "hydra.sweeper.directions=[maximize,minimize]")
    assert all(values == [params["x"]] * 2 for _, values, params in trials(tmp_path))
    assert len(study(tmp_path).best_trials) == 4


def test_trial_that_misses_a_constraint_is_not_the_best(tmp_path: Path) -> None:
    points = "hydra.sweeper.enqueue=[{x: 0.3}, {x: 0.6}, {x: 0.4}]"
    more = ("hydra.sweeper.n_trials=3", "hydra.sweeper.directions=[minimize]")
    best = sweep(tmp_path, X, "mode=session", BASIC, points, *more)["best"][0]
    assert study(tmp_path).trials[1].constraints == {"constraint_0": pytest.approx(0.1)}
    assert best["params"] == {"x": 0.4}


def test_sweep_with_given_points_tries_them_first_and_once(tmp_path: Path) -> None:
    points = "hydra.sweeper.enqueue=[{x: 0.25, n: 2}, {n: 1}]"
    for _ in range(2):
        sweep(tmp_path, X, "n=1,2", BASIC, points, "hydra.sweeper.n_trials=3")
    tried = [params for *_, params in trials(tmp_path)]
    assert tried[0] == {"x": 0.25, "n": 2}
    assert tried[1]["n"] == 1
    assert len(tried) == 3


def test_sweep_from_an_earlier_study_begins_with_its_best_points(tmp_path: Path) -> None:
    sweep(tmp_path, X, "n=1,2", BASIC)
    best = sorted(study(tmp_path).trials, key=lambda one: -(one.value or 0))[:2]
    new = ("hydra.sweeper.study_name=new", "hydra.sweeper.warm_start=toy")
    sweep(tmp_path, X, BASIC, *new, "hydra.sweeper.warm_start_points=2")
    tried = [params["x"] for *_, params in trials(tmp_path, "new")]
    assert tried[:2] == [one.params["x"] for one in best]


def test_storage_with_a_secret_never_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_FOLDER", str(tmp_path / "hidden"))
    uri = "hydra.sweeper.storage='sqlite:///${oc.env:SECRET_FOLDER}/s.db'"
    sweep(tmp_path / "home", X, "mode=session", uri, "hydra.sweeper.n_trials=2")
    found = trials(tmp_path / "home", uri=f"sqlite:///{tmp_path}/hidden/s.db")
    assert [state for state, *_ in found] == ["COMPLETE"] * 2
    written = [file.read_text() for file in (tmp_path / "home").rglob("*.*") if file.is_file()]
    assert any("${oc.env:SECRET_FOLDER}" in text for text in written)
    assert not any("hidden" in text for text in written)


def test_observer_is_told_of_every_trial_and_may_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.OBSERVERS.clear()
    sweep(tmp_path, X, BASIC, "hydra.sweeper.observe=tests.sweeps.toy:Observer")
    (observer,) = toy.OBSERVERS
    kinds = [event[0] for event in observer.events]
    assert kinds == ["started", "finished"] * 4 + ["closed"]
    assert observer.about[:2] == (tmp_path, "toy")
    number, state, values, params, folder, attributes = observer.events[1][1:]
    assert (number, state, folder) == (0, "COMPLETE", tmp_path / "sweeps/toy/0")
    assert values == [toy.objective(params["x"])]
    assert attributes["run_id"] == "run 0"
    assert "not recorded (close): OSError: the server is down" in capsys.readouterr().out


BAD: list[tuple[tuple[str, ...], str]] = [
    (("y=interval(0,1)",), "y"),
    (("x=interval(1,0)",), "upside down"),
    (("x=0.5",), "nothing to search"),
    ((X, "hydra.sweeper.n_trials=0"), "n_trials=0: must be at least 1"),
    ((X, "hydra.sweeper.max_failure_rate=1.5"), "max_failure_rate=1.5: must be from 0 to 1"),
    ((X, "hydra.sweeper.directions=[up]"), "must list maximize or minimize"),
    ((X, "hydra.sweeper.directions=[]"), "must list maximize or minimize"),
    ((X, "hydra.sweeper.study_name=../x"), "names a folder"),
    ((X, "hydra.sweeper.sampler.name=tp"), "must be one of tpe, gp"),
    ((X, "hydra.sweeper.sampler.n_startup=5"), "n_startup: tpe has no such argument, it takes"),
    ((X, "hydra.sweeper.sampler.n_startup_trials=a"), "must be int"),
    ((X, "hydra.sweeper.sampler.seed=1"), "seed: tpe has no such argument"),
    ((X, "hydra.sweeper.sampler.name=cmaes"), "needs (the package cmaes|two or more)"),
    ((X, "hydra.sweeper.sampler.name=grid"), "grid: x=.* has no finite list"),
    ((X, "hydra.sweeper.pruner.name=mean"), "must be one of none, median"),
    ((X, "hydra.sweeper.pruner.n_warmup=5"), "n_warmup: median has no such argument"),
    ((X, "hydra.sweeper.pruner.name=percentile"), "percentile: percentile needs a value"),
    ((X, "hydra.sweeper.pruner={name: asha, reduction_factor: 1}"), "asha refuses"),
    ((X, "hydra.sweeper.enqueue=[{y: 1}]"), "y is not searched, searched are x"),
    ((X, "hydra.sweeper.enqueue=[{x: 7}]"), "x=7: is outside"),
    ((X, "hydra.sweeper.warm_start=other"), "warm_start=other: neither"),
    ((X, "hydra.sweeper.storage='sqlite:////proc/no/s.db'"), "storage=.*cannot be opened"),
    ((X, "hydra.sweeper.storage='nodb://u:pw@h/d'"), r"u:\*\*\*@h/d: cannot be opened"),
    ((X, "hydra.sweeper.check=tests.sweeps.toy:nothing"), "names no function"),
    (("x=interval(0,2)", "hydra.sweeper.check=tests.sweeps.toy:check"), "x=2.0: must be from"),
    ((X, "hydra.launcher.n_jobs=0"), "n_jobs=0: must be at least 1"),
]


@pytest.mark.parametrize(("overrides", "problem"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_sweep_that_cannot_work_is_refused_before_any_trial(
    tmp_path: Path, overrides: tuple[str, ...], problem: str
) -> None:
    with pytest.raises((ConfigError, HydraException), match=problem) as refused:
        sweep(tmp_path, *overrides)
    if isinstance(refused.value, ConfigError):
        assert "\n" not in str(refused.value)
        assert "pw" not in str(refused.value)
    assert not (tmp_path / "sweeps/toy/journal.log").exists() or not trials(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ((X, "hydra.sweeper.directions=[minimize]"), "the study toy has .'maximize'."),
        ((X, "hydra.sweeper.objective=calmar"), "the study toy has None"),
        (("x=0.1,0.2",), r"searched it in interval\(0,1\)"),
    ],
)
def test_sweep_into_a_study_of_another_question_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], problem: str
) -> None:
    sweep(tmp_path, X, BASIC, "hydra.sweeper.n_trials=1")
    with pytest.raises(ConfigError, match=problem):
        sweep(tmp_path, *overrides, BASIC)
    assert len(trials(tmp_path)) == 1


def test_pruner_named_none_takes_over_from_one_with_arguments(tmp_path: Path) -> None:
    given = ("hydra.sweeper.pruner.n_startup_trials=0", "hydra.sweeper.pruner.name=none")
    sweep(tmp_path, X, "mode=session", BASIC, *given, "hydra.sweeper.n_trials=6")
    assert [state for state, *_ in trials(tmp_path)] == ["COMPLETE"] * 6


def test_sweep_whose_trials_all_fail_stops_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"3 trials failed.*ValueError: no luck"):
        sweep(tmp_path, X, "mode=raise", BASIC)
    assert [state for state, *_ in trials(tmp_path)] == ["FAIL"] * 3
