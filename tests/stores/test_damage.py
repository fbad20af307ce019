"""Items that are not what a store writes are reported by name, with what to do."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoint_tables import ended, layout_1, save
from dynamodb_local import DynamoDBLocal
from gpudev_hub.core.model import MintedId
from gpudev_hub.core.ports import OutcomeUnknown, StoreUnavailable
from gpudev_hub.stores import items
from gpudev_hub.stores.backend import Action, Write
from gpudev_hub.stores.dynamodb.store import DynamoStore
from gpudev_hub.stores.log_store import LogStore
from gpudev_hub.stores.sqlite.store import SqliteStore
from store_commits import NODE, changed, claim, commit, reservation, taken, usage_day, usage_head

Make = Callable[[], LogStore]
Read = Callable[[LogStore], Awaitable[object]]
DYNAMODB = pytest.param("dynamodb", marks=pytest.mark.dynamodb)


@pytest.fixture(params=["sqlite", DYNAMODB])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return a function that returns the same store again at each call, closed."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "service.sqlite")
    dynamodb: DynamoDBLocal = request.getfixturevalue("dynamodb")
    table, client = dynamodb.table(), dynamodb.client()
    return lambda: DynamoStore(table, client)


async def filled(make: Make) -> LogStore:
    """Return a store with an item of each kind: a0 has ended, a1 is live and holds slots of node-1."""
    store = make()
    await store.open()
    held = claim("a1")
    await store.commit(commit(1, *changed(NODE, reservation("a0"), MintedId("m1", "local:bob", 5))))
    await store.commit(commit(2, *changed(ended(reservation("a0"), 9), gone=True)))
    await store.commit(commit(3, *changed(reservation("a1", 2), held), take=taken(held)))
    save(store)
    await store.save_usage(usage_head(3, 9, 9), [usage_day(9, 3, 5)])
    # The checkpoint before the next restart has no copy of a0.
    store._folded.ended = ()
    return store


def damage(store: LogStore, pk: str, sk: str, **values: Any) -> None:
    store._backend.write([Write(Action.UPDATE, (pk, sk), values)])


HISTORY = ("history", items.history_key(2)[1])
LOG = ("reservation#a0", "log")
ENDED = ("ended", items.ended_key(2 * items.STRIDE)[1])
SLOTS = items.slots_key("node-1")
CHECKPOINT = ("checkpoint", "")
DAY = ("usage#1970-01", "1970-01-10")


def opened(store: LogStore) -> Awaitable[object]:
    return store.open()


def all_history(store: LogStore) -> Awaitable[object]:
    return store.history(None, 0, 9)


def one_history(store: LogStore) -> Awaitable[object]:
    return store.history("a0", 0, 9)


def all_ended(store: LogStore) -> Awaitable[object]:
    return store.ended(None, None, 9)


def found(store: LogStore) -> Awaitable[object]:
    return store.find("a0")


def sought(store: LogStore) -> Awaitable[object]:
    return store.seek(2_000)


def loaded(store: LogStore) -> Awaitable[object]:
    return store.load_usage()


DAMAGES: list[tuple[tuple[str, str], dict[str, Any], Read]] = [
    (("head", "head"), {"n": "many"}, opened),
    (("head", "head"), {"epoch": None}, opened),
    (("head", "head"), {"checkpoint": "latest"}, opened),
    (CHECKPOINT, {"pieces": "one"}, opened),
    (CHECKPOINT, {"data": 5}, opened),
    (CHECKPOINT, {"data": b"{"}, opened),
    (CHECKPOINT, {"data": items.compressed([[["node", 5]], {}])}, opened),
    (SLOTS, {"node#node-1": 5}, opened),
    (SLOTS, {"node#node-1": "3"}, opened),
    (SLOTS, {"node#node-1": "x=a1/1"}, opened),
    (HISTORY, {"at": "noon"}, all_history),
    (HISTORY, {"at": "noon"}, sought),
    (HISTORY, {"at": None}, sought),
    (HISTORY, {"changes": [5]}, one_history),
    (HISTORY, {"changes": items.compressed({"a": 1})}, all_history),
    (HISTORY, {"changes": items.compressed([("reservation", "[5", "a", True, {})])}, all_history),
    (HISTORY, {"pieces": "two"}, all_history),
    (HISTORY, {"pieces": "two"}, one_history),
    (LOG, {"commits": 5}, one_history),
    (LOG, {"commits": ["2"]}, one_history),
    (LOG, {"ended": "soon"}, found),
    (ENDED, {"record": 5}, found),
    (ENDED, {"record": "[]"}, all_ended),
    (ENDED, {"record": None}, all_ended),
    (("usage", "head"), {"head": 5}, loaded),
    (("usage", "head"), {"head": items.compressed([])}, loaded),
    (("usage", "head"), {"head": items.compressed({"claims": [["a1"]]})}, loaded),
    (("usage", "head"), {"head": items.compressed({})}, loaded),
    (DAY, {"n": "three"}, loaded),
    (DAY, {"rows": items.compressed([5])}, loaded),
]


@pytest.mark.parametrize(
    ("key", "values", "read"),
    DAMAGES,
    ids=[f"{i}-{key[0]}-{''.join(values)}" for i, (key, values, _) in enumerate(DAMAGES)],
)
async def test_a_damaged_item_is_named(
    make: Make, key: tuple[str, str], values: dict[str, Any], read: Read
) -> None:
    store = await filled(make)
    await read_without_damage(store, read)
    pk, sk = key
    named = sk or store._ours().checkpoint
    damage(store, pk, sk or f"{named}#0000", **values)
    if read is opened:
        await store.close()
        store = make()
    with pytest.raises(StoreUnavailable) as raised:
        await read(store)
    await store.close()
    message = str(raised.value)
    assert re.search(rf"holds a record that cannot be read: item {re.escape(f'{pk} {named}')}\S*: .", message)
    assert message.endswith("If it is damaged, restore a backup")


async def read_without_damage(store: LogStore, read: Read) -> None:
    """Read once: what fails later fails because of the damage."""
    if read is not opened:
        assert await read(store) is not None


async def test_a_commit_without_a_readable_head_may_have_been_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await filled(lambda: SqliteStore(tmp_path / "service.sqlite"))

    def lost(writes: object) -> None:
        raise OutcomeUnknown("the answer was lost")

    damage(store, *items.HEAD, epoch="x")
    monkeypatch.setattr(store._backend, "write", lost)
    with pytest.raises(OutcomeUnknown, match=r"the answer was lost \(commit 4\)"):
        await store.commit(commit(4, *changed(NODE)))
    await store.close()


async def test_an_item_of_a_file_that_is_no_map_is_named(tmp_path: Path) -> None:
    path = tmp_path / "service.sqlite"
    store = await filled(lambda: SqliteStore(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        row = (msgspec.msgpack.encode([1, 2]), *HISTORY)
        connection.execute("UPDATE items SET item = ? WHERE pk = ? AND sk = ?", row)
    with pytest.raises(
        StoreUnavailable, match="cannot be read: item history 000000000002: Expected `object`"
    ):
        await all_history(store)
    await store.close()


@pytest.mark.dynamodb
async def test_a_value_of_a_foreign_type_in_a_table_is_named(dynamodb: DynamoDBLocal) -> None:
    table, client = dynamodb.table(), dynamodb.client()
    store = await filled(lambda: DynamoStore(table, client))
    key = {"pk": {"S": HISTORY[0]}, "sk": {"S": HISTORY[1]}}
    values = {":v": {"BOOL": True}}
    client.update_item(
        TableName=table, Key=key, UpdateExpression="SET note = :v", ExpressionAttributeValues=values
    )
    with pytest.raises(StoreUnavailable, match=r"item history 000000000002: .* of the type BOOL"):
        await store.history("a0", 0, 9)
    await store.close()


@pytest.mark.dynamodb
@pytest.mark.parametrize("name", ["record", "s0"])
async def test_a_damaged_item_of_layout_1_is_named(dynamodb: DynamoDBLocal, name: str) -> None:
    client = dynamodb.client()
    table, there = layout_1(dynamodb, client)
    hot = next(item for item in there if item["pk"]["S"] == "hot" and name in item)
    client.put_item(TableName=table, Item={**hot, name: {"N": "5"}})
    store = DynamoStore(table, client)
    with pytest.raises(StoreUnavailable, match=f"cannot be read: item hot {re.escape(hot['sk']['S'])}: "):
        await store.open()
    await store.close()
