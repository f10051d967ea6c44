"""The batched stable-baselines3 `VecEnv`: one jitted call steps all environments."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from ppo_workbench.config.arrays import Bools, Ints, Records
from ppo_workbench.learning.native.rollout import Counts
from ppo_workbench.trading.batch import TradingBatch
from ppo_workbench.trading.rewards import REWARD_NAMES
from ppo_workbench.trading.rules.names import RULE_NAMES


class TradingVecEnv(VecEnv):
    """Hand a `TradingBatch` to stable-baselines3, all masks in one array.

    Episode ends are spread over the batch, so that updates never see all of them at once.
    """

    def __init__(self, batch: TradingBatch) -> None:
        """Wrap `batch`."""
        market = batch.market
        limit = market.scaler.clip
        super().__init__(
            len(batch),
            gymnasium.spaces.Box(-limit, limit, (market.observation_size,), np.float32),
            gymnasium.spaces.Discrete(market.space.size),
        )
        self.batch = batch
        self.statistics = RolloutStatistics()
        self._actions = np.zeros(len(batch), dtype=np.int64)
        self._plain_infos: list[dict[str, object]] = [{} for _ in range(len(batch))]

    def reset(self) -> VecEnvObs:
        """Begin episodes, the first ones of staggered lengths."""
        self.batch.reset()
        n, accounts = len(self.batch), self.batch.accounts
        lengths = self.batch.episode_bars * (1 + np.arange(n)) // n
        accounts["stop"] = accounts["t"] + np.maximum(lengths, 1)
        return self.batch.observations.copy()

    def step_async(self, actions: Ints) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = np.asarray(actions, dtype=np.int64)

    def step_wait(self) -> VecEnvStepReturn:
        """Step; infos follow SB3's contract for truncation (`TimeLimit.truncated`)."""
        batch = self.batch
        self.statistics.count_decisions(batch.reasons, self._actions)
        finished = batch.step(self._actions)
        self.statistics.count_outcomes(batch.outcomes)
        self.statistics.episodes += finished
        infos = self._plain_infos
        if finished:
            infos = list(infos)
            for n in np.flatnonzero(batch.done):
                infos[n] = self._final_info(int(n))
        return batch.observations.copy(), batch.rewards.copy(), batch.done > 0, infos

    def _final_info(self, n: int) -> dict[str, object]:
        out = self.batch.outcomes[n]
        episode = {"r": float(out["episode_reward"]), "l": int(out["episode_length"])}
        return {
            "terminal_observation": self.batch.terminal_observations[n].copy(),
            "TimeLimit.truncated": bool(self.batch.done[n] == 1),
            "episode": episode,
        }

    def action_masks(self) -> Bools:
        """Return all masks, bool (N, A)."""
        return self.batch.masks.copy()

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Answer `action_masks` for all environments at once.

        Raises:
            AttributeError: Any other method; single environments do not exist here.
        """
        if method_name != "action_masks":
            raise AttributeError(f"TradingVecEnv has no environment method {method_name!r}")
        masks = self.action_masks()
        return list(masks if indices is None else masks[list(self._get_indices(indices))])

    def has_attr(self, attr_name: str) -> bool:
        """Tell sb3-contrib that masks are supported."""
        return attr_name == "action_masks" or hasattr(self, attr_name)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return the same attribute for each environment (`render_mode` is None)."""
        count = len(list(self._get_indices(indices)))
        value = None if attr_name == "render_mode" else getattr(self, attr_name)
        return [value] * count

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: the batch has no attributes of single environments."""
        raise AttributeError(f"TradingVecEnv has no settable attribute {attr_name!r}")

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Any = None
    ) -> list[bool]:
        """Return False for each environment: episode statistics are built in."""
        return [False] * len(list(self._get_indices(indices)))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the episode starts; None leaves them as they are."""
        if seed is not None:
            self.batch.reseed(seed)
        return [seed] * self.num_envs

    def close(self) -> None:
        """Nothing to release."""


class RolloutStatistics:
    """Mask activity, reward components and broken rules since the last `take`."""

    def __init__(self) -> None:
        """Start counting; `episodes` is never set back."""
        self.episodes = 0
        self._clear()

    def _clear(self) -> None:
        self.decisions = 0
        self.masked = 0
        self.blocked = np.zeros(len(RULE_NAMES), dtype=np.int64)
        self.components = np.zeros(len(REWARD_NAMES))
        self.rejected = self.violated = self.passive = 0
        self.actions: Ints = np.zeros(0, dtype=np.int64)

    def count_decisions(self, reasons: Ints, actions: Ints) -> None:
        """Count which rules blocked any action, and which actions were sent."""
        self.decisions += len(reasons)
        any_rule = np.bitwise_or.reduce(reasons, axis=1)
        self.masked += int(np.count_nonzero(any_rule))
        self.blocked += ((any_rule[:, None] >> np.arange(len(RULE_NAMES))) & 1).sum(axis=0)
        sent = np.bincount(actions, minlength=reasons.shape[1])
        self.actions = sent if self.actions.size == 0 else self.actions + sent

    def count_outcomes(self, outcomes: Records) -> None:
        """Add reward components and count broken rules of one step."""
        for k, name in enumerate(REWARD_NAMES):
            self.components[k] += outcomes[name].sum()
        self.rejected += int(np.count_nonzero(outcomes["rejected"]))
        self.violated += int(np.count_nonzero(outcomes["violated"]))
        self.passive += int(np.count_nonzero(outcomes["passive"]))

    def add(self, decisions: int, counts: Counts) -> None:
        """Add what a jitted rollout of `decisions` decisions counted."""
        self.decisions += decisions
        self.masked += int(counts.totals[0])
        self.blocked += counts.blocked
        self.components += counts.components
        self.rejected += int(counts.totals[1])
        self.violated += int(counts.totals[2])
        self.passive += int(counts.totals[3])
        self.actions = counts.actions if self.actions.size == 0 else self.actions + counts.actions
        self.episodes += int(counts.finished[0])

    def take(self, action_names: Sequence[str]) -> dict[str, float]:
        """Return shares and means per decision under their MLflow keys, and start anew."""
        n = max(self.decisions, 1)
        metrics = {"mask/any": self.masked / n}
        blocked = zip(RULE_NAMES, self.blocked, strict=True)
        metrics |= {f"mask/{rule}": count / n for rule, count in blocked if count}
        components = zip(REWARD_NAMES, self.components, strict=True)
        metrics |= {f"reward/{name}": total / n for name, total in components}
        metrics |= {
            "rules/rejected": self.rejected / n,
            "rules/violated": self.violated / n,
            "rules/passive": self.passive / n,
        }
        sent = zip(action_names, self.actions, strict=False)
        metrics |= {f"action/{name}": count / n for name, count in sent}
        self._clear()
        return metrics
