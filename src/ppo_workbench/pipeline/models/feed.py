"""`task=paper decide.state=FILE`: paper trading over a feed that lasts, one decision a bar.

The state is written first, the decision after it, and the state holds both: after SIGKILL at
any moment the next start writes the decision that is lacking and goes on with the next bar.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from ppo_workbench.config import AccountSource, ArtifactError, Config, ConfigError
from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.decider_state import DeciderState, PaperDocument, StateDocument
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.live.account import SimulatedAccount
from ppo_workbench.delivery.messages import Decision, Status
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.market.reader.rows import RowReader
from ppo_workbench.pipeline.models.deciding import (
    STANDARD,
    answer,
    check_files,
    go_on,
    input_lines,
    open_text,
    row_reader,
    save_state,
)
from ppo_workbench.pipeline.models.held_interrupt import HeldInterrupt
from ppo_workbench.pipeline.models.stored import named_artifact
from ppo_workbench.pipeline.models.view import paper_view

POLL_SECONDS = 0.2


def paper_feed(config: Config, console: WorkbenchConsole | None = None) -> int:
    """Decide on every bar of `decide.input` until it ends or Ctrl-C; return how many now.

    A file is followed as it grows, standard input until it is closed.

    Raises:
        ConfigError: A file cannot be used.
        ArtifactError: `decide.state` is damaged.
        BarsError: A line cannot be read; what came before it is decided.
    """
    console, own = console or WorkbenchConsole(), config.decide
    check_files(config)
    if own.state is None or own.output == STANDARD or own.account is AccountSource.given:
        raise ConfigError(
            f"task=paper decide.state={own.state}: wants decide.output=FILE and "
            "decide.account=simulated, so that no decision is lost or comes twice"
        )
    decider = Decider(load_artifact(*named_artifact(config)), events_path=config.data.events_path)
    account, growing = SimulatedAccount(decider), own.input != STANDARD
    reader = row_reader(config, decider)
    journal = _Journal(Path(own.state), Path(own.output), account, reader, growing)
    count = 0
    try:
        with HeldInterrupt() as held, ExitStack() as files, paper_view(console, None) as view:
            source = open_text(own.input, "input", files)
            lines = input_lines(config, _growing(source) if growing else source, decider, reader)
            for line in lines:
                if line.bar is None or (growing and line.number <= journal.line):
                    continue
                with held.piece():
                    taken = decider.market.taken
                    decision = answer(decider, line, account)
                    if journal.knows(decision, new=decider.market.taken > taken):
                        continue
                    journal.add(decision, line.number if growing else 0)
                count += 1
                view.update(count, line.bar, decision, account.record)
    except KeyboardInterrupt:
        console.show(f"interrupted: {own.output} and {own.state} are whole; start again to go on")
    return count


def _growing(file: TextIO) -> Iterator[str]:
    """Yield whole lines as they come, for ever."""
    part = ""
    while True:
        part += file.readline()
        if part.endswith("\n"):
            yield part
            part = ""
        else:
            time.sleep(POLL_SECONDS)


class _Journal:
    """State and decisions on disk, each decision once.

    Attributes:
        line: Number of the last line of a file that was answered.
    """

    def __init__(
        self,
        state: Path,
        output: Path,
        account: SimulatedAccount,
        reader: RowReader,
        growing: bool,
    ) -> None:
        """Go on from the files, if they are there; a growing file is read from its begin."""
        self._state, self._output, self._account = state, output, account
        self._reader, self._growing = reader, growing
        self.line, self._size, self._text = 0, 0, ""
        if state.exists():
            self._go_on()
        elif output.exists() and output.stat().st_size:
            raise ConfigError(
                f"decide.output={output}: holds decisions, but decide.state={state} is not there; "
                "name another file"
            )
        else:
            self._save()
        self._write()

    def _go_on(self) -> None:
        stored = DeciderState.load(self._state)
        go_on(self._account.decider, self._account, stored)
        if not self._growing and (rows := stored.document.get("rows")):
            self._reader.restore(rows)
        try:
            own = stored.document["paper"]
            self.line, self._size = int(own["line"]), int(own["size"])
            self._text = str(own["text"])
        except (KeyError, TypeError, ValueError):
            raise ArtifactError(
                f"decide.state={self._state}: is not of task=paper; name another file"
            ) from None
        if self._size > (self._output.stat().st_size if self._output.exists() else 0):
            raise ConfigError(
                f"decide.output={self._output}: is shorter than decide.state={self._state} says; "
                "name the file that belongs to it"
            )

    def knows(self, decision: Decision, new: bool) -> bool:
        """Return whether a decision was written already, or is none."""
        repeated = decision.taken and not new
        return repeated or decision.status is Status.ignored or _line(decision) == self._text

    def add(self, decision: Decision, line: int) -> None:
        """Keep the state after a decision, then write the decision."""
        self._size += len(self._text.encode())
        self.line, self._text = line, _line(decision)
        self._save()
        self._write()

    def _save(self) -> None:
        state = self._account.state()
        own: PaperDocument = {"line": self.line, "size": self._size, "text": self._text}
        rows = plain(asdict(self._reader.memory))
        document: StateDocument = {**state.document, "rows": rows, "paper": own}
        save_state(DeciderState(state.arrays, document), self._state)

    def _write(self) -> None:
        """Let the output end with the last decision, whatever was written of it."""
        try:
            with self._output.open("ab") as file:
                if file.tell() != self._size + len(self._text.encode()):
                    file.truncate(self._size)
                    file.write(self._text.encode())
        except OSError as error:
            raise ConfigError(
                f"decide.output={self._output}: cannot be written ({error.strerror}); name "
                "another file"
            ) from None


def _line(decision: Decision) -> str:
    return decision.line() + "\n"
