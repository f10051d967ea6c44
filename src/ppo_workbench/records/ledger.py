"""The ledger of test openings: no record, no access (DESIGN rule 4).

Every look at a test split is appended to `mlruns/test_openings.jsonl` and synced to disk
before the caller may read a single test bar.  Looks are counted by instrument and
overlapping dates, not by file or fingerprint: a re-export of the same days is the same test.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from ppo_workbench.config import WorkbenchError

LOCK_SECONDS = 60.0


class LedgerError(WorkbenchError):
    """The opening of a test split cannot be recorded, so the test stays closed."""


@dataclass(frozen=True)
class Opening:
    """One look at a test split.

    Attributes:
        start: First bar looked at, ISO 8601; without an offset it counts as UTC.
        stop: Last bar looked at; a bare date means to the end of that day.
        looks: How many looks, this one included, the ledger then held at this instrument in
            overlapping dates.  1 means that the test was never opened before.
        look: Identity of a look that many processes share, such as the cells of one
            comparison; empty for a look of one process.
    """

    instrument: str
    start: str
    stop: str
    fingerprint: str
    why: str
    opened_utc: str
    looks: int
    look: str = ""


def ledger_path(home: Path) -> Path:
    """Return the file of the ledger under the workbench's home folder."""
    return home / "mlruns" / "test_openings.jsonl"


def open_test(
    home: Path,
    instrument: str,
    start_iso: str,
    stop_iso: str,
    fingerprint: str,
    why: str,
    look: str = "",
) -> Opening:
    """Record a look at the test split; only after this returns may its bars be read.

    Args:
        home: Folder that holds `mlruns/`.
        instrument: Compared without regard to case.
        start_iso: First bar or day of the test split, ISO 8601.
        stop_iso: Last bar or day of the test split, ISO 8601.
        fingerprint: SHA-256 of the bars.
        why: What the look is for, such as "promotion of maskable_v1".
        look: Identity of a look that many processes share: the first records it, and the
            others, with equal bars and dates, get what it recorded.

    Returns:
        The recorded opening with the number of looks so far, this one included.

    Raises:
        LedgerError: A field is empty or no date, an older line is damaged, or the record
            cannot be written and synced.  The test must then stay closed.
    """
    for field, value in (("instrument", instrument), ("fingerprint", fingerprint), ("why", why)):
        if not value.strip():
            raise LedgerError(f"{field} is empty: an opening of the test names it; pass it")
    span = _span(start_iso, stop_iso)
    path = ledger_path(home)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            earlier = past_openings(home)
            same = (look, start_iso, stop_iso, fingerprint)
            shared = [
                o for o in earlier if look and (o.look, o.start, o.stop, o.fingerprint) == same
            ]
            if shared:
                return shared[0]
            opening = Opening(
                instrument=instrument,
                start=start_iso,
                stop=stop_iso,
                fingerprint=fingerprint,
                why=why,
                opened_utc=datetime.now(UTC).isoformat(timespec="seconds"),
                looks=1 + len(_looks(earlier, instrument, span) - {look}),
                look=look,
            )
            _append(path, opening)
    except (OSError, Timeout) as error:
        raise LedgerError(
            f"{path}: the opening of the test cannot be recorded ({error}), so the test stays "
            "closed; make the folder writable"
        ) from error
    return opening


def past_openings(home: Path) -> list[Opening]:
    """Return all recorded openings, oldest first.

    Raises:
        LedgerError: A line is no record.  Counting on would understate the looks.
    """
    path = ledger_path(home)
    if not path.exists():
        return []
    openings = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            opening = Opening(**json.loads(line))
            _span(opening.start, opening.stop)
        except (ValueError, TypeError, AttributeError, LedgerError):
            raise LedgerError(
                f"{path} line {number} is no record of an opening; restore the file from a copy"
            ) from None
        openings.append(opening)
    return openings


def _append(path: Path, opening: Opening) -> None:
    """Append one line and sync the file and its folder entry."""
    line = (json.dumps(asdict(opening)) + "\n").encode()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # an editor may have dropped the last line's end
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError("the disk took only a part of the record")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _looks(
    earlier: Sequence[Opening], instrument: str, span: tuple[datetime, datetime]
) -> set[str]:
    """Return the identities of looks at a test; the folds of one comparison are one look."""
    return {
        old.look or f"line {number}"
        for number, old in enumerate(earlier)
        if _same_test(old, instrument, span)
    }


def _same_test(old: Opening, instrument: str, span: tuple[datetime, datetime]) -> bool:
    start, stop = _span(old.start, old.stop)
    return old.instrument.casefold() == instrument.casefold() and (
        start <= span[1] and span[0] <= stop
    )


def _span(start_iso: str, stop_iso: str) -> tuple[datetime, datetime]:
    """Parse a closed range; a bare date as stop includes its whole day."""
    try:
        start, stop = (_utc(datetime.fromisoformat(text)) for text in (start_iso, stop_iso))
    except ValueError as error:
        raise LedgerError(f"test split {start_iso} .. {stop_iso}: {error}") from None
    if len(stop_iso) == len("2000-01-01"):
        stop += timedelta(days=1) - timedelta(microseconds=1)
    if start > stop:
        raise LedgerError(f"test split {start_iso} .. {stop_iso}: must not end before it starts")
    return start, stop


def _utc(stamp: datetime) -> datetime:
    return stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp.astimezone(UTC)
