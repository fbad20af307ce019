"""What the service keeps in memory of the commits, for everybody who reads or waits."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from gpudev_hub.clock import Clock
from gpudev_hub.core.commit import Commit, Snapshot
from gpudev_hub.core.model import Reservation
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.ports import Store
from gpudev_hub.core.sentences import Text
from gpudev_hub.core.words import plain, sentence

from .cuts import Cuts
from .notices import Notices
from .usage import UsageSums
from .view import View

REMEMBERED: Final = 2_000
"""Ended reservations kept in memory, for repeated requests and for clients that wait for a change."""


class Remembered:
    """The live state, recently ended reservations, notices for users, and clients waiting for a change."""

    def __init__(self, policy: Policy, store: Store, clock: Clock) -> None:
        self._clock = clock
        self.view = View(policy, clock.now)
        self.usage = UsageSums(store, clock, self.view)
        self.notices = Notices()
        self.cuts = Cuts()
        """Connections to end; the bastion and the servers wait on it."""
        self._recent: OrderedDict[str, Reservation] = OrderedDict()
        self._recent_requests: dict[tuple[str, str], str] = {}
        self._waiters: dict[str, list[asyncio.Future[Reservation]]] = {}

    # Changes

    def begin(self, snapshot: Snapshot) -> None:
        """Continue after a restart from the last commit."""
        self.cuts.begin(snapshot.n)
        for record in snapshot.reservations.values():
            self.notices.restore(snapshot.n, record, self._clock.now())

    def loaded(self, snapshot: Snapshot) -> None:
        """Take over the committed state after it was read again."""
        self.view.load(snapshot)
        self.usage.loaded()
        for waited, waiters in self._waiters.items():
            if (record := self.view.reservations.get(waited)) is not None:
                _wake(waiters, record)

    def committed(self, commit: Commit) -> Collection[Reservation]:
        """Follow one more durable commit. Return the reservations that it changed, as they are now."""
        self.view.advance(commit.n, commit.at, commit.changes)
        self.usage.committed(commit)
        changed: dict[str, Reservation] = {}
        for change in commit.changes:
            if isinstance(change.record, Reservation):
                changed[change.record.id] = change.record
                if change.gone:
                    self.remember(change.record)
                    self.notices.forget(change.record.id)
        for record in changed.values():
            _wake(self._waiters.pop(record.id, []), record)
        return changed.values()

    def remember(self, record: Reservation) -> None:
        """Keep an ended reservation in memory."""
        self._recent[record.id] = record
        if record.request_id is not None:
            self._recent_requests[record.owner.subject, record.request_id] = record.id
        while len(self._recent) > REMEMBERED:
            _, old = self._recent.popitem(last=False)
            if old.request_id is not None:
                self._recent_requests.pop((old.owner.subject, old.request_id), None)

    # What users are told

    def warn(self, id: str, minutes: int) -> None:
        """Warn a user that the end of a reservation is near."""
        record = self.get(id)
        if record is not None:
            self.notices.warn(self.view.n, record, minutes, self._clock.now())

    def tell(self, id: str, message: Text) -> None:
        self.notices.tell(self.view.n, id, sentence(plain(message, self._clock.now())))

    def cut(self, id: str | None, subject: str) -> None:
        """End a person's connections to one server, or to all."""
        self.cuts.add(self.view.n, subject, id, self._clock.now())

    def lab_closed(self, id: str | None, hub_user: str) -> None:
        """End connections after the Hub stopped letting this user open JupyterLab on one server or on all."""
        # Only now: before, the Hub would have let this user in again.
        self.cut(id, f"hub:{hub_user}")

    # Questions

    def get(self, id: str) -> Reservation | None:
        """Return a reservation that is live, or ended recently."""
        return self.view.reservations.get(id) or self._recent.get(id)

    def latest(self) -> list[Reservation]:
        """Return recently ended reservations, latest first."""
        return list(reversed(self._recent.values()))

    def recent_request(self, subject: str, request_id: str) -> Reservation | None:
        """Return the recently ended reservation with this request id."""
        known = self._recent_requests.get((subject, request_id))
        return None if known is None else self._recent.get(known)

    async def changed(self, id: str, timeout: float) -> Reservation | None:
        """Return the reservation after its next change; ``None`` if there is none in ``timeout`` seconds."""
        waiter: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(id, []).append(waiter)
        try:
            async with asyncio.timeout(timeout):
                return await waiter
        except TimeoutError:
            return None
        finally:
            waiters = self._waiters.get(id, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(id, None)


def _wake(waiters: list[asyncio.Future[Reservation]], record: Reservation) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(record)
