"""What only a store behind a network can do wrong: throttle, lose answers, answer late, be taken over.

The numbers are those of the invariants.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import groupby
from typing import Any

import pytest

from dynamodb_local import DynamoDBLocal
from dynamodb_proxy import TRANSACTION, Fault, FaultProxy
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change, Commit, Owned, Slot
from gpudev_hub.core.model import HOUR, Claim, Node, NodeSlots, Owner, Request, Reservation, Shape
from gpudev_hub.core.ports import OutcomeUnknown, SlotTaken, StaleEpoch, Store, StoreUnavailable
from gpudev_hub.stores.dynamodb.calls import Patience
from gpudev_hub.stores.dynamodb.store import DynamoStore
from gpudev_hub.stores.items import slots_key

pytestmark = pytest.mark.dynamodb

QUICK = Patience(tries=3, pause=0.01)
LONG = 20.0
"""Seconds for an answer: what a busy machine needs is no fault."""
SHORT = 1.5
ONCE = [
    fault
    for fault in Fault
    if fault not in (Fault.DENIED, Fault.HELD, Fault.LANDS_LATE, Fault.ANSWER_LATE, Fault.OLD)
]


def reservation(id: str, seq: int = 1, detail: str = "") -> Reservation:
    owner = Owner("local:alice", "alice", "alice")
    request = Request(Shape(1), "p5", HOUR, "image")
    return Reservation(id, seq, owner, request, None, 0, 60_000, 30_000, 16, detail=detail)


def requested(*ids: str, gone: bool = False) -> tuple[Change, ...]:
    return tuple(Change(reservation(one), Cause.REQUESTED, "local:alice", gone) for one in ids)


def commit(
    n: int, *ids: str, epoch: int = 1, take: tuple[Owned, ...] = (), free: tuple[Owned, ...] = ()
) -> Commit:
    """These are requested; slots change hands with their claims."""
    changes = (*requested(*ids), *claimed(take), *claimed(free, gone=True))
    return Commit(epoch, n, secrets.token_hex(8), n, changes, take, free)


def claimed(slots: tuple[Owned, ...], *, gone: bool = False) -> Iterator[Change]:
    for (of, attempt), owned in groupby(slots, key=lambda owned: owned[1]):
        parts = tuple(NodeSlots(slot.node, (slot.index,)) for slot, _ in owned)
        claim = Claim(of, attempt, "local:alice", "p5", parts, hard_end=99_000)
        yield Change(claim, Cause.ADMITTED, "service", gone)


async def live(store: Store) -> list[str]:
    return sorted((await store.reload()).reservations)


async def made(store: Store) -> list[tuple[int, str]]:
    """Every change that the history has: (commit, reservation)."""
    entries, _ = await store.history(None, 0, 10_000)
    return [(e.n, e.change.record.id) for e in entries if isinstance(e.change.record, Reservation)]


@pytest.fixture
def table(dynamodb: DynamoDBLocal) -> str:
    return dynamodb.table()


Make = Callable[[], DynamoStore]


@pytest.fixture
def make(dynamodb: DynamoDBLocal, table: str, proxy: FaultProxy) -> Make:
    """Stores over the same table, through the proxy."""
    return lambda: DynamoStore(table, dynamodb.client(proxy.url, timeout=LONG), patience=QUICK)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[DynamoStore]:
    store = make()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def hasty(dynamodb: DynamoDBLocal, table: str, proxy: FaultProxy) -> AsyncIterator[DynamoStore]:
    """One that tries once: what a test has go wrong, it hears of."""
    once = Patience(tries=1, pause=0)
    store = DynamoStore(table, dynamodb.client(proxy.url, timeout=LONG), patience=once)
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("fault", ONCE)
async def test_a_commit_is_made_once_whatever_happens_to_a_request(
    store: DynamoStore, proxy: FaultProxy, fault: Fault
) -> None:
    """3"""
    await store.commit(commit(1, "a1", take=((Slot("node-1", 0), ("a1", 1)),)))
    proxy.next(fault, times=2)
    await store.commit(commit(2, "b1", "c1", take=((Slot("node-1", 1), ("b1", 1)),)))
    assert proxy.asked[TRANSACTION] == 4
    await store.commit(commit(3, "d1"))
    assert await made(store) == [(1, "a1"), (2, "b1"), (2, "c1"), (3, "d1")]
    assert await live(store) == ["a1", "b1", "c1", "d1"]


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.EXCEEDED, Fault.CANCELLED_BUSY, Fault.CONFLICT])
async def test_who_is_throttled_for_long_knows_that_nothing_was_changed(
    store: DynamoStore, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.next(fault, times=10)
    with pytest.raises(StoreUnavailable) as failure:
        await store.commit(commit(1, "a1"))
    assert not isinstance(failure.value, OutcomeUnknown)
    assert proxy.asked[TRANSACTION] == QUICK.tries
    proxy.heal()
    await store.commit(commit(1, "b1"))
    assert await made(store) == [(1, "b1")]


async def test_what_is_forbidden_is_not_tried_again(store: DynamoStore, proxy: FaultProxy) -> None:
    proxy.next(Fault.DENIED)
    with pytest.raises(StoreUnavailable, match="AccessDenied"):
        await store.commit(commit(1, "a1"))
    assert proxy.asked[TRANSACTION] == 1


async def test_while_it_is_down_nothing_is_changed_and_afterwards_all_goes_on(
    store: DynamoStore, proxy: FaultProxy
) -> None:
    """3"""
    await store.commit(commit(1, "a1"))
    proxy.down()
    for asked in (
        store.commit(commit(2, "b1")),
        store.reload(),
        store.find("unknown"),
        store.ended(None, None, 1),
    ):
        with pytest.raises(StoreUnavailable):
            await asked
    proxy.up()
    assert await live(store) == ["a1"]
    await store.commit(commit(2, "c1"))
    assert await made(store) == [(1, "a1"), (2, "c1")]


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.BROKEN_AFTER])
async def test_where_no_answer_ever_comes_the_head_tells_that_it_was_made(
    store: DynamoStore, proxy: FaultProxy, fault: Fault
) -> None:
    """3"""
    proxy.next(fault, times=QUICK.tries)
    await store.commit(commit(1, "a1"))
    await store.commit(commit(2, "b1"))
    assert await made(store) == [(1, "a1"), (2, "b1")]


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.BROKEN_BEFORE, Fault.IN_PROGRESS])
async def test_without_any_answer_the_outcome_is_unknown_until_all_is_read(
    store: DynamoStore, proxy: FaultProxy, fault: Fault
) -> None:
    """3"""
    proxy.next(fault, times=QUICK.tries)
    with pytest.raises(OutcomeUnknown):
        await store.commit(commit(1, "a1"))
    assert (await store.reload()).n == 0
    await store.commit(commit(1, "b1"))
    assert await made(store) == [(1, "b1")]


async def test_an_answer_that_comes_late_changes_nothing_that_was_settled(
    dynamodb: DynamoDBLocal, table: str, proxy: FaultProxy
) -> None:
    """3: made, and not known; the second try finds out."""
    store = DynamoStore(table, dynamodb.client(proxy.url, timeout=SHORT))
    await store.open()
    proxy.next(Fault.ANSWER_LATE)
    await store.commit(commit(1, "a1"))
    await store.commit(commit(2, "b1"))
    proxy.release()
    proxy.wait_landed()
    await store.commit(commit(3, "c1"))
    assert await made(store) == [(1, "a1"), (2, "b1"), (3, "c1")]
    await store.close()


async def test_a_request_that_arrives_after_all_was_read_again_is_refused(
    hasty: DynamoStore, proxy: FaultProxy
) -> None:
    """3: the outcome was unknown, then it was not made, and so it stays."""
    proxy.next(Fault.LANDS_LATE)
    with pytest.raises(OutcomeUnknown):
        await hasty.commit(commit(1, "a1"))
    assert (await hasty.reload()).n == 0
    proxy.release()
    proxy.wait_landed()
    assert (await hasty.reload()).n == 0
    await hasty.commit(commit(1, "b1"))
    assert await made(hasty) == [(1, "b1")]


async def test_a_paused_writer_that_wakes_up_beside_a_new_one_writes_nothing(
    make: Make, dynamodb: DynamoDBLocal, table: str, proxy: FaultProxy
) -> None:
    """11"""
    old, new = make(), DynamoStore(table, dynamodb.client())
    await old.open()
    await old.commit(commit(1, "a1"))
    proxy.next(Fault.HELD)
    waking = asyncio.create_task(old.commit(commit(2, "b1", take=((Slot("node-1", 0), ("b1", 1)),))))
    await asyncio.to_thread(proxy.arrived.wait, 20)
    assert sorted((await new.open()).reservations) == ["a1"]
    await new.commit(commit(2, "c1", epoch=2, take=((Slot("node-1", 0), ("c1", 1)),)))
    proxy.release()
    with pytest.raises(StaleEpoch, match="epoch is 2, ours was 1"):
        await waking
    proxy.wait_landed()
    with pytest.raises(StaleEpoch):
        await old.reload()
    assert await made(new) == [(1, "a1"), (2, "c1")]
    await old.close()
    await new.close()


async def test_of_many_that_open_at_once_one_can_write(make: Make) -> None:
    """11"""
    stores = [make() for _ in range(6)]
    opened = await asyncio.gather(*(store.open() for store in stores), return_exceptions=True)
    epochs = [found.epoch for found in opened if not isinstance(found, BaseException)]
    assert len(set(epochs)) == len(epochs), "an epoch was taken twice"
    done = await asyncio.gather(
        *(
            store.commit(commit(1, f"a{i}", epoch=found.epoch))
            for i, (store, found) in enumerate(zip(stores, opened, strict=True))
            if not isinstance(found, BaseException)
        ),
        return_exceptions=True,
    )
    assert [result for result in done if not isinstance(result, StaleEpoch)] == [None]
    assert all(isinstance(found, StaleEpoch) for found in opened if isinstance(found, BaseException))
    for store in stores:
        await store.close()


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.BROKEN_AFTER, Fault.LOST, Fault.THROTTLED])
async def test_an_epoch_is_taken_once_whatever_happens_to_the_request(
    make: Make, proxy: FaultProxy, fault: Fault
) -> None:
    """11"""
    for epoch, operation in ((1, "PutItem"), (2, "UpdateItem")):
        store = make()
        proxy.next(fault, operation=operation)
        proxy.next(Fault.THROTTLED, operation="Query")
        assert (await store.open()).epoch == epoch
        await store.commit(commit(epoch, f"a{epoch}", epoch=epoch))
        await store.close()


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.LOST, Fault.THROTTLED])
async def test_reading_again_is_tried_again(store: DynamoStore, proxy: FaultProxy, fault: Fault) -> None:
    await store.commit(commit(1, "a1"))
    for operation in ("UpdateItem", "Query", "GetItem"):
        proxy.next(fault, operation=operation)
        assert await live(store) == ["a1"]
    proxy.next(fault, operation="GetItem")
    assert await store.find("a1") == reservation("a1")
    await store.commit(commit(2, "b1"))


async def test_the_one_who_reads_while_another_takes_over_is_told(
    make: Make, dynamodb: DynamoDBLocal, table: str, proxy: FaultProxy
) -> None:
    """11: what it read may be half of the old state and half of the new."""
    old, new = make(), DynamoStore(table, dynamodb.client())
    await old.open()
    proxy.next(Fault.HELD, operation="Query")
    reading = asyncio.create_task(old.reload())
    await asyncio.to_thread(proxy.arrived.wait, 20)
    await new.open()
    proxy.release()
    with pytest.raises(StaleEpoch):
        await reading
    await old.close()
    await new.close()


async def test_both_owners_of_a_contested_slot_are_named(store: DynamoStore) -> None:
    """1"""
    slot = Slot("node-1", 3)
    await store.commit(commit(1, take=((slot, ("a1", 1)),)))
    with pytest.raises(SlotTaken, match=r"index=3.*taken by \('b1', 2\).*owner is \('a1', 1\)"):
        await store.commit(commit(2, take=((slot, ("b1", 2)), (Slot("node-1", 4), ("b1", 2)))))
    with pytest.raises(SlotTaken, match=r"index=4.*freed for \('b1', 2\).*owner is None"):
        await store.commit(commit(2, free=((Slot("node-1", 4), ("b1", 2)),)))


async def test_a_large_hot_state_is_read_page_by_page(store: DynamoStore, proxy: FaultProxy) -> None:
    count = 120
    for n in range(1, 11):
        records = [reservation(f"a{n}-{i}", detail=secrets.token_hex(12_000)) for i in range(12)]
        changes = tuple(Change(record, Cause.REQUESTED, "local:alice") for record in records)
        await store.commit(Commit(1, n, secrets.token_hex(8), n, changes))
    proxy.asked.clear()
    assert len((await store.reload()).reservations) == count
    assert proxy.asked["Query"] > 2
    entries, cursor = await store.history(None, 0, 100)
    assert (len(entries), entries[-1].n) == (100, 9)
    entries, cursor = await store.history(None, cursor or 0, 100)
    assert (len(entries), cursor) == (20, None)


async def test_the_history_of_a_reservation_is_as_long_as_it_likes(store: DynamoStore) -> None:
    for n in range(1, 131):
        await store.commit(commit(n, "a1"))
    entries, cursor = await store.history("a1", 0, 120)
    assert [entry.n for entry in entries] == list(range(1, 121))
    entries, cursor = await store.history("a1", cursor or 0, 120)
    assert ([entry.n for entry in entries], cursor) == (list(range(121, 131)), None)


async def test_of_a_node_that_is_gone_and_free_nothing_stays(
    make: Make, dynamodb: DynamoDBLocal, table: str
) -> None:
    store = make()
    await store.open()
    nodes = [Node(f"node-{i}", "p5", 8, "zone-a") for i in range(3)]
    slot, owner = Slot("node-1", 0), ("a1", 1)
    there = tuple(Change(node, Cause.NODE_CHANGED, "service") for node in nodes)
    gone = tuple(Change(node, Cause.NODE_LOST, "service", gone=True) for node in nodes[:2])
    taken = ((slot, owner),)
    await store.commit(Commit(1, 1, secrets.token_hex(8), 1, (*there, *claimed(taken)), take=taken))
    await store.commit(Commit(1, 2, secrets.token_hex(8), 2, gone))
    await store.close()
    store = make()
    assert list((await store.open()).nodes) == ["node-2"]
    query = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "slots"}}}

    def owned() -> list[str]:
        found = dynamodb.client().query(TableName=table, **query)["Items"]
        return [name for item in found for name in item if "#" in name]

    assert owned() == ["node#node-1"], "its slot has an owner"
    free = (*claimed(taken, gone=True),)
    await store.commit(Commit(2, 3, secrets.token_hex(8), 3, free, free=taken))
    await store.close()
    store = make()
    await store.open()
    assert owned() == []
    await store.close()


async def test_a_commit_that_is_read_half_done_is_read_again(store: DynamoStore, proxy: FaultProxy) -> None:
    """3: the head is as the commit left it, and other items are not yet."""
    await store.commit(commit(1, "a1"))
    assert await live(store) == ["a1"]
    await store.commit(commit(2, "b1"))
    proxy.next(Fault.OLD, operation="Query")
    assert await live(store) == ["a1", "b1"]


TORN = {
    "the head is older": (
        ("head", "head"),
        ("SET n = :one", {":one": {"N": "1"}}),
        "commit 2 is in the history",
    ),
    "the head is newer": (
        ("head", "head"),
        ("SET n = :three", {":three": {"N": "3"}}),
        "the history lacks it",
    ),
    "a slot is": (
        ("slots", slots_key("node-1")[1]),
        ("REMOVE #r", {}),
        r"index=0\) is owned by None, and held by \('b1', 1\)",
    ),
}


@pytest.mark.parametrize("torn", TORN)
async def test_a_table_that_was_restored_in_the_middle_of_a_commit_is_refused(
    make: Make, dynamodb: DynamoDBLocal, table: str, torn: str
) -> None:
    """A restore does not keep transactions whole; to go on from half of one would never end well."""
    store = make()
    await store.open()
    await store.commit(commit(1, "a1"))
    await store.commit(commit(2, "b1", take=((Slot("node-1", 0), ("b1", 1)),)))
    await store.close()
    (pk, sk), (update, values), words = TORN[torn]
    arguments: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
    if "#r" in update:
        arguments["ExpressionAttributeNames"] = {"#r": "node#node-1"}
    dynamodb.client().update_item(
        TableName=table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, UpdateExpression=update, **arguments
    )
    store = make()
    with pytest.raises(StoreUnavailable, match=rf"is not consistent: .*{words}.*restore it to another time"):
        await store.open()
    await store.close()


async def test_a_late_request_to_read_again_brings_nothing_back(
    hasty: DynamoStore, proxy: FaultProxy
) -> None:
    """11: only what was sent before all was read again is refused, never what comes after."""
    proxy.next(Fault.LANDS_LATE, operation="UpdateItem")
    with pytest.raises(StoreUnavailable):
        await hasty.reload()
    await hasty.reload()
    proxy.release()
    proxy.wait_landed()
    await hasty.commit(commit(1, "a1"))
    assert await live(hasty) == ["a1"]


async def test_to_read_again_works_where_the_answer_to_an_earlier_try_was_lost(
    hasty: DynamoStore, proxy: FaultProxy
) -> None:
    proxy.next(Fault.ANSWER_LOST, operation="UpdateItem")
    with pytest.raises(StoreUnavailable):
        await hasty.reload()
    await hasty.reload()
    await hasty.commit(commit(1, "a1"))
    assert await live(hasty) == ["a1"]


async def test_what_was_made_is_known_to_be_though_another_took_over_meanwhile(
    make: Make, dynamodb: DynamoDBLocal, table: str, proxy: FaultProxy
) -> None:
    """3, 11: the one who asked is told so; the next commit tells the old one that it is over."""
    old, new = make(), DynamoStore(table, dynamodb.client())
    await old.open()
    proxy.next(Fault.ANSWER_LOST, times=QUICK.tries)
    proxy.next(Fault.HELD, operation="GetItem")
    making = asyncio.create_task(old.commit(commit(1, "a1")))
    await asyncio.to_thread(proxy.arrived.wait, 20)
    assert sorted((await new.open()).reservations) == ["a1"]
    proxy.release()
    await making
    with pytest.raises(StaleEpoch):
        await old.commit(commit(2, "b1"))
    await old.close()
    await new.close()


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("schema", [0, 3])
async def test_a_table_of_another_schema_is_left_alone(
    make: Make, dynamodb: DynamoDBLocal, table: str, schema: int, guard: bool
) -> None:
    """Whatever else its head has."""
    store = make()
    await store.open()
    await store.close()
    head = {"pk": {"S": "head"}, "sk": {"S": "head"}}
    dynamodb.client().update_item(
        TableName=table,
        Key=head,
        UpdateExpression="SET #s = :s" if guard else "SET #s = :s REMOVE guard",
        ExpressionAttributeNames={"#s": "schema"},
        ExpressionAttributeValues={":s": {"N": str(schema)}},
    )
    store = make()
    with pytest.raises(StoreUnavailable, match=f"has schema {schema}; this version of gpudev knows schema 2"):
        await store.open()
    await store.close()
    assert dynamodb.client().get_item(TableName=table, Key=head)["Item"]["epoch"] == {"N": "1"}


async def test_a_table_that_is_not_there_is_not_made(dynamodb: DynamoDBLocal) -> None:
    store = DynamoStore("nowhere", dynamodb.client())
    with pytest.raises(StoreUnavailable, match=r"table nowhere.*ResourceNotFound"):
        await store.open()
    await store.close()
    assert "nowhere" not in dynamodb.client().list_tables()["TableNames"]


async def test_without_credentials_it_says_so(
    dynamodb: DynamoDBLocal, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    store = DynamoStore(table, dynamodb.client())
    with pytest.raises(StoreUnavailable, match="credentials"):
        await store.open()
    await store.close()


async def test_slots_of_many_nodes_change_hands_in_one_commit(store: DynamoStore) -> None:
    """1: DynamoDB takes 4 KB in an expression, so a region's nodes may end at the same time."""
    nodes = [f"ip-10-64-{i // 250}-{i % 250}.us-east-2.compute.internal" for i in range(500)]
    taken = tuple((Slot(node, i), ("a1", n + 1)) for n, node in enumerate(nodes) for i in range(8))
    await store.commit(commit(1, take=taken))
    assert len((await store.reload()).claims) == len(nodes)
    await store.commit(commit(2, free=taken))
    assert not (await store.reload()).claims
