"""Ctrl-C between two pieces of work, not in the middle of one."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from ppo_workbench.config import WorkbenchError


class HeldInterrupt:
    """Two nested context managers: within `piece`, Ctrl-C waits for the end of the piece.

    The second Ctrl-C within a piece insists, and does not wait.

    Attributes:
        torn: A piece was left in its middle: what it works on is neither before nor after it.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.torn = self._busy = False
        self._waiting = 0
        self._before: Any = None

    def __enter__(self) -> Self:
        """Take SIGINT over; one that is ignored stays so, and other threads get none."""
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if callable(before):
                self._before = before
                signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        """Give SIGINT back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @property
    def piece(self) -> "_Piece":
        """The context of one piece of work."""
        return _Piece(self)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._waiting += self._busy
        if not self._busy or self._waiting > 1:
            self._before(number, frame)

    def _begin(self) -> None:
        self._busy = True

    def _end(self, kind: type[BaseException] | None) -> None:
        # What is refused in one sentence was refused before anything was taken.
        self.torn = kind is not None and not issubclass(kind, WorkbenchError)
        self._busy = False
        if self._waiting:
            self._waiting = 0
            if not self.torn:
                self._before(signal.SIGINT, None)


class _Piece:
    def __init__(self, held: HeldInterrupt) -> None:
        self._held = held

    def __enter__(self) -> None:
        self._held._begin()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held._end(kind)
