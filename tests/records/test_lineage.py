"""Which trials elsewhere in a home count with those of a study."""

import json
from pathlib import Path
from typing import Any

from ppo_workbench.records.studies.lineage import trials_elsewhere


def _data(
    instrument: str = "SPY",
    start: str = "2015-01-05",
    stop: str = "2016-12-30",
    fingerprint: str = "f" * 64,
) -> dict[str, Any]:
    splits = {"validation": {"start": f"{start}T14:30:00Z", "stop": f"{stop}T20:59:00Z"}}
    return {"instrument": instrument, "fingerprint": fingerprint, "splits": splits}


def _write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def _trial(home: Path, study: str, number: int, data: dict[str, Any] | None) -> None:
    folder = home / "sweeps" / study / str(number)
    _write(folder / "config.json", {})
    if data is not None:
        _write(folder / "result.json", {"data": data})


def _model(home: Path, place: str, seed: int, data: dict[str, Any], made: str = "2026") -> None:
    document = {"created_utc": made, "seed": seed, "data": data}
    _write(home / place / f"seed_{seed}-metadata.json", document)


def _found(home: Path, **warm_starts: int) -> dict[str, int]:
    _trial(home, "own", 0, _data())
    return trials_elsewhere(home / "sweeps" / "own", 0, warm_starts, home)


def test_home_with_nothing_else_adds_nothing(tmp_path: Path) -> None:
    assert _found(tmp_path) == {}


def test_every_begun_trial_of_a_study_on_the_validation_counts(tmp_path: Path) -> None:
    for number, data in enumerate([_data(), _data(), None]):  # the last one failed
        _trial(tmp_path, "autumn", number, data)
    _write(tmp_path / "sweeps" / "autumn" / "plots" / "result.json", {"data": _data()})
    _trial(tmp_path, "other_bars", 0, _data("QQQ", fingerprint="0" * 64))
    _trial(tmp_path, "other_years", 0, _data(start="2010-01-04", stop="2014-12-31"))

    assert _found(tmp_path) == {"study autumn": 3}


def test_validation_is_known_by_instrument_or_by_fingerprint(tmp_path: Path) -> None:
    _trial(tmp_path, "longer", 0, _data("spy", stop="2018-01-05", fingerprint="0" * 64))
    _trial(tmp_path, "copied", 0, _data("copy"))

    assert _found(tmp_path) == {"study copied": 1, "study longer": 1}


def test_study_that_was_warm_started_from_counts_though_it_is_deleted(tmp_path: Path) -> None:
    assert _found(tmp_path, spring=40) == {"study spring": 40}


def test_study_is_counted_once_with_what_it_has_begun_since(tmp_path: Path) -> None:
    for number in range(3):
        _trial(tmp_path, "spring", number, _data())
    assert _found(tmp_path, spring=2) == {"study spring": 3}


def test_models_of_trainings_promotions_and_comparisons_count_once_each(tmp_path: Path) -> None:
    places = [
        *("trained_models", "baselines", "promotions/final-2026/trial_3"),
        *("promotions/final-2026/ppo_reject", "comparisons/quick/cells/main-0-masked"),
    ]
    for seed, place in enumerate(places):
        _model(tmp_path, place, seed, _data())
    for place in ("trained_models", "promotions/final-2026"):  # the champion, copied
        _model(tmp_path, place, 2, _data())
    _model(tmp_path, "trained_models", 90, _data("QQQ", fingerprint="0" * 64))
    _model(tmp_path, "sweeps/own/0", 91, _data())
    (tmp_path / "trained_models" / "damaged-metadata.json").write_text("{", encoding="utf-8")

    assert _found(tmp_path) == {"trainings": 5}
