"""Trials elsewhere in a home that led to a study, or were judged on its validation bars.

Each is a try that the best could be taken from, so a promotion counts it.  Files decide: folders
in sweeps/ and the metadata of models.  Validation bars are the same if their dates overlap and
the instrument, or the fingerprint, is the same.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from ppo_workbench.scoring.documents import BarsPart, Card

UNKNOWN = (
    "Not known and not counted: trials in other homes, of deleted studies, of trainings that left "
    "no model, and on a copy of the bars with another name and other prices."
)
TRAININGS = "trainings"
# Without sweeps/: the models of a study are its trials'.
_MODELS = ["trained_models", "baselines", "promotions/*", "promotions/*/*", "comparisons/*/cells/*"]


class Recorded(TypedDict, total=False):
    """What a trial's result.json, or a model's metadata, says that is asked for here."""

    created_utc: str
    seed: int
    data: BarsPart
    scorecards: dict[str, Card]  # of a trial, by seed


def trials_elsewhere(
    folder: Path, number: int, warm_starts: Mapping[str, int], home: Path
) -> dict[str, int]:
    """Count trials and trainings that are not a study's own.

    Args:
        folder: Of the study.
        number: One of its trials, whose record says on which bars it was judged.
        warm_starts: Studies that it comes from, and the trials they had begun then.
        home: The workbench's home folder.

    Returns:
        "study NAME" -> trials begun, and `TRAININGS` -> models on the same validation bars.
    """
    own = read_json(folder / str(number) / "result.json")
    found = {f"study {name}": count for name, count in warm_starts.items()}
    for other in sorted((home / "sweeps").glob("*")):
        trials = [path for path in other.glob("[0-9]*") if path.name.isdigit()]
        results = (read_json(path / "result.json") for path in trials)
        if other.name != folder.name and any(_same_validation(own, one) for one in results):
            key = f"study {other.name}"
            found[key] = max(len(trials), found.get(key, 0))
    files = (path for where in _MODELS for path in home.glob(f"{where}/*-metadata.json"))
    models = [model for model in map(read_json, files) if _same_validation(own, model)]
    # A champion is a copy of a model in promotions/, with the same seed and time.
    distinct = {(model["created_utc"], model["seed"]) for model in models}
    return found | ({TRAININGS: len(distinct)} if distinct else {})


def read_json(path: Path) -> Recorded:
    """Return the JSON file of a trial or a model, nothing where there is none or it is damaged."""
    try:
        found: Recorded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _same_validation(*records: Recorded) -> bool:
    datas = [record.get("data", BarsPart()) for record in records]
    if not all("validation" in data.get("splits", {}) for data in datas):
        return False
    one, two = datas
    same_name = one["instrument"].casefold() == two["instrument"].casefold()
    dates, others = (data["splits"]["validation"] for data in datas)  # UTC, in one spelling
    overlap: bool = dates["start"] <= others["stop"] and others["start"] <= dates["stop"]
    return overlap and bool(same_name or one["fingerprint"] == two["fingerprint"])
