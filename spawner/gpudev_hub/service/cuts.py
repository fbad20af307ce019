"""Connections to end (cuts), as a numbered list that the bastion and the servers' agents wait on.

They read it with a long poll. The list is kept in memory: a reader whose number is from before the start of
the service is told that it may have missed entries, and then checks all its connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from gpudev_hub.core.model import Millis

KEPT: Final = 1024
"""Entries kept; a reader that is further behind checks all its connections instead."""
FINGERPRINTS: Final = 64
"""Most fingerprints kept of one person: the latest that were let in."""
_PER_COMMIT: Final = 1 << 20
_AGAIN: Final = _PER_COMMIT // 2


@dataclass(frozen=True, slots=True)
class Cut:
    """Connections of one person that must end now."""

    seq: int
    """Grows from commit to commit, also across restarts."""
    subject: str
    """``hub:NAME``: this user of the Hub can no longer open JupyterLab; SSH connections stay."""
    fingerprints: tuple[str, ...]
    """Keys with which the person was let in since the service started."""
    reservation: str | None
    """The server they lose; ``None``: every server."""
    at: Millis


@dataclass(frozen=True, slots=True)
class NewCuts:
    """Entries that a reader does not have yet."""

    cuts: tuple[Cut, ...]
    latest: int
    """The number to ask with next."""
    missed: bool
    """Whether entries may be missing: check for every live connection whether it would still be let in."""


class Cuts:
    """The list of cuts, with its waiting readers."""

    def __init__(self) -> None:
        self._kept: deque[Cut] = deque(maxlen=KEPT)
        self._from = 0
        """Number after which the list is complete."""
        self._last = 0
        self._news = asyncio.Event()
        self._let_in: dict[str, dict[str, None]] = {}

    def begin(self, n: int) -> None:
        """Begin after commit ``n``: entries of an earlier service are not known here."""
        self._last = max(self._last, n * _PER_COMMIT + _AGAIN)
        self._from = max(self._from, self._last)

    def let_in(self, subject: str, fingerprint: str) -> None:
        """Remember a key that opened a connection of this person."""
        known = self._let_in.setdefault(subject, {})
        known.pop(fingerprint, None)
        known[fingerprint] = None
        if len(known) > FINGERPRINTS:
            del known[next(iter(known))]

    def add(self, n: int, subject: str, reservation: str | None, now: Millis) -> None:
        """End the person's connections to one server, or to all; ``n`` is the commit that decided it."""
        self._last = max(self._last + 1, n * _PER_COMMIT)
        if len(self._kept) == KEPT:
            self._from = self._kept[0].seq
        fingerprints = tuple(self._let_in.get(subject, ()))
        self._kept.append(Cut(self._last, subject, fingerprints, reservation, now))
        self._news.set()
        self._news = asyncio.Event()

    def after(self, seq: int, reservation: str | None = None) -> NewCuts:
        """Return entries later than ``seq``; with a reservation, only those that concern it."""
        found = tuple(
            cut
            for cut in self._kept
            if cut.seq > seq and (reservation is None or cut.reservation in (None, reservation))
        )
        return NewCuts(found, self._last, missed=not self._from <= seq <= self._last)

    async def wait(self, seq: int, timeout: float, reservation: str | None = None) -> NewCuts:
        """Return entries later than ``seq``, waiting up to ``timeout`` seconds for one.

        The answer comes at once if entries may be missing.
        """
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                while True:
                    news, found = self._news, self.after(seq, reservation)
                    if found.cuts or found.missed or timeout <= 0:
                        return found
                    await news.wait()
        except TimeoutError:
            return self.after(seq, reservation)
