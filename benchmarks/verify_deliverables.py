"""Verify the deliverables from the committed files alone: minutes, nothing is written to them.

    make verify-deliverables
    python benchmarks/verify_deliverables.py --quick    # without scoring: seconds

Files: the manifest names exactly what is there, every hash agrees, none is too large.
Models: metadata and hashes of both pairs, loaded as tensors only, golden vectors replayed,
champion with every gate passed, found and activated by the ModelManager.
Audit: the champion on validation and test, by an engine that shares no code with the masks.
Scores: both models on validation and test again. On the processor and libraries that the metadata
name every bit of every figure agrees; elsewhere within the tolerances that
`pipeline/models/rescore.py` has.
Words: tables and rows of criteria are made again from the evidence and have to be the same.

Looks at the test are recorded in a home of their own, which is thrown away.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import deliverable_evidence as evidence
import deliverable_tables as tables
import harness

CHAMPION, BASELINE = evidence.CHAMPION, evidence.BASELINE


def files(home: Path) -> Iterator[str]:
    """Yield what is wrong with the files and their hashes."""
    path = home / evidence.EVIDENCE / evidence.MANIFEST
    if not path.is_file():
        yield f"{path} is missing; make deliverables writes it"
        return
    listed = harness.read(path)["files"]
    for name in sorted({*evidence.delivered(), *listed}):
        if name not in listed:
            yield f"{name} is not in the manifest"
        elif not (home / name).is_file():
            yield f"{name} is missing"
        elif evidence.entry(home / name) != listed[name]:
            yield f"{name} was changed: its hash is not that of the manifest"
        elif listed[name]["bytes"] >= evidence.MOST_BYTES:
            yield f"{name} has {evidence.MOST_BYTES:,} bytes or more"
    beside = {
        str(p.relative_to(home)) for p in (home / evidence.EVIDENCE).rglob("*") if p.is_file()
    }
    for name in sorted(beside - {*listed, str(evidence.EVIDENCE / evidence.MANIFEST)}):
        yield f"{name} is there and not in the manifest"


def models(home: Path) -> Iterator[str]:
    """Yield what is wrong with the two models."""
    from ppo_workbench.config import ArtifactError
    from ppo_workbench.delivery.artifact import load_artifact, verify

    found = {}
    for name, folder in evidence.FOLDERS.items():
        try:
            verify(artifact := load_artifact(home / folder, name))
            found[name] = artifact.metadata
        except ArtifactError as error:
            yield str(error)
    if len(found) < len(evidence.FOLDERS):
        return
    refused = tables.refusal(home)
    if refused is not None:
        yield f"ModelManager: {refused}"
    gates = {gate.name: gate.passed for gate in found[CHAMPION].gates}
    promotion = harness.read(home / evidence.EVIDENCE / "promotion.json")
    if not gates or not all(gates.values()) or not promotion["promoted"]:
        yield f"{CHAMPION}: was not promoted by its gates"
    if gates != {gate["name"]: gate["passed"] for gate in promotion["gates"]}:
        yield f"{CHAMPION}: its gates are not those of promotion.json"


def audited(home: Path) -> Iterator[str]:
    """Yield the violations that the independent audit finds."""
    from ppo_workbench.config import Config, ScoredSplit, WorkbenchError
    from ppo_workbench.delivery.artifact import load_metadata
    from ppo_workbench.pipeline.models.verifying import audit_artifact, recorded_config

    folder = home / evidence.FOLDERS[CHAMPION]
    for split in evidence.SPLITS:
        try:
            own = recorded_config(load_metadata(folder, CHAMPION), Config())
            audit_artifact(replace(own, artifact=str(folder / CHAMPION), split=ScoredSplit(split)))
        except WorkbenchError as error:
            yield str(error)


def scores(home: Path) -> Iterator[str]:
    """Yield the figures that come out otherwise here."""
    from ppo_workbench.config import Config, ScoredSplit, WorkbenchError
    from ppo_workbench.delivery.artifact import load_metadata
    from ppo_workbench.pipeline.models.rescore import rescore
    from ppo_workbench.scoring.metrics import flat

    kept = harness.read(home / evidence.EVIDENCE / "scores.json")
    for name, place in evidence.FOLDERS.items():
        folder = home / place
        cards = load_metadata(folder, name).scorecards.model_dump()
        for split in evidence.SPLITS:
            own = cards[split]
            if own is not None and flat(own) != flat(kept[name][split]):
                yield f"{name} on {split}: scores.json is not what its metadata say"
            try:
                found = rescore(folder, name, ScoredSplit(split), kept[name][split], Config())
            except WorkbenchError as error:
                yield str(error)
                continue
            print(f"  {name} on {split}: {found.describe()}", flush=True)
            for figure, (before, now) in found.apart.items():
                yield f"{name} on {split}: {figure} was {before}, here it is {now}"


def words(home: Path) -> Iterator[str]:
    """Yield texts that do not say what the evidence says."""
    folder = home / evidence.EVIDENCE
    for name, make in (("comparison", tables.comparison), ("analysis", tables.analysis)):
        text = (folder / f"{name}.md").read_text(encoding="utf-8")
        if text != make(harness.read(folder / f"{name}.json")):
            yield f"{name}.md is not what {name}.json says"
    rows = tables.between_markers((home / tables.PAGE).read_text(encoding="utf-8"))
    if rows is None:
        yield f"{tables.PAGE} has no rows between {tables.BEGIN} and {tables.END}"
    elif rows != tables.criteria_of(home):
        yield (
            f"{tables.PAGE}: the rows of the success criteria are not what the evidence says; "
            "python benchmarks/deliverable_tables.py --write makes them"
        )


QUICK: tuple[Callable[[Path], Iterator[str]], ...] = (files, models, words)
SLOW: tuple[Callable[[Path], Iterator[str]], ...] = (audited, scores)


def problems(home: Path, *, quick: bool = False) -> list[str]:
    """Return everything that is wrong; with files missing or changed nothing else is looked at.

    Args:
        home: Folder with trained_models/, baselines/, docs/deliverables/ and docs/asked.md.
        quick: Leave audit and scores out.
    """
    for check in QUICK if quick else (*QUICK, *SLOW):
        print(f"{check.__name__} ...", flush=True)
        found = list(check(home))
        if found:
            return found
    return []


def main() -> None:
    quick = False, "without audit and scores"
    arguments = harness.parser(__doc__, quick=quick).parse_args()
    home = Path(os.environ.get("PPO_WORKBENCH_HOME") or ".").absolute()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["PPO_WORKBENCH_HOME"] = scratch
        found = problems(home, quick=arguments.quick)
    for problem in found:
        print(f"REFUSED: {problem}")
    if found:
        raise SystemExit(1)
    print("the deliverables hold")


if __name__ == "__main__":
    main()
