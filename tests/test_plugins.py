"""The door itself: what is registered, what is refused, and in which words."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numba.core.errors import NumbaError

from ppo_workbench import plugins
from ppo_workbench.cli.refusals import refusal
from ppo_workbench.config import BarsError, ConfigError, DataConfig, RewardConfig, RiskConfig
from ppo_workbench.config.arrays import Floats
from ppo_workbench.jit import composed_kernel
from ppo_workbench.market import features
from ppo_workbench.market.regimes import CLOSE
from ppo_workbench.market.sources import load_bars
from ppo_workbench.scoring import metrics
from ppo_workbench.trading.rewards import REWARD_NAMES, reward_weights
from ppo_workbench.trading.rules.own import own_rules


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> plugins.Parts:
    """An empty registry that has read everything, and an empty folder to import from."""
    fresh = plugins.Parts()
    fresh.read = True
    monkeypatch.setattr(plugins, "_PARTS", fresh)
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.syspath_prepend(tmp_path)
    plugins._digest.cache_clear()
    return fresh


def _name(
    parts: plugins.Parts, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv(plugins.VARIABLE, name)
    parts.read = False


def test_without_plugins_nothing_is_added(parts: plugins.Parts) -> None:
    assert plugins.active() == ()
    assert plugins.digests() == {}
    assert vars(plugins.registered()) == vars(parts)


def test_module_that_is_not_there_says_where_to_put_it(parts: plugins.Parts) -> None:
    parts.read = False
    with pytest.raises(ConfigError, match=r"no module 'not_there'; put not_there\.py into the"):
        plugins.use(["not_there"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = = 1\n", r"SyntaxError in faulty_part\.py, line 1 "),
        ("import no_such_module\n", r"ModuleNotFoundError in faulty_part\.py, line 1 "),
        ("x = 1\nx / 0\n", r"ZeroDivisionError in faulty_part\.py, line 2 "),
        (
            "from ppo_workbench import plugins\n@plugins.rule()\n"
            "def own(account, bar, exposure, limit): return True\n",
            "rule own: every parameter needs a number as its default",
        ),
        (
            "from ppo_workbench import plugins\nfor _ in range(2):\n"
            "    @plugins.metric('M')\n    def own(trace): return 1.0\n",
            "'own' is registered twice",
        ),
        (
            "from ppo_workbench import plugins\nplugins.registered()\n",
            "imports, at its top, a module of the workbench",
        ),
    ],
)
def test_fault_in_a_plugin_is_one_sentence_with_its_line(
    text: str, told: str, parts: plugins.Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "faulty_part", raising=False)
    _name(parts, tmp_path, monkeypatch, "faulty_part", text)
    with pytest.raises(ConfigError, match=rf"plugins=\[faulty_part\]: {told}"):
        plugins.registered()
    assert not parts.read  # so the next asker is told again


def test_process_keeps_what_it_has_begun_with(parts: plugins.Parts, tmp_path: Path) -> None:
    (tmp_path / "later_part.py").write_text("")
    plugins.use([])
    with pytest.raises(ConfigError, match=r"plugins=\[later_part\]: this process has begun with "):
        plugins.use(["later_part"])
    parts.read = False
    plugins.use(["later_part"])
    assert os.environ[plugins.VARIABLE] == "later_part"


def test_digest_is_of_all_files_of_a_package_and_of_their_names(
    parts: plugins.Parts, tmp_path: Path
) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("x = 1\n")
    parts.read = False
    plugins.use(["own_package"])

    def digest() -> str:
        plugins._digest.cache_clear()
        return plugins.digests()["own_package"]

    first = digest()
    (package / "one.py").write_text("x = 2\n")
    second = digest()
    (package / "one.py").rename(package / "two.py")
    assert len({first, second, digest()}) == 3
    (package / "two.py").rename(package / "one.py")
    (package / "one.py").write_text("x = 1\n")
    assert digest() == first
    plugins.check({"own_package": first})
    with pytest.raises(ConfigError, match="another version of the plug-in own_package"):
        plugins.check({"own_package": second})
    with pytest.raises(ConfigError, match="trained with the plug-in other; name it"):
        plugins.check({"other": first})


def test_entry_point_stands_for_its_module(
    parts: plugins.Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nacme = acme_parts\n")
    text = "from ppo_workbench import plugins\n@plugins.source\ndef acme(config): return 42\n"
    _name(parts, tmp_path, monkeypatch, "acme_parts", text)
    monkeypatch.setenv(plugins.VARIABLE, "acme")
    assert list(plugins.registered().sources) == ["acme"]
    with pytest.raises(BarsError, match=r"data.source=acme: returned int; return Bars"):
        load_bars(DataConfig(source="acme"))


def _ring(bar: Floats, context: Floats, state: Floats, n: int) -> float:
    k = int(state[0])
    state[0] += 1
    state[1 + k % n] = bar[CLOSE]
    return float(state[1])


def _divides(bar: Floats, context: Floats, state: Floats, n: int) -> float:
    return 1 / 0  # numba has an answer


@pytest.mark.parametrize(("step", "size", "held"), [(_ring, 5, True), (_ring, 4, False)])
def test_step_that_leaves_its_state_is_refused_before_it_is_compiled(
    step: Callable[..., float], size: int, held: bool
) -> None:
    own = plugins.OwnFeature("ring_<n>", step, 1, lambda n: size, lambda n: 0)
    told = (
        r"ring_<n>: reaches beyond its arrays with windows \[4\] \(index 4.*state_size there is 4"
    )
    with nullcontext() if held else pytest.raises(ConfigError, match=told):
        features._check_state(own, (4,), 7)
    features._check_state(replace(own, step=_divides), (4,), 7)


def test_part_that_does_not_compile_is_one_sentence_with_its_line(
    parts: plugins.Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "uncompiled_part", raising=False)
    text = "def step(bar, state):\n    return bar['close']\n"
    _name(parts, tmp_path, monkeypatch, "uncompiled_part", text)
    plugins.registered()
    source = "def own_feature(bar, state):\n    return part(bar, state)\n"
    step = composed_kernel(source, {"part": sys.modules["uncompiled_part"].step})
    with pytest.raises(NumbaError) as raised:
        step(np.zeros(3), np.zeros(1))

    told = str(refusal(raised.value))
    assert told.startswith(
        "plugins=[uncompiled_part]: uncompiled_part.py, line 2 cannot be compiled (No implem"
    )
    monkeypatch.setattr(plugins, "active", lambda: ())
    assert refusal(raised.value) is None  # none of theirs: an internal error


def test_fault_in_a_source_names_its_line(
    parts: plugins.Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from ppo_workbench import plugins\n@plugins.source\ndef tape(config):\n    1 / 0\n"
    _name(parts, tmp_path, monkeypatch, "tape_parts", text)
    with pytest.raises(BarsError, match=r"ZeroDivisionError in tape_parts\.py, line 4 "):
        load_bars(DataConfig(source="tape"))
    with pytest.raises(BarsError, match=r"file, tape \(did you mean tape\?\); that of a plug-in"):
        load_bars(DataConfig(source="tap"))


@pytest.mark.parametrize("name", ["os", "ppo_workbench.cli.main", "..jit", ""])
def test_source_name_reaches_no_module(name: str, parts: plugins.Parts) -> None:
    with pytest.raises(BarsError, match="is unknown"):
        load_bars(DataConfig(source=name))


@pytest.mark.parametrize("name", ["downside", "turnover", "extra"])
def test_weight_of_no_component_is_refused(name: str) -> None:
    assert list(reward_weights(RewardConfig(turnover=0.5))) == list(REWARD_NAMES)
    with pytest.raises(ConfigError, match=f"reward.extra has '{name}'"):
        reward_weights(RewardConfig(extra={name: 0.1}))


def test_rule_settings_are_checked(parts: plugins.Parts) -> None:
    @plugins.rule()
    def own(account: object, bar: object, exposure: float, limit: float = 5) -> bool:
        return exposure > limit

    assert parts.rules["own"].parameters == {"limit": 5.0}
    (settings,) = own_rules(RiskConfig(extra={"own": {"severity": "regulatory"}})).values()
    assert (settings.enabled, settings.severity.value) == (True, "regulatory")
    assert not own_rules(RiskConfig())["own"].enabled
    for extra, told in (
        ({"other": {}}, r"has 'other', but switches only rules of plug-ins \(own\)"),
        ({"own": {"limits": 1}}, "must map names of severity, limit to values"),
        ({"own": 3}, "must map names"),
        ({"own": {"limit": "x"}}, "parameters are numbers"),
        ({"own": {"severity": "harsh"}}, "'harsh' is not a valid"),
    ):
        with pytest.raises(ConfigError, match=told):
            own_rules(RiskConfig(extra=extra))


def test_metric_has_to_be_finite(parts: plugins.Parts) -> None:
    plugins.metric("Own")(_infinite)
    plugins.metric("Other")(_faulty)
    with pytest.raises(ConfigError, match="metric _infinite=inf: must be finite"):
        metrics._own_figure("_infinite", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"metric _faulty: AttributeError"):
        metrics._own_figure("_faulty", None)  # type: ignore[arg-type]


def _infinite(trace: object) -> float:
    return float(np.inf)


def _faulty(trace: object) -> float:
    return trace.nothing  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("form", ["extra:a", "my range", "x_<n>_<m>_<k>_<l>", "Rsi_<n>", ""])
def test_form_of_a_feature_is_a_plain_name(form: str, parts: plugins.Parts) -> None:
    with pytest.raises(ConfigError, match="must be a name of"):
        plugins.feature(form)


@pytest.mark.parametrize("name", ["../x", "./quant", "", "a b", "1x"])
def test_name_of_a_plugin_is_that_of_a_module(name: str, parts: plugins.Parts) -> None:
    parts.read = False
    with pytest.raises(ConfigError, match="is no name of a module"):
        plugins.use([name])


@pytest.mark.parametrize("name", ["sys", "os"])
def test_module_without_a_file_is_refused(name: str, parts: plugins.Parts) -> None:
    parts.read = False
    with pytest.raises(ConfigError, match=f"no module '{name}'"):
        plugins.use([name])


def test_decorator_without_its_parentheses_is_refused(parts: plugins.Parts) -> None:
    with pytest.raises(TypeError):
        plugins.rule(_infinite)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="write @metric"):
        plugins.metric(_infinite)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "asks", "told"),
    [
        ("@plugins.metric('M')\ndef sharpe_annual(t): ...", "scoring.catalogue", "metric"),
        ("@plugins.reward_term\ndef drawdown(a, o, p): ...", "trading.rewards", "reward term"),
        ("@plugins.rule()\ndef volatility(a, b, e): ...", "trading.rules.names", "rule"),
        ("@plugins.feature('rsi_<n>')\ndef f(b, c, s, n): ...", "market.features", "feature"),
        ("@plugins.feature('return_7')\ndef f(b, c, s): ...", "market.features", "feature"),
    ],
)
def test_name_of_something_built_in_is_refused(
    text: str, asks: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "own_parts.py").write_text(f"from ppo_workbench import plugins\n{text}\n")
    script = (
        "from ppo_workbench import plugins; plugins.use(['own_parts']); "
        f"import ppo_workbench.{asks}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PPO_WORKBENCH_CACHE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"plugins=[own_parts]: {told} " in done.stderr
    assert "is built in; give yours another name" in done.stderr


def test_source_with_a_built_in_name_is_refused(
    parts: plugins.Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from ppo_workbench import plugins\n@plugins.source\ndef file(config): ...\n"
    _name(parts, tmp_path, monkeypatch, "file_parts", text)
    with pytest.raises(ConfigError, match="source 'file' is built in"):
        load_bars(DataConfig(source="file", path="x.csv"))
