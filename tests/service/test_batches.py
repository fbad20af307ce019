"""Batches that are larger than what the store takes at once: split between requests, never within one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change, Commit, Part, Slot
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import MINUTE, SECOND, MintedId
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.ports import OutcomeUnknown, StoreUnavailable
from gpudev_hub.core.request import Ask
from gpudev_hub.service.batch import pack
from memory_store import Disk, MemoryStore
from service_world import ALICE, POLICY, ServiceWorld

LIMIT = 12


class Failing(MemoryStore):
    """The commit after so many others fails, or is made without a word."""

    def __init__(self, disk: Disk, limit: int = LIMIT) -> None:
        super().__init__(disk, limit)
        self.left: int | None = None
        self.made = False
        self.sizes: list[int] = []

    async def commit(self, commit: Commit) -> None:
        self.sizes.append(len(commit.changes))
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
async def narrow_world(tmp_path: Path, disk: Disk) -> AsyncIterator[ServiceWorld]:
    """Whose store takes two changes at once: a request and its start are two commits."""
    world = ServiceWorld(tmp_path, make_store=lambda folder, failpoint: Failing(disk, 2))
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


async def test_a_batch_is_as_many_commits_as_the_store_needs(world: ServiceWorld) -> None:
    store = store_of(world)
    store.sizes.clear()
    answers = await forty(world)
    assert len(set(answers)) == 40
    assert sum(store.sizes) >= 40
    assert max(store.sizes) <= LIMIT
    assert len(store.sizes) < 12, "still shared"


@pytest.mark.parametrize("made", [False, True])
async def test_what_was_committed_before_another_commit_failed_is_answered(
    world: ServiceWorld, disk: Disk, made: bool
) -> None:
    """3"""
    store = store_of(world)
    store.left, store.made = 2, made
    answers = await forty(world)
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert {answer.code for answer in refused} == (set() if made else {Code.UNAVAILABLE})
    assert len(answers) - len(refused) > 0
    assert not made or len(set(answers)) == 40
    again = await forty(world)
    assert all(now == then for now, then in zip(again, answers, strict=True) if then not in refused)
    first = [e.change.record.id for e in disk.history if e.change.cause == "requested"]  # type: ignore[union-attr]
    assert len(first) == len(set(first)) == 41
    assert set(again) < set(first)


@pytest.mark.parametrize(("failing", "made"), [(1, False), (0, True)])
async def test_a_request_is_granted_once_where_only_what_follows_from_it_fails(
    narrow_world: ServiceWorld, disk: Disk, failing: int, made: bool
) -> None:
    """3: it is durable, and whoever asked hears so; its start is another commit here, which comes later."""
    world = narrow_world
    store = store_of(world)
    store.left, store.made = failing, made
    asked = await world.service.submit(ALICE, Ask(gpus=1))
    await world.becomes(asked.id, "ready")
    requested = [e.change.record for e in disk.history if e.change.cause == "requested"]
    assert [record.id for record in requested] == [asked.id]  # type: ignore[union-attr]


async def test_a_warning_that_is_recorded_is_given_though_a_later_commit_failed(
    narrow_world: ServiceWorld,
) -> None:
    """9: three are due at once, and the second commit, with two of them, fails at first."""
    world, store = narrow_world, store_of(narrow_world)
    asked = [await world.service.submit(ALICE, Ask(gpus=1, hours=1)) for _ in range(3)]
    for one in asked:
        await world.becomes(one.id, "ready")
    await world.service.reconcile()
    store.left = 1
    world.clock.advance(30 * MINUTE + 30 * SECOND)
    await world.until(lambda: store.left is None)
    await world.service.mint("local:somebody")
    for one in asked:
        assert await world.service.notices(one.id, 0, 1), one.id


@pytest.mark.parametrize(("failing", "made"), [(0, True), (0, False), (1, False)])
async def test_an_outage_is_accounted_for_once_whatever_becomes_of_its_commit(
    narrow_world: ServiceWorld, failing: int, made: bool
) -> None:
    """Made without a word, failed, or followed by another one that failed."""
    world = narrow_world
    asked, view = await world.coming_up(gpus=1), world.service.view
    before = view.reservations[asked.id].start_deadline
    now = world.clock.now()
    world.clock.advance(20 * SECOND)
    store = store_of(world)
    store.left, store.made = failing, made
    world.service.outages.was("the Hub", now, now + 20 * SECOND)
    await asyncio.gather(*(world.service.mint(f"local:{n}") for n in range(4)), return_exceptions=True)
    await world.service.mint("local:last")
    assert store_of(world).left is None
    moved = (view.reservations[asked.id].start_deadline or 0) - (before or 0)
    assert 20 * SECOND <= moved < 21 * SECOND, "a store that failed was away for moments, too"


def test_what_does_not_fit_is_halved_in_order() -> None:
    minted = [Change(MintedId(f"m{i}", "local:a", i), Cause.MINTED, "local:a") for i in range(9)]
    parts = [Part((change,)) for change in minted]
    packed = pack(parts, lambda part: len(part.changes) <= 3)
    assert [len(part.changes) for part, _ in packed] == [count for _, count in packed]
    assert all(count <= 3 for _, count in packed)
    assert [change for part, _ in packed for change in part.changes] == minted
    assert pack([], lambda part: True) == []
    assert pack(parts[:1], lambda part: False) == [(parts[0], 1)], "the store says how much too large it is"


def test_a_slot_that_comes_and_goes_within_a_commit_is_not_told() -> None:
    """1"""
    slot, other = Slot("node-1", 0), Slot("node-1", 1)
    a, b = ("a1", 1), ("b1", 1)
    whole = Part.joined(
        [Part((), {slot: (a, None), other: (None, a)}), Part((), {slot: (None, b), other: (a, None)})]
    )
    assert (whole.free, whole.take) == (((slot, a),), ((slot, b),))
    assert Part.joined([Part((), {slot: (a, None)}), Part((), {slot: (None, a)})]) == Part()
