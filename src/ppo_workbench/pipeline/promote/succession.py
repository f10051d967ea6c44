"""Which promotion may take a reigning champion's place, asked before anything is trained."""

from dataclasses import asdict

from ppo_workbench.config import ArtifactError, Config, PromotionProfile, flatten
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.delivery.settings import stored_config
from ppo_workbench.market.bars import Bars
from ppo_workbench.pipeline.promote.floors import held_to_less
from ppo_workbench.scoring.gates.profiles import profile_of

WEAKEST_FIRST = (
    PromotionProfile.research,
    PromotionProfile.targets,
    PromotionProfile.production,
)


def check_succession(
    reigning: Metadata, bars: Bars, config: Config, profile: PromotionProfile, name: str
) -> None:
    """Refuse to replace a champion of other bars, or one that was held to more.

    More is a stronger profile, a higher cost, or a rule that the candidate lacks or has with
    another limit: what the house allows is for people to change, not for a search.

    Args:
        reigning: The champion's.
        bars: What the candidate trades.
        config: The candidate's, resolved.
        profile: Whose gates it is asked to pass.
        name: `promote.output`.

    Raises:
        ArtifactError: Any of it.
    """
    traded = (reigning.data.instrument, reigning.data.bar_seconds)
    if traded != (bars.instrument, bars.bar_seconds):
        raise ArtifactError(
            f"promote.output={name}: the reigning champion trades {traded[0]} in bars of "
            f"{traded[1]} s, these candidates {bars.instrument} in bars of {bars.bar_seconds} s; "
            "choose another promote.output"
        )
    passed = profile_of([gate.name for gate in reigning.gates])
    if WEAKEST_FIRST.index(profile) < WEAKEST_FIRST.index(passed):
        raise ArtifactError(
            f"promote.profile={profile.value}: the reigning champion {name} passed the gates of "
            f"{passed.value}; promote with promote.profile={passed.value} or choose another "
            "promote.output"
        )
    held = stored_config(reigning)
    rules = {name: asdict(rule) for name, rule in held.risk.rules().items() if rule.enabled}
    risk = rules | ({"extra": held.risk.extra} if held.risk.extra else {})
    less = held_to_less(config, flatten(plain({"costs": asdict(held.costs), "risk": risk})))
    if less:
        raise ArtifactError(
            f"promote.output={name}: the reigning champion is held to other costs and rules, by "
            f"{', '.join(less)}; sweep under its own or choose another promote.output"
        )
