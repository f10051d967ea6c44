"""What a comparison runs: one cell for every market, seed and arm, each a job of its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from typing import TypedDict

from ppo_workbench import plugins
from ppo_workbench.config import CHANGES_ON_RESUME, Config, ConfigError, Protocol, Raw
from ppo_workbench.delivery.describe import plain
from ppo_workbench.scoring.documents import CellResult, Document

FOLDER = "comparisons"
MAIN = "main"
YARDSTICKS, STRESS = "yardsticks", "stress"
MODEL = "model"
PLAN, RESULT, DOCUMENT = "plan.json", "result.json", "comparison.json"


class Plan(TypedDict):
    """What a start after a kill must repeat, as `PLAN` has it."""

    plan: Raw
    plugins: dict[str, str]
    look: str
    limits: list[str]
    timesteps: int


@dataclass(frozen=True)
class Cell:
    """One training, or the yardsticks, of one market and seed.

    Attributes:
        name: Folder of the cell in `cells/`.
        kind: "train", "yardsticks" or "stress".
        arm: Name of the arm, or `YARDSTICKS`.
        market: Name of the market, `MAIN` for the configured bars.
        seed: Of the learner; with `market_per_seed` of the synthetic market too.
        fold: Number of the fold.
        overrides: What the cell's configuration changes.
    """

    name: str
    kind: str
    arm: str
    market: str
    seed: int
    fold: int
    overrides: tuple[str, ...]


def cell_folder(home: Path, comparison: str, name: str) -> Path:
    """Return the folder of one cell."""
    return home / FOLDER / comparison / "cells" / name


def cell_name(market: str, seed: int, arm: str, fold: int, folds: int) -> str:
    """Return the name of a cell, the fold in it where there are several."""
    return f"{market}-{seed}-{arm}" + (f"-{fold}" if folds > 1 else "")


def trace_name(policy: str, test: int) -> str:
    """Return the file of the trace of one policy on one test range of a cell."""
    return f"trace-{policy}-{test}.parquet"


def read_result(folder: Path, name: str) -> CellResult | None:
    """Return what a cell of the comparison in `folder` left, None if it has not ended well."""
    path = folder / "cells" / name / RESULT
    if not path.is_file():
        return None
    document: CellResult = json.loads(path.read_text(encoding="utf-8"))
    return document


def read_document(folder: Path) -> Document | None:
    """Return what a finished comparison says, None if the one in `folder` is not finished."""
    path = folder / DOCUMENT
    if not path.is_file():
        return None
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


def fold_count(config: Config) -> int:
    """Return how many trainings the protocol asks of every arm and seed."""
    splits = config.splits
    if splits.protocol is Protocol.holdout:
        return 1
    if splits.protocol is Protocol.cpcv:
        return comb(splits.folds, splits.test_folds)
    return splits.folds


def varies_market(config: Config) -> bool:
    """Tell whether every seed trades a market of its own."""
    return config.data.source == "synthetic" and config.compare.market_per_seed


def plan_cells(config: Config, comparison: str, look: str) -> list[Cell]:
    """Return all cells of a comparison; yardsticks stand on the configured market alone.

    Args:
        config: The experiment; `config.compare` names arms, seeds and markets.
        comparison: Its name.
        look: Identity of the one access that all cells of a market and seed share.

    Raises:
        ConfigError: No arm.
    """
    compare = config.compare
    if not compare.arms:
        raise ConfigError("compare.arms={}: nothing to compare; write compare=quick or name arms")
    markets: dict[str, tuple[list[str], list[str]]] = {MAIN: ([], list(compare.arms))} | {
        name: (list(market.overrides), list(market.arms) or list(compare.arms))
        for name, market in compare.markets.items()
    }
    cells = []
    for market, (changes, arms) in markets.items():
        for seed in compare.seeds:
            traded = _seeded(config, comparison, look, market, changes, seed)
            # On one market all seeds share the yardsticks.
            alone = market == MAIN and (varies_market(config) or seed == compare.seeds[0])
            also = [YARDSTICKS] if alone else []
            cells += [
                traded.cell(arm, fold) for arm in [*also, *arms] for fold in range(traded.folds)
            ]
    return cells


def stress_cell(config: Config, comparison: str, look: str, arm: str) -> Cell:
    """Return the cell that stresses an arm on the shown market: the first seed's."""
    return _seeded(config, comparison, look, MAIN, [], config.compare.seeds[0]).cell(arm, 0, STRESS)


@dataclass(frozen=True)
class _SeededMarket:
    """A market with a seed; makes its cells."""

    market: str
    seed: int
    folds: int
    shown: bool
    overrides: tuple[str, ...]
    arms: Mapping[str, list[str]]

    def cell(self, arm: str, fold: int, kind: str | None = None) -> Cell:
        name = cell_name(self.market, self.seed, arm, fold, self.folds)
        kind = kind or (YARDSTICKS if arm == YARDSTICKS else "train")
        name = STRESS if kind == STRESS else name
        names = {"name": name, "kind": kind, "arm": arm, "market": self.market}
        own = [
            *(f"compare.cell.{key}='{value}'" for key, value in names.items()),
            f"compare.cell.fold={fold}",
            f"compare.cell.keep_trace={str(self.shown).lower()}",
        ]
        overrides = (*self.overrides, *self.arms.get(arm, []), *own)
        return Cell(name, kind, arm, self.market, self.seed, fold, overrides)


def _seeded(
    config: Config, comparison: str, look: str, market: str, changes: Sequence[str], seed: int
) -> _SeededMarket:
    overrides = [*changes, f"seed={seed}"]
    if varies_market(config):
        overrides.append(f"data.synthetic.seed={seed}")
    # Names are quoted: Hydra would read 1e5 as a number.
    overrides += [f"compare.cell.comparison='{comparison}'", f"compare.cell.look='{look}'"]
    shown = market == MAIN and seed == config.compare.seeds[0]
    folds, arms = fold_count(config), config.compare.arms
    return _SeededMarket(market, seed, folds, shown, tuple(overrides), arms)


def settled_plan(config: Config) -> Raw:
    """Return what a comparison that goes on must repeat, as JSON values."""
    document = plain(asdict(config))
    for key in (*CHANGES_ON_RESUME, "output", "trial", "threads"):
        document.pop(key, None)
    document["compare"].pop("cell")
    return dict(document)


def check_plan(folder: Path, plan: Raw, overwrite: bool) -> Plan | None:
    """Return the plan of an unfinished comparison of this name, None if there is none.

    Raises:
        ConfigError: One of this name is finished, or was begun with other settings.
    """
    path = folder / PLAN
    if overwrite or not path.is_file():
        return None
    kept: Plan = json.loads(path.read_text(encoding="utf-8"))
    if (folder / DOCUMENT).is_file():
        raise ConfigError(
            f"output={folder.name}: {folder} holds a finished comparison; choose another output or "
            "set overwrite=true"
        )
    if kept["plan"] != plan or kept["plugins"] != plugins.digests():
        raise ConfigError(
            f"output={folder.name}: {folder} holds a comparison that was begun with other "
            "settings; choose another output or set overwrite=true"
        )
    return kept
