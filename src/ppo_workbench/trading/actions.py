"""Actions: what an index means, and which rung of the exposure levels it asks for.

Action set `step`: SELL, HOLD, BUY = 0, 1, 2 move one rung down, none, one rung up.
Action set `target`: HOLD = 0, and index 1 + k asks for rung k directly.
HOLD keeps the shares; asking for the rung one is on, or past an end, is HOLD too.  The mask leaves
HOLD as the one name of it: with two, an agent earns its entropy bonus by choosing between them.
"""

from dataclasses import dataclass

import numpy as np

from ppo_workbench.config import ActionSet, EnvConfig
from ppo_workbench.config.arrays import Floats
from ppo_workbench.jit import kernel

SELL, HOLD, BUY = 0, 1, 2


@dataclass(frozen=True)
class ActionSpace:
    """The action set that a model is trained with; stored with it and asserted at load.

    Attributes:
        kind: `step` or `target`.
        names: One name per action index.
        levels: float64, shape (L,), rising target exposures in units of equity.
        hold: Index of HOLD.
        flat_rung: Index of the level 0.
    """

    kind: ActionSet
    names: tuple[str, ...]
    levels: Floats
    hold: int
    flat_rung: int

    @property
    def size(self) -> int:
        """Number of actions A."""
        return len(self.names)


def action_space(config: EnvConfig) -> ActionSpace:
    """Build the action space of a configuration; short levels go when shorting is off."""
    levels = np.array(
        [x for x in config.exposure_levels if config.allow_short or x >= 0], dtype=np.float64
    )
    flat_rung = int(np.flatnonzero(levels == 0)[0])
    if config.action_set is ActionSet.step:
        return ActionSpace(ActionSet.step, ("SELL", "HOLD", "BUY"), levels, HOLD, flat_rung)
    names = ("HOLD", *(f"TARGET_{level:+g}" for level in levels))
    return ActionSpace(ActionSet.target, names, levels, 0, flat_rung)


def observed_bits(config: EnvConfig) -> int:
    """Return how many bits of the mask the observation ends with."""
    return action_space(config).size if config.observe_mask else 0


@kernel
def target_rung(
    action: int, rung: int, n_levels: int, flat_rung: int, is_step: int, flatten: bool
) -> int:
    """Return the rung that `action` asks for from `rung`.

    While a flatten rule is in force a step towards flat goes all the way to it.
    """
    if is_step == 0:
        return rung if action == 0 else action - 1
    wanted = rung + action - 1
    if flatten and (rung - flat_rung) * (action - 1) < 0:
        return flat_rung
    return min(max(wanted, 0), n_levels - 1)


@kernel
def is_second_hold(action: int, rung: int, n_levels: int, is_step: int) -> bool:
    """Tell whether `action` is another name of HOLD on `rung`.

    In `target` it is the level that is held, in `step` BUY at the top and SELL at the bottom.
    """
    if is_step == 0:
        return action == rung + 1
    return (action == BUY and rung == n_levels - 1) or (action == SELL and rung == 0)
