"""What the analysis of a study finds: its page, its sentences and its record are drawn from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppo_workbench.reports.study.importance import Importance
from ppo_workbench.reports.study.plateau import Plateau
from ppo_workbench.reports.study.trials import STATES, Cost, Parameter, TrialRow, measure_cost


@dataclass(frozen=True)
class Analysis:
    """What a study tells.

    Attributes:
        directions: "maximize" or "minimize", one an objective.
        parameters: Most important first.
        importances: Largest first, empty for too few trials.
        plateau: None without a complete trial.
        command: Trains the recommended setting; empty without one.
        summary: Sentences for a person.
    """

    study: str
    objective_names: tuple[str, ...]
    directions: tuple[str, ...]
    written_utc: str
    rows: Sequence[TrialRow]
    parameters: Sequence[Parameter]
    importances: tuple[Importance, ...]
    plateau: Plateau | None
    html_path: Path
    json_path: Path
    command: str = ""
    summary: tuple[str, ...] = ()

    @property
    def signs(self) -> tuple[int, ...]:
        """+1 for an objective to maximise, -1 to minimise."""
        return tuple(1 if direction == "maximize" else -1 for direction in self.directions)

    @property
    def counts(self) -> dict[str, int]:
        """Trials a state, adding up to all trials."""
        return {state: sum(row.state == state for row in self.rows) for state in STATES}

    @property
    def cost(self) -> Cost | None:
        """What pruning saved, None without recorded timesteps."""
        return measure_cost(self.rows)

    @property
    def complete(self) -> list[TrialRow]:
        """The trials that count."""
        return [row for row in self.rows if row.state == "complete"]

    @property
    def best(self) -> TrialRow | None:
        """The trial with the best first objective, None without a complete one."""
        return max(self.complete, key=lambda row: self.signs[0] * row.values[0], default=None)

    @property
    def recommended(self) -> TrialRow | None:
        """The trial whose setting is to be trained, None without a complete one."""
        number = self.plateau.recommended if self.plateau else None
        return next((row for row in self.rows if row.number == number), None)

    @property
    def setting(self) -> Mapping[str, Any]:
        """The recommended parameters, exactly as sampled."""
        return self.recommended.params if self.recommended else {}

    @property
    def pareto(self) -> tuple[int, ...]:
        """The trials that no other beats or equals in everything and beats in something."""
        complete = self.complete
        if len(self.signs) == 1 or not complete:
            return ()
        score = np.array([row.values for row in complete]) * self.signs
        other, mine = score[:, None], score
        beaten = ((other >= mine).all(axis=2) & (other > mine).any(axis=2)).any(axis=0)
        return tuple(complete[i].number for i in np.flatnonzero(~beaten))
