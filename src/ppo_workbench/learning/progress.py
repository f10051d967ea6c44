"""The console: banner, choices and live training progress.

On a terminal the progress is a live view, elsewhere plain lines.  Whatever is printed
also goes to a plain-text log, so that a run can keep it as an artefact.
"""

import io
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ppo_workbench.config.secrets import Redactor

PLAIN_INTERVAL_SECONDS = 10.0
LOG_WIDTH = 120
_BAR_WIDTH = 30

BANNERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "maskable_ppo": (
            "⭐ PRIMARY FOCUS MODEL: MaskablePPO",
            "🎭 action masking: forbidden trades cannot be chosen, in training or live",
            "🛡️ risk management: capital, session, loss and volatility rules as masks",
        ),
        "ppo": (
            "📊 comparison model: standard PPO",
            "   same market, rules and reward, no masks: what MaskablePPO is measured against",
        ),
    }
)


@dataclass(frozen=True)
class ProgressState:
    """Where a training run stands; None = not known, not limited or not yet evaluated.

    Attributes:
        elapsed_seconds: Since the start of learning.
        budget_seconds: Limit in time.
        timesteps: Decisions taken in training.
        total_timesteps: Limit in decisions.
        planned_timesteps: What the budget comes to in decisions, as far as is known.
        episodes: Finished training episodes.
        steps_per_second: Recent or mean training speed.
        passes: Passes over the training bars so far.
        episode_reward: Mean reward of the recent episodes.
        validation_sharpe: Annual Sharpe ratio of the last evaluation.
        validation_max_drawdown_frac: Its maximum drawdown.
        blocked: Share of decisions at which each rule blocked an action.
        total_episodes: Limit in episodes.
        evaluations: Evaluations so far; each new one is printed at once.
    """

    elapsed_seconds: float
    budget_seconds: float | None
    timesteps: int
    total_timesteps: int | None
    episodes: int
    steps_per_second: float
    passes: float
    episode_reward: float | None = None
    validation_sharpe: float | None = None
    validation_max_drawdown_frac: float | None = None
    blocked: Mapping[str, float] = field(default_factory=dict)
    total_episodes: int | None = None
    evaluations: int = 0
    planned_timesteps: int | None = None

    def done_frac(self) -> float | None:
        """Return the used share of the budget that ends first, or None without a limit."""
        shares = [done / limit for done, limit in self._limits()]
        return min(max(shares), 1.0) if shares else None

    def seconds_left(self) -> float | None:
        """Estimate the time until the first limit, or None while that cannot be known."""
        left = []
        if self.budget_seconds is not None:
            left.append(self.budget_seconds - self.elapsed_seconds)
        if self.total_timesteps is not None and self.steps_per_second > 0:
            left.append((self.total_timesteps - self.timesteps) / self.steps_per_second)
        if self.total_episodes is not None and self.episodes > 0:
            per_episode = self.elapsed_seconds / self.episodes
            left.append((self.total_episodes - self.episodes) * per_episode)
        return max(min(left), 0.0) if left else None

    def _limits(self) -> list[tuple[float, float]]:
        pairs = (
            (self.elapsed_seconds, self.budget_seconds),
            (float(self.timesteps), self.total_timesteps),
            (float(self.episodes), self.total_episodes),
        )
        return [(done, float(limit)) for done, limit in pairs if limit is not None]


class WorkbenchConsole:
    """Prints to a stream and keeps the same text, plain, for the record.

    Args:
        stream: Where to print, default the standard output of the moment.
        width: Columns, default those of the terminal (80 where there is none).
    """

    def __init__(self, stream: TextIO | None = None, width: int | None = None) -> None:
        """Open the console; characters that the stream cannot encode become `?`."""
        self._stream = sys.stdout if stream is None else stream
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors="replace")
        self.screen = Console(file=self._stream, width=width, highlight=False)
        self._log_text = io.StringIO()
        self._log = Console(
            file=self._log_text,
            width=LOG_WIDTH,
            no_color=True,
            force_terminal=False,
            force_jupyter=False,
            highlight=False,
            color_system=None,
        )

    @property
    def is_live(self) -> bool:
        """Whether the stream is a terminal that can redraw lines.

        Asks the stream, not rich: FORCE_COLOR colours a file but must not animate it.
        """
        return self._stream.isatty() and not self.screen.is_dumb_terminal

    @property
    def log_text(self) -> str:
        """Everything printed so far as plain text."""
        return "".join(line.rstrip() + "\n" for line in self._log_text.getvalue().splitlines())

    def show(self, content: RenderableType = "", *, wrap: bool = True) -> None:
        """Print text or a rich renderable to screen and log; strings are taken literally."""
        for console in (self.screen, self._log):
            console.print(content, markup=False, emoji=False, soft_wrap=not wrap)

    def log_only(self, line: str) -> None:
        """Put a line into the log that the screen shows in another form."""
        self._log.print(line, markup=False, emoji=False, soft_wrap=True)

    def show_banner(self, model_type: str) -> None:
        """Print what is trained, the model type first."""
        first, *rest = BANNERS.get(model_type, (f"model: {model_type}",))
        self.show(Text(first, style="bold"))
        for line in rest:
            self.show(Text(line))
        self.show()

    def show_choices(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print the resolved choices as aligned name and value."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(Text(name), Text(value))
        self.show(table)
        self.show()

    def show_next(self, commands: Iterable[tuple[str, str]]) -> None:
        """Print what to do next: (purpose, whole command) as lines that can be copied."""
        self.show()
        for line in next_lines(commands):
            self.show(line, wrap=False)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show on a terminal, while nothing else moves, that this goes on."""
        if not self.is_live:
            yield
            return
        with self.screen.status(Text(f"{what} ..."), spinner="line"):
            yield

    def training_progress(self) -> "PlainProgress | LiveProgress":
        """Return the progress view that suits the stream; it may be stopped twice."""
        return LiveProgress(self) if self.is_live else PlainProgress(self)


class PlainProgress:
    """One line an update: at most every ten seconds of training, and at each evaluation.

    Args:
        console: Where to print.
        log_only: Write to the log and leave the screen to a live view.
    """

    def __init__(self, console: WorkbenchConsole, *, log_only: bool = False) -> None:
        """Prepare; nothing is printed before `start`."""
        self._console = console
        self._log_only = log_only
        self._printed: ProgressState | None = None
        self._last: ProgressState | None = None

    def start(self, budget_text: str) -> None:
        """Print the budget."""
        self._write(f"training: {budget_text}")

    def update(self, state: ProgressState) -> None:
        """Print the state if it is due."""
        self._last = state
        before = self._printed
        if (
            before is None
            or _evaluation(before) != _evaluation(state)
            or before.planned_timesteps != state.planned_timesteps
            or (state.elapsed_seconds - before.elapsed_seconds >= PLAIN_INTERVAL_SECONDS)
        ):
            self._print(state)

    def stop(self) -> None:
        """Print the last state if it has not been."""
        if self._last is not None and self._last is not self._printed:
            self._print(self._last)

    def _print(self, state: ProgressState) -> None:
        self._printed = state
        self._write(plain_line(state))

    def _write(self, line: str) -> None:
        if self._log_only:
            self._console.log_only(line)
        else:
            self._console.show(line, wrap=False)


class LiveProgress:
    """A view that redraws itself four times a second; the clock runs on between updates."""

    def __init__(self, console: WorkbenchConsole) -> None:
        """Prepare; nothing is drawn before `start`."""
        self._log = PlainProgress(console, log_only=True)
        self._screen = console.screen
        self._live: Live | None = None
        self._state: ProgressState | None = None
        self._updated_at = 0.0
        self._budget_text = ""

    def start(self, budget_text: str) -> None:
        """Begin to draw."""
        self._budget_text = budget_text
        self._log.start(budget_text)
        self._updated_at = monotonic()
        self._live = Live(get_renderable=self._view, console=self._screen, refresh_per_second=4)
        self._live.start()

    def update(self, state: ProgressState) -> None:
        """Replace the state that is drawn."""
        self._state, self._updated_at = state, monotonic()
        self._log.update(state)

    def stop(self) -> None:
        """Draw the last state once more and leave it on the screen."""
        self._updated_at = monotonic()
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._log.stop()

    def _view(self) -> RenderableType:
        if self._state is None:
            return Text(f"training: {self._budget_text}, starting ...")
        return live_view(self._state, monotonic() - self._updated_at)


def live_view(state: ProgressState, since_update: float = 0.0) -> RenderableType:
    """Return the lines of the live view, at most 80 columns wide.

    Args:
        state: The last state told.
        since_update: Seconds since then, added to the clock.
    """
    elapsed = state.elapsed_seconds + since_update
    done, left = state.done_frac(), state.seconds_left()
    clock = f"{_clock(elapsed)} elapsed"
    if left is not None:
        clock += f", {_clock(max(left - since_update, 0.0))} left"
    bar = ProgressBar(total=None if done is None else 1.0, completed=done or 0.0, width=_BAR_WIDTH)
    head = Table.grid(padding=(0, 2))
    head.add_row(Text("training"), bar, Text("" if done is None else f"{done:.0%}"), Text(clock))
    return Group(
        head, *(Text("  " + line, overflow="ellipsis", no_wrap=True) for line in _details(state))
    )


def plain_line(state: ProgressState) -> str:
    """Return a state as one line."""
    done, left = state.done_frac(), state.seconds_left()
    parts = [_clock(state.elapsed_seconds)]
    if done is not None:
        parts[0] += f" ({done:.0%})"
    if left is not None:
        parts.append(f"{_clock(left)} left")
    parts.append(f"{_steps(state)} steps, {state.steps_per_second:,.0f}/s")
    parts.append(f"{state.passes:.1f} passes")
    if state.episode_reward is not None:
        parts.append(f"episode reward {state.episode_reward:+.2f}")
    if state.validation_sharpe is not None:
        parts.append(f"validation {_validation(state)}")
    if state.blocked:
        parts.append(f"blocked: {_blocked(state)}")
    return " | ".join(parts)


def _details(state: ProgressState) -> list[str]:
    steps = _steps(state)
    episodes = f"{state.episodes:,}"
    if state.total_episodes is not None:
        episodes += f" of {state.total_episodes:,}"
    reward = "-" if state.episode_reward is None else f"{state.episode_reward:+.2f}"
    validation = "not evaluated yet" if state.validation_sharpe is None else _validation(state)
    speed = f"{state.steps_per_second:,.0f}/s, {state.passes:.1f} passes over the bars"
    return [
        f"steps       {steps}, {speed}",
        f"episodes    {episodes}, mean reward {reward}",
        f"validation  {validation}",
        f"masks block {_blocked(state) or 'nothing'}",
    ]


def _steps(state: ProgressState) -> str:
    planned = state.planned_timesteps or state.total_timesteps
    return f"{state.timesteps:,}" + ("" if planned is None else f" of {planned:,}")


def _validation(state: ProgressState) -> str:
    text = f"Sharpe {state.validation_sharpe:+.2f}"
    if state.validation_max_drawdown_frac is not None:
        text += f", drawdown {state.validation_max_drawdown_frac:.1%}"
    return text


def _blocked(state: ProgressState) -> str:
    """Name the three most active rules."""
    top = sorted(state.blocked.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {share:.1%}" for name, share in top if share > 0)


def _evaluation(state: ProgressState) -> tuple[int, float | None, float | None]:
    return state.evaluations, state.validation_sharpe, state.validation_max_drawdown_frac


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def command_line(overrides: Sequence[str]) -> str:
    """Return the whole command with these flags and overrides, to be copied; without secrets."""
    return Redactor(*overrides)(f"python -m ppo_workbench {shlex.join(overrides)}")


def next_lines(commands: Iterable[tuple[str, str]]) -> list[str]:
    """Return (purpose, whole command) as lines; the purpose is a comment of the shell."""
    return ["next:", *(f"  {command}  # {purpose}" for purpose, command in commands)]
