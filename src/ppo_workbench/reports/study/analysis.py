"""The analysis of a study: one page for a person, one JSON file for a program.

The page needs no network: plotly.js stands in it once, and its content security policy
forbids every request.  optuna, plotly and jinja2 are imported on first use.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ppo_workbench.config.files import write_whole
from ppo_workbench.records.studies.candidates import research_alone
from ppo_workbench.records.studies.session import SETTLED, SWEEP
from ppo_workbench.reports.study.findings import Analysis
from ppo_workbench.reports.study.importance import measure_importances
from ppo_workbench.reports.study.plateau import find_plateau
from ppo_workbench.reports.study.trials import read_parameters, read_trials
from ppo_workbench.reports.study.words import summarise

if TYPE_CHECKING:
    import optuna

COMMAND = "python -m ppo_workbench"


def analyse(study: "optuna.Study", folder: Path, *, objective_names: Sequence[str]) -> Analysis:
    """Analyse a study and write `analysis.html` and `analysis.json`.

    Args:
        study: The study, finished or not; trials still running are only counted.
        folder: Where to write; earlier analyses there are replaced whole.
        objective_names: What the trials return, one an objective.

    Returns:
        What was found.  Studies without a complete trial have no recommendation.

    Raises:
        OSError: The files cannot be written.
    """
    from ppo_workbench.reports.study.page import render_page

    rows, parameters = read_trials(study), read_parameters(study)
    usable = [row.number for row in rows if row.state == "complete"]
    importances = measure_importances(study, usable, [parameter.name for parameter in parameters])
    rank = {importance.name: i for i, importance in enumerate(importances)}
    parameters.sort(key=lambda p: (rank.get(p.name, len(rank)), p.name))
    draft = Analysis(
        study=study.study_name,
        objective_names=tuple(objective_names),
        directions=tuple(d.name.lower() for d in study.directions),
        written_utc=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        rows=rows,
        parameters=parameters,
        importances=importances,
        plateau=None,
        html_path=folder / "analysis.html",
        json_path=folder / "analysis.json",
    )
    # Beside trials that hold all cores, threads of BLAS wait for each other: twenty times as long.
    with threadpool_limits(1, "blas"):
        draft = replace(draft, plateau=find_plateau(rows, parameters, draft.signs))
    if draft.recommended:
        given = [*shared_overrides(study), *overrides_of(draft.setting)]
        draft = replace(draft, command=shlex.join([*COMMAND.split(), *given]))
    mark = filter(None, [research_alone(study)])
    analysis = replace(draft, summary=(*mark, *summarise(draft)))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(analysis.html_path, render_page(analysis))
    text = json.dumps(_finite(_record(analysis)), indent=1, allow_nan=False)
    write_whole(analysis.json_path, text + "\n")
    return analysis


def overrides_of(params: Mapping[str, Any]) -> list[str]:
    """Return parameters as Hydra overrides, quoted for Hydra but not for the shell."""
    return [f"{key}={_hydra_value(value)}" for key, value in params.items()]


def shared_overrides(study: "optuna.Study") -> list[str]:
    """Return what all trials had in common and a training of its own needs too.

    What the command line gave them, without the objective and the sweep itself, and the budget
    of each of their seeds in timesteps.
    """
    fixed = study.user_attrs.get(SWEEP, {}).get("fixed", [])
    keys = [text.lstrip("+~").partition("=")[0].partition(".")[0] for text in fixed]
    own = ("sweep", "budget", "objective", "trial", "output", "seed")
    given = [
        text
        for text, key in zip(fixed, keys, strict=True)
        if key not in own and not key.startswith("hydra")
    ]
    settled = study.user_attrs.get(SETTLED, {})
    if settled.get("timesteps") is None:
        return given
    budget = {"minutes": None, "timesteps": settled["timesteps"]}
    if settled.get("budget", {}).get("evaluations") is not None:
        budget["evaluations"] = settled["budget"]["evaluations"]
    return [*given, *overrides_of({f"budget.{key}": value for key, value in budget.items()})]


def _hydra_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(_hydra_value(item) for item in value)}]"
    if isinstance(value, str) and not value.startswith(("[", "{")):
        plain = all(c.isalnum() or c in "_-./" for c in value) and value
        return value if plain else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)


def _record(a: Analysis) -> dict[str, Any]:
    """Return everything that was found; the paths are left out, the files may move."""
    best, chosen, plateau = a.best, a.recommended, a.plateau
    expected = plateau.expected if plateau else {}
    return {
        "study": a.study,
        "objective_names": a.objective_names,
        "directions": a.directions,
        "written_utc": a.written_utc,
        "counts": a.counts,
        "best": best and best.number,
        "best_value": best and best.values[0],
        "best_error": best and best.errors[0],
        "pareto": a.pareto,
        "importances": a.importances,
        "plateau": plateau.numbers if plateau else (),
        "plateau_definition": plateau.definition if plateau else "",
        "recommended": plateau
        and chosen
        and {
            "number": chosen.number,
            "params": chosen.params,
            "values": chosen.values,
            "expected": plateau.expected[chosen.number],
            "expected_sd": plateau.expected_sd[chosen.number],
        },
        "cost": a.cost,
        "summary": a.summary,
        "command": a.command,
        "parameters": a.parameters,
        "plateau_region": [
            {"name": e.parameter.name, "low": e.low, "high": e.high, "counts": e.counts}
            | {"width_frac": e.width_frac, "at_border": e.at_border}
            for e in (plateau.extents if plateau else ())
        ],
        "fallback_error": plateau and plateau.fallback_error,
        "trials": [
            {name: value for name, value in vars(row).items() if name != "params"}
            | {"params": row.params, "expected": expected.get(row.number)}
            for row in a.rows
        ],
    }


def _finite(value: Any) -> Any:
    """Return a copy that JSON can hold: what is not finite becomes null."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
