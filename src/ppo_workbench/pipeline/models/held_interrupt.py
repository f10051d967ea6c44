"""Ctrl-C between two pieces of work, not in the middle of one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
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

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Let Ctrl-C wait for the end of one piece of work."""
        self._busy = True
        try:
            yield
        except BaseException as error:
            # What is refused in one sentence was refused before anything was taken.
            self.torn = not isinstance(error, WorkbenchError)
            raise
        finally:
            self._busy = False
            if self._waiting:
                self._waiting = 0
                if not self.torn:
                    self._before(signal.SIGINT, None)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._waiting += self._busy
        if not self._busy or self._waiting > 1:
            self._before(number, frame)
