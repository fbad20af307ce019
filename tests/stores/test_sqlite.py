"""What only a store in a file can do wrong: dying, full disks, other people's files, waiting readers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from gpudev_hub.core.access_model import AccessSweep
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change, Commit
from gpudev_hub.core.model import HOUR, Claim, Node, Owner, Request, Reservation, Shape
from gpudev_hub.core.ports import OutcomeUnknown, StoreBehind, StoreLocked, StoreUnavailable
from gpudev_hub.failpoints import AFTER_COMMIT, BEFORE_COMMIT, from_environment, nothing
from gpudev_hub.stores import items
from gpudev_hub.stores.sqlite import file
from gpudev_hub.stores.sqlite import store as sqlite
from gpudev_hub.stores.sqlite.store import SqliteStore
from sqlite_items import change, schema_1, writing

COMMITTER = """
import asyncio, os, sys
from pathlib import Path
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change, Commit
from gpudev_hub.core.model import MintedId
from gpudev_hub.failpoints import from_environment
from gpudev_hub.stores.sqlite.store import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]), from_environment(os.environ))
    state = await store.open()
    n = state.n
    while True:
        n += 1
        minted = tuple(Change(MintedId(f"m{n}-{i}", "local:a", n), Cause.MINTED, "local:a") for i in range(8))
        await store.commit(Commit(state.epoch, n, f"c{n}", n, minted))
        print(n, flush=True)

asyncio.run(main())
"""


def reservation(id: str, seq: int) -> Reservation:
    owner = Owner("local:alice", "alice", "alice")
    request = Request(Shape(1), "p5", HOUR, "image")
    noise = Random(id).randbytes(2_000).hex()
    return Reservation(id, seq, owner, request, None, 0, 60_000, 30_000, 16, detail=noise)


def start(path: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMITTER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.integration
async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """3, 11"""
    path = tmp_path / "service.sqlite"
    acknowledged = 0
    for kill in range(5):
        with start(path) as process:
            assert process.stdout is not None
            for _ in range(3 + 7 * kill):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
        acknowledged = max([acknowledged, *(int(word) for word in rest)])
        store = SqliteStore(path)
        state = await store.open()
        await store.close()
        assert state.n in (acknowledged, acknowledged + 1)
        assert state.epoch == 2 * (kill + 1)
        assert set(state.minted) == {f"m{n}-{i}" for n in range(1, state.n + 1) for i in range(8)}
        acknowledged = state.n


@pytest.mark.integration
@pytest.mark.parametrize(("place", "left"), [(BEFORE_COMMIT, 2), (AFTER_COMMIT, 3)])
async def test_a_failpoint_ends_the_process_where_it_says(tmp_path: Path, place: str, left: int) -> None:
    path = tmp_path / "service.sqlite"
    process = start(path, GPUDEV_FAILPOINT=place, GPUDEV_FAILPOINT_AT="3")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 137
    assert output.split() == ["1", "2"]
    store = SqliteStore(path)
    assert (await store.open()).n == left
    await store.close()


def test_failpoints_come_from_the_environment_only() -> None:
    assert from_environment({}) is nothing
    with pytest.raises(ValueError, match="GPUDEV_FAILPOINT is 'nowhere'; it must be one of before-commit"):
        from_environment({"GPUDEV_FAILPOINT": "nowhere"})


async def test_a_full_disk_is_said_clearly_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "service.sqlite")
    epoch = (await store.open()).epoch
    await store.commit(Commit(epoch, 1, "c1", 1, (Change(reservation("a1", 1), Cause.REQUESTED, "a"),)))
    (pages,) = writing(store).execute("PRAGMA page_count").fetchone()
    writing(store).execute(f"PRAGMA max_page_count = {pages + 2}")
    many = tuple(Change(reservation(f"b{i}", 2 + i), Cause.REQUESTED, "a") for i in range(50))
    with pytest.raises(StoreUnavailable, match=r"disk that holds .*service\.sqlite is full: free some space"):
        await store.commit(Commit(epoch, 2, "c2", 2, many))
    assert list((await store.reload()).reservations) == ["a1"]
    writing(store).execute("PRAGMA max_page_count = 100000")
    await store.commit(Commit(epoch, 2, "c2", 2, many))
    assert len((await store.reload()).reservations) == 51
    await store.close()


async def test_the_simulated_pool_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "service.sqlite")
    epoch = (await store.open()).epoch
    live, over = (
        replace(found, request=replace(found.request, pool="pretended"))
        for found in (reservation("a1", 1), reservation("a2", 2))
    )
    changes = (
        Change(live, Cause.REQUESTED, "a"),
        Change(over, Cause.RELEASED, "a", gone=True),
        Change(Claim("a1", 1, "local:a", "pretended", (), HOUR), Cause.ADMITTED, "a"),
        Change(Node("node-1", "pretended", 8, "here"), Cause.NODE_CHANGED, "a"),
    )
    await store.commit(Commit(epoch, 1, "c1", 1, changes))
    state = await store.reload()
    assert state.reservations["a1"].request.pool == "simulated"
    assert [claim.pool for claim in state.claims.values()] == ["simulated"]
    assert state.nodes["node-1"].pool == "simulated"
    assert [found.request.pool for found in (await store.ended(None, None, 9))[0]] == ["simulated"]
    found = await store.find("a2")
    assert found is not None
    assert found.request.pool == "simulated"
    history, _ = await store.history("a1", 0, 9)
    assert {getattr(entry.change.record, "pool", "simulated") for entry in history} == {"simulated"}
    await store.close()


async def test_a_file_from_before_the_records_of_access_opens_as_it_is(tmp_path: Path) -> None:
    """A look leaves the file alone; opening makes room for them."""
    path = tmp_path / "service.sqlite"
    schema_1(path)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE others")
    connection.close()
    store = SqliteStore(path)
    assert (await store.peek()).n == 9
    found = await store.open()
    assert (sorted(found.reservations), found.people) == (["a3", "b1", "m2"], {})
    await store.commit(
        Commit(found.epoch, 10, "c10", 10_000, (Change(AccessSweep(9), Cause.SWEPT, "service"),))
    )
    assert (await store.reload()).swept_at == 9
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "none", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.root
async def test_a_really_full_file_system(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "service.sqlite")
    epoch = (await store.open()).epoch
    made = 0

    async def fill() -> None:
        nonlocal made
        while True:
            change = Change(reservation(f"a{made}", made + 1), Cause.REQUESTED, "a")
            await store.commit(Commit(epoch, made + 1, f"c{made}", made, (change,)))
            made += 1

    with pytest.raises(StoreUnavailable, match="is full"):
        await fill()
    assert made > 10
    state = await store.reload()
    assert (state.n, len(state.reservations)) == (made, made)
    await store.close()


class Broken:
    """A connection whose COMMIT is made and reports an error; ``lasts``: so does everything after it."""

    def __init__(self, connection: sqlite3.Connection, lasts: bool) -> None:
        self.connection = connection
        self.lasts = lasts
        self.failed = False

    def rollback(self) -> None:
        """Nothing is under way."""

    def execute(self, statement: str, arguments: tuple[str | int | bytes, ...] = ()) -> sqlite3.Cursor:
        if self.failed and self.lasts:
            raise sqlite3.OperationalError("disk I/O error")
        cursor = self.connection.execute(statement, arguments)
        if statement == "COMMIT":
            self.failed = True
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


@pytest.mark.parametrize("lasts", [True, False])
async def test_an_error_at_the_commit_itself_leaves_the_outcome_open(tmp_path: Path, lasts: bool) -> None:
    """Unless the file says that it was made."""
    store = SqliteStore(tmp_path / "service.sqlite")
    epoch = (await store.open()).epoch
    connection, connections = writing(store), store._file._connections
    (writer,) = connections
    connections[writer] = Broken(connection, lasts)  # type: ignore[assignment]
    made = Commit(epoch, 1, "c1", 1, (Change(reservation("a1", 1), Cause.REQUESTED, "a"),))
    if lasts:
        with pytest.raises(OutcomeUnknown, match="commit 1"):
            await store.commit(made)
    else:
        await store.commit(made)
    connections[writer] = connection
    assert (await store.reload()).n == 1
    await store.close()


async def test_reading_does_not_wait_for_a_commit(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    reached = asyncio.Event()
    proceed = asyncio.Event()

    def hold(place: str) -> None:
        if place == BEFORE_COMMIT and armed:
            loop.call_soon_threadsafe(reached.set)
            asyncio.run_coroutine_threadsafe(proceed.wait(), loop).result()

    armed = False
    store = SqliteStore(tmp_path / "service.sqlite", hold)
    epoch = (await store.open()).epoch
    await store.commit(Commit(epoch, 1, "c1", 1, (Change(reservation("a1", 1), Cause.REQUESTED, "a"),)))
    armed = True
    change = Change(reservation("a1", 1), Cause.RELEASED, "a", gone=True)
    committing = asyncio.create_task(store.commit(Commit(epoch, 2, "c2", 2, (change,))))
    await reached.wait()
    assert await store.ended(None, None, 5) == ([], None)
    assert len((await store.history("a1", 0, 5))[0]) == 1
    assert await store.find("a1") == reservation("a1", 1)
    proceed.set()
    await committing
    assert len((await store.ended(None, None, 5))[0]) == 1
    await store.close()


@pytest.mark.parametrize("latest", [False, True])
async def test_a_read_under_way_does_not_hold_up_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latest: bool
) -> None:
    """Writing back waits for an open read, and the next commit would wait for both."""
    monkeypatch.setattr(file, "_PAGE", 7)
    store = await store_of(tmp_path, 60)
    backend = store._file
    reading = backend.query("history", latest=latest)
    first = next(reading)
    (busy, _, _) = writing(store).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy
    numbers = [int(item["sk"]) for item in (first, *reading)]
    assert numbers == sorted(range(1, 61), reverse=latest)
    some = [int(item["sk"]) for item in backend.query("history", f"{9:012}", f"{33:012}", latest=latest)]
    assert some == sorted(range(9, 34), reverse=latest)
    await store.close()


async def test_the_lock_names_file_and_holder(tmp_path: Path) -> None:
    path = tmp_path / "service.sqlite"
    first, second = SqliteStore(path), SqliteStore(path)
    await first.open()
    with pytest.raises(StoreLocked, match=rf"service\.sqlite is in use by process {os.getpid()} .*\.lock"):
        await second.open()
    await first.close()
    await second.close()


async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "service.sqlite")
    state = await store.open()
    await store.commit(Commit(state.epoch, 1, "c1", 1, ()))
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(tmp_path)}
    assert len(modes) == 5
    assert set(modes.values()) == {0o600}, modes
    await store.close()


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the index of the log, which SQLite makes whenever it reads."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}


async def store_of(folder: Path, commits: int) -> SqliteStore:
    """An open store with so many commits."""
    store = SqliteStore(folder / "service.sqlite")
    epoch = (await store.open()).epoch
    for n in range(1, commits + 1):
        change = Change(reservation(f"a{n}", n), Cause.REQUESTED, "a")
        await store.commit(Commit(epoch, n, f"c{n}", n, (change,)))
    return store


def damage(path: Path) -> None:
    """2,000 bytes of garbage in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(range(1, 251)) * 8)


@pytest.mark.parametrize("what", ["garbage", "no log", "no store", "empty store", "another store"])
async def test_a_store_that_lost_commits_is_refused_and_left_as_it_is(tmp_path: Path, what: str) -> None:
    """3: SQLite reads a damaged log up to the damage, and would forget the rest without a word."""
    old, there = tmp_path / "old", tmp_path / "there"
    old.mkdir()
    store = await store_of(old, 60)
    shutil.copytree(old, there)  # as a kill leaves it
    path, log = there / "service.sqlite", there / "service.sqlite-wal"
    if what == "garbage":
        damage(log)
    elif what == "no log":
        log.unlink()
    elif what == "no store":
        path.unlink()
    elif what == "empty store":
        path.write_bytes(b"")
    else:
        log.unlink()
        other = SqliteStore(tmp_path / "other")
        await other.open()
        await other.close()
        shutil.copy(tmp_path / "other", path)
    await store.close()
    before = contents(there)
    for _ in range(2):
        damaged = SqliteStore(path)
        with pytest.raises(StoreBehind, match=r"but 60 were made|is empty or missing, but its log"):
            await damaged.peek()
        await damaged.close()
        assert contents(there) == before
    # The way out, for who has no back-up.
    (there / "service.sqlite.commits").unlink()
    if what in ("no store", "empty store"):
        log.unlink()
    again = SqliteStore(path)
    last = await again.peek()
    assert (await again.open()).n == last.n < 60
    await again.close()


@pytest.mark.parametrize(("after", "idle"), [(5, 3600.0), (1000, 0.01)], ids=["many", "idle"])
async def test_damage_to_the_log_costs_nothing_once_it_was_written_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, idle: float
) -> None:
    """3"""
    monkeypatch.setattr(sqlite, "CHECKPOINT_AFTER", after)
    monkeypatch.setattr(sqlite, "IDLE", idle)
    old, there = tmp_path / "old", tmp_path / "there"
    old.mkdir()
    store = await store_of(old, 20)
    log = old / "service.sqlite-wal"
    for _ in range(1000):
        if not log.stat().st_size:
            break
        await asyncio.sleep(0.01)
    shutil.copytree(old, there)
    (there / log.name).write_bytes(b"garbage" * 300)
    await store.close()
    found = SqliteStore(there / "service.sqlite")
    assert (await found.peek()).n == 20
    assert len((await found.open()).reservations) == 20
    await found.close()


async def test_looking_at_a_store_changes_nothing(tmp_path: Path) -> None:
    """Where there is none, none is made; a closed one stays as it is."""
    nothing_there = SqliteStore(tmp_path / "service.sqlite")
    assert (await nothing_there.peek()).n == 0
    await nothing_there.close()
    assert contents(tmp_path) == {}
    await (await store_of(tmp_path, 3)).close()
    before = contents(tmp_path)
    store = SqliteStore(tmp_path / "service.sqlite")
    assert len((await store.read()).reservations) == 3
    with pytest.raises(StoreLocked):
        await SqliteStore(tmp_path / "service.sqlite").peek()
    await store.close()
    assert contents(tmp_path) == before


async def test_looking_at_an_open_store_leaves_it_open(tmp_path: Path) -> None:
    store = await store_of(tmp_path, 3)
    assert (await store.peek()).n == 3
    assert sorted((await store.read()).reservations) == ["a1", "a2", "a3"]
    change = Change(reservation("a4", 4), Cause.REQUESTED, "a")
    await store.commit(Commit(1, 4, "c4", 4, (change,)))
    assert (await store.reload()).n == (await store.peek()).n == 4
    await store.close()


@pytest.mark.parametrize(
    "changes",
    [
        b"{",
        items.compressed([("reservation", "of a later version", "a", True, reservation("a2", 2))]),
        items.compressed([("of a later version", "released", "a", True, reservation("a2", 2))]),
    ],
    ids=["garbage", "cause", "kind"],
)
async def test_a_record_that_cannot_be_read_is_said(tmp_path: Path, changes: bytes) -> None:
    path = tmp_path / "service.sqlite"
    await (await store_of(tmp_path, 3)).close()
    change(path, "history", f"{2:012}", changes=changes)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match="holds a record that cannot be read"):
        await store.peek()
    await store.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("PRAGMA user_version = 99", "has schema 99; this version of gpudev knows schema 2"),
        ("CREATE TABLE t (x)", "is a database of another program"),
    ],
)
async def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, statement: str, message: str) -> None:
    path = tmp_path / "service.sqlite"
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()
    with pytest.raises(StoreUnavailable, match=message):
        await SqliteStore(path).open()
    path.write_bytes(b"not a database at all, by any means" * 100)
    with pytest.raises(
        StoreUnavailable, match=r"database .*service\.sqlite cannot be used: file is not a database"
    ):
        await SqliteStore(path).open()
    with pytest.raises(StoreUnavailable, match="cannot be opened: No such file or directory"):
        await SqliteStore(tmp_path / "nowhere" / "service.sqlite").open()
