"""Stored models with random weights, and a slow reference that writes down every step."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config, Select
from ppo_workbench.delivery.artifact import Artifact, load_artifact, save_artifact
from ppo_workbench.delivery.describe import describe_model, plain
from ppo_workbench.delivery.golden import POLICY_PREFIX, SCALER_MEANS, SCALER_STDS, stored_weights
from ppo_workbench.delivery.messages import Account, Fill
from ppo_workbench.delivery.metadata import Scorecards, Training
from ppo_workbench.delivery.network import best_allowed, forward_row
from ppo_workbench.market.splits import Split
from ppo_workbench.trading.account import OUTCOME_DTYPE
from ppo_workbench.trading.chance import seed_accounts
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars
from ppo_workbench.trading.step import begin_episode, refresh, step_one

SMALL = (
    "tracking=none",
    "data.synthetic.sessions=26",
    "features.volatility_slow_bars=390",
    "model.net_arch=[16,16]",
)


def small_config(*overrides: str) -> Config:
    """Compose a small synthetic experiment."""
    return compose([*SMALL, *overrides])


def experiment_of(config: Config) -> Experiment:
    """Lay an experiment out without its test split."""
    return prepare(config, *split_bars(config))


def store_model(experiment: Experiment, folder: Path, name: str = "m", seed: int = 0) -> Artifact:
    """Save a model with random weights that likes every action sometimes, and load it."""
    config, market = experiment.config, experiment.market
    generator = torch.Generator().manual_seed(seed)
    widths = [market.observation_size, *config.model.net_arch]
    stems = [f"mlp_extractor.policy_net.{2 * i}" for i in range(len(widths) - 1)]
    tensors = {SCALER_MEANS: market.scaler.means, SCALER_STDS: market.scaler.stds}
    state = {key: torch.from_numpy(value.copy()) for key, value in tensors.items()}
    layers = [*zip(stems, pairwise(widths), strict=True)]
    layers.append(("action_net", (widths[-1], market.space.size)))
    for stem, (n_in, n_out) in layers:
        weight = torch.randn(n_out, n_in, generator=generator) * (4.0 / n_in**0.5)
        state[f"{POLICY_PREFIX}{stem}.weight"] = weight
        state[f"{POLICY_PREFIX}{stem}.bias"] = torch.zeros(n_out)
    training = Training(
        timesteps=0, episodes=0, minutes=0, passes=0, select=Select.last, selected_timesteps=0
    )
    raw: dict[str, Any] = plain(asdict(config))
    metadata = describe_model(experiment, training, Scorecards(), raw, None)
    save_artifact(folder, name, state, metadata)
    return load_artifact(folder, name)


@dataclass(frozen=True)
class Walk:
    """What the training's step did at each of n decisions, and the account it left.

    Attributes:
        observations: float32 (n, F + S).
        masks: bool (n, A).
        reasons: int64 (n, A).
        logits: float32 (n, A).
        actions: int64 (n,).
        outcomes: `OUTCOME_DTYPE` (n,).
        accounts: `ACCOUNT_DTYPE` (n + 1,), at each decision's close and at the end.
    """

    observations: Any
    masks: Any
    reasons: Any
    logits: Any
    actions: Any
    outcomes: Any
    accounts: Any

    def account(self, i: int) -> Account:
        """Return the account at the close of decision i, as a broker would report it."""
        a, fills = self.accounts[i], []
        if i > 0 and self.outcomes["fill_quantity"][i - 1] != 0.0:
            out = self.outcomes[i - 1]
            fills = [
                Fill(
                    quantity=float(out["fill_quantity"]),
                    price=float(out["fill_price"]),
                    cost=float(out["cost"]),
                )
            ]
        return Account(
            cash=float(a["cash"]),
            shares=float(a["shares"]),
            fills=fills,
            session_pnl=float(a["equity"] - a["session_equity"]),
            high_water_mark=float(a["episode_peak"]),
        )


def walk(experiment: Experiment, artifact: Artifact, split: Split, use_mask: bool = True) -> Walk:
    """Run the backtest's loop in Python, writing down observations and logits too."""
    market, count = experiment.market, split.stop - 1 - split.start
    weights = stored_weights(artifact.metadata, artifact.tensors)
    p, size = market.params[0], market.space.size
    accounts = seed_accounts(1, 0)
    a = accounts[0]
    begin_episode(a, market.bars, split.start, split.stop, p)
    rows = Walk(
        observations=np.zeros((count, market.observation_size), np.float32),
        masks=np.zeros((count, size), np.bool_),
        reasons=np.zeros((count, size), np.int64),
        logits=np.zeros((count, size), np.float32),
        actions=np.zeros(count, np.int64),
        outcomes=np.zeros(count, OUTCOME_DTYPE),
        accounts=np.zeros(count + 1, accounts.dtype),
    )
    scratch = weights.scratch()
    levels = market.space.levels
    for i in range(count):
        rows.accounts[i] = a
        observation, mask = rows.observations[i], rows.masks[i]
        refresh(a, market.inputs, observation, mask, rows.reasons[i])
        rows.logits[i] = forward_row(observation, weights, scratch)
        allowed = mask if use_mask else np.ones(size, np.bool_)
        action = best_allowed(rows.logits[i], allowed)
        rows.actions[i] = action
        bits = rows.reasons[i, action]
        assert not step_one(a, market.bars, levels, p, action, bits, rows.outcomes[i])
    rows.accounts[count] = a
    return rows
