"""Which trials of a study a promotion takes, and how many it counts."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
from omegaconf import OmegaConf
from optuna.trial import TrialState

from ppo_workbench.cli.options import CONF
from ppo_workbench.config import ConfigError
from ppo_workbench.records.storage import open_storage, study_folder
from ppo_workbench.records.studies.candidates import read_study, research_alone
from ppo_workbench.records.studies.returns import write_returns
from ppo_workbench.records.studies.session import LINEAGE

SPACE = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


class _Study:
    """A study on disk whose trials are written by hand."""

    def __init__(self, home: Path, direction: Literal["maximize", "minimize"] = "maximize") -> None:
        self.home = home
        storage = open_storage(None, home, "known")
        self.study = optuna.create_study(study_name="known", storage=storage, direction=direction)

    def add(
        self,
        x: float,
        value: float | None,
        state: str = "COMPLETE",
        constraint: float | None = None,
    ) -> None:
        number = len(self.study.get_trials())
        trial = self.study.ask({"x": optuna.distributions.FloatDistribution(x, x)})
        trial.set_user_attr("seeds", [0, 1])
        if constraint is not None:
            trial.set_constraint("fall", constraint)
        folder = study_folder(self.home, "known") / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"number": number}))
        if state != "FAIL":
            write_returns(folder, {0: np.full(30, x, np.float32)})
        if state != "RUNNING":
            self.study.tell(trial, value, TrialState[state])

    def read(self, top: int = 10) -> Any:
        return read_study(None, self.home, "known", top)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_candidates_are_the_best_feasible_ones_each_point_once(tmp_path: Path) -> None:
    study = _Study(tmp_path)
    study.add(0.1, 1.0)
    study.add(0.2, 3.0)
    study.add(0.2, 3.5)  # the same point again
    study.add(0.3, 9.0, constraint=0.01)  # infeasible
    study.add(0.4, None, "FAIL")
    study.add(0.5, 2.0, constraint=-0.01)

    found = study.read()

    assert [(c.number, c.value) for c in found.candidates] == [(2, 3.5), (5, 2.0), (0, 1.0)]
    assert found.candidates[0].raw == {"number": 2}
    assert found.candidates[0].seeds == (0, 1)
    assert len(study.read(top=2).candidates) == 2


def test_every_begun_trial_counts_whatever_became_of_it(tmp_path: Path) -> None:
    study = _Study(tmp_path)
    study.add(0.1, 1.0)
    study.add(0.2, None, "FAIL")
    study.add(0.3, None, "RUNNING")
    study.study.enqueue_trial({"x": 0.9})  # never begun

    found = study.read()

    assert found.trials == 3
    assert found.states == {"COMPLETE": 1, "FAIL": 1, "RUNNING": 1, "WAITING": 1}
    assert list(found.returns) == [0]


def test_trials_of_the_lineage_count(tmp_path: Path) -> None:
    study = _Study(tmp_path)
    study.add(0.1, 1.0)
    study.study.set_user_attr(LINEAGE, {"spring": 40})

    found = study.read()

    assert found.elsewhere == {"study spring": 40}
    assert found.trials == 41


def _searched(*keys: str) -> str | None:
    study = optuna.create_study(study_name="known")
    study.ask({"model.learning_rate": SPACE["x"]})
    study.ask(dict.fromkeys(keys, SPACE["x"]))
    return research_alone(study)


@pytest.mark.parametrize(
    "key",
    [
        *("costs", "costs.half_spread_bps", "data.high_volatility_cost_multiplier", "market"),
        *("splits.test_frac", "objective.windows", "experiment", "risk", "risk.session.enabled"),
        *("risk.initial_margin.long_frac", "risk.drawdown.severity", "risk.drawdown"),
    ],
)
def test_study_that_searches_what_it_is_judged_by_is_research(key: str) -> None:
    sentence = _searched("model.ent_coef", key)

    assert sentence is not None
    assert f"known is research and not promotable: it searched {key}, so" in sentence


def test_study_of_hyperparameters_and_house_limits_may_be_promoted_from() -> None:
    for sweep in ("lr_entropy", "full", "risk", "smoke"):
        file: Any = OmegaConf.load(CONF / "sweep" / f"{sweep}.yaml")
        assert _searched(*file.hydra.sweeper.get("params", {})) is None


def test_less_is_better_where_the_study_minimises(tmp_path: Path) -> None:
    study = _Study(tmp_path, "minimize")
    study.add(0.1, 0.2)
    study.add(0.2, 0.1)

    assert [c.number for c in study.read().candidates] == [1, 0]


def test_study_without_a_usable_trial_is_refused(tmp_path: Path) -> None:
    study = _Study(tmp_path)
    study.add(0.1, None, "FAIL")

    with pytest.raises(ConfigError, match=r"1 fail\); run the sweep to its end"):
        study.read()


@pytest.mark.parametrize("name", ["absent", ".."])
def test_folder_that_is_no_study_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "sweeps").mkdir()

    with pytest.raises(ConfigError, match="is no study"):
        read_study(None, tmp_path, name, 3)


def test_trial_of_another_machine_is_refused_with_its_number(tmp_path: Path) -> None:
    study = _Study(tmp_path)
    study.add(0.1, 1.0)
    (study_folder(tmp_path, "known") / "0" / "config.json").unlink()

    with pytest.raises(ConfigError, match="configuration of trial 0 cannot be read"):
        study.read()
