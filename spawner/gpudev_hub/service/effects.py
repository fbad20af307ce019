"""What follows from commits: the Hub starts and stops servers, and is asked again until it has.

Every effect names (reservation, attempt) and looks at the committed state before each try: one that is no
longer wanted ends by itself. Nothing is kept: after a restart the same effects are derived from the state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from gpudev_hub.clock import Clock
from gpudev_hub.core.access_model import Access
from gpudev_hub.core.events import Event, OwnerKnown, StartFailed
from gpudev_hub.core.model import SECOND, Claim, ClaimState, Millis, Presence, Reservation, State
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.ports import (
    Cluster,
    ClusterUnavailable,
    Hub,
    HubPending,
    HubUnavailable,
    OwnerUnknownToHub,
    ServerSight,
    StartBrokenOff,
    StartRefused,
)
from gpudev_hub.failpoints import BEFORE_EFFECT, Failpoint

from .metrics import Metrics
from .outages import HUB, Outages
from .view import View

FIRST_PAUSE: Final[Millis] = 250
LONGEST_PAUSE: Final[Millis] = 10 * SECOND
STARTED_PAUSE: Final[Millis] = 5 * SECOND
"""The Hub has taken a start up; if nothing comes of it, it is asked again after this time."""
OPENING_PAUSE: Final[Millis] = SECOND
"""Longest pause between questions whether the Hub leads users to a server that is there already."""
BREAKING_OFF: Final[Millis] = 15 * SECOND
"""When a user stops a start, the Hub breaks it off at once, and stops the server once it has time for it."""
HUB_DONE: Final[Millis] = 3 * SECOND
"""A server that is still there so long after the Hub has called it stopped or unknown is removed."""
MINTED_LATE: Final[Millis] = 30 * SECOND
"""So long after a person's tokens were deleted, those that the Hub was just making go, too."""
FORGETTING: Final = 8
"""Servers that the Hub is asked to forget at once, of those that hold no slots any more."""

log = logging.getLogger(__name__)

Key = tuple[str, str, int]
"""(``start`` | ``stop``, reservation, attempt), or (``revoke``, subject, 0)."""


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    news: asyncio.Event = field(default_factory=asyncio.Event)
    again: bool = False
    """Once more when it is done: what it has found may be outdated already."""


class Effects:
    """At most one task for each effect under way."""

    def __init__(
        self,
        *,
        policy: Policy,
        view: View,
        hub: Hub,
        cluster: Cluster,
        clock: Clock,
        outages: Outages,
        post: Callable[[Event], None],
        saw: Callable[[ServerSight], None],
        opened: Callable[[str, int], None],
        hub_forgot: Callable[[], None],
        tokens_gone: Callable[[str], None],
        metrics: Metrics,
        failpoint: Failpoint,
    ) -> None:
        """``opened``: the Hub says that this attempt runs, so users reach it at the Hub's address;
        ``hub_forgot``: it does not know whom it is to start for, and so perhaps nobody's servers;
        ``tokens_gone``: the tokens of this user of the Hub are deleted.
        """
        self._policy = policy
        self._view = view
        self._hub = hub
        self._cluster = cluster
        self._clock = clock
        self._outages = outages
        self._post = post
        self._saw = saw
        self._opened = opened
        self._hub_forgot = hub_forgot
        self._tokens_gone = tokens_gone
        self._metrics = metrics
        self._failpoint = failpoint
        self._running: dict[Key, _Running] = {}
        self._refusals: dict[str, int] = {}
        self._stopping: set[str] = set()
        self._forgetting = asyncio.Semaphore(FORGETTING)

    def start(self, id: str, attempt: int) -> None:
        """Have the Hub start the server of this attempt, until it runs."""
        self._run(("start", id, attempt), self._start(id, attempt))

    def start_again(self, id: str, attempt: int) -> None:
        """The Hub has just given the server up, though an effect under way may have found it running."""
        running = self._running.get(("start", id, attempt))
        if running is None:
            self.start(id, attempt)
        else:
            running.again = True

    def failed(self, id: str, attempt: int, reason: str) -> None:
        """The start of this attempt came to nothing: decide what comes next."""
        record = self._to_start(id, attempt)
        if record is None:
            return
        self._refusals[id] = min(10, self._refusals.get(id, 0) + 1)
        log.warning("start of %s/%d failed: %s", id, attempt, reason, extra={"reservation": id})
        if record.state is State.STARTING:
            self._post(StartFailed(id, attempt, reason, self._node_at_fault(record)))

    def stop(self, id: str, attempt: int, record: Reservation | None) -> None:
        """Have the server of this attempt stopped until it is gone, and forgotten if its reservation is over.

        ``record``: the reservation, ended or not; ``None`` when nothing is known of it any more.
        """
        self._run(("stop", id, attempt), self._stop(id, attempt, record))

    def revoke(self, subject: str) -> None:
        """Have the Hub delete the tokens of a person without access, until it has."""
        running = self._running.get(("revoke", subject, 0))
        if running is None:
            self._run(("revoke", subject, 0), self._revoke(subject))
        else:
            running.again = True
            running.news.set()

    def stopping(self, id: str) -> bool:
        """Whether the Hub is being asked, on behalf of the service, to stop a server of the reservation."""
        return id in self._stopping

    def poke(self, id: str) -> None:
        """Something of the reservation has changed: look again now."""
        for (_, of, _), running in self._running.items():
            if of == id:
                running.news.set()

    async def close(self) -> None:
        """Drop everything under way."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, key: Key, work: Coroutine[Any, Any, None]) -> None:
        running = self._running.get(key)
        if running is not None and not running.task.done():
            work.close()
            return
        task = asyncio.create_task(work, name="/".join(map(str, key)))
        self._running[key] = _Running(task)
        task.add_done_callback(lambda done: self._done(key, done))

    def _done(self, key: Key, task: asyncio.Task[None]) -> None:
        running = self._running[key]
        if running.task is task:
            del self._running[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("effect %s failed", key, exc_info=error, extra={"reservation": key[1]})
        if running.task is task and running.again and not task.cancelled():
            if key[0] == "revoke":
                self.revoke(key[1])
            else:
                self.start(*key[1:])

    async def _wait(self, key: Key, pause: Millis) -> None:
        news = self._running[key].news
        news.clear()
        await self._clock.wait(news, self._clock.now() + pause)

    async def _start(self, id: str, attempt: int) -> None:
        key, pause, opening = ("start", id, attempt), FIRST_PAUSE, FIRST_PAUSE
        if refusals := self._refusals.get(id, 0):
            await self._wait(key, min(LONGEST_PAUSE, FIRST_PAUSE * 2**refusals))
        while (record := self._to_start(id, attempt)) is not None:
            runs = False
            try:
                self._failpoint(BEFORE_EFFECT)
                runs = await self._hub.start(record.owner.hub_user, id)
            except HubPending as error:
                self._heard_of_hub("start", "pending")
                log.debug("start of %s: %s", id, error, extra={"reservation": id})
                pause = min(2 * pause, STARTED_PAUSE)
            except HubUnavailable as error:
                self._no_hub(record, error)
                pause = min(2 * pause, LONGEST_PAUSE)
            except OwnerUnknownToHub:
                self._heard_of_hub("start", "owner unknown")
                self._post(OwnerKnown(record.owner.subject, known=False))
                if record.state is State.STARTING:
                    self._hub_forgot()
                    return
                # The server runs on, and the Hub leads to it once its owner has logged in again.
                await self._wait(key, LONGEST_PAUSE)
                continue
            except StartRefused as error:
                self._heard_of_hub("start", "refused")
                if isinstance(error, StartBrokenOff) and await self._given_up(key):
                    return
                self.failed(id, attempt, str(error))
                if record.state is State.STARTING:
                    return
                # It runs, and the Hub could not reach it: too busy, perhaps.
                await self._wait(key, LONGEST_PAUSE)
                continue
            else:
                self._heard_of_hub("start", "running" if runs else "accepted")
                self._cluster.hint(id, attempt)
                if runs:
                    self._opened(id, attempt)
                pause = STARTED_PAUSE
            if await self._came(key, pause):
                if runs:
                    break
                await self._wait(key, opening)
                opening = min(2 * opening, OPENING_PAUSE)
        self._refusals.pop(id, None)

    def _node_at_fault(self, record: Reservation) -> str | None:
        """A node of the reservation's that has not got what was taken there, whoever has it now."""
        claims = self._view.claims.values()
        for part in record.allocation:
            node = self._view.nodes.get(part.node)
            taken = [other for claim in claims for other in claim.allocation if other.node == part.node]
            if node is not None and node.gpus < sum(len(other.slots) for other in taken):
                return part.node
        return None

    async def _given_up(self, key: Key) -> bool:
        """Whether the start turns out, in a moment, to be no longer wanted: its user stopped it."""
        until = self._clock.now() + BREAKING_OFF
        while (left := until - self._clock.now()) > 0 and self._to_start(*key[1:]) is not None:
            await self._wait(key, left)
        return self._to_start(*key[1:]) is None

    async def _came(self, key: Key, pause: Millis) -> bool:
        """Whether the server is seen: now, within the pause, or not, or not wanted any more."""
        of = key[1:]
        until = self._clock.now() + pause
        while (left := until - self._clock.now()) > 0 and self._to_start(*of) is not None:
            claim = self._view.claims.get(of)
            if claim is not None and claim.presence is Presence.PRESENT:
                return True
            await self._wait(key, left)
        return False

    def _to_start(self, id: str, attempt: int) -> Reservation | None:
        """The reservation, if this attempt's server is to run."""
        record, claim = self._view.reservations.get(id), self._view.claims.get((id, attempt))
        if record is None or claim is None or record.attempt != attempt or claim.state is not ClaimState.HELD:
            return None
        wanted = record.state in (State.STARTING, State.READY) and record.stopped_at is None
        return record if wanted else None

    async def _revoke(self, subject: str) -> None:
        await self._delete_tokens(subject)
        await self._wait(("revoke", subject, 0), MINTED_LATE)
        await self._delete_tokens(subject)

    async def _delete_tokens(self, subject: str) -> None:
        pause = FIRST_PAUSE
        async with self._forgetting:
            while (person := self._view.people.get(subject)) is not None and person.access is Access.REVOKED:
                mine = [r.id for r in self._view.reservations.values() if r.owner.subject == subject]
                try:
                    self._failpoint(BEFORE_EFFECT)
                    await self._hub.revoke_tokens(person.hub_user, mine)
                except HubUnavailable as error:
                    self._metrics.effects["revoke", "unavailable"] += 1
                    log.warning("tokens of %s are not deleted yet: %s", person.hub_user, error)
                else:
                    self._heard_of_hub("revoke", "done")
                    self._tokens_gone(person.hub_user)
                    return
                await self._wait(("revoke", subject, 0), pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _stop(self, id: str, attempt: int, record: Reservation | None) -> None:
        key, pause, begun, asked = ("stop", id, attempt), FIRST_PAUSE, self._clock.now(), record is None
        forgotten = False
        done_at: Millis | None = None
        while True:
            record = self._view.reservations.get(id) or record
            claim = self._view.claims.get((id, attempt))
            over = record is not None and self._over(id)
            if over and not forgotten:
                asked = False
            if record is not None and record.live and record.attempt > attempt:
                asked = True  # the Hub's server of this name is a later attempt's by now
            if asked and claim is not None and _kept(claim):
                return
            if claim is None and asked:
                if id not in self._view.reservations:
                    self._refusals.pop(id, None)
                return
            if claim is None and record is not None:
                await self._forget(key, record)
                asked, forgotten = True, over
                continue
            now = self._clock.now()
            overran = claim is not None and now >= begun + self._patience(claim)
            # The Hub may have been asked by a service that died before it could say that the server may end:
            # the Hub then does nothing more about it.
            overran = overran or (done_at is not None and now >= done_at + HUB_DONE)
            if not asked and record is not None:
                done = await self._ask_hub_to_stop(record, id)
                asked = done is not None
                forgotten = asked and over
                done_at = self._clock.now() if done else None
            alone = overran or record is None or (record.live and record.attempt > attempt)
            if claim is not None and alone:
                await self._remove(id, attempt)
            if claim is not None and (asked or overran):
                # The Hub's word is no proof, and it may never have begun: only looking tells.
                self._saw(await self._cluster.look(claim))
            if not (asked and (id, attempt) not in self._view.claims):
                await self._wait(key, pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _forget(self, key: Key, record: Reservation) -> None:
        """Have the Hub forget a server that is gone, or was never there, until it has.

        Nobody waits for this, and after a start, or while the Hub is away, there may be hundreds: a few at a
        time, or they would crowd out what people wait for.
        """
        _, of, attempt = key
        pause = FIRST_PAUSE
        async with self._forgetting:
            while True:
                now = self._view.reservations.get(of)
                if now is not None and now.attempt > attempt:
                    return  # the name is a later attempt's by now
                if await self._ask_hub_to_stop(record, of) is not None:
                    return
                await self._wait(key, pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _patience(self, claim: Claim) -> Millis:
        """How long the Hub has to stop a server before it is removed without it."""
        return self._policy.pool(claim.pool).stop_overrun

    def _over(self, id: str) -> bool:
        """Whether it starts nothing more: only then the Hub may forget its server, which would be its end."""
        record = self._view.reservations.get(id)
        return record is None or record.state is State.STOPPING

    async def _ask_hub_to_stop(self, record: Reservation, id: str) -> bool | None:
        """Whether it has done all that it will do; ``None`` if it must be asked again."""
        self._stopping.add(id)
        try:
            self._failpoint(BEFORE_EFFECT)
            done = await self._hub.stop(record.owner.hub_user, id, forget=self._over(id))
        except HubPending:
            self._heard_of_hub("stop", "pending")
            return None
        except HubUnavailable as error:
            self._no_hub(record, error)
            return None
        finally:
            self._stopping.discard(id)
        self._heard_of_hub("stop", "accepted")
        return done

    async def _remove(self, id: str, attempt: int) -> None:
        log.warning("removing the server of %s/%d without the Hub", id, attempt, extra={"reservation": id})
        try:
            await self._cluster.remove(id, attempt)
        except ClusterUnavailable as error:
            self._metrics.effects["remove", "unavailable"] += 1
            log.warning("cannot remove server %s/%d now: %s", id, attempt, error, extra={"reservation": id})
        else:
            self._metrics.effects["remove", "done"] += 1

    def _heard_of_hub(self, effect: str, result: str) -> None:
        self._metrics.effects[effect, result] += 1
        if self._outages.end(HUB, self._clock.now()):
            log.warning("the Hub answers again")

    def _no_hub(self, record: Reservation, error: HubUnavailable) -> None:
        self._metrics.effects["hub", "unavailable"] += 1
        if self._outages.begin(HUB, self._clock.now(), str(error)):
            log.warning("%s", error, extra={"reservation": record.id})


def _kept(claim: Claim) -> bool:
    """Whether its user gave the start up: the slots stay his, and nothing runs there any more."""
    return claim.state is ClaimState.HELD and claim.presence is Presence.ABSENT
