"""When a server is ready: Jupyter is up, the Hub routes to it, and each sshd passes a key exchange."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gpudev_hub.core.events import Event, ServerNotice, ServerReady, StartTrouble
from gpudev_hub.core.model import SECOND, Millis, Reservation, State
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.core.words import printable
from gpudev_hub.turns import cancel

from .context import Context

FIRST_PAUSE: Final[Millis] = 100
LONGEST_PAUSE: Final[Millis] = 3 * SECOND

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """An agent's report on its rank."""

    jupyter: bool | None
    """Whether Jupyter answers; ``None`` for a rank without Jupyter."""
    sshd: bool
    detail: str = ""
    """What does not answer, and why."""
    notice: str = ""
    """What else the owner should know."""


def host_key_alias(id: str, rank: int) -> str:
    """Return the host name that the sshd of a rank proves."""
    return id if rank == 0 else f"{id}-{rank}"


class Readiness:
    """Collects reports. When all ranks are well, probes them and posts ``ServerReady``."""

    def __init__(
        self, context: Context, post: Callable[[Event], None], saw: Callable[[ServerSight], None]
    ) -> None:
        self._view = context.view
        self._cluster = context.adapters.cluster
        self._probe = context.adapters.probe
        self._clock = context.adapters.clock
        self._post = post
        self._saw = saw
        self._reports: dict[tuple[str, int], dict[int, Report]] = {}
        self._opened: set[tuple[str, int]] = set()
        self._probing: dict[tuple[str, int], asyncio.Task[None]] = {}

    def report(self, id: str, attempt: int, rank: int, report: Report) -> None:
        """Record an agent's report; reports of earlier attempts are ignored."""
        record = self._view.reservations.get(id)
        if record is None or record.attempt != attempt:
            return
        self._reports.setdefault((id, attempt), {})[rank] = report
        if report.detail:
            log.info("%s/%d rank %d: %s", id, attempt, rank, report.detail, extra={"reservation": id})
        self._consider(record)
        text = printable(self._told(record))
        if record.state in (State.STARTING, State.READY) and record.notice != text:
            self._post(ServerNotice(id, attempt, text))
        if report.detail:
            several = len(record.allocation) > 1
            self.trouble(id, attempt, f"rank {rank}: {report.detail}" if several else report.detail)

    def trouble(self, id: str, attempt: int, detail: str) -> None:
        """Record what keeps a starting server from getting ready."""
        detail = printable(detail)
        record = self._view.reservations.get(id)
        current = record is not None and record.state is State.STARTING and record.attempt == attempt
        if current and record is not None and record.trouble != detail:
            self._post(StartTrouble(id, attempt, detail))

    def _told(self, record: Reservation) -> str:
        """Return what a server's agents report to its owner, without parts that are still starting."""
        reports = self._reports.get((record.id, record.attempt), {})
        texts = [
            f"rank {rank}: {report.detail}" if len(record.allocation) > 1 else report.detail
            for rank, report in sorted(reports.items())
            if report.detail and record.state is State.READY
        ]
        return "; ".join([*texts, *(report.notice for report in reports.values() if report.notice)])

    def opened(self, id: str, attempt: int) -> None:
        """Record that the Hub routes to this attempt's Jupyter."""
        self._opened.add((id, attempt))
        record = self._view.reservations.get(id)
        if record is not None and record.attempt == attempt:
            self._consider(record)

    def _consider(self, record: Reservation) -> None:
        key = (record.id, record.attempt)
        if record.state is State.STARTING and self._well(record) and key not in self._probing:
            task = asyncio.create_task(self._check(*key), name=f"probe/{record.id}/{record.attempt}")
            self._probing[key] = task
            task.add_done_callback(lambda done: self._done(key, done))

    def forget(self, id: str, attempt: int) -> None:
        """Forget a server that is gone."""
        self._reports.pop((id, attempt), None)
        self._opened.discard((id, attempt))
        task = self._probing.get((id, attempt))
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        await cancel(self._probing.values())

    def _done(self, key: tuple[str, int], task: asyncio.Task[None]) -> None:
        del self._probing[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the SSH check of %s/%d failed", *key, exc_info=error, extra={"reservation": key[0]})

    def _well(self, record: Reservation) -> bool:
        key = (record.id, record.attempt)
        reports, ranks = self._reports.get(key, {}), range(len(record.allocation))
        if key not in self._opened or not all(rank in reports and reports[rank].sshd for rank in ranks):
            return False
        return reports[0].jupyter is True

    async def _check(self, id: str, attempt: int) -> None:
        pause = FIRST_PAUSE
        while True:
            record, claim = self._view.reservations.get(id), self._view.claims.get((id, attempt))
            if (
                record is None
                or claim is None
                or record.attempt != attempt
                or record.state is not State.STARTING
            ):
                return
            sight = await self._cluster.look(claim)
            self._saw(sight)
            sshd = sight.sshd.items()
            answers = (self._probe(host, port, host_key_alias(id, rank)) for rank, (host, port) in sshd)
            if len(sshd) == len(record.allocation) and all(await asyncio.gather(*answers)):
                self._post(ServerReady(id, attempt))
                return
            await self._clock.wait(asyncio.Event(), self._clock.now() + pause)
            pause = min(2 * pause, LONGEST_PAUSE)
