"""Files of the SQLite store that versions before the log of commits made. Numbers: invariants."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoint_tables import all_ended, ended, save
from gpudev_hub.core.commit import HistoryEntry, Snapshot
from gpudev_hub.core.model import MintedId
from gpudev_hub.core.ports import SlotTaken, StoreUnavailable
from gpudev_hub.stores import records
from gpudev_hub.stores.sqlite import file
from gpudev_hub.stores.sqlite.store import SqliteStore
from sqlite_items import schema_1
from store_commits import (
    ACCESS_RECORDS,
    ALICE,
    NODE,
    changed,
    claim,
    commit,
    everything,
    fold,
    hot,
    reservation,
    taken,
    usage_day,
    usage_head,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "service.sqlite"
    schema_1(path)
    return path


def recorded(path: Path) -> Iterator[HistoryEntry]:
    """The history in the tables of schema 1."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT n, at, kind, record, cause, actor, gone FROM history").fetchall()
    for n, at, kind, record, cause, actor, gone in rows:
        yield HistoryEntry(n, at, records.decode_change(kind, record, cause, actor, bool(gone)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def is_as_it_was(snapshot: Snapshot) -> None:
    """3"""
    assert (snapshot.n, snapshot.at, snapshot.next_seq) == (9, 9_000, 8)
    assert sorted(snapshot.reservations) == ["a3", "b1", "m2"]
    assert snapshot.reservations["b1"] == replace(reservation("b1", 3, "local:bob"), version=1)
    assert snapshot.reservations["a3"].request.pool == "simulated"
    assert snapshot.claims == {
        ("a0", 1): claim("a0", slots=(0, 1)),
        ("b1", 2): claim("b1", 2, slots=(4,)),
    }
    assert snapshot.minted == {"m1": MintedId("m1", "local:bob", 5)}
    assert snapshot.nodes == {"node-1": NODE}
    assert snapshot.people == {"github:1": ALICE}
    assert len(snapshot.limits) == 3
    assert [*snapshot.sweeps.values()] == [ACCESS_RECORDS[-1]]


async def test_a_file_of_schema_1_keeps_everything(path: Path) -> None:
    """3, 12"""
    before = [*recorded(path)]
    store = SqliteStore(path)
    snapshot = await store.open()
    assert snapshot.epoch == 2
    is_as_it_was(snapshot)
    entries = await everything(store)
    assert entries == before
    assert fold(entries) == hot(snapshot)
    assert await all_ended(store, None) == await all_ended(store, "local:alice") == ["a1", "a0"]
    assert await store.find("a1") == ended(reservation("a1", 2), 7)
    for ref, commits in (
        ("a0", [1, 2, 5]),
        ("a1", [1, 7]),
        ("b1", [1, 2, 7]),
        ("m1", [4]),
        ("m2", [4, 6, 6]),
    ):
        found, _ = await store.history(ref, 0, 10)
        assert [entry.n for entry in found] == commits
    found, _ = await store.history(None, await store.seek(5_000), 1)
    assert [entry.n for entry in found] == [5]
    usage = await store.load_usage()
    assert usage is not None
    assert usage.head == usage_head(7, 20_800, 20_801)
    assert usage.days == (usage_day(20_800, 6, 1), usage_day(20_801, 7, 2))
    await store.close()


async def test_a_converted_file_goes_on(path: Path) -> None:
    """1, 3, 12"""
    store = SqliteStore(path)
    await store.open()
    for ref in ("a0", "a1"):
        with pytest.raises(SlotTaken, match=f"the id {ref} was used before"):
            await store.commit(commit(10, *changed(reservation(ref)), epoch=2))
    with pytest.raises(SlotTaken, match=r"can't be taken by \('zz', 1\): its owner is \('b1', 2\)"):
        await store.commit(commit(10, take=taken(claim("zz", slots=(4,))), epoch=2))
    freed = claim("a0", slots=(0, 1))
    await store.commit(
        commit(
            10,
            *changed(freed, MintedId("m1", "local:bob", 5), gone=True),
            *changed(reservation("m1", seq=8)),
            free=taken(freed),
            epoch=2,
        )
    )
    await store.commit(commit(11, *changed(ended(reservation("b1", 3, "local:bob"), 11), gone=True), epoch=2))
    save(store)
    await store.close()
    again = SqliteStore(path)
    snapshot = await again.open()
    assert hot(snapshot) == fold(await everything(again))
    assert sorted(snapshot.reservations) == ["a3", "m1", "m2"]
    assert await all_ended(again, None) == ["b1", "a1", "a0"]
    assert await again.find("a0") == ended(reservation("a0", 1), 5)
    with pytest.raises(SlotTaken, match="the id a0 was used before"):
        await again.commit(commit(12, *changed(reservation("a0")), epoch=3))
    for ref, commits in (("a0", [1, 2, 5, 10]), ("b1", [1, 2, 7, 11]), ("m1", [4, 10, 10])):
        entries, _ = await again.history(ref, 0, 10)
        assert [entry.n for entry in entries] == commits
    await again.close()


async def test_looking_at_a_file_of_schema_1_changes_nothing(path: Path) -> None:
    before = contents(path.parent)
    store = SqliteStore(path)
    is_as_it_was(await store.read())
    assert (await store.peek()).n == 9
    await store.close()
    assert contents(path.parent) | {"service.sqlite.lock": b""} == before | {"service.sqlite.lock": b""}
    assert len([*recorded(path)]) > 20


async def test_looking_reads_no_history(path: Path) -> None:
    """It has hundreds of megabytes in a store that is old, and a start looks twice before it converts."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE history")
    store = SqliteStore(path)
    is_as_it_was(await store.read())
    await store.close()


async def test_a_conversion_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3"""
    before = [*recorded(path)]

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(file, "_apply", fail)
        store = SqliteStore(path)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            await store.open()
        await store.close()
    assert [*recorded(path)] == before
    store = SqliteStore(path)
    is_as_it_was(await store.open())
    await store.close()


async def test_a_file_from_before_the_records_of_access_is_converted_too(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for table in ("others", "usage_head", "usage_days"):
            connection.execute(f"DROP TABLE {table}")
    store = SqliteStore(path)
    assert (await store.peek()).n == 9
    found = await store.open()
    assert (sorted(found.reservations), found.people) == (["a3", "b1", "m2"], {})
    assert await store.load_usage() is None
    await store.close()
