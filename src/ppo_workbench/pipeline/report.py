"""Draw the page of a comparison, of a stored model, or of an MLflow run of either."""

import json
from pathlib import Path

from ppo_workbench.config import (
    Config,
    ConfigError,
    Raw,
    TrackingConfig,
    validate_config,
)
from ppo_workbench.delivery.artifact import load_metadata
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.pipeline.compare.cell import audit_counts
from ppo_workbench.pipeline.compare.plan import (
    FOLDER,
    PLAN,
    Plan,
    plan_cells,
    read_document,
    read_result,
)
from ppo_workbench.pipeline.compare.runs import Comparands
from ppo_workbench.pipeline.compare.scored import folds_of, open_tests
from ppo_workbench.pipeline.models.document import references, single_document
from ppo_workbench.pipeline.models.evaluation import evaluate_artifact
from ppo_workbench.pipeline.models.stored import find_artifact, home_folder
from ppo_workbench.records.mlflow_store import find_run, read_curve
from ppo_workbench.reports.comparison.document import Comparand
from ppo_workbench.reports.comparison.writing import ReportFiles, ReportInput, write_report
from ppo_workbench.scoring.documents import Document

PAGES = "reports"


def report(config: Config, console: WorkbenchConsole | None = None) -> ReportFiles:
    """Draw the page of `config.run`: a comparison, a model, or the MLflow run of one.

    Args:
        config: Its `run` is a name in comparisons/, trained_models/ or baselines/, or a run id;
            for a model it gives bars, costs and rules (the command line takes those that
            the model recorded, under what it names itself), and `split` says which bars.
        console: Where to print.

    Raises:
        ConfigError: Nothing of that name.
    """
    console = console or WorkbenchConsole()
    if config.run is None:
        raise ConfigError("run: a value is needed, write run=NAME or run=ID")
    name = _name_of(config.tracking, config.run)
    document = _comparison(name)
    with console.waiting("drawing the page"):
        if document is None:
            files = _draw_model(config, name, console)
        else:
            files = draw_comparison(home_folder() / FOLDER / name, document)
    console.show(f"report: {files.page}", wrap=False)
    return files


def recorded_by(run: str, tracking: TrackingConfig) -> Raw | None:
    """Return the unresolved configuration of the model that `run` names, None for a comparison.

    Raises:
        ConfigError: Nothing of that name.
        ArtifactError: The model's metadata are missing or damaged.
    """
    name = _name_of(tracking, run)
    if _comparison(name) is not None:
        return None
    return load_metadata(*_model(name)).config


def draw_comparison(folder: Path, document: Document) -> ReportFiles:
    """Write comparisons/NAME/report from the files of its cells.

    Args:
        folder: Of the comparison; its plan holds its configuration.
        document: What it found.
    """
    found, look = finished(folder)
    shown = found.shown_config
    shown.compare.cell.comparison, shown.compare.cell.look = folder.name, look
    bars, folds = folds_of(shown)
    open_tests(shown, bars, folds)  # the comparison's own access, recorded then
    source = ReportInput(document, found.shown(), bars, found.curves())
    return write_report(source, folder / "report", f"Comparison {folder.name}")


def finished(folder: Path) -> tuple[Comparands, str]:
    """Return a finished comparison from its folder, and the identity of its access.

    Raises:
        ConfigError: Its plan is not one that this version can read.
    """
    kept: Plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    own = validate_config(kept["plan"])
    cells = plan_cells(own, folder.name, kept["look"])
    results = {cell.name: read_result(folder, cell.name) or {} for cell in cells}
    return Comparands(own, cells, results, folder), kept["look"]


def _comparison(name: str) -> Document | None:
    """Return what the finished comparison of that name says, None if there is none."""
    if Path(name).name != name:
        return None
    return read_document(home_folder() / FOLDER / name)


def _name_of(tracking: TrackingConfig, run: str) -> str:
    """Return the comparison or model that an MLflow run recorded; other names as they are."""
    if not tracking.enabled or len(run) != 32:
        return run
    found = find_run(tracking, home_folder(), run)
    if found is None:
        return run
    return found.tags.get("comparison") or found.tags.get("mlflow.runName") or run


def _model(name: str) -> tuple[Path, str]:
    """Return folder and name of a model.

    Raises:
        ConfigError: Nothing has that name.
    """
    try:
        return find_artifact(name)
    except ConfigError:
        raise ConfigError(
            f"run={name}: no comparison, no model and no recorded run has that name; look into "
            "comparisons/, trained_models/ and baselines/"
        ) from None


def _draw_model(config: Config, name: str, console: WorkbenchConsole) -> ReportFiles:
    """Score a stored model beside buy-and-hold and the threshold rule; write reports/NAME."""
    _model(name)  # refuses names of nothing
    found = evaluate_artifact(config, name, config.split)
    title = f"{name} on {config.split.value} of {found.experiment.bars.instrument}"
    for note in found.notes():
        console.show(f"note: {note}")
    own = Comparand(
        found.metadata.model_type.value,
        found.metadata.name,
        found.trace,
        audit_counts([found.audit()]),
    )
    beside = references(found.experiment, found.split)
    run = found.metadata.mlflow_run_id
    curve = read_curve(config.tracking, home_folder(), run) if run else []
    source = ReportInput(
        single_document(found, config.split, own, beside),
        {each.name: each.trace for each in (own, *beside)},
        found.experiment.bars,
        {own.name: [curve]} if curve else {},
    )
    return write_report(source, home_folder() / PAGES / Path(name).name, title)
