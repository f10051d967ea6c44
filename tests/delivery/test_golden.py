from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.delivery.models import actor, build, settings, small_artifact

from ppo_workbench.config import Activation, ArtifactError
from ppo_workbench.delivery.artifact import Artifact, verify
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.golden import (
    MARGIN,
    ROWS,
    Golden,
    Level,
    find_golden,
    replay_network,
)
from ppo_workbench.delivery.golden_bars import Layout, golden_vectors
from ppo_workbench.delivery.network import policy_weights
from ppo_workbench.delivery.settings import stored_config
from ppo_workbench.trading.observation import Scaler


def _golden(artifact: Artifact) -> Golden:
    golden = find_golden(artifact.tensors)
    assert golden is not None
    return golden


def _with(artifact: Artifact, name: str, change: Any) -> Artifact:
    """Return the artefact with one of its tensors replaced by `change(copy of it)`."""
    tensor = change(artifact.tensors[name].clone())
    return replace(artifact, tensors=artifact.tensors | {name: tensor})


def _set(index: Any, value: Any) -> Any:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor[index] = value
        return tensor

    return change


def _torch_logits(artifact: Artifact, observation: np.ndarray[Any, Any]) -> torch.Tensor:
    """The independent oracle: torch's own layers, in float64."""
    x = torch.from_numpy(observation).double()
    t = {name: tensor.double() for name, tensor in artifact.tensors.items()}
    for k in (0, 2):
        stem = f"policy.mlp_extractor.policy_net.{k}"
        x = torch.tanh(torch.nn.functional.linear(x, t[f"{stem}.weight"], t[f"{stem}.bias"]))
    return torch.nn.functional.linear(x, t["policy.action_net.weight"], t["policy.action_net.bias"])


def test_golden_vectors_are_64_clear_decisions_that_torch_makes_too() -> None:
    artifact = small_artifact()
    golden = _golden(artifact)
    logits = _torch_logits(artifact, golden.observation)
    masked = torch.where(torch.from_numpy(golden.mask), logits, -torch.inf)
    best = masked.sort(dim=1, descending=True).values

    assert golden.observation.shape == (ROWS, 11)
    assert golden.mask.shape == golden.logits.shape == (ROWS, 3)
    torch.testing.assert_close(
        torch.from_numpy(golden.logits).double(), logits, rtol=1e-5, atol=1e-5
    )
    assert masked.argmax(dim=1).tolist() == golden.action.tolist()
    assert (best[:, 0] - best[:, 1] > 0.9 * MARGIN).all()
    assert len(np.unique(golden.mask, axis=0)) >= 3  # flattening, no new risk, free


def test_golden_vectors_are_the_same_each_time() -> None:
    first, second = build(settings())[0], build(settings())[0]
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": {"type": "ppo"}},
        {"model": {"activation": "relu", "net_arch": [16]}},
        {"env": {"action_set": "target", "exposure_levels": [-1.0, -0.5, 0.0, 0.5, 1.0]}},
        {"env": {"allow_short": False, "fill": "next_close"}},
        {"env": {"mask_all_true": True}},
        {"model": {"type": "ppo"}, "env": {"observe_mask": True}},
        {"features": {"names": ["rsi_14", "macd_12_26_9", "volume_20", "regime_trend"]}},
        {"costs": {"fee_per_share_usd": 0.01, "borrow_annual_bps": 50.0}},
        {"risk": {"cooldown": {"enabled": True}, "order_rate": {"enabled": True}}},
    ],
)
def test_verify_every_kind_of_model_replays(sections: dict[str, Any]) -> None:
    tensors, metadata = build(settings(**sections))
    verify(Artifact(tensors, metadata), Level.step)


@pytest.mark.parametrize(("bar_seconds", "per_session"), [(86400, 1), (3600, 7), (3600, 24)])
def test_verify_other_bar_lengths_and_own_columns_replay(
    bar_seconds: int, per_session: int
) -> None:
    """Daily, hourly and round-the-clock bars, with a feature of the user's."""
    named = ["return_1", "extra:sentiment", "session_time"]
    config = settings(features={"names": named})
    names = (*named, "extra:unnamed")
    metadata = small_artifact().metadata
    layout = Layout(bar_seconds, per_session, names)
    n_observed = len(names) + len(metadata.observation.account_names)
    stds = np.linspace(0.5, 2.0, n_observed)
    scaler = Scaler(np.linspace(-1.0, 1.0, n_observed), stds, config.features.clip)
    state = actor(config, n_observed, 3)
    tensors = golden_vectors(config, layout, scaler, policy_weights(state, Activation.tanh))
    tensors |= {f"policy.{name}": value for name, value in state.items()}
    tensors |= {
        "scaler.means": torch.from_numpy(scaler.means),
        "scaler.stds": torch.from_numpy(stds),
    }
    data = metadata.data.model_copy(
        update={"bar_seconds": bar_seconds, "bars_per_session": per_session}
    )
    changes = {
        "data": data,
        "config": plain(asdict(config)),
        "feature_specification": asdict(config.features),
        "feature_names": [*names, *metadata.observation.account_names],
        "observation": metadata.observation.model_copy(update={"market_names": list(names)}),
    }
    artifact = Artifact(tensors, metadata.model_copy(update=changes))

    verify(artifact, Level.step)
    assert _golden(artifact).bars.shape == (128, 9)
    with pytest.raises(ArtifactError, match="extra:sentiment"):
        verify(_with(artifact, "golden.bars", _set((slice(None), 7), 3.0)), Level.step)


def test_verify_model_that_does_not_know_its_sessions_is_refused() -> None:
    artifact = small_artifact()
    data = artifact.metadata.data.model_copy(update={"bars_per_session": None})
    with pytest.raises(ArtifactError, match="how many bars a session has"):
        verify(small_artifact(data=data), Level.step)


def test_verify_model_with_recorded_references_replays() -> None:
    config = settings(costs={"high_volatility_multiplier": 2.0})
    raw = plain(asdict(config))
    raw["costs"]["high_volatility_multiplier"] = "${data.high_volatility_cost_multiplier}"
    raw["tracking"]["uri"] = "${oc.env:SECRET}"
    raw["data"]["high_volatility_cost_multiplier"] = 2.0
    tensors, metadata = build(config, raw)

    verify(Artifact(tensors, metadata), Level.step)

    raw["costs"]["high_volatility_multiplier"] = "${oc.env:MULTIPLIER}"
    with pytest.raises(ArtifactError, match="known only where it was trained"):
        stored_config(metadata.model_copy(update={"config": raw}))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("policy.action_net.bias", _set(0, 3.0), "the network makes logits"),
        ("policy.mlp_extractor.policy_net.0.weight", _set((0, 0), 9.0), "the network makes"),
        ("golden.logits", lambda x: x + 2e-4, "the network makes logits"),
        ("golden.action", lambda x: (x + 1) % 3, "the network makes logits"),
        ("golden.mask", lambda x: torch.zeros_like(x), "forbids every action"),
        ("golden.mask", lambda x: x[:, :2], "golden.mask has shape"),
        ("golden.observation", lambda x: x[:, :-1], "golden.observation has shape"),
        ("golden.rows", lambda x: x + 100, "do not lie among"),
    ],
)
def test_verify_network_that_decides_otherwise_is_refused(
    name: str, change: Any, message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        verify(_with(small_artifact(), name, change), Level.network)


def test_verify_swapped_actions_are_refused_by_the_network() -> None:
    """The weights of SELL and BUY exchanged: a valid file, other decisions."""
    artifact = small_artifact()
    for part in ("weight", "bias"):
        artifact = _with(artifact, f"policy.action_net.{part}", lambda x: x[[2, 1, 0]])
    with pytest.raises(ArtifactError, match="does not decide here"):
        verify(artifact, Level.network)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scaler.means", _set(0, 1.0), "feature 'ema_distance_10'"),
        ("scaler.stds", _set(3, 2.0), "feature 'exposure'"),
        ("golden.bars", _set((slice(None), 3), 100.0), "feature|mask"),
        ("golden.state", torch.zeros_like, "feature|mask"),
        ("golden.bars", lambda x: x[:, :-1], "golden.bars has shape"),
        ("golden.bars_left", torch.zeros_like, "its rules make the mask"),
    ],
)
def test_verify_step_that_comes_out_otherwise_is_refused(
    name: str, change: Any, message: str
) -> None:
    artifact = _with(small_artifact(), name, change)
    verify(artifact, Level.network)
    with pytest.raises(ArtifactError, match=message):
        verify(artifact, Level.step)


def _config(**sections: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = plain(asdict(settings(**sections)))
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": _config(env={"no_open_last_bars": 200})}, "its rules make the mask"),
        ({"config": _config(env={"exposure_levels": [-0.5, 0.0, 0.5]})}, "exposure_levels are"),
        ({"config": _config(features={"names": ["return_1"]})}, "feature_specification differs"),
        ({"config": _config(env={"action_set": "target"})}, "action_names are"),
        ({"config": {}}, "no section 'features'"),
        ({"config": _config() | {"env": {"typo": 1}}}, "cannot be used: env.typo"),
    ],
)
def test_verify_other_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        verify(small_artifact(**changes), Level.step)


def test_verify_renamed_feature_is_refused() -> None:
    """The names alone are changed, everywhere and consistently."""
    metadata = small_artifact().metadata
    names = ["return_5" if name == "return_1" else name for name in metadata.feature_names]
    layout = metadata.observation.model_copy(update={"market_names": names[:3]})
    artifact = small_artifact(feature_names=names, observation=layout)
    with pytest.raises(ArtifactError, match="its feature settings make"):
        verify(artifact, Level.step)


def test_verify_nearly_tied_policy_has_no_golden_vectors_and_is_refused() -> None:
    tensors, metadata = build(settings(), scale=1e-9)
    assert find_golden(tensors) is None
    with pytest.raises(ArtifactError, match="no golden vectors"):
        verify(Artifact(tensors, metadata))


def test_verify_standard_ppo_ignores_the_mask() -> None:
    tensors, metadata = build(settings(model={"type": "ppo"}))
    golden = find_golden(tensors)
    assert golden is not None
    assert (golden.action == golden.logits.argmax(axis=1)).all()
    assert not golden.mask[np.arange(ROWS), golden.action].all()
    replay_network(metadata, tensors, golden)
