"""Decisions by example: servers, nodes, time, extensions; boundary instants and the words that people get."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coreworld import HOUR, MINUTE, NOON, SECOND, STARTUP, TEARDOWN, Driver, nodes, policy, pool
from gpudev_hub.core.causes import Cause, Reason
from gpudev_hub.core.decisions.decide import HANDLERS, next_due
from gpudev_hub.core.decisions.timers import armed
from gpudev_hub.core.effects import StartServer, StopServer, Tell, Warn
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import (
    Compress,
    End,
    Event,
    Extend,
    NodesObserved,
    NodeUnknown,
    OperatorNode,
    Outage,
    OwnerKnown,
    Resume,
    ServerNotice,
    ServerObserved,
    ServerReady,
    StartFailed,
    StartTrouble,
    StopIntent,
    Tick,
)
from gpudev_hub.core.model import ClaimState, Node, NodeStatus, Outcome, Place, Presence, ServerState, State
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.words import plain

MANY = Allowances(running_gpus=64, queued_requests=1000)


def place_of(d: Driver, ref: str) -> Place:
    place = d.get(ref).place
    assert place is not None, f"{ref} has no place"
    return place


def told(d: Driver, ref: str) -> list[str]:
    return [plain(e.message, d.now) for e in d.effects if isinstance(e, Tell) and e.id == ref]


def warned(d: Driver, ref: str) -> list[int]:
    return [e.minutes for e in d.effects if isinstance(e, Warn) and e.id == ref]


def refused(d: Driver, ref: str, hours: float) -> Refused:
    before = dict(d.world.reservations)
    with pytest.raises(Refused) as caught:
        d.extend(ref, hours)
    assert d.world.reservations == before
    return caught.value


def held(d: Driver, ref: str) -> list[int]:
    """Attempts of which slots are still owned."""
    return [c.attempt for c in d.world.claims_of(ref)]


# Servers


def test_a_crash_restarts_on_the_same_slots_three_times() -> None:
    d = Driver()
    first = d.submit("alice", 4)
    d.ready("r1")
    hard_end = d.get("r1").hard_end
    for attempt in (2, 3, 4):
        d.now += MINUTE
        d.see("r1", Presence.ABSENT, "killed by signal 9")
        again = d.get("r1")
        assert (again.state, again.attempt, again.restarts) == (State.STARTING, attempt, attempt - 1)
        assert (again.allocation, again.hard_end) == (first.allocation, hard_end)
        assert d.took(StartServer)[-1] == ("r1", attempt)
        d.ready("r1")
    d.see("r1", Presence.ABSENT, "killed by signal 9")
    ended = d.ended("r1")
    assert (ended.outcome, plain(ended.detail, d.now)) == (
        Outcome.FAILED,
        "the server ended 4 times; the last time: killed by signal 9",
    )
    assert not d.folded.slots


def test_what_is_seen_of_an_older_attempt_changes_nothing() -> None:
    d = Driver()
    d.submit("alice")
    d.ready("r1")
    d.see("r1")
    before = len(d.folded.history)
    for presence in Presence:
        d.do(ServerObserved("r1", 1, presence))
    d.do(ServerReady("r1", 1))
    d.do(StartFailed("r1", 1, "late news"))
    assert len(d.folded.history) == before


def test_not_there_yet_is_no_crash() -> None:
    d = Driver()
    d.submit("alice")
    d.see("r1", Presence.ABSENT)
    assert (d.get("r1").state, d.get("r1").attempt) == (State.STARTING, 1)


def test_unknown_changes_what_is_shown_and_nothing_else() -> None:
    d = Driver()
    d.submit("alice")
    ready = d.ready("r1")
    claims = dict(d.world.claims)
    d.see("r1", Presence.UNKNOWN)
    unknown = d.get("r1")
    assert unknown == replace(ready, server=ServerState.UNKNOWN, version=unknown.version)
    assert d.world.claims == claims
    d.end("r1")
    d.see("r1", Presence.UNKNOWN)
    assert d.get("r1").state is State.STOPPING
    assert held(d, "r1") == [1]


def test_a_release_is_not_put_down_to_an_earlier_crash() -> None:
    d = Driver()
    d.submit("alice", 4)
    d.ready("r1")
    d.see("r1", Presence.ABSENT, "killed by signal 9")
    d.ready("r1")
    assert d.get("r1").detail == "killed by signal 9"
    d.end("r1")
    d.see("r1", Presence.ABSENT)
    assert (d.ended("r1").outcome, d.ended("r1").detail) == (Outcome.RELEASED, "")


def test_what_keeps_a_server_from_starting_is_the_reason_of_the_failure() -> None:
    d = Driver()
    d.submit("alice", 4)
    d.do(StartTrouble("r1", 1, "ErrImagePull: no such image"))
    d.do(StartTrouble("r1", 2, "of an attempt that is not"))
    assert d.get("r1").trouble == "ErrImagePull: no such image"
    d.go(d.now + STARTUP)
    assert any("not ready within 1 min: ErrImagePull: no such image" in cause for cause in d.causes("r1"))
    d.ready("r1")
    assert d.get("r1").detail == ""
    d.do(StartTrouble("r1", d.attempt("r1"), "too late"))
    assert d.get("r1").trouble == "", "a server that is ready has no trouble starting"
    # What is told of one that came back is why it did, and not what its start waited for.
    d.see("r1", Presence.ABSENT, "OOM")
    d.do(StartTrouble("r1", d.attempt("r1"), "nothing listens yet"))
    d.see("r1", Presence.PRESENT)
    d.do(ServerReady("r1", d.attempt("r1")))
    again = d.get("r1")
    assert (again.state, again.detail, again.trouble) == (State.READY, "OOM", "")
    assert again.ends_at is not None
    d.end("r1")


def test_what_a_server_says_of_itself_goes_with_it() -> None:
    d = Driver()
    d.submit("alice", 4)
    d.ready("r1")
    d.do(ServerNotice("r1", 2, "of an attempt that is not"))
    assert d.get("r1").notice == ""
    d.do(ServerNotice("r1", 1, "JupyterLab runs without your configuration"))
    ready = d.get("r1")
    assert (ready.notice, ready.state) == ("JupyterLab runs without your configuration", State.READY)
    assert ready.ends_at == d.get("r1").ends_at
    d.see("r1", Presence.ABSENT, "OOM")
    assert d.get("r1").notice == ""
    d.ready("r1")
    d.do(ServerNotice("r1", 2, "more"))
    d.do(ServerNotice("r1", 2, ""))
    assert d.get("r1").notice == ""


def test_why_everything_restarted_is_told_until_the_server_is_ready() -> None:
    d = Driver()
    d.submit("alice", 4)
    d.ready("r1")
    shutdown = "the hub on this machine was shut down"
    d.do(ServerObserved("r1", 1, Presence.ABSENT, shutdown, outage=True))
    again = d.get("r1")
    assert (again.state, again.restarts, again.trouble) == (State.STARTING, 0, shutdown)
    ready = d.ready("r1")
    assert (ready.state, ready.detail, ready.trouble) == (State.READY, "", "")
    assert any(shutdown in cause for cause in d.causes("r1")), "the history keeps it"


def test_a_gang_restarts_as_a_whole() -> None:
    d = Driver()
    d.submit("alice", 8, nodes=2)
    d.ready("r1")
    d.took(StopServer)
    d.see("r1", Presence.PRESENT, "rank 1 ended", complete=False)
    assert d.get("r1").state is State.READY
    assert d.took(StopServer) == [("r1", 1)]
    d.see("r1", Presence.ABSENT)
    again = d.get("r1")
    assert (again.state, again.attempt, again.restarts, again.detail) == (
        State.STARTING,
        2,
        1,
        "rank 1 ended",
    )
    assert len(again.allocation) == 2


def test_a_gang_that_its_owner_shut_down_from_inside_stops_as_a_whole() -> None:
    """ "Shut Down" in rank 0's JupyterLab ends rank 0 only: the other ranks are stopped at once."""
    d = Driver()
    d.submit("alice", 8, nodes=2)
    d.ready("r1")
    d.took(StopServer)
    d.do(StopIntent("r1"))
    d.see("r1", Presence.PRESENT, "shut down", complete=False)
    assert d.took(StopServer) == [("r1", 1)]
    assert (d.get("r1").server, d.world.claims["r1", 1].state) == (ServerState.RUNNING, ClaimState.HELD)
    d.see("r1", Presence.ABSENT)
    stopped = d.get("r1")
    assert (stopped.state, stopped.server, stopped.attempt) == (State.READY, ServerState.STOPPED, 1)


def test_a_failed_start_is_tried_again_on_the_same_slots_once_it_is_gone() -> None:
    d = Driver()
    first = d.submit("alice", 2)
    d.took(StartServer)
    d.do(StartFailed("r1", 1, "no answer"))
    assert d.took(StopServer) == [("r1", 1)]
    assert d.took(StartServer) == []
    assert d.world.claims["r1", 1].state is ClaimState.RELEASING
    d.now += SECOND
    d.see("r1", Presence.ABSENT)
    again = d.get("r1")
    assert (again.attempt, again.state, again.detail) == (2, State.STARTING, "no answer")
    assert (again.start_deadline, again.hard_end) == (first.start_deadline, first.hard_end)
    assert d.took(StartServer) == [("r1", 2)]
    assert held(d, "r1") == [2]


def test_a_node_at_fault_is_left_for_one_that_is_free_now() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=8)))
    first = d.submit("alice", 8)
    d.now += 5 * SECOND
    d.do(StartFailed("r1", 1, "GPU 3 is gone", node="node-1"))
    moved = d.get("r1")
    assert [part.node for part in moved.allocation] == ["node-2"]
    assert (moved.attempt, moved.hard_end) == (2, first.hard_end)
    assert moved.excluded == frozenset({"node-1"})
    assert d.took(StopServer) == [("r1", 1)]
    assert held(d, "r1") == [1, 2]
    d.see("r1", Presence.PRESENT)
    d.do(ServerObserved("r1", 1, Presence.ABSENT))
    assert held(d, "r1") == [2]
    assert d.get("r1").state is State.STARTING


@pytest.mark.parametrize("status", [NodeStatus.UNKNOWN, NodeStatus.DOWN, NodeStatus.DRAINED])
def test_a_node_that_goes_away_under_a_start_is_left_without_being_blamed(status: NodeStatus) -> None:
    d = Driver()
    d.submit("alice", 8)
    d.node("node-1", status)
    d.do(StartFailed("r1", 1, "0/2 nodes are available"))
    moved = d.get("r1")
    assert [part.node for part in moved.allocation] == ["node-2"]
    assert (moved.attempt, moved.excluded, moved.failed_starts) == (2, frozenset(), 0)


def test_a_node_at_fault_is_tried_again_when_nothing_else_is_free() -> None:
    d = Driver()
    d.submit("alice", 8)
    d.submit("bob", 8)
    d.do(StartFailed("r1", 1, "GPU 3 is gone", node="node-1"))
    d.see("r1")
    assert [part.node for part in d.get("r1").allocation] == ["node-1"]


def test_an_allowance_used_up_requeues_twice_and_then_fails() -> None:
    d = Driver()
    first = d.submit("alice", 8, name="one")
    d.submit("bob", 8)
    d.submit("carol", 8)
    d.ready("r2")
    d.go(first.start_deadline or 0)
    queued = d.get("r1")
    assert (queued.state, queued.seq, queued.failed_starts) == (State.QUEUED, first.seq, 1)
    assert (queued.allocation, queued.hard_end, queued.excluded) == ((), None, frozenset())
    assert queued.promise is not None
    assert queued.place is not None
    assert queued.promise == queued.place.start > NOON
    assert d.causes("r1")[-1] == "start_failed: not ready within 1 min"
    assert held(d, "r1") == [1], "the old slots are not free before the server is seen gone"
    assert "the start failed, and the request is in the queue again: not ready within 1 min" in told(d, "r1")
    for failed in (2, 3):
        d.do(ServerObserved("r1", failed - 1, Presence.ABSENT))
        if d.get("r1").state is State.QUEUED:
            d.go(place_of(d, "r1").start)
        assert d.get("r1").attempt == failed
        d.go(d.get("r1").start_deadline or 0)
    stopping = d.get("r1")
    assert (stopping.state, stopping.stop_outcome) == (State.STOPPING, Outcome.FAILED)
    d.see("r1")
    assert plain(d.ended("r1").detail, d.now) == "3 starts failed; the last one: not ready within 1 min"


def test_a_restart_that_hangs_is_tried_again_with_its_time_running_on() -> None:
    d = Driver()
    d.submit("alice")
    d.ready("r1")
    hard_end = d.get("r1").hard_end
    d.see("r1", Presence.ABSENT, "OOM")
    d.go(d.now + STARTUP)
    assert d.took(StopServer)[-1] == ("r1", 2)
    assert d.get("r1").state is State.STARTING
    d.see("r1")
    assert (d.get("r1").attempt, d.get("r1").restarts, d.get("r1").hard_end) == (3, 2, hard_end)


def test_a_stop_by_its_user_keeps_the_slots_for_the_window() -> None:
    d = Driver()
    d.submit("alice", 2, 4)
    d.ready("r1")
    d.now += MINUTE
    stopped_at = d.now
    d.do(StopIntent("r1"))
    with pytest.raises(Refused, match="still stopping"):
        d.do(Resume("r1", "local:alice"))
    d.see("r1", Presence.ABSENT, "exit code 0")
    assert (d.get("r1").state, d.get("r1").server) == (State.READY, ServerState.STOPPED)
    assert held(d, "r1") == [1]
    d.go(stopped_at + 10 * MINUTE - 1)
    assert d.get("r1").state is State.READY
    d.go(stopped_at + 10 * MINUTE)
    ended = d.ended("r1")
    assert (ended.outcome, ended.ended_at) == (Outcome.RELEASED, d.now)
    assert ended.detail == "the server was stopped and not started again within 10 min"
    assert not d.folded.slots


@pytest.mark.parametrize("seen", [True, False])
def test_a_stop_while_it_starts_gives_the_start_up_and_keeps_the_slots(seen: bool) -> None:
    d = Driver()
    d.submit("alice", 2, 4)
    if seen:
        d.see("r1", Presence.PRESENT)
    d.now += 50 * SECOND
    d.do(StopIntent("r1"))
    assert d.took(StopServer) == ([] if seen else [("r1", 1)]), "what was never seen has to be looked for"
    with pytest.raises(Refused, match="still stopping"):
        d.do(Resume("r1", "local:alice"))
    d.see("r1", Presence.ABSENT, "it was asked to stop")
    d.do(ServerReady("r1", 1))
    d.go(d.now + 5 * MINUTE)
    kept = d.get("r1")
    assert (kept.state, kept.server, kept.failed_starts) == (State.STARTING, ServerState.STOPPED, 0)
    assert held(d, "r1") == [1]
    d.do(Resume("r1", "local:alice"))
    again = d.get("r1")
    assert (again.attempt, again.hard_end, again.stopped_at) == (2, kept.hard_end, None)
    assert again.start_deadline == d.now + STARTUP, "the allowance that his own stop used up is given anew"
    d.do(StopIntent("r1"))
    d.see("r1", Presence.ABSENT)
    d.go(d.now + 10 * MINUTE)
    assert d.ended("r1").outcome is Outcome.RELEASED
    assert not d.folded.slots


def test_resume_starts_it_again_without_counting_it_as_a_restart() -> None:
    d = Driver()
    d.submit("alice", 2, 4)
    d.ready("r1")
    d.do(Resume("r1", "local:alice"))
    assert d.get("r1").state is State.READY
    d.do(StopIntent("r1"))
    d.see("r1")
    d.do(Resume("r1", "local:alice"))
    assert (d.get("r1").state, d.get("r1").attempt, d.get("r1").restarts) == (State.STARTING, 2, 0)
    assert d.get("r1").stopped_at is None
    d.submit("bob", 8)
    d.submit("carol", 8)
    with pytest.raises(Refused, match="r3 is queued"):
        d.do(Resume("r3", "local:carol"))


def test_an_owner_unknown_to_the_hub_holds_up_nobody() -> None:
    d = Driver()
    d.submit("alice", 8, 2)
    d.submit("bob", 8, 2)
    d.submit("carol", 8)
    d.submit("dave", 8)
    d.do(OwnerKnown("local:alice", known=False))
    blocked = d.get("r1")
    assert (blocked.state, blocked.place, blocked.promise, blocked.failed_starts) == (
        State.QUEUED,
        None,
        None,
        0,
    )
    assert blocked.blocked is not None
    assert "log in" in plain(blocked.blocked, d.now)
    d.see("r1")
    assert d.get("r3").state is State.STARTING
    promise = d.get("r4").promise
    d.do(OwnerKnown("local:alice", known=True))
    again = d.get("r1")
    assert again.blocked is None
    assert place_of(d, "r1").start == again.promise
    assert promise is not None
    assert place_of(d, "r1").start < place_of(d, "r4").start <= promise, "what is planned makes way"
    assert d.get("r4").promise == promise, "what is promised does not"


def test_the_text_of_an_unknown_owner_from_an_earlier_version_is_read() -> None:
    """Stored records keep the words of their time: a request blocked by them is placed at the next log-in."""
    d = Driver()
    d.submit("alice", 8, 2)
    d.submit("alice", 8, 2)
    d.submit("alice", 8, 2)
    d.do(OwnerKnown("local:alice", known=False))
    before = "its owner is not known to JupyterHub: log in there once"
    stored = d.folded.snapshot.reservations
    stored["r3"] = replace(stored["r3"], blocked=before)
    d.restart()
    d.settle()
    assert d.get("r3").blocked == before, "nothing else gives it a place"
    d.do(OwnerKnown("local:alice", known=True))
    assert d.get("r3").blocked is None
    assert place_of(d, "r3").start == d.get("r3").promise


def test_a_stay_whose_owner_the_hub_has_lost_waits_for_him() -> None:
    """8: a server that ends after the Hub has lost its database is started again once its owner logs in."""
    d = Driver()
    d.submit("alice", 8, 2)
    d.ready("r1")
    before = d.get("r1")
    d.see("r1", Presence.ABSENT, "OOM")
    d.do(OwnerKnown("local:alice", known=False))
    assert d.took(StopServer)[-1] == ("r1", 2), "what was never seen has to be looked for"
    d.do(OwnerKnown("local:alice", known=True))
    assert d.get("r1").attempt == 2, "whether anything runs is not known yet"
    d.see("r1", Presence.ABSENT)
    d.go(d.now + 30 * MINUTE)
    kept = d.get("r1")
    assert (kept.hard_end, kept.allocation, kept.restarts) == (before.hard_end, before.allocation, 1)
    d.do(OwnerKnown("local:alice", known=True))
    d.see("r1")
    d.do(ServerReady("r1", 3))
    after = d.get("r1")
    assert (after.state, after.blocked, after.hard_end) == (State.READY, None, before.hard_end)
    assert after.restarts == 1, "the Hub's loss is no crash"


def test_a_stay_whose_owner_never_logs_in_again_ends_in_time() -> None:
    d = Driver()
    d.submit("alice", 8, 2)
    d.ready("r1")
    d.see("r1", Presence.ABSENT, "OOM")
    d.do(OwnerKnown("local:alice", known=False))
    d.see("r1", Presence.ABSENT)
    ends_at = d.get("r1").ends_at
    assert ends_at is not None
    d.go(ends_at)
    assert d.ended("r1").outcome is Outcome.EXPIRED


def test_a_node_coming_up_places_nobody_whose_owner_is_unknown() -> None:
    d = Driver(policy(node_grace=0))
    d.submit("alice", 8, nodes=2)
    d.submit("bob", 8)
    d.do(OwnerKnown("local:bob", known=False))
    d.node("node-2", NodeStatus.DOWN)
    d.node("node-2", NodeStatus.UP)
    assert d.get("r2").place is None


# Ends and overruns


def test_a_release_ends_once_the_server_is_gone_even_if_asked_twice() -> None:
    d = Driver()
    d.submit("alice", 8, 2)
    d.submit("bob", 8, 2)
    d.submit("carol", 8)
    d.ready("r1")
    d.end("r1")
    d.end("r1", Outcome.ACCESS_REVOKED)
    assert d.get("r1").stop_outcome is Outcome.RELEASED
    assert place_of(d, "r3").start == d.now + TEARDOWN
    d.see("r1")
    with pytest.raises(Refused, match="There is no reservation r1"):
        d.end("r1")
    assert d.get("r3").state is State.STARTING


def test_an_operators_reason_is_told_before_the_server_is_stopped() -> None:
    """Afterwards its terminals are gone."""
    d = Driver()
    d.submit("alice", 8)
    d.ready("r1")
    d.effects.clear()
    d.do(End("r1", "local:olga", Outcome.ENDED_BY_OPERATOR, "driver update"))
    told, stopped = d.effects
    assert told == Tell("r1", "An operator ended this reservation: driver update.")
    assert isinstance(stopped, StopServer)
    record = d.get("r1")
    assert (record.detail, record.stop_outcome) == ("driver update", Outcome.ENDED_BY_OPERATOR)


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (Outcome.ACCESS_REVOKED, "operator: access_revoked"),
        (Outcome.ENDED_BY_OPERATOR, "operator: ended_by_operator"),
    ],
)
def test_an_end_for_another_reason_says_so(outcome: Outcome, cause: str) -> None:
    d = Driver()
    d.submit("alice", 8)
    d.submit("bob", 8)
    d.submit("carol", 8)
    for ref in ("r1", "r3"):
        d.end(ref, outcome)
        assert cause in d.causes(ref)
    d.see("r1")
    assert (d.ended("r1").outcome, d.ended("r3").outcome) == (outcome, outcome)


def test_a_stop_that_overruns_is_a_logged_cause_and_never_frees_slots() -> None:
    d = Driver()
    d.submit("alice", 8)
    d.submit("bob", 8, 4)
    d.submit("carol", 8)
    d.ready("r1")
    d.ready("r2")
    hard_end = d.get("r1").hard_end or 0
    assert place_of(d, "r3").start == hard_end
    d.go(hard_end - 1)
    assert d.get("r3").promise == hard_end + STARTUP
    d.go(hard_end)
    assert (d.get("r3").state, place_of(d, "r3").start) == (State.QUEUED, hard_end), "it waits for the slots"
    d.go(hard_end + MINUTE - 1)
    assert d.get("r3").state is State.QUEUED
    d.go(hard_end + MINUTE)
    assert place_of(d, "r3").start == d.get("r3").promise == hard_end + 3 * MINUTE
    assert (
        plain(d.causes("r3")[-1], d.now) == "stop_overran: the server of r1 should have stopped by 13:00 UTC"
    )
    assert told(d, "r3") == [
        (
            "planned start is now 13:03 UTC, later than guaranteed: "
            "the server of r1 should have stopped by 13:00 UTC"
        )
    ]
    d.go(hard_end + 3 * MINUTE)
    assert place_of(d, "r3").start == hard_end + 7 * MINUTE
    assert d.get("r3").state is State.QUEUED
    d.now += SECOND
    d.see("r1")
    assert d.get("r3").state is State.STARTING


def test_slots_that_are_a_little_late_are_waited_for_whoever_comes_behind() -> None:
    d = Driver(policy(allowances=MANY), nodes(1))
    d.submit("alice", 8)
    d.ready("r1")
    d.submit("bob", 8)
    d.submit("carol", 8)
    place, behind = place_of(d, "r2"), place_of(d, "r3")
    d.go(place.start + 20 * SECOND)
    assert d.get("r2").state is State.QUEUED
    d.see("r1")
    assert (d.get("r2").state, d.get("r2").hard_end) == (State.STARTING, place.end)
    assert place_of(d, "r3") == behind
    assert not any(c.cause is Cause.STOP_OVERRAN for _, _, c in d.folded.history)


def test_ends_come_before_starts_at_the_same_instant() -> None:
    d = Driver()
    d.submit("alice", 8)
    d.submit("bob", 8, 4)
    d.submit("carol", 8)
    d.ready("r1")
    d.ready("r2")
    d.go((d.get("r1").hard_end or 0) - 1)
    d.now += 1
    d.see("r1")
    assert d.ended("r1").outcome is Outcome.EXPIRED
    assert d.get("r3").state is State.STARTING
    assert not any("stop_overran" in cause for cause in d.causes("r3"))


def test_ready_never_moves_the_hard_end_later() -> None:
    d = Driver()
    d.submit("alice", hours=2)
    admitted = d.get("r1")
    d.now += 20 * SECOND
    ready = d.ready("r1")
    assert ready.hard_end == d.now + 2 * HOUR + TEARDOWN
    d.submit("bob", hours=2)
    late = d.get("r2")
    # After an outage that others' places did not let it be paid back, the hold is what is left.
    d.world.put(replace(late, start_deadline=(late.start_deadline or 0) + HOUR), Reason(Cause.OUTAGE, "test"))
    d.now += 30 * MINUTE
    assert d.ready("r2").hard_end == late.hard_end
    assert admitted.hard_end == NOON + STARTUP + 2 * HOUR + TEARDOWN


# Warnings


def test_warnings_come_once_each_and_none_after_the_end() -> None:
    d = Driver()
    d.submit("alice", hours=1)
    d.ready("r1")
    end = d.get("r1").ends_at or 0
    for minutes, so_far in ((30, [30]), (15, [30, 15]), (5, [30, 15, 5])):
        d.go(end - minutes * MINUTE - 1)
        assert warned(d, "r1") == so_far[:-1]
        d.go(end - minutes * MINUTE)
        d.do(Tick())
        assert warned(d, "r1") == so_far
        assert d.get("r1").warned == tuple(so_far)
    d.go(end)
    d.go(end + MINUTE)
    assert warned(d, "r1") == [30, 15, 5]


def test_a_hold_shorter_than_a_threshold_is_not_warned_of_it() -> None:
    d = Driver()
    d.submit("alice", hours=1 / 4)
    d.ready("r1")
    d.go((d.get("r1").ends_at or 0) - 1)
    assert warned(d, "r1") == [5]


@pytest.mark.parametrize(
    ("minutes", "expected"), [(4, []), (5, []), (6, [5]), (15, [5]), (30, [15, 5]), (31, [30, 15, 5])]
)
def test_only_thresholds_shorter_than_the_hold_are_armed(minutes: int, expected: list[int]) -> None:
    """9"""
    d = Driver()
    d.submit("alice", hours=minutes / 60)
    ready = d.ready("r1")
    assert armed(ready, d.policy.warn_minutes) == tuple(expected)
    assert warned(d, "r1") == []
    d.go((d.get("r1").ends_at or 0) - 1)
    assert warned(d, "r1") == expected


def test_an_extension_arms_a_threshold_that_the_hold_did_not_reach() -> None:
    """9"""
    d = Driver()
    d.submit("alice", hours=1 / 2)
    d.ready("r1")
    d.go((d.get("r1").ends_at or 0) - 20 * MINUTE)
    d.extend("r1", 1)
    assert warned(d, "r1") == []
    assert armed(d.get("r1"), d.policy.warn_minutes) == (30, 15, 5)
    d.go((d.get("r1").ends_at or 0) - 1)
    assert warned(d, "r1") == [30, 15, 5]


def test_an_extension_gives_no_warning_of_its_own() -> None:
    """9: 24 minutes are left after it, which its owner knows."""
    d = Driver()
    d.submit("alice", hours=1 / 2)
    d.ready("r1")
    d.go((d.get("r1").ends_at or 0) - 4 * MINUTE)
    d.extend("r1", 1 / 3)
    d.go(d.now + MINUTE)
    assert warned(d, "r1") == [15, 5]
    d.go((d.get("r1").ends_at or 0) - 1)
    assert warned(d, "r1") == [15, 5, 15, 5]


def test_after_an_outage_the_nearest_threshold_is_told_all_recorded() -> None:
    d = Driver()
    d.submit("alice", hours=1)
    d.ready("r1")
    d.now = (d.get("r1").ends_at or 0) - 4 * MINUTE
    d.do(Tick())
    assert (warned(d, "r1"), d.get("r1").warned) == ([5], (30, 15, 5))


def test_nobody_is_warned_after_his_end() -> None:
    d = Driver()
    d.submit("alice", hours=1)
    d.ready("r1")
    d.now = d.get("r1").ends_at or 0
    d.do(Tick())
    assert d.get("r1").state is State.STOPPING
    assert (warned(d, "r1"), d.get("r1").warned) == ([], ())


def test_an_extension_arms_warnings_again() -> None:
    d = Driver()
    d.submit("alice", hours=1)
    d.ready("r1")
    d.go((d.get("r1").ends_at or 0) - 3 * MINUTE)
    assert d.get("r1").warned == (30, 15, 5)
    d.extend("r1", 1 / 6)
    assert d.get("r1").warned == (30, 15), "13 minutes are left: those two are past"
    d.go((d.get("r1").ends_at or 0) - 1)
    assert warned(d, "r1") == [30, 15, 5, 5]
    d.extend("r1", 1)
    d.go((d.get("r1").ends_at or 0) - 1)
    assert warned(d, "r1") == [30, 15, 5, 5, 30, 15, 5]


# Extensions


def test_an_extension_that_breaks_a_promise_is_refused_with_the_longest() -> None:
    d = Driver()
    d.submit("alice", 8, 2, name="train")
    d.submit("bob", 8, 4)
    d.submit("carol", 8)
    d.now += 20 * SECOND
    d.ready("r1")
    d.ready("r2")
    error = refused(d, "r1", 4)
    assert error.code is Code.EXTENSION_REFUSED
    assert error.message == (
        "Reservation train cannot be extended by 4 h: "
        "carol's queued request r3 is guaranteed to start by 14:01 UTC. "
        "No extension is possible now."
    )


def test_what_a_refusal_offers_is_granted() -> None:
    d = Driver()
    d.submit("alice", 8, 2, name="train")
    d.submit("bob", 8, 4)
    d.submit("carol", 8, nodes=2)
    d.ready("r1")
    d.ready("r2")
    hard_end = d.get("r1").hard_end or 0
    error = refused(d, "r1", 10)
    assert error.message == (
        "Reservation train cannot be extended by 10 h: "
        "carol's queued request r3 is guaranteed to start by 16:01 UTC. "
        "The longest extension now is 2 h 1 min."
    )
    hours = float(error.hint.removeprefix("Use `gpu-dev extend train --hours ").removesuffix("`."))
    assert d.extend("r1", hours).hard_end == hard_end + round(hours * HOUR)
    assert "No extension is possible now." in refused(d, "r1", 1).message


def test_an_extension_within_the_slack_moves_a_place_and_says_why() -> None:
    d = Driver()
    d.submit("alice", 8, 2)
    d.submit("bob", 8, 4)
    d.submit("carol", 8)
    d.ready("r1")
    d.ready("r2")
    before, promise = place_of(d, "r3").start, d.get("r3").promise
    assert before == (promise or 0) - STARTUP
    d.extend("r1", 1 / 60)
    assert place_of(d, "r3").start == before + MINUTE
    assert d.get("r3").promise == promise
    assert d.causes("r3")[-1] == "moved_for_extension"
    assert told(d, "r3") == [
        "planned start is now 14:01 UTC: alice extended a reservation; still guaranteed by 14:01 UTC"
    ]


def test_an_extension_in_the_way_of_ones_own_request_says_so() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=8)))
    d.submit("alice", 8, 2)
    d.submit("alice", 8, 1, name="next")
    d.now += 5 * SECOND
    d.ready("r1")
    assert "your queued request next needs the GPUs by then" in refused(d, "r1", 1).message


def test_an_extension_under_a_minute_is_refused() -> None:
    """Each is stored for as long as the reservation lives."""
    d = Driver()
    d.submit("alice", 2, 1)
    d.ready("r1")
    with pytest.raises(Refused, match="an extension by 56 s; the shortest is 1 min") as caught:
        d.do(Extend("r1", "local:alice", 56 * SECOND))
    assert caught.value.code is Code.INVALID_HOURS
    # As a refusal offers a minute.
    d.do(Extend("r1", "local:alice", round(0.0166 * HOUR)))


def test_an_extension_asked_for_twice_is_granted_once() -> None:
    """A lost answer, and the client asks again: with the same id it is the same extension."""
    d = Driver()
    d.submit("alice", 2, 1)
    d.ready("r1")

    def extend(by: int, request_id: str | None) -> None:
        d.do(Extend("r1", "local:alice", by, request_id))

    for n in range(3):
        extend(MINUTE, f"extension-{n}")
    for n in (1, 0, 2):
        extend(MINUTE, f"extension-{n}")
    assert d.get("r1").extended == 3 * MINUTE
    extend(MINUTE, None)
    extend(MINUTE, None)
    assert d.get("r1").extended == 5 * MINUTE
    with pytest.raises(Refused, match="was already used for an extension by 1 min, not by 2 min") as caught:
        extend(2 * MINUTE, "extension-1")
    assert caught.value.code is Code.REQUEST_ID_REUSED
    for n in range(3, 10):
        extend(MINUTE, f"extension-{n}")
    assert len(d.get("r1").extensions) == 8, "a record does not grow for ever"
    d.end("r1")
    extend(MINUTE, "extension-9")
    with pytest.raises(Refused, match="It can no longer be extended"):
        extend(MINUTE, "extension-10")


def test_a_reservation_that_cannot_be_extended_is_called_by_its_name() -> None:
    d = Driver()
    d.submit("bob", 8, nodes=2, name="big")
    d.submit("alice", 1, name="later")
    for ref, said in (
        ("r2", "Reservation later is queued. Only a reservation that has started can be extended."),
        ("r1", "Reservation big is stopping. It can no longer be extended."),
    ):
        if ref == "r1":
            d.ready(ref)
            d.end(ref)
        assert refused(d, ref, 1).message == said


def test_extensions_have_a_limit_in_all() -> None:
    d = Driver()
    d.submit("alice", 1, 24)
    d.ready("r1")
    error = refused(d, "r1", 25)
    assert error.message == (
        "Reservation r1 cannot be extended by 25 h: "
        "the limit with extensions is 48 h, and this reservation has 24 h. "
        "The longest extension now is 24 h."
    )
    assert error.hint == "Use `gpu-dev extend r1 --hours 24`."
    d.extend("r1", 24)
    assert "No extension is possible now." in refused(d, "r1", 1).message


def test_only_what_has_started_can_be_extended() -> None:
    d = Driver()
    d.submit("alice", 8, nodes=2)
    d.submit("bob")
    assert refused(d, "r2", 1).code is Code.WRONG_STATE
    assert refused(d, "r1", -1).code is Code.INVALID_HOURS
    d.end("r1")
    assert refused(d, "r1", 1).code is Code.WRONG_STATE


# Nodes


def test_what_needs_a_node_that_is_away_is_blocked_until_it_is_back() -> None:
    d = Driver(policy(node_grace=0))
    d.submit("alice", 8, 2)
    d.submit("bob", 8, 1, nodes=2)
    d.submit("carol", 4, 1)
    first = d.get("r2").promise
    d.node("node-2", NodeStatus.DOWN)
    d.settle()
    blocked = d.get("r2")
    assert (blocked.place, blocked.promise, blocked.blocked) == (None, None, "node-2 is down")
    assert told(d, "r2") == ["blocked: node-2 is down"]
    assert d.causes("r2")[-1] == "node_changed: node-2 is down"
    d.now += MINUTE
    d.do(NodeUnknown("node-2"))
    assert d.get("r2").blocked == "the state of node-2 is unknown"
    promise = d.get("r3").promise
    d.node("node-2", NodeStatus.UP)
    cured = d.get("r2")
    assert cured.blocked is None
    assert cured.promise == place_of(d, "r2").start
    assert first is not None
    assert cured.promise >= first
    assert d.get("r3").promise == promise


def test_what_a_blocked_request_no_longer_holds_is_used_at_once() -> None:
    d = Driver(policy(node_grace=0))
    d.submit("alice", 1, 1)
    d.submit("bob", 8, 2, nodes=2)
    d.submit("carol", 2, 3)
    assert d.get("r3").state is State.QUEUED
    d.node("node-2", NodeStatus.DOWN)
    assert d.get("r2").blocked == "node-2 is down"
    assert d.get("r3").state is State.STARTING


def test_a_node_down_frees_nothing_and_kills_nothing() -> None:
    d = Driver()
    d.submit("alice", 8)
    d.submit("bob", 8)
    d.ready("r1")
    d.node("node-1", NodeStatus.DOWN)
    assert d.get("r1").state is State.READY
    assert held(d, "r1") == [1]
    d.node("node-1", NodeStatus.UP)
    assert d.get("r1").state is State.READY


def test_past_its_end_on_a_node_that_is_away_it_no_longer_counts() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=8)))
    d.submit("alice", 8, 1)
    d.ready("r1")
    d.do(NodeUnknown("node-1"))
    d.submit("alice", 8, 1)
    assert d.get("r2").state is State.QUEUED
    d.go((d.get("r1").hard_end or 0) + MINUTE)
    assert d.get("r1").state is State.STOPPING
    assert held(d, "r1") == [1], "and its slots stay taken"
    assert d.get("r2").state is State.STARTING


def test_a_drained_node_keeps_what_runs_and_gets_nothing_new() -> None:
    d = Driver()
    d.submit("alice", 4)
    d.do(OperatorNode("node-1", "drain", "local:root"))
    d.do(NodesObserved(nodes(2)))
    assert d.world.nodes["node-1"].status is NodeStatus.DRAINED
    assert d.get("r1").state is State.STARTING
    assert [part.node for part in d.submit("bob", 4).allocation] == ["node-2"]
    assert d.submit("carol", 8).place is not None
    d.do(OperatorNode("node-1", "undrain", "local:root"))
    assert not d.world.is_up("node-1"), "it may be cordoned, too"
    d.do(NodesObserved(nodes(2)))
    assert d.world.is_up("node-1")
    with pytest.raises(Refused, match="There is no node node-9"):
        d.do(OperatorNode("node-9", "drain", "local:root"))
    with pytest.raises(Refused, match="'burn' is not an action for a node"):
        d.do(OperatorNode("node-1", "burn", "local:root"))


@pytest.mark.parametrize("by_operator", [True, False])
def test_a_lost_node_ends_what_ran_there_and_keeps_slots_until_seen_gone(by_operator: bool) -> None:
    d = Driver()
    d.submit("alice", 8, nodes=2)
    d.ready("r1")
    d.took(StopServer)
    if by_operator:
        d.do(OperatorNode("node-2", "lost", "local:root"))
    else:
        d.do(NodesObserved(nodes(1)))
    assert d.ended("r1").outcome is Outcome.NODE_LOST
    assert d.took(StopServer) == [("r1", 1)]
    assert held(d, "r1") == [1]
    d.submit("bob", 8)
    assert d.get("r2").state is State.QUEUED, "the other node of the pair is not free yet"
    d.go(d.now + 3 * HOUR)
    assert held(d, "r1") == [1], "nor is it by time alone"
    d.do(ServerObserved("r1", 1, Presence.ABSENT))
    assert d.get("r2").state is State.STARTING


@pytest.mark.parametrize("pool_name", ["", "b200", "mistyped"])
def test_a_node_that_leaves_its_pool_stays_until_what_runs_has_ended(pool_name: str) -> None:
    """Its label was taken away or changed: it is still there, and nobody called it lost."""
    d = Driver(policy(pools=(pool(), replace(pool(), name="b200"))))
    d.submit("alice", 4)
    d.ready("r1")
    d.took(StopServer)
    there, other = nodes(2)
    seen = NodesObserved((replace(there, pool=pool_name), other))
    for _ in range(2):
        d.do(seen)
        kept = d.world.nodes[there.name]
        assert (kept.pool, kept.status) == ("h100", NodeStatus.DRAINED)
    assert d.get("r1").state is State.READY
    assert [part.node for part in d.submit("bob", 4).allocation] == [other.name]
    waits = d.submit("carol", 8)
    for action in ("undrain", "drain", "undrain"):
        d.do(OperatorNode(there.name, action, "local:root"))
        assert d.get(waits.id).state is State.QUEUED
    d.do(End("r1", "local:alice"))
    d.see("r1")
    d.do(seen)
    assert d.ended("r1").outcome is Outcome.RELEASED
    known = d.world.nodes.get(there.name)
    assert (known and known.pool) == ("b200" if pool_name == "b200" else None)


def test_a_node_is_committed_first_and_a_long_queue_behind_it_in_slices() -> None:
    d = Driver(policy(allowances=MANY, node_grace=0))
    d.submit("zoe", 8, 1)
    d.submit("zoe", 8, 1)
    for i in range(300):
        d.submit(f"user-{i}", 8, 1)
    behind = [r for r in d.world.queued() if r.place and "node-2" in r.place.nodes]
    assert len(behind) == 150
    start = len(d.folded.history)
    d.do(NodesObserved((nodes(2)[0], replace(nodes(2)[1], status=NodeStatus.DOWN))))
    first = d.folded.history[start:]
    assert isinstance(first[0][2].record, Node), "the cause comes first"
    assert d.more
    assert len(first) <= 70
    # A crash between the slices: the rest is found in what was committed.
    d.restart()
    d.settle()
    left = [r for r in d.world.queued() if r.place and "node-2" in r.place.nodes]
    assert left == []
    order = [place_of(d, r.id).start for r in d.world.queued()]
    assert len(set(order)) == 300
    assert all(d.get(r.id).promise == place_of(d, r.id).start for r in behind)


def test_a_new_request_stands_behind_those_to_be_placed_again() -> None:
    d = Driver(policy(allowances=MANY, node_grace=0))
    for i in range(200):
        d.submit(f"user-{i}", 8, 1)
    d.do(NodesObserved((nodes(2)[0], replace(nodes(2)[1], status=NodeStatus.DOWN))))
    assert d.more
    last = d.submit("late", 8, 1)
    assert last.place is not None
    assert all(place_of(d, r.id).start < last.place.start for r in d.world.queued()[:-1])


# Outages


@pytest.mark.parametrize("late", [30 * SECOND, 31 * SECOND, 31 * MINUTE])
@pytest.mark.parametrize("behind", [True, False])
def test_a_start_that_is_late(late: int, behind: bool) -> None:
    d = Driver(policy(allowances=MANY), nodes(1))
    d.submit("alice", 8)
    d.ready("r1")
    d.submit("bob", 8)
    if behind:
        d.submit("carol", 8)
    place = place_of(d, "r2")
    # All is free, and nobody looks at the clock.
    d.now = place.start - 1
    d.world.free_claim(d.world.claims["r1", 1], Cause.SERVER_GONE, d.now)
    d.world.end(replace(d.get("r1"), state=State.ENDED, outcome=Outcome.EXPIRED), Cause.SERVER_GONE)
    d.now = place.start + late
    d.do(Tick())
    bob = d.get("r2")
    if late > HOUR / 2:
        assert (bob.state, bob.attempt) == ((State.QUEUED, 0) if behind else (State.STARTING, 1))
        assert any(
            cause.startswith("outage: the start of r2 was missed by 31 min") for cause in d.causes("r2")
        )
        return
    moved = 31 * SECOND if late == 31 * SECOND and not behind else 0
    assert (bob.state, bob.hard_end) == (State.STARTING, place.end + moved)
    kept = place.end - HOUR - TEARDOWN
    assert bob.start_deadline == (kept if late == 30 * SECOND else d.now + STARTUP)
    shorter = [
        "the start was delayed by 31 s; later reservations need the GPUs, so the hold time may be shorter"
    ]
    assert told(d, "r2") == (shorter if behind and late == 31 * SECOND else [])


def test_the_allowance_stands_still_in_an_outage_and_the_end_moves_along() -> None:
    d = Driver()
    first = d.submit("alice", 8)
    d.now += 50 * SECOND
    d.do(Outage(NOON + 10 * SECOND, d.now, "the Hub"))
    moved = d.get("r1")
    assert moved.start_deadline == (first.start_deadline or 0) + 40 * SECOND
    assert moved.hard_end == (first.hard_end or 0) + 40 * SECOND
    assert d.world.claims["r1", 1].hard_end == moved.hard_end
    assert d.causes("r1")[-1] == "outage: the Hub was unavailable for 40 s"


def test_an_outage_across_the_deadline_is_no_failed_start() -> None:
    d = Driver()
    d.submit("alice", 8)
    d.now += 5 * MINUTE
    d.do(Outage(NOON + SECOND, d.now, "the service"))
    d.do(Tick())
    assert (d.get("r1").state, d.get("r1").failed_starts) == (State.STARTING, 0)


def test_an_outage_moves_a_near_deadline_by_more_than_its_length() -> None:
    """Else it would be due again within as little time as it had left, without end."""
    d = Driver()
    first = d.submit("alice", 8)
    assert first.start_deadline is not None
    d.now = first.start_deadline
    d.do(Outage(d.now - 50, d.now, "the Hub", lasting=True))
    assert d.get("r1").start_deadline == d.now + 30 * SECOND
    assert (d.get("r1").hard_end or 0) - (first.hard_end or 0) == 50, "what he has lost"
    d.do(Outage(d.now - 20, d.now, "the cluster", lasting=True))
    assert d.get("r1").start_deadline == d.now + 30 * SECOND + 20


def test_where_others_come_after_the_hold_shortens_and_the_owner_is_told() -> None:
    d = Driver()
    first = d.submit("alice", 8)
    d.submit("bob", 8)
    d.submit("carol", 8, nodes=2)
    d.now += 20 * SECOND
    d.do(Outage(NOON, d.now, "the Hub"))
    assert d.get("r1").hard_end == first.hard_end
    assert d.get("r1").start_deadline == (first.start_deadline or 0) + 20 * SECOND
    assert told(d, "r1") == [
        "the start was delayed by 20 s; later reservations need the GPUs, so the hold time may be shorter"
    ]
    assert d.get("r3").promise == first.hard_end


def test_a_restart_places_again_what_does_not_fit_and_says_why() -> None:
    d = Driver()
    d.submit("alice", 8)
    d.submit("bob", 8)
    d.submit("carol", 8)
    d.now += 5 * HOUR
    d.restart()
    d.do(Outage(NOON, d.now, "the service"))
    d.do(Tick())
    late = d.get("r3")
    assert late.state is State.QUEUED
    assert place_of(d, "r3").start == late.promise
    assert late.promise is not None
    assert late.promise > d.now
    assert d.causes("r3")[1].startswith("outage:")


def test_compressing_when_there_is_nothing_to_do_writes_nothing() -> None:
    d = Driver()
    d.submit("alice", 8)
    before = len(d.folded.history)
    d.do(Compress())
    assert not d.more
    assert len(d.folded.history) == before
    assert next_due(d.world, d.now) == NOON + STARTUP


def test_effects_of_what_was_due_survive_a_refusal() -> None:
    d = Driver()
    d.submit("alice")
    d.ready("r1")
    d.took(StopServer)
    d.now = d.get("r1").ends_at or 0
    with pytest.raises(Refused):
        d.extend("r1", 1)
    assert d.get("r1").state is State.STOPPING
    d.do(Tick())
    assert d.took(StopServer) == [("r1", 1)]


def test_a_start_that_was_given_up_keeps_its_reason() -> None:
    """Its pods are deleted before anybody is told why: their end says nothing."""
    d = Driver()
    d.submit("alice", 2)
    d.see("r1", Presence.PRESENT)
    d.do(StartTrouble("r1", 1, "ErrImageNeverPull: no such image"))
    d.see("r1", Presence.ABSENT)
    assert (d.get("r1").attempt, d.get("r1").detail) == (2, "ErrImageNeverPull: no such image")


def test_every_event_has_a_handler() -> None:
    assert set(HANDLERS) == set(Event.__subclasses__())
