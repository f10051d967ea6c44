"""Every form of Hydra's sweep syntax and the distribution that it becomes."""

import subprocess
import sys
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import Override
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.distributions import CategoricalDistribution as Choice

from hydra_plugins.optuna_pruning._space import read_space
from ppo_workbench.cli.options import CONF, groups
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
    # escapes, white space, spellings and nesting of single elements
    (r"a\,b,c", Choice(["a,b", "c"]), r"k=a\,b"),
    ("a b,c", Choice(["a b", "c"]), r"k=a\ b"),
    ("a:b,/c/d", Choice(["a:b", "/c/d"]), r"k=a\:b"),
    (r"'it\'s',''", Choice(["it's", ""]), r"k='it\'s'"),
    ('"a, b",c', Choice(["a, b", "c"]), 'k="a, b"'),
    ("NULL,TRUE,False", Choice([None, True, False]), "k=null"),
    ("1_000,-2,2e3,-0.5", Choice([1000, -2, 2000.0, -0.5]), "k=1000"),
    ("${x},${oc.env:HOME}", Choice(["${x}", "${oc.env:HOME}"]), r"k=$\{x\}"),
    ("[],[a,[1,2]]", Choice(["[]", "[a,[1,2]]"]), "k=[]"),
    ("{},{a:{b:1}}", Choice(["{}", "{a:{b:1}}"]), "k={}"),
    ("choice([1,2],{a:1},'a b')", Choice(["[1,2]", "{a:1}", "a b"]), "k=[1,2]"),
    # named arguments, and functions of several elements or of other functions
    ("range(start=1,stop=5,step=2)", IntDistribution(1, 3, step=2), "k=1"),
    ("range(-3,0)", IntDistribution(-3, -1), "k=-3"),
    ("range(1,0,step=-0.25)", FloatDistribution(0.25, 1.0, step=0.25), "k=0.25"),
    ("interval(start=-1,end=1)", FloatDistribution(-1.0, 1.0), "k=-1.0"),
    ("int(interval(1.5,9.5))", IntDistribution(1, 9), "k=1"),
    ("int(1.2,2.7)", Choice([1, 2]), "k=1"),
    ("str(1,a b)", Choice(["1", "a b"]), "k='1'"),
    ("float(1,2)", Choice([1.0, 2.0]), "k=1.0"),
    ("bool(true,0)", Choice([True, False]), "k=True"),
    ("sort(choice(b,a))", Choice(["a", "b"]), "k=a"),
    ("sort(sweep=choice(2,1))", Choice([1, 2]), "k=1"),
    ("shuffle(sweep=choice(b,a))", Choice(["b", "a"]), "k=b"),
    ("tag(choice(a,b))", Choice(["a", "b"]), "k=a"),
    ("tag(log,sweep=interval(1,2))", FloatDistribution(1.0, 2.0, log=True), "k=1.0"),
    ("tag(log,shuffle(range(1,9)))", IntDistribution(1, 8, log=True), "k=1"),
    ("float(tag(log,int(interval(1,5))))", FloatDistribution(1.0, 5.0, log=True), "k=1.0"),
]


@pytest.mark.parametrize(("text", "distribution", "override"), FORMS, ids=[f[0] for f in FORMS])
def test_sweep_syntax_of_each_form_becomes_its_distribution(
    text: str, distribution: BaseDistribution, override: str
) -> None:
    for space in (read_space({"k": text}, []), read_space({}, [f"k={text}"])):
        (parameter,) = space.parameters
        assert parameter.distribution == distribution
        assert space.overrides({"k": parameter.ends()[0]}) == [override]


@pytest.mark.parametrize("text", [form[0] for form in FORMS])
def test_override_of_each_value_gives_hydra_that_value_back(text: str) -> None:
    (parameter,) = read_space({}, [f"k={text}"]).parameters
    for value in parameter.ends():
        read = OverridesParser.create().parse_override(parameter.override(value)).value()
        if isinstance(read, list | dict):
            read = Override._get_value_element_as_str(read)
        assert (type(read), read) == (type(value), value)


def test_glob_over_a_config_group_chooses_its_options() -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        (risk,) = read_space({}, ["risk=glob(*,exclude=un*)"], loader).parameters
        (reward,) = read_space({"reward": "glob([d*,r*])"}, [], loader).parameters
    assert risk.distribution == Choice(["aggressive", "conservative", "moderate"])
    assert set(reward.ends()) == {option for option in groups()["reward"] if option[0] in "dr"}


def test_every_function_of_hydras_grammar_stands_in_the_table() -> None:
    """A function that a later Hydra adds must be looked at."""
    functions = set(create_functions().definitions)
    texts = [text for text, *_ in FORMS]
    missing = {name for name in functions if not any(f"{name}(" in text for text in texts)}
    assert missing == {"glob"}  # tested by itself: it needs a loader


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("interval(0,inf)", "inf cannot be an end"),
        ("interval(nan,1)", "nan cannot be an end"),
        ("range(0,inf)", "inf cannot be an end or a step"),
        ("choice(a", "not closed"),
        ("str(1,null)", "write the values as a,null"),
        ("a,,b", "cannot be read"),
        ("choice(choice(1,2))", "nesting choices is not supported"),
        ("bool(range(0,2))", "Range can only be cast to int or float"),
        ("sort(interval(0,1))", "cannot be read"),
        ("shuffle(interval(0,1))", "cannot be read"),
        ("tag(log,range(0.5,3.5))", "log goes with an interval"),
        ("int(choice(1,1.5))", "choice 1 is given twice"),
        ("1,true", "choice True is given twice"),
        ("interval(a,b)", "cannot be read"),
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
        "print([m for m in ('optuna', 'torch', 'mlflow', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
