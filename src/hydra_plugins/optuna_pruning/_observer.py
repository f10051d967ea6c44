"""The observer on a thread of its own: a record that is slow or down must not idle a core."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ppo_workbench.config.secrets import redact

RETRY_SECONDS = 60.0


class Observed:
    """Passes events on in order; what the observer cannot record must not cost a trial."""

    def __init__(self, observer: Any, say: Callable[[str], None]) -> None:
        """Begin the thread; `observer` may be None, which wants to know nothing."""
        self._observer, self._say = observer, say
        self._events: queue.SimpleQueue[tuple[str, tuple[Any, ...], Future[Any]] | None]
        self._events = queue.SimpleQueue()
        self._down_until, self._missed = 0.0, 0
        self._thread = threading.Thread(target=self._pass_on, name="record", daemon=True)
        self._thread.start()

    def tell(self, event: str, *facts: Any) -> Future[Any]:
        """Queue an event; the future holds what the observer returns, None if it failed."""
        answer: Future[Any] = Future()
        self._events.put((event, facts, answer))
        return answer

    def close(self, *facts: Any) -> None:
        """Pass on what is queued, then `close`, however often the observer failed before."""
        answer = self.tell("close", *facts)
        self._events.put(None)
        self._thread.join()
        with suppress(Exception):
            answer.result(0)

    def _pass_on(self) -> None:
        while (queued := self._events.get()) is not None:
            event, facts, answer = queued
            answer.set_result(self._call(event, facts))

    def _call(self, event: str, facts: tuple[Any, ...]) -> Any:
        if self._observer is None:
            return None
        if event != "close" and time.monotonic() < self._down_until:
            self._missed += 1
            return None
        try:
            return getattr(self._observer, event)(*facts)
        except Exception as error:
            self._down_until = time.monotonic() + RETRY_SECONDS
            later = "" if event == "close" else "; the sweep goes on, the record is made up later"
            reason = redact(f"{type(error).__name__}: {error}")
            self._say(f"not recorded ({event}): {reason}{later}")
            return None
