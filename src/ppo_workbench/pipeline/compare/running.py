"""Train arms on equal terms, open the test once, and say which differences are decided."""

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ppo_workbench import plugins
from ppo_workbench.config import Config, Raw, WorkbenchError
from ppo_workbench.config import Protocol as Splitting
from ppo_workbench.delivery.artifact import check_output_name
from ppo_workbench.delivery.describe import git_commit, plain
from ppo_workbench.learning.models import check_device
from ppo_workbench.learning.progress import WorkbenchConsole, command_line
from ppo_workbench.pipeline.compare.document import comparison_document
from ppo_workbench.pipeline.compare.plan import (
    FOLDER,
    PLAN,
    Cell,
    Plan,
    check_plan,
    plan_cells,
    read_result,
    settled_plan,
    stress_cell,
    varies_market,
)
from ppo_workbench.pipeline.compare.runs import Comparands
from ppo_workbench.pipeline.compare.scored import check_sessions, folds_of
from ppo_workbench.pipeline.given import Given
from ppo_workbench.pipeline.report import draw_comparison
from ppo_workbench.pipeline.result_json import check_result_path, write_result
from ppo_workbench.pipeline.train.calibration import settle
from ppo_workbench.records.comparison_record import ComparisonRecord
from ppo_workbench.scoring.documents import CellResult, Document


class ComparisonError(WorkbenchError):
    """Cells failed, so that arms cannot be compared."""


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Attributes:
        index: Its place in the list that was given.
        reason: Why it failed, None if it did not.
    """

    index: int
    reason: str | None


class Jobs(Protocol):
    """Runs cells as jobs of a Hydra launcher; see `ppo_workbench.cli.launching`.

    Attributes:
        overrides: What the command was given that compares.
    """

    overrides: Sequence[str]

    def run(self, jobs: Sequence[tuple[str, Sequence[str]]], folder: Path) -> Iterator[Ended]:
        """Run (name, overrides) jobs and yield them as they end; their logs go to folder/name."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison leaves.

    Attributes:
        document: See docs/comparison.md.
        folder: `comparisons/NAME`.
        run_id: MLflow's parent run, if recorded.
    """

    document: Document
    folder: Path
    run_id: str | None


def compare(given: Given, jobs: Jobs, console: WorkbenchConsole | None = None) -> Comparison:
    """Train all arms with all seeds on all markets, and compare them out of sample.

    A comparison that was killed goes on when it is started again with the same `output`.

    Args:
        given: The experiment; `given.config.compare` names arms, seeds and markets.
        jobs: Runs the cells.
        console: Where to print.

    Raises:
        WorkbenchError: Bad settings, a name that is taken, or a cell that failed.
    """
    config, home, console = given.config, given.home, console or WorkbenchConsole()
    check_device(config.model.device)
    name = config.output or f"compare_{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{secrets.token_hex(2)}"
    check_output_name(name)
    check_result_path(config.result_json)
    folder = home / FOLDER / name
    if not varies_market(config):  # else every cell looks at its own bars
        check_sessions(config, *folds_of(config))
    plan = settled_plan(config)
    kept = check_plan(folder, plan, config.overwrite)
    look = kept["look"] if kept else f"{name}-{secrets.token_hex(4)}"
    cells = plan_cells(config, name, look)
    goes_on = kept is not None
    if kept is None:
        kept = _begin(config, folder, plan, look)
    record = ComparisonRecord.open(config.tracking, home, name, given.raw, goes_on, given.overrides)
    console.show_choices(_choices(config, name, cells, kept["timesteps"], record.destination, home))
    with record:
        results = _run_cells(cells, kept["limits"], jobs, folder, record, console)
        found = Comparands(config, cells, results, folder)
        stress = None
        if config.compare.stress:
            last = [stress_cell(config, name, look, found.winner())]
            told = _run_cells(last, kept["limits"], jobs, folder, record, console)
            stress = told[last[0].name]["stress"]
        document = comparison_document(found, name, kept["timesteps"], stress)
        document["created_utc"] = datetime.now(UTC).isoformat(timespec="seconds")
        document["git_commit"] = git_commit()
        document["mlflow_run_id"] = record.run_id
        write_result(str(folder / "comparison.json"), plain(document))
        with console.waiting("drawing the report"):
            page = draw_comparison(folder).page
        record.finish(document, folder)
    for sentence in document["conclusion"]:
        console.show(sentence)
    console.show(f"report: {page}", wrap=False)
    write_result(config.result_json, plain(document))
    console.show_next([("draw the report again", command_line(["task=report", f"run={name}"]))])
    return Comparison(document, folder, record.run_id)


def _begin(config: Config, folder: Path, plan: Raw, look: str) -> Plan:
    """Settle the budget in timesteps and write down what a start after a kill must repeat."""
    settled = settle(config, None)
    kept: Plan = {
        "plan": plan,
        "plugins": plugins.digests(),
        "look": look,
        "limits": settled["overrides"],
        "timesteps": settled["timesteps"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "cells", ignore_errors=True)
    (folder / "comparison.json").unlink(missing_ok=True)
    (folder / PLAN).write_text(json.dumps(kept), encoding="utf-8")
    return kept


def _choices(
    config: Config, name: str, cells: Sequence[Cell], timesteps: int, destination: str, home: Path
) -> list[tuple[str, str]]:
    compare = config.compare
    trained = [cell for cell in cells if cell.kind == "train"]
    alone = config.splits.protocol is Splitting.holdout
    when = "after its models are final" if alone else "before: folds train on earlier tests"
    access = f"opened once for each market and recorded, {when}"
    return [
        ("comparison", f"{name}, preset {compare.preset}"),
        ("arms", ", ".join(compare.arms)),
        ("seeds", ", ".join(str(seed) for seed in compare.seeds)),
        ("markets", ", ".join(dict.fromkeys(cell.market for cell in cells))),
        ("budget", f"{len(trained)} trainings of {timesteps:,} timesteps"),
        ("test", access if compare.split == "test" else "not opened: validation is scored on"),
        ("home", str(home)),
        ("record", destination),
    ]


def _run_cells(
    cells: Sequence[Cell],
    limits: Sequence[str],
    jobs: Jobs,
    folder: Path,
    record: ComparisonRecord,
    console: WorkbenchConsole,
) -> dict[str, CellResult]:
    """Run what is missing and return every cell's result by name."""
    results = {cell.name: found for cell in cells if (found := read_result(folder, cell.name))}
    missing = [cell for cell in cells if cell.name not in results]
    if results:
        console.show(f"resumed: {len(results)} of {len(cells)} cells are done")
    failed: dict[str, str] = {}
    todo = [(cell.name, [*cell.overrides, *limits]) for cell in missing]
    try:
        with console.waiting(f"{len(todo)} cells to run"):
            for count, ended in enumerate(jobs.run(todo, folder / "cells"), start=len(results) + 1):
                cell = missing[ended.index]
                found = read_result(folder, cell.name)
                if found is None:
                    failed[cell.name] = ended.reason or "left no result"
                    console.show(f"{count}/{len(cells)} {cell.name}: failed ({failed[cell.name]})")
                else:
                    results[cell.name] = found
                    console.show(f"{count}/{len(cells)} {cell.name}: {_told(found, cell)}")
                record.cell_ended(cell.name, cell.overrides, folder / "cells" / cell.name, found)
    except KeyboardInterrupt:
        console.show(f"interrupted: {len(results)} of {len(cells)} cells are done and kept")
        own = [override for override in jobs.overrides if not override.startswith("output=")]
        go_on = command_line([*own, f"output={folder.name}"])
        console.show_next([("go on with the others", go_on)])
        raise
    if failed:
        first, reason = next(iter(failed.items()))
        raise ComparisonError(
            f"{len(failed)} of {len(cells)} cells failed, the first was {first} ({reason}, see "
            f"{folder / 'cells' / first / 'log.txt'}); mend it, then the same command with "
            f"output={folder.name} goes on with the missing ones"
        )
    return results


def _told(found: CellResult, cell: Cell) -> str:
    seconds = f"{found['seconds']:.0f} s"
    if cell.kind != "train":
        return f"done in {seconds}"
    sharpe = found["scores"][cell.arm]["validation"]["sharpe_annual"]
    return f"validation Sharpe {sharpe:+.2f}, {seconds}"
