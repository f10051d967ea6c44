"""Which process runs which cell, where several work on one comparison.

A claim is a lock on a file in `locks/`: the kernel's, and in a network folder the file server's.
It ends with the process that holds it, however that ends: no heartbeat, no clocks that must agree.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from types import TracebackType

from filelock import FileLock, Timeout


class Claims:
    """What this process holds of one comparison; a context manager that leaves it all."""

    def __init__(self, folder: Path) -> None:
        """Take `folder`, the comparison's; it is made."""
        self._folder = folder / "locks"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._held: dict[str, FileLock] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process at a time begin the comparison, or end it; the others wait."""
        with self._lock("comparison"):
            yield

    def take(self, name: str) -> bool:
        """Claim a cell, and tell whether it is this process's now."""
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[name] = lock
        return True

    def leave(self, name: str) -> None:
        """Let others have a cell."""
        self._held.pop(name).release()

    def others_at_work(self) -> bool:
        """Tell whether another process works on this comparison."""
        for path in self._folder.glob("process *.lock"):
            if path.stem not in self._held:
                if not self.take(path.stem):
                    return True
                self.leave(path.stem)
        return False

    def _lock(self, name: str) -> FileLock:
        return FileLock(self._folder / f"{name}.lock")

    def __enter__(self) -> "Claims":
        """Show this process at work."""
        self.take(f"process {gethostname()} {os.getpid()}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave everything."""
        for name in list(self._held):
            self.leave(name)
