"""The one writer: events are decided, committed, and only then answered and acted upon.

Events that arrive during a commit are decided together on a working state, and share the next commit. If a
commit fails, or its outcome is unknown, the working state is discarded.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from gpudev_hub.core.commit import Commit, Snapshot
from gpudev_hub.core.decisions.decide import decide, next_due
from gpudev_hub.core.decisions.recovery import rebuild
from gpudev_hub.core.decisions.working_state import WorkingState
from gpudev_hub.core.effects import Decision, Effect
from gpudev_hub.core.errors import TRY_AGAIN, Code, Refused
from gpudev_hub.core.events import Compress, Event, ServerObserved, ServerReady, StopIntent, Tick
from gpudev_hub.core.model import Millis
from gpudev_hub.core.ports import CommitTooLarge, OutcomeUnknown, SlotTaken, StaleEpoch, StoreUnavailable
from gpudev_hub.core.words import sentence
from gpudev_hub.failpoints import BEFORE_ANSWER

from .context import Context
from .outages import STORE

MAX_EVENTS: Final = 64
"""Most events that share a commit."""
MAX_SECONDS: Final = 0.02
"""Time spent on decisions before a commit is made."""
MAX_TRIES: Final = 3
"""How often a request is decided if something else fails."""
TAKEN_OVER: Final = "Another reservation service has taken over the database."
PERHAPS_DONE: Final = "The change may have been made. Check before you try again."
LONGEST_PAUSE: Final = 1.0
"""Most seconds between two tries while the store fails."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Item:
    """An event, with the caller that waits for its result."""

    event: Event
    waiting: asyncio.Future[Decision] | None
    arrived: float
    tries: int = 0

    def answer(self, result: Decision | Refused) -> None:
        """Tell the result to the caller, if there is one who still waits."""
        if self.waiting is None or self.waiting.done():
            return
        if isinstance(result, Refused):
            self.waiting.set_exception(result)
        else:
            self.waiting.set_result(result)


@dataclass(slots=True)
class Batch:
    """Events that are decided together and share a commit, and their results."""

    items: list[Item] = field(default_factory=list)
    results: list[Decision | Refused] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    outages: bool = False
    """Whether the batch accounts for outages."""

    def take_items(self) -> list[Item]:
        """Remove and return the events that are not answered."""
        items, self.items = self.items, []
        return items


class Follower(Protocol):
    """Follows the commits of the writer."""

    def committed(self, commit: Commit) -> None:
        """Follow one more durable commit, before its requests are answered."""
        ...

    def perform(self, effects: Sequence[Effect]) -> None:
        """Perform effects that are durable now."""
        ...


class _Poison(Exception):
    """A decision on one event failed because of a bug."""


class Writer:
    """Runs until it is stopped, or another service has taken over (``StaleEpoch``)."""

    def __init__(self, context: Context, follower: Follower) -> None:
        self._policy = context.adapters.policy
        self._store = context.adapters.store
        self._clock = context.adapters.clock
        self._follower = follower
        self._remembered = context.remembered
        self._outages = context.outages
        self._reconcile = context.reconcile_due.set
        self._metrics = context.metrics
        self._failpoint = context.adapters.failpoint
        self._seen: deque[Item] = deque()
        """Observations, decided before requests: a server gone exactly at its end has not overrun."""
        self._asked: deque[Item] = deque()
        self._wake = context.writer_due
        self._batch = Batch()
        self._stopping = False
        self._stale: StaleEpoch | None = None
        self._closed: Refused | None = None
        self._world: WorkingState | None = None
        self._epoch = self._n = 0
        self._at: Millis = 0
        self._more = False
        self._failures = 0
        self._most_events = MAX_EVENTS
        """Fewer after a commit that was too large."""

    async def open(self) -> Snapshot:
        """Take over the store and continue from what it holds."""
        snapshot = await self._store.open()
        ahead = self._clock.start_after(snapshot.at)
        if ahead:
            log.warning(
                "this machine's clock is %d ms behind the last commit; times continue from there", ahead
            )
        self._adopt(snapshot)
        return snapshot

    def post(self, event: Event) -> None:
        """Decide about an event soon, without an answer."""
        self._put(Item(event, None, self._clock.precise()))

    async def ask(self, event: Event) -> Decision:
        """Decide about an event; return once the decision is durable. Raises ``Refused``."""
        waiting: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._put(Item(event, waiting, self._clock.precise()))
        return await waiting

    @property
    def waiting(self) -> int:
        """Events not decided yet."""
        return len(self._seen) + len(self._asked)

    def _put(self, item: Item) -> None:
        if self._closed is not None:
            item.answer(self._closed)
            return
        # A stop counts as observed, too: without it, the observed end of the server would be a crash.
        seen = isinstance(item.event, ServerObserved | ServerReady | StopIntent)
        (self._seen if seen else self._asked).append(item)
        self._wake.set()

    def stop(self) -> None:
        """Finish the present commit, and refuse everything after it."""
        self._stopping = True
        self._wake.set()

    def overtaken(self, error: StaleEpoch) -> None:
        """Let ``run`` raise this: a check of the store found that another service has taken over."""
        self._stale = error
        self._wake.set()

    async def run(self) -> None:
        """Decide and commit until ``stop``. Raises ``StaleEpoch`` when another service has taken over."""
        reason = "The reservation service is stopping."
        try:
            while not self._stopping:
                if self._world is None:
                    await self._rebuild()
                else:
                    await self._pause()
                    if self._stale is not None:
                        raise self._stale
                    if not self._stopping:
                        await self._turn(self._world)
        except StaleEpoch:
            reason = TAKEN_OVER
            raise
        except BaseException as error:
            reason = f"The reservation service has stopped: {str(error) or type(error).__name__}."
            raise
        finally:
            self._closed = Refused(Code.UNAVAILABLE, reason, TRY_AGAIN)
            for item in self._batch.take_items():
                item.answer(self._closed)
            self._refuse_waiting(self._closed)

    async def _pause(self) -> None:
        """Wait until there is something to do."""
        if self.waiting or self._more:
            await asyncio.sleep(0)
            return
        assert self._world is not None
        self._wake.clear()
        await self._clock.wait(self._wake, next_due(self._world, self._clock.now()))

    def _adopt(self, snapshot: Snapshot) -> None:
        self._epoch, self._n, self._at = snapshot.epoch, snapshot.n, snapshot.at
        self._world = rebuild(self._policy, snapshot, self._now())
        self._more = True
        self._remembered.loaded(snapshot)
        self._reconcile()

    def _now(self) -> Millis:
        return max(self._clock.now(), self._at)

    async def _rebuild(self) -> bool:
        """Read the working state again; return false if the store does not answer."""
        self._metrics.rebuilds += 1
        try:
            snapshot = await self._store.reload()
        except StoreUnavailable as error:
            self._store_fails(error)
            self._refuse_waiting(_unavailable(error))
            await self._back_off()
            return False
        self._adopt(snapshot)
        return True

    async def _turn(self, world: WorkingState) -> None:
        """Decide what has arrived and what is due; commit it; answer; act."""
        batch, now = Batch(), self._now()
        self._batch = batch
        try:
            self._decide_all(world, now, batch)
            changes = world.drain()
        except Exception as error:
            log.exception("a decision failed; the working state is reloaded from the database")
            self._world = None
            poisoned = isinstance(error, _Poison)
            if poisoned:
                batch.items.pop().answer(_internal_error())
            self._again(batch.items, count=not poisoned)
            await self._back_off()
            return
        # Keep trying the store: an idle service would not notice that it works again.
        if changes.records or self._failures:
            commit = Commit(
                self._epoch,
                self._n + 1,
                secrets.token_hex(8),
                now,
                changes.records,
                changes.take,
                changes.free,
            )
            if not await self._commit(commit, batch):
                return
        self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        """Answer and act: the batch is durable."""
        self._failpoint(BEFORE_ANSWER)
        if batch.outages:
            self._outages.accounted()
        for item, result in zip(batch.take_items(), batch.results, strict=True):
            item.answer(result)
            self._metrics.answers.saw(self._clock.precise() - item.arrived)
        self._follower.perform(batch.effects)

    def _decide_all(self, world: WorkingState, now: Millis, batch: Batch) -> None:
        for outage in self._outages.take(now, due=_is_due(world, now)):
            batch.effects += decide(world, outage, now, last=False).effects
            batch.outages = True
        begun = self._clock.precise()
        while len(batch.items) < self._most_events and self._clock.precise() - begun < MAX_SECONDS:
            queue = self._seen or self._asked
            if not queue:
                break
            item = queue.popleft()
            batch.items.append(item)
            self._decide(world, item, now, batch)
        if self._seen:
            self._more = True  # the other observations come before the clock
            return
        if self._more:
            batch.effects += decide(world, Compress(), now).effects
        elif _is_due(world, now):
            batch.effects += decide(world, Tick(), now).effects
        self._more = not world.settled()

    def _decide(self, world: WorkingState, item: Item, now: Millis, batch: Batch) -> None:
        self._metrics.events[type(item.event).__name__] += 1
        try:
            decision = decide(world, item.event, now, last=not self._seen)
        except Refused as refused:
            self._metrics.refused[refused.code] += 1
            batch.results.append(refused)
            # What is due by now is done even if the request is refused.
            batch.effects += world.take_effects()
        except Exception as error:
            raise _Poison(f"{item.event}") from error
        else:
            batch.results.append(decision)
            batch.effects += decision.effects

    async def _commit(self, commit: Commit, batch: Batch) -> bool:
        """Return whether a commit is durable; if not, its requests are answered, or will be decided again."""
        begun = self._clock.precise()
        try:
            await self._store.commit(commit)
        except OutcomeUnknown as error:
            return await self._settle(commit, batch, error)
        except StoreUnavailable as error:
            self._world = None
            self._store_fails(error)
            for item in batch.take_items():
                item.answer(_unavailable(error))
            await self._back_off()
            return False
        except (SlotTaken, CommitTooLarge) as error:
            log.exception("the database refused commit %d; the working state is reloaded", commit.n)
            self._world = None
            items = batch.take_items()
            divisible = isinstance(error, CommitTooLarge) and len(items) > 1
            if divisible:
                self._most_events = len(items) // 2
            self._again(items, count=not divisible)
            await self._back_off()
            return False
        except StaleEpoch:
            for item in batch.take_items():
                item.answer(Refused(Code.UNAVAILABLE, TAKEN_OVER, PERHAPS_DONE))
            raise
        self._metrics.commits.saw(self._clock.precise() - begun)
        self._failures, self._most_events = 0, MAX_EVENTS
        self._n, self._at = commit.n, commit.at
        self._follower.committed(commit)
        if self._outages.end(STORE, self._clock.now()):
            log.warning("the database works again")
            self._reconcile()
        return True

    async def _settle(self, commit: Commit, batch: Batch, error: OutcomeUnknown) -> bool:
        log.warning("commit %d: outcome unknown: %s", commit.n, error)
        while not await self._rebuild():
            pass
        if self._n < commit.n:
            self._again(batch.take_items())
            return False
        return True

    def _again(self, items: list[Item], *, count: bool = True) -> None:
        """Decide about these events once more, unless they were tried too often.

        ``count``: false if the failure is not theirs.
        """
        for item in reversed(items):
            item.tries += count
            if item.tries < MAX_TRIES:
                self._asked.appendleft(item)
            else:
                log.error("failed after %d tries: %s", item.tries, item.event)
                item.answer(_internal_error())

    def _store_fails(self, error: StoreUnavailable) -> None:
        if self._outages.begin(STORE, self._clock.now(), str(error)):
            log.error("the database does not work: %s", error)

    async def _back_off(self) -> None:
        self._failures += 1
        await asyncio.sleep(min(LONGEST_PAUSE, 0.02 * 2 ** min(self._failures, 10)))

    def _refuse_waiting(self, error: Refused) -> None:
        items = [*self._seen, *self._asked]
        self._seen.clear()
        self._asked.clear()
        for item in items:
            item.answer(error)


def _is_due(world: WorkingState, now: Millis) -> bool:
    due = next_due(world, now)
    return due is not None and due <= now


def _unavailable(error: Exception) -> Refused:
    return Refused(Code.UNAVAILABLE, sentence(str(error)), f"Nothing was changed. {TRY_AGAIN}")


def _internal_error() -> Refused:
    return Refused(
        Code.INTERNAL_ERROR, "Internal error; your request changed nothing.", "Contact an operator."
    )
