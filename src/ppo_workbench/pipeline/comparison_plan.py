"""What a comparison runs: one cell for every market, seed and arm, each a job of its own."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ppo_workbench.config import Config, ConfigError
from ppo_workbench.delivery.describe import plain

FOLDER = "comparisons"
MAIN = "main"
YARDSTICKS = "yardsticks"
PLAN, RESULT = "plan.json", "result.json"


@dataclass(frozen=True)
class Cell:
    """One training, or the yardsticks, of one world.

    Attributes:
        name: Folder of the cell in `cells/`.
        kind: "train" or "yardsticks".
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


def varies_market(config: Config) -> bool:
    """Tell whether every seed trades a market of its own."""
    return config.data.source == "synthetic" and config.compare.market_per_seed


def plan_cells(config: Config, comparison: str, look: str, folds: int = 1) -> list[Cell]:
    """Return all cells of a comparison, the yardsticks of a world before its arms.

    Args:
        config: The experiment; `config.compare` names arms, seeds and markets.
        comparison: Its name.
        look: Identity of the one look that all cells of a market and seed share.
        folds: Trainings of every arm and seed, each with its own test.

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
    shown = compare.seeds[0]
    cells = []
    for market, (changes, arms) in markets.items():
        for seed in compare.seeds:
            world = [*changes, f"seed={seed}"]
            if varies_market(config):
                world.append(f"data.synthetic.seed={seed}")
            # On one market all seeds share the yardsticks.
            also = [YARDSTICKS] if varies_market(config) or seed == shown else []
            for arm in [*also, *arms]:
                for fold in range(folds):
                    name = f"{market}-{seed}-{arm}" + (f"-{fold}" if folds > 1 else "")
                    kind = YARDSTICKS if arm == YARDSTICKS else "train"
                    keys = {
                        "comparison": comparison,
                        "name": name,
                        "kind": kind,
                        "arm": arm,
                        "market": market,
                        "fold": fold,
                        "look": look,
                        "keep_trace": str(market == MAIN and seed == shown).lower(),
                    }
                    own = [f"compare.cell.{key}={value}" for key, value in keys.items()]
                    overrides = [*world, *compare.arms.get(arm, []), *own]
                    cells.append(Cell(name, kind, arm, market, seed, fold, tuple(overrides)))
    return cells


def settled_plan(config: Config, limits: Sequence[str]) -> dict[str, Any]:
    """Return what a comparison that goes on must repeat, as JSON values."""
    document = plain(asdict(config))
    for key in (
        "output",
        "overwrite",
        "result_json",
        "tracking",
        "resume",
        "checkpoint",
        "threads",
    ):
        document.pop(key, None)
    document["compare"].pop("cell")
    document["limits"] = list(limits)
    return dict(document)


def check_plan(folder: Path, plan: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Return the plan of an unfinished comparison of this name, None if there is none.

    Raises:
        ConfigError: One of this name is finished, or was begun with other settings.
    """
    path = folder / PLAN
    if overwrite or not path.is_file():
        return None
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if (folder / "comparison.json").is_file():
        raise ConfigError(
            f"output={folder.name}: {folder} holds a finished comparison; choose another output or "
            "set overwrite=true"
        )
    if {**kept["plan"], "limits": None} != {**plan, "limits": None}:
        raise ConfigError(
            f"output={folder.name}: {folder} holds a comparison that was begun with other "
            "settings; choose another output or set overwrite=true"
        )
    return kept
