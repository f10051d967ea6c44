"""The analysis of a study: one page for a person, one JSON file for a program.

The page needs no network: plotly.js stands in it once, and its content security policy
forbids every request.  optuna, plotly and jinja2 are imported on first use.
"""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_workbench.config.files import write_whole
from ppo_workbench.records.studies.candidates import research_alone
from ppo_workbench.records.studies.session import SETTLED, SWEEP
from ppo_workbench.reports.study.findings import Analysis, Recommendation
from ppo_workbench.reports.study.importance import measure_importances
from ppo_workbench.reports.study.plateau import Plateau, find_plateau
from ppo_workbench.reports.study.trials import (
    Parameter,
    TrialRow,
    count_states,
    measure_cost,
    read_parameters,
    read_trials,
)
from ppo_workbench.reports.study.words import summarise

if TYPE_CHECKING:
    import optuna

COMMAND = "python -m ppo_workbench"
Command = Callable[[Mapping[str, Any]], str] | str


def analyse(
    study: "optuna.Study", folder: Path, *, objective_name: str, command: Command = COMMAND
) -> Analysis:
    """Analyse a study and write `analysis.html` and `analysis.json`.

    Args:
        study: The study, finished or not; trials still running are only counted.
        folder: Where to write; earlier analyses there are replaced whole.
        objective_name: What the trials return; for several objectives names separated by
            commas, such as "sharpe_annual, max_drawdown_frac".
        command: Makes the command that trains given parameters, or the text before (or, with
            "{overrides}" in it, around) the `key=value`s.

    Returns:
        What was found.  Studies without a complete trial have no recommendation.

    Raises:
        OSError: The files cannot be written.
    """
    from ppo_workbench.reports.study.page import render_page

    rows, parameters = read_trials(study), read_parameters(study)
    signs = [1 if d.name == "MAXIMIZE" else -1 for d in study.directions]
    complete = [row for row in rows if row.state == "complete"]
    names = [parameter.name for parameter in parameters]
    importances = measure_importances(study, [row.number for row in complete], names)
    rank = {importance.name: i for i, importance in enumerate(importances)}
    parameters.sort(key=lambda p: (rank.get(p.name, len(rank)), p.name))
    plateau = find_plateau(rows, parameters, signs) if parameters or complete else None
    best = max(complete, key=lambda row: signs[0] * row.values[0], default=None)
    recommended = _recommendation(plateau, rows)
    draft = Analysis(
        study=study.study_name,
        objective_names=_objective_names(objective_name, len(signs)),
        directions=tuple(d.name.lower() for d in study.directions),
        written_utc=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        counts=count_states(rows),
        best=best.number if best else None,
        best_value=best.values[0] if best else None,
        best_error=best.errors[0] if best else None,
        pareto=_pareto(complete, signs),
        importances=importances,
        plateau=plateau.numbers if plateau else (),
        plateau_definition=plateau.definition if plateau else "",
        recommended=recommended,
        cost=measure_cost(rows),
        summary=(),
        command=_command(command, recommended.params, shared_overrides(study))
        if recommended
        else "",
        html_path=folder / "analysis.html",
        json_path=folder / "analysis.json",
    )
    mark = filter(None, [research_alone(study)])
    analysis = replace(draft, summary=(*mark, *summarise(draft, plateau)))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(analysis.html_path, render_page(analysis, rows, parameters, signs, plateau))
    record = _finite(_record(analysis, rows, parameters, plateau))
    write_whole(analysis.json_path, json.dumps(record, indent=1, allow_nan=False) + "\n")
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


def _command(command: Command, params: Mapping[str, Any], shared: Sequence[str] = ()) -> str:
    if not isinstance(command, str):
        return command(params)
    overrides = " ".join(shlex.quote(text) for text in [*shared, *overrides_of(params)])
    if "{overrides}" in command:
        return command.replace("{overrides}", overrides)
    return f"{command} {overrides}".rstrip()


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


def _recommendation(plateau: Plateau | None, rows: Sequence[TrialRow]) -> Recommendation | None:
    if plateau is None:
        return None
    row = next(row for row in rows if row.number == plateau.recommended)
    return Recommendation(
        number=row.number,
        params=dict(row.params),
        values=row.values,
        expected=plateau.expected[row.number],
        expected_sd=plateau.expected_sd[row.number],
    )


def _pareto(complete: Sequence[TrialRow], signs: Sequence[int]) -> tuple[int, ...]:
    """Return the trials that no other beats or equals in everything and beats in something."""
    if len(signs) == 1:
        return ()
    scores = {r.number: [s * v for s, v in zip(signs, r.values, strict=True)] for r in complete}
    return tuple(
        number
        for number, mine in scores.items()
        if not any(
            other != mine and all(o >= m for o, m in zip(other, mine, strict=True))
            for other in scores.values()
        )
    )


def _objective_names(text: str, count: int) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()] if count > 1 else [text]
    return tuple(names[k] if k < len(names) else f"objective {k + 1}" for k in range(count))


def _record(
    analysis: Analysis,
    rows: Sequence[TrialRow],
    parameters: Sequence[Parameter],
    plateau: Plateau | None,
) -> dict[str, Any]:
    """Return everything as JSON values; the paths are left out, the files may move."""
    record = asdict(analysis)
    del record["html_path"], record["json_path"]
    record["parameters"] = [asdict(parameter) for parameter in parameters]
    record["plateau_region"] = [
        {"name": e.parameter.name, "low": e.low, "high": e.high, "counts": dict(e.counts)}
        | {"width_frac": e.width_frac, "at_border": e.at_border}
        for e in (plateau.extents if plateau else ())
    ]
    record["fallback_error"] = plateau.fallback_error if plateau else None
    record["trials"] = [
        {name: value for name, value in vars(row).items() if name != "params"}
        | {"params": dict(row.params)}
        | {"expected": plateau.expected.get(row.number) if plateau else None}
        for row in rows
    ]
    return record


def _finite(value: Any) -> Any:
    """Return a copy that JSON can hold: what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
