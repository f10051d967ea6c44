"""Describe a trained model for its metadata file: what a consumer has to know, no more."""

import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from enum import Enum
from importlib import metadata as installed
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from ppo_workbench import plugins
from ppo_workbench.config import ActionSet, Config, Raw
from ppo_workbench.delivery.metadata import (
    Architecture,
    Data,
    DateRange,
    Metadata,
    Normalization,
    Observation,
    Rule,
    Scorecards,
    Training,
)
from ppo_workbench.market.horizons import recorded_horizons
from ppo_workbench.trading.actions import ActionSpace, observed_bits
from ppo_workbench.trading.experiment import Experiment
from ppo_workbench.trading.observation import ACCOUNT_FEATURES
from ppo_workbench.trading.rules.names import RULE_NAMES, rule_sections

LIBRARIES = ("numpy", "numba", "torch", "pandas", "stable-baselines3", "sb3-contrib", "gymnasium")


def plain(value: Any) -> Any:
    """Turn nested dataclasses' values (enums, numpy scalars, tuples) into JSON values."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return value.item() if isinstance(value, np.generic) else value


def describe_model(
    experiment: Experiment,
    training: Training,
    scorecards: Scorecards,
    raw: Raw,
    run_id: str | None,
) -> Metadata:
    """Build the metadata of a candidate.

    Args:
        experiment: Bars, features, scaler and action space of the training.
        training: What the training took.
        scorecards: Flat scorecards of the splits that were scored.
        raw: The configuration with secrets unresolved; null horizons are recorded resolved.
        run_id: MLflow run, if any.
    """
    config, market = experiment.config, experiment.market
    bits = (f"mask_{k}" for k in range(observed_bits(config.env)))
    account_names = [*ACCOUNT_FEATURES, *bits]
    names = [*market.feature_names, *account_names]
    return Metadata(
        model_type=config.model.type,
        created_utc=datetime.now(UTC),
        action_set=market.space.kind,
        action_names=list(market.space.names),
        action_target_exposures=_targets(market.space),
        exposure_levels=[float(x) for x in market.space.levels],
        rules=_rules(config),
        feature_names=names,
        feature_specification=plain(asdict(config.features)),
        feature_ranges=_ranges(experiment),
        warmup_bars=experiment.table.warmup_bars,
        observation=Observation(
            market_names=list(market.feature_names),
            account_names=account_names,
            scaled=True,
        ),
        architecture=Architecture(
            feature_dim=len(names),
            net_arch=list(config.model.net_arch),
            activation=config.model.activation.value,
        ),
        normalization=Normalization(
            means=[float(x) for x in market.scaler.means],
            stds=[float(x) for x in market.scaler.stds],
        ),
        config=plain(recorded_horizons(raw, config)),
        seed=config.seed,
        data=describe_data(experiment),
        training=training,
        scorecards=scorecards,
        mlflow_run_id=run_id,
        git_commit=git_commit(),
        plugins=plugins.digests(),
        libraries=library_versions(),
        cpu=processor(),
    )


def _targets(space: ActionSpace) -> list[float | None]:
    """Target exposure of each action; None where it depends on the rung one is on."""
    if space.kind is ActionSet.step:
        return [None] * space.size
    return [None, *(float(level) for level in space.levels)]


def _rules(config: Config) -> list[Rule]:
    sections = rule_sections(config.risk)
    return [
        Rule(
            code=code,
            name=name,
            severity=sections[name].severity,
            parameters=_parameters(sections[name]),
        )
        for code, name in enumerate(RULE_NAMES)
        if sections[name].enabled
    ]


def _parameters(section: Any) -> dict[str, JsonValue]:
    values = plain(asdict(section))
    values |= values.pop("parameters", {})  # of a plug-in's rule
    return {key: value for key, value in values.items() if key not in ("enabled", "severity")}


def _ranges(experiment: Experiment) -> dict[str, tuple[float, float]]:
    """Smallest and largest unscaled market feature in training."""
    seen = experiment.train_features
    lows, highs = seen.min(axis=0), seen.max(axis=0)
    names = experiment.market.feature_names
    return {name: (float(lows[k]), float(highs[k])) for k, name in enumerate(names)}


def describe_data(experiment: Experiment) -> Data:
    """Say which bars an experiment is on, and the ranges of its splits."""
    bars = experiment.bars
    spans = {
        name: (int(bars.start_ns[split.start]), int(bars.start_ns[split.stop - 1]))
        for name, split in experiment.splits.items()
    }
    spans["test"] = experiment.test_range
    return Data(
        source=bars.source,
        instrument=bars.instrument,
        fingerprint=bars.fingerprint,
        calendar=bars.calendar,
        timezone=bars.timezone,
        bar_seconds=bars.bar_seconds,
        bars_per_session=bars.bars_per_session,
        has_volume=bars.has_volume,
        conventions=bars.conventions,
        splits={name: DateRange(start=utc(a), stop=utc(b)) for name, (a, b) in spans.items()},
    )


def utc(ns: int) -> datetime:
    """Return a UTC time from nanoseconds since 1970."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the numbers, those installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = installed.version(name)
        except installed.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Return architecture and model of this machine's processor."""
    return f"{platform.machine()} {_cpu_model()}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, None elsewhere."""
    for folder in Path(__file__).resolve().parents:
        git = folder / ".git"
        if git.is_file():  # of a second worktree
            git = folder / git.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")
        if (git / "HEAD").is_file():
            return _resolve_head(git)
    return None


def _resolve_head(git: Path) -> str | None:
    text = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not text.startswith("ref: "):
        return text
    reference, common = text.removeprefix("ref: "), git
    if (git / "commondir").is_file():
        common = git / (git / "commondir").read_text(encoding="utf-8").strip()
    if (common / reference).is_file():
        return (common / reference).read_text(encoding="utf-8").strip()
    packed = common / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {reference}")), None)
