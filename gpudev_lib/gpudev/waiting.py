"""Notices for people while an answer takes long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

FIRST = 2.0
"""Seconds before the first notice."""
AGAIN = 5.0
"""Seconds between notices."""


class Notice:
    """Tells the user, within a ``with`` block, that an answer is still awaited.

    It uses its own thread, because a single request without an answer may block the caller.
    """

    def __init__(self, tell: Callable[[str], None] | None, subject: str) -> None:
        """`tell` is called with a line of text; None means no notices. `subject` is what has not answered."""
        self._tell = tell
        self._subject = subject
        self._trouble = ""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def failed(self, trouble: str) -> None:
        """Set the error of the last attempt for the next notice."""
        self._trouble = trouble.rstrip(".")

    def __enter__(self) -> Self:
        if self._tell is not None:
            self._thread = threading.Thread(target=self._run, args=(self._tell,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, tell: Callable[[str], None]) -> None:
        since = time.monotonic()
        pause = FIRST
        while not self._over.wait(pause):
            passed = time.monotonic() - since
            trouble = self._trouble or f"{self._subject} has not answered yet"
            tell(f"{trouble}. Still trying after {passed:.0f} s. Press Ctrl-C to stop.")
            pause = AGAIN
