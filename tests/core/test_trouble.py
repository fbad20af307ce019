"""Short trouble with nodes, and with all of them at once: nobody loses a place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coreworld import HOUR, MINUTE, SECOND, Driver, nodes, policy
from gpudev_hub.core.errors import Refused
from gpudev_hub.core.events import NodesObserved, NodeUnknown, OperatorNode, Tick
from gpudev_hub.core.model import NodeStatus, Place, State
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.views.reasons import Outlook
from gpudev_hub.core.words import UNPROVEN, plain

MANY = Allowances(running_gpus=10**6, queued_requests=10**6)


def busy_pool(**fields: object) -> Driver:
    """Two nodes taken for an hour, a pair planned after that, ten requests of 8 GPUs behind it."""
    d = Driver(policy(allowances=MANY, **fields))
    for who in ("a", "b"):
        d.ready(d.submit(who, 8, 1).id)
    d.submit("pair", 8, 1, nodes=2)
    for n in range(10):
        d.submit(f"young-{n}", 8, 4)
    d.settle()
    return d


def places(d: Driver) -> dict[str, Place | None]:
    return {r.id: r.place for r in d.world.queued()}


def promises(d: Driver) -> dict[str, int | None]:
    return {r.id: r.promise for r in d.world.queued()}


def grace_of(d: Driver, node: str) -> int | None:
    return d.world.nodes[node].grace_until


@pytest.mark.parametrize("status", [NodeStatus.DOWN, NodeStatus.UNKNOWN])
@pytest.mark.parametrize("length", [1 * SECOND, 119 * SECOND])
def test_trouble_with_a_node_that_is_shorter_than_the_grace_moves_nothing(
    status: NodeStatus, length: int
) -> None:
    d = busy_pool()
    before, guaranteed = places(d), promises(d)
    d.node("node-1", status)
    d.settle()
    d.go(d.now + length)
    assert places(d) == before
    d.node("node-1", NodeStatus.UP)
    d.settle()
    assert places(d) == before
    assert promises(d) == guaranteed


def unproven(reason: str = UNPROVEN) -> NodesObserved:
    """The policy probe of node-1 is away."""
    seen = replace(nodes(2)[0], status=NodeStatus.DRAINED, reason=reason, unproven=True)
    return NodesObserved((seen, nodes(2)[1]))


def test_a_policy_probe_away_for_a_moment_moves_and_starts_nobody() -> None:
    d = busy_pool()
    before, guaranteed = places(d), promises(d)
    d.do(unproven())
    d.settle()
    assert places(d) == before
    node = d.world.nodes["node-1"]
    assert (node.status, node.reason, node.unproven) == (NodeStatus.DRAINED, UNPROVEN, True)
    assert not d.world.is_up("node-1")
    d.go(d.now + MINUTE)
    d.do(NodesObserved(nodes(2)))
    d.settle()
    assert d.world.is_up("node-1")
    assert (d.world.nodes["node-1"].reason, d.world.nodes["node-1"].unproven) == ("", False)
    assert (places(d), promises(d)) == (before, guaranteed)
    d.do(unproven())
    d.go(d.now + 2 * MINUTE)
    assert d.get("r3").blocked == "node-1 is drained (its policy probe is not ready)"
    d.do(NodesObserved(nodes(2)))
    d.settle()
    assert d.get("r3").place is not None


def test_a_cordon_counts_at_once_whatever_the_probe_says() -> None:
    d = busy_pool()
    d.do(unproven(reason=f"cordoned; {UNPROVEN}"))
    assert d.get("r3").place is None


@pytest.mark.parametrize("restarted", [False, True])
def test_the_grace_ends_once_and_also_across_a_restart_of_the_service(restarted: bool) -> None:
    d = busy_pool()
    d.node("node-1", NodeStatus.DOWN)
    since = d.now
    d.go(since + MINUTE)
    d.do(NodeUnknown("node-1"))
    assert grace_of(d, "node-1") == since + 2 * MINUTE, "counted from the first sight of trouble"
    if restarted:
        d.restart()
    d.settle()
    d.go(since + 2 * MINUTE - 1)
    assert d.get("r3").place is not None
    d.go(since + 2 * MINUTE)
    assert d.get("r3").blocked == "the state of node-1 is unknown"
    assert d.causes("r3")[-1] == "node_changed: the state of node-1 is unknown"
    assert grace_of(d, "node-1") is None
    d.settle()
    written = len(d.folded.history)
    d.node("node-1", NodeStatus.UNKNOWN)
    d.do(Tick())
    assert len(d.folded.history) == written, "it has ended once"


@pytest.mark.parametrize("action", ["drain", "lost", "cordon", "gone"])
def test_only_trouble_has_a_grace(action: str) -> None:
    """What was decided by somebody, and what is not there any more, counts at once, also within a grace."""
    d = busy_pool()
    d.node("node-1", NodeStatus.DOWN)
    if action == "cordon":
        d.node("node-1", NodeStatus.DRAINED)
    elif action == "gone":
        d.do(NodesObserved(nodes(2)[1:]))
    else:
        d.do(OperatorNode("node-1", action, "local:root"))
    assert d.get("r3").place is None


def test_a_node_that_shows_no_gpus_for_a_moment_displaces_nobody() -> None:
    """Its device plugin was restarted."""
    d = busy_pool()
    before = places(d)
    empty = NodesObserved((replace(nodes(2)[0], gpus=0), nodes(2)[1]))
    d.do(empty)
    d.settle()
    assert places(d) == before
    assert not d.world.is_up("node-1")
    d.do(NodesObserved(nodes(2)))
    d.settle()
    assert places(d) == before
    d.do(empty)
    d.go(d.now + 3 * MINUTE)
    d.do(empty)
    assert d.world.nodes["node-1"].gpus == 0
    assert d.get("r3").blocked is not None


def test_a_silent_cluster_moves_no_planned_start() -> None:
    d = busy_pool()
    before, guaranteed = places(d), promises(d)
    for name in ("node-1", "node-2"):
        d.do(NodeUnknown(name))
    d.settle()
    asks = d.submit("new", 8, 1)
    assert (asks.place, plain(asks.blocked or "", d.now)) == (
        None,
        "the state of node-1 is unknown and the state of node-2 is unknown",
    ), "nothing new"
    d.go(d.now + 119 * SECOND)
    d.do(NodesObserved(nodes(2)))
    d.settle()
    assert places(d).pop(asks.id) is not None
    assert {ref: place for ref, place in places(d).items() if ref != asks.id} == before
    assert {ref: at for ref, at in promises(d).items() if ref != asks.id} == guaranteed


def test_graces_that_end_almost_at_once_end_together() -> None:
    """Else those of the first node are placed on the second, which is given up a moment later."""
    d = busy_pool()
    start = len(d.folded.history)
    d.do(NodeUnknown("node-1"))
    d.now += 900
    d.do(NodeUnknown("node-2"))
    d.go(d.now + 2 * MINUTE)
    placed = [
        c.record for _, _, c in d.folded.history[start:] if getattr(c.record, "place", None) is not None
    ]
    assert placed == []
    assert all(r.blocked for r in d.world.queued())


def test_a_start_that_comes_due_within_the_grace_waits_and_says_why() -> None:
    d = Driver(policy(allowances=MANY), nodes(1))
    d.ready(d.submit("a", 8, 1).id)
    d.submit("b", 8, 1)
    due = d.get("r2").place
    assert due is not None
    d.go(due.start - SECOND)
    d.node("node-1", NodeStatus.DOWN)
    d.go(due.start + 20 * SECOND)
    d.see("r1")
    assert d.get("r2").state is State.QUEUED
    world = d.world
    outlook = Outlook(d.policy, world)
    assert plain(outlook.explain(d.get("r2"), d.now) or "", d.now) == "about to start, but node-1 is down"
    d.node("node-1", NodeStatus.UP)
    assert d.get("r2").state is State.STARTING
    assert d.get("r2").hard_end == due.end, "within half of its start-up allowance the end stays"


def test_a_start_due_within_the_grace_takes_a_node_before_younger_ones() -> None:
    """6"""
    d = Driver(policy(allowances=MANY), nodes(2))
    for who, hours in (("a", 1), ("b", 3)):
        d.ready(d.submit(who, 8, hours).id)
    d.submit("old", 8, 1)
    d.submit("young", 8, 1)
    due = d.get("r3").place
    assert due is not None
    assert due.nodes == ("node-1",)
    d.go(due.start - 40 * SECOND)
    d.node("node-1", NodeStatus.DOWN)
    d.go(due.start + SECOND)
    d.see("r1")
    assert d.get("r3").state is State.QUEUED
    d.do(NodesObserved((*(d.world.nodes[n.name] for n in nodes(2)), nodes(3)[2])))
    d.settle()
    assert d.get("r3").state is State.STARTING
    assert [part.node for part in d.get("r3").allocation] == ["node-3"]
    assert d.get("r4").state is State.QUEUED
    assert d.causes("r3")[-2] == "node_changed: node-1 is down"


def test_an_extension_on_a_node_in_short_trouble_has_the_same_rules() -> None:
    d = Driver(policy(allowances=MANY))
    ends = d.ready(d.submit("a", 8, 1).id).ends_at
    assert ends is not None
    d.node("node-1", NodeStatus.UNKNOWN)
    assert d.extend("r1", 1).ends_at == ends + HOUR
    d.go(d.now + 2 * MINUTE)
    with pytest.raises(Refused, match="the state of node-1 is unknown"):
        d.extend("r1", 1)


def test_a_node_taken_and_given_back_a_hundred_times_moves_nothing() -> None:
    d = busy_pool()
    before = places(d)
    for _ in range(100):
        d.node("node-2", NodeStatus.DOWN)
        d.now += SECOND
        d.node("node-2", NodeStatus.UP)
        d.settle()
    assert places(d) == before


def test_without_a_grace_trouble_counts_at_once() -> None:
    d = busy_pool(node_grace=0)
    d.node("node-1", NodeStatus.DOWN)
    assert d.get("r3").blocked == "node-1 is down"


# Trouble that lasts


def test_a_cluster_silent_for_longer_moves_nothing_if_all_comes_back() -> None:
    d = busy_pool()
    before, guaranteed = places(d), promises(d)
    for name in ("node-1", "node-2"):
        d.do(NodeUnknown(name))
    d.settle()
    d.go(d.now + 3 * MINUTE)
    assert all(r.blocked and r.promise is None for r in d.world.queued())
    d.restart()
    d.settle()
    d.do(NodesObserved(nodes(2)))
    d.settle()
    assert places(d) == before
    assert promises(d) == guaranteed


def test_who_was_blocked_gets_the_old_place_not_that_of_the_queue_order() -> None:
    """A release has let the younger one go first; placed again by number, it would wait for hours."""
    d = Driver(policy(allowances=MANY, node_grace=0), nodes(1))
    for hours in (6, 2):
        d.ready(d.submit(f"a{hours}", 4, hours).id)
    d.submit("old", 8, 4)
    d.submit("young", 4, 3)
    d.go(d.now + HOUR)
    d.end("r1")
    d.settle()
    before, guaranteed = places(d), promises(d)
    assert starts_at(before, "r4") < starts_at(before, "r3")
    d.do(NodeUnknown("node-1"))
    assert d.get("r4").blocked is not None
    d.do(NodesObserved(nodes(1)))
    d.settle()
    assert places(d) == before
    assert promises(d) == guaranteed


def test_the_oldest_is_not_put_behind_those_who_used_its_place() -> None:
    """A pair that was planned at 1 h is planned there again, and not behind ten younger requests."""
    d = busy_pool()
    planned, guaranteed = places(d), promises(d)
    d.node("node-1", NodeStatus.DOWN)
    d.go(d.now + 10 * MINUTE)
    assert d.get("r3").blocked == "node-1 is down"
    assert any(place and place.start < starts_at(planned, "r3") + HOUR for place in places(d).values())
    d.node("node-1", NodeStatus.UP)
    d.settle()
    again = places(d)
    assert starts_at(again, "r3") == starts_at(planned, "r3")
    assert promises(d)["r3"] == guaranteed["r3"]
    assert all(starts_at(again, "r3") < starts_at(again, ref) for ref in again if ref != "r3")
    moved = [r.id for r in d.world.queued() if any(c.startswith("yielded: ") for c in d.causes(r.id))]
    assert moved
    assert "r3" not in moved


def test_who_loses_a_place_comes_before_younger_ones_within_guarantees() -> None:
    """Its node is lost; two younger ones are planned on the others, and could as well start later."""
    d = Driver(policy(allowances=MANY, node_grace=0), nodes(3))
    for n in range(3):
        d.ready(d.submit(f"a{n}", 8, 1 + n).id)
    d.submit("old", 8, 1)
    d.submit("young", 8, 1)
    d.submit("younger", 8, 1)
    old, young, younger = (d.get(f"r{n}").place for n in (4, 5, 6))
    assert old is not None
    assert young is not None
    assert younger is not None
    assert (old.nodes, young.nodes, younger.nodes) == (("node-1",), ("node-2",), ("node-1",))
    slack = 3 * HOUR
    for ref in ("r5", "r6"):
        record = d.get(ref)
        d.world.reservations[ref] = replace(record, promise=(record.promise or 0) + slack)
    d.node("node-1", NodeStatus.DOWN)
    d.settle()
    assert starts_at(places(d), "r4") == young.start, "it takes the place of the next"
    assert starts_at(places(d), "r4") < starts_at(places(d), "r5") <= young.start + slack
    assert starts_at(places(d), "r5") <= starts_at(places(d), "r6") <= younger.start + slack
    assert "still guaranteed by" in plain(d.get("r5").detail, d.now)


def test_who_is_guaranteed_that_very_place_keeps_it() -> None:
    d = Driver(policy(allowances=MANY, node_grace=0), nodes(2))
    for n in range(2):
        d.ready(d.submit(f"a{n}", 8, 1 + n).id)
    d.submit("old", 8, 2)
    d.submit("young", 8, 4)
    d.settle()
    for ref in ("r3", "r4"):
        record = d.get(ref)
        assert record.place is not None
        d.world.reservations[ref] = replace(record, promise=record.place.start)
    young = d.get("r4").place
    assert young is not None
    assert young.nodes == ("node-2",)
    d.node("node-1", NodeStatus.DOWN)
    d.settle()
    assert d.get("r4").place == young
    assert starts_at(places(d), "r3") == young.end


def starts_at(places: dict[str, Place | None], ref: str) -> int:
    place = places[ref]
    assert place is not None, f"{ref} has no place"
    return place.start
