"""Trainings elsewhere in a home that were judged on a study's validation bars, or led to it.

Each of them is a try from which the best could be taken, so a promotion counts them with the
study's own.  Files decide: folders in sweeps/, and the metadata of models.  Validation bars are
the same if their dates overlap and the instrument, or the fingerprint of the bars, is the same.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

UNKNOWN = (
    "Trials in other homes, of studies that were deleted and of trainings that left no model are "
    "not known and not counted, nor are those on the same bars under another name and price."
)
TRAININGS = "trainings"
# A study's models are its trials', which are counted as such.
_MODELS = (
    *("trained_models", "baselines", "promotions/*", "promotions/*/*"),
    "comparisons/*/cells/*",
)


def trials_elsewhere(
    home: Path, study: str, warm_starts: Mapping[str, int], data: Mapping[str, Any]
) -> dict[str, int]:
    """Count trials and trainings that are not the study's own.

    Args:
        home: The workbench's home folder.
        study: The study itself, which is left out.
        warm_starts: Studies that it was warm started from, and the trials they had begun then.
        data: Of one of its trials: `instrument`, `fingerprint` and `splits`.

    Returns:
        "study NAME" -> trials begun, and `TRAININGS` -> models on the same validation bars.
    """
    found = {f"study {name}": count for name, count in warm_starts.items()}
    for folder in sorted(path for path in (home / "sweeps").glob("*") if path.name != study):
        trials = [path for path in folder.glob("[0-9]*") if path.name.isdigit()]
        results = (_read(path / "result.json") for path in trials)
        if any(_same_validation(data, result.get("data")) for result in results):
            key = f"study {folder.name}"
            found[key] = max(len(trials), found.get(key, 0))
    # A champion is a copy of a model in promotions/: when it was made, and from which seed, agree.
    models = {
        (model.get("created_utc"), model.get("seed"))
        for model in _models(home)
        if _same_validation(data, model.get("data"))
    }
    return found | ({TRAININGS: len(models)} if models else {})


def _models(home: Path) -> Iterator[dict[str, Any]]:
    for pattern in _MODELS:
        for path in home.glob(f"{pattern}/*-metadata.json"):
            yield _read(path)


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON file, nothing where there is none or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _same_validation(own: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    if other is None or "validation" not in other["splits"]:
        return False
    names = [one["instrument"].casefold() for one in (own, other)]
    if names[0] != names[1] and own["fingerprint"] != other["fingerprint"]:
        return False
    (start, stop), (from_, to) = (
        [datetime.fromisoformat(one["splits"]["validation"][end]) for end in ("start", "stop")]
        for one in (own, other)
    )
    return start <= to and from_ <= stop
