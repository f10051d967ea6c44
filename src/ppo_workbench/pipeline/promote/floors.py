"""What a model has to be held to: the costs and rules of its market's preset."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from ppo_workbench.config import Config, ConfigError, PromotionProfile, RiskConfig, flatten
from ppo_workbench.config.machine import config_folder
from ppo_workbench.delivery.describe import plain

OPTIONAL = "volatility"  # the rule without which risk=aggressive trades
# Of these more is cheaper: interest earned, and the volatility from which on trading costs more.
_CHEAPER_ABOVE = ("costs.cash_interest_annual_bps", "costs.high_volatility_ratio")


def check_floors(config: Config, profile: PromotionProfile, who: str) -> None:
    """Refuse a model that was held to less than its market's preset; `research` asks nothing.

    Raises:
        ConfigError: A cost is cheaper than that of `market.name`, a rule is off that is on in
            it under `risk=aggressive`, or there is no such preset.
    """
    if profile is PromotionProfile.research:
        return
    less = held_to_less(config, market_floor(config.market.name))
    if less:
        raise ConfigError(
            f"promote.profile={profile.value}: {who} was held to less than market="
            f"{config.market.name} under risk=aggressive asks, by {', '.join(less)}; sweep without "
            "these overrides, or write a preset in conf/market/, or promote.profile=research"
        )


def held_to_less(config: Config, floor: Mapping[str, object]) -> list[str]:
    """Return each cost that is cheaper than in `floor`, each rule there that is set otherwise."""
    own = flatten(plain({"costs": asdict(config.costs), "risk": asdict(config.risk)}))
    found = []
    for key, asked in floor.items():
        value, less = own.get(key), own.get(key) != asked
        costs = key.startswith("costs.")  # a spread that is not paid is cheaper: False < True
        if costs and isinstance(value, int | float) and isinstance(asked, int | float):
            less = value > asked if key in _CHEAPER_ABOVE else value < asked
        if less:
            found.append(f"{key}={value} ({asked} there)")
    return found


def market_floor(name: str) -> dict[str, object]:
    """Return what a market's preset asks: full key -> value of costs, and of rules that are on.

    Raises:
        ConfigError: There is no such preset.
    """
    conf = config_folder()
    path = conf / "market" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"market.name={name}: there is no preset {path}; name one that is there")
    market: Any = OmegaConf.load(path)
    (costs,) = (one["override /costs"] for one in market.defaults if "override /costs" in one)
    files = {"costs": costs, "data": "synthetic"}  # to which the synthetic costs refer
    loaded = {group: OmegaConf.load(conf / group / f"{own}.yaml") for group, own in files.items()}
    values: Any = OmegaConf.to_container(OmegaConf.create(loaded), resolve=True)
    rules = {rule for rule, own in asdict(RiskConfig()).items() if own.get("enabled")}
    rules -= {OPTIONAL, *(rule for rule, own in market.get("risk", {}).items() if not own.enabled)}
    on = {rule: {"enabled": True} for rule in sorted(rules)}
    return flatten({"costs": values["costs"], "risk": on})
