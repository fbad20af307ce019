"""A reservation's life, move by move."""

from __future__ import annotations

from coreworld import HOUR, MINUTE, NOON, SECOND, STARTUP, TEARDOWN, Driver
from gpudev_hub.core.decisions.decide import next_due
from gpudev_hub.core.effects import StartServer, StopServer
from gpudev_hub.core.events import Tick
from gpudev_hub.core.model import NodeSlots, Outcome, Presence, ServerState, State


def test_from_submit_to_the_end_and_the_next_in_line() -> None:
    d = Driver()
    d.submit("bob", 8)
    first = d.submit("alice", 8)
    assert (first.state, first.attempt, first.promise) == (State.STARTING, 1, NOON)
    assert first.allocation == (NodeSlots("node-2", tuple(range(8))),)
    assert first.hard_end == NOON + STARTUP + HOUR + TEARDOWN
    assert first.start_deadline == NOON + STARTUP
    assert d.took(StartServer) == [("r1", 1), ("r2", 1)]

    waiting = d.submit("carol", 2)
    assert waiting.state is State.QUEUED
    assert waiting.place is not None
    assert waiting.promise == waiting.place.start == NOON + STARTUP + HOUR + TEARDOWN

    d.now += 10 * SECOND
    d.ready("r1")
    ready = d.ready("r2")
    assert (ready.state, ready.ready_at, ready.server) == (State.READY, d.now, ServerState.RUNNING)
    assert ready.ends_at == d.now + HOUR
    assert d.get("r3").place.start == d.now + HOUR + TEARDOWN  # type: ignore[union-attr]
    assert d.get("r3").promise == waiting.promise

    d.now += 10 * MINUTE
    stopping = d.end("r2")
    assert (stopping.state, stopping.stop_outcome) == (State.STOPPING, Outcome.RELEASED)
    assert stopping.ends_at == d.now
    assert d.took(StopServer) == [("r2", 1)]
    assert d.get("r3").state is State.QUEUED

    d.now += 2 * SECOND
    d.see("r2", Presence.ABSENT)
    ended = d.ended("r2")
    assert (ended.state, ended.outcome, ended.ended_at) == (State.ENDED, Outcome.RELEASED, d.now)
    assert "r2" not in d.world.reservations
    assert d.get("r3").state is State.STARTING
    assert d.took(StartServer) == [("r3", 1)]
    assert set(d.folded.slots.values()) == {("r1", 1), ("r3", 1)}


def test_expiry_stops_the_server_and_frees_slots_when_it_is_gone() -> None:
    d = Driver()
    d.submit("alice", 8)
    d.submit("bob", 8)
    d.submit("carol", 1)
    d.ready("r1")
    d.ready("r2")
    end = d.get("r1").ends_at
    assert end == NOON + HOUR
    d.go(end - 1)
    assert d.get("r1").state is State.READY
    d.go(end)
    assert d.get("r1").state is State.STOPPING
    assert d.get("r1").hard_end == end + TEARDOWN
    d.now += SECOND
    d.see("r1")
    assert d.ended("r1").outcome is Outcome.EXPIRED
    assert d.get("r3").state is State.STARTING


def test_nothing_is_due_when_nothing_is_there() -> None:
    d = Driver()
    assert next_due(d.world, d.now) is None
    d.do(Tick())
    assert d.folded.snapshot.reservations == {}


def test_restart_gives_the_same_working_state() -> None:
    d = Driver()
    for who in ("alice", "bob", "carol", "dave"):
        d.submit(who, 8)
    before, due = dict(d.world.reservations), next_due(d.world, d.now)
    d.restart()
    d.settle()
    assert d.world.reservations == before
    assert next_due(d.world, d.now) == due
    assert d.folded.snapshot.reservations == before
