"""Gather what the cells of a comparison left: one out-of-sample run for every arm and seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ppo_workbench.config import Config, Protocol
from ppo_workbench.pipeline.compare.plan import (
    MAIN,
    STRESS,
    YARDSTICKS,
    Cell,
    trace_name,
    varies_market,
)
from ppo_workbench.pipeline.compare.scored import folds_of
from ppo_workbench.scoring.comparison import ArmRun
from ppo_workbench.scoring.documents import AuditCounts, Card, CellResult, Stability
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.session_path import SessionPath, read_path
from ppo_workbench.scoring.stitch import paths, stitch
from ppo_workbench.scoring.targets import SeedRun, stability
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.scoring.trace_file import read_trace

CURVE_SHARPE = "curve_sharpe_annual"


@dataclass(frozen=True)
class Comparands:
    """A finished comparison on disk.

    Attributes:
        config: Its configuration.
        cells: All cells but the stress cell.
        results: `result.json` by cell.
        folder: `comparisons/NAME`.
    """

    config: Config
    cells: Sequence[Cell]
    results: Mapping[str, CellResult]
    folder: Path

    @property
    def markets(self) -> list[str]:
        """Names of the markets, the configured one first."""
        return list(dict.fromkeys(cell.market for cell in self.cells))

    def runs(self, market: str) -> list[ArmRun]:
        """Return the runs of one market in the order of the arms, then of the yardsticks.

        On one market every seed meets the same yardsticks.
        """
        found = []
        for seed, arm, cells in self._by_run(market):
            card, path = self._scored(arm, cells)
            shared = cells[0].kind == YARDSTICKS and not varies_market(self.config)
            seeds = self.config.compare.seeds if shared else [seed]
            found += [ArmRun(arm, each, card, path) for each in seeds]
        order = {arm: position for position, arm in enumerate(self.config.compare.arms)}
        return sorted(found, key=lambda run: order.get(run.arm, len(order)))

    def shown(self) -> dict[str, Trace]:
        """Return the out-of-sample trace of every arm on the shown market: the first seed's."""
        seed = self.config.compare.seeds[0]
        return {
            arm: self._curves(arm, cells)[0]
            for own, arm, cells in self._by_run(MAIN)
            if own == seed
        }

    def audits(self, market: str) -> dict[str, AuditCounts]:
        """Return what the independent audit counted, by arm, over all seeds and folds."""
        totals: dict[str, AuditCounts] = {}
        for _, arm, cells in self._by_run(market):
            total = totals.setdefault(arm, {"violations": 0, "by_rule": {}, "unaudited": []})
            for cell in cells:
                found = self.results[cell.name]["scores"][arm]["audit"]
                total["violations"] += found["violations"]
                total["unaudited"] = sorted({*total["unaudited"], *found["unaudited"]})
                for rule, count in found["by_rule"].items():
                    total["by_rule"][rule] = total["by_rule"].get(rule, 0) + count
        return totals

    def path_sharpes(self) -> dict[str, list[list[float]]]:
        """Return the Sharpe ratios of all backtest paths, by arm and seed; {} but under cpcv."""
        if self.config.splits.protocol is not Protocol.cpcv:
            return {}
        sharpes: dict[str, list[list[float]]] = {}
        for _, arm, cells in self._by_run(MAIN):
            own = [scorecard(trace).sharpe_annual for trace in self._curves(arm, cells)]
            sharpes.setdefault(arm, []).append(own)
        return sharpes

    def curves(self) -> dict[str, list[list[dict[str, float]]]]:
        """Return the training curves of every arm, one for each training."""
        curves: dict[str, list[list[dict[str, float]]]] = {}
        for cell in self.cells:
            if cell.kind == "train" and cell.market == MAIN:
                curves.setdefault(cell.arm, []).append(self.results[cell.name]["curve"])
        return curves

    def stability(self) -> dict[str, Stability]:
        """Return what every arm's seeds reach on validation and test, {} but under a holdout."""
        if self.config.splits.protocol is not Protocol.holdout:
            return {}
        if self.config.compare.split != "test":
            return {}
        seeds: dict[str, list[SeedRun]] = {}
        for cell in self.cells:
            if cell.kind == "train" and cell.market == MAIN:
                found = self.results[cell.name]
                cards = found["scores"][cell.arm]
                run = SeedRun(
                    cell.seed,
                    cards["validation"],
                    cards["test"],
                    found.get("entropy_nats"),
                    found.get("finite", True),
                )
                seeds.setdefault(cell.arm, []).append(run)
        return {arm: stability(runs) for arm, runs in seeds.items()}

    def winner(self) -> str:
        """Return the arm with the best mean validation bound: the test has no say."""
        bounds: dict[str, list[float]] = {}
        for cell in self.cells:
            if cell.kind == "train" and cell.market == MAIN:
                scores = self.results[cell.name]["scores"][cell.arm]
                bounds.setdefault(cell.arm, []).append(scores["validation_lower_bound"])
        return max(bounds, key=lambda arm: sum(bounds[arm]) / len(bounds[arm]))

    def _by_run(self, market: str) -> Iterator[tuple[int, str, list[Cell]]]:
        """Yield seed, arm or yardstick, and the cells of its folds in order."""
        grouped: dict[tuple[int, str], list[Cell]] = {}
        for cell in self.cells:
            if cell.market != market or cell.kind == STRESS:
                continue
            for arm in self.results[cell.name]["scores"]:
                grouped.setdefault((cell.seed, arm), []).append(cell)
        for (seed, arm), cells in grouped.items():
            yield seed, arm, sorted(cells, key=lambda cell: cell.fold)

    def _scored(self, arm: str, cells: Sequence[Cell]) -> tuple[Card, SessionPath]:
        found = [self.results[cell.name] for cell in cells]
        trained = {CURVE_SHARPE: sum(_curve_sharpe(one, arm) for one in found) / len(found)}
        if len(cells) > 1:
            curve = self._curves(arm, cells)[0]
            return scorecard(curve).to_dict() | trained, SessionPath.from_trace(curve)
        file = self.folder / "cells" / cells[0].name / f"sessions-{arm}.npz"
        scores = found[0]["scores"][arm]
        card = scores["test"] if self.config.compare.split == "test" else scores["validation"]
        return {**card, **trained}, read_path(file)

    def _curves(self, arm: str, cells: Sequence[Cell]) -> list[Trace]:
        """Return the stitched curve of an arm and seed; under cpcv one for each path."""
        tested = []
        for cell in cells:
            files = self.folder / "cells" / cell.name
            count = len(list(files.glob(trace_name(arm, 0).replace("-0.", "-*."))))
            tested.append([read_trace(files / trace_name(arm, k)) for k in range(count)])
        if self.config.splits.protocol is Protocol.cpcv:
            return paths(folds_of(self._of_seed(cells[0].seed))[1], tested)
        parts = [trace for own in tested for trace in own]
        return [parts[0] if len(parts) == 1 else stitch(parts)]

    def _of_seed(self, seed: int) -> Config:
        """Return the configuration of one seed on the main market."""
        if not varies_market(self.config):
            return self.config
        data = self.config.data
        return replace(
            self.config, data=replace(data, synthetic=replace(data.synthetic, seed=seed))
        )

    @property
    def shown_config(self) -> Config:
        """The configuration of the shown market."""
        return self._of_seed(self.config.compare.seeds[0])


def _curve_sharpe(result: CellResult, arm: str) -> float:
    """Return the mean annual Sharpe ratio on validation over a training, from 0 at its start.

    That is the area under the training curve by trapezoids, over its length; what is not trained
    has the same Sharpe ratio all the time.
    """
    looks = [(row["step"], row["validation/sharpe_annual"]) for row in result.get("curve", ())]
    if not looks:
        return result["scores"][arm]["validation"]["sharpe_annual"]
    steps, sharpes = np.transpose([(0.0, 0.0), *looks])
    return float(np.trapezoid(sharpes, steps) / steps[-1])
