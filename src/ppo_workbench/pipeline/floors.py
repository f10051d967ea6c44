"""What a model was held to: no cheaper costs, and no fewer rules, than its market's preset."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from ppo_workbench.config import Config, ConfigError, CostsConfig, PromotionProfile
from ppo_workbench.config.presets import config_folder
from ppo_workbench.delivery.describe import plain

WIDEST_RISK = "aggressive"  # of the presets that are meant for trading
# Costs of which more is cheaper: interest that is earned, and from when on volatility costs.
_CHEAPER_ABOVE = ("cash_interest_annual_bps", "high_volatility_ratio")


def check_floors(config: Config, profile: PromotionProfile, who: str) -> None:
    """Refuse a model that was held to less than its market's preset; `research` asks nothing.

    Args:
        config: The model's, resolved.
        profile: Whose gates it is to pass.
        who: What the sentence calls the model.

    Raises:
        ConfigError: A cost is cheaper than that of `market.name`, a rule is off that is on under
            `risk=aggressive` in that market, or there is no preset of that name.
    """
    if profile is PromotionProfile.research:
        return
    costs, rules = market_floors(config.market.name)
    rule_is_on = {name: rule["enabled"] for name, rule in asdict(config.risk).items()}
    found = cheaper(config.costs, costs)
    found += [f"risk.{name}.enabled=false" for name in rules if not rule_is_on[name]]
    if found:
        raise ConfigError(
            f"promote.profile={profile.value}: {who} was held to less than market="
            f"{config.market.name} under risk={WIDEST_RISK}, by {', '.join(found)}; sweep without "
            "these overrides, give a market of your own a preset in conf/market/, or write "
            f"promote.profile={PromotionProfile.research.value}"
        )


def cheaper(costs: CostsConfig, floor: CostsConfig) -> list[str]:
    """Return the costs that are cheaper than `floor`, with its value behind each."""
    found = []
    for name, least in asdict(floor).items():
        value = getattr(costs, name)
        # A quoted spread that is not paid counts as cheaper.
        if value > least if name in _CHEAPER_ABOVE else value < least:
            found.append(f"costs.{name}={plain(value)} ({plain(least)} there)")
    return found


def market_floors(name: str) -> tuple[CostsConfig, list[str]]:
    """Return the costs of a market preset, and the rules that have to be on in it.

    Raises:
        ConfigError: There is no such preset.
    """
    market = _preset("market", name)
    costs = [one["override /costs"] for one in market["defaults"] if "override /costs" in one]
    values = OmegaConf.create(
        {
            "data": _preset("data", "synthetic"),  # the synthetic costs refer to it
            "costs": _preset("costs", costs[0] if costs else "synthetic"),
            "risk": OmegaConf.merge(_preset("risk", WIDEST_RISK), market.get("risk", {})),
        }
    )
    found: Any = OmegaConf.to_container(values, resolve=True)
    del found["costs"]["defaults"], found["risk"]["defaults"]
    rules = [rule for rule, settings in found["risk"].items() if settings.get("enabled")]
    return CostsConfig(**found["costs"]), rules


def _preset(group: str, name: str) -> Mapping[str, Any]:
    """Return a file of conf/ over those of its group that it builds on; `defaults` is its own."""
    path = config_folder() / group / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{group}.name={name}: there is no {path}, so nobody knows what a model has to be held "
            f"to; take the name of a preset, or write promote.profile="
            f"{PromotionProfile.research.value}"
        )
    own = OmegaConf.merge({"defaults": []}, OmegaConf.load(path))
    bases = [one for one in own["defaults"] if isinstance(one, str) and one != "_self_"]
    merged: Any = OmegaConf.merge(*(_preset(group, base) for base in bases), own)
    return merged  # type: ignore[no-any-return]
