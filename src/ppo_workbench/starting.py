"""What a command shows before it can show more: imports take seconds, on a cold disk a minute.

A terminal has one line that moves, on standard error; anything else one plain line, as soon as
the command is accepted.  Imports nothing but the standard library, so it is there at once.
"""

import os
import sys
import threading
import time
from types import TracebackType
from typing import Self

FRAMES = r"-\|/"
FRAME_SECONDS = 0.125
CLEAR = "\r\x1b[K"


class StartLine:
    """The line of one process; what it says is drawn by a thread of its own."""

    def __init__(self) -> None:
        """Show nothing before `begin`."""
        self._text: str | None = None
        self._began = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, text: str) -> Self:
        """Show the line on a terminal; leaving the context ends it."""
        self._text, self._began = text, time.monotonic()
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._ended.clear()
            self._thread = threading.Thread(target=self._draw, name="start line", daemon=True)
            self._thread.start()
        return self

    def say(self, text: str) -> None:
        """Change the line; elsewhere than on a terminal print it once."""
        if self._text is None:
            return
        self._text = text
        if self._thread is None:
            print(f"ppo_workbench: {text} ...", file=sys.stderr, flush=True)
            self._text = None

    def end(self) -> None:
        """Take the line away; may be called at any time and twice."""
        self._text = None
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the line."""
        self.end()

    def _draw(self) -> None:
        count = 0
        while True:
            seconds = time.monotonic() - self._began
            frame = FRAMES[count % len(FRAMES)]
            # The cursor stays at the start: whatever else is printed begins there.
            sys.stderr.write(f"{CLEAR}{frame} ppo_workbench: {self._text}, {seconds:.0f} s\r")
            sys.stderr.flush()
            count += 1
            if self._ended.wait(FRAME_SECONDS):
                break
        sys.stderr.write(CLEAR)
        sys.stderr.flush()


START_LINE = StartLine()
