"""The service over a DynamoDB that fails: admissions stop, servers don't, and nothing is lost or doubled.

The numbers are those of the invariants.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dynamodb_local import DynamoDBLocal
from dynamodb_proxy import TRANSACTION, Fault, FaultProxy
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Reservation
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.ports import StaleEpoch, Store
from gpudev_hub.core.request import Ask
from gpudev_hub.failpoints import Failpoint
from gpudev_hub.stores.dynamodb.calls import Patience
from gpudev_hub.stores.dynamodb.store import DynamoStore
from service_world import ALICE, BOB, POLICY, ServiceWorld

pytestmark = pytest.mark.dynamodb

QUICK = Patience(tries=3, pause=0.01)
LONG = 20.0
"""Seconds for an answer: what a busy machine needs is no fault."""
SHORT = 1.5
MakeStore = Callable[[Path, Failpoint], Store]


@pytest.fixture
def make_store(dynamodb: DynamoDBLocal, proxy: FaultProxy) -> MakeStore:
    table = dynamodb.table()
    return lambda folder, failpoint: DynamoStore(
        table, dynamodb.client(proxy.url, timeout=LONG), failpoint, QUICK
    )


@pytest.fixture
async def world(make_store: MakeStore, tmp_path: Path) -> AsyncIterator[ServiceWorld]:
    world = ServiceWorld(tmp_path, make_store=make_store)
    await world.start()
    yield world
    await world.close()


async def requested_once(world: ServiceWorld, *ids: str) -> None:
    """3: each of these, and nothing else, is in the history as requested."""
    entries, _ = await world.service.reads.history(None, 0, 100_000)
    found = [e.change.record.id for e in entries if e.change.cause == "requested"]  # type: ignore[union-attr]
    assert sorted(found) == sorted(ids)


async def admitted(world: ServiceWorld) -> Reservation:
    """As soon as the store answers again; whoever comes earlier is told to try again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await world.reserve(BOB, gpus=1)
            except Refused as refused:
                if refused.code is not Code.UNAVAILABLE:
                    raise


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.BROKEN_AFTER, Fault.THROTTLED])
async def test_one_request_is_one_reservation(world: ServiceWorld, proxy: FaultProxy, fault: Fault) -> None:
    """3"""
    await world.service.reconcile()
    proxy.next(fault)
    record = await world.service.submit(ALICE, Ask(gpus=2), "request-1")
    assert (await world.service.submit(ALICE, Ask(gpus=2), "request-1")).id == record.id
    await world.becomes(record.id, "ready")
    await requested_once(world, record.id)


async def test_an_answer_that_comes_late_is_no_second_reservation(
    dynamodb: DynamoDBLocal, proxy: FaultProxy, tmp_path: Path
) -> None:
    """3"""
    client, table = dynamodb.client(proxy.url, timeout=SHORT), dynamodb.table()
    world = ServiceWorld(tmp_path, make_store=lambda folder, fail: DynamoStore(table, client, fail))
    try:
        await world.start()
        proxy.next(Fault.ANSWER_LATE)
        record = await world.service.submit(ALICE, Ask(gpus=2), "request-1")
        proxy.release()
        proxy.wait_landed()
        assert (await world.service.submit(ALICE, Ask(gpus=2), "request-1")).id == record.id
        await world.becomes(record.id, "ready")
        await requested_once(world, record.id)
    finally:
        await world.close()


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.LOST])
async def test_an_outcome_that_stays_unknown_is_settled_by_what_the_store_holds(
    world: ServiceWorld, proxy: FaultProxy, fault: Fault
) -> None:
    """3: made or not, the head can't be read for a while either."""
    await world.service.reconcile()
    proxy.next(fault, times=QUICK.tries)
    proxy.next(Fault.THROTTLED, times=QUICK.tries, operation="GetItem")
    record = await world.service.submit(ALICE, Ask(gpus=2), "request-1")
    assert list(world.service.view.reservations) == [record.id]
    await world.becomes(record.id, "ready")
    await requested_once(world, record.id)


async def test_an_outage_stops_admissions_and_no_server(world: ServiceWorld, proxy: FaultProxy) -> None:
    """3, 5"""
    running = await world.reserve(gpus=8)
    await world.becomes(running.id, "ready")
    servers, calls = dict(world.cluster.running), list(world.hub.calls)
    proxy.down()
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            await world.service.submit(BOB, Ask(gpus=1))
        assert refused.value.code is Code.UNAVAILABLE
    health = world.service.health()
    assert health.live
    assert any(reason.startswith("the database: DynamoDB table") for reason in health.reasons)
    assert world.service.view.reservations[running.id].state == "ready"
    proxy.up()
    record = await admitted(world)
    assert world.service.health().reasons == []
    await world.becomes(record.id, "ready")
    assert world.cluster.removed == []
    assert servers.items() <= world.cluster.running.items()
    assert [call for call in world.hub.calls[len(calls) :] if call[0] == "DELETE"] == []
    await requested_once(world, running.id, record.id)


async def test_while_it_is_throttled_people_are_told_and_can_try_again(
    world: ServiceWorld, proxy: FaultProxy
) -> None:
    """3"""
    await world.service.reconcile()
    proxy.next(Fault.EXCEEDED, times=1_000)
    with pytest.raises(Refused) as refused:
        await world.service.submit(ALICE, Ask(gpus=1), "request-1")
    assert refused.value.code is Code.UNAVAILABLE
    proxy.heal()
    record = await world.service.submit(ALICE, Ask(gpus=1), "request-1")
    await world.becomes(record.id, "ready")
    await requested_once(world, record.id)


async def test_a_service_that_was_taken_over_stops_and_changes_nothing(
    world: ServiceWorld, make_store: MakeStore, tmp_path: Path, proxy: FaultProxy
) -> None:
    """11"""
    # It is paused in the middle of a commit, and sees servers of which it knows nothing.
    record = await world.reserve(gpus=8)
    await world.becomes(record.id, "ready")
    proxy.next(Fault.HELD)
    waiting = asyncio.create_task(world.service.submit(ALICE, Ask(gpus=1), "request-1"))
    await asyncio.to_thread(proxy.arrived.wait, 20)
    new = ServiceWorld(tmp_path, make_store=make_store, cluster=world.cluster, clock=world.clock)
    new.seed(2)
    try:
        await new.start()
        other = await new.reserve(BOB, gpus=1)
        proxy.release()
        with pytest.raises(Refused):
            await waiting
        with pytest.raises(StaleEpoch):
            await world.service.closed()
        await requested_once(new, record.id, other.id)
        assert world.cluster.removed == []
    finally:
        await new.close()


async def test_a_node_with_many_places_behind_it_is_one_commit(
    make_store: MakeStore, tmp_path: Path, proxy: FaultProxy
) -> None:
    """3, 4: the cause is committed first, then who is placed again because of it."""
    policy = replace(POLICY, allowances=Allowances(queued_requests=1_000, running_gpus=1_000))
    world = ServiceWorld(tmp_path, policy=policy, make_store=make_store)
    try:
        await world.start()
        held = await world.reserve(gpus=8, nodes=2)
        await world.becomes(held.id, "ready")
        queue = await asyncio.gather(
            *(world.service.submit(ALICE, Ask(gpus=8, hours=1 + n % 3), f"r{n}") for n in range(140))
        )
        await world.service.reconcile()
        before, asked = world.service.view.n, proxy.asked[TRANSACTION]
        await world.service.operate_node("node-2", "drain", "local:root")
        n = world.service.view.n
        assert n - before == 1, "one decision, one commit"
        assert proxy.asked[TRANSACTION] - asked == n - before
        entries, _ = await world.service.reads.history(None, 0, 100_000)
        first = next(entry for entry in entries if entry.n == before + 1)
        assert first.change.cause.startswith("node_drained")
        await world.until(lambda: all(planned_on(world, r.id) == {"node-1"} for r in queue))
    finally:
        await world.close()


def planned_on(world: ServiceWorld, id: str) -> set[str]:
    """The nodes of its place."""
    place = world.service.view.reservations[id].place
    return set() if place is None else set(place.nodes)
