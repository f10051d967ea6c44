"""Record a comparison in MLflow: a parent run, and its cells as children.

A cell is recorded by the process that ran it, the whole by the one that finishes the comparison.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ppo_workbench.config import Raw, TrackingConfig
from ppo_workbench.config.secrets import masked
from ppo_workbench.delivery.describe import plain
from ppo_workbench.records.mlflow_store import TrackingError, find_runs
from ppo_workbench.records.run_notes import NOTE, headline_metrics, run_note
from ppo_workbench.records.tracking import RunStatus, Tracker, deliver_records, open_tracker
from ppo_workbench.scoring.documents import Card, CellResult, CellScores, Document

_FIGURES = (
    *("sharpe_annual", "max_drawdown_frac", "max_drawdown_at_10pct_vol_frac", "win_rate_frac"),
    *("n_trades", "exposure_mean_abs"),
)


_TOLD = ("arm", "market", "seed", "fold")


class ComparisonRecord:
    """What a comparison tells MLflow, as a context manager; made by `open`."""

    def __init__(self, config: TrackingConfig, home: Path, name: str, parent: Tracker) -> None:
        """Take over the parent run."""
        self._config, self._home, self._name, self._parent = config, home, name, parent

    @classmethod
    def open(
        cls,
        config: TrackingConfig,
        home: Path,
        name: str,
        params: Raw,
        goes_on: bool,
        overrides: Sequence[str] = (),
    ) -> "ComparisonRecord":
        """Begin, or go on with, the parent run of a comparison.

        Args:
            config: Where runs are recorded.
            home: The workbench's home folder.
            name: The comparison's.
            params: Its configuration with secrets unresolved.
            goes_on: It was begun before and killed.
            overrides: What was given beside the defaults.

        Raises:
            TrackingError: The store cannot be used; nothing was trained yet.
        """
        tags = {"comparison": name, "task": "compare"}
        known = find_runs(config, home, tags) if config.enabled and goes_on else []
        parent_id = known[-1].run_id if known else None
        given = {"overrides": " ".join(masked(overrides))} if overrides else {}
        parent = open_tracker(config, home, name, params, tags | given, resume_run_id=parent_id)
        return cls(config, home, name, parent)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the parent run."""
        return self._parent.run_id

    @property
    def destination(self) -> str:
        """Where the comparison is recorded, without secrets."""
        return self._parent.destination

    def not_recorded(self, cells: Sequence[str]) -> list[str]:
        """Return the cells without a finished run, such as one whose process was killed then.

        What such a process left open is ended.  Where the store cannot tell, nothing is returned.

        Args:
            cells: Names of cells that nobody records any more.
        """
        if not self._config.enabled:
            return []
        tags = {"comparison": self._name, "task": "compare_cell"}
        try:
            deliver_records(self._config, self._home)
            known = find_runs(self._config, self._home, tags)
        except TrackingError:
            return []
        for run in known:
            if run.status == "RUNNING":
                left = open_tracker(
                    *(self._config, self._home, self._name), resume_run_id=run.run_id, may_wait=True
                )
                with left:
                    left.end_as(RunStatus.killed)
        finished = {run.tags.get("cell") for run in known if run.status == "FINISHED"}
        return [cell for cell in cells if cell not in finished]

    def cell_ended(
        self, name: str, overrides: Sequence[str], folder: Path, result: CellResult | None
    ) -> None:
        """Record a cell as a child run, its figures over training and out of sample.

        Args:
            name: Of the cell.
            overrides: What the cell changed.
            folder: Of the cell, with its log and model.
            result: What it left, None if it failed.
        """
        tags = {"comparison": self._name, "cell": name, "task": "compare_cell"}
        tags |= {key: str(value) for key, value in (result or {}).items() if key in _TOLD}
        tags["overrides"] = " ".join(masked(overrides))
        if self._parent.run_id is not None:
            tags["mlflow.parentRunId"] = self._parent.run_id
        params = dict(item.partition("=")[::2] for item in overrides)
        child = open_tracker(
            self._config, self._home, f"{self._name}/{name}", params, tags, may_wait=True
        )
        with child:
            for row in (result or {}).get("curve", ()):
                child.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))
            child.log_metrics(_final(result or {}), 0)
            self._describe(child, result or {})
            for path in sorted(folder.glob("*")) if folder.is_dir() else ():
                if path.name in ("result.json", "log.txt"):
                    child.log_artifact(path)
                elif path.stem in ("model", "model-metadata"):
                    child.log_artifact(path, "model")
            if result is None:
                child.end_as(RunStatus.failed)

    def _describe(self, child: Tracker, result: CellResult) -> None:
        """Give a cell's run its columns, description and bars."""
        cards = _cards(result.get("scores", {}).get(result.get("arm", ""), {}))
        report = f"Comparison {self._name}: `comparisons/{self._name}/report/report.html`"
        child.set_tags({NOTE: run_note(cards, [report]), "status": "job"})
        if "test" in cards:
            child.log_metrics(headline_metrics([cards["test"]]), 0)
        if "data" in result:
            child.log_bars(result["data"])

    def finish(self, document: Document, folder: Path) -> None:
        """Give the parent run the comparison's figures and files."""
        for arm, figures in document["figures"].items():
            self._parent.log_metrics(
                {f"{arm}/{name}": figures[name]["mean"] for name in _FIGURES if name in figures}, 0
            )
        main: Mapping[str, Sequence[Card]] = next(iter(document["cards"].values()), {})
        firsts = {arm["title"]: main.get(arm["name"], ()) for arm in document["arms"]}
        told = {title: cards[0] for title, cards in firsts.items() if len(cards) == 1}
        lines = [f"* {sentence}" for sentence in document["conclusion"]]
        lines.append(
            f"\nReport: `comparisons/{self._name}/report/report.html`, and among the artifacts"
        )
        self._parent.log_metrics(headline_metrics(next(iter(main.values()), [])), 0)
        self._parent.set_tags(
            {
                NOTE: run_note(told, ["\n".join(lines)]),
                "status": "comparison",
                "winner": document["winner"],
                "conclusion": _short(document),
            }
        )
        for path in sorted(folder.glob("*")):
            if path.is_file():
                self._parent.log_artifact(path)
        self._parent.log_text(json.dumps(plain(document), indent=2), "comparison.json")
        if (folder / "report").is_dir():
            self._parent.log_artifact(folder / "report", "report")

    def __enter__(self) -> "ComparisonRecord":
        """Return the record itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the parent run."""
        self._parent.__exit__(kind, error, trace)


def _final(result: CellResult) -> dict[str, float]:
    figures: dict[str, float] = {}
    for arm, scores in result.get("scores", {}).items():
        for split, card in _cards(scores).items():
            figures |= {f"{arm}/{split}/{name}": card[name] for name in _FIGURES}
    return figures


def _cards(scores: CellScores) -> dict[str, Card]:
    """Return the scorecards by split; of several tests there is none."""
    found = {"validation": scores.get("validation"), "test": scores.get("test")}
    return {split: card for split, card in found.items() if card is not None}


def _short(document: Document) -> str:
    return " ".join(document["conclusion"][:3])
