"""`task=decide`: bars in, decisions out, one line each, so that any language can drive it."""

import io
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TextIO, cast

from ppo_workbench.config import AccountSource, BarsError, Config, ConfigError, LineFormat
from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.decider_state import DeciderState
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.live.account import SimulatedAccount
from ppo_workbench.delivery.live.lines import Line, read_csv_lines, read_json_lines
from ppo_workbench.delivery.messages import Decision
from ppo_workbench.market.calendars.exchange import check_timezone
from ppo_workbench.market.reader.conventions import conventions_of
from ppo_workbench.market.reader.rows import RowReader
from ppo_workbench.pipeline.models.held_interrupt import HeldInterrupt
from ppo_workbench.pipeline.models.stored import named_artifact

STANDARD = "-"
SAVE_SECONDS = 1.0
_ESCAPE = "surrogateescape"  # a line that is not UTF-8 is refused by its number, not by a chunk


def decide(config: Config) -> int:
    """Answer every line of `decide.input` with a decision; return how many there were.

    Raises:
        ConfigError: A file or format cannot be used.
        ArtifactError: `decide.state` is another model's, or damaged.
        BarsError: A line cannot be read; what came before it is answered.
        KeyboardInterrupt: The user ended it; its text says what is kept.
    """
    check_files(config)
    count = 0
    try:
        artifact = load_artifact(*named_artifact(config))
        decider = Decider(artifact, events_path=config.data.events_path)
        given = config.decide.account is AccountSource.given
        simulated = None if given else SimulatedAccount(decider)
        reader = row_reader(config, decider)
        memory = _Memory(config.decide.state, decider, simulated, reader)
        with HeldInterrupt() as held, ExitStack() as files:
            source = open_text(config.decide.input, "input", files)
            lines = input_lines(config, source, decider, reader)
            mode = "a" if memory.restored else "w"  # going on, what was decided before stays
            target = open_text(config.decide.output, "output", files, mode)
            files.callback(_save_whole, memory, held)
            for decision in answers(decider, lines, simulated, held):
                target.write(decision.line() + "\n")
                target.flush()  # whoever drives us waits for it
                count += 1
                memory.save(SAVE_SECONDS)
    except BrokenPipeError:  # the reader has seen enough
        sys.stdout = None  # nothing to flush at exit
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(config.decide.state)) from None
    return count


def _interrupted(state: str | None) -> str:
    """Say what is kept, without a number: the interrupt may come between a line and its count."""
    kept = f", and so does decide.state={state}" if state and Path(state).exists() else ""
    return f"interrupted: the decisions written so far stay{kept}"


def go_on(decider: Decider, simulated: SimulatedAccount | None, state: DeciderState) -> None:
    """Go on from a state; from that of another model with its account, and with no market.

    Raises:
        ArtifactError: It is damaged, another version's, or of the other kind of account.
    """
    owner = simulated or decider
    if state.belongs_to(decider.artifact):
        owner.restore(state)
        return
    name = decider.artifact.metadata.name
    print(f"note: the state is of another model; {name} takes its account over", file=sys.stderr)
    owner.take_over(state)


def save_state(state: DeciderState, path: Path) -> None:
    """Write `decide.state`.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        state.save(path)
    except OSError as error:
        raise ConfigError(
            f"decide.state={path}: cannot be written ({error.strerror}); name another file"
        ) from None


class _Memory:
    """The file `decide.state`: what a restart goes on from."""

    def __init__(
        self,
        path: str | None,
        decider: Decider,
        simulated: SimulatedAccount | None,
        reader: RowReader,
    ) -> None:
        self._path, self._reader = None if path is None else Path(path), reader
        self._owner, self._saved = simulated or decider, time.monotonic()
        if self._path is not None and self._path.is_dir():
            raise ConfigError(f"decide.state={path}: is a folder; name a file")
        self.restored = self._path is not None and self._path.exists()
        if self._path is not None and self.restored:
            state = DeciderState.load(self._path)
            go_on(decider, simulated, state)
            if rows := state.document.get("rows"):
                reader.restore(rows)
        else:
            self.save()  # a file that cannot be written is told before the first decision

    def save(self, not_within: float = 0.0) -> None:
        """Write the file, unless it was written so many seconds ago.

        Raises:
            ConfigError: It cannot be written.
        """
        if self._path is None or time.monotonic() - self._saved < not_within:
            return
        state = self._owner.state()
        state.document["rows"] = plain(asdict(self._reader.memory))
        save_state(state, self._path)
        self._saved = time.monotonic()


def _save_whole(memory: _Memory, held: HeldInterrupt) -> None:
    """Save at the end, unless a second Ctrl-C left the last bar half taken."""
    if not held.torn:
        memory.save()


def answers(
    decider: Decider,
    lines: Iterable[Line],
    simulated: SimulatedAccount | None,
    held: HeldInterrupt,
) -> Iterator[Decision]:
    """Decide on each line as it comes.

    Args:
        decider: At the beginning of history its first answers are no decisions.
        lines: Bars and moments of the clock.
        simulated: The account, None where lines bring it.
        held: Lets Ctrl-C in between two lines alone, so that what is remembered then is what
            follows from whole lines.

    Raises:
        BarsError: An account is lacking, or given where it is simulated.
    """
    for line in lines:
        if (simulated is None) is (line.account is None):
            lacks = line.account is None
            here, there = ("given", "simulated") if lacks else ("simulated", "given")
            raise BarsError(
                f"input line {line.number}: has {'no' if lacks else 'an'} account, but "
                f"decide.account={here}; write decide.account={there}"
            )
        with held.piece():
            decision = answer(decider, line, simulated)
        yield decision


def answer(decider: Decider, line: Line, simulated: SimulatedAccount | None) -> Decision:
    """Decide on one line; a simulated account carries the decision out."""
    if line.bar is None:
        account = line.account if simulated is None else simulated.account()
        assert line.clock is not None
        assert account is not None
        return decider.on_clock(line.clock, account)
    if simulated is None:
        assert line.account is not None
        return decider.decide(line.bar, line.account)
    decision = decider.decide(line.bar, simulated.step(line.bar))
    simulated.take(decision)
    return decision


def row_reader(config: Config, decider: Decider) -> RowReader:
    """Return what reads rows as the model's bars are written, or as the command says."""
    data = decider.artifact.metadata.data
    own = data.conventions or conventions_of(
        config.data,
        calendar=data.calendar,
        bar_seconds=data.bar_seconds,
        feature_columns=decider.market.extra_names,
        feature_lag_bars=0,
    )
    if config.data.timezone is not None:
        check_timezone(config.data.timezone)
    return RowReader(own.said(config.data))


def input_lines(
    config: Config, source: Iterable[str], decider: Decider, reader: RowReader
) -> Iterator[Line]:
    """Read `decide.input` as bars and moments of the clock.

    Raises:
        ConfigError: Settings contradict each other.
    """
    is_csv = config.decide.input.lower().endswith(".csv")
    chosen = config.decide.format or (LineFormat.csv if is_csv else LineFormat.jsonl)
    if chosen is LineFormat.jsonl:
        return read_json_lines(source, reader)
    if config.decide.account is AccountSource.given:
        raise ConfigError(
            "decide.account=given: a CSV line holds a bar alone, write decide.format=jsonl"
        )
    if decider.needs_events:
        raise ConfigError(
            f"artifact={config.artifact}: was trained with listed events, which a CSV line does "
            "not tell; write data.events_path=FILE (columns time, kind)"
        )
    return read_csv_lines(source, reader)


def check_files(config: Config) -> None:
    """Refuse to write over what is read, or one output over the other.

    Raises:
        ConfigError: Two keys name one file, by whatever path or link.
    """
    own = config.decide
    named = {
        "decide.input": own.input,
        "data.events_path": config.data.events_path,
        "decide.output": own.output,
        "decide.state": own.state,
    }
    paths = [(key, Path(path)) for key, path in named.items() if path and path != STANDARD]
    for i, (key, path) in enumerate(paths):
        if key == "decide.output" and own.input == STANDARD and _is_standard_input(path):
            raise ConfigError(f"{key}={path}: is standard input too; name another file")
        for other, read in paths[:i]:
            if key in ("decide.output", "decide.state") and _same_file(path, read):
                raise ConfigError(f"{key}={path}: is the file of {other} too; name another file")


def _same_file(one: Path, other: Path) -> bool:
    if one.is_file() and other.is_file():  # devices may well be read and written
        return one.samefile(other)
    return not one.exists() and one.resolve() == other.resolve()


def _is_standard_input(path: Path) -> bool:
    with suppress(OSError, ValueError, AttributeError):  # standard input may be no file at all
        return path.is_file() and os.path.samestat(os.fstat(sys.stdin.fileno()), path.stat())
    return False


def open_text(path: str, key: str, files: ExitStack, mode: str = "w") -> TextIO:
    """Open a file, or take standard input or output, to be closed with `files`.

    Raises:
        ConfigError: It cannot be opened.
    """
    if path == STANDARD:
        if key == "input" and isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors=_ESCAPE)
        return sys.stdin if key == "input" else sys.stdout
    try:
        if key == "input":
            return files.enter_context(
                Path(path).open(encoding="utf-8-sig", errors=_ESCAPE, newline="")
            )
        return cast(TextIO, files.enter_context(Path(path).open(mode, encoding="utf-8")))
    except OSError as error:
        raise ConfigError(
            f"decide.{key}={path}: cannot be opened ({error.strerror}); name another file, or - "
            f"for standard {key}"
        ) from None
