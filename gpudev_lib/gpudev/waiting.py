"""Telling people what is waited for, where an answer takes long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

FIRST = 2.0
"""Seconds of silence before the first word."""
AGAIN = 5.0
"""Seconds between one word and the next."""


class Notice:
    """Tells, within a ``with`` block, that it has not come to its end yet.

    From a thread of its own: what takes long may be a single request that gets no answer.
    """

    def __init__(self, tell: Callable[[str], None] | None, subject: str) -> None:
        """`tell` takes a line (None: nothing is told), `subject` is who does not answer."""
        self._tell = tell
        self._subject = subject
        self._trouble = ""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def failed(self, trouble: str) -> None:
        """What became of the last attempt: told in place of the silence."""
        self._trouble = trouble.rstrip(".")

    def __enter__(self) -> Self:
        if self._tell is not None:
            self._thread = threading.Thread(target=self._run, args=(self._tell,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, tell: Callable[[str], None]) -> None:
        since = time.monotonic()
        pause = FIRST
        while not self._over.wait(pause):
            passed = time.monotonic() - since
            trouble = self._trouble or f"{self._subject} has not answered yet"
            tell(f"{trouble}. Still trying, for {passed:.0f} s so far; Ctrl-C gives up.")
            pause = AGAIN
