"""Ranges, cross-field rules and unknown keys, without Hydra."""

from typing import Any

import pytest

from ppo_workbench.config import (
    DEFAULT_MINUTES,
    Config,
    ConfigError,
    Interrupted,
    ModelType,
    known_keys,
    unknown_key,
    validate_config,
)


def test_config_without_values_is_the_documented_default() -> None:
    config = validate_config({})

    assert config.model.type is ModelType.maskable_ppo
    assert config.budget.minutes == DEFAULT_MINUTES == 30.0
    assert config == validate_config({"seed": 0})


@pytest.mark.parametrize("limit", [{"episodes": 20_000}, {"timesteps": 1}, {"minutes": 10.0}])
def test_budget_with_one_limit_keeps_the_others_null(limit: dict[str, Any]) -> None:
    budget = validate_config({"budget": limit}).budget

    unset = {"minutes": None, "episodes": None, "timesteps": None}
    assert {name: getattr(budget, name) for name in unset} == unset | limit


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model": {"learning_rate": 5}}, "model.learning_rate=5: input should be less than"),
        ({"model": {"learning_rate": float("nan")}}, "model.learning_rate=nan: "),
        ({"model": {"n_steps": 1}}, "model.n_steps=1: input should be greater than or equal to 2"),
        ({"model": {"type": "sac"}}, "model.type='sac': input should be 'maskable_ppo' or 'ppo'"),
        ({"model": {"batch_size": 500}}, "model.batch_size=500: must divide n_envs * n_steps"),
        (
            {"model": {"gamma": 0.95}, "env": {"gamma": 0.9}},
            "model.gamma=0.95: env.gamma=0.9 is the same discount; give one alone",
        ),
        ({"model": {"batch_size": 16_384}}, "model.batch_size=16384: must divide"),
        ({"model": {"net_arch": [64, 0]}}, "model.net_arch.1=0: input should be greater"),
        ({"budget": {"minutes": 0}}, "budget.minutes=0: input should be greater than 0"),
        ({"budget": {"episodes": -1}}, "budget.episodes=-1: input should be greater than 0"),
        (
            {"risk": {"pattern_day_trader": {"sessions": 6}}},  # the account remembers five
            "risk.pattern_day_trader.sessions=6: input should be less than or equal to 5",
        ),
        ({"seed": -1}, "seed=-1: input should be greater than or equal to 0"),
        ({"env": {"exposure_levels": [1, 0, -1]}}, "env.exposure_levels=[1.0, 0.0, -1.0]: must"),
        ({"env": {"exposure_levels": [0.5, 1]}}, "env.exposure_levels=[0.5, 1.0]: must contain 0"),
        (
            {"env": {"flat_last_bars": 99, "no_open_last_bars": 15}},
            "env.flat_last_bars=99: must not exceed",
        ),
        ({"env": {"initial_cash_usd": float("inf")}}, "env.initial_cash_usd=inf: "),
        ({"splits": {"train_frac": 0.9}}, "splits: train_frac + validation_frac + test_frac"),
        ({"splits": {"protocol": "kfold"}}, "splits.protocol='kfold': input should be 'holdout'"),
        ({"splits": {"folds": 0}}, "splits.folds=0: input should be greater than or equal to 1"),
        (
            {"splits": {"train_sessions": 90}},
            "splits.train_sessions=90: is for splits=walk_forward_rolling only, "
            "splits.protocol=holdout needs null",
        ),
        (
            {"splits": {"protocol": "cpcv"}},
            "splits.protocol=cpcv: task=train takes one split, as sweeps do, write splits=holdout; "
            "task=compare trains once a fold",
        ),
        (
            {"splits": {"protocol": "purged_kfold"}, "task": "evaluate"},
            "splits.protocol=purged_kfold: task=evaluate takes one split, as sweeps do",
        ),
        (
            {"splits": {"protocol": "purged_kfold", "folds": 1}, "task": "analyse"},
            "splits.folds=1: purged_kfold needs at least 2",
        ),
        (
            {"splits": {"protocol": "cpcv", "test_folds": 6}, "task": "analyse"},
            "splits.test_folds=6: cpcv needs 2 .. splits.folds - 1 = 5; with one test fold it is",
        ),
        (
            {"splits": {"protocol": "cpcv", "folds": 16, "test_folds": 8}, "task": "analyse"},
            "splits.folds=16, splits.test_folds=8: 12,870 trainings, at most 1,000; write fewer",
        ),
        ({"risk": {"drawdown": {"caution_frac": 0.2}}}, "risk.drawdown.caution_frac=0.2: must not"),
        ({"data": {"source": "file"}}, "data.path=None: data=file reads a file, write"),
        (
            {"model": {"type": "ppo"}, "env": {"mask_all_true": True}},
            "env.mask_all_true=true: is a control for model=maskable_ppo only",
        ),
        (
            {"model": {"type": "ppo"}, "env": {"mask_rules": False}},
            "env.mask_rules=false: is a control for model=maskable_ppo only",
        ),
        (
            {"task": "analyse", "compare": {"split": "validation"}, "splits": {"protocol": "cpcv"}},
            "compare.split=validation: is of one split, splits.protocol=cpcv has folds",
        ),
        ({"model": {"learning_rat": 1}}, "model.learning_rat=1: unknown key, did you mean "),
        ({"speed": 1}, "speed=1: unknown key"),
    ],
)
def test_config_with_a_bad_value_names_key_value_and_rule(
    values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        validate_config(values)

    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_config_with_several_bad_values_names_each() -> None:
    with pytest.raises(ConfigError, match=r"seed=-1: .*; threads=0: "):
        validate_config({"seed": -1, "threads": 0})


def test_known_keys_name_sections_and_fields() -> None:
    keys = known_keys()

    assert {"seed", "model", "model.learning_rate", "risk.drawdown.pause_bars"} <= keys.keys()
    assert "data.synthetic.edge" in keys


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("model.learning_rat", "model.learning_rate"),
        ("learning_rate", "model.learning_rate"),
        ("minutes", "budget.minutes"),
        ("risk.sesion.enabled", "risk.session.enabled"),
    ],
)
def test_unknown_key_near_a_known_one_is_guessed(given: str, near: str) -> None:
    assert f"did you mean {near}?" in unknown_key(given)


def test_unknown_key_near_nothing_lists_its_section() -> None:
    assert unknown_key("splits.zzz") == (
        "unknown key; splits holds protocol, train_frac, validation_frac, test_frac, gap_bars, "
        "folds, test_folds, train_sessions"
    )


def test_interrupted_carries_the_objective() -> None:
    assert Interrupted(1.25).value == 1.25


def test_config_sections_are_not_shared_between_instances() -> None:
    first = Config()
    first.env.exposure_levels.append(2.0)

    assert Config().env.exposure_levels == [-1.0, 0.0, 1.0]
