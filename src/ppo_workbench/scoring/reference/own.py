"""Reference policies of plug-ins: wanted exposures under the same masks and costs."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ppo_workbench.config import ConfigError
from ppo_workbench.config.arrays import Floats
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.causality import look_ahead
from ppo_workbench.market.features import compute_market
from ppo_workbench.plugins import registered
from ppo_workbench.scoring.backtest import SERIES, Policy
from ppo_workbench.trading.experiment import Experiment


def own_policies(experiment: Experiment) -> list[Policy]:
    """Return the reference policies of plug-ins on the bars of an experiment.

    Raises:
        ConfigError: One returns no exposure for each bar, has an error in it, or knew the future.
    """
    return [
        Policy(name, SERIES, series=_exposures(name, function, experiment))
        for name, function in registered().reference_policies.items()
    ]


def _exposures(name: str, function: Callable[..., Any], experiment: Experiment) -> Floats:
    bars, train = experiment.bars, experiment.splits["train"]

    def compute(seen: Bars) -> Mapping[str, Floats]:
        table = compute_market(seen, experiment.config.features)
        try:
            wanted = np.asarray(function(seen, table, train), dtype=np.float64)
        except Exception as error:
            told = f"{type(error).__name__} ({error})"
            raise ConfigError(f"reference policy {name}: {told}; correct it") from error
        if wanted.shape != (len(seen),):
            raise ConfigError(
                f"reference policy {name}: returned shape {wanted.shape}; return one exposure for "
                f"each of {len(seen)} bars"
            )
        return {name: wanted}

    # Halfway from the end of training: what is fitted there is not altered.
    knew = look_ahead(compute, bars, (train.stop + len(bars)) // 2)
    if knew:
        raise ConfigError(
            f"reference policy {name}: looks ahead ({knew[0]}); row t may use bars up to t alone"
        )
    return compute(bars)[name]
