"""What every store must do. The numbers are those of the invariants."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dynamodb_local import DynamoDBLocal
from gpudev_hub.core.access_model import AccessSweep
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import HistoryEntry, Slot, Snapshot
from gpudev_hub.core.live_state import key_of
from gpudev_hub.core.model import (
    MintedId,
    Outcome,
    State,
)
from gpudev_hub.core.ports import (
    LastCommit,
    SlotTaken,
    StaleEpoch,
    Store,
    StoreLocked,
    StoreUnavailable,
)
from gpudev_hub.stores import checkpoint
from gpudev_hub.stores.dynamodb.store import DynamoStore
from gpudev_hub.stores.sqlite.store import SqliteStore
from memory_store import Disk, MemoryStore
from store_commits import (
    ACCESS_RECORDS,
    ALICE,
    NODE,
    RULE,
    SPENDING,
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

Make = Callable[[], Store]


DYNAMODB = pytest.param("dynamodb", marks=pytest.mark.dynamodb)
CHECKPOINTS = pytest.param("dynamodb, a checkpoint after each commit", marks=pytest.mark.dynamodb)
SQLITE_CHECKPOINTS = "sqlite, a checkpoint after each commit"


@pytest.fixture(params=["memory", "sqlite", SQLITE_CHECKPOINTS, DYNAMODB, CHECKPOINTS])
def make(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Make]:
    """Opens the same durable state anew at each call; nothing fails in the background."""
    yield _maker(request, tmp_path, monkeypatch)
    assert [
        record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR
    ] == []


def _maker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    if "checkpoint" in request.param:
        monkeypatch.setattr(checkpoint, "is_due", lambda folded: True)
    if request.param.startswith("sqlite"):
        return lambda: SqliteStore(tmp_path / "service.sqlite")
    if request.param == "memory":
        disk = Disk()
        return lambda: MemoryStore(disk)
    dynamodb: DynamoDBLocal = request.getfixturevalue("dynamodb")
    table, client = dynamodb.table(), dynamodb.client()
    return lambda: DynamoStore(table, client)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[Store]:
    store = make()
    await store.open()
    yield store
    await store.close()


async def test_a_new_store_is_empty_and_has_the_first_epoch(make: Make) -> None:
    store = make()
    assert await store.open() == Snapshot(epoch=1, n=0, at=0, next_seq=1)
    assert await store.ended(None, None, 10) == ([], None)
    assert await store.history(None, 0, 10) == ([], None)
    assert await store.find("a1") is None
    await store.close()


async def test_committed_records_come_back_unchanged_after_a_reopen(make: Make) -> None:
    """3"""
    store = make()
    await store.open()
    records = (reservation("a1", seq=7), claim("a1"), MintedId("m1", "local:bob", 5), NODE)
    await store.commit(commit(1, *changed(*records), take=taken(claim("a1"))))
    await store.close()
    store = make()
    found = await store.open()
    assert (found.epoch, found.n, found.at, found.next_seq) == (2, 1, 1_000, 8)
    assert found.reservations == {"a1": records[0]}
    assert found.claims == {("a1", 1): records[1]}
    assert found.minted == {"m1": records[2]}
    assert found.nodes == {"node-1": NODE}
    await store.close()


async def test_records_of_access_and_limits_come_back_unchanged_after_a_reopen(make: Make) -> None:
    """3, 12"""
    store = make()
    await store.open()
    await store.commit(commit(1, *changed(*ACCESS_RECORDS)))
    later = AccessSweep(44), replace(SPENDING, week_gpu_ms=6)
    await store.commit(commit(2, *changed(*later), *changed(RULE, ACCESS_RECORDS[1], gone=True)))
    await store.close()
    store = make()
    found = await store.open()
    assert found.people == {"github:1": ALICE}
    assert found.limits == {rule_key: rule for rule in ACCESS_RECORDS[3:5] for rule_key in [key_of(rule)]}
    assert found.spending == {("github:1", "p5"): later[1], ("github:1", "t4"): ACCESS_RECORDS[6]}
    assert found.swept_at == 44
    entries = await everything(store)
    assert [entry.change.record for entry in entries[: len(ACCESS_RECORDS)]] == [*ACCESS_RECORDS]
    assert fold(entries) == hot(found)
    await store.close()


async def test_the_next_sequence_number_survives_the_end_of_its_reservation(make: Make) -> None:
    store = make()
    await store.open()
    await store.commit(commit(1, *changed(reservation("a1", seq=41))))
    await store.commit(commit(2, *changed(reservation("a1", seq=41), gone=True)))
    await store.close()
    store = make()
    assert (await store.open()).next_seq == 42
    await store.close()


async def test_a_slot_has_at_most_one_owner(store: Store) -> None:
    """1"""
    slot, first, second = Slot("node-1", 0), claim("a1", slots=(0,)), claim("b1", slots=(0,))
    await store.commit(commit(1, *changed(first), take=taken(first)))
    with pytest.raises(SlotTaken, match="b1"):
        await store.commit(commit(2, *changed(reservation("b1")), take=((slot, ("b1", 1)),)))
    with pytest.raises(SlotTaken):
        await store.commit(commit(2, free=((slot, ("a1", 2)),)))
    assert (await store.reload()).n == 1
    assert [entry.change.record for entry in await everything(store)] == [first]
    handed_on = (*changed(first, gone=True), *changed(second))
    await store.commit(commit(2, *handed_on, free=taken(first), take=taken(second)))
    with pytest.raises(SlotTaken):
        await store.commit(commit(3, free=((slot, ("a1", 1)),)))


async def test_a_refused_commit_leaves_nothing_behind(store: Store) -> None:
    """3"""
    held = claim("a1", slots=(0,))
    await store.commit(commit(1, *changed(reservation("a1"), held), take=taken(held)))
    before = hot(await store.reload())
    bad = commit(
        2,
        *changed(reservation("b1", seq=2), claim("b1"), NODE),
        *changed(reservation("a1"), gone=True),
        take=((Slot("node-1", 1), ("b1", 1)), (Slot("node-1", 0), ("b1", 1))),
    )
    with pytest.raises(SlotTaken):
        await store.commit(bad)
    assert hot(await store.reload()) == before
    assert await store.ended(None, None, 10) == ([], None)
    await store.commit(commit(2, take=((Slot("node-1", 1), ("c1", 1)),)))


async def test_an_older_epoch_can_write_no_more(make: Make, tmp_path: Path) -> None:
    """11"""
    old = make()
    await old.open()
    if isinstance(old, SqliteStore):
        # A lock that was lost (a network file system): the epoch holds all the same.
        (tmp_path / "service.sqlite.lock").unlink()
        new: Store = make()
    else:
        if isinstance(old, MemoryStore):
            old._disk.locked = False
        new = make()
    assert (await new.open()).epoch == 2
    with pytest.raises(StaleEpoch, match="epoch is 2, ours was 1"):
        await old.commit(commit(1, *changed(reservation("a1"))))
    with pytest.raises(StaleEpoch):
        await old.reload()
    with pytest.raises(StaleEpoch):
        await old.check()
    await new.check()
    await new.commit(commit(1, *changed(reservation("b1")), epoch=2))
    assert list((await new.reload()).reservations) == ["b1"]
    await new.close()
    await old.close()


@pytest.mark.parametrize("make", ["memory", "sqlite"], indirect=True)
async def test_a_second_open_is_refused_while_the_first_lives(make: Make) -> None:
    first, second = make(), make()
    await first.open()
    with pytest.raises(StoreLocked):
        await second.open()
    await first.commit(commit(1, *changed(reservation("a1"))))
    await first.close()
    assert list((await second.open()).reservations) == ["a1"]
    await second.close()


@pytest.mark.dynamodb
@pytest.mark.parametrize("make", ["dynamodb"], indirect=True)
async def test_where_nothing_can_be_locked_the_last_to_open_takes_over(make: Make) -> None:
    """11"""
    first, second = make(), make()
    await first.open()
    await first.commit(commit(1, *changed(reservation("a1"))))
    assert list((await second.open()).reservations) == ["a1"]
    with pytest.raises(StaleEpoch, match="epoch is 2, ours was 1"):
        await first.commit(commit(2, *changed(reservation("b1"))))
    await second.commit(commit(2, *changed(reservation("c1")), epoch=2))
    with pytest.raises(StaleEpoch, match="epoch is 2, ours was 1"):
        await first.commit(commit(2, *changed(reservation("b1"))))
    assert list((await second.reload()).reservations) == ["a1", "c1"]
    await first.close()
    await second.close()


async def test_a_look_at_the_last_commit_takes_nothing_over(make: Make) -> None:
    """11: a service that may not start must not end the one that runs."""
    new = make()
    assert await new.peek() == LastCommit(0, 0)
    await new.close()
    first = make()
    await first.open()
    await first.commit(commit(1, *changed(reservation("a1"))))
    if isinstance(first, DynamoStore):
        second = make()
        assert (await second.peek()).n == 1
        await second.close()
        await first.commit(commit(2, *changed(reservation("b1"))))
    last = (await first.reload()).n
    await first.close()
    third = make()
    assert (await third.peek()).n == last
    assert (await third.open()).epoch == 2
    await third.close()


async def test_a_closed_store_says_so(make: Make) -> None:
    store = make()
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="is closed"):
        await store.commit(commit(1))


async def test_commits_follow_one_another(store: Store) -> None:
    await store.commit(commit(1, *changed(reservation("a1"))))
    for n in (1, 3):
        with pytest.raises(SlotTaken, match=f"commit {n} does not follow commit 1"):
            await store.commit(commit(n, *changed(reservation("b1"))))


async def test_a_commit_may_have_many_changes_and_large_ones(store: Store) -> None:
    """3"""
    records = [reservation(f"a{i}", seq=i) for i in range(300)]
    for n in range(5):
        await store.commit(commit(n + 1, *changed(*records[60 * n : 60 * n + 60])))
    moved = [replace(record, version=1) for record in records]
    await store.commit(commit(6, *changed(*moved)))
    assert (await store.reload()).reservations == {record.id: record for record in moved}
    large = changed(replace(reservation("b1"), detail="ë" * 150_000))
    await store.commit(commit(7, *large))
    assert (await store.reload()).reservations["b1"] == large[0].record


async def test_a_time_is_found_in_the_history(store: Store) -> None:
    assert await store.seek(5) == 0 or await everything(store) == []
    for n in range(1, 8):
        await store.commit(commit(n, *changed(*(reservation(f"a{n}-{i}", seq=n) for i in range(n)))))
    for at, first in ((0, 1), (1_000, 1), (3_000, 3), (3_001, 4), (7_000, 7)):
        entries, _ = await store.history(None, await store.seek(at), 1)
        assert [entry.n for entry in entries] == [first], at
    assert await store.history(None, await store.seek(7_001), 1) == ([], None)


async def test_an_id_is_never_used_again(store: Store) -> None:
    """3"""
    await store.commit(commit(1, *changed(reservation("a1"))))
    await store.commit(commit(2, *changed(reservation("a1"), gone=True)))
    with pytest.raises(SlotTaken, match="a1"):
        await store.commit(commit(3, *changed(reservation("a1", seq=2))))


async def test_folding_the_history_gives_the_hot_state(store: Store) -> None:
    """12"""
    ready = replace(reservation("a1"), state=State.READY, version=3)
    await store.commit(
        commit(1, *changed(reservation("a1"), claim("a1"), NODE, MintedId("m1", "local:bob", 5)))
    )
    await store.commit(commit(2, *changed(reservation("b1", seq=2), ready)))
    await store.commit(
        commit(3, *changed(MintedId("m1", "local:bob", 5), claim("a1"), gone=True, cause=Cause.USED))
    )
    await store.commit(commit(4, *changed(replace(NODE, gpus=4), reservation("b1", seq=2), gone=True)))
    await store.commit(commit(5, *changed(replace(ready, version=4), replace(ready, version=5))))
    entries = await everything(store)
    assert [entry.n for entry in entries] == [1] * 4 + [2] * 2 + [3] * 2 + [4] * 2 + [5] * 2
    assert fold(entries) == hot(await store.reload())
    assert entries[6] == HistoryEntry(
        3, 3_000, changed(MintedId("m1", "local:bob", 5), gone=True, cause=Cause.USED)[0]
    )


async def test_the_history_of_one_reservation_has_its_claims_and_no_other(store: Store) -> None:
    await store.commit(commit(1, *changed(reservation("a1"), reservation("b1", seq=2), NODE, claim("a1"))))
    await store.commit(commit(2, *changed(reservation("b1", seq=2))))
    await store.commit(commit(3, *changed(replace(reservation("a1"), version=1))))
    page, cursor = await store.history("a1", 0, 2)
    assert [entry.change.record for entry in page] == [reservation("a1"), claim("a1")]
    assert cursor is not None
    page, cursor = await store.history("a1", cursor, 2)
    assert [(entry.n, entry.change.record) for entry in page] == [(3, replace(reservation("a1"), version=1))]
    assert cursor is None


async def test_ended_reservations_are_paged_latest_first(store: Store) -> None:
    n = 0
    for subject, count in (("local:alice", 5), ("local:bob", 2)):
        for i in range(count):
            n += 1
            record = reservation(f"{subject[6]}{i}", seq=n, subject=subject)
            await store.commit(commit(2 * n - 1, *changed(record)))
            ended = replace(record, state=State.ENDED, outcome=Outcome.RELEASED, ended_at=n)
            await store.commit(commit(2 * n, *changed(ended, gone=True)))
    page, cursor = await store.ended("local:alice", None, 2)
    assert [record.id for record in page] == ["a4", "a3"]
    page, cursor = await store.ended("local:alice", cursor, 2)
    assert [record.id for record in page] == ["a2", "a1"]
    page, cursor = await store.ended("local:alice", cursor, 2)
    assert ([record.id for record in page], cursor) == (["a0"], None)
    page, cursor = await store.ended(None, None, 3)
    assert [record.id for record in page] == ["b1", "b0", "a4"]
    assert await store.ended("local:carol", None, 3) == ([], None)
    found = await store.find("a3")
    assert found is not None
    assert found.outcome is Outcome.RELEASED
    assert (await store.reload()).reservations == {}


async def test_usage_is_kept_and_replaced_day_by_day(make: Make) -> None:
    store = make()
    await store.open()
    assert await store.load_usage() is None
    # From the end of one year into the next, and more days than one transaction takes.
    days = [usage_day(day, 3, held=day) for day in range(20_800, 20_850)]
    await store.save_usage(usage_head(3, 20_800, 20_849), days)
    await store.commit(commit(1, *changed(reservation("a1"))))
    later = usage_day(20_849, 9, held=5)
    await store.save_usage(usage_head(9, 20_800, 20_849), [later])
    await store.save_usage(usage_head(10, 20_800, 20_849), [])
    await store.close()
    again = make()
    await again.open()
    found = await again.load_usage()
    assert found is not None
    assert found.head == usage_head(10, 20_800, 20_849)
    assert {day.day: day for day in found.days} == {day.day: day for day in [*days[:-1], later]}
    assert (await again.reload()).n == 1, "usage is beside the records"
    await again.close()


async def test_usage_of_a_month_that_is_missing_stops_nothing(store: Store) -> None:
    await store.save_usage(
        usage_head(3, 20_000, 20_600), [usage_day(20_000, 3, held=1), usage_day(20_600, 3, held=2)]
    )
    found = await store.load_usage()
    assert found is not None
    assert sorted(day.day for day in found.days) == [20_000, 20_600]


async def test_usage_is_encoded_before_the_next_commit_changes_it(store: Store) -> None:
    day = usage_day(20_000, 3, held=1)
    saving = asyncio.ensure_future(store.save_usage(usage_head(3, 20_000, 20_000), [day]))
    await asyncio.sleep(0)
    day.rows["github:1", "p5", 8].held = 99
    await saving
    found = await store.load_usage()
    assert found is not None
    assert found.days[0].rows["github:1", "p5", 8].held == 1


async def test_a_stale_service_saves_no_usage(make: Make, request: pytest.FixtureRequest) -> None:
    """11"""
    first = make()
    await first.open()
    await first.save_usage(usage_head(3, 20_000, 20_000), [usage_day(20_000, 3, held=1)])
    if "sqlite" in request.node.name:
        with pytest.raises(StoreLocked):
            await make().open()
        await first.close()
        return
    if "memory" in request.node.name:
        first._disk.locked = False  # type: ignore[attr-defined]
    second = make()
    await second.open()
    with pytest.raises(StaleEpoch):
        await first.save_usage(usage_head(9, 20_000, 20_000), [usage_day(20_000, 9, held=2)])
    found = await second.load_usage()
    assert found is not None
    assert found.head.n == 3
    await second.close()
