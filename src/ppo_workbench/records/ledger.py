"""The ledger of test accesses: no record, no access (docs/architecture.md, decision 4).

Every access to a test split is appended to `mlruns/test_openings.jsonl` and synced to disk
before the caller may read a single test bar.  What is counted is variants scored, by what the
bars say: two accesses in overlapping dates are at the same test if `SAME_SHARE` of the sessions in
both returned the same from close to close.  So another name, a copied folder, other bar lengths
and prices times a constant hide nothing; noise added on purpose does.  The ledger keeps hashes
of these returns, never the returns; a hash of one number can be tried out, so it is no secret.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from ppo_workbench.config import WorkbenchError
from ppo_workbench.market.bars import NS_PER_DAY, Bars

_LOCK_SECONDS = 60.0
SAME_SHARE = 0.5  # of unlike instruments 1 session in 100 agrees by chance, of a re-export most do


class LedgerError(WorkbenchError):
    """The access to a test split cannot be recorded, so the test stays closed."""


@dataclass(frozen=True)
class Access:
    """One access to a test split.

    Attributes:
        start: First bar looked at, ISO 8601; without an offset it counts as UTC.
        stop: Last bar looked at; a bare date means to the end of that day.
        looks: How many variants had then been scored on this test, its own included.
        look: Identity of an access that many processes share, such as the cells of one
            comparison; empty for that of one process.
        variants: How many this access scores, each of which could be chosen by its score.
        sessions: Day -> hash, see `session_hashes`; empty in lines of before they were kept,
            which are found by instrument and count as one variant.
    """

    instrument: str
    start: str
    stop: str
    fingerprint: str
    why: str
    opened_utc: str
    looks: int
    look: str = ""
    variants: int = 1
    sessions: Mapping[str, str] = field(default_factory=dict)


def session_hashes(bars: Bars, start: int, stop: int) -> dict[str, str]:
    """Return day -> hash of the rounded close-to-close return, for sessions in a range of bars.

    A session's close is that of its last regular bar, its day the UTC date of that bar's end, so
    minute bars, hourly bars and daily bars of one instrument give the same.

    Args:
        bars: All bars: the first session of the range needs the close before it.
        start: First bar of the range.
        stop: Behind its last bar; sessions that it cuts are taken whole.
    """
    rows = np.flatnonzero(bars.regular) if bars.regular.any() else np.arange(len(bars))
    last = rows[np.append(np.diff(bars.session[rows]) != 0, True)]
    moves = np.rint((bars.close[last][1:] / bars.close[last][:-1] - 1.0) * 1e4)  # basis points
    days = ((bars.end_ns[last][1:] - 1) // NS_PER_DAY).astype("datetime64[D]")
    inside = np.isin(bars.session[last][1:], bars.session[start:stop])
    return {
        str(day): hashlib.sha256(f"{day} {int(move)}".encode()).hexdigest()[:8]
        for day, move in zip(days[inside], moves[inside], strict=True)
    }


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
    variants: int = 1,
    sessions: Mapping[str, str] | None = None,
) -> Access:
    """Record an access to the test split; only after this returns may its bars be read.

    Args:
        home: Folder that holds `mlruns/`.
        instrument: Compared, without regard to case, where no sessions can be.
        start_iso: First bar or day of the test split, ISO 8601.
        stop_iso: Last bar or day of the test split, ISO 8601.
        fingerprint: SHA-256 of the bars.
        why: What the access is for, such as "promotion of maskable_v1".
        look: Identity of an access that many processes share: the first records it, and the
            others, with equal bars and dates, get what it recorded.
        variants: How many are scored.
        sessions: From `session_hashes`.

    Returns:
        The recorded access with the number of variants so far, its own included.

    Raises:
        LedgerError: A field is empty or no date, an older line is damaged, or the record
            cannot be written and synced.  The test must then stay closed.
    """
    for name, value in (("instrument", instrument), ("fingerprint", fingerprint), ("why", why)):
        if not value.strip():
            raise LedgerError(f"{name} is empty: an access to the test names it; pass it")
    _span(start_iso, stop_iso)
    path = ledger_path(home)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            earlier = past_accesses(home)
            same = (look, start_iso, stop_iso, fingerprint)
            shared = [
                o for o in earlier if look and (o.look, o.start, o.stop, o.fingerprint) == same
            ]
            if shared:
                return shared[0]
            access = Access(
                instrument=instrument,
                start=start_iso,
                stop=stop_iso,
                fingerprint=fingerprint,
                why=why,
                opened_utc=datetime.now(UTC).isoformat(timespec="seconds"),
                looks=variants,
                look=look,
                variants=variants,
                sessions=sessions or {},
            )
            access = replace(access, looks=variants + _scored_before(earlier, access))
            _append(path, access)
    except (OSError, Timeout) as error:
        raise LedgerError(
            f"{path}: the access to the test cannot be recorded ({error}), so the test stays "
            "closed; make the folder writable"
        ) from error
    return access


def past_accesses(home: Path) -> list[Access]:
    """Return all recorded accesses, oldest first.

    Raises:
        LedgerError: A line is no record.  Counting on would understate the accesses.
    """
    path = ledger_path(home)
    if not path.exists():
        return []
    accesses = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            access = Access(**json.loads(line))
            _span(access.start, access.stop)
        except (ValueError, TypeError, AttributeError, LedgerError):
            raise LedgerError(
                f"{path} line {number} is no record of an access; restore the file from a copy"
            ) from None
        accesses.append(access)
    return accesses


def _append(path: Path, access: Access) -> None:
    """Append one line and sync the file and its folder entry."""
    line = (json.dumps(asdict(access)) + "\n").encode()
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


def _scored_before(earlier: Sequence[Access], access: Access) -> int:
    """Count the variants of earlier accesses to this test; folds of one comparison are one."""
    scored: dict[str, int] = {}
    for number, old in enumerate(earlier):
        look = old.look or f"line {number}"
        if look != access.look and _same_test(old, access):
            scored[look] = max(old.variants, scored.get(look, 0))
    return sum(scored.values())


def _same_test(old: Access, new: Access) -> bool:
    (start, stop), (new_start, new_stop) = (_span(one.start, one.stop) for one in (old, new))
    if new_stop < start or stop < new_start:
        return False
    days = old.sessions.keys() & new.sessions.keys()
    if old.fingerprint == new.fingerprint:
        return True
    if not days:  # of one of the two no more than the name is known
        return old.instrument.casefold() == new.instrument.casefold()
    return sum(old.sessions[day] == new.sessions[day] for day in days) >= SAME_SHARE * len(days)


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
