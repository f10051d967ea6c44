"""Checks of a composed configuration: every range, and every rule between fields."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from math import comb
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ppo_workbench.config.choices import ModelType, Protocol, Task
from ppo_workbench.config.errors import ConfigError
from ppo_workbench.config.market import SOURCES_WITHOUT_FILE, DataConfig, SplitsConfig
from ppo_workbench.config.schema import Config, known_keys
from ppo_workbench.config.tasks import CompareConfig, PromoteConfig
from ppo_workbench.config.training import EnvConfig

DEFAULT_MINUTES = 30.0


def unknown_key(key: str) -> str:
    """Say what is near an unknown full key, and what its section holds."""
    keys = list(known_keys())
    leaf = key.rpartition(".")[2]
    deep = [name for name in keys if name.count(".") >= key.count(".")]
    near = difflib.get_close_matches(key, deep, n=1, cutoff=0.75) or [
        name for name in keys if difflib.get_close_matches(leaf, [name.rpartition(".")[2]], 1, 0.8)
    ]
    section = key.rpartition(".")[0]
    while section and section not in keys:
        section = section.rpartition(".")[0]
    start = f"{section}." if section else ""
    names = [name[len(start) :] for name in keys if name.startswith(start)]
    inside = ", ".join(name for name in names if "." not in name)
    guess = f", did you mean {near[0]}?" if near else ";"
    return f"unknown key{guess} {section or 'the top level'} holds {inside}"


def _unknown_keys(values: Mapping[str, object], section: type, prefix: str = "") -> Iterator[str]:
    """Yield a sentence for every key that the dataclass does not have; pydantic skips them."""
    kinds = get_type_hints(section)
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None:
            yield f"{prefix}{name}={value!r}: {unknown_key(prefix + str(name))}"
        elif is_dataclass(kind) and isinstance(value, dict):
            yield from _unknown_keys(value, kind, f"{prefix}{name}.")  # type: ignore[arg-type]


_CONFIG = TypeAdapter(Config)  # made once: 0.03 seconds, which every trial of a sweep would pay


def validate_config(values: Mapping[str, object]) -> Config:
    """Turn plain nested values into a checked `Config`.

    A budget without any limit becomes `DEFAULT_MINUTES`: a preset with minutes in it would
    also limit a run that was given episodes alone.

    Args:
        values: What `OmegaConf.to_container(cfg, resolve=True)` returns.

    Raises:
        ConfigError: One sentence per broken rule, each with its full key and value.
    """
    problems = list(_unknown_keys(values, Config))
    if problems:
        raise ConfigError("; ".join(problems))
    try:
        config = _CONFIG.validate_python(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc'])}={item['input']!r}: {_in_words(item)}"
            for item in error.errors()
        ]
        raise ConfigError("; ".join(problems)) from None
    problems = _cross_field_problems(config)
    if problems:
        raise ConfigError("; ".join(problems))
    budget = config.budget
    if budget.minutes is None and budget.episodes is None and budget.timesteps is None:
        budget.minutes = DEFAULT_MINUTES
    return config


def _in_words(problem: Any) -> str:
    """Say what pydantic found, where its own words are about its types."""
    kind, limits = problem["type"], problem.get("ctx", {})
    if kind == "too_short":
        return f"give {limits['min_length']} or more, as in [1,2]"
    if kind == "too_long":
        return f"give at most {limits['max_length']}"
    if kind == "string_pattern_mismatch":
        return f"must be a plain name, no folder (pattern {limits['pattern']})"
    message: str = problem["msg"]
    return message[0].lower() + message[1:]


def _cross_field_problems(config: Config) -> list[str]:
    """Collect the broken rules that involve more than one field."""
    return [
        *_data_problems(config.data, config.task),
        *_env_problems(config.env),
        *_learning_problems(config),
        *_split_problems(config),
        *_risk_problems(config),
        *_compare_problems(config.compare),
        *_promote_problems(config.promote),
    ]


def _data_problems(data: DataConfig, task: Task) -> list[str]:
    if task is Task.check_data:
        return [] if data.path else ["data.path: a value is needed, write data.path=FILE"]
    if data.source in SOURCES_WITHOUT_FILE and data.path is not None:
        return [
            f"data.path={data.path!r}: data={data.source} reads no file, "
            f"write data=file data.path={data.path}"
        ]
    if data.source == "file" and not data.path:
        return [f"data.path={data.path!r}: data=file reads a file, write data.path=FILE"]
    return []


def _env_problems(env: EnvConfig) -> list[str]:
    levels = env.exposure_levels
    problems = []
    if sorted(set(levels)) != levels:
        problems.append(f"env.exposure_levels={levels}: must rise strictly")
    if 0.0 not in levels:
        problems.append(f"env.exposure_levels={levels}: must contain 0, or nothing could be closed")
    if not env.allow_short and min(levels) < 0 and max(levels) <= 0:
        problems.append(
            f"env.exposure_levels={levels}: no long level is left by env.allow_short=false"
        )
    flat, no_open = env.flat_last_bars, env.no_open_last_bars
    if flat is not None and no_open is not None and flat > no_open:
        problems.append(
            f"env.flat_last_bars={flat}: must not exceed env.no_open_last_bars={no_open}"
        )
    return problems


def _learning_problems(config: Config) -> list[str]:
    model, discount = config.model, config.env.gamma
    problems = []
    if None not in (discount, model.gamma) and discount != model.gamma:
        problems.append(
            f"model.gamma={model.gamma}: env.gamma={discount} is the same discount; give one alone"
        )
    rollout = model.n_envs * model.n_steps
    if model.batch_size > rollout or rollout % model.batch_size:
        problems.append(
            f"model.batch_size={model.batch_size}: must divide n_envs * n_steps = "
            f"{model.n_envs} * {model.n_steps} = {rollout}"
        )
    for key, control in (("mask_all_true", True), ("mask_rules", False)):
        if model.type is ModelType.ppo and getattr(config.env, key) is control:
            shown = f"env.{key}={str(control).lower()}"
            problems.append(f"{shown}: is a control for model=maskable_ppo only")
    return problems


def _split_problems(config: Config) -> list[str]:
    splits, problems = config.splits, []
    total = splits.train_frac + splits.validation_frac + splits.test_frac
    if total > 1 + 1e-9:
        problems.append(
            f"splits: train_frac + validation_frac + test_frac = {total:g}, must be at most 1"
        )
    rolling = splits.protocol is Protocol.walk_forward_rolling
    if splits.train_sessions is not None and not rolling:
        problems.append(
            f"splits.train_sessions={splits.train_sessions}: is for splits=walk_forward_rolling "
            f"only, splits.protocol={splits.protocol.value} needs null"
        )
    if splits.protocol is not Protocol.holdout and config.task in (Task.train, Task.evaluate):
        problems.append(
            f"splits.protocol={splits.protocol.value}: task={config.task.value} takes one "
            "split, as sweeps do, write splits=holdout; task=compare trains once a fold"
        )
    if splits.protocol is not Protocol.holdout and config.compare.split == "validation":
        problems.append(
            f"compare.split=validation: is of one split, splits.protocol={splits.protocol.value} "
            "has folds, write splits=holdout"
        )
    return [*problems, *_fold_problems(splits)]


MOST_FOLDS = 1000  # each of them is a training


def _fold_problems(splits: SplitsConfig) -> list[str]:
    """Say which numbers of folds the protocol cannot lay out."""
    if splits.protocol is Protocol.purged_kfold and splits.folds < 2:
        return [f"splits.folds={splits.folds}: purged_kfold needs at least 2"]
    if splits.protocol is not Protocol.cpcv:
        return []
    if not 2 <= splits.test_folds < splits.folds:
        return [
            f"splits.test_folds={splits.test_folds}: cpcv needs 2 .. splits.folds - 1 = "
            f"{splits.folds - 1}; with one test fold it is splits=purged_kfold"
        ]
    count = comb(splits.folds, splits.test_folds)
    if count > MOST_FOLDS:
        return [
            f"splits.folds={splits.folds}, splits.test_folds={splits.test_folds}: {count:,} "
            f"trainings, at most {MOST_FOLDS:,}; write fewer of either"
        ]
    return []


def _risk_problems(config: Config) -> list[str]:
    drawdown = config.risk.drawdown
    problems = []
    if drawdown.enabled and drawdown.caution_frac > drawdown.flatten_frac:
        problems.append(
            f"risk.drawdown.caution_frac={drawdown.caution_frac:g}: must not exceed "
            f"risk.drawdown.flatten_frac={drawdown.flatten_frac:g}"
        )
    return problems


def _compare_problems(compare: CompareConfig) -> list[str]:
    arms = compare.arms
    if not arms:
        return []
    known = f"must be one of compare.arms: {', '.join(arms)}"
    problems = []
    if compare.reference not in arms:
        problems.append(f"compare.reference={compare.reference}: {known}")
    for name, market in compare.markets.items():
        problems += [
            f"compare.markets.{name}.arms={arm}: {known}" for arm in market.arms if arm not in arms
        ]
    for pair in compare.pairs:
        if len(pair) != 2:
            problems.append(f"compare.pairs={pair}: a pair has two names, first minus second")
    if len(set(compare.seeds)) < len(compare.seeds):
        problems.append(f"compare.seeds={compare.seeds}: must differ, or one run counts twice")
    return problems


def _promote_problems(promote: PromoteConfig) -> list[str]:
    if len(set(promote.seeds)) < len(promote.seeds):
        return [f"promote.seeds={promote.seeds}: must differ, or one run counts twice"]
    return []
