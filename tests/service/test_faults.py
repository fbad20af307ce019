"""What else can fail, and what must not come of it: store, Hub, cluster, events that never come."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpudev_hub.clock import ClockBehind
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Commit
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import ServerReady, StopIntent
from gpudev_hub.core.gate import AdmitRequest, Failed
from gpudev_hub.core.model import (
    HOUR,
    MINUTE,
    SECOND,
    ClaimState,
    NodeStatus,
    Outcome,
    Owner,
    Presence,
    ServerState,
    State,
)
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.ports import OutcomeUnknown, ServerSight, StaleEpoch, Store, StoreEmpty, StoreUnavailable
from gpudev_hub.core.request import Ask
from gpudev_hub.core.words import plain
from gpudev_hub.failpoints import AFTER_COMMIT, BEFORE_ANSWER, BEFORE_COMMIT, BEFORE_EFFECT, Failpoint
from gpudev_hub.service.effects.tasks import LONGEST_PAUSE
from gpudev_hub.service.readiness import Report
from gpudev_hub.service.service import Service
from gpudev_hub.service.writer import MAX_EVENTS
from gpudev_hub.stores.sqlite.store import SqliteStore
from service_world import ALICE, BOB, POLICY, Died, ServiceWorld


class Wrapped:
    """A store whose next commit goes wrong in the way that ``fault`` says."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.fault: str | None = None
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def commit(self, commit: Commit) -> None:
        fault, self.fault = self.fault, None
        self.commits += 1
        match fault:
            case "made":
                await self.store.commit(commit)
                raise OutcomeUnknown("no answer")
            case "not made":
                raise OutcomeUnknown("no answer")
            case "full":
                raise StoreUnavailable("the disk is full")
            case _:
                await self.store.commit(commit)


@pytest.fixture
def wrapped(idle_world: ServiceWorld) -> list[Wrapped]:
    stores: list[Wrapped] = []

    def wrap(store: Store) -> Store:
        stores.append(Wrapped(store))
        return stores[-1]

    idle_world.wrap = wrap
    return stores


def dying(place: str, at: int) -> Failpoint:
    left = at

    def fail(passed: str) -> None:
        nonlocal left
        if passed == place:
            left -= 1
            if left == 0:
                raise Died(place)

    return fail


async def commits(service: Service) -> int:
    """How many have been made when nothing is under way any more."""
    await service.reconcile()
    return service.view.n


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("place", [BEFORE_COMMIT, AFTER_COMMIT, BEFORE_ANSWER, BEFORE_EFFECT])
async def test_after_a_crash_anywhere_all_goes_on(idle_world: ServiceWorld, place: str, at: int) -> None:
    """3, 10: what was acknowledged is there, what was begun is finished, nobody lost a place."""
    world = idle_world
    await world.start()
    held = await world.reserve(gpus=8, nodes=2, hours=2)
    await world.becomes(held.id, "ready")
    queue = [(await world.reserve(BOB, gpus=8, hours=1)).id for _ in range(2)]
    await world.stop()

    acknowledged = [*queue]
    try:
        await world.start(dying(place, at))
        for n in range(4):
            record = await asyncio.wait_for(world.service.submit(ALICE, Ask(gpus=1), f"request-{n}"), 5)
            acknowledged.append(record.id)
        await asyncio.wait_for(world.service.end(held.id, ALICE.subject), 5)
    except (Died, Refused, TimeoutError):
        pass
    await world.stop()
    again = await world.start()
    view = again.view
    for one in acknowledged:
        assert one in view.reservations, f"{one} was acknowledged and is lost"
    for n in range(4):
        await again.submit(ALICE, Ask(gpus=1), f"request-{n}")
    assert len([r for r in view.reservations.values() if r.owner == ALICE and r.id != held.id]) == 4
    await again.end(held.id, ALICE.subject)
    for one in queue:
        await world.becomes(one, "ready")


async def test_a_second_look_writes_nothing(world: ServiceWorld) -> None:
    """10"""
    for gpus in (8, 4, 8, 8):
        await world.reserve(gpus=gpus)
    await world.until(lambda: len(world.hub.rows) == 2)
    await asyncio.sleep(0.1)
    before = await commits(world.service)
    for _ in range(3):
        assert await commits(world.service) == before
    restarted = await world.restart()
    after = await commits(restarted)
    assert await commits(restarted) == after
    assert [r.state for r in sorted(restarted.view.reservations.values(), key=lambda r: r.seq)] == [
        State.READY,
        State.READY,
        State.QUEUED,
        State.QUEUED,
    ]


@pytest.mark.parametrize("fault", ["made", "not made"])
async def test_a_commit_of_unknown_outcome_is_looked_up(
    idle_world: ServiceWorld, wrapped: list[Wrapped], fault: str
) -> None:
    """3: one request, one reservation, whatever the store did with it."""
    world = idle_world
    await world.start()
    wrapped[-1].fault = fault
    record = await world.service.submit(ALICE, Ask(gpus=2), "request-1")
    assert list(world.service.view.reservations) == [record.id]
    assert (await world.service.submit(ALICE, Ask(gpus=2), "request-1")).id == record.id
    await world.becomes(record.id, "ready")
    (entries, _) = await world.service.reads.history(record.id, 0, 100)
    assert [entry.change.cause for entry in entries].count(Cause.REQUESTED) == 1


async def test_a_full_disk_refuses_clearly(idle_world: ServiceWorld, wrapped: list[Wrapped]) -> None:
    world = idle_world
    await world.start()
    wrapped[-1].fault = "full"
    with pytest.raises(Refused) as refused:
        await world.reserve(gpus=2)
    assert (refused.value.code, refused.value.message) == (Code.UNAVAILABLE, "The disk is full.")
    assert world.service.view.reservations == {}
    assert world.service.health().reasons == ["the database: the disk is full"]
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    assert world.service.health().reasons == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.root
async def test_a_really_full_disk_loses_nothing_and_is_over_when_there_is_room(small_disk: Path) -> None:
    """3, 8, 10: what happened meanwhile is not lost, nothing is half-made, and nobody restarts anything."""
    world = ServiceWorld(small_disk)
    try:
        await full_disk(world, small_disk / "ballast")
    finally:
        await world.close()


def fill(ballast: Path) -> None:
    """Take all the room of a file system."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def make_room(ballast: Path) -> None:
    ballast.unlink()


async def full_disk(world: ServiceWorld, ballast: Path) -> None:
    """Somebody runs, others wait; the disk fills, a server ends, requests are refused; then there is room."""
    service = await world.start()
    running, crashing = [await world.reserve(gpus=8), await world.reserve(BOB, gpus=8)]
    for record in (running, crashing):
        await world.becomes(record.id, "ready")
    acknowledged = {running.id, crashing.id}
    fill(ballast)
    for owner in (Owner(f"local:u{n}", f"u{n}", f"u{n}") for n in itertools.count()):
        world.hub.users.add(owner.hub_user)
        try:
            acknowledged.add((await service.submit(owner, Ask(gpus=8), "request-of-the-full-disk")).id)
        except Refused as refused:
            assert refused.code is Code.UNAVAILABLE  # noqa: PT017
            assert f"The disk that holds {world.folder / 'service.sqlite'} is full" in refused.message  # noqa: PT017
            assert refused.hint.startswith("Nothing was changed.")  # noqa: PT017
            assert "nothing was changed" not in refused.message, "the hint says it"  # noqa: PT017
            break  # until then there was room in the store's own files
    for attempt in (service.end(running.id, ALICE.subject), service.mint(ALICE.subject)):
        with pytest.raises(Refused, match="is full"):
            await attempt
    world.cluster.kill(crashing.id, 1, "killed by signal 9")
    assert set(service.view.reservations) == acknowledged
    assert service.view.reservations[running.id].state is State.READY
    assert (await service.reads.history(running.id, 0, 50))[0], "what is there can be read"
    assert [reason for reason in service.health().reasons if "is full" in reason]

    make_room(ballast)
    await world.until(lambda: service.health().reasons == [], "the store to be well, with nobody asking")
    again = await world.becomes(crashing.id, "ready")
    assert (again.attempt, again.allocation) == (2, crashing.allocation)
    late = await service.submit(owner, Ask(gpus=8), "request-of-the-full-disk")
    await service.end(running.id, ALICE.subject)
    await world.becomes(running.id, "ended")
    before = dict(service.view.reservations)
    assert set(before) == acknowledged - {running.id} | {late.id}
    assert (await world.restart()).view.reservations.keys() == before.keys()


async def test_a_store_that_failed_once_is_tried_again_although_nobody_asks(
    idle_world: ServiceWorld, wrapped: list[Wrapped]
) -> None:
    await idle_world.start()
    wrapped[-1].fault = "full"
    with pytest.raises(Refused):
        await idle_world.reserve(gpus=2)
    assert idle_world.service.health().reasons == ["the database: the disk is full"]
    await idle_world.until(lambda: idle_world.service.health().reasons == [])


async def test_a_hub_that_is_away_costs_no_attempt_and_no_time(world: ServiceWorld) -> None:
    """4: the start-up allowance stands still, and the end moves along."""
    await world.hub.down()
    record = await world.reserve(gpus=2, hours=1)
    await world.until(lambda: bool(world.service.health().reasons))
    assert world.service.health().reasons[0].startswith("the Hub: the Hub does not answer")
    for _ in range(6):
        world.clock.advance(40 * SECOND)
        await asyncio.sleep(0.05)
    now = world.service.view.reservations[record.id]
    assert (now.state, now.attempt, now.failed_starts) == (State.STARTING, 1, 0)
    world.hub.up()
    world.clock.advance(10 * SECOND)
    ready = await world.becomes(record.id, "ready")
    assert ready.ends_at == (ready.ready_at or 0) + HOUR
    assert world.service.health().reasons == []


async def test_nothing_is_given_up_between_two_outages_of_one_moment(world: ServiceWorld) -> None:
    """4: the deadline is judged when all of them have been accounted for."""
    record = await world.coming_up(gpus=2, hours=1)
    now = world.clock.now()
    world.clock.advance(2 * MINUTE)
    world.service.outages.was("the Hub", now, now + 50 * SECOND)
    world.service.outages.was("the cluster", now + 50 * SECOND, now + 2 * MINUTE)
    await world.reserve(BOB, gpus=1)
    after = world.service.view.reservations[record.id]
    assert (after.state, after.failed_starts) == (State.STARTING, 0)


async def test_a_commit_that_fails_loses_no_time_of_an_outage(
    idle_world: ServiceWorld, wrapped: list[Wrapped]
) -> None:
    """4: what it should have accounted for is accounted for by the next."""
    world = idle_world
    await world.start()
    await world.hub.down()
    record = await world.reserve(gpus=2, hours=1)
    await world.until(lambda: "the Hub" in str(world.service.health().reasons))
    wrapped[0].fault = "full"
    world.clock.advance(5 * MINUTE)
    await world.until(lambda: wrapped[0].fault is None)
    await world.until(lambda: "the database" not in str(world.service.health().reasons))
    await world.reserve(BOB, gpus=1)  # what was due before it has been decided then
    now = world.service.view.reservations[record.id]
    assert (now.state, now.attempt, now.failed_starts) == (State.STARTING, 1, 0)
    assert now.start_deadline is not None
    assert now.start_deadline > world.clock.now()


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_hub_is_asked_again(world: ServiceWorld, status: int) -> None:
    world.hub.failure = (status, "come back later")
    record = await world.reserve(gpus=2)
    await world.until(lambda: bool(world.service.health().reasons))
    world.hub.failure = None
    ready = await world.becomes(record.id, "ready")
    assert (ready.attempt, ready.failed_starts) == (1, 0)


async def test_a_start_that_fails_is_tried_again_and_the_reason_is_shown(world: ServiceWorld) -> None:
    world.hub.refuses = "no such image"
    record = await world.reserve(gpus=2)
    await world.until(lambda: world.service.view.reservations[record.id].attempt > 1, timeout=20)
    assert "no such image" in plain(world.service.view.reservations[record.id].detail, 0)
    world.hub.refuses = None
    ready = await world.becomes(record.id, "ready")
    assert ready.failed_starts == 0
    assert ready.allocation == record.allocation


async def test_a_start_that_fails_after_the_hubs_answer_is_a_failed_start(
    world: ServiceWorld,
) -> None:
    """The Hub says "pending" after ten seconds, and never why nothing came of it."""
    record = await world.coming_up(gpus=2)
    world.service.gate.failed(Failed(record.id, 7, "of an attempt that never was"))
    for _ in range(2):
        world.service.gate.failed(Failed(record.id, 1, "its GPUs are taken"))
    view = world.service.view
    await world.until(lambda: view.claims[record.id, 1].state is ClaimState.RELEASING)
    world.cluster.kill(record.id, 1)
    await world.until(lambda: view.reservations[record.id].attempt == 2)
    assert view.reservations[record.id].detail == "its GPUs are taken"
    entries, _ = await world.service.reads.history(record.id, 0, 100)
    failed = [e.change.detail for e in entries if e.change.cause is Cause.START_FAILED]
    assert set(failed) == {"its GPUs are taken"}


async def test_an_owner_the_hub_does_not_know_waits_until_he_logs_in(world: ServiceWorld) -> None:
    world.hub.users.discard("alice")
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "queued")
    assert "log in" in plain(world.service.view.reason(world.service.view.reservations[record.id]) or "", 0)
    other = await world.reserve(BOB, gpus=8)
    await world.becomes(other.id, "ready")
    world.hub.users.add("alice")
    world.service.owner_seen(ALICE.subject)
    await world.becomes(record.id, "ready")


async def test_a_cluster_that_does_not_answer_frees_nothing_and_kills_nothing(world: ServiceWorld) -> None:
    """8"""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    world.cluster.away = True
    await world.service.reconcile()
    world.clock.advance(2 * MINUTE)
    await world.service.reconcile()
    view = world.service.view
    await world.until(lambda: {node.status for node in view.nodes.values()} == {NodeStatus.UNKNOWN})
    assert view.reservations[record.id].state is State.READY
    assert "the cluster: the cluster API does not answer" in world.service.health().reasons
    waiting = await world.reserve(BOB, gpus=1)
    assert (waiting.state, waiting.place) == (State.QUEUED, None)
    world.cluster.away = False
    await world.service.reconcile()
    await world.becomes(waiting.id, "ready")
    assert (record.id, 1) in world.cluster.running
    assert world.service.view.reservations[record.id].server is ServerState.RUNNING


async def test_nodes_count_as_unknown_though_the_store_failed_just_then(
    idle_world: ServiceWorld, wrapped: list[Wrapped]
) -> None:
    """8"""
    world = idle_world
    await world.start()
    await world.service.reconcile()
    world.cluster.away = True
    await world.service.reconcile()
    wrapped[0].fault = "full"
    world.clock.advance(2 * MINUTE)
    with pytest.raises(Refused, match="The disk is full"):
        await world.service.reconcile()
    await world.until(lambda: "the database" not in str(world.service.health().reasons))
    await world.service.reconcile()
    view = world.service.view
    await world.until(lambda: {node.status for node in view.nodes.values()} == {NodeStatus.UNKNOWN})


@pytest.mark.parametrize("before", [1, 2 * MAX_EVENTS])
async def test_all_that_was_seen_comes_before_what_the_clock_says(world: ServiceWorld, before: int) -> None:
    """A server that was found ready in time is no failed start, whatever else was seen just before."""
    other = await world.reserve(gpus=2)
    await world.becomes(other.id, "ready")
    late = await world.coming_up(gpus=2)
    assert late.start_deadline is not None
    world.clock.advance(late.start_deadline - world.clock.now() + 5)
    for _ in range(before):
        world.service._writer.post(StopIntent(other.id))
    world.service._writer.post(ServerReady(late.id, 1))
    await world.becomes(late.id, "ready")
    assert world.service.view.reservations[late.id].failed_starts == 0


async def test_a_cluster_that_does_not_answer_for_moments_costs_nobody_a_place(world: ServiceWorld) -> None:
    """However often it is asked meanwhile: a watch that is cut has it asked every second."""
    for _ in range(2):
        await world.becomes((await world.reserve(gpus=8, hours=1)).id, "ready")
    waiting = await world.reserve(BOB, gpus=8)
    view = world.service.view
    before = view.reservations[waiting.id]
    assert before.promise is not None
    world.cluster.away = True
    for _ in range(5):
        world.clock.advance(SECOND)
        await world.service.reconcile()
    await world.reserve(gpus=1)  # what was posted before it has been decided then
    after = view.reservations[waiting.id]
    assert (after.place, after.promise) == (before.place, before.promise)


async def test_a_shutdown_from_inside_during_an_outage_is_learnt_afterwards(
    world: ServiceWorld,
) -> None:
    """It is no crash, and what tells so is not cleared away before."""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    await world.stop()
    world.cluster.kill(record.id, 1, user_stopped=True)
    await world.restart()
    for _ in range(2):
        await world.service.reconcile()
    view = world.service.view
    await world.until(lambda: view.reservations[record.id].stopped_at is not None)
    assert (view.reservations[record.id].attempt, view.reservations[record.id].restarts) == (1, 0)
    assert (record.id, 1) in world.cluster.ends


async def test_what_the_watch_missed_the_next_look_finds(world: ServiceWorld) -> None:
    """10"""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    world.cluster.deaf = True
    world.cluster.kill(record.id, 1)
    await asyncio.sleep(0.05)
    assert world.service.view.reservations[record.id].attempt == 1
    await world.service.reconcile()
    world.cluster.deaf = False
    await world.until(lambda: (record.id, 2) in world.cluster.running)


async def test_orphans_are_removed_and_live_servers_adopted(world: ServiceWorld) -> None:
    """10"""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    await world.stop()
    world.cluster.launch("stranger", 3, 1)
    await world.start()
    assert world.cluster.removed == [("stranger", 3)]
    assert list(world.cluster.running) == [(record.id, 1)]
    adopted = world.service.view.reservations[record.id]
    assert (adopted.state, adopted.attempt) == (State.READY, 1)
    assert world.service.view.sight(record.id) == world.cluster.running[record.id, 1]
    world.cluster.launch(record.id, 9, 1)
    await world.until(lambda: (record.id, 9) in world.cluster.removed, "the removal of an unknown attempt")
    assert (record.id, 1) in world.cluster.running


async def test_servers_beside_an_empty_store_are_no_orphans(idle_world: ServiceWorld) -> None:
    """10: a store that was emptied, or a wrong one, ends nobody's server: it is refused, and said."""
    world = idle_world
    world.cluster.launch("somebodys", 3, 1)
    with pytest.raises(StoreEmpty, match=r"has no reservations, but servers .* still run \(1: somebodys/3\)"):
        await world.start()
    assert world.cluster.removed == []
    with pytest.raises(StoreEmpty):
        await world.start()
    world.cluster.kill("somebodys", 3)
    await world.start()
    await world.becomes((await world.reserve(gpus=2)).id, "ready")


async def test_a_start_half_way_at_a_crash_is_followed_up(idle_world: ServiceWorld) -> None:
    """10: the Hub never got the request, or its servers came up while nobody listened."""
    world = idle_world
    await world.start()
    await world.hub.down()
    record = await world.reserve(gpus=2)
    await world.stop()
    world.hub.up()
    world.hub.reports = False
    await world.start()
    await world.until(lambda: (record.id, 1) in world.cluster.running)
    await world.stop()
    await world.start()
    await world.hub.report(record.id, 1)
    ready = await world.becomes(record.id, "ready")
    assert ready.attempt == 1
    assert world.cluster.ever == [(record.id, 1)]


async def test_after_downtime_the_overdue_are_stopped_and_the_next_start(world: ServiceWorld) -> None:
    """4, 5"""
    first = await world.reserve(gpus=8, nodes=2, hours=1)
    await world.becomes(first.id, "ready")
    second = await world.reserve(BOB, gpus=8, nodes=2, hours=1)
    await world.stop()
    world.clock.advance(3 * HOUR)
    await world.start()
    assert (await world.becomes(first.id, "ended")).outcome is Outcome.EXPIRED
    ready = await world.becomes(second.id, "ready")
    assert ready.ends_at == (ready.ready_at or 0) + HOUR
    kinds = [method for method, server in world.hub.calls if server in (first.id, second.id)]
    # A pass of the reconciler may ask again for a start whose answer has just come.
    assert [kind for kind, _ in itertools.groupby(kinds)] == ["POST", "DELETE", "POST"]
    assert world.cluster.ever == [(first.id, 1), (second.id, 1)], "and each server started once"


async def test_a_last_warning_is_repeated_after_a_restart(world: ServiceWorld) -> None:
    """9"""
    record = await world.reserve(gpus=1, hours=1)
    await world.becomes(record.id, "ready")
    world.clock.advance(46 * MINUTE)
    (first,) = await world.service.notices(record.id, 0, 10)
    await world.restart()
    (again,) = await world.service.notices(record.id, first.seq, 10)
    assert (again.minutes, again.seq > first.seq) == (15, True)


async def test_a_restart_gives_no_warning_that_was_not_given_before(world: ServiceWorld) -> None:
    """9: a hold of 30 minutes has no warning at 30 minutes, however often the service starts."""
    record = await world.reserve(gpus=1, hours=0.5)
    await world.becomes(record.id, "ready")
    await world.restart()
    assert await world.service.notices(record.id, 0, 0) == []
    world.clock.advance(16 * MINUTE)
    assert [notice.minutes for notice in await world.service.notices(record.id, 0, 10)] == [15]


async def test_a_service_that_was_overtaken_stops(idle_world: ServiceWorld) -> None:
    """11"""
    world = idle_world
    old = await world.start()
    (world.folder / "service.sqlite.lock").unlink()
    new = await world.start()
    with pytest.raises(Refused) as refused:
        await old.submit(ALICE, Ask(gpus=1))
    assert refused.value.code is Code.UNAVAILABLE
    assert "Another reservation service has taken over the database." in refused.value.message
    with pytest.raises(StaleEpoch):
        await old.closed()
    assert not old.health().live
    with pytest.raises(Refused):
        await old.submit(ALICE, Ask(gpus=1))
    record = await new.submit(ALICE, Ask(gpus=1))
    await world.becomes(record.id, "ready")
    await old.stop()


async def test_an_idle_service_that_was_overtaken_stops(idle_world: ServiceWorld) -> None:
    """11: also one that has nothing to write."""
    world = idle_world
    old = await world.start()
    (world.folder / "service.sqlite.lock").unlink()
    await world.start()
    with pytest.raises(Refused, match="Another reservation service has taken over the database"):
        await old.reconcile()
    with pytest.raises(StaleEpoch):
        await asyncio.wait_for(old.closed(), 5)
    assert not old.health().live
    await old.stop()


async def test_a_clock_far_behind_the_last_commit_is_refused(idle_world: ServiceWorld) -> None:
    world = idle_world
    await world.start()
    world.clock.advance(HOUR)
    await world.reserve(gpus=1)
    await world.stop()
    world.clock.advance(-HOUR)
    for _ in range(2):
        with pytest.raises(ClockBehind, match="behind the last commit"):
            await world.start()
    # 11: it took nothing over, or it would have ended a service that runs elsewhere.
    store = SqliteStore(world.folder / "service.sqlite")
    assert (await store.open()).epoch == 2
    await store.close()


async def test_caps_hold_under_concurrency(idle_world: ServiceWorld) -> None:
    """7"""
    world = idle_world
    world.policy = replace(world.policy, allowances=replace(world.policy.allowances, queued_requests=3))
    await world.start()
    await world.reserve(BOB, gpus=8, nodes=2)
    results = await asyncio.gather(*(world.reserve(gpus=1) for _ in range(10)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Refused)]
    assert len(refused) == 7
    assert {result.code for result in refused} == {Code.QUOTA_EXCEEDED}


async def test_a_hundred_requests_share_commits(world: ServiceWorld) -> None:
    await world.reserve(BOB, gpus=8, nodes=2)
    before = world.service.view.n
    people = [replace(ALICE, subject=f"local:u{n}", hub_user=f"u{n}") for n in range(100)]
    records = await asyncio.gather(*(world.reserve(owner, gpus=1) for owner in people))
    assert len({record.seq for record in records}) == 100
    assert world.service.view.n - before < 20


async def test_what_ended_lately_does_not_crowd_out_what_people_wait_for(tmp_path: Path) -> None:
    """A start with hundreds of them, and a Hub that is away, once kept the service from answering anybody."""
    world = ServiceWorld(tmp_path, policy=replace(POLICY, allowances=Allowances(queued_requests=100)))
    asking: list[str] = []
    peak = 0

    async def slow(id: str, *, user: bool) -> bool:
        nonlocal peak
        asking.append(id)
        peak = max(peak, len(asking))
        await asyncio.sleep(0.01)
        asking.remove(id)
        return False

    try:
        await world.start()
        held = await world.reserve(BOB, gpus=8, nodes=2)
        await world.becomes(held.id, "ready")
        for record in [await world.reserve(gpus=1) for _ in range(80)]:
            await world.service.end(record.id, ALICE.subject)
        await world.hub.down()
        await world.restart()
        world.hub.stop = slow  # type: ignore[method-assign]
        await asyncio.sleep(0.3)
        world.hub.up()
        begun = len(world.hub.calls)
        world.clock.advance(10 * SECOND)
        await world.until(lambda: world.hub.calls[begun:].count(("DELETE", record.id)) == 1)
        assert 1 < peak <= 8
    finally:
        await world.close()


async def test_a_server_that_the_hub_gives_up_is_taken_over_again(world: ServiceWorld) -> None:
    """Invariant 10. What does not answer in time the Hub takes for stopped, whatever it hears."""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    assert not await world.hub.stop(record.id, user=False)
    await world.until(lambda: record.id in world.hub.rows, "the Hub to know it again")
    assert world.cluster.ever.count((record.id, 1)) == 1, "the same server, never a second one"
    assert world.service.view.reservations[record.id].state is State.READY


async def test_a_server_given_up_just_after_its_start_is_taken_over_again(
    world: ServiceWorld,
) -> None:
    """Invariant 10. The answer that it runs is on its way then, and outdated."""

    async def give_up(id: str) -> None:
        world.hub.before_answer = None
        assert not await world.hub.stop(id, user=False)

    world.hub.before_answer = give_up
    record = await world.reserve(gpus=2)
    await world.until(lambda: record.id in world.hub.rows, "the Hub to know it again")
    assert world.cluster.ever.count((record.id, 1)) == 1, "the same server, never a second one"


@pytest.mark.parametrize("trouble", ["his Hub forgot its users", "his Jupyter is too busy"])
async def test_a_running_server_is_taken_over_as_soon_as_the_hub_can(
    idle_world: ServiceWorld, trouble: str
) -> None:
    """Invariant 8: what keeps the Hub from leading to a server is no reason to end it."""
    world = idle_world
    await world.start()
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    await world.stop()
    world.hub.rows.clear()
    if "forgot" in trouble:
        world.hub.users.clear()
    else:
        world.hub.refuses = "did not answer within 60 s"
    asked = len(world.hub.calls)
    await world.start()
    await world.until(lambda: len(world.hub.calls) > asked)
    await world.service.reconcile()
    assert world.service.view.reservations[record.id].state is State.READY
    world.hub.users.add("alice")
    world.hub.refuses = None
    if "forgot" in trouble:
        world.service.logged_in(ALICE.subject)
    else:
        world.clock.advance(LONGEST_PAUSE)
    await world.until(lambda: record.id in world.hub.rows, "the Hub to lead to it")
    assert world.cluster.ever == [(record.id, 1)], "the same server"
    assert world.service.view.reservations[record.id].attempt == 1


async def test_starts_of_one_owner_do_not_hurry_each_other(world: ServiceWorld) -> None:
    """The Hub asks the gate in his name at each try: that is no sign that anything has changed."""
    world.hub.refuses = "no such image"
    record = await world.reserve(gpus=2)
    await world.until(lambda: world.service.view.reservations[record.id].attempt > 1, timeout=20)
    asked = len(world.hub.calls)
    for _ in range(20):
        await world.service.gate.admit(AdmitRequest(ALICE.subject, "alice", "alice", record.id, form=False))
        await asyncio.sleep(0.01)
    assert world.hub.calls[asked:].count(("POST", record.id)) == 0, "the pause between two tries is not over"


async def test_what_the_hub_has_forgotten_it_is_told_again(world: ServiceWorld) -> None:
    """10: a Hub that comes up with an empty database leads nobody to servers that run."""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    asked = len(world.hub.calls)
    await world.service.reconcile()
    assert len(world.hub.calls) == asked, "where nothing is missing, nothing is done"
    world.hub.rows.clear()
    await world.service.reconcile()
    await world.until(lambda: record.id in world.hub.rows, "the Hub to lead to it")
    assert world.cluster.ever == [(record.id, 1)], "the same server"


async def test_a_hub_that_forgot_one_owner_may_have_forgotten_all_servers(idle_world: ServiceWorld) -> None:
    """10: nobody waits for the next pass of reconciliation until he is led to his server again."""
    world = idle_world
    await world.start()
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    world.hub.rows.clear()
    world.hub.users.discard("bob")
    await world.reserve(BOB, gpus=2)
    await world.until(lambda: record.id in world.hub.rows, "the Hub to lead to it")
    assert world.cluster.ever == [(record.id, 1)], "the same server"


async def test_a_server_that_is_deleted_in_the_hub_is_released(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    await world.hub.stop(record.id, user=True)
    await world.hub.deleted("bob", record.id)
    # Anybody may have a server of that name in the Hub.
    assert world.service.view.reservations[record.id].state is State.READY
    await world.hub.deleted("alice", record.id)
    ended = await world.becomes(record.id, "ended")
    assert ended.outcome is Outcome.RELEASED
    await world.hub.deleted("alice", record.id)


async def test_a_start_given_up_is_forgotten_once_its_reservation_is_over(world: ServiceWorld) -> None:
    """Cancelled while the pods of the start that took too long are still going."""
    record = await world.coming_up(gpus=8, nodes=2)
    world.hub.stops = False
    world.clock.advance(record.startup)
    await world.becomes(record.id, "queued")
    await world.until(lambda: ("DELETE", record.id) in world.hub.calls)
    assert record.id not in world.hub.forgotten, "its owner's wish would be taken from it"
    assert (await world.service.end(record.id, ALICE.subject)).outcome is Outcome.CANCELLED
    world.cluster.kill(record.id, 1, "stopped")
    for _ in range(3):
        world.clock.advance(LONGEST_PAUSE)
        await asyncio.sleep(0.02)
    await world.until(lambda: record.id in world.hub.forgotten, "the Hub to forget it")


async def test_a_request_that_is_deleted_in_the_hub_is_cancelled(world: ServiceWorld) -> None:
    await world.reserve(gpus=8, nodes=2)
    waits = await world.reserve(gpus=8)
    assert waits.state is State.QUEUED
    await world.hub.deleted("alice", waits.id)
    assert (await world.becomes(waits.id, "ended")).outcome is Outcome.CANCELLED


async def test_a_server_that_is_only_said_to_be_stopped_is_ended(world: ServiceWorld) -> None:
    """8, 10: the Hub could not end it; the GPUs stay its user's, who starts it again."""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    world.hub.stops = False
    await world.hub.stop(record.id, user=True)
    await world.service.reconcile()
    await world.until(lambda: ("DELETE", record.id) in world.hub.calls)
    for _ in range(3):
        world.clock.advance(40 * SECOND)
        await asyncio.sleep(0.05)
    view = world.service.view
    await world.until(lambda: view.reservations[record.id].server is ServerState.STOPPED)
    assert set(world.cluster.removed) == {(record.id, 1)}
    await world.service.resume(record.id, ALICE.subject)
    world.hub.stops = True
    again = await world.becomes(record.id, "ready")
    assert (again.attempt, again.allocation) == (2, record.allocation)


async def test_a_server_that_the_hub_calls_stopped_is_ended_within_seconds(
    world: ServiceWorld,
) -> None:
    """10: the service died just when the Hub asked it whether the server may end."""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    world.hub.stops = False
    await world.service.end(record.id, ALICE.subject)
    await world.until(lambda: ("DELETE", record.id) in world.hub.calls)
    assert world.cluster.removed == []
    world.clock.advance(4 * SECOND)
    ended = await world.becomes(record.id, "ended")
    assert (ended.outcome, set(world.cluster.removed)) == (Outcome.RELEASED, {(record.id, 1)})


async def test_a_watch_that_is_wrong_frees_nothing(world: ServiceWorld) -> None:
    """Invariant 8: a server that a watch calls gone is looked for."""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    world.cluster.report(ServerSight(record.id, 1, Presence.ABSENT))
    waiting = await world.reserve(BOB, gpus=8, nodes=2)
    await world.service.reconcile()
    after = world.service.view.reservations[record.id]
    assert (after.state, after.attempt) == (State.READY, 1)
    assert world.service.view.reservations[waiting.id].state is State.QUEUED


async def test_trouble_of_a_start_is_told(world: ServiceWorld) -> None:
    world.hub.reports = False
    record = await world.reserve(gpus=8, nodes=2)
    await world.until(lambda: (record.id, 1) in world.hub.rows.items(), "the start")
    world.service.readiness.report(record.id, 1, 1, Report(None, False, "no answer from sshd"))
    await world.until(
        lambda: (
            plain(world.service.view.reason(world.service.view.reservations[record.id]) or "", 0)
            == "starting on node-1 and node-2: rank 1: no answer from sshd"
        )
    )


async def test_a_node_that_lost_gpus_to_others_is_at_fault(world: ServiceWorld) -> None:
    """Slots that somebody outside took are not waited for where another node has free ones."""
    world.hub.refuses = "0/2 nodes are available: Insufficient nvidia.com/gpu"
    record = await world.reserve(gpus=8)
    first = world.service.view.reservations[record.id].allocation[0].node
    world.cluster.node_list = [
        replace(node, gpus=6) if node.name == first else node for node in world.cluster.node_list
    ]
    await world.service.reconcile()
    await world.until(
        lambda: world.service.view.reservations[record.id].allocation[0].node != first, "another node"
    )
    world.hub.refuses = None
    await world.becomes(record.id, "ready")
    assert world.service.view.reservations[record.id].excluded == {first}
