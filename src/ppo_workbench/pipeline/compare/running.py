"""Train arms on equal terms, open the test once, and say which differences are decided."""

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Protocol

from ppo_workbench import plugins
from ppo_workbench.config import Config, ConfigError, Raw, WorkbenchError
from ppo_workbench.config import Protocol as Splitting
from ppo_workbench.delivery.artifact import check_output_name
from ppo_workbench.delivery.describe import git_commit, plain
from ppo_workbench.learning.models import check_device
from ppo_workbench.learning.progress import WorkbenchConsole, command_line
from ppo_workbench.pipeline.compare.claims import Claims
from ppo_workbench.pipeline.compare.document import comparison_document
from ppo_workbench.pipeline.compare.plan import (
    DOCUMENT,
    FOLDER,
    PLAN,
    STRESS,
    Cell,
    Plan,
    check_plan,
    plan_cells,
    read_document,
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
from ppo_workbench.scoring.documents import CellResult, Document, StressPart

_POLL_SECONDS = 1.0  # between looks at what other processes do


class ComparisonError(WorkbenchError):
    """Cells failed, so that arms cannot be compared."""


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Attributes:
        name: As it was given.
        reason: Why it failed, None if it did not.
        killed: Its process was killed, which says nothing of the job.
    """

    name: str
    reason: str | None
    killed: bool = False


class Jobs(Protocol):
    """Runs cells as jobs of a Hydra launcher; see `ppo_workbench.cli.launching`.

    Attributes:
        overrides: What the command was given that compares.
    """

    overrides: Sequence[str]

    def run(self, jobs: Iterable[tuple[str, Sequence[str]]], folder: Path) -> Iterator[Ended]:
        """Run (name, overrides) jobs and yield them as they end; their logs go to folder/name.

        A job is asked for when there is room for it.
        """


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

    A comparison that was killed goes on when it is started again with the same `output`; one that
    runs is shared with whoever starts it too, on this machine or another with the same home.

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
    with Claims(folder) as claims:
        with claims.alone():
            kept = check_plan(folder, plan, config.overwrite)
            goes_on = kept is not None
            if kept is None:
                if claims.others_at_work():
                    raise ConfigError(
                        f"overwrite=true: another process works on {folder}; end it first, or "
                        "leave overwrite away to share its cells"
                    )
                kept = _begin(config, folder, plan, f"{name}-{secrets.token_hex(4)}")
            record = ComparisonRecord.open(
                config.tracking, home, name, given.raw, goes_on, given.overrides
            )
        cells = plan_cells(config, name, kept["look"])
        told = _choices(config, name, cells, kept["timesteps"], record.destination, home)
        console.show_choices(told)
        with record:
            shared = _Shared(folder, claims, kept["limits"], jobs, record, console)
            found = Comparands(config, cells, shared.run(cells), folder)
            last = []
            if config.compare.stress:
                last.append(stress_cell(config, name, kept["look"], found.winner()))
            stress = shared.run(last)[STRESS]["stress"] if last else None
            with claims.alone():
                document = read_document(folder) or _finish(
                    [*cells, *last], found, kept, stress, record, console
                )
    for sentence in document["conclusion"]:
        console.show(sentence)
    console.show(f"report: {folder / 'report' / 'report.html'}", wrap=False)
    write_result(config.result_json, plain(document))
    console.show_next([("draw the report again", command_line(["task=report", f"run={name}"]))])
    return Comparison(document, folder, record.run_id)


def _finish(
    cells: Sequence[Cell],
    found: Comparands,
    kept: Plan,
    stress: StressPart | None,
    record: ComparisonRecord,
    console: WorkbenchConsole,
) -> Document:
    """Write what all cells together say; the document, written last, says that it is done."""
    folder = found.folder
    document = comparison_document(found, folder.name, kept["timesteps"], stress)
    document["created_utc"] = datetime.now(UTC).isoformat(timespec="seconds")
    document["git_commit"] = git_commit()
    document["mlflow_run_id"] = record.run_id
    with console.waiting("drawing the report"):
        draw_comparison(folder, document)
    missing = record.not_recorded([cell.name for cell in cells])
    for cell in cells:
        if cell.name in missing:
            result = read_result(folder, cell.name)
            record.cell_ended(cell.name, cell.overrides, folder / "cells" / cell.name, result)
    record.finish(document, folder)
    write_result(str(folder / DOCUMENT), plain(document))
    return document


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
    (folder / DOCUMENT).unlink(missing_ok=True)
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


@dataclass
class _Shared:
    """Runs cells beside whoever else runs those of the same comparison.

    Attributes:
        folder: Of the comparison.
        claims: Which cells are this process's.
        limits: The settled budget, as overrides.
        killed: Cells whose process was killed, which are run once more.
        failed: Why cells failed.
    """

    folder: Path
    claims: Claims
    limits: Sequence[str]
    jobs: Jobs
    record: ComparisonRecord
    console: WorkbenchConsole
    killed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, cells: Sequence[Cell]) -> dict[str, CellResult]:
        """Run what nobody has run, wait for what others run, and return every result by name."""
        found = {cell.name: read_result(self.folder, cell.name) for cell in cells}
        results = {name: result for name, result in found.items() if result}
        if results:
            self.console.show(f"resumed: {len(results)} of {len(cells)} cells are done")
        try:
            with self.console.waiting(f"{len(cells) - len(results)} cells to run"):
                self._run_free(cells, results)
                while len(results) + len(self.failed) < len(cells):
                    sleep(_POLL_SECONDS)
                    self._run_free(cells, results)
        except KeyboardInterrupt:
            self.console.show(
                f"interrupted: {len(results)} of {len(cells)} cells are done and kept"
            )
            own = [one for one in self.jobs.overrides if not one.startswith("output=")]
            go_on = command_line([*own, f"output={self.folder.name}"])
            self.console.show_next([("go on with the others", go_on)])
            raise
        if self.failed:
            first, reason = next(iter(self.failed.items()))
            raise ComparisonError(
                f"{len(self.failed)} of {len(cells)} cells failed, the first was {first} "
                f"({reason}, see {self.folder / 'cells' / first / 'log.txt'}); mend it, then the "
                f"same command with output={self.folder.name} goes on with the missing ones"
            )
        return results

    def _run_free(self, cells: Sequence[Cell], results: dict[str, CellResult]) -> None:
        """Run cells until no free one is left, telling of each as it ends."""
        by_name = {cell.name: cell for cell in cells}

        def free() -> Iterator[tuple[str, Sequence[str]]]:
            for cell in cells:
                if cell.name in results or cell.name in self.failed:
                    continue
                if not self.claims.take(cell.name):
                    continue
                found = read_result(self.folder, cell.name)
                if found is None:
                    yield cell.name, [*cell.overrides, *self.limits]
                else:
                    results[cell.name] = found
                    self.claims.leave(cell.name)

        for ended in self.jobs.run(free(), self.folder / "cells"):
            cell = by_name[ended.name]
            found = read_result(self.folder, cell.name)
            if found is not None:
                results[cell.name] = found
                told = _told(found, cell)
            elif ended.killed and cell.name not in self.killed:
                self.killed.add(cell.name)
                told = f"{ended.reason}; it is run once more"
            else:
                self.failed[cell.name] = ended.reason or "left no result"
                told = f"failed ({self.failed[cell.name]})"
            count = len(results) + len(self.failed)
            self.console.show(f"{count}/{len(cells)} {cell.name}: {told}")
            place = self.folder / "cells" / cell.name
            self.record.cell_ended(cell.name, cell.overrides, place, found)
            self.claims.leave(cell.name)


def _told(found: CellResult, cell: Cell) -> str:
    seconds = f"{found['seconds']:.0f} s"
    if cell.kind != "train":
        return f"done in {seconds}"
    sharpe = found["scores"][cell.arm]["validation"]["sharpe_annual"]
    return f"validation Sharpe {sharpe:+.2f}, {seconds}"
