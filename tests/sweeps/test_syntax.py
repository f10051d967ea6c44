"""Every form of Hydra's sweep syntax and the distribution that it becomes."""

import subprocess
import sys
from typing import Any

import pytest
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.distributions import CategoricalDistribution as Choice

from hydra_plugins.optuna_pruning._space import read_space
from ppo_workbench.config import ConfigError

FORMS: list[tuple[str, BaseDistribution, str]] = [
    # sweep, distribution, override of its first or lowest value
    ("a,b", Choice(["a", "b"]), "k=a"),
    ("1,2,4", Choice([1, 2, 4]), "k=1"),
    ("0.5,1.5", Choice([0.5, 1.5]), "k=0.5"),
    ("true,false", Choice([True, False]), "k=True"),
    ("null,1", Choice([None, 1]), "k=null"),
    ("1,null", Choice([1, None]), "k=1"),
    ("'null',null", Choice(["null", None]), "k='null'"),
    ("'x y','a=b'", Choice(["x y", "a=b"]), "k='x y'"),
    ('"1",2', Choice(["1", 2]), 'k="1"'),
    ("[1,2],[3]", Choice(["[1,2]", "[3]"]), "k=[1,2]"),
    ("{a:1},{a:2}", Choice(["{a:1}", "{a:2}"]), "k={a:1}"),
    ("choice(a,b)", Choice(["a", "b"]), "k=a"),
    ("choice([32,32],[64,64])", Choice(["[32,32]", "[64,64]"]), "k=[32,32]"),
    ("sort(3,1,2)", Choice([1, 2, 3]), "k=1"),
    ("sort(a,b,reverse=true)", Choice(["b", "a"]), "k=b"),
    ("shuffle(3,1,2)", Choice([3, 1, 2]), "k=3"),
    ("int(choice(1.5,2.5))", Choice([1, 2]), "k=1"),
    ("str(choice(1,2))", Choice(["1", "2"]), "k='1'"),
    ("float(choice(1,2))", Choice([1.0, 2.0]), "k=1.0"),
    ("bool(choice(1,0))", Choice([True, False]), "k=True"),
    ("range(1,5)", IntDistribution(1, 4), "k=1"),  # stop is not part of it
    ("range(5)", IntDistribution(0, 4), "k=0"),
    ("range(1,10,3)", IntDistribution(1, 7, step=3), "k=1"),
    ("range(10,0,-3)", IntDistribution(1, 10, step=3), "k=1"),
    ("shuffle(range(0,3))", IntDistribution(0, 2), "k=0"),
    ("sort(range(3,0,-1))", IntDistribution(1, 3), "k=1"),
    ("range(0,1,0.25)", FloatDistribution(0.0, 0.75, step=0.25), "k=0.0"),
    ("float(range(1,4))", FloatDistribution(1.0, 3.0, step=1.0), "k=1.0"),
    ("int(range(1.0,4.0))", IntDistribution(1, 3), "k=1"),
    ("tag(log,range(1,100))", IntDistribution(1, 99, log=True), "k=1"),
    ("interval(0,1)", FloatDistribution(0.0, 1.0), "k=0.0"),
    ("interval(1e-5,0.01)", FloatDistribution(1e-5, 0.01), "k=1e-05"),
    ("interval(2,2)", FloatDistribution(2.0, 2.0), "k=2.0"),
    ("int(interval(1,10))", IntDistribution(1, 10), "k=1"),
    ("float(interval(1,10))", FloatDistribution(1.0, 10.0), "k=1.0"),
    ("tag(log,interval(1e-5,0.01))", FloatDistribution(1e-5, 0.01, log=True), "k=1e-05"),
    ("tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True), "k=1"),
    ("int(tag(log,interval(1,64)))", IntDistribution(1, 64, log=True), "k=1"),
]


@pytest.mark.parametrize(("text", "distribution", "override"), FORMS, ids=[f[0] for f in FORMS])
def test_sweep_syntax_of_each_form_becomes_its_distribution(
    text: str, distribution: BaseDistribution, override: str
) -> None:
    for space in (read_space({"k": text}, []), read_space({}, [f"k={text}"])):
        (parameter,) = space.parameters
        assert parameter.distribution == distribution
        assert space.overrides({"k": parameter.ends()[0]}) == [override]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("interval(10,1)", r"upside down, write interval\(1.0,10.0\)"),
        ("range(1,1)", "the range is empty"),
        ("range(1,5,0)", "step"),
        ("range(5,1)", "the range is empty"),
        ("tag(log,interval(0,1))", "must begin above 0"),
        ("tag(log,range(1,9,2))", "step of 1"),
        ("tag(log,choice(1,2))", "log goes with"),
        ("tag(lgo,interval(1,2))", "tag lgo is unknown"),
        ("1,2,1", "choice 1 is given twice"),
        ("1,1.0", "given twice"),
        ("nan,1", "nan cannot be a choice"),
        ("choice(a,null)", "write the values as a,null"),
        ("choice()", "cannot be read"),
        ("interval(1)", "cannot be read"),
        ("str(interval(0,1))", "cannot be read"),
        ("nterval(0,1)", "cannot be read"),
    ],
)
def test_sweep_syntax_that_cannot_be_sampled_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        read_space({}, [f"k={text}"])
    assert "\n" not in str(refused.value)


def test_space_without_any_sweep_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        read_space({"a": 1}, ["b=2"])


@pytest.mark.parametrize(
    ("params", "arguments", "fixed", "searched"),
    [
        ({"a": "1,2", "b": 3}, [], ("b=3",), ["a"]),
        ({"a": "1,2", "b": "1,2"}, ["a=7"], ("a=7",), ["b"]),  # the command line wins
        ({"a": "1,2"}, ["a=interval(0,1)"], (), ["a"]),
        ({"a": "1,2", "b": None, "c": True, "d": [1, 2]}, [], ("b=null", "c=True", "d=[1,2]"), "a"),
        ({}, ["+a=1,2", "++b=3", "~c"], ("++b=3", "~c"), ["a"]),
        ({}, ["g@p=x,y", "z=$"], ("z=$",), ["g@p"]),
    ],
)
def test_space_with_fixed_values_separates_them(
    params: dict[str, Any], arguments: list[str], fixed: tuple[str, ...], searched: list[str]
) -> None:
    space = read_space(params, arguments)
    assert space.fixed == fixed
    assert [one.name for one in space.parameters] == list(searched)


def test_override_of_an_added_key_keeps_its_plus() -> None:
    assert read_space({}, ["+a=1,2"]).overrides({"a": 2}) == ["+a=2"]


def test_plugins_when_scanned_import_nothing_heavy() -> None:
    code = (
        "import sys; from hydra.core.plugins import Plugins; Plugins.instance();"
        "import hydra_plugins.pool.launcher, hydra_plugins.optuna_pruning.sweeper;"
        "print([m for m in ('optuna', 'torch', 'ray', 'mlflow', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
