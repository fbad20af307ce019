"""Nodes that end: capacity blocks that are extended, cut short or not known, and what people there notice."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from coreworld import HOUR, MINUTE, NOON, TEARDOWN, Driver, nodes, policy
from gpudev_hub.core.decisions.node_ends import CLEARED_BEFORE, with_block
from gpudev_hub.core.effects import Tell, Warn
from gpudev_hub.core.events import NodesObserved, NodeUnknown
from gpudev_hub.core.model import CapacityBlock, Millis, Node, NodeStatus, Outcome, Place
from gpudev_hub.core.views.reasons import Outlook
from gpudev_hub.core.words import plain

from .test_decision_histories import PEOPLE, SHAPES, Histories

LENGTH = 1 * HOUR + 90_000
"""Of a place for a hold of one hour."""


def of_block(ends_at: Millis | None, trouble: str = "", name: str = "node-1", **fields: object) -> Node:
    seen = next(node for node in nodes() if node.name == name)
    return replace(seen, block=CapacityBlock("cr-1", ends_at, trouble), **fields)  # type: ignore[arg-type]


def one_block(ends_at: Millis | None) -> Driver:
    """One node, of a capacity block."""
    return Driver(policy(), (of_block(ends_at),))


def see(d: Driver, *seen: Node) -> None:
    d.do(NodesObserved(seen))
    d.settle()


def told(d: Driver, id: str) -> list[str]:
    return [plain(e.message, d.now) for e in d.effects if isinstance(e, Tell) and e.id == id]


def why(d: Driver, id: str) -> str:
    return plain(Outlook(d.policy, d.world).explain(d.get(id), d.now) or "", d.now)


@pytest.mark.parametrize(
    ("written", "until"),
    [
        (None, NOON + 9 * HOUR - CLEARED_BEFORE),
        (NOON + 5 * HOUR, NOON + 5 * HOUR),
        (NOON + 9 * HOUR, NOON + 9 * HOUR - CLEARED_BEFORE),
    ],
)
def test_the_earlier_end_counts(written: Millis | None, until: Millis) -> None:
    assert with_block(of_block(NOON + 9 * HOUR, until=written), None).until == until


def test_nothing_is_planned_past_forty_minutes_before_the_end_of_a_block() -> None:
    d = one_block(NOON + LENGTH + CLEARED_BEFORE)
    assert d.submit("alice").admitted_at == NOON
    late = d.submit("bob", hours=1 + 1 / 3600)
    assert late.place is None
    assert why(d, late.id) == (
        "blocked: node-1 is available only until 13:01 UTC, and less than 1 h 1 min is free before then"
    )


def test_an_extended_block_lets_those_start_who_were_too_long_for_it() -> None:
    d = one_block(NOON + 3 * HOUR)
    waits = d.submit("alice", 8, hours=4)
    assert waits.blocked is not None
    see(d, of_block(NOON + 27 * HOUR))
    assert d.get(waits.id).admitted_at == NOON


def test_an_extended_block_moves_places_earlier_and_keeps_promises() -> None:
    """A pair waits for both nodes of the block; the second ends too early for it."""
    d = Driver(policy(), (of_block(NOON + 3 * HOUR), nodes()[1]))
    d.ready(d.submit("alice", 8, hours=2).id)
    assert [part.node for part in d.get("r1").allocation] == ["node-1"]
    d.ready(d.submit("bob", 8, hours=10).id)
    third = d.submit("carol", 8, hours=4)
    assert third.place is not None
    assert third.place.nodes == ("node-2",)
    see(d, of_block(NOON + 27 * HOUR), d.world.nodes["node-2"])
    moved = d.get(third.id)
    assert moved.place is not None
    assert moved.place.nodes == ("node-1",)
    assert moved.place.start == d.get("r1").hard_end
    assert moved.promise == third.promise, "the slack is kept for extensions"


def test_a_block_that_ends_earlier_moves_plans_and_says_why() -> None:
    d = Driver(policy(), (of_block(NOON + 27 * HOUR), nodes()[1]))
    d.ready(d.submit("alice", 8, hours=2).id)
    d.ready(d.submit("bob", 8, hours=10).id)
    waits = d.submit("carol", 8, hours=4)
    start = NOON + 2 * HOUR + TEARDOWN
    assert waits.place == Place(start, start + 4 * HOUR + 90_000, ("node-1",))
    see(d, of_block(NOON + 4 * HOUR), d.world.nodes["node-2"])
    moved = d.get(waits.id)
    assert moved.place is not None
    assert moved.place.nodes == ("node-2",)
    assert moved.promise == moved.place.start
    assert plain(d.causes(waits.id)[-1], NOON) == "node_changed: node-1 is available only until 15:20 UTC"


def test_a_block_that_ends_before_a_server_ends_it_with_warnings() -> None:
    d = one_block(NOON + 27 * HOUR)
    runs = d.ready(d.submit("alice", hours=8).id)
    see(d, of_block(NOON + 4 * HOUR))
    until, ends = NOON + 4 * HOUR - CLEARED_BEFORE, "node-1 is available only until 15:20 UTC"
    assert d.get(runs.id).hard_end == d.world.claim_of(d.get(runs.id)).hard_end == until
    assert told(d, runs.id) == [
        f"{ends}: your server ends at 15:19 UTC, not at 20:00 UTC. Save your work before then"
    ]
    d.go(until - TEARDOWN)
    assert [e.minutes for e in d.effects if isinstance(e, Warn)] == [30, 15, 5]
    d.see(runs.id)
    ended = d.ended(runs.id)
    assert ended.outcome is Outcome.EXPIRED
    assert plain(ended.detail, d.now) == ends


@pytest.mark.parametrize("ready", [False, True])
def test_an_end_that_is_past_still_leaves_time_for_the_longest_warning(ready: bool) -> None:
    d = one_block(NOON + 27 * HOUR)
    runs = d.submit("alice", hours=8)
    if ready:
        d.ready(runs.id)
    see(d, of_block(NOON + CLEARED_BEFORE))
    assert d.get(runs.id).ends_at == NOON + 31 * MINUTE
    see(d, of_block(NOON + CLEARED_BEFORE))
    d.go(NOON + 20 * MINUTE)
    see(d, of_block(NOON + CLEARED_BEFORE))
    if ready:
        assert d.get(runs.id).ends_at == NOON + 31 * MINUTE, "it is not put off with every look"


def test_a_pair_ends_with_the_first_of_its_nodes() -> None:
    other = of_block(NOON + 27 * HOUR, name="node-2")
    d = Driver(policy(), (of_block(NOON + 27 * HOUR), other))
    pair = d.ready(d.submit("alice", 8, 8, nodes=2).id)
    see(d, of_block(NOON + 27 * HOUR), replace(other, until=NOON + 3 * HOUR))
    assert d.get(pair.id).hard_end == NOON + 3 * HOUR


def test_a_server_that_ends_before_its_node_is_left_alone() -> None:
    d = one_block(NOON + 27 * HOUR)
    runs = d.ready(d.submit("alice", hours=2).id)
    see(d, of_block(NOON + 10 * HOUR))
    assert d.get(runs.id) == runs
    d.go(NOON + 2 * HOUR)
    d.see(runs.id)
    assert d.ended(runs.id).detail == ""


@pytest.mark.parametrize("trouble", ["", "EC2 did not answer"])
def test_without_a_known_end_nothing_starts_and_the_reason_is_said(trouble: str) -> None:
    d = one_block(None)
    see(d, of_block(None, trouble))
    node = d.world.nodes["node-1"]
    assert node.status is NodeStatus.DRAINED
    asked = d.submit("alice")
    reason = f"the end of capacity block cr-1 is unknown: {trouble or 'EC2 has not answered yet'}"
    assert why(d, asked.id) == f"blocked: node-1 is drained ({reason})"
    see(d, of_block(NOON + 27 * HOUR))
    assert d.get(asked.id).admitted_at == NOON
    assert d.world.nodes["node-1"].reason == ""


def test_an_unknown_end_is_told_beside_other_reasons() -> None:
    found = with_block(of_block(None, "EC2 did not answer", reason="cordoned"), None)
    assert found.reason == "cordoned; the end of capacity block cr-1 is unknown: EC2 did not answer"
    down = with_block(of_block(None, status=NodeStatus.DOWN), None)
    assert down.status is NodeStatus.DOWN


@pytest.mark.parametrize("restarted", [False, True])
def test_the_last_known_end_stays_while_ec2_does_not_answer(restarted: bool) -> None:
    d = one_block(NOON + 4 * HOUR)
    waits = d.submit("alice", 8, hours=1)
    if restarted:
        d.restart()
        d.settle()
    see(d, of_block(None, "EC2 did not answer"))
    node = d.world.nodes["node-1"]
    assert (node.status, node.until) == (NodeStatus.UP, NOON + 4 * HOUR - CLEARED_BEFORE)
    assert node.block == CapacityBlock("cr-1", NOON + 4 * HOUR, "EC2 did not answer")
    assert d.get(waits.id).admitted_at == NOON
    assert d.submit("bob", 8, hours=4).blocked is not None, "nothing past the end"


def test_a_node_that_joins_while_ec2_is_silent_has_its_blocks_end() -> None:
    d = one_block(NOON + 4 * HOUR)
    joins = of_block(None, "EC2 did not answer", name="node-2")
    see(d, of_block(None, "EC2 did not answer"), joins)
    assert d.world.nodes["node-2"].until == NOON + 4 * HOUR - CLEARED_BEFORE
    another = replace(joins, block=CapacityBlock("cr-2"))
    see(d, of_block(None), another)
    assert d.world.nodes["node-2"].status is NodeStatus.DRAINED, "the end of another block is not known"


def test_of_two_known_ends_the_earlier_one_is_kept() -> None:
    """A crash between the records of two nodes of a block, and then EC2 does not answer."""
    d = Driver(policy(), (of_block(NOON + 27 * HOUR), of_block(NOON + 4 * HOUR, name="node-2")))
    see(d, of_block(None), of_block(None, name="node-2"))
    until = NOON + 4 * HOUR - CLEARED_BEFORE
    assert [node.until for node in d.world.nodes.values()] == [until, until]


def test_looking_twice_writes_nothing() -> None:
    d = one_block(NOON + 4 * HOUR)
    d.ready(d.submit("alice", hours=1).id)
    see(d, of_block(None, "EC2 did not answer"))
    written = len(d.folded.history)
    see(d, of_block(None, "EC2 did not answer"))
    assert len(d.folded.history) == written


def test_a_node_that_leaves_its_block_has_no_end() -> None:
    d = one_block(NOON + 4 * HOUR)
    see(d, nodes()[0])
    assert d.world.nodes["node-1"].until is None


def test_trouble_with_the_node_keeps_its_end() -> None:
    d = one_block(NOON + 4 * HOUR)
    d.do(NodeUnknown("node-1"))
    assert d.world.nodes["node-1"].until == NOON + 4 * HOUR - CLEARED_BEFORE


def test_an_unhealthy_node_keeps_what_runs_and_gets_nothing_new() -> None:
    d = Driver(policy(), nodes(1))
    runs = d.ready(d.submit("alice", 4).id)
    reason = "AcceleratedHardwareReady is False: NvidiaXID79Error"
    ill = replace(
        nodes(1)[0], status=NodeStatus.DRAINED, reason=reason, unhealthy=("AcceleratedHardwareReady",)
    )
    see(d, ill)
    assert d.get(runs.id) == runs
    waits = d.submit("bob", 4)
    assert why(d, waits.id) == f"blocked: node-1 is drained ({reason})"
    see(d, nodes(1)[0])
    assert d.get(waits.id).admitted_at == NOON


def test_who_was_planned_on_a_node_that_falls_ill_is_told_the_cause() -> None:
    d = Driver(policy(), nodes(2))
    for who in ("alice", "bob"):
        d.ready(d.submit(who, 8, 1).id)
    waits = d.submit("carol", 8, 1)
    assert waits.place is not None
    name = waits.place.nodes[0]
    seen = [
        replace(n, status=NodeStatus.DRAINED, reason="KernelReady is False: ForkFailedOutOfPIDs")
        if n.name == name
        else n
        for n in nodes(2)
    ]
    see(d, *seen)
    assert (
        d.causes(waits.id)[-1]
        == f"node_drained: {name} is drained (KernelReady is False: ForkFailedOutOfPIDs)"
    )


class Ending(Histories):
    """Histories in which the ends of nodes move, too; every decision is judged."""

    def node_end_moves(self, name: str, hours: float | None) -> None:
        until = None if hours is None else self.d.now + round(hours * HOUR)
        seen = [replace(n, until=until) if n.name == name else n for n in self.seen()]
        self.d.do(NodesObserved(tuple(seen)))
        self.d.settle()

    def live(self, random: Random, steps: int) -> None:
        for _ in range(steps):
            who, shape, name = (
                random.choice(PEOPLE),
                random.choice(SHAPES),
                random.choice(("node-1", "node-2")),
            )
            which = random.randrange(10**6)
            random.choice(
                (
                    lambda w=who, s=shape: self.submit_one(w, s, random.randint(1, 16), 9),
                    self.answer,
                    lambda: self.pass_time(random.randint(0, 240), True),
                    lambda w=which: self.end(w),
                    lambda w=which: self.crash(w),
                    lambda n=name: self.node_end_moves(n, random.choice((None, -1, 0.5, 2, 6))),
                )
            )()
            self.folded_history_is_the_state()


@pytest.mark.parametrize("seed", range(8))
def test_no_server_outlasts_its_node_however_its_end_moves(seed: int) -> None:
    Ending().live(Random(seed), 40)
