"""What paper trading looks like: a live view on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ppo_workbench.delivery.messages import Bar, Decision
from ppo_workbench.learning.progress import PLAIN_INTERVAL_SECONDS, WorkbenchConsole

_REDRAWS_PER_SECOND = 4
_BAR_WIDTH = 30


class PaperView:
    """Keeps the last bar and its decision; what is drawn and how often depends on the stream."""

    def __init__(self, console: WorkbenchConsole, total: int | None) -> None:
        """Prepare.

        Args:
            console: Where to print.
            total: Decisions that will be made, None where nobody knows.
        """
        self._console, self._total = console, total
        self._began = self._printed = monotonic()
        self._last: tuple[int, Bar, Decision, Any] | None = None

    def update(self, done: int, bar: Bar, decision: Decision, record: Any) -> None:
        """Show a decision.

        Args:
            done: Decisions so far.
            bar: The bar decided on.
            decision: What was decided.
            record: One row of `ACCOUNT_DTYPE`, at the bar's close.
        """
        self._last = done, bar, decision, record
        now = monotonic()
        if not self._console.is_live and now - self._printed >= PLAIN_INTERVAL_SECONDS:
            self._printed = now
            self._console.show(self.line(), wrap=False)

    def facts(self) -> list[tuple[str, str]]:
        """Return what there is to see, as names and values; empty before the first bar."""
        if self._last is None:
            return []
        done, bar, decision, record = self._last
        equity, peak = float(record["equity"]), float(record["episode_peak"])
        exposure = float(record["shares"]) * float(bar.close or 0.0) / equity if equity else 0.0
        forbidden = [f"{name} ({', '.join(rules)})" for name, rules in decision.blocked_by.items()]
        of = "" if self._total is None else f" of {self._total:,}"
        speed = done / max(monotonic() - self._began, 1e-9)
        return [
            ("bar", f"{done:,}{of}, {speed:,.0f} a second"),
            ("time", f"{bar.start:%Y-%m-%d %H:%M} UTC"),
            ("close", f"{bar.close:,.2f}"),
            ("position", f"{record['shares']:,g} shares, exposure {exposure:+.2f}"),
            ("equity", f"{equity:,.2f}, {equity / peak - 1:+.2%} from its peak"),
            ("decision", decision.action or f"{decision.status.value}: {decision.reason}"),
            ("regime", decision.regime or "-"),
            ("forbidden", "; ".join(forbidden) or "nothing"),
        ]

    def line(self) -> str:
        """Return the facts as one line."""
        return "paper: " + " | ".join(f"{name} {value}" for name, value in self.facts())

    def draw(self) -> Table:
        """Return the facts as a table under a progress bar."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        done = self._last[0] if self._last else 0
        table.add_row("paper", ProgressBar(self._total, done, width=_BAR_WIDTH))
        for name, value in self.facts():
            table.add_row(Text(name), Text(value))
        return table


@contextmanager
def paper_view(console: WorkbenchConsole, total: int | None) -> Iterator[PaperView]:
    """Show paper trading while it lasts, and leave its last state on the screen."""
    view = PaperView(console, total)
    if console.is_live:
        with Live(
            get_renderable=view.draw,
            console=console.screen,
            refresh_per_second=_REDRAWS_PER_SECOND,
        ):
            yield view
        console.log_only(view.line())
    else:
        yield view
        console.show(view.line(), wrap=False)
