"""Settings of features as for minute bars in sessions of 390, without a configuration."""

from typing import Any

from ppo_workbench.config import FeaturesConfig


def minute_features(**changes: Any) -> FeaturesConfig:
    """Return settled settings that name no feature, with changes."""
    values: dict[str, Any] = {
        "names": [],
        "volatility_fast_bars": 20,
        "volatility_slow_bars": 1950,
        "seasonal_volatility": True,
        "efficiency_bars": 60,
        "gap_ema_frac": 0.7,
    }
    return FeaturesConfig(**(values | changes))
