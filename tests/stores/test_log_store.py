"""What the stores that keep a log of commits do alike, tested on SQLite. Numbers: invariants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoint_tables import all_ended, ended, save
from gpudev_hub.core.commit import Change, HistoryEntry
from gpudev_hub.core.model import MintedId
from gpudev_hub.core.ports import SlotTaken, StoreUnavailable
from gpudev_hub.stores import checkpoint, items, records
from gpudev_hub.stores.backend import Action, Item, Key, Write
from gpudev_hub.stores.sqlite.store import SqliteStore
from gpudev_hub.stores.writes import MOST_BYTES, MOST_ITEMS, batches
from store_commits import changed, claim, commit, everything, fold, hot, reservation, taken


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "service.sqlite")
    await store.open()
    yield store
    await store.close()


async def test_an_index_that_lags_hides_nothing_that_ended(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on one page nor from one page to the next, though a checkpoint came in between."""
    for n in range(1, 6):
        await store.commit(commit(2 * n - 1, *changed(reservation(f"a{n}", n))))
        await store.commit(commit(2 * n, *changed(ended(reservation(f"a{n}", n), n), gone=True)))
        if n == 2:
            save(store)
    ended_of = store._backend.ended_of

    def behind(subject: str, before: int, page: int) -> Iterator[Item]:
        """As of the first checkpoint."""
        return (item for item in ended_of(subject, before, page) if item["position"] < 50_000)

    monkeypatch.setattr(store._backend, "ended_of", behind)
    page, cursor = await store.ended("local:alice", None, 2)
    assert [record.id for record in page] == ["a5", "a4"]
    save(store)
    page, cursor = await store.ended("local:alice", cursor, 2)
    assert [record.id for record in page] == ["a3", "a2"]
    page, cursor = await store.ended("local:alice", cursor, 2)
    assert ([record.id for record in page], cursor) == (["a1"], None)
    for subject in (None, "local:alice"):
        assert await all_ended(store, subject) == ["a5", "a4", "a3", "a2", "a1"]


async def test_a_minted_id_that_expired_keeps_its_history_when_it_is_used(
    store: SqliteStore, tmp_path: Path
) -> None:
    """12"""
    minted = MintedId("m1", "local:alice", 5)

    async def commits(store: SqliteStore) -> list[int]:
        return [entry.n for entry in (await store.history("m1", 0, 10))[0]]

    await store.commit(commit(1, *changed(minted)))
    await store.commit(commit(2, *changed(minted, gone=True)))
    save(store)
    assert await commits(store) == [1, 2]
    await store.commit(commit(3, *changed(reservation("m1"))))
    assert await commits(store) == [1, 2, 3]
    save(store)
    await store.commit(commit(4, *changed(ended(reservation("m1"), 4), gone=True)))
    save(store)
    assert await commits(store) == [1, 2, 3, 4]
    with pytest.raises(SlotTaken, match="the id m1 was used before"):
        await store.commit(commit(5, *changed(reservation("m1"))))
    await store.close()
    again = SqliteStore(tmp_path / "service.sqlite")
    await again.open()
    assert await commits(again) == [1, 2, 3, 4]
    await again.close()


async def test_a_claim_that_outlives_its_reservation_leaves_the_end_alone(store: SqliteStore) -> None:
    """3, 12"""
    held = claim("a1")
    await store.commit(commit(1, *changed(reservation("a1"), held), take=taken(held)))
    await store.commit(commit(2, *changed(ended(reservation("a1"), 2), gone=True)))
    save(store)
    await store.commit(commit(3, *changed(held, gone=True), free=taken(held)))
    save(store)
    assert await store.find("a1") == ended(reservation("a1"), 2)
    entries, _ = await store.history("a1", 0, 10)
    assert [entry.n for entry in entries] == [1, 1, 2, 3]
    assert fold(await everything(store)) == hot(await store.reload())


async def test_history_of_one_reservation_decodes_no_other(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12: a commit may move the planned starts of a whole queue."""
    queue = [reservation(f"a{i}", i) for i in range(50)]
    for n in range(1, 4):
        await store.commit(commit(n, *changed(*queue)))
    decoded: list[str] = []
    decode_change = records.decode_change

    def counted(kind: str, data: bytes, cause: str, actor: str, gone: bool) -> Change:
        decoded.append(kind)
        return decode_change(kind, data, cause, actor, gone)

    monkeypatch.setattr(records, "decode_change", counted)
    cursor: int | None = 0
    for n in range(1, 4):
        assert cursor is not None
        entries, cursor = await store.history("a7", cursor, 1)
        assert [(entry.n, entry.change.record) for entry in entries] == [(n, queue[7])]
    assert cursor is None
    assert len(decoded) < 10


async def test_a_page_of_history_reads_no_more_than_it_shows(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = reservation("a1")
    versions = [replace(record, version=version) for version in range(80)]
    for n in range(1, 9):
        await store.commit(commit(n, *changed(*versions[10 * n - 10 : 10 * n])))
    read: list[Key] = []
    get_all, entry_of = store._backend.get_all, items._entry_of
    decoded = 0

    def counted(n: int, at: int, change: items.Entry) -> HistoryEntry:
        nonlocal decoded
        decoded += 1
        return entry_of(n, at, change)

    def recorded(keys: Sequence[Key]) -> list[Item]:
        read.extend(keys)
        return get_all(keys)

    monkeypatch.setattr(store._backend, "get_all", recorded)
    monkeypatch.setattr(items, "_entry_of", counted)
    entries, _ = await store.history("a1", 0, 2)
    assert [entry.change.record for entry in entries] == versions[:2]
    assert len(read) == 4
    assert decoded == 3


async def test_a_commit_without_its_first_item_is_not_called_damaged(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynamoDB may show some items of a transaction before the others."""
    made = commit(1, *changed(reservation("a1")))
    monkeypatch.setattr(items, "ITEM_BYTES", len(items.encode_changes(made.changes)) - 1)
    await store.commit(made)
    assert store._backend.get(items.history_key(1, piece=1)) is not None
    store._backend.write([Write(Action.DELETE, items.history_key(1))])
    for page in ((None, 0, 9), ("a1", 0, 9)):
        assert await store.history(*page) == ([], None)
    with pytest.raises(StoreUnavailable, match=r"is not consistent: .* the history lacks it"):
        await store.reload()


async def test_a_start_folds_the_history_since_the_last_checkpoint_only(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3"""
    monkeypatch.setattr(checkpoint, "LEAST_BYTES", 2_000)
    for n in range(1, 61):
        record = reservation(f"a{n}", n)
        await store.commit(commit(2 * n - 1, *changed(record)))
        await store.commit(commit(2 * n, *changed(ended(record, n), gone=True)))
    await store.close()
    again = SqliteStore(tmp_path / "service.sqlite")
    assert (await again.open()).reservations == {}
    assert again._folded.saved > 100
    assert len(again._folded.ended) < 20
    assert await all_ended(again, None) == [f"a{n}" for n in range(60, 0, -1)]
    await again.close()


def writes(count: int, size: int) -> list[Write]:
    return [Write(Action.PUT, ("ended", f"{n:018}"), {"record": "x" * size}) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "size", "made_of"), [(250, 100, 3), (30, 400_000, 4), (3, MOST_BYTES, 3), (0, 1, 0)]
)
def test_a_batch_has_room_in_one_transaction(count: int, size: int, made_of: int) -> None:
    """By number and by bytes; DynamoDB takes 100 items and 4 MB."""
    made = writes(count, size)
    found = [*batches(made)]
    assert [write for some in found for write in some] == made
    assert all(0 < len(some) < MOST_ITEMS for some in found)
    assert all(len(some) == 1 or len(some) * size <= MOST_BYTES for some in found)
    assert len(found) == made_of
