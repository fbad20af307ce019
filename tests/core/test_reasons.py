"""Reasons and availability, as people read them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreworld import HOUR, MINUTE, NOON, SECOND, STARTUP, TEARDOWN, Driver, nodes, owner, policy, pool
from gpudev_hub.core.causes import Cause, Reason
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import (
    OperatorNode,
    OwnerKnown,
    ServerObserved,
    StartFailed,
    StartTrouble,
    StopIntent,
)
from gpudev_hub.core.model import Node, NodeStatus, Outcome, Place, Presence, Shape, State
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.sentences import say
from gpudev_hub.core.views.availability import Forecast, SizeOutlook
from gpudev_hub.core.views.reasons import Outlook
from gpudev_hub.core.words import plain

from . import judge


def outlook(d: Driver) -> Outlook:
    s = d.folded.snapshot
    return Outlook(d.policy, s)


def reason(d: Driver, id: str) -> str | None:
    text = outlook(d).explain(d.folded.snapshot.reservations[id], d.now)
    return None if text is None else plain(text, d.now)


def sizes(d: Driver, hold: int, who: str = "zoe") -> list[SizeOutlook]:
    return Forecast(outlook(d)).sizes(owner(who), d.policy.pools[0], hold, d.now)


def busy_until(hours: float) -> float:
    """A hold that ends that many hours after noon, allowances included."""
    return hours - (STARTUP + TEARDOWN) / HOUR


def test_a_pair_waits_for_two_nodes() -> None:
    d = Driver()
    d.submit("alice", 8, busy_until(2 + 1 / 6))
    d.submit("bob", 8, busy_until(3.5))
    d.submit("carol", 8, 1, nodes=2)
    assert (
        reason(d, "r3")
        == "waiting for 2 whole nodes: node-1 is free by 14:10 UTC (alice), node-2 by 15:30 UTC (bob)"
    )
    assert outlook(d).position("r3") == 1
    assert outlook(d).position("r1") is None


def test_times_on_another_day_have_the_day() -> None:
    d = Driver()
    d.submit("alice", 8, busy_until(14))
    d.submit("bob", 8, busy_until(15))
    d.submit("carol", 4)
    assert reason(d, "r3") == "waiting for 4 GPUs: node-1 is free by 24 Nov 02:00 UTC (alice)"


def test_the_own_limit_is_the_reason() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=8)))
    d.submit("alice", 8, busy_until(2), name="train")
    d.submit("alice", 4)
    assert reason(d, "r2") == (
        "waiting for 4 GPUs: alice's limit of 8 GPUs at once is used up until 14:00 UTC, when train ends"
    )


def test_blocked_and_positions_skip_it() -> None:
    d = Driver(policy(node_grace=0))
    d.submit("alice", 8, 1, nodes=2)
    d.submit("bob", 8, 1, nodes=2)
    d.submit("carol", 1, 1)
    d.node("node-2", NodeStatus.DOWN)
    assert reason(d, "r2") == "blocked: node-2 is down"
    assert outlook(d).position("r2") is None
    assert outlook(d).position("r3") == 1
    assert reason(d, "r3") == "waiting for 1 GPU: node-1 is free by 13:01 UTC (alice), node-2 is down"
    d.do(OwnerKnown("local:carol", known=False))
    assert reason(d, "r3") == "blocked: JupyterHub does not know its owner: log in to JupyterHub once"


def test_reasons_of_what_has_slots() -> None:
    d = Driver()
    d.submit("alice", 8, 1, nodes=2)
    assert reason(d, "r1") == "starting on node-1 and node-2"
    d.do(StartTrouble("r1", 1, "rank 1: its image can't be fetched"))
    assert reason(d, "r1") == "starting on node-1 and node-2: rank 1: its image can't be fetched"
    d.ready("r1")
    assert reason(d, "r1") is None
    d.do(ServerObserved("r1", 1, Presence.UNKNOWN))
    assert reason(d, "r1") == "the state of the server is unknown, so it is left alone"
    d.see("r1", Presence.PRESENT)
    d.see("r1", Presence.ABSENT, "killed by signal 9")
    assert reason(d, "r1") == "starting on node-1 and node-2 again: killed by signal 9"
    d.do(OwnerKnown("local:alice", known=False))
    assert reason(d, "r1") == (
        "the server ended, and the GPUs are kept, but JupyterHub does not know its owner: "
        "log in to JupyterHub once"
    )
    d.see("r1", Presence.ABSENT)
    d.do(OwnerKnown("local:alice", known=True))
    d.do(StopIntent("r1"))
    assert reason(d, "r1") == (
        "the server is stopped, and the GPUs are kept until 12:10 UTC: "
        "start the server again, or release the reservation"
    )
    d.end("r1")
    assert reason(d, "r1") == "released"
    stopping = replace(d.get("r1"), stop_outcome=Outcome.EXPIRED)
    assert outlook(d).explain(stopping, d.now) == "the hold time ended"
    d.see("r1")


def test_the_reason_of_an_end_does_not_repeat_the_outcome() -> None:
    d = Driver()
    d.submit("alice", 8)
    d.end("r1")
    d.see("r1")
    ended = d.ended("r1")
    for outcome in Outcome:
        assert outlook(d).explain(replace(ended, detail="", outcome=outcome), d.now) is None
    lost = replace(ended, detail="node-1", outcome=Outcome.NODE_LOST)
    assert outlook(d).explain(lost, d.now) == "node-1"


QUOTED = "2026-11-23 10:15:30 worker 7:30, 24 Nov 09:00 UTC, 2026-11-23T14:10:00Z: no route"


def test_quoted_text_is_never_taken_apart() -> None:
    """A line of a log is shown as it was written, also if it looks like a sentence of ours."""
    d = Driver()
    d.submit("alice", 8)
    forged = QUOTED + " {until}"
    d.do(StartTrouble("r1", 1, forged))
    trouble = say("starting_with_trouble", nodes="node-1", why=forged)
    assert outlook(d).explain(d.get("r1"), d.now) == trouble
    assert reason(d, "r1") == f"starting on node-1: {forged}"
    d.do(StartFailed("r1", 1, forged, "node-1"))
    d.see("r1", Presence.PRESENT)
    d.ready("r1")
    d.see("r1", Presence.ABSENT, forged)
    for _, _, change in d.folded.history:
        for said in judge.sentences_in(change.detail):
            assert not any(isinstance(value, int) for value in said.values.values()), said
    assert reason(d, "r1") == f"starting on node-2 again: {forged}"


def test_a_text_of_an_earlier_version_is_shown_as_it_is() -> None:
    assert (
        plain("planned for 14:10 now: node-1 is drained", NOON) == "planned for 14:10 now: node-1 is drained"
    )


def test_an_instant_is_told_with_its_day_where_that_is_another_one() -> None:
    assert plain(say("until", until=NOON), NOON) == "until 12:00 UTC"
    assert plain(say("until", until=NOON), NOON + 24 * HOUR) == "until 23 Nov 12:00 UTC"


def test_availability_counts_what_could_start_and_when() -> None:
    d = Driver()
    d.submit("alice", 4, busy_until(2))
    d.submit("bob", 8, busy_until(1))
    found = {(s.gpus, s.nodes): s for s in sizes(d, HOUR)}
    assert {size: s.free_now for size, s in found.items()} == {
        (1, 1): 4,
        (2, 1): 2,
        (4, 1): 1,
        (8, 1): 0,
        (8, 2): 0,
    }
    assert found[4, 1].earliest_start == NOON
    assert found[8, 1].earliest_start == NOON + HOUR
    assert found[8, 2].earliest_start == NOON + 2 * HOUR
    pool = Forecast(outlook(d)).pools(d.now)[0]
    assert (pool.nodes_up, pool.gpus_total, pool.gpus_free, pool.queued) == (2, 16, 4, 0)


def test_availability_holds_planned_places_and_own_limits() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=8)))
    d.submit("alice", 8, busy_until(1))
    d.submit("bob", 8, busy_until(2))
    d.submit("carol", 8)
    d.end("r1")
    d.see("r1")
    # node-1 is taken by carol at once; of what is free for a minute nothing lasts an hour.
    found = sizes(d, HOUR)
    assert [s.free_now for s in found] == [0, 0, 0, 0, 0]
    own = sizes(d, HOUR, "bob")
    assert own[0].earliest_start == NOON + 2 * HOUR
    assert found[0].earliest_start == NOON + HOUR + STARTUP + TEARDOWN


def test_availability_tells_the_longest_that_could_start_at_once() -> None:
    d = Driver()
    d.submit("alice", 4, busy_until(2))
    d.submit("bob", 8, busy_until(1))
    d.submit("carol", 8, 1)

    def longest(hold: int) -> dict[tuple[int, int], int | None]:
        return {(s.gpus, s.nodes): s.longest_now for s in sizes(d, hold)}

    # carol has node-2 in an hour, or node-1 in two: what is free on node-1 is free for ever.
    assert set(longest(10 * HOUR).values()) == {None}
    d.submit("dave", 8, 1)
    # dave has node-1 at 14:00. Whole minutes, and what goes before and after a hold is not told.
    assert longest(10 * HOUR) == {
        (1, 1): 118 * MINUTE,
        (2, 1): 118 * MINUTE,
        (4, 1): 118 * MINUTE,
        (8, 1): None,
        (8, 2): None,
    }
    assert set(longest(HOUR).values()) == {None}, "for an hour some are free"
    d.submit("erin", 4, 118 * MINUTE / HOUR)
    assert d.get("r5").state is State.STARTING, "what was told holds"


def test_who_has_reached_his_limit_can_start_nothing_at_once() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=8)))
    d.submit("alice", 8, busy_until(3))
    d.submit("bob", 4, busy_until(2))
    d.submit("carol", 8, 1)

    def longest(who: str) -> int | None:
        return sizes(d, 10 * HOUR, who)[0].longest_now

    assert longest("dave") == 118 * MINUTE, "until carol has all of bob's node"
    assert longest("alice") is None


def test_a_pair_could_stay_as_long_as_two_nodes_are_free() -> None:
    d = Driver(policy(pools=(pool(max_gang=3),), allowances=Allowances(running_gpus=24)), nodes(4))
    d.submit("alice", 8, busy_until(1))
    d.submit("bob", 8, busy_until(3))
    d.submit("carol", 8, 1, nodes=3)
    found = {(s.gpus, s.nodes): s.longest_now for s in sizes(d, 9 * HOUR)}
    # carol has the other three at 13:00, and two of them are free until then.
    assert found == {
        (1, 1): 58 * MINUTE,
        (2, 1): 58 * MINUTE,
        (4, 1): 58 * MINUTE,
        (8, 1): 58 * MINUTE,
        (8, 2): 58 * MINUTE,
        (8, 3): None,
    }


def test_a_size_that_no_node_can_hold_has_no_start() -> None:
    d = Driver()
    d.node("node-1", NodeStatus.DOWN)
    found = sizes(d, HOUR + 5 * MINUTE + SECOND)
    assert [(s.free_now, s.earliest_start) for s in found[-2:]] == [(1, NOON), (0, None)]


def said(d: Driver, hold: int, who: str, gpus: int, nodes: int = 1) -> tuple[int, bool, str]:
    """(free now, starts now, why not) of one size."""
    size = next(s for s in sizes(d, hold, who) if (s.gpus, s.nodes) == (gpus, nodes))
    assert size.starts_now is (size.reason is None)
    return size.free_now, size.starts_now, plain(size.reason or "", d.now)


def test_at_the_own_limit_nothing_is_said_to_start_at_once() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=4)), nodes(1))
    d.submit("alice", 4, busy_until(2 + 1 / 6), name="train")
    limit = "alice's limit of 4 GPUs at once is used up until 14:10 UTC, when train ends"
    assert said(d, HOUR, "alice", 1) == (4, False, f"waiting for 1 GPU: {limit}")
    assert said(d, HOUR, "bob", 1) == (4, True, "")
    d.submit("alice", 1)
    assert reason(d, "r2") == f"waiting for 1 GPU: {limit}"


def test_more_gpus_than_the_limit_are_refused_with_the_limit() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=4)))
    free, starts, why = said(d, HOUR, "alice", 8)
    assert (free, starts) == (2, False)
    assert why == "You asked for 8 GPUs; your limit is 4 GPUs at once."
    with pytest.raises(Refused, match=why):
        d.submit("alice", 8)
    size = sizes(d, HOUR, "alice")[3]
    assert (size.earliest_start, size.longest, size.longest_now) == (None, 0, None)


def test_a_pair_with_one_node_drained_waits_for_that_node() -> None:
    d = Driver()
    d.do(OperatorNode("node-2", "drain", "local:root"))
    assert said(d, HOUR, "alice", 8, 2) == (0, False, "blocked: node-2 is drained")
    d.submit("alice", 8, nodes=2)
    assert reason(d, "r1") == "blocked: node-2 is drained"


def test_gpu_hours_are_told_before_they_refuse() -> None:
    d = Driver(policy(allowances=Allowances(gpu_hours=20)))
    d.submit("alice", 4, 3)
    found = sizes(d, 2 * HOUR, "alice")
    assert [s.longest // HOUR for s in found] == [8, 4, 2, 1, 0]
    assert [s.starts_now for s in found] == [True, True, True, False, False]
    assert plain(found[3].reason or "", d.now) == (
        "You asked for 16 GPU-hours, and your other reservations have 12: 28 in total; your limit is 20."
    )
    assert found[3].refused is not None
    assert found[3].refused.hint == "Ask for 8 GPUs for at most 1 h, or release a reservation."
    assert found[3].longest_now == HOUR
    assert d.submit("alice", 8, 1).state is State.STARTING, "what was told holds"


def test_hours_that_nobody_may_ask_for_are_refused_for_every_size() -> None:
    d = Driver()
    for size in sizes(d, 99 * HOUR):
        assert size.refused is not None
        assert size.reason == "You asked for 99 h; your limit for one request is 24 h."
        assert size.longest == 24 * HOUR
        assert size.longest_now == (24 * HOUR if size.free_now else None)
    assert {s.refused.code for s in sizes(d, 1) if s.refused} == {Code.INVALID_HOURS}


def test_the_queue_of_one_person_is_full() -> None:
    d = Driver(policy(allowances=Allowances(queued_requests=1)), nodes(1))
    d.submit("alice", 8)
    d.submit("alice", 8)
    assert {s.reason for s in sizes(d, HOUR, "alice")} >= {
        "You have 1 request in the queue; your limit is 1."
    }


def test_what_is_due_is_done_before_anything_is_said() -> None:
    """The committed records may be older than the last end; what starts meanwhile is in the way."""
    d = Driver(nodes_=nodes(1))
    d.submit("alice", 8, 1)
    d.ready("r1")
    d.submit("bob", 8, 1)
    forecast = Forecast(outlook(d))
    bob = d.get("r2").place
    assert bob is not None
    later = forecast.sizes(owner("zoe"), d.policy.pools[0], HOUR, bob.start - 1)
    assert [s.earliest_start for s in later[:4]] == [bob.end] * 4
    late = forecast.sizes(owner("zoe"), d.policy.pools[0], HOUR, bob.start + 1)
    assert not any(s.starts_now or s.free_now for s in late), "alice's server is not gone"
    assert d.get("r1").state is State.READY, "nothing of it is done here"


def test_gpus_of_a_server_that_should_be_gone_are_not_said_to_be_free() -> None:
    d = Driver(nodes_=nodes(1))
    d.submit("alice", 8, 1)
    d.ready("r1")
    d.go((d.get("r1").hard_end or 0) + 5 * SECOND)
    why = "about to start: waiting for alice's r1 to stop"
    assert said(d, HOUR, "zoe", 4) == (0, False, why)
    assert d.submit("zoe", 4, 1).state is State.QUEUED
    assert reason(d, "r2") == why


def test_an_own_request_that_waits_limits_what_starts_now() -> None:
    """Until it starts there is room within the limit."""
    d = Driver(policy(allowances=Allowances(running_gpus=8)))
    d.submit("bob", 8, busy_until(2))
    d.submit("carol", 4, busy_until(3))
    d.submit("alice", 8, 1)
    d.settle()
    (size,) = (s for s in sizes(d, 4 * HOUR, "alice") if s.gpus == 4)
    assert (size.free_now, size.starts_now) == (1, False)
    assert "alice's limit of 8 GPUs at once is used up until" in plain(size.reason or "", d.now)
    assert size.longest_now == 118 * MINUTE
    assert d.submit("alice", 4, 118 * MINUTE / HOUR).state is State.STARTING


def test_a_ready_server_says_of_a_crash_that_it_is_over() -> None:
    d = Driver()
    d.submit("alice", 1)
    d.ready("r1")
    assert reason(d, "r1") is None
    d.see("r1", Presence.ABSENT, "killed by signal 9")
    assert reason(d, "r1") == "starting on node-1 again: killed by signal 9"
    d.ready("r1")
    assert reason(d, "r1") == "the server was restarted: killed by signal 9"
    d.do(ServerObserved("r1", 2, Presence.ABSENT, "the hub on this machine was shut down", outage=True))
    assert reason(d, "r1") == "starting on node-1 again: the hub on this machine was shut down"
    d.ready("r1")
    assert reason(d, "r1") is None


def test_a_start_that_waited_for_a_server_is_no_outage() -> None:
    d = Driver(nodes_=nodes(1))
    d.submit("alice", 8, 1)
    d.ready("r1")
    start = (d.submit("bob", 8, 1).place or Place(0, 0, ())).start
    d.submit("carol", 8, 1)
    d.go(start + 5 * SECOND)
    assert reason(d, "r2") == "about to start: waiting for alice's r1 to stop"
    d.go(start + 50 * SECOND)
    d.see("r1")
    assert d.get("r2").state is State.STARTING
    assert not [cause for cause in d.causes("r2") if cause.startswith("outage")]
    assert [plain(cause, d.now) for cause in d.causes("r2")][-1] == (
        "stop_overran: the start of r2 was late by 50 s: the server of r1 should have stopped by 13:00 UTC"
    )


def test_a_start_that_was_missed_says_for_which_server() -> None:
    """One that would lose more than half of its hold is placed again."""
    d = Driver(policy(pools=(pool(stop_overrun=10 * MINUTE),)), nodes(1))
    d.submit("alice", 8, 1)
    d.ready("r1")
    start = (d.submit("bob", 8, 2 * MINUTE / HOUR).place or Place(0, 0, ())).start
    d.go(start + 5 * MINUTE)
    d.see("r1")
    assert d.get("r2").state is State.STARTING
    assert [plain(cause, d.now) for cause in d.causes("r2")][1:] == [
        (
            "stop_overran: the start of r2 was missed by 5 min: "
            "the server of r1 should have stopped by 13:00 UTC"
        ),
        "admitted",
    ]


def test_those_moved_for_a_late_start_are_told_whose() -> None:
    d = Driver(nodes_=nodes(1))
    d.submit("alice", 8, 1)
    d.ready("r1")
    start = (d.submit("bob", 8, 1).place or Place(0, 0, ())).start
    d.submit("carol", 8, 1)
    # Ready sooner than allowed for: what comes after has slack.
    d.world.put(
        replace(d.get("r3"), promise=(d.get("r3").promise or 0) + HOUR), Reason(Cause.OUTAGE, "slack")
    )
    d.go(start + 50 * SECOND)
    d.see("r1")
    late = "stop_overran: the start of r2 was late by 50 s: the server of r1 should have stopped by 13:00 UTC"
    for moved in ("r2", "r3"):
        assert plain(d.causes(moved)[-1], d.now) == late


ZONES = ("zone-a", "zone-b")
NODE = st.tuples(
    st.sampled_from(ZONES),
    st.sampled_from([8, 8, 8, 7]),
    st.sampled_from([NodeStatus.UP, NodeStatus.UP, NodeStatus.DOWN, NodeStatus.DRAINED, NodeStatus.UNKNOWN]),
    st.sampled_from([None, None, 1, 5]),
)


@given(
    st.lists(NODE, max_size=5),
    st.sampled_from([Shape(1), Shape(8), Shape(8, 2), Shape(8, 3)]),
    st.integers(1, 6),
    st.lists(
        st.tuples(st.sampled_from(["alice", "bob"]), st.sampled_from([1, 8]), st.integers(1, 5)), max_size=3
    ),
)
def test_why_a_request_is_blocked_is_true(
    there: list[tuple[str, int, NodeStatus, int | None]],
    shape: Shape,
    hours: int,
    others: list[tuple[str, int, int]],
) -> None:
    found = tuple(
        Node(f"node-{i + 1}", "h100", gpus, zone, status, None if until is None else NOON + until * HOUR)
        for i, (zone, gpus, status, until) in enumerate(there)
    )
    d = Driver(policy(pools=(pool(max_gang=3),), allowances=Allowances(running_gpus=64)), found)
    for who, gpus, hold in others:
        d.submit(who, gpus, hold)
    d.submit("carol", shape.gpus, hours, nodes=shape.nodes)
    judge.reasons_are_true(d.world, d.now)


def test_a_gang_for_which_no_zone_has_enough_nodes_is_told_so() -> None:
    apart = (Node("node-1", "h100", 8, "zone-a"), Node("node-2", "h100", 8, "zone-b"))
    d = Driver(nodes_=apart)
    d.submit("alice", 8, nodes=2)
    assert reason(d, "r1") == "blocked: 2 nodes with 8 GPUs that can be used together are needed; h100 has 1"
    d = Driver(nodes_=(*nodes(2), Node("node-3", "h100", 8, "zone-b", NodeStatus.DOWN)))
    d.node("node-2", NodeStatus.DRAINED)
    d.submit("alice", 8, nodes=2)
    assert reason(d, "r1") == "blocked: node-2 is drained", "node-3 would not help"
    d.submit("alice", 8, 1)
    d.submit("bob", 8, 1)
    assert reason(d, "r3") == (
        "waiting for 8 GPUs: node-1 is free by 13:01 UTC (alice), node-2 is drained, node-3 is down"
    )
    d = Driver(nodes_=nodes(2, gpus=7))
    d.submit("alice", 8)
    assert reason(d, "r1") == "blocked: h100 has no node with 8 GPUs"


def test_a_node_left_out_after_a_failed_start_is_named() -> None:
    d = Driver()
    d.submit("alice", 4, 1)
    d.submit("bob", 8, 1)
    d.ready("r2")
    for _ in range(2):
        d.do(StartFailed("r1", d.attempt("r1"), "no answer", "node-1"))
        d.go(d.get("r1").start_deadline or d.now)
        d.see("r1")
    assert d.get("r1").state is State.QUEUED
    assert reason(d, "r1") == (
        "waiting for 4 GPUs: node-2 is free by 13:00 UTC (bob), node-1 is excluded after a failed start"
    )


def test_a_limit_that_ends_before_the_start_is_not_the_whole_reason() -> None:
    """Then the owner's own request, planned before this one, has the GPUs."""
    d = Driver(policy(allowances=Allowances(running_gpus=8, queued_requests=9)))
    d.ready(d.submit("cleo", 8, 1.5).id)
    d.ready(d.submit("ann", 2, 3).id)
    d.submit("bob", 8, 0.25)
    d.submit("cleo", 4, 0.25)
    last = d.submit("cleo", 4, 0.25)
    assert reason(d, last.id) == (
        "waiting for 4 GPUs: node-2 is free by 13:47 UTC (cleo), "
        "cleo's limit of 8 GPUs at once is used up until 13:30 UTC, when r1 ends"
    )
