"""Notices for the user of a server, kept for its agent and its pages to fetch."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from gpudev_hub.core.decisions.timers import armed
from gpudev_hub.core.model import MINUTE, Millis, Reservation, State
from gpudev_hub.core.words import moment

KEPT: Final = 32
"""Notices remembered for each reservation."""
_PER_COMMIT: Final = 1 << 20
_AGAIN: Final = _PER_COMMIT // 2


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice."""

    seq: int
    """Grows from commit to commit, also across restarts."""
    text: str
    minutes: int | None = None
    """Of a warning: its threshold."""


class Notices:
    """The latest notices of each reservation."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[Notice]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._last = 0

    def warn(self, n: int, record: Reservation, minutes: int, now: Millis) -> None:
        """Add a warning that the end is near; ``n`` is the commit that recorded it.

        A server that is starting again gets the warning as soon as its agent asks.
        """
        ends_at = record.ends_at
        if record.state not in (State.STARTING, State.READY) or ends_at is None or ends_at <= now:
            return
        name = record.request.name or record.id
        left = max(1, round((ends_at - now) / MINUTE))
        text = (
            f"Reservation {name} ends in {left} min, at {moment(ends_at, now)}. Save your work, or "
            f"extend it with `gpu-dev extend {name} --hours 1`."
        )
        self.tell(n, record.id, text, minutes)

    def tell(self, n: int, id: str, text: str, minutes: int | None = None) -> None:
        """Add a notice."""
        self._last = max(self._last + 1, n * _PER_COMMIT)
        self._kept.setdefault(id, deque(maxlen=KEPT)).append(Notice(self._last, text, minutes))
        news = self._news.pop(id, None)
        if news is not None:
            news.set()

    def restore(self, n: int, record: Reservation, now: Millis) -> None:
        """Repeat the last warning after a restart, since it may not have been delivered."""
        self._last = max(self._last, n * _PER_COMMIT + _AGAIN)
        # READY also records thresholds that the hold does not reach, without a warning.
        given = armed(record, record.warned)
        if given:
            self.warn(n, record, min(given), now)

    def after(self, id: str, seq: int) -> list[Notice]:
        """Return notices later than ``seq``."""
        return [notice for notice in self._kept.get(id, ()) if notice.seq > seq]

    async def wait(self, id: str, seq: int, timeout: float) -> list[Notice]:
        """Return notices later than ``seq``, waiting up to ``timeout`` seconds for one."""
        found = self.after(id, seq)
        if found or timeout <= 0:
            return found
        news = self._news.setdefault(id, asyncio.Event())
        try:
            async with asyncio.timeout(timeout):
                await news.wait()
        except TimeoutError:
            pass
        return self.after(id, seq)

    def forget(self, id: str) -> None:
        """Forget an ended reservation, and wake everyone waiting for its notices."""
        self._kept.pop(id, None)
        news = self._news.pop(id, None)
        if news is not None:
            news.set()
