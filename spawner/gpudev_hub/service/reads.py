"""Reads of reservations, live and ended, and of their history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gpudev_hub.core.commit import HistoryEntry
from gpudev_hub.core.errors import SEE_YOURS, TRY_AGAIN, Code, Refused
from gpudev_hub.core.model import Reservation
from gpudev_hub.core.ports import Cluster, ClusterUnavailable, HubUnavailable, Store, StoreUnavailable
from gpudev_hub.core.words import sentence

from .remembered import Remembered


@dataclass(frozen=True, slots=True)
class ServerLogs:
    """What is known of a server's start and its last output."""

    events: list[HistoryEntry]
    """Its reservation's history, oldest first."""
    logs: dict[str, str]
    """Last lines by source."""


class Reads:
    """Answers from memory if possible, else from the store.

    All methods raise ``Refused`` (``unavailable``).
    """

    def __init__(self, remembered: Remembered, store: Store, cluster: Cluster) -> None:
        self._remembered = remembered
        self._store = store
        self._cluster = cluster

    async def find(self, ref: str, subject: str | None = None) -> Reservation | None:
        """Return a reservation by id, live or ended, or the subject's live reservation of that name."""
        known = self._remembered.view.get(ref, subject) or self._remembered.get(ref)
        if known is not None:
            return known
        with answering():
            return await self._store.find(ref)

    async def wait_change(self, id: str, version: int, timeout: float) -> Reservation:
        """Return the reservation once its version is not ``version``, or after ``timeout`` seconds.

        Raises ``Refused`` (``not_found``).
        """
        record = await self.find(id)
        if record is None:
            raise Refused(Code.NOT_FOUND, f"There is no reservation {id}.", SEE_YOURS)
        if record.version != version or not record.live or timeout <= 0:
            return record
        changed = await self._remembered.changed(id, timeout)
        return changed or self._remembered.view.reservations.get(id, record)

    async def ended(
        self, subject: str | None, before: int | None, limit: int
    ) -> tuple[list[Reservation], int | None]:
        """Return ended reservations, latest first, of one subject or of all, and the next page's cursor."""
        with answering():
            found, following = await self._store.ended(subject, before, limit)
        if before is None:
            # A store may show a reservation that has just ended late (DynamoDB's index of owners does).
            known = {record.id for record in found}
            since = max((record.ended_at or 0 for record in found), default=0)
            late = (r for r in self._remembered.latest() if r.id not in known and (r.ended_at or 0) > since)
            found = [*(r for r in late if subject in (None, r.owner.subject)), *found]
        return found, following

    async def history(self, id: str | None, after: int, limit: int) -> tuple[list[HistoryEntry], int | None]:
        """Return changes in commit order, and the next page's cursor."""
        with answering():
            return await self._store.history(id, after, limit)

    async def logs(self, id: str, lines: int) -> ServerLogs:
        """Return the reservation's changes, and the last lines of its server's logs."""
        events, _ = await self.history(id, 0, 200)
        record = await self.find(id)
        logs: dict[str, str] = {}
        if record is not None and record.attempt:
            with answering():
                logs = await self._cluster.logs(id, record.attempt, lines)
        return ServerLogs(events, logs)


@contextmanager
def answering() -> Iterator[None]:
    """Raise ``Refused`` (``unavailable``) if the store, the cluster or the Hub does not answer."""
    try:
        yield
    except (StoreUnavailable, ClusterUnavailable, HubUnavailable) as error:
        raise Refused(Code.UNAVAILABLE, sentence(str(error)), TRY_AGAIN) from error
