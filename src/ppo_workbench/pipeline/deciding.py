"""`task=decide`: bars in, decisions out, one line each, so that any language can drive it."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from ppo_workbench.config import AccountSource, BarsError, Config, ConfigError, LineFormat
from ppo_workbench.delivery.artifact import Artifact, load_artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.lines import Line, read_csv_lines, read_json_lines
from ppo_workbench.delivery.messages import Decision
from ppo_workbench.delivery.simulated_account import SimulatedAccount
from ppo_workbench.market.calendar import check_timezone
from ppo_workbench.pipeline.stored import find_artifact

STANDARD = "-"


def stored_artifact(config: Config) -> Artifact:
    """Load the model that `artifact` names.

    Raises:
        ConfigError: None is named, or there is no such model.
        ArtifactError: It is damaged.
    """
    if config.artifact is None:
        raise ConfigError("artifact: a value is needed, write artifact=NAME")
    return load_artifact(*find_artifact(config.artifact))


def decide(config: Config) -> int:
    """Answer every line of `decide.input` with a decision; return how many there were.

    Raises:
        ConfigError: A file or format cannot be used.
        BarsError: A line cannot be read; what came before it is answered.
    """
    decider = Decider(stored_artifact(config))
    count = 0
    with ExitStack() as files:
        source = _open(config.decide.input, "input", files)
        target = _open(config.decide.output, "output", files)
        lines = _lines(config, source, decider.market.extra_names)
        try:
            for decision in answers(decider, lines, config.decide.account):
                target.write(decision.line() + "\n")
                target.flush()  # whoever drives us waits for it
                count += 1
        except BrokenPipeError:  # the reader has seen enough
            sys.stdout = None  # nothing to flush at exit
    return count


def answers(decider: Decider, lines: Iterable[Line], account: AccountSource) -> Iterator[Decision]:
    """Decide on each line as it comes.

    Args:
        decider: Starts at the beginning of history: its first answers are no decisions.
        lines: Bars and moments of the clock.
        account: Whether lines bring the account or it is simulated.

    Raises:
        BarsError: An account is lacking, or given where it is simulated.
    """
    simulated = SimulatedAccount(decider) if account is AccountSource.simulated else None
    for line in lines:
        if (simulated is None and line.account is None) or (simulated and line.account):
            raise BarsError(
                f"input line {line.number}: has {'no' if line.account is None else 'an'} account, "
                f"but decide.account={account.value}; write decide.account="
                f"{'simulated' if line.account is None else 'given'}"
            )
        yield _answer(decider, line, simulated)


def _answer(decider: Decider, line: Line, simulated: SimulatedAccount | None) -> Decision:
    if simulated is not None:
        if line.bar is None:
            assert line.clock is not None
            return decider.on_clock(line.clock, simulated.account())
        decision = decider.decide(line.bar, simulated.step(line.bar))
        simulated.take(decision)
        return decision
    assert line.account is not None
    if line.bar is not None:
        return decider.decide(line.bar, line.account)
    assert line.clock is not None
    return decider.on_clock(line.clock, line.account)


def _lines(config: Config, source: TextIO, feature_names: Iterable[str]) -> Iterator[Line]:
    is_csv = config.decide.input.lower().endswith(".csv")
    chosen = config.decide.format or (LineFormat.csv if is_csv else LineFormat.jsonl)
    if chosen is LineFormat.jsonl:
        return read_json_lines(source)
    if config.decide.account is AccountSource.given:
        raise ConfigError(
            "decide.account=given: a CSV line holds a bar alone, write decide.format=jsonl"
        )
    if config.data.timezone is not None:
        check_timezone(config.data.timezone)
    return read_csv_lines(source, config.data.columns, config.data.timezone, feature_names)


def _open(path: str, key: str, files: ExitStack) -> TextIO:
    if path == STANDARD:
        return sys.stdin if key == "input" else sys.stdout
    try:
        if key == "input":
            return files.enter_context(Path(path).open(encoding="utf-8-sig", newline=""))
        return files.enter_context(Path(path).open("w", encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"decide.{key}={path}: cannot be opened ({error.strerror}); name another file, or - "
            f"for standard {key}"
        ) from None
