"""From a request to its end, with nobody's help: start, hand-over, crash of a server, stop, expiry."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.gate import AdmitRequest, StopAsked
from gpudev_hub.core.model import HOUR, MINUTE, SECOND, Outcome, ServerState, State
from gpudev_hub.core.request import Ask
from gpudev_hub.core.words import plain
from gpudev_hub.service.notices import Notices
from gpudev_hub.service.readiness import Report
from service_world import ALICE, BOB, ServiceWorld


async def may_stop(world: ServiceWorld, subject: str, id: str, *, user: bool) -> bool:
    return (await world.service.gate.stop_asked(StopAsked(subject, id, user))).stop


async def test_a_request_becomes_ready_by_itself(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=2, hours=1)
    assert record.state is State.STARTING
    ready = await world.becomes(record.id, "ready")
    assert world.hub.calls == [("POST", record.id)]
    assert [alias for _, _, alias in world.probed] == [record.id]
    assert ready.ends_at == (ready.ready_at or 0) + HOUR
    sight = world.service.view.sight(record.id)
    assert sight is not None
    assert sight.sshd


async def test_the_next_in_line_starts_when_the_server_is_seen_gone(world: ServiceWorld) -> None:
    """8: a slot returns only after its server is seen gone."""
    first = await world.reserve(gpus=8, nodes=2)
    await world.becomes(first.id, "ready")
    second = await world.reserve(BOB, gpus=4)
    assert second.state is State.QUEUED
    assert world.service.view.position(second.id) == 1
    assert "alice" in plain(world.service.view.reason(world.service.view.reservations[second.id]) or "", 0)
    world.hub.stops = False
    await world.service.end(first.id, ALICE.subject)
    await world.until(lambda: ("DELETE", first.id) in world.hub.calls)
    assert world.service.view.reservations[first.id].state is State.STOPPING
    assert world.service.view.reservations[second.id].state is State.QUEUED
    world.cluster.kill(first.id, 1)
    await world.becomes(second.id, "ready")
    ended = await world.becomes(first.id, "ended")
    assert ended.outcome is Outcome.RELEASED
    assert (await world.service.reads.ended(ALICE.subject, None, 5))[0] == [ended]


async def test_a_pair_starts_as_one_and_every_sshd_is_probed(world: ServiceWorld) -> None:
    """2"""
    pair = await world.reserve(gpus=8, nodes=2)
    await world.becomes(pair.id, "ready")
    assert [alias for _, _, alias in world.probed] == [pair.id, f"{pair.id}-1"]
    world.cluster.kill(pair.id, 1, "rank 1 died", one_rank=True)
    await world.until(lambda: (pair.id, 2) in world.cluster.running, "the second attempt")
    assert (pair.id, 1) not in world.cluster.running
    again = await world.becomes(pair.id, "ready")
    assert (again.attempt, again.restarts) == (2, 1)
    assert again.allocation == pair.allocation


async def test_a_shut_down_in_a_pairs_jupyterlab_stops_both_ranks(world: ServiceWorld) -> None:
    """2: at once, not when the next pass of reconciliation finds rank 1."""
    pair = await world.reserve(gpus=8, nodes=2)
    await world.becomes(pair.id, "ready")
    world.cluster.kill(pair.id, 1, "shut down", one_rank=True, user_stopped=True)
    await world.until(lambda: (pair.id, 1) not in world.cluster.running, "the end of rank 1")
    view = world.service.view
    await world.until(lambda: view.reservations[pair.id].server is ServerState.STOPPED)
    assert (view.reservations[pair.id].attempt, view.reservations[pair.id].allocation) == (1, pair.allocation)


async def test_a_crashed_server_comes_back_on_its_slots(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=2)
    ready = await world.becomes(record.id, "ready")
    world.cluster.kill(record.id, 1, "OOM")
    await world.until(lambda: (record.id, 2) in world.cluster.running)
    again = await world.becomes(record.id, "ready")
    assert again.allocation == ready.allocation
    assert again.hard_end == ready.hard_end


async def test_the_hub_is_not_besieged_while_a_server_comes_up(world: ServiceWorld) -> None:
    world.hub.pending = True
    begun = time.monotonic()
    record = await world.reserve(gpus=1)
    await world.until(lambda: (record.id, 1) in world.cluster.running)
    await world.until(lambda: len(world.hub.calls) >= 4, "the fourth question")
    assert time.monotonic() - begun > 0.5
    world.hub.pending = False
    world.service.readiness.report(record.id, 1, 0, Report(True, True, ""))
    await world.becomes(record.id, "ready")


async def test_not_ready_before_sshd_proves_who_it_is(world: ServiceWorld) -> None:
    world.sshd_answers = False
    record = await world.reserve(gpus=1)
    await world.until(lambda: len(world.probed) > 1)
    assert world.service.view.reservations[record.id].state is State.STARTING
    world.sshd_answers = True
    await world.becomes(record.id, "ready")


async def test_an_agent_without_jupyter_or_of_another_attempt_is_not_enough(
    world: ServiceWorld,
) -> None:
    world.hub.reports = False
    record = await world.reserve(gpus=1)
    await world.until(lambda: (record.id, 1) in world.cluster.running)
    world.service.readiness.report(record.id, 1, 0, Report(False, True, "jupyter is coming up"))
    world.service.readiness.report(record.id, 2, 0, Report(True, True, ""))
    world.service.readiness.report("nobody", 1, 0, Report(True, True, ""))
    await asyncio.sleep(0.05)
    assert not world.probed
    world.service.readiness.report(record.id, 1, 0, Report(True, True, ""))
    await world.becomes(record.id, "ready")


async def test_a_cancelled_request_leaves_nothing_in_the_hub(world: ServiceWorld) -> None:
    await world.reserve(gpus=8, nodes=2)
    waiting = await world.reserve(BOB, gpus=1)
    cancelled = await world.service.end(waiting.id, BOB.subject)
    assert (cancelled.state, cancelled.outcome) == (State.ENDED, Outcome.CANCELLED)
    await world.until(lambda: ("DELETE", waiting.id) in world.hub.calls)
    assert (await world.service.end(waiting.id, BOB.subject)).outcome is Outcome.CANCELLED
    with pytest.raises(Refused) as refused:
        await world.service.extend(waiting.id, BOB.subject, HOUR)
    assert refused.value.code is Code.WRONG_STATE


async def test_warned_then_expired(world: ServiceWorld) -> None:
    """9"""
    record = await world.reserve(gpus=1, hours=1)
    await world.becomes(record.id, "ready")
    waiting = asyncio.create_task(world.service.notices(record.id, 0, 20))
    world.clock.advance(31 * MINUTE)
    (notice,) = await waiting
    assert notice.minutes == 30
    assert "ends in 29 min" in notice.text
    later = asyncio.create_task(world.service.notices(record.id, notice.seq, 20))
    world.clock.advance(15 * MINUTE)
    assert [n.minutes for n in await later] == [15]
    world.clock.advance(15 * MINUTE)
    ended = await world.becomes(record.id, "ended")
    assert ended.outcome is Outcome.EXPIRED
    assert not world.cluster.running
    assert await world.service.notices(record.id, 0, 5) == []


async def test_a_warning_due_while_the_server_restarts_is_given_by_the_new_one(world: ServiceWorld) -> None:
    """9"""
    record = await world.reserve(gpus=1, hours=1)
    ready = await world.becomes(record.id, "ready")
    notices = Notices()
    notices.warn(1, replace(ready, state=State.STARTING), 30, (ready.ends_at or 0) - 29 * MINUTE)
    assert [notice.minutes for notice in notices.after(record.id, 0)] == [30]


async def test_a_stop_that_the_hub_does_not_make_is_made_without_it(world: ServiceWorld) -> None:
    """5"""
    record = await world.reserve(gpus=1, hours=1)
    await world.becomes(record.id, "ready")
    world.hub.stops = False
    world.clock.advance(61 * MINUTE)
    await world.becomes(record.id, "stopping")
    await world.until(lambda: ("DELETE", record.id) in world.hub.calls)
    assert not world.cluster.removed
    for _ in range(3):
        world.clock.advance(40 * SECOND)
        await asyncio.sleep(0.05)
    await world.becomes(record.id, "ended")
    assert set(world.cluster.removed) == {(record.id, 1)}


async def test_the_user_stops_his_server_and_starts_it_again(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=1)
    ready = await world.becomes(record.id, "ready")
    assert await world.hub.stop(record.id, user=True)
    await world.until(lambda: world.service.view.reservations[record.id].server == "stopped")
    assert world.service.view.reservations[record.id].state is State.READY
    resumed = await world.service.resume(record.id, ALICE.subject)
    assert resumed.state is State.STARTING
    again = await world.becomes(record.id, "ready")
    assert (again.allocation, again.hard_end, again.restarts) == (ready.allocation, ready.hard_end, 0)


async def test_the_user_stops_a_start_and_makes_another(world: ServiceWorld) -> None:
    world.hub.reports = False
    record = await world.reserve(gpus=1)
    await world.until(lambda: (record.id, 1) in world.cluster.running)
    await world.until(lambda: world.service.view.claims[record.id, 1].seen)
    assert await world.hub.stop(record.id, user=True)
    await world.until(lambda: world.service.view.reservations[record.id].server == "stopped")
    calls = len(world.hub.calls)
    world.clock.advance(2 * MINUTE)
    await world.service.reconcile()
    kept = world.service.view.reservations[record.id]
    assert (kept.state, kept.attempt, kept.failed_starts) == (State.STARTING, 1, 0)
    assert len(world.hub.calls) == calls, "nobody asks for the start that he gave up"
    world.hub.reports = True
    asked = AdmitRequest(ALICE.subject, "alice", "alice", record.id, form=True)
    assert (await world.service.gate.admit(asked)).launch is not None, "the Hub's own button starts it again"
    again = await world.becomes(record.id, "ready")
    assert (again.attempt, again.allocation, again.hard_end) == (2, record.allocation, record.hard_end)


async def test_a_start_that_was_stopped_before_anything_was_seen(world: ServiceWorld) -> None:
    """10: whether something came of it after all is looked up, also by a service that comes after."""
    world.hub.failure = (503, "busy")
    record = await world.reserve(gpus=1)
    await world.until(lambda: world.hub.calls or record.id in world.service.view.reservations)
    assert await may_stop(world, record.owner.subject, record.id, user=True)
    await world.restart()
    world.hub.failure = None
    await world.until(lambda: world.service.view.reservations[record.id].server == "stopped")
    assert world.cluster.ever == []
    assert (await world.service.resume(record.id, ALICE.subject)).attempt == 2
    await world.becomes(record.id, "ready")


async def test_a_start_that_its_user_breaks_off_is_no_failed_start(world: ServiceWorld) -> None:
    """The Hub answers the start with a bare 500 first, and asks about the stop a second later."""
    world.hub.refuses = "Internal Server Error"
    record = await world.reserve(gpus=1)
    await world.until(lambda: world.service.metrics.effects["start", "refused"] == 1)
    assert await may_stop(world, record.owner.subject, record.id, user=True)
    world.hub.refuses = None
    await world.until(lambda: world.service.view.reservations[record.id].server == "stopped")
    history, _ = await world.service.reads.history(record.id, 0, 100)
    assert not [entry.change.cause for entry in history if entry.change.cause == "start_failed"]
    assert world.service.view.reservations[record.id].attempt == 1


async def test_a_stop_of_our_own_is_not_taken_for_the_users(world: ServiceWorld) -> None:
    """The Hub stops what is left of a failed start when the next attempt has that name already."""
    world.hub.refuses = "no port is free"

    async def late() -> None:
        world.hub.before_stop, world.hub.refuses = None, None
        world.cluster.launch(record.id, 1, 1)
        await world.until(lambda: world.service.view.claims[record.id, 1].seen)
        world.cluster.kill(record.id, 1)
        await world.until(lambda: world.hub.rows.get(record.id) == 2)
        stops.append(await world.hub.stop(record.id, user=True))

    stops: list[bool] = []
    world.hub.before_stop = late
    record = await world.reserve(gpus=1)
    await world.until(lambda: stops)
    assert stops == [False]
    again = await world.becomes(record.id, "ready")
    assert (again.attempt, again.stopped_at) == (2, None)


async def test_a_stopped_server_is_released_after_the_restart_window(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=1)
    await world.becomes(record.id, "ready")
    assert await world.hub.stop(record.id, user=True)
    await world.until(lambda: world.service.view.reservations[record.id].server == "stopped")
    world.clock.advance(10 * MINUTE)
    assert (await world.becomes(record.id, "ended")).outcome is Outcome.RELEASED


async def test_the_hub_may_stop_nothing_of_another_users(world: ServiceWorld) -> None:
    """The name of a server in the Hub's address is anybody's to choose, and ids are no secret."""
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    n = world.service.view.n
    for user in (True, False):
        assert not await may_stop(world, "local:bob", record.id, user=user)
    await world.service.reconcile()
    assert world.service.view.n == n
    await world.service.end(record.id, "local:alice")
    assert not await may_stop(world, "local:bob", record.id, user=True)


async def test_the_hub_may_stop_only_what_the_service_has_ended(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=1)
    await world.becomes(record.id, "ready")
    assert not await may_stop(world, record.owner.subject, record.id, user=False)
    assert await may_stop(world, "local:alice", "never-heard-of", user=False)
    assert world.service.view.reservations[record.id].stopped_at is None
    world.hub.stops = False
    await world.service.end(record.id, ALICE.subject)
    assert await may_stop(world, record.owner.subject, record.id, user=False)


async def test_the_same_request_id_is_the_same_reservation_even_after_its_end(world: ServiceWorld) -> None:
    ask = Ask(gpus=1, hours=1)
    first, second = await asyncio.gather(
        world.service.submit(ALICE, ask, "request-1"), world.service.submit(ALICE, ask, "request-1")
    )
    assert first.id == second.id
    await world.becomes(first.id, "ready")
    await world.service.end(first.id, ALICE.subject)
    await world.becomes(first.id, "ended")
    await world.restart()
    assert (await world.service.submit(ALICE, ask, "request-1")).id == first.id
    assert (await world.service.submit(BOB, ask, "request-1")).id != first.id
    with pytest.raises(Refused) as refused:
        await world.service.submit(ALICE, Ask(gpus=2, hours=1), "request-1")
    assert refused.value.code is Code.REQUEST_ID_REUSED


async def test_waiting_for_a_change(world: ServiceWorld) -> None:
    world.hub.reports = False
    record = await world.reserve(gpus=1)
    await world.until(lambda: (record.id, 1) in world.cluster.running)
    await asyncio.sleep(0.05)
    now = await world.service.reads.wait_change(record.id, -1, 5)
    assert await world.service.reads.wait_change(record.id, now.version, 0.02) == now
    waiting = asyncio.create_task(world.service.reads.wait_change(record.id, now.version, 10))
    await asyncio.sleep(0)
    await world.service.end(record.id, ALICE.subject)
    changed = await waiting
    assert (changed.state, changed.version) == (State.STOPPING, now.version + 1)
    ended = await world.service.reads.wait_change(record.id, changed.version, 10)
    assert ended.state is State.ENDED
    with pytest.raises(Refused) as refused:
        await world.service.reads.wait_change("nobody", 1, 1)
    assert refused.value.code is Code.NOT_FOUND


async def test_logs_history_availability_and_health(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    logs = await world.service.reads.logs(record.id, 2)
    assert logs.logs == {"jupyter": f"{record.id}/1 up\n" * 2}
    assert logs.events[0].change.cause == "requested"
    ((pool, sizes),) = world.service.availability(record.owner, HOUR)
    assert (pool.nodes_up, pool.gpus_total, pool.gpus_free) == (2, 16, 14)
    assert [(s.gpus, s.nodes) for s in sizes if s.starts_now] == [(1, 1), (2, 1), (4, 1), (8, 1)]
    health = world.service.health()
    assert (health.live, health.reasons) == (True, [])
    await world.service.operate_node("node-2", "drain", "local:root")
    ((pool, sizes),) = world.service.availability(record.owner, HOUR)
    assert pool.nodes_up == 1
    assert plain(sizes[-1].reason or "", 0) == "blocked: node-2 is drained"


async def test_an_idle_service_uses_no_time(world: ServiceWorld) -> None:
    """Running servers and a queue are idle too: nothing is polled."""
    for _ in range(4):
        await world.reserve(gpus=8)
    await world.until(
        lambda: sum(r.state is State.READY for r in world.service.view.reservations.values()) == 2
    )
    await asyncio.sleep(0.3)
    answers, begun = world.service.metrics.answers.count, time.process_time()
    await asyncio.sleep(1)
    assert time.process_time() - begun < 0.05
    assert world.service.metrics.answers.count == answers
