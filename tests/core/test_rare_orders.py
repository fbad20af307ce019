"""Orders of events that are rare, each of which once broke an invariant; found by random histories."""

from __future__ import annotations

import pytest

from coreworld import HOUR, MINUTE, NOON, SECOND, Driver, nodes, policy, pool
from gpudev_hub.core.events import Compress, NodesObserved, OperatorNode, Tick
from gpudev_hub.core.model import Node, NodeStatus, Outcome, State
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.words import plain


def test_who_starts_late_is_not_displaced_by_what_was_there_before() -> None:
    """4: a place is in the way of a new claim from now on only; what overlaps in the past is over."""
    d = Driver(policy(allowances=Allowances(queued_requests=50)), nodes(1))
    one, two = d.submit("e", 2, 8), d.submit("f", 1, 8)
    late = d.submit("c", 2, 1)
    d.now += 30 * SECOND
    other = d.submit("d", 1, 1)
    for record in (one, two):
        d.ready(record.id)
    waits, follows = d.submit("w", 4, 1), d.submit("q", 1, 2)
    d.settle()
    d.now = NOON + 59 * SECOND
    d.ready(late.id)
    d.now = NOON + 89 * SECOND
    d.ready(other.id)
    d.settle()
    first, second = d.get(waits.id).place, d.get(follows.id).place
    assert first is not None
    assert second is not None
    d.go(first.start)
    before = d.get(waits.id)
    assert before.state is State.QUEUED, f"{late.id} is still there"
    d.go(second.start)
    assert d.get(waits.id).promise == before.promise
    d.see(late.id)
    d.see(other.id)
    d.settle()
    assert d.get(waits.id).state is State.STARTING


def test_who_was_blocked_by_a_nodes_end_gets_the_time_given_back() -> None:
    """6"""
    d = Driver(nodes_=(Node("node-1", "h100", 8, "z", until=NOON + 5 * HOUR),))
    holds = d.submit("ann", 8, 4)
    d.ready(holds.id)
    waits = d.submit("bob", 8, 2)
    assert plain(waits.blocked or "", d.now) == (
        "node-1 is available only until 17:00 UTC, and less than 2 h 1 min is free before then"
    )
    d.now += MINUTE
    d.end(holds.id)
    d.see(holds.id)
    d.settle()
    assert d.get(waits.id).state is State.STARTING


def test_a_pool_that_the_settings_no_longer_have_stops_nobody() -> None:
    d = Driver(policy(pools=(pool("h100"),)), nodes(1))
    d.policy = policy(pools=(pool("h200"),))
    d.restart()
    d.do(NodesObserved(nodes(1, pool_name="h200")))
    d.settle()
    assert d.world.is_up("node-1")
    assert d.submit("ann", 8).state is State.STARTING


def test_who_waited_for_a_node_that_is_in_another_pool_now_is_told_so() -> None:
    d = Driver(policy(pools=(pool("h100"), pool("b200"))), nodes(1))
    d.node("node-1", NodeStatus.DOWN)
    waits = d.submit("ann", 8)
    assert "node-1 is down" in plain(waits.blocked or "", d.now)
    d.do(NodesObserved(nodes(1, pool_name="b200")))
    d.settle()
    assert "node-1" not in plain(d.get(waits.id).blocked or "", d.now)


def test_a_node_back_in_another_pool_is_not_planned_while_servers_may_run() -> None:
    """1"""
    d = Driver(policy(pools=(pool("h100"), pool("b200"))), nodes(1))
    runs = d.submit("ann", 8)
    d.ready(runs.id)
    d.do(NodesObserved(()))
    assert d.ended(runs.id).outcome is Outcome.NODE_LOST
    back = NodesObserved(nodes(1, pool_name="b200"))
    d.do(back)
    kept = d.world.nodes["node-1"]
    assert (kept.pool, kept.status) == ("h100", NodeStatus.DRAINED)
    d.see(runs.id)
    d.do(back)
    assert d.world.nodes["node-1"].pool == "b200"
    assert d.world.is_up("node-1")


@pytest.mark.parametrize("by_operator", [True, False])
def test_a_node_lost_while_its_server_stops_ends_the_reservation(by_operator: bool) -> None:
    d = Driver()
    record = d.submit("ann", 8, nodes=2, name="pair")
    d.ready(record.id)
    d.end(record.id)
    assert d.get(record.id).state is State.STOPPING
    d.do(OperatorNode("node-1", "lost", "local:root") if by_operator else NodesObserved(()))
    assert d.ended(record.id).outcome is Outcome.RELEASED
    assert (record.id, 1) in d.world.claims, "its slots are free when it is seen gone"
    assert d.submit("ann", 1, name="pair").request.name == "pair"


def test_a_start_is_not_forgotten_while_many_are_placed_again() -> None:
    """6: due at the very moment at which it gets the same place again."""
    d = Driver(policy(allowances=Allowances(queued_requests=1_000), node_grace=0), nodes(1))
    holding = [d.submit("a", 4, 8), d.submit("a2", 2, 8), d.submit("a3", 1, 8)]
    leaves = d.submit("b", 1, 1)
    for record in (*holding, leaves):
        d.ready(record.id)
    for n in range(140):
        d.submit(f"u{n}", 8, 1)
    waits = d.submit("z", 1, 1)
    d.settle()
    place = d.get(waits.id).place
    assert place is not None
    d.go(place.start - 5)
    d.node("node-1", NodeStatus.DOWN)
    d.node("node-1", NodeStatus.UP)
    d.now = place.start
    d.see(leaves.id)
    d.do(Tick())
    d.settle()
    assert d.get(waits.id).state is State.STARTING


def test_a_request_too_long_for_a_node_that_ends_is_not_placed_forever() -> None:
    """It had stayed blocked after each slice of the cascade, and each look at it asked for another slice."""
    d = Driver(nodes_=(Node("node-1", "h100", 8, "z", until=NOON + 5 * HOUR),))
    runs = d.ready(d.submit("alice", 8, 1).id)
    waits = d.submit("bob", 8, 6)
    d.end(runs.id)
    d.see(runs.id)
    for _ in range(10):
        if d.more:
            d.do(Compress())
    assert not d.more
    assert d.get(waits.id).blocked is not None
