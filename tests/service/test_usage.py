"""The service's usage sums: in step with every commit, and the same after every restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from gpudev_hub.core.commit import Commit
from gpudev_hub.core.model import HOUR, MINUTE, Owner
from gpudev_hub.core.ports import OutcomeUnknown, Store, StoreUnavailable
from gpudev_hub.core.usage import UsageDay, UsageHead, calendar_day, day_of
from gpudev_hub.core.views.usage import By
from gpudev_hub.failpoints import nothing
from gpudev_hub.service.usage import SAVE_EVERY
from gpudev_hub.stores.sqlite.store import SqliteStore
from service_world import ALICE, BOB, ServiceWorld
from usage_recount import Rows, expected


class Wrapped:
    """A store that fails where a test says so."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.saves = True
        self.unknown = 0
        """So many commits are made, and then said to have an unknown outcome."""
        self.history_gate: asyncio.Event | None = None
        self.saved: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def save_usage(self, head: UsageHead, days: Sequence[UsageDay]) -> None:
        if not self.saves:
            raise StoreUnavailable("no saving now")
        self.saved.append(head.n)
        await self._store.save_usage(head, days)

    async def commit(self, commit: Commit) -> None:
        await self._store.commit(commit)
        if self.unknown:
            self.unknown -= 1
            raise OutcomeUnknown("the answer was lost")

    async def history(self, reservation: str | None, after: int, limit: int) -> object:
        if reservation is None and self.history_gate is not None:
            await self.history_gate.wait()
        return await self._store.history(reservation, after, limit)


class Stores:
    """Every store that the service opened."""

    def __init__(self, world: ServiceWorld) -> None:
        self.all: list[Wrapped] = []
        self.saves = True
        self.gate: asyncio.Event | None = None
        world.wrap = self.wrap  # type: ignore[assignment]

    def wrap(self, store: Store) -> Wrapped:
        self.all.append(Wrapped(store))
        self.all[-1].saves, self.all[-1].history_gate = self.saves, self.gate
        return self.all[-1]

    @property
    def last(self) -> Wrapped:
        return self.all[-1]


async def a_life(world: ServiceWorld, owner: Owner = ALICE, gpus: int = 4) -> None:
    """From the request to the release, with an extension and a crash, over midnight."""
    record = await world.reserve(owner, gpus=gpus, hours=24)
    await world.becomes(record.id, "ready")
    world.clock.advance(13 * HOUR)
    world.cluster.kill(record.id, 1, "OOM")
    await world.until(lambda: (record.id, 2) in world.cluster.running)
    await world.becomes(record.id, "ready")
    await world.service.extend(record.id, owner.subject, HOUR)
    world.clock.advance(13 * MINUTE)
    await world.service.end(record.id, owner.subject)
    await world.becomes(record.id, "ended")


async def check(world: ServiceWorld) -> None:
    """The sums, without what runs, are those that the whole history gives."""
    usage = world.service.usage
    await world.until(lambda: usage.complete, "the sums")
    now = world.clock.now()
    entries, following = await world.service.reads.history(None, 0, 10_000)
    assert following is None
    wanted = expected([(entry.n, entry.at, entry.change) for entry in entries], now)
    subjects = {key[1] for key in wanted}
    found: Rows = {}
    first = min((key[0] for key in wanted), default=calendar_day(day_of(now)))
    days = range(day_of(round(_midnight(first))), day_of(now) + 1)
    for day in days:
        for subject in subjects:
            for size, sums in usage.sums(By.SIZE, day, day, subject).items():
                assert isinstance(size, int)
                found[calendar_day(day), subject, "h100", size] = sums
    # What runs goes on running between the two looks.
    assert found.keys() == wanted.keys()
    for key, sums in wanted.items():
        late = found[key].held - sums.held
        assert 0 <= late < 16 * 5_000
        assert replace(found[key], held=sums.held) == sums


def _midnight(day: date) -> float:
    return (day - date(1970, 1, 1)).total_seconds() * 1000


async def test_sums_keep_up_and_survive_a_restart(world: ServiceWorld) -> None:
    await a_life(world)
    await a_life(world, BOB, gpus=8)
    running = await world.reserve(gpus=2)
    await world.becomes(running.id, "ready")
    await check(world)
    await world.restart()
    await check(world)
    await a_life(world)
    await check(world)


async def test_a_crash_between_commit_and_save_loses_and_doubles_nothing(idle_world: ServiceWorld) -> None:
    stores = Stores(idle_world)
    await idle_world.start()
    await a_life(idle_world)
    await idle_world.until(lambda: idle_world.service.usage.complete)
    await idle_world.service.usage.save()
    stores.last.saves = False
    await a_life(idle_world, BOB)
    running = await idle_world.reserve(gpus=2)
    await idle_world.becomes(running.id, "ready")
    await idle_world.restart()
    await check(idle_world)


async def test_the_sums_of_an_old_store_are_made_once_and_hold_up_no_start(idle_world: ServiceWorld) -> None:
    stores = Stores(idle_world)
    stores.saves = False
    await idle_world.start()
    await a_life(idle_world)
    await idle_world.stop()
    with sqlite3.connect(idle_world.folder / "service.sqlite") as connection:
        connection.execute("DELETE FROM items WHERE pk LIKE 'usage%'")
    connection.close()
    stores.saves, stores.gate = True, asyncio.Event()
    await idle_world.start()
    record = await idle_world.reserve(BOB, gpus=1)
    await idle_world.becomes(record.id, "ready")
    assert not idle_world.service.usage.complete
    stores.gate.set()
    await check(idle_world)
    await idle_world.until(lambda: stores.last.saved)


async def test_a_commit_with_unknown_outcome_is_counted_once(idle_world: ServiceWorld) -> None:
    stores = Stores(idle_world)
    await idle_world.start()
    await idle_world.until(lambda: idle_world.service.usage.complete)
    stores.last.unknown = 2
    await a_life(idle_world)
    assert stores.last.unknown == 0
    await check(idle_world)


async def test_sums_are_saved_once_a_minute_and_again_when_the_store_works(idle_world: ServiceWorld) -> None:
    stores = Stores(idle_world)
    await idle_world.start()
    await idle_world.until(lambda: stores.last.saved)
    stores.last.saves = False
    await a_life(idle_world)
    n = idle_world.service.view.n
    idle_world.clock.advance(SAVE_EVERY)
    await asyncio.sleep(0.01)
    stores.last.saves = True
    for _ in range(3):
        idle_world.clock.advance(SAVE_EVERY)
        await asyncio.sleep(0.01)
    await idle_world.until(lambda: stores.last.saved[-1] >= n)
    await check(idle_world)


async def test_a_defect_in_the_sums_does_not_stop_the_service(idle_world: ServiceWorld) -> None:
    await idle_world.start()
    await idle_world.until(lambda: idle_world.service.usage.complete)
    usage = idle_world.service.usage._usage
    usage._claim = None  # type: ignore[method-assign,assignment]
    await a_life(idle_world)
    await check(idle_world)


async def test_a_service_that_stops_saves_its_sums(tmp_path: Path) -> None:
    """The file that a service leaves has the sums: no history is read for them at the next start."""
    world = ServiceWorld(tmp_path)
    await world.start()
    await a_life(world)
    n = world.service.view.n
    await world.close()
    store = SqliteStore(tmp_path / "service.sqlite", nothing)
    await store.open()
    saved = await store.load_usage()
    await store.close()
    assert saved is not None
    assert saved.head.n >= n
