"""The usage sums of the service: kept in memory, updated with each commit, and saved regularly.

After a start the sums continue from where they were saved. What is missing is read from the history in the
background, in slices; for a store from before there were sums, that is the whole history.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import groupby
from typing import Final

from gpudev_hub.clock import Clock
from gpudev_hub.core.commit import Commit, HistoryEntry
from gpudev_hub.core.model import MINUTE, SECOND, Millis
from gpudev_hub.core.ports import StaleEpoch, Store, StoreUnavailable
from gpudev_hub.core.usage import Day, Sums
from gpudev_hub.core.views.usage import By, Group, Kind, Usage, by_team

from .view import View

SAVE_EVERY: Final[Millis] = MINUTE
RETRY: Final[Millis] = 5 * SECOND
"""Pause after the store failed."""
SLICE: Final = 500
"""History entries that are read and added at once."""
DAYS_AT_ONCE: Final = 60
"""Changed days after which the sums are saved while the history is read."""

log = logging.getLogger(__name__)


class UsageSums:
    """Follows the commits; ``run`` reads and saves."""

    def __init__(self, store: Store, clock: Clock, view: View) -> None:
        self._store = store
        self._clock = clock
        self._view = view
        self._usage = Usage()
        self._loaded = False
        self._saved_n = 0
        self._wake = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether the sums have every commit; false while the history is read after a start."""
        return self._loaded and self._usage.n >= self._view.n

    def committed(self, commit: Commit) -> None:
        """Add one more commit; if it is not the next one, the history is read."""
        if not self._loaded or commit.n > self._usage.n + 1:
            self._wake.set()
        elif commit.n == self._usage.n + 1:
            try:
                self._usage.apply(commit.n, commit.at, commit.changes)
            except Exception:
                # A bug here must not stop the writer: the sums return to what was saved.
                log.exception("commit %d could not be added to the usage sums", commit.n)
                self._loaded = False
                self._wake.set()

    def loaded(self) -> None:
        """Read the history after the state was read again: commits may have been missed."""
        if not self.complete:
            self._wake.set()

    def sums(self, by: By, first: Day, last: Day, subject: str | None = None) -> dict[Group, Sums]:
        """Return totals of these days by group, of one person or of all (``Usage.sums``).

        Teams are the present teams of people.
        """
        now = self._clock.now()
        if by is not By.TEAM:
            return self._usage.sums(by, first, last, now, subject)
        people = self._usage.sums(By.PERSON, first, last, now, subject)
        return by_team(people, {person.subject: person.teams for person in self._view.people.values()})

    def login_of(self, subject: str) -> str:
        """Return the latest login of a person."""
        person = self._view.people.get(subject)
        return self._usage.logins.get(subject, subject) if person is None else person.login

    def totals(self) -> tuple[dict[Kind, Millis], dict[Kind, Millis]]:
        """Return GPU-milliseconds reserved and held by pool and size, since the first commit."""
        reserved = {kind: sums.reserved for kind, sums in self._usage.totals.items()}
        return reserved, self._usage.held_by_kind(self._clock.now())

    async def run(self) -> None:
        """Load, catch up, and save once a minute, until it is cancelled."""
        said = ""
        while True:
            pause = SAVE_EVERY
            self._wake.clear()
            try:
                await self._load()
                await self._catch_up()
                await self.save()
                said = ""
            except StaleEpoch:
                return
            except StoreUnavailable as error:
                pause = RETRY
                if str(error) != said:
                    said = str(error)
                    log.warning("usage sums cannot be read or saved now: %s", error)
            except Exception:
                self._loaded = False
                log.exception("usage sums cannot be made from the history; the next try is in a minute")
            await self._clock.wait(self._wake, self._clock.now() + pause)

    async def save(self) -> None:
        """Save what changed since the last time. Raises ``StaleEpoch`` or ``StoreUnavailable``."""
        if not self._loaded or self._usage.n == self._saved_n:
            return
        head, days = self._usage.save()
        try:
            await self._store.save_usage(head, days)
        except BaseException:
            self._usage.not_saved(days)
            raise
        self._saved_n = head.n

    async def close(self) -> None:
        """Save for the last time, if possible; the next start reads what is missing from the history."""
        try:
            await self.save()
        except (StaleEpoch, StoreUnavailable) as error:
            log.warning("usage sums were not saved; the next start reads the history again: %s", error)

    async def _load(self) -> None:
        if self._loaded:
            return
        saved = await self._store.load_usage()
        usage = Usage()
        if saved is not None:
            usage.load(saved.head)
            for day in saved.days:
                usage.load_day(day)
                await asyncio.sleep(0)
        self._usage, self._saved_n, self._loaded = usage, usage.n, True

    async def _catch_up(self) -> None:
        while self._usage.n < (target := self._view.n):
            entries: list[HistoryEntry] = []
            following: int | None = await self._store.seek(self._usage.at)
            while following is not None:
                page, following = await self._store.history(None, following, SLICE)
                entries = self._account([*entries, *page], whole=following is None)
                if self._usage.unsaved >= DAYS_AT_ONCE:
                    await self.save()
                await asyncio.sleep(0)
            self._usage.reached(target)

    def _account(self, entries: list[HistoryEntry], *, whole: bool) -> list[HistoryEntry]:
        """Add the commits in these entries; return the entries of the last one unless ``whole``."""
        commits = [(n, list(found)) for n, found in groupby(entries, key=lambda entry: entry.n)]
        rest = [] if whole or not commits else commits.pop()[1]
        for n, found in commits:
            if n > self._usage.n:
                self._usage.apply(n, found[0].at, [entry.change for entry in found])
        return rest
