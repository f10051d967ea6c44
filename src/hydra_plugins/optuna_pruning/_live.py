"""What a sweep shows: one live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ppo_workbench.records.studies.session import FAIL_REASON, INTERRUPTED
from ppo_workbench.starting import START_LINE

_INTERRUPTED = "INTERRUPTED"


class View:
    """Shows running, done, pruned and failed trials, the best, the pace and the time left."""

    def __init__(
        self, name: str, n_trials: int, study: optuna.Study, console: Console | None = None
    ) -> None:
        """Say which study it is."""
        self._name, self._wanted, self._study = name, n_trials, study
        self._console = console or Console()
        self._counts = dict.fromkeys(("COMPLETE", "PRUNED", "FAIL", _INTERRUPTED), 0)
        self._running = 0
        self._best = "-"
        self._began, self._before = time.monotonic(), -1
        self._live: Live | None = None

    def __enter__(self) -> "View":
        """Begin to show."""
        START_LINE.end()
        folder = f"sweeps/{self._name}"
        self.say(f"study {self._name}: {self._wanted} trials wanted, folder {folder}")
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def take(self, trials: Sequence[FrozenTrial]) -> None:
        """Count the study's trials, those of other processes among them."""
        for name in self._counts:
            self._counts[name] = sum(_state(trial) == name for trial in trials)
        if self._before < 0:
            self._before = self._finished()

    def show(self, running: int) -> None:
        """Refresh the live table."""
        self._running = running
        if self._live is not None:
            self._live.update(self._table())

    def ended(self, trial: FrozenTrial, best: Sequence[FrozenTrial]) -> None:
        """Take in a trial that has ended, and print its line where nothing is live."""
        self._counts[_state(trial)] += 1
        if best:
            self._best = _value(best[0])
        if self._live is not None and trial.state is not TrialState.FAIL:
            return
        text = f"trial {trial.number} {_state(trial).lower()}"
        if trial.values is not None:
            text += f" {', '.join(f'{value:.4g}' for value in trial.values)}"
        if _state(trial) == "FAIL":
            text += f" ({trial.user_attrs.get('fail_reason', 'no reason given')})"
        facts = ", ".join(f"{name} {value}" for name, value in self._facts().items() if value)
        self.say(f"{text}; {facts}" if self._live is None else text)

    def summary(self, best: Sequence[FrozenTrial]) -> None:
        """Print how the sweep ended."""
        counts = self._counts
        self.say(
            f"study {self._name}: {counts['COMPLETE']} complete, {counts['PRUNED']} pruned, "
            f"{counts['FAIL']} failed"
            + f", {counts[_INTERRUPTED]} interrupted"
            * bool(counts[_INTERRUPTED])
        )
        if best:
            params = " ".join(f"{key}={value}" for key, value in best[0].params.items())
            self.say(f"best: {_value(best[0])}: {params}")

    def _finished(self) -> int:
        return self._counts["COMPLETE"] + self._counts["PRUNED"]

    def _facts(self) -> dict[str, str]:
        seconds = time.monotonic() - self._began
        hours = max(seconds, 1e-9) / 3600
        here = self._finished() - max(self._before, 0)
        pace = here / hours
        left = max(self._wanted - self._finished(), 0)
        return {
            "running": str(self._running),
            "done": f"{self._finished()} of {self._wanted}",
            "pruned": str(self._counts["PRUNED"]),
            "failed": str(self._counts["FAIL"]),
            "best": self._best,
            "elapsed": _duration(seconds),
            "trials an hour": f"{pace:.0f}" if here else "",
            "left": _duration(left / pace * 3600) if here and left else "",
        }

    def _table(self) -> Table:
        table = Table(title=f"study {self._name}")
        facts = self._facts()
        for name in facts:
            table.add_column(name, justify="right")
        table.add_row(*(value or "-" for value in facts.values()))
        return table


def _state(trial: FrozenTrial) -> str:
    """Return the trial's state; one that the user ended has not failed."""
    ended = trial.state is TrialState.FAIL and trial.user_attrs.get(FAIL_REASON) == INTERRUPTED
    return _INTERRUPTED if ended else trial.state.name


def _value(trial: FrozenTrial) -> str:
    """Return the best value, with the interval of its mean if the job has told one."""
    text = ", ".join(f"{value:.4g}" for value in trial.values or ())
    interval: Any = trial.user_attrs.get("interval")
    if interval is not None:
        text += f", mean in [{interval[0]:.4g}, {interval[1]:.4g}]"
    return f"{text} (trial {trial.number})"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
