"""The sweeper: what it asks, what it records, what it refuses."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tests.sweeps.toy as toy
from hydra.errors import HydraException
from tests.sweeps.toy import quick, study, sweep, trials

from hydra_plugins.optuna_pruning import _samplers
from hydra_plugins.optuna_pruning._run import SweepError
from hydra_plugins.optuna_pruning._space import read_space
from ppo_workbench.config import ConfigError
from ppo_workbench.pipeline.sweep.record import analyse_study
from ppo_workbench.records.studies.candidates import read_study
from ppo_workbench.records.studies.session import LINEAGE

X = "x=interval(0,1)"


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


def test_sweep_with_a_stock_launcher_and_a_plain_task_works_too(tmp_path: Path) -> None:
    sweep(tmp_path, X, "hydra/launcher=basic", "hydra.sweeper.n_trials=2")
    for state, values, params in trials(tmp_path):
        assert (state, values) == ("COMPLETE", [toy.objective(params["x"])])


def test_sweep_with_a_fuller_study_only_adds_what_is_missing(tmp_path: Path) -> None:
    for wanted, finished in ((2, 2), (3, 3), (2, 3)):
        quick(tmp_path, X, n_trials=wanted)
        assert len(trials(tmp_path)) == finished


@pytest.mark.parametrize(
    "sampler", [{"name": "tpe", "n_startup_trials": 3}, {"name": "random"}, {"name": "qmc"}]
)
def test_sweep_with_the_same_seed_repeats_trials_and_values_even_in_parts(
    tmp_path: Path, sampler: dict[str, Any]
) -> None:
    arguments = (X, "n=1,2,3", "mode=session")
    quick(tmp_path / "a", *arguments, sampler=sampler, n_trials=12)
    for wanted in (5, 12):
        quick(tmp_path / "b", *arguments, sampler=sampler, n_trials=wanted)
    assert trials(tmp_path / "a") == trials(tmp_path / "b")
    points = [tuple(params.values()) for _, _, params in trials(tmp_path / "a")]
    assert len(set(points)) == len(points)


def test_sweep_with_another_seed_tries_other_points(tmp_path: Path) -> None:
    for home, seed in (("a", 0), ("b", 1), ("c", None)):
        quick(tmp_path / home, X, seed=seed, n_trials=1)
    assert len({trials(tmp_path / home)[0][2]["x"] for home in "abc"}) == 3


def test_sweep_with_gp_finds_its_way(tmp_path: Path) -> None:
    quick(tmp_path, X, sampler={"name": "gp", "n_startup_trials": 3}, n_trials=5)
    assert [state for state, *_ in trials(tmp_path)] == ["COMPLETE"] * 5


def test_sweep_with_cmaes_finds_its_way(tmp_path: Path) -> None:
    pytest.importorskip("cmaes")
    arguments = (X, "n=range(1,9)")
    quick(tmp_path, *arguments, sampler={"name": "cmaes", "n_startup_trials": 2}, n_trials=5)
    assert [state for state, *_ in trials(tmp_path)] == ["COMPLETE"] * 5


def test_sweep_with_grid_tries_each_point_once_and_stops(tmp_path: Path) -> None:
    for _ in range(2):
        arguments = ("x=range(0,1,0.5)", "n=1,2", "word='a b',null")
        quick(tmp_path, *arguments, sampler={"name": "grid"}, n_trials=50)
        points = {tuple(params.values()) for _, _, params in trials(tmp_path)}
        assert points == {(x, n, w) for x in (0.0, 0.5) for n in (1, 2) for w in ("a b", None)}
        assert len(trials(tmp_path)) == 8


def test_sweep_with_two_directions_keeps_both_values_and_does_not_prune(tmp_path: Path) -> None:
    quick(tmp_path, X, "mode=front", directions=["maximize", "minimize"])
    assert all(values == [params["x"]] * 2 for _, values, params in trials(tmp_path))
    assert len(study(tmp_path).best_trials) == 4


def test_trial_that_misses_a_constraint_is_not_the_best(tmp_path: Path) -> None:
    points = [{"x": 0.3}, {"x": 0.6}, {"x": 0.4}]
    given = {"enqueue": points, "directions": ["minimize"], "n_trials": 3}
    best = quick(tmp_path, X, "mode=session", **given)["best"][0]
    assert study(tmp_path).trials[1].constraints == {"constraint_0": pytest.approx(0.1)}
    assert best["params"] == {"x": 0.4}


def test_sweep_with_given_points_tries_them_first_and_once(tmp_path: Path) -> None:
    for _ in range(2):
        quick(tmp_path, X, "n=1,2", enqueue=[{"x": 0.25, "n": 2}, {"n": 1}], n_trials=3)
    tried = [params for *_, params in trials(tmp_path)]
    assert tried[0] == {"x": 0.25, "n": 2}
    assert tried[1]["n"] == 1
    assert len(tried) == 3


def test_sweep_from_an_earlier_study_begins_with_its_best_points(tmp_path: Path) -> None:
    quick(tmp_path, X, "n=1,2")
    best = sorted(study(tmp_path).trials, key=lambda one: -(one.value or 0))[:2]
    quick(tmp_path, X, study_name="new", warm_start="toy", warm_start_points=2)
    tried = [params["x"] for *_, params in trials(tmp_path, "new")]
    assert tried[:2] == [one.params["x"] for one in best]


def test_study_remembers_the_studies_that_it_was_warm_started_from(tmp_path: Path) -> None:
    quick(tmp_path, X)
    quick(tmp_path, X, study_name="second", warm_start="toy", n_trials=3)
    for _ in range(2):  # the second start goes on with the study, and forgets nothing
        quick(tmp_path, X, study_name="third", warm_start="second", n_trials=1)
    quick(tmp_path, X, study_name="third", n_trials=2)
    found = {name: study(tmp_path, name).user_attrs[LINEAGE] for name in ("toy", "second", "third")}
    assert found == {"toy": {}, "second": {"toy": 4}, "third": {"toy": 4, "second": 3}}


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
    quick(tmp_path, X, observe="tests.sweeps.toy:Observer")
    (observer,) = toy.OBSERVERS
    kinds = [event[0] for event in observer.events]
    assert kinds == ["started", "finished"] * 4 + ["closed"]
    assert observer.about[:2] == (tmp_path, "toy")
    number, state, values, params, folder, attributes = observer.events[1][1:]
    assert (number, state, folder) == (0, "COMPLETE", tmp_path / "sweeps/toy/0")
    assert values == [toy.objective(params["x"])]
    assert attributes["run_id"] == "run 0"
    assert "not recorded (close): OSError: the server is down" in capsys.readouterr().out


def test_what_a_study_shares_is_settled_once_and_reaches_all_trials(tmp_path: Path) -> None:
    toy.SETTLED.clear()
    toy.OBSERVERS.clear()
    for wanted in (2, 3):
        hooks = {"settle": "tests.sweeps.toy:settle", "observe": "tests.sweeps.toy:Observer"}
        quick(tmp_path, X, "mode=word", n_trials=wanted, **hooks)
    settled = {"overrides": ["word=chosen_1"]}
    assert [(0.5, None), (0.5, settled)] == toy.SETTLED  # asked about the middle of the search
    assert study(tmp_path).user_attrs["settled"] == settled
    assert [one.user_attrs["word"] for one in study(tmp_path).trials] == ["chosen_1"] * 3
    assert [observer.about[2].word for observer in toy.OBSERVERS] == ["chosen_1"] * 2


@pytest.mark.parametrize(
    ("sweep_text", "middle"),
    [
        ("interval(0,4)", 2.0),
        ("tag(log,interval(0.01,1))", pytest.approx(0.1)),
        ("tag(log,int(interval(1,100)))", 10),
        ("range(1,8)", 4),
        ("range(0,1,0.25)", 0.5),
        ("a,b,c", "b"),
        ("int(interval(1,9))", 5),
    ],
)
def test_middle_of_a_search_is_a_value_of_it(sweep_text: str, middle: Any) -> None:
    (parameter,) = read_space({}, [f"k={sweep_text}"]).parameters
    assert parameter.middle() == middle
    assert parameter.stored(parameter.middle()) == middle


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("y=interval(0,1)", {}, "y"),
    ("x=interval(1,0)", {}, "upside down"),
    ("x=0.5", {}, "nothing to search"),
    (X, {"n_trials": 0}, "n_trials=0: must be at least 1"),
    (X, {"max_failure_rate": 1.5}, r"max_failure_rate=1.5: must be from 0 to 1"),
    (X, {"seed": -1}, "seed=-1: must be 0 or more, or null"),
    (X, {"directions": ["up"]}, "must list maximize or minimize"),
    (X, {"directions": []}, "must list maximize or minimize"),
    (X, {"study_name": "../x"}, "names a folder"),
    (X, {"sampler": {"name": "tp"}}, "must be one of tpe, gp"),
    (X, {"sampler": {}}, "must be one of tpe, gp"),
    (X, {"sampler": {"name": "tpe", "n_startup": 5}}, "tpe has no such argument, it takes"),
    (X, {"sampler": {"name": "tpe", "n_startup_trials": "a"}}, "must be int for tpe"),
    (X, {"sampler": {"name": "tpe", "seed": 1}}, "seed: tpe has no such argument"),
    (X, {"sampler": {"name": "cmaes"}}, "needs (the package cmaes|two or more)"),
    (X, {"sampler": {"name": "grid"}}, "grid: x=.* has no finite list"),
    (X, {"pruner": {"name": "mean"}}, "must be one of none, median"),
    (X, {"pruner": {"name": "median", "n_warmup": 5}}, "median has no such argument"),
    (X, {"pruner": {"name": "percentile"}}, "percentile needs a value"),
    (X, {"pruner": {"name": "asha", "reduction_factor": 1}}, "asha refuses"),
    (X, {"enqueue": [{"y": 1}]}, "y is not searched, searched are x"),
    (X, {"enqueue": [{"x": 7}]}, "x=7.0: is outside"),
    (X, {"warm_start": "other"}, "warm_start=other: neither"),
    (X, {"storage": "sqlite:////proc/no/s.db"}, "storage=.*cannot be opened"),
    (X, {"storage": "nodb://u:pw@h/d"}, r"//\*\*\*@h/d: cannot be opened"),
    (X, {"check": "tests.sweeps.toy:nothing"}, "names no function"),
    ("x=interval(0,2)", {"check": "tests.sweeps.toy:check"}, "x=2.0: must be from"),
]


@pytest.mark.parametrize(("argument", "settings", "problem"), BAD, ids=[str(b[2]) for b in BAD])
def test_sweep_that_cannot_work_is_refused_before_any_trial(
    tmp_path: Path, argument: str, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises((ConfigError, HydraException), match=problem) as refused:
        quick(tmp_path, argument, **settings)
    if isinstance(refused.value, ConfigError):
        assert "\n" not in str(refused.value)
        assert "pw" not in str(refused.value)
    journal = tmp_path / "sweeps/toy/journal.log"
    assert not journal.exists() or journal.read_bytes() == b""


def test_sampler_whose_package_is_missing_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_samplers.REQUIRES, "qmc", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"needs the package no_such_package, install it"):
        quick(tmp_path, X, sampler={"name": "qmc"})


@pytest.mark.parametrize(
    ("argument", "settings", "problem"),
    [
        (X, {"directions": ["minimize"]}, r"the study toy has \['maximize'\]"),
        (X, {"objective": "calmar"}, "the study toy has None"),
        ("x=0.1,0.2", {}, r"searched it in interval\(0,1\)"),
    ],
)
def test_sweep_into_a_study_of_another_question_is_refused(
    tmp_path: Path, argument: str, settings: dict[str, Any], problem: str
) -> None:
    quick(tmp_path, X, n_trials=1)
    with pytest.raises(ConfigError, match=problem):
        quick(tmp_path, argument, **settings)
    assert len(trials(tmp_path)) == 1


@pytest.mark.parametrize("first", [None, "a"])
@pytest.mark.parametrize("begun_second", [False, True])
def test_study_of_another_storage_is_kept_out_of_a_folder_in_use(
    tmp_path: Path, first: str | None, begun_second: bool
) -> None:
    one = None if first is None else f"sqlite:///{tmp_path}/a.db"
    two = f"sqlite:///{tmp_path}/b.db" if first is None or begun_second else None
    if begun_second:  # elsewhere, so the storage has a study of this name already
        quick(tmp_path / "elsewhere", X, storage=two, n_trials=1)
    quick(tmp_path, X, storage=one, n_trials=1)
    quick(tmp_path, X, storage=one, n_trials=2)  # its own folder it may go on in
    files = {path: path.read_bytes() for path in (tmp_path / "sweeps/toy").rglob("*.*")}

    begun = f"begun with hydra.sweeper.storage={one or 'null'}"
    with pytest.raises(ConfigError, match=rf"storage={two or 'null'}: .*/toy holds .*{begun}"):
        quick(tmp_path, X, storage=two, n_trials=2)

    assert files == {path: path.read_bytes() for path in (tmp_path / "sweeps/toy").rglob("*.*")}
    quick(tmp_path, X, storage=one, n_trials=3)
    assert len(trials(tmp_path, uri=one)) == 3


def test_folder_of_an_earlier_version_is_taken_by_the_study_that_is_there(tmp_path: Path) -> None:
    two = f"sqlite:///{tmp_path}/b.db"
    quick(tmp_path, X, n_trials=1)
    (tmp_path / "sweeps/toy/study.json").unlink()
    with pytest.raises(ConfigError, match="holds another study of this name; choose"):
        quick(tmp_path, X, storage=two, n_trials=1)

    quick(tmp_path, X, n_trials=2)

    with pytest.raises(ConfigError, match=r"begun with hydra.sweeper.storage=null"):
        quick(tmp_path, X, storage=two, n_trials=1)


def test_folder_is_read_with_its_own_storage_alone(tmp_path: Path) -> None:
    own, other = (f"sqlite:///{tmp_path}/{name}.db" for name in "ab")
    quick(tmp_path, X, storage=own, n_trials=1)
    quick(tmp_path / "elsewhere", X, storage=other, n_trials=1)

    analyse_study(own, tmp_path, "toy", ["x"])
    for read in (
        lambda: analyse_study(other, tmp_path, "toy", ["x"]),
        lambda: read_study(other, tmp_path, "toy", 1),
    ):
        with pytest.raises(ConfigError, match=rf"trial\.storage: holds another .*{own}"):
            read()


@pytest.mark.parametrize(
    "pruner",
    [
        {"name": "none", "n_startup_trials": 0},  # left by the file that named another
        {"name": "median", "n_startup_trials": 99, "percentile": None},  # taken back by null
    ],
)
def test_pruner_with_what_another_took_prunes_as_its_name_says(
    tmp_path: Path, pruner: dict[str, Any]
) -> None:
    quick(tmp_path, X, "mode=session", pruner=pruner, n_trials=6)
    assert [state for state, *_ in trials(tmp_path)] == ["COMPLETE"] * 6


def test_wilcoxon_pruner_compares_trials_on_the_same_instances(tmp_path: Path) -> None:
    """Instances differ by 10, trials by 0.5 at most: only pairing tells good from bad."""
    points = [{"x": x} for x in (0.3, 1.0, 0.9, 0.301, 0.8)]
    quick(
        tmp_path,
        X,
        "mode=instances",
        pruner={"name": "wilcoxon", "p_threshold": 0.05},
        enqueue=points,
        n_trials=5,
    )
    ended = study(tmp_path).trials
    assert [one.state.name for one in ended[:3]] == ["COMPLETE", "PRUNED", "PRUNED"]
    # The bad ones end at the first p < 0.05, which
    # five pairs of one sign give (1/32); trial 4 met easy instances first, so Optuna waited for
    # its mean to fall below that of the best.
    assert [one.user_attrs["done"] for one in ended] == [12, 5, 5, 12, 6]
    for one in ended[1:3]:
        assert len(one.intermediate_values) == one.user_attrs["done"]


def test_sweep_whose_trials_all_fail_stops_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"3 trials failed.*ValueError: no luck"):
        quick(tmp_path, X, "mode=raise")
    assert [state for state, *_ in trials(tmp_path)] == ["FAIL"] * 3


@pytest.mark.parametrize(("mode", "recommends"), [("value", True), ("nothing", False)])
def test_end_of_a_sweep_recommends_only_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, recommends: bool
) -> None:
    page = tmp_path / "sweeps" / "toy" / "analysis.html"
    page.parent.mkdir(parents=True)
    page.touch()  # the toy writes none

    with suppress(SweepError):
        quick(tmp_path, X, f"mode={mode}", n_trials=2)

    told = "analysis, with a setting to recommend: " if recommends else "analysis: "
    assert f"{told}{page}" in capsys.readouterr().out.replace("\n", "")


def test_settings_on_the_command_line_need_no_plus(tmp_path: Path) -> None:
    sampler = "hydra.sweeper.sampler={name: grid, n_startup: 1}"
    with pytest.raises(ConfigError, match="grid has no such argument, it takes no argument"):
        sweep(tmp_path, "n=1,2", sampler)
    with pytest.raises(ConfigError, match="n_jobs=0: must be at least 1"):
        sweep(tmp_path, X, "hydra.launcher.n_jobs=0")
