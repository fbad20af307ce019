"""The invariants of DESIGN section 6, judged from records and history alone; messages name the number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from gpudev_hub.core.access_model import Access
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change
from gpudev_hub.core.decisions.timers import armed, claim_due
from gpudev_hub.core.decisions.working_state import OWNER_UNKNOWN, WorkingState
from gpudev_hub.core.lifecycle import MOVES
from gpudev_hub.core.limits.periods import Period
from gpudev_hub.core.model import HOUR, MINUTE, Claim, Millis, Node, NodeStatus, Reservation, State
from gpudev_hub.core.planning.plan import Demand, PlanNode
from gpudev_hub.core.sentences import Sentence, Text
from gpudev_hub.core.views.reasons import Outlook
from gpudev_hub.core.words import node_state, plain
from plans import free_on, placed_in

from . import oracle

#: What may break a promise (invariant 4), and what may move a place within it.
BREAKING = {
    "node_changed",
    "node_lost",
    "node_drained",
    "stop_overran",
    "start_failed",
    "owner_unknown",
    "owner_known",
    "outage",
    "operator",
}
BY_NODES = {"node_changed", "node_lost", "node_drained", "yielded"}
MOVING = {*BREAKING, "moved_for_extension", "yielded"}
HOLDING = (State.STARTING, State.READY, State.STOPPING)


def changes_are_lawful(before: Mapping[str, Reservation], changes: list[Change], now: Millis) -> None:
    """Every step from one record to the next is one that may be, and says why."""
    known = dict(before)
    for change in changes:
        new = change.record
        if not isinstance(new, Reservation):
            continue
        old = known.get(new.id)
        known[new.id] = new
        if change.gone:
            assert new.state is State.ENDED, f"invariant 5: {new.id} leaves without having ended"
            assert new.outcome is not None, f"invariant 5: {new.id} ended without saying why"
            assert new.ended_at == now
        if old is None:
            assert new.version == 1
            assert new.promise == (new.place.start if new.place else None), "invariant 4: the first promise"
            continue
        assert new.version == old.version + 1, "every change has a version"
        assert new.seq == old.seq, "the place in the order of requests is for ever"
        if new.state is not old.state:
            assert new.state in MOVES[old.state], f"{old.state} -> {new.state}"
        promise_is_kept(old, new, change.cause)
        warnings_are_right(old, new, now)


def promise_is_kept(old: Reservation, new: Reservation, cause: Cause) -> None:
    if old.promise != new.promise:
        first = old.promise is None and cause == "planned"
        assert first or cause in BREAKING, f"invariant 4: promise of {new.id} changed by {cause}"
        assert old.promise is None or new.promise is None or new.promise > old.promise, (
            "invariant 4: tightened"
        )
    if new.place is not None and old.place is not None and new.place.start > old.place.start:
        assert cause in MOVING, f"invariant 4: {new.id} later by {cause}"
    if new.place is not None:
        assert new.promise is not None, f"invariant 4: {new.id} has a place and no promise"
        assert new.place.start <= new.promise, f"invariant 4: {new.id} is planned past its promise"
        assert new.blocked is None
    if new.state is State.QUEUED and new.place is None:
        assert new.blocked is not None, f"rule 2: {new.id} waits without a place, and is not blocked"
        assert new.promise is None, "rule 6: blocked, so nothing is promised"


def warnings_are_right(old: Reservation, new: Reservation, now: Millis) -> None:
    added = set(new.warned) - set(old.warned)
    if added and old.state is State.READY and new.state is old.state:
        assert new.ends_at is not None
        assert now < new.ends_at, f"invariant 9: {new.id} is warned after its end"
        assert all(new.ends_at - m * MINUTE <= now for m in added), "invariant 9: warned too early"
        assert added <= set(armed(new, tuple(added))), f"invariant 9: {new.id} is warned from its start on"
    if set(old.warned) - set(new.warned):
        assert new.request.hold > old.request.hold or new.state is State.STARTING, "invariant 9: forgotten"
    assert len(set(new.warned)) == len(new.warned), "invariant 9: twice"


def state_is_right(world: WorkingState, now: Millis, warn_minutes: tuple[int, ...]) -> None:
    """What holds between any two decisions, once what is due has been done."""
    for reservation in world.reservations.values():
        if reservation.state in HOLDING:
            claim = world.claims.get((reservation.id, reservation.attempt))
            assert claim is not None, f"{reservation.id} is {reservation.state} and has no claim"
            assert claim.allocation == reservation.allocation
            assert claim.hard_end == reservation.hard_end, f"{claim} differs from {reservation}"
            gang_is_whole(world, claim, reservation)
        if reservation.state in (State.STARTING, State.READY):
            assert reservation.ends_at is not None
            assert reservation.ends_at > now, f"invariant 5: {reservation.id} runs past its end"
            nodes = (world.nodes.get(part.node) for part in reservation.allocation)
            ends = [node.until for node in nodes if node is not None and node.until is not None]
            in_time = now + (max(warn_minutes) + 1) * MINUTE
            assert all(reservation.ends_at <= max(end - reservation.teardown, in_time) for end in ends), (
                f"{reservation.id} is to outlast a node that ends at {ends}"
            )
            over = reservation.access_ends_at is not None and reservation.access_ends_at <= now
            assert not over, f"invariant 13: {reservation.id} runs past the grace"
            if reservation.ready_at is not None:
                due = {m for m in warn_minutes if reservation.ends_at - m * MINUTE <= now}
                assert due <= set(reservation.warned), f"invariant 9: {reservation.id} was not warned: {due}"
        if reservation.state is State.QUEUED and reservation.place is not None:
            late = reservation.place.start <= now and reservation.id not in world.displaced
            overdue = [c for c in world.claims.values() if c.hard_end <= now]
            away = any(not world.is_up(name) for name in reservation.place.nodes)
            assert not late or away or any(in_its_way(c, reservation) for c in overdue), (
                f"rule 2: {reservation.id} is to start and waits"
            )
    names_are_unique(world)
    access_is_followed(world)
    for claim in world.claims.values():
        assert claim_due(claim, world.policy) > now, f"invariant 5: overrun of {claim.key} is not logged"


def access_is_followed(world: WorkingState) -> None:
    """13: whoever lost access waits for nothing, and runs no longer than the grace."""
    for reservation in world.reservations.values():
        person = world.people.get(reservation.owner.subject)
        revoked = person is not None and person.access is Access.REVOKED
        if reservation.state in (State.STARTING, State.READY):
            until = person.since + world.policy.revocation_grace if person is not None and revoked else None
            assert reservation.access_ends_at == until, f"invariant 13: {reservation.id} of {person}"
        assert not (revoked and reservation.state is State.QUEUED), f"invariant 13: {reservation.id} waits"


def names_are_unique(world: WorkingState) -> None:
    """Of an owner's reservations that are not being stopped, each is found by its name, and no two by one."""
    for reservation in world.reservations.values():
        if reservation.state is not State.STOPPING:
            called = reservation.request.name or reservation.id
            found = world.by_name(reservation.owner.subject, called)
            assert found is reservation, f"{called} of {reservation.owner.login} is {found}"


def in_its_way(claim: Claim, reservation: Reservation) -> bool:
    assert reservation.place is not None
    there = any(part.node in reservation.place.nodes for part in claim.allocation)
    return there or claim.subject == reservation.owner.subject


def gang_is_whole(world: WorkingState, claim: Claim, reservation: Reservation) -> None:
    shape, allocation = reservation.request.shape, claim.allocation
    names = [part.node for part in allocation]
    assert len(set(names)) == len(names) == shape.nodes, "invariant 2: all nodes or none"
    assert all(len(set(part.slots)) == shape.gpus for part in allocation), "invariant 2: all of each"
    groups = {world.nodes[name].group for name in names if name in world.nodes}
    assert len(groups) <= 1, "invariant 2: one zone and placement group"


def quotas_hold(world: WorkingState) -> None:
    held: dict[tuple[str, str], int] = {}
    most: dict[tuple[str, str], int] = {}
    for reservation in world.reservations.values():
        # Past its end on a node that is away nothing counts, and when the node is back it is too late to ask.
        if reservation.state in HOLDING and not world.claim_of(reservation).overruns:
            key = reservation.owner.subject, reservation.request.pool
            held[key] = held.get(key, 0) + reservation.request.shape.total_gpus
            most[key] = max(most.get(key, 0), reservation.cap)
    for key, gpus in held.items():
        # A lowered limit ends nothing: what was asked for before may run beside what was asked for since.
        assert gpus <= most[key], f"invariant 7: {key} holds {gpus} of {most[key]}"


def counted(latest: Mapping[str, Reservation], subject: str, period: Period, now: Millis) -> float:
    """GPU-hours that count in the present week or month, told from the last record of every reservation."""
    since, total = period.start(now), 0
    for r in latest.values():
        if r.owner.subject != subject:
            continue
        if r.ready_at is not None and r.ends_at is not None:
            hold = max(0, r.ends_at - max(r.ready_at, since))
        else:
            hold = r.request.hold if r.state in (State.QUEUED, State.STARTING) else 0
        total += r.request.shape.total_gpus * hold
    return total / HOUR


def plan_is_the_records(world: WorkingState) -> None:
    """What the plan holds is what is recorded."""
    for name, plan in world.plans.items():
        placed = {demand.key.partition("/")[0]: place for demand, place in placed_in(plan)}
        recorded = {
            r.id: r.place for r in world.queued(name) if r.place is not None and r.id not in world.displaced
        }
        assert placed == recorded
        ends = {key: o.end for key, o in plan.timetable.occupations.items()}
        assert ends == {
            f"{c.reservation}/{c.attempt}": claim_due(c, world.policy) if c.overruns else c.hard_end
            for c in world.claims.values()
            if c.pool == name
        }


def nothing_could_start_earlier(world: WorkingState, now: Millis) -> None:
    """Invariant 6, by brute force: each waiting request, all others held; and no place is impossible."""
    for name, plan in world.plans.items():
        holding = {
            n.name: PlanNode(n.name, n.gpus, n.group, n.until)
            for n in world.nodes.values()
            if n.pool == name and (n.status is NodeStatus.UP or n.grace_until is not None)
        }
        nodes = {n: node for n, node in holding.items() if world.nodes[n].status is NodeStatus.UP}
        claims = [
            oracle.Taken(o.owner if o.counts else None, o.gpus, o.nodes, o.start, o.end)
            for o in plan.timetable.occupations.values()
        ]
        placed = placed_in(plan)
        for demand, place in placed:
            others = [*claims, *(oracle.taken_by(d, p) for d, p in placed if d.key != demand.key)]
            assert oracle.feasible(holding, others, demand, place), f"rule 2: {demand} can't have {place}"
            better = oracle.earliest(nodes, others, demand, now, before=place.start)
            assert better is None, f"invariant 6: {demand} could start at {better}, not {place.start}"
        for reservation in world.queued(name):
            if reservation.blocked is not None and reservation.blocked != OWNER_UNKNOWN:
                demand = demand_anywhere(reservation)
                others = [*claims, *(oracle.taken_by(d, p) for d, p in placed)]
                start = oracle.earliest(nodes, others, demand, now)
                assert start is None, f"invariant 6: {reservation.id} is blocked, and could start at {start}"


def reasons_are_true(world: WorkingState, now: Millis) -> None:
    """What a waiting request is told is so, and is what keeps it: judged by the plan, by brute force."""
    outlook = Outlook(world.policy, world)
    for reservation in world.queued():
        text = outlook.explain(reservation, now) or ""
        words = plain(text, now)
        nodes_are_as_told(world, words)
        place = reservation.place
        if place is None:
            assert reservation.blocked is not None
            if reservation.blocked != OWNER_UNKNOWN:
                blocked_as_told(world, reservation, words, now)
        elif place.start <= now:
            assert words.startswith("about to start"), words
        elif away := [name for name in place.nodes if not world.is_up(name)]:
            # While trouble may be short, a place stays where it is, though it could be earlier elsewhere.
            assert all(node_state(name, world.nodes[name]) in words for name in away), words
        else:
            # While a node is away, its places stay, also where what they waited for has ended.
            assert waits_as_told(world, reservation, text) or world.away(place), (
                f"{reservation} starts when something ends: {words}"
            )


def nodes_are_as_told(world: WorkingState, words: str) -> None:
    for node in world.nodes.values():
        for status in NodeStatus:
            if node_state(node.name, replace(node, status=status)) in words:
                assert status is node.status is not NodeStatus.UP, (
                    f"{node.name} is {node.status}, not {words}"
                )


def blocked_as_told(world: WorkingState, reservation: Reservation, words: str, now: Millis) -> None:
    """What is named would help, and who says that nothing would is right."""
    demand, pool = demand_anywhere(reservation), reservation.request.pool
    plan = world.plans[pool]
    others = [
        *(
            oracle.Taken(o.owner if o.counts else None, o.gpus, o.nodes, o.start, o.end)
            for o in plan.timetable.occupations.values()
        ),
        *(oracle.taken_by(d, p) for d, p in placed_in(plan)),
    ]
    nodes = [n for n in world.nodes.values() if n.pool == pool]
    if " that can be used together are needed; " in words or " has no node with " in words:
        every = {n.name: PlanNode(n.name, n.gpus, n.group) for n in nodes}
        assert oracle.earliest(every, [], demand, now) is None, f"some nodes would do: {words}"
        return

    def told(node: Node) -> bool:
        ends = f"{node.name} is available only until"
        return ends in words or node_state(node.name, node) in words

    cured = {
        n.name: PlanNode(n.name, n.gpus, n.group, None if told(n) else n.until)
        for n in nodes
        if n.status is NodeStatus.UP or told(n)
    }
    assert oracle.earliest(cured, others, demand, now) is not None, f"cured, it has no place: {words}"


def waits_as_told(world: WorkingState, reservation: Reservation, text: Text) -> bool:
    """Whether one of the instants told is that of the start; what is said to end at each of them does."""
    place, plan = reservation.place, world.plan_of(reservation)
    assert place is not None
    taken = [(o.owner, o.nodes, o.end) for o in plan.timetable.occupations.values()]
    taken += [(d.owner, p.nodes, p.end) for d, p in placed_in(plan)]
    found = False
    for said in sentences_in(text):
        if said.code in ("until", "from_until"):
            at = said.values["until"]
            ends = [end for owner, _, end in taken if owner == reservation.owner.subject]
        elif said.code in ("free_by", "free_by_too"):
            at, name = said.values["at"], said.values["node"]
            assert name in place.nodes
            ends = [end for _, nodes, end in taken if name in nodes]
        else:
            continue
        found |= place.start == at
        assert at in ends, f"nothing of that ends then: {text}"
    return found


def sentences_in(text: Text | int) -> Iterator[Sentence]:
    if isinstance(text, Sentence):
        yield text
        for value in text.values.values():
            yield from sentences_in(value)


def demand_anywhere(reservation: Reservation) -> Demand:
    shape = reservation.request.shape
    length = reservation.startup + reservation.request.hold + reservation.teardown
    key, subject = reservation.id, reservation.owner.subject
    return Demand(key, subject, shape.gpus, shape.nodes, length, reservation.cap, reservation.seq)


def same_state(live: WorkingState, rebuilt: WorkingState, now: Millis) -> None:
    """Invariant 12: the history, folded and rebuilt, is the state that decisions are made on."""
    for table in ("reservations", "claims", "minted", "nodes", "limits", "spending", "next_seq"):
        assert getattr(live, table) == getattr(rebuilt, table), f"invariant 12: {table}"
    for name, plan in live.plans.items():
        other = rebuilt.plans[name]
        assert {d.key: (d, p) for d, p in placed_in(plan)} == {d.key: (d, p) for d, p in placed_in(other)}
        assert plan.timetable.occupations == other.timetable.occupations, f"invariant 12: {name}"
        for node in live.nodes:
            times = [at for o in plan.timetable.occupations.values() for at in (now, o.end - 1, o.end)]
            assert all(free_on(plan, node, t) == free_on(other, node, t) for t in times if t >= now)
