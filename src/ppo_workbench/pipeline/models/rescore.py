"""Score a stored model again, and compare with the scorecard that was kept of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path

from ppo_workbench.config import Config, ScoredSplit
from ppo_workbench.delivery.artifact import load_metadata
from ppo_workbench.delivery.describe import library_versions, processor
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.pipeline.models.evaluation import evaluate_artifact
from ppo_workbench.pipeline.models.verifying import recorded_config
from ppo_workbench.scoring.metrics import flat, scorecard

# Elsewhere single decisions may flip where logits are nearly tied, so trades and days differ.
TOLERANCES = {
    "sharpe_annual": 0.05,
    "max_drawdown_frac": 0.005,
    "win_rate_frac": 0.01,
    "exposure_mean_abs": 0.01,
}


@dataclass(frozen=True)
class Rescore:
    """A kept scorecard against the same model's score here.

    Attributes:
        split: What was scored.
        same_machine: Processor and libraries are those of the training: every figure has to agree.
        same_bars: The bars are those of the training, None where the split is none of its own.
        apart: Figure -> kept and found value, of those that differ more than is allowed here.
    """

    split: str
    same_machine: bool
    same_bars: bool | None
    apart: Mapping[str, tuple[float | None, float | None]]

    def describe(self) -> str:
        """Say it in words."""
        where = "same machine, every bit asked for" if self.same_machine else "another machine"
        bars = {True: "same bars", False: "OTHER BARS", None: "bars of the test"}[self.same_bars]
        differ = ", ".join(self.apart) or "nothing"
        return f"{where}, {bars}, differs: {differ}"


def rescore(
    folder: Path, name: str, split: ScoredSplit, kept: Mapping[str, object], config: Config
) -> Rescore:
    """Score `name` on the bars, costs and rules that its metadata record.

    Scoring the test is an access, recorded in the ledger of the present home.

    Args:
        folder: Of the pair.
        name: Of the model.
        split: What to score.
        kept: The scorecard to compare with, nested as in metadata or flat.
        config: Says where things are recorded.

    Raises:
        WorkbenchError: The model is damaged, or its bars cannot be had.
    """
    metadata = load_metadata(folder, name)
    own = recorded_config(metadata, config)
    evaluation = evaluate_artifact(own, str(folder / name), split)
    found, same = scorecard(evaluation.trace).to_dict(), on_its_machine(metadata)
    # The fingerprint in the metadata is that of the bars before the test.
    before = split in (ScoredSplit.train, ScoredSplit.validation)
    bars = evaluation.experiment.bars.fingerprint == metadata.data.fingerprint if before else None
    return Rescore(split.value, same, bars, differences(flat(kept), found, exact=same))


def on_its_machine(metadata: Metadata) -> bool:
    """Tell whether this processor and these libraries are those that trained the model."""
    return metadata.cpu == processor() and metadata.libraries == library_versions()


def differences(
    kept: Mapping[str, float], found: Mapping[str, float], *, exact: bool
) -> dict[str, tuple[float | None, float | None]]:
    """Return the figures that differ: any bit of any of them, or more than `TOLERANCES`.

    Args:
        kept: Flat scorecard as recorded; rules that came later have no figure in it.
        found: Flat scorecard; a recorded figure that it lacks differs.
        exact: Ask for every bit of every figure.
    """
    names = kept if exact else TOLERANCES
    apart: dict[str, tuple[float | None, float | None]] = {}
    for name in names:
        before, now = kept.get(name), found.get(name)
        room = 0.0 if exact else TOLERANCES[name]
        if before is None or now is None or not isclose(before, now, rel_tol=0.0, abs_tol=room):
            apart[name] = (before, now)
    return apart
