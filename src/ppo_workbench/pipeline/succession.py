"""Which promotion may take a reigning champion's place, asked before anything is trained."""

from ppo_workbench.config import ArtifactError, PromotionProfile
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.market.bars import Bars
from ppo_workbench.scoring.gate_profiles import profile_of

WEAKEST_FIRST = (
    PromotionProfile.research,
    PromotionProfile.targets,
    PromotionProfile.production,
)


def check_succession(reigning: Metadata, bars: Bars, profile: PromotionProfile, name: str) -> None:
    """Refuse to replace a champion of other bars, or one that passed a stronger profile.

    Args:
        reigning: The champion's.
        bars: What the candidates trade.
        profile: Whose gates they are asked to pass.
        name: `promote.output`.

    Raises:
        ArtifactError: Either of it.
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
