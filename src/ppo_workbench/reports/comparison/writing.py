"""The report of a comparison or of one training: a page, its JSON and traces.

    report.html            one self-contained page
    report.json            the document and the numbers of every table
    trace-ARM.parquet      every decision of an arm in the shown market

docs/report.md says what each part shows.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppo_workbench.market.bars import Bars
from ppo_workbench.reports.comparison.curves import Curves
from ppo_workbench.reports.comparison.document import Arm, arms_of, plain
from ppo_workbench.reports.comparison.masks import mask_table
from ppo_workbench.reports.comparison.page import Download, render_report
from ppo_workbench.reports.comparison.shown import ShownMarket
from ppo_workbench.reports.comparison.tables import (
    ReportTables,
    arm_tables,
    difference_table,
    invalid_table,
    metric_table,
)
from ppo_workbench.reports.comparison.words import accesses, findings, headline
from ppo_workbench.scoring.documents import Document
from ppo_workbench.scoring.trace import Trace

_FORMAT_VERSION = 1
MOST_PAGE_BYTES = 7_600_000
MOST_EMBEDDED_BYTES = 2_000_000


@dataclass(frozen=True)
class ReportInput:
    """What a report is made of.

    Attributes:
        document: Of a comparison or of a single model.
        traces: Out-of-sample trace of the shown market, of every arm.
        bars: Bars of that market; they cover the traces.
        curves: Training curves by arm, one list of points for each run.  A point has `step`
            and figures of docs/metrics.md, such as `validation/sharpe_annual`.
    """

    document: Document
    traces: Mapping[str, Trace]
    bars: Bars
    curves: Curves


@dataclass(frozen=True)
class ReportFiles:
    """What `write_report` wrote."""

    page: Path
    record: Path
    traces: tuple[Path, ...]


def write_report(source: ReportInput, folder: Path, title: str) -> ReportFiles:
    """Write the report; files of the same name are replaced.

    Args:
        source: What to show.
        folder: Existing or new folder.
        title: What the page is about, such as "Masked against standard PPO".

    Raises:
        ReportError: A trace has rows that are no bars of `source.bars`.
    """
    document: Document = plain(source.document)
    market = ShownMarket(source.bars, source.traces)
    arms = arms_of(document)
    tables = report_tables(document, arms, market)
    folder.mkdir(parents=True, exist_ok=True)
    traces = _write_traces(arms, market, folder)
    record = folder / "report.json"
    record.write_text(_record(document, arms, tables, title), encoding="utf-8")

    def page(links: Sequence[Download]) -> str:
        return render_report(title, document, arms, market, source.curves, tables, links)

    bare = page(_links(arms, traces, 0))
    room = MOST_PAGE_BYTES - len(bare.encode("utf-8"))
    links = _links(arms, traces, min(room, MOST_EMBEDDED_BYTES))
    path = folder / "report.html"
    whole = page(links) if any(link["embedded"] for link in links) else bare
    path.write_text(whole, encoding="utf-8")
    return ReportFiles(path, record, tuple(traces.values()))


def report_tables(document: Document, arms: Sequence[Arm], market: ShownMarket) -> ReportTables:
    """Return every table of the report; all numbers are finite or None."""
    tables: ReportTables = {
        "metrics": metric_table(document, arms),
        "differences": difference_table(document, arms),
        "invalid_trades": invalid_table(document, arms),
        "masks": {arm.name: mask_table(market, arm.name) for arm in arms},
        "arms": {arm.name: arm_tables(market, arm.name) for arm in arms},
    }
    clean: ReportTables = plain(tables)
    return clean


def _record(document: Document, arms: Sequence[Arm], tables: ReportTables, title: str) -> str:
    record = {
        "format_version": _FORMAT_VERSION,
        "title": title,
        "headline": headline(document, arms),
        "test_accesses": [sentence for sentence, _ in accesses(document)],
        "findings": findings(document, arms),
        "document": document,
        "tables": tables,
    }
    return json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)


def _write_traces(arms: Sequence[Arm], market: ShownMarket, folder: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for arm in arms:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", arm.name)
        while (path := folder / f"trace-{stem}.parquet") in paths.values():
            stem += "-2"
        market.traces[arm.name].to_frame().to_parquet(path, compression="zstd")
        paths[arm.name] = path
    return paths


def _links(arms: Sequence[Arm], traces: Mapping[str, Path], room: int) -> list[Download]:
    """Return the downloads, the smallest files inside the page as long as there is room."""
    titles = {arm.name: arm.title for arm in arms}
    embedded: dict[str, str] = {}
    for name, path in sorted(traces.items(), key=lambda item: item[1].stat().st_size):
        if 4 * path.stat().st_size // 3 + 100 <= room:
            content = base64.b64encode(path.read_bytes()).decode()
            embedded[name] = f"data:application/vnd.apache.parquet;base64,{content}"
            room -= len(embedded[name])
    return [
        {
            "title": titles[name],
            "file": path.name,
            "href": embedded.get(name, path.name),
            "size": f"{path.stat().st_size / 1e6:.2f} MB",
            "embedded": name in embedded,
        }
        for name, path in traces.items()
    ]
