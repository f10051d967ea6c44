"""Models on disk: find them, fit them to an experiment, run them over a split."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ppo_workbench.config import Config, ConfigError, ModelType, Raw
from ppo_workbench.delivery.artifact import Artifact, load_artifact, load_metadata
from ppo_workbench.delivery.describe import plain, utc
from ppo_workbench.delivery.golden import (
    POLICY_PREFIX,
    SCALER_MEANS,
    SCALER_STDS,
    stored_weights,
    uses_mask,
)
from ppo_workbench.delivery.golden_bars import Layout, golden_vectors
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.delivery.network import PolicyWeights, policy_weights
from ppo_workbench.delivery.settings import check_plugins
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.splits import Split
from ppo_workbench.records.ledger import Access, open_test, session_hashes
from ppo_workbench.scoring.backtest import NETWORK, Policy
from ppo_workbench.scoring.backtest import backtest as run_backtest
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import (
    Experiment,
    prepare_with_test,
    prepared,
    split_bars,
)
from ppo_workbench.trading.observation import Scaler
from ppo_workbench.trading.table import TradingMarket

MODEL_NAMES = {ModelType.maskable_ppo: "MaskablePPO", ModelType.ppo: "PPO"}
FOLDERS = {ModelType.maskable_ppo: "trained_models", ModelType.ppo: "baselines"}


def home_folder() -> Path:
    """Return the folder that everything is written under."""
    return Path(os.environ.get("PPO_WORKBENCH_HOME", ".")).absolute()


def find_artifact(artifact: str) -> tuple[Path, str]:
    """Return folder and name of an artefact given by name, or by path from here or from home.

    Raises:
        ConfigError: It is in neither trained_models/ nor baselines/.
    """
    path = Path(artifact)
    if path.parent != Path():
        name = path.name.removesuffix(".pth")
        inside = home_folder() / path.parent
        here = (path.parent / f"{name}.pth").is_file()
        return (path.parent if here or not inside.is_dir() else inside), name
    for folder in FOLDERS.values():
        if (home_folder() / folder / f"{artifact}.pth").is_file():
            return home_folder() / folder, artifact
    places = " or ".join(f"{folder}/" for folder in FOLDERS.values())
    raise ConfigError(f"artifact={artifact}: no such model in {places} of {home_folder()}")


def named_artifact(config: Config) -> tuple[Path, str]:
    """Return folder and name of the model that `artifact` names.

    Raises:
        ConfigError: None is named, or there is no such model.
    """
    if config.artifact is None:
        raise ConfigError("artifact: a value is needed, write artifact=NAME")
    return find_artifact(config.artifact)


def recorded_of(artifact: str) -> Raw:
    """Return the unresolved configuration in a model's metadata; its weights are not read.

    Raises:
        ConfigError: There is no such model.
        ArtifactError: Its metadata are missing or damaged, or a plug-in of its training is not
            named.
    """
    metadata = load_metadata(*find_artifact(artifact))
    check_plugins(metadata)
    return metadata.config


def artifact_tensors(
    experiment: Experiment, state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Name the policy's tensors, add the scaler and the golden vectors."""
    config, market, bars = experiment.config, experiment.market, experiment.bars
    layout = Layout(bars.bar_seconds, bars.bars_per_session, market.feature_names)
    weights = policy_weights(state, config.model.activation)
    tensors = {f"{POLICY_PREFIX}{key}": value for key, value in state.items()} | {
        SCALER_MEANS: torch.from_numpy(market.scaler.means.copy()),
        SCALER_STDS: torch.from_numpy(market.scaler.stds.copy()),
    }
    return tensors | golden_vectors(config, layout, market.scaler, weights)


def stored_policy(
    metadata: Metadata, tensors: dict[str, torch.Tensor], experiment: Experiment
) -> Policy:
    """Turn a loaded artefact into a policy for `experiment`, if they fit together.

    Raises:
        ConfigError: Actions, levels or observed features differ.
    """
    space, market = experiment.market.space, experiment.market
    pairs = {
        "action names": (metadata.action_names, list(space.names)),
        "exposure levels": (metadata.exposure_levels, [float(x) for x in space.levels]),
        "market features": (metadata.observation.market_names, list(market.feature_names)),
        "feature settings": (
            metadata.feature_specification,
            plain(asdict(experiment.config.features)),
        ),
    }
    for what, (stored, here) in pairs.items():
        if stored != here:
            raise ConfigError(
                f"artifact={metadata.name}: its {what} are {stored}, the configuration has {here}; "
                "compose the configuration that it was trained with"
            )
    return trained_policy(metadata.model_type, stored_weights(metadata, tensors))


def rescaled(experiment: Experiment, tensors: Mapping[str, torch.Tensor]) -> TradingMarket:
    """Return the market as a stored model saw it: scaled as in its own training."""
    means, stds = (tensors[name].numpy() for name in (SCALER_MEANS, SCALER_STDS))
    scaler = Scaler(means, stds, experiment.market.scaler.clip)
    features = scaler.transform_market(experiment.table.features)
    return replace(experiment.market, features=features, scaler=scaler)


def as_stored(stored: Artifact, experiment: Experiment) -> tuple[Policy, Experiment]:
    """Return a model's policy and the experiment as the model sees it; see `stored_policy`."""
    policy = stored_policy(stored.metadata, stored.tensors, experiment)
    return policy, replace(experiment, market=rescaled(experiment, stored.tensors))


def run_on_split(experiment: Experiment, policy: Policy, split: str) -> Trace:
    """Run a policy over one open split."""
    return run_backtest(
        policy,
        experiment.bars,
        experiment.market,
        experiment.splits[split],
        experiment.config,
    )


def selected_policy(config: Config, tensors: Mapping[str, torch.Tensor]) -> Policy:
    """Turn the state dict of a checkpoint into a policy."""
    return trained_policy(config.model.type, policy_weights(tensors, config.model.activation))


def trained_policy(model_type: ModelType, weights: PolicyWeights) -> Policy:
    """Turn weights into a policy; MaskablePPO alone chooses among allowed actions."""
    name = MODEL_NAMES[model_type]
    return Policy(name, NETWORK, weights=weights, use_mask=uses_mask(model_type))


def open_with_test(config: Config, why: str) -> Experiment:
    """Open the test split: record the access in the ledger, then lay out the experiment.

    The only way to the test split (docs/architecture.md, decision 4).

    Args:
        config: The experiment.
        why: The reason, for the ledger.

    Raises:
        LedgerError: The access cannot be recorded, so nothing is opened.
    """
    return open_bars_with_test(config, *split_bars(config), why)[0]


def open_bars_with_test(
    config: Config, bars: Bars, splits: dict[str, Split], why: str, look: str | None = None
) -> tuple[Experiment, Access]:
    """Do as `open_with_test` with bars that are loaded already; return the access too.

    Args:
        config: The experiment.
        bars: All bars, see `split_bars`.
        splits: Their splits.
        why: The reason, for the ledger.
        look: Identity of an access that many processes share, see `open_test`.

    Raises:
        LedgerError: The access cannot be recorded, so nothing is opened.
    """
    access = open_range(bars, splits["test"].start, splits["test"].stop, why, look)
    return prepare_with_test(config, bars, splits), access


def open_range(
    bars: Bars, start: int, stop: int, why: str, look: str | None = None, variants: int = 1
) -> Access:
    """Record that the bars `start` .. `stop - 1` are looked at, before anything is made of them.

    See `open_test` for the rest.
    """
    first, last = (utc(int(bars.start_ns[i])).isoformat() for i in (start, stop - 1))
    home, hashes = home_folder(), session_hashes(bars, start, stop)
    return open_test(
        home, bars.instrument, first, last, bars.fingerprint, why, look or "", variants, hashes
    )


def backtest(config: Config, artifact: str, split: str = "validation") -> Trace:
    """Run a stored model over one split of the configured bars and return what it did.

    Opening the test split is recorded in the ledger first.

    Args:
        config: Gives bars, features, costs and rules.
        artifact: Name in trained_models/ or baselines/, or a path without its ending.
        split: "train", "validation" or "test".

    Raises:
        ConfigError: The split's name is unknown, or the model observes something else.
        ArtifactError: The artefact is missing or damaged.
    """
    if split not in ("train", "validation", "test"):
        raise ConfigError(f"split={split!r}: must be train, validation or test")
    folder, name = find_artifact(artifact)
    stored = load_artifact(folder, name)
    check_plugins(stored.metadata)
    if split == "test":
        experiment = open_with_test(config, f"backtest of {name}")
    else:
        experiment = prepared(config)
    policy, seen = as_stored(stored, experiment)
    return run_on_split(seen, policy, split)
