"""Requests that share a commit, and commits that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Changes, Commit, Slot
from gpudev_hub.core.decisions.decide import decide
from gpudev_hub.core.decisions.unit_of_work import Records
from gpudev_hub.core.decisions.working_state import WorkingState
from gpudev_hub.core.effects import Decision
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import Event, Submit
from gpudev_hub.core.model import MINUTE, SECOND, Claim, Millis, Node, NodeSlots
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.ports import CommitTooLarge, OutcomeUnknown, StoreUnavailable
from gpudev_hub.core.request import Ask
from memory_store import Disk, MemoryStore
from service_world import ALICE, POLICY, ServiceWorld


class Failing(MemoryStore):
    """The commit after so many others fails, or is made without a word."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.left: int | None = None
        self.made = False
        self.most: int | None = None
        self.sizes: list[int] = []

    async def commit(self, commit: Commit) -> None:
        self.sizes.append(len(commit.changes))
        if self.most is not None and len(commit.changes) > self.most:
            raise CommitTooLarge(f"{len(commit.changes)} changes")
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                if self.made:
                    await super().commit(commit)
                    raise OutcomeUnknown("no answer")
                raise StoreUnavailable("no room")
        await super().commit(commit)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def world(tmp_path: Path, disk: Disk) -> AsyncIterator[ServiceWorld]:
    policy = replace(POLICY, allowances=Allowances(queued_requests=1_000))
    world = ServiceWorld(tmp_path, policy=policy, make_store=lambda folder, failpoint: Failing(disk))
    await world.start()
    held = await world.reserve(gpus=8, nodes=2)
    await world.becomes(held.id, "ready")
    await world.service.reconcile()
    yield world
    await world.close()


@pytest.fixture
async def idle_world(tmp_path: Path, disk: Disk) -> AsyncIterator[ServiceWorld]:
    """One whose GPUs are all free."""
    world = ServiceWorld(tmp_path, make_store=lambda folder, failpoint: Failing(disk))
    await world.start()
    await world.service.reconcile()
    yield world
    await world.close()


def store_of(world: ServiceWorld) -> Failing:
    store = world.service._runner._store
    assert isinstance(store, Failing)
    return store


async def forty(world: ServiceWorld) -> list[str | Refused]:
    """Forty requests at once: the id of each, or why not."""

    async def submit(n: int) -> str | Refused:
        try:
            return (await world.service.submit(ALICE, Ask(gpus=1), f"request-{n}")).id
        except Refused as refused:
            return refused

    return await asyncio.gather(*(submit(n) for n in range(40)))


async def test_requests_that_come_together_share_commits(world: ServiceWorld) -> None:
    store = store_of(world)
    store.sizes.clear()
    answers = await forty(world)
    assert len(set(answers)) == 40
    assert sum(store.sizes) >= 40
    assert len(store.sizes) < 12


@pytest.mark.parametrize("made", [False, True])
async def test_a_commit_that_fails_is_told_to_all_who_share_it(
    world: ServiceWorld, disk: Disk, made: bool
) -> None:
    """3"""
    store = store_of(world)
    store.left, store.made = 0, made
    answers = await forty(world)
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert {answer.code for answer in refused} == (set() if made else {Code.UNAVAILABLE})
    assert not made or len(set(answers)) == 40
    again = await forty(world)
    assert all(now == then for now, then in zip(again, answers, strict=True) if then not in refused)
    first = [e.change.record.id for e in disk.history if e.change.cause == "requested"]  # type: ignore[union-attr]
    assert len(first) == len(set(first)) == 41
    assert set(again) < set(first)


@pytest.mark.parametrize(("failing", "made"), [(1, False), (0, True)])
async def test_a_request_is_granted_once_where_only_what_follows_from_it_fails(
    idle_world: ServiceWorld, disk: Disk, failing: int, made: bool
) -> None:
    """3: it is durable, and whoever asked hears so."""
    world = idle_world
    store = store_of(world)
    store.left, store.made = failing, made
    asked = await world.service.submit(ALICE, Ask(gpus=1))
    await world.becomes(asked.id, "ready")
    requested = [e.change.record for e in disk.history if e.change.cause == "requested"]
    assert [record.id for record in requested] == [asked.id]  # type: ignore[union-attr]


async def test_warnings_are_given_though_their_commit_failed_at_first(
    idle_world: ServiceWorld,
) -> None:
    """9: three are due at once, and their commit fails at first."""
    world, store = idle_world, store_of(idle_world)
    asked = [await world.service.submit(ALICE, Ask(gpus=1, hours=1)) for _ in range(3)]
    for one in asked:
        await world.becomes(one.id, "ready")
    await world.service.reconcile()
    store.left = 0
    world.clock.advance(30 * MINUTE + 30 * SECOND)
    await world.until(lambda: store.left is None)
    await world.service.mint("local:somebody")
    for one in asked:
        assert await world.service.notices(one.id, 0, 1), one.id


@pytest.mark.parametrize(("failing", "made"), [(0, True), (0, False), (1, False)])
async def test_an_outage_is_accounted_for_once_whatever_becomes_of_its_commit(
    idle_world: ServiceWorld, failing: int, made: bool
) -> None:
    """Made without a word, failed, or followed by another one that failed."""
    world = idle_world
    asked, view = await world.coming_up(gpus=1), world.service.view
    before = view.reservations[asked.id].start_deadline
    now = world.clock.now()
    world.clock.advance(20 * SECOND)
    store = store_of(world)
    store.left, store.made = failing, made
    world.service.outages.was("the Hub", now, now + 20 * SECOND)
    await asyncio.gather(*(world.service.mint(f"local:{n}") for n in range(4)), return_exceptions=True)
    with suppress(Refused):
        await world.service.mint("local:next")
    await world.service.mint("local:last")
    assert store_of(world).left is None
    moved = (view.reservations[asked.id].start_deadline or 0) - (before or 0)
    assert 20 * SECOND <= moved < 21 * SECOND, "a store that failed was away for moments, too"


def test_a_slot_that_comes_and_goes_within_a_commit_is_not_told() -> None:
    """1"""
    world = Records(POLICY)
    world.put(Node("node-1", "h100", 8, "zone-a"), Cause.NODE_CHANGED)
    a, b = (Claim(ref, 1, "local:a", "h100", (NodeSlots("node-1", (0,)),), 9) for ref in ("a1", "b1"))
    world.put(a, Cause.ADMITTED)
    assert world.drain().take == ((Slot("node-1", 0), a.key),)
    world.drop(a, Cause.RELEASED)
    world.put(b, Cause.ADMITTED)
    changes = world.drain()
    assert (changes.free, changes.take) == (((Slot("node-1", 0), a.key),), ((Slot("node-1", 0), b.key),))
    world.drop(b, Cause.RELEASED)
    world.put(b, Cause.ADMITTED)
    changes = world.drain()
    assert (changes.free, changes.take, len(changes.records)) == ((), (), 2)
    assert world.drain() == Changes()


async def submitted(world: ServiceWorld, *request_ids: str) -> list[str | Code]:
    """Ids of reservations that were asked for at once, or the codes of refusals."""

    async def submit(request_id: str) -> str | Code:
        try:
            return (await world.service.submit(ALICE, Ask(gpus=1), request_id)).id
        except Refused as refused:
            return refused.code

    return list(await asyncio.gather(*(submit(request_id) for request_id in request_ids)))


async def test_requests_that_are_too_many_for_a_commit_share_several(world: ServiceWorld) -> None:
    """They had all been refused with an internal error, although each fits."""
    store_of(world).most = 20
    answers = await submitted(world, *(f"request-{n}" for n in range(60)))
    assert not [answer for answer in answers if isinstance(answer, Code)]


async def test_defects_met_with_others_do_not_refuse_a_request(
    world: ServiceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of them in a batch had used up its tries."""

    def broken(world: WorkingState, event: Event, now: Millis, *, last: bool = True) -> Decision:
        if isinstance(event, Submit) and (event.request_id or "").startswith("bad"):
            raise ValueError("a defect")
        return decide(world, event, now, last=last)

    monkeypatch.setattr("gpudev_hub.service.writer.decide", broken)
    answers = await submitted(world, "good-1", "good-2", "bad-1", "bad-2", "bad-3")
    assert [isinstance(answer, Code) for answer in answers] == [False, False, True, True, True]


async def test_what_is_due_is_done_though_the_request_is_refused(idle_world: ServiceWorld) -> None:
    """5: a server had run on for up to a minute after its end, until something else was decided."""
    world = idle_world
    short = await world.reserve(gpus=1, hours=1)
    await world.becomes(short.id, "ready")
    long = await world.reserve(gpus=1, hours=3, name="long")
    await world.becomes(long.id, "ready")
    world.clock.advance(61 * MINUTE)
    with pytest.raises(Refused):
        await world.reserve(gpus=1, name="long")
    await world.until(lambda: (short.id, 1) not in world.cluster.running, "the end of its server")
