"""The evidence of the deliverables: which files, copied from where, and what they must hold.

docs/deliverables/ holds copies small enough to commit, without paths of the machine; the last
file written, manifest.json, has the SHA-256 of every delivered file.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deliverable_tables as tables
from harness import read, write_whole

CHAMPION, BASELINE = "maskable_production_final", "ppo_baseline_final"
FOLDERS = {CHAMPION: "trained_models", BASELINE: "baselines"}
SPLITS = ("validation", "test")
EVIDENCE = Path("docs/deliverables")
MANIFEST = "manifest.json"
MOST_BYTES = 2_000_000
FILES = (
    *("analysis.json", "analysis.md", "comparison.json", "comparison.md"),
    *("promotion.json", "scores.json"),
    *(f"training/{name}.{kind}" for name in FOLDERS for kind in ("log", "csv")),
)


def delivered() -> list[str]:
    """Return every file of the deliverables but the manifest, by its path from the home."""
    models = [
        f"{folder}/{name}{ending}"
        for name, folder in FOLDERS.items()
        for ending in (".pth", "-metadata.json")
    ]
    return [*models, *(str(EVIDENCE / name) for name in FILES)]


def comparison_file(home: Path, name: str) -> Path:
    return home / "comparisons" / name / "comparison.json"


def last_promotion(home: Path, name: str) -> tuple[Path, dict[str, Any]] | None:
    """Return folder and document of the last promotion that came to a verdict, if any."""
    found = sorted((home / "promotions").glob(f"{name}-*/promotion.json"))
    return (found[-1].parent, read(found[-1])) if found else None


def winner_overrides(promotion: Mapping[str, Any]) -> list[str]:
    """Return what makes the winner's hyperparameters and budget of the configured ones."""
    number = promotion["winner"]["trial"]
    chosen = next(each for each in promotion["candidates"] if each["trial"] == number)
    values = {**chosen["params"], "budget.timesteps": chosen["timesteps"]}
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def baseline_seed(home: Path, promotion: Mapping[str, Any]) -> int:
    """Return the seed of the promotion's baseline with the best bound, as the winner's is chosen.

    The winner's own where the promotion's profile asks for no baseline.
    """
    found = last_promotion(home, promotion["name"])
    assert found is not None
    folder, bounds = found[0] / "ppo_execute", {}
    for path in sorted(folder.glob("seed_*-metadata.json")):
        metadata = read(path)
        card = metadata["scorecards"]["validation"]
        bounds[metadata["seed"]] = card["sharpe_annual"] - card["sharpe_standard_error"]
    return int(max(bounds, key=lambda k: bounds[k]) if bounds else promotion["winner"]["seed"])


def collect(home: Path, study: str, comparison: str, training: str) -> None:
    """Copy the evidence of finished steps and write the manifest.

    Args:
        home: The home folder.
        study: Name of the study.
        comparison: Name of the comparison.
        training: Name of the model that repeated the champion's training.
    """
    folder, steps = home / EVIDENCE, home / "mlruns" / "deliverables"
    found = last_promotion(home, CHAMPION)
    assert found is not None
    last, promotion = found
    _same_weights(home / "trained_models", training, home / "trained_models", CHAMPION)
    judged = last / "ppo_execute"
    if judged.is_dir():
        seed = baseline_seed(home, promotion)
        _same_weights(home / "baselines", BASELINE, judged, f"seed_{seed}")
    analysis = read(home / "sweeps" / study / "analysis.json")
    compared = read(comparison_file(home, comparison))
    scores = {
        name: {
            split: read(steps / f"{name}-{split}.json")["scorecards"][name][split]
            for split in SPLITS
        }
        for name in FOLDERS
    }
    texts = {
        "analysis.json": _json(analysis),
        "analysis.md": tables.analysis(analysis),
        "comparison.json": _json(compared),
        "comparison.md": tables.comparison(compared),
        "promotion.json": _json(promotion),
        "scores.json": _json(scores),
    }
    for name, (step, place, own) in {
        CHAMPION: ("masked", "trained_models", training),
        BASELINE: ("baseline", "baselines", BASELINE),
    }.items():
        texts[f"training/{name}.log"] = (steps / f"{step}.log").read_text(encoding="utf-8")
        run = read(home / place / f"{own}-metadata.json")["mlflow_run_id"]
        texts[f"training/{name}.csv"] = _metrics(home, run)
    for name in FILES:
        write_whole(folder / name, texts[name].replace(str(home), "$PPO_WORKBENCH_HOME"))
    write_manifest(home, compared)
    print(f"evidence: {folder}")


def write_manifest(home: Path, compared: Mapping[str, Any]) -> None:
    """Write manifest.json over everything that is delivered."""
    files = {name: entry(home / name) for name in delivered()}
    large = [name for name, found in files.items() if found["bytes"] >= MOST_BYTES]
    if large:
        raise SystemExit(f"{', '.join(large)}: {MOST_BYTES:,} bytes or more, too large to commit")
    document = {"git_commit": compared.get("git_commit"), "files": files}
    write_whole(home / EVIDENCE / MANIFEST, _json(document))


def entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _same_weights(folder: Path, name: str, other_folder: Path, other: str) -> None:
    """Refuse evidence of a training that did not come to the same weights."""
    import torch

    from ppo_workbench.delivery.artifact import load_artifact

    one, two = load_artifact(folder, name).tensors, load_artifact(other_folder, other).tensors
    if one.keys() != two.keys() or not all(torch.equal(one[key], two[key]) for key in one):
        raise SystemExit(
            f"{name}: its weights differ from those of {other}, which was trained with the same "
            "settings and seed; was something else changed in between?"
        )


def _metrics(home: Path, run_id: str) -> str:
    """Return every metric of a run as CSV, one row for each number of timesteps."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home}/mlruns/mlflow.db"
    client = MlflowClient(uri)
    keys = sorted(client.get_run(run_id).data.metrics)
    rows: dict[int, dict[str, float]] = {}
    for key in keys:
        for point in client.get_metric_history(run_id, key):
            rows.setdefault(point.step, {})[key] = point.value
    out = io.StringIO()
    writer = csv.DictWriter(out, ["timesteps", *keys], lineterminator="\n")
    writer.writeheader()
    for step in sorted(rows):
        short = {key: float(f"{value:.6g}") for key, value in rows[step].items()}
        writer.writerow({"timesteps": step, **short})
    return out.getvalue()
